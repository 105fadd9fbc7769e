"""A schema of Postgres as the target of a copy.

A batch is one transaction: the events by COPY, the entities, the next offset, and how far the copy has come, as the
value of an entity of the proxy's own. So a copy that was killed goes on exactly where it was. Until that value says
that the copy is complete, no proxy opens the journal.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg

from stateside.journal.contract import JournalError
from stateside.journal.copy_model import Batch, CopyState, Digest, Item, Target, refuse_other
from stateside.journal.copy_postgres import Reading, bytes_of, connect, said, without_password
from stateside.journal.limits import COPY_ENTITY
from stateside.journal.postgres_schema import migrate
from stateside.journal.postgres_standby import enter_as_journal

COPY_LOCK = 0x436F7079
_COLUMNS = ("entity", "sequence", "log_offset", "epoch", "event")
_ENTITIES = """
INSERT INTO entities AS e (entity, last_sequence, epoch, keeps_value, snapshot_sequence, snapshot)
SELECT entity, last, 0, is_value, covered, snapshot
FROM unnest($1::bytea[], $2::bigint[], $3::boolean[], $4::bigint[], $5::bytea[])
    AS g(entity, last, is_value, covered, snapshot)
ON CONFLICT (entity) DO UPDATE SET
    last_sequence = excluded.last_sequence,
    snapshot = CASE WHEN excluded.snapshot_sequence > 0 THEN excluded.snapshot ELSE e.snapshot END,
    snapshot_sequence = CASE WHEN excluded.snapshot_sequence > 0 THEN excluded.snapshot_sequence
                             ELSE e.snapshot_sequence END
"""
_OFFSET = """
INSERT INTO entities AS e (entity, last_sequence, epoch, keeps_value, snapshot_sequence, snapshot)
VALUES ($1, 1, 0, true, 1, $2)
ON CONFLICT (entity) DO UPDATE SET
    last_sequence = e.last_sequence + 1, snapshot_sequence = e.last_sequence + 1, snapshot = excluded.snapshot
"""


class PostgresTarget(Target):
    """The schema `schema`, made if it is not there, in the database that `dsn` names."""

    def __init__(self, dsn: str, schema: str) -> None:
        self.label = f"{without_password(dsn)} (schema {schema})"
        self._dsn = dsn
        self._schema = schema
        self._connection: Any = None

    async def open(self, state: CopyState) -> CopyState:
        self._connection = await connect(self._dsn, self._schema)
        self._reading = Reading(self._connection, self.label)
        try:
            await migrate(self._connection, self._schema)
        except asyncpg.PostgresError as error:
            raise JournalError(f"{self.label} cannot be made ready: {said(error)}") from error
        # Transactions become durable in their order, and `finish` waits for the last one.
        await self._connection.execute("SET synchronous_commit = off")
        await self._refuse_company()
        if await self._connection.fetchval("SELECT kind FROM role") == "replica":
            raise JournalError(f"{self.label} is a replica of another journal; choose another schema")
        await enter_as_journal(self._connection, self._schema)
        stored = await self._stored_state()
        if stored is not None:
            found = CopyState.from_json(stored)
            refuse_other(found, state, self.label)
            return found
        if await self._reading.fetch("SELECT 1 FROM entities LIMIT 1"):
            raise JournalError(f"{self.label} has a journal already; choose another schema, or drop this one")
        await self._connection.execute(_OFFSET, bytes_of(COPY_ENTITY), state.to_json())
        return state

    async def _refuse_company(self) -> None:
        """A lock of the session: it ends with the connection, however that ends."""
        query = "SELECT pg_try_advisory_lock($1, hashtext($2))"
        if not await self._connection.fetchval(query, COPY_LOCK, self._schema):
            raise JournalError(f"somebody else is copying into {self.label} at this moment")

    async def _stored_state(self) -> bytes | None:
        query = "SELECT snapshot FROM entities WHERE entity = $1"
        stored: bytes | None = await self._connection.fetchval(query, bytes_of(COPY_ENTITY))
        return stored

    async def store(self, batch: Batch, state: CopyState) -> None:
        try:
            async with self._connection.transaction():
                await self._store(batch)
                await self._connection.execute(_OFFSET, bytes_of(COPY_ENTITY), state.to_json())
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            raise JournalError(f"{self.label} did not take what was copied: {said(error)}; run it again") from error

    async def _store(self, batch: Batch) -> None:
        offset = await self._connection.fetchval("SELECT next_offset FROM log FOR UPDATE")
        rows = []
        for item in batch.items:
            name = bytes_of(item.entity)
            for sequence, event in enumerate(item.events, item.first):
                rows.append((name, sequence, offset, 0, event))
                offset += 1
        if rows:
            await self._connection.copy_records_to_table(
                "events", records=rows, columns=_COLUMNS, schema_name=self._schema
            )
        await self._connection.execute(_ENTITIES, *_entities(batch.items))
        await self._connection.execute("UPDATE log SET next_offset = $1", offset)

    async def settle(self) -> None:
        await self._connection.execute("ANALYZE entities, events")

    def digests(self) -> AsyncIterator[dict[str, Digest]]:
        return self._reading.pages()

    async def digests_of(self, entities: Sequence[str]) -> dict[str, Digest]:
        return await self._reading.digests_of(entities)

    async def count(self) -> int:
        return await self._reading.count()

    def owner(self, entity: str) -> int:
        return 0

    async def offset_of(self, log: int, entity: str, sequence: int) -> int:
        query = "SELECT log_offset FROM events WHERE entity = $1 AND sequence = $2"
        rows = await self._reading.fetch(query, bytes_of(entity), sequence)
        if not rows:
            raise JournalError(f"{self.label}: sequence {sequence} of {entity} is missing in the copy")
        return int(rows[0][0])

    async def end(self, log: int) -> int:
        return int((await self._reading.fetch("SELECT next_offset FROM log"))[0][0])

    async def store_offsets(self, offsets: Sequence[tuple[int, str, bytes]]) -> None:
        rows = [(bytes_of(entity), value) for _, entity, value in offsets]
        await self._connection.executemany(_OFFSET, rows)

    async def finish(self, state: CopyState) -> None:
        await self._connection.execute("SET synchronous_commit = on")
        await self._connection.execute(_OFFSET, bytes_of(COPY_ENTITY), state.to_json())

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()


def _entities(items: Sequence[Item]) -> tuple[list[Any], ...]:
    """Columns, with one row for each entity."""
    last: dict[str, Item] = {}
    covering: dict[str, Item] = {}
    for item in items:
        last[item.entity] = item
        if item.covers:
            covering[item.entity] = item
    snapshots = [covering.get(entity) for entity in last]
    return (
        [bytes_of(entity) for entity in last],
        [item.last for item in last.values()],
        [item.is_value for item in last.values()],
        [0 if item is None else item.last for item in snapshots],
        [None if item is None else item.snapshot for item in snapshots],
    )
