"""The server of a user function: addresses, signals, graceful stop, back-pressure, and another gRPC implementation as
client.
"""

from __future__ import annotations

import asyncio
import gc
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import uvloop
from google.protobuf.empty_pb2 import Empty

from examples.shopping_cart.client import CallFailed, CartClient, add_item, get_cart
from examples.shopping_cart.entity import ShoppingCart
from examples.shopping_cart.protos.shoppingcart import shoppingcart_pb2 as shop
from examples.shopping_cart.protos.shoppingcart.persistence import domain_pb2 as domain
from stateside._speedups import wire
from stateside._speedups.h2 import Channel, Handler, Server, live_objects
from stateside.proto import cloudstate, eventsourced, pack
from stateside.proto.status import Status
from stateside.support import EventSourced, EventSourcedContext, Fail, Hooks, Stateside, command
from stateside.support.server import _address
from stateside.support.testkit import TestKit

ROOT = Path(__file__).parents[2]
CART = "com.example.shoppingcart.ShoppingCart"
HANDLE = b"/cloudstate.eventsourced.EventSourced/handle"
DISCOVER = b"/cloudstate.EntityDiscovery/discover"
GET = shop.GetShoppingCart(user_id="u").SerializeToString()


class Quiet(Hooks):
    """Keeps addresses, logs nothing."""

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self.stops: list[int] = []
        self.ready = asyncio.Event()

    def started(self, address: str) -> None:
        self.addresses.append(address)
        self.ready.set()

    def stopping(self, open_streams: int) -> None:
        self.stops.append(open_streams)


@EventSourced(service=shop.DESCRIPTOR.services_by_name["ShoppingCart"])
class Patient:
    """Its only command waits for the test."""

    gate: asyncio.Event
    entered: asyncio.Event

    @command
    async def add_item(self, ctx: EventSourcedContext) -> Empty:
        Patient.entered.set()
        await Patient.gate.wait()
        return Empty()


class Stream(Handler):
    """Client side of an entity stream."""

    def __init__(self, channel: Channel, entity_id: str = "u") -> None:
        self.received: list[bytes] = []
        self.status: int | None = None
        self.changed = asyncio.Event()
        self.entity_id = entity_id
        self.count = 0
        self.call = channel.open(HANDLE, self)
        self.call.send(wire.write_init(CART, entity_id))

    def on_message(self, call: Any, message: bytes) -> None:
        self.received.append(message)
        self.changed.set()

    def on_end(self, call: Any, status: int, message: str) -> None:
        self.status = status
        self.changed.set()

    def command(self, method: str, payload: bytes) -> None:
        self.count += 1
        writer = wire.CommandWriter(3, method, "type.googleapis.com/x")
        self.call.send(writer.write(self.entity_id.encode(), self.count, payload))

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


class Reply(Handler):
    """Collects the answer of a unary call."""

    def __init__(self) -> None:
        self.done: asyncio.Future[tuple[int, list[bytes]]] = asyncio.get_running_loop().create_future()
        self.messages: list[bytes] = []

    def on_message(self, call: Any, message: bytes) -> None:
        self.messages.append(message)

    def on_end(self, call: Any, status: int, message: str) -> None:
        self.done.set_result((status, self.messages))


async def discover(channel: Channel) -> Any:
    reply = Reply()
    call = channel.open(DISCOVER, reply)
    call.send(cloudstate.ProxyInfo(proxy_name="test").SerializeToString())
    call.half_close()
    status, [message] = await asyncio.wait_for(reply.done, 5)
    assert status == Status.OK
    return cloudstate.EntitySpec.FromString(message)


@asynccontextmanager
async def started(app: Stateside, **address: Any) -> AsyncIterator[Stateside]:
    """A listening user function, on a free port unless told otherwise."""
    await app.start(**(address or {"host": "127.0.0.1", "port": 0}))
    try:
        yield app
    finally:
        await app.stop(0)


@asynccontextmanager
async def connected(port: int = 0, unix: str = "") -> AsyncIterator[Channel]:
    loop = asyncio.get_running_loop()
    channel = await (Channel.connect_unix(loop, unix) if unix else Channel.connect(loop, "127.0.0.1", port))
    try:
        yield channel
    finally:
        channel.close()


