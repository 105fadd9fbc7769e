"""The CRDTs of `_speedups/crdt.pyi` in plain Python: oracle of the kernels' tests, and a stand-in for them in others'.

Same interface, same meaning, no speed, and an encoding of its own. `install()` makes it `stateside._speedups.crdt`
for code under test that imports that. Parts: crdt_store (dots, contexts, joins), crdt_plain (values as user functions
hold them, and the deltas between them), and here the state with its changes and its view.
"""

import hashlib
import marshal
import sys
import weakref
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Any
from zlib import crc32

from google.protobuf.message import DecodeError

from stateside.proto import Any as AnyMessage
from stateside.proto import crdt
from tests.models import crdt_plain as plain
from tests.models.crdt_plain import CrdtError, Element, Malformed, Message, Rejected, any_bytes, element_of, kind_in
from tests.models.crdt_store import (
    FLAG,
    GCOUNTER,
    GSET,
    LWWREGISTER,
    NO_DOTS,
    ORMAP,
    ORSET,
    PER_REPLICA,
    PNCOUNTER,
    SETS,
    VOTE,
    Context,
    Dot,
    Dots,
    Store,
    depth,
    freeze,
    join,
    newest,
    part,
    thaw,
    without,
    zero,
)

__all__ = [
    "GCOUNTER", "PNCOUNTER", "GSET", "ORSET", "LWWREGISTER", "FLAG", "ORMAP", "VOTE", "FORMAT",
    "CrdtError", "Rejected", "Malformed", "Bounds", "State",
    "kind_of", "kind_of_delta", "join_deltas", "live_states", "install",
]  # fmt: skip

FORMAT = 0x7F  # of the model alone
DEFAULT, REVERSE, CUSTOM, CUSTOM_AUTO_INCREMENT = range(4)
CLOCK_MIN, CLOCK_MAX = -(2**63), 2**63 - 1
LIVE: "weakref.WeakSet[State]" = weakref.WeakSet()


