"""Behaviour of the transport frame by frame, against the pure-Python h2 library on the other side."""

import asyncio
import gc
import gzip
import ssl
import subprocess
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    PingReceived,
    RemoteSettingsChanged,
    RequestReceived,
    SettingsAcknowledged,
    StreamEnded,
    StreamReset,
)
from h2.settings import SettingCodes

from stateside._speedups import h2

from .frame_peers import REQUEST, RESPONSE, TRAILERS, FramePeer, frame_client, frame_server, framed, request_to
from .transport_peers import OurClient, OurServer, eventually, meet

Run = Callable[[Coroutine[Any, Any, None]], None]

OK, CANCELLED, UNKNOWN, INTERNAL, UNAVAILABLE = 0, 1, 2, 13, 14
RESOURCE_EXHAUSTED, UNIMPLEMENTED, UNAUTHENTICATED = 8, 12, 16


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        yield lambda body: runner.run(body)


async def served(limits: h2.Limits | None = None, **options: Any) -> tuple[OurServer, FramePeer]:
    server = OurServer(limits)
    await server.start()
    return server, await frame_client(server.port, **options)


async def called(port: int, limits: h2.Limits | None = None) -> OurClient:
    client = OurClient(port, limits)
    await client.start()
    return client


def answer(peer: FramePeer, stream: int, *messages: bytes) -> None:
    peer.h2.send_headers(stream, RESPONSE)
    for message in messages:
        peer.h2.send_data(stream, framed(message))
    peer.h2.send_headers(stream, TRAILERS, end_stream=True)
    peer.flush()


# --- our server ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 4, 5, 6, 7])
def test_a_message_may_be_split_anywhere(run: Run, size: int) -> None:
    async def body() -> None:
        server, client = await served()
        data = framed(b"first") + framed(b"") + framed(b"second message")
        stream = client.request(request_to("Chat"), b"", end=False)
        for at in range(0, len(data), size):
            client.h2.send_data(stream, data[at : at + size])
        client.h2.end_stream(stream)
        client.flush()
        assert (await client.ended(stream))["grpc-status"] == "0"
        assert client.body(stream) == data
        client.close()
        await server.close()

    run(body())


def test_several_messages_leave_in_one_data_frame(run: Run) -> None:
    async def body() -> None:
        server, client = await served()
        stream = client.request(request_to("Count"), framed(b"50 20"))
        await client.ended(stream)
        assert len(client.of(DataReceived, stream)) == 1
        assert client.body(stream) == framed(bytes(20)) * 50
        client.close()
        await server.close()

    run(body())


def test_a_tiny_window_still_lets_a_message_through(run: Run) -> None:
    async def body() -> None:
        server, client = await served(settings={SettingCodes.INITIAL_WINDOW_SIZE: 3})
        stream = client.request(REQUEST, framed(b"a message longer than the window"))
        assert (await client.ended(stream))["grpc-status"] == "0"
        assert client.body(stream) == framed(b"a message longer than the window")
        assert len(client.of(DataReceived, stream)) >= 12
        client.close()
        await server.close()

    run(body())


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([(n, v) if n != "content-type" else (n, "application/json") for n, v in REQUEST], "415"),
        ([(n, v) for n, v in REQUEST if n != "content-type"], "415"),
        ([(n, v) if n != "content-type" else (n, "application/grpcx") for n, v in REQUEST], "415"),
        ([(n, v) if n != ":method" else (n, "GET") for n, v in REQUEST], "405"),
        ([*REQUEST, ("x-big", "y" * 17_000)], "431"),
        ([*REQUEST, *((f"x-{i}", "y") for i in range(130))], "431"),
    ],
    ids=["other content-type", "no content-type", "almost grpc", "GET", "too many bytes", "too many headers"],
)
def test_what_is_no_grpc_request_gets_a_status_of_http(run: Run, headers: list[tuple[str, str]], status: str) -> None:
    async def body() -> None:
        server, client = await served()
        stream = client.request(headers, framed(b"x"))
        assert (await client.ended(stream))[":status"] == status
        assert (await client.ended(client.request(REQUEST, framed(b"x"))))["grpc-status"] == "0"
        assert server.server.counters["oversized"] == (status == "431")
        client.close()
        await server.close()

    run(body())


