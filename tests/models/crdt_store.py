"""Dots, causal contexts and stores of the CRDT model: plain dicts and frozensets, and the one join of two states.

The innermost part of the model (see tests/models/crdt.py). What is written here is the table of `_speedups/crdt.pyi`
and nothing more, with no regard to speed: every join looks at every entry.
"""

from collections.abc import Iterable
from typing import Any

GCOUNTER, PNCOUNTER, GSET, ORSET, LWWREGISTER, FLAG, ORMAP, VOTE = range(1, 9)
PER_REPLICA = frozenset((GCOUNTER, PNCOUNTER, LWWREGISTER, VOTE))  # replica -> (n, ...)
SETS = frozenset((GSET, ORSET))  # element -> dots

Dot = tuple[int, int]
Dots = frozenset[Dot]
Store = Any  # by kind, see `zero`
NO_DOTS: Dots = frozenset()


class Context:
    """Every dot ever seen: of each replica a contiguous prefix, and a cloud of dots beyond it."""

    def __init__(self, dots: Iterable[Dot] = ()) -> None:
        self.prefix: dict[int, int] = {}
        self.cloud: dict[int, set[int]] = {}
        for dot in dots:
            self.add(dot)

    def __contains__(self, dot: Dot) -> bool:
        replica, n = dot
        return n <= self.prefix.get(replica, 0) or n in self.cloud.get(replica, ())

    def __bool__(self) -> bool:
        return bool(self.prefix or self.cloud)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Context) and (self.prefix, self.cloud) == (other.prefix, other.cloud)

    __hash__ = None  # type: ignore[assignment]

    def replicas(self) -> set[int]:
        return self.prefix.keys() | self.cloud.keys()

    def add(self, dot: Dot) -> None:
        if dot not in self:
            self.cloud.setdefault(dot[0], set()).add(dot[1])
            self._compact(dot[0])

    def update(self, other: "Context") -> None:
        for replica in other.replicas():
            self.prefix[replica] = max(self.prefix.get(replica, 0), other.prefix.get(replica, 0))
            self.cloud.setdefault(replica, set()).update(other.cloud.get(replica, ()))
            self._compact(replica)

    def union(self, other: "Context") -> "Context":
        joined = Context()
        joined.update(self)
        joined.update(other)
        return joined

    def next(self, replica: int) -> int:
        """Number of that replica's next change."""
        last: int = max(self.cloud.get(replica, ()), default=self.prefix.get(replica, 0))
        return last + 1

    def forget(self, replica: int) -> None:
        self.prefix.pop(replica, None)
        self.cloud.pop(replica, None)

    def dots(self) -> Iterable[Dot]:
        for replica in self.replicas():
            yield from ((replica, n) for n in range(1, self.prefix.get(replica, 0) + 1))
            yield from ((replica, n) for n in self.cloud.get(replica, ()))

    def canonical(self) -> dict[int, tuple[int, tuple[int, ...]]]:
        return {
            replica: (self.prefix.get(replica, 0), tuple(sorted(self.cloud.get(replica, ()))))
            for replica in sorted(self.replicas())
        }

    def _compact(self, replica: int) -> None:
        prefix, cloud = self.prefix.get(replica, 0), self.cloud.get(replica, set())
        while prefix + 1 in cloud:
            prefix += 1
        cloud = {n for n in cloud if n > prefix}
        self.forget(replica)
        if prefix:
            self.prefix[replica] = prefix
        if cloud:
            self.cloud[replica] = cloud


def zero(kind: int) -> Store:
    """The store of a CRDT that nothing has happened to."""
    return NO_DOTS if kind == FLAG else {}


# --- join ------------------------------------------------------------------------------------------------------------


def join(kind: int, a: Store, known_a: Context, b: Store, known_b: Context) -> Store:
    """Join of two stores, each with the context of the state that it is part of."""
    if kind in PER_REPLICA:
        return _join_entries(a, known_a, b, known_b)
    if kind in SETS:
        dots = {
            element: join_dots(a.get(element, NO_DOTS), known_a, b.get(element, NO_DOTS), known_b) for element in a | b
        }
        return {element: alive for element, alive in dots.items() if alive}
    if kind == FLAG:
        return join_dots(a, known_a, b, known_b)
    return _join_maps(a, known_a, b, known_b)


def join_dots(a: Dots, known_a: Context, b: Dots, known_b: Context) -> Dots:
    """Those in both, and those in one that the other has never seen."""
    if a == b:
        return a
    return (a & b) | {dot for dot in a - b if dot not in known_b} | {dot for dot in b - a if dot not in known_a}


