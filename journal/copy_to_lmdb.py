"""A folder as the target of a copy: one worker's journal, or those of several.

Everything is written through the journal itself into a folder beside the target, which takes the target's name when
all is there and was compared: nobody can open half a copy. How far the copy has come stands in a file of that folder.
It is written behind the data it speaks of, so after a kill the last batch is met again, and skipped.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from stateside.journal.contract import Durability, Head, JournalError, Page
from stateside.journal.copy_lmdb import Views
from stateside.journal.copy_model import Batch, CopyState, Digest, Item, Source, Target, refuse_other
from stateside.journal.environment import environment_of
from stateside.journal.folders import DEFAULT_SHARDS, Owners, lay_out
from stateside.journal.limits import APPEND_OFFSETS, NODE_ENTITY
from stateside.journal.lmdb import DATA_FILE, LmdbJournal, LmdbSettings, sync_directory
from stateside.journal.reader import StoredJournal

STATE_FILE = "copy.json"
SUFFIX = ".copying"
# Whatever another store could take.
SETTINGS = LmdbSettings(record_bytes=1 << 30, queue_bytes=1 << 31, queue_appends=1 << 20)


class LmdbTarget(Target):
    """The new folder `path`, laid out for so many workers. number_of_shards: 0 keeps the source's."""

    def __init__(self, path: Path, workers: int = 1, number_of_shards: int = 0) -> None:
        self.path = path
        self.label = str(path)
        self.logs = workers
        self._number_of_shards = number_of_shards
        self._replica = 0
        self._folder = path.with_name(path.name + SUFFIX)
        self._finished = False
        self._journals: list[LmdbJournal] = []
        self._careful: set[int] = set()  # workers whose next items may be stored already
        self._views: Views | None = None

    def prepare(self, source: Source, new_node: bool) -> None:
        known = self._number_of_shards or source.number_of_shards
        self._has_layout = bool(known) or self.logs > 1
        self._owners = Owners(self.logs, known or DEFAULT_SHARDS)
        self._replica = 0 if new_node else source.replica
        self.layout = self._owners.text

    async def open(self, state: CopyState) -> CopyState:
        if self.path.is_dir() and any(self.path.iterdir()):
            return self._open_finished(state)
        self._folder.mkdir(parents=True, exist_ok=True)
        is_empty = _is_empty(self._folder)
        await self._open_journals()  # which keeps a second copy away
        found = self._read_state(self._folder)
        if found is None:
            if not is_empty:
                raise JournalError(f"{self._folder} holds a journal that no copy began; remove it")
            self._write_state(state)
            return state
        refuse_other(found, state, str(self._folder))
        self._careful = set(range(self.logs))
        return found

    def _open_finished(self, state: CopyState) -> CopyState:
        found = self._read_state(self.path)
        if found is None:
            raise JournalError(f"{self.path} is not empty, and no copy began it; choose a new folder")
        refuse_other(found, state, str(self.path))
        self._folder, self._finished = self.path, True
        return found

    async def _open_journals(self) -> None:
        for worker in range(self.logs):
            journal = LmdbJournal(environment_of(self._folder, worker), Durability.DURABLE, SETTINGS)
            try:
                await journal.open()
            except JournalError:
                await self._close_journals()
                raise
            self._journals.append(journal)

    async def _close_journals(self) -> None:
        while self._journals:
            await self._journals.pop().close()

    def _read_state(self, folder: Path) -> CopyState | None:
        try:
            return CopyState.from_json((folder / STATE_FILE).read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise JournalError(f"{folder / STATE_FILE}: {error.strerror}") from error

    def _write_state(self, state: CopyState) -> None:
        scratch = self._folder / f"{STATE_FILE}.new"
        with open(scratch, "wb") as file:
            file.write(state.to_json())
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, self._folder / STATE_FILE)

    async def store(self, batch: Batch, state: CopyState) -> None:
        flight = Flight()
        for item in batch.items:
            worker = self.owner(item.entity)
            if worker not in self._careful or not self._is_known(worker, item):
                flight.store(self._journals[worker], item)
        await flight.landed()
        self._write_state(state)

    def _is_known(self, worker: int, item: Item) -> bool:
        """What is stored is the beginning of what comes now: the first unknown item is the last that has to be asked
        for."""
        answer = _Asked()
        self._journals[worker].load(item.entity, answer)
        known = answer.get().last_sequence >= item.last
        if not known:
            self._careful.discard(worker)
        return known

    async def settle(self) -> None:
        await self._close_journals()
        if self._views is None:
            self._views = Views(self._folder, self._owners)

    @property
    def views(self) -> Views:
        assert self._views is not None, "not settled"
        return self._views

    def digests(self) -> AsyncIterator[dict[str, Digest]]:
        return self.views.pages()

    async def digests_of(self, entities: Sequence[str]) -> dict[str, Digest]:
        return await asyncio.to_thread(self.views.digests_of, entities)

    async def count(self) -> int:
        return sum(1 for _ in self.views.names())

    def owner(self, entity: str) -> int:
        return self._owners.of(entity)

    async def offset_of(self, log: int, entity: str, sequence: int) -> int:
        view = self.views.views[log]
        offset = view.offset_of(entity, sequence)
        if offset is None:
            raise JournalError(f"{self.label}: sequence {sequence} of {entity} is missing in the copy")
        return offset * APPEND_OFFSETS + sequence - view.header(offset).first_sequence

    async def end(self, log: int) -> int:
        return self.views.views[log].meta.end * APPEND_OFFSETS

    async def store_offsets(self, offsets: Sequence[tuple[int, str, bytes]]) -> None:
        self._release_views()
        await self._open_journals()
        flight = Flight()
        for log, entity, value in offsets:
            answer = _Asked()
            self._journals[log].load(entity, answer)
            head = answer.get()
            if head.snapshot != value:
                flight.store(self._journals[log], Item(None, entity, head.last_sequence + 1, (), value, True))
        await flight.landed()
        await self.settle()

    def _release_views(self) -> None:
        if self._views is not None:
            self._views.close()
            self._views = None

    async def finish(self, state: CopyState) -> None:
        if self._finished:
            return
        view = self.views.views[0]
        node = view.value(NODE_ENTITY).value if view.has(NODE_ENTITY) else None
        self._release_views()
        if self._has_layout:
            lay_out(self._folder, self._owners, self._replica, node)
        self._write_state(state)
        sync_directory(self._folder)
        try:
            os.rename(self._folder, self.path)
        except OSError as error:
            raise JournalError(
                f"{self._folder} is complete, but cannot become {self.path}: {error.strerror}"
            ) from error
        sync_directory(self.path)
        self._folder, self._finished = self.path, True

    async def close(self) -> None:
        self._release_views()
        await self._close_journals()


