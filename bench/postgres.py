"""Figures of the second copy in Postgres: how fast it is made, how far it is behind, what it costs to wait for it.

Each measurement has a Postgres cluster of its own, which waits for its disk as it comes. The asynchronous ones need no
proxy: a process appends to an LMDB journal, another replicates it (postgres_child.py).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from stateside.bench.postgres_server import PostgresServer
from stateside.bench.processes import Stage
from stateside.bench.works import (
    CONNECTIONS,
    DURABLE_ENTITIES,
    DURABLE_IN_FLIGHT,
    Figures,
    Measurement,
    Setting,
    check_echo,
    load,
    start_echo,
    start_proxy,
)

CHILD = "stateside.bench.postgres_child"
BACKLOG_PER_SECOND = 80_000  # events in the log before it is replicated, for each second of measuring
PACE = 20_000  # events a second, for the lag
ROW_CONNECTIONS = 16


@asynccontextmanager
async def cluster() -> AsyncIterator[str]:
    """A database of its own; its address."""
    server = await asyncio.to_thread(PostgresServer)
    try:
        yield (await asyncio.to_thread(server.start)).dsn
    finally:
        await asyncio.to_thread(server.remove)


async def child(stage: Stage, within: float, mode: str, **given: Any) -> Figures:
    process = await stage.python(CHILD, mode, json.dumps(given))
    result = await process.json(within)
    await process.stop()
    return result


async def replica_backlog(setting: Setting, stage: Stage) -> Figures:
    """Asynchronous replication of what is in the log already, as fast as it goes."""
    folder = str(stage.folder / "journal")
    events = round(BACKLOG_PER_SECOND * setting.seconds)
    async with cluster() as dsn:
        await child(stage, 120, "fill", folder=folder, events=events, per_s=0)
        return await child(stage, 120, "ship", folder=folder, dsn=dsn, events=events)


async def replica_lag(setting: Setting, stage: Stage) -> Figures:
    """How far asynchronous replication is behind while the journal takes PACE events a second."""
    folder = str(stage.folder / "journal")
    events = round(PACE * setting.seconds)
    async with cluster() as dsn:
        shipping = asyncio.ensure_future(child(stage, 120, "ship", folder=folder, dsn=dsn, events=events))
        filled = await child(stage, 120, "fill", folder=folder, events=events, per_s=PACE)
        shipped = await shipping
    return {"lag_s": shipped["lag_s"], "events_per_s": filled["events_per_s"]}


async def synced(setting: Setting, stage: Stage) -> Figures:
    """Durable writes through the proxy that are answered when Postgres has them, too."""
    async with cluster() as dsn:
        echo, port = await start_echo(stage)
        replica = {"STATESIDE_JOURNAL_REPLICA": dsn, "STATESIDE_JOURNAL_REPLICA_MODE": "sync"}
        proxy, proxy_port = await start_proxy(stage, port, f"lmdb:{stage.folder.resolve() / 'journal'}", replica)
        result = await load(
            stage,
            proxy_port,
            "write",
            setting,
            entities=DURABLE_ENTITIES,
            connections=CONNECTIONS,
            in_flight=DURABLE_IN_FLIGHT,
            proxy=proxy,
            user_function=echo,
        )
        await proxy.stop()
        await check_echo(echo)
    return result


async def single_rows(setting: Setting, stage: Stage) -> Figures:
    """The anchor: rows of the same size, each inserted and committed by itself, over several connections of asyncpg."""
    async with cluster() as dsn:
        seconds = setting.warmup + setting.seconds
        return await child(
            stage, seconds + 60, "rows", dsn=dsn, connections=ROW_CONNECTIONS, warmup=setting.warmup, seconds=seconds
        )


WORKS: dict[str, dict[str, Measurement]] = {
    "replica": {"replica_backlog": replica_backlog},
    "replica_lag": {"replica_lag": replica_lag},
    "synced": {"synced": synced, "single_rows": single_rows},
}
