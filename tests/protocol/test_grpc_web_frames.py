"""gRPC-web over HTTP/2, frame by frame: cancelling, windows and deadlines, from an h2 client to a handler of gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop
from h2.errors import ErrorCodes
from h2.events import DataReceived, ResponseReceived
from h2.settings import SettingCodes

from stateside._speedups import h2
from stateside.proto.status import Status
from stateside.proxy.grpc_web import GrpcWeb, frame
from stateside.proxy.http2 import Web

from .frame_peers import FramePeer, frame_client
from .transport_peers import OurServer, eventually

Run = Callable[[Coroutine[Any, Any, None]], None]

LIMIT = 100_000
WINDOW = 65_535
METHOD = b"/pkg.Service/Method"


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        yield lambda body: runner.run(body)


class Method(h2.Handler):
    """Takes one message and leaves the answer to the test."""

    unary = True

    def __init__(self) -> None:
        self.asked: list[tuple[Any, bytes]] = []
        self.cancelled: list[int] = []
        self.drained = 0

    def on_request(self, call: Any, message: bytes) -> None:
        self.asked.append((call, message))

    def on_drain(self, call: Any) -> None:
        self.drained += 1

    def on_cancel(self, call: Any, status: int) -> None:
        self.cancelled.append(status)

    async def call(self) -> Any:
        await eventually(lambda: bool(self.asked), "the request")
        return self.asked[0][0]


@asynccontextmanager
async def served(**client_settings: Any) -> AsyncIterator[tuple[OurServer, Method, FramePeer]]:
    loop, method, server = asyncio.get_running_loop(), Method(), OurServer()
    face = GrpcWeb({METHOD: method}.get, loop, LIMIT)
    limits = h2.Limits(max_message_size=LIMIT)
    server.server = h2.Server(loop, server.routes.get, limits=limits, web=Web(face.route))
    await server.start()
    client = await frame_client(server.port, **client_settings)
    try:
        yield server, method, client
    finally:
        client.close()
        await server.close()
        assert face.calls == 0


def headers(*more: tuple[str, str]) -> list[tuple[str, str]]:
    pseudo = [(":method", "POST"), (":scheme", "http"), (":path", METHOD.decode()), (":authority", "here")]
    return [*pseudo, ("content-type", "application/grpc-web+proto"), *more]


def test_a_call_in_several_frames_and_its_answer(run: Run) -> None:
    async def body() -> None:
        async with served() as (_, method, client):
            question = frame(0, b"question")
            stream = client.request(headers(("x-token", "t")), question[:3], end=False)
            client.h2.send_data(stream, question[3:], end_stream=True)
            client.flush()
            call = await method.call()
            assert method.asked[0][1] == b"question"
            assert (b"x-token", b"t") in call.headers
            assert call.peer.startswith("127.0.0.1:")
            call.reply(b"answer", [(b"x-id", b"7")])
            answered = await client.ended(stream)
            assert (answered[":status"], answered["x-id"]) == ("200", "7")
            assert answered["content-type"] == "application/grpc-web+proto"
            assert client.body(stream) == frame(0, b"answer") + frame(0x80, b"grpc-status: 0\r\n")

    run(body())


@pytest.mark.parametrize("begun", [False, True])
def test_a_reset_cancels_the_call_and_not_its_neighbour(run: Run, begun: bool) -> None:
    async def body() -> None:
        async with served() as (_, method, client):
            streams = [client.request(headers(), frame(0, name)) for name in (b"one", b"two")]
            await eventually(lambda: len(method.asked) == 2, "both calls")
            if begun:
                method.asked[0][0].send(b"part")
                await client.wait_for(DataReceived, streams[0])
            client.h2.reset_stream(streams[0], ErrorCodes.CANCEL)
            client.flush()
            await eventually(lambda: method.cancelled == [Status.CANCELLED], "the cancellation")
            assert method.asked[0][0].ended
            method.asked[1][0].reply(b"two")
            await client.ended(streams[1])
            assert client.body(streams[1]).startswith(frame(0, b"two"))

    run(body())


def test_a_connection_that_is_lost_cancels_its_calls(run: Run) -> None:
    async def body() -> None:
        async with served() as (server, method, client):
            client.request(headers(), frame(0, b""))
            await method.call()
            client.close()
            await eventually(lambda: method.cancelled == [Status.CANCELLED], "the cancellation")
            await server.idle()

    run(body())


def test_a_client_that_grants_no_window_stops_the_handler_until_it_does(run: Run) -> None:
    async def body() -> None:
        async with served(auto_window=False, settings={SettingCodes.INITIAL_WINDOW_SIZE: 0}) as (_, method, client):
            stream = client.request(headers(), frame(0, b""))
            call = await method.call()
            sent = 0
            assert call.send(b"x" * 10_000)
            while call.send(b"x" * 10_000):
                sent += 1
                assert sent < 100
            await client.wait_for(ResponseReceived, stream)
            assert client.of(DataReceived, stream) == []
            client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: WINDOW})
            client.flush()
            while not method.drained:
                for event in client.of(DataReceived, stream):
                    client.h2.acknowledge_received_data(event.flow_controlled_length, stream)
                    client.events.remove(event)
                client.flush()
                await asyncio.sleep(0.001)
            assert method.drained == 1
            client.close()
            await eventually(lambda: method.cancelled == [Status.CANCELLED], "the cancellation")

    run(body())


def test_a_deadline_ends_the_call_with_trailers_in_the_body(run: Run) -> None:
    async def body() -> None:
        async with served() as (_, method, client):
            stream = client.request(headers(("grpc-timeout", "30m")), frame(0, b""))
            answered = await client.ended(stream)
            assert answered[":status"] == "200"
            assert client.body(stream) == frame(0x80, b"grpc-status: 4\r\ngrpc-message: deadline exceeded\r\n")
            assert method.cancelled == [Status.DEADLINE_EXCEEDED]

    run(body())


def test_a_body_beyond_the_limit_is_413(run: Run) -> None:
    async def body() -> None:
        async with served() as (_, method, client):
            stream = client.request(headers(("content-length", str(LIMIT + 1))), b"x" * 1000, end=False)
            await client.wait_for(ResponseReceived, stream)
            status = dict(client.of(ResponseReceived, stream)[0].headers)[":status"]
            assert (status, method.asked) == ("413", [])

    run(body())
