"""One entity stream against a transport that the test plays: order of commands, back-pressure, passivation, loss."""

from __future__ import annotations

import asyncio
from typing import Any

from google.protobuf.empty_pb2 import Empty

from examples.shopping_cart.protos.shoppingcart import shoppingcart_pb2 as shop
from stateside._speedups import wire
from stateside.support import EventSourced, EventSourcedContext, Hooks, command, event
from stateside.support.event_sourced_model import EventSourcedType
from stateside.support.event_sourced_stream import EventSourcedHandler, State

CART = shop.DESCRIPTOR.services_by_name["ShoppingCart"]


@EventSourced(service=CART)
class Slow:
    """AddItem waits until the test lets it go; RemoveItem is answered at once."""

    gates: dict[str, asyncio.Event]
    log: list[str]

    @command
    async def add_item(self, request: shop.AddLineItem, ctx: EventSourcedContext) -> Empty:
        Slow.log.append(f"begin {request.product_id}")
        await Slow.gates.setdefault(request.product_id, asyncio.Event()).wait()
        ctx.emit(request.product_id)
        Slow.log.append(f"end {request.product_id}")
        return Empty()

    @command
    def remove_item(self, request: shop.RemoveLineItem, ctx: EventSourcedContext) -> Empty:
        Slow.log.append(f"remove {request.product_id}")
        return Empty()

    @event
    def on_event(self, event: str) -> None: ...


class FakeCall:
    """Keeps what the stream does to its call; `full` makes the next sends answer that the queue is full."""

    def __init__(self) -> None:
        self.context: Any = None
        self.sent: list[bytes] = []
        self.log: list[str] = []
        self.full = False

    def send(self, message: bytes) -> bool:
        self.sent.append(message)
        return not self.full

    def finish(self, status: int = 0, message: str = "") -> None:
        self.log.append(f"finish {status}" if status else "finish")

    def pause(self) -> None:
        self.log.append("pause")

    def resume(self) -> None:
        self.log.append("resume")

    def replies(self) -> list[tuple[int, int]]:
        """(kind, command id) of everything sent."""
        return [(out.kind, out.command_id) for out in map(wire.scan_event_sourced_out, self.sent)]


class Entity:
    """A stream of `Slow`, opened as the transport would."""

    def __init__(self, handler: EventSourcedHandler, entity_id: str = "u") -> None:
        self.handler, self.entity_id, self.call, self.count = handler, entity_id, FakeCall(), 0
        handler.on_open(self.call)
        self.stream = self.call.context
        handler.on_message(self.call, wire.write_init(CART.full_name, entity_id))

    def send(self, method: str, product: str) -> None:
        self.count += 1
        message = (shop.AddLineItem if method == "AddItem" else shop.RemoveLineItem)(product_id=product)
        writer = wire.CommandWriter(3, method, "type.googleapis.com/x")
        data = writer.write(self.entity_id.encode(), self.count, message.SerializeToString())
        self.handler.on_message(self.call, data)


def handler() -> EventSourcedHandler:
    Slow.gates, Slow.log = {}, []
    made = EventSourcedHandler({CART.full_name}, Hooks())
    made.types[CART.full_name] = EventSourcedType(Slow)
    return made