def serving(*entities: type) -> Callable[[Callable[[Stateside, Channel], Coroutine[Any, Any, None]]], None]:
    """Run a check against a started user function, on uvloop as in production."""

    def run(check: Callable[[Stateside, Channel], Coroutine[Any, Any, None]]) -> None:
        async def main() -> None:
            async with started(Stateside(*entities, hooks=Quiet())) as app, connected(app.port) as channel:
                await check(app, channel)

        uvloop.run(main())

    return run


# --- addresses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "port", "environment", "expected"),
    [
        (None, None, {}, ("127.0.0.1", 8080)),
        (None, None, {"HOST": "0.0.0.0", "PORT": "9"}, ("0.0.0.0", 9)),
        (None, None, {"HOST": "", "PORT": ""}, ("127.0.0.1", 8080)),
        ("::1", 0, {"HOST": "0.0.0.0", "PORT": "9"}, ("::1", 0)),
        (None, 7, {"HOST": "h", "PORT": "nonsense"}, ("h", 7)),
    ],
)
def test_arguments_go_before_the_environment_and_that_before_the_defaults(
    host: str | None, port: int | None, environment: dict[str, str], expected: tuple[str, int]
) -> None:
    assert _address(host, port, environment) == expected


@pytest.mark.parametrize("text", ["http", "-1", "65536", "８０"])
def test_a_port_that_is_none_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="is not a port"):
        _address(None, None, {"PORT": text})


def test_port_0_takes_a_free_port_and_tells_it() -> None:
    async def check(app: Stateside, channel: Channel) -> None:
        assert app.port > 0
        spec = await discover(channel)
        assert [entity.service_name for entity in spec.entities] == [CART]

    serving(ShoppingCart)(check)


def test_a_taken_port_fails_loudly_and_the_application_can_try_another() -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            app = Stateside(ShoppingCart, hooks=Quiet())
            with pytest.raises(OSError, match="in use"):
                await app.start("127.0.0.1", taken.getsockname()[1])
            assert app.port == 0
            async with started(app):
                assert app.port > 0
                with pytest.raises(RuntimeError, match="already started"):
                    await app.start("127.0.0.1", 0)

    uvloop.run(main())


def test_nothing_listens_without_entities() -> None:
    with pytest.raises(Exception, match="No entity is registered"):
        uvloop.run(Stateside(hooks=Quiet()).start("127.0.0.1", 0))


def test_a_unix_socket_serves_as_well(tmp_path: Path) -> None:
    async def main() -> None:
        path = str(tmp_path / "user-function.sock")
        async with started(Stateside(ShoppingCart, hooks=Quiet()), unix=path) as app, connected(unix=path) as channel:
            assert app.port == 0
            assert (await discover(channel)).service_info.protocol_minor_version == 2

    uvloop.run(main())


# --- stopping --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_completes_idle_streams_and_ends_serve(number: signal.Signals) -> None:
    async def main() -> None:
        hooks = Quiet()
        app = Stateside(ShoppingCart, hooks=hooks)
        task = asyncio.create_task(app.serve("127.0.0.1", 0))
        await asyncio.wait_for(hooks.ready.wait(), 5)
        async with connected(app.port) as channel:
            stream = Stream(channel)
            stream.command("GetCart", GET)
            await stream.until(lambda: bool(stream.received))
            os.kill(os.getpid(), number)
            await asyncio.wait_for(task, 5)
            await stream.until(lambda: stream.status is not None)
            assert (stream.status, hooks.stops) == (Status.OK, [1])

    uvloop.run(main())


def test_a_stop_lets_the_command_under_way_be_answered() -> None:
    async def check(app: Stateside, channel: Channel) -> None:
        Patient.gate, Patient.entered = asyncio.Event(), asyncio.Event()
        stream = Stream(channel)
        stream.command("AddItem", b"")
        await asyncio.wait_for(Patient.entered.wait(), 5)
        stopping = asyncio.create_task(app.stop(5))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(stopping), 0.05)
        Patient.gate.set()
        await stream.until(lambda: stream.status is not None)
        await stopping
        assert (stream.status, len(stream.received)) == (Status.OK, 1)

    serving(Patient)(check)


