"""A stored journal read from outside, also while a proxy has it open: what the command line's read-only commands use.

It shares LMDB's lock file with the proxy (both sides are LMDB 0.9), so the pages it looks at stay what they are. It
reads with `format`, not with the proxy's compiled code, and so is a second opinion on every byte.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from types import TracebackType

import lmdb

from stateside.journal.contract import JournalError
from stateside.journal.format import (
    FORMAT_VERSION,
    Damaged,
    Entry,
    Header,
    Record,
    Snapshot,
    index_key,
    pack_offset,
    parse_entry,
    parse_header,
    parse_record,
    parse_snapshot,
    unpack_offset,
)
from stateside.journal.limits import INTERNAL

MAX_DATABASES = 32
MAP_SIZE = 1 << 40  # address space only; a proxy whose map grows stays below
_LAST = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class EntityState:
    """One line of `journal list`. `damage` tells what of it cannot be trusted. The last sequence of a value is its
    version."""

    entity: str
    last_sequence: int
    snapshot_sequence: int
    is_value: bool
    is_deleted: bool
    damage: str = ""


@dataclass(frozen=True, slots=True)
class Meta:
    format: int
    identity: str
    indexed: int
    end: int  # offset behind the last record
    number_of_shards: int  # 0: nobody has claimed it
    epoch: int


@dataclass(slots=True)
class View:
    """One consistent state of the journal, for the length of a `with StoredJournal.view()`."""

    txn: lmdb.Transaction[bytes]
    log: lmdb._Database
    index: lmdb._Database
    snapshots: lmdb._Database
    meta: Meta
    tail: dict[str, list[int]] = field(default_factory=dict)  # offsets the index may not have yet; of a value the last
    orphans: list[Damaged] = field(default_factory=list)  # records at the end that belong to nobody

    def entities(self, prefix: str = "") -> Iterator[EntityState]:
        """All entities whose id begins with `prefix`, in the order of their bytes."""
        names = heapq.merge(self._indexed_entities(prefix), sorted(self._tail_entities(prefix)))
        for key, _ in groupby(names):
            yield self._state(key[:-1].decode())

    def has(self, entity: str) -> bool:
        return bool(entity) and self._last_offset(entity) is not None

    def keeps_value(self, entity: str) -> bool:
        """Whether the entity has a value, not events. Raises Damaged where that cannot be told."""
        offset = self._last_offset(entity)
        return offset is not None and self.header(offset).is_value

    def value(self, entity: str) -> Record:
        """The record of the entity's value. Raises Damaged where it can't be trusted."""
        offset = self._last_offset(entity)
        if offset is None:
            raise Damaged(entity, 0, "there is no value")
        record = self.record(offset)
        if record.entity != entity or not record.is_value:
            raise Damaged(entity, 0, f"the index leads to a record of {record.entity!r}")
        return record

    def superseded(self, header: Header) -> bool:
        """Whether the record has a version of a value that a later one took the place of."""
        if not header.is_value:
            return False
        try:
            offset = self._last_offset(header.entity)
            last = header if offset is None else self.header(offset)
        except Damaged:
            return False
        return last.entity == header.entity and last.is_value and last.first_sequence > header.first_sequence

    def covered(self, header: Header) -> bool:
        """Whether the record has events of the proxy's own that all come before the one that a snapshot covers."""
        if header.is_value or not header.entity.startswith(INTERNAL):
            return False
        snapshot = self.snapshot(header.entity)
        return snapshot is not None and header.last_sequence < snapshot.sequence

    def records(self, entity: str, first: int = 1) -> Iterator[Record]:
        """The entity's records from the one with sequence `first` on. Raises Damaged where they can't be trusted."""
        expected = 0
        for offset in self._offsets(entity, first):
            record = self.record(offset)
            if record.entity != entity:
                raise Damaged(entity, expected or first, f"the index leads to a record of {record.entity!r}")
            if record.first_sequence != expected and (expected or record.first_sequence > first):
                raise Damaged(entity, expected or first, f"sequence {expected or first} is missing")
            expected = record.last_sequence + 1
            yield record

    def record(self, offset: int) -> Record:
        data = self.txn.get(pack_offset(offset), db=self.log)
        if data is None:
            raise Damaged(None, 0, f"there is no record at offset {offset}")
        return parse_record(data, offset)

    def header(self, offset: int) -> Header:
        data = self.txn.get(pack_offset(offset), db=self.log)
        if data is None:
            raise Damaged(None, 0, f"there is no record at offset {offset}")
        return parse_header(data, offset)

    def snapshot(self, entity: str) -> Snapshot | None:
        data = self.txn.get(entity.encode(), db=self.snapshots)
        return None if data is None else parse_snapshot(entity, data)

    def log_values(self) -> Iterator[tuple[int, bytes]]:
        """Offset and bytes of every record."""
        with self.txn.cursor(self.log) as cursor:
            for key, value in cursor:
                yield unpack_offset(key), value

    def index_values(self) -> Iterator[tuple[bytes, bytes]]:
        """Key and bytes of every index entry."""
        with self.txn.cursor(self.index) as cursor:
            yield from cursor

    def value_entry(self, entity: str) -> Entry | None:
        """The index entry of the entity's value."""
        key = index_key(entity, 0)
        data = self.txn.get(key, db=self.index)
        return None if data is None else parse_entry(key, data)

    def snapshot_values(self) -> Iterator[tuple[bytes, bytes]]:
        """Entity and bytes of every snapshot."""
        with self.txn.cursor(self.snapshots) as cursor:
            yield from cursor

    def _state(self, entity: str) -> EntityState:
        last, snapshot_sequence, damage = 0, 0, ""
        is_value = is_deleted = False
        try:
            offset = self._last_offset(entity)
            if offset is not None:
                header = self.header(offset)
                last, is_value, is_deleted = header.last_sequence, header.is_value, header.is_deleted
            if is_value:
                self.value(entity)
            elif snapshot := self.snapshot(entity):
                snapshot_sequence = snapshot.sequence
        except Damaged as damaged:
            damage = damaged.what
        return EntityState(entity, last, snapshot_sequence, is_value, is_deleted, damage)

    def _indexed_entities(self, prefix: str) -> Iterator[bytes]:
        # From each entity straight to the one behind its last possible key. The 0xFF behind the id takes part in order.
        start = prefix.encode()
        with self.txn.cursor(self.index) as cursor:
            found = cursor.set_range(start or b"\0")
            while found and cursor.key().startswith(start):
                name = cursor.key()[:-8]
                yield name
                found = cursor.set_range(name + b"\xff" * 9)

    def _tail_entities(self, prefix: str) -> Iterator[bytes]:
        return (name.encode() + b"\xff" for name in self.tail if name.startswith(prefix))

    def _last_offset(self, entity: str) -> int | None:
        if entity in self.tail:
            return self.tail[entity][-1]
        with self.txn.cursor(self.index) as cursor:
            return self._floor(cursor, entity, _LAST)

    def _floor(self, cursor: lmdb.Cursor[bytes], entity: str, sequence: int) -> int | None:
        """Offset of the indexed record that begins at or before `sequence`; the cursor stands on it."""
        key = index_key(entity, sequence)
        found = cursor.set_range(key)
        if not (found and cursor.key() == key):
            found = cursor.prev() if found else cursor.last()
        if not found or not cursor.key().startswith(entity.encode() + b"\xff"):
            return None
        return parse_entry(cursor.key(), cursor.value()).offset

    def _offsets(self, entity: str, first: int) -> Iterator[int]:
        # A tail may have been written to the index in part: its offsets come once.
        tail = self.tail.get(entity, [])
        end = tail[0] if tail else _LAST
        prefix = entity.encode() + b"\xff"
        with self.txn.cursor(self.index) as cursor:
            found = self._floor(cursor, entity, first) is not None or cursor.set_range(index_key(entity, first))
            while found and cursor.key().startswith(prefix) and unpack_offset(cursor.value()) < end:
                yield unpack_offset(cursor.value())
                found = cursor.next()
        yield from tail


