"""Peers of HTTP/1.1 that mean harm, against a running proxy: ambiguous requests are refused and nothing behind them is
read, slowness and size are cut off, memory stays bounded, and honest clients are served meanwhile."""

from __future__ import annotations

import asyncio
import re
from time import monotonic

import pytest

from ..integration.harness import World, eventually
from .hostility import MIB, attacked, resident_bytes

HEADER_TIMEOUT_S = 0.4
SETTINGS = {
    "journal": "memory:",
    "header_timeout": f"{int(HEADER_TIMEOUT_S * 1000)}ms",
    "max_request_size": "256K",
    "max_connections": "300",
    "passivation_timeout": "100ms",
}
PATIENCE_S = 5.0
HOST = b"Host: localhost\r\n"
POST = b"POST /nothing HTTP/1.1\r\n" + HOST
GET = b"GET /nothing HTTP/1.1\r\n" + HOST
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"
# What an attacker would have a proxy before us take for a part of the first request.
SMUGGLED = b"GET /smuggled HTTP/1.1\r\n" + HOST + b"K-Network-Probe: queue\r\n\r\n"


class Peer:
    """A socket without manners."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.is_lost = False

    @classmethod
    async def connect(cls, world: World) -> Peer:
        return cls(*await asyncio.open_connection("127.0.0.1", world.proxy.port))

    async def say(self, data: bytes) -> None:
        """False attackers stop when the proxy does; ours notes it."""
        try:
            self.writer.write(data)
            await asyncio.wait_for(self.writer.drain(), PATIENCE_S)
        except ConnectionError:
            self.is_lost = True

    async def hear(self) -> bytes:
        """All that the proxy says until it closes."""
        found = b""
        try:
            while data := await asyncio.wait_for(self.reader.read(65536), PATIENCE_S):
                found += data
        except ConnectionError:
            self.is_lost = True
        return found

    async def close(self) -> None:
        self.writer.close()
        await asyncio.gather(self.writer.wait_closed(), return_exceptions=True)


def statuses(answers: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"^HTTP/1\.1 (\d{3}) ", answers, re.MULTILINE)]


async def answers_to(world: World, data: bytes) -> list[int]:
    """The statuses of all answers; the proxy has to close the connection."""
    peer = await Peer.connect(world)
    await peer.say(data)
    answers = await peer.hear()
    await peer.close()
    return statuses(answers)


async def all_closed(world: World, *peers: Peer) -> list[bytes]:
    said = await asyncio.gather(*(peer.hear() for peer in peers))
    await asyncio.gather(*(peer.close() for peer in peers))
    return list(said)


# --- requests that two readers understand differently ----------------------------------------------------------------

FRAMING = {
    "length and chunks": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + LAST,
    "chunks and length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n" + LAST,
    "two lengths": POST + b"Content-Length: 0\r\nContent-Length: 5\r\n\r\n",
    "the same length twice": POST + b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n",
    "a list of lengths": POST + b"Content-Length: 0, 0\r\n\r\n",
    "a length with plus": POST + b"Content-Length: +0\r\n\r\n",
    "a length with minus": POST + b"Content-Length: -1\r\n\r\n",
    "a length in hexadecimal": POST + b"Content-Length: 0x0\r\n\r\n",
    "an empty length": POST + b"Content-Length:\r\n\r\n",
    "a length with a blank": POST + b"Content-Length: 0 0\r\n\r\n",
    "a length above 64 bits": POST + b"Content-Length: 18446744073709551616\r\n\r\n",
    "identity": POST + b"Transfer-Encoding: identity\r\n\r\n",
    "an unknown coding": POST + b"Transfer-Encoding: xchunked\r\n\r\n",
    "chunks inside identity": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n" + LAST,
    "chunks of gzip": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + LAST,
    "two codings": POST + b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n" + LAST,
    "chunks twice": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + LAST,
    "chunks of chunks": POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n" + LAST,
    "a blank before the colon": POST + b"Transfer-Encoding : chunked\r\n\r\n" + LAST,
    "a vertical tab": POST + b"Transfer-Encoding:\x0bchunked\r\n\r\n" + LAST,
    "quoted chunks": POST + b'Transfer-Encoding: "chunked"\r\n\r\n' + LAST,
    "chunks with a parameter": POST + b"Transfer-Encoding: chunked;x\r\n\r\n" + LAST,
    "a comma too many": POST + b"Transfer-Encoding: chunked,\r\n\r\n" + LAST,
    "chunks in HTTP/1.0": b"POST /nothing HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n" + LAST,
    "a folded header": POST + b"X: a\r\n b\r\nContent-Length: 0\r\n\r\n",
    "folded chunks": POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n" + LAST,
    "a fold at the beginning": b"GET /nothing HTTP/1.1\r\n Host: localhost\r\n\r\n",
    "offered and of two lengths": POST
    + b"Connection: upgrade\r\nUpgrade: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
    "offered, length and chunks": POST
    + b"Connection: upgrade\r\nUpgrade: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"
    + LAST,
}
LINES = {
    "line feeds": b"GET /nothing HTTP/1.1\nHost: localhost\n\n",
    "a line feed in the headers": GET + b"X: y\nZ: z\r\n\r\n",
    "a line feed at the end": GET + b"\n",
    "a carriage return alone": GET + b"X: y\rZ: z\r\n\r\n",
    "NUL in a value": GET + b"X: a\0b\r\n\r\n",
    "NUL in a name": GET + b"X\0: a\r\n\r\n",
    "a blank in a name": GET + b"X y: a\r\n\r\n",
    "no colon": GET + b"X\r\n\r\n",
    "no name": GET + b": a\r\n\r\n",
    "a bracket in a name": GET + b"X(y): a\r\n\r\n",
    "two hosts": GET + b"Host: other\r\n\r\n",
    "no host": b"GET /nothing HTTP/1.1\r\n\r\n",
    "a host that is none": b"GET /nothing HTTP/1.1\r\nHost: a b/c\r\n\r\n",
    "a tab in the first line": b"GET\t/nothing HTTP/1.1\r\n" + HOST + b"\r\n",
    "an unknown version": b"GET /nothing HTTP/1.2\r\n" + HOST + b"\r\n",
    "a small method": b"get /nothing HTTP/1.1\r\n" + HOST + b"\r\n",
    "an unknown method": b"EVIL /nothing HTTP/1.1\r\n" + HOST + b"\r\n",
    "a control character in the path": b"GET /no\x01thing HTTP/1.1\r\n" + HOST + b"\r\n",
    "half a preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 200,
}
CHUNKS = {
    "a size with 0x": CHUNKED + b"0x1\r\na\r\n" + LAST,
    "a size with plus": CHUNKED + b"+1\r\na\r\n" + LAST,
    "a size with minus": CHUNKED + b"-1\r\na\r\n" + LAST,
    "a size after a blank": CHUNKED + b" 1\r\na\r\n" + LAST,
    "a size before a blank": CHUNKED + b"1 \r\na\r\n" + LAST,
    "no size": CHUNKED + b"\r\na\r\n" + LAST,
    "a size above 64 bits": CHUNKED + b"FFFFFFFFFFFFFFFFF\r\na\r\n" + LAST,
    "a line feed after the size": CHUNKED + b"1\na\r\n" + LAST,
    "no end of a chunk": CHUNKED + b"1\r\naX" + LAST,
    "a line feed after a chunk": CHUNKED + b"1\r\na\n" + LAST,
    "a line feed in an extension": CHUNKED + b"1;a\nb\r\na\r\n" + LAST,
    "a carriage return in an extension": CHUNKED + b"1;a\rb\r\na\r\n" + LAST,
    "NUL in an extension": CHUNKED + b"1;a\0b\r\na\r\n" + LAST,
    "a length as a trailer": CHUNKED + b"0\r\nContent-Length: 50\r\n\r\n",
    "chunks as a trailer": CHUNKED + b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
}


@pytest.mark.parametrize("request_", [*(FRAMING | LINES | CHUNKS).values()], ids=[*(FRAMING | LINES | CHUNKS)])
async def test_an_ambiguous_or_malformed_request_is_refused_and_nothing_behind_it_is_read(
    world: World, request_: bytes
) -> None:
    assert await answers_to(world, request_ + SMUGGLED) == [400]


async def test_all_of_them_at_once_hurt_nobody(world: World) -> None:
    async with attacked(world):
        for _ in range(3):
            attacks = (FRAMING | LINES | CHUNKS).values()
            answers = await asyncio.gather(*(answers_to(world, attack + SMUGGLED) for attack in attacks))
            assert answers == [[400]] * len(answers)


async def test_a_body_hides_no_request(world: World) -> None:
    """Of a request that is not ambiguous the body is the body, whatever it looks like."""
    peer = await Peer.connect(world)
    await peer.say(POST + b"Content-Length: %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED + GET + b"Connection: close\r\n\r\n")
    assert statuses(await peer.hear()) == [404, 404]
    await peer.close()


async def test_a_trailer_is_no_header(world: World) -> None:
    """The probe's header would make it a 200."""
    peer = await Peer.connect(world)
    await peer.say(CHUNKED + b"0\r\nK-Network-Probe: queue\r\n\r\n" + GET + b"Connection: close\r\n\r\n")
    assert statuses(await peer.hear()) == [404, 404]
    await peer.close()


