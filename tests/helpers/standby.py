"""What the tests of replicas in Postgres share: sources, replicators, and the contents of both sides."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg

from stateside.journal.contract import Journal
from stateside.journal.postgres_schema import quoted
from tests.helpers.journal import list_all, load, read_all

LEFT_OUT = ("|offset|", "|node|")
PREFIXES = ("cart|", "value|", "other|", "|crdt|", "echo|")  # of all entities in these tests
PATIENCE = 30.0


class Content(NamedTuple):
    last: int
    snapshot_sequence: int
    snapshot: bytes | None
    events: list[bytes]  # of the proxy's own entities those behind the snapshot


class Remote:
    """A replicator's process; its attributes are those of the last line that it said."""

    def __init__(self, folders: Sequence[Path], dsn: str, schema: str, lease: float, socket: str) -> None:
        settings = {"schema": schema, "retry_min": 0.02, "retry_max": 0.05, "poll_interval": 0.005}
        self._given = {
            "folders": [str(folder) for folder in folders],
            "dsn": dsn,
            "settings": settings,
            "lease": lease,
            "socket": socket,
        }
        self.connected = False
        self.trouble = ""
        self.applied = [0] * len(folders)
        self.swept = [False] * len(folders)
        self.behind = self.events = self.batches = self.errors = 0
        self.seconds = 0.0
        self.reasons: list[str] = []

    async def start(self) -> None:
        command = [sys.executable, "-m", "tests.helpers.standby_process", json.dumps(self._given)]
        self._process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, limit=1 << 20)
        self._listening = asyncio.create_task(self._listen())

    async def stop(self) -> None:
        """When all was shipped."""
        if self._process.returncode is None:
            self._process.terminate()
        await asyncio.wait_for(self._listening, PATIENCE)
        await self._process.wait()

    async def kill(self) -> None:
        self._process.kill()
        await self._listening
        await self._process.wait()
        self.connected = False

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            try:
                said = json.loads(line)
            except ValueError:
                return  # killed in the middle of it
            for name, value in said.items():
                setattr(self, name, value)


@asynccontextmanager
async def replicating(
    folders: Sequence[Path], dsn: str, schema: str, lease: float = 10.0, socket: str = ""
) -> AsyncIterator[Remote]:
    """A replicator of the workers' logs in these folders; at the end stopped when all was shipped."""
    remote = Remote(folders, dsn, schema, lease, socket)
    await remote.start()
    try:
        yield remote
    finally:
        await remote.stop()


async def until(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


async def shipped(remote: Remote, *journals: Any) -> None:
    """Until Postgres has all that these journals have flushed, in the order of the folders."""
    await until(
        lambda: (
            remote.connected
            and all(
                applied >= journal.log.stored_offset for applied, journal in zip(remote.applied, journals, strict=True)
            )
        )
    )


async def contents(*journals: Journal) -> dict[str, Content]:
    found = {}
    for journal in journals:
        for prefix in PREFIXES:
            for entity in await list_all(journal, prefix):
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
