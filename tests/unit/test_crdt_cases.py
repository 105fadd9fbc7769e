"""Cases of CRDTs told one by one, on kernels and model: what random traces reach too rarely, or what the texts name."""

from types import ModuleType
from typing import Any

import pytest

from stateside.proto import Any as AnyMessage
from stateside.proto import crdt as messages
from tests.models.user_function import UserFunction
from tests.unit.crdt_strategies import KINDS, MAP_DEPTH
from tests.unit.crdt_world import IMPLEMENTATIONS, shape

A, B, C = 11, 12, 13
KEY = {"type_url": "k", "value": b"1"}


@pytest.fixture(params=IMPLEMENTATIONS)
def crdt(request: pytest.FixtureRequest) -> ModuleType:
    return IMPLEMENTATIONS[request.param]


def element(value: str) -> dict[str, Any]:
    return {"type_url": "t", "value": value.encode()}


def serialized(value: str) -> bytes:
    return AnyMessage(**element(value)).SerializeToString()  # type: ignore[no-any-return]


def delta(**fields: Any) -> bytes:
    return messages.CrdtDelta(**fields).SerializeToString()  # type: ignore[no-any-return]


def entry(which: str, **nested: Any) -> bytes:
    """Delta of a map that adds or updates KEY."""
    return delta(ormap={which: [{"key": KEY, "delta": nested}]})


def replicas(crdt: ModuleType, kind: str, *names: int) -> list[Any]:
    return [crdt.State(KINDS[kind], name) for name in names]


def test_an_entry_whose_key_was_touched_elsewhere_still_travels(crdt: ModuleType) -> None:
    """Another replica got a change in a full state and touched its key before the change's own delta was taken."""
    a, b, c = replicas(crdt, "ormap", A, B, C)
    a.apply(entry("added", orset={"added": [element("x")]}), 0)
    b.merge(a.encode())
    b.apply(entry("updated", orset={"added": [element("y")]}), 0)
    touched = b.take_delta()
    a.merge(touched)
    own = a.take_delta()
    for deltas in ((own, touched), (touched, own)):
        c = crdt.State(KINDS["ormap"], C)
        for each in deltas:
            c.merge(each)
        assert c.dump() == a.dump()


def test_an_update_that_comes_too_late_is_taken_back_when_the_key_comes_again(crdt: ModuleType) -> None:
    """The user function updates a key that is gone here, and hears only after the key was made anew elsewhere."""
    a, b = replicas(crdt, "ormap", A, B)
    b.apply(entry("added", gcounter={"increment": 5}), 0)
    a.merge(b.take_delta())
    function = UserFunction("ormap")
    function.start(a.open_view())
    b.apply(delta(ormap={"removed": [KEY]}), 0)
    a.merge(b.take_delta())
    a.apply(function.command({"ormap": {"updated": [{"key": KEY, "delta": {"gcounter": {"increment": 5}}}]}}), 0)
    b.apply(entry("added", gcounter={"increment": 7}), 0)
    a.merge(b.take_delta())
    function.receive(a.take_change())
    assert function.value == {("k", b"1"): ("gcounter", 7)}


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("123", "3", ("orset", True, [], [("t", b"3")])),
        ("12", "13", ("orset", False, [("t", b"2")], [("t", b"3")])),
        ("12", "3", ("orset", True, [], [("t", b"3")])),
        ("12", "1", ("orset", False, [("t", b"2")], [])),
        ("12", "", ("orset", True, [], [])),
        ("", "12", ("orset", False, [], [("t", b"1"), ("t", b"2")])),
    ],
)
def test_a_set_is_sent_anew_when_that_is_shorter(crdt: ModuleType, before: str, after: str, told: Any) -> None:
    a, b = replicas(crdt, "orset", A, B)
    a.apply(delta(orset={"added": [element(name) for name in before]}), 0)
    b.merge(a.encode())
    a.open_view()
    b.apply(delta(orset={"cleared": True, "added": [element(name) for name in after]}), 0)
    a.merge(b.take_delta())
    assert shape(a.take_change()) == told


