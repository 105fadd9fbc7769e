"""What a CRDT entity sees of replication: its replica of the state, writes with a consistency, news from elsewhere.

An activation (crdt.py) opens the replica of its key, applies what the user function changes to `replica.state`, and
calls `write`,
which makes the change durable in the journal, sends it to the other nodes, and answers when as many of them have it
as
was asked for. What comes from other nodes is merged into `replica.state` here, durable by itself, and the
activation is told.
Who the other nodes are is said by a `Membership`: a list from the configuration today, a cluster later.

Callbacks come on the event loop's thread; none is made from inside the call that causes it, except where it says so.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import NamedTuple, Protocol

from stateside._speedups.crdt import State
from stateside.proto.status import Status


class Consistency(IntEnum):
    """How many replicas have a write before it is answered (spec crdt 4), numbered as CrdtWriteConsistency."""

    LOCAL = 0  # this one, durably
    MAJORITY = 1  # more than half of all members, this one included
    ALL = 2  # every member


class ReplicaError(NamedTuple):
    """Why a replica could not be opened or a write not be answered as asked: for the client's status."""

    status: Status
    text: str


class Replica(Protocol):
    """One key's state on this node. Shared by nobody but its activation and the replication."""

    key: str
    state: State | None
    """None: nothing was ever written, here or anywhere known."""
    deleted: bool
    """A tombstone stands here, for ever; `state` is None then."""


class Watcher(Protocol):
    """The activation that opened a replica. No callback follows `close`."""

    def on_opened(self, replica: Replica | None, error: ReplicaError | None) -> None:
        """The answer to `open`, exactly once: at once from inside `open`, or later."""

    def on_changed(self) -> None:
        """Changes of others were merged, the first state appeared, or membership made a difference to a vote:
        `take_change` may have
        something to tell. Not called while nothing changed."""

    def on_deleted(self) -> None:
        """Another node deleted the key."""

    def on_lost(self, text: str) -> None:
        """The state here was replaced by one that does not follow from it (another type won, a write was refused by
        the journal):
        the user function has to begin anew. The replica is to be closed and opened again."""


class Writer(Protocol):
    """Who wrote."""

    def on_written(self, error: ReplicaError | None) -> None:
        """The answer to `write` or `delete`, exactly once, never from inside it. None: as many members as asked
        have it. With an error the
        change may or may not stay: after UNAVAILABLE (a quorum not reached in time, as text `Failed to update CRDT at
        requested write consistency` and more) it stays here and spreads; after anything else it was not stored, and
        `on_lost` follows."""


class Member(NamedTuple):
    """A node that counts. replica: lasting identity of its copies; incarnation: identity of its process, for votes.
    Both 0 for a member that was never heard of."""

    name: str  # host:port of its peer port
    replica: int
    incarnation: int


class Membership(ABC):
    """Who holds replicas. Members count for quorums and votes until they leave, reachable or not."""

    @abstractmethod
    def members(self) -> tuple[Member, ...]:
        """All of them, this node first."""

    @abstractmethod
    def watch(self, listener: Callable[[], None]) -> None:
        """Call `listener` after each change: one joined, left, or was heard of for the first time or in a new
        incarnation."""


class Replicas(ABC):
    """All replicas of this node."""

    @abstractmethod
    def open(self, key: str, watcher: Watcher) -> None:
        """Load a replica for an activation: from the journal and, when this node has not yet caught up with a
        majority of the
        members, after it has or crdt_read_timeout has passed. key: persistence id and entity id, unambiguously
        joined by the caller."""

    @abstractmethod
    def create(self, replica: Replica, kind: int) -> State:
        """The first state of a replica that has none, as the zero of a type; it exists for others with the next
        `write`."""

    @abstractmethod
    def zero(self, kind: int) -> State:
        """A state of no key, with the identity of this node."""

    @abstractmethod
    def seat(self, state: State) -> None:
        """Tell such a state who votes now."""

    @abstractmethod
    def write(self, replica: Replica, consistency: Consistency, writer: Writer) -> None:
        """Make the changes of `replica.state` since the last write durable, tell the other nodes, and answer. Also
        when nothing
        changed: then the answer comes when everything written before it has the asked consistency."""

    @abstractmethod
    def delete(self, replica: Replica, consistency: Consistency, writer: Writer) -> None:
        """Put a tombstone in place of the state. Absorbing: whatever comes later is dropped."""

    @abstractmethod
    def close(self, replica: Replica) -> None:
        """The activation ended. Writes under way go on and are not answered."""

    @abstractmethod
    def leave(self, name: str) -> None:
        """A member has left for good: quorums and votes go on without it, and once the others agree its part is
        pruned."""

    @abstractmethod
    def keys(self) -> Iterable[str]:
        """Keys known on this node, tombstones included."""