# --- slowness --------------------------------------------------------------------------------------------------------


async def drip(peer: Peer, beginning: bytes, each: bytes, until: float) -> None:
    """Send something, then a little again and again until the proxy has had enough, but not for ever."""
    await peer.say(beginning)
    while each and not peer.is_lost and not peer.reader.at_eof() and monotonic() < until:
        await peer.say(each)
        await asyncio.sleep(0.02)


SLOW = {
    "nothing": (b"", b""),
    "a method": (b"G", b""),
    "headers": (GET, b"X"),
    "a header after the other": (GET, b"X-%d: y\r\n" % 7),
    "a body of known length": (POST + b"Content-Length: 100000\r\n\r\n", b"x"),
    "chunks": (CHUNKED, b"1\r\nx\r\n"),
    "a chunk's size": (CHUNKED, b"0"),
    "a chunk's extension": (CHUNKED + b"1;", b"x"),
    "trailers": (CHUNKED + b"0\r\n", b"X: y\r\n"),
    "half a preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nS", b""),
    "blank lines": (b"", b"\r\n"),
}


@pytest.mark.parametrize(("beginning", "each"), [*SLOW.values()], ids=[*SLOW])
async def test_slowness_is_cut_off_in_time(world: World, beginning: bytes, each: bytes) -> None:
    async with attacked(world):
        begun = monotonic()
        peers = [await Peer.connect(world) for _ in range(20)]
        await asyncio.gather(*(drip(peer, beginning, each, begun + PATIENCE_S) for peer in peers))
        said = await all_closed(world, *peers)
        assert monotonic() - begun < 4.0
        assert {status for answer in said for status in statuses(answer)} <= {408, 431}


