"""Between the replica of a CRDT and its user function: what that knows, and so what has to be told.

On the way of a command this file stands behind crdt.py: an update of the user function is applied to the replica's
state here, and what others changed comes out as one `CrdtDelta`. The state itself follows what a user function knows
(`State.open_view`); what is left to do here is the beginning, when there is no state or one that came from elsewhere
while the user function was already working from nothing.
"""

from __future__ import annotations

from time import time
from typing import TYPE_CHECKING

from stateside._speedups.crdt import VOTE, Rejected, State, kind_of_delta

if TYPE_CHECKING:
    from stateside.proxy.replicas import Replica, Replicas


class View:
    """One replica as one stream to the user function knows it."""

    __slots__ = ("_followed", "_replicas", "_unseen", "replica")

    def __init__(self, replicas: Replicas, replica: Replica) -> None:
        self.replica = replica
        self._replicas = replicas
        self._followed: State | None = None  # whose view is open
        self._unseen: State | None = None  # follows in its place at the beginning, see `_catch_up`

    def begin(self) -> bytes | None:
        """A new stream: the whole value for its init; None where nothing was ever written."""
        self.end()
        self._followed = self.replica.state
        return self._followed.open_view() if self._followed is not None else None

    def end(self) -> None:
        """No stream: nobody is told anything."""
        self._unseen = None
        if self._followed is not None:
            self._followed.close_view()
            self._followed = None

    def apply(self, update: bytes) -> None:
        """Apply a CrdtDelta of the user function. Rejected, Malformed: nothing changed."""
        state = self.replica.state
        now = int(time() * 1000)
        if state is None:
            self._create(update, now)
        elif state is self._followed:
            state.apply(update, now)
        else:
            self._catch_up(state, update, now)

    def change(self) -> bytes:
        """What the user function does not know yet, as one CrdtDelta; b"" when it knows all."""
        state = self.replica.state
        if state is None:
            return b""
        if state is self._followed:
            return state.take_change()
        unseen, self._unseen = self._unseen, None
        self._followed = state
        whole = state.open_view()
        if unseen is None:
            return whole
        unseen.merge(state.encode())
        self._replicas.seat(unseen)
        return unseen.take_change()

    def _create(self, update: bytes, now: int) -> None:
        """The user function writes first."""
        kind = kind_of_delta(update)
        if not kind:
            raise Rejected("Empty delta")
        State(kind, 1).apply(update, now)  # refused here, it leaves nothing behind
        state = self._replicas.create(self.replica, kind)
        if kind != VOTE:
            state.open_view()
            self._followed = state
            state.apply(update, now)
            return
        state.apply(update, now)
        vote, votes_for, total = state.value()
        if (votes_for, total) == (int(vote), 1):  # what it takes for granted; otherwise `change` tells
            state.open_view()
            self._followed = state

    def _catch_up(self, state: State, update: bytes, now: int) -> None:
        """The state appeared from elsewhere while this update was made from nothing. A second state with the same
        changes follows what the user function knows until that has been told of the rest."""
        if state.kind != VOTE:  # of a vote the whole is told, and is right at any time
            if self._unseen is None:
                self._unseen = self._replicas.zero(state.kind)
                self._unseen.open_view()
            self._unseen.merge(state.encode())
            self._unseen.apply(update, now)
        state.apply(update, now)
