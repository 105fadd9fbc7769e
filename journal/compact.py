"""Compaction: a copy of the journal without superseded values, without what a snapshot of the proxy's own entities
covers, and without the free pages that its B-trees leave behind.

Records keep their offsets (their checksums depend on them); the log of the copy has gaps where something was left out.
"""

from __future__ import annotations

import heapq
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import lmdb

from stateside.journal.contract import JournalError
from stateside.journal.format import Damaged, index_key, pack_value_entry, parse_entry, parse_header, unpack_offset
from stateside.journal.limits import INTERNAL
from stateside.journal.lmdb import DATA_FILE, lock_directory, sync_directory
from stateside.journal.reader import MAP_SIZE, MAX_DATABASES, StoredJournal, View

SCRATCH = "compact.tmp"
READERS_FILE = "lock.mdb"
TRANSACTION_BYTES = 16 << 20


def compact_to(path: Path, destination: Path) -> tuple[int, int]:
    """Copy the journal in `path` to the new directory `destination`. Gives its bytes before and after."""
    if destination.exists() and any(destination.iterdir()):
        raise JournalError(f"{destination} is not empty; choose a new directory")
    # Opened first: a lock file is not left behind where there is no journal.
    with StoredJournal(path) as stored, lock_directory(path), stored.view() as view:
        destination.mkdir(parents=True, exist_ok=True)
        return _copy(stored, view, destination)


def compact_in_place(path: Path) -> tuple[int, int]:
    """Replace the journal by its compact copy. A crash leaves the one or the other."""
    scratch = path / SCRATCH
    with StoredJournal(path) as stored, lock_directory(path), stored.view() as view:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        sizes = _copy(stored, view, scratch)
        os.replace(scratch / DATA_FILE, path / DATA_FILE)
        # Its readers' table belongs to the old file. Whoever still reads that keeps both.
        (path / READERS_FILE).unlink()
        sync_directory(path)
        shutil.rmtree(scratch)
    return sizes


def _copy(stored: StoredJournal, view: View, destination: Path) -> tuple[int, int]:
    try:
        with lmdb.open(str(destination), map_size=MAP_SIZE, max_dbs=MAX_DATABASES, sync=False, mode=0o600) as target:
            _fill(stored, view, target)
            target.sync(True)
    except lmdb.Error as error:
        raise JournalError(f"journal {stored.path} cannot be copied to {destination}: {error}") from error
    (destination / READERS_FILE).unlink()
    sync_directory(destination)
    return (stored.path / DATA_FILE).stat().st_size, (destination / DATA_FILE).stat().st_size


def _fill(stored: StoredJournal, view: View, target: lmdb.Environment) -> None:
    """Copy every database, also those that this version does not know, in the order of their keys."""
    living = _Living(view)
    with view.txn.cursor() as names:
        databases = [bytes(name) for name, _ in names]
    for name in sorted(databases, key=lambda name: name != b"log"):
        source = stored.environment.open_db(name, view.txn, create=False)
        with view.txn.cursor(source) as cursor:
            items: Iterator[tuple[bytes, bytes]] = iter(cursor)
            if name == b"log":
                items = living.records(items)
            elif name == b"index":
                items = living.indexed(items)
            _put_all(target, name, items)


def _put_all(target: lmdb.Environment, name: bytes, items: Iterator[tuple[bytes, bytes]]) -> None:
    database = target.open_db(name)
    more = True
    while more:
        with target.begin(write=True) as txn, txn.cursor(database) as cursor:
            size = 0
            more = False
            for key, data in items:
                cursor.put(key, data, append=True)
                size += len(data)
                if size > TRANSACTION_BYTES:
                    more = True
                    break


class _Living:
    """Leaves superseded values and covered events out of the log, and out of the index what may still lead to them: the
    places of values that it does not have yet are added to it."""

    def __init__(self, view: View) -> None:
        self.view = view

    def records(self, records: Iterator[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
        for key, data in records:
            if not self._is_dead(unpack_offset(key), data):
                yield key, data

    def indexed(self, entries: Iterator[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
        missing = self._tail_entries()
        kept = ((key, data) for key, data in entries if key not in missing and not self._leads_nowhere(key, data))
        yield from heapq.merge(kept, sorted(missing.items()))

    def _is_dead(self, offset: int, data: bytes) -> bool:
        try:
            header = parse_header(data, offset)
            return self.view.superseded(header) or self.view.covered(header)
        except Damaged:
            return False

    def _leads_nowhere(self, key: bytes, data: bytes) -> bool:
        if not key.startswith(INTERNAL.encode()):
            return False
        try:
            return self.view.covered(self.view.header(parse_entry(key, data).offset))
        except Damaged:
            return False

    def _tail_entries(self) -> dict[bytes, bytes]:
        found = {}
        for entity, offsets in self.view.tail.items():
            header = self.view.header(offsets[-1])
            if header.is_value:
                found[index_key(entity, 0)] = pack_value_entry(offsets[-1], header.first_sequence)
        return found
