"""What the documentation shows works: its commands run, its samples are the files they claim to be, its links lead
somewhere."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SHELL = re.compile(r"^```sh\n(.*?)^```", re.M | re.S)
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
# Run by their own tests or by CI itself; here it is enough that make knows the target.
MAKE_ONLY_KNOWN = {
    *("run", "test", "soak", "lint", "types", "proto", "load", "replicated"),
    *("bench", "bench-kernels", "scale", "flame"),
}

QUIET = {
    "HTTP_PORT": "0",
    "STATESIDE_ADMIN_PORT": "0",
    "STATESIDE_METRICS_ENABLED": "false",
    "STATESIDE_LOG_LEVEL": "warning",
}


def commands() -> list[str]:
    """Every command line of every page, without its comment."""
    found = []
    for page in PAGES:
        for block in SHELL.findall(page.read_text()):
            found += [line.split("  #")[0].strip() for line in block.splitlines() if line.strip()]
    return sorted(set(found))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with the journal that a reader has after the tour."""
    folder = tmp_path_factory.mktemp("reader")
    lines = (ROOT / "tests" / "integration" / "tour.jsonl").read_text()
    run(["stateside", "journal", "import", "-"], folder, lines)
    return folder


def run(arguments: list[str], folder: Path, text: str = "") -> str:
    """Run a command of the project; its output. It has to succeed."""
    program = [str(Path(sys.executable).parent / arguments[0]), *arguments[1:]]
    done = subprocess.run(program, cwd=folder, input=text, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("command", commands())
def test_a_command_of_the_documentation_works(command: str, folder: Path) -> None:
    arguments = shlex.split(command)
    if arguments[0] == "make":
        target = arguments[1]
        assert subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, timeout=60).returncode == 0
        assert target in MAKE_ONLY_KNOWN
    elif arguments[:2] == ["stateside", "proxy"] and len(arguments) == 2:
        start_and_stop(folder)
    else:
        assert run(arguments, folder).strip()


def start_and_stop(folder: Path) -> None:
    """The proxy waits for its user function, and stops cleanly when told so."""
    program = [str(Path(sys.executable).parent / "stateside"), "proxy"]
    environment = os.environ | QUIET | {"USER_FUNCTION_PORT": "1", "STATESIDE_LOG_LEVEL": "info"}
    with subprocess.Popen(program, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True) as proxy:
        assert proxy.stderr is not None
        assert "not available" in proxy.stderr.readline()
        proxy.send_signal(signal.SIGTERM)
        assert proxy.wait(20) == 0


def test_the_demo_prints_the_same_cart_before_and_after(tmp_path: Path) -> None:
    """`make demo`, in a folder of its own."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    program = [sys.executable, "-m", "examples.shopping_cart.demo"]
    done = subprocess.run(program, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    before, after = done.stdout.split("kill -9 of the proxy ... and a new one\n")
    cart = before.removeprefix("The cart before\n")
    assert after == f"The cart after\n{cart}the same cart\n"


def test_the_sample_of_the_readme_is_the_file_and_short() -> None:
    sample = (ROOT / "examples" / "readme_sample.py").read_text()
    assert f"```python\n{sample}```" in (ROOT / "README.md").read_text()
    assert len(sample.splitlines()) < 30


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    missing = [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()]
    assert missing == []
