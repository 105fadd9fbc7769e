"""Moving shards between the environments of a journal's folder when the number of workers changed between two starts.

    layout: copying    what changes its owner is appended to the new owner's environment, source by source
    layout: purging    every environment loses what it does not own; those of no worker go as a whole
    layout: done

Until everything was copied the old environments are whole. Each step is a transaction or the exchange of the layout
file, and all of them can be done again: whoever opens the folder next goes on where a crash ended, or takes back what
was copied if another number of workers is wanted by then.

A consumer of events must handle a moved event if and only if it had not handled it where the event comes from. So
with each batch goes, per consumer, which of its events were handled already (`journal.offsets.SKIPPED`). The log of an
environment never gets shorter at its end: offsets of what was moved away are not given to anything else.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from time import monotonic

import lmdb

from stateside.journal.contract import JournalError
from stateside.journal.environment import Environment, Writing, environment_of
from stateside.journal.format import (
    Damaged,
    Peeked,
    index_key,
    pack_offset,
    parse_header,
    peek,
    require_fit,
    unpack_offset,
)
from stateside.journal.handled import Skipping, read_handled
from stateside.journal.layout_file import COPYING, PURGING, Layout, write_layout
from stateside.journal.limits import MOVED_ENTITY
from stateside.journal.lmdb import sync_directory
from stateside.journal.sharding import EntityShards, owners_among, worker_name

BATCH_BYTES = 8 << 20
BATCH_RECORDS = 20_000
PROGRESS_INTERVAL = 0.5  # seconds between two reports, at least
_COPIED = 1 << 63  # in place of the offset to go on from: all of a source
_OVERHEAD = 200  # bytes that a record takes beside itself, about, index and all
_KNOWN_OWNERS = 50_000


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a move is. A value is an entity without events."""

    workers_before: int
    workers: int
    entities: int
    of_entities: int
    events: int
    of_events: int


def move(path: Path, layout: Layout, workers: int, progress: Callable[[Progress], None]) -> Layout:
    """Bring the folder to so many workers, and finish before that what an earlier move left. The caller has all locks.
    Raises JournalError; what was there before is unharmed then, and the next call goes on."""
    try:
        if layout.phase == COPYING and layout.moving_to != workers:
            layout = _enter(path, layout, layout.workers, PURGING)  # takes back what was copied
        if layout.phase == PURGING:
            layout = _purge(path, layout)
        if layout.workers != workers or layout.phase:
            layout = _purge(path, _Move(path, layout, workers, progress).copy())
    except Damaged as damaged:
        whose = f" of {damaged.entity}" if damaged.entity else ""
        raise JournalError(
            f"journal {path}: shards cannot be moved to {workers} workers: a record{whose} is damaged: {damaged.what}; "
            f"`stateside journal verify` lists what is; until it is restored, start with workers = {layout.workers}"
        ) from damaged
    except JournalError as error:
        raise JournalError(
            f"{error}; moving shards goes on at the next start, or is taken back by one with workers = {layout.workers}"
        ) from error
    return layout


def _enter(path: Path, layout: Layout, workers: int, phase: str) -> Layout:
    layout = replace(layout, moving_to=workers, phase=phase)
    write_layout(path, layout)
    return layout


class _Owners:
    """Which worker an entity belongs to, None if it stays where it is."""

    def __init__(self, workers: int, number_of_shards: int) -> None:
        self.shards = EntityShards(number_of_shards)
        self.of_shards: Sequence[int] = owners_among(workers, number_of_shards)
        self._known: dict[bytes, int | None] = {}

    def of(self, entity: bytes) -> int | None:
        try:
            return self._known[entity]
        except KeyError:
            shard = self.shards.shard(entity.decode())
            owner = None if shard is None else self.of_shards[shard]
            if len(self._known) >= _KNOWN_OWNERS:
                self._known.clear()
            self._known[entity] = owner
            return owner


