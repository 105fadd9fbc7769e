"""Rules of each CRDT type as the kernels keep them, and the deltas that a user function is told (spec crdt 1).

What model and kernels share is in test_crdt_cases and the properties; here is what they are used for, case by case.
"""

from typing import Any

import pytest

from stateside._speedups import crdt
from stateside.proto import Any as AnyMessage
from stateside.proto import crdt as messages

A, B = 1, 2
HERE, THERE = 101, 102  # incarnations


def element(name: str) -> Any:
    return AnyMessage(type_url="p.cloudstate.io/string", value=b"\n" + bytes([len(name)]) + name.encode())


def elements(names: str) -> list[Any]:
    return [element(name) for name in names]


def serialized(name: str) -> bytes:
    return element(name).SerializeToString()  # type: ignore[no-any-return]


def delta(**fields: Any) -> bytes:
    return messages.CrdtDelta(**fields).SerializeToString()  # type: ignore[no-any-return]


def entry(key: str, **nested: Any) -> dict[str, Any]:
    return {"key": element(key), "delta": nested}


def told(change: bytes) -> Any:
    """A delta to the user function as plain Python, lists as sorted names."""
    message = messages.CrdtDelta.FromString(change)
    which = message.WhichOneof("delta")
    return (which, *content(getattr(message, which))) if which else None


def content(member: Any) -> tuple[Any, ...]:
    found = []
    for field, value in member.ListFields():
        if field.name in ("removed", "added", "updated"):
            found.append((field.name, sorted(named(each) for each in value)))
        else:
            found.append((field.name, value.value if field.name == "value" and field.message_type else value))
    return tuple(found)


def named(each: Any) -> Any:
    if hasattr(each, "key"):
        which = each.delta.WhichOneof("delta")
        return named(each.key), which, *content(getattr(each.delta, which))
    return each.value[2:].decode()


def pair(kind: int) -> tuple[Any, Any]:
    """A replica with a user function, and another one."""
    return crdt.State(kind, A, HERE), crdt.State(kind, B, THERE)


def filled(kind: int, *deltas: bytes) -> tuple[Any, Any]:
    """A pair that both have these changes, and a user function that knows them."""
    here, there = pair(kind)
    for each in deltas:
        there.apply(each, 0)
    here.merge(there.encode())
    there.take_delta()
    here.open_view()
    return here, there


@pytest.mark.parametrize(
    ("before", "change", "shape"),
    [
        ("123", {"removed": "12"}, (("cleared", True), ("added", ["3"]))),
        ("12", {"removed": "2", "added": "3"}, (("removed", ["2"]), ("added", ["3"]))),
        ("12", {"removed": "12", "added": "3"}, (("cleared", True), ("added", ["3"]))),
        ("12", {"removed": "2"}, (("removed", ["2"]),)),
        ("12", {"cleared": True}, (("cleared", True),)),
        ("12", {"cleared": True, "added": "9"}, (("cleared", True), ("added", ["9"]))),
        ("", {"added": "ab"}, (("added", ["a", "b"]),)),
    ],
)
def test_changes_of_a_set_are_told_the_shorter_way(before: str, change: dict[str, Any], shape: Any) -> None:
    here, there = filled(crdt.ORSET, delta(orset={"added": elements(before)}))
    made = {name: elements(value) if isinstance(value, str) else value for name, value in change.items()}
    there.apply(delta(orset=made), 0)
    here.merge(there.take_delta())
    assert told(here.take_change()) == ("orset", *shape)
    assert here.take_change() == b""


def test_an_element_that_came_and_went_unseen_is_not_told() -> None:
    here, there = filled(crdt.ORSET, delta(orset={"added": elements("a")}))
    for change in ({"added": elements("b")}, {"removed": elements("b")}):
        there.apply(delta(orset=change), 0)
        here.merge(there.take_delta())
    assert here.take_change() == b""


def two_counters() -> tuple[Any, Any]:
    added = [entry("x", pncounter={"change": 2}), entry("y", gcounter={"increment": 5})]
    return filled(crdt.ORMAP, delta(ormap={"added": added}))


@pytest.mark.parametrize(
    ("change", "shape"),
    [
        ({"removed": elements("x")}, (("removed", ["x"]),)),
        ({"removed": elements("xy")}, (("cleared", True),)),
        ({"cleared": True}, (("cleared", True),)),
        ({"updated": [entry("x", pncounter={"change": 7})]}, (("updated", [("x", "pncounter", ("change", 7))]),)),
        ({"added": [entry("z", gset={})]}, (("added", [("z", "gset")]),)),
        (
            {"removed": elements("x"), "added": [entry("z", flag={"value": True})],
             "updated": [entry("y", gcounter={"increment": 1})]},
            (("removed", ["x"]), ("updated", [("y", "gcounter", ("increment", 1))]),
             ("added", [("z", "flag", ("value", True))])),
        ),
    ],
)  # fmt: skip
def test_changes_of_a_map(change: dict[str, Any], shape: Any) -> None:
    here, there = two_counters()
    there.apply(delta(ormap=change), 0)
    here.merge(there.take_delta())
    assert told(here.take_change()) == ("ormap", *shape)
    assert here.take_change() == b""


