"""A backup of a folder, taken from another process while a proxy may write to it.

LMDB copies each environment as it is at one moment, without its free pages. With several workers each moment is
another one; no entity spans two environments, so each is consistent by itself. The copy is made in a folder beside the
target, flushed, checked from end to end, and only then gets its name.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import lmdb

from stateside.journal.contract import JournalError
from stateside.journal.copying import Watch
from stateside.journal.folders import copy_layout, environments
from stateside.journal.lmdb import DATA_FILE, sync_directory
from stateside.journal.reader import StoredJournal
from stateside.journal.verify import verify, work_of

SUFFIX = ".backup"
READERS_FILE = "lock.mdb"


@dataclass(slots=True)
class Saved:
    entities: int = 0
    events: int = 0
    size: int = 0  # bytes


def back_up(path: Path, to: Path, watch: Watch) -> Saved:
    """Copy the journal in `path` to the new folder `to`. Raises JournalError."""
    if to.exists() and any(to.iterdir()):
        raise JournalError(f"{to} is not empty; choose a new folder")
    scratch = to.with_name(to.name + SUFFIX)
    try:
        shutil.rmtree(scratch, ignore_errors=True)  # of a backup that did not come to its end
        scratch.mkdir(parents=True)
        saved = _back_up(path, scratch, watch)
        os.rename(scratch, to)
        sync_directory(to)
    except OSError as error:
        raise JournalError(f"the backup cannot be written to {to}: {error.strerror}") from error
    return saved


def _back_up(path: Path, scratch: Path, watch: Watch) -> Saved:
    folders = environments(path)
    places = [scratch / folder.relative_to(path) for folder in folders]
    watch.begin("copying", len(folders), 0)
    for folder, place in zip(folders, places, strict=True):
        _copy_environment(folder, place)
        watch.advance(1)
    copy_layout(path, scratch)
    saved = Saved()
    for place in places:
        _check(place, saved, watch)
    sync_directory(scratch)
    return saved


def _copy_environment(folder: Path, place: Path) -> None:
    place.mkdir(exist_ok=True)
    with StoredJournal(folder) as stored:
        try:
            stored.environment.copy(str(place), compact=True)
        except lmdb.Error as error:
            raise JournalError(f"journal {folder} cannot be copied to {place}: {error}") from error
    with open(place / DATA_FILE, "rb") as file:
        os.fsync(file.fileno())
    sync_directory(place)


def _check(place: Path, saved: Saved, watch: Watch) -> None:
    with StoredJournal(place) as stored, stored.view() as view:
        watch.begin("verifying", work_of(view), 0)
        verdict = verify(view, lambda: watch.advance(1))
    if verdict.damaged:
        entity, problems = next(iter(sorted(verdict.damaged.items())))
        raise JournalError(
            f"the journal is damaged, and so would be its backup: {entity or 'an unknown entity'}: {problems[0]}; "
            "`stateside journal verify` lists all damage"
        )
    saved.entities += len(verdict.last_sequences)
    saved.events += verdict.events
    saved.size += (place / DATA_FILE).stat().st_size
    (place / READERS_FILE).unlink(missing_ok=True)
