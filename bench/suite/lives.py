"""The life of entities and of the proxy: activation, replay, many at once, streams that never end, and idleness."""

from __future__ import annotations

import asyncio
from time import monotonic_ns
from typing import Any

from stateside.bench.native import FILL_EVENTS
from stateside.bench.processes import Stage
from stateside.bench.usage import memory, with_children
from stateside.bench.works import (
    IDLE_SECONDS,
    SAMPLE_SECONDS,
    Figures,
    Measurement,
    MeasurementFailed,
    Setting,
    check_echo,
    echo_counts,
    load,
    start_echo,
    start_proxy,
)

STREAMS_PER_CONNECTION = 100
STORM_SHARE = 5  # a fifth of the many entities are called at the same moment
ENDLESS_CONNECTIONS = 2  # with one stream each
CONNECTIONS = 8


async def storm(setting: Setting, stage: Stage) -> Figures:
    """The first commands of very many entities, all in flight at once: each is looked up in the journal and gets its
    stream to the user function."""
    count = setting.many_entities // STORM_SHARE
    echo, port = await start_echo(stage)
    proxy, proxy_port = await start_proxy(stage, port, f"lmdb:{stage.folder / 'journal'}")
    shape: dict[str, Any] = {"entities": count, "count": count, "in_flight": count // CONNECTIONS}
    result = await load(stage, proxy_port, "read", setting, **shape, proxy=proxy, user_function=echo)
    counted = await check_echo(echo)
    if counted["inits"] != count:
        raise MeasurementFailed(f"{counted['inits']} activations for {count} entities")
    return result | {"activations_per_s": result["calls_per_s"]}


async def replay(setting: Setting, stage: Stage) -> Figures:
    """From the first command for a cold entity to its answer; between them lies the replay of all its events."""
    journal, events = f"lmdb:{stage.folder / 'journal'}", setting.replayed_events
    echo, port = await start_echo(stage)
    proxy, proxy_port = await start_proxy(stage, port, journal)
    await load(stage, proxy_port, "fill", setting, alone=True, count=events // FILL_EVENTS)
    await proxy.stop()
    await check_echo(echo)
    echo, port = await start_echo(stage)
    proxy, proxy_port = await start_proxy(stage, port, journal)
    result = await load(stage, proxy_port, "read", setting, alone=True, count=1)
    counted = await check_echo(echo)
    if counted["replayed"] != events:
        raise MeasurementFailed(f"{counted['replayed']} events were replayed, not {events}")
    stream_s = (counted["last_replayed_ns"] - counted["first_replayed_ns"]) / 1e9
    return {"events_per_s": events / result["max_us"] * 1e6, "stream_events_per_s": events / stream_s}


async def entities(setting: Setting, stage: Stage) -> Figures:
    """So many entities active at once, at a user function that allows few streams a connection."""
    many = setting.many_entities
    echo, port = await start_echo(stage, "--max-streams", STREAMS_PER_CONNECTION)
    proxy, proxy_port = await start_proxy(stage, port, "memory:")
    await asyncio.sleep(IDLE_SECONDS)
    before = memory(proxy.pid).resident
    result = await load(stage, proxy_port, "read", setting, entities=many, count=many)
    used = memory(proxy.pid).resident - before
    active = (await echo_counts(echo))["streams"]
    await load(stage, proxy_port, "read", setting, entities=many, count=many)
    counted = await check_echo(echo)
    return {
        "active": active,
        "kept_active": 2 * many - counted["inits"],  # those that served the second command without a new stream
        "bytes_each": used / active,
        "activations_per_s": result["calls_per_s"],
        "connections": counted["connections"],
    }


async def endless(setting: Setting, stage: Stage) -> Figures:
    """A few streamed-out calls that never rest; and how much the proxy's memory grows while they run."""
    echo, port = await start_echo(stage)
    proxy, proxy_port = await start_proxy(stage, port, "memory:")
    shape: dict[str, Any] = {"connections": ENDLESS_CONNECTIONS, "in_flight": 1}
    reading = asyncio.ensure_future(
        load(stage, proxy_port, "endless", setting, **shape, proxy=proxy, user_function=echo)
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
        "user_function_cpu_us": result["user_function_cpu_us"],
        "load_cpu_us": result["load_cpu_us"],
        "proxy_mb": result["proxy_mb"],
        "grown_mb": (max(sizes) - sizes[0]) / 1e6,
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


MEASUREMENTS: dict[str, Measurement] = {
    "storm": storm,
    "replay": replay,
    "entities": entities,
    "endless": endless,
    "idle": idle,
}
