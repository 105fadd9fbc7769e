"""The kernels' encoding (docs/crdt-format.md): round trips, sizes, and bytes from someone who means no good."""

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stateside._speedups import crdt
from tests.unit.crdt_strategies import KINDS, deltas

TYPE_URL = b"p.cloudstate.io/string"
HEADER = bytes([crdt.FORMAT, crdt.ORSET])


def element(i: int) -> bytes:
    value = b"\n\x14%020d" % i
    return b"\n" + bytes([len(TYPE_URL)]) + TYPE_URL + b"\x12" + bytes([len(value)]) + value


def grown(kind: int, changes: list[tuple[int, bytes, int]]) -> tuple[list[Any], list[bytes]]:
    """Three replicas after some changes, and all that they had to say."""
    states = [crdt.State(kind, replica, 100 + replica) for replica in (1, 2, 3)]
    messages = []
    for which, delta, now in changes:
        state = states[which]
        try:
            state.apply(delta, now)
        except crdt.Rejected:
            continue
        messages += [state.encode(), state.take_delta()]
        states[which - 1].merge(messages[-1] or messages[-2])
    return states, [message for message in messages if message]


def sane(state: Any) -> None:
    """The state is one: it can be looked at, told and copied."""
    state.value()
    state.take_change()
    copy = crdt.State.decode(state.encode(), state.replica)
    assert copy.dump() == state.dump()
    assert copy.digest() == state.digest()
    assert copy.encode(canonical=True) == state.encode(canonical=True)


@st.composite
def histories(draw: st.DrawFn) -> tuple[int, list[tuple[int, bytes, int]]]:
    kind = draw(st.sampled_from(sorted(KINDS.values())))
    made = st.tuples(st.integers(0, 2), deltas(kind).map(serialized), st.integers(0, 1000))
    return kind, draw(st.lists(made, max_size=12))


def serialized(delta: Any) -> bytes:
    return delta if isinstance(delta, bytes) else delta.SerializeToString()


def damaged(data: bytes, seed: int) -> bytes:
    chance = random.Random(seed)
    broken = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 5))):
        at = chance.randrange(len(broken) + 1)
        what = chance.randrange(5)
        if what == 0:
            broken[at : at + 1] = bytes([chance.choice((0, 1, 2, 3, 4, 8, 127, 128, 255, chance.randrange(256)))])
        elif what == 1:
            del broken[at : at + chance.randrange(4)]
        elif what == 2:
            broken[at:at] = chance.randbytes(chance.randrange(4))
        elif what == 3:
            broken[at:at] = broken[: chance.randrange(len(broken) + 1)]
        else:
            del broken[at:]
    return bytes(broken)


@given(histories(), st.integers())
@settings(max_examples=150, deadline=None)
def test_damaged_encodings_are_refused_or_states(history: tuple[int, Any], seed: int) -> None:
    states, messages = grown(*history)
    states[0].open_view()
    for i, message in enumerate(messages):
        state, before = states[i % 3], states[i % 3].encode(canonical=True)
        try:
            state.merge(damaged(message, seed + i))
        except crdt.Malformed:
            assert state.encode(canonical=True) == before
        sane(state)


@given(histories(), st.integers())
@settings(max_examples=100, deadline=None)
def test_damaged_deltas_of_the_user_function_are_refused_or_applied(history: tuple[int, Any], seed: int) -> None:
    states, _ = grown(*history)
    states[0].open_view()
    for i, (which, delta, now) in enumerate(history[1]):
        before = states[which].encode(canonical=True)
        try:
            states[which].apply(damaged(delta, seed + i), now)
        except crdt.CrdtError:
            assert states[which].encode(canonical=True) == before
        sane(states[which])


@given(histories())
@settings(max_examples=100, deadline=None)
def test_round_trips(history: tuple[int, Any]) -> None:
    states, messages = grown(*history)
    for state in states:
        sane(state)
    for message in messages:
        assert crdt.kind_of(message) == history[0]
        assert crdt.State.decode(message, 9).dump()[0] == history[0]


@given(histories())
@settings(max_examples=60, deadline=None)
def test_deltas_joined_do_what_they_do_alone(history: tuple[int, Any]) -> None:
    _, messages = grown(*history)
    if not messages:
        return
    for order in (messages, messages[::-1]):
        alone, joined = crdt.State(history[0], 8), crdt.State(history[0], 8)
        for message in order:
            alone.merge(message)
        joined.merge(crdt.join_deltas(order))
        assert joined.dump() == alone.dump()