@pytest.mark.parametrize(
    ("key", "nested", "shape"),
    [
        ("y", {"gcounter": {"increment": 3}}, ("gcounter", ("increment", 3))),  # a smaller one of the same type
        ("x", {"gcounter": {"increment": 5}}, ("gcounter", ("increment", 5))),  # another type
    ],
)
def test_what_cannot_be_updated_is_removed_and_added(key: str, nested: dict[str, Any], shape: Any) -> None:
    here, there = two_counters()
    there.apply(delta(ormap={"removed": elements(key), "added": [entry(key, **nested)]}), 0)
    here.merge(there.take_delta())
    assert told(here.take_change()) == ("ormap", ("removed", [key]), ("added", [(key, *shape)]))


def test_own_changes_are_not_told() -> None:
    here, _ = two_counters()
    here.apply(delta(ormap={"removed": elements("x"), "updated": [entry("y", gcounter={"increment": 1})],
                            "added": [entry("z", orset={"added": elements("a")})]}), 0)  # fmt: skip
    assert here.take_change() == b""
    assert set(here.value()) == {serialized("y"), serialized("z")}


def test_adding_a_key_that_others_added_unseen_is_told_what_they_have_more() -> None:
    here, there = filled(crdt.ORMAP)
    there.apply(delta(ormap={"added": [entry("k", gcounter={"increment": 5})]}), 0)
    here.merge(there.take_delta())
    here.apply(delta(ormap={"added": [entry("k", gcounter={"increment": 3})]}), 0)
    assert here.value() == {serialized("k"): 8}
    assert told(here.take_change()) == ("ormap", ("updated", [("k", "gcounter", ("increment", 5))]))


def test_clearing_leaves_what_was_not_seen() -> None:
    here, there = filled(crdt.ORSET, delta(orset={"added": elements("a")}))
    there.apply(delta(orset={"added": elements("b")}), 0)
    here.merge(there.take_delta())
    here.apply(delta(orset={"cleared": True}), 0)
    assert here.value() == {serialized("b")}
    assert told(here.take_change()) == ("orset", ("added", ["b"]))
    there.merge(here.take_delta())
    assert there.value() == {serialized("b")}


def test_without_a_view_everything_counts_as_seen() -> None:
    here, there = pair(crdt.ORSET)
    there.add(serialized("a"))
    here.merge(there.take_delta())
    here.clear()
    there.merge(here.take_delta())
    assert there.value() == set()


def test_a_removed_and_readded_key_has_nothing_of_before_on_any_replica() -> None:
    here, there = filled(crdt.ORMAP, delta(ormap={"added": [entry("k", orset={"added": elements("abc")})]}))
    here.apply(delta(ormap={"removed": elements("k"), "added": [entry("k", orset={"added": elements("d")})]}), 0)
    there.merge(here.take_delta())
    assert there.value() == here.value() == {serialized("k"): {serialized("d")}}


@pytest.mark.parametrize("kind", [crdt.GCOUNTER, crdt.PNCOUNTER])
@pytest.mark.parametrize("start", [2**63 - 1, 2**64 - 1])
def test_counters_cross_every_boundary_of_words(kind: int, start: int) -> None:
    state, other = pair(kind)
    other.open_view()
    steps = [2**63 - 1, start - (2**63 - 1)] if start > 2**63 else [start]
    for step in [*steps, 1, 1]:
        while step:
            part = min(step, 2**63 - 1)
            state.increment(part)
            step -= part
    assert state.value() == start + 2
    copy = crdt.State.decode(state.encode(), B)
    assert copy.value() == start + 2
    other.merge(state.encode())
    total = 0
    while change := other.take_change():
        message = messages.CrdtDelta.FromString(change)
        total += message.gcounter.increment or message.pncounter.change
    assert total == start + 2


def test_the_smallest_change_of_a_pncounter() -> None:
    state, _ = pair(crdt.PNCOUNTER)
    for _ in range(3):
        state.apply(delta(pncounter={"change": -(2**63)}), 0)
    assert state.value() == -3 * 2**63


@pytest.mark.parametrize("amount", [-1, 2**63, 2**64])
def test_a_gcounter_grows(amount: int) -> None:
    state, _ = pair(crdt.GCOUNTER)
    with pytest.raises(crdt.Rejected, match="Cannot decrement a GCounter"):
        state.increment(amount)
    with pytest.raises(crdt.Rejected, match="Cannot decrement a GCounter"):
        state.apply(delta(gcounter={"increment": 2**63}), 0)
    assert state.take_delta() == b""


@pytest.mark.parametrize(
    ("kind", "change", "text"),
    [
        (crdt.ORSET, b"", "Empty delta"),
        (crdt.ORSET, delta(gset={}), "this entity is a ORSet, the delta one of a GSet"),
        (crdt.ORMAP, delta(ormap={"added": [{"delta": {"flag": {}}}]}), "Map entry without key"),
        (crdt.ORMAP, delta(ormap={"updated": [{"key": element("k")}]}), "Map entry without delta"),
        (crdt.ORMAP, delta(ormap={"updated": [{"key": element("k"), "delta": {}}]}), "Empty delta"),
    ],
)
def test_refusals_say_why(kind: int, change: bytes, text: str) -> None:
    with pytest.raises(crdt.Rejected, match=text):
        crdt.State(kind, A).apply(change, 0)


