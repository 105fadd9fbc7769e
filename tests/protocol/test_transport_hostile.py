"""Peers that mean harm: each habit is cut off and counted, costs bounded memory, and leaves an honest client served."""

import asyncio
import gc
import resource
import struct
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated, StreamEnded, StreamReset
from h2.settings import SettingCodes

from stateside._speedups import h2

from .frame_peers import REQUEST, FramePeer, block_of, frame, frame_client, framed, request_to
from .transport_peers import OurClient, OurServer, eventually

Run = Callable[[Coroutine[Any, Any, None]], None]
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
OK, RESOURCE_EXHAUSTED = 0, 8


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        yield lambda body: runner.run(body)


@asynccontextmanager
async def attacked(**limits: Any) -> AsyncIterator[OurServer]:
    """A server whose honest client is served before the attack, and after it."""
    server = OurServer(h2.Limits(**limits))
    await server.start()
    honest = OurClient(server.port)
    await honest.start()
    assert (await honest.call(b"Unary", [b"before"])).status == OK
    yield server
    assert (await honest.call(b"Unary", [b"after"])).messages == [b"after"]
    await honest.close()
    await server.close()


async def raw(server: OurServer, *writes: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    for data in writes:
        writer.write(data)
    return reader, writer


async def cut_off(client: FramePeer, code: ErrorCodes | None = ErrorCodes.ENHANCE_YOUR_CALM) -> None:
    await asyncio.wait_for(client.lost.wait(), 5)
    if code is not None:
        assert client.of(ConnectionTerminated)[0].error_code == code


# --- floods ----------------------------------------------------------------------------------------------------------


def test_rapid_reset_is_cut_off(run: Run) -> None:
    async def body() -> None:
        async with attacked(reset_burst=100, reset_rate=1) as server:
            client = await frame_client(server.port)
            block = block_of(request_to("Never"))
            attack = b"".join(
                frame(HEADERS, 4, stream, block) + frame(RST_STREAM, 0, stream, struct.pack(">I", 8))
                for stream in range(1, 2001, 2)
            )
            client.write(attack)
            await cut_off(client)
            assert server.server.counters["floods"] == 1
            assert server.never.opened <= 102
            await eventually(lambda: server.server.streams == 0)

    run(body())


def test_honest_cancels_stay_below_the_limit(run: Run) -> None:
    async def body() -> None:
        async with attacked(reset_burst=20, reset_rate=2000) as server:
            client = OurClient(server.port)
            await client.start()
            for number in range(1, 61):
                call = client.open(b"Never", [b""])
                await server.never_called(number)
                call.cancel()
                await call.result()
            await eventually(lambda: len(server.never.cancelled) == 60)
            assert server.server.counters["floods"] == 0
            await client.close()

    run(body())


def test_resets_provoked_from_the_server_count_as_resets(run: Run) -> None:
    async def body() -> None:
        async with attacked(reset_burst=50, reset_rate=1) as server:
            client = await frame_client(server.port)
            client.pretend(*range(1, 401, 2))
            block = block_of([*REQUEST, ("connection", "close")])
            client.write(b"".join(frame(HEADERS, 5, stream, block) for stream in range(1, 401, 2)))
            await cut_off(client)
            assert server.server.counters["floods"] == 1

    run(body())


@pytest.mark.parametrize("one", [frame(SETTINGS, 0, 0), frame(PING, 0, 0, bytes(8))], ids=["settings", "ping"])
def test_a_flood_of_frames_to_acknowledge_is_cut_off(run: Run, one: bytes) -> None:
    async def body() -> None:
        async with attacked(max_outbound_acks=100) as server:
            client = await frame_client(server.port)
            client.write(one * 5000)
            await cut_off(client, None)
            assert server.server.counters["floods"] == 1

    run(body())


def test_a_flood_of_continuations_is_cut_off(run: Run) -> None:
    async def body() -> None:
        async with attacked() as server:
            client = await frame_client(server.port)
            client.write(frame(HEADERS, 0, 1, block_of()))
            for _ in range(1000):
                client.write(frame(CONTINUATION, 0, 1, b"\x00\x01a\x01b" * 100))
                await asyncio.sleep(0)
            await cut_off(client, None)
            counters = server.server.counters
            assert counters["floods"] + counters["protocol_errors"] == 1

    run(body())


def test_a_flood_of_empty_data_frames_is_cut_off(run: Run) -> None:
    async def body() -> None:
        async with attacked(reset_burst=100, reset_rate=1) as server:
            client = await frame_client(server.port)
            client.pretend(1)
            client.write(frame(HEADERS, 4, 1, block_of(request_to("Chat"))) + frame(DATA, 0, 1) * 1000)
            await cut_off(client)
            assert server.server.counters["floods"] == 1

    run(body())


def test_a_header_bomb_is_refused_and_not_stored(run: Run) -> None:
    async def body() -> None:
        async with attacked() as server:
            client = await frame_client(server.port)
            entry = b"\x40\x01x\x7f" + bytes((0xD0, 0x1E)) + b"y" * (127 + 0x50 + (0x1E << 7))  # once, into the table
            block = block_of() + entry + b"\xbe" * 200  # and two hundred times by one byte each
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            client.pretend(1)
            client.write(frame(HEADERS, 5, 1, block))
            await client.wait_for(StreamEnded, 1)
            assert (await client.ended(1))[":status"] == "431"
            assert server.server.counters["oversized"] == 1
            assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 4096  # KiB
            client.close()

    run(body())


def test_a_header_bomb_that_nobody_can_mean_is_cut_off(run: Run) -> None:
    async def body() -> None:
        async with attacked() as server:
            client = await frame_client(server.port)
            entry = b"\x40\x01x\x7f" + bytes((0xD0, 0x1E)) + b"y" * (127 + 0x50 + (0x1E << 7))
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            client.pretend(1)
            client.write(frame(HEADERS, 5, 1, block_of() + entry + b"\xbe" * 10_000))
            await cut_off(client)
            assert server.server.counters["floods"] == 1
            assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 4096  # KiB

    run(body())


# --- slowness --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "beginning",
    [b"", b"P", PREFACE[:23], PREFACE, PREFACE + frame(SETTINGS, 0, 0)[:5]],
    ids=["nothing", "a byte", "most", "no settings", "half settings"],
)
def test_a_connection_that_does_not_begin_is_cut_off(run: Run, beginning: bytes) -> None:
    async def body() -> None:
        async with attacked(header_timeout=0.1) as server:
            reader, writer = await raw(server, beginning)
            before = asyncio.get_running_loop().time()
            await asyncio.wait_for(reader.read(), 2)
            assert 0.05 < asyncio.get_running_loop().time() - before < 0.5
            assert server.server.counters["floods"] == 1
            writer.close()

    run(body())