@pytest.mark.parametrize("kind", ["application/grpc+proto", "application/grpc;charset=utf-8", "application/grpc+json"])
def test_formats_of_grpc_are_accepted_and_te_is_not_needed(run: Run, kind: str) -> None:
    async def body() -> None:
        server, client = await served()
        headers = [(n, v if n != "content-type" else kind) for n, v in REQUEST if n != "te"]
        stream = client.request(headers, framed(b"x"))
        assert (await client.ended(stream))["grpc-status"] == "0"
        client.close()
        await server.close()

    run(body())


def test_a_refused_compression_names_the_known_ones(run: Run) -> None:
    async def body() -> None:
        server, client = await served()
        stream = client.request(request_to("Unary", ("grpc-encoding", "snappy")), framed(b"x"))
        headers = await client.ended(stream)
        assert headers["grpc-status"] == str(UNIMPLEMENTED)
        assert headers["grpc-accept-encoding"] == "identity,gzip"
        client.close()
        await server.close()

    run(body())


@pytest.mark.parametrize(
    ("headers", "data", "status", "named"),
    [
        ([], framed(b"x", compressed=1), INTERNAL, "compress"),
        ([("grpc-encoding", "gzip")], framed(b"not gzip", compressed=1), INTERNAL, "gzip"),
        (
            [("grpc-encoding", "gzip")],
            framed(gzip.compress(b"x" * 99, mtime=0)[:-4], compressed=1),
            INTERNAL,
            "cut short",
        ),
        (
            [("grpc-encoding", "gzip")],
            framed(gzip.compress(bytes(5_000_000), mtime=0), compressed=1),
            RESOURCE_EXHAUSTED,
            "larger",
        ),
        ([], framed(b"x", compressed=2), INTERNAL, "first byte"),
        ([], framed(b"whole") + b"\0\0\0", INTERNAL, "cut short"),
        ([], framed(b"whole")[:-1], INTERNAL, "cut short"),
        ([], b"\0\xff\xff\xff\xff", RESOURCE_EXHAUSTED, "4294967295"),
    ],
)
@pytest.mark.parametrize("method", ["Unary", "Chat"])
def test_bad_message_framing_is_answered_with_what_was_wrong(
    run: Run, method: str, headers: list[tuple[str, str]], data: bytes, status: int, named: str
) -> None:
    async def body() -> None:
        server, client = await served(h2.Limits(max_message_size=4_000_000))
        told = await client.ended(client.request(request_to(method, *headers), data))
        assert told["grpc-status"] == str(status)
        assert named in told["grpc-message"].replace("%20", " ")
        assert (await client.ended(client.request(REQUEST, framed(b"x"))))["grpc-status"] == "0"
        client.close()
        await server.close()

    run(body())


def test_gzip_messages_are_taken_and_plain_ones_among_them(run: Run) -> None:
    async def body() -> None:
        server, client = await served()
        data = framed(gzip.compress(b"first", mtime=0), compressed=1) + framed(b"second")
        stream = client.request(request_to("Chat", ("grpc-encoding", "gzip")), data)
        assert (await client.ended(stream))["grpc-status"] == "0"
        assert client.body(stream) == framed(b"first") + framed(b"second")
        client.close()
        await server.close()

    run(body())


def test_an_early_answer_asks_the_client_to_stop_sending(run: Run) -> None:
    async def body() -> None:
        server, client = await served()
        stream = client.request(request_to("NoSuch"), framed(b"x"), end=False)
        headers = await client.ended(stream)
        assert headers["grpc-status"] == str(UNIMPLEMENTED)
        assert headers["grpc-message"] == "unknown method /contract.Service/NoSuch"
        assert (await client.wait_for(StreamReset, stream)).error_code == ErrorCodes.NO_ERROR
        client.close()
        await server.close()

    run(body())