class Flight:
    """Appends under way, which are awaited together."""

    def __init__(self) -> None:
        self._under_way = 0
        self._error: JournalError | None = None
        self._landed = asyncio.Event()

    def store(self, journal: LmdbJournal, item: Item) -> None:
        self._under_way += 1
        if item.is_value:
            journal.restore(item.entity, item.first, item.snapshot, self)
        else:
            journal.append(item.entity, item.first, item.events, item.snapshot, self)

    async def landed(self) -> None:
        """Raises what any of them met."""
        while self._under_way:
            self._landed.clear()
            await self._landed.wait()
        if self._error is not None:
            raise self._error

    def on_appended(self, error: JournalError | None) -> None:
        self._under_way -= 1
        self._error = self._error or error
        if self._under_way == 0:
            self._landed.set()

    def on_loaded(self, head: Head | None, error: JournalError | None) -> None:
        raise AssertionError("loads have a waiter of their own")

    def on_page(self, page: Page | None, error: JournalError | None) -> None:
        raise AssertionError("pages are not asked for here")


class _Asked:
    """A load of LMDB is answered before it returns."""

    def __init__(self) -> None:
        self._head: Head | None = None
        self._error: JournalError | None = None

    def get(self) -> Head:
        if self._head is None:
            raise self._error or JournalError("the journal gave no answer")
        return self._head

    def on_loaded(self, head: Head | None, error: JournalError | None) -> None:
        self._head, self._error = head, error

    def on_appended(self, error: JournalError | None) -> None:
        raise AssertionError("only loads are asked for here")

    def on_page(self, page: Page | None, error: JournalError | None) -> None:
        raise AssertionError("only loads are asked for here")

    def on_entities(self, entities: list[str] | None, error: JournalError | None) -> None:
        raise AssertionError("only loads are asked for here")


def _is_empty(folder: Path) -> bool:
    if not (folder / DATA_FILE).is_file():
        return True
    with StoredJournal(folder) as stored, stored.view() as view:
        return view.meta.end == 0
