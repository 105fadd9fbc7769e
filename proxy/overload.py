"""Overload: when the loop falls behind or memory runs out, new calls are refused and those under way go on.

One timer watches. Each time it comes late the loop was busy for so long, and a loop that is late by `max_loop_lag`
twice in a row is not having a hiccup. Memory is looked at once a second. The transport asks before each new call
(`Server.shedding`, `max_calls`), HTTP/JSON asks `Server.refusal`; health checks and the admin port are never refused.
It begins at a limit and ends well below it, so that it does not flutter.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from time import monotonic
from typing import TYPE_CHECKING

from stateside.proxy import logs
from stateside.proxy.observations import FINE_SECONDS, Histogram

if TYPE_CHECKING:
    from stateside._speedups.h2 import Server
    from stateside.proxy.config import Settings
    from stateside.proxy.timers import Timers

INTERVAL = 0.05  # seconds between two looks at the clock
LATE_IN_A_ROW = 2  # such looks, before calls are refused
CALM_SECONDS = 0.5  # without lag, before they are taken again
MEMORY_INTERVAL = 1.0
MEMORY_CALM = 0.95  # of max_memory
EVICTED_AT_ONCE = 1000  # idle instances passivated each time that there is too much memory in use
LOOP_LAG, MEMORY = "max_loop_lag", "max_memory"

log = logs.get(__name__)


class Overload:
    """What is wrong now is in `server.shedding`, the strongest reason first."""

    def __init__(self, settings: Settings, loop: asyncio.AbstractEventLoop, server: Server, timers: Timers) -> None:
        self.lag = Histogram(FINE_SECONDS)
        self.highest_lag = 0.0
        self._max_lag = settings.max_loop_lag
        self._max_memory = settings.max_memory
        self._loop = loop
        self._server = server
        self._timers = timers
        self._reasons: dict[str, bool] = {LOOP_LAG: False, MEMORY: False}
        self._late_in_a_row = 0
        self._late_at = 0.0
        self._memory_at = 0.0
        self._due = 0.0
        self._handle: asyncio.TimerHandle | None = None
        server.max_calls = settings.max_calls_in_flight

    def start(self) -> None:
        self._due = monotonic() + INTERVAL
        self._handle = self._loop.call_later(INTERVAL, self._look)

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()

    def _look(self) -> None:
        now = monotonic()
        self.on_lag(now, max(0.0, now - self._due))
        if self._max_memory and now >= self._memory_at:
            self._memory_at = now + MEMORY_INTERVAL
            self.on_memory(resident_bytes())
        self.start()

    def on_lag(self, now: float, late: float) -> None:
        """The timer came so many seconds late."""
        self.lag.observe(late)
        self.highest_lag = max(self.highest_lag, late)
        limit = self._max_lag
        if not limit:
            return
        self._late_in_a_row = self._late_in_a_row + 1 if late >= limit else 0
        if late >= limit / 2:
            self._late_at = now
        if self._late_in_a_row >= LATE_IN_A_ROW:
            self._set(LOOP_LAG, True, f"the event loop is {late:.2f} s late")
        elif now >= self._late_at + CALM_SECONDS:
            self._set(LOOP_LAG, False)

    def on_memory(self, used: int) -> None:
        """The process has so many bytes."""
        if used >= self._max_memory:
            self._set(MEMORY, True, f"{used} bytes are in use")
            self._timers.evict(EVICTED_AT_ONCE)
            trim_memory()
        elif used < self._max_memory * MEMORY_CALM:
            self._set(MEMORY, False)

    def _set(self, reason: str, is_so: bool, why: str = "") -> None:
        if self._reasons[reason] == is_so:
            return
        self._reasons[reason] = is_so
        if is_so:
            log.warning("overload: new calls are refused", reason=reason, why=why)
        else:
            log.warning("overload is over: new calls are taken again", reason=reason)
        self._server.shedding = next((each for each, holds in self._reasons.items() if holds), None)


def resident_bytes() -> int:
    """Resident memory of this process."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def trim_memory() -> None:
    """Have the C library give back what it keeps; not every one can."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
