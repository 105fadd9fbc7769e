"""Both stores against a dictionary: any order of appends, reads, failures and restarts."""

from __future__ import annotations

import asyncio
import errno
import shutil
import tempfile
from pathlib import Path

import hypothesis.strategies as st
import uvloop
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from stateside.journal.contract import Durability, Full, Head, Journal, SequenceTaken, StaleEpoch
from stateside.journal.lmdb import LmdbJournal, LmdbSettings
from stateside.journal.memory import MemoryJournal
from tests.helpers.journal import Answer, load, read_all

ENTITIES = st.sampled_from(["a", "aa", "a\0", "b", "ö"])
EVENTS = st.lists(st.binary(max_size=40) | st.just(b"L" * 3000), min_size=1, max_size=4)


class Entry:
    """What the model keeps of an entity."""

    def __init__(self) -> None:
        self.events: list[bytes] = []
        self.snapshot: bytes | None = None
        self.snapshot_sequence = 0
        self.epoch = 0
        self.version = 0  # of a value; 0: it keeps events

    @property
    def last_sequence(self) -> int:
        return self.version or len(self.events)


class MemoryModel(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.loop = uvloop.new_event_loop()
        self.entities: dict[str, Entry] = {}
        self.expected: list[tuple[Answer, type[Exception] | None]] = []
        self.journal = self.make()
        self.loop.run_until_complete(self.journal.open())

    def make(self) -> Journal:
        return MemoryJournal()

    @rule(
        entity=ENTITIES,
        events=EVENTS,
        snapshot=st.none() | st.binary(max_size=30),
        gap=st.sampled_from([0] * 6 + [-1, 1]),
    )
    def append(self, entity, events, snapshot, gap):
        model = self.entities.get(entity) or Entry()
        first = model.last_sequence + 1 + gap
        if first < 1:
            return
        accepted = gap == 0 and model.version == 0
        self.ask(entity, first, events, snapshot, model.epoch, None if accepted else SequenceTaken)
        if accepted:
            self.keep(entity, events, snapshot, model.epoch)

    @rule(
        entity=ENTITIES,
        value=st.none() | st.binary(max_size=30) | st.just(b"L" * 3000),
        gap=st.sampled_from([0] * 6 + [-1, 1]),
        step=st.sampled_from([0] * 6 + [-1, 1]),
    )
    def put(self, entity, value, gap, step):
        model = self.entities.get(entity) or Entry()
        version, epoch = model.last_sequence + 1 + gap, model.epoch + step
        if version < 1 or epoch < 0:
            return
        fits = gap == 0 and (model.version > 0 or not model.events)
        error = StaleEpoch if step < 0 else None if fits else SequenceTaken
        self.ask_to_put(entity, version, value, epoch, error)
        if error is None:
            self.keep_value(entity, value, epoch)

    @rule(entity=ENTITIES, step=st.sampled_from([-1, 1]))
    def append_under_another_epoch(self, entity, step):
        model = self.entities.get(entity)
        if model is None or model.version or model.epoch + step < 0:
            return
        self.ask(entity, len(model.events) + 1, [b"epoch"], None, model.epoch + step, StaleEpoch if step < 0 else None)
        if step > 0:
            self.keep(entity, [b"epoch"], None, model.epoch + step)

    @rule(entity=ENTITIES, snapshot=st.binary(max_size=5000))
    def append_a_snapshot_alone(self, entity, snapshot):
        model = self.entities.get(entity)
        if model is not None and not model.version:
            self.ask(entity, len(model.events) + 1, [], snapshot, model.epoch, None)
            self.keep(entity, [], snapshot, model.epoch)

    @rule()
    def wait(self):
        self.loop.run_until_complete(self.settle())

    @rule(max_bytes=st.sampled_from([1, 60, 100_000]), skip=st.integers(0, 3))
    def read(self, max_bytes, skip):
        self.loop.run_until_complete(self.settle())
        for entity, model in self.entities.items():
            found = self.loop.run_until_complete(read_all(self.journal, entity, skip + 1, max_bytes))
            assert found == model.events[skip:]

    @invariant()
    def heads_agree(self):
        if not hasattr(self, "journal") or self.expected:
            return
        for entity, model in self.entities.items():
            head = self.loop.run_until_complete(load(self.journal, entity))
            assert head == Head(model.last_sequence, model.snapshot_sequence, model.snapshot)

    def teardown(self):
        if hasattr(self, "journal"):
            self.loop.run_until_complete(self.settle())
            self.loop.run_until_complete(self.journal.close())
            self.loop.close()

    def ask(self, entity, first, events, snapshot, epoch, error):
        answer = Answer()
        self.journal.append(entity, first, events, snapshot, answer, epoch)
        self.expected.append((answer, error))

    def keep(self, entity, events, snapshot, epoch):
        model = self.entities.setdefault(entity, Entry())
        model.events = model.events + events
        model.epoch = epoch
        if snapshot is not None:
            model.snapshot, model.snapshot_sequence = snapshot, len(model.events)

    def ask_to_put(self, entity, version, value, epoch, error):
        answer = Answer()
        self.journal.put(entity, version, value, answer, epoch)
        self.expected.append((answer, error))

    def keep_value(self, entity, value, epoch):
        model = self.entities.setdefault(entity, Entry())
        model.epoch = epoch
        model.version += 1
        model.snapshot, model.snapshot_sequence = value, model.version

    async def settle(self) -> None:
        for answer, error in self.expected:
            await answer.done.wait()
            assert type(answer.error) is (error or type(None))
        self.expected.clear()


class LmdbModel(MemoryModel):
    def make(self) -> Journal:
        self.path = Path(getattr(self, "path", None) or tempfile.mkdtemp(prefix="journal-"))
        # Tiny bounds, so that the index lags, heads are forgotten and the map grows within a few steps.
        bounds = LmdbSettings(tail_appends=3, head_cache=2, map_size=1 << 20, probe_interval=0.001)
        return LmdbJournal(self.path, Durability.NONE, bounds)

    @rule()
    def reopen(self):
        self.loop.run_until_complete(self.settle())
        self.loop.run_until_complete(self.journal.close())
        self.journal = self.make()
        self.loop.run_until_complete(self.journal.open())

    @rule(entity=ENTITIES)
    def fail_to_append(self, entity):
        self.loop.run_until_complete(self.settle())
        assert isinstance(self.journal, LmdbJournal)
        self.journal.log.fail_next_flush(errno.ENOSPC)
        model = self.entities.get(entity) or Entry()
        next_ = model.last_sequence + 1
        if model.version:
            self.ask_to_put(entity, next_, b"lost", model.epoch, Full)
            self.ask_to_put(entity, next_ + 1, None, model.epoch, Full)
        else:
            self.ask(entity, next_, [b"lost"], b"lost", model.epoch, Full)
            self.ask(entity, next_ + 1, [b"lost"], None, model.epoch, Full)
        self.loop.run_until_complete(self.recover())

    async def recover(self) -> None:
        await self.settle()
        while not self.journal.writable:
            await asyncio.sleep(0.001)

    def teardown(self):
        super().teardown()
        if hasattr(self, "path"):
            shutil.rmtree(self.path)


MODEL = settings(max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
TestMemoryModel = MemoryModel.TestCase
TestMemoryModel.settings = MODEL
TestLmdbModel = LmdbModel.TestCase
TestLmdbModel.settings = MODEL
