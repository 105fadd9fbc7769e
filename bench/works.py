"""The works and their anchors: each is one coroutine that sets its stage, measures once, and takes everything down.

A result is a plain dict of figures; report.py says which of them is held against which target. Rounds go over all of
them in turn, so that the works and the anchors of one round have met the same weather.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic_ns
from typing import Any

from stateside.bench.messages import MESSAGE_SIZE
from stateside.bench.native import FILL_EVENTS
from stateside.bench.processes import Process, ProcessFailed, Stage, free_port
from stateside.bench.usage import cpu_seconds, memory, with_children

Figures = dict[str, float]

RELAY_ENTITIES = 64
CONNECTIONS = 8
RELAY_IN_FLIGHT = 16  # on each connection
DURABLE_ENTITIES = 1000
DURABLE_IN_FLIGHT = 125  # on each connection
REPLAYED_EVENTS = 100_000
HOT_COUNTERS = 1
CART_ENTITIES = 64
MANY_ENTITIES = 50_000
STREAMS_PER_CONNECTION = 100
MANY_TIMEOUT = 60.0
ENDLESS_CONNECTIONS = 2  # with one stream each
SAMPLE_SECONDS = 0.2
IDLE_SECONDS = 1.0
PROBLEM_SHOWN_CHARS = 300
PROXY_READY = re.compile(r"Stateside serves http://[^:]+:(\d+)")


@dataclass(frozen=True, slots=True)
class Setting:
    """Of one run: where data may lie (on a real disk), and how long to measure."""

    folder: Path
    seconds: float
    warmup: float
    file_requests: int  # for h2load, which counts rather than times


class MeasurementFailed(Exception):
    """The work was done wrongly, so its figure means nothing."""


# --- a command that stores nothing -----------------------------------------------------------------------------------


async def relay(setting: Setting, stage: Stage) -> Figures:
    """Read-only commands through the proxy to the compiled echo."""
    echo, port = await start_echo(stage)
    proxy, proxy_port = await start_proxy(stage, port, "memory:")
    result = await load(stage, proxy_port, "read", setting, proxy=proxy, user_function=echo)
    await check_echo(echo)
    return result


async def forward(setting: Setting, stage: Stage) -> Figures:
    """The same commands, each answered by a forward to an entity of another service, which answers it."""
    echo, port = await start_echo(stage)
    proxy, proxy_port = await start_proxy(stage, port, "memory:")
    result = await load(stage, proxy_port, "forward", setting, proxy=proxy, user_function=echo)
    counted = await check_echo(echo)
    if counted["commands"] < 2 * result["calls"]:
        raise MeasurementFailed(f"{counted['commands']} commands were handled for {result['calls']} forwarded calls")
    return result


async def relay_grpc_aio(setting: Setting, stage: Stage) -> Figures:
    echo, port = await start_echo(stage)
    module = "stateside.bench.anchors.grpc_aio_relay"
    anchor = await stage.python(module, "--user-function-port", port)
    anchor_port = (await anchor.json())["port"]
    result = await load(stage, anchor_port, "read", setting, proxy=anchor, user_function=echo)
    await check_echo(echo)
    return result


async def relay_nghttpx(setting: Setting, stage: Stage) -> Figures:
    """A reverse proxy in C++ before a static file of the same size, one worker each, h2load before them."""
    for program in ("nghttpx", "nghttpd", "h2load"):
        if shutil.which(program) is None:
            raise MeasurementFailed(f"{program} is missing; scripts/setup-bench installs it")
    site = stage.folder / "site"
    site.mkdir()
    (site / "file").write_bytes(bytes(MESSAGE_SIZE))
    back, front = free_port(), free_port()
    await stage.start("nghttpd", ["nghttpd", "--no-tls", "-a", "127.0.0.1", "-d", str(site), "-n", "1", str(back)])
    nghttpx = await stage.start("nghttpx", nghttpx_command(back, front))
    await answering(back)
    await answering(front)
    pids = with_children(nghttpx.pid)
    before = sum(map(cpu_seconds, pids))
    count = setting.file_requests
    command = ["h2load", "-n", str(count), "-c", str(CONNECTIONS), "-m", str(RELAY_IN_FLIGHT), "-t", "1"]
    h2load = await stage.start("h2load", [*command, f"http://127.0.0.1:{front}/file"])
    said = "\n".join(await output(h2load))
    rate = re.search(r"finished in [\d.]+\w+, ([\d.]+) req/s", said)
    if rate is None or f"{count} succeeded" not in said:
        raise MeasurementFailed(f"h2load did not get {count} answers: {said[-500:]}")
    return {"calls_per_s": float(rate[1]), "proxy_cpu_us": (sum(map(cpu_seconds, pids)) - before) / count * 1e6}


def nghttpx_command(back: int, front: int) -> list[str]:
    return [
        "nghttpx",
        f"--frontend=127.0.0.1,{front};no-tls",
        f"--backend=127.0.0.1,{back};;proto=h2;no-tls",
        "--single-process",
        "--workers=1",
        "--log-level=ERROR",
        "--accesslog-file=/dev/null",
        "--conf=/dev/null",
    ]


# --- a command that stores an event ----------------------------------------------------------------------------------


async def durable(setting: Setting, stage: Stage) -> Figures:
    """Each command emits one event, which is on the disk before the client hears of it."""
    return await write_load(setting, stage, {})


async def durable_slow_disk(setting: Setting, stage: Stage) -> Figures:
    """The same where a flush takes a millisecond longer."""
    return await write_load(setting, stage, await slow_disk(stage))


async def commit_per_event(setting: Setting, stage: Stage) -> Figures:
    return await commits(setting, stage, {})


async def commit_per_event_slow_disk(setting: Setting, stage: Stage) -> Figures:
    return await commits(setting, stage, await slow_disk(stage))


async def value(setting: Setting, stage: Stage) -> Figures:
    """Each command replaces a value, which is on the disk before the client hears of it."""
    return await write_load(setting, stage, {}, "value")


async def crdt(setting: Setting, stage: Stage) -> Figures:
    """Increments of one counter, which many calls share; each is on the disk before its client hears of it."""
    echo, port = await start_echo(stage)
    proxy, proxy_port = await start_proxy(stage, port, f"lmdb:{stage.folder / 'journal'}")
    result = await load(stage, proxy_port, "increment", setting, entities=HOT_COUNTERS, proxy=proxy, user_function=echo)
    await check_echo(echo)
    return result


async def write_load(setting: Setting, stage: Stage, variables: dict[str, str], work: str = "write") -> Figures:
    echo, port = await start_echo(stage)
    proxy, proxy_port = await start_proxy(stage, port, f"lmdb:{stage.folder / 'journal'}", variables)
    result = await load(
        stage,
        proxy_port,
        work,
        setting,
        entities=DURABLE_ENTITIES,
        in_flight=DURABLE_IN_FLIGHT,
        proxy=proxy,
        user_function=echo,
    )
    await check_echo(echo)
    return result


async def commits(setting: Setting, stage: Stage, variables: dict[str, str]) -> Figures:
    module = "stateside.bench.anchors.commit_per_event"
    anchor = await stage.python(module, stage.folder / "journal", "--seconds", setting.seconds / 2, variables=variables)
    result = await anchor.json(setting.seconds + 15)
    await anchor.stop()
    return {"commits_per_s": result["commits_per_s"]}


async def slow_disk(stage: Stage) -> dict[str, str]:
    """Variables of a process whose every flush waits (slow_disk.c)."""
    library = stage.folder.resolve() / "slow_disk.so"
    source = Path(__file__).parent / "slow_disk.c"
    compiler = await stage.start("cc", ["cc", "-shared", "-fPIC", "-O2", "-o", str(library), str(source)])
    await compiler.stopped()
    return {"LD_PRELOAD": str(library)}


async def replay(setting: Setting, stage: Stage) -> Figures:
    """From the first command for a cold entity to its answer; between them lies the replay of all its events."""
    journal = f"lmdb:{stage.folder / 'journal'}"
    echo, port = await start_echo(stage)
    proxy, proxy_port = await start_proxy(stage, port, journal)
    await load(stage, proxy_port, "fill", setting, alone=True, count=REPLAYED_EVENTS // FILL_EVENTS)
    await proxy.stop()
    await check_echo(echo)
    echo, port = await start_echo(stage)
    proxy, proxy_port = await start_proxy(stage, port, journal)
    result = await load(stage, proxy_port, "read", setting, alone=True, count=1)
    counted = await check_echo(echo)
    if counted["replayed"] != REPLAYED_EVENTS:
        raise MeasurementFailed(f"{counted['replayed']} events were replayed, not {REPLAYED_EVENTS}")
    stream_s = (counted["last_replayed_ns"] - counted["first_replayed_ns"]) / 1e9
    return {"events_per_s": REPLAYED_EVENTS / result["max_us"] * 1e6, "stream_events_per_s": REPLAYED_EVENTS / stream_s}


# --- actions ---------------------------------------------------------------------------------------------------------


async def action(setting: Setting, stage: Stage) -> Figures:
    """Unary calls of an action, as many in flight as there are commands in `relay`."""
    echo, port = await start_echo(stage)
    proxy, proxy_port = await start_proxy(stage, port, "memory:")
    result = await load(stage, proxy_port, "action", setting, proxy=proxy, user_function=echo)
    await check_echo(echo)
    return result


async def endless(setting: Setting, stage: Stage) -> Figures:
    """A few streamed-out calls that never rest; and how much the proxy's memory grows while they run."""
    echo, port = await start_echo(stage)
    proxy, proxy_port = await start_proxy(stage, port, "memory:")
    reading = asyncio.ensure_future(
        load(
            stage,
            proxy_port,
            "endless",
            setting,
            connections=ENDLESS_CONNECTIONS,
            in_flight=1,
            proxy=proxy,
            user_function=echo,
        )
    )
    await asyncio.sleep(setting.warmup + IDLE_SECONDS)
    sizes = [memory(proxy.pid).resident]
    while not reading.done():
        sizes.append(memory(proxy.pid).resident)
        await asyncio.wait([reading], timeout=SAMPLE_SECONDS)
    result = await reading
    await check_echo(echo)
    return {
        "messages_per_s": result["calls_per_s"],
        "proxy_cpu_us": result["proxy_cpu_us"],
        "grown_mb": (max(sizes) - sizes[0]) / 1e6,
    }


