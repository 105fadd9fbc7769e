"""Hypothesis strategies for CRDTs: deltas of user functions, and what happens to a few replicas over time.

Deltas are drawn without regard to what a user function holds: they remove what is not there, update keys of another
type, and name a key twice. Steps name replicas and logged deltas by any number; `tests.unit.crdt_world` takes it modulo
what there is, so that every drawn list of steps means something and shrinks well.
"""

from typing import Any

from hypothesis import strategies as st

from stateside.proto import crdt
from tests.models.crdt_store import FLAG, GCOUNTER, GSET, LWWREGISTER, ORMAP, ORSET, PNCOUNTER, VOTE

KINDS = {
    "gcounter": GCOUNTER,
    "pncounter": PNCOUNTER,
    "gset": GSET,
    "orset": ORSET,
    "lwwregister": LWWREGISTER,
    "flag": FLAG,
    "ormap": ORMAP,
    "vote": VOTE,
}
MAP_DEPTH = 3  # maps in a map's maps
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1

Step = tuple[Any, ...]

anys = st.sampled_from(
    [
        {"type_url": "t", "value": b"a"},
        {"type_url": "t", "value": b"b"},
        {"type_url": "t", "value": b"c"},
        {"type_url": "u", "value": b"a"},
        {"type_url": "p.cloudstate.io/string", "value": b"\n\x40" + b"long" * 16},
        {},
    ]
)
keys = st.sampled_from([{"type_url": "k", "value": b"1"}, {"type_url": "k", "value": b"2"}, {"type_url": "k"}])
increments = st.sampled_from([0, 1, 2, 5, 2**31 - 1, 2**31, 2**62, 2**63 - 1])
changes = st.sampled_from([0, 1, -1, 7, -7, 2**31, -(2**31), INT64_MAX, INT64_MIN])
clocks = st.sampled_from([0, 0, 0, 1, 2, 3])
custom_clocks = st.sampled_from([0, 0, 1, 2, 3, -5, INT64_MAX, INT64_MIN])
numbers = st.integers(0, 15)
rarely = st.sampled_from([False, False, False, False, True])

MEMBERS = {
    GCOUNTER: st.fixed_dictionaries({"increment": increments}),
    PNCOUNTER: st.fixed_dictionaries({"change": changes}),
    GSET: st.fixed_dictionaries({"added": st.lists(anys, max_size=3)}),
    ORSET: st.fixed_dictionaries(
        {"cleared": rarely, "removed": st.lists(anys, max_size=2), "added": st.lists(anys, max_size=3)}
    ),
    LWWREGISTER: st.fixed_dictionaries({"value": anys, "clock": clocks, "custom_clock_value": custom_clocks}),
    FLAG: st.fixed_dictionaries({"value": st.sampled_from([True, True, False])}),
    VOTE: st.fixed_dictionaries({"self_vote": st.booleans()}),
}
NAMES = {kind: name for name, kind in KINDS.items()}


def delta_dicts(kind: int, depth: int = MAP_DEPTH) -> st.SearchStrategy[dict[str, Any]]:
    """A CrdtDelta's fields."""
    member = MEMBERS[kind] if kind != ORMAP else map_members(depth)
    return member.map(lambda fields: {NAMES[kind]: fields})


def map_members(depth: int) -> st.SearchStrategy[dict[str, Any]]:
    kinds = st.sampled_from([kind for kind in NAMES if kind != ORMAP] + [ORMAP, ORMAP] * (depth > 1))
    nested = kinds.flatmap(lambda kind: delta_dicts(kind, depth - 1))
    entries = st.lists(st.fixed_dictionaries({"key": keys, "delta": nested}), max_size=2)
    removed = st.one_of(st.just([]), st.lists(keys, max_size=1))
    return st.fixed_dictionaries({"cleared": rarely, "removed": removed, "updated": entries, "added": entries})


def deltas(kind: int) -> st.SearchStrategy[bytes]:
    """Serialized CrdtDelta of a user function."""
    return delta_dicts(kind).map(lambda fields: crdt.CrdtDelta(**fields).SerializeToString())


def steps(
    kind: int, *, max_size: int = 25, view: bool = True, changes: tuple[st.SearchStrategy[Step], ...] = ()
) -> Any:
    """What happens to replicas: changes (`changes` in place of any delta), and ways in which these do or do not reach
    the others."""
    changes = changes or (st.tuples(st.just("apply"), numbers, delta_dicts(kind), st.integers(0, 6)),)
    everything = [
        *changes * 3,
        st.tuples(st.just("take"), numbers),
        st.tuples(st.just("deliver"), numbers, numbers),
        st.tuples(st.just("deliver"), numbers, numbers),
        st.tuples(st.just("group"), st.lists(numbers, min_size=1, max_size=4), numbers),
        st.tuples(st.just("full"), numbers, numbers),
        st.tuples(st.just("recode"), numbers),
    ]
    if view:
        everything += [st.tuples(st.sampled_from(["open", "change", "change", "change", "close"]), numbers)]
        everything += [st.tuples(st.just("members"), numbers, st.sets(numbers, max_size=3), st.integers(0, 2))]
    step = st.one_of(everything)
    return st.one_of(st.lists(step, min_size=1, max_size=8), st.lists(step, min_size=15, max_size=max_size))
