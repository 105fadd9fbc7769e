"""What is observed on the way of a command, in bounded memory: counts in buckets, quantiles of the last minute, and
refusals by reason. metrics.py shows them to Prometheus.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from stateside._speedups.histogram import Histogram as Counts

BUCKETS_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
# Ours go down to what a relayed command really takes; the reference's lowest is 5 ms.
FINE_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
# One observation serves both.
ALL_SECONDS = tuple(sorted({*BUCKETS_SECONDS, *FINE_SECONDS}))
REPLAYED_EVENTS = (0.0, 1.0, 10.0, 100.0, 1_000.0, 10_000.0, 100_000.0, 1_000_000.0)
QUANTILES = (0.5, 0.95, 0.99, 1.0)


class Histogram(Counts):
    """Counts in fixed buckets."""

    __slots__ = ()

    def __init__(self, bounds: Iterable[float] = ALL_SECONDS) -> None:
        super().__init__(bounds)

    def cumulative(self, bounds: Sequence[float] = BUCKETS_SECONDS) -> list[tuple[str, float]]:
        """See `cumulative`; `bounds` are some of those of the histogram."""
        return cumulative(self.bounds, self.counts, bounds)


def cumulative(
    bounds: Sequence[float], counts: Sequence[int], wanted: Sequence[float] | None = None
) -> list[tuple[str, float]]:
    """(upper bound, observations up to it), as Prometheus wants it; of the `wanted` bounds only."""
    shown = frozenset(bounds if wanted is None else wanted) | {math.inf}
    found, total = [], 0
    for bound, count in zip((*bounds, math.inf), counts, strict=True):
        total += count
        if bound in shown:
            found.append((number(bound), float(total)))
    return found


def number(value: float) -> str:
    """As Prometheus writes it."""
    return "+Inf" if value == math.inf else str(value)


class Refusals:
    """Commands and calls that were refused, by the bound that was reached."""

    __slots__ = ("counts",)

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def count(self, reason: str) -> None:
        self.counts[reason] = self.counts.get(reason, 0) + 1


class Summary:
    """Quantiles of the last minute, within 1 % of the value; count and sum of all time.

    Observations fall into buckets that grow by 2 %, kept in six windows of ten seconds.
    """

    __slots__ = ("_clock", "_windows", "count", "sum")

    WINDOWS = 6
    WINDOW_SECONDS = 10.0
    GROWTH = math.log(1.02)
    # 10 µs to about 3 years: bounds the number of buckets
    LOW, HIGH = 1e-5, 1e8

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.count = 0
        self.sum = 0.0
        self._clock = clock
        self._windows: deque[_Window] = deque(maxlen=self.WINDOWS)

    def observe(self, seconds: float) -> None:
        self.count += 1
        self.sum += seconds
        window = self._window()
        index = round(math.log(min(max(seconds, self.LOW), self.HIGH)) / self.GROWTH)
        window.counts[index] = window.counts.get(index, 0) + 1
        window.highest = max(window.highest, seconds)

    def quantiles(self) -> list[tuple[float, float]]:
        """(quantile, seconds); NaN when nothing was observed in the last minute."""
        oldest = self._clock() - self.WINDOWS * self.WINDOW_SECONDS
        recent = [window for window in self._windows if window.start > oldest]
        counts: dict[int, int] = {}
        for window in recent:
            for index, count in window.counts.items():
                counts[index] = counts.get(index, 0) + count
        highest = max((window.highest for window in recent), default=math.nan)
        return [(quantile, min(self._at(quantile, counts), highest)) for quantile in QUANTILES[:-1]] + [(1.0, highest)]

    def _at(self, quantile: float, counts: dict[int, int]) -> float:
        wanted = quantile * sum(counts.values())
        for index in sorted(counts):
            wanted -= counts[index]
            if wanted <= 0:
                return math.exp(index * self.GROWTH)
        return math.nan

    def _window(self) -> _Window:
        start = self._clock() // self.WINDOW_SECONDS * self.WINDOW_SECONDS
        if not self._windows or self._windows[-1].start != start:
            self._windows.append(_Window(start))
        return self._windows[-1]


class _Window:
    __slots__ = ("counts", "highest", "start")

    def __init__(self, start: float) -> None:
        self.start = start
        self.counts: dict[int, int] = {}
        self.highest = 0.0
