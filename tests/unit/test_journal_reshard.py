"""Moving shards between workers' environments: nothing is lost or doubled, whatever moves follow one another and
wherever a crash ends one, and no consumer sees an event again or misses one."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import lmdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stateside.journal import environment, layout_file, reshard
from stateside.journal.contract import Durability, Head, JournalError
from stateside.journal.environment import environment_of
from stateside.journal.layout import JournalFolder
from stateside.journal.layout_file import read_layout
from stateside.journal.lmdb import LmdbJournal, LmdbSettings
from stateside.journal.offsets import Position
from stateside.journal.reader import StoredJournal
from stateside.journal.sharding import EntityShards, owners_among
from stateside.journal.verify import verify
from tests.helpers.journal import append, list_all, load, put, read_all, read_log, run

SHARDS = 12
BOUNDS = LmdbSettings(tail_appends=5, map_size=1 << 20)
CARTS = [f"cart|{index}" for index in range(14)]
BOOKS = [f"book|{index}" for index in range(6)]
SETS = [f"|crdt|set|{index}" for index in range(4)]
CONSUMERS = ["mail|cart", "stock|cart", "idle|cart"]


class Crash(BaseException):
    """The process ends here."""


@dataclass
class Model:
    """What the whole journal has to hold, whoever holds it."""

    events: dict[str, list[bytes]] = field(default_factory=dict)
    snapshots: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    values: dict[str, tuple[int, bytes | None]] = field(default_factory=dict)
    handled: dict[str, list[bytes]] = field(default_factory=lambda: {name: [] for name in CONSUMERS})
    number: int = 0

    def next_event(self) -> bytes:
        self.number += 1
        return f"{self.number}".encode()


class World:
    """A folder with its workers, and what they do."""

    def __init__(self, path: Path, seed: int, workers: int) -> None:
        self.path = path
        self.chance = random.Random(seed)
        self.model = Model()
        self.workers = workers

    def start(self, workers: int) -> None:
        with JournalFolder.open(self.path, workers, SHARDS) as folder:
            assert folder.workers == workers
        self.workers = workers

    def live(self, steps: int) -> None:
        """Every worker claims, and does something to the entities it owns."""
        run(self._live(steps))

    async def _live(self, steps: int) -> None:
        for index in range(self.workers):
            journal = LmdbJournal(environment_of(self.path, index), Durability.NONE, BOUNDS)
            await journal.open()
            await journal.claim([0], SHARDS)
            owned = [name for name in CARTS + BOOKS + SETS if self.owner(name) == index]
            for _ in range(steps if owned else 0):
                await self._change(journal, self.chance.choice(owned))
            for name in CONSUMERS[:2]:
                await self._consume(journal, name, self.chance.randint(0, 8))
            await journal.close()

    async def _change(self, journal: LmdbJournal, entity: str) -> None:
        model, chance = self.model, self.chance
        if entity in BOOKS:
            version = model.values.get(entity, (0, b""))[0] + 1
            value = None if chance.random() < 0.2 else model.next_event()
            model.values[entity] = (version, value)
            return await put(journal, entity, version, value)
        events = model.events.setdefault(entity, [])
        added = [model.next_event() for _ in range(chance.randint(1, 3))]
        snapshot = added[-1] if chance.random() < 0.3 else None
        await append(journal, entity, len(events) + 1, *added, snapshot=snapshot)
        events += added
        if snapshot is not None:
            model.snapshots[entity] = (len(events), snapshot)

    async def _consume(self, journal: LmdbJournal, name: str, limit: int) -> None:
        """Handle the next events of the log here, as a consumer does."""
        position = Position(journal, name)
        offset = await position.load()
        page = await read_log(journal, f"{name.partition('|')[2]}|", offset)
        offset = page.next_offset
        for entry in page.entries:
            if position.skips(entry.offset):
                continue
            if limit == 0:
                offset = entry.offset
                break
            limit -= 1
            self.model.handled[name].append(entry.event)
        position.store(offset)
        await position.flush()

    def owner(self, entity: str) -> int:
        shard = EntityShards(SHARDS).shard(entity)
        assert shard is not None
        return owners_among(self.workers, SHARDS)[shard]

    def check(self) -> None:
        """All there once, where it belongs; every consumer ends with having handled every event once, in order."""
        assert read_layout(self.path).workers == self.workers
        assert sorted(folder.name for folder in self.path.glob("worker-*")) == sorted(
            f"worker-{index}" for index in range(1, self.workers)
        )
        for index in range(self.workers):
            with StoredJournal(environment_of(self.path, index)) as stored, stored.view() as view:
                assert verify(view).damaged == {}
                assert all(self.owner(state.entity) == index for state in view.entities() if in_shard(state.entity))
        run(self._check())

    async def _check(self) -> None:
        found: list[str] = []
        for index in range(self.workers):
            journal = LmdbJournal(environment_of(self.path, index), Durability.NONE, BOUNDS)
            await journal.open()
            for prefix in ("cart|", "book|", "|crdt|"):
                for entity in await list_all(journal, prefix):
                    found.append(entity)
                    await self._check_entity(journal, entity)
            await journal.close()
        assert sorted(found) == sorted(self.model.events.keys() | self.model.values.keys())

    async def _check_entity(self, journal: LmdbJournal, entity: str) -> None:
        if entity in BOOKS:
            version, value = self.model.values[entity]
            assert await load(journal, entity) == Head(version, version, value)
            return
        events = self.model.events[entity]
        assert await read_all(journal, entity) == events
        sequence, snapshot = self.model.snapshots.get(entity, (0, None))
        assert await load(journal, entity) == Head(len(events), sequence, snapshot)

    def finish_consumers(self) -> None:
        run(self._finish_consumers())

    async def _finish_consumers(self) -> None:
        for index in range(self.workers):
            journal = LmdbJournal(environment_of(self.path, index), Durability.NONE, BOUNDS)
            await journal.open()
            for name in CONSUMERS:
                await self._consume(journal, name, 1 << 30)
            await journal.close()
        for name, handled in self.model.handled.items():
            assert len(handled) == len(set(handled)), f"{name} handled an event twice"
            for cart in CARTS:
                events = self.model.events.get(cart, [])
                mine = set(events)
                assert [event for event in handled if event in mine] == events, f"{name}, {cart}"


def in_shard(entity: str) -> bool:
    return EntityShards(SHARDS).shard(entity) is not None


@contextmanager
def crash_at(step: int, after: bool):
    """A crash at the `step`th durable step from now on: just before it, or just after it. Gives the steps seen."""
    seen = [0]

    def passing(what: Callable[[], None]) -> None:
        seen[0] += 1
        if seen[0] == step and not after:
            raise Crash
        what()
        if seen[0] == step:
            raise Crash

    class Environment(environment.Environment):
        @contextmanager
        def write(self):
            with environment.Environment.write(self) as writing:
                yield writing
                if seen[0] + 1 == step and not after:
                    passing(lambda: None)
            if seen[0] + 1 != step or after:
                passing(lambda: None)

    def exchange(path, layout):
        passing(lambda: layout_file.write_layout(path, layout))

    def remove(folder):
        passing(lambda: (folder / "data.mdb").unlink(missing_ok=True))
        shutil_rmtree(folder)

    shutil_rmtree = reshard.shutil.rmtree
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reshard, "Environment", Environment)
        patch.setattr(reshard, "write_layout", exchange)
        patch.setattr(reshard.shutil, "rmtree", remove)
        yield seen


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    """And nothing waits for the disk: no crash here takes what the system has not written yet."""
    monkeypatch.setattr(reshard, "BATCH_RECORDS", 7)
    monkeypatch.setattr(environment.lmdb, "open", partial(lmdb.open, sync=False))
    monkeypatch.setattr("os.fsync", lambda _: None)


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 1 << 32),
    numbers=st.lists(st.integers(1, 5), min_size=2, max_size=4),
    crashes=st.lists(st.tuples(st.integers(1, 60), st.booleans(), st.integers(1, 5)), max_size=3),
)
def test_moves_lose_nothing_and_double_nothing_whatever_crashes(tmp_path_factory, seed, numbers, crashes):
    world = World(tmp_path_factory.mktemp("journal"), seed, numbers[0])
    world.start(numbers[0])
    world.live(12)
    for workers in numbers[1:]:
        for step, after, other in crashes:
            with crash_at(step, after):
                try:
                    world.start(other)
                except Crash:
                    continue
        world.start(workers)
        world.check()
        world.live(6)
    world.check()
    world.finish_consumers()


@pytest.mark.parametrize(("before", "wanted", "then"), [(2, 3, 3), (2, 3, 2), (3, 1, 1), (3, 1, 3)])
def test_a_crash_at_any_step_of_a_move_is_made_good_by_the_next_start(tmp_path, before, wanted, then):
    step = 0
    crashed = True
    while crashed:
        crashed = False
        step += 1
        world = World(tmp_path / str(step), 5, before)
        world.start(before)
        world.live(10)
        with crash_at(step, after=False):
            try:
                world.start(wanted)
            except Crash:
                crashed = True
        world.start(then)
        world.live(3)
        world.start(1)
        world.check()
        world.finish_consumers()
    assert step > 10


def test_without_enough_space_nothing_is_begun_and_the_old_number_goes_on(tmp_path, monkeypatch):
    world = World(tmp_path, 5, 2)
    world.start(2)
    world.live(10)
    with monkeypatch.context() as patch:
        patch.setattr(reshard.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
        with pytest.raises(JournalError, match=r"to 3 workers takes about \d+ MiB .*start.* workers = 2"):
            world.start(3)
    assert read_layout(tmp_path).phase == ""
    world.start(2)
    world.check()
    world.finish_consumers()


@pytest.mark.parametrize("then", [2, 3])
def test_a_disk_that_is_full_in_the_middle_leaves_the_old_number_usable_and_the_new_one_possible(tmp_path, then):
    world = World(tmp_path, 5, 2)
    world.start(2)
    world.live(10)

    class Full(environment.Environment):
        writes = 0

        @contextmanager
        def write(self):
            with environment.Environment.write(self) as writing:
                yield writing
                Full.writes += 1
                if Full.writes == 6:
                    raise lmdb.DiskError("No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reshard, "Environment", Full)
        with pytest.raises(JournalError, match=r"No space left on device; moving shards goes on .* workers = 2"):
            world.start(3)
    assert read_layout(tmp_path).phase == layout_file.COPYING
    world.start(then)
    world.check()
    world.finish_consumers()


@pytest.mark.parametrize("at", [14, 45])
def test_a_damaged_record_is_found_before_anything_is_purged_and_the_old_number_goes_on(tmp_path, at):
    """at: of a byte of the record, in its header or behind its entity."""
    world = World(tmp_path, 5, 1)
    world.start(1)
    world.live(40)
    with lmdb.open(str(tmp_path), max_dbs=32) as store:
        log = store.open_db(b"log", create=False)
        with store.begin(write=True) as txn:
            key, data = next(
                (key, data)
                for key, data in txn.cursor(log)
                if data[36:].startswith(b"cart|") and owners_among(2, SHARDS)[shard_of(data)] == 1
            )
            txn.put(key, data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :], db=log)
    with pytest.raises(JournalError, match=r"cannot be moved to 2 workers: .* damaged: .*verify.* workers = 1"):
        world.start(2)
    with lmdb.open(str(tmp_path), max_dbs=32) as store, store.begin(write=True) as txn:
        txn.put(key, data, db=store.open_db(b"log", txn, create=False))
    world.start(1)
    world.check()


def shard_of(record: bytes) -> int:
    entity = record[36 : 36 + int.from_bytes(record[14:16], "little")].decode()
    shard = EntityShards(SHARDS).shard(entity)
    assert shard is not None
    return shard


def test_progress_tells_entities_and_events_of_how_many(tmp_path):
    world = World(tmp_path, 5, 1)
    world.start(1)
    world.live(40)
    told: list[reshard.Progress] = []
    JournalFolder.open(tmp_path, 3, SHARDS, told.append).close()
    world.workers = 3
    moved = [name for name in world.model.events if world.owner(name) != 0]
    books = [name for name in world.model.values if world.owner(name) != 0]
    events = sum(len(world.model.events[name]) for name in moved)
    entities = len(moved) + len(books)
    assert told[-1] == reshard.Progress(1, 3, entities, entities, events, events)
    assert all(one.of_entities <= entities and one.entities <= entities for one in told)


def test_a_move_can_be_stopped_by_whoever_hears_of_its_progress(tmp_path, monkeypatch):
    monkeypatch.setattr(reshard, "PROGRESS_INTERVAL", 0)
    world = World(tmp_path, 5, 1)
    world.start(1)
    world.live(40)

    def stop(progress):
        if progress.events:
            raise Crash

    with pytest.raises(Crash):
        JournalFolder.open(tmp_path, 3, SHARDS, stop)
    assert read_layout(tmp_path).phase == layout_file.COPYING
    world.start(3)
    world.check()
    world.finish_consumers()


def test_an_epoch_never_falls_behind_one_that_an_entity_was_written_under(tmp_path):
    world = World(tmp_path, 5, 1)
    world.start(1)
    for _ in range(4):
        world.live(3)
    world.start(3)
    world.live(3)
    world.start(2)
    world.live(3)
    world.start(1)
    world.live(3)
    world.check()


def test_offsets_of_what_was_moved_away_are_not_given_to_other_events(tmp_path):
    world = World(tmp_path, 5, 1)
    world.start(1)
    world.live(20)

    async def end():
        journal = LmdbJournal(tmp_path, Durability.NONE, BOUNDS)
        await journal.open()
        page = await read_log(journal, "cart|")
        await journal.close()
        return page.next_offset

    before = run(end())
    world.start(4)
    assert run(end()) > before


def test_a_replicated_state_is_in_the_shard_of_its_entity():
    shards = EntityShards(SHARDS)
    for index in range(50):
        assert shards.shard(f"|crdt|set|{index}") == shards.shard(f"set|{index}")
    assert shards.shard("|offset|mail|set") is None
    assert shards.shard("|node|") is None