async def test_a_client_that_takes_no_answers_is_read_no_further(world: World) -> None:
    """It asks for more and more; what it does not take back does not pile up."""
    async with attacked(world):
        peers = [await Peer.connect(world) for _ in range(10)]
        request = b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"

        async def ask_on(peer: Peer) -> None:
            peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
            for _ in range(200):
                peer.writer.write(request * 100)
                if peer.writer.transport.get_write_buffer_size() > 64 * 1024 or peer.writer.transport.is_closing():
                    break
                await asyncio.sleep(0)

        await asyncio.gather(*(ask_on(peer) for peer in peers))
        for peer in peers:
            peer.writer.transport.abort()
        await asyncio.gather(*(peer.close() for peer in peers))


# --- size ------------------------------------------------------------------------------------------------------------

LONG = b"x" * 60_000
TOO_LARGE = {
    "a path": (b"GET /" + LONG + b" HTTP/1.1\r\n" + HOST + b"\r\n", 431),
    "a header": (GET + b"X: " + LONG + b"\r\n\r\n", 431),
    "a name": (GET + LONG + b": y\r\n\r\n", 431),
    "many headers": (GET + b"X: y\r\n" * 2000 + b"\r\n", 431),
    "a body announced": (POST + b"Content-Length: 1000000000\r\n\r\n", 413),
    "a body": (POST + b"Content-Length: 262145\r\n\r\n" + bytes(262_145), 413),
    "chunks": (CHUNKED + (b"10000\r\n" + bytes(0x10000) + b"\r\n") * 5, 413),
    "an extension": (CHUNKED + b"1;" + LONG, 431),
    "extensions": (CHUNKED + (b"1;" + b"x" * 5_000 + b"\r\ny\r\n") * 60_000, (400, 408, 413, 431)),
    "trailers": (CHUNKED + b"0\r\n" + b"X: y\r\n" * 2000, 431),
    "a trailer": (CHUNKED + b"0\r\nX: " + LONG, 431),
}


@pytest.mark.parametrize(("data", "expected"), [*TOO_LARGE.values()], ids=[*TOO_LARGE])
async def test_what_is_too_large_is_refused(world: World, data: bytes, expected: int | tuple[int, ...]) -> None:
    if isinstance(expected, tuple):
        data = data[: 2 * MIB]
    async with attacked(world):
        peer = await Peer.connect(world)
        await peer.say(data)
        answers = statuses(await peer.hear())
        await peer.close()
        # A peer that goes on sending may lose the answer to the reset that this earns it.
        if answers or not peer.is_lost:
            (answer,) = answers
            assert answer in (expected if isinstance(expected, tuple) else (expected,))


