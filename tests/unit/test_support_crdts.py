"""CRDT types of the support library as values: how they feel, what they refuse, which deltas they give and take.

`Node` is an entity's side of one CRDT: it can be changed within `changing()`, and gives its delta as a message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from google.protobuf.descriptor_pool import Default
from hypothesis import given
from hypothesis import strategies as st

from examples.shopping_cart.protos.shoppingcart import shoppingcart_pb2 as shop
from stateside.proto import crdt
from stateside.support import (
    Clock,
    Crdt,
    CrdtError,
    Flag,
    GCounter,
    GSet,
    LWWMap,
    LWWRegister,
    ORMap,
    ORSet,
    PNCounter,
    PNCounterMap,
    SerializationError,
    Vote,
    json_type,
)
from stateside.support.crdt_map import TYPES, new_crdt
from stateside.support.crdts import Changes
from stateside.support.serialization import AnyCodec
from tests.tck.crdt_scenarios import d_fl, d_gc, d_gs, d_lw, d_map, d_os, d_pn, d_vote, ordered

CODEC = AnyCodec(Default())


class Node:
    """One CRDT in an entity."""

    def __init__(self, value: Any, codec: AnyCodec = CODEC) -> None:
        self.value = value
        self.changes = Changes(codec, "closed")
        value._join(self.changes)

    @contextmanager
    def changing(self, *, fails: bool = False) -> Iterator[Any]:
        """A command."""
        self.changes.refusal = None
        yield self.value
        self.changes.refusal = "closed"
        if fails:
            self.changes.take_back()

    def take(self) -> Any:
        """The delta since the last time, as a message."""
        delta = self.value._take()
        return None if delta is None else ordered(crdt.CrdtDelta.FromString(delta))

    def whole(self) -> Any:
        return ordered(crdt.CrdtDelta.FromString(self.value._whole()))


# --- counters --------------------------------------------------------------------------------------------------------


def test_a_counter_is_used_like_an_integer() -> None:
    counter = GCounter()
    assert not counter
    counter += 5
    counter.increment()
    assert counter == 6 and counter != 5 and counter > 5 and counter >= 6 and counter < 7 and counter <= 6
    assert (int(counter), counter.value, counter + 1, 1 + counter, counter - 1, 10 - counter) == (6, 6, 7, 7, 5, 4)
    assert [*range(10)][counter] == 6 and counter == GCounter(6) and repr(counter) == "GCounter(6)"
    counter += counter
    assert counter == 12


def test_a_pncounter_goes_both_ways() -> None:
    counter = PNCounter(3)
    counter -= 5
    counter.decrement()
    assert counter == -3 and counter.increment(4) == 1


@pytest.mark.parametrize(
    ("misuse", "text"),
    [
        (lambda: GCounter().increment(-1), "only grows"),
        (lambda: GCounter(-1), "only grows"),
        (lambda: GCounter().__isub__(1), "only grows"),
        (lambda: PNCounter().increment(1.5), "by an integer, not by 1.5"),
        (lambda: PNCounter().increment(True), "by an integer, not by True"),
        (lambda: GCounter().increment(1 << 63), "cannot be changed by 9223372036854775808 in one command"),
        (lambda: GSet(["a"]).discard("a"), "only grows"),
        (lambda: LWWRegister().set(None), "not None"),
        (lambda: LWWRegister().set("a", Clock.CUSTOM, 1 << 63), "does not fit 64 bits"),
        (lambda: setattr(Vote(), "vote", 1), "True or False, not 1"),
        (lambda: ORMap().__setitem__("a", 5), "LWWMap and PNCounterMap hold plain values"),
    ],
)
def test_what_is_impossible_is_refused(misuse: Callable[[], Any], text: str) -> None:
    with pytest.raises(CrdtError, match=text):
        misuse()


def test_a_map_cannot_hold_itself_nor_what_belongs_elsewhere() -> None:
    one, other = ORMap[str](), ORMap[str]()
    with pytest.raises(CrdtError, match="itself"):
        one["a"] = one
    one["a"] = GCounter()
    with pytest.raises(CrdtError, match="already belongs"):
        other["a"] = one["a"]


@pytest.mark.parametrize("change", [1, 127, 128, 1 << 31, (1 << 63) - 1])
def test_changes_of_any_size_are_encoded(change: int) -> None:
    for node, delta in ((Node(GCounter()), d_gc), (Node(PNCounter()), d_pn)):
        with node.changing() as counter:
            counter.increment(change)
        assert node.take() == delta(change)
    down = Node(PNCounter())
    with down.changing() as counter:
        counter.decrement(change)
    assert down.take() == d_pn(-change)


def test_changes_that_cancel_each_other_are_not_told() -> None:
    node = Node(PNCounter())
    with node.changing() as counter:
        counter += 5
        counter -= 5
    assert node.take() is None


# --- sets ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [GSet, ORSet])
def test_a_set_is_used_like_a_set(cls: Any) -> None:
    elements = cls(["b", "a"])
    elements.add("c")
    elements.add("a")
    elements.update(["d"])
    assert list(elements) == ["b", "a", "c", "d"] and len(elements) == 4 and "a" in elements and "x" not in elements
    assert elements == {"a", "b", "c", "d"} and elements >= {"a"} and elements & {"a", "x"} == {"a"}
    assert elements | {"x"} == {"a", "b", "c", "d", "x"} and type(elements - {"a"}) is set
    assert object() not in elements


def test_an_orset_can_be_emptied_in_all_ways() -> None:
    elements = ORSet("abcdef")
    elements.remove("a")
    elements.discard("x")
    with pytest.raises(KeyError):
        elements.remove("a")
    elements -= {"b"}
    elements &= {"c", "d"}
    assert elements.pop() in ("c", "d") and len(elements) == 1
    elements.clear()
    assert not elements


def test_elements_are_the_same_where_their_bytes_are() -> None:
    elements: GSet[Any] = GSet([1, True, 1.0, "1", b"1"])
    assert len(elements) == 5 and list(elements) == [1, True, 1.0, "1", b"1"]
    messages: ORSet[Any] = ORSet([shop.LineItem(product_id="tea")])
    messages.add(shop.LineItem(product_id="tea"))
    assert list(messages) == [shop.LineItem(product_id="tea")] and shop.LineItem(product_id="tea") in messages


def test_a_message_that_a_set_gives_out_is_a_copy() -> None:
    item = shop.LineItem(product_id="tea")
    items: ORSet[Any] = ORSet([item])
    item.product_id = "cup"
    next(iter(items)).product_id = "cup"
    assert [each.product_id for each in items] == ["tea"]


def test_what_cannot_be_serialized_is_no_element() -> None:
    with pytest.raises(SerializationError, match="Cannot store a list"):
        ORSet().add([])


def test_removing_and_adding_again_cancel_each_other() -> None:
    node = Node(ORSet())
    with node.changing() as elements:
        elements.update("abc")
    assert node.take() == d_os("+a", "+b", "+c")
    with node.changing() as elements:
        elements.discard("a")
        elements.add("a")
        elements.add("d")
        elements.discard("d")
    assert node.take() is None
    with node.changing() as elements:
        elements.discard("b")
        elements.clear()
        elements.add("c")
    assert node.take() == d_os("clear", "+c")


# --- single values ---------------------------------------------------------------------------------------------------


@json_type("colour")
@dataclass(frozen=True)
class Colour:
    name: str = ""


def test_a_register_holds_any_value() -> None:
    codec = AnyCodec(Default(), [Colour])
    for value in ("a", 1, 1.5, True, b"a", shop.LineItem(product_id="tea"), Colour("red"), "", 0):
        node = Node(LWWRegister(), codec)
        assert node.value.value is None
        with node.changing() as register:
            register.value = value
        copy = Node(LWWRegister(), codec)
        copy.value._apply(node.take())
        assert copy.value.value == value and copy.value == node.value


def test_a_register_without_a_value_writes_nothing_until_it_is_set() -> None:
    node = Node(LWWRegister())
    assert node.take() is None and node.whole() == crdt.CrdtDelta(lwwregister=crdt.LWWRegisterDelta())
    node.value._apply(node.whole())
    assert node.value.value is None


def test_setting_what_is_there_is_told_only_with_another_clock() -> None:
    node = Node(LWWRegister("a"))
    assert node.take() == d_lw("a")
    with node.changing() as register:
        register.set("a")
    assert node.take() is None
    with node.changing() as register:
        register.set("a", Clock.CUSTOM, -5)
    assert node.take() == d_lw("a", "CUSTOM", -5)


def test_a_flag_is_a_boolean() -> None:
    flag = Flag()
    assert not flag and flag == False and flag.value is False  # noqa: E712
    flag.enable()
    assert flag and flag == Flag(True) and Node(flag).take() == d_fl(True)


def test_majorities_of_votes() -> None:
    node = Node(Vote())
    assert (node.value.vote, node.value.votes_for, node.value.total) == (False, 0, 1)
    node.value._apply(d_vote(False, 2, 4))
    assert node.value.at_least_one and not node.value.majority and not node.value.unanimous
    with node.changing() as vote:
        vote.vote = True
    assert (node.value.votes_for, node.value.majority, node.take()) == (3, True, d_vote(True))
    node.value._apply(d_vote(True, 4, 4))
    assert node.value.unanimous


# --- maps ------------------------------------------------------------------------------------------------------------


def test_a_map_makes_its_entries() -> None:
    node = Node(ORMap())
    with node.changing() as entries:
        entries.counter("pn").increment(-2)
        entries.gcounter("gc").increment()
        entries.gset("gs").add("a")
        entries.orset("os").add("a")
        entries.register("lw").value = "a"
        entries.flag("fl").enable()
        entries.vote("v").vote = True
        entries.map("m").counter("inner")
        entries.setdefault("pn", GCounter())
    added = {"pn": d_pn(-2), "gc": d_gc(1), "gs": d_gs("a"), "os": d_os("+a"), "lw": d_lw("a"), "fl": d_fl(True)}
    added |= {"v": d_vote(True), "m": d_map(added={"inner": d_pn(0)})}
    assert node.take() == ordered(d_map(added=added))
    assert list(node.value) == ["pn", "gc", "gs", "os", "lw", "fl", "v", "m"] and isinstance(node.value["m"], ORMap)
    with pytest.raises(CrdtError, match="The entry of 'pn' is a PNCounter, not a Flag"):
        node.value.flag("pn")
    with pytest.raises(KeyError):
        node.value["x"]


def test_augmented_assignment_to_an_entry() -> None:
    node = Node(ORMap())
    with node.changing() as entries:
        entries["a"] = GCounter()
        entries["a"] += 5
    assert node.take() == d_map(added={"a": d_gc(5)})


def test_an_entry_put_in_place_of_another_is_removed_and_added() -> None:
    node = Node(ORMap())
    with node.changing() as entries:
        entries["a"] = GCounter(5)
    node.take()
    with node.changing() as entries:
        entries["a"] = GCounter(3)
    assert node.take() == d_map(removed=["a"], added={"a": d_gc(3)})


def test_an_entry_added_and_removed_is_not_told() -> None:
    node = Node(ORMap())
    with node.changing() as entries:
        entries.counter("a").increment()
        del entries["a"]
    assert node.take() is None


def test_a_removed_entry_can_be_read_but_not_changed() -> None:
    node = Node(ORMap())
    with node.changing() as entries:
        counter = entries.counter("a")
        counter += 5
        del entries["a"]
        with pytest.raises(CrdtError, match="it was removed from its map"):
            counter += 1
    assert counter == 5


def test_an_entry_that_the_proxy_replaces_stays_the_same_object() -> None:
    node = Node(ORMap())
    node.value._apply(d_map(added={"a": d_gc(5), "b": d_gc(1)}))
    counter, other = node.value["a"], node.value["b"]
    node.value._apply(d_map(added={"a": d_gc(7), "b": d_fl(True)}))
    assert counter is node.value["a"] and counter == 7 and node.value["b"] == Flag(True)
    with pytest.raises(CrdtError, match="removed from its map"):
        other += 1


def test_a_map_of_values_is_used_like_a_dict() -> None:
    node = Node(ORMap())
    values: LWWMap[str, Any] = LWWMap(node.value)
    with node.changing():
        values["a"] = 1
        values["b"] = "x"
        values.set("c", "y", Clock.CUSTOM, 7)
        del values["b"]
        values.update(d=True)
    assert dict(values) == {"a": 1, "c": "y", "d": True} and values.get("x") is None and "a" in values
    delta = node.take().ormap
    assert len(delta.added) == 3 and not delta.removed
    node.value._apply(d_map(added={"n": d_pn(1)}))
    with pytest.raises(CrdtError, match="'n' is a PNCounter, not a LWWRegister"):
        values["n"]


def test_a_map_of_counters_is_used_like_a_counter() -> None:
    node = Node(ORMap())
    scores: PNCounterMap[str] = PNCounterMap(node.value)
    with node.changing():
        assert scores["nobody"] == 0 and "nobody" not in scores
        scores["a"] += 5
        scores["a"] -= 2
        scores.decrement("b")
    assert dict(scores) == {"a": 3, "b": -1} and node.take() == ordered(d_map(added={"a": d_pn(3), "b": d_pn(-1)}))
    with node.changing():
        scores["a"] = 10
        scores.clear()
    assert node.take() == d_map(cleared=True) and len(scores) == 0


# --- deltas of the proxy ---------------------------------------------------------------------------------------------


def test_a_delta_of_another_type_is_refused() -> None:
    with pytest.raises(CrdtError, match="Received a delta of a flag, but this is a gcounter"):
        Node(GCounter()).value._apply(d_fl(True))
    with pytest.raises(CrdtError, match="unknown type"):
        new_crdt(crdt.CrdtDelta())


def test_removing_what_is_not_there_is_fine() -> None:
    for value, delta in ((ORSet("a"), d_os("-x")), (ORMap(), d_map(removed=["x"]))):
        before = Node(value).whole()
        value._apply(delta)
        assert ordered(crdt.CrdtDelta.FromString(value._whole())) == before


def test_an_empty_delta_says_of_which_type_the_crdt_is() -> None:
    for kind, cls in TYPES.items():
        delta = crdt.CrdtDelta.FromString(cls()._take(True) or b"")
        assert delta.WhichOneof("delta") == kind and type(new_crdt(delta)) is cls


# --- commands that fail, and moments in which nothing can be changed -------------------------------------------------


def changes_of(value: Any) -> list[Callable[[], Any]]:
    """One or several changes of each kind that a type has."""
    match value:
        case GCounter() | PNCounter():
            return [lambda: value.increment(3)]
        case GSet():
            return [lambda: value.add("new")]
        case ORSet():
            return [lambda: value.add("new"), lambda: value.discard("a"), value.clear]
        case LWWRegister():
            return [lambda: value.set("new"), lambda: value.set("b", Clock.REVERSE)]
        case Flag():
            return [value.enable]
        case Vote():
            return [lambda: setattr(value, "vote", not value.vote)]
        case _:
            return [
                lambda: value.counter("a").increment(),
                lambda: value.counter("new").increment(),
                lambda: value.pop("b", None),
                lambda: value.__setitem__("c", Flag(True)),
                lambda: value.map("m").orset("x").add("y"),
                value.clear,
            ]


def filled(cls: type[Crdt]) -> Node:
    """A CRDT of a type with something in it, of which all was told."""
    node = Node(cls())
    with node.changing() as value:
        match value:
            case GSet() | ORSet():
                value.update("ab")
            case ORMap():
                value.counter("a").increment(5)
                value.orset("b").update("xy")
                value.map("m").orset("x").add("z")
            case LWWRegister():
                value.set("a")
    node.take()
    node.changes.undo.clear()
    return node


@given(kind=st.sampled_from(sorted(TYPES)), picks=st.lists(st.integers(0, 5), max_size=8))
def test_a_command_that_failed_leaves_nothing(kind: str, picks: list[int]) -> None:
    node = filled(TYPES[kind])
    before = node.whole()
    with node.changing(fails=True) as value:
        for pick in picks:
            possible = changes_of(value)
            possible[pick % len(possible)]()
    assert node.whole() == before and node.take() is None
    with node.changing() as value:
        for change in changes_of(value):
            change()
    again = filled(TYPES[kind])
    with again.changing() as value:
        for change in changes_of(value):
            change()
    assert node.take() == again.take()


@given(kind=st.sampled_from(sorted(set(TYPES) - {"vote"})), picks=st.lists(st.integers(0, 5), max_size=12))
def test_the_deltas_of_one_lead_another_to_the_same_value(kind: str, picks: list[int]) -> None:
    node, copy = filled(TYPES[kind]), Node(TYPES[kind]())
    copy.value._apply(node.whole())
    for pick in picks:
        with node.changing() as value:
            possible = changes_of(value)
            possible[pick % len(possible)]()
            possible[(pick + 1) % len(possible)]()
        delta = node.take()
        if delta is not None:
            copy.value._apply(delta)
        assert copy.whole() == node.whole()


@pytest.mark.parametrize("kind", sorted(TYPES))
def test_between_commands_nothing_can_be_changed(kind: str) -> None:
    node = filled(TYPES[kind])
    before = node.whole()
    for change in changes_of(node.value):
        with pytest.raises(CrdtError, match="cannot be changed: closed"):
            change()
    assert node.whole() == before and node.take() is None


def test_what_was_made_before_is_encoded_as_the_entity_does_it() -> None:
    item = shop.LineItem(product_id="tea")
    codec = AnyCodec(Default(), prefix="example.com")
    made = ORMap[Any]()
    made[item] = LWWRegister(item)
    made.map("m").orset("s").add(item)
    node = Node(made, codec)
    delta = node.take()
    urls = {entry.key.type_url for entry in delta.ormap.added}
    assert urls == {"example.com/com.example.shoppingcart.LineItem", "p.cloudstate.io/string"}
    assert item in node.value and list(node.value["m"]["s"]) == [item]
    with node.changing() as entries:
        entries[item].set(shop.LineItem())
    (updated,) = node.take().ormap.updated
    assert updated.delta.lwwregister.value.type_url.startswith("example.com/")
