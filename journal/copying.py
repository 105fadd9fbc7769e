"""A journal copied from one store into another: everything, in the order of the source, then compared, then released.

    stages of the source -> batches -> target, with the place reached -> offsets of consumers -> digests -> finish

A copy that ended anywhere is run again and goes on where it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

from stateside.journal.copy_model import Batch, CopyState, Side, Source, Target, is_copied
from stateside.journal.copy_offsets import translated
from stateside.journal.limits import NODE_ENTITY

MAX_DIFFERENCES = 100  # told one by one


class Watch(Protocol):
    """Who shows how far it is."""

    def begin(self, what: str, total: int, done: int) -> None: ...

    def advance(self, steps: int) -> None: ...


@dataclass(slots=True)
class Compared:
    entities: int = 0
    events: int = 0
    differences: list[str] = field(default_factory=list)
    different: int = 0

    def report(self, what: str) -> None:
        self.different += 1
        if len(self.differences) < MAX_DIFFERENCES:
            self.differences.append(what)


@dataclass(slots=True)
class Outcome:
    state: CopyState
    compared: Compared
    was_finished: bool


async def copy(source: Source, target: Target, new_node: bool, watch: Watch) -> Outcome:
    """Copy what is not there yet, and compare everything. Raises JournalError."""
    async with _opened(source):
        target.prepare(source, new_node)
        wanted = CopyState(source.identity, source.mark, new_node, target.layout)
        try:
            state = await target.open(wanted)
            was_finished = state.done
            if not was_finished:
                await _fill(source, target, state, watch)
            await target.settle()
            if not was_finished:
                await target.store_offsets(await translated(source, target))
            compared = await compare(source, target, new_node, watch)
            if not compared.different and not was_finished:
                state.done = True
                await target.finish(state)
        finally:
            await target.close()
    return Outcome(state, compared, was_finished)


async def compare_only(source: Source, other: Source, new_node: bool, watch: Watch) -> Compared:
    """Compare two journals, however they came to be alike."""
    async with _opened(source), _opened(other):
        return await compare(source, other, new_node, watch)


async def compare(source: Source, target: Side, new_node: bool, watch: Watch) -> Compared:
    """Every entity of the source with that of the target, and their number."""
    compared = Compared()
    total = await source.count()
    watch.begin("comparing", total, 0)
    async for page in source.digests():
        if new_node:
            page.pop(NODE_ENTITY, None)
        found = await target.digests_of(list(page))
        for entity, digest in page.items():
            compared.entities += 1
            compared.events += digest.last if digest.kind == "events" else 0
            if entity not in found:
                compared.report(f"{entity}: it is missing")
            elif found[entity] != digest:
                compared.report(f"{entity}: {_difference(digest, found[entity])}")
        watch.advance(len(page))
    there = await target.count()
    if there > compared.entities + new_node:  # a clone that was started has a record of its own
        compared.report(f"there are {there} entities in place of {compared.entities}")
    return compared


def _difference(wanted: tuple[object, ...], found: tuple[object, ...]) -> str:
    names = ("kind", "last sequence", "sequence of the snapshot", "snapshot or value", "events")
    for name, one, other in zip(names, wanted, found, strict=True):
        if one != other:
            return f"{name} differ" if isinstance(one, bytes | None) else f"{name} is {other} in place of {one}"
    raise AssertionError("they are equal")


async def _fill(source: Source, target: Target, state: CopyState, watch: Watch) -> None:
    watch.begin("copying", source.steps, state.events)
    while state.stage < source.stages:
        # Closed before the source is: a thread may be reading ahead.
        async with aclosing(_ahead(source.batches(state.stage, state.place))) as batches:
            async for batch in batches:
                _leave_out(batch, state.new_node)
                state.place = batch.place
                state.events += batch.events
                await target.store(batch, state)
                watch.advance(batch.events)
        state.stage += 1
        state.place = None


def _leave_out(batch: Batch, new_node: bool) -> None:
    if new_node:
        batch.items = [item for item in batch.items if is_copied(item.entity, new_node)]


async def _ahead(batches: AsyncIterator[Batch]) -> AsyncGenerator[Batch, None]:
    """The next batch is read while one is being stored."""
    reading: asyncio.Task[Batch | None] = asyncio.create_task(_next(batches))
    try:
        while (batch := await reading) is not None:
            reading = asyncio.create_task(_next(batches))
            yield batch
    finally:
        if not reading.done():
            await asyncio.wait((reading,))
        if not reading.cancelled():
            reading.exception()  # whoever stopped before it has an error of its own to tell


async def _next(batches: AsyncIterator[Batch]) -> Batch | None:
    return await anext(batches, None)


@asynccontextmanager
async def _opened(source: Source) -> AsyncIterator[None]:
    try:
        await source.open()
        yield
    finally:
        await source.close()