def test_a_reset_cancels_the_call(run: Run) -> None:
    async def body() -> None:
        server, client = await served()
        stream = client.request(request_to("Never"), framed(b"x"), end=False)
        await eventually(lambda: server.never.opened == 1)
        client.h2.reset_stream(stream, ErrorCodes.CANCEL)
        client.flush()
        await eventually(lambda: server.never.cancelled == [CANCELLED])
        assert server.server.counters["cancelled"] == 1
        assert server.server.streams == 0
        client.close()
        await server.close()

    run(body())


def test_a_lost_connection_cancels_its_calls(run: Run) -> None:
    async def body() -> None:
        server, client = await served()
        for _ in range(3):
            client.request(request_to("Never"), framed(b"x"), end=False)
        await eventually(lambda: server.never.opened == 3)
        client.close()
        await eventually(lambda: server.never.cancelled == [CANCELLED] * 3)
        await eventually(lambda: server.server.connections == 0)
        await server.close()

    run(body())


def test_the_announced_stream_limit_is_well_above_the_real_one(run: Run) -> None:
    async def body() -> None:
        server, client = await served(h2.Limits(max_streams=100))
        assert client.h2.remote_settings.max_concurrent_streams >= 1100
        client.close()
        await server.close()

    run(body())


def test_a_graceful_close_says_goaway_twice(run: Run) -> None:
    async def body() -> None:
        server, client = await served()
        stream = client.request(request_to("Chat"), framed(b"x"), end=False)
        await client.wait_for(DataReceived, stream)
        closing = asyncio.ensure_future(server.close(5.0))
        assert (await client.wait_for(ConnectionTerminated)).last_stream_id == 2**31 - 1
        assert (await client.wait_for(ConnectionTerminated, number=2)).last_stream_id == stream
        assert not client.lost.is_set()
        client.transport.write(b"\0\0\0\0\1" + stream.to_bytes(4, "big"))  # an empty DATA frame with END_STREAM
        await asyncio.wait_for(client.lost.wait(), 2)
        await closing
        assert client.body(stream) == framed(b"x")

    run(body())


def test_an_idle_connection_is_closed(run: Run) -> None:
    async def body() -> None:
        server, client = await served(h2.Limits(idle_timeout=0.1))
        stream = client.request(request_to("Chat"), framed(b"x"), end=False)
        await client.wait_for(DataReceived, stream)
        await asyncio.sleep(0.2)
        assert not client.of(ConnectionTerminated)  # a call is open
        client.h2.end_stream(stream)
        client.flush()
        assert (await client.wait_for(ConnectionTerminated)).error_code == ErrorCodes.NO_ERROR
        await asyncio.wait_for(client.lost.wait(), 3)
        await server.close()

    run(body())


class Falling(FramePeer):
    """Answers nothing any more once it is `deaf`."""

    deaf = False

    def data_received(self, data: bytes) -> None:
        if not self.deaf:
            super().data_received(data)


def test_a_silent_peer_is_pinged_and_given_up(run: Run) -> None:
    async def body() -> None:
        server, client = await served(h2.Limits(keepalive_interval=0.05, keepalive_timeout=0.1))
        await asyncio.sleep(0.4)
        assert len(client.of(PingReceived)) >= 2
        assert not client.lost.is_set()
        deaf = Falling(client=True)
        deaf.deaf = True
        await asyncio.get_running_loop().create_connection(lambda: deaf, "127.0.0.1", server.port)
        await asyncio.wait_for(deaf.lost.wait(), 1)
        assert not client.lost.is_set()
        client.close()
        await server.close()

    run(body())


