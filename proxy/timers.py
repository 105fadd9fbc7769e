"""One heap of moments for everything that waits for time: passivation, relay timeouts, streams that do not close.

A target is looked at when its moment comes and says when to look again. Nothing is moved when a command comes or
goes, so the way of a command pays one attribute for all its timeouts; each instance costs one heap operation per
timeout period.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from time import monotonic
from typing import Any, Protocol

MAX_PER_TURN = 1000  # targets looked at in one turn of the loop
EVICTION_SCAN = 256  # targets looked at to find idle ones


class Target(Protocol):
    """Something that waits. `due` belongs to Timers: when it will be looked at, 0.0 = not at all."""

    due: float
    touched: float
    """Moment of the last progress."""

    def on_time(self, now: float) -> float:
        """Look at the clock; the moment to be asked again, 0.0 = not again."""

    def evict(self) -> bool:
        """Give up your place if you are idle."""


class Timers:
    """The heap. Times are `time.monotonic()` seconds."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._heap: list[tuple[float, int, Target]] = []
        self._order = count()
        self._handle: asyncio.TimerHandle | None = None
        self._wake_at = 0.0

    def watch(self, target: Target, due: float) -> None:
        """Look at `target` at `due` or earlier."""
        if target.due and target.due <= due:
            return
        target.due = due
        heappush(self._heap, (due, next(self._order), target))
        if self._handle is None or due < self._wake_at:
            self._arm(due)

    def forget(self, target: Target) -> None:
        target.due = 0.0

    def soon(self, callback: Callable[..., Any], *args: Any) -> None:
        """Call in a later turn of the loop."""
        self._loop.call_soon(callback, *args)

    def later(self, delay: float, callback: Callable[..., Any], *args: Any) -> None:
        """Call after `delay` seconds."""
        self._loop.call_later(delay, callback, *args)

    def evict(self, wanted: int) -> int:
        """Passivate up to `wanted` targets; how many there were. Those that rested longest come first, among the ones
        that will be looked at soonest."""
        soonest = [target for due, _order, target in self._heap[:EVICTION_SCAN] if target.due == due]
        evicted = 0
        for target in sorted(soonest, key=lambda target: target.touched):
            if evicted == wanted:
                break
            evicted += target.evict()
        return evicted

    def evict_all(self) -> None:
        """Passivate everything that is idle: the proxy stops."""
        for due, _order, target in list(self._heap):
            if target.due == due:
                target.evict()

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._heap.clear()

    def _arm(self, due: float) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._wake_at = due
        self._handle = self._loop.call_later(max(0.0, due - monotonic()), self._run)

    def _run(self) -> None:
        self._handle = None
        now = monotonic()
        heap = self._heap
        for _ in range(MAX_PER_TURN):
            if not heap or heap[0][0] > now:
                break
            due, _order, target = heappop(heap)
            if target.due == due:
                self._look(target, now)
        if heap:  # whatever `watch` armed meanwhile may be later than what is due next
            self._arm(heap[0][0])

    def _look(self, target: Target, now: float) -> None:
        target.due = 0.0
        again = target.on_time(now)
        if again:
            self.watch(target, again)
