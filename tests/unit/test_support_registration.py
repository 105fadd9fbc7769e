"""Start-up checks: what is wrong with an entity class is told before anything is served, by class, handler and what
is allowed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, NoReturn, cast

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from examples.shopping_cart.entity import ShoppingCart
from examples.shopping_cart.protos.shoppingcart import shoppingcart_pb2 as shop
from examples.shopping_cart.protos.shoppingcart.persistence import domain_pb2 as domain
from stateside.support import (
    Context,
    EntityContext,
    EventSourced,
    EventSourcedContext,
    Metadata,
    RegistrationError,
    Stateside,
    command,
    event,
    snapshot,
    snapshot_handler,
)
from stateside.support.testkit import TestKit

CART = shop.DESCRIPTOR.services_by_name["ShoppingCart"]
REQUEST = shop.AddLineItem(user_id="u", product_id="p", quantity=1)


def register(cls: type, **options: Any) -> None:
    Stateside(EventSourced(service=CART, **options)(cls))


def refused(cls: type, *words: str, **options: Any) -> None:
    with pytest.raises(RegistrationError) as caught:
        register(cls, **options)
    for word in (cls.__name__, *words):
        assert word in str(caught.value)


# --- handlers of commands --------------------------------------------------------------------------------------------


def test_a_handler_name_has_to_be_an_rpc() -> None:
    class Cart:
        @command
        def add_items(self) -> None: ...

    refused(Cart, "Cart.add_items", "no rpc 'add_items'", "AddItem, RemoveItem, GetCart")


def test_an_explicit_name_has_to_be_an_rpc() -> None:
    class Cart:
        @command("Nope")
        def add_item(self) -> None: ...

    refused(Cart, "no rpc 'Nope'")


@pytest.mark.parametrize("name", ["add_item", "AddItem", "addItem", "additem"])
def test_names_match_in_snake_case_and_camel_case(name: str) -> None:
    def handler(self: Any) -> None: ...

    handler.__name__ = name
    register(type("Cart", (), {name: command(handler)}))


def test_an_explicit_name_frees_the_handlers_own() -> None:
    @EventSourced(service=CART)
    class Cart:
        @command("AddItem")
        def put(self, request: shop.AddLineItem) -> Empty:
            return Empty()

    assert TestKit(Cart).entity("u").add_item(REQUEST).reply == Empty()


def test_two_handlers_of_one_command() -> None:
    class Cart:
        @command
        def add_item(self) -> None: ...
        @command("AddItem")
        def put(self) -> None: ...

    refused(Cart, "Cart.put", "AddItem is already handled by", "Cart.add_item")


def test_a_command_of_another_type() -> None:
    class Cart:
        @command
        def add_item(self, request: shop.RemoveLineItem) -> None: ...

    refused(Cart, "parameter 'request' of type RemoveLineItem", "the payload AddLineItem")


def test_an_unsupported_parameter() -> None:
    class Cart:
        @command
        def add_item(self, request: shop.AddLineItem, count: int) -> None: ...

    refused(Cart, "parameter 'count' of type int", "EventSourcedContext", "entity_id: str", "Metadata")


@pytest.mark.parametrize("stars", ["*args", "**kwargs", "*, request"])
def test_parameters_have_to_be_plain(stars: str) -> None:
    space: dict[str, Any] = {}
    exec(f"def add_item(self, {stars}): ...", space)
    refused(type("Cart", (), {"add_item": command(space["add_item"])}), "allowed are plain parameters")


def test_a_context_of_another_kind() -> None:
    class Cart:
        @command
        def add_item(self, ctx: EntityContext) -> None: ...

    refused(Cart, "parameter 'ctx' is a EntityContext", "the context here is EventSourcedContext")


def test_a_command_context_in_an_event_handler() -> None:
    class Cart:
        @event
        def added(self, event: domain.ItemAdded, ctx: EventSourcedContext) -> None: ...

    refused(Cart, "the context here is EntityContext")


def test_an_entity_id_that_is_no_str() -> None:
    class Cart:
        @command
        def add_item(self, entity_id: int) -> None: ...

    refused(Cart, "'entity_id' is a str, not int")


def test_one_thing_twice() -> None:
    class Cart:
        @command
        def add_item(self, first: shop.AddLineItem, second: shop.AddLineItem) -> None: ...

    refused(Cart, "parameter 'second' is a second payload")


def test_a_wrong_return_type() -> None:
    class Cart:
        @command
        def get_cart(self, request: shop.GetShoppingCart) -> Empty:
            return Empty()

    refused(Cart, "Cart.get_cart returns Empty", "the rpc replies Cart")


def test_an_annotation_that_does_not_resolve() -> None:
    def add_item(self, request: Nowhere) -> None: ...  # type: ignore[name-defined,no-untyped-def]  # noqa: F821

    refused(type("Cart", (), {"add_item": command(add_item)}), "cannot resolve", "Nowhere")


def test_a_generator_is_no_handler() -> None:
    class Cart:
        @command
        def add_item(self) -> Any:
            yield

    refused(Cart, "is a generator")


def test_everything_that_is_allowed_is_injected_in_any_order() -> None:
    seen: dict[str, Any] = {}

    @EventSourced(service=CART)
    class Cart:
        @command
        def add_item(self, metadata: Metadata, ctx: Context, entity_id: str, request: shop.AddLineItem) -> Empty | None:
            seen.update(metadata=metadata, ctx=ctx, entity_id=entity_id, request=request)
            return Empty()

        @command
        def remove_item(self, item, ctx):  # type: ignore[no-untyped-def]
            seen.update(item=item, name=ctx.command_name)

        @command
        def get_cart(self, ctx: EventSourcedContext) -> NoReturn:
            ctx.fail("never")

    entity = TestKit(Cart).entity("u")
    entity.add_item(REQUEST)
    entity.remove_item(shop.RemoveLineItem(product_id="p"))
    assert (seen["metadata"], seen["entity_id"], seen["request"]) == (Metadata(), "u", REQUEST)
    assert isinstance(seen["ctx"], EventSourcedContext)
    assert (seen["item"], seen["name"]) == (shop.RemoveLineItem(product_id="p"), "RemoveItem")
    assert entity.get_cart(shop.GetShoppingCart()).failure == "never"


# --- handlers of events and snapshots --------------------------------------------------------------------------------


def test_two_handlers_of_one_event() -> None:
    class Cart:
        @event
        def added(self, event: domain.ItemAdded) -> None: ...
        @event(domain.ItemAdded)
        def also(self, event: Any) -> None: ...

    refused(Cart, "ItemAdded is already handled by", "added")


def test_an_event_handler_without_type() -> None:
    class Cart:
        @event
        def added(self, event): ...  # type: ignore[no-untyped-def]

    refused(Cart, "Cart.added", "which type?", "@event(Type)")


def test_an_event_type_that_cannot_be_stored() -> None:
    class Cart:
        @event
        def added(self, event: list[int]) -> None: ...

    refused(Cart, "takes list", "@json_type")


def test_event_types_that_the_entity_does_not_allow() -> None:
    class Cart:
        @event
        def added(self, event: str) -> None: ...

    refused(Cart, "takes str", "allow_primitives is False", allow_primitives=False)

    class Other:
        @event
        def added(self, event: dict[str, Any]) -> None: ...

    refused(Other, "takes dict", "allow_json is False", allow_json=False)


def test_an_async_event_handler() -> None:
    class Cart:
        @event
        async def added(self, event: domain.ItemAdded) -> None: ...

    refused(Cart, "Cart.added", "only command handlers may be async")


def test_two_snapshot_methods() -> None:
    class Cart:
        @snapshot
        def one(self) -> domain.Cart:
            return domain.Cart()

        @snapshot
        def two(self) -> domain.Cart:
            return domain.Cart()

    refused(Cart, "Cart.two", "already taken by", "Cart.one")


def test_two_snapshot_handlers_of_one_type() -> None:
    class Cart:
        @snapshot_handler
        def one(self, cart: domain.Cart) -> None: ...
        @snapshot_handler
        def two(self, cart: domain.Cart) -> None: ...

    refused(Cart, "Cart is already handled by", "one")


def test_a_snapshot_that_cannot_be_read_back() -> None:
    class Cart:
        @snapshot
        def one(self) -> domain.Cart:
            return domain.Cart()

    refused(Cart, "no @snapshot_handler")


def test_a_snapshot_takes_no_payload() -> None:
    class Cart:
        @snapshot
        def one(self, cart: domain.Cart) -> domain.Cart:
            return domain.Cart()

    refused(Cart, "parameter 'cart'", "EntityContext")


def test_a_union_or_message_itself_handles_several_events() -> None:
    @EventSourced(service=CART)
    class Cart:
        def __init__(self) -> None:
            self.seen: list[str] = []

        @command
        def add_item(self, ctx: EventSourcedContext) -> None:
            for value in (domain.ItemAdded(), domain.Cart(), "text", 7):
                ctx.emit(value)

        @event
        def some(self, event: domain.ItemAdded | int) -> None:
            self.seen.append(f"some {type(event).__name__}")

        @event
        def any_message(self, event: Message) -> None:
            self.seen.append("message")

        @event(str)
        def text(self, event) -> None:  # type: ignore[no-untyped-def]
            self.seen.append(event)

    entity = TestKit(Cart).entity("u")
    entity.add_item(REQUEST)
    assert entity.state.seen == ["some ItemAdded", "message", "text", "some int"]


# --- classes ---------------------------------------------------------------------------------------------------------


def test_a_class_without_declaration() -> None:
    class Cart: ...

    with pytest.raises(RegistrationError, match=r"Cart is not declared as an entity\. Did you mean .*@EventSourced"):
        Stateside(Cart)


def test_a_subclass_has_to_be_declared_itself() -> None:
    class Special(ShoppingCart): ...

    with pytest.raises(RegistrationError, match="Special is not declared as an entity"):
        Stateside(Special)


def test_an_instance_instead_of_the_class() -> None:
    with pytest.raises(RegistrationError, match="is not a class"):
        Stateside(ShoppingCart())


def test_handlers_are_inherited_and_may_be_overridden() -> None:
    @EventSourced(service=CART)
    class Special(ShoppingCart):
        @command
        def get_cart(self, request: shop.GetShoppingCart) -> shop.Cart:
            return shop.Cart(items=[shop.LineItem(name="special")])

    entity = TestKit(Special).entity("u")
    assert entity.add_item(REQUEST).events
    assert entity.get_cart(shop.GetShoppingCart()).reply.items[0].name == "special"


def test_a_missing_service_descriptor() -> None:
    with pytest.raises(RegistrationError, match="descriptor, not None: verify the service's lookup name"):
        EventSourced(service=shop.DESCRIPTOR.services_by_name.get("Nope"))  # type: ignore[arg-type]


def test_a_declaration_without_arguments() -> None:
    with pytest.raises(TypeError):
        EventSourced(ShoppingCart)  # type: ignore[arg-type,call-arg]


def test_a_class_declared_twice() -> None:
    with pytest.raises(RegistrationError, match="ShoppingCart is declared as an entity twice"):
        EventSourced(service=CART)(ShoppingCart)


def test_a_passivation_timeout_of_nothing() -> None:
    with pytest.raises(RegistrationError, match="at least a millisecond"):
        EventSourced(service=CART, passivate_after=timedelta(0))


@pytest.mark.parametrize(
    ("declare", "complaint"),
    [
        (lambda f: event(command(f)), "declared twice: as @command and as @event"),
        (lambda f: command(cast(Any, 3))(f), "takes a str, not 3"),
        (lambda f: command(staticmethod(f)), "a handler is a plain method"),
        (lambda f: command()(staticmethod(f)), "a handler is a plain method"),
        (lambda f: snapshot(cast(Any, "x"))(f), "takes nothing, not 'x'"),
        (lambda f: event(cast(Any, "ItemAdded"))(f), "takes a type, not 'ItemAdded'"),
    ],
)
def test_decorators_used_wrongly(declare: Callable[[Any], Any], complaint: str) -> None:
    def handler(self: Any) -> None: ...

    with pytest.raises(RegistrationError, match=complaint):
        declare(handler)


def test_a_marked_static_method() -> None:
    class Cart:
        @staticmethod
        @command
        def add_item(request: shop.AddLineItem) -> None: ...

    refused(Cart, "Cart.add_item", "not a staticmethod")


def test_constructors_may_ask_for_the_entity_id_or_a_context() -> None:
    @EventSourced(service=CART)
    class Cart:
        def __init__(self, context: EntityContext, entity_id: str) -> None:
            self.ids = (context.entity_id, entity_id, context.sequence)

    assert TestKit(Cart).entity("u").state.ids == ("u", "u", 0)


def test_dataclasses_keep_their_defaults() -> None:
    @EventSourced(service=CART)
    @dataclass
    class Cart:
        entity_id: str
        items: dict[str, int] = field(default_factory=dict)

    assert TestKit(Cart).entity("u").state == Cart("u", {})


def test_a_constructor_that_wants_more() -> None:
    class Cart:
        def __init__(self, database: object) -> None: ...

    refused(Cart, "Cart.__init__", "parameter 'database'", "EntityContext", "entity_id: str")


def test_one_service_twice() -> None:
    with pytest.raises(RegistrationError, match="ShoppingCart is already registered"):
        Stateside(ShoppingCart, ShoppingCart)


def test_a_service_with_streamed_methods() -> None:
    file = FileDescriptorProto(name="streamed.proto", package="streamed")
    file.message_type.add(name="M")
    file.service.add(name="S").method.add(name="Watch", input_type="M", output_type="M", server_streaming=True)
    pool = DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())

    with pytest.raises(RegistrationError, match=r"Cart: streamed\.S has streamed methods \(Watch\); .* unary"):
        Stateside(EventSourced(service=pool.FindServiceByName("streamed.S"))(type("Cart", (), {})))


def test_rpcs_without_handler_are_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    class Cart:
        @command
        def add_item(self) -> None: ...

    register(Cart)
    assert "Cart has no handler for RemoveItem, GetCart: such commands will fail" in caplog.text
