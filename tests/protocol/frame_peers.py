"""HTTP/2 peers with control of every frame, on the pure-Python h2 library: a client for our server and the reverse."""

import asyncio
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, StreamEnded
from h2.settings import Settings
from hpack import Encoder, NeverIndexedHeaderTuple

from .transport_peers import eventually

REQUEST = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/contract.Service/Unary"),
    (":authority", "localhost"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
]
RESPONSE = [(":status", "200"), ("content-type", "application/grpc")]
TRAILERS = [("grpc-status", "0")]


def framed(message: bytes, compressed: int = 0) -> bytes:
    """A length-prefixed gRPC message."""
    return struct.pack(">BI", compressed, len(message)) + message


def frame(kind: int, flags: int, stream: int, payload: bytes = b"", length: int | None = None) -> bytes:
    """A raw HTTP/2 frame; `length` may lie."""
    return (
        struct.pack(">I", len(payload) if length is None else length)[1:]
        + bytes((kind, flags))
        + struct.pack(">I", stream)
        + payload
    )


def request_to(path: str, *more: tuple[str, str]) -> list[tuple[str, str]]:
    return [(name, f"/contract.Service/{path}" if name == ":path" else value) for name, value in REQUEST] + list(more)


def block_of(headers: Sequence[tuple[str, str]] = REQUEST) -> bytes:
    """A header block that leaves no trace in the compression context."""
    return bytes(Encoder().encode([NeverIndexedHeaderTuple(*header) for header in headers]))


class FramePeer(asyncio.Protocol):
    """One connection. Received events gather in `events`; only SETTINGS and PING are answered without the test."""

    def __init__(self, client: bool) -> None:
        config = H2Configuration(client_side=client, header_encoding="utf-8", validate_outbound_headers=False)
        self.h2 = H2Connection(config)
        self.events: list[Event] = []
        self.lost = asyncio.Event()
        self.transport: Any = None
        self.auto_window = True
        self.received = 0
        self.settings: Any = {}

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        if self.settings:  # to be in the first SETTINGS frame
            client = bool(self.h2.config.client_side)
            self.h2.local_settings = Settings(client=client, initial_values=self.settings)
        self.h2.initiate_connection()
        self.flush()

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        for event in self.h2.receive_data(data):
            self.events.append(event)
            if isinstance(event, DataReceived) and self.auto_window and event.flow_controlled_length:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        self.flush()

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.set()

    def flush(self) -> None:
        data = self.h2.data_to_send()
        if data and not self.transport.is_closing():
            self.transport.write(data)

    def write(self, data: bytes) -> None:
        self.flush()
        if not self.transport.is_closing():
            self.transport.write(data)

    # --- what tests do ---

    def request(self, headers: Sequence[tuple[str, str]] = REQUEST, body: bytes | None = None, end: bool = True) -> int:
        stream: int = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, headers, end_stream=body is None and end)
        if body is not None:
            self.h2.send_data(stream, body, end_stream=end)
        self.flush()
        return stream

    def pretend(self, *streams: int) -> None:
        """Have h2 believe that it opened these streams, which the test opens with frames of its own."""
        for stream in streams:
            self.h2.send_headers(stream, [NeverIndexedHeaderTuple(*header) for header in REQUEST])
        self.h2.clear_outbound_data_buffer()

    def of(self, kind: type, stream: int | None = None) -> list[Any]:
        return [
            e
            for e in self.events
            if isinstance(e, kind) and (stream is None or getattr(e, "stream_id", None) == stream)
        ]

    async def wait_for(self, kind: type, stream: int | None = None, number: int = 1) -> Any:
        await eventually(
            lambda: len(self.of(kind, stream)) >= number, f"{kind.__name__} on {stream}: {self.events[-5:]}"
        )
        return self.of(kind, stream)[number - 1]

    async def ended(self, stream: int) -> dict[str, str]:
        """All headers and trailers of a stream, after its end."""
        await self.wait_for(StreamEnded, stream)
        blocks = [e.headers for e in self.events if getattr(e, "stream_id", None) == stream and hasattr(e, "headers")]
        return {name: value for block in blocks for name, value in block}

    def body(self, stream: int) -> bytes:
        return b"".join(e.data for e in self.of(DataReceived, stream))

    def close(self) -> None:
        self.transport.abort()


async def frame_client(port: int, **settings: Any) -> FramePeer:
    """A client of the server at `port`, after the exchange of SETTINGS."""
    peer = FramePeer(client=True)
    peer.auto_window = settings.pop("auto_window", True)
    peer.settings = settings.pop("settings", {})
    await asyncio.get_running_loop().create_connection(lambda: peer, "127.0.0.1", port)
    await eventually(lambda: len(peer.events) >= 2, "SETTINGS")
    return peer


@asynccontextmanager
async def frame_server(
    setup: Callable[[FramePeer], None] | None = None,
) -> AsyncIterator[tuple[int, list[FramePeer]]]:
    """Port of a listener, and the connections it took."""
    peers: list[FramePeer] = []

    def accept() -> FramePeer:
        peer = FramePeer(client=False)
        if setup is not None:
            setup(peer)
        peers.append(peer)
        return peer

    listener = await asyncio.get_running_loop().create_server(accept, "127.0.0.1", 0)
    try:
        yield listener.sockets[0].getsockname()[1], peers
    finally:
        listener.close()
        for peer in peers:
            peer.close()