def test_a_flag_that_was_seen_on_stays_on() -> None:
    here, there = filled(crdt.FLAG)
    there.enable()
    here.merge(there.take_delta())
    here.apply(delta(flag={}), 0)  # has not seen it on
    assert told(here.take_change()) == ("flag", ("value", True))
    with pytest.raises(crdt.Rejected, match="Cannot switch off already enabled flag"):
        here.apply(delta(flag={}), 0)


def test_one_illegal_change_below_refuses_all() -> None:
    here, _ = two_counters()
    before = here.encode(canonical=True)
    change = {"cleared": True, "added": [entry("z", flag={}), entry("n", gcounter={"increment": 2**63})]}
    with pytest.raises(crdt.Rejected, match="Cannot decrement"):
        here.apply(delta(ormap=change), 0)
    assert here.encode(canonical=True) == before
    assert here.take_delta() == b""


@pytest.mark.parametrize(
    ("clock", "custom", "now", "times"),
    [
        (0, 0, 50, [50, 51]),
        (1, 0, 50, [-50, -51]),
        (2, 7, 50, [7, 7]),
        (3, 7, 50, [7, 8]),
        (3, 2**63 - 1, 50, [2**63 - 1, 2**63 - 1]),
        (9, 7, 50, [50, 51]),  # unknown ones are the default
    ],
)
def test_clocks_begin_with_the_first_value(clock: int, custom: int, now: int, times: list[int]) -> None:
    state, _ = pair(crdt.LWWREGISTER)
    for time, name in zip(times, "ab", strict=True):
        won = state.set(serialized(name), now, clock, custom)
        assert not won or next(iter(state.dump()[2].values()))[1] == time


def test_a_lost_write_is_put_right() -> None:
    here, _ = filled(crdt.LWWREGISTER, delta(lwwregister={"value": element("a")}))
    here.apply(delta(lwwregister={"value": element("b"), "clock": "REVERSE"}), 5)
    assert here.take_delta() == b""
    assert told(here.take_change()) == ("lwwregister", ("value", element("a").value))
    assert here.take_change() == b""


def test_votes_count_members_of_this_incarnation() -> None:
    here, there = pair(crdt.VOTE)
    assert told(here.open_view()) == ("vote", ("total_voters", 1))
    here.vote(True)
    assert told(here.take_change() or here.open_view()) == (
        "vote",
        ("self_vote", True),
        ("votes_for", 1),
        ("total_voters", 1),
    )
    assert here.set_members([HERE, THERE], absent=1)
    assert told(here.take_change())[3] == ("total_voters", 3)
    there.vote(True)
    here.merge(there.take_delta())
    assert here.value() == (True, 2, 3)
    assert not here.set_members([HERE], 2) or here.value() == (True, 1, 3)
    again = crdt.State.decode(here.encode(), A, HERE + 1000)
    again.set_members([HERE + 1000, THERE])
    assert again.value() == (False, 1, 2)


def test_votes_below_maps_follow_membership() -> None:
    here, _ = pair(crdt.ORMAP)
    here.open_view()
    here.apply(delta(ormap={"added": [entry("m", ormap={"added": [entry("v", vote={"self_vote": True})]})]}), 0)
    assert here.take_change() == b""
    assert here.set_members([HERE, THERE])
    below = ("v", "vote", ("self_vote", True), ("votes_for", 1), ("total_voters", 2))
    assert told(here.take_change()) == ("ormap", ("updated", [("m", "ormap", ("updated", [below]))]))
    assert not here.set_members([HERE, THERE])


def test_an_heir_takes_over() -> None:
    here, there = pair(crdt.ORMAP)
    there.apply(delta(ormap={"added": [entry("c", gcounter={"increment": 5}), entry("s", gset={"added": elements("a")}),
                                       entry("r", lwwregister={"value": element("x")}),
                                       entry("f", flag={"value": True}),
                                       entry("v", vote={"self_vote": True})]}), 0)  # fmt: skip
    stale = there.take_delta()
    third = crdt.State(crdt.ORMAP, 3)
    for state in (here, third):
        state.merge(stale)
    here.apply(delta(ormap={"updated": [entry("c", gcounter={"increment": 2})]}), 0)
    value = here.value()
    here.prune(B, A)
    assert here.value() == value
    assert here.pruned == {B}
    assert list(here.dump()[1]) == [A]
    third.merge(here.take_delta())
    assert third.dump() == here.dump()
    assert not third.merge(stale)
    here.forget_pruned(B)
    assert here.pruned == frozenset()


def test_states_are_freed() -> None:
    before = crdt.live_states()
    states = [crdt.State(kind, A) for kind in range(crdt.GCOUNTER, crdt.VOTE + 1)]
    assert crdt.live_states() == before + 8
    with pytest.raises(crdt.CrdtError):
        crdt.State(9, A)
    del states
    assert crdt.live_states() == before