def test_slow_headers_are_cut_off(run: Run) -> None:
    async def body() -> None:
        async with attacked(header_timeout=0.15) as server:
            client = await frame_client(server.port)
            block = block_of([*REQUEST, ("x-slow", "y" * 200)])
            client.write(frame(HEADERS, 4, 1, b"", length=len(block)))
            for at in range(len(block)):
                if client.lost.is_set():
                    break
                client.write(block[at : at + 1])
                await asyncio.sleep(0.02)
            await cut_off(client)
            assert server.server.counters["floods"] == 1

    run(body())


def test_answers_for_a_window_that_stays_shut_are_bounded(run: Run) -> None:
    async def body() -> None:
        limit = 4 * 100_000
        async with attacked(max_message_size=100_000, connection_window=65_535) as server:
            client = await frame_client(server.port, settings={SettingCodes.INITIAL_WINDOW_SIZE: 0})
            for stream in range(1, 200, 2):  # each asks for an echo and never takes it
                client.h2.send_headers(stream, REQUEST)
                client.h2.send_data(stream, framed(bytes(15_000)), end_stream=True)
                client.flush()
                await eventually(lambda: client.h2.outbound_flow_control_window > 16_000)
            await eventually(lambda: len(client.of(StreamEnded)) >= 60)
            refused = [e for e in client.events if ("grpc-status", "8") in getattr(e, "headers", ())]
            assert len(refused) == 100 - limit // 15_005 - 1
            client.close()
            await eventually(lambda: server.server.streams == 0)

    run(body())


def test_a_peer_that_never_reads_costs_bounded_memory(run: Run) -> None:
    async def body() -> None:
        async with attacked(max_streams=500) as server:
            client = FramePeer(client=True)
            loop = asyncio.get_running_loop()
            await loop.create_connection(lambda: client, "127.0.0.1", server.port)
            await eventually(lambda: client.events)
            client.transport.pause_reading()
            client.h2.increment_flow_control_window(2**30)
            client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 2**30})
            client.flush()
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            for _ in range(50):
                client.request(request_to("Count"), framed(b"100000 10000"))  # 1 GB each
            await eventually(lambda: server.server.streams == 50)
            await asyncio.sleep(0.3)
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            assert grown < 30 * 1024  # KiB: 50 send queues of 64 KiB, buffers of the socket
            client.close()
            await eventually(lambda: server.server.streams == 0)

    run(body())


