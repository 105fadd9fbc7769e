"""What else one could keep events in on one machine: LMDB by hand, and SQLite with its write-ahead log.

Each does what the journal's contract asks for and no more: per entity a sequence of events and one snapshot, an append
durable when it returns. None of them checks sequences or sums, keeps a log over all entities, or leaves the event loop
free while the disk is flushed, all of which the journal does.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import lmdb

MAP_SIZE = 1 << 30


class Store(Protocol):
    last: dict[str, int]
    """Latest sequence of each entity."""

    def append_each(self, entities: Sequence[str], events: Sequence[bytes], snapshot: bytes | None = None) -> None:
        """Append `events`, and store the snapshot, to every entity; return when everything is durable."""

    def read_all(self, entity: str) -> int:
        """Have every event of an entity in hands; how many."""

    def load_each(self, entities: Sequence[str]) -> list[bytes | None]:
        """The snapshot of each entity."""

    def close(self) -> None: ...


class PlainLmdb:
    """py-lmdb, keys are entity and sequence; one transaction for each entity's append or for all together."""

    def __init__(self, folder: Path, *, each: bool) -> None:
        self.each = each
        self.environment = lmdb.open(str(folder), map_size=MAP_SIZE, max_dbs=2)
        self.events = self.environment.open_db(b"events")
        self.snapshots = self.environment.open_db(b"snapshots")
        self.last: dict[str, int] = {}

    def append_each(self, entities: Sequence[str], events: Sequence[bytes], snapshot: bytes | None = None) -> None:
        if self.each:
            for entity in entities:
                with self.environment.begin(write=True) as transaction:
                    self._append(transaction, entity, events, snapshot)
            return
        with self.environment.begin(write=True) as transaction:
            for entity in entities:
                self._append(transaction, entity, events, snapshot)

    def _append(self, transaction: Any, entity: str, events: Sequence[bytes], snapshot: bytes | None) -> None:
        sequence, prefix = self.last.get(entity, 0), entity.encode()
        for event in events:
            sequence += 1
            transaction.put(prefix + sequence.to_bytes(8, "big"), event, db=self.events)
        self.last[entity] = sequence
        if snapshot is not None:
            transaction.put(prefix, sequence.to_bytes(8, "big") + snapshot, db=self.snapshots)

    def read_all(self, entity: str) -> int:
        prefix, found = entity.encode(), []
        with self.environment.begin(db=self.events) as transaction, transaction.cursor() as cursor:
            if cursor.set_range(prefix):
                for key, event in cursor:
                    if key[:-8] != prefix:
                        break
                    found.append(event)
        return len(found)

    def load_each(self, entities: Sequence[str]) -> list[bytes | None]:
        found: list[bytes | None] = []
        for entity in entities:
            with self.environment.begin(db=self.snapshots) as transaction:
                stored = transaction.get(entity.encode())
                found.append(None if stored is None else stored[8:])
        return found

    def close(self) -> None:
        self.environment.close()


class Sqlite:
    """sqlite3 with the write-ahead log and synchronous=FULL; one transaction for all together."""

    def __init__(self, folder: Path) -> None:
        self.connection = sqlite3.connect(folder / "journal.sqlite", isolation_level=None)
        for statement in (
            "PRAGMA journal_mode=WAL",
            "PRAGMA synchronous=FULL",
            "CREATE TABLE events (entity TEXT, sequence INT, event BLOB, PRIMARY KEY (entity, sequence)) WITHOUT ROWID",
            "CREATE TABLE snapshots (entity TEXT PRIMARY KEY, sequence INT, snapshot BLOB) WITHOUT ROWID",
        ):
            self.connection.execute(statement)
        self.last: dict[str, int] = {}

    def append_each(self, entities: Sequence[str], events: Sequence[bytes], snapshot: bytes | None = None) -> None:
        rows = []
        for entity in entities:
            last = self.last.get(entity, 0)
            rows += [(entity, last + number, event) for number, event in enumerate(events, 1)]
            self.last[entity] = last + len(events)
        self.connection.execute("BEGIN IMMEDIATE")
        self.connection.executemany("INSERT INTO events VALUES (?, ?, ?)", rows)
        if snapshot is not None:
            covered = [(entity, self.last[entity], snapshot) for entity in entities]
            self.connection.executemany("INSERT OR REPLACE INTO snapshots VALUES (?, ?, ?)", covered)
        self.connection.execute("COMMIT")

    def read_all(self, entity: str) -> int:
        query = "SELECT event FROM events WHERE entity = ? ORDER BY sequence"
        return len(self.connection.execute(query, (entity,)).fetchall())

    def load_each(self, entities: Sequence[str]) -> list[bytes | None]:
        query = "SELECT sequence, snapshot FROM snapshots WHERE entity = ?"
        rows = [self.connection.execute(query, (entity,)).fetchone() for entity in entities]
        return [None if row is None else row[1] for row in rows]

    def close(self) -> None:
        self.connection.close()