def test_a_peer_that_answered_pings_and_falls_silent_is_given_up(run: Run) -> None:
    async def body() -> None:
        # The timeout is much longer than the interval: an answered PING must not put off the next one until then.
        server = OurServer(h2.Limits(keepalive_interval=0.05, keepalive_timeout=0.5))
        await server.start()
        client = Falling(client=True)
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: client, "127.0.0.1", server.port)
        started = loop.time()
        await client.wait_for(PingReceived, number=6)
        assert 6 * 0.05 - 0.01 <= loop.time() - started < 6 * 0.5 / 2
        client.deaf = True
        await asyncio.wait_for(client.lost.wait(), 2)
        assert server.server.connections == 0
        await server.close()

    run(body())


def test_a_channel_pings_too_and_ends_its_calls_when_the_peer_falls_silent(run: Run) -> None:
    async def body() -> None:
        peer = Falling(client=False)
        loop = asyncio.get_running_loop()
        listener = await loop.create_server(lambda: peer, "127.0.0.1", 0)
        client = await called(
            listener.sockets[0].getsockname()[1], h2.Limits(keepalive_interval=0.05, keepalive_timeout=0.5)
        )
        call = client.open(b"Never", [b""])
        await asyncio.wait_for(peer.wait_for(PingReceived, number=4), 1.5)
        peer.deaf = True
        assert (await asyncio.wait_for(call.result(), 2)).status == UNAVAILABLE
        assert client.channel.closed
        listener.close()

    run(body())


def test_data_of_a_paused_call_is_not_granted_again_and_others_go_on(run: Run) -> None:
    class Paused(h2.Handler):
        def on_open(self, call: h2.ServerCall) -> None:
            self.call = call
            call.pause()

        def on_message(self, call: h2.Call, message: bytes) -> None:
            call.send(b"%d" % len(message))

        def on_half_close(self, call: h2.ServerCall) -> None:
            call.finish()

    async def body() -> None:
        server, client = await served(h2.Limits(stream_window=70_000, connection_window=65_535 * 2))
        paused = server.routes[b"/contract.Service/Paused"] = Paused()
        stream = client.request(request_to("Paused"), b"", end=False)
        data = framed(bytes(69_990))
        for at in range(0, len(data), 16_000):
            client.h2.send_data(stream, data[at : at + 16_000])
        client.flush()
        for _ in range(20):
            assert (await client.ended(client.request(REQUEST, framed(bytes(10_000)))))["grpc-status"] == "0"
        assert client.h2.local_flow_control_window(stream) == 5
        paused.call.resume()
        await eventually(lambda: client.h2.local_flow_control_window(stream) > 60_000)
        client.h2.end_stream(stream)
        client.flush()
        assert (await client.ended(stream))["grpc-status"] == "0"
        assert client.body(stream) == framed(b"69990")
        client.close()
        await server.close()

    run(body())


# --- our client ------------------------------------------------------------------------------------------------------


def test_an_answer_in_odd_pieces_is_put_together(run: Run) -> None:
    async def body() -> None:
        async with frame_server() as (port, peers):
            client = await called(port)
            call = client.open(b"Unary", [b"x"])
            stream = (await peers[0].wait_for(RequestReceived)).stream_id
            peers[0].h2.send_headers(stream, RESPONSE)
            for byte in framed(b"hello") + framed(b"world"):
                peers[0].h2.send_data(stream, bytes((byte,)))
                peers[0].flush()
                await asyncio.sleep(0)
            peers[0].h2.send_headers(stream, TRAILERS, end_stream=True)
            peers[0].flush()
            result = await call.result()
            assert (result.status, result.messages) == (OK, [b"hello", b"world"])
            assert call.collector.saw_headers
            await client.close()

    run(body())


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([(":status", "200"), ("content-type", "application/grpc")], INTERNAL),
        ([(":status", "404"), ("content-type", "text/html")], UNIMPLEMENTED),
        ([(":status", "401")], UNAUTHENTICATED),
        ([(":status", "503")], UNAVAILABLE),
        ([(":status", "500")], UNKNOWN),
        ([(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "9")], 9),
        ([(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "strange")], UNKNOWN),
    ],
)
def test_an_answer_without_messages_gives_a_status(run: Run, headers: list[tuple[str, str]], status: int) -> None:
    async def body() -> None:
        async with frame_server() as (port, peers):
            client = await called(port)
            call = client.open(b"Unary", [b"x"])
            stream = (await peers[0].wait_for(RequestReceived)).stream_id
            peers[0].h2.send_headers(stream, headers, end_stream=True)
            peers[0].flush()
            result = await call.result()
            assert result.status == status
            assert not call.collector.saw_headers
            await client.close()

    run(body())


