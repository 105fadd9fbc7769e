"""Streamed methods over HTTP on the main port of a real proxy: lines, events, HTTP/2 and WebSocket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from h2.errors import ErrorCodes
from h2.events import DataReceived, ResponseReceived, StreamReset
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong

from tests.protocol.frame_peers import FramePeer, frame_client

from .action_calls import function, path
from .action_function import (
    MODEL,
    ActionFunction,
    entries,
    failure,
    forward_two,
    message,
    opening,
    plain,
    reply,
    request,
    say,
)
from .harness import ProxyProcess, World, eventually
from .http_client import JSON, HttpConnection, ask
from .socket_client import ACCEPTED, OFFER, Socket
from .user_function import soon

SETTINGS = {"journal": "memory:", "max_request_size": "64K"}
USER_FUNCTION = ActionFunction

IN, OUT, BOTH = (path(name) for name in ("ProcessStreamedIn", "ProcessStreamedOut", "ProcessStreamed"))
UNARY = "/tck/model/action/unary"
AB = '{"groups": [{"steps": [{"reply": {"message": "A"}}]}, {"steps": [{"reply": {"message": "B"}}]}]}'
LINES = '{"message":"A"}\n{"message":"B"}\n'
BOOM = '{"groups": [{"steps": [{"fail": {"message": "boom"}}]}]}'


def saying(text: str) -> str:
    return json.dumps({"groups": [{"steps": [{"reply": {"message": text}}]}]})


@pytest.fixture
def played(world: World) -> Iterator[ActionFunction]:
    """The test answers for the model itself."""
    function(world).play_services(MODEL)
    yield function(world)
    function(world).play_services()


async def chunk(http: HttpConnection) -> str:
    size = int(await soon(http.reader.readuntil(b"\r\n"), "a chunk"), 16)
    data = await http.reader.readexactly(size + 2)
    return data[:-2].decode()


async def head(http: HttpConnection) -> str:
    return (await soon(http.reader.readuntil(b"\r\n\r\n"), "the headers")).decode()


# --- HTTP/1.1 --------------------------------------------------------------------------------------------------------


async def test_85_replies_are_lines(world: World) -> None:
    async with HttpConnection(world.proxy.port) as http:
        for _ in range(2):
            http.send("POST", OUT, AB)
            headers = await head(http)
            assert headers.startswith("HTTP/1.1 200 OK\r\n") and "transfer-encoding: chunked" in headers
            assert f"content-type: {JSON}\r\n" in headers
            text = ""
            while piece := await chunk(http):
                text += piece
            assert text == LINES


async def test_86_replies_are_events(world: World) -> None:
    async with HttpConnection(world.proxy.port) as http:
        http.send("POST", OUT, AB, accept="text/event-stream")
        assert "content-type: text/event-stream\r\n" in await head(http)
        text = ""
        while piece := await chunk(http):
            text += piece
        assert text == 'data:{"message":"A"}\n\ndata:{"message":"B"}\n\n'


async def test_each_reply_is_sent_when_it_is_there(world: World, played: ActionFunction) -> None:
    async with HttpConnection(world.proxy.port) as http:
        http.send("POST", OUT, "{}")
        call = await played.call()
        await call.next()
        await call.send(reply("one"))
        assert "200 OK" in await head(http)
        for text in ("one", "two", "three"):
            assert await chunk(http) == f'{{"message":"{text}"}}\n'
            await call.send(reply({"one": "two", "two": "three"}.get(text, "last")))
        assert await chunk(http) == '{"message":"last"}\n'
        call.complete()
        assert await chunk(http) == ""


async def test_methods_that_take_a_stream_get_one_message(world: World, played: ActionFunction) -> None:
    async with HttpConnection(world.proxy.port) as http:
        http.send("POST", IN, saying("x"), x_a="1")
        call = await played.call()
        first = await call.next()
        assert dict(entries(first.metadata))["x-a"] == "1"
        assert plain(first) == opening("ProcessStreamedIn")
        assert plain(await call.next()) == plain(message(request([say("x")])))
        await soon(call.half_closed.wait(), "the half-close")
        await call.answer(reply("done"))
        assert (await http.read()).text == '{"message":"done"}'


async def test_a_stream_both_ways_gets_one_message_too(world: World) -> None:
    async with HttpConnection(world.proxy.port) as http:
        http.send("POST", BOTH, AB)
        assert "chunked" in await head(http)
        assert await chunk(http) + await chunk(http) == LINES


async def test_a_failure_that_comes_first_has_its_status(world: World) -> None:
    answer = await ask(world.proxy.port, "POST", OUT, BOOM)
    assert (answer.status, answer.text) == (500, "boom")
    answer = await ask(world.proxy.port, "POST", OUT, "{")
    assert answer.status == 400 and "not valid JSON" in answer.text


async def test_a_failure_that_comes_later_cuts_the_answer_off(world: World, played: ActionFunction) -> None:
    async with HttpConnection(world.proxy.port) as http:
        http.send("POST", OUT, "{}")
        call = await played.call()
        await call.next()
        await call.answer(reply("one"), failure("boom"))
        await head(http)
        assert await chunk(http) == '{"message":"one"}\n'
        assert await http.closed()  # without the chunk that ends an answer


async def test_a_client_that_goes_away_cancels_its_stream(world: World, played: ActionFunction) -> None:
    async with HttpConnection(world.proxy.port) as http:
        http.send("POST", OUT, "{}")
        call = await played.call()
        await call.next()
        await call.send(reply("one"))
        await head(http)
        http.close()
        await call.wait_reset()
    await eventually(lambda: no_calls(world.proxy), "no calls under way")


async def no_calls(proxy: ProxyProcess) -> bool:
    _, text = await proxy.admin("/metrics")
    return "\nstateside_http_calls 0.0\n" in text


@asynccontextmanager
async def pouring(world: World) -> AsyncIterator[list[int]]:
    """The user function answers streamed-out calls without end; how many replies went out."""
    sent = [0]
    big = reply("x" * 100_000)

    async def pour(call: Any) -> None:
        while True:
            await call.send(big)
            call.sent.clear()
            sent[0] += 1

    function(world).unread = pour
    yield sent
    function(world).unread = None


async def stalled(sent: list[int]) -> int:
    async def wait() -> int:
        last = -1
        while last != sent[0]:
            last = sent[0]
            await asyncio.sleep(0.3)
        return last

    return await soon(wait(), "the stream to stall")


async def test_a_client_that_does_not_read_slows_the_user_function_down(world: World) -> None:
    async with pouring(world) as sent, HttpConnection(world.proxy.port) as http:
        http.writer.transport.pause_reading()  # type: ignore[attr-defined]
        http.send("POST", OUT, "{}")
        before = await stalled(sent)
        assert 0 < before < 200
        http.writer.transport.resume_reading()  # type: ignore[attr-defined]
        await head(http)
        for _ in range(before + 50):
            assert len(await chunk(http)) > 100_000


async def test_head_of_a_stream_ends_its_call(world: World) -> None:
    async with HttpConnection(world.proxy.port) as http:
        answer = await http.ask("HEAD", OUT)
        assert answer.status == 405  # by its default rule it is a POST


# --- HTTP/2 ----------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def http2(world: World, **options: Any) -> AsyncIterator[FramePeer]:
    client = await frame_client(world.proxy.port, **options)
    yield client
    client.close()


def post(client: FramePeer, target: str, body: str, *more: tuple[str, str], method: str = "POST") -> int:
    pseudo = [(":method", method), (":scheme", "http"), (":path", target), (":authority", "x")]
    return client.request([*pseudo, ("content-type", JSON), *more], body.encode())


async def test_http2_unary_and_streamed(world: World) -> None:
    async with http2(world) as client:
        unary = post(client, UNARY, saying("foo"))
        assert (await client.ended(unary))["content-type"] == JSON
        assert client.body(unary) == b'{"message":"foo"}'
        lines = post(client, OUT, AB)
        assert (await client.ended(lines))[":status"] == "200"
        assert client.body(lines).decode() == LINES
        boom = post(client, UNARY, BOOM)
        assert ((await client.ended(boom))[":status"], client.body(boom)) == ("500", b"boom")
        wrong = post(client, UNARY, '{"nope": 1}')
        assert (await client.ended(wrong))[":status"] == "400" and b"nope" in client.body(wrong)
        assert (await client.ended(post(client, "/nothing", "")))[":status"] == "404"
        other = post(client, UNARY, "", method="PUT")
        assert (await client.ended(other))["allow"] == "POST"
        large = post(client, UNARY, " " * 16_000)
        assert (await client.ended(large))[":status"] == "400"


async def test_http2_headers_and_metadata(world: World, played: ActionFunction) -> None:
    async with http2(world) as client:
        stream = post(client, UNARY, "{}", ("x-a", "1"), ("cookie", "a=b"), ("cookie", "c=d"))
        call = await played.call()
        first = await call.next()
        given = entries(first.metadata)
        assert ("x-a", "1") in given and ("cookie", "a=b; c=d") in given
        assert not [name for name, _ in given if name.startswith(":") or name == "content-type"]
        await call.answer(reply("x"))
        assert (await client.ended(stream))[":status"] == "200"


async def test_http2_a_failure_that_comes_later_resets_the_stream(world: World, played: ActionFunction) -> None:
    async with http2(world) as client:
        stream = post(client, OUT, "{}")
        call = await played.call()
        await call.next()
        await call.answer(reply("one"), failure("boom"))
        reset = await client.wait_for(StreamReset, stream)
        assert reset.error_code == ErrorCodes.INTERNAL_ERROR
        assert client.body(stream) == b'{"message":"one"}\n'


async def test_http2_a_reset_cancels_the_call(world: World, played: ActionFunction) -> None:
    async with http2(world) as client:
        stream = post(client, OUT, "{}")
        call = await played.call()
        await call.next()
        await call.send(reply("one"))
        await client.wait_for(ResponseReceived, stream)
        client.h2.reset_stream(stream, ErrorCodes.CANCEL)
        client.flush()
        await call.wait_reset()


async def test_http2_a_client_that_grants_no_window_slows_the_user_function_down(world: World) -> None:
    async with pouring(world) as sent, http2(world, auto_window=False) as client:
        stream = post(client, OUT, "{}")
        assert 0 < await stalled(sent) < 200
        assert len(client.body(stream)) == 65_535
        for _ in range(3):
            number = len(client.of(DataReceived, stream))
            client.h2.increment_flow_control_window(65_000)
            client.h2.increment_flow_control_window(65_000, stream)
            client.flush()
            await client.wait_for(DataReceived, stream, number + 1)


# --- WebSocket -------------------------------------------------------------------------------------------------------


async def test_socket_messages_both_ways(world: World, played: ActionFunction) -> None:
    async with Socket(world.proxy.port, BOTH, x_a="1") as socket:
        assert (socket.answer.status, socket.answer.headers["sec-websocket-accept"]) == (101, ACCEPTED)
        call = await played.call()
        first = await call.next()
        given = dict(entries(first.metadata))
        assert given["x-a"] == "1" and "upgrade" not in given
        for text in ("one", "two"):
            socket.send(saying(text))
            assert plain(await call.next()) == plain(message(request([say(text)])))
            await call.send(reply(text))
            assert await socket.text() == text
        assert not call.half_closed.is_set()
        socket.send("")
        await soon(call.half_closed.wait(), "the half-close")
        await call.answer(reply("last"))
        assert await socket.text() == "last"
        assert await socket.closed() == (1000, "")
    await eventually(lambda: no_calls(world.proxy), "no calls under way")


async def test_socket_of_a_method_that_takes_a_stream(world: World) -> None:
    async with Socket(world.proxy.port, IN) as socket:
        socket.send(saying("one"), saying("two"), "")
        assert await socket.text() == "two"
        assert await socket.closed() == (1000, "")


async def test_socket_of_a_method_that_takes_one_message(world: World) -> None:
    async with Socket(world.proxy.port, OUT) as socket:
        socket.send(AB)
        assert [await socket.text(), await socket.text()] == ["A", "B"]
        assert await socket.closed() == (1000, "")


async def test_socket_messages_right_behind_the_handshake(world: World) -> None:
    socket = Socket(world.proxy.port, OUT)
    await socket.http.__aenter__()
    socket.http.send("GET", OUT, **OFFER)
    socket.send(AB)
    assert (await socket.http.read()).status == 101
    assert await socket.text() == "A"
    socket.http.close()


async def test_socket_failures_close_with_their_description(world: World, played: ActionFunction) -> None:
    async with Socket(world.proxy.port, BOTH) as socket:
        call = await played.call()
        await call.send(reply("one"))
        assert await socket.text() == "one"
        await call.answer(failure("é" * 100))
        assert await socket.closed() == (1011, "é" * 61)


@pytest.mark.parametrize(
    ("frames", "code", "named"),
    [
        (["{"], 1007, "not valid JSON"),
        (['{"nope": 1}'], 1007, "nope"),
        (["[]"], 1007, "JSON object"),
        ([" " * 40_000, " " * 40_000], 1009, "65536"),
        ([b"\x00"], 1003, "text"),
    ],
)
async def test_socket_frames_that_are_wrong_are_named(
    world: World, played: ActionFunction, frames: list[Any], code: int, named: str
) -> None:
    async with Socket(world.proxy.port, BOTH) as socket:
        call = await played.call()
        for number, data in enumerate(frames, 1):
            if isinstance(data, bytes):
                socket.write(BytesMessage(data=data))
            else:
                proto = socket.frames._proto
                socket.http.writer.write(proto.send_data(data, number == len(frames)))
        closed = await socket.closed()
        assert closed[0] == code and named in closed[1]
        await call.wait_reset()


async def test_socket_a_second_message_where_one_is_expected(world: World, played: ActionFunction) -> None:
    async with Socket(world.proxy.port, OUT) as socket:
        socket.send(AB)
        call = await played.call()
        socket.send(AB)
        assert (await socket.closed())[0] == 1008
        await call.wait_reset()


async def test_socket_pings_are_answered(world: World, played: ActionFunction) -> None:
    async with Socket(world.proxy.port, BOTH) as socket:
        socket.write(Ping(payload=b"there?"))
        event = await socket.event()
        assert isinstance(event, Pong) and bytes(event.payload) == b"there?"


async def test_a_socket_whose_client_is_gone_without_a_word_is_given_up(tmp_path: Path) -> None:
    settings = {"journal": "memory:", "keepalive_interval": "1s", "keepalive_timeout": "500ms"}
    async with World(tmp_path, user_function=ActionFunction(), **settings) as world:
        function(world).play_services(MODEL)
        async with Socket(world.proxy.port, BOTH) as alive, Socket(world.proxy.port, BOTH) as silent:
            calls = [await function(world).call() for _ in range(2)]
            event = await alive.event()
            assert isinstance(event, Ping)
            alive.write(event.response())
            assert isinstance(await silent.event(), Ping)
            await calls[1].wait_reset()
            assert await silent.http.closed()
            assert not calls[0].reset.is_set()


async def test_socket_that_the_client_closes_cancels_its_call(world: World, played: ActionFunction) -> None:
    async with Socket(world.proxy.port, BOTH) as socket:
        call = await played.call()
        socket.write(CloseConnection(code=1000, reason="bye"))
        event = await socket.event()
        assert isinstance(event, CloseConnection) and event.code == 1000
        assert await socket.http.closed()
        await call.wait_reset()
    async with Socket(world.proxy.port, BOTH) as socket:
        call = await played.call()
        socket.http.writer.transport.abort()
        await call.wait_reset()


async def test_socket_bytes_that_are_no_frames(world: World, played: ActionFunction) -> None:
    async with Socket(world.proxy.port, BOTH) as socket:
        call = await played.call()
        socket.http.writer.write(b"\xff" * 100)
        assert (await socket.closed())[0] == 1002
        await call.wait_reset()


async def test_socket_that_is_slow_slows_the_user_function_down(world: World) -> None:
    async with pouring(world) as sent, Socket(world.proxy.port, OUT) as socket:
        socket.http.writer.transport.pause_reading()  # type: ignore[attr-defined]
        socket.send("{}")
        before = await stalled(sent)
        assert 0 < before < 200
        socket.http.writer.transport.resume_reading()  # type: ignore[attr-defined]
        for _ in range(before + 50):
            assert len(await socket.text()) == 100_000


async def test_socket_that_is_fast_is_slowed_down_by_the_user_function(world: World) -> None:
    async def never(call: Any) -> None:
        await asyncio.Event().wait()

    function(world).unread = never
    async with Socket(world.proxy.port, BOTH) as socket:
        big = saying("x" * 60_000)
        written = 0

        async def pour() -> None:
            nonlocal written
            while True:
                socket.send(big)
                await socket.http.writer.drain()
                written += 1

        pouring_task = asyncio.create_task(pour())
        last = -1
        while last != written:
            last = written
            await asyncio.sleep(0.3)
        assert 0 < written < 400
        pouring_task.cancel()
        socket.http.writer.transport.abort()
    function(world).unread = None


async def test_socket_of_a_forwarded_call(world: World, played: ActionFunction) -> None:
    async with Socket(world.proxy.port, IN) as socket:
        call = await played.call()
        await call.next()
        socket.send("{}")
        await call.next()
        await call.answer(forward_two("a"))
        assert await socket.text() == ""
        assert await socket.closed() == (1000, "")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"sec_websocket_version": "8"}, "Version has to be 13"),
        ({"sec_websocket_key": "short"}, "Key"),
        ({"connection": "keep-alive"}, "Connection"),
    ],
)
async def test_socket_offers_that_are_wrong(world: World, change: dict[str, str], named: str) -> None:
    async with Socket(world.proxy.port, BOTH, **change) as socket:
        if "connection" in change:
            assert socket.answer.status in (400, 405)
        else:
            assert socket.answer.status == 400 and named in socket.answer.text
            assert socket.answer.headers["sec-websocket-version"] == "13"


async def test_socket_offers_where_no_method_is_streamed(world: World) -> None:
    async with Socket(world.proxy.port, UNARY) as socket:
        assert socket.answer.status == 405
    async with Socket(world.proxy.port, "/nothing") as socket:
        assert socket.answer.status == 404
