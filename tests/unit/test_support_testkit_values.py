"""Value entities and actions in the test kit, and how the library treats their values, contexts and registration."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import pytest
from google.protobuf.empty_pb2 import Empty

from examples.shopping_cart.entity import ShoppingCart
from examples.shopping_cart.protos.shoppingcart import shoppingcart_pb2 as shop
from stateside.support import (
    Action,
    ActionContext,
    CloudEvent,
    ContextError,
    Effect,
    EventSourcedContext,
    Metadata,
    RegistrationError,
    Reply,
    SerializationError,
    Service,
    Stateside,
    ValueEntity,
    ValueEntityContext,
    command,
    event,
    json_type,
)
from stateside.support.testkit import TestKit
from tests.protos.tck import action_pb2 as tck
from tests.protos.tck import valueentity_pb2 as values
from tests.tck.action_model import ActionTckModel, ActionTwo
from tests.tck.value_entity_model import ValueTckModel, ValueTwo

CART = shop.DESCRIPTOR.services_by_name["ShoppingCart"]
GET = shop.GetShoppingCart(user_id="u")


def ask(*actions: values.RequestAction) -> values.Request:
    return values.Request(id="u", actions=actions)


def update(value: str) -> values.RequestAction:
    return values.RequestAction(update=values.Update(value=value))


FAIL = values.RequestAction(fail=values.Fail(message="no"))
DELETE = values.RequestAction(delete=values.Delete())


def test_a_value_is_kept_over_restarts_until_it_is_deleted() -> None:
    kit = TestKit(ValueTckModel, targets=[ValueTwo])
    entity = kit.entity("u")
    assert entity.state is None
    result = entity.process(ask(update("A")))
    assert (result.reply.message, result.updated, result.deleted) == ("A", values.Persisted(value="A"), False)
    kit.restart()
    assert entity.process(ask()).reply.message == "A"
    assert entity.process(ask(update("B"), FAIL)).failure == "no"
    assert entity.state == values.Persisted(value="A")
    result = entity.process(ask(DELETE))
    assert (result.updated, result.deleted, entity.state) == (None, True, None)


def test_forwards_and_effects_of_a_value_entity() -> None:
    entity = TestKit(ValueTckModel, targets=[ValueTwo]).entity("u")
    forward = values.RequestAction(forward=values.Forward(id="x"))
    effect = values.RequestAction(effect=values.Effect(id="y", synchronous=True))
    result = entity.process(ask(forward, effect))
    assert result.forward is not None and result.forward.message == values.Request(id="x")
    assert [(e.call.message.id, e.synchronous) for e in result.effects] == [("y", True)]  # type: ignore[attr-defined]


@json_type("cart-value")
@dataclass(frozen=True)
class Held:
    count: int = 0


@ValueEntity(service=CART, persistence_id="held")
class Holder:
    """Its value is a dataclass."""

    @command
    async def add_item(self, request: shop.AddLineItem, ctx: ValueEntityContext[Held]) -> Empty:
        held = ctx.state or Held()
        await asyncio.sleep(0)
        ctx.update(replace(held, count=held.count + request.quantity))
        return Empty()

    @command
    def remove_item(self, request: shop.RemoveLineItem, ctx: ValueEntityContext[Held]) -> None:
        ctx.update(object())  # type: ignore[arg-type]

    @command
    def get_cart(self, ctx: ValueEntityContext[Held], entity_id: str, metadata: Metadata) -> Reply:
        return Reply(shop.Cart(), Metadata([("x-count", str(ctx.state))]))


def test_a_dataclass_as_value_and_an_async_handler() -> None:
    kit = TestKit(Holder)
    entity = kit.entity("u")
    entity.add_item(shop.AddLineItem(quantity=2))
    kit.restart()
    assert entity.add_item(shop.AddLineItem(quantity=3)).updated == Held(5)
    assert entity.journal.value is not None and b"json.cloudstate.io/cart-value" in entity.journal.value
    result = entity.get_cart(GET)
    assert (result.reply, result.metadata.get("x-count")) == (shop.Cart(), "Held(count=5)")


def test_a_value_that_cannot_be_stored() -> None:
    with pytest.raises(SerializationError, match="Cannot store a object"):
        TestKit(Holder).entity("u").remove_item(shop.RemoveLineItem())


def test_values_that_the_entity_does_not_allow() -> None:
    @ValueEntity(service=CART, allow_primitives=False, allow_json=False)
    class Strict:
        @command
        def add_item(self, request: shop.AddLineItem, ctx: ValueEntityContext[object]) -> None:
            ctx.update("text" if request.quantity else {"type": "x"})

    entity = TestKit(Strict).entity("u")
    with pytest.raises(SerializationError, match="allow_primitives is False"):
        entity.add_item(shop.AddLineItem(quantity=1))
    with pytest.raises(SerializationError, match="allow_json is False"):
        entity.add_item(shop.AddLineItem())


def test_the_state_is_a_copy_that_only_update_keeps() -> None:
    @ValueEntity(service=CART)
    class Careless:
        @command
        def add_item(self, request: shop.AddLineItem, ctx: ValueEntityContext[shop.Cart]) -> None:
            cart = ctx.state or shop.Cart()
            cart.items.add(name=request.name)
            if request.quantity:
                ctx.update(cart)
                cart.items.add(name="too late")
                assert ctx.state is not None and len(ctx.state.items) == len(cart.items) - 1

    entity = TestKit(Careless).entity("u")
    entity.add_item(shop.AddLineItem(name="kept", quantity=1))
    entity.add_item(shop.AddLineItem(name="lost"))
    assert [item.name for item in entity.state.items] == ["kept"]


def test_a_context_dies_with_its_command() -> None:
    contexts: list[ValueEntityContext[str]] = []

    @ValueEntity(service=CART)
    class Leaky:
        @command
        def add_item(self, ctx: ValueEntityContext[str]) -> None:
            contexts.append(ctx)

    TestKit(Leaky).entity("u").add_item(shop.AddLineItem())
    for change in (contexts[0].delete, lambda: contexts[0].update("x")):
        with pytest.raises(ContextError, match="after the command ended"):
            change()


# --- actions ---------------------------------------------------------------------------------------------------------


@Action(service=tck.DESCRIPTOR.services_by_name["ActionTwo"])
class Asking:
    @command
    async def call(self, request: tck.OtherRequest, ctx: ActionContext) -> Reply:
        await asyncio.sleep(0)
        if request.id == "boom":
            raise ZeroDivisionError
        if request.id == "no":
            ctx.effect(Service(Asking).call("Call", request))
            ctx.fail("no")
        subject = ctx.cloud_event.subject if ctx.cloud_event else ""
        return Reply(tck.Response(message=subject or ""), Metadata([("x", "y")]), [Effect(TWICE)])


TWICE = Service(Asking).call("Call", tck.OtherRequest(id="again"))


def test_an_async_action_with_metadata_and_effects() -> None:
    carried = CloudEvent("1", "/s", "t", subject="alice").put_into(Metadata())
    result = TestKit(Asking).action.call("Call", tck.OtherRequest(), carried)
    assert (result.reply, result.metadata) == (tck.Response(message="alice"), Metadata([("x", "y")]))
    assert result.effects == [Effect(TWICE)]


def test_a_refusal_keeps_effects_and_an_exception_comes_out() -> None:
    kit = TestKit(Asking())
    refused = kit.action.call("Call", tck.OtherRequest(id="no"))
    assert (refused.failure, len(refused.effects)) == ("no", 1)
    with pytest.raises(ZeroDivisionError):
        kit.action.call("Call", tck.OtherRequest(id="boom"))


def test_a_sync_action_by_the_name_of_its_method() -> None:
    step = tck.ProcessStep(reply=tck.Reply(message="hi"))
    request = tck.Request(groups=[tck.ProcessGroup(steps=[step])])
    kit = TestKit(ActionTckModel, targets=[ActionTwo])
    assert kit.action.process_unary(request).reply == tck.Response(message="hi")
    with pytest.raises(TypeError, match="is streamed"):
        kit.action.process_streamed(request)
    with pytest.raises(AttributeError, match="no rpc 'nope'"):
        kit.action.nope()
    with pytest.raises(TypeError, match="without entities"):
        kit.entity("u")
    with pytest.raises(TypeError, match="is no action"):
        assert TestKit(ValueTckModel).action


# --- registration ----------------------------------------------------------------------------------------------------


def test_services_of_all_kinds_share_one_process() -> None:
    Stateside(ShoppingCart, ValueTckModel, ValueTwo, ActionTckModel, ActionTwo)


def test_a_persistence_id_is_one_entity_s_but_actions_have_none() -> None:
    @ValueEntity(service=values.DESCRIPTOR.services_by_name["ValueEntityTwo"], persistence_id="shopping-cart")
    class Same:
        @command
        def call(self) -> values.Response:
            return values.Response()

    with pytest.raises(RegistrationError, match="'shopping-cart' is already that of ShoppingCart"):
        Stateside(ShoppingCart, Same)


def test_marks_of_another_kind_of_class() -> None:
    @ValueEntity(service=CART)
    class Wrong:
        @event
        def on_event(self, event: str) -> None: ...

    with pytest.raises(RegistrationError, match=r"Wrong.on_event: @event is not for an @ValueEntity; .* @command"):
        Stateside(Wrong)


def test_contexts_of_another_kind_of_class() -> None:
    @ValueEntity(service=CART)
    class Wrong:
        @command
        def add_item(self, ctx: EventSourcedContext) -> None: ...

    with pytest.raises(RegistrationError, match="the context here is ValueEntityContext"):
        Stateside(Wrong)


def test_a_value_entity_takes_unary_commands_only() -> None:
    @ValueEntity(service=tck.DESCRIPTOR.services_by_name["ActionTckModel"])
    class Wrong:
        @command
        async def process_streamed_out(self, request: tck.Request) -> AsyncIterator[tck.Response]:
            yield tck.Response()

    with pytest.raises(RegistrationError, match="has streamed methods .* a value entity takes unary commands only"):
        Stateside(Wrong)
