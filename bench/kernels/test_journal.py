"""What a journal takes to store batches of events, and to read an entity's log page by page."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop
from pytest_benchmark.fixture import BenchmarkFixture

from stateside.journal import open_journal
from stateside.journal.contract import Head, Journal, JournalError, Page

EVENT = bytes(100)
LOG_EVENTS = 20_000
PAGE_BYTES = 64 * 1024


class Bench:
    """Drives a journal from outside its event loop; the waiter of everything it asks."""

    def __init__(self, loop: asyncio.AbstractEventLoop, journal: Journal) -> None:
        self.loop = loop
        self.journal = journal
        self.sequences: dict[str, int] = {}
        self.outstanding = 0
        self.read_events = 0
        self.done = asyncio.Event()

    def append_each(self, entities: list[str], events: list[bytes]) -> None:
        """Append `events` to every entity, all within one turn of the loop, and wait until they are stored."""
        self.loop.run_until_complete(self._append_each(entities, events))

    def read_all(self, entity: str) -> int:
        """Number of events read, page by page."""
        return self.loop.run_until_complete(self._read_all(entity))

    async def _append_each(self, entities: list[str], events: list[bytes]) -> None:
        self.done.clear()
        self.outstanding = len(entities)
        for entity in entities:
            last = self.sequences.get(entity, 0)
            self.sequences[entity] = last + len(events)
            self.journal.append(entity, last + 1, events, None, self)
        await self.done.wait()

    async def _read_all(self, entity: str) -> int:
        self.entity, self.read_events = entity, 0
        self.done.clear()
        self.journal.read(entity, 1, PAGE_BYTES, self)
        await self.done.wait()
        return self.read_events

    def on_appended(self, error: JournalError | None) -> None:
        assert error is None
        self.outstanding -= 1
        if not self.outstanding:
            self.done.set()

    def on_page(self, page: Page | None, error: JournalError | None) -> None:
        assert page is not None, error
        self.read_events += len(page.events)
        if page.more:
            self.loop.call_soon(self.journal.read, self.entity, self.read_events + 1, PAGE_BYTES, self)
        else:
            self.done.set()

    def on_loaded(self, head: Head | None, error: JournalError | None) -> None:
        raise AssertionError("nobody asked for a head")


@pytest.fixture(params=["memory:", "lmdb:"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    url = request.param if request.param == "memory:" else f"lmdb:{tmp_path}"
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        journal = open_journal(url)
        runner.run(journal.open())
        yield Bench(runner.get_loop(), journal)
        runner.run(journal.close())


@pytest.mark.benchmark(group="append one event each to so many entities")
@pytest.mark.parametrize("entities", [1, 10, 100, 1000])
def test_append(benchmark: BenchmarkFixture, bench: Bench, entities: int) -> None:
    names = [f"bench|{number}" for number in range(entities)]
    benchmark.pedantic(bench.append_each, (names, [EVENT]), rounds=30, warmup_rounds=3)  # type: ignore[no-untyped-call]
    assert bench.sequences[names[0]] == bench.sequences[names[-1]] == 33


@pytest.mark.benchmark(group=f"read a log of {LOG_EVENTS} events")
def test_read(benchmark: BenchmarkFixture, bench: Bench) -> None:
    for _ in range(LOG_EVENTS // 1000):
        bench.append_each(["bench|log"], [EVENT] * 1000)
    events = benchmark.pedantic(bench.read_all, ("bench|log",), rounds=10, warmup_rounds=1)  # type: ignore[no-untyped-call]
    assert events == LOG_EVENTS
