"""Requests over HTTP/2 that are not gRPC's, frame by frame: `web` handlers against the pure-Python h2 library."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop
from h2.connection import ConnectionState
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated, DataReceived, ResponseReceived, StreamReset
from h2.settings import SettingCodes

from stateside._speedups import h2

from .frame_peers import REQUEST, FramePeer, frame_client, framed
from .transport_peers import OurServer, eventually

Run = Callable[[Coroutine[Any, Any, None]], None]

LIMIT = 100_000
UNIMPLEMENTED = "12"


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        yield lambda body: runner.run(body)


class Desk(h2.Handler):
    """Answers as the path says; `/wait` is left to the test."""

    def __init__(self) -> None:
        self.asked: list[tuple[h2.WebCall, bytes]] = []
        self.gone: list[h2.WebCall] = []
        self.drained: list[h2.WebCall] = []

    def on_web(self, call: h2.WebCall, body: bytes) -> None:
        self.asked.append((call, body))
        if call.path.startswith(b"/echo"):
            call.answer(200, [(b"content-type", b"a/b"), (b"content-length", b"%d" % len(body))], body)
        elif call.path == b"/raise":
            raise ValueError("a mistake of ours")

    def on_drain(self, call: h2.Call) -> None:
        assert isinstance(call, h2.WebCall)
        self.drained.append(call)

    def on_gone(self, call: h2.WebCall) -> None:
        self.gone.append(call)

    async def call(self, number: int = 1) -> h2.WebCall:
        await eventually(lambda: len(self.asked) >= number, "the request")
        return self.asked[number - 1][0]


@asynccontextmanager
async def served(**limits: Any) -> AsyncIterator[tuple[OurServer, Desk, FramePeer]]:
    desk, server = Desk(), OurServer()
    given = h2.Limits(**{"max_message_size": LIMIT} | limits)
    server.server = h2.Server(asyncio.get_running_loop(), server.routes.get, limits=given, web=desk)
    await server.start()
    client = await frame_client(server.port)
    try:
        yield server, desk, client
    finally:
        client.close()
        await server.close()


def request(path: str, method: str = "GET", *more: tuple[str, str]) -> list[tuple[str, str]]:
    pseudo = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "here:1")]
    return [*pseudo, *more]


def test_a_request_is_told_as_a_whole_with_all_its_headers(run: Run) -> None:
    async def body() -> None:
        async with served() as (server, desk, client):
            more = [("x-a", "1"), ("content-type", "application/json"), ("x-b", "2"), ("x-a", "3")]
            stream = client.request(request("/echo?a=b", "PUT", *more), b"one", end=False)
            client.h2.send_data(stream, b"two", end_stream=True)
            client.flush()
            headers = await client.ended(stream)
            assert (headers[":status"], headers["content-type"], client.body(stream)) == ("200", "a/b", b"onetwo")
            ((call, whole),) = desk.asked
            assert (call.method, call.path, whole) == (b"PUT", b"/echo?a=b", b"onetwo")
            assert call.headers == [(b"host", b"here:1"), *((name.encode(), value.encode()) for name, value in more)]
            assert call.peer.startswith("127.0.0.1:") and call.ended
            assert server.server.counters["calls_total"] == 1
            await server.idle()

    run(body())


@pytest.mark.parametrize("path", ["/contract.Service/Unary", "/contract.Service/Metadata", "/contract.Service/NoSuch"])
def test_it_is_the_content_type_that_decides(run: Run, path: str) -> None:
    async def body() -> None:
        async with served() as (_, desk, client):
            for kind in ("application/json", "application/grpc-web", "application/grpcx"):
                headers = [("te", "trailers"), ("x-a", "1"), ("content-type", kind), ("x-b", "2")]
                client.request(request(path, "POST", *headers), b"x")
                call = await desk.call(len(desk.asked) + 1)
                assert [name for name, _ in call.headers] == [b"host", b"te", b"x-a", b"content-type", b"x-b"]
                call.answer(204)
            headers = [
                ("te", "trailers"),
                ("content-type", "application/grpc+proto"),
                ("x-ask", "1"),
                ("x-ask-bin", "AA"),
            ]
            stream = client.request(request(path, "POST", *headers), framed(b"x"))
            answered = await client.ended(stream)
            assert answered["grpc-status"] == (UNIMPLEMENTED if path.endswith("NoSuch") else "0")
            assert len(desk.asked) == 3

    run(body())


def test_a_request_without_headers_of_its_own_and_without_a_body(run: Run) -> None:
    async def body() -> None:
        async with served() as (_, desk, client):
            stream = client.request([(":method", "GET"), (":scheme", "http"), (":path", "/echo"), ("host", "x")])
            assert (await client.ended(stream))["content-length"] == "0"
            assert (desk.asked[0][0].headers, desk.asked[0][1]) == ([(b"host", b"x")], b"")

    run(body())


def test_the_headers_of_one_request_are_not_those_of_the_next(run: Run) -> None:
    async def body() -> None:
        async with served() as (_, desk, client):
            for number in range(3):
                await client.ended(client.request(request("/echo", "GET", (f"x-{number}", "y" * 600 * number))))
                assert [name for name, _ in desk.asked[number][0].headers] == [b"host", b"x-%d" % number]
                assert (await client.ended(client.request(REQUEST, framed(b"x"))))["grpc-status"] == "0"

    run(body())


def test_an_answer_in_pieces_waits_for_a_client_that_does_not_keep_up(run: Run) -> None:
    async def body() -> None:
        async with served(send_high_water=1000, send_low_water=100) as (server, desk, client):
            client.auto_window = False
            stream = client.request(request("/wait"))
            call = await desk.call()
            call.begin(200, [(b"x-y", b"z")])
            assert call.write(b"a") and call.write(b"")
            await client.wait_for(DataReceived, stream)
            assert dict((await client.wait_for(ResponseReceived, stream)).headers)["x-y"] == "z"
            assert not call.write(bytes(70_000)) and not call.write(b"b")
            await eventually(lambda: len(client.body(stream)) == 65_535, "a window of it")
            assert not desk.drained
            client.h2.increment_flow_control_window(70_000)
            client.h2.increment_flow_control_window(70_000, stream)
            client.flush()
            await eventually(lambda: desk.drained == [call], "the end of the queue")
            assert call.write(b"c")
            call.end()
            await client.ended(stream)
            assert client.body(stream) == b"a" + bytes(70_000) + b"bc"
            await server.idle()

    run(body())


def test_an_answer_that_is_cut_off_is_reset_after_what_was_written(run: Run) -> None:
    async def body() -> None:
        async with served() as (server, desk, client):
            stream = client.request(request("/wait"))
            call = await desk.call()
            call.begin(200)
            call.write(b"so far")
            call.end(False)
            reset = await client.wait_for(StreamReset, stream)
            assert reset.error_code == ErrorCodes.INTERNAL_ERROR and client.body(stream) == b"so far"
            second = client.request(request("/wait"))
            call = await desk.call(2)
            call.begin(200)
            await client.wait_for(ResponseReceived, second)
            call.end(False)
            await client.wait_for(StreamReset, second)
            third = client.request(request("/wait"))
            (await desk.call(3)).end()  # without ever having begun
            await client.wait_for(StreamReset, third)
            await server.idle()
            assert not desk.gone and server.server.counters["cancelled"] == 0

    run(body())


def test_head_is_answered_without_a_body(run: Run) -> None:
    async def body() -> None:
        async with served() as (server, desk, client):
            stream = client.request(request("/wait", "HEAD"))
            (await desk.call()).answer(200, [(b"content-length", b"3")], b"abc")
            assert (await client.ended(stream))["content-length"] == "3"
            stream = client.request(request("/wait", "HEAD"))
            call = await desk.call(2)
            call.begin(200)
            assert call.ended and call.write(b"abc")
            call.end(False)
            await client.ended(stream)
            assert not client.of(DataReceived)
            await server.idle()

    run(body())


def test_a_client_that_goes_away_is_told_once(run: Run) -> None:
    async def body() -> None:
        async with served() as (server, desk, client):
            stream = client.request(request("/wait"))
            call = await desk.call()
            call.begin(200)
            client.h2.reset_stream(stream, ErrorCodes.CANCEL)
            client.flush()
            await eventually(lambda: desk.gone == [call], "the reset")
            assert call.write(b"x")
            call.end()
            client.request(request("/wait"))
            other = await desk.call(2)
            client.close()
            await eventually(lambda: desk.gone == [call, other], "the end of the connection")
            other.answer(200)
            assert server.server.counters["cancelled"] == 2
            await server.idle()

    run(body())


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_that_is_too_large_gets_413_and_the_connection_goes_on(run: Run, announced: bool) -> None:
    async def body() -> None:
        async with served(max_message_size=10_000) as (server, desk, client):
            more = [("content-length", "20000")] if announced else []
            stream = client.request(request("/echo", "POST", *more), bytes(9_000), end=False)
            if not announced:
                client.h2.send_data(stream, bytes(1_001))
                client.flush()
            assert (await client.ended(stream))[":status"] == "413" and b"10000 bytes" in client.body(stream)
            assert (await client.wait_for(StreamReset, stream)).error_code == ErrorCodes.NO_ERROR
            stream = client.request(request("/echo", "POST"), bytes(10_000))
            await client.ended(stream)
            assert len(client.body(stream)) == 10_000
            assert len(desk.asked) == 1 and server.server.counters["oversized"] == 1
            await server.idle()

    run(body())


def test_windows_are_granted_while_a_body_comes(run: Run) -> None:
    limits = {"max_message_size": 1_000_000, "stream_window": 20_000, "connection_window": 70_000}

    async def body() -> None:
        async with served(**limits) as (
            _,
            _desk,
            client,
        ):
            sent, stream = 0, client.request(request("/echo", "POST"), b"", end=False)
            while sent < 900_000:
                size = min(client.h2.local_flow_control_window(stream), 16_384, 900_000 - sent)
                client.h2.send_data(stream, bytes(size))
                client.flush()
                sent += size
                await eventually(lambda: client.h2.local_flow_control_window(stream) > 0, "more window")
            client.h2.end_stream(stream)
            client.flush()
            await client.ended(stream)
            assert len(client.body(stream)) == 900_000

    run(body())


def test_a_body_that_does_not_come_in_time_gets_408(run: Run) -> None:
    async def body() -> None:
        async with served(header_timeout=0.1) as (server, desk, client):
            stream = client.request(request("/echo", "POST"), b"a part", end=False)
            assert (await client.ended(stream))[":status"] == "408"
            assert not desk.asked and server.server.counters["expired"] == 1
            stream = client.request(request("/echo", "POST"), b"all of it")
            assert (await client.ended(stream))[":status"] == "200"
            await server.idle()

    run(body())


def test_requests_count_against_the_calls_at_once(run: Run) -> None:
    async def body() -> None:
        async with served(max_streams=2) as (server, desk, client):
            streams = [client.request(request("/wait")) for _ in range(3)]
            assert (await client.ended(streams[2]))[":status"] == "503"
            assert (server.server.streams, server.server.counters["refused_streams"]) == (2, 1)
            grpc = client.request(REQUEST, framed(b"x"))
            assert (await client.ended(grpc))["grpc-status"] == "8"
            for number in (1, 2):
                (await desk.call(number)).answer(200)
            await server.idle()

    run(body())


def test_a_handler_that_fails_is_an_internal_error(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def body() -> None:
        async with served() as (server, _, client):
            assert (await client.ended(client.request(request("/raise"))))[":status"] == "500"
            assert (await client.ended(client.request(request("/echo"))))[":status"] == "200"
            await server.idle()

    run(body())
    assert "a mistake of ours" in caplog.text


@pytest.mark.parametrize(
    ("status", "headers"), [(200, [(b":x", b"1")]), (200, [(b"x", b"a\r\nb")]), (99, []), (1000, [])]
)
def test_what_cannot_be_sent_is_said_and_changes_nothing(run: Run, status: int, headers: Any) -> None:
    async def body() -> None:
        async with served() as (_, desk, client):
            stream = client.request(request("/wait"))
            call = await desk.call()
            with pytest.raises(ValueError, match=r"cannot be sent|no status"):
                call.answer(status, headers)
            with pytest.raises(ValueError, match=r"cannot be sent|no status"):
                call.begin(status, headers)
            call.answer(404)
            assert (await client.ended(stream))[":status"] == "404"

    run(body())


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (request("/echo", "GET", ("x-big", "y" * 17_000)), "431"),
        (request("/echo", "GET", *((f"x-{i}", "y") for i in range(130))), "431"),
        ([(":method", "CONNECT"), (":authority", "here:1")], "405"),
    ],
    ids=["too many bytes", "too many headers", "CONNECT"],
)
def test_what_is_refused_before_it_is_told(run: Run, headers: list[tuple[str, str]], status: str) -> None:
    async def body() -> None:
        async with served() as (_, desk, client):
            stream = client.request(headers)
            assert (await client.ended(stream))[":status"] == status
            assert (await client.ended(client.request(request("/echo"))))[":status"] == "200"
            assert len(desk.asked) == 1

    run(body())


def test_a_drain_waits_for_answers(run: Run) -> None:
    async def body() -> None:
        async with served() as (server, desk, client):
            stream = client.request(request("/wait"))
            call = await desk.call()
            closing = asyncio.create_task(server.close(5.0))
            await client.wait_for(ConnectionTerminated, number=2)
            client.h2.state_machine.state = ConnectionState.CLIENT_OPEN  # this library reads nothing after GOAWAY
            call.begin(200)
            call.write(b"to the ")
            call.write(b"end")
            call.end()
            await client.ended(stream)
            assert client.body(stream) == b"to the end"
            await closing

    run(body())


def test_a_connection_is_idle_after_its_last_answer(run: Run) -> None:
    async def body() -> None:
        async with served(idle_timeout=0.1) as (_, desk, client):
            stream = client.request(request("/wait"))
            call = await desk.call()
            await asyncio.sleep(0.25)
            call.answer(200)
            await client.ended(stream)
            await asyncio.wait_for(client.lost.wait(), 5)

    run(body())


def test_calls_leave_nothing_behind(run: Run) -> None:
    async def body() -> None:
        before = h2.live_objects()
        async with served() as (server, desk, client):
            client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 10})
            client.flush()
            for _ in range(20):
                client.request(request("/echo", "POST"), bytes(1000), end=False)
                client.request(request("/wait"))
            (await desk.call(1)).begin(200)
            desk.asked[0][0].write(bytes(100_000))
            client.close()
            await server.idle()
            desk.asked.clear()
            desk.gone.clear()
        assert h2.live_objects() == before

    run(body())
