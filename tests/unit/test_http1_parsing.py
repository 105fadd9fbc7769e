"""HTTP/1.1 under any bytes in any pieces: answers do not depend on how data is cut, and nothing escapes."""

import asyncio
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from stateside.proxy.http1 import Bounds, Service, route_main_port


class FakeTransport:
    def __init__(self) -> None:
        self.written = b""
        self.closing = False

    def write(self, data: bytes) -> None:
        assert not self.closing
        self.written += data

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = True


class FakeLoop:
    """Timers never fire here."""

    def call_later(self, delay: float, callback: Any) -> Any:
        return asyncio.TimerHandle(delay, callback, (), self)  # type: ignore[arg-type]

    def get_debug(self) -> bool:
        return False

    def _timer_handle_cancelled(self, handle: Any) -> None:
        pass


def talk(pieces: list[bytes]) -> FakeTransport:
    service = Service(route_main_port, FakeLoop(), Bounds(max_header_bytes=1000))  # type: ignore[arg-type]
    protocol, transport = service.connect(), FakeTransport()
    protocol.connection_made(transport)  # type: ignore[arg-type]
    for piece in pieces:
        if transport.closing:
            break
        protocol.data_received(piece)
    protocol.connection_lost(None)
    assert not service.connections
    return transport


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


REQUESTS = st.lists(
    st.sampled_from(
        [
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET /a?b=c HTTP/1.1\r\nHost: x\r\nK-Network-Probe: queue\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nGET ",
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET / HTTP/1.0\r\n\r\n",
            b"GET / HTTP/1.1\r\n\r\n",
            b"nonsense\r\n\r\n",
        ]
    ),
    max_size=6,
).map(b"".join)


@given(REQUESTS, st.lists(st.integers(0, 10_000), max_size=20))
def test_answers_do_not_depend_on_how_the_data_is_cut(data: bytes, places: list[int]) -> None:
    whole, pieces = talk([data]), talk(cut(data, places))
    assert pieces.written == whole.written
    assert pieces.closing == whole.closing


@settings(max_examples=300)
@given(st.lists(st.binary(max_size=200) | REQUESTS, max_size=8))
def test_no_bytes_do_harm(pieces: list[bytes]) -> None:
    transport = talk(pieces)
    assert transport.written == b"" or transport.written.startswith(b"HTTP/1.1 ")


@given(st.binary(min_size=1, max_size=3))
def test_headers_without_an_end_are_refused(filler: bytes) -> None:
    filler = filler.translate(None, b"\r\n:\x00") or b"a"
    transport = talk([b"GET / HTTP/1.1\r\nHost: x\r\na: ", *[filler * 100] * 20])
    assert transport.closing
    assert transport.written.startswith((b"HTTP/1.1 431", b"HTTP/1.1 400"))
