"""The journal in Postgres: the only store of a proxy, or of several (docs/journal-postgres.md).

Appends are gathered while the last batch is on its way and then go together, in one call of a function that is a
transaction of its own; loads of one loop turn go together too. When the connection is lost while a batch is under way
its outcome is unknown: the same batch is sent again under its number, and the server, which remembers the last one,
answers what came of it. Appends wait so for `write_timeout`, then they fail; while there is no connection new ones fail
at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import asyncpg

from stateside.journal import postgres_schema as schema
from stateside.journal import postgres_standby as standby
from stateside.journal.contract import (
    Durability,
    Full,
    Head,
    Journal,
    JournalError,
    ListWaiter,
    LogEntry,
    LogPage,
    LogWaiter,
    Page,
    TooLarge,
    Waiter,
)
from stateside.journal.limits import (
    check_append,
    check_list,
    check_put,
    check_read,
    check_read_log,
    entity_error,
    shards_error,
)
from stateside.journal.postgres_batch import EVENTS, RESTORED, VALUE, Append, Batch, Outcome
from stateside.journal.sharding import EntityShards

SCAN_OFFSETS = 100_000  # of the log looked at in one read
LOG_PAGE_BYTES = 1 << 20
READ_ROWS = 10_000
MAX_FORGETS = 10_000  # entities whose covered events wait to be deleted
LARGEST = 1 << 29  # Postgres ends at 1 GB for a whole message; one append has to stay well below
# What a server answers when it has no space.
_FULL = (asyncpg.DiskFullError, asyncpg.OutOfMemoryError)
LOST = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what asyncpg says of a connection that broke in the middle of an answer
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
)


@dataclass(frozen=True, slots=True)
class PostgresSettings:
    """Bounds of one Postgres journal. Sizes in bytes, times in seconds."""

    schema: str = "stateside"
    readers: int = 4  # connections for reading, beside the one that writes
    queue_bytes: int = 64 << 20  # gathered while a batch is under way; above: Full
    batch_bytes: int = 4 << 20
    write_timeout: float = 5.0  # for the answer to a batch, lost connections and all
    read_timeout: float = 30.0
    connect_timeout: float = 5.0
    retry_interval: float = 0.25  # between tries to connect again


class PostgresJournal(Journal):
    """A journal in the database that `dsn` (postgresql://user:password@host:port/database) names.

    `on_broken` is called once, when somebody else has claimed what this one did: the process must stop.
    """

    is_shared = True

    def __init__(
        self,
        dsn: str,
        durability: Durability = Durability.DURABLE,
        settings: PostgresSettings | None = None,
        on_broken: Callable[[JournalError], None] | None = None,
    ) -> None:
        super().__init__()
        self.dsn = dsn
        self.durability = durability
        self.settings = settings or PostgresSettings()
        self.appends = self.events = self.batches = self.reconnects = 0
        self.queued_bytes = 0
        self.epoch = 0  # of the latest claim
        self.on_broken = on_broken
        self._shards: EntityShards | None = None  # their number is not known
        self._writer = uuid4()
        self._waiting: deque[Append] = deque()
        self._wake = asyncio.Event()
        self._loads: dict[str, list[Waiter]] = {}
        self._loading = False
        self._forgets: dict[bytes, int] = {}
        self._reads: set[asyncio.Task[None]] = set()
        self._pool: asyncpg.Pool[Any] | None = None
        self._connection: asyncpg.Connection[Any] | None = None
        self._writing: asyncio.Task[None] | None = None
        self._closing = False

    # --- life --------------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        try:
            self._connection = await self._connect()
            await schema.migrate(self._connection, self.settings.schema)
            await standby.enter_as_journal(self._connection, self.settings.schema)
            self._know_shards(await self._connection.fetchval(schema.NUMBER_OF_SHARDS))
            self._pool = await asyncpg.create_pool(
                self.dsn,
                min_size=1,
                max_size=self.settings.readers,
                timeout=self.settings.connect_timeout,
                server_settings=self._server_settings(),
            )
            await self._follow(self._connection)
        except (*LOST, asyncpg.PostgresError, TimeoutError, ValueError) as error:
            raise JournalError(f"journal in Postgres: cannot be opened: {said(error)}") from error
        self._writing = asyncio.create_task(self._write())

    async def close(self) -> None:
        self._closing = True
        self._wake.set()
        if self._writing is not None:
            await self._writing
        for task in list(self._reads):
            await asyncio.wait([task])
        if self._pool is not None:
            await self._pool.close()
        await self._hang_up()

    async def claim(self, shards: Collection[int], number_of_shards: int) -> int:
        [row] = await self._fetch(schema.CLAIM, sorted(shards), number_of_shards)
        if row["claim"] < 0:
            where = f"journal in Postgres, schema {self.settings.schema!r}"
            raise shards_error(where, -row["claim"], number_of_shards)
        self._know_shards(number_of_shards)
        self.epoch = row["claim"]
        return self.epoch

    def _know_shards(self, number: int | None) -> None:
        self._shards = EntityShards(number) if number else None

    @property
    def writable(self) -> bool:
        return self._connection is not None and not self._closing

    async def _connect(self) -> asyncpg.Connection[Any]:
        return await asyncpg.connect(
            self.dsn, timeout=self.settings.connect_timeout, server_settings=self._server_settings()
        )

    async def _follow(self, connection: asyncpg.Connection[Any]) -> None:
        """Hear of events of other processes, and of those that they stored before this moment."""
        try:
            async with asyncio.timeout(self.settings.connect_timeout):
                await connection.add_listener(standby.channel_of(self.settings.schema), self._on_notified)
        except BaseException:
            connection.terminate()
            raise
        self._tell_listeners()

    def _on_notified(self, connection: object, pid: int, channel: str, payload: object) -> None:
        """Events were committed. Of our own, whoever waits for them has been told."""
        if self._connection is not None and pid != self._connection.get_server_pid():
            self._tell_listeners()

    def _server_settings(self) -> dict[str, str]:
        committed = "on" if self.durability == Durability.DURABLE else "off"
        return {
            "search_path": schema.quoted(self.settings.schema),
            "application_name": "stateside",
            "synchronous_commit": committed,
        }

    def _disconnect(self) -> None:
        """At once: what the server still does for us is of no interest."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                await connection.close(timeout=self.settings.connect_timeout)
            except (*LOST, TimeoutError):
                connection.terminate()

    # --- writing -----------------------------------------------------------------------------------------------------

    def append(
        self,
        entity: str,
        first_sequence: int,
        events: Sequence[bytes],
        snapshot: bytes | None,
        waiter: Waiter,
        epoch: int = 0,
    ) -> None:
        check_append(first_sequence, events, snapshot)
        epoch = epoch or self._epoch_of(entity)
        self._enqueue(Append(entity, EVENTS, first_sequence, events, snapshot is not None, snapshot, epoch, waiter))

    def put(self, entity: str, version: int, value: bytes | None, waiter: Waiter, epoch: int = 0) -> None:
        check_put(version)
        epoch = epoch or self._epoch_of(entity)
        self._enqueue(Append(entity, VALUE, version, (), True, value, epoch, waiter))

    def _epoch_of(self, entity: str) -> int:
        """What is in no shard is written by whoever needs it, and so under no epoch."""
        return self.epoch if self._shards is not None and self._shards.shard(entity) is not None else 0

    def forget(self, entity: str, through: int) -> None:
        if len(self._forgets) < MAX_FORGETS:  # others stay: they only take room
            self._forgets[_bytes_of(entity)] = through

    async def _forget(self) -> None:
        """Behind a batch. What is not deleted only takes room."""
        forgets, self._forgets = self._forgets, {}
        try:
            async with asyncio.timeout(self.settings.write_timeout):
                if self._connection is not None:
                    await self._connection.execute(schema.FORGET, list(forgets), list(forgets.values()))
        except (*LOST, TimeoutError):
            self._disconnect()
            await self._reconnect()
        except asyncpg.PostgresError as error:
            report = {"message": "covered events were not deleted from Postgres", "exception": error}
            asyncio.get_running_loop().call_exception_handler(report)

    def restore(self, entity: str, version: int, value: bytes | None, waiter: Waiter) -> None:
        """Like `put` of a value saved elsewhere: versions between the stored one and this may be missing."""
        self._enqueue(Append(entity, RESTORED, version, (), True, value, self._epoch_of(entity), waiter))

    def _enqueue(self, append: Append) -> None:
        error = entity_error(append.entity) or self._refusal(append)
        if error is not None:
            asyncio.get_running_loop().call_soon(self._answer, [(append.waiter, error)])
            return
        self.queued_bytes += append.size
        self._waiting.append(append)
        self._wake.set()

    def _refusal(self, append: Append) -> JournalError | None:
        if self._closing or self._writing is None:
            return JournalError("the journal is not open")
        if self._connection is None:
            return JournalError(f"{append.entity[:200]}: there is no connection to Postgres; try again")
        if append.size > LARGEST:
            return TooLarge(
                f"{append.entity[:200]}: the append takes {append.size} bytes, at most {LARGEST} are possible"
            )
        if self.queued_bytes + append.size > self.settings.queue_bytes:
            return Full(f"the queue of appends is full ({self.queued_bytes} bytes wait for Postgres); try again")
        return None

    async def _write(self) -> None:
        """Batch after batch, until closed."""
        while True:
            await self._wake.wait()
            if not self._waiting:
                if self._closing:
                    return
                self._wake.clear()
                continue
            await self._send(self._next_batch())
            if self._forgets:
                await self._forget()

    def _next_batch(self) -> Batch:
        self.batches += 1
        batch = Batch(self.batches)
        batch.fill(self._waiting, self.settings.batch_bytes)
        self.queued_bytes -= batch.size
        return batch

    async def _send(self, batch: Batch) -> None:
        try:
            async with asyncio.timeout(self.settings.write_timeout):
                refusals = await self._store(batch)
        except _FULL as error:
            self._fail(batch, Full(f"Postgres has no space: {said(error)}"))
        except TimeoutError:
            self._disconnect()  # whatever comes of the batch, nothing is to follow it before that is known
            limit = f"write_timeout ({self.settings.write_timeout:g} s)"
            self._fail(
                batch, JournalError(f"Postgres did not answer within {limit}; whether this was stored is unknown")
            )
            self._fail_waiting(JournalError("there is no connection to Postgres; try again"))
            await self._reconnect()
        except asyncpg.PostgresError as error:
            self._fail(batch, JournalError(f"Postgres refused the batch: {said(error)}"))
        else:
            self._stored(batch.outcome(refusals))

    def _stored(self, outcome: Outcome) -> None:
        self.appends += len(outcome.answers)
        self.events += outcome.events
        self._waiting.extendleft(reversed(outcome.again))
        self.queued_bytes += sum(append.size for append in outcome.again)
        self._answer(outcome.answers)
        if self.epoch in outcome.stale and self.epoch and self.on_broken is not None:
            tell, self.on_broken = self.on_broken, None
            tell(outcome.stale[self.epoch])
        if outcome.events:
            self._tell_listeners()

    async def _store(self, batch: Batch) -> Sequence[int]:
        """What was refused. A batch whose answer is lost is sent again: the server knows its number."""
        while True:
            if self._connection is None:
                await self._reconnect()
            connection = self._connection
            assert connection is not None
            try:
                refusals: Sequence[int] = await connection.fetchval(
                    schema.APPEND, self._writer, batch.number, *batch.arguments(self._shards)
                )
                return refusals
            except LOST:
                self._disconnect()

    async def _reconnect(self) -> None:
        while not self._closing:
            try:
                connection = await self._connect()
                await self._follow(connection)
                self._connection = connection
            except (*LOST, asyncpg.PostgresError, TimeoutError):
                await asyncio.sleep(self.settings.retry_interval)
            else:
                self.reconnects += 1
                return

    def _fail(self, batch: Batch, error: JournalError) -> None:
        self._answer([(append.waiter, error) for group in batch.groups.values() for append in group.appends])

    def _fail_waiting(self, error: JournalError) -> None:
        waiting = list(self._waiting)
        self._waiting.clear()
        self.queued_bytes = 0
        self._answer([(append.waiter, error) for append in waiting])

    def _answer(self, answers: Sequence[tuple[Waiter, JournalError | None]]) -> None:
        for waiter, error in answers:
            try:
                waiter.on_appended(error)
            except Exception as exception:
                report = {"message": "a journal's waiter failed", "exception": exception}
                asyncio.get_running_loop().call_exception_handler(report)

    # --- reading -----------------------------------------------------------------------------------------------------

    def load(self, entity: str, waiter: Waiter) -> None:
        if error := entity_error(entity):
            return waiter.on_loaded(None, error)
        self._loads.setdefault(entity, []).append(waiter)
        if not self._loading:
            self._loading = True
            self._start(self._load_all())

    async def _load_all(self) -> None:
        """One query at a time for what has gathered meanwhile, so that answers come in the order of the questions."""
        await asyncio.sleep(0)  # others of this turn
        while self._loads:
            loads, self._loads = self._loads, {}
            await self._load(loads)
        self._loading = False

    async def _load(self, loads: dict[str, list[Waiter]]) -> None:
        names = {_bytes_of(entity): entity for entity in loads}
        try:
            rows = await self._fetch(schema.LOAD, list(names))
        except JournalError as error:
            for waiters in loads.values():
                for waiter in waiters:
                    waiter.on_loaded(None, error)
            return
        heads = {names[entity]: Head(last, covered, snapshot) for entity, last, covered, snapshot in rows}
        for entity, waiters in loads.items():
            for waiter in waiters:
                waiter.on_loaded(heads.get(entity) or Head(0, 0, None), None)

    def read(self, entity: str, from_sequence: int, max_bytes: int, waiter: Waiter) -> None:
        check_read(from_sequence)
        if error := entity_error(entity):
            return waiter.on_page(None, error)
        self._start(self._read(entity, from_sequence, max_bytes, waiter))

    async def _read(self, entity: str, from_sequence: int, max_bytes: int, waiter: Waiter) -> None:
        try:
            rows = await self._fetch(schema.READ, _bytes_of(entity), from_sequence, max_bytes, READ_ROWS)
        except JournalError as error:
            return waiter.on_page(None, error)
        more = bool(rows) and rows[-1]["sequence"] < rows[-1]["last"]
        waiter.on_page(Page(from_sequence, [row["event"] for row in rows], more), None)

    def read_log(self, prefix: str, from_offset: int, limit: int, waiter: LogWaiter) -> None:
        check_read_log(limit)
        self._start(self._read_log(prefix, from_offset, limit, waiter))

    async def _read_log(self, prefix: str, from_offset: int, limit: int, waiter: LogWaiter) -> None:
        try:
            end = await self._fetch(schema.NEXT_OFFSET)
            until = min(end[0]["next_offset"], from_offset + SCAN_OFFSETS)
            low = _bytes_of(prefix)
            found = await self._fetch(schema.READ_LOG, from_offset, until, low, low + b"\xff", limit, LOG_PAGE_BYTES)
        except JournalError as error:
            return waiter.on_log(None, error)
        entries = [LogEntry(offset, _text_of(entity), sequence, event) for offset, entity, sequence, event in found]
        cut = len(entries) == limit or sum(len(entry.event) for entry in entries) >= LOG_PAGE_BYTES
        next_offset = entries[-1].offset + 1 if cut else max(from_offset, until)
        waiter.on_log(LogPage(entries, next_offset, next_offset < end[0]["next_offset"]), None)

    def list_entities(self, prefix: str, after: str, limit: int, waiter: ListWaiter) -> None:
        check_list(limit)
        self._start(self._list(prefix, after, limit, waiter))

    async def _list(self, prefix: str, after: str, limit: int, waiter: ListWaiter) -> None:
        low = _bytes_of(prefix)
        try:
            rows = await self._fetch(schema.LIST, low, low + b"\xff", _bytes_of(after), limit)
        except JournalError as error:
            return waiter.on_entities(None, error)
        waiter.on_entities([_text_of(row["entity"]) for row in rows], None)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        """Reads are seldom: a task for each costs little beside the way to the server."""
        task = asyncio.create_task(work)
        self._reads.add(task)
        task.add_done_callback(self._reads.discard)

    async def _fetch(self, query: str, *arguments: Any) -> list[Any]:
        """Rows. A lost connection is taken for a short one: asked once more on another."""
        if self._pool is None:
            raise JournalError("the journal is not open")
        for last_try in (False, True):
            try:
                async with asyncio.timeout(self.settings.read_timeout):
                    rows: list[Any] = await self._pool.fetch(query, *arguments)
                    return rows
            except LOST as error:
                if last_try:
                    raise JournalError(f"Postgres cannot be read: {said(error)}") from error
            except (asyncpg.PostgresError, TimeoutError) as error:
                raise JournalError(f"Postgres cannot be read: {said(error)}") from error
        raise AssertionError("the second try either answers or fails")


def _bytes_of(entity: str) -> bytes:
    return entity.encode("utf-8", "surrogatepass")


def _text_of(entity: bytes) -> str:
    return entity.decode("utf-8", "surrogatepass")


def said(error: BaseException) -> str:
    """On one line."""
    return " ".join(str(error).split()) or type(error).__name__
