"""Replication of LMDB logs to Postgres: a standby that a proxy can start from (docs/journal-postgres.md).

    look at each log -> batch of records -> one transaction: events by COPY, then heads, snapshots, values, how far
                                            -> committed: the workers are told

How far each log was applied is stored in the transaction of the rows, so whatever breaks in between, the next try
begins where the last commit ended: nothing is missing, nothing is there twice. Offsets of consumers are those of an
LMDB log and mean nothing in Postgres: they are stored as what they stand for, the offset there of the next event. The
record of the node is left out, as in an export: who starts from a replica that may lag must not go on as the same
replica of CRDTs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import asyncpg

from stateside._speedups.copyrows import Head
from stateside.journal import postgres_schema as schema
from stateside.journal import postgres_standby as standby
from stateside.journal.contract import JournalError
from stateside.journal.limits import APPEND_OFFSETS, INTERNAL, NODE_ENTITY
from stateside.journal.offsets import PREFIX as OFFSETS
from stateside.journal.postgres import LOST, said
from stateside.journal.source import Batch, Consumer, Source

_OFFSETS = OFFSETS.encode()
# What belongs to an LMDB log and not to what it stores: whose it is, which of its events were moved, and were handled
# before.
_LEFT_OUT = (NODE_ENTITY.encode(), b"|moved|", b"|skip|", _OFFSETS)
_INTERNAL = INTERNAL.encode()
SEVERAL_PREFIXES = b""  # of a consumer's name that can be read in several ways: any event counts as its own


@dataclass(frozen=True, slots=True)
class ReplicatorSettings:
    """Times in seconds."""

    schema: str = "stateside"
    poll_interval: float = 0.02  # between looks at logs that had nothing new
    write_timeout: float = 30.0  # for one transaction; then the connection is taken for broken
    connect_timeout: float = 5.0
    retry_min: float = 0.1  # between tries to connect, doubled ...
    retry_max: float = 5.0  # ... up to this; also between tries after a refusal
    progress_interval: float = 10.0  # between lines about a long way to go


@dataclass(slots=True)
class Counts:
    """Since the start."""

    batches: int = 0
    events: int = 0
    values: int = 0
    records: int = 0
    bytes: int = 0
    snapshots: int = 0
    errors: int = 0
    reconnects: int = 0


@dataclass(slots=True)
class Observer:
    """Whom the replicator tells. `say(level, text, **fields)` is the log."""

    on_applied: Callable[[int, int], None] = lambda index, applied: None
    on_connected: Callable[[bool], None] = lambda connected: None
    say: Callable[..., None] = lambda level, text, **fields: None


class Replicator:
    """Ships what is behind in `sources` (one per worker, the first is the journal itself) until stopped."""

    def __init__(
        self, sources: Sequence[Source], dsn: str, settings: ReplicatorSettings, observer: Observer | None = None
    ) -> None:
        self.sources = sources
        self.dsn = dsn
        self.settings = settings
        self.observer = observer or Observer()
        self.counts = Counts()
        self.connected = False
        self.trouble = "the journal was not read yet"  # why nothing is shipped; "" while it is
        self._holder = uuid4()
        self._connection: asyncpg.Connection[Any] | None = None
        self._next_offset = 0
        self._wake = asyncio.Event()
        self._stopping = False
        self._said_progress = self._renewed = 0.0

    @property
    def seconds_behind(self) -> float:
        return max((source.samples.age(source.applied) for source in self.sources), default=0.0)

    @property
    def records_behind(self) -> int:
        return sum(source.behind for source in self.sources)

    @property
    def events_behind(self) -> int:
        """About: from the records so far."""
        return round(self.records_behind * self._per_record(self.counts.events))

    @property
    def bytes_behind(self) -> int:
        """About, as above."""
        return round(self.records_behind * self._per_record(self.counts.bytes))

    def _per_record(self, count: int) -> float:
        return count / self.counts.records if self.counts.records else 1.0

    def wake(self) -> None:
        """There is something new."""
        self._wake.set()

    def stop(self) -> None:
        """Ship what is there, then end."""
        self._stopping = True
        self._wake.set()

    # --- life --------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until stopped. Postgres may come and go meanwhile."""
        delay = self.settings.retry_min
        while not self._stopping:
            try:
                await self._connect()
                delay = self.settings.retry_min
                await self._ship_all()
            except (*LOST, TimeoutError) as error:
                self._troubled("warning", f"Postgres is away: {said(error.__context__ or error)}")
            except (JournalError, asyncpg.PostgresError) as error:
                self._troubled("error", said(error))
                delay = self.settings.retry_max
            if not self._stopping:
                await self._pause(delay)
                delay = min(delay * 2, self.settings.retry_max)
        await self._let_go()

    def _troubled(self, level: str, text: str) -> None:
        """One line for each new trouble, not one a try."""
        self.counts.errors += 1
        self._disconnect()
        if text.partition(":")[0] != self.trouble.partition(":")[0]:
            self.observer.say(level, "replication to Postgres waits", reason=text)
        self.trouble = text

    async def _connect(self) -> None:
        while not self.sources[0].open():
            await self._pause(self.settings.retry_min)
            if self._stopping:
                return
        self._connection = await asyncpg.connect(
            self.dsn,
            timeout=self.settings.connect_timeout,
            server_settings={
                "search_path": schema.quoted(self.settings.schema),
                "application_name": "stateside replicator",
                "synchronous_commit": "on",
            },
        )
        self._connection.add_termination_listener(lambda connection: self.wake())
        async with asyncio.timeout(self.settings.write_timeout):
            await schema.migrate(self._connection, self.settings.schema)
            source = self.sources[0].identity
            await standby.claim_as_replica(self._connection, self.settings.schema, source, self._holder)
            await self._resume()
        self.counts.reconnects += 1
        self.connected, self.trouble = True, ""
        self.observer.say("info", "replicating to Postgres", schema=self.settings.schema, behind=self.records_behind)
        self.observer.on_connected(True)
        for index, each in enumerate(self.sources):
            self.observer.on_applied(index, each.applied)

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()
        if self.connected:
            self.connected = False
            self.observer.on_connected(False)

    async def _let_go(self) -> None:
        """A proxy may start from the schema at once."""
        connection = self._connection
        if connection is not None:
            try:
                async with asyncio.timeout(self.settings.connect_timeout):
                    await connection.execute(standby.RELEASE, self._holder)
                    await connection.close()
            except (*LOST, asyncpg.PostgresError, TimeoutError) as error:
                self.observer.say("warning", "the replica was not released; its lease runs out", reason=said(error))
        self._disconnect()
        for source in self.sources:
            source.close()

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass  # time to look again
        self._wake.clear()

    async def _resume(self) -> None:
        """Where the last commit ended, of every log that is there."""
        assert self._connection is not None
        self._next_offset = await self._connection.fetchval(schema.NEXT_OFFSET)
        known = {row["log"]: row for row in await self._connection.fetch(standby.LOGS)}
        for source in self.sources:
            if source.open():
                await self._begin(source, known.get(source.name))
        for log, entity, offset in await self._connection.fetch(standby.POSITIONS):
            for source in self.sources:
                if source.name == log:
                    source.consumers[entity] = Consumer(offset, offset // APPEND_OFFSETS)

    async def _begin(self, source: Source, row: Any) -> None:
        assert self._connection is not None
        if row is not None and row["identity"] == source.identity:
            source.resume(row["applied"], row["checksum"])
            return
        async with self._connection.transaction():
            await self._connection.execute(standby.FORGET_POSITIONS, source.name)
            await self._connection.execute(standby.SET_LOG, source.name, source.identity)
        source.resume(0, b"")

    # --- shipping ----------------------------------------------------------------------------------------------------

    async def _ship_all(self) -> None:
        """Batch after batch; returns when stopped and nothing is left."""
        while self._connection is not None:
            shipped = False
            for index, source in enumerate(self.sources):
                shipped = await self._ship_some(index, source) or shipped
            self._tell_progress()
            if shipped:
                continue
            if self._stopping:
                return
            await self._pause(self.settings.poll_interval)
            if self._connection.is_closed():
                raise ConnectionResetError("the connection was closed")
            await self._renew()

    async def _ship_some(self, index: int, source: Source) -> bool:
        """Of one log. False: it has nothing new."""
        if not source.identity:
            if source.open():
                await self._begin(source, None)
            return False
        source.look()
        if not source.behind:
            return not source.is_swept and await self._sweep(source)
        batch = source.next_batch(self._next_offset)
        try:
            await self._store(source, batch, self._copy)
        except asyncpg.UniqueViolationError:
            await self._store(source, batch, self._copy_unknown)
        self._applied(source, batch)
        self.observer.on_applied(index, source.applied)
        return True

    def _applied(self, source: Source, batch: Batch) -> None:
        source.applied, source.checksum = batch.through, batch.rows.checksum
        source.samples.note(source.end, source.applied)
        self._next_offset = batch.rows.next_offset
        counts, rows = self.counts, batch.rows
        counts.batches += 1
        counts.events += rows.events
        counts.records += rows.records
        counts.bytes += rows.bytes_in
        counts.snapshots += len(batch.snapshots)
        counts.values += sum(head.is_value for head in rows.heads.values())

    async def _store(self, source: Source, batch: Batch, copy: Callable[[Batch], Any]) -> None:
        assert self._connection is not None
        heads = [head for head in batch.rows.heads.values() if not _is_left_out(head.entity)]
        async with asyncio.timeout(self.settings.write_timeout), self._connection.transaction():
            if batch.rows.events:
                await copy(batch)
            await self._connection.execute(
                standby.REPLICATE, self._holder, source.name, batch.first, batch.through, batch.rows.checksum,
                *self._offsets(batch), *_arguments(heads, batch.snapshots),
            )  # fmt: skip
            await self._drop_covered(batch)
            await self._store_positions(source, batch)

    def _offsets(self, batch: Batch) -> tuple[int, int]:
        return self._next_offset, batch.rows.next_offset

    async def _copy(self, batch: Batch) -> None:
        await self._copy_to("events", batch, self.settings.schema)

    async def _copy_to(self, table: str, batch: Batch, schema_name: str | None) -> None:
        assert self._connection is not None
        await self._connection.copy_to_table(
            table, source=_Once(batch.rows.finish()), schema_name=schema_name, format="binary"
        )

    async def _copy_unknown(self, batch: Batch) -> None:
        """Events of which some are stored already, because an entity moved from one worker to another. They must be
        the same."""
        assert self._connection is not None
        await self._connection.execute(standby.STAGE)
        await self._copy_to("replica_stage", batch, None)
        wrong = await self._connection.fetchrow(standby.STAGED_OTHERWISE)
        if wrong is not None:
            raise JournalError(
                f"entity {wrong['entity'].decode('utf-8', 'replace')[:200]}: another event is stored in Postgres at "
                f"sequence {wrong['sequence']}; nothing is written over: choose another postgres_schema"
            )
        await self._connection.execute(standby.UNSTAGE)

    async def _drop_covered(self, batch: Batch) -> None:
        """Of the proxy's own entities nobody reads events that a snapshot covers."""
        assert self._connection is not None
        covered = {
            entity: sequence for entity, (sequence, _) in batch.snapshots.items() if entity.startswith(_INTERNAL)
        }
        if covered:
            await self._connection.execute(schema.FORGET, list(covered), list(covered.values()))

    async def _sweep(self, source: Source) -> bool:
        """Snapshots that no record of the log told of."""
        assert self._connection is not None
        found = source.more_snapshots()
        rows = await self._connection.fetch(standby.SNAPSHOTS_OF, list(found))
        newer = [entity for entity, sequence in rows if found[entity][0] > sequence]
        if newer:
            async with asyncio.timeout(self.settings.write_timeout), self._connection.transaction():
                await self._renew()
                snapshots = [found[entity] for entity in newer]
                await self._connection.execute(
                    standby.SET_SNAPSHOTS, newer, [each[0] for each in snapshots], [each[1] for each in snapshots]
                )
        return bool(found)

    async def _renew(self) -> None:
        """Be heard of. Raises JournalError when the schema is not ours any more."""
        assert self._connection is not None
        now = asyncio.get_running_loop().time()
        if now - self._renewed < standby.LEASE / 3 and not self._connection.is_in_transaction():
            return
        async with asyncio.timeout(self.settings.write_timeout):
            if not await self._connection.fetchval(standby.RENEW, self._holder):
                raise JournalError("the schema was taken over")
        self._renewed = now

    def _tell_progress(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._said_progress == 0.0 or self.seconds_behind < self.settings.progress_interval:
            self._said_progress = now
        elif now - self._said_progress >= self.settings.progress_interval:
            self._said_progress = now
            events, seconds = self.counts.events, round(self.seconds_behind, 1)
            self.observer.say(
                "info", "replication to Postgres is behind", records=self.records_behind, seconds=seconds, events=events
            )

    # --- offsets of consumers ----------------------------------------------------------------------------------------

    async def _store_positions(self, source: Source, batch: Batch) -> None:
        assert self._connection is not None
        for entity, head in batch.rows.heads.items():
            if entity.startswith(_OFFSETS):
                offset = int.from_bytes(head.value or b"", "big")
                source.consumers[entity] = Consumer(offset, offset // APPEND_OFFSETS)
                await self._connection.execute(standby.SET_POSITION, source.name, entity, offset)
                position = await self._position(entity, source, batch)
                await self._connection.execute(standby.STORE_POSITION, entity, position.to_bytes(8, "big"))

    async def _position(self, entity: bytes, source: Source, batch: Batch) -> int:
        """The first event in Postgres that the consumer has not handled, in whichever log; where the next will be, if
        it has handled all."""
        position = batch.rows.next_offset
        for each in self.sources:
            if each.identity:
                until = batch.through if each is source else each.applied
                found = await self._next_event(each, entity, until)
                position = min(position, position if found is None else found)
        return position

    async def _next_event(self, source: Source, entity: bytes, until: int) -> int | None:
        assert self._connection is not None
        consumer = source.consumers.setdefault(entity, Consumer(0, 0))
        source.walk(consumer, prefix_of(entity), until)
        if consumer.found is None:
            return None
        offset: int | None = await self._connection.fetchval(standby.OFFSET_OF, *consumer.found)
        return offset


class _Once:
    """Bytes as a file that is read in one piece."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, size: int) -> bytes:
        data, self._data = self._data, b""
        return data


def prefix_of(position: bytes) -> bytes:
    """What the ids of a consumer's entities begin with, from the id of its offset: group, `|`, persistence id."""
    name = position.removeprefix(_OFFSETS)
    return name.partition(b"|")[2] + b"|" if name.count(b"|") == 1 else SEVERAL_PREFIXES


def _is_left_out(entity: bytes) -> bool:
    return entity.startswith(_LEFT_OUT)


def _arguments(heads: Sequence[Head], snapshots: dict[bytes, tuple[int, bytes]]) -> tuple[list[Any], ...]:
    """Of the function `replicate`, behind the offsets. The snapshot of a value is itself."""
    covered = [
        (head.last_sequence, head.value) if head.is_value else snapshots.get(head.entity, (0, None)) for head in heads
    ]
    return (
        [head.entity for head in heads],
        [head.first_sequence for head in heads],
        [head.last_sequence for head in heads],
        [head.is_value for head in heads],
        [sequence for sequence, _ in covered],
        [snapshot for _, snapshot in covered],
    )