def install() -> None:
    """Be `stateside._speedups.crdt` for what is imported from now on."""
    import stateside._speedups

    sys.modules["stateside._speedups.crdt"] = sys.modules[__name__]
    stateside._speedups.crdt = sys.modules[__name__]  # type: ignore[attr-defined]


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What is accepted from outside."""

    max_state_size: int = 64 * 1024 * 1024
    max_depth: int = 32
    max_replicas: int = 4096
    max_cloud: int = 100_000


# --- encoded states and deltas ---------------------------------------------------------------------------------------


@dataclass(eq=False)
class Part:
    """A state, or a delta: a part of one."""

    kind: int
    context: Context
    store: Store
    pruned: frozenset[int]

    def joined(self, other: "Part") -> "Part":
        if other.kind != self.kind:
            raise Malformed(f"a {plain.NAMES[other.kind]} for a {plain.NAMES[self.kind]}")
        pruned = self.pruned | other.pruned
        a, b = self.stripped(pruned), other.stripped(pruned)
        store = join(self.kind, a.store, a.context, b.store, b.context)
        return Part(self.kind, a.context.union(b.context), store, pruned)

    def stripped(self, pruned: Iterable[int]) -> "Part":
        context, store = self.context.union(Context()), self.store
        for replica in pruned:
            context.forget(replica)
            store = without(self.kind, store, replica)
        return Part(self.kind, context, store, self.pruned)

    def encoded(self) -> bytes:
        context = tuple(self.context.canonical().items())
        frozen = (self.kind, context, freeze(self.kind, self.store), tuple(sorted(self.pruned)))
        body = marshal.dumps(frozen, 2)
        return bytes([FORMAT]) + crc32(body).to_bytes(4) + body

    @staticmethod
    def decoded(data: bytes) -> "Part":
        try:
            if data[:1] != bytes([FORMAT]) or data[1:5] != crc32(data[5:]).to_bytes(4):
                raise Malformed("no state: another format, or damaged")
            kind, context, frozen, pruned = marshal.loads(data[5:])
            known = Context()
            known.prefix = {replica: prefix for replica, (prefix, _) in context if prefix}
            known.cloud = {replica: set(cloud) for replica, (_, cloud) in context if cloud}
            return Part(kind, known, thaw(kind, frozen), frozenset(pruned))
        except (EOFError, TypeError) as error:
            raise Malformed(f"no state: {error}") from None


def kind_of(data: bytes) -> int:
    return Part.decoded(data).kind


def kind_of_delta(delta: bytes) -> int:
    return kind_in(_parsed(delta))


def join_deltas(deltas: Collection[bytes]) -> bytes:
    if not deltas:
        return b""
    return reduce(Part.joined, map(Part.decoded, deltas)).encoded()


def live_states() -> int:
    return len(LIVE)


def _parsed(delta: bytes) -> Message:
    try:
        return crdt.CrdtDelta.FromString(delta)
    except DecodeError as error:
        raise Malformed(f"no CrdtDelta: {error}") from None


# --- the state -------------------------------------------------------------------------------------------------------


@dataclass
class View:
    """What the user function knows: a plain value, and the dots behind it."""

    value: Any
    seen: Context


class State:
    """One CRDT."""

    def __init__(self, kind: int, replica: int, incarnation: int = 0, bounds: Bounds | None = None) -> None:
        if not GCOUNTER <= kind <= VOTE:
            raise CrdtError(f"no type {kind}")
        self.kind, self.replica, self.incarnation = kind, replica, incarnation
        self.bounds = bounds or Bounds()
        self.context, self.store = Context(), zero(kind)
        self.pruned: frozenset[int] = frozenset()
        self._fresh = Context()  # dots made or covered here since the last delta
        self._fresh_is_all = False
        self._view: View | None = None
        self._roughly = 0  # at least the encoded size
        self._members: tuple[frozenset[int], int] = (frozenset((incarnation,)), 0)
        LIVE.add(self)

    @staticmethod
    def decode(data: bytes, replica: int, incarnation: int = 0, bounds: Bounds | None = None) -> "State":
        state = State(Part.decoded(data).kind, replica, incarnation, bounds)
        state.merge(data)
        return state

    # --- changes of the user function

    def apply(self, delta: bytes, now: int) -> None:
        message = _parsed(delta)
        plain.check(self.kind, message, self.bounds.max_depth)
        self._check_flags(self.kind, self.store, message)
        self._check_size(len(delta))
        if self._view:
            self._view.value = plain.applied(self.kind, self._view.value, message, own=True)
        self.store = self._changed(self.kind, self.store, message, now)

    def take_delta(self) -> bytes:
        if self._fresh_is_all:
            delta = self._part()
        elif self._fresh:
            also = self._fresh.union(Context())
            delta = Part(self.kind, also, part(self.kind, self.store, self._fresh, also), self.pruned)
        else:
            return b""
        self._fresh, self._fresh_is_all = Context(), False
        return delta.encoded()

    # --- changes of others

    def merge(self, data: bytes) -> bool:
        before = self._part()
        after = before.joined(Part.decoded(data))
        self._check(after)
        self._check_size(len(data))
        self.context, self.store, self.pruned = after.context, after.store, after.pruned
        for replica in self.pruned:
            self._fresh.forget(replica)
        return (after.context, after.store, after.pruned) != (before.context, before.store, before.pruned)

    def prune(self, gone: int, heir: int) -> None:
        if heir != self.replica or gone == heir:
            raise CrdtError("only the heir prunes, and not itself")
        self.store = self._inherited(self.kind, self.store, gone)
        self.pruned |= {gone}
        for context in (self.context, self._fresh):
            context.forget(gone)
        self._fresh_is_all = True

    def names(self, replica: int) -> bool:
        return replica in self.context.replicas()

    def forget_pruned(self, gone: int) -> None:
        self.pruned -= {gone}

    # --- the user function's view

    def open_view(self) -> bytes:
        message = plain.whole(self.kind, self._value())
        told = plain.applied(self.kind, plain.zero_value(self.kind), message, own=False)
        self._view = View(told, self.context.union(Context()))
        return message.SerializeToString(deterministic=True)  # type: ignore[no-any-return]

    def take_change(self) -> bytes:
        if self._view is None:
            return b""
        message = self._difference()
        self._view.seen = self.context.union(Context())
        if message is None:
            return b""
        self._view.value = plain.applied(self.kind, self._view.value, message, own=False)
        return message.SerializeToString(deterministic=True)  # type: ignore[no-any-return]

    def close_view(self) -> None:
        self._view = None

    def set_members(self, incarnations: Collection[int], absent: int = 0) -> bool:
        self._members = (frozenset(incarnations), absent)
        return self._view is not None and self._difference() is not None

    # --- as a whole

    def encode(self, canonical: bool = False) -> bytes:
        return self._part().encoded()

    def digest(self) -> bytes:
        return hashlib.blake2b(self.encode(canonical=True), digest_size=16).digest()

    @property
    def size(self) -> int:
        return len(self.encode())

    def dump(self) -> tuple[Any, ...]:
        store = thaw(self.kind, freeze(self.kind, self.store))
        return self.kind, self.context.canonical(), store, self.pruned

    # --- single operations

    def value(self) -> Any:
        return _as_bytes(self.kind, self._value())

    def increment(self, amount: int = 1) -> None:
        if self.kind == GCOUNTER and amount < 0:
            raise Rejected("a GCounter cannot be decremented")
        message = crdt.CrdtDelta()
        if self.kind == GCOUNTER:
            message.gcounter.increment = amount
        else:
            message.pncounter.change = amount
        self._apply_one(message)

    def add(self, element: bytes) -> None:
        message = crdt.CrdtDelta()
        member = message.gset if self.kind == GSET else message.orset
        member.added.append(_any(element))
        self._apply_one(message)

    def remove(self, element: bytes) -> None:
        message = crdt.CrdtDelta()
        member = message.ormap if self.kind == ORMAP else message.orset
        member.removed.append(_any(element))
        self._apply_one(message)

    def clear(self) -> None:
        message = crdt.CrdtDelta()
        member = message.ormap if self.kind == ORMAP else message.orset
        member.cleared = True
        self._apply_one(message)

    def contains(self, element: bytes) -> bool:
        return element_of(_any(element)) in self._value()

    def set(self, value: bytes, now: int, clock: int = 0, custom: int = 0) -> bool:
        message = crdt.CrdtDelta()
        message.lwwregister.clock, message.lwwregister.custom_clock_value = clock, custom
        message.lwwregister.value.CopyFrom(_any(value))
        before = self.context.next(self.replica)
        self._apply_one(message, now)
        return self.context.next(self.replica) != before

    def enable(self) -> None:
        self._apply_one(crdt.CrdtDelta(flag={"value": True}))

    def vote(self, vote: bool) -> None:
        self._apply_one(crdt.CrdtDelta(vote={"self_vote": vote}))

    def _apply_one(self, message: Message, now: int = 0) -> None:
        self.apply(message.SerializeToString(), now)

    # --- values

    def _value(self) -> Any:
        return self._value_of(self.kind, self.store)

    def _value_of(self, kind: int, store: Store) -> Any:
        if kind == GCOUNTER:
            return sum(total for _, total in store.values())
        if kind == PNCOUNTER:
            return sum(plus - minus for _, plus, minus in store.values())
        if kind in SETS:
            return frozenset(store)
        if kind == LWWREGISTER:
            return max(_ranked(store))[2] if store else None
        if kind == FLAG:
            return bool(store)
        if kind == VOTE:
            return self._votes(store)
        keys = {key: newest(store, key) for key, _ in store}
        return {key: (below, self._value_of(below, store[key, below][1])) for key, below in keys.items() if below}

    def _votes(self, store: Store) -> tuple[bool, int, int]:
        members, absent = self._members
        votes = {replica: vote and incarnation in members for replica, (_, incarnation, vote) in store.items()}
        return self._voted(store) and self.incarnation in members, sum(votes.values()), len(members) + absent

    def _voted(self, store: Store) -> bool:
        _, incarnation, vote = store.get(self.replica, (0, self.incarnation, False))
        return vote and incarnation == self.incarnation  # type: ignore[no-any-return]

    def _difference(self) -> Message | None:
        assert self._view is not None
        try:
            return plain.difference(self.kind, self._view.value, self._value())
        except plain.Incompatible:
            return None  # a whole state only shrinks while a prune is under way

    # --- changes: each gives the store after it, the same dict mostly

    def _changed(self, kind: int, store: Store, delta: Message, now: int) -> Store:
        member = getattr(delta, plain.NAMES[kind])
        if kind in (GCOUNTER, PNCOUNTER):
            return self._counted(kind, store, member)
        if kind in SETS:
            return self._set_changed(kind, store, member)
        if kind == LWWREGISTER:
            return self._written(store, member, now)
        if kind == FLAG:
            return self._renewed(store) if member.value else store
        if kind == VOTE:
            if member.self_vote == self._voted(store):
                return store
            return self._own_entry(store, self.incarnation, member.self_vote)
        return self._map_changed(store, member, now)

    def _counted(self, kind: int, store: Store, member: Message) -> Store:
        if kind == GCOUNTER:
            _, total = store.get(self.replica, (0, 0))
            return self._own_entry(store, total + member.increment) if member.increment else store
        _, plus, minus = store.get(self.replica, (0, 0, 0))
        if not member.change:
            return store
        return self._own_entry(store, plus + max(member.change, 0), minus + max(-member.change, 0))

    def _set_changed(self, kind: int, store: Store, member: Message) -> Store:
        if kind == ORSET:
            for element in list(store) if member.cleared else map(element_of, member.removed):
                _put(store, element, self._left(store.get(element, NO_DOTS)))
        for element in map(element_of, member.added):
            store[element] = self._renewed(store.get(element, NO_DOTS))
        return store

    def _written(self, store: Store, member: Message, now: int) -> Store:
        latest = max(_ranked(store))[0] if store else None
        timestamp = _timestamp(member.clock, member.custom_clock_value, now, latest)
        value = element_of(member.value)
        if store and (timestamp, -self.replica) == max(_ranked(store))[:2]:
            return store  # of one replica's two writes at one time the first one stays
        if store and (timestamp, -self.replica, value) < max(_ranked(store)):
            return store
        return self._own_entry(store, timestamp, value)

    def _map_changed(self, store: Store, member: Message, now: int) -> Store:
        removed = set(map(element_of, member.removed))
        for key, kind in list(store):
            if member.cleared or key in removed:
                self._remove_key(store, key, kind)
        for entry in member.updated:
            if newest(store, element_of(entry.key)) == kind_in(entry.delta):
                self._change_key(store, entry, now)
        for entry in member.added:
            for kind in range(GCOUNTER, VOTE + 1):
                if kind != kind_in(entry.delta) and (element_of(entry.key), kind) in store:
                    self._remove_key(store, element_of(entry.key), kind)
            self._change_key(store, entry, now)
        return store

    def _change_key(self, store: Store, entry: Message, now: int) -> None:
        name = element_of(entry.key), kind_in(entry.delta)
        dots, nested = store.get(name, (NO_DOTS, zero(name[1])))
        dots = self._renewed(dots)
        store[name] = dots, self._changed(name[1], nested, entry.delta, now)

    def _remove_key(self, store: Store, key: Element, kind: int) -> None:
        dots, nested = store.pop((key, kind))
        dots, nested = self._left(dots), self._emptied(kind, nested)
        if dots:
            store[key, kind] = dots, nested

    def _emptied(self, kind: int, store: Store) -> Store:
        """What is left of a store when all that the user function has seen of it is removed."""
        if kind in PER_REPLICA:
            return {replica: entry for replica, entry in store.items() if self._left(frozenset([(replica, entry[0])]))}
        if kind == FLAG:
            return self._left(store)
        emptied = dict(store)
        for name in store:
            if kind == ORMAP:
                self._remove_key(emptied, *name)
            else:
                _put(emptied, name, self._left(store[name]))
        return emptied

    # --- dots

    def _dot(self) -> Dot:
        dot = (self.replica, self.context.next(self.replica))
        self.context.add(dot)
        self._fresh.add(dot)
        if self._view:
            self._view.seen.add(dot)
        return dot

    def _seen(self, dot: Dot) -> bool:
        return self._view is None or dot in self._view.seen

    def _left(self, dots: Dots) -> Dots:
        """Dots that the user function has not seen. The others are covered from now on."""
        seen = {dot for dot in dots if self._seen(dot)}
        self._fresh.update(Context(seen))
        return dots - seen

    def _renewed(self, dots: Dots) -> Dots:
        return self._left(dots) | {self._dot()}

    def _own_entry(self, store: Store, *entry: Any) -> Store:
        if self.replica in store:
            self._fresh.add((self.replica, store[self.replica][0]))
        _, n = self._dot()
        store[self.replica] = (n, *entry)
        return store

    # --- a replica that has left

    def _inherited(self, kind: int, store: Store, gone: int) -> Store:
        if kind == ORMAP:
            return {name: self._inherited_key(name[1], store[name], gone) for name in sorted(store)}
        if kind in SETS:
            return {element: self._moved(store[element], gone) for element in sorted(store)}
        if kind == FLAG:
            return self._moved(store, gone)
        return self._inherited_entry(kind, store, gone) if gone in store else store

    def _inherited_key(self, kind: int, entry: tuple[Dots, Store], gone: int) -> tuple[Dots, Store]:
        dots = self._moved(entry[0], gone)
        return dots, self._inherited(kind, entry[1], gone)

    def _inherited_entry(self, kind: int, store: Store, gone: int) -> Store:
        n, *lost = store.pop(gone)
        _, *own = store.get(self.replica, (0,))
        if kind in (GCOUNTER, PNCOUNTER):
            own = [more + had for more, had in zip(lost, own or [0, 0], strict=False)]
        elif kind == VOTE or lost <= own:
            return store
        else:
            own = lost
        store[self.replica] = (self._heir_dot(gone, n)[1], *own)
        return store

    def _moved(self, dots: Dots, gone: int) -> Dots:
        """One dot of the heir for what both have."""
        lost = {dot for dot in dots if dot[0] == gone}
        if not lost:
            return dots
        return frozenset(dot for dot in dots if dot[0] not in (gone, self.replica)) | {self._heir_dot(*max(lost))}

    def _heir_dot(self, gone: int, n: int) -> Dot:
        """A dot that the user function has seen if it has seen the one in whose place this stands."""
        seen = (gone, n)
        dot = (self.replica, self.context.next(self.replica))
        self.context.add(dot)
        if self._view and seen in self._view.seen:
            self._view.seen.add(dot)
        return dot

    # --- helpers

    def _part(self) -> Part:
        return Part(self.kind, self.context, self.store, self.pruned)

    def _check(self, after: Part) -> None:
        bounds = self.bounds
        if len(after.context.replicas() | after.pruned) > bounds.max_replicas:
            raise Malformed("more replicas than max_replicas")
        if sum(map(len, after.context.cloud.values())) > bounds.max_cloud:
            raise Malformed("more dots beyond the prefixes than max_cloud")
        if depth(after.kind, after.store) > bounds.max_depth:
            raise Malformed("maps in maps beyond max_depth")

    def _check_flags(self, kind: int, store: Store, delta: Message) -> None:
        """Rejected: a flag that the user function has seen on is switched off."""
        if kind == FLAG and not delta.flag.value and any(map(self._seen, store)):
            raise Rejected("a Flag that is on cannot be switched off")
        if kind == ORMAP:
            removed = set(map(element_of, delta.ormap.removed))
            for entry in (*delta.ormap.updated, *delta.ormap.added):
                key, below = element_of(entry.key), kind_in(entry.delta)
                stays = not delta.ormap.cleared and key not in removed and newest(store, key) == below
                self._check_flags(below, store[key, below][1] if stays else zero(below), entry.delta)

    def _check_size(self, more: int) -> None:
        self._roughly += more
        if self._roughly > self.bounds.max_state_size:
            self._roughly = self.size
            if self._roughly + more > self.bounds.max_state_size:
                raise Malformed("the state would be larger than max_state_size")


def _put(store: Store, element: Element, dots: Dots) -> None:
    if dots:
        store[element] = dots
    else:
        store.pop(element, None)


def _ranked(store: Store) -> list[tuple[int, int, Element]]:
    """A register's entries, the winner is the largest."""
    return [(timestamp, -replica, value) for replica, (_, timestamp, value) in store.items()]


def _timestamp(clock: int, custom: int, now: int, latest: int | None) -> int:
    if clock == CUSTOM:
        return custom
    if clock == REVERSE:
        return -now if latest is None else min(-now, max(latest - 1, CLOCK_MIN))
    wanted = custom if clock == CUSTOM_AUTO_INCREMENT else now
    return wanted if latest is None else max(wanted, min(latest + 1, CLOCK_MAX))


def _any(serialized: bytes) -> Message:
    try:
        return AnyMessage.FromString(serialized)
    except DecodeError as error:
        raise Malformed(f"no Any: {error}") from None


def _as_bytes(kind: int, value: Any) -> Any:
    if kind in SETS:
        return {any_bytes(element) for element in value}
    if kind == ORMAP:
        return {any_bytes(key): _as_bytes(below, nested) for key, (below, nested) in value.items()}
    if kind == LWWREGISTER and value is not None:
        return any_bytes(value)
    return value
