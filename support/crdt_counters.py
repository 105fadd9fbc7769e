"""Counters: they are used like integers, and concurrent changes of all nodes add up."""

from __future__ import annotations

from typing import Any, TypeVar

from . import crdt_deltas
from .crdts import Crdt
from .errors import CrdtError

C = TypeVar("C", bound="_Counter")
MAX_CHANGE = (1 << 63) - 1
"""How much one command may add: proxies read more as negative."""


class _Counter(Crdt):
    """What both counters can do."""

    __slots__ = ("_delta", "_value")

    def __init__(self, value: int = 0) -> None:
        Crdt.__init__(self)
        self._value = self._delta = 0
        if value:
            self._add(value)

    @property
    def value(self) -> int:
        """The count of all nodes, as far as known here."""
        return self._value

    def increment(self, by: int = 1) -> int:
        """Count up; the new value. Raises CrdtError for what is no integer, or too large."""
        return self._add(by)

    def __iadd__(self: C, by: int) -> C:  # type: ignore[misc]  # unlike +, which gives a plain number
        self._add(by)
        return self

    def __isub__(self: C, by: int) -> C:  # type: ignore[misc]
        self._add(-self._integer(by))
        return self

    def __int__(self) -> int:
        return self._value

    __index__ = __int__

    def __bool__(self) -> bool:
        return self._value != 0

    def __eq__(self, other: object) -> bool:
        number = _number(other)
        return NotImplemented if number is None else self._value == number

    def __lt__(self, other: object) -> bool:
        number = _number(other)
        return NotImplemented if number is None else self._value < number

    def __le__(self, other: object) -> bool:
        number = _number(other)
        return NotImplemented if number is None else self._value <= number

    def __gt__(self, other: object) -> bool:
        number = _number(other)
        return NotImplemented if number is None else self._value > number

    def __ge__(self, other: object) -> bool:
        number = _number(other)
        return NotImplemented if number is None else self._value >= number

    def __add__(self, other: object) -> int:
        number = _number(other)
        return NotImplemented if number is None else self._value + number

    __radd__ = __add__

    def __sub__(self, other: object) -> int:
        number = _number(other)
        return NotImplemented if number is None else self._value - number

    def __rsub__(self, other: object) -> int:
        number = _number(other)
        return NotImplemented if number is None else number - self._value

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._value})"

    def _add(self, by: int) -> int:
        if type(by) is not int:
            by = self._integer(by)
        delta = self._delta + by
        if not -MAX_CHANGE <= delta <= MAX_CHANGE:
            raise CrdtError(f"A {type(self).__name__} cannot be changed by {delta} in one command: over {MAX_CHANGE}")
        if by:
            self._change(self._restore, self._value, self._delta)
            self._value += by
            self._delta = delta
        return self._value

    def _integer(self, by: Any) -> int:
        if isinstance(by, int | _Counter) and not isinstance(by, bool):
            return int(by)
        raise CrdtError(f"A {type(self).__name__} is changed by an integer, not by {by!r}")

    def _restore(self, value: int, delta: int) -> None:
        self._value, self._delta = value, delta

    def _reset(self) -> None:
        self._value = self._delta = 0


class GCounter(_Counter):
    """A counter that only grows.

    counter += 1
    if counter > 100: ...
    """

    __slots__ = ()
    kind = "gcounter"

    def _add(self, by: int) -> int:
        if type(by) is int and by < 0:
            raise CrdtError(f"A GCounter only grows: it cannot be changed by {by}; a PNCounter can")
        return _Counter._add(self, by)

    def _take(self, always: bool = False) -> bytes | None:
        delta, self._delta = self._delta, 0
        return crdt_deltas.gcounter(delta) if delta or always else None

    def _whole(self) -> bytes:
        return crdt_deltas.gcounter(self._value & 0xFFFF_FFFF_FFFF_FFFF)

    def _merge(self, delta: Any) -> None:
        self._value += delta.increment


class PNCounter(_Counter):
    """A counter that can go up and down."""

    __slots__ = ()
    kind = "pncounter"

    def decrement(self, by: int = 1) -> int:
        """Count down; the new value."""
        return self._add(-by)

    def _take(self, always: bool = False) -> bytes | None:
        delta, self._delta = self._delta, 0
        return crdt_deltas.pncounter(delta) if delta or always else None

    def _whole(self) -> bytes:
        return crdt_deltas.pncounter(self._value)

    def _merge(self, delta: Any) -> None:
        self._value += delta.change


def _number(other: object) -> int | None:
    if isinstance(other, _Counter):
        return other._value
    return other if isinstance(other, int) else None
