"""How the Node support library 0.0.3 speaks the protocol, seen from the side of a proxy.

Nobody here wrote that library. What it does is what a proxy has to get along with: these tests pin it down message by
message, without our proxy in between, so that a failure of the tests through the proxy can be told apart from a
peculiarity of the library.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
import pytest
import uvloop
from google.protobuf import descriptor_pb2

from stateside.proto import cloudstate, pack, protobuf

from .entity_stream import EntityStream
from .node_cart import PERSISTENCE_ID, SERVICE, SNAPSHOT_EVERY, CartMessages, NodeCart

pytestmark = pytest.mark.interop

USER = "alice"


class Cart:
    """Commands, events and snapshots of the shopping cart, packed."""

    def __init__(self, messages: CartMessages) -> None:
        self.messages = messages

    def add_item(self, product_id: str, quantity: int = 1) -> Any:
        fields = {"user_id": USER, "product_id": product_id, "name": product_id.upper(), "quantity": quantity}
        return pack(self.messages.cart("AddLineItem", **fields))

    def remove_item(self, product_id: str) -> Any:
        return pack(self.messages.cart("RemoveLineItem", user_id=USER, product_id=product_id))

    def get_cart(self) -> Any:
        return pack(self.messages.cart("GetShoppingCart", user_id=USER))

    def cart(self, *quantities: tuple[str, int]) -> Any:
        items = [{"product_id": product, "name": product.upper(), "quantity": n} for product, n in quantities]
        return pack(self.messages.cart("Cart", items=items))

    def item_added(self, product_id: str, quantity: int = 1) -> Any:
        item = {"productId": product_id, "name": product_id.upper(), "quantity": quantity}
        return pack(self.messages.persisted("ItemAdded", item=item))

    def item_removed(self, product_id: str) -> Any:
        return pack(self.messages.persisted("ItemRemoved", productId=product_id))

    def snapshot(self, *quantities: tuple[str, int]) -> Any:
        items = [{"productId": product, "name": product.upper(), "quantity": n} for product, n in quantities]
        return pack(self.messages.persisted("Cart", items=items))


Scenario = Callable[[EntityStream, Cart], Awaitable[None]]


def on_a_stream(cart: NodeCart, scenario: Scenario) -> None:
    """Run a scenario on an entity stream of its own."""

    async def run() -> None:
        messages = CartMessages((await cart.discover()).proto)
        async with grpc.aio.insecure_channel(cart.target) as channel:
            stream = EntityStream(channel)
            try:
                await scenario(stream, Cart(messages))
            finally:
                stream.call.cancel()

    uvloop.run(run())


def assert_empty_reply(answer: Any, command_id: int) -> None:
    assert answer.reply.command_id == command_id
    assert answer.reply.client_action.reply.payload == pack(protobuf.Empty())


def assert_failed(answer: Any, command_id: int, description: str) -> None:
    """The command failed, and the entity goes on."""
    failure = cloudstate.Failure(command_id=command_id, description=description)
    assert answer.reply.client_action.failure == failure
    assert answer.reply.command_id == command_id
    assert not answer.reply.events


# Discovery


def test_discovery_names_the_entity_and_leaves_the_protocol_version_at_0_0(node_cart: NodeCart) -> None:
    spec = uvloop.run(node_cart.discover(cloudstate.ProxyInfo(protocol_minor_version=2, proxy_name="test")))
    assert list(spec.entities) == [
        cloudstate.Entity(
            entity_type="cloudstate.eventsourced.EventSourced", service_name=SERVICE, persistence_id=PERSISTENCE_ID
        )
    ]
    info = spec.service_info
    assert (info.protocol_major_version, info.protocol_minor_version) == (0, 0)
    assert (info.support_library_name, info.support_library_version) == ("cloudstate", "0.0.3")
    assert (info.service_name, info.service_version) == ("shopping-cart", "1.0.0")
    assert info.service_runtime.startswith("node v")


def test_descriptor_set_is_complete_and_marks_entity_keys_by_the_legacy_number(node_cart: NodeCart) -> None:
    spec = uvloop.run(node_cart.discover())
    files = descriptor_pb2.FileDescriptorSet.FromString(spec.proto).file
    names = [file.name for file in files]
    assert {dependency for file in files for dependency in file.dependency} <= set(names)
    assert "cloudstate/entity_key.proto" in names

    messages = CartMessages(spec.proto)
    entity_key: Any = messages.pool.FindExtensionByName("cloudstate.entity_key")
    assert entity_key.number == 50002
    field_options = messages.named("google.protobuf.FieldOptions")
    for message in ("AddLineItem", "RemoveLineItem", "GetShoppingCart"):
        fields = messages.cart(message).DESCRIPTOR.fields
        options = {field.name: field_options.FromString(field.GetOptions().SerializeToString()) for field in fields}
        assert [name for name, option in options.items() if option.Extensions[entity_key]] == ["user_id"]


def test_reported_errors_are_acknowledged_and_logged(node_cart: NodeCart) -> None:
    async def report() -> bytes:
        async with grpc.aio.insecure_channel(node_cart.target) as channel:
            report_error = channel.unary_unary(
                "/cloudstate.EntityDiscovery/reportError",
                request_serializer=cloudstate.UserFunctionError.SerializeToString,
            )
            answer: bytes = await report_error(cloudstate.UserFunctionError(message="no such effect"), timeout=20)
            return answer

    assert uvloop.run(report()) == b""
    node_cart.wait_for_output("Error reported from sidecar: no such effect")


def test_protocols_of_unused_entity_types_are_unimplemented(node_cart: NodeCart) -> None:
    async def call() -> grpc.StatusCode:
        async with grpc.aio.insecure_channel(node_cart.target) as channel:
            handle = channel.stream_stream("/cloudstate.valueentity.ValueEntity/handle")
            return await handle(timeout=20).code()

    assert uvloop.run(call()) is grpc.StatusCode.UNIMPLEMENTED


# Commands


def test_add_item_emits_an_event_and_replies_empty(node_cart: NodeCart) -> None:
    async def scenario(stream: EntityStream, cart: Cart) -> None:
        await stream.init(SERVICE, USER)
        answer = await stream.command(1, "AddItem", cart.add_item("apple", 3), USER)
        assert_empty_reply(answer, 1)
        assert list(answer.reply.events) == [cart.item_added("apple", 3)]
        assert not answer.reply.HasField("snapshot")
        answer = await stream.command(2, "GetCart", cart.get_cart(), USER)
        assert answer.reply.client_action.reply.payload == cart.cart(("apple", 3))
        assert not answer.reply.events

    on_a_stream(node_cart, scenario)


def test_an_entity_without_events_starts_empty(node_cart: NodeCart) -> None:
    async def scenario(stream: EntityStream, cart: Cart) -> None:
        await stream.init(SERVICE, USER)
        answer = await stream.command(1, "GetCart", cart.get_cart(), USER)
        assert answer.reply.client_action.reply.payload == cart.cart()

    on_a_stream(node_cart, scenario)


def test_command_ids_beyond_double_precision_come_back_exactly(node_cart: NodeCart) -> None:
    async def scenario(stream: EntityStream, cart: Cart) -> None:
        await stream.init(SERVICE, USER)
        answer = await stream.command(2**60 + 1, "GetCart", cart.get_cart(), USER)
        assert answer.reply.command_id == 2**60 + 1

    on_a_stream(node_cart, scenario)


def test_neither_the_entity_id_nor_the_type_url_of_a_command_is_checked(node_cart: NodeCart) -> None:
    async def scenario(stream: EntityStream, cart: Cart) -> None:
        await stream.init(SERVICE, USER)
        command = cart.add_item("apple")
        command.type_url = "type.googleapis.com/of.nobody"
        assert_empty_reply(await stream.command(1, "AddItem", command, "bob"), 1)

    on_a_stream(node_cart, scenario)


# Snapshots and replay


def test_every_fifth_event_comes_with_a_snapshot_of_the_state_after_it(node_cart: NodeCart) -> None:
    async def scenario(stream: EntityStream, cart: Cart) -> None:
        await stream.init(SERVICE, USER)
        for number in range(1, 2 * SNAPSHOT_EVERY + 1):
            answer = await stream.command(number, "AddItem", cart.add_item(f"product{number}", number), USER)
            assert answer.reply.HasField("snapshot") == (number % SNAPSHOT_EVERY == 0)
        quantities = [(f"product{number}", number) for number in range(1, 2 * SNAPSHOT_EVERY + 1)]
        assert answer.reply.snapshot == cart.snapshot(*quantities)

    on_a_stream(node_cart, scenario)


def test_failed_and_reading_commands_do_not_advance_the_sequence(node_cart: NodeCart) -> None:
    async def scenario(stream: EntityStream, cart: Cart) -> None:
        await stream.init(SERVICE, USER)
        for number in range(1, SNAPSHOT_EVERY):
            await stream.event(number, cart.item_added("apple"))
        await stream.command(1, "RemoveItem", cart.remove_item("pear"), USER)
        await stream.command(2, "GetCart", cart.get_cart(), USER)
        answer = await stream.command(3, "AddItem", cart.add_item("apple"), USER)
        assert answer.reply.snapshot == cart.snapshot(("apple", SNAPSHOT_EVERY))

    on_a_stream(node_cart, scenario)


def test_replayed_events_rebuild_the_state(node_cart: NodeCart) -> None:
    async def scenario(stream: EntityStream, cart: Cart) -> None:
        await stream.init(SERVICE, USER)
        await stream.event(1, cart.item_added("apple", 2))
        await stream.event(2, cart.item_added("pear"))
        await stream.event(3, cart.item_added("apple", 3))
        await stream.event(4, cart.item_removed("pear"))
        answer = await stream.command(1, "GetCart", cart.get_cart(), USER)
        assert answer.reply.client_action.reply.payload == cart.cart(("apple", 5))

    on_a_stream(node_cart, scenario)


def test_a_snapshot_is_the_state_that_later_events_build_on(node_cart: NodeCart) -> None:
    async def scenario(stream: EntityStream, cart: Cart) -> None:
        await stream.init(SERVICE, USER, cart.snapshot(("apple", 2)), 7)
        await stream.event(8, cart.item_added("pear"))
        answer = await stream.command(1, "GetCart", cart.get_cart(), USER)
        assert answer.reply.client_action.reply.payload == cart.cart(("apple", 2), ("pear", 1))
        answer = await stream.command(2, "AddItem", cart.add_item("fig"), USER)
        assert not answer.reply.HasField("snapshot")
        answer = await stream.command(3, "AddItem", cart.add_item("fig"), USER)
        assert answer.reply.snapshot == cart.snapshot(("apple", 2), ("pear", 1), ("fig", 2))

    on_a_stream(node_cart, scenario)


def test_an_empty_snapshot_is_a_state_too(node_cart: NodeCart) -> None:
    async def scenario(stream: EntityStream, cart: Cart) -> None:
        await stream.init(SERVICE, USER, cart.snapshot(), 5)
        answer = await stream.command(1, "GetCart", cart.get_cart(), USER)
        assert answer.reply.client_action.reply.payload == cart.cart()

    on_a_stream(node_cart, scenario)


# Failures that the entity survives


def test_removing_an_absent_product_fails_the_command_and_the_stream_goes_on(node_cart: NodeCart) -> None:
    async def scenario(stream: EntityStream, cart: Cart) -> None:
        await stream.init(SERVICE, USER)
        answer = await stream.command(1, "RemoveItem", cart.remove_item("pear"), USER)
        assert_failed(answer, 1, "Item pear not in cart")
        assert_empty_reply(await stream.command(2, "AddItem", cart.add_item("apple"), USER), 2)

    on_a_stream(node_cart, scenario)


def test_adding_a_negative_quantity_fails_the_command(node_cart: NodeCart) -> None:
    async def scenario(stream: EntityStream, cart: Cart) -> None:
        await stream.init(SERVICE, USER)
        answer = await stream.command(1, "AddItem", cart.add_item("apple", -1), USER)
        assert_failed(answer, 1, "Cannot add negative quantity to item apple")

    on_a_stream(node_cart, scenario)


def test_an_unknown_command_is_a_failure_of_the_stream_that_does_not_end_it(node_cart: NodeCart) -> None:
    async def scenario(stream: EntityStream, cart: Cart) -> None:
        await stream.init(SERVICE, USER)
        answer = await stream.command(1, "Checkout", cart.get_cart(), USER)
        assert answer.failure == cloudstate.Failure(command_id=1, description="Unknown command named Checkout")
        assert_empty_reply(await stream.command(2, "AddItem", cart.add_item("apple"), USER), 2)

    on_a_stream(node_cart, scenario)


# Failures that end the stream: always a Failure, then status OK


def test_an_unreadable_command_ends_the_stream(node_cart: NodeCart) -> None:
    async def scenario(stream: EntityStream, cart: Cart) -> None:
        await stream.init(SERVICE, USER)
        command = cart.add_item("apple")
        command.value = b"\xff\xff"
        answer = await stream.command(1, "AddItem", command, USER)
        assert answer.failure.command_id == 1
        assert answer.failure.description.startswith("Error handling command 'AddItem': RangeError: ")
        assert await stream.rest() == []
        assert await stream.status() is grpc.StatusCode.OK

    on_a_stream(node_cart, scenario)


def test_a_command_without_payload_ends_the_stream(node_cart: NodeCart) -> None:
    async def scenario(stream: EntityStream, cart: Cart) -> None:
        await stream.init(SERVICE, USER)
        answer = await stream.command(1, "GetCart", None, USER)
        assert answer.failure.command_id == 1
        assert answer.failure.description.startswith("Error handling command 'GetCart': TypeError: ")
        assert await stream.rest() == []
        assert await stream.status() is grpc.StatusCode.OK

    on_a_stream(node_cart, scenario)


@pytest.mark.parametrize(
    ("first", "description"),
    [
        ({"command": {"id": 1, "name": "GetCart"}}, "Unknown message received before init"),
        ({"init": {"service_name": "com.example.Missing"}}, "Service 'com.example.Missing' unknown."),
    ],
    ids=["command before init", "unknown service"],
)
def test_a_stream_that_begins_wrongly_ends(node_cart: NodeCart, first: dict[str, Any], description: str) -> None:
    async def scenario(stream: EntityStream, cart: Cart) -> None:
        await stream.send(**first)
        assert (await stream.answer()).failure == cloudstate.Failure(description=description)
        assert await stream.rest() == []
        assert await stream.status() is grpc.StatusCode.OK

    on_a_stream(node_cart, scenario)


def test_a_second_init_ends_the_stream(node_cart: NodeCart) -> None:
    async def scenario(stream: EntityStream, cart: Cart) -> None:
        await stream.init(SERVICE, USER)
        await stream.init(SERVICE, USER)
        assert (await stream.answer()).failure == cloudstate.Failure(description="Init message received twice.")
        assert await stream.rest() == []
        assert await stream.status() is grpc.StatusCode.OK

    on_a_stream(node_cart, scenario)


def test_an_event_without_handler_ends_the_stream(node_cart: NodeCart) -> None:
    async def scenario(stream: EntityStream, cart: Cart) -> None:
        await stream.init(SERVICE, USER)
        await stream.event(1, cart.cart())
        description = "Fatal error handling message, check user container logs."
        assert (await stream.answer()).failure == cloudstate.Failure(description=description)
        assert await stream.rest() == []
        assert await stream.status() is grpc.StatusCode.OK

    on_a_stream(node_cart, scenario)


def test_a_snapshot_of_unknown_type_shows_only_at_the_first_command(node_cart: NodeCart) -> None:
    async def scenario(stream: EntityStream, cart: Cart) -> None:
        snapshot = protobuf.Any(type_url="type.googleapis.com/com.example.Missing")
        await stream.init(SERVICE, USER, snapshot, 5)
        answer = await stream.command(1, "GetCart", cart.get_cart(), USER)
        description = "Error handling command 'GetCart': Error: no such type: com.example.Missing"
        assert answer.failure == cloudstate.Failure(command_id=1, description=description)
        assert await stream.rest() == []

    on_a_stream(node_cart, scenario)


def test_events_in_flight_behind_a_bad_one_leave_a_stream_that_can_be_reset(node_cart: NodeCart) -> None:
    """Whether its status ever comes depends on timing, even after half-close: a proxy must not wait for it."""

    async def replay_bad_events(stream: EntityStream, cart: Cart) -> None:
        await stream.init(SERVICE, USER)
        try:
            for sequence in range(1, 4):
                await stream.event(sequence, cart.cart())
        except grpc.aio.AioRpcError:
            return  # it ended the stream before the last of them was written
        assert (await stream.answer()).HasField("failure")
        stream.call.cancel()

    async def work(stream: EntityStream, cart: Cart) -> None:
        await stream.init(SERVICE, USER)
        assert_empty_reply(await stream.command(1, "AddItem", cart.add_item("apple"), USER), 1)

    on_a_stream(node_cart, replay_bad_events)
    on_a_stream(node_cart, work)


# The end of a stream


def test_half_close_ends_the_stream_with_ok(node_cart: NodeCart) -> None:
    async def scenario(stream: EntityStream, cart: Cart) -> None:
        await stream.init(SERVICE, USER)
        await stream.command(1, "AddItem", cart.add_item("apple"), USER)
        assert await stream.passivate() == []
        assert await stream.status() is grpc.StatusCode.OK

    on_a_stream(node_cart, scenario)


def test_half_close_without_a_command_ends_the_stream_with_ok(node_cart: NodeCart) -> None:
    async def scenario(stream: EntityStream, cart: Cart) -> None:
        await stream.init(SERVICE, USER)
        assert await stream.passivate() == []
        assert await stream.status() is grpc.StatusCode.OK

    on_a_stream(node_cart, scenario)


def test_state_lives_only_in_the_stream(node_cart: NodeCart) -> None:
    async def add(stream: EntityStream, cart: Cart) -> None:
        await stream.init(SERVICE, USER)
        assert_empty_reply(await stream.command(1, "AddItem", cart.add_item("apple"), USER), 1)
        await stream.passivate()

    async def look(stream: EntityStream, cart: Cart) -> None:
        await stream.init(SERVICE, USER)
        answer = await stream.command(1, "GetCart", cart.get_cart(), USER)
        assert answer.reply.client_action.reply.payload == cart.cart()

    on_a_stream(node_cart, add)
    on_a_stream(node_cart, look)


# The process


def test_a_snapshot_without_value_kills_the_process(new_node_cart: NodeCart) -> None:
    """One such Init takes down every entity of the user function: a proxy must never send it."""

    async def scenario(stream: EntityStream, cart: Cart) -> None:
        await stream.send(init={"service_name": SERVICE, "entity_id": USER, "snapshot": {"snapshot_sequence": 5}})
        with pytest.raises(grpc.aio.AioRpcError) as broken:
            await stream.rest()
        assert broken.value.code() is grpc.StatusCode.UNAVAILABLE

    on_a_stream(new_node_cart, scenario)
    new_node_cart.wait_for_output("TypeError: Cannot read properties of undefined")


def test_it_takes_its_port_again_after_kill_9(new_node_cart: NodeCart) -> None:
    port = new_node_cart.port
    new_node_cart.restart()
    assert new_node_cart.port == port
    assert len(uvloop.run(new_node_cart.discover()).entities) == 1
