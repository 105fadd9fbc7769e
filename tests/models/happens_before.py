"""What a CRDT's value has to be, from the bare history: which changes a replica knows, and which of them knew which.

No dots, no contexts, no joins: a removal takes away the changes that its maker knew, and nothing else (spec crdt 5.5,
P9 and P11). A change below a map's key touches the key too. Counters of one replica go on from the sum of its latest
change that is still there. Maps here give each key one type for ever.
"""

from dataclasses import dataclass, field
from typing import Any

from stateside.proto import crdt
from tests.models.crdt_plain import any_bytes, element_of, kind_in
from tests.models.crdt_store import FLAG, GCOUNTER, GSET, LWWREGISTER, ORMAP, ORSET, PNCOUNTER, VOTE

Path = tuple[Any, ...]


@dataclass(frozen=True)
class Change:
    """Something put at a path: an element, a key, a sum, a register's value, a vote."""

    number: int  # of the operation that it is part of
    replica: int
    path: Path
    what: Any


@dataclass(frozen=True)
class Removal:
    number: int
    path: Path  # and all below
    known: frozenset[Change]  # to the one who removed


@dataclass
class History:
    """All operations of all replicas, and per replica the numbers of those that it knows."""

    changes: list[Change] = field(default_factory=list)
    removals: list[Removal] = field(default_factory=list)
    known: dict[int, set[int]] = field(default_factory=dict)
    operations: int = 0

    def apply(self, replica: int, kind: int, delta: dict[str, Any], now: int) -> int:
        """An operation of a replica that has seen all that it knows. Its number."""
        self.operations += 1
        self.known.setdefault(replica, set()).add(self.operations)
        self._apply(replica, kind, (), crdt.CrdtDelta(**delta), now)
        return self.operations

    def _apply(self, replica: int, kind: int, path: Path, delta: Any, now: int) -> None:
        if kind in (GCOUNTER, PNCOUNTER):
            amount = delta.gcounter.increment if kind == GCOUNTER else delta.pncounter.change
            if amount:
                own = self._own(replica, path)
                self._put(replica, path, (own.what if own else 0) + amount)
        elif kind in (GSET, ORSET):
            member = delta.gset if kind == GSET else delta.orset
            if kind == ORSET:
                self._remove(replica, [path] if member.cleared else [])
                self._remove(replica, [(*path, element_of(element)) for element in member.removed])
            for element in member.added:
                self._put(replica, (*path, element_of(element)), True)
        elif kind == LWWREGISTER:
            self._write(replica, path, delta.lwwregister, now)
        elif kind == FLAG:
            if delta.flag.value:
                self._put(replica, path, True)
        elif kind == VOTE:
            own = self._own(replica, path)
            if (own.what if own else False) != delta.vote.self_vote:
                self._put(replica, path, delta.vote.self_vote)
        else:
            self._apply_map(replica, path, delta.ormap, now)

    def _apply_map(self, replica: int, path: Path, member: Any, now: int) -> None:
        self._remove(replica, [path] if member.cleared else [])
        self._remove(replica, [(*path, element_of(key)) for key in member.removed])
        for entries, adding in ((member.updated, False), (member.added, True)):
            for entry in entries:
                below = (*path, element_of(entry.key))
                if adding or self._keys(replica, below):
                    self._put(replica, (*below, "key"), True)
                    self._apply(replica, kind_in(entry.delta), (*below, "value"), entry.delta, now)

    def _write(self, replica: int, path: Path, member: Any, now: int) -> None:
        latest = self._latest(replica, path)
        before = latest[0] if latest else None
        timestamp = (
            (now if before is None else max(now, before + 1)),
            (-now if before is None else min(-now, before - 1)),
            member.custom_clock_value,
            max(member.custom_clock_value, before + 1) if before is not None else member.custom_clock_value,
        )[member.clock]
        timestamp = min(max(timestamp, -(2**63)), 2**63 - 1)
        write = (timestamp, -replica, element_of(member.value))
        if latest is None or (write > latest and write[:2] != latest[:2]):
            self._put(replica, path, write)

    def _put(self, replica: int, path: Path, what: Any) -> None:
        self.changes.append(Change(self.operations, replica, path, what))

    def _remove(self, replica: int, paths: list[Path]) -> None:
        known = frozenset(self._alive(replica, ()))
        self.removals += [Removal(self.operations, path, known) for path in paths]

    # --- what is there, as far as a replica knows

    def _alive(self, replica: int, path: Path) -> list[Change]:
        """Changes at a path and below that nobody removed."""
        known = self.known.get(replica, set())
        removals = [removal for removal in self.removals if removal.number in known]
        return [
            change
            for change in self.changes
            if change.number in known
            and change.path[: len(path)] == path
            and not any(
                change.path[: len(removal.path)] == removal.path and change in removal.known for removal in removals
            )
        ]

    def _own(self, replica: int, path: Path) -> Change | None:
        """A replica's latest change of a counter or vote, unless it was removed since."""
        made = [change for change in self.changes if change.replica == replica and change.path == path]
        return made[-1] if made and made[-1] in self._alive(replica, path) else None

    def _latest(self, replica: int, path: Path) -> Any:
        return max((change.what for change in self._last_of_each(replica, path)), default=None)

    def _last_of_each(self, replica: int, path: Path) -> list[Change]:
        """Of each replica its latest known change, if that was not removed."""
        known = self.known.get(replica, set())
        made = {change.replica: change for change in self.changes if change.path == path and change.number in known}
        alive = self._alive(replica, path)
        return [change for change in made.values() if change in alive]

    def _keys(self, replica: int, path: Path) -> bool:
        return any(change.path == (*path, "key") for change in self._alive(replica, path))

    def value(self, replica: int, kind: int, kinds: dict[Any, int], path: Path = ()) -> Any:
        """What `State.value` has to be. kinds: type of each map key."""
        if kind in (GCOUNTER, PNCOUNTER):
            return sum(change.what for change in self._last_of_each(replica, path))
        if kind in (GSET, ORSET):
            return {any_bytes(change.path[-1]) for change in self._alive(replica, path)}
        if kind == LWWREGISTER:
            latest = self._latest(replica, path)
            return any_bytes(latest[2]) if latest else None
        if kind == FLAG:
            return bool(self._alive(replica, path))
        if kind == VOTE:
            votes = [change for change in self._last_of_each(replica, path) if change.what]
            return any(change.replica == replica for change in votes), len(votes), len(self.known)
        assert kind == ORMAP
        names = {change.path[len(path)] for change in self._alive(replica, path)}
        return {
            any_bytes(name): self.value(replica, kinds[name], kinds, (*path, name, "value"))
            for name in names
            if self._keys(replica, (*path, name))
        }
