"""A user function's side of a CRDT: a plain value, changed by its own commands and by what the proxy sends.

Strict where the libraries for user functions are lenient: what the proxy sends must make sense to all of them (spec
crdt 1.4 to 1.9). Removing what is not there, adding what is, an update of an absent key, and a delta that changes
nothing are errors. Independent of tests/models/crdt_plain.py, which has the proxy's idea of the same value.
"""

from typing import Any

from stateside.proto import crdt

Message = Any
Value = Any


class Surprise(AssertionError):
    """The proxy sent what a user function cannot make sense of."""


def expect(holds: bool, what: str) -> None:
    if not holds:
        raise Surprise(what)


def name_of(message: Message) -> tuple[str, bytes]:
    return message.type_url, message.value


class UserFunction:
    """One entity instance."""

    def __init__(self, kind: str) -> None:
        self.value = fresh(kind)
        self.kind = kind

    def receive(self, delta: bytes) -> None:
        """A delta from the proxy; b"" is none."""
        if delta:
            before = repr(self.value)
            self.value = received(self.kind, self.value, crdt.CrdtDelta.FromString(delta))
            expect(repr(self.value) != before, "a delta without an effect")

    def start(self, delta: bytes) -> None:
        """The whole value, as in CrdtInit."""
        self.value = received(self.kind, fresh(self.kind), crdt.CrdtDelta.FromString(delta))

    def command(self, wish: dict[str, Any]) -> bytes:
        """Delta of an own change that comes as near to a wish as a well-behaved library allows."""
        delta, self.value = changed(self.kind, self.value, crdt.CrdtDelta(**wish))
        return delta.SerializeToString()  # type: ignore[no-any-return]


def fresh(kind: str) -> Value:
    values = {"gset": frozenset(), "orset": frozenset(), "flag": False, "ormap": {}, "vote": (False, 0, 1)}
    return values.get(kind, None if kind == "lwwregister" else 0)


def received(kind: str, value: Value, delta: Message) -> Value:
    expect(delta.WhichOneof("delta") == kind, f"{delta.WhichOneof('delta')} for a {kind}")
    member = getattr(delta, kind)
    match kind:
        case "gcounter":
            return value + member.increment
        case "pncounter":
            return value + member.change
        case "gset":
            return joined_by(value, member.added)
        case "orset":
            return joined_by(left_of(value, member), member.added)
        case "lwwregister":
            expect(member.clock == 0 and member.custom_clock_value == 0, "a clock for the user function")
            return name_of(member.value) if member.HasField("value") else None
        case "flag":
            expect(member.value or not value, "a flag goes off")
            return member.value
        case "vote":
            return member.self_vote, member.votes_for, member.total_voters
    return received_by_map(value, member)


def left_of(value: Value, member: Message) -> Value:
    """Elements or keys after `cleared` and `removed`."""
    removed = [name_of(message) for message in member.removed]
    expect(len(set(removed)) == len(removed), "something is removed twice")
    expect(not member.cleared or not removed, "cleared with removed")
    expect(set(removed) <= set(value), "what is not there is removed")
    kept = [] if member.cleared else [name for name in value if name not in removed]
    return {name: value[name] for name in kept} if isinstance(value, dict) else frozenset(kept)


def joined_by(value: Value, added: Any) -> Value:
    names = [name_of(message) for message in added]
    expect(len(set(names)) == len(names), "something is added twice")
    expect(not set(names) & set(value), "what is there is added")
    return value | set(names)


def received_by_map(value: Value, member: Message) -> Value:
    expect(not member.cleared or len(member.ListFields()) == 1, "cleared with other changes of a map")
    entries = dict(left_of(value, member))
    for entry in member.updated:
        name = name_of(entry.key)
        expect(name in entries, "update of a key that is not there")
        kind, before = entries[name]
        after = received(kind, before, entry.delta)
        expect(after != before, "update without an effect")
        entries[name] = (kind, after)
    joined_by(frozenset(entries), [entry.key for entry in member.added])
    for entry in member.added:
        kind = entry.delta.WhichOneof("delta")
        entries[name_of(entry.key)] = (kind, received(kind, fresh(kind), entry.delta))
    return dict(sorted(entries.items()))


# --- own changes -----------------------------------------------------------------------------------------------------


def changed(kind: str, value: Value, wish: Message) -> tuple[Message, Value]:
    """(delta, value after it) of what is possible of a wish."""
    delta = crdt.CrdtDelta()
    delta.CopyFrom(wish)
    member = getattr(delta, kind)
    match kind:
        case "gcounter":
            return delta, value + member.increment
        case "pncounter":
            return delta, value + member.change
        case "gset":
            return delta, value | set(map(name_of, member.added))
        case "orset":
            kept = frozenset() if member.cleared else value - set(map(name_of, member.removed))
            return delta, kept | set(map(name_of, member.added))
        case "lwwregister":
            return delta, name_of(member.value)
        case "flag":
            member.value = member.value or value
            return delta, member.value
        case "vote":
            return delta, (member.self_vote, value[1] + member.self_vote - value[0], value[2])
    return changed_map(value, wish.ormap)


def changed_map(value: Value, wish: Message) -> tuple[Message, Value]:
    """Updates what is there, adds what is not, replaces what is there with another type; each key once."""
    delta = crdt.CrdtDelta()
    delta.ormap.cleared = wish.cleared
    entries = {} if wish.cleared else dict(value)
    for key in wish.removed:
        if entries.pop(name_of(key), None) is not None:
            delta.ormap.removed.append(key)
    done = set()
    for entry in (*wish.updated, *wish.added):
        name, kind = name_of(entry.key), entry.delta.WhichOneof("delta")
        if name in done:
            continue
        done.add(name)
        there = name in entries and entries[name][0] == kind
        if name in entries and not there:
            delta.ormap.removed.append(entry.key)
        inner, after = changed(kind, entries[name][1] if there else fresh(kind), entry.delta)
        (delta.ormap.updated if there else delta.ormap.added).add(key=entry.key, delta=inner)
        entries[name] = (kind, after)
    return delta, dict(sorted(entries.items()))
