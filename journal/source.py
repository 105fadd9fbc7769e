"""A worker's LMDB log as the replicator reads it: from another process, from an offset on, in batches.

A read transaction lasts as long as one batch takes to be copied out, some milliseconds, so the writer can use old pages
again soon. The map is opened as large as it may ever grow: a writer that lets it grow does not concern a reader then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import lmdb

from stateside._speedups.copyrows import CopyRows, event_at
from stateside.journal.contract import Corrupt, JournalError
from stateside.journal.format import FORMAT_VERSION, Damaged, pack_offset, parse_snapshot, unpack_offset
from stateside.journal.reader import MAP_SIZE, MAX_DATABASES

BATCH_BYTES = 4 << 20  # of rows; a record may go beyond it
BATCH_RECORDS = 20_000
WALK_RECORDS = 50_000  # looked at for a consumer's offset within one read transaction
SWEEP_SNAPSHOTS = 1_000  # read at a time when all snapshots are compared
LAG_SAMPLES = 512
DATA_FILE = "data.mdb"


@dataclass(slots=True)
class Consumer:
    """How far a consumer is in one log, and where that is in the standby. `offset` as its worker stored it; there is
    no event of its between it and `walked`; `found` is the first one behind that, as (entity, sequence)."""

    offset: int
    walked: int
    found: tuple[bytes, int] | None = None


@dataclass(slots=True)
class Batch:
    """Records `first` (inclusive) to `through` (exclusive). `snapshots`: sequence and bytes by entity."""

    first: int
    through: int
    rows: CopyRows
    snapshots: dict[bytes, tuple[int, bytes]]


@dataclass(slots=True)
class Samples:
    """When which end of the log was first seen, for the age of the oldest record that was not shipped."""

    seen: deque[tuple[int, float]] = field(default_factory=deque)

    def note(self, end: int, applied: int) -> None:
        while self.seen and self.seen[0][0] <= applied:
            self.seen.popleft()
        if end > applied and (not self.seen or end > self.seen[-1][0]):
            if len(self.seen) >= LAG_SAMPLES:  # far behind: every other one is exact enough
                self.seen = deque(list(self.seen)[::2])
            self.seen.append((end, monotonic()))

    def age(self, applied: int) -> float:
        """Seconds since the oldest record behind `applied` was seen; 0 if there is none."""
        return next((monotonic() - since for end, since in self.seen if end > applied), 0.0)


class Source:
    """The log of one worker. `applied`: the standby has everything before this record."""

    def __init__(self, name: str, folder: Path, map_size: int = MAP_SIZE) -> None:
        self.name = name
        self.folder = folder
        self.identity = ""
        self.applied = 0
        self.end = 0
        self.checksum = b""  # of the record before `applied`
        self.swept = b""  # snapshots up to this entity were compared since the start ...
        self.is_swept = False
        self.samples = Samples()
        self.consumers: dict[bytes, Consumer] = {}
        self._map_size = max(map_size, MAP_SIZE)
        self._environment: lmdb.Environment | None = None

    @property
    def behind(self) -> int:
        return max(0, self.end - self.applied)

    def open(self) -> bool:
        """False: there is no journal yet. Raises JournalError when it is none of ours."""
        if self._environment is not None:
            return True
        if not (self.folder / DATA_FILE).is_file():
            return False
        try:
            self._environment = lmdb.open(
                str(self.folder),
                readonly=True,
                create=False,
                max_dbs=MAX_DATABASES,
                map_size=self._map_size,
                max_spare_txns=1,
            )
            self._log = self._environment.open_db(b"log", create=False)
            self._snapshots = self._environment.open_db(b"snapshots", create=False)
            meta = self._environment.open_db(b"meta", create=False)
        except lmdb.Error:  # its writer is just making it
            self.close()
            return False
        with self._reading() as txn:
            version = unpack_offset(txn.get(b"format", db=meta) or b"")
            self.identity = (txn.get(b"identity", db=meta) or b"").hex()
        if version != FORMAT_VERSION:
            self.close()
            raise JournalError(f"journal {self.folder}: format version {version}, known is {FORMAT_VERSION}")
        self.look()
        return True

    def close(self) -> None:
        environment, self._environment = self._environment, None
        if environment is not None:
            environment.close()

    @contextmanager
    def _reading(self) -> Iterator[lmdb.Transaction[bytes]]:
        assert self._environment is not None
        try:
            txn = self._environment.begin()
        except lmdb.MapResizedError:
            self._environment.set_mapsize(0)  # whatever the writer has made it
            txn = self._environment.begin()
        with txn:
            yield txn

    def resume(self, applied: int, checksum: bytes) -> None:
        """Go on behind what the standby has. Raises JournalError when this log did not lead there."""
        self.applied, self.checksum = applied, checksum
        self.consumers.clear()
        self.samples = Samples()
        self.look()
        with self._reading() as txn:
            last = txn.get(pack_offset(applied - 1), db=self._log) if applied else None
        # A record that `compact` left out says nothing.
        if applied > self.end or (last is not None and last[:8] != checksum):
            raise JournalError(
                f"journal {self.folder}: Postgres has another history of it (up to record {applied}, here are "
                f"{self.end}): an older state of the folder was restored, or a power cut took what `durability` did "
                "not promise; choose another postgres_schema, or start a proxy from that one"
            )

    def look(self) -> None:
        """See how long the log is by now."""
        with self._reading() as txn, txn.cursor(self._log) as cursor:
            self.end = unpack_offset(cursor.key()) + 1 if cursor.last() else 0
        self.samples.note(self.end, self.applied)

    def next_batch(self, first_offset: int) -> Batch:
        """Records behind `applied`, numbered for the standby from `first_offset`. Raises Corrupt."""
        rows = CopyRows(first_offset)
        through = self.applied
        with self._reading() as txn:
            with txn.cursor(self._log) as cursor:
                found = cursor.set_range(pack_offset(self.applied))
                for key, data in cursor.iternext() if found else ():
                    through = unpack_offset(key)
                    self._take(rows, through, data)
                    through += 1
                    if rows.size >= BATCH_BYTES or rows.records >= BATCH_RECORDS:
                        break
            return Batch(self.applied, through, rows, self._snapshots_of(txn, rows))

    def _take(self, rows: CopyRows, offset: int, data: bytes) -> None:
        try:
            rows.add(offset, data)
        except ValueError as error:
            raise Corrupt(
                f"journal {self.folder}: {error}; nothing behind it is replicated: `stateside journal verify` lists "
                "what is damaged"
            ) from error

    def _snapshots_of(self, txn: lmdb.Transaction[bytes], rows: CopyRows) -> dict[bytes, tuple[int, bytes]]:
        """The latest ones. One that covers events of a later batch comes with the record that brought it."""
        found = {}
        for entity, head in rows.heads.items():
            if head.has_snapshot and (snapshot := self._snapshot(txn, entity)) and snapshot[0] <= head.last_sequence:
                found[entity] = snapshot
        return found

    def _snapshot(self, txn: lmdb.Transaction[bytes], entity: bytes) -> tuple[int, bytes] | None:
        data = txn.get(entity, db=self._snapshots)
        try:
            snapshot = None if data is None else parse_snapshot(entity.decode(), data)
        except Damaged:
            return None  # its events are all there
        return None if snapshot is None else (snapshot.sequence, snapshot.payload)

    def more_snapshots(self) -> dict[bytes, tuple[int, bytes]]:
        """Some that were not compared with the standby's since the start; none: that is done. An import stores some
        without a record in the log."""
        found: dict[bytes, tuple[int, bytes]] = {}
        with self._reading() as txn, txn.cursor(self._snapshots) as cursor:
            more = cursor.set_range(self.swept + b"\0" if self.swept else b"\0")
            while more and len(found) < SWEEP_SNAPSHOTS:
                self.swept = cursor.key()
                if (snapshot := self._snapshot(txn, self.swept)) is not None:
                    found[self.swept] = snapshot
                more = cursor.next()
        self.is_swept = not more
        return found

    def walk(self, consumer: Consumer, prefix: bytes, until: int) -> None:
        """Look for the consumer's next event before the record `until`."""
        while not self._walk_some(consumer, prefix, until):
            pass  # each time with another read transaction, so that none takes long

    def _walk_some(self, consumer: Consumer, prefix: bytes, until: int) -> bool:
        """False: there is more to look through."""
        first, seen = consumer.walked, 0
        with self._reading() as txn, txn.cursor(self._log) as cursor:
            found = consumer.found is None and first < until and cursor.set_range(pack_offset(first))
            for key, data in cursor.iternext() if found else ():
                offset = unpack_offset(key)
                if offset >= until:
                    break
                seen += 1
                consumer.found = event_at(offset, data, prefix, consumer.offset)
                if consumer.found is not None:
                    return True
                consumer.walked = offset + 1
                if seen == WALK_RECORDS:
                    return False
        return True