def test_a_page_of_html_instead_of_an_answer_gives_a_status(run: Run) -> None:
    async def body() -> None:
        async with frame_server() as (port, peers):
            client = await called(port)
            call = client.open(b"Unary", [b"x"])
            stream = (await peers[0].wait_for(RequestReceived)).stream_id
            peers[0].h2.send_headers(stream, [(":status", "503"), ("content-type", "text/html")])
            peers[0].h2.send_data(stream, b"<html>out of order</html>", end_stream=True)
            peers[0].flush()
            result = await call.result()
            assert (result.status, result.messages) == (UNAVAILABLE, [])
            assert "503" in result.text
            await client.close()

    run(body())


@pytest.mark.parametrize(
    ("code", "status", "unprocessed"),
    [
        (ErrorCodes.REFUSED_STREAM, UNAVAILABLE, True),
        (ErrorCodes.CANCEL, CANCELLED, False),
        (ErrorCodes.ENHANCE_YOUR_CALM, RESOURCE_EXHAUSTED, False),
        (ErrorCodes.INTERNAL_ERROR, INTERNAL, False),
        (ErrorCodes.NO_ERROR, INTERNAL, False),
    ],
)
def test_a_reset_by_the_server_gives_a_status(run: Run, code: ErrorCodes, status: int, unprocessed: bool) -> None:
    async def body() -> None:
        async with frame_server() as (port, peers):
            client = await called(port)
            call = client.open(b"Unary", [b"x"])
            stream = (await peers[0].wait_for(RequestReceived)).stream_id
            peers[0].h2.reset_stream(stream, code)
            peers[0].flush()
            assert (await call.result()).status == status
            assert call.call.unprocessed == unprocessed
            assert client.channel.active == 0
            await client.close()

    run(body())


def test_goaway_leaves_earlier_calls_and_marks_later_ones_unprocessed(run: Run) -> None:
    async def body() -> None:
        async with frame_server() as (port, peers):
            client = await called(port)
            calls = [client.open(b"Unary", [b"x"]) for _ in range(3)]
            await peers[0].wait_for(StreamEnded, number=3)
            first = peers[0].of(RequestReceived)[0].stream_id
            peers[0].write(b"\0\0\x08\7\0\0\0\0\0" + first.to_bytes(4, "big") + bytes(4))
            results = [await call.result() for call in calls[1:]]
            assert [result.status for result in results] == [UNAVAILABLE] * 2
            assert [call.call.unprocessed for call in calls[1:]] == [True] * 2
            assert client.channel.draining and not client.channel.closed
            answer(peers[0], first, b"yes")
            assert (await calls[0].result()).messages == [b"yes"]
            await eventually(lambda: client.channel.closed)  # nothing is left to wait for
            await peers[0].lost.wait()

    run(body())


def test_a_lost_connection_ends_calls_as_unavailable(run: Run) -> None:
    async def body() -> None:
        async with frame_server() as (port, peers):
            client = await called(port)
            changes: list[bool] = []
            client.channel.on_change = lambda channel: changes.append(channel.closed)
            sent = client.open(b"Unary", [b"x"])
            await peers[0].wait_for(StreamEnded)
            peers[0].close()
            assert (await sent.result()).status == UNAVAILABLE
            assert not sent.call.unprocessed
            await eventually(lambda: changes == [True])
            with pytest.raises(h2.ChannelUnavailable, match="closed"):
                client.open(b"Unary", [b""])

    run(body())


