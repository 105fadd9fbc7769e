"""The layout file of a journal's folder: how many workers' environments it has, for how many shards, whose replicas its
CRDTs are, and a move of shards that is under way. docs/journal-format.md has the picture.

It is small, replaced as a whole, and on the disk before anything relies on it. A text that is not exactly what was
written is refused: guessing here could hide a worker's journal.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from xxhash import xxh3_64_hexdigest

from stateside.journal.contract import JournalError
from stateside.journal.lmdb import sync_directory

LAYOUT_FILE = "layout.json"
LAYOUT_FORMAT = 1
COPYING = "copying"  # what moves is being copied; the old workers' environments are still whole
PURGING = "purging"  # everything was copied; what moved is being deleted where it was
_PHASES = ("", COPYING, PURGING)


@dataclass(frozen=True, slots=True)
class Layout:
    """`workers` have everything while `phase` is "" or COPYING; while it is PURGING, those of `moving_to` have."""

    number_of_shards: int
    workers: int
    replica: int  # identity of the node's CRDT replicas
    moves: int = 0  # how many were begun: the number of the present one
    moving_to: int = 0
    phase: str = ""

    @property
    def environments(self) -> int:
        """How many there may be."""
        return max(self.workers, self.moving_to)


def read_layout(path: Path) -> Layout | None:
    """The layout of the folder, None if it has none. Raises JournalError when it cannot be relied on."""
    try:
        text = (path / LAYOUT_FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise _damaged(path, str(error)) from error
    try:
        found = json.loads(text)
        if not isinstance(found, dict):
            raise TypeError("it is no object")
        version = found.pop("format", None)
        if type(version) is int and version > LAYOUT_FORMAT:
            raise JournalError(
                f"journal {path}: layout version {version} is unknown, this program knows version {LAYOUT_FORMAT}; "
                "use the program that wrote it"
            )
        check = found.pop("check", None)
        if version != LAYOUT_FORMAT or check != _check(found):
            raise ValueError("it does not fit its checksum")
        return _checked(Layout(**found))
    except (ValueError, TypeError) as error:
        raise _damaged(path, str(error)) from error


def write_layout(path: Path, layout: Layout) -> None:
    """Durable when it returns; after a crash there is the old one or this."""
    fields = asdict(layout)
    text = json.dumps({"format": LAYOUT_FORMAT, **fields, "check": _check(fields)}, indent=1)
    scratch = path / (LAYOUT_FILE + ".new")
    try:
        with open(scratch, "w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path / LAYOUT_FILE)
        sync_directory(path)
    except OSError as error:
        raise JournalError(f"journal {path}: {LAYOUT_FILE} cannot be written: {error.strerror}") from error


def _checked(layout: Layout) -> Layout:
    numbers = (layout.number_of_shards, layout.workers, layout.replica, layout.moves, layout.moving_to)
    if not all(type(number) is int and number >= 0 for number in numbers) or layout.phase not in _PHASES:
        raise ValueError("it has impossible values")
    if not layout.number_of_shards or not layout.workers or bool(layout.moving_to) != bool(layout.phase):
        raise ValueError("it has impossible values")
    return layout


def _check(fields: dict[str, Any]) -> str:
    return xxh3_64_hexdigest(json.dumps(fields, sort_keys=True).encode())


def _damaged(path: Path, why: str) -> JournalError:
    return JournalError(f"journal {path}: {LAYOUT_FILE} is damaged ({why}); restore it, or the folder, from a backup")
