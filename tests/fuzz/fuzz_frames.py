"""Fuzz target: bytes into a server connection, without a socket.

`TestOneInput(data)` is what atheris calls (`python tests/fuzz/fuzz_frames.py` where atheris is there). The first byte
of the input chooses how the rest is cut into reads and whether the transport says that it is full. test_fuzz_frames.py
runs it on mutated conversations.
"""

import asyncio
import sys
from collections.abc import Iterator
from typing import Any

from stateside._speedups import h2

MAX_WRITTEN = 4 * 1024 * 1024


class Echo(h2.Handler):
    def on_message(self, call: h2.Call, message: bytes) -> None:
        if len(message) % 7 == 3:
            call.pause()
            asyncio.get_event_loop().call_soon(call.resume)
        call.send(message)

    def on_half_close(self, call: h2.ServerCall) -> None:
        call.finish(0, "done", [(b"x-end", b"1")])


class Unary(h2.Handler):
    unary = True
    wants_headers = True

    def on_request(self, call: h2.ServerCall, message: bytes) -> None:
        if len(message) % 5 == 4:
            call.fail(13, "as asked")
        else:
            call.reply(message)


HANDLERS: dict[bytes, h2.Handler] = {b"/a/Unary": Unary(), b"/a/Chat": Echo()}


class FakeTransport:
    """Takes what is written, counts it, and closes when told."""

    def __init__(self) -> None:
        self.written = 0
        self.closing = False

    def write(self, data: bytes) -> None:
        self.written += len(data)

    def close(self) -> None:
        self.closing = True

    abort = close

    def is_closing(self) -> bool:
        return self.closing

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("192.0.2.1", 1) if name == "peername" else default


LIMITS = h2.Limits(
    max_message_size=50_000, max_streams=20, reset_burst=50, stream_window=70_000, connection_window=100_000
)
loop = asyncio.new_event_loop()


def turn() -> None:
    """One turn of the loop."""
    loop.call_soon(loop.stop)
    loop.run_forever()


def pieces(shape: int, data: bytes) -> Iterator[bytes]:
    size = (len(data) or 1, 1, 9, 100, 16_393, 3, 24, 1000)[shape & 7]
    for at in range(0, len(data), size):
        yield data[at : at + size]


def TestOneInput(data: bytes) -> None:
    if not data:
        return
    server = h2.Server(loop, HANDLERS.get, limits=LIMITS)
    transport = FakeTransport()
    protocol: Any = server.new_protocol()  # type: ignore[attr-defined]
    protocol.connection_made(transport)
    if data[0] & 8:
        protocol.pause_writing()
    for piece in pieces(data[0], data[1:]):
        if transport.closing:
            break
        protocol.get_buffer(-1)[: len(piece)] = piece
        protocol.buffer_updated(len(piece))
        if data[0] & 16:
            turn()
    turn()
    if data[0] & 8:
        protocol.resume_writing()
    turn()
    protocol.connection_lost(None)
    turn()
    assert transport.written < MAX_WRITTEN + 100 * len(data)
    assert server.streams == server.connections == 0
    assert server.counters["connections_total"] == 1


if __name__ == "__main__":
    import atheris  # type: ignore[import-untyped]

    atheris.Setup(sys.argv, TestOneInput)
    atheris.Fuzz()
