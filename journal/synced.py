"""The LMDB journal of a worker in synchronous mode: an append counts when Postgres has it, too.

    append -> LMDB, flushed -> replicator told -> Postgres has it -> answered

What was flushed here and is not in Postgres in time is answered with an error: whether it will stay is not known,
though it will be shipped as soon as Postgres is there. As long as Postgres is known to be away, and until everything
stored here has reached it, new appends are refused at once and nothing of them is stored. Reads go on.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection, Sequence

from stateside.journal.confirm import Confirmed
from stateside.journal.contract import (
    Head,
    Journal,
    JournalError,
    ListWaiter,
    LogPage,
    LogWaiter,
    Page,
    Waiter,
)
from stateside.journal.limits import APPEND_OFFSETS
from stateside.journal.lmdb import LmdbJournal

NOT_YET = "Postgres has not told yet that it has all of this journal"
AWAY = "Postgres, which has to store everything too (journal_replica_mode = sync), is away"


class SyncedJournal(Journal):
    """`local`, waiting for the replicator that serves the socket `path` to say what Postgres has of log `index`."""

    def __init__(self, local: LmdbJournal, path: str, index: int, timeout: float) -> None:
        """timeout: seconds from the flush here to the confirmation."""
        super().__init__()
        self.local = local
        self.durability = local.durability
        self.confirmed = 0
        self.timeout = timeout
        self.trouble = NOT_YET  # why appends are refused; "" while they are taken
        self._pending: deque[tuple[int, float, Waiter]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._caught_up = asyncio.Event()
        self._settled = asyncio.Event()
        self._settled.set()
        self._link = Confirmed(path, index, lambda: local.log.stored_offset, self._on_applied, self._on_away)

    async def open(self) -> None:
        """As soon as Postgres has all of it; or without it, if that takes too long."""
        await self.local.open()
        self._link.start()
        try:
            async with asyncio.timeout(self.timeout):
                await self._caught_up.wait()
        except TimeoutError:
            pass  # appends are refused until then

    async def close(self) -> None:
        await self.local.close()
        await self._settled.wait()  # for the timeout at most
        await self._link.close()

    async def claim(self, shards: Collection[int], number_of_shards: int) -> int:
        return await self.local.claim(shards, number_of_shards)

    @property
    def writable(self) -> bool:
        return self.local.writable and not self.trouble

    @property
    def waiting(self) -> int:
        """Appends that are flushed here and not confirmed."""
        return len(self._pending)

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
        if self.trouble:
            return self._refuse(entity, waiter)
        self.local.append(entity, first_sequence, events, snapshot, _Stored(self, waiter), epoch)

    def put(self, entity: str, version: int, value: bytes | None, waiter: Waiter, epoch: int = 0) -> None:
        if self.trouble:
            return self._refuse(entity, waiter)
        self.local.put(entity, version, value, _Stored(self, waiter), epoch)

    def forget(self, entity: str, through: int) -> None:
        self.local.forget(entity, through)

    def _refuse(self, entity: str, waiter: Waiter) -> None:
        error = JournalError(f"{entity[:200]}: {self.trouble}; nothing was stored, try again")
        asyncio.get_running_loop().call_soon(waiter.on_appended, error)

    def on_stored(self, waiter: Waiter) -> None:
        """Flushed here. All of a batch come in one loop turn."""
        stored = self.local.log.stored_offset
        if stored <= self.confirmed:
            return waiter.on_appended(None)
        loop = asyncio.get_running_loop()
        self._settled.clear()
        self._pending.append((stored, loop.time() + self.timeout, waiter))
        self._link.tell_soon()
        if self._timer is None:
            self._timer = loop.call_later(self.timeout, self._on_time)

    def _on_applied(self, offset: int) -> None:
        self.confirmed = max(self.confirmed, offset)
        answered = False
        while self._pending and self._pending[0][0] <= self.confirmed:
            self._answer(self._pending.popleft()[2], None)
            answered = True
        self._note_settled()
        if self.confirmed >= self.local.log.stored_offset:
            self.trouble = ""
            self._caught_up.set()
        if answered:
            self._tell_listeners()

    def _on_away(self) -> None:
        self.trouble = self.trouble or AWAY

    def _on_time(self) -> None:
        """The oldest may have waited long enough."""
        loop = asyncio.get_running_loop()
        while self._pending and self._pending[0][1] <= loop.time():
            self.trouble = self.trouble or AWAY
            text = f"Postgres has not stored it within postgres_write_timeout ({self.timeout:g} s)"
            self._answer(self._pending.popleft()[2], JournalError(f"{text}; whether it will stay is not known"))
        self._note_settled()
        self._timer = None
        if self._pending:
            self._timer = loop.call_at(self._pending[0][1], self._on_time)

    def _note_settled(self) -> None:
        if not self._pending:
            self._settled.set()

    def _answer(self, waiter: Waiter, error: JournalError | None) -> None:
        try:
            waiter.on_appended(error)
        except Exception as exception:
            report = {"message": "a journal's waiter failed", "exception": exception}
            asyncio.get_running_loop().call_exception_handler(report)

    # --- reading -----------------------------------------------------------------------------------------------------

    def load(self, entity: str, waiter: Waiter) -> None:
        self.local.load(entity, waiter)

    def read(self, entity: str, from_sequence: int, max_bytes: int, waiter: Waiter) -> None:
        self.local.read(entity, from_sequence, max_bytes, waiter)

    def read_log(self, prefix: str, from_offset: int, limit: int, waiter: LogWaiter) -> None:
        self.local.read_log(
            prefix, from_offset, limit, _Confirmed(self.confirmed * APPEND_OFFSETS, from_offset, waiter)
        )

    def list_entities(self, prefix: str, after: str, limit: int, waiter: ListWaiter) -> None:
        self.local.list_entities(prefix, after, limit, waiter)


class _Stored:
    """Stands between the local journal and who appends."""

    __slots__ = ("journal", "waiter")

    def __init__(self, journal: SyncedJournal, waiter: Waiter) -> None:
        self.journal = journal
        self.waiter = waiter

    def on_appended(self, error: JournalError | None) -> None:
        if error is None:
            self.journal.on_stored(self.waiter)
        else:
            self.waiter.on_appended(error)

    def on_loaded(self, head: Head | None, error: JournalError | None) -> None:
        raise AssertionError("loads are not asked for here")

    def on_page(self, page: Page | None, error: JournalError | None) -> None:
        raise AssertionError("pages are not asked for here")


class _Confirmed:
    """Of the log, nobody is to act on what may still be lost with this machine."""

    __slots__ = ("end", "from_offset", "waiter")

    def __init__(self, end: int, from_offset: int, waiter: LogWaiter) -> None:
        self.end = end
        self.from_offset = from_offset
        self.waiter = waiter

    def on_log(self, page: LogPage | None, error: JournalError | None) -> None:
        if page is not None and page.next_offset > self.end:
            entries = [entry for entry in page.entries if entry.offset < self.end]
            page = LogPage(entries, max(self.from_offset, self.end), False)
        self.waiter.on_log(page, error)
