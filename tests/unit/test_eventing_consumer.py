"""When a consumer stores its offset and when it tries again, between a journal and a router that is played."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from stateside.journal.contract import JournalError
from stateside.journal.limits import APPEND_OFFSETS
from stateside.journal.memory import MemoryJournal
from stateside.journal.offsets import Position
from stateside.proto import cloudstate, pack
from stateside.proto.status import Status
from stateside.proxy import eventing
from stateside.proxy.config import load
from stateside.proxy.eventing_spec import ConsumerModel
from stateside.proxy.place import ALONE, Place
from tests.helpers.journal import append, run

EVENT = pack(cloudstate.Failure(description="an event")).SerializeToString()
MODEL = ConsumerModel("shop.Report", "shop.Report", "carts", (("cloudstate.Failure", "On"),))


class PlayedRouter:
    """Ends each delivery as `outcome` says; None leaves it open."""

    def __init__(self) -> None:
        self.outcome: Callable[[int], Status | None] = lambda number: Status.OK
        self.deliveries: list[dict[str, str]] = []
        self.open: list[Any] = []
        self.served = True
        self.reports: list[str] = []
        self.report = self.reports.append

    def method(self, service: str, name: str) -> Any:
        return SimpleNamespace(name=f"{service}.{name}", output_type_url="") if self.served else None

    def deliver(self, target: Any, stand_in: Any, payload: bytes, metadata: bytes, type_url: str) -> None:
        entries = cloudstate.Metadata.FromString(metadata).entries
        self.deliveries.append({entry.key: entry.string_value for entry in entries})
        outcome = self.outcome(len(self.deliveries))
        if outcome is None:
            self.open.append(stand_in)
        else:
            stand_in.finish(outcome, "as the test wants it")

    @property
    def subjects(self) -> list[str]:
        return [each["ce-subject"] for each in self.deliveries]


class Scene:
    """A journal in memory, the router, and the one consumer."""

    def __init__(self, place: Place = ALONE, journal: MemoryJournal | None = None) -> None:
        self.journal = journal or MemoryJournal()
        self.router = PlayedRouter()
        settings = load({"eventing_max_attempts": "3"})
        self.eventing = eventing.Eventing(settings, self.router, place)  # type: ignore[arg-type]

    async def begin(self) -> None:
        await self.eventing.update((MODEL,), self.journal)

    async def emit(self, count: int, log: str = "carts") -> None:
        for _ in range(count):
            await append(self.journal, f"{log}|{self.journal.events}", 1, EVENT)

    async def stored(self) -> int:
        return await Position(self.journal, MODEL.name).load()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0.001)


def play(scenario: Callable[[Scene], Awaitable[None]], journal: MemoryJournal | None = None) -> None:
    async def scene() -> None:
        made = Scene(journal=journal)
        await made.journal.open()
        try:
            await scenario(made)
        finally:
            await made.eventing.close()
            await made.journal.close()

    run(scene())


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eventing, "RETRY_MIN", 0.001)
    monkeypatch.setattr(eventing, "STORE_DELAY", 60.0)
    monkeypatch.setattr(eventing, "STOP_GRACE", 0.05)


def test_the_offset_is_stored_after_every_20_events():
    async def scenario(scene):
        await scene.begin()
        await scene.emit(19)
        await scene.until(lambda: scene.eventing.figures.handled == 19)
        assert await scene.stored() == 0
        await scene.emit(2)
        await scene.until(lambda: scene.eventing.figures.handled == 21)
        assert await scene.stored() == int(scene.router.deliveries[19]["ce-id"]) + 1

    play(scenario)


def test_the_offset_is_stored_some_time_after_a_single_event(monkeypatch):
    async def scenario(scene):
        await scene.begin()
        await scene.emit(1)
        await scene.until(lambda: scene.journal.values == 1)
        assert await scene.stored() == APPEND_OFFSETS

    monkeypatch.setattr(eventing, "STORE_DELAY", 0.01)
    play(scenario)


def test_the_offset_is_stored_when_the_consumer_stops():
    async def scenario(scene):
        await scene.begin()
        await scene.emit(3)
        await scene.until(lambda: scene.eventing.figures.handled == 3)
        await scene.eventing.close()
        assert await scene.stored() == 3 * APPEND_OFFSETS
        await scene.begin()
        await scene.emit(1)
        await scene.until(lambda: scene.eventing.figures.handled == 4)
        assert scene.router.subjects == ["0", "1", "2", "3"]

    play(scenario)


def test_foreign_events_move_the_offset_now_and_then(monkeypatch):
    async def scenario(scene):
        await scene.begin()
        await scene.emit(25, log="others")
        await scene.until(lambda: scene.journal.values > 0)
        assert 10 * APPEND_OFFSETS < await scene.stored() <= 25 * APPEND_OFFSETS
        assert scene.journal.values <= 3
        assert scene.router.deliveries == []

    monkeypatch.setattr(eventing, "STORE_DISTANCE", 10 * APPEND_OFFSETS)
    play(scenario)


def test_a_consumer_at_rest_writes_nothing():
    async def scenario(scene):
        await scene.begin()
        await scene.emit(20)
        await scene.until(lambda: scene.journal.values == 1)
        await scene.emit(1, log="others")
        await asyncio.sleep(0.01)
        assert scene.journal.values == 1

    play(scenario)


def test_an_event_under_way_is_cancelled_when_its_consumer_stops_and_comes_again():
    async def scenario(scene):
        scene.router.outcome = lambda number: None if number == 2 else Status.OK
        await scene.begin()
        await scene.emit(3)
        await scene.until(lambda: len(scene.router.deliveries) == 2)
        await scene.eventing.close()
        assert scene.router.open[0].ended
        await scene.begin()
        await scene.until(lambda: scene.eventing.figures.handled == 3)
        assert scene.router.subjects == ["0", "1", "1", "2"]

    play(scenario)


def test_delays_grow_up_to_a_limit(monkeypatch):
    async def scenario(scene):
        delays = []
        back_off = eventing.Consumer._back_off

        async def counted(self, delay):
            delays.append(delay)
            await back_off(self, delay)

        monkeypatch.setattr(eventing.Consumer, "_back_off", counted)
        scene.router.outcome = lambda number: Status.UNAVAILABLE if number <= 6 else Status.OK
        await scene.begin()
        await scene.emit(1)
        await scene.until(lambda: scene.eventing.figures.handled == 1)
        assert delays == [0.001, 0.002, 0.004, 0.008, 0.01, 0.01]

    monkeypatch.setattr(eventing, "RETRY_MAX", 0.01)
    play(scenario)


def test_a_user_function_that_is_discovered_again_is_asked_at_once(monkeypatch):
    async def scenario(scene):
        scene.router.served = False
        await scene.begin()
        await scene.emit(1)
        await scene.until(lambda: scene.eventing.figures.failed == 1)
        scene.router.served = True
        await scene.begin()
        await scene.until(lambda: scene.eventing.figures.handled == 1)

    monkeypatch.setattr(eventing, "RETRY_MIN", 60.0)
    play(scenario)


@pytest.mark.parametrize("status", [Status.UNKNOWN, Status.INTERNAL, Status.RESOURCE_EXHAUSTED, Status.CANCELLED])
def test_what_fails_too_often_is_given_up(status):
    async def scenario(scene):
        scene.router.outcome = lambda number: status if number <= 3 else Status.OK
        await scene.begin()
        await scene.emit(2)
        await scene.until(lambda: scene.eventing.figures.handled == 1)
        assert scene.router.subjects == ["0", "0", "0", "1"]
        assert scene.eventing.figures.dead_letters == 1
        (report,) = scene.router.reports
        assert '"carts|0"' in report

    play(scenario)


def test_what_is_no_any_is_given_up_at_once():
    async def scenario(scene):
        await scene.begin()
        await append(scene.journal, "carts|broken", 1, b"\xff")
        await scene.emit(1)
        await scene.until(lambda: scene.eventing.figures.handled == 1)
        assert scene.eventing.figures.dead_letters == 1
        assert scene.router.subjects == ["1"]

    play(scenario)


def test_a_journal_that_cannot_be_read_is_read_again_later():
    async def scenario(scene):
        read_log, failures = scene.journal.read_log, []

        def fail_twice(prefix, from_offset, limit, waiter):
            if len(failures) < 2:
                failures.append(from_offset)
                waiter.on_log(None, JournalError("not now"))
            else:
                read_log(prefix, from_offset, limit, waiter)

        scene.journal.read_log = fail_twice
        await scene.emit(2)
        await scene.begin()
        await scene.until(lambda: scene.eventing.figures.handled == 2)
        assert scene.router.subjects == ["0", "1"]
        assert scene.eventing.figures.dead_letters == 0

    play(scenario)


# --- several workers -------------------------------------------------------------------------------------------------


class SharedJournal(MemoryJournal):
    """One store for all workers. As processes of their own they hear nothing of each other's events."""

    is_shared = True
    tells = True

    def _tell_listeners(self) -> None:
        if self.tells:
            super()._tell_listeners()


