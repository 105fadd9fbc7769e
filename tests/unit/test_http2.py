"""Routes over HTTP/2: what a request looks like, and each way of answering it, against the pure-Python h2 library."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

import pytest
import uvloop
from h2.errors import ErrorCodes
from h2.events import DataReceived, StreamReset

from stateside._speedups import h2
from stateside.proxy.exchange import Later, Request, Response
from stateside.proxy.http2 import Web
from tests.protocol.frame_peers import FramePeer, frame_client
from tests.protocol.transport_peers import eventually


class Waiting(Later):
    def __init__(self) -> None:
        Later.__init__(self)
        self.gone = self.drained = 0

    def on_gone(self) -> None:
        self.gone += 1

    def on_drain(self) -> None:
        self.drained += 1


class Desk:
    """A route: `ready` is answered, otherwise the test answers what waits."""

    def __init__(self) -> None:
        self.asked: list[Request] = []
        self.waiting: list[Waiting] = []
        self.ready: Any = None

    def route(self, request: Request) -> Response | Later:
        self.asked.append(request)
        if isinstance(self.ready, Exception):
            raise self.ready
        if self.ready is not None:
            assert isinstance(self.ready, Response)
            return self.ready
        self.waiting.append(Waiting())
        return self.waiting[-1]

    async def next(self) -> Waiting:
        await eventually(lambda: self.waiting, "a request")
        return self.waiting.pop()


@asynccontextmanager
async def served(**limits: int) -> AsyncIterator[tuple[Desk, FramePeer]]:
    desk = Desk()
    server = h2.Server(asyncio.get_running_loop(), lambda path: None, limits=h2.Limits(**limits), web=Web(desk.route))
    client = await frame_client(await server.listen_tcp("127.0.0.1", 0))
    yield desk, client
    client.close()
    await server.close()


def get(client: FramePeer, *more: tuple[str, str], method: str = "GET") -> int:
    pseudo = [(":method", method), (":scheme", "http"), (":path", "/a?b=c"), (":authority", "here")]
    return client.request([*pseudo, *more])


def test_a_request_is_one_as_over_http_1_1() -> None:
    async def body() -> None:
        async with served() as (desk, client):
            desk.ready = Response(HTTPStatus.OK)
            await client.ended(get(client, ("x-a", "1"), ("cookie", "a=b"), ("x-a", "2"), ("cookie", "c=d")))
            (request,) = desk.asked
            assert (request.method, request.target, request.path, request.version) == ("GET", b"/a?b=c", "/a", "2")
            assert request.headers == {"host": "here", "x-a": "2", "cookie": "a=b; c=d"}
            assert request.fields.count((b"x-a", b"1")) == 1 and request.peer.startswith("127.0.0.1:")

    uvloop.run(body())


def test_headers_of_answers() -> None:
    async def body() -> None:
        async with served() as (desk, client):
            desk.ready = Response(
                HTTPStatus.CREATED, b"abc", "a/b", (("X-Y", "z"), ("Connection", "close"), ("Transfer-Encoding", "x"))
            )
            stream = get(client)
            assert await client.ended(stream) == {
                ":status": "201",
                "content-type": "a/b",
                "x-y": "z",
                "content-length": "3",
            }
            assert client.body(stream) == b"abc"

    uvloop.run(body())


@pytest.mark.parametrize("in_pieces", [False, True])
def test_what_cannot_be_sent_is_an_internal_error(in_pieces: bool) -> None:
    async def body() -> None:
        async with served() as (desk, client):
            wrong = Response(HTTPStatus.OK, b"x", "a/b", (("x", "a\r\nb"),))
            desk.ready = None if in_pieces else wrong
            stream = get(client)
            if in_pieces:
                later = await desk.next()
                later.begin(wrong)
                assert later.gone == 1 and later.write(b"x")
            assert (await client.ended(stream))[":status"] == "500"

    uvloop.run(body())


def test_a_route_that_fails_is_an_internal_error() -> None:
    async def body() -> None:
        async with served() as (desk, client):
            desk.ready = ValueError("a mistake of ours")
            assert (await client.ended(get(client)))[":status"] == "500"

    uvloop.run(body())


def test_answers_that_come_later() -> None:
    async def body() -> None:
        async with served() as (desk, client):
            first, second = get(client), get(client)
            await eventually(lambda: len(desk.waiting) == 2, "both requests")
            one, two = desk.waiting
            two.answer(Response(HTTPStatus.OK, b"two"))
            await client.ended(second)
            one.begin(Response(HTTPStatus.OK, b"o"))
            one.write(b"ne")
            one.end()
            two.answer(Response(HTTPStatus.OK, b"again"))
            await client.ended(first)
            assert (client.body(first), client.body(second)) == (b"one", b"two")
            assert not one.gone and not two.gone

    uvloop.run(body())


def test_answers_that_break_off() -> None:
    async def body() -> None:
        async with served() as (desk, client):
            for break_off in (lambda later: later.end(False), lambda later: later.answer(Response(HTTPStatus.OK))):
                stream = get(client)
                later = await desk.next()
                later.begin(Response(HTTPStatus.OK, b"x"))
                break_off(later)
                assert (await client.wait_for(StreamReset, stream)).error_code == ErrorCodes.INTERNAL_ERROR
                assert client.body(stream) == b"x" and not later.gone

    uvloop.run(body())


def test_head_is_answered_by_the_headers_alone() -> None:
    async def body() -> None:
        async with served() as (desk, client):
            stream = get(client, method="HEAD")
            later = await desk.next()
            later.begin(Response(HTTPStatus.OK, b"x"))
            assert later.gone == 1 and later.write(b"y")
            later.end()
            await client.ended(stream)
            assert not client.of(DataReceived)

    uvloop.run(body())


def test_pace_and_parting() -> None:
    async def body() -> None:
        async with served(send_high_water=1000, send_low_water=100) as (desk, client):
            client.auto_window = False
            stream = get(client)
            later = await desk.next()
            later.begin(Response(HTTPStatus.OK))
            assert not later.write(bytes(70_000))
            await eventually(lambda: len(client.body(stream)) == 65_535, "a window of it")
            client.h2.increment_flow_control_window(70_000)
            client.h2.increment_flow_control_window(70_000, stream)
            client.flush()
            await eventually(lambda: later.drained == 1, "the drain")
            client.h2.reset_stream(stream, ErrorCodes.CANCEL)
            client.flush()
            await eventually(lambda: later.gone == 1, "the reset")
            assert later.write(b"x")
            later.end()

    uvloop.run(body())
