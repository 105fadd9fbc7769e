"""Replicas that leave for good: nothing is lost with them, and nothing of them comes back (spec crdt 5.5, P14)."""

from types import ModuleType
from typing import Any

from hypothesis import strategies as st

from tests.unit.crdt_strategies import NAMES, Step, delta_dicts, numbers, steps
from tests.unit.crdt_world import REPLICAS, World, always
from tests.unit.test_crdt_properties_joins import dots_in, joined

GONE, HEIR, OTHER = range(3)
LATER = [name for name in NAMES.values() if name != "vote"]  # a vote that goes changes the value


def partings(kind: int) -> st.SearchStrategy[Any]:
    """A history, then what happens after the heir knows all of the one who leaves."""
    change = st.tuples(st.just("apply"), numbers, delta_dicts(kind), st.integers(0, 6))
    after = st.lists(st.one_of(change, st.tuples(st.just("full"), numbers, numbers)), max_size=5)
    return st.tuples(steps(kind, view=False), after)


def parted(crdt: ModuleType, kind: int, history: list[Step]) -> World:
    """One replica is about to leave, and the heir knows all of it."""
    world = World([crdt], kind, causal=True).run(history)
    world.full(GONE, HEIR)
    return world


@always(partings, kinds=LATER)
def test_pruning_keeps_the_value(crdt: ModuleType, kind: int, case: Any) -> None:
    heir = parted(crdt, kind, case[0]).states()[HEIR]
    before = heir.value()
    heir.prune(REPLICAS[GONE], heir.replica)
    if kind != 5 and kind != 7:  # of registers that tie the name decides, which is another one now
        assert heir.value() == before
    assert heir.pruned == {REPLICAS[GONE]}
    assert crdt.State.decode(heir.encode(), 999).dump() == heir.dump()


@always(partings)
def test_nothing_of_a_pruned_replica_is_left_anywhere(crdt: ModuleType, kind: int, case: Any) -> None:
    history, after = case
    world = parted(crdt, kind, history)
    heir = world.states()[HEIR]
    late = [delta for (delta,), _ in world.log] + [world.states()[GONE].encode()]
    heir.prune(REPLICAS[GONE], heir.replica)
    told = heir.take_delta()
    assert joined(crdt, told).dump() == heir.dump(), "the delta after a prune carries the whole state"
    other = world.states()[OTHER]
    other.merge(told)
    world.replicas = world.replicas[HEIR:]
    world.run(after)
    world.heal()
    for state in (heir, other):
        _, context, store, _ = state.dump()
        assert REPLICAS[GONE] not in {*context, *(replica for replica, _ in dots_in(kind, store))}
        values = state.value()
        for delta in late:
            state.merge(delta)
        assert state.value() == values, "late deltas of the pruned replica"
    world.heal()
    assert heir.encode(canonical=True) == other.encode(canonical=True)


@always(partings, kinds=("gcounter", "pncounter", "gset", "orset", "flag"))
def test_pruning_before_or_after_a_merge_is_the_same(crdt: ModuleType, kind: int, case: Any) -> None:
    world = parted(crdt, kind, case[0])
    heir, other = world.states()[HEIR], world.states()[OTHER].encode()
    twin = crdt.State.decode(heir.encode(), heir.replica)
    heir.prune(REPLICAS[GONE], heir.replica)
    heir.merge(other)
    twin.merge(other)
    twin.prune(REPLICAS[GONE], heir.replica)
    assert kind == 4 or heir.value() == twin.value()
    if kind == 4:  # an element that the other removed and the heir made anew stays: a concurrent addition
        assert heir.value() >= twin.value()


@always(partings)
def test_a_mark_can_be_forgotten(crdt: ModuleType, kind: int, case: Any) -> None:
    heir = parted(crdt, kind, case[0]).states()[HEIR]
    heir.prune(REPLICAS[GONE], heir.replica)
    value = heir.value()
    heir.forget_pruned(REPLICAS[GONE])
    assert heir.pruned == frozenset()
    assert heir.value() == value
