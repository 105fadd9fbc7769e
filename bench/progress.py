"""How far a run is, and how long it will still take: each measurement is expected to take as long as it did before."""

from __future__ import annotations

from collections.abc import Sequence

AROUND_SECONDS = 2.5  # of each measurement: processes are started and ended


class Progress:
    """Of the measurements `names`, in this order."""

    def __init__(self, names: Sequence[str], expected_seconds: float) -> None:
        self._left = list(names)
        self._whole = len(names)
        self._expected = expected_seconds + AROUND_SECONDS
        self._taken: dict[str, float] = {}

    def done(self, name: str, seconds: float) -> None:
        """The next one was measured, or has failed, in so many seconds."""
        self._left.remove(name)
        self._taken[name] = seconds

    def give_up(self, name: str) -> None:
        """It will not be tried again."""
        self._left = [each for each in self._left if each != name]

    def text(self) -> str:
        """`12/96, 6:20 left`."""
        seconds = round(sum(self._taken.get(name, self._expected) for name in self._left))
        return f"{self._whole - len(self._left)}/{self._whole}, {seconds // 60}:{seconds % 60:02} left"
