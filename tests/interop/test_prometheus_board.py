"""The Grafana board of deploy/grafana against a real Prometheus that scrapes a proxy at work: every panel shows
something."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Any

import grpc.aio
import pytest
import uvloop

from stateside.bench.messages import ACTION_SERVICE, ECHO_SERVICE, VALUE_SERVICE, echo_message

from ..integration.harness import ProxyProcess
from .program import Program
from .prometheus_server import Prometheus, program, set_up

pytestmark = pytest.mark.interop

ROOT = Path(__file__).resolve().parents[2]
BOARD = ROOT / "deploy" / "grafana" / "stateside.json"
PATIENCE_S = 40.0
# What Grafana puts in their place
VARIABLES = {"$__rate_interval": "3s", "$instance": ".*"}


def expressions() -> list[str]:
    """The query of every panel."""
    board = json.loads(BOARD.read_text())
    found = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    for variable, value in VARIABLES.items():
        found = [expression.replace(variable, value) for expression in found]
    return found


@pytest.fixture(scope="module")
def echo() -> Iterator[Program]:
    program = Program([sys.executable, "-m", "stateside.bench.echo"], ROOT, {"PYTHONUNBUFFERED": "1"})
    program.start()
    yield program
    program.close()


async def call(channel: grpc.aio.Channel, path: str, key: str) -> None:
    message = echo_message(key)
    assert await channel.unary_unary(path)(message, timeout=20) == message


async def light_load(channel: grpc.aio.Channel) -> None:
    """New entities and old ones, some of them asked twice at once; values, and an action."""
    for number in count():
        key = f"entity-{number:06}"
        await asyncio.gather(
            call(channel, f"/{ECHO_SERVICE}/Write", key),
            call(channel, f"/{ECHO_SERVICE}/Write", key),
            call(channel, f"/{ECHO_SERVICE}/Read", "entity-000000"),
            call(channel, f"/{VALUE_SERVICE}/Write", key),
            call(channel, f"/{ACTION_SERVICE}/Unary", key),
        )
        await asyncio.sleep(0.02)


@asynccontextmanager
async def under_load(port: int) -> Any:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        load = asyncio.create_task(light_load(channel))
        try:
            yield load
        finally:
            load.cancel()
            with suppress(asyncio.CancelledError):
                await load


async def unanswered(prometheus: Prometheus, wanted: list[str]) -> list[str]:
    """Those expressions that give nothing, or nothing that is a number."""
    answers = [await prometheus.query(expression) for expression in wanted]
    return [
        expression
        for expression, series in zip(wanted, answers, strict=True)
        if not any(each["value"][1] != "NaN" for each in series)
    ]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_every_panel_of_the_board_has_data(echo: Program, tmp_path: Path, workers: str) -> None:
    set_up()
    wanted = expressions()
    assert len(wanted) > 50

    async def scenario() -> None:
        port = int(echo.wait_for_output(r'"port": (\d+)')[1])
        proxy = ProxyProcess(port, tmp_path, passivation_timeout="1h", workers=workers)
        prometheus = Prometheus(tmp_path, proxy.admin_port)
        await proxy.start()
        try:
            await asyncio.to_thread(prometheus.start)
            end = monotonic() + PATIENCE_S
            async with under_load(proxy.port) as load:
                missing = wanted
                while missing and not load.done() and monotonic() < end:
                    await asyncio.sleep(0.2)
                    missing = await unanswered(prometheus, missing)
                assert not load.done(), load.exception()
                assert missing == []
        finally:
            prometheus.close()
            await proxy.terminate()

    uvloop.run(scenario())


def test_the_alerts_are_rules_that_prometheus_takes_and_each_has_its_advice() -> None:
    set_up()
    rules = ROOT / "deploy" / "prometheus" / "stateside-rules.yml"
    done = subprocess.run([program("promtool"), "check", "rules", rules], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    named = re.findall(r"alert: (\w+)", rules.read_text())
    advice = (ROOT / "docs" / "operations.md").read_text().partition("### Alerts")[2]
    assert named and [alert for alert in named if alert not in advice] == []