class _Move:
    """Copies what changes its owner."""

    def __init__(self, path: Path, layout: Layout, workers: int, progress: Callable[[Progress], None]) -> None:
        self.path = path
        self.layout = layout
        self.workers = workers
        self._owners = _Owners(workers, layout.number_of_shards)
        self._progress = progress
        self._told = 0.0
        self._entities = self._of_entities = self._events = self._of_events = 0
        self._bytes = 0

    def copy(self) -> Layout:
        """Gives the layout in which what was copied is purged."""
        with ExitStack() as stack:
            sources = [self._open(stack, index) for index in range(self.layout.workers)]
            for index, source in enumerate(sources):
                self._survey(source, index)
            if self.layout.phase != COPYING:
                self._require_space()
                layout = replace(self.layout, moves=self.layout.moves + 1)
                self.layout = _enter(self.path, layout, self.workers, COPYING)
            targets = sources + [self._open(stack, index) for index in range(len(sources), self.workers)]
            del targets[self.workers :]
            for index in range(len(sources)):
                self._copy_from(index, sources[index], dict(enumerate(targets)))
        self._tell()
        return _enter(self.path, self.layout, self.workers, PURGING)

    def _open(self, stack: ExitStack, index: int) -> Environment:
        environment = stack.enter_context(Environment(environment_of(self.path, index)))
        sync_directory(environment.path)
        with environment.write():
            pass  # the index is complete from now on
        return environment

    # --- before anything is changed ----------------------------------------------------------------------------------

    def _survey(self, source: Environment, index: int) -> None:
        """Count what is to be moved, and find out whether all of it can be read."""
        with source.read() as txn:
            for offset, data in _records(txn, source):
                parse_header(data, offset)
                self._survey_record(txn, source, index, offset, data)
            for entity, data in txn.cursor(source.snapshots):
                if self._owners.of(entity) not in (None, index):
                    self._bytes += len(data) + _OVERHEAD

    def _survey_record(
        self, txn: lmdb.Transaction[bytes], source: Environment, index: int, offset: int, data: bytes
    ) -> None:
        head = peek(data)
        if self._owners.of(head.entity) in (None, index):
            return
        if head.is_value and not _is_last_value(txn, source, head.entity, offset):
            return
        self._of_entities += head.is_value or head.first_sequence == 1
        self._of_events += 0 if head.is_value else head.event_count
        self._bytes += len(data) + _OVERHEAD

    def _require_space(self) -> None:
        needed = int(self._bytes * 1.2) + BATCH_BYTES
        free = shutil.disk_usage(self.path).free
        if free < needed:
            raise JournalError(
                f"journal {self.path}: to move shards to {self.workers} workers takes about {needed >> 20} MiB of disk "
                f"space, {free >> 20} MiB are free"
            )

    # --- copying -----------------------------------------------------------------------------------------------------

    def _copy_from(self, index: int, source: Environment, targets: dict[int, Environment]) -> None:
        others = {owner: target for owner, target in targets.items() if owner != index}
        if others:
            with source.read() as txn:
                copying = _Copying(source, txn, f"moving|{self.layout.moves}|{index}".encode(), self._owners)
                while copying.more:
                    self._entities, self._events = copying.batch(others, self._entities, self._events)
                    self._tell_now_and_then()

    # --- telling -----------------------------------------------------------------------------------------------------

    def _tell_now_and_then(self) -> None:
        if monotonic() - self._told >= PROGRESS_INTERVAL:
            self._tell()

    def _tell(self) -> None:
        self._told = monotonic()
        numbers = (self._entities, self._of_entities, self._events, self._of_events)
        self._progress(Progress(self.layout.workers, self.workers, *numbers))


class _Copying:
    """One source's part: its log, then its snapshots, in batches that each go with how far the source is copied."""

    def __init__(self, source: Environment, txn: lmdb.Transaction[bytes], mark: bytes, owners: _Owners) -> None:
        self.more = True
        self._source = source
        self._txn = txn
        self._mark = mark  # in `meta` of each target: the offset to go on from
        self._owners = owners
        self._handled = read_handled(source, txn)
        self._epoch = unpack_offset(txn.get(b"epoch", db=source.meta) or b"")
        self._records: Iterator[tuple[int, bytes]] | None = _records(txn, source)
        self._snapshots = iter(txn.cursor(source.snapshots))

    def batch(self, targets: dict[int, Environment], entities: int, events: int) -> tuple[int, int]:
        """Copy some; `more` tells whether there is more. Gives the counts with what was copied added to them."""
        with ExitStack() as stack:
            writings = {owner: stack.enter_context(target.write()) for owner, target in targets.items()}
            for writing in writings.values():
                writing.set_number(b"epoch", max(writing.number(b"epoch"), self._epoch))
            if self._records is None:
                self.more = self._copy_snapshots(writings)
                return entities, events
            return self._copy_records(self._records, writings, entities, events)

    def _copy_records(
        self, records: Iterator[tuple[int, bytes]], writings: dict[int, Writing], entities: int, events: int
    ) -> tuple[int, int]:
        begin = {owner: writing.number(self._mark) for owner, writing in writings.items()}
        skipping = {owner: Skipping(writing) for owner, writing in writings.items()}
        size = next_offset = 0
        for offset, data in islice(records, BATCH_RECORDS):
            next_offset = offset + 1
            head = peek(data)
            owner = self._owners.of(head.entity)
            if owner not in writings or self._is_superseded(head, offset):
                continue
            if head.is_value:
                entities += 1
            else:
                entities += head.first_sequence == 1
                events += head.event_count
            if offset < begin[owner]:
                continue
            at = self._copy(head, offset, data, writings[owner])
            if not head.is_value:
                self._note_handled(offset, head.event_count, at, skipping[owner])
            size += len(data)
            if size > BATCH_BYTES:
                break
        if not next_offset:
            self._records = None
            return entities, events
        for owner, writing in writings.items():
            skipping[owner].store()
            writing.set_number(self._mark, max(begin[owner], next_offset))
        return entities, events

    def _copy(self, head: Peeked, offset: int, data: bytes, writing: Writing) -> int:
        require_fit(data, offset)
        return writing.append(head.entity, head.first_sequence, head.is_value, data)

    def _note_handled(self, offset: int, events: int, at: int, skipping: Skipping) -> None:
        for consumer in self._handled:
            if places := consumer.of_record(offset, events):
                skipping.note(consumer.consumer, at, places)

    def _is_superseded(self, head: Peeked, offset: int) -> bool:
        return head.is_value and not _is_last_value(self._txn, self._source, head.entity, offset)

    def _copy_snapshots(self, writings: dict[int, Writing]) -> bool:
        size = 0
        for entity, data in islice(self._snapshots, BATCH_RECORDS):
            size += len(data) + 1
            owner = self._owners.of(entity)
            if owner in writings:
                writing = writings[owner]
                writing.txn.put(entity, data, db=writing.environment.snapshots)
            if size > BATCH_BYTES:
                break
        return size > 0