# --- the support library ---------------------------------------------------------------------------------------------


async def cart(setting: Setting, stage: Stage) -> Figures:
    """Items are added and carts are read, half and half, at the example in Python."""
    user_function = await stage.python("stateside.bench.cart")
    port = (await user_function.json())["port"]
    proxy, proxy_port = await start_proxy(stage, port, "memory:")
    result = await load(
        stage, proxy_port, "cart", setting, entities=CART_ENTITIES, proxy=proxy, user_function=user_function
    )
    return result | {"calls_per_core": 1e6 / result["user_function_cpu_us"]}


# --- many entities, and none -----------------------------------------------------------------------------------------


async def entities(setting: Setting, stage: Stage) -> Figures:
    """So many entities active at once, at a user function that allows few streams a connection."""
    echo, port = await start_echo(stage, "--max-streams", STREAMS_PER_CONNECTION)
    proxy, proxy_port = await start_proxy(stage, port, "memory:")
    await asyncio.sleep(IDLE_SECONDS)
    before = memory(proxy.pid).resident
    result = await load(stage, proxy_port, "read", setting, entities=MANY_ENTITIES, count=MANY_ENTITIES)
    used = memory(proxy.pid).resident - before
    active = (await echo_counts(echo))["streams"]
    await load(stage, proxy_port, "read", setting, entities=MANY_ENTITIES, count=MANY_ENTITIES)
    counted = await check_echo(echo)
    return {
        "active": active,
        "kept_active": 2 * MANY_ENTITIES
        - counted["inits"],  # those that served the second command without a new stream
        "bytes_each": used / active,
        "activations_per_s": result["calls_per_s"],
        "connections": counted["connections"],
    }


