"""Replicas in memory that answer when a test says so, and another node that changes them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from stateside._speedups.crdt import State
from stateside.proxy.replicas import Consistency, Replica, ReplicaError, Replicas, Watcher, Writer

OWN, OTHER = 7, 99  # identities of the copies, and of the processes


@dataclass
class AReplica:
    key: str
    state: State | None = None
    deleted: bool = False


@dataclass
class AWrite:
    """A write or delete that was asked for."""

    what: str
    consistency: Consistency
    writer: Writer


class SomeReplicas(Replicas):
    """One other node holds all keys too (`elsewhere`). Opens are answered at once unless `waits`."""

    def __init__(self) -> None:
        self.replicas: dict[str, AReplica] = {}
        self.watchers: dict[str, Watcher] = {}
        self.opening: list[tuple[str, Watcher]] = []
        self.waits = False
        self.asked: list[AWrite] = []
        self.closed: list[str] = []
        self.sent: dict[str, list[bytes]] = {}  # own deltas
        self._others: dict[str, State] = {}

    # --- what an activation asks -------------------------------------------------------------------------------------

    def open(self, key: str, watcher: Watcher) -> None:
        self.opening.append((key, watcher))
        if not self.waits:
            self.opened()

    def create(self, replica: Replica, kind: int) -> State:
        replica.state = self.zero(kind)
        return replica.state

    def zero(self, kind: int) -> State:
        return State(kind, OWN, OWN)

    def seat(self, state: State) -> None:
        state.set_members([OWN, OTHER])

    def write(self, replica: Replica, consistency: Consistency, writer: Writer) -> None:
        if replica.state is not None:
            self.sent.setdefault(replica.key, []).append(replica.state.take_delta())
        self.asked.append(AWrite("write", consistency, writer))

    def delete(self, replica: Replica, consistency: Consistency, writer: Writer) -> None:
        replica.state, replica.deleted = None, True
        self.asked.append(AWrite("delete", consistency, writer))

    def close(self, replica: Replica) -> None:
        self.closed.append(replica.key)
        del self.watchers[replica.key]

    def leave(self, name: str) -> None:
        raise AssertionError("no activation does that")

    def keys(self) -> Iterable[str]:
        return self.replicas

    # --- what a test says --------------------------------------------------------------------------------------------

    def opened(self, error: ReplicaError | None = None) -> None:
        key, watcher = self.opening.pop(0)
        if error is not None:
            watcher.on_opened(None, error)
            return
        assert key not in self.watchers, "opened twice"
        self.watchers[key] = watcher
        watcher.on_opened(self.replicas.setdefault(key, AReplica(key)), None)

    def written(self, error: ReplicaError | None = None) -> None:
        """Answer the oldest write."""
        self.asked.pop(0).writer.on_written(error)

    def elsewhere(self, key: str, kind: int, change: Callable[[State], Any]) -> None:
        """The other node changes the key, and this one hears of it."""
        other = self._others.setdefault(key, State(kind, OTHER, OTHER))
        change(other)
        replica = self.replicas.setdefault(key, AReplica(key))
        if replica.state is None:
            replica.state = State.decode(other.encode(), OWN, OWN)
        else:
            replica.state.merge(other.encode())
        if key in self.watchers:
            self.watchers[key].on_changed()

    def deleted_elsewhere(self, key: str) -> None:
        replica = self.replicas.setdefault(key, AReplica(key))
        replica.state, replica.deleted = None, True
        if key in self.watchers:
            self.watchers[key].on_deleted()
