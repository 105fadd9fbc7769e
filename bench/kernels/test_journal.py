"""What the journal takes to store events of many entities, to read an entity's log page by page, and to find snapshots.

Appends are measured on the disk, where the ratio is the disk's as much as ours, and in memory (tmpfs), where flushes
are free and what is left is the work of the processor; only the latter is held against stored ratios, and only where it
is more than waking up the thread that writes.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import uvloop
from pytest_benchmark.fixture import BenchmarkFixture

from stateside.bench.kernels.figures import FIGURES, KERNEL
from stateside.bench.kernels.journal_rivals import PlainLmdb, Sqlite, Store
from stateside.journal import open_journal
from stateside.journal.contract import Head, JournalError, Page

EVENT = bytes(100)
SNAPSHOT = bytes(1000)
LOG_EVENTS = 20_000
SNAPSHOTS = 1000
PAGE_BYTES = 64 * 1024
MEMORY = Path("/dev/shm")
ROUNDS = 20


class OurJournal:
    """Drives a journal from outside its event loop; the waiter of everything it asks."""

    def __init__(self, url: str) -> None:
        self.runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self.loop = self.runner.get_loop()
        self.journal = open_journal(url)
        self.runner.run(self.journal.open())
        self.last: dict[str, int] = {}
        self.outstanding = 0
        self.read_events = 0
        self.heads: list[Head] = []
        self.done = asyncio.Event()

    def append_each(self, entities: Sequence[str], events: Sequence[bytes], snapshot: bytes | None = None) -> None:
        """All within one turn of the loop; until they are stored."""
        self.loop.run_until_complete(self._append_each(entities, events, snapshot))

    def read_all(self, entity: str) -> int:
        return self.loop.run_until_complete(self._read_all(entity))

    def load_each(self, entities: Sequence[str]) -> list[bytes | None]:
        return self.loop.run_until_complete(self._load_each(entities))

    def close(self) -> None:
        self.runner.run(self.journal.close())
        self.runner.close()

    async def _append_each(self, entities: Sequence[str], events: Sequence[bytes], snapshot: bytes | None) -> None:
        self.done.clear()
        self.outstanding = len(entities)
        for entity in entities:
            last = self.last.get(entity, 0)
            self.last[entity] = last + len(events)
            self.journal.append(entity, last + 1, events, snapshot, self)
        await self.done.wait()

    async def _read_all(self, entity: str) -> int:
        self.entity, self.read_events = entity, 0
        self.done.clear()
        self.journal.read(entity, 1, PAGE_BYTES, self)
        await self.done.wait()
        return self.read_events

    async def _load_each(self, entities: Sequence[str]) -> list[bytes | None]:
        self.done.clear()
        self.heads, self.outstanding = [], len(entities)
        for entity in entities:
            self.journal.load(entity, self)
        await self.done.wait()
        return [head.snapshot for head in self.heads]

    def on_appended(self, error: JournalError | None) -> None:
        assert error is None
        self._count()

    def on_loaded(self, head: Head | None, error: JournalError | None) -> None:
        assert head is not None, error
        self.heads.append(head)
        self._count()

    def on_page(self, page: Page | None, error: JournalError | None) -> None:
        assert page is not None, error
        self.read_events += len(page.events)
        if page.more:
            self.loop.call_soon(self.journal.read, self.entity, self.read_events + 1, PAGE_BYTES, self)
        else:
            self.done.set()

    def _count(self) -> None:
        self.outstanding -= 1
        if not self.outstanding:
            self.done.set()


EACH, BATCH, SQLITE = "py-lmdb, a commit per event", "py-lmdb, a commit per batch", "sqlite3, WAL"
STORES: dict[str, Callable[[Path], Store]] = {
    KERNEL: lambda folder: OurJournal(f"lmdb:{folder}"),
    EACH: lambda folder: PlainLmdb(folder, each=True),
    BATCH: lambda folder: PlainLmdb(folder, each=False),
    SQLITE: Sqlite,
}
READERS = [KERNEL, BATCH, SQLITE]


# (where, entities): a commit per event on a slow disk takes long enough with ten.
APPENDS = [("on the disk", 1), ("on the disk", 10), *(("in memory", many) for many in (1, 100, 1000))]


@contextmanager
def opened(who: str, parent: Path) -> Iterator[Store]:
    with TemporaryDirectory(dir=parent) as folder:
        store = STORES[who](Path(folder))
        try:
            yield store
        finally:
            store.close()


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    return MEMORY if MEMORY.is_dir() else tmp_path


@pytest.mark.parametrize("who", STORES)
@pytest.mark.parametrize(("where", "entities"), APPENDS)
def test_append(benchmark: BenchmarkFixture, tmp_path: Path, memory: Path, where: str, entities: int, who: str) -> None:
    benchmark.group = f"an event appended to each of {entities} entities, {where}"
    names = [f"bench|{number:06}" for number in range(entities)]
    with opened(who, memory if where == "in memory" else tmp_path) as store:
        pedantic(benchmark, store.append_each, names, [EVENT])
        assert store.read_all(names[-1]) == store.last[names[-1]] == store.last[names[0]]
    FIGURES.time(benchmark.group, who, benchmark, entities, steady=where == "in memory" and entities > 1)


@pytest.mark.parametrize("who", READERS)
def test_replay(benchmark: BenchmarkFixture, memory: Path, who: str) -> None:
    benchmark.group = f"a log of {LOG_EVENTS} events, read"
    with opened(who, memory) as store:
        for _ in range(LOG_EVENTS // 1000):
            store.append_each(["bench|log"], [EVENT] * 1000)
        assert pedantic(benchmark, store.read_all, "bench|log") == LOG_EVENTS
    FIGURES.time(benchmark.group, who, benchmark, LOG_EVENTS)


@pytest.mark.parametrize("who", READERS)
def test_snapshots(benchmark: BenchmarkFixture, memory: Path, who: str) -> None:
    benchmark.group = f"snapshots of {SNAPSHOTS} entities, loaded"
    names = [f"bench|{number:06}" for number in range(SNAPSHOTS)]
    with opened(who, memory) as store:
        store.append_each(names, [EVENT], SNAPSHOT)
        assert pedantic(benchmark, store.load_each, names) == [SNAPSHOT] * SNAPSHOTS
    FIGURES.time(benchmark.group, who, benchmark, SNAPSHOTS)


def pedantic(benchmark: BenchmarkFixture, function: Callable[..., Any], *arguments: Any) -> Any:
    return benchmark.pedantic(function, arguments, rounds=ROUNDS, warmup_rounds=2)  # type: ignore[no-untyped-call]
