"""Plain values as user functions hold them, and the `CrdtDelta` messages that change them (spec crdt 1.1 to 1.9).

Second part of the CRDT model: knows nothing of dots. Values by kind: int, int, frozenset of elements, the same,
element or None, bool, dict of keys to (kind, value), (self_vote, votes_for, total_voters). An element or a key is
(type_url, value).
"""

from typing import Any

from stateside.proto import Any as AnyMessage
from stateside.proto import crdt
from tests.models.crdt_store import FLAG, GCOUNTER, GSET, LWWREGISTER, ORMAP, ORSET, PNCOUNTER, VOTE

NAMES = ("", "gcounter", "pncounter", "gset", "orset", "lwwregister", "flag", "ormap", "vote")
KINDS = {name: kind for kind, name in enumerate(NAMES) if name}

Element = tuple[str, bytes]
Value = Any
Message = Any


class CrdtError(ValueError):
    """Base. The text names what was wrong."""


class Rejected(CrdtError):
    """A user function's delta that may not be applied."""


class Malformed(CrdtError):
    """Bytes that are no CrdtDelta, no replica's delta and no state, or are beyond a bound."""


class Incompatible(Exception):
    """No delta leads from the one value to the other: the key has to be removed and added again."""


def element_of(message: Message) -> Element:
    return message.type_url, message.value


def any_bytes(element: Element) -> bytes:
    serialized: bytes = AnyMessage(type_url=element[0], value=element[1]).SerializeToString(deterministic=True)
    return serialized


def any_message(element: Element) -> Message:
    return AnyMessage(type_url=element[0], value=element[1])


def kind_in(delta: Message) -> int:
    """Type of a CrdtDelta, 0 when no member is set."""
    name = delta.WhichOneof("delta")
    return KINDS[name] if name else 0


def zero_value(kind: int) -> Value:
    return {
        GCOUNTER: 0,
        PNCOUNTER: 0,
        GSET: frozenset(),
        ORSET: frozenset(),
        LWWREGISTER: None,
        FLAG: False,
        ORMAP: {},
        VOTE: (False, 0, 1),
    }[kind]


# --- applying a delta to a value -------------------------------------------------------------------------------------


def applied(kind: int, value: Value, delta: Message, own: bool) -> Value:
    """The value after a delta: of the user function itself (own), or sent to it."""
    member = getattr(delta, NAMES[kind])
    if kind == GCOUNTER:
        return value + member.increment
    if kind == PNCOUNTER:
        return value + member.change
    if kind == GSET:
        return value | {element_of(element) for element in member.added}
    if kind == ORSET:
        kept = frozenset() if member.cleared else value
        kept -= {element_of(element) for element in member.removed}
        return kept | {element_of(element) for element in member.added}
    if kind == LWWREGISTER:
        return element_of(member.value) if own or member.HasField("value") else None
    if kind == FLAG:
        return value or member.value
    if kind == VOTE:
        return _voted(value, member, own)
    return _applied_to_map(value, member, own)


def _voted(value: Value, member: Message, own: bool) -> Value:
    if not own:
        return member.self_vote, member.votes_for, member.total_voters
    self_vote, votes_for, total = value
    return member.self_vote, votes_for + member.self_vote - self_vote, total


def _applied_to_map(value: Value, member: Message, own: bool) -> Value:
    entries = {} if member.cleared else dict(value)
    for key in member.removed:
        entries.pop(element_of(key), None)
    for entry in member.updated:
        key, kind = element_of(entry.key), kind_in(entry.delta)
        if key in entries and entries[key][0] == kind:
            entries[key] = (kind, applied(kind, entries[key][1], entry.delta, own))
    for entry in member.added:
        key, kind = element_of(entry.key), kind_in(entry.delta)
        present = key in entries and entries[key][0] == kind
        before = entries[key][1] if present else zero_value(kind)
        entries[key] = (kind, applied(kind, before, entry.delta, own))
    return entries


# --- the delta from a value to another -------------------------------------------------------------------------------


def whole(kind: int, value: Value) -> Message:
    """The delta that makes a value from zero; for the zero one that changes nothing."""
    delta = difference(kind, zero_value(kind), value)
    if delta is None:
        delta = crdt.CrdtDelta()
        getattr(delta, NAMES[kind]).SetInParent()
        if kind == VOTE:
            delta.vote.total_voters = 1
    return delta


def difference(kind: int, old: Value, new: Value) -> Message | None:
    """The delta that changes one value into another, None when there is none. Incompatible."""
    if old == new:
        return None
    delta = crdt.CrdtDelta()
    member = getattr(delta, NAMES[kind])
    member.SetInParent()
    if kind == GCOUNTER:
        _only(new > old)
        member.increment = min(new - old, 2**64 - 1)
    elif kind == PNCOUNTER:
        member.change = min(max(new - old, -(2**63)), 2**63 - 1)
    elif kind == GSET:
        _only(new >= old)
        member.added.extend(any_message(element) for element in sorted(new - old))
    elif kind == ORSET:
        _set_difference(member, old, new)
    elif kind == LWWREGISTER:
        if new is not None:
            member.value.CopyFrom(any_message(new))
    elif kind == FLAG:
        _only(new)
        member.value = True
    elif kind == VOTE:
        member.self_vote, member.votes_for, member.total_voters = new
    else:
        _map_difference(member, old, new)
    return delta


def _only(compatible: bool) -> None:
    if not compatible:
        raise Incompatible


def _set_difference(member: Message, old: frozenset[Element], new: frozenset[Element]) -> None:
    removed, added = old - new, new - old
    if not new or len(removed) + len(added) > len(new):
        member.cleared, removed, added = True, frozenset(), new
    member.removed.extend(any_message(element) for element in sorted(removed))
    member.added.extend(any_message(element) for element in sorted(added))


def _map_difference(member: Message, old: Value, new: Value) -> None:
    if old and not new:
        member.cleared = True
        return
    for key in sorted(old.keys() - new.keys()):
        member.removed.append(any_message(key))
    for key in sorted(new):
        kind, value = new[key]
        try:
            if key in old:
                _only(old[key][0] == kind)
                change = difference(kind, old[key][1], value)
                if change is not None:
                    member.updated.add(key=any_message(key), delta=change)
                continue
        except Incompatible:
            member.removed.append(any_message(key))
        member.added.add(key=any_message(key), delta=whole(kind, value))


# --- what may not come from a user function --------------------------------------------------------------------------


def check(kind: int, delta: Message, levels: int) -> None:
    """Refuse what no value would make right. Rejected; Malformed when it goes deeper than so many maps."""
    found = kind_in(delta)
    if not found:
        raise Rejected("empty delta")
    if found != kind:
        raise Rejected(f"delta of a {NAMES[found]} for a {NAMES[kind]}")
    if kind == GCOUNTER and delta.gcounter.increment >= 2**63:
        raise Rejected("a GCounter cannot be decremented")
    if kind == ORMAP:
        if not levels:
            raise Malformed("maps in maps beyond the bound")
        for entry in (*delta.ormap.updated, *delta.ormap.added):
            if not entry.HasField("key") or not entry.HasField("delta"):
                raise Rejected("map entry without key or delta")
            check(kind_in(entry.delta), entry.delta, levels - 1)