# --- purging ----------------------------------------------------------------------------------------------------------


def _purge(path: Path, layout: Layout) -> Layout:
    """Leave each environment what it owns, and nothing of those that no worker has any more."""
    _remove_environments(path, layout.moving_to)
    owners = _Owners(layout.moving_to, layout.number_of_shards)
    for index in range(layout.moving_to):
        with Environment(environment_of(path, index)) as environment:
            if index < layout.workers:
                _purge_environment(environment, index, owners, layout.moves)
            _forget_marks(environment)
    layout = replace(layout, workers=layout.moving_to, moving_to=0, phase="")
    write_layout(path, layout)
    return layout


def _remove_environments(path: Path, first: int) -> None:
    prefix = worker_name(0)[:-1]
    for folder in path.glob(f"{prefix}*"):
        number = folder.name.removeprefix(prefix)
        if number.isdecimal() and int(number) >= max(first, 1):
            shutil.rmtree(folder)
    sync_directory(path)


def _purge_environment(environment: Environment, index: int, owners: _Owners, moves: int) -> None:
    with environment.write() as writing:
        writing.put_value(MOVED_ENTITY, pack_offset(moves))  # stays at the end of the log, whatever goes
    next_offset: int | None = 0
    while next_offset is not None:
        with environment.write() as writing:
            next_offset = _purge_records(writing, index, owners, next_offset)
    name: bytes | None = b""
    while name is not None:
        with environment.write() as writing:
            name = _purge_snapshots(writing, index, owners, name)


def _purge_records(writing: Writing, index: int, owners: _Owners, first: int) -> int | None:
    """Look at some records from this offset on. Gives where to go on, None at the end."""
    with writing.txn.cursor(writing.environment.log) as cursor:
        found = cursor.set_range(pack_offset(first))
        for _ in range(BATCH_RECORDS):
            if not found:
                return None
            head = peek(cursor.value())
            if owners.of(head.entity) in (None, index):
                found = cursor.next()
                continue
            key = index_key(head.entity, 0 if head.is_value else head.first_sequence)
            writing.txn.delete(key, db=writing.environment.index)
            cursor.delete()
            found = bool(cursor.key())
        return unpack_offset(cursor.key()) if found else None


def _purge_snapshots(writing: Writing, index: int, owners: _Owners, first: bytes) -> bytes | None:
    with writing.txn.cursor(writing.environment.snapshots) as cursor:
        found = cursor.set_range(first) if first else cursor.first()
        for _ in range(BATCH_RECORDS):
            if not found:
                return None
            if owners.of(cursor.key()) in (None, index):
                found = cursor.next()
            else:
                cursor.delete()
                found = bool(cursor.key())
        return cursor.key() if found else None


def _forget_marks(environment: Environment) -> None:
    with environment.write() as writing, writing.txn.cursor(environment.meta) as cursor:
        found = cursor.set_range(b"moving|")
        while found and cursor.key().startswith(b"moving|"):
            cursor.delete()
            found = bool(cursor.key())


# --- reading ----------------------------------------------------------------------------------------------------------


def _records(txn: lmdb.Transaction[bytes], environment: Environment) -> Iterator[tuple[int, bytes]]:
    with txn.cursor(environment.log) as cursor:
        for key, data in cursor:
            yield unpack_offset(key), data


def _is_last_value(txn: lmdb.Transaction[bytes], environment: Environment, entity: bytes, offset: int) -> bool:
    found = txn.get(index_key(entity, 0), db=environment.index)
    return found is not None and unpack_offset(found[:8]) == offset
