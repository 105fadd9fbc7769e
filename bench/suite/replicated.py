"""Postgres: as a second copy that commands wait for (synchronous), as one that follows (asynchronous), and as the only
store; and what its single-row inserts cost."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any

from stateside.bench.native import FILL_EVENTS
from stateside.bench.postgres_server import postgres
from stateside.bench.processes import Process, Stage
from stateside.bench.works import (
    DURABLE_ENTITIES,
    DURABLE_IN_FLIGHT,
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

STEADY_RATE = 20_000  # events a second
CATCH_UP_TIMEOUT = 60.0
# Offsets in Postgres have no gaps: the last one is the number of events.
APPLIED = "SELECT coalesce(max(log_offset), 0) FROM stateside.events"
COUNTED = "SELECT count(*) FROM stateside.events"


async def postgres_sync(setting: Setting, stage: Stage) -> Figures:
    """A command is answered when Postgres has its event too; 1000 in flight."""
    async with postgres(stage) as (server, dsn):
        echo, port = await start_echo(stage)
        proxy, proxy_port = await start_proxy(stage, port, journal(stage), replica(dsn, "sync"))
        result = await write(setting, stage, proxy_port, proxy=proxy, user_function=echo, postgres=server)
        await proxy.stop()
        await check_echo(echo)
        if await asked(dsn, COUNTED) < result["calls"]:
            raise MeasurementFailed("Postgres has fewer events than commands were answered")
        return result


async def postgres_async(setting: Setting, stage: Stage) -> Figures:
    """Events by the thousand, as fast as the journal takes them, until Postgres has all."""
    events = 3 * setting.replayed_events
    async with postgres(stage) as (_, dsn):
        echo, port = await start_echo(stage)
        proxy, proxy_port = await start_proxy(stage, port, journal(stage), replica(dsn, "async"))
        begun = monotonic()
        count = events // FILL_EVENTS
        await load(stage, proxy_port, "fill", setting, entities=DURABLE_ENTITIES, count=count, in_flight=1)
        await caught_up(dsn, events)
        seconds = monotonic() - begun
        await proxy.stop()
        await check_echo(echo)
        return {"events_per_s": events / seconds}


async def postgres_lag(setting: Setting, stage: Stage) -> Figures:
    """How far Postgres is behind while 20 000 events come in each second: the most of all samples, as time."""
    async with postgres(stage) as (_, dsn):
        echo, port = await start_echo(stage)
        proxy, proxy_port = await start_proxy(stage, port, journal(stage), replica(dsn, "async"))
        rate = ("--rate", STEADY_RATE)
        writing = asyncio.ensure_future(write(setting, stage, proxy_port, rate, proxy=proxy, user_function=echo))
        behind: list[float] = []
        while not writing.done():
            await asyncio.wait([writing], timeout=SAMPLE_SECONDS)
            behind.append(await events_behind(echo, dsn))
        result = await writing
        await proxy.stop()
        await check_echo(echo)
        if not await asked(dsn, APPLIED):
            raise MeasurementFailed("nothing has come to Postgres")
        return result | {"lag_ms": max(behind) / result["calls_per_s"] * 1000}


async def postgres_store(setting: Setting, stage: Stage) -> Figures:
    """Postgres is the journal; 1000 in flight."""
    async with postgres(stage) as (server, dsn):
        echo, port = await start_echo(stage)
        proxy, proxy_port = await start_proxy(stage, port, dsn)
        result = await write(setting, stage, proxy_port, proxy=proxy, user_function=echo, postgres=server)
        await proxy.stop()
        await check_echo(echo)
        return result


async def single_inserts(setting: Setting, stage: Stage) -> Figures:
    async with postgres(stage) as (_, dsn):
        module = "stateside.bench.anchors.single_inserts"
        anchor = await stage.python(module, dsn, "--seconds", setting.seconds)
        result = await anchor.json(setting.seconds + 15)
        await anchor.stop()
        return {"rows_per_s": result["rows_per_s"]}


async def write(
    setting: Setting, stage: Stage, port: int, more: tuple[object, ...] = (), **watched: Process
) -> Figures:
    shape: dict[str, Any] = {"entities": DURABLE_ENTITIES, "in_flight": DURABLE_IN_FLIGHT, "more": more}
    return await load(stage, port, "write", setting, **(shape | watched))


def journal(stage: Stage) -> str:
    return f"lmdb:{stage.folder / 'journal'}"


def replica(dsn: str, mode: str) -> dict[str, str]:
    return {"STATESIDE_JOURNAL_REPLICA": dsn, "STATESIDE_JOURNAL_REPLICA_MODE": mode}


async def events_behind(echo: Process, dsn: str) -> float:
    """Events that the user function has emitted and Postgres has not; those that are not stored yet count too."""
    emitted = (await echo_counts(echo))["emitted"]
    return max(0, int(emitted) - await asked(dsn, APPLIED))


async def caught_up(dsn: str, events: int) -> None:
    end = monotonic() + CATCH_UP_TIMEOUT
    while (applied := await asked(dsn, APPLIED)) < events:
        if monotonic() > end:
            raise MeasurementFailed(f"Postgres has {applied} of {events} events")
        await asyncio.sleep(SAMPLE_SECONDS / 4)
    if (counted := await asked(dsn, COUNTED)) != events:
        raise MeasurementFailed(f"Postgres has {counted} events in place of {events}")


async def asked(dsn: str, query: str) -> int:
    """The number that it is answered with; 0 while there is no table."""
    import asyncpg  # of an extra of its own

    connection = await asyncpg.connect(dsn)
    try:
        return int(await connection.fetchval(query))
    except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
        return 0
    except asyncpg.PostgresError as error:
        raise MeasurementFailed(f"Postgres refused {query!r}: {error}") from error
    finally:
        await connection.close()


MEASUREMENTS: dict[str, Measurement] = {
    "postgres_sync": postgres_sync,
    "postgres_async": postgres_async,
    "postgres_lag": postgres_lag,
    "postgres_store": postgres_store,
    "single_inserts": single_inserts,
}