ENDLESS = {
    "headers": (GET, b"X: " + b"y" * 1000 + b"\r\n"),
    "a header": (GET + b"X: ", b"y" * 1000),
    "a path": (b"GET /", b"y" * 1000),
    "a trailer": (CHUNKED + b"0\r\nX: ", b"y" * 1000),
    "trailers": (CHUNKED + b"0\r\n", b"X: " + b"y" * 1000 + b"\r\n"),
    "an extension": (CHUNKED + b"1;", b"y" * 1000),
    "a chunk": (CHUNKED + b"FFFFFFFFFFFFFFF\r\n", b"y" * 1000),
    "a body": (POST + b"Content-Length: 262144\r\n\r\n", b"y" * 1000),
}


@pytest.mark.parametrize(("beginning", "each"), [*ENDLESS.values()], ids=[*ENDLESS])
async def test_what_never_ends_is_cut_off_with_bounded_memory(world: World, beginning: bytes, each: bytes) -> None:
    async with attacked(world):
        peers = [await Peer.connect(world) for _ in range(10)]

        async def flood(peer: Peer) -> None:
            await peer.say(beginning)
            for _ in range(400):  # 10 MB each, if the proxy took them
                if peer.is_lost or peer.reader.at_eof():
                    break
                await peer.say(each * 25)

        await asyncio.gather(*(flood(peer) for peer in peers))
        for peer in peers:
            peer.writer.transport.abort()
        await asyncio.gather(*(peer.close() for peer in peers))


# --- floods ----------------------------------------------------------------------------------------------------------


async def test_pipelines_are_cut_off_after_some_requests(world: World) -> None:
    async with attacked(world):
        assert len(await answers_to(world, (GET + b"\r\n") * 5000)) < 200


async def test_more_connections_than_allowed_are_refused_and_give_room_when_they_go(world: World) -> None:
    before = await refused(world)
    turned_away = 0
    for _ in range(10):  # a machine that is slow enough finds the first ones timed out before the last ones come
        turned_away += await crowd(world, 400)
        if turned_away:
            break
    assert turned_away > 0

    async def counted() -> bool:
        return await refused(world) - before == turned_away

    await eventually(counted, "refused connections are counted")
    async with attacked(world):
        pass


async def crowd(world: World, size: int) -> int:
    """How many of so many connections at once were turned away."""
    peers = await asyncio.gather(*(Peer.connect(world) for _ in range(size)))
    await asyncio.gather(*(peer.say(b"GET") for peer in peers))
    said = await all_closed(world, *peers)
    return size - [statuses(answer) for answer in said].count([408])


async def refused(world: World) -> float:
    _, text = await world.proxy.admin("/metrics")
    found = re.search(r'^stateside_refusals_total\{reason="max_connections"\} (\S+)$', text, re.MULTILINE)
    assert found is not None
    return float(found[1])


async def test_connections_that_come_and_go_leave_nothing(world: World) -> None:
    async with attacked(world):
        for _ in range(20):
            peers = await asyncio.gather(*(Peer.connect(world) for _ in range(50)))
            for number, peer in enumerate(peers):
                await peer.say((b"", GET, GET + b"\r\n", CHUNKED + b"5\r\nab")[number % 4])
                peer.writer.transport.abort()
            await asyncio.gather(*(peer.close() for peer in peers))


async def test_calls_that_are_given_up_at_once_leave_nothing(world: World) -> None:
    async with attacked(world):
        body = b'{"actions": []}'
        request = b"POST /tck/model/eventsourced/hostile HTTP/1.1\r\n" + HOST
        request += b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        for _ in range(10):
            peers = await asyncio.gather(*(Peer.connect(world) for _ in range(50)))
            for peer in peers:
                await peer.say(request)
                peer.writer.transport.abort()
            await asyncio.gather(*(peer.close() for peer in peers))

        async def none_left() -> bool:
            _, text = await world.proxy.admin("/metrics")
            return re.search(r"^stateside_http_calls [012](\.0)?$", text, re.MULTILINE) is not None

        await eventually(none_left, "no call is left")


async def test_all_attacks_together_left_the_proxy_small(world: World) -> None:
    assert world.proxy.process is not None
    assert resident_bytes(world.proxy.process.pid) < 150 * MIB
    assert (await world.proxy.admin("/ready"))[0] == 200
    assert "Traceback" not in world.proxy.log
