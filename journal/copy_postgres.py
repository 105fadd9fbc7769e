"""A schema of Postgres as the source of a copy: events by their offsets, then values, then the proxy's own entities.

Everything is read in one transaction that sees the database as it was when the copy began, whoever writes meanwhile.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any

import asyncpg

from stateside.journal.contract import JournalError
from stateside.journal.copy_lmdb import PLACEHOLDER
from stateside.journal.copy_model import (
    BATCH_BYTES,
    BATCH_ITEMS,
    PAGE_NAMES,
    Batch,
    Consumer,
    Digest,
    Item,
    Owner,
    Place,
    Source,
    batched,
    is_copied,
    is_own,
    wanted_of,
)
from stateside.journal.limits import COPY_ENTITY, INTERNAL, MOVED_ENTITY
from stateside.journal.offsets import PREFIX as OFFSETS
from stateside.journal.offsets import SKIPPED, decode_ranges
from stateside.journal.postgres_schema import MIGRATIONS, quoted

RECORD_EVENTS = 1_000  # consecutive ones of an entity that become one append
CONNECT_TIMEOUT = 10.0  # seconds
OWN, BEHIND_OWN = b"|", b"}"  # ids of the proxy's own entities lie between
BEFORE_OWN = b"{\xff"  # behind all others that come before
NO_EVENTS = hashlib.sha256(b"").digest()

# What `client_encoding` says does not matter: ids are bytes.
_EVENTS = """
SELECT log_offset, entity, sequence, event, snapshot, covers
FROM (
    SELECT *, sum(octet_length(event) + coalesce(octet_length(snapshot), 0)) OVER (ORDER BY log_offset) AS size
    FROM (
        SELECT v.log_offset, v.entity, v.sequence, v.event, e.snapshot, e.entity IS NOT NULL AS covers
        FROM (
            SELECT * FROM events WHERE log_offset >= $1 AND (entity < $4 OR entity >= $5) ORDER BY log_offset LIMIT $2
        ) AS v
        LEFT JOIN entities e ON e.entity = v.entity AND NOT e.keeps_value AND e.snapshot_sequence = v.sequence
    ) AS found
) AS sized
WHERE size <= $3 OR log_offset = (
    SELECT min(log_offset) FROM events WHERE log_offset >= $1 AND (entity < $4 OR entity >= $5)
)
ORDER BY log_offset
"""
_VALUES = """
SELECT entity, last_sequence, snapshot
FROM (
    SELECT entity, last_sequence, snapshot, row_number() OVER (ORDER BY entity) AS place,
           sum(octet_length(snapshot)) OVER (ORDER BY entity) AS size
    FROM (
        SELECT * FROM entities
        WHERE keeps_value AND entity > $1 AND (entity < $4 OR entity >= $5) ORDER BY entity LIMIT $2
    ) AS found
) AS sized
WHERE place = 1 OR coalesce(size, 0) <= $3
ORDER BY entity
"""
_NAMES = "SELECT entity FROM entities WHERE entity > $1 AND entity < $3 ORDER BY entity LIMIT $2"
_DIGESTS = """
SELECT e.entity, e.keeps_value, e.last_sequence, e.snapshot_sequence, sha256(e.snapshot) AS snapshot, v.events, v.found
FROM entities e
LEFT JOIN LATERAL (
    SELECT sha256(string_agg(sha256(event), ''::bytea ORDER BY sequence)) AS events, count(*) AS found
    FROM events
    WHERE entity = e.entity AND (sequence > e.snapshot_sequence OR e.entity < $2 OR e.entity >= $3)
) AS v ON NOT e.keeps_value
WHERE e.entity = ANY($1)
"""
_COUNT = """
SELECT count(*) FROM entities
WHERE entity <> ALL ($1) AND (entity < $2 OR entity >= $3) AND (entity < $4 OR entity >= $5)
"""
_MARK = """
SELECT (SELECT next_offset FROM log) || ' ' || count(*) || ' ' || coalesce(sum(last_sequence), 0) || ' '
       || coalesce(sum(snapshot_sequence), 0)
