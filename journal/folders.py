"""What a folder holds: the environment of one worker, or those of several (the picture is in docs/journal-format.md).

Worker 0's environment is the folder itself, worker i's is `worker-<i>` in it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import IO

from stateside.journal.contract import JournalError
from stateside.journal.lmdb import DATA_FILE, lock_directory
from stateside.journal.sharding import EntityShards, owners_among, worker_name


@dataclass
class FolderLayout:
    """How many workers share a folder, and in how many shards."""

    workers: int = 1
    number_of_shards: int = 1024
    owners: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self._shards = EntityShards(self.number_of_shards)
        self.owners = list(owners_among(self.workers, self.number_of_shards))

    def owner(self, entity: str) -> int:
        """The worker whose environment has the entity. The proxy's own are worker 0's."""
        shard = self._shards.shard(entity) if self.workers > 1 else None
        return 0 if shard is None else self.owners[shard]

    @property
    def text(self) -> str:
        return f"{self.workers} workers, {self.number_of_shards} shards" if self.workers > 1 else ""


def environment_of(path: Path, worker: int) -> Path:
    return path if worker == 0 else path / worker_name(worker)


def environments(path: Path) -> list[Path]:
    """The folders with a journal of a worker each; the first is `path` itself, whether there is one in it or not."""
    found = [path]
    for worker in count(1):
        folder = environment_of(path, worker)
        if not (folder / DATA_FILE).is_file():
            return found
        found.append(folder)
    raise AssertionError("an endless count ended")


def lock_folder(path: Path) -> list[IO[str]]:
    """Keep proxies away from all environments as long as the files are open. Raises JournalError."""
    locks: list[IO[str]] = []
    try:
        for folder in environments(path):
            locks.append(lock_directory(folder))
    except (JournalError, OSError):
        for lock in locks:
            lock.close()
        raise
    return locks


def layout_of(path: Path) -> FolderLayout:
    return FolderLayout(len(environments(path)))


def write_layout(path: Path, layout: FolderLayout) -> None:
    """Of a new folder. One worker's needs none."""


def copy_layout(path: Path, to: Path) -> None:
    """Of the folder `path`, for a copy of its environments in `to`."""
