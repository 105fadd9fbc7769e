"""The second copy of the journal in Postgres (`journal_replica`), as a worker sees it: only in synchronous mode does it
have to do with it at all. The process that makes the copy is replicator.py."""

from __future__ import annotations

from pathlib import Path

from stateside.journal.contract import Journal
from stateside.journal.sharding import worker_name
from stateside.proxy.config import Settings
from stateside.proxy.place import Place

SYNC = "sync"


def synced(journal: Journal, settings: Settings, place: Place) -> Journal:
    """The journal that a worker appends to: `journal`, or one that waits for Postgres, too."""
    if not settings.journal_replica or settings.journal_replica_mode != SYNC or place.is_alone:
        return journal
    from stateside.journal.lmdb import LmdbJournal
    from stateside.journal.synced import SyncedJournal

    assert isinstance(journal, LmdbJournal)
    return SyncedJournal(journal, place.replicator_socket, place.index, settings.postgres_write_timeout)


def log_folders(settings: Settings) -> dict[str, Path]:
    """Where each worker's log is, by the worker's name."""
    folder = Path(settings.journal.removeprefix("lmdb:"))
    names = [worker_name(index) for index in range(settings.workers)]
    return {name: folder / name if index else folder for index, name in enumerate(names)}
