"""The command line: options from the table of settings, one line for a mistake, and nothing heavy imported."""

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
from click.testing import CliRunner

from stateside.proxy import logs
from stateside.proxy.cli import main
from stateside.proxy.config import TABLE, Settings, load
from stateside.proxy.version import VERSION


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Settings]:
    """Settings that `stateside proxy` was started with."""
    monkeypatch.chdir(tmp_path)
    found: list[Settings] = []
    server: Any = ModuleType("stateside.proxy.server")
    server.main = found.append
    monkeypatch.setitem(sys.modules, "stateside.proxy.server", server)
    return found


def invoke(*arguments: str, env: dict[str, str] | None = None) -> Any:
    return CliRunner().invoke(main, arguments, env=env, terminal_width=300)


def test_proxy_starts_with_the_settings_of_all_places(started: list[Settings], tmp_path: Path) -> None:
    (tmp_path / "stateside.toml").write_text("stash_depth = 5\n")
    result = invoke("proxy", "--http-port", "0", "--relay-timeout", "2s", env={"USER_FUNCTION_PORT": "8081"})
    assert result.exit_code == 0, result.output
    assert started == [load({"http_port": "0", "relay_timeout": "2", "user_function_port": "8081", "stash_depth": "5"})]


@pytest.mark.parametrize("option", ["--workers=2", "--journal-replica=postgresql://h/db"])
def test_what_takes_several_processes_starts_the_supervisor(
    started: list[Settings], option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervised: list[Settings] = []
    supervisor: Any = ModuleType("stateside.proxy.supervisor")
    supervisor.main = supervised.append
    monkeypatch.setitem(sys.modules, "stateside.proxy.supervisor", supervisor)
    assert invoke("proxy", option).exit_code == 0
    assert (len(supervised), started) == (1, [])


def test_another_file_may_be_named(started: list[Settings], tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text("stash_depth = 6\n")
    assert invoke("proxy", "--config", "other.toml").exit_code == 0
    assert started[0].stash_depth == 6


@pytest.mark.parametrize(
    ("arguments", "env", "words"),
    [
        (["--http-port", "x"], {}, ["http_port = 'x'", "--http-port", "0 to 65535"]),
        ([], {"HTTP_PORT": "x"}, ["http_port = 'x'", "(HTTP_PORT)"]),
        ([], {"STATESIDE_NO": "x"}, ["STATESIDE_NO"]),
        (["--config", "no.toml"], {}, ["no.toml", "cannot be read"]),
    ],
)
def test_a_mistake_in_the_settings_is_one_line_on_stderr_and_exit_code_2(
    started: list[Settings], arguments: list[str], env: dict[str, str], words: list[str]
) -> None:
    result = invoke("proxy", *arguments, env=env)
    assert result.exit_code == 2
    assert not started
    assert result.stdout == ""
    assert result.stderr.startswith("stateside: ") and result.stderr.count("\n") == 1
    assert all(word in result.stderr for word in words)


def test_an_unknown_option_has_exit_code_2_too(started: list[Settings]) -> None:
    assert invoke("proxy", "--htp-port", "1").exit_code == 2


def test_help_shows_every_setting_with_its_default_and_variables() -> None:
    text = " ".join(invoke("proxy", "--help").output.split())
    for setting in TABLE:
        assert setting.option in text
        assert setting.variable in text
    assert "HTTP_PORT" in text


def test_version_is_told() -> None:
    assert invoke("--version").output == f"stateside, version {VERSION}\n"


def test_journal_is_attached_only_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "journal" in invoke("--help").output
    module: Any = ModuleType("stateside.journal.cli")
    module.journal = click.Group(
        "journal", commands={"look": click.Command("look", callback=lambda: click.echo("seen"))}
    )
    monkeypatch.setitem(sys.modules, "stateside.journal.cli", module)
    assert invoke("journal", "look").output == "seen\n"


def test_the_command_line_imports_nothing_heavy() -> None:
    heavy = [
        "rich",
        "structlog",
        "google.protobuf",
        "prometheus_client",
        "uvloop",
        "asyncio",
        "lmdb",
        "grpc",
        "stateside.proto",
    ]
    code = f"import sys, stateside.proxy.cli; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert result.stdout == "[]\n"


def test_the_supervisor_imports_nothing_heavy_either() -> None:
    heavy = ["rich", "google.protobuf", "prometheus_client", "uvloop", "lmdb", "grpc", "stateside.proto"]
    code = f"import sys, stateside.proxy.supervisor; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert result.stdout == "[]\n"


def log_in_a_process(code: str, *settings: str) -> str:
    setup = f"from stateside.proxy import logs, config; logs.configure(config.load(dict({','.join(settings)})));"
    result = subprocess.run([sys.executable, "-c", setup + code], check=True, capture_output=True, text=True)
    assert result.stdout == ""
    return result.stderr


def test_log_lines_are_json_with_time_level_and_part() -> None:
    line = json.loads(log_in_a_process("logs.get('router').info('ready', port=9000, key=b'x')"))
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "ready", "level": "info", "part": "router", "port": 9000, "key": "x"}


def test_log_lines_for_people_are_plain() -> None:
    text = log_in_a_process("logs.get('router').warning('ready', port=9000)", "log_format='console'")
    assert "ready" in text and "port=9000" in text and "\x1b" not in text


def test_lines_below_the_level_are_left_out() -> None:
    code = "logs.get('x').info('no'); logs.get('x').error('yes')"
    assert [json.loads(line)["event"] for line in log_in_a_process(code, "log_level='error'").splitlines()] == ["yes"]


def test_what_libraries_log_comes_out_in_the_same_form() -> None:
    code = (
        "import logging; logging.getLogger('asyncio').warning('slow %s', 5); logging.getLogger('a').warning('%d', 'x')"
    )
    lines = [json.loads(line) for line in log_in_a_process(code).splitlines()]
    assert [(line["part"], line["event"], line["level"]) for line in lines] == [
        ("asyncio", "slow 5", "warning"),
        ("a", "%d", "warning"),
    ]


def test_exceptions_are_logged_with_their_traceback_on_the_same_line() -> None:
    code = "\ntry: 1/0\nexcept ZeroDivisionError: logs.get('x').exception('failed')"
    line = json.loads(log_in_a_process(code))
    assert line["event"] == "failed" and "ZeroDivisionError" in line["exception"]


def test_logging_does_not_import_rich() -> None:
    code = "import sys; assert not [name for name in sys.modules if name.split('.')[0] == 'rich']; import rich.console"
    assert log_in_a_process(code) == ""
    assert logs.LEVELS["info"] == 20
