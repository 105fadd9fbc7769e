"""Waiting until several things are done: one callback for all of them."""

from __future__ import annotations

from collections.abc import Callable


class Ticket:
    """Counts what is under way. `done` is called once, with the first error or None, when everything that was begun
    has been finished; `release` is the end of beginning."""

    __slots__ = ("_done", "_error", "_left")

    def __init__(self, done: Callable[[Exception | None], None]) -> None:
        self._done = done
        self._error: Exception | None = None
        self._left = 1  # the beginning itself

    def begin(self) -> None:
        self._left += 1

    def finish(self, error: Exception | None = None) -> None:
        if error is not None and self._error is None:
            self._error = error
        self._left -= 1
        if self._left == 0:
            self._done(self._error)

    def release(self) -> None:
        self.finish()