def _join_entries(a: Store, known_a: Context, b: Store, known_b: Context) -> Store:
    """Per replica the entry with the higher n, of those that are in both or that the other side has never seen."""
    joined = {}
    for replica in a | b:
        mine, theirs = a.get(replica), b.get(replica)
        kept = [mine] if mine and (mine == theirs or (replica, mine[0]) not in known_b) else []
        if theirs and (replica, theirs[0]) not in known_a:
            kept.append(theirs)
        if kept:
            joined[replica] = max(kept)
    return joined


def _join_maps(a: Store, known_a: Context, b: Store, known_b: Context) -> Store:
    joined = {}
    for key, kind in a | b:
        nothing = (NO_DOTS, zero(kind))
        dots_a, store_a = a.get((key, kind), nothing)
        dots_b, store_b = b.get((key, kind), nothing)
        dots = join_dots(dots_a, known_a, dots_b, known_b)
        if dots:
            joined[key, kind] = (dots, join(kind, store_a, known_a, store_b, known_b))
    return joined


# --- parts of a state ------------------------------------------------------------------------------------------------


def part(kind: int, store: Store, wanted: Context, also: Context) -> Store:
    """What of a store has one of these dots. A key goes with those of its dots that are wanted or, when only something
    below it is, with all: these are added to `also`."""
    if kind in PER_REPLICA:
        return {replica: entry for replica, entry in store.items() if (replica, entry[0]) in wanted}
    if kind in SETS:
        found = {element: _wanted(dots, wanted) for element, dots in store.items()}
        return {element: dots for element, dots in found.items() if dots}
    if kind == FLAG:
        return _wanted(store, wanted)
    entries = {}
    for (key, below), (dots, nested) in store.items():
        inner, named = part(below, nested, wanted, also), _wanted(dots, wanted)
        if inner and not named:
            named = dots
            also.update(Context(dots))
        if named:
            entries[key, below] = (named, inner)
    return entries


def without(kind: int, store: Store, gone: int) -> Store:
    """A store without a pruned replica. Keys stay, with no dots perhaps, until a join decides."""
    if kind in PER_REPLICA:
        return {replica: entry for replica, entry in store.items() if replica != gone}
    if kind in SETS:
        left = {element: _not_of(dots, gone) for element, dots in store.items()}
        return {element: dots for element, dots in left.items() if dots}
    if kind == FLAG:
        return _not_of(store, gone)
    return {
        (key, below): (_not_of(dots, gone), without(below, nested, gone))
        for (key, below), (dots, nested) in store.items()
    }


def newest(store: Store, key: Any) -> int | None:
    """Type of a map's key: that of its newest dot, largest n, then largest replica. None: the key is not there."""
    dots = [(n, replica, kind) for kind in range(1, 9) for replica, n in store.get((key, kind), (NO_DOTS,))[0]]
    return max(dots)[2] if dots else None


def _wanted(dots: Dots, wanted: Context) -> Dots:
    return frozenset(dot for dot in dots if dot in wanted)


def _not_of(dots: Dots, gone: int) -> Dots:
    return frozenset(dot for dot in dots if dot[0] != gone)


# --- as sorted tuples, for encoding ----------------------------------------------------------------------------------


def freeze(kind: int, store: Store) -> tuple[Any, ...]:
    """Equal stores give equal tuples of tuples, ints, bools, strings and bytes."""
    if kind in PER_REPLICA:
        return tuple((replica, *entry) for replica, entry in sorted(store.items()))
    if kind in SETS:
        return tuple((element, tuple(sorted(dots))) for element, dots in sorted(store.items()))
    if kind == FLAG:
        return tuple(sorted(store))
    return tuple(
        (key, below, tuple(sorted(dots)), freeze(below, nested))
        for (key, below), (dots, nested) in sorted(store.items(), key=lambda entry: entry[0])
    )


def thaw(kind: int, frozen: tuple[Any, ...]) -> Store:
    if kind in PER_REPLICA:
        return {replica: tuple(entry) for replica, *entry in frozen}
    if kind in SETS:
        return {element: frozenset(dots) for element, dots in frozen}
    if kind == FLAG:
        return frozenset(frozen)
    return {(key, below): (frozenset(dots), thaw(below, nested)) for key, below, dots, nested in frozen}


def depth(kind: int, store: Store) -> int:
    """Maps in maps; 0 for anything else."""
    if kind != ORMAP:
        return 0
    return 1 + max((depth(below, nested) for (_, below), (_, nested) in store.items()), default=0)
