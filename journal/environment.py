"""One LMDB environment of a journal, written from outside while nobody has it open: what moving shards does.

Everything a batch changes goes in one transaction: records at the end of the log, their index entries, and what goes
with them. So the index never lags here, and a crash leaves a batch or nothing of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import lmdb

from stateside.journal.contract import JournalError
from stateside.journal.format import (
    FORMAT_VERSION,
    index_key,
    pack_offset,
    pack_value_entry,
    parse_header,
    parse_record,
    seal_record,
    unpack_offset,
    value_record,
)
from stateside.journal.lmdb import sync_directory
from stateside.journal.reader import MAP_SIZE, MAX_DATABASES
from stateside.journal.sharding import worker_name

_DATABASES = (b"log", b"index", b"snapshots", b"meta")


def environment_of(path: Path, index: int) -> Path:
    """The folder of a worker's environment in the journal `path`."""
    return path if index == 0 else path / worker_name(index)


def create_environment(path: Path) -> None:
    """Make an empty environment in `path`, unless there is one."""
    with Environment(path):
        pass
    sync_directory(path)


class Environment:
    """The environment in `path`, opened for writing, made if there is none. The caller holds its lock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._explained():
            path.mkdir(parents=True, exist_ok=True)
            self._lmdb = lmdb.open(str(path), map_size=MAP_SIZE, max_dbs=MAX_DATABASES, mode=0o600, max_spare_txns=1)
            with self._lmdb.begin(write=True) as txn:
                self.log, self.index, self.snapshots, self.meta = (self._lmdb.open_db(name, txn) for name in _DATABASES)
                if txn.stat(self.meta)["entries"] == 0:
                    txn.put(b"format", pack_offset(FORMAT_VERSION), db=self.meta)
                    txn.put(b"identity", os.urandom(16), db=self.meta)

    def __enter__(self) -> Environment:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lmdb.close()

    @contextmanager
    def read(self) -> Iterator[lmdb.Transaction[bytes]]:
        with self._explained(), self._lmdb.begin(buffers=False) as txn:
            yield txn

    @contextmanager
    def write(self) -> Iterator[Writing]:
        """One transaction, durable at the end. After an exception nothing of it is stored."""
        with self._explained(), self._lmdb.begin(write=True) as txn:
            writing = Writing(self, txn)
            yield writing
            writing.finish()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (lmdb.Error, OSError) as error:
            raise JournalError(f"journal {self.path}: {error}") from error


class Writing:
    """A transaction that appends to the log and keeps the index complete."""

    def __init__(self, environment: Environment, txn: lmdb.Transaction[bytes]) -> None:
        self.environment = environment
        self.txn = txn
        self._log = txn.cursor(environment.log)
        self.end = unpack_offset(self._log.key()) + 1 if self._log.last() else 0
        self._complete_index()

    def number(self, name: bytes) -> int:
        """A number in `meta`, 0 if it is not there."""
        return unpack_offset(self.txn.get(name, db=self.environment.meta) or b"")

    def set_number(self, name: bytes, number: int) -> None:
        self.txn.put(name, pack_offset(number), db=self.environment.meta)

    def append(self, entity: bytes, sequence: int, is_value: bool, record: bytes) -> int:
        """Put a record of another log at the end of this one. Gives its offset here."""
        offset = self.end
        key = pack_offset(offset)
        self._log.put(key, seal_record(record, len(entity), offset), append=True)
        if is_value:
            self.txn.put(index_key(entity, 0), pack_value_entry(offset, sequence), db=self.environment.index)
        else:
            self.txn.put(index_key(entity, sequence), key, db=self.environment.index)
        self.end += 1
        return offset

    def value(self, entity: str) -> bytes | None:
        """The value of an entity that keeps one."""
        found = self.txn.get(index_key(entity.encode(), 0), db=self.environment.index)
        if found is None:
            return None
        offset = unpack_offset(found[:8])
        return parse_record(self.txn.get(pack_offset(offset), db=self.environment.log) or b"", offset).value

    def put_value(self, entity: str, value: bytes) -> None:
        """Its next version."""
        name = entity.encode()
        found = self.txn.get(index_key(name, 0), db=self.environment.index)
        version = unpack_offset(found[8:]) + 1 if found else 1
        self.append(name, version, True, value_record(name, version, self.number(b"epoch"), value))

    def finish(self) -> None:
        self.set_number(b"indexed", self.end)

    def _complete_index(self) -> None:
        """What a crash left out of it."""
        found = self._log.set_range(pack_offset(self.number(b"indexed")))
        while found:
            offset = unpack_offset(self._log.key())
            header = parse_header(self._log.value(), offset)
            entity, first = header.entity.encode(), header.first_sequence
            if header.is_value:
                self.txn.put(index_key(entity, 0), pack_value_entry(offset, first), db=self.environment.index)
            else:
                self.txn.put(index_key(entity, first), pack_offset(offset), db=self.environment.index)
            found = self._log.next()