def test_a_raised_and_a_lowered_stream_limit_are_honoured(run: Run) -> None:
    def two(peer: FramePeer) -> None:
        peer.settings = {SettingCodes.MAX_CONCURRENT_STREAMS: 2}

    async def body() -> None:
        async with frame_server(two) as (port, peers):
            client = await called(port)
            changes: list[int] = []
            client.channel.on_change = lambda channel: changes.append(channel.capacity)
            calls = [client.open(b"Unary", [b"x"]) for _ in range(2)]
            with pytest.raises(h2.ChannelUnavailable, match="capacity"):
                client.open(b"Unary", [b""])
            await peers[0].wait_for(StreamEnded, number=2)
            peers[0].h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: 4})
            peers[0].flush()
            await eventually(lambda: client.channel.capacity == 2)
            calls += [client.open(b"Unary", [b"x"]) for _ in range(2)]
            await peers[0].wait_for(StreamEnded, number=4)
            peers[0].h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: 1})
            peers[0].flush()
            await eventually(lambda: client.channel.capacity == -3)
            assert changes == [2, -3]
            for event in peers[0].of(RequestReceived):
                answer(peers[0], event.stream_id, b"y")
            for call in calls:
                assert (await call.result()).status == OK
            await eventually(lambda: changes == [2, -3, 1])
            await client.close()

    run(body())


def test_calls_kept_back_by_a_lowered_limit_are_unprocessed_when_the_connection_ends(run: Run) -> None:
    def two(peer: FramePeer) -> None:
        peer.settings = {SettingCodes.MAX_CONCURRENT_STREAMS: 2}

    class OpenLate(h2.Handler):
        """Opens a call in the turn in which the lower limit arrives behind the headers that it is told of."""

        def on_headers(self, call: h2.ClientCall) -> None:
            self.late = call.context.open(b"Unary", [b"x"])

    async def body() -> None:
        async with frame_server(two) as (port, peers):
            client = await called(port)
            handler = OpenLate()
            first = client.channel.open(b"/contract.Service/Unary", handler, context=client)
            stream = (await peers[0].wait_for(RequestReceived)).stream_id
            peers[0].h2.send_headers(stream, RESPONSE)
            peers[0].h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: 1})
            peers[0].flush()
            await eventually(lambda: client.channel.peer_max_streams == 1)
            assert client.channel.capacity == -1
            client.channel.close()
            result = await handler.late.result()
            assert result.status == UNAVAILABLE
            assert handler.late.call.unprocessed
            assert not first.unprocessed
            assert len(peers[0].of(RequestReceived)) == 1

    run(body())


def test_a_client_waits_for_the_window_of_the_peer(run: Run) -> None:
    def small(peer: FramePeer) -> None:
        peer.settings = {SettingCodes.INITIAL_WINDOW_SIZE: 1000}
        peer.auto_window = False

    async def body() -> None:
        async with frame_server(small) as (port, peers):
            client = await called(port)
            call = client.open(b"Unary", [bytes(5000)])
            stream = (await peers[0].wait_for(RequestReceived)).stream_id
            await eventually(lambda: len(peers[0].body(stream)) == 1000)
            await asyncio.sleep(0.02)
            assert len(peers[0].body(stream)) == 1000
            assert call.call.queued_bytes == 4005
            peers[0].h2.increment_flow_control_window(10_000, stream)
            peers[0].flush()
            await peers[0].wait_for(StreamEnded, stream)
            assert peers[0].body(stream) == framed(bytes(5000))
            assert call.call.queued_bytes == 0
            answer(peers[0], stream, b"done")
            assert (await call.result()).messages == [b"done"]
            await client.close()

    run(body())


