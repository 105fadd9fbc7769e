"""CRDTs of a single value: a register in which the last write wins, a flag that is switched on once, a vote."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Generic, TypeVar

from . import crdt_deltas
from .crdts import Changes, Crdt, encoded
from .errors import CrdtError
from .serialization import PRIMITIVES

V = TypeVar("V")
_NEVER_SET = b""


class Clock(IntEnum):
    """What decides between two writes to a register, numbered as cloudstate.crdt.CrdtClock."""

    DEFAULT = 0
    """The time of the proxy: the last write wins."""
    REVERSE = 1
    """The first write wins."""
    CUSTOM = 2
    """The larger of the values given with the writes wins."""
    CUSTOM_AUTO_INCREMENT = 3
    """As CUSTOM; a value that is not larger than the register's clock is made so."""


class LWWRegister(Crdt, Generic[V]):
    """A register: of two writes at the same time one wins, by default the later.

    value: written with the first reply, unless another node has a value already. A register made without one has the
    value None, and is not written before it is set.
    """

    __slots__ = ("_clock", "_custom", "_encoded", "_pending", "_value")
    kind = "lwwregister"

    def __init__(self, value: V | None = None) -> None:
        Crdt.__init__(self)
        self._encoded = _NEVER_SET
        self._value: V | None = None
        self._pending = False
        self._clock, self._custom = Clock.DEFAULT, 0
        if value is not None:
            self.set(value)

    @property
    def value(self) -> V | None:
        """What the register holds, None if it was never set. A message is a copy: change it and `set` it."""
        if self._value is not None or not self._encoded:
            return self._value
        value: V = self._codec.decode(self._encoded)
        if type(value) in PRIMITIVES:
            self._value = value
        return value

    @value.setter
    def value(self, value: V) -> None:
        self.set(value)

    def set(self, value: V, clock: Clock = Clock.DEFAULT, custom_clock_value: int = 0) -> None:
        """Write a value. The last `set` of a command counts.

        clock: what decides against other writes. custom_clock_value: for the CUSTOM clocks, an int64.
        Setting the value that is there already, by the default clock, writes nothing.
        """
        if value is None:
            raise CrdtError("A LWWRegister holds a value, not None")
        if not -1 << 63 <= custom_clock_value < 1 << 63:
            raise CrdtError(f"The custom clock value {custom_clock_value} does not fit 64 bits")
        new = self._codec.encode(value)
        if new == self._encoded and clock == Clock.DEFAULT:
            return
        self._change(self._restore, self._encoded, self._value, self._pending, self._clock, self._custom)
        kept = value if type(value) in PRIMITIVES else None
        self._restore(new, kept, True, Clock(clock), custom_clock_value)

    def __repr__(self) -> str:
        return f"LWWRegister({self.value!r})"

    def __eq__(self, other: object) -> bool:
        return self._encoded == other._encoded if isinstance(other, LWWRegister) else NotImplemented

    def _restore(self, new: bytes, value: V | None, pending: bool, clock: Clock, custom: int) -> None:
        self._encoded, self._value = new, value
        self._pending, self._clock, self._custom = pending, clock, custom

    def _take(self, always: bool = False) -> bytes | None:
        if not (self._pending or always):
            return None
        delta = crdt_deltas.lwwregister(self._encoded or None, self._clock, self._custom)
        self._pending, self._clock, self._custom = False, Clock.DEFAULT, 0
        return delta

    def _whole(self) -> bytes:
        return crdt_deltas.lwwregister(self._encoded or None, 0, 0)

    def _merge(self, delta: Any) -> None:
        (self._encoded,) = encoded([delta.value])
        self._value = None

    def _reset(self) -> None:
        self._restore(_NEVER_SET, None, False, Clock.DEFAULT, 0)

    def _join(self, changes: Changes) -> None:
        if self._encoded:
            self._encoded = changes.codec.encode(self.value)
        Crdt._join(self, changes)


class Flag(Crdt):
    """A boolean that starts as False and is switched on, once and for all nodes."""

    __slots__ = ("_on", "_pending")
    kind = "flag"

    def __init__(self, on: bool = False) -> None:
        Crdt.__init__(self)
        self._on = self._pending = False
        if on:
            self.enable()

    @property
    def value(self) -> bool:
        """Whether it is on."""
        return self._on

    def enable(self) -> None:
        """Switch it on."""
        if not self._on:
            self._change(self._restore, False, False)
            self._on = self._pending = True

    def __bool__(self) -> bool:
        return self._on

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Flag):
            return self._on == other._on
        return self._on == other if isinstance(other, bool) else NotImplemented

    def __repr__(self) -> str:
        return f"Flag({self._on})"

    def _restore(self, on: bool, pending: bool) -> None:
        self._on, self._pending = on, pending

    def _take(self, always: bool = False) -> bytes | None:
        pending, self._pending = self._pending, False
        return crdt_deltas.flag(pending) if pending or always else None

    def _whole(self) -> bytes:
        return crdt_deltas.flag(self._on)

    def _merge(self, delta: Any) -> None:
        self._on = self._on or delta.value

    def _reset(self) -> None:
        self._restore(False, False)


class Vote(Crdt):
    """One vote of each node. Nodes that did not vote count as no; a node that leaves does not count any more.

    All user functions behind one proxy share its vote.
    """

    __slots__ = ("_for", "_self", "_sent", "_total")
    kind = "vote"

    def __init__(self, vote: bool = False) -> None:
        Crdt.__init__(self)
        self._self, self._sent = False, False
        self._for, self._total = 0, 1
        if vote:
            self.vote = True

    @property
    def vote(self) -> bool:
        """How this node votes. Set it to vote."""
        return self._self

    @vote.setter
    def vote(self, vote: bool) -> None:
        if not isinstance(vote, bool):
            raise CrdtError(f"A vote is True or False, not {vote!r}")
        if vote != self._self:
            self._change(self._restore, self._self, self._for)
            self._self = vote
            self._for += 1 if vote else -1

    @property
    def votes_for(self) -> int:
        """Nodes that vote yes, as far as known here."""
        return self._for

    @property
    def total(self) -> int:
        """Nodes that can vote."""
        return self._total

    @property
    def at_least_one(self) -> bool:
        """Somebody votes yes."""
        return self._for > 0

    @property
    def majority(self) -> bool:
        """More than half vote yes."""
        return 2 * self._for > self._total

    @property
    def unanimous(self) -> bool:
        """All vote yes."""
        return self._for == self._total

    def __repr__(self) -> str:
        return f"<Vote {self._self}, {self._for} of {self._total} for>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Vote):
            return NotImplemented
        return (self._self, self._for, self._total) == (other._self, other._for, other._total)

    def _restore(self, vote: bool, votes_for: int) -> None:
        self._self, self._for = vote, votes_for

    def _take(self, always: bool = False) -> bytes | None:
        if self._self == self._sent and not always:
            return None
        self._sent = self._self
        return crdt_deltas.vote(self._self)

    def _whole(self) -> bytes:
        return crdt_deltas.vote(self._self, self._for, self._total)

    def _merge(self, delta: Any) -> None:
        self._self = self._sent = delta.self_vote
        self._for, self._total = delta.votes_for, delta.total_voters

    def _reset(self) -> None:
        self._self = self._sent = False
        self._for, self._total = 0, 1
