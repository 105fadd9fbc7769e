"""Settings: where they come from, which place wins, and what a mistake is told."""

from pathlib import Path

import pytest

from stateside.proxy.config import BY_KEY, TABLE, ConfigError, Settings, load
from stateside.proxy.settings_page import configuration_page
from stateside.proxy.values import Duration, Size, show_duration, show_size

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(*args: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load(*args)  # type: ignore[arg-type]
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_without_anything_the_defaults_hold() -> None:
    settings = load()
    assert settings == Settings()
    assert (settings.http_interface, settings.http_port) == ("0.0.0.0", 9000)
    assert (settings.user_function_host, settings.user_function_port) == ("127.0.0.1", 8080)
    assert (settings.admin_interface, settings.admin_port, settings.metrics_port) == ("127.0.0.1", 8558, 9090)
    assert settings.max_inbound_message_size == 12 * 1024 * 1024
    assert (settings.relay_timeout, settings.passivation_timeout) == (60.0, 30.0)
    assert (settings.backoff_min, settings.backoff_max, settings.backoff_random_factor) == (1.0, 10.0, 0.2)


def test_every_default_is_itself_allowed_and_survives_being_written_down() -> None:
    for setting in TABLE:
        assert setting.kind.parse(setting.kind.show(setting.default)) == setting.default, setting.key


def test_file_then_environment_then_command_line_win(tmp_path: Path) -> None:
    (tmp_path / "stateside.toml").write_text("http_port = 1\nadmin_port = 2\nmetrics_port = 3\n")
    environ = {"HTTP_PORT": "11", "MANAGEMENT_PORT": "12"}
    settings = load({"http_port": "21"}, environ)
    assert (settings.http_port, settings.admin_port, settings.metrics_port) == (21, 12, 3)


@pytest.mark.parametrize(
    ("name", "text", "key", "value"),
    [
        ("HTTP_PORT", "8013", "http_port", 8013),
        ("USER_FUNCTION_HOST", "uf.local", "user_function_host", "uf.local"),
        ("USER_FUNCTION_PORT", "8081", "user_function_port", 8081),
        ("METRICS_HOST", "127.0.0.1", "metrics_host", "127.0.0.1"),
        ("METRICS_PORT", "9099", "metrics_port", 9099),
        ("MANAGEMENT_PORT", "8559", "admin_port", 8559),
    ],
)
def test_environment_names_of_the_reference_proxy_work(name: str, text: str, key: str, value: object) -> None:
    assert getattr(load({}, {name: text}), key) == value


def test_our_own_name_wins_over_the_reference_name() -> None:
    assert load({}, {"HTTP_PORT": "1", "STATESIDE_HTTP_PORT": "2"}).http_port == 2


def test_every_setting_has_an_environment_variable_and_an_option() -> None:
    environ = {setting.variable: setting.kind.show(setting.default) for setting in TABLE}
    assert load({}, environ) == Settings()
    assert len({setting.option for setting in TABLE}) == len(TABLE)


def test_values_of_the_file_may_be_toml_values_or_texts(tmp_path: Path) -> None:
    path = tmp_path / "other.toml"
    path.write_text(
        'relay_timeout = 2.5\nmax_request_size = "1M"\ndev_mode = true\nhttp_port = "7"\nbackoff_max = 20\n'
    )
    settings = load({}, {}, path)
    assert settings.relay_timeout == 2.5
    assert settings.max_request_size == 1 << 20
    assert settings.dev_mode is True
    assert settings.http_port == 7
    assert settings.backoff_max == 20.0


def test_the_environment_may_name_the_file(tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text("stash_depth = 7\n")
    assert load({}, {"STATESIDE_CONFIG": str(tmp_path / "my.toml")}).stash_depth == 7


def test_dev_mode_forgets_at_exit_and_talks_to_people_unless_told_otherwise() -> None:
    dev = load({"dev_mode": "true"})
    assert (dev.journal, dev.log_format) == ("memory:", "console")
    assert load({"dev_mode": "true", "journal": "lmdb:x"}).journal == "lmdb:x"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"http_port": "70000"}, ["http_port", "70000", "--http-port", "0 to 65535"]),
        ({"http_port": "ninethousand"}, ["http_port", "'ninethousand'", "whole number"]),
        ({"http_port": "-1"}, ["-1", "0 to 65535"]),
        ({"relay_timeout": "soon"}, ["relay_timeout", "soon", "30s, 100ms or 1m"]),
        ({"relay_timeout": "0"}, ["relay_timeout", "from 1ms to 1d"]),
        ({"relay_timeout": "inf"}, ["relay_timeout", "'inf'"]),
        ({"max_inbound_message_size": "0"}, ["max_inbound_message_size", "from 1 to"]),
        ({"max_inbound_message_size": "2G"}, ["max_inbound_message_size", "2147483647"]),
        ({"max_request_size": "12Q"}, ["max_request_size", "12Q", "512K, 12M or 1G"]),
        ({"max_hops": "0"}, ["max_hops", "from 1"]),
        ({"backoff_random_factor": "-0.1"}, ["backoff_random_factor", "from 0"]),
        ({"backoff_min": "20s"}, ["backoff_max = 10s", "backoff_min = 20s"]),
        ({"journal": "mysql:x"}, ["journal", "mysql:x", "memory:", "lmdb:"]),
        ({"durability": "maybe"}, ["durability", "maybe", "durable, relaxed, none"]),
        ({"dev_mode": "perhaps"}, ["dev_mode", "true or false"]),
        ({"log_level": "loud"}, ["log_level", "loud", "debug"]),
        ({"user_function_host": ""}, ["user_function_host", "host name"]),
        ({"user_function_socket": "x" * 108}, ["user_function_socket", "107"]),
        ({"admin_port": "9000", "http_port": "9000"}, ["admin_port = 9000", "http_port = 9000"]),
        ({"metrics_port": "9000"}, ["metrics_port = 9000", "http_port = 9000"]),
        ({"htp_port": "1"}, ["unknown key htp_port", "did you mean http_port"]),
    ],
)
def test_an_impossible_value_is_refused_naming_key_value_and_what_is_allowed(
    overrides: dict[str, str], words: list[str]
) -> None:
    text = refused({"admin_interface": "0.0.0.0"} | overrides)
    for word in words:
        assert word in text


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("http_prt = 1", ["stateside.toml", "unknown key http_prt", "did you mean http_port"]),
        ("[proxy]\nhttp_port = 1", ["unknown key proxy"]),
        ("http_port = true", ["http_port = True", "whole number"]),
        ("dev_mode = 1", ["dev_mode = 1", "true or false"]),
        ("http_port = [1]", ["http_port = [1]"]),
        ("relay_timeout = nan", ["relay_timeout = nan"]),
        ("user_function_host = 5", ["user_function_host = 5"]),
        ("http_port = ", ["stateside.toml", "not valid TOML"]),
    ],
)
def test_a_wrong_file_is_refused_naming_the_file(tmp_path: Path, toml: str, words: list[str]) -> None:
    (tmp_path / "stateside.toml").write_text(toml)
    text = refused()
    for word in words:
        assert word in text


