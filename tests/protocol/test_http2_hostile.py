"""Peers of HTTP/2 that mean harm, against a running proxy: each is cut off or refused, the process stays small, and
honest clients are served meanwhile. What exactly is answered to each is in test_transport_hostile.py."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable

import pytest
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated, DataReceived, StreamEnded
from h2.settings import SettingCodes

from ..integration.harness import World, eventually
from .frame_peers import FramePeer, block_of, frame, framed
from .hostility import MIB, attacked, in_flight, resident_bytes
from .transport_peers import eventually as soon_true

SETTINGS = {
    "journal": "memory:",
    "header_timeout": "500ms",
    "max_request_size": "256K",
    "passivation_timeout": "100ms",
}
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS_FRAME, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, END_HEADERS = 1, 4
PATIENCE_S = 8.0
PEERS = 5
PATH = "/cloudstate.tck.model.EventSourcedTckModel/Process"
REQUEST = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", PATH),
    (":authority", "localhost"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
]
REFLECTION = [
    (name, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo" if name == ":path" else value)
    for name, value in REQUEST
]
WEB = [(":method", "POST"), (":scheme", "http"), (":path", "/nothing"), (":authority", "localhost")]


async def connect(world: World, window: int | None = None) -> FramePeer:
    peer = FramePeer(client=True)
    if window is not None:
        peer.settings = {SettingCodes.INITIAL_WINDOW_SIZE: window}
    await asyncio.get_running_loop().create_connection(lambda: peer, "127.0.0.1", world.proxy.port)
    await soon_true(lambda: peer.events, "SETTINGS of the proxy")
    return peer


async def pour(peer: FramePeer, piece: bytes, times: int) -> None:
    """Write it again and again, no faster than it is taken, until the proxy has had enough."""
    for _ in range(times):
        if peer.lost.is_set() or peer.transport.is_closing():
            return
        peer.write(piece)
        while peer.transport.get_write_buffer_size() > MIB and not peer.lost.is_set():
            await asyncio.sleep(0.001)
        await asyncio.sleep(0)


async def all_lost(peers: list[FramePeer], code: ErrorCodes | None = None) -> None:
    async with asyncio.timeout(PATIENCE_S):
        for peer in peers:
            await peer.lost.wait()
    if code is not None:
        for peer in peers:
            assert [event.error_code for event in peer.of(ConnectionTerminated)] in ([code], [])  # lost to a reset


async def none_left(world: World) -> None:
    async def idle() -> bool:
        return (await in_flight(world))["calls"] <= 1  # the honest client's

    await eventually(idle, "no call is left")


def resets(block: bytes) -> bytes:
    return b"".join(
        frame(HEADERS, END_HEADERS, stream, block) + frame(RST_STREAM, 0, stream, struct.pack(">I", 8))
        for stream in range(1, 40_001, 2)
    )


# name -> (what comes first, what is repeated, how often)
FLOODS: dict[str, tuple[bytes, bytes, int]] = {
    "rapid resets": (b"", resets(block_of(REQUEST)), 1),
    "rapid resets of requests that are not gRPC's": (b"", resets(block_of(WEB)), 1),
    "settings": (b"", frame(SETTINGS_FRAME, 0, 0) * 5000, 200),
    "settings that change something": (
        b"",
        frame(SETTINGS_FRAME, 0, 0, struct.pack(">HIHI", 4, 70_000, 1, 0) * 20) * 500,
        200,
    ),
    "pings": (b"", frame(PING, 0, 0, bytes(8)) * 5000, 200),
    "continuations": (
        frame(HEADERS, 0, 1, block_of(REQUEST)),
        frame(CONTINUATION, 0, 1, b"\x00\x01a\x01b" * 100) * 20,
        200,
    ),
    "empty continuations": (frame(HEADERS, 0, 1, block_of(REQUEST)), frame(CONTINUATION, 0, 1) * 5000, 200),
    "empty data": (frame(HEADERS, END_HEADERS, 1, block_of(REFLECTION)), frame(DATA, 0, 1) * 5000, 200),
    "padding without data": (
        frame(HEADERS, END_HEADERS, 1, block_of(REFLECTION)),
        frame(DATA, 8, 1, b"\xff" + bytes(255)) * 100,
        1000,
    ),
}


@pytest.mark.parametrize("name", [*FLOODS])
async def test_a_flood_is_cut_off(world: World, name: str) -> None:
    first, piece, times = FLOODS[name]
    async with attacked(world):
        peers = [await connect(world) for _ in range(PEERS)]
        for peer in peers:
            # Nothing is answered, or taken.
            peer.transport.pause_reading()
            peer.write(first)
        pouring = [asyncio.create_task(pour(peer, piece, times)) for peer in peers]
        await asyncio.wait(pouring, timeout=PATIENCE_S)
        assert all(task.done() for task in pouring)
        for peer in peers:
            peer.close()
        await all_lost(peers)
        await none_left(world)


HARMLESS: dict[str, bytes] = {
    "priorities": frame(PRIORITY, 0, 1, struct.pack(">IB", 0, 10)) * 2000,
    "priorities of streams that are not there": b"".join(
        frame(PRIORITY, 0, stream, struct.pack(">IB", stream - 2, 10)) for stream in range(3, 4001, 2)
    ),
    "windows that grow by one": frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1)) * 2000,
    "frames of unknown types": frame(0x77, 0xFF, 1, bytes(1000)) * 200,
}


@pytest.mark.parametrize("name", [*HARMLESS])
async def test_what_costs_the_proxy_no_more_than_its_sender_is_borne_or_cut_off(world: World, name: str) -> None:
    async with attacked(world):
        peers = [await connect(world) for _ in range(PEERS)]
        await asyncio.gather(*(pour(peer, HARMLESS[name], 50) for peer in peers))
        for peer in peers:
            peer.close()


LITERAL = b"\x40"  # with incremental indexing, new name
HPACK: dict[str, bytes] = {
    "Huffman code that ends early": LITERAL + b"\x81\xff" + b"\x81\xff",
    "Huffman code with the end inside": LITERAL + b"\x84\xff\xff\xff\xff" + b"\x01a",
    "an index beyond the table": b"\xff\xff\xff\xff\x0f",
    "an integer without end": b"\xff" + b"\xff" * 20,
    "a table above the limit": b"\x3f\xe1\xff\xff\xff\x0f",
    "a length beyond the block": LITERAL + b"\x7f\xff\xff\x7f" + b"x",
    "index 0": b"\x80",
}


@pytest.mark.parametrize("name", [*HPACK])
async def test_broken_header_compression_ends_its_connection(world: World, name: str) -> None:
    async with attacked(world):
        peers = [await connect(world) for _ in range(PEERS)]
        for peer in peers:
            peer.write(frame(HEADERS, END_HEADERS | END_STREAM, 1, HPACK[name]))
        await all_lost(peers, ErrorCodes.COMPRESSION_ERROR)


async def test_header_bombs_are_cut_off(world: World) -> None:
    """One large header in the table of the compression, and then by one byte each ten thousand times."""
    entry = LITERAL + b"\x01x\x7f" + bytes((0xD0, 0x1E)) + b"y" * (127 + 0x50 + (0x1E << 7))
    async with attacked(world):
        peers = [await connect(world) for _ in range(PEERS)]
        for peer in peers:
            for stream in range(1, 41, 2):
                block = block_of(REQUEST) + (entry if stream == 1 else b"") + b"\xbe" * 10_000
                peer.pretend(stream)
                peer.write(frame(HEADERS, END_HEADERS | END_STREAM, stream, block))
        await all_lost(peers, ErrorCodes.ENHANCE_YOUR_CALM)


# --- slowness --------------------------------------------------------------------------------------------------------


async def drip(peer: FramePeer, data: Callable[[int], bytes]) -> None:
    for number in range(int(PATIENCE_S / 0.02)):
        if peer.lost.is_set() or peer.of(StreamEnded):
            return
        peer.write(data(number))
        await asyncio.sleep(0.02)


async def test_slow_headers_are_cut_off(world: World) -> None:
    async with attacked(world):
        peers = [await connect(world) for _ in range(PEERS)]
        for peer in peers:
            peer.write(frame(HEADERS, END_HEADERS, 1, b"", length=4000))
        await asyncio.gather(*(drip(peer, lambda _: b"\x00") for peer in peers))
        await all_lost(peers)


@pytest.mark.parametrize(
    ("headers", "status"), [(REQUEST, ("grpc-status", "4")), (WEB, (":status", "408"))], ids=["gRPC", "not gRPC"]
)
async def test_slow_bodies_are_cut_off_and_the_connection_stays(
    world: World, headers: list[tuple[str, str]], status: tuple[str, str]
) -> None:
    async with attacked(world):
        peers = [await connect(world) for _ in range(PEERS)]
        message = framed(bytes(100_000))
        for peer in peers:
            peer.pretend(1)
            peer.write(frame(HEADERS, END_HEADERS, 1, block_of(headers)))
        await asyncio.gather(*(drip(peer, lambda n: frame(DATA, 0, 1, message[n : n + 1])) for peer in peers))
        name, value = status
        for peer in peers:
            assert (await peer.ended(1))[name] == value
            assert not peer.lost.is_set()
            peer.close()
        await none_left(world)


async def test_a_slow_body_that_comes_on_is_waited_for(world: World) -> None:
    """Each 64 KiB have the time, not the whole."""
    peer = await connect(world)
    stream = peer.request(WEB, b"", end=False)
    for _ in range(3):
        for _ in range(5):
            peer.h2.send_data(stream, bytes(13_200))
        peer.flush()
        await asyncio.sleep(0.3)
        await soon_true(lambda: peer.h2.local_flow_control_window(stream) > 66_000)
    peer.h2.end_stream(stream)
    peer.flush()
    assert (await peer.ended(stream))[":status"] == "404"
    peer.close()


# --- answers that are not taken --------------------------------------------------------------------------------------


async def test_answers_for_windows_that_stay_shut_are_bounded(world: World) -> None:
    """Reflection answers with kilobytes what is asked in bytes."""
    question = framed(b"\x22\x29cloudstate.tck.model.EventSourcedTckModel")
    async with attacked(world, mib=48):
        peers = [await connect(world, window=0) for _ in range(PEERS)]
        for peer in peers:
            for _ in range(100):
                peer.request(REFLECTION, question)
            peer.flush()
        await asyncio.sleep(0.3)
        for peer in peers:
            assert not peer.of(DataReceived)
            peer.close()
        await none_left(world)


async def test_streams_that_are_opened_and_left_are_bounded(world: World) -> None:
    async with attacked(world, mib=64):
        peers = [await connect(world) for _ in range(PEERS)]
        block = block_of(REQUEST)
        for peer in peers:
            headers = b"".join(frame(HEADERS, END_HEADERS, stream, block) for stream in range(1, 801, 2))
            peer.pretend(*range(1, 801, 2))
            peer.write(headers)
        await asyncio.gather(*(ended_all(peer, 400) for peer in peers))
        for peer in peers:
            peer.close()
        await none_left(world)


async def ended_all(peer: FramePeer, streams: int) -> None:
    await soon_true(lambda: len(peer.of(StreamEnded)) == streams or peer.lost.is_set(), seconds=PATIENCE_S)


async def test_all_attacks_together_left_the_proxy_small(world: World) -> None:
    assert world.proxy.process is not None
    assert resident_bytes(world.proxy.process.pid) < 200 * MIB
    assert (await world.proxy.admin("/ready"))[0] == 200
    assert "Traceback" not in world.proxy.log