async def turns() -> None:
    """Let everything that is ready run."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_commands_of_one_entity_run_one_at_a_time_and_in_order() -> None:
    async def check() -> None:
        entity = Entity(handler())
        for method, product in [("AddItem", "a"), ("RemoveItem", "b"), ("AddItem", "c"), ("RemoveItem", "d")]:
            entity.send(method, product)
        await turns()
        assert Slow.log == ["begin a"]
        assert entity.call.log == ["pause"]
        Slow.gates["a"].set()
        await turns()
        assert Slow.log == ["begin a", "end a", "remove b", "begin c"]
        Slow.gates["c"].set()
        await turns()
        assert entity.call.replies() == [(wire.KIND_REPLY, number) for number in (1, 2, 3, 4)]
        assert entity.call.log == ["pause", "resume"]

    asyncio.run(check())


def test_other_entities_go_on_while_one_waits() -> None:
    async def check() -> None:
        shared = handler()
        one, two = Entity(shared, "one"), Entity(shared, "two")
        one.send("AddItem", "a")
        two.send("RemoveItem", "b")
        two.send("RemoveItem", "c")
        assert two.call.replies() == [(wire.KIND_REPLY, 1), (wire.KIND_REPLY, 2)]
        await turns()
        assert one.call.sent == []
        Slow.gates["a"].set()
        await turns()
        assert len(one.call.sent) == 1

    asyncio.run(check())


def test_a_full_send_queue_stops_the_entity_until_it_drains() -> None:
    entity = Entity(handler())
    entity.call.full = True
    entity.send("RemoveItem", "a")
    entity.send("RemoveItem", "b")
    assert Slow.log == ["remove a"]
    assert entity.call.log == ["pause"]
    entity.call.full = False
    entity.handler.on_drain(entity.call)
    assert Slow.log == ["remove a", "remove b"]
    assert entity.call.log == ["pause", "resume"]


def test_passivation_finishes_the_stream_and_forgets_the_instance() -> None:
    entity = Entity(handler())
    entity.handler.on_half_close(entity.call)
    assert entity.call.log == ["finish"] and entity.call.sent == []
    assert entity.call.context is None and entity.stream.instance is None
    assert entity.handler.streams == set()


def test_passivation_waits_for_the_command_under_way() -> None:
    async def check() -> None:
        entity = Entity(handler())
        entity.send("AddItem", "a")
        await turns()
        entity.handler.on_half_close(entity.call)
        assert entity.call.log == []
        Slow.gates["a"].set()
        await turns()
        assert entity.call.log == ["finish"] and len(entity.call.sent) == 1

    asyncio.run(check())


def test_a_lost_stream_cancels_its_async_handler() -> None:
    async def check() -> None:
        entity = Entity(handler())
        entity.send("AddItem", "a")
        entity.send("RemoveItem", "b")
        await turns()
        entity.handler.on_cancel(entity.call, 1)
        Slow.gates["a"].set()
        await turns()
        assert Slow.log == ["begin a"]
        assert entity.call.sent == [] and "finish" not in entity.call.log
        assert entity.handler.streams == set()

    asyncio.run(check())


def test_a_handler_that_cancels_itself_fails_the_stream_instead_of_hanging() -> None:
    @EventSourced(service=CART)
    class Cancels:
        @command
        async def add_item(self) -> Empty:
            raise asyncio.CancelledError

    async def check() -> None:
        shared = handler()
        shared.types[CART.full_name] = EventSourcedType(Cancels)
        entity = Entity(shared)
        entity.send("AddItem", "a")
        await turns()
        assert entity.call.replies() == [(wire.KIND_FAILURE, 1)]
        assert entity.call.log == ["finish"]

    asyncio.run(check())


def test_stopping_answers_what_has_arrived_and_refuses_new_streams() -> None:
    async def check() -> None:
        shared = handler()
        idle, busy = Entity(shared, "idle"), Entity(shared, "busy")
        busy.send("AddItem", "a")
        busy.send("RemoveItem", "b")
        await turns()
        shared.stop()
        assert idle.call.log == ["finish"]
        assert busy.stream.state is State.BUSY
        late = FakeCall()
        shared.on_open(late)
        assert late.log == ["finish 14"]
        Slow.gates["a"].set()
        await turns()
        assert busy.call.replies() == [(wire.KIND_REPLY, 1), (wire.KIND_REPLY, 2)]
        assert busy.call.log[-1] == "finish"

    asyncio.run(check())


def test_messages_after_the_end_of_a_stream_are_ignored() -> None:
    entity = Entity(handler())
    entity.handler.on_half_close(entity.call)
    entity.send("RemoveItem", "a")
    entity.handler.on_half_close(entity.call)
    entity.handler.on_drain(entity.call)
    entity.handler.on_cancel(entity.call, 1)
    assert Slow.log == [] and entity.call.log == ["finish"]