FROM entities
"""


class Reading:
    """Statements on one connection whose answers a copy needs, of whichever side."""

    def __init__(self, connection: Any, label: str) -> None:
        self.connection = connection
        self.label = label

    async def pages(self) -> AsyncIterator[dict[str, Digest]]:
        after = b""
        while names := [row[0] for row in await self.fetch(_NAMES, after, PAGE_NAMES, b"\xff")]:
            after = names[-1]
            page = await self.digests_of([name for name in map(text_of, names) if is_copied(name)])
            if page:
                yield page

    async def digests_of(self, entities: Sequence[str]) -> dict[str, Digest]:
        rows = await self.fetch(_DIGESTS, [bytes_of(entity) for entity in entities], OWN, BEHIND_OWN)
        return {text_of(row["entity"]): self._digest(row) for row in rows}

    def _digest(self, row: Any) -> Digest:
        entity, last, covered = text_of(row["entity"]), row["last_sequence"], row["snapshot_sequence"]
        if row["keeps_value"]:
            return Digest("value", last, 0, row["snapshot"], None)
        behind = covered if is_own(entity) else 0
        if row["found"] != last - behind:
            raise JournalError(f"{self.label}: {entity} should have {last - behind} events and has {row['found']}")
        events = row["events"] or NO_EVENTS
        if is_own(entity):
            return Digest("own", last - covered, int(covered > 0), row["snapshot"], events)
        return Digest("events", last, covered, row["snapshot"], events)

    async def count(self) -> int:
        one, other = bytes_of(OFFSETS), bytes_of(SKIPPED)
        single = [bytes_of(COPY_ENTITY), bytes_of(MOVED_ENTITY)]
        rows = await self.fetch(_COUNT, single, one, one + b"\xff", other, other + b"\xff")
        return int(rows[0][0])

    async def fetch(self, query: str, *arguments: Any) -> list[Any]:
        try:
            rows: list[Any] = await self.connection.fetch(query, *arguments)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            raise JournalError(f"{self.label} cannot be read: {said(error)}") from error
        return rows


class PostgresSource(Source):
    """The journal in `schema` of the database that `dsn` names."""

    def __init__(self, dsn: str, schema: str) -> None:
        self.label = f"{without_password(dsn)} (schema {schema})"
        self._dsn = dsn
        self._schema = schema
        self._connection: Any = None
        self.logs = 1
        self.stages = 3

    async def open(self) -> None:
        self._connection = connection = await connect(self._dsn, self._schema)
        await check_version(connection, self._schema, self.label)
        await connection.execute("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        self._reading = Reading(connection, self.label)
        begun = (await self._fetch("SELECT applied::text FROM migrations WHERE number = 1"))[0][0]
        database = (await self._fetch("SELECT current_database()"))[0][0]
        self.identity = f"postgres {database} {self._schema} {begun}"
        self.mark = str((await self._fetch(_MARK))[0][0])
        self.steps = int(self.mark.split()[0])
        self.number_of_shards = (await self._fetch("SELECT coalesce(number_of_shards, 0) FROM log"))[0][0]
        await self._refuse_half()

    async def _refuse_half(self) -> None:
        rows = await self._fetch("SELECT snapshot FROM entities WHERE entity = $1", bytes_of(COPY_ENTITY))
        if rows and b'"done": false' in rows[0][0]:
            raise JournalError(f"{self.label} has half a copy itself; finish that first")

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()

    async def batches(self, stage: int, place: Place) -> AsyncIterator[Batch]:
        items: Callable[[Any], AsyncIterator[list[Item]]] = (self._events, self._values, self._own)[stage]
        async for found in items(place):
            for batch in batched(found):
                yield batch

    async def _events(self, place: Any) -> AsyncIterator[list[Item]]:
        offset = place or 0
        while rows := await self._fetch(_EVENTS, offset, BATCH_ITEMS, BATCH_BYTES, OWN, BEHIND_OWN):
            offset = rows[-1]["log_offset"] + 1
            yield list(_grouped(rows))

    async def _values(self, place: Any) -> AsyncIterator[list[Item]]:
        after = bytes_of(place or "")
        while rows := await self._fetch(_VALUES, after, BATCH_ITEMS, BATCH_BYTES, OWN, BEHIND_OWN):
            after = rows[-1]["entity"]
            yield [Item(name, name, version, (), value, True) for name, version, value in _named(rows)]

    async def _own(self, place: Any) -> AsyncIterator[list[Item]]:
        entity, done = place or (INTERNAL, 0)
        after = max(bytes_of(entity)[:-1], BEFORE_OWN)  # so that itself comes again
        while rows := await self._fetch(_NAMES, after, PAGE_NAMES, BEHIND_OWN):
            after = rows[-1][0]
            for name in map(text_of, (row[0] for row in rows)):
                if bytes_of(name) >= bytes_of(entity) and is_copied(name):
                    async for items in self._own_items(name):
                        yield [item for item in items if name != entity or item.last > done]

    async def _own_items(self, name: str) -> AsyncIterator[list[Item]]:
        query = "SELECT keeps_value, last_sequence, snapshot_sequence, snapshot FROM entities WHERE entity = $1"
        ((is_value, last, covered, snapshot),) = await self._fetch(query, bytes_of(name))
        if is_value:
            yield [Item([name, last], name, last, (), snapshot, True)]
            return
        if covered:
            yield [Item([name, 1], name, 1, (PLACEHOLDER,), snapshot, True)]
        renumbered = covered - 1 if covered else 0
        query = "SELECT sequence, event FROM events WHERE entity = $1 AND sequence > $2 ORDER BY sequence LIMIT $3"
        sequence = covered
        while rows := await self._fetch(query, bytes_of(name), sequence, RECORD_EVENTS):
            first, sequence = rows[0][0] - renumbered, rows[-1][0]
            yield [Item([name, sequence - renumbered], name, first, [row[1] for row in rows], None, False)]

    async def consumers(self) -> list[Consumer]:
        offsets, skipped = await self._values_of(OFFSETS), await self._values_of(SKIPPED)
        return [
            Consumer(name, 0, wanted_of(stored, decode_ranges(skipped.get(name, b""))))
            for name, stored in offsets.items()
        ]

    async def _values_of(self, prefix: str) -> dict[str, bytes]:
        query = "SELECT entity, snapshot FROM entities WHERE entity >= $1 AND entity < $2 AND snapshot IS NOT NULL"
        low = bytes_of(prefix)
        rows = await self._fetch(query, low, low + b"\xff")
        return {text_of(name).removeprefix(prefix): stored for name, stored in rows}

    async def next_event(self, log: int, offset: int, owner: Owner, member: int) -> tuple[str, int] | None:
        query = """
            SELECT log_offset, entity, sequence FROM events
            WHERE log_offset >= $1 AND (entity < $2 OR entity >= $3) ORDER BY log_offset LIMIT 1000
        """
        while rows := await self._fetch(query, offset, OWN, BEHIND_OWN):
            for at, name, sequence in rows:
                if owner(text_of(name)) == member:
                    return text_of(name), sequence
                offset = at + 1
        return None

    def digests(self) -> AsyncIterator[dict[str, Digest]]:
        return self._reading.pages()

    async def digests_of(self, entities: Sequence[str]) -> dict[str, Digest]:
        return await self._reading.digests_of(entities)

    async def count(self) -> int:
        return await self._reading.count()

    async def _fetch(self, query: str, *arguments: Any) -> list[Any]:
        return await self._reading.fetch(query, *arguments)


def _named(rows: Iterable[Any]) -> Iterable[tuple[str, int, bytes | None]]:
    return ((text_of(name), version, value) for name, version, value in rows)


def _grouped(rows: Iterable[Any]) -> Iterable[Item]:
    """Consecutive events of an entity become one append."""
    group: list[Any] = []
    for row in rows:
        if group and not _continues(group, row):
            yield _item(group)
            group = []
        group.append(row)
    if group:
        yield _item(group)


def _continues(group: list[Any], row: Any) -> bool:
    last = group[-1]
    follows = last["entity"] == row["entity"] and last["sequence"] + 1 == row["sequence"]
    return follows and not last["covers"] and len(group) < RECORD_EVENTS


def _item(group: list[Any]) -> Item:
    last, events = group[-1], [row["event"] for row in group]
    place, entity = last["log_offset"] + 1, text_of(last["entity"])
    return Item(place, entity, group[0]["sequence"], events, last["snapshot"], last["covers"])


async def connect(dsn: str, schema: str) -> Any:
    """A connection. Raises JournalError."""
    try:
        return await asyncpg.connect(
            dsn,
            timeout=CONNECT_TIMEOUT,
            server_settings={"search_path": quoted(schema), "application_name": "stateside journal"},
        )
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError, ValueError) as error:
        raise JournalError(f"{without_password(dsn)} cannot be reached: {said(error)}") from error


async def check_version(connection: Any, schema: str, label: str) -> None:
    """Raises JournalError if there is no journal, or one of another version."""
    if await connection.fetchval("SELECT to_regclass($1)", f"{quoted(schema)}.migrations") is None:
        raise JournalError(f"there is no journal in {label}")
    known = await connection.fetchval("SELECT max(number) FROM migrations")
    if known != len(MIGRATIONS):
        raise JournalError(
            f"the journal in {label} has version {known}, this program knows version {len(MIGRATIONS)}; "
            "use the program that wrote it, or start this one's proxy on it once, which brings an older one up to date"
        )


def bytes_of(entity: str) -> bytes:
    return entity.encode("utf-8", "surrogatepass")


def text_of(entity: bytes) -> str:
    return entity.decode("utf-8", "surrogatepass")


def without_password(dsn: str) -> str:
    """For messages."""
    scheme, _, rest = dsn.partition("://")
    login, at, place = rest.rpartition("@")
    return f"{scheme}://{login.partition(':')[0]}{at}{place}"


def said(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