@pytest.mark.parametrize("boundary", [2**31, 2**63, 2**64])
def test_counters_do_not_wrap(crdt: ModuleType, boundary: int) -> None:
    a, b = replicas(crdt, "gcounter", A, B)
    a.open_view()
    told = 0
    for _ in range(5):
        b.increment(boundary // 2 - 1)
        b.increment(1)
    a.merge(b.take_delta())
    a.increment(1)
    assert a.value() == 5 * (boundary // 2) + 1
    while change := a.take_change():
        told += messages.CrdtDelta.FromString(change).gcounter.increment
    assert told == 5 * (boundary // 2)
    assert crdt.State.decode(a.encode(), C).value() == a.value()


@pytest.mark.parametrize("step", [-(2**63), 2**63 - 1])
def test_signed_counters_do_not_wrap(crdt: ModuleType, step: int) -> None:
    a, b = replicas(crdt, "pncounter", A, B)
    a.open_view()
    told = 0
    for _ in range(3):
        b.increment(step)
    a.merge(b.take_delta())
    assert a.value() == 3 * step
    while change := a.take_change():
        told += messages.CrdtDelta.FromString(change).pncounter.change
    assert told == 3 * step


@pytest.mark.parametrize(
    "refused",
    [
        delta(),
        delta(gcounter={"increment": 2**63}),
        delta(gcounter={"increment": 2**64 - 1}),
        delta(pncounter={"change": 1}),
    ],
)
def test_a_refused_delta_leaves_no_trace(crdt: ModuleType, refused: bytes) -> None:
    state = crdt.State(KINDS["gcounter"], A)
    state.increment(5)
    before = state.dump()
    with pytest.raises(crdt.Rejected):
        state.apply(refused, 0)
    assert state.dump() == before


def test_an_unknown_clock_is_the_default_one(crdt: ModuleType) -> None:
    state = crdt.State(KINDS["lwwregister"], A)
    state.apply(delta(lwwregister={"value": element("x"), "clock": 4, "custom_clock_value": 9}), 5)
    assert state.dump()[2][A][1] == 5


def test_a_map_is_changed_wholly_or_not_at_all(crdt: ModuleType) -> None:
    state = crdt.State(KINDS["ormap"], A)
    state.apply(entry("added", flag={"value": True}), 0)
    before = state.dump()
    other = {"key": {"type_url": "k", "value": b"2"}, "delta": {"gcounter": {"increment": 1}}}
    for spoiled in ({"flag": {"value": False}}, {"gcounter": {"increment": 2**63}}, {}):
        with pytest.raises(crdt.Rejected):
            state.apply(delta(ormap={"added": [other, {"key": KEY, "delta": spoiled}]}), 0)
        assert state.dump() == before
    with pytest.raises(crdt.Rejected):
        state.apply(delta(ormap={"added": [other, {"delta": {"gcounter": {}}}]}), 0)
    assert state.dump() == before


def test_a_flag_is_switched_off_only_by_those_who_have_not_seen_it_on(crdt: ModuleType) -> None:
    a, b = replicas(crdt, "flag", A, B)
    a.open_view()
    b.enable()
    a.merge(b.take_delta())
    a.apply(delta(flag={"value": False}), 0)
    assert a.value() is True
    assert shape(a.take_change()) == ("flag", True)
    with pytest.raises(crdt.Rejected):
        a.apply(delta(flag={"value": False}), 0)


def test_what_the_user_function_has_not_seen_it_cannot_remove(crdt: ModuleType) -> None:
    a, b = replicas(crdt, "orset", A, B)
    a.add(serialized("x"))
    b.merge(a.take_delta())
    a.open_view()
    b.add(serialized("x"))
    b.add(serialized("y"))
    a.merge(b.take_delta())
    a.apply(delta(orset={"cleared": True}), 0)
    assert a.value() == {serialized("x"), serialized("y")}
    assert shape(a.take_change()) == ("orset", False, [], [("t", b"x"), ("t", b"y")])
    a.clear()
    assert a.value() == set()


def test_a_removed_key_begins_again_at_zero_everywhere(crdt: ModuleType) -> None:
    a, b = replicas(crdt, "ormap", A, B)
    a.apply(entry("added", gcounter={"increment": 5}), 0)
    b.merge(a.take_delta())
    a.apply(delta(ormap={"removed": [KEY], "added": [{"key": KEY, "delta": {"gcounter": {"increment": 3}}}]}), 0)
    b.merge(a.take_delta())
    assert list(a.value().values()) == list(b.value().values()) == [3]


def test_of_two_types_of_a_key_the_newest_is_shown(crdt: ModuleType) -> None:
    a, b = replicas(crdt, "ormap", A, B)
    a.apply(entry("added", gcounter={"increment": 5}), 0)
    b.apply(entry("added", pncounter={"change": -1}), 0)
    b.apply(entry("updated", pncounter={"change": -1}), 0)
    a.merge(b.encode())
    b.merge(a.encode())
    assert list(a.value().values()) == list(b.value().values()) == [-2]
    a.apply(delta(ormap={"removed": [KEY]}), 0)
    b.merge(a.take_delta())
    assert a.value() == b.value() == {}


CLOCKS = [
    # clock, custom, now, timestamp of an earlier write, timestamp after
    (0, 0, 50, None, 50),
    (0, 0, 50, 70, 71),
    (0, 0, 90, 70, 90),
    (1, 0, 50, None, -50),
    (1, 0, 50, 70, None),
    (2, -3, 50, None, -3),
    (2, 69, 50, 70, None),
    (2, 70, 50, 70, None),
    (2, 71, 50, 70, 71),
    (3, -3, 50, None, -3),
    (3, 70, 50, 70, 71),
    (3, 90, 50, 70, 90),
    (3, 0, 50, 2**63 - 1, None),
]


@pytest.mark.parametrize(("clock", "custom", "now", "earlier", "after"), CLOCKS)
def test_clocks(crdt: ModuleType, clock: int, custom: int, now: int, earlier: int | None, after: int | None) -> None:
    state = crdt.State(KINDS["lwwregister"], A)
    if earlier is not None:
        assert state.set(serialized("old"), 0, 2, earlier)
    assert state.set(serialized("new"), now, clock, custom) == (after is not None)
    timestamp = state.dump()[2][A][1]
    assert timestamp == (earlier if after is None else after)
    assert state.value() == serialized("old" if after is None else "new")


def test_equal_timestamps_have_one_winner(crdt: ModuleType) -> None:
    a, b = replicas(crdt, "lwwregister", A, B)
    a.set(serialized("of the lower replica"), 0, 2, 7)
    b.set(serialized("of the higher replica"), 0, 2, 7)
    a.merge(b.encode())
    b.merge(a.encode())
    assert a.value() == b.value() == serialized("of the lower replica")
    assert a.encode(canonical=True) == b.encode(canonical=True)


def test_votes_of_members_count(crdt: ModuleType) -> None:
    a, b = crdt.State(KINDS["vote"], A, 1), crdt.State(KINDS["vote"], B, 2)
    assert a.value() == (False, 0, 1)
    a.open_view()
    b.vote(True)
    a.merge(b.take_delta())
    assert a.take_change() == b""
    assert a.set_members({1, 2}, absent=3)
    assert shape(a.take_change()) == ("vote", False, 1, 5)
    assert not a.set_members({1, 2}, absent=3)
    a.vote(True)
    assert a.value() == (True, 2, 5)
    assert a.take_change() == b"", "the user function counts its own vote itself"
    assert a.set_members({1}, absent=0)
    assert shape(a.take_change()) == ("vote", True, 1, 1)
    restarted = crdt.State.decode(a.encode(), A, 9)
    assert restarted.value() == (False, 0, 1)


def test_depth_has_a_bound(crdt: ModuleType) -> None:
    def nested(levels: int) -> dict[str, Any]:
        inner = nested(levels - 1) if levels else {"gcounter": {"increment": 1}}
        return {"ormap": {"added": [{"key": KEY, "delta": inner}]}} if levels else inner

    state = crdt.State(KINDS["ormap"], A, 0, crdt.Bounds(max_depth=MAP_DEPTH))
    state.apply(delta(**nested(MAP_DEPTH)), 0)
    before = state.dump()
    deeper = crdt.State(KINDS["ormap"], B)
    deeper.apply(delta(**nested(MAP_DEPTH + 1)), 0)
    for refuse in (lambda: state.apply(delta(**nested(MAP_DEPTH + 1)), 0), lambda: state.merge(deeper.encode())):
        with pytest.raises(crdt.Malformed):
            refuse()
        assert state.dump() == before


def test_replicas_and_clouds_have_bounds(crdt: ModuleType) -> None:
    state = crdt.State(KINDS["gset"], A, 0, crdt.Bounds(max_replicas=2, max_cloud=3))
    state.add(serialized("own"))
    other = crdt.State(KINDS["gset"], B)
    gaps = []
    for number in range(10):
        other.add(serialized(str(number)))
        gaps.append(other.take_delta())
    for gap in gaps[1:4]:
        assert state.merge(gap)
    before = state.dump()
    with pytest.raises(crdt.Malformed):
        state.merge(gaps[8])
    stranger = crdt.State(KINDS["gset"], C)
    stranger.add(serialized("x"))
    with pytest.raises(crdt.Malformed):
        state.merge(stranger.encode())
    assert state.dump() == before
    assert state.merge(other.encode()), "a full state heals"


def test_a_state_of_another_type_is_refused(crdt: ModuleType) -> None:
    state, other = crdt.State(KINDS["gset"], A), crdt.State(KINDS["orset"], B)
    other.add(serialized("x"))
    for bad in (other.encode(), other.take_delta(), b"", b"\x00", state.encode()[:-1], state.encode() + b"\x00"):
        with pytest.raises(crdt.Malformed):
            state.merge(bad)
    with pytest.raises(crdt.Malformed):
        crdt.join_deltas([other.encode(), state.encode()])
    with pytest.raises(crdt.Malformed):
        crdt.kind_of(b"")
    with pytest.raises(crdt.Malformed):
        crdt.kind_of_delta(b"\xff")
    assert crdt.kind_of_delta(delta()) == 0


def test_a_state_names_those_whose_changes_it_has_until_they_are_pruned(crdt: ModuleType) -> None:
    a, b = replicas(crdt, "gcounter", A, B)
    b.increment(2)
    assert not a.names(B)
    a.merge(b.take_delta())
    assert a.names(B)
    a.prune(B, A)
    assert (a.names(A), a.names(B), a.value()) == (True, False, 2)
