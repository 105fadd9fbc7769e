"""`stateside load` against a real proxy and the shopping cart."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.shopping_cart.stack import port_of, proxy, user_function

SERVICE = "com.example.shoppingcart.ShoppingCart"
SETTINGS = {
    "STATESIDE_JOURNAL": "memory:",
    "STATESIDE_ADMIN_PORT": "0",
    "STATESIDE_METRICS_ENABLED": "false",
    "STATESIDE_LOG_LEVEL": "warning",
}


@pytest.fixture(scope="module")
def target() -> Iterator[str]:
    cart = user_function(0)
    cart_port = port_of(cart.start())
    sidecar = proxy(0, cart_port, SETTINGS)
    try:
        yield f"localhost:{port_of(sidecar.start())}"
    finally:
        sidecar.stop()
        cart.stop()


def load(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "stateside"), "load", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_a_mix_in_a_closed_loop(target: str, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    done = load(target, "--profile", "cart", "--duration", "0.5", "--warmup", "0.1", "--json", str(file))
    assert done.returncode == 0, done.stderr
    result = json.loads(file.read_text())
    names = [command["name"] for command in result["commands"]]
    assert names == [f"{SERVICE}/GetCart", f"{SERVICE}/AddItem", "all"]
    assert all(command["completed"] and not command["failed"] for command in result["commands"])
    assert "p99.9" in done.stdout
    assert "calls/s" in done.stderr, "a line of progress"


def test_a_constant_rate(target: str, tmp_path: Path) -> None:
    file, curve = tmp_path / "result.json", tmp_path / "result.hgrm"
    arguments = (
        "--rate",
        "300",
        "--duration",
        "1",
        "--warmup",
        "0",
        "--quiet",
        "--json",
        str(file),
        "--hgrm",
        str(curve),
    )
    done = load(target, "--profile", "cart", "--distribution", "zipf", *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    completed = json.loads(file.read_text())["commands"][-1]["completed"]
    assert 250 <= completed <= 310
    assert curve.read_text().splitlines()[-1].endswith(f"{completed:12d}]")


def test_an_answer_that_was_not_expected_is_a_failure(target: str) -> None:
    call = f'{SERVICE}/GetCart {{"userId": "{{key}}"}} => {{"items": [{{"quantity": 3}}]}}'
    done = load(target, "--call", call, "--duration", "0.2", "--warmup", "0", "--key-prefix", "empty-")
    assert done.returncode == 1
    assert "an answer is not what it has to be" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((), "what is to be called?"),
        (("--call", "GetCart"), "written SERVICE/METHOD"),
        (("--call", "shop.None/Get"), "does not know shop.None"),
        (("--call", f"{SERVICE}/Get"), "it has AddItem, RemoveItem, GetCart"),
        (("--call", f'{SERVICE}/GetCart {{"user": 1}}'), "is no com.example.shoppingcart.GetShoppingCart"),
        (("--call", f'{SERVICE}/GetCart {{"userId": "a{{key}}"}}'), "must stand alone"),
        (("--call", f"{SERVICE}/GetCart@0 {{}}"), "a weight of 0"),
        (("--call", f"{SERVICE}/GetCart ["), "must be METHOD"),
        (("--profile", "cart", "--distribution", "zipf", "--skew", "2"), "must lie between 0 and 1"),
    ],
)
def test_what_cannot_be_called_is_said(target: str, arguments: tuple[str, ...], problem: str) -> None:
    done = load(target, *arguments, "--duration", "0.2")
    assert done.returncode == 2
    assert problem in done.stderr


@pytest.mark.parametrize(
    ("address", "problem"), [("localhost:1", "cannot connect"), ("ftp://localhost", "must be host:port")]
)
def test_where_nobody_is_is_said(address: str, problem: str) -> None:
    done = load(address, "--profile", "cart")
    assert done.returncode == 2
    assert problem in done.stderr


def test_an_interrupted_run_shows_what_it_has(target: str) -> None:
    command = [str(Path(sys.executable).parent / "stateside"), "load", target, "--profile", "cart", "--duration", "30"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert running.stderr is not None
    assert "calls/s" in running.stderr.readline()
    running.send_signal(2)
    out, _ = running.communicate(timeout=20)
    assert running.returncode == 0
    assert f"{SERVICE}/GetCart" in out
