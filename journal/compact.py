"""Compaction: a copy of the journal without the free pages that its B-trees leave behind."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import lmdb

from stateside.journal.contract import JournalError
from stateside.journal.lmdb import DATA_FILE, lock_directory, sync_directory
from stateside.journal.reader import StoredJournal

SCRATCH = "compact.tmp"


def compact_to(path: Path, destination: Path) -> tuple[int, int]:
    """Copy the journal in `path` to the new directory `destination`. Gives its bytes before and after."""
    if destination.exists() and any(destination.iterdir()):
        raise JournalError(f"{destination} is not empty; choose a new directory")
    # Opened first: a lock file is not left behind where there is no journal.
    with StoredJournal(path) as stored, lock_directory(path), stored.view():
        destination.mkdir(parents=True, exist_ok=True)
        return _copy(stored, destination)


def compact_in_place(path: Path) -> tuple[int, int]:
    """Replace the journal by its compact copy. A crash leaves the one or the other."""
    scratch = path / SCRATCH
    with StoredJournal(path) as stored, lock_directory(path), stored.view():
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        sizes = _copy(stored, scratch)
        os.replace(scratch / DATA_FILE, path / DATA_FILE)
        # Its readers' table belongs to the old file. Whoever still reads that keeps both.
        (path / "lock.mdb").unlink()
        sync_directory(path)
        shutil.rmtree(scratch)
    return sizes


def _copy(stored: StoredJournal, destination: Path) -> tuple[int, int]:
    try:
        stored.environment.copy(str(destination), compact=True)
    except lmdb.Error as error:
        raise JournalError(f"journal {stored.path} cannot be copied to {destination}: {error}") from error
    with open(destination / DATA_FILE, "rb") as file:
        os.fsync(file.fileno())
    sync_directory(destination)
    return (stored.path / DATA_FILE).stat().st_size, (destination / DATA_FILE).stat().st_size
