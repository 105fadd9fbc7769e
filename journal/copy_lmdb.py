"""A folder as the source of a copy: the journals of one or of several workers in LMDB.

Read through `reader`, in one transaction for each environment and with the writers' locks held, so nothing changes
meanwhile. What is read is compared with its checksums, and the copy ends at damage.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from stateside.journal.contract import JournalError
from stateside.journal.copy_model import (
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
    sha,
    wanted_of,
)
from stateside.journal.folders import Owners, environments, folders_of, lock_folder, owners_of, replica_of, shards_of
from stateside.journal.format import (
    Damaged,
    events_of,
    pack_offset,
    parse_header,
    parse_record,
    peek_checked,
    require_fit,
    unpack_offset,
)
from stateside.journal.limits import APPEND_OFFSETS, INTERNAL, NODE_ENTITY
from stateside.journal.offsets import PREFIX as OFFSETS
from stateside.journal.offsets import SKIPPED, decode_ranges
from stateside.journal.reader import StoredJournal, View

KNOWN_SNAPSHOTS = 100_000  # entities whose snapshot's sequence is remembered
_OWN = ord(INTERNAL)
PLACEHOLDER = b""  # an event that a snapshot covers, where the real one was left out


class Views:
    """All environments of a folder as they are now. `owners`: of a folder that has no layout yet."""

    def __init__(self, path: Path, owners: Owners | None = None) -> None:
        self.path = path
        folders = environments(path) if owners is None else folders_of(path, owners.workers)
        self.owners = owners_of(path) if owners is None else owners
        with ExitStack() as stack:
            self.stored = [stack.enter_context(StoredJournal(folder)) for folder in folders]
            self.views = [stack.enter_context(stored.view()) for stored in self.stored]
            self._stack = stack.pop_all()

    def close(self) -> None:
        self._stack.close()

    async def pages(self) -> AsyncIterator[dict[str, Digest]]:
        pages = self._pages()
        while (page := await asyncio.to_thread(next, pages, None)) is not None:
            yield page

    def _pages(self) -> Iterator[dict[str, Digest]]:
        page: dict[str, Digest] = {}
        for view, name in self.names():
            page[name] = self._digest(view, name)
            if len(page) == PAGE_NAMES:
                yield page
                page = {}
        if page:
            yield page

    def names(self) -> Iterator[tuple[View, str]]:
        for view in self.views:
            for name in view.names():
                if self.is_copied(view, name):
                    yield view, name

    def is_copied(self, view: View, name: str) -> bool:
        """Each environment may have a record of the node: that of worker 0 counts."""
        return is_copied(name) and (name != NODE_ENTITY or view is self.views[0])

    def digests_of(self, entities: Sequence[str]) -> dict[str, Digest]:
        found = {}
        for entity in entities:
            for view in self.views if is_own(entity) else [self.views[self.owners.of(entity)]]:
                if view.has(entity):
                    found[entity] = self._digest(view, entity)
                    break
        return found

    def _digest(self, view: View, entity: str) -> Digest:
        try:
            return digest(view, entity)
        except Damaged as damaged:
            raise damage_in(self.path, damaged) from damaged


def digest(view: View, entity: str) -> Digest:
    """Raises Damaged."""
    if view.keeps_value(entity):
        value = view.value(entity)
        return Digest("value", value.first_sequence, 0, None if value.value is None else sha(value.value), None)
    snapshot = view.snapshot(entity)
    covered, payload = (0, None) if snapshot is None else (snapshot.sequence, sha(snapshot.payload))
    behind = covered if is_own(entity) else 0
    digests, last = hashlib.sha256(), covered
    for record in view.records(entity, behind + 1):
        for sequence, event in enumerate(record.events, record.first_sequence):
            if sequence > behind:
                digests.update(sha(event))
        last = max(last, record.last_sequence)
    if is_own(entity):
        return Digest("own", last - covered, int(covered > 0), payload, digests.digest())
    return Digest("events", last, covered, payload, digests.digest())


class LmdbSource(Source):
    """The folder `path`. No proxy may have it open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.label = str(path)
        self._locks: list[IO[str]] = []
        self._views: Views | None = None
        self._snapshots: dict[str, int] = {}

    async def open(self) -> None:
        self._views = views = Views(self.path)
        self._lock()
        self.replica = replica_of(self.path)
        self.number_of_shards = shards_of(self.path) or views.views[0].meta.number_of_shards
        self.logs = len(views.views)
        self.stages = 2 * self.logs
        self.steps = sum(view.txn.stat(view.log)["entries"] for view in views.views)
        self.identity = "lmdb " + " ".join(view.meta.identity for view in views.views)
        self.mark = " ".join(str(stored.environment.info()["last_txnid"]) for stored in views.stored)

    def _lock(self) -> None:
        try:
            self._locks = lock_folder(self.path)
        except JournalError as error:
            raise JournalError(f"{error}; `stateside journal backup` copies a folder that is in use") from error
        except OSError as error:
            raise JournalError(f"journal {self.path} cannot be locked: {error.strerror}; mend its rights") from error

    async def close(self) -> None:
        if self._views is not None:
            self._views.close()
        for lock in self._locks:
            lock.close()

    @property
    def views(self) -> Views:
        assert self._views is not None, "not open"
        return self._views

    async def batches(self, stage: int, place: Place) -> AsyncIterator[Batch]:
        view = self.views.views[stage // 2]
        batches = batched(self._own_items(view, place) if stage % 2 else self._log_items(view, place))
        try:
            while (batch := await asyncio.to_thread(next, batches, None)) is not None:
                yield batch
        except Damaged as damaged:
            raise damage_in(self.path, damaged) from damaged

    def _log_items(self, view: View, place: Place) -> Iterator[Item]:
        assert place is None or isinstance(place, int)
        with view.txn.cursor(view.log) as cursor:
            if not cursor.set_range(pack_offset(place or 0)):
                return
            for key, data in cursor:
                offset = unpack_offset(key)
                name, first, count, is_value = peek_checked(data, offset)
                if name[0] == _OWN:
                    continue
                require_fit(data, offset)
                entity = name.decode()
                if not is_value:
                    yield self._events(view, entity, first, events_of(name, count, data), offset + 1)
                elif _is_latest(view, entity, offset):
                    yield Item(offset + 1, entity, first, (), parse_record(data, offset).value, True)

    def _events(self, view: View, entity: str, first: int, events: list[bytes], place: Place) -> Item:
        if self._snapshot_sequence(view, entity) != first + len(events) - 1:
            return Item(place, entity, first, events, None, False)
        snapshot = view.snapshot(entity)
        assert snapshot is not None
        return Item(place, entity, first, events, snapshot.payload, True)

    def _snapshot_sequence(self, view: View, entity: str) -> int:
        known = self._snapshots.get(entity)
        if known is None:
            if len(self._snapshots) >= KNOWN_SNAPSHOTS:
                self._snapshots.clear()
            snapshot = view.snapshot(entity)
            known = self._snapshots[entity] = 0 if snapshot is None else snapshot.sequence
        return known

    def _own_items(self, view: View, place: Place) -> Iterator[Item]:
        entity, done = place if isinstance(place, list) else ("", 0)
        for name in view.names(INTERNAL):
            is_behind = not entity or name.encode() + b"\xff" >= entity.encode() + b"\xff"
            if is_behind and self.views.is_copied(view, name):
                yield from (item for item in own_items(view, name) if name != entity or item.last > done)

    async def consumers(self) -> list[Consumer]:
        found = []
        for log, view in enumerate(self.views.views):
            for name in view.names(OFFSETS):
                stored, consumer = view.value(name).value, name.removeprefix(OFFSETS)
                skipped = view.value(SKIPPED + consumer).value if view.has(SKIPPED + consumer) else None
                if stored is not None:
                    found.append(Consumer(consumer, log, wanted_of(stored, decode_ranges(skipped or b""))))
        return found

    async def next_event(self, log: int, offset: int, owner: Owner, member: int) -> tuple[str, int] | None:
        return await asyncio.to_thread(_next_event, self.views.views[log], offset, owner, member)

    def digests(self) -> AsyncIterator[dict[str, Digest]]:
        return self.views.pages()

    async def digests_of(self, entities: Sequence[str]) -> dict[str, Digest]:
        return self.views.digests_of(entities)

    async def count(self) -> int:
        return sum(1 for _ in self.views.names())


def own_items(view: View, entity: str) -> Iterator[Item]:
    """An entity of the proxy's own: its value, or its snapshot and what is behind it, numbered from 1."""
    if view.keeps_value(entity):
        value = view.value(entity)
        yield Item([entity, value.first_sequence], entity, value.first_sequence, (), value.value, True)
        return
    snapshot = view.snapshot(entity)
    behind, done = 0, 0
    if snapshot is not None:
        behind, done = snapshot.sequence, 1
        yield Item([entity, 1], entity, 1, (PLACEHOLDER,), snapshot.payload, True)
    for record in view.records(entity, behind + 1):
        events = record.events[max(behind + 1 - record.first_sequence, 0) :]
        if events:
            done += len(events)
            yield Item([entity, done], entity, done - len(events) + 1, events, None, False)


def damage_in(path: Path, damaged: Damaged) -> JournalError:
    where = damaged.entity or "an unknown entity"
    return JournalError(
        f"{path}: {where}: {damaged.what}; `stateside journal verify` lists all damage, "
        "`stateside journal export` saves what is readable"
    )


def _is_latest(view: View, entity: str, offset: int) -> bool:
    latest = view.value_offset(entity)
    return latest is None or latest <= offset


def _next_event(view: View, offset: int, owner: Owner, member: int) -> tuple[str, int] | None:
    first, place = divmod(offset, APPEND_OFFSETS)
    with view.txn.cursor(view.log) as cursor:
        if not cursor.set_range(pack_offset(first)):
            return None
        for key, data in cursor:
            at = unpack_offset(key)
            header = parse_header(data, at)
            skipped = place if at == first else 0
            ours = not (header.is_value or is_own(header.entity)) and owner(header.entity) == member
            if ours and skipped < header.event_count:
                return header.entity, header.first_sequence + skipped
    return None