def test_a_named_file_has_to_be_there() -> None:
    assert "no.toml: cannot be read: No such file" in refused({}, {"STATESIDE_CONFIG": "no.toml"})


def test_an_unknown_variable_of_ours_is_refused_with_a_hint() -> None:
    text = refused({}, {"STATESIDE_HTPP_PORT": "1"})
    assert "STATESIDE_HTPP_PORT" in text
    assert "did you mean STATESIDE_HTTP_PORT" in text


def test_an_impossible_value_names_the_variable_it_came_from() -> None:
    assert "(MANAGEMENT_PORT)" in refused({}, {"MANAGEMENT_PORT": "x"})


def test_variables_that_kubernetes_sets_for_services_are_passed_over() -> None:
    environ = {
        "STATESIDE_SERVICE_HOST": "10.0.0.1",
        "STATESIDE_SERVICE_PORT": "80",
        "STATESIDE_SERVICE_PORT_GRPC": "80",
        "STATESIDE_PORT": "tcp://10.0.0.1:80",
        "STATESIDE_PORT_80_TCP": "tcp://10.0.0.1:80",
        "STATESIDE_PORT_80_TCP_ADDR": "10.0.0.1",
        "STATESIDE_ADMIN_PORT": "tcp://10.0.0.2:80",
        "METRICS_PORT": "tcp://10.0.0.3:80",
        "HTTP_PORT": "tcp://10.0.0.4:80",
    }
    assert load({}, environ) == Settings()


