"""What works are made of: the processes of a stage, and the load between them.

A work is one coroutine that sets its stage, measures once and takes everything down; they stand in suite/ by what they
are about, and suite/catalogue.py lists them. A result is a plain dict of figures; targets.py says which of them is held
against which target.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stateside.bench.processes import Process, Stage

Figures = dict[str, float]

RELAY_ENTITIES = 64
CONNECTIONS = 8
RELAY_IN_FLIGHT = 16  # on each connection
DURABLE_ENTITIES = 1000
DURABLE_IN_FLIGHT = 125  # on each connection
CART_ENTITIES = 64
MANY_TIMEOUT = 60.0
LEVELS_AT_MOST = 8  # of one run of the load generator
SAMPLE_SECONDS = 0.2
IDLE_SECONDS = 1.0
PROBLEM_SHOWN_CHARS = 300
PROXY_READY = re.compile(r"Stateside serves https?://[^:]+:(\d+)")


@dataclass(frozen=True, slots=True)
class Setting:
    """Of one run: where data may lie (on a real disk), how long to measure, and how much where no clock decides."""

    folder: Path
    seconds: float
    warmup: float
    file_requests: int  # for h2load, which counts rather than times
    many_entities: int = 100_000
    replayed_events: int = 100_000


Measurement = Callable[[Setting, Stage], Awaitable[Figures]]


class MeasurementFailed(Exception):
    """The work was done wrongly, so its figure means nothing."""


async def start_echo(stage: Stage, *arguments: object) -> tuple[Process, int]:
    echo = await stage.python("stateside.bench.echo", *arguments)
    return echo, (await echo.json())["port"]


async def start_proxy(
    stage: Stage, user_function_port: int, journal: str, more: Mapping[str, str] | None = None
) -> tuple[Process, int]:
    """The proxy as an operator would start it, ready to serve; and its port."""
    variables = {
        "HTTP_PORT": "0",
        "STATESIDE_HTTP_INTERFACE": "127.0.0.1",
        "USER_FUNCTION_PORT": str(user_function_port),
        "STATESIDE_ADMIN_PORT": "0",
        "STATESIDE_METRICS_ENABLED": "false",
        "STATESIDE_JOURNAL": journal,
        "STATESIDE_LOG_LEVEL": "warning",
    }
    variables |= more or {}
    proxy = await stage.start("proxy", [str(Path(sys.executable).parent / "stateside"), "proxy"], variables)
    line = await proxy.line()
    ready = PROXY_READY.match(line)
    if ready is None:
        raise proxy.failed(f"said {line!r} in place of its address")
    return proxy, int(ready[1])


async def load(
    stage: Stage,
    port: int,
    work: str,
    setting: Setting,
    *,
    entities: int = RELAY_ENTITIES,
    connections: int = CONNECTIONS,
    in_flight: int = RELAY_IN_FLIGHT,
    count: int = -1,
    alone: bool = False,
    ca: Path | None = None,
    more: Sequence[object] = (),
    **watched: Process,
) -> Figures:
    """Run the load generator. `alone`: one call at a time to one entity; `in_flight` is of each connection; `ca`: speak
    TLS to a server whose certificate it has issued; `more`: other options of load.py. Its figures, and for each watched
    process and the generator itself (`load`) CPU microseconds a call as `<name>_cpu_us` and resident memory at the end
    as `<name>_mb`."""
    if alone:
        entities = connections = in_flight = 1
    seconds = setting.seconds if count < 0 else MANY_TIMEOUT
    shape = ["--entities", entities, "--connections", connections, "--in-flight", in_flight, "--count", count]
    times = ["--warmup", setting.warmup, "--seconds", seconds, *(["--ca", ca] if ca else []), *more]
    watch = [f"--watch={name}={process.pid}" for name, process in watched.items()]
    generator = await stage.python("stateside.bench.load", "--port", port, "--work", work, *shape, *times, *watch)
    result = await generator.json((setting.warmup + seconds) * LEVELS_AT_MOST + MANY_TIMEOUT)
    await generator.stop()
    if failed := result.pop("failed"):
        first = " ".join(result["problems"][0].split())
        raise MeasurementFailed(f"{failed} calls failed; the first: {first[:PROBLEM_SHOWN_CHARS]}")
    if not result["calls"] or 0 <= count != result["calls"]:
        raise MeasurementFailed(f"{result['calls']} calls were answered within {seconds:g} s")
    del result["problems"]
    cpu, memory = result.pop("cpu"), result.pop("memory")
    result |= {f"{name}_cpu_us": seconds / result["calls"] * 1e6 for name, seconds in cpu.items()}
    return result | {f"{name}_mb": size / 1e6 for name, size in memory.items()}


async def echo_counts(echo: Process) -> dict[str, Any]:
    """What the echo has counted so far."""
    echo.signal(signal.SIGUSR1)
    while "inits" not in (counted := await echo.json()):
        pass
    return counted


async def check_echo(echo: Process) -> dict[str, Any]:
    """Stop the echo; what it counted. Raises MeasurementFailed if the proxy broke the protocol."""
    said = await echo.stop()
    counted: dict[str, Any] = json.loads(said[-1])
    if counted["violations"] or counted["reports"]:
        rule, times = counted["last_violation"], counted["violations"]
        raise MeasurementFailed(f"the echo saw {times} violations ({rule!r}) and got {counted['reports']} reports")
    return counted


async def answering(port: int) -> None:
    """Until somebody accepts connections there."""
    for _ in range(200):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return
    raise MeasurementFailed(f"nobody listens at port {port}")
