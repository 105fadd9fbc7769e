"""The journal in LMDB: one directory per proxy, group-committed. docs/journal-format.md describes the bytes.

This module holds what an operator meets: settings, the lock against a second proxy, and the words of errors. The engine
is `stateside._speedups.log`.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from stateside._speedups.log import ErrorKind, Log, error_text
from stateside.journal.contract import (
    Broken,
    Corrupt,
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
    TooLarge,
    Waiter,
)
from stateside.journal.limits import shards_error

DATA_FILE = "data.mdb"
LOCK_FILE = "journal.lock"
LOG_PAGE_BYTES = 1 << 20  # of events in one page of the log
_DURABILITIES = {Durability.DURABLE: 0, Durability.RELAXED: 1, Durability.NONE: 2}


@dataclass(frozen=True, slots=True)
class LmdbSettings:
    """Bounds of one LMDB journal. Sizes in bytes."""

    map_size: int = 1 << 30  # address space at the start; doubled when it is full ...
    map_size_max: int = 1 << 40  # ... up to this
    queue_bytes: int = 64 << 20  # gathered while a flush is running; above: Full
    queue_appends: int = 65_536
    record_bytes: int = 32 << 20  # one append with all its events and its snapshot; above: TooLarge
    tail_appends: int = 16_384  # index entries collected before they are written
    head_cache: int = 32_768  # entities whose last sequence is remembered, twice at most
    probe_interval: float = 1.0  # seconds between tries to write again when the store is full

    def __post_init__(self) -> None:
        if not 1 << 20 <= self.map_size <= self.map_size_max:
            raise ValueError(
                f"map_size is {self.map_size}: from 1 MiB to map_size_max ({self.map_size_max}) is possible"
            )
        if not 1 <= self.record_bytes <= self.queue_bytes <= 1 << 31:
            raise ValueError(
                f"record_bytes is {self.record_bytes}, queue_bytes is {self.queue_bytes}: "
                "1 <= record_bytes <= queue_bytes <= 2 GiB is possible"
            )
        for name in ("queue_appends", "tail_appends", "head_cache"):
            if not 1 <= getattr(self, name) <= 1 << 24:
                raise ValueError(f"{name} is {getattr(self, name)}: from 1 to {1 << 24} is possible")
        if self.probe_interval <= 0:
            raise ValueError(f"probe_interval is {self.probe_interval}: it must be positive")


class LmdbJournal(Journal):
    """A durable journal in the directory `path`.

    `on_broken` is called once, when a flush failed: nothing can be trusted to be stored, the process must stop.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        durability: Durability = Durability.DURABLE,
        settings: LmdbSettings | None = None,
        on_broken: Callable[[JournalError], None] | None = None,
    ) -> None:
        super().__init__()
        self.path = Path(path)
        self.durability = durability
        self.settings = settings or LmdbSettings()
        self.on_broken = on_broken
        self._lock: IO[str] | None = None
        self.log = self._make_log()
        self.log.on_events = self._tell_listeners

    async def open(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = lock_directory(self.path)
        except OSError as error:
            raise JournalError(
                f"journal {self.path}: {error.strerror}; choose another directory or mend its rights"
            ) from error
        try:
            self.log.open(asyncio.get_running_loop())
            sync_directory(self.path)
        except BaseException:
            self._unlock()
            raise

    async def close(self) -> None:
        await self.log.close()
        self._unlock()

    async def claim(self, shards: Collection[int], number_of_shards: int) -> int:
        return self.log.claim(number_of_shards)

    @property
    def writable(self) -> bool:
        return self.log.opened and self.log.state == 0

    def load(self, entity: str, waiter: Waiter) -> None:
        try:
            last_sequence, snapshot_sequence, snapshot = self.log.load(entity)
        except JournalError as error:
            waiter.on_loaded(None, error)
        else:
            waiter.on_loaded(Head(last_sequence, snapshot_sequence, snapshot), None)

    def read(self, entity: str, from_sequence: int, max_bytes: int, waiter: Waiter) -> None:
        try:
            events, more = self.log.read(entity, from_sequence, max_bytes)
        except JournalError as error:
            waiter.on_page(None, error)
        else:
            waiter.on_page(Page(from_sequence, events, more), None)

    def read_log(self, prefix: str, from_offset: int, limit: int, waiter: LogWaiter) -> None:
        try:
            entries, next_offset, more = self.log.read_log(prefix, from_offset, limit, LOG_PAGE_BYTES)
        except JournalError as error:
            waiter.on_log(None, error)
        else:
            waiter.on_log(LogPage(list(map(LogEntry._make, entries)), next_offset, more), None)

    def list_entities(self, prefix: str, after: str, limit: int, waiter: ListWaiter) -> None:
        try:
            entities = self.log.entities(prefix, after, limit)
        except JournalError as error:
            waiter.on_entities(None, error)
        else:
            waiter.on_entities(entities, None)

    def append(
        self,
        entity: str,
        first_sequence: int,
        events: Sequence[bytes],
        snapshot: bytes | None,
        waiter: Waiter,
        epoch: int = 0,
    ) -> None:
        self.log.append(entity, first_sequence, events, snapshot, waiter, epoch)

    def put(self, entity: str, version: int, value: bytes | None, waiter: Waiter, epoch: int = 0) -> None:
        self.log.put(entity, version, value, waiter, epoch)

    def restore(self, entity: str, version: int, value: bytes | None, waiter: Waiter) -> None:
        """Like `put` of a value saved elsewhere: versions between the stored one and this may be missing."""
        self.log.put(entity, version, value, waiter, 0, gap_allowed=True)

    def _make_log(self) -> Log:
        settings = self.settings
        return Log(
            str(self.path),
            explain=self._explain,
            error_type=JournalError,
            on_broken=self._tell_broken,
            durability=_DURABILITIES[self.durability],
            map_size=settings.map_size,
            map_size_max=settings.map_size_max,
            queue_bytes=settings.queue_bytes,
            queue_appends=settings.queue_appends,
            record_bytes=settings.record_bytes,
            tail_appends=settings.tail_appends,
            head_cache=settings.head_cache,
            probe_interval=settings.probe_interval,
        )

    def _tell_broken(self, error: Exception) -> None:
        if self.on_broken is not None and isinstance(error, JournalError):
            self.on_broken(error)

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _explain(self, kind: int, entity: str | None, a: int, b: int) -> JournalError:
        """The engine's numbers in words; see ErrorKind."""
        if kind == ErrorKind.OTHER_SHARDS:
            return shards_error(f"journal {self.path}", a, b)
        make, text = _ERRORS[kind]
        where = f"journal {self.path}" if entity is None else f"{entity[:200]}"
        code = error_text(a) if kind in _WITH_CODE else ""
        return make(
            f"{where}: {text.format(a=a, b=b, code=code, maximum=self.settings.map_size_max)}{_advice(kind, a)}"
        )


_WITH_CODE = (ErrorKind.FULL, ErrorKind.BROKEN, ErrorKind.STORE)
_ERRORS: dict[int, tuple[type[JournalError], str]] = {
    ErrorKind.TAKEN: (SequenceTaken, "sequence {a} does not follow the last one, {b}; load the entity again"),
    ErrorKind.STALE: (StaleEpoch, "epoch {a} is over, the entity is owned under epoch {b}"),
    ErrorKind.CORRUPT: (
        Corrupt,
        "what is stored at sequence {a} cannot be trusted (0: the snapshot); "
        "`stateside journal verify` lists what is damaged, restore this entity from a backup",
    ),
    ErrorKind.ORPHAN: (
        Corrupt,
        "the record at offset {a} is damaged and cannot be attributed to an entity; restore the journal from a backup, "
        "or save what is readable with `stateside journal export`",
    ),
    ErrorKind.FULL: (Full, "the journal cannot grow: {code} (map of {b} bytes, at most {maximum})"),
    ErrorKind.QUEUE: (
        Full,
        "the queue of appends is full ({a} bytes in {b} appends wait for the running flush); try again",
    ),
    ErrorKind.BROKEN: (
        Broken,
        "a flush failed: {code}; nothing more can be trusted to reach the disk, stop and check it",
    ),
    ErrorKind.TOO_LARGE: (TooLarge, "the append takes {a} bytes, at most {b} are possible"),
    ErrorKind.ENTITY: (TooLarge, "the entity id has {a} bytes, from 1 to {b} are possible"),
    ErrorKind.CLOSED: (JournalError, "the journal is not open; after closing it, make a new one"),
    ErrorKind.FORMAT: (
        JournalError,
        "format version {a} is unknown, this program knows version {b}; use the program that wrote it, or "
        "export the journal there and import it here",
    ),
    ErrorKind.STORE: (JournalError, "{code}"),
    ErrorKind.HAS_VALUE: (
        SequenceTaken,
        "sequence {a} cannot be appended: the entity keeps a value (version {b}), and never events beside it",
    ),
    ErrorKind.HAS_EVENTS: (
        SequenceTaken,
        "version {a} cannot be put: the entity keeps events (the last is {b}), and never a value beside them",
    ),
}
_ADVICE = {
    errno.ENOSPC: "; free disk space, the journal goes on by itself",
    errno.EDQUOT: "; raise the quota, the journal goes on by itself",
    errno.EFBIG: "; raise the limit of file sizes",
    -30792: "; raise map_size_max",  # MDB_MAP_FULL
    -30793: "; it is not a journal, choose another directory",  # MDB_INVALID
}


def _advice(kind: int, code: int) -> str:
    return _ADVICE.get(code, "") if kind in (ErrorKind.FULL, ErrorKind.STORE) else ""


def lock_directory(path: Path, name: str = LOCK_FILE) -> IO[str]:
    """Keep other writers away from the journal in `path` as long as the returned file is open."""
    # Opened for appending: the words of the present owner must survive the attempt.
    file = open(path / name, "a+", encoding="ascii")  # noqa: SIM115
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        owner = file.read().strip() or "unknown"
        file.close()
        raise JournalError(
            f"journal {path} is in use by process {owner}; stop it, or give this one a directory of its own"
        ) from None
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


def sync_directory(path: Path) -> None:
    """Make the new files' names durable, and the directory's own."""
    for directory in (path, path.parent):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