def test_a_server_that_speaks_another_protocol_is_no_channel(run: Run) -> None:
    class Http1(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async def body() -> None:
        listener = await asyncio.get_running_loop().create_server(Http1, "127.0.0.1", 0)
        with pytest.raises(OSError, match="SETTINGS"):
            await called(listener.sockets[0].getsockname()[1])
        listener.close()

    run(body())


def test_settings_are_acknowledged_and_windows_announced(run: Run) -> None:
    async def body() -> None:
        async with frame_server() as (port, peers):
            client = await called(port, h2.Limits(stream_window=123_456, connection_window=1_000_000))
            changed = await peers[0].wait_for(RemoteSettingsChanged)
            assert changed.changed_settings[SettingCodes.INITIAL_WINDOW_SIZE].new_value == 123_456
            assert changed.changed_settings[SettingCodes.ENABLE_PUSH].new_value == 0
            await peers[0].wait_for(SettingsAcknowledged)
            await eventually(lambda: peers[0].h2.outbound_flow_control_window == 1_000_000)
            await client.close()

    run(body())


# --- other openings --------------------------------------------------------------------------------------------------


def test_http1_gets_a_400_where_nobody_takes_it(run: Run) -> None:
    async def body() -> None:
        server, client = await served()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), 2)
        assert answer.startswith(b"HTTP/1.1 400 ")
        head, _, rest = answer.partition(b"\r\n\r\n")
        assert b"content-length: %d\r\n" % len(rest) in head + b"\r\n"
        writer.close()
        client.close()
        await server.close()

    run(body())


def test_http1_is_handed_to_who_takes_it_with_all_it_said(run: Run) -> None:
    class Shout(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            self.transport.write(data.upper())

    async def body() -> None:
        given: list[bytes] = []

        def http1(data: bytes) -> asyncio.Protocol:
            given.append(data)
            return Shout()

        server = h2.Server(asyncio.get_running_loop(), lambda path: None, http1=http1)
        port = await server.listen_tcp("127.0.0.1", 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"PR")
        await asyncio.sleep(0.02)
        writer.write(b"opfind / http/1.1")
        assert await reader.readexactly(19) == b"PROPFIND / HTTP/1.1"
        assert given == [b"PRopfind / http/1.1"]
        writer.write(b"more")
        assert await reader.readexactly(4) == b"MORE"
        writer.close()
        await server.close()

    run(body())


def test_tls_serves_as_well(run: Run, tmp_path: Path) -> None:
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    making = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run([*making, "-keyout", key, "-out", certificate], check=True, capture_output=True)

    async def body() -> None:
        loop = asyncio.get_running_loop()
        server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server_side.load_cert_chain(certificate, key)
        server_side.set_alpn_protocols(["h2"])
        client_side = ssl.create_default_context(cafile=str(certificate))
        client_side.set_alpn_protocols(["h2"])
        server = OurServer()
        port = await server.server.listen_tcp("localhost", 0, ssl=server_side)
        client = OurClient(port)
        client.channel = await h2.Channel.connect(loop, "localhost", port, ssl=client_side)
        big = bytes(3_000_000)
        assert (await client.call(b"Chat", [b"hello", big])).messages == [b"hello", big]
        await client.close()
        await server.close()

    run(body())


def test_an_ended_call_is_freed_without_the_garbage_collector(run: Run) -> None:
    class Quiet(h2.Handler):
        def __init__(self) -> None:
            self.ended = 0

        def on_end(self, call: h2.ClientCall, status: int, message: str) -> None:
            self.ended += 1

    async def body() -> None:
        async with meet("ours", "ours") as (client, server):
            quiet = Quiet()
            gc.collect()
            before = h2.live_objects()["calls"]
            gc.disable()
            for method in (b"Unary", b"Status", b"Chat", b"NoSuch"):
                call = client.channel.open(b"/contract.Service/" + method, quiet, timeout=5.0)
                call.send(b"5 x")
                call.half_close()
                del call
            await eventually(lambda: quiet.ended == 4 and server.server.streams == 0)
            await eventually(lambda: h2.live_objects()["calls"] == before)
            gc.enable()

    run(body())
