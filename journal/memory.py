"""A journal in memory: for tests, development and services whose state may vanish with the process.

It behaves like a durable store in everything that a caller can see: appends are acknowledged from a later loop
callback, all waiters of one loop turn together, and space is bounded.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Collection, Sequence

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
    SequenceTaken,
    StaleEpoch,
    Waiter,
)
from stateside.journal.limits import (
    APPEND_OFFSETS,
    check_append,
    check_list,
    check_put,
    check_read,
    check_read_log,
    entity_error,
    shards_error,
)

SCAN_APPENDS = 1000  # appends looked at in one read of the log


class MemoryJournal(Journal):
    """Events, snapshots and values in dictionaries, at most `max_bytes` of them."""

    durability = Durability.NONE

    def __init__(self, max_bytes: int = 1 << 30) -> None:
        super().__init__()
        self.appends = 0
        self.events = 0
        self.values = 0
        self.size_bytes = 0
        self._max_bytes = max_bytes
        self._entities: dict[str, _Entity] = {}
        self._order: dict[int, tuple[str, int, int]] = {}  # of each append: entity, first sequence, number of events
        self._epoch = 0  # of the latest claim
        self._number_of_shards = 0  # not known before it
        self._end = 0  # number of the next append
        self._told = 0  # events when the listeners were told last
        self._answers: list[tuple[Waiter, JournalError | None]] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    async def open(self) -> None:
        self._loop = asyncio.get_running_loop()

    async def close(self) -> None:
        self._answer()
        self._loop = None

    async def claim(self, shards: Collection[int], number_of_shards: int) -> int:
        if self._number_of_shards not in (0, number_of_shards):
            raise shards_error("the journal in memory", self._number_of_shards, number_of_shards)
        self._number_of_shards = number_of_shards
        self._epoch += 1
        return self._epoch

    @property
    def writable(self) -> bool:
        return self._loop is not None and self.size_bytes < self._max_bytes

    def load(self, entity: str, waiter: Waiter) -> None:
        if error := entity_error(entity):
            return waiter.on_loaded(None, error)
        found = self._entities.get(entity)
        if found is None:
            waiter.on_loaded(Head(0, 0, None), None)
        else:
            waiter.on_loaded(Head(found.last_sequence, found.snapshot_sequence, found.snapshot), None)

    def read(self, entity: str, from_sequence: int, max_bytes: int, waiter: Waiter) -> None:
        check_read(from_sequence)
        if error := entity_error(entity):
            return waiter.on_page(None, error)
        found = self._entities.get(entity)
        events, forgotten = (found.events, found.forgotten) if found else ([], 0)
        start = from_sequence - 1 - forgotten
        if start < 0:
            return waiter.on_page(None, JournalError(f"{entity}: events up to {forgotten} were to be forgotten"))
        end = _page_end(events, start, max_bytes)
        waiter.on_page(Page(from_sequence, events[start:end], end < len(events)), None)

    def read_log(self, prefix: str, from_offset: int, limit: int, waiter: LogWaiter) -> None:
        check_read_log(limit)
        at, first = divmod(from_offset, APPEND_OFFSETS)
        end = min(at + SCAN_APPENDS, self._end)
        entries: list[LogEntry] = []
        for number in range(at, end):
            entity, sequence, count = self._order.get(number, ("", 0, 0))
            if count and entity.startswith(prefix):
                found = self._entities[entity]
                for index in range(first, count):
                    offset, place = number * APPEND_OFFSETS + index, sequence + index
                    if place <= found.forgotten:
                        continue
                    if len(entries) == limit:
                        return waiter.on_log(LogPage(entries, offset, True), None)
                    entries.append(LogEntry(offset, entity, place, found.events[place - 1 - found.forgotten]))
            first = 0
        next_offset = max(from_offset, end * APPEND_OFFSETS)
        waiter.on_log(LogPage(entries, next_offset, end < self._end), None)

    def list_entities(self, prefix: str, after: str, limit: int, waiter: ListWaiter) -> None:
        check_list(limit)
        found = (name for name in self._entities if name.startswith(prefix))
        behind = (name for name in found if not after or name > after)
        waiter.on_entities(heapq.nsmallest(limit, behind), None)

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
        epoch = epoch or self._epoch
        error = self._refusal(entity, first_sequence, epoch, keeps_value=False)
        if error is None:
            self._store(entity, events, snapshot, epoch)
        self._acknowledge(waiter, error)

    def forget(self, entity: str, through: int) -> None:
        found = self._entities.get(entity)
        if found is None or found.keeps_value:
            return
        count = min(through, found.snapshot_sequence) - found.forgotten
        if count > 0:
            self.size_bytes -= sum(map(len, found.events[:count]))
            del found.events[:count]
            found.forgotten += count
            while found.appends and found.appends[0][1] <= found.forgotten:
                del self._order[found.appends.popleft()[0]]

    def put(self, entity: str, version: int, value: bytes | None, waiter: Waiter, epoch: int = 0) -> None:
        check_put(version)
        epoch = epoch or self._epoch
        error = self._refusal(entity, version, epoch, keeps_value=True)
        if error is None:
            self._store_value(entity, version, value, epoch)
        self._acknowledge(waiter, error)

    def _refusal(self, entity: str, first_sequence: int, epoch: int, keeps_value: bool) -> JournalError | None:
        if error := entity_error(entity):
            return error
        found = self._entities.get(entity)
        last = found.last_sequence if found else 0
        owned = max(self._epoch, found.epoch if found else 0)
        if epoch < owned:
            return StaleEpoch(f"{entity}: epoch {epoch} is over, the entity is owned under epoch {owned}")
        if found and found.keeps_value != keeps_value:
            kept, asked = ("a value", "events") if found.keeps_value else ("events", "a value")
            return SequenceTaken(f"{entity}: it keeps {kept} (the last is {last}), and never {asked} beside")
        if first_sequence != last + 1:
            return SequenceTaken(
                f"{entity}: sequence {first_sequence} does not follow the last one, {last}; load again"
            )
        if not self.writable:
            return Full(f"{entity}: the journal in memory is full ({self.size_bytes} of {self._max_bytes} bytes)")
        return None

    def _store(self, entity: str, events: Sequence[bytes], snapshot: bytes | None, epoch: int) -> None:
        found = self._entities.setdefault(entity, _Entity())
        found.epoch = epoch
        if events:
            self._order[self._end] = (entity, found.last_sequence + 1, len(events))
            found.appends.append((self._end, found.last_sequence + len(events)))
            self._end += 1
        found.events.extend(events)
        found.last_sequence += len(events)
        self.size_bytes += sum(map(len, events))
        if snapshot is not None:
            self._cover(found, snapshot)
        self.appends += 1
        self.events += len(events)

    def _store_value(self, entity: str, version: int, value: bytes | None, epoch: int) -> None:
        found = self._entities.setdefault(entity, _Entity())
        found.epoch, found.last_sequence, found.keeps_value = epoch, version, True
        self._cover(found, value)
        self.appends += 1
        self.values += 1

    def _cover(self, found: _Entity, snapshot: bytes | None) -> None:
        self.size_bytes += len(snapshot or b"") - len(found.snapshot or b"")
        found.snapshot, found.snapshot_sequence = snapshot, found.last_sequence

    def _acknowledge(self, waiter: Waiter, error: JournalError | None) -> None:
        if self._loop is None:
            raise JournalError("the journal is not open")
        if not self._answers:
            self._loop.call_soon(self._answer)
        self._answers.append((waiter, error))

    def _answer(self) -> None:
        answers, self._answers = self._answers, []
        for waiter, error in answers:
            try:
                waiter.on_appended(error)
            except Exception as exception:
                report = {"message": "a journal's waiter failed", "exception": exception}
                asyncio.get_running_loop().call_exception_handler(report)
        if self.events != self._told:
            self._told = self.events
            self._tell_listeners()


class _Entity:
    """Events and perhaps a snapshot of them, or, when it `keeps_value`, that as a snapshot without events."""

    __slots__ = (
        "appends",
        "epoch",
        "events",
        "forgotten",
        "keeps_value",
        "last_sequence",
        "snapshot",
        "snapshot_sequence",
    )

    def __init__(self) -> None:
        self.appends: deque[tuple[int, int]] = deque()  # number and last sequence of those with events
        self.epoch = 0
        self.events: list[bytes] = []
        self.forgotten = 0  # events dropped at the front
        self.keeps_value = False
        self.last_sequence = 0
        self.snapshot: bytes | None = None
        self.snapshot_sequence = 0


def _page_end(events: list[bytes], start: int, max_bytes: int) -> int:
    """Index behind the last event of a page: at least one, then as many as fit."""
    size = 0
    for index in range(start, len(events)):
        size += len(events[index])
        if size > max_bytes and index > start:
            return index
    return len(events)