async def idle(setting: Setting, stage: Stage) -> Figures:
    """Start of a proxy beside a user function that is there already; then its memory with nothing to do."""
    echo, port = await start_echo(stage)
    begun = monotonic_ns()
    proxy, _ = await start_proxy(stage, port, f"lmdb:{stage.folder / 'journal'}")
    ready = monotonic_ns()
    discovered = (await echo.json())["discovered_ns"]
    await asyncio.sleep(IDLE_SECONDS)
    resident = sum(memory(pid).resident for pid in with_children(proxy.pid))
    return {
        "resident_mb": resident / 1e6,
        "ready_after_discovery_ms": (ready - discovered) / 1e6,
        "ready_after_start_ms": (ready - begun) / 1e6,
    }


# --- parts of a stage ------------------------------------------------------------------------------------------------


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
    **watched: Process,
) -> Figures:
    """Run the load generator; `alone`: one call at a time to one entity. Its figures, and `<name>_cpu_us` for each
    watched process: its CPU microseconds a call."""
    if alone:
        entities = connections = in_flight = 1
    seconds = setting.seconds if count < 0 else MANY_TIMEOUT
    shape = ["--entities", entities, "--connections", connections, "--in-flight", in_flight, "--count", count]
    times = ["--warmup", setting.warmup, "--seconds", seconds]
    watch = [f"--watch={name}={process.pid}" for name, process in watched.items()]
    generator = await stage.python("stateside.bench.load", "--port", port, "--work", work, *shape, *times, *watch)
    result = await generator.json(setting.warmup + seconds + 60)
    await generator.stop()
    if failed := result.pop("failed"):
        first = " ".join(result["problems"][0].split())
        raise MeasurementFailed(f"{failed} calls failed; the first: {first[:PROBLEM_SHOWN_CHARS]}")
    if not result["calls"] or 0 <= count != result["calls"]:
        raise MeasurementFailed(f"{result['calls']} calls were answered within {seconds:g} s")
    del result["problems"]
    return result | {f"{name}_cpu_us": s / result["calls"] * 1e6 for name, s in result.pop("cpu").items()}


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


async def output(process: Process) -> list[str]:
    """Everything that a process says until it ends by itself."""
    lines = []
    while True:
        try:
            lines.append(await process.line(MANY_TIMEOUT))
        except ProcessFailed:
            return lines


Measurement = Callable[[Setting, Stage], Awaitable[Figures]]

# work -> its own measurement first, then its anchors
WORKS: dict[str, dict[str, Measurement]] = {
    "relay": {"relay": relay, "relay_grpc_aio": relay_grpc_aio, "relay_nghttpx": relay_nghttpx},
    "durable": {
        "durable": durable,
        "commit_per_event": commit_per_event,
        "durable_slow_disk": durable_slow_disk,
        "commit_per_event_slow_disk": commit_per_event_slow_disk,
    },
    "value": {"value": value, "durable": durable},
    "crdt": {"crdt": crdt},
    "forward": {"forward": forward, "relay": relay},
    "action": {"action": action, "relay": relay},
    "endless": {"endless": endless},
    "replay": {"replay": replay},
    "cart": {"cart": cart},
    "entities": {"entities": entities},
    "idle": {"idle": idle},
}
