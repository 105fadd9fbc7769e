"""The folder of an LMDB journal with one environment for each worker, as whoever starts workers opens it.

    folder.lock    held by the process that opened the folder: a supervisor, or a proxy without one
    layout.json    journal/layout_file.py
    data.mdb ...   the environment of worker 0: a journal of one worker is what it was before there were several
    worker-1/ ...  those of the others, each with a lock of its own that its worker holds

A folder is opened for a number of workers and of shards. When it was left with another number of workers, shards are
moved (journal/reshard.py) before anything else happens.
"""

from __future__ import annotations

import secrets
import struct
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import IO

from stateside.journal import reshard
from stateside.journal.contract import JournalError
from stateside.journal.environment import create_environment, environment_of
from stateside.journal.format import Damaged
from stateside.journal.layout_file import LAYOUT_FILE, PURGING, Layout, read_layout, write_layout
from stateside.journal.limits import NODE_ENTITY, shards_error
from stateside.journal.lmdb import DATA_FILE, lock_directory
from stateside.journal.reader import StoredJournal
from stateside.journal.sharding import worker_name

FOLDER_LOCK = "folder.lock"
_NODE_HEAD = struct.Struct("!BQ")  # of the record of a node: version, identity

Progress = reshard.Progress


class JournalFolder:
    """An opened folder. It is locked until `close`.

    workers, number_of_shards: what it was opened for. replica: lasting identity of the node's CRDT replicas, the same
    for all workers; to be used only with a journal that is durable (proxy/node_record.py says why).
    """

    def __init__(self, path: Path, layout: Layout, lock: IO[str]) -> None:
        self.path = path
        self.workers = layout.workers
        self.number_of_shards = layout.number_of_shards
        self.replica = layout.replica
        self._lock = lock

    @classmethod
    def open(
        cls,
        path: str | Path,
        workers: int,
        number_of_shards: int,
        progress: Callable[[Progress], None] = lambda _: None,
    ) -> JournalFolder:
        """Lock the folder, make it if there is none, and move shards if there were other workers. Blocks meanwhile,
        and calls `progress` twice a second at most; an exception out of that stops the move, which goes on at the next
        opening. Raises JournalError with what to do when the folder cannot be opened so."""
        path = Path(path)
        with ExitStack() as stack:
            try:
                path.mkdir(parents=True, exist_ok=True)
                lock = stack.enter_context(lock_directory(path, FOLDER_LOCK))
            except OSError as error:
                raise JournalError(
                    f"journal {path}: {error.strerror}; choose another directory or mend its rights"
                ) from error
            layout = read_layout(path) or _adopt(path, workers, number_of_shards)
            if layout.number_of_shards != number_of_shards:
                raise shards_error(f"journal {path}", layout.number_of_shards, number_of_shards)
            with _locked_environments(path, layout):
                if layout.phase or layout.workers != workers:
                    layout = reshard.move(path, layout, workers, progress)
            stack.pop_all()
        return cls(path, layout, lock)

    def environment(self, index: int) -> Path:
        """What `LmdbJournal` is to be opened with in the worker `index`."""
        if not 0 <= index < self.workers:
            raise ValueError(f"there is no worker {index}: the journal was opened for {self.workers}")
        return environment_of(self.path, index)

    def close(self) -> None:
        self._lock.close()

    def __enter__(self) -> JournalFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def require_one_environment(path: Path) -> None:
    """Refuse, for what knows one environment only, a folder that has those of several workers."""
    layout = read_layout(path)
    if layout is not None and layout.environments > 1:
        raise JournalError(
            f"journal {path} has the environments of {layout.environments} workers; start the proxy once with "
            "workers = 1, or name the folder of one environment"
        )


def _locked_environments(path: Path, layout: Layout) -> ExitStack:
    """No worker of a supervisor that is gone may still have one."""
    stack = ExitStack()
    try:
        for index in range(layout.environments):
            folder = environment_of(path, index)
            if (folder / DATA_FILE).exists():
                stack.enter_context(lock_directory(folder))
            elif index < (layout.moving_to if layout.phase == PURGING else layout.workers):
                raise JournalError(
                    f"journal {path}: the environment of {worker_name(index)} is missing ({folder / DATA_FILE}); "
                    "restore the folder from a backup"
                )
    except BaseException:
        stack.close()
        raise
    return stack


def _adopt(path: Path, workers: int, number_of_shards: int) -> Layout:
    """The first layout of a folder: of a new one, or of one from before there were layouts."""
    if others := sorted(path.glob(f"{worker_name(0)[:-1]}*/{DATA_FILE}")):
        raise JournalError(
            f"journal {path}: {LAYOUT_FILE} is missing, though there is {others[0]}; restore it, or the folder, from a "
            "backup"
        )
    layout = Layout(number_of_shards, workers, secrets.randbits(63) + 1)
    if (path / DATA_FILE).exists():
        with lock_directory(path):
            layout = _known_before(path, replace(layout, workers=1))
    else:
        for index in reversed(range(workers)):
            create_environment(environment_of(path, index))
    write_layout(path, layout)
    return layout


def _known_before(path: Path, layout: Layout) -> Layout:
    with StoredJournal(path) as stored, stored.view() as view:
        try:
            node = view.value(NODE_ENTITY).value if view.has(NODE_ENTITY) else None
        except Damaged as damaged:
            raise JournalError(f"journal {path}: the record of this node is damaged: {damaged.what}") from damaged
        if node is not None and len(node) >= _NODE_HEAD.size:
            layout = replace(layout, replica=_NODE_HEAD.unpack_from(node)[1] or layout.replica)
        return replace(layout, number_of_shards=view.meta.number_of_shards or layout.number_of_shards)
