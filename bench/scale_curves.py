"""The scale curves: what a command costs as there are more entities, connections, bytes or events.

Each point is a stage of its own: an echo user function, a proxy, and the load generator, as in the works of suite/. A
point is a plain dict of figures. Two loads are put on most of them: a closed loop for what the proxy can do and what a
command costs it, and then half of that rate as an open loop, for latencies that are not those of a queue.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stateside.bench.messages import BODY_SIZES
from stateside.bench.processes import Process, Stage
from stateside.bench.usage import memory
from stateside.bench.works import Figures, MeasurementFailed, Setting, echo_counts, load, start_echo, start_proxy
from stateside.journal import open_journal
from stateside.journal.anyvalue import join_any
from stateside.journal.contract import Durability, Head, Journal, JournalError, Page

RELAY_ENTITIES = 64
CONNECTIONS = 8
IN_FLIGHT = 16  # on each connection
PAYLOAD_IN_FLIGHT = 4
OPEN_LOOP_PLACES = 256  # on each connection, so that no call waits for another
HALF = 0.5
STREAMS_PER_CONNECTION = 10_000  # as a compiled user function allows
MOST_ENTITIES = 2_000_000
MOST_CONNECTIONS = 20_000
ACTIVATION_SECONDS = 240  # at most, for all entities of a point
SETTLE_SECONDS = 0.5
APPENDED_AT_ONCE = 10_000
REPLAYED_IN_ALL = 200_000  # so many events are spread over cold entities, but over no more than:
MOST_COLD, FEWEST_COLD = 50, 2
SNAPSHOT = join_any("type.googleapis.com/bench.Written", bytes(1000))

Point = Callable[[Setting, Stage, int], Awaitable[Figures]]


@dataclass(frozen=True, slots=True)
class Curve:
    """One thing that grows. `values` in full, `quick_values` for a short run."""

    name: str
    measure: Point
    values: tuple[int, ...]
    quick_values: tuple[int, ...]


async def entities(setting: Setting, stage: Stage, count: int) -> Figures:
    """So many active instances, commands spread evenly over all of them."""
    echo, port = await start_echo(stage, "--max-streams", STREAMS_PER_CONNECTION)
    limits = {
        "STATESIDE_MAX_ENTITIES": str(MOST_ENTITIES),
        "STATESIDE_USER_FUNCTION_STREAMS_PER_CONNECTION": str(STREAMS_PER_CONNECTION),
    }
    proxy, proxy_port = await start_proxy(stage, port, "memory:", limits)
    before = await settled(proxy)
    each_once: dict[str, Any] = {
        "entities": count,
        "count": count,
        "in_flight": min(IN_FLIGHT, -(-count // CONNECTIONS)),
    }
    waking = await load(stage, proxy_port, "read", setting, **each_once, more=("--seconds", ACTIVATION_SECONDS))
    grown = await settled(proxy) - before
    counted = await checked(echo)
    figures = await relayed(setting, stage, proxy_port, proxy, echo, "read", entities=count)
    again = (await checked(echo))["inits"] - counted["inits"]
    if counted["streams"] < count or again:
        raise MeasurementFailed(
            f"{counted['streams']} of {count} entities were active, {again} had to be activated again"
        )
    return figures | {
        "activations_per_s": waking["calls_per_s"],
        "bytes_each": grown / count,
        "memory_mb": grown / 1e6,
        "streams": counted["streams"],
    }


async def connections(setting: Setting, stage: Stage, count: int) -> Figures:
    """So many client connections, one call at a time on each."""
    echo, port = await start_echo(stage)
    proxy, proxy_port = await start_proxy(stage, port, "memory:", {"STATESIDE_MAX_CONNECTIONS": str(MOST_CONNECTIONS)})
    before = await settled(proxy)
    shape: dict[str, Any] = {"connections": count, "in_flight": 1}
    figures = await load(stage, proxy_port, "read", setting, **shape, proxy=proxy, user_function=echo)
    await checked(echo)
    return figures | {"bytes_each": (figures["proxy_mb"] * 1e6 - before) / count}


async def payload(setting: Setting, stage: Stage, size: int) -> Figures:
    """Bodies of so many bytes, there and back."""
    echo, port = await start_echo(stage)
    proxy, proxy_port = await start_proxy(stage, port, "memory:")
    figures = await relayed(setting, stage, proxy_port, proxy, echo, f"read_{size}", in_flight=PAYLOAD_IN_FLIGHT)
    await checked(echo)
    return figures | {"mb_per_s": figures["calls_per_s"] * size / 1e6}


async def events(setting: Setting, stage: Stage, count: int) -> Figures:
    """The first command for a cold entity with so many stored events; then the same where a snapshot covers them."""
    replayed = await activation(setting, stage, count, None)
    covered = await activation(setting, stage, count, SNAPSHOT)
    return {
        "replayed_us": replayed["p50_us"],
        "covered_us": covered["p50_us"],
        "replayed_cpu_us": replayed["proxy_cpu_us"],
        "covered_cpu_us": covered["proxy_cpu_us"],
        "events_per_s": count / replayed["p50_us"] * 1e6,
    }


# In the order of a run: what takes longest is last, so that it takes no time from others.
CURVES = (
    Curve("connections", connections, (1, 10, 100, 1_000, 10_000), (1, 10, 100)),
    Curve("payload", payload, BODY_SIZES, (10, 1_000, 100_000)),
    Curve("events", events, (0, 10, 100, 1_000, 10_000, 100_000, 1_000_000), (0, 1_000, 10_000)),
    Curve("entities", entities, (1, 10, 100, 1_000, 10_000, 100_000, 1_000_000), (1, 1_000, 10_000)),
)


# --- parts of a point ------------------------------------------------------------------------------------------------


async def relayed(
    setting: Setting,
    stage: Stage,
    port: int,
    proxy: Process,
    echo: Process,
    work: str,
    *,
    entities: int = RELAY_ENTITIES,
    in_flight: int = IN_FLIGHT,
) -> Figures:
    """A closed loop, and half of its rate as an open one, whose latencies are called `half_...`."""
    spread = ("--distribution", "uniform")
    shape: dict[str, Any] = {"entities": entities, "connections": CONNECTIONS}
    most = await load(
        stage, port, work, setting, **shape, in_flight=in_flight, more=spread, proxy=proxy, user_function=echo
    )
    rate = (*spread, "--rate", most["calls_per_s"] * HALF)
    places = max(in_flight, min(OPEN_LOOP_PLACES, int(most["calls_per_s"] / CONNECTIONS)))
    half = await load(stage, port, work, setting, **shape, in_flight=places, more=rate, proxy=proxy)
    return most | {
        f"half_{name}": half[name] for name in ("calls_per_s", "proxy_cpu_us", "p50_us", "p99_us", "p999_us")
    }


async def settled(proxy: Process) -> int:
    """Resident bytes, when whatever has just begun or ended is over."""
    await asyncio.sleep(SETTLE_SECONDS)
    return memory(proxy.pid).resident


async def checked(echo: Process) -> dict[str, int]:
    """What the echo has counted. Raises MeasurementFailed if the proxy broke the protocol."""
    counted = await echo_counts(echo)
    if counted["violations"] or counted["reports"]:
        raise MeasurementFailed(f"the echo saw {counted['violations']} violations ({counted['last_violation']!r})")
    return counted


async def activation(setting: Setting, stage: Stage, count: int, snapshot: bytes | None) -> Figures:
    """One command for each of some cold entities, one after the other."""
    cold = max(FEWEST_COLD, min(MOST_COLD, REPLAYED_IN_ALL // max(1, count)))
    folder = stage.folder / ("covered" if snapshot else "replayed")
    await write_journal(folder, cold, count, snapshot)
    echo, port = await start_echo(stage)
    proxy, proxy_port = await start_proxy(stage, port, f"lmdb:{folder}")
    alone: dict[str, Any] = {"entities": cold, "count": cold, "connections": 1, "in_flight": 1}
    short = replace(setting, warmup=0.0)
    figures = await load(stage, proxy_port, "read", short, **alone, proxy=proxy)
    counted = await checked(echo)
    expected = 0 if snapshot else cold * count
    if counted["replayed"] != expected or counted["inits"] != cold:
        raise MeasurementFailed(f"{counted['replayed']} events were replayed, not {expected}")
    await proxy.stop()
    await echo.stop()
    return figures


async def write_journal(folder: Path, entities: int, events: int, snapshot: bytes | None) -> None:
    """Entities of the echo with events as it would have emitted them."""
    journal = open_journal(f"lmdb:{folder}", Durability.NONE)
    await journal.open()
    try:
        for number in range(entities if events else 0):
            await Filling(journal, f"bench-echo|entity-{number:06}").fill(events, snapshot)
    finally:
        await journal.close()


class Filling:
    """Writes one entity's log; the waiter of its own appends."""

    def __init__(self, journal: Journal, entity: str) -> None:
        self._journal = journal
        self._entity = entity
        self._appended: asyncio.Future[None]

    async def fill(self, count: int, snapshot: bytes | None) -> None:
        """`snapshot` covers all of the events."""
        for first in range(1, count + 1, APPENDED_AT_ONCE):
            last = min(count, first + APPENDED_AT_ONCE - 1)
            self._appended = asyncio.get_running_loop().create_future()
            covering = snapshot if last == count else None
            written = [event(sequence) for sequence in range(first, last + 1)]
            self._journal.append(self._entity, first, written, covering, self)
            await self._appended

    def on_appended(self, error: JournalError | None) -> None:
        if error is None:
            self._appended.set_result(None)
        else:
            self._appended.set_exception(error)

    def on_loaded(self, head: Head | None, error: JournalError | None) -> None:
        raise AssertionError("nobody asked for a head")

    def on_page(self, page: Page | None, error: JournalError | None) -> None:
        raise AssertionError("nobody asked for events")


def event(sequence: int) -> bytes:
    """An Any with a bench.Written, as native.EntityEcho writes and expects it."""
    body = bytes((sequence & 0x7F,)) * 89
    return join_any("type.googleapis.com/bench.Written", b"\x09" + struct.pack("<q", sequence) + b"\x12\x59" + body)