def worker(index: int, workers: int = 3) -> Place:
    return Place(f"worker-{index}", index, workers, "run", 0, 0)


def test_of_workers_that_share_a_store_one_runs_the_consumer_and_each_event_is_handled_once():
    async def scenario(alone):
        scenes = [Scene(worker(index), alone.journal) for index in range(3)]
        await asyncio.gather(*(scene.begin() for scene in scenes))
        await alone.emit(5)
        await alone.until(lambda: sum(scene.eventing.figures.handled for scene in scenes) == 5)
        assert sorted(len(scene.router.deliveries) for scene in scenes) == [0, 0, 5]
        (owner,) = [scene for scene in scenes if scene.router.deliveries]
        assert owner.router.deliveries[0]["ce-id"] == str(0)
        await asyncio.gather(*(scene.eventing.close() for scene in scenes))

    play(scenario, SharedJournal())


def test_consumers_of_a_shared_store_go_on_elsewhere_when_the_number_of_workers_changes():
    async def scenario(alone):
        handled: list[str] = []
        for workers in (1, 2, 3, 4, 5):
            scenes = [Scene(worker(index, workers), alone.journal) for index in range(workers)]
            await asyncio.gather(*(scene.begin() for scene in scenes))
            await alone.emit(3)
            await alone.until(lambda scenes=scenes: sum(len(scene.router.deliveries) for scene in scenes) == 3)
            await asyncio.gather(*(scene.eventing.close() for scene in scenes))
            handled += [each["ce-id"] for scene in scenes for each in scene.router.deliveries]
        assert len(handled) == len(set(handled)) == 15

    play(scenario, SharedJournal())