def test_variables_of_others_do_not_matter() -> None:
    assert load({}, {"REMOTING_PORT": "2552", "SELECTOR_LABEL": "x", "PATH": "/bin"}) == Settings()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("100ms", 0.1), ("1m", 60), ("2h", 7200), ("1d", 86400), ("1.5", 1.5), ("0.5m", 30)],
)
def test_durations_have_units_or_are_seconds(text: str, seconds: float) -> None:
    assert Duration(0.001, 1e9).parse(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "size"),
    [("12M", 12 << 20), ("12m", 12 << 20), ("1GiB", 1 << 30), ("64KB", 65536), ("7", 7), ("0.5K", 512)],
)
def test_sizes_have_units_of_1024_or_are_bytes(text: str, size: int) -> None:
    assert Size(1, 1 << 40).parse(text) == size


def test_durations_and_sizes_are_shown_as_one_would_write_them() -> None:
    assert [show_duration(seconds) for seconds in (0.1, 30, 60, 90, 43200, 0, 2.5)] == [
        "100ms", "30s", "1m", "90s", "12h", "0s", "2500ms",
    ]  # fmt: skip
    assert [show_size(size) for size in (12 << 20, 1000, 1 << 40)] == ["12M", "1000", "1T"]


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        load().http_port = 1  # type: ignore[misc]


def test_the_page_of_settings_is_up_to_date() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text()
    assert text == configuration_page(), "run: python -m stateside.proxy.settings_page > docs/configuration.md"


def test_every_meaning_is_one_sentence() -> None:
    for setting in BY_KEY.values():
        assert setting.meaning.endswith(".") and len(setting.meaning) < 110, setting.key


def test_peers_are_a_list_of_addresses_from_everywhere(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text('peers = ["a.example:7600", "[::1]:7600"]\npeer_port = 7600')
    assert load(toml_path=file).peers == ("a.example:7600", "[::1]:7600")
    environ = {"STATESIDE_PEERS": "a:1, b:2 ,a:1,", "STATESIDE_PEER_PORT": "1"}
    assert load(environ=environ).peers == ("a:1", "b:2")
    assert load(environ={"STATESIDE_PEERS": ""}).peers == ()


@pytest.mark.parametrize(
    "text", ["a", "a:0", "a:65536", "a:x", "http://a:1", "a b:1", "::1:7600", "a:1;b:2", "x" * 300 + ":1"]
)
def test_what_is_no_address_of_a_peer_is_refused(text: str) -> None:
    assert "peers = " in refused({"peers": text, "peer_port": "1"})


def test_peers_need_a_port_of_their_own() -> None:
    assert "peer_port = 0" in refused({"peers": "a:1"})
    assert "peer_port = 9000" in refused({"peers": "a:1", "peer_port": "9000"})


@pytest.mark.parametrize("journal", ["memory:", "postgresql://me:secret@host/one"])
def test_only_a_journal_on_this_machine_is_replicated(journal: str) -> None:
    given = {"journal": journal, "journal_replica": "postgresql://me:secret@host/two"}
    with pytest.raises(ConfigError, match="journal_replica = postgresql://me:...@host/two: .* and journal = ") as caught:
        load(given)
    assert "secret" not in str(caught.value)
