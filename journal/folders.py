"""What a folder holds, for those who look at it from outside: the environments of all its workers.

Whoever starts workers opens it with `layout.JournalFolder`; here it is only read, locked, or made anew by a copy.
"""

from __future__ import annotations

import secrets
import shutil
import struct
from pathlib import Path
from typing import IO

from stateside.journal.contract import JournalError
from stateside.journal.environment import environment_of
from stateside.journal.layout import FOLDER_LOCK
from stateside.journal.layout_file import LAYOUT_FILE, Layout, read_layout, write_layout
from stateside.journal.lmdb import DATA_FILE, lock_directory
from stateside.journal.sharding import EntityShards, owners_among

DEFAULT_SHARDS = 1024
_NODE_HEAD = struct.Struct("!BQ")  # version, identity


class Owners:
    """Which worker's environment each entity is in."""

    def __init__(self, workers: int, number_of_shards: int) -> None:
        self.workers = workers
        self.number_of_shards = number_of_shards
        self._shards = EntityShards(number_of_shards)
        self._owners = owners_among(workers, number_of_shards) if workers > 1 else ()

    def of(self, entity: str) -> int:
        """What is in no shard is worker 0's."""
        shard = self._shards.shard(entity) if self._owners else None
        return 0 if shard is None else self._owners[shard]

    def is_misplaced(self, entity: str, worker: int) -> bool:
        """What is in no shard may be anywhere."""
        return self._shards.shard(entity) is not None and self.of(entity) != worker

    @property
    def text(self) -> str:
        return f"a folder of {self.workers} workers and {self.number_of_shards} shards"


def environments(path: Path) -> list[Path]:
    """Of all workers; the first is `path` itself, whether there is one in it or not. Raises JournalError while shards
    are being moved."""
    layout = _settled(path)
    workers = 1 if layout is None else layout.workers
    folders = folders_of(path, workers)
    for folder in folders[1:]:
        if not (folder / DATA_FILE).is_file():
            raise JournalError(f"journal {path}: the environment {folder} is missing; restore the folder from a backup")
    return folders


def folders_of(path: Path, workers: int) -> list[Path]:
    return [environment_of(path, worker) for worker in range(workers)]


def _settled(path: Path) -> Layout | None:
    layout = read_layout(path)
    if layout is not None and layout.phase:
        raise JournalError(
            f"journal {path}: its shards are being moved to {layout.moving_to} workers; start the proxy, which goes on"
        )
    return layout


def lock_folder(path: Path) -> list[IO[str]]:
    """Keep proxies away from it as long as the files are open. Raises JournalError."""
    locks: list[IO[str]] = []
    try:
        if (path / LAYOUT_FILE).exists():
            locks.append(lock_directory(path, FOLDER_LOCK))
        for folder in environments(path):
            locks.append(lock_directory(folder))
    except (JournalError, OSError):
        for lock in locks:
            lock.close()
        raise
    return locks


def owners_of(path: Path) -> Owners:
    """As the folder is laid out."""
    layout = _settled(path)
    return Owners(1, DEFAULT_SHARDS) if layout is None else Owners(layout.workers, layout.number_of_shards)


def replica_of(path: Path) -> int:
    """The identity of its CRDT replicas; 0: it has no layout."""
    layout = read_layout(path)
    return 0 if layout is None else layout.replica


def shards_of(path: Path) -> int:
    """How many it was made for; 0: it has no layout."""
    layout = read_layout(path)
    return 0 if layout is None else layout.number_of_shards


def lay_out(path: Path, owners: Owners, replica: int, node: bytes | None) -> None:
    """The new folder is complete, with an environment for each worker. replica: 0 takes that of the record of the node,
    or makes a new one."""
    if not replica and node is not None and len(node) >= _NODE_HEAD.size:
        replica = _NODE_HEAD.unpack_from(node)[1]
    write_layout(path, Layout(owners.number_of_shards, owners.workers, replica or secrets.randbits(63) + 1))


def copy_layout(path: Path, to: Path) -> None:
    """For a copy of its environments in the folder `to`."""
    if (path / LAYOUT_FILE).exists():
        shutil.copyfile(path / LAYOUT_FILE, to / LAYOUT_FILE)