class StoredJournal:
    """The journal in the directory `path`, opened for reading only. Raises JournalError when there is none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not (path / "data.mdb").is_file():
            raise JournalError(f"there is no journal in {path}; say where it is with --path")
        try:
            self.environment = lmdb.open(
                str(path),
                readonly=True,
                lock=True,
                create=False,
                max_dbs=MAX_DATABASES,
                map_size=MAP_SIZE,
                max_spare_txns=1,
            )
        except lmdb.Error as error:
            raise JournalError(f"journal {path} cannot be read: {error}") from error

    def __enter__(self) -> StoredJournal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.environment.close()

    @contextmanager
    def view(self) -> Iterator[View]:
        """The journal as it is now, whatever a proxy appends meanwhile."""
        log, index, snapshots, meta = self._databases()
        with self.environment.begin(buffers=False) as txn:
            view = View(txn, log, index, snapshots, _read_meta(txn, meta, log, self.path))
            _read_tail(view)
            yield view

    def _databases(self) -> list[lmdb._Database]:
        try:
            return [self.environment.open_db(name, create=False) for name in (b"log", b"index", b"snapshots", b"meta")]
        except lmdb.Error as error:
            raise JournalError(f"{self.path} holds something else than a journal: {error}") from error


def _read_meta(txn: lmdb.Transaction[bytes], meta: lmdb._Database, log: lmdb._Database, path: Path) -> Meta:
    version = unpack_offset(txn.get(b"format", db=meta) or b"")
    if version != FORMAT_VERSION:
        raise JournalError(
            f"journal {path}: format version {version} is unknown, this program knows version {FORMAT_VERSION}; "
            "use the program that wrote it"
        )
    with txn.cursor(log) as cursor:
        end = unpack_offset(cursor.key()) + 1 if cursor.last() else 0
    identity = (txn.get(b"identity", db=meta) or b"").hex()
    numbers = {name: unpack_offset(txn.get(name, db=meta) or b"") for name in (b"indexed", b"shards", b"epoch")}
    return Meta(version, identity, numbers[b"indexed"], end, numbers[b"shards"], numbers[b"epoch"])


def _read_tail(view: View) -> None:
    with view.txn.cursor(view.log) as cursor:
        found = cursor.set_range(pack_offset(view.meta.indexed))
        while found:
            offset = unpack_offset(cursor.key())
            try:
                header = parse_header(cursor.value(), offset)
                if header.is_value:
                    view.tail[header.entity] = [offset]
                else:
                    view.tail.setdefault(header.entity, []).append(offset)
            except Damaged as damaged:
                view.orphans.append(damaged)
            found = cursor.next()