def test_a_consumer_of_a_shared_store_looks_for_the_events_of_other_workers(monkeypatch):
    async def scenario(alone):
        alone.journal.tells = False
        scenes = [Scene(worker(index, 2), alone.journal) for index in range(2)]
        await asyncio.gather(*(scene.begin() for scene in scenes))
        await alone.emit(1)
        await alone.until(lambda: sum(scene.eventing.figures.handled for scene in scenes) == 1)
        await asyncio.gather(*(scene.eventing.close() for scene in scenes))

    monkeypatch.setattr(eventing, "LOOK_INTERVAL", 0.01)
    play(scenario, SharedJournal())


def test_workers_with_logs_of_their_own_each_run_the_consumer_and_no_two_events_have_one_id():
    async def scenario(alone):
        scenes = [Scene(worker(index, 2)) for index in range(2)]
        for scene in scenes:
            await scene.journal.open()
            await scene.begin()
            await scene.emit(2)
            await scene.until(lambda scene=scene: len(scene.router.deliveries) == 2)
            await scene.eventing.close()
            await scene.journal.close()
        ids = [each["ce-id"] for scene in scenes for each in scene.router.deliveries]
        assert ids == [f"worker-{index}/{offset}" for index in (0, 1) for offset in (0, APPEND_OFFSETS)]

    play(scenario)


def test_an_event_says_which_one_of_its_entity_it_is():
    async def scenario(scene):
        await scene.begin()
        await append(scene.journal, "carts|a", 1, EVENT, EVENT)
        await append(scene.journal, "carts|b", 1, EVENT)
        await append(scene.journal, "carts|a", 3, EVENT)
        await scene.until(lambda: len(scene.router.deliveries) == 4)
        said = [(each["ce-subject"], each["ce-sequence"]) for each in scene.router.deliveries]
        assert said == [("a", "1"), ("a", "2"), ("b", "1"), ("a", "3")]

    play(scenario)