def test_unfinished_messages_are_bounded(run: Run) -> None:
    async def body() -> None:
        limit = 4 * 100_000
        async with attacked(max_message_size=100_000, connection_window=65_535) as server:
            client = await frame_client(server.port)
            for stream in range(1, 61, 2):
                client.h2.send_headers(stream, request_to("Chat"))
                client.h2.send_data(stream, framed(bytes(99_000))[:16_000])
                client.flush()
                await eventually(lambda: client.h2.outbound_flow_control_window > 16_000)
            await eventually(lambda: len(client.of(StreamEnded)) == 30 - limit // 15_995)
            assert (await client.ended(59))["grpc-status"] == str(RESOURCE_EXHAUSTED)
            assert not client.of(StreamEnded, 1)
            client.close()

    run(body())


# --- violations ------------------------------------------------------------------------------------------------------


def test_connections_above_the_limit_are_told_to_calm_down(run: Run) -> None:
    async def body() -> None:
        async with attacked(max_connections=2) as server:
            second = await frame_client(server.port)
            third = FramePeer(client=True)
            await asyncio.get_running_loop().create_connection(lambda: third, "127.0.0.1", server.port)
            await cut_off(third)
            assert server.server.counters["refused_connections"] == 1
            assert server.server.connections == 2
            second.close()
            await eventually(lambda: server.server.connections == 1)
            fourth = await frame_client(server.port)
            assert (await fourth.ended(fourth.request(REQUEST, framed(b"x"))))["grpc-status"] == "0"
            fourth.close()

    run(body())


@pytest.mark.parametrize(
    "attack",
    [
        frame(SETTINGS, 0, 0, b"12345"),
        frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 2**31)),
        frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 2**31 - 1)),
        frame(DATA, 0, 1, b"x"),
        frame(HEADERS, 4, 2, b"\x88"),
        frame(HEADERS, 4, 1, b"\xff\xff\xff\xff\xff\xff"),
        frame(PUSH_PROMISE, 4, 1, b"1234\x88"),
        frame(CONTINUATION, 4, 1, b"\x88"),
        frame(PING, 0, 0, b"short"),
        frame(DATA, 0, 0, b"x"),
        frame(SETTINGS, 0, 0, b"", length=2**24 - 1) + bytes(20_000),
    ],
)
def test_a_violation_of_the_protocol_ends_its_connection_only(run: Run, attack: bytes) -> None:
    async def body() -> None:
        async with attacked() as server:
            client = await frame_client(server.port)
            client.write(attack)
            await asyncio.wait_for(client.lost.wait(), 5)
            terminated = client.of(ConnectionTerminated)
            assert terminated and terminated[0].error_code not in (0, ErrorCodes.INTERNAL_ERROR)
            assert server.server.counters["protocol_errors"] >= 1

    run(body())


def test_data_beyond_the_window_is_refused(run: Run) -> None:
    async def body() -> None:
        async with attacked(stream_window=1000) as server:
            client = await frame_client(server.port)
            client.pretend(1)
            client.write(frame(HEADERS, 4, 1, block_of(request_to("Chat"))))
            client.write(frame(DATA, 0, 1, framed(bytes(5000))))
            await eventually(lambda: client.of(StreamReset) or client.of(ConnectionTerminated))
            ended = client.of(StreamReset) or client.of(ConnectionTerminated)
            assert ended[0].error_code == ErrorCodes.FLOW_CONTROL_ERROR
            client.close()

    run(body())


@pytest.mark.parametrize(
    "headers",
    [
        [(":method", "POST"), (":scheme", "http"), ("content-type", "application/grpc")],
        [*REQUEST, ("connection", "close")],
        [*REQUEST, ("Upper", "case")],
        [*REQUEST, (":path", "/again")],
        [*REQUEST, ("x", "line\nbreak")],
        [*REQUEST, ("content-length", "5")],
    ],
    ids=["no path", "connection header", "upper case", "two paths", "line break", "wrong length"],
)
def test_malformed_requests_reset_their_stream_only(run: Run, headers: list[tuple[str, str]]) -> None:
    async def body() -> None:
        async with attacked() as server:
            client = await frame_client(server.port)
            client.pretend(1, 3)
            client.write(frame(HEADERS, 4, 1, block_of(headers)) + frame(DATA, 1, 1, framed(b"longer")))
            await client.wait_for(StreamReset, 1)
            client.write(frame(HEADERS, 4, 3, block_of()) + frame(DATA, 1, 3, framed(b"x")))
            await eventually(lambda: server.server.counters["calls_total"] >= 2)
            assert not client.of(ConnectionTerminated)
            client.close()
            await eventually(lambda: server.server.streams == 0)

    run(body())


def test_nothing_is_left_behind_by_any_of_them(run: Run) -> None:
    async def body() -> None:
        gc.collect()
        await eventually(
            lambda: h2.live_objects() == {"calls": 0, "connections": 0, "queues": 0}, f"{h2.live_objects()}"
        )

    run(body())
