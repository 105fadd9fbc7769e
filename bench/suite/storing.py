"""Commands that store: each is on the disk before its client hears of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stateside.bench.postgres import cluster
from stateside.bench.processes import Stage
from stateside.bench.works import (
    DURABLE_ENTITIES,
    DURABLE_IN_FLIGHT,
    RELAY_IN_FLIGHT,
    Figures,
    Measurement,
    Setting,
    check_echo,
    load,
    start_echo,
    start_proxy,
)

ZIPF = ("--distribution", "zipf", "--skew", "0.99")
MIXED_IN_FLIGHT = 64  # on each connection


async def durable(setting: Setting, stage: Stage) -> Figures:
    """Each command emits one event; 1000 in flight."""
    return await write_load(setting, stage, {})


async def durable_2000(setting: Setting, stage: Stage) -> Figures:
    return await write_load(setting, stage, {}, in_flight=2 * DURABLE_IN_FLIGHT)


async def mixed(setting: Setting, stage: Stage) -> Figures:
    """Three reads for each write; few entities get most of the commands, as in life."""
    return await write_load(setting, stage, {}, "mixed", in_flight=MIXED_IN_FLIGHT, more=ZIPF)


async def hot_write(setting: Setting, stage: Stage) -> Figures:
    """All for one entity: each waits for the flush of the one before."""
    return await write_load(setting, stage, {}, entities=1, in_flight=RELAY_IN_FLIGHT)


async def durable_slow_disk(setting: Setting, stage: Stage) -> Figures:
    """Where a flush takes a millisecond longer."""
    return await write_load(setting, stage, await slow_disk(stage))


async def value(setting: Setting, stage: Stage) -> Figures:
    """Each command replaces a value."""
    return await write_load(setting, stage, {}, "value")


async def crdt(setting: Setting, stage: Stage) -> Figures:
    """Increments of one counter, which many calls share."""
    return await write_load(setting, stage, {}, "increment", entities=1, in_flight=RELAY_IN_FLIGHT)


async def postgres_store(setting: Setting, stage: Stage) -> Figures:
    """Postgres is the journal."""
    async with cluster() as dsn:
        return await write_load(setting, stage, {"STATESIDE_JOURNAL": dsn})


async def commit_per_event(setting: Setting, stage: Stage) -> Figures:
    return await commits(setting, stage, {})


async def commit_per_event_slow_disk(setting: Setting, stage: Stage) -> Figures:
    return await commits(setting, stage, await slow_disk(stage))


async def write_load(
    setting: Setting,
    stage: Stage,
    variables: dict[str, str],
    work: str = "write",
    entities: int = DURABLE_ENTITIES,
    in_flight: int = DURABLE_IN_FLIGHT,
    more: Sequence[object] = (),
) -> Figures:
    echo, port = await start_echo(stage)
    proxy, proxy_port = await start_proxy(stage, port, f"lmdb:{stage.folder / 'journal'}", variables)
    shape: dict[str, Any] = {"entities": entities, "in_flight": in_flight}
    result = await load(stage, proxy_port, work, setting, **shape, more=more, proxy=proxy, user_function=echo)
    await proxy.stop()
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
    source = Path(__file__).parent.parent / "slow_disk.c"
    compiler = await stage.start("cc", ["cc", "-shared", "-fPIC", "-O2", "-o", str(library), str(source)])
    await compiler.stopped()
    return {"LD_PRELOAD": str(library)}


MEASUREMENTS: dict[str, Measurement] = {
    "durable": durable,
    "durable_2000": durable_2000,
    "commit_per_event": commit_per_event,
    "mixed": mixed,
    "hot_write": hot_write,
    "durable_slow_disk": durable_slow_disk,
    "commit_per_event_slow_disk": commit_per_event_slow_disk,
    "postgres_store": postgres_store,
    "value": value,
    "crdt": crdt,
}
