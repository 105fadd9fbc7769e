"""What the tests of replicas in Postgres share: sources, replicators, and the contents of both sides."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg

from stateside.journal.contract import Journal
from stateside.journal.postgres_schema import quoted
from stateside.journal.replicate import Observer, Replicator, ReplicatorSettings
from stateside.journal.source import Source
from tests.helpers.journal import list_all, load, read_all

LEFT_OUT = ("|offset|", "|node|")
PATIENCE = 30.0


class Content(NamedTuple):
    last: int
    snapshot_sequence: int
    snapshot: bytes | None
    events: list[bytes]  # of the proxy's own entities those behind the snapshot


@dataclass
class Said:
    """The replicator's log."""

    lines: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)

    def __call__(self, level: str, text: str, **fields: Any) -> None:
        self.lines.append((level, text, fields))

    def reasons(self) -> list[str]:
        return [fields["reason"] for _, _, fields in self.lines if "reason" in fields]


def replicator_of(
    folders: Sequence[Path], dsn: str, schema: str, observer: Observer | None = None, **settings: Any
) -> Replicator:
    """Of the workers' logs in these folders; quick to try again."""
    sources = [Source(f"worker-{index}", folder) for index, folder in enumerate(folders)]
    quick = {"retry_min": 0.02, "retry_max": 0.05, "poll_interval": 0.005} | settings
    return Replicator(sources, dsn, ReplicatorSettings(schema=schema, **quick), observer or Observer(say=Said()))


@asynccontextmanager
async def replicating(replicator: Replicator) -> AsyncIterator[Replicator]:
    """Running, and at the end stopped when all was shipped."""
    running = asyncio.create_task(replicator.run())
    try:
        yield replicator
    finally:
        replicator.stop()
        await asyncio.wait_for(running, PATIENCE)


async def until(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


async def shipped(replicator: Replicator, *journals: Any) -> None:
    """Until Postgres has all that these journals have flushed, in the order of the sources."""
    await until(
        lambda: (
            replicator.connected
            and all(
                source.applied >= journal.log.stored_offset
                for source, journal in zip(replicator.sources, journals, strict=True)
            )
        )
    )


async def contents(*journals: Journal) -> dict[str, Content]:
    found = {}
    for journal in journals:
        for entity in await list_all(journal, ""):
            if not entity.startswith(LEFT_OUT):
                head = await load(journal, entity)
                first = head.snapshot_sequence + 1 if entity.startswith("|") else 1
                events = await read_all(journal, entity, first)
                found[entity] = Content(head.last_sequence, head.snapshot_sequence, head.snapshot, events)
    return found


async def standby_contents(dsn: str, schema: str) -> dict[str, Content]:
    """What the tables have; the offsets of events are checked on the way."""
    connection = await asyncpg.connect(dsn, server_settings={"search_path": quoted(schema)})
    rows = await connection.fetch("SELECT * FROM entities")
    events = await connection.fetch("SELECT * FROM events ORDER BY log_offset")
    end = await connection.fetchval("SELECT next_offset FROM log")
    await connection.close()
    assert not events or events[-1]["log_offset"] < end
    found = {}
    for row in rows:
        entity = row["entity"].decode()
        if not entity.startswith(LEFT_OUT):
            found[entity] = Content(row["last_sequence"], row["snapshot_sequence"], row["snapshot"], [])
    last: dict[str, int] = {}
    for row in events:
        entity = row["entity"].decode()
        assert row["sequence"] == last.get(entity, row["sequence"] - 1) + 1, "the log has an entity's events in order"
        last[entity] = row["sequence"]
        if not entity.startswith("|") or row["sequence"] > found[entity].snapshot_sequence:
            found[entity].events.append(row["event"])
    return found
