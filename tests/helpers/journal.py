"""What the journal's tests share: a waiter that keeps its answer, and blocking forms of the callbacks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import uvloop

from stateside.journal.contract import Head, Journal, JournalError, LogEntry, LogPage, Page

T = TypeVar("T")


class Answer:
    """A waiter. `done` is set by the one callback that must come; a second one is an error."""

    def __init__(self, on_answer: Callable[[Answer], None] | None = None) -> None:
        self.done = asyncio.Event()
        self.error: JournalError | None = None
        self.value: Any = None
        self._on_answer = on_answer

    def on_appended(self, error: JournalError | None) -> None:
        self._take(None, error)

    def on_loaded(self, head: Head | None, error: JournalError | None) -> None:
        self._take(head, error)

    def on_page(self, page: Page | None, error: JournalError | None) -> None:
        self._take(page, error)

    def on_log(self, page: LogPage | None, error: JournalError | None) -> None:
        self._take(page, error)

    def on_entities(self, entities: list[str] | None, error: JournalError | None) -> None:
        self._take(entities, error)

    def _take(self, value: Any, error: JournalError | None) -> None:
        assert not self.done.is_set(), "answered twice"
        self.value, self.error = value, error
        self.done.set()
        if self._on_answer is not None:
            self._on_answer(self)

    async def result(self) -> Any:
        await self.done.wait()
        if self.error is not None:
            raise self.error
        return self.value


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    return uvloop.run(coroutine)


async def append(
    journal: Journal, entity: str, first: int, *events: bytes, snapshot: bytes | None = None, epoch: int = 0
) -> None:
    answer = Answer()
    journal.append(entity, first, events, snapshot, answer, epoch)
    await answer.result()


async def put(journal: Journal, entity: str, version: int, value: bytes | None, epoch: int = 0) -> None:
    answer = Answer()
    journal.put(entity, version, value, answer, epoch)
    await answer.result()


async def load(journal: Journal, entity: str) -> Head:
    answer = Answer()
    journal.load(entity, answer)
    head = await answer.result()
    assert isinstance(head, Head)
    return head


async def read_page(journal: Journal, entity: str, first: int = 1, max_bytes: int = 1 << 20) -> Page:
    answer = Answer()
    journal.read(entity, first, max_bytes, answer)
    page = await answer.result()
    assert isinstance(page, Page)
    return page


async def read_log(journal: Journal, prefix: str, from_offset: int = 0, limit: int = 1000) -> LogPage:
    answer = Answer()
    journal.read_log(prefix, from_offset, limit, answer)
    page = await answer.result()
    assert isinstance(page, LogPage)
    return page


async def list_all(journal: Journal, prefix: str, limit: int = 1000) -> list[str]:
    entities: list[str] = []
    while True:
        answer = Answer()
        journal.list_entities(prefix, entities[-1] if entities else "", limit, answer)
        page = await answer.result()
        assert len(page) <= limit
        entities += page
        if len(page) < limit:
            return entities


async def read_whole_log(journal: Journal, prefix: str, from_offset: int = 0, limit: int = 1000) -> list[LogEntry]:
    entries: list[LogEntry] = []
    while True:
        page = await read_log(journal, prefix, from_offset, limit)
        entries += page.entries
        if not page.more:
            return entries
        assert page.next_offset > from_offset
        from_offset = page.next_offset


async def read_all(journal: Journal, entity: str, first: int = 1, max_bytes: int = 1 << 20) -> list[bytes]:
    events: list[bytes] = []
    while True:
        page = await read_page(journal, entity, first + len(events), max_bytes)
        assert page.first_sequence == first + len(events)
        assert page.events or not page.more
        events += page.events
        if not page.more:
            return events