def test_a_command_that_outlasts_the_grace_period_is_cut_off() -> None:
    async def check(app: Stateside, channel: Channel) -> None:
        Patient.gate, Patient.entered = asyncio.Event(), asyncio.Event()
        stream = Stream(channel)
        stream.command("AddItem", b"")
        await asyncio.wait_for(Patient.entered.wait(), 5)
        await asyncio.wait_for(app.stop(0.05), 5)
        await stream.until(lambda: stream.status is not None)
        assert stream.status != Status.OK and stream.received == []

    serving(Patient)(check)


def test_a_user_function_runs_as_a_process_until_it_is_told_to_stop() -> None:
    environment = {**os.environ, "HOST": "127.0.0.1", "PORT": "0"}
    with subprocess.Popen(
        [sys.executable, "-m", "examples.shopping_cart"], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        found = re.fullmatch(r"Shopping cart at 127\.0\.0\.1:(\d+)\n", process.stdout.readline())
        assert found is not None

        async def check() -> None:
            async with connected(int(found[1])) as channel:
                assert (await discover(channel)).service_info.service_name == "shopping-cart"

        uvloop.run(check())
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0


# --- streams over the network ----------------------------------------------------------------------------------------


def test_a_long_replay_and_then_a_command() -> None:
    async def check(app: Stateside, channel: Channel) -> None:
        stream = Stream(channel)
        event = pack(domain.ItemAdded(item=domain.LineItem(productId="p", quantity=1))).SerializeToString()
        stream.call.send_framed(wire.frame_events(1, [event] * 5000))
        stream.command("GetCart", GET)
        await stream.until(lambda: bool(stream.received))
        out = wire.scan_event_sourced_out(stream.received[0])
        assert shop.Cart.FromString(out.payload).items[0].quantity == 5000

    serving(ShoppingCart)(check)


def test_a_proxy_that_does_not_read_stops_its_entity_and_no_other() -> None:
    commands = 400

    async def check(app: Stateside, channel: Channel) -> None:
        slow, quick = Stream(channel, "slow"), Stream(channel, "quick")
        slow.command("AddItem", shop.AddLineItem(product_id="p", name="x" * 10_000, quantity=1).SerializeToString())
        await slow.until(lambda: len(slow.received) == 1)
        slow.call.pause()
        for _ in range(commands):
            slow.command("GetCart", GET)
        for number in range(3):
            quick.command("GetCart", GET)
            await quick.until(lambda n=number: len(quick.received) == n + 1)  # type: ignore[misc]
        [server_side] = [stream for stream in app._event_sourced.streams if stream.entity_id == "slow"]
        assert server_side._blocked and len(server_side._waiting) < commands
        slow.call.resume()
        await slow.until(lambda: len(slow.received) == commands + 1)
        ids = [wire.scan_event_sourced_out(message).command_id for message in slow.received]
        assert ids == list(range(1, commands + 2))

    serving(ShoppingCart)(check)


def test_another_grpc_implementation_can_be_the_proxy() -> None:
    async def check(app: Stateside, _: Channel) -> None:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{app.port}") as channel:
            call = channel.unary_unary(
                DISCOVER.decode(), cloudstate.ProxyInfo.SerializeToString, cloudstate.EntitySpec.FromString
            )
            assert (await call(cloudstate.ProxyInfo())).entities[0].persistence_id == "shopping-cart"
            stream = channel.stream_stream(
                HANDLE.decode(),
                eventsourced.EventSourcedStreamIn.SerializeToString,
                eventsourced.EventSourcedStreamOut.FromString,
            )()
            await stream.write(eventsourced.EventSourcedStreamIn(init={"service_name": CART, "entity_id": "u"}))
            payload = pack(shop.AddLineItem(user_id="u", product_id="p", quantity=1))
            for number in (1, 2):
                envelope = {"entity_id": "u", "id": number, "name": "AddItem", "payload": payload}
                await stream.write(eventsourced.EventSourcedStreamIn(command=envelope))
                reply = (await stream.read()).reply
                assert (reply.command_id, len(reply.events)) == (number, 1)
                assert reply.client_action.reply.payload == pack(Empty())
            await stream.done_writing()
            assert await stream.read() == grpc.aio.EOF
            assert await stream.code() == grpc.StatusCode.OK

    serving(ShoppingCart)(check)


# --- the client of the example ---------------------------------------------------------------------------------------


class KitProxy(Handler):
    """A stand-in for the proxy: the ShoppingCart service answered by the test kit."""

    unary = True

    def __init__(self, kit: TestKit) -> None:
        self.kit = kit

    def on_request(self, call: Any, message: bytes) -> None:
        method = call.path.decode().rpartition("/")[2]
        requests: dict[str, Any] = {
            "AddItem": shop.AddLineItem,
            "RemoveItem": shop.RemoveLineItem,
            "GetCart": shop.GetShoppingCart,
        }
        command = requests[method].FromString(message)
        result = self.kit.entity(command.user_id).call(method, command)
        if result.failure is not None:
            call.fail(Status.UNKNOWN, result.failure)
        else:
            call.reply(result.reply.SerializeToString())


def test_the_example_client_fills_and_shows_a_cart() -> None:
    async def main() -> None:
        proxy = KitProxy(TestKit(ShoppingCart))
        server = Server(asyncio.get_running_loop(), lambda path: proxy)
        port = await server.listen_tcp("127.0.0.1", 0)
        try:
            await shop_for_tea(port)
        finally:
            await server.close(0)

    async def shop_for_tea(port: int) -> None:
        await add_item("alice", "tea", "Green tea", 2, port=port)
        async with await CartClient.connect("127.0.0.1", port) as client:
            await client.add_item("alice", "cup", "Cup", 1)
            assert await client.get_cart("alice") == [("tea", "Green tea", 2), ("cup", "Cup", 1)]
            await client.remove_item("alice", "tea")
            with pytest.raises(CallFailed, match="UNKNOWN: Item tea not in cart"):
                await client.remove_item("alice", "tea")
        assert await get_cart("alice", port=port) == [("cup", "Cup", 1)]

    uvloop.run(main())


def test_fail_texts_travel_verbatim() -> None:
    @EventSourced(service=shop.DESCRIPTOR.services_by_name["ShoppingCart"])
    class Refusing:
        @command
        def add_item(self) -> Empty:
            raise Fail("nö: 100 %\n\u2603")

    async def check(app: Stateside, channel: Channel) -> None:
        stream = Stream(channel)
        stream.command("AddItem", b"")
        await stream.until(lambda: bool(stream.received))
        assert wire.scan_event_sourced_out(stream.received[0]).description == "nö: 100 %\n\u2603"

    serving(Refusing)(check)


def test_ended_streams_leave_nothing_behind() -> None:
    async def check(app: Stateside, channel: Channel) -> None:
        gc.collect()
        before = live_objects()["calls"]
        streams = [Stream(channel, f"u{number}") for number in range(50)]
        for stream in streams:
            stream.command("GetCart", GET)
            stream.call.half_close()
        for stream in streams:
            await stream.until(lambda one=stream: one.status is not None)  # type: ignore[misc]
        assert len(app._event_sourced.streams) == 0
        del stream
        streams.clear()
        gc.collect()
        assert live_objects()["calls"] == before

    serving(ShoppingCart)(check)


@pytest.mark.parametrize("how", ["request_stop", "cancel"])
def test_serve_can_be_ended_from_the_same_process(how: str) -> None:
    async def main() -> None:
        hooks = Quiet()
        app = Stateside(ShoppingCart, hooks=hooks)
        task = asyncio.create_task(app.serve("127.0.0.1", 0))
        await asyncio.wait_for(hooks.ready.wait(), 5)
        port = app.port
        if how == "cancel":
            task.cancel()
        else:
            app.request_stop()
        await asyncio.wait([task], timeout=5)
        assert task.done() and task.cancelled() == (how == "cancel")
        with pytest.raises(ConnectionRefusedError):
            await Channel.connect(asyncio.get_running_loop(), "127.0.0.1", port)

    uvloop.run(main())
