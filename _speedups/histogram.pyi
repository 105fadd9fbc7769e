"""Counts in fixed buckets."""

from collections.abc import Iterable

class Histogram:
    """`bounds` ascend, at most 32; a bucket counts up to and including its bound, a further one all that is above."""

    def __init__(self, bounds: Iterable[float]) -> None: ...
    @property
    def bounds(self) -> tuple[float, ...]: ...
    @property
    def counts(self) -> list[int]:
        """Observations of each bucket by itself, the lowest first; one more than there are bounds."""
    @property
    def count(self) -> int: ...
    @property
    def sum(self) -> float: ...
    def observe(self, value: float) -> None: ...
