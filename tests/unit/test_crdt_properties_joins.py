"""Joins of states and deltas: what makes them replicated data types at all (spec crdt 5.5, P1 to P8, P10, P19, P20).

P1, P2 and P5 to P8 are asked of states whose changes arrived in causal order, as Almeida et al. 2018 ask for it: with
gaps a key may go with what is below it before a change arrives that would have kept it. Replicas then agree only after
an exchange of full states, which is asked as well.
"""

from types import ModuleType
from typing import Any

from hypothesis import strategies as st

from tests.unit.crdt_strategies import Step, delta_dicts, numbers, steps
from tests.unit.crdt_world import World, always, shape

Case = tuple[Any, ...]


def histories(kind: int) -> st.SearchStrategy[list[Step]]:
    return steps(kind)  # type: ignore[no-any-return]


def joined(crdt: ModuleType, first: bytes, *others: bytes) -> Any:
    """A third party's state of these."""
    state = crdt.State.decode(first, 999)
    for other in others:
        state.merge(other)
    return state


@always(histories)
def test_joins_commute_and_associate(crdt: ModuleType, kind: int, case: list[Step]) -> None:
    a, b, c = (state.encode() for state in World([crdt], kind, causal=True).run(case).states())
    ab, bc = joined(crdt, a, b), joined(crdt, b, c)
    assert ab.dump() == joined(crdt, b, a).dump()
    left, right = joined(crdt, ab.encode(), c), joined(crdt, a, bc.encode())
    assert left.dump() == right.dump()
    assert left.encode(canonical=True) == right.encode(canonical=True)


@always(histories)
def test_a_join_commutes_in_any_order_of_delivery(crdt: ModuleType, kind: int, case: list[Step]) -> None:
    a, b, _ = (state.encode() for state in World([crdt], kind).run(case).states())
    assert joined(crdt, a, b).dump() == joined(crdt, b, a).dump()


@always(histories)
def test_nothing_changes_by_what_is_known(crdt: ModuleType, kind: int, case: list[Step]) -> None:
    world = World([crdt], kind).run(case)
    for state in world.states():
        before = state.dump()
        assert not state.merge(state.encode())
        assert state.dump() == before
    first, second, _ = world.states()
    first.merge(second.encode())
    assert not first.merge(second.encode())
    world = World([crdt], kind, causal=True).run(case)
    for replica, state in enumerate(world.states()):
        for number in world.known[replica]:
            assert not state.merge(world.log[number][0][0])


@always(lambda kind: st.tuples(steps(kind), numbers, delta_dicts(kind), st.integers(0, 6)))
def test_a_delta_adds_what_the_change_did(crdt: ModuleType, kind: int, case: Case) -> None:
    history, replica, delta, now = case
    world = World([crdt], kind).run(history)
    state = world.states()[replica % 3]
    state.take_delta()
    before = state.encode()
    world.apply(replica, delta, now)
    made = state.take_delta()
    after = joined(crdt, before, made) if made else joined(crdt, before)
    assert after.dump() == state.dump()
    assert after.digest() == state.digest()
    assert not joined(crdt, state.encode()).merge(before), "a change has to be above what was before it"


@always(histories)
def test_a_run_of_deltas_is_the_state(crdt: ModuleType, kind: int, case: list[Step]) -> None:
    world = World([crdt], kind, causal=True).run(case)
    for replica, state in enumerate(world.states()):
        world.take(replica)
        run = [world.log[number][0][0] for number in sorted(world.known[replica])]
        if run:
            assert joined(crdt, *run).dump() == state.dump()
            assert joined(crdt, crdt.join_deltas(run)).dump() == state.dump()
            halves = [crdt.join_deltas(half) for half in (run[::2], run[1::2]) if half]
            assert joined(crdt, crdt.join_deltas(halves[::-1])).dump() == state.dump()


@always(histories)
def test_a_delta_of_nothing_known_joins_zero(crdt: ModuleType, kind: int, case: list[Step]) -> None:
    for (delta,), _ in World([crdt], kind).run(case).log:
        state = crdt.State(kind, 999)
        state.merge(delta)
        assert state.dump() == joined(crdt, delta).dump()
        assert crdt.kind_of(delta) == kind


@always(lambda kind: st.tuples(steps(kind), st.randoms(use_true_random=False)))
def test_replicas_agree_when_all_deltas_arrived(crdt: ModuleType, kind: int, case: Case) -> None:
    history, random = case
    world = World([crdt], kind, causal=True).run(history)
    for replica in range(3):
        world.take(replica)
    for replica in range(3):
        while missing := [number for number in range(len(world.log)) if number not in world.known[replica]]:
            world.deliver(random.choice(missing), replica)
    assert len({state.encode(canonical=True) for state in world.states()}) == 1


@always(histories)
def test_full_states_heal_whatever_was_lost(crdt: ModuleType, kind: int, case: list[Step]) -> None:
    world = World([crdt], kind, replicas=5).run(case)
    world.heal()
    assert len({state.encode(canonical=True) for state in world.states()}) == 1


@always(histories)
def test_every_entry_has_dots_that_are_known(crdt: ModuleType, kind: int, case: list[Step]) -> None:
    world = World([crdt], kind).run(case)
    for state in world.states():
        found, context, store, _ = state.dump()
        assert found == kind
        assert all(
            cloud == tuple(sorted(set(cloud))) and min(cloud) > prefix + 1
            for prefix, cloud in context.values()
            if cloud
        )
        dots = list(dots_in(kind, store))
        assert len(dots) == len(set(dots)), "a dot is at one place"
        for replica, n in dots:
            prefix, cloud = context[replica]
            assert 0 < n <= prefix or n in cloud


def dots_in(kind: int, store: Any) -> Any:
    if kind == 7:
        for (_, below), (dots, nested) in store.items():
            assert dots
            yield from dots
            yield from dots_in(below, nested)
    elif kind == 6:
        yield from store
    elif kind in (3, 4):
        for dots in store.values():
            assert dots
            yield from dots
    else:
        yield from ((replica, entry[0]) for replica, entry in store.items())


@always(histories)
def test_encoding_keeps_everything(crdt: ModuleType, kind: int, case: list[Step]) -> None:
    states = World([crdt], kind).run(case).states()
    for state in states:
        for canonical in (False, True):
            read = crdt.State.decode(state.encode(canonical), 999)
            assert read.dump() == state.dump()
            assert read.encode(canonical=True) == state.encode(canonical=True)
            assert read.digest() == state.digest()
        assert len(state.digest()) == 16
    for one in states:
        for other in states:
            equal = one.encode(canonical=True) == other.encode(canonical=True)
            assert equal == (one.digest() == other.digest()) == (one.dump() == other.dump())


@always(histories)
def test_the_whole_value_makes_the_value_from_zero(crdt: ModuleType, kind: int, case: list[Step]) -> None:
    for state in World([crdt], kind).run(case).states():
        state.close_view()
        whole = state.open_view()
        assert shape(whole) is not None
        assert crdt.kind_of_delta(whole) == kind
        while state.take_change():  # steps beyond 64 bits
            pass
        assert state.take_change() == b""
