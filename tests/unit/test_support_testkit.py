"""Entities in the test kit: what the kit shows, and how the library treats commands, events, snapshots and failures."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest
from google.protobuf.empty_pb2 import Empty

from examples.shopping_cart.entity import ShoppingCart
from examples.shopping_cart.protos.shoppingcart import shoppingcart_pb2 as shop
from examples.shopping_cart.protos.shoppingcart.persistence import domain_pb2 as domain
from stateside.support import (
    ContextError,
    EntityContext,
    EntityFailure,
    EventSourced,
    EventSourcedContext,
    Fail,
    SerializationError,
    Service,
    ServiceCallError,
    SupportError,
    command,
    event,
    json_type,
    snapshot,
    snapshot_handler,
)
from stateside.support.testkit import Effect, TestEntity, TestKit
from tests.protos.tck import eventsourced_pb2 as tck

CART = shop.DESCRIPTOR.services_by_name["ShoppingCart"]
TWO = tck.DESCRIPTOR.services_by_name["EventSourcedTwo"]
GET = shop.GetShoppingCart(user_id="u")


def line(product: str, quantity: int = 1) -> shop.AddLineItem:
    return shop.AddLineItem(user_id="u", product_id=product, name=product.title(), quantity=quantity)


def added(product: str, quantity: int = 1) -> domain.ItemAdded:
    return domain.ItemAdded(item=domain.LineItem(productId=product, name=product.title(), quantity=quantity))


def cart_of(entity: TestEntity) -> list[tuple[str, int]]:
    return [(item.product_id, item.quantity) for item in entity.get_cart(GET).reply.items]


# --- the shopping cart -----------------------------------------------------------------------------------------------


def test_a_cart_sums_quantities_and_keeps_the_order_of_insertion() -> None:
    entity = TestKit(ShoppingCart).entity("u")
    result = entity.add_item(line("tea", 2))
    assert (result.reply, result.events, result.failure, result.snapshot) == (Empty(), [added("tea", 2)], None, None)
    entity.add_item(line("apple"))
    entity.add_item(line("tea", 3))
    assert cart_of(entity) == [("tea", 5), ("apple", 1)]


def test_removing_takes_the_whole_line() -> None:
    entity = TestKit(ShoppingCart).entity("u")
    entity.add_item(line("tea", 2))
    assert entity.RemoveItem(shop.RemoveLineItem(product_id="tea")).events == [domain.ItemRemoved(productId="tea")]
    assert cart_of(entity) == []
    assert entity.remove_item(shop.RemoveLineItem(product_id="tea")).failure == "Item tea not in cart"


def test_a_refused_command_leaves_no_trace() -> None:
    entity = TestKit(ShoppingCart).entity("u")
    result = entity.add_item(line("tea", 0))
    assert (result.reply, result.events, result.restarted) == (None, [], False)
    assert result.failure == "Cannot add negative quantity to item tea"
    assert entity.events == []


def test_entities_are_apart_and_come_back_from_the_journal() -> None:
    kit = TestKit(ShoppingCart)
    kit.entity("u").add_item(line("tea"))
    assert cart_of(kit.entity("v")) == []
    before = kit.entity("u").state
    kit.restart()
    assert cart_of(kit.entity("u")) == [("tea", 1)]
    assert kit.entity("u").state is not before


# --- snapshots -------------------------------------------------------------------------------------------------------


def counter(snapshot_every: int) -> type:
    @EventSourced(service=CART, snapshot_every=snapshot_every)
    class Counter:
        def __init__(self) -> None:
            self.values: list[str] = []
            self.replayed: list[int] = []

        @command
        def add_item(self, request: shop.AddLineItem, ctx: EventSourcedContext) -> None:
            for _ in range(request.quantity):
                ctx.emit(f"{request.product_id}{ctx.sequence + 1}")

        @event
        def on_event(self, event: str, ctx: EntityContext) -> None:
            self.values.append(event)
            self.replayed.append(ctx.sequence)

        @snapshot
        def take(self) -> str:
            return ",".join(self.values)

        @snapshot_handler
        def load(self, values: str, ctx: EntityContext) -> None:
            self.values = values.split(",")
            self.replayed = [-ctx.sequence]

    return Counter


def test_a_snapshot_is_taken_when_a_multiple_is_among_the_numbers_of_a_command() -> None:
    entity = TestKit(counter(5)).entity("u")
    taken = [entity.add_item(line("x", events)).snapshot for events in (4, 0, 3, 1, 2, 11)]
    assert [bool(snapshot) for snapshot in taken] == [False, False, True, False, True, True]
    assert taken[2] == "x1,x2,x3,x4,x5,x6,x7"  # the state after all events of the command
    assert taken[4].endswith("x10")
    assert taken[5].endswith("x21")  # one snapshot, though 15 and 20 were passed


def test_an_entity_comes_back_from_its_snapshot_and_the_events_behind_it() -> None:
    kit = TestKit(counter(5))
    entity = kit.entity("u")
    for _ in range(7):
        entity.add_item(line("x"))
    kit.restart()
    assert entity.state.replayed == [-5, 6, 7]
    assert entity.state.values == [f"x{n}" for n in range(1, 8)]
    entity.add_item(line("x"))
    assert entity.state.values[-1] == "x8"


def test_snapshots_come_every_100_events_by_default_and_never_with_a_negative_number() -> None:
    entity = TestKit(counter(0)).entity("u")
    assert entity.add_item(line("x", 99)).snapshot is None
    assert entity.add_item(line("x", 1)).snapshot is not None
    assert TestKit(counter(-1)).entity("u").add_item(line("x", 300)).snapshot is None


def test_an_entity_without_snapshot_method_has_none() -> None:
    @EventSourced(service=CART, snapshot_every=1)
    class Cart:
        @command
        def add_item(self, ctx: EventSourcedContext) -> None:
            ctx.emit("x")

        @event
        def on_event(self, event: str) -> None: ...

    assert TestKit(Cart).entity("u").add_item(line("x")).snapshot is None


# --- emitting and failing --------------------------------------------------------------------------------------------


@json_type("renamed")
@dataclass(frozen=True)
class Renamed:
    name: str


class Script:
    """What the next command handler of `Scripted` does."""

    steps: Any = None


@EventSourced(service=CART)
class Scripted:
    def __init__(self) -> None:
        self.names: list[str] = []

    @command
    def add_item(self, request: shop.AddLineItem, ctx: EventSourcedContext) -> Empty | None:
        result: Empty | None = Script.steps(ctx, self)
        return result

    @command
    def get_cart(self, request: shop.GetShoppingCart, ctx: EventSourcedContext) -> shop.Cart | None:
        result: shop.Cart | None = Script.steps(ctx, self)
        return result

    @event
    def renamed(self, event: Renamed) -> None:
        if event.name == "bad":
            self.names.append("half done")
            raise ValueError("bad event")
        self.names.append(event.name)


def scripted(steps: Any) -> TestEntity:
    Script.steps = staticmethod(steps)
    return TestKit(Scripted, targets=[TWO]).entity("u")


def test_events_are_applied_when_they_are_emitted() -> None:
    def steps(ctx: EventSourcedContext, cart: Scripted) -> None:
        assert ctx.sequence == 0
        ctx.emit(Renamed("a"))
        assert (ctx.sequence, cart.names) == (1, ["a"])

    result = scripted(steps).add_item(line("x"))
    assert result.events == [Renamed("a")]
    assert result.reply == Empty()


def test_failing_after_an_event_starts_the_entity_again() -> None:
    def steps(ctx: EventSourcedContext, cart: Scripted) -> None:
        ctx.emit(Renamed("a"))
        ctx.effect(Service(TWO).call("Call", tck.Request(id="x")))
        ctx.fail("no")

    entity = scripted(steps)
    result = entity.add_item(line("x"))
    assert (result.failure, result.restarted, result.events, result.effects) == ("no", True, [], [])
    assert entity.state.names == [] and entity.events == []


def test_a_failure_that_the_handler_catches_is_a_failure() -> None:
    def steps(ctx: EventSourcedContext, cart: Scripted) -> Empty:
        try:
            ctx.fail("no")
        except Fail:
            return Empty()

    assert scripted(steps).add_item(line("x")).failure == "no"


def test_fail_may_be_raised_without_context() -> None:
    def steps(ctx: EventSourcedContext, cart: Scripted) -> None:
        raise Fail("nö")

    assert scripted(steps).add_item(line("x")).failure == "nö"


@pytest.mark.parametrize("again", [lambda ctx: ctx.fail("again"), lambda ctx: ctx.emit(Renamed("a"))])
def test_after_a_failure_the_context_takes_nothing_more(again: Any) -> None:
    def steps(ctx: EventSourcedContext, cart: Scripted) -> None:
        try:
            ctx.fail("no")
        except Fail:
            again(ctx)

    with pytest.raises(ContextError, match="AddItem: the command already failed: no"):
        scripted(steps).add_item(line("x"))


def test_an_exception_in_an_event_handler_cannot_be_swallowed() -> None:
    def steps(ctx: EventSourcedContext, cart: Scripted) -> Empty:
        try:
            ctx.emit(Renamed("bad"))
        except ValueError:
            return Empty()
        raise AssertionError("emit did not raise")

    entity = scripted(steps)
    with pytest.raises(ValueError, match="bad event"):
        entity.add_item(line("x"))
    assert entity.state.names == []


def test_an_event_that_cannot_be_stored_fails_the_test() -> None:
    with pytest.raises(SerializationError, match="Cannot store a object"):
        scripted(lambda ctx, cart: ctx.emit(object())).add_item(line("x"))


def test_an_event_without_handler_is_named() -> None:
    with pytest.raises(EntityFailure, match=r"No event handler found for event .*ItemAdded on Scripted"):
        scripted(lambda ctx, cart: ctx.emit(domain.ItemAdded())).add_item(line("x"))


def test_an_exception_of_a_handler_reaches_the_test() -> None:
    with pytest.raises(ZeroDivisionError):
        scripted(lambda ctx, cart: 1 // 0).add_item(line("x"))


def test_a_context_dies_with_its_command() -> None:
    kept: list[EventSourcedContext] = []
    scripted(lambda ctx, cart: kept.append(ctx)).add_item(line("x"))
    for use in (lambda: kept[0].emit("x"), lambda: kept[0].fail("x"), lambda: kept[0].forward(None)):  # type: ignore[arg-type]
        with pytest.raises(ContextError, match="after the command ended"):
            use()  # type: ignore[no-untyped-call]


# --- replies, forwards, effects --------------------------------------------------------------------------------------


def test_nothing_is_no_reply_unless_the_reply_is_empty() -> None:
    assert scripted(lambda ctx, cart: None).add_item(line("x")).reply == Empty()
    with pytest.raises(SupportError, match="No reply or forward returned by command handler!"):
        scripted(lambda ctx, cart: None).get_cart(GET)


def test_a_reply_of_another_type_is_refused() -> None:
    with pytest.raises(SupportError, match=r"GetCart returned google\.protobuf\.Empty, the reply is .*\.Cart"):
        scripted(lambda ctx, cart: Empty()).get_cart(GET)
    with pytest.raises(SupportError, match="GetCart returned str"):
        scripted(lambda ctx, cart: "x").get_cart(GET)


def test_a_command_can_be_forwarded_with_events_and_effects() -> None:
    one, two = (Service(TWO).call("call", tck.Request(id=name)) for name in ("one", "two"))

    def steps(ctx: EventSourcedContext, cart: Scripted) -> None:
        ctx.emit(Renamed("a"))
        ctx.effect(one)
        ctx.effect(two, synchronous=True)
        ctx.forward(two)

    result = scripted(steps).get_cart(GET)
    assert (result.reply, result.forward, result.events) == (None, two, [Renamed("a")])
    assert result.effects == [Effect(one, False), Effect(two, True)]


def test_reply_and_forward_exclude_each_other() -> None:
    def steps(ctx: EventSourcedContext, cart: Scripted) -> Empty:
        ctx.forward(Service(TWO).call("Call", tck.Request()))
        return Empty()

    with pytest.raises(ContextError, match="Both a reply and a forward"):
        scripted(steps).add_item(line("x"))


def test_a_command_is_forwarded_once() -> None:
    def steps(ctx: EventSourcedContext, cart: Scripted) -> None:
        ctx.forward(Service(TWO).call("Call", tck.Request()))
        ctx.forward(Service(TWO).call("Call", tck.Request()))

    with pytest.raises(ContextError, match="already forwarded"):
        scripted(steps).add_item(line("x"))


def test_calls_are_checked_when_they_are_made() -> None:
    with pytest.raises(ServiceCallError, match="EventSourcedTwo has no method 'Nope'; it has Call"):
        Service(TWO).call("Nope", tck.Request())
    with pytest.raises(ServiceCallError, match=r"Call takes cloudstate\.tck\.model\.Request, not AddLineItem"):
        Service(TWO).call("Call", line("x"))
    with pytest.raises(ServiceCallError, match="takes a service descriptor or an entity class"):
        Service("x")  # type: ignore[arg-type]
    assert Service(ShoppingCart).call("GetCart", GET).service_name == CART.full_name


@pytest.mark.parametrize("use", ["forward", "effect"])
def test_targets_have_to_be_served_here(use: str) -> None:
    Script.steps = staticmethod(lambda ctx, cart: getattr(ctx, use)(Service(TWO).call("Call", tck.Request())))
    with pytest.raises(ServiceCallError, match="EventSourcedTwo is not served by this process; served are com"):
        TestKit(Scripted).entity("u").add_item(line("x"))


# --- async handlers --------------------------------------------------------------------------------------------------


@EventSourced(service=CART)
class Slow:
    def __init__(self) -> None:
        self.names: list[str] = []

    @command
    async def add_item(self, request: shop.AddLineItem, ctx: EventSourcedContext) -> Empty:
        await asyncio.sleep(0)
        ctx.emit(request.name)
        await asyncio.sleep(0)
        if request.quantity == 0:
            ctx.fail("none")
        return Empty()

    @event
    def on_name(self, name: str) -> None:
        self.names.append(name)


def test_async_handlers_run_to_their_end() -> None:
    entity = TestKit(Slow).entity("u")
    assert entity.add_item(line("x")).events == ["X"]
    failed = entity.add_item(line("x", 0))
    assert (failed.failure, failed.restarted) == ("none", True)
    assert entity.state.names == ["X"]


def test_async_handlers_in_a_running_loop_are_awaited() -> None:
    async def check() -> None:
        entity = TestKit(Slow).entity("u")
        assert (await entity.acall("AddItem", line("x"))).events == ["X"]
        with pytest.raises(RuntimeError, match="await acall"):
            entity.add_item(line("x"))

    asyncio.run(check())


def test_the_kit_refuses_what_no_client_could_send() -> None:
    entity = TestKit(ShoppingCart).entity("u")
    with pytest.raises(AttributeError, match="no rpc 'checkout'"):
        entity.checkout(GET)
    with pytest.raises(TypeError, match=r"takes com\.example\.shoppingcart\.AddLineItem"):
        entity.add_item(GET)