ONE_REPLICA = b"\x01" + bytes([7, 0, 0, 0, 0, 0, 0, 0]) + b"\x00"
ONE_DOT = ONE_REPLICA + b"\x01\x00"  # replica 7, its first dot
ONE_URL = b"\x01\x01t"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "truncated at byte 0"),
        (b"\x09\x04", "unknown version of the encoding at byte 0"),
        (bytes([crdt.FORMAT, 0]), "unknown type at byte 1"),
        (bytes([crdt.FORMAT, crdt.GSET]), "a GSet where a ORSet stands"),
        (HEADER, "truncated or oversized number"),
        (HEADER + b"\xff\xff\xff\xff\x0f", "count beyond the end"),
        (HEADER + b"\x02" + bytes([2] + [0] * 7 + [1] + [0] * 7) + b"\x00", "replicas out of order"),
        (HEADER + ONE_REPLICA + b"\x00\x00", "replica without changes"),
        (HEADER + ONE_REPLICA + b"\x00\x01\x00\xff\xff\xff\xff\xff\xff\x0f\x00\x00\x00", "number out of range"),
        (HEADER + ONE_DOT + b"\x02\x01t\x01t\x00\x00", "type URL twice"),
        (HEADER + ONE_DOT + b"\x01\x01\xff\x00\x00", "type URL that is not UTF-8"),
        (HEADER + ONE_DOT + b"\x01\x7ft\x00\x00", "length beyond the end"),
        (HEADER + ONE_DOT + ONE_URL + b"\x02\x00", "unknown flags of a store"),
        (HEADER + ONE_DOT + ONE_URL + b"\x00\x01\x09\x00", "unknown type URL"),
        (HEADER + ONE_DOT + ONE_URL + b"\x00\x01\x05\x00", "unknown code of a dot"),
        (HEADER + ONE_DOT + ONE_URL + b"\x00\x01\x03\x00\x02\x00", "dot that is not in the context"),
        (HEADER + ONE_DOT + ONE_URL + b"\x00\x01\x03\x01\x01\x00", "dot out of range"),
        (HEADER + ONE_DOT + ONE_URL + b"\x00\x01\x04\x01\x01\x00", "list of less than two dots"),
        (HEADER + ONE_DOT + ONE_URL + b"\x00\x02\x01\x00\x00\x00", "entry twice"),
        (HEADER + ONE_DOT + ONE_URL + b"\x00\x00\x00", "trailing bytes at byte 19"),
    ],
)  # fmt: skip
def test_refusals_say_what_and_where(data: bytes, text: str) -> None:
    state = crdt.State(crdt.ORSET, 1)
    with pytest.raises(crdt.Malformed, match=text):
        state.merge(data)
    assert state.dump() == (crdt.ORSET, {}, {}, frozenset())


def test_every_prefix_of_a_state_is_refused() -> None:
    state = crdt.State(crdt.ORSET, 1)
    for i in range(5):
        state.add(element(i))
    data = state.encode()
    for size in range(len(data)):
        with pytest.raises(crdt.Malformed):
            crdt.State.decode(data[:size], 2)


def test_a_huge_run_of_dots_costs_nothing_and_is_refused() -> None:
    run = HEADER + ONE_REPLICA + b"\x00\x01\x00\xff\xff\xff\xff\xff\x0f\x00\x00\x00"
    with pytest.raises(crdt.Malformed, match="more than 100000 dots beyond the prefixes"):
        crdt.State(crdt.ORSET, 1).merge(run)


def test_a_state_has_a_largest_size() -> None:
    bounds = crdt.Bounds(max_state_size=2000)
    small, large = crdt.State(crdt.ORSET, 1, bounds=bounds), crdt.State(crdt.ORSET, 2)
    for i in range(1000):
        large.add(element(i))
    with pytest.raises(crdt.Malformed, match="larger than 2000 bytes"):
        small.merge(large.encode())
    with pytest.raises(crdt.Malformed, match="larger than 2000 bytes"):
        for i in range(1000):
            small.add(element(i))
    size = len(small.value())
    assert 50 < size < 100
    assert not small.merge(small.encode())  # what is here already adds nothing
    small.remove(element(0))
    assert len(small.value()) == size - 1


def test_a_delta_is_little_more_than_its_payload() -> None:
    state = crdt.State(crdt.ORSET, 1)
    for i in range(1000):
        state.add(element(i))
    state.take_delta()
    for i in range(1000, 1100):
        state.add(element(i))
    payload = 100 * 22 + len(TYPE_URL)
    assert len(state.take_delta()) <= 1.15 * payload


def test_a_full_state_is_little_more_than_its_payload() -> None:
    chance = random.Random(1)
    states = [crdt.State(crdt.ORSET, replica) for replica in (1, 2, 3)]
    for i in range(3000):
        state = states[i % 3]
        state.add(element(chance.randrange(1000)))
        state.remove(element(chance.randrange(1000)))
        delta = state.take_delta()
        for other in states:
            other.merge(delta)
    payload = len(states[0].value()) * 22 + len(TYPE_URL)
    assert len(states[0].encode()) <= 1.35 * payload


def test_one_change_of_a_large_set_is_a_small_delta() -> None:
    state, other = crdt.State(crdt.ORSET, 1), crdt.State(crdt.ORSET, 2)
    for i in range(50_000):
        state.add(element(i))
    other.merge(state.take_delta())
    state.add(element(50_000))
    delta = state.take_delta()
    assert len(delta) < 80
    other.open_view()
    other.merge(delta)
    assert len(other.take_change()) < 80
    assert other.dump() == state.dump()
    assert other.digest() == state.digest()


def test_churn_leaves_nothing_behind() -> None:
    state = crdt.State(crdt.ORSET, 1)
    empty = state.size
    for i in range(20_000):
        state.add(element(i))
        state.remove(element(i))
        if i % 100 == 99:
            state.take_delta()
    assert state.size == empty
    assert len(state.encode()) < 40


def test_a_cleared_set_stays_a_small_delta_for_those_who_were_told_of_it() -> None:
    state, other = crdt.State(crdt.ORSET, 1), crdt.State(crdt.ORSET, 2)
    for i in range(5000):
        state.add(element(i))
    other.merge(state.take_delta())
    state.clear()
    state.add(element(1))
    delta = state.take_delta()
    assert len(delta) < 100
    other.merge(delta)
    assert other.dump() == state.dump()
