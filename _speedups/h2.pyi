"""gRPC over HTTP/2 on nghttp2: the transport of everything hot, as server and as client.

No coroutine, future or task is made for a call. A call is a small object; what happens to it is told to a `Handler` by
plain callbacks on the event loop's thread. All that is to be written in one turn of the loop leaves in one write per
connection. Every method below is to be called from the loop's thread.
"""

import asyncio
import ssl
from collections.abc import Callable, Sequence
from typing import Any, Protocol, final

from stateside._speedups.accesslog import AccessLog
from stateside._speedups.histogram import Histogram

Headers = list[tuple[bytes, bytes]]

class Handler:
    """What the transport calls. Subclass and override what you need; one handler may serve any number of calls.

    Callbacks must not block. An exception in one is logged; the call ends with INTERNAL (server) or is cancelled
    (client).
    """

    unary: bool
    """Server: collect exactly one request message, then call `on_request` once, after the client's half-close.
    No `on_open`, `on_message` or `on_half_close` is called. Default False."""
    wants_headers: bool
    """Keep the peer's headers in `Call.headers`. Default False: they are checked, counted and dropped."""
    wants_metadata: bool
    """Keep only those of the peer's headers and trailers that are not gRPC's own. Default False."""
    essential: bool
    """Server: calls are taken even when others are refused because of overload. Default False."""

    def on_request(self, call: ServerCall, message: bytes) -> None:
        """Server, unary handler: the whole request."""
    def on_metadata(self, call: ServerCall) -> None:
        """Server, unary handler with `wants_metadata`: the request has some. Before `on_request`."""
    def on_open(self, call: ServerCall) -> None:
        """Server, streaming handler: request headers arrived."""
    def on_headers(self, call: ClientCall) -> None:
        """Client: response headers arrived (not for a trailers-only answer)."""
    def on_message(self, call: Call, message: bytes) -> None:
        """One message of the peer, in order, decompressed."""
    def on_half_close(self, call: ServerCall) -> None:
        """Server: the client will send nothing more."""
    def on_drain(self, call: Call) -> None:
        """The send queue fell below its low-water mark after `send` had answered False."""
    def on_cancel(self, call: ServerCall, status: int) -> None:
        """Server: the call ended before `finish`: CANCELLED (reset, connection lost) or DEADLINE_EXCEEDED (the client
        was told). Called at most once, and never after `finish`, `fail` or `reply`. Later sends are ignored.
        """
    def on_end(self, call: ClientCall, status: int, message: str) -> None:
        """Client: the call is over. Called exactly once for every opened call, whatever happened: the peer's status
        from the trailers, or UNAVAILABLE (connection lost or never made; `call.unprocessed` tells whether the peer
        surely never saw it), CANCELLED (own `cancel`), DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED (oversized message),
        INTERNAL (peer broke the protocol).
        """

    def on_web(self, call: WebCall, body: bytes) -> None:
        """Server, the `web` handler: a whole request that is not gRPC's."""
    def on_gone(self, call: WebCall) -> None:
        """Server, the `web` handler: the call ended before its answer was complete (reset, connection lost)."""

class Call:
    """One gRPC call. Attributes are readable at any time, also after its end."""

    context: Any
    """Free for the handler's owner. Cleared by nobody but the owner."""
    handler: Handler
    """Writable: who takes a call over is told what happens to it from then on."""
    headers: Headers
    """Peer's headers without pseudo headers, lower-case names, raw values, in order; empty unless
    `handler.wants_headers`.
    """
    trailers: Headers
    """Client: the peer's trailers, same rule."""
    path: bytes
    ended: bool
    deadline: float
    """Loop time in seconds at which the call expires; 0.0 = never."""
    queued_bytes: int
    """Bytes accepted by `send` and not yet given to the socket."""
    note: str | None
    """Server: a text that the access log is to have beside the call."""

    def send(self, message: bytes) -> bool:
        """Queue one message. False = the queue is now above its high-water mark (`Limits.send_high_water`): stop until
        `on_drain`. The message itself was accepted. Ignored (True) when the call has ended."""
    def send_framed(self, data: bytes) -> bool:
        """Queue bytes that already are length-prefixed gRPC messages (any number of whole ones)."""
    def pause(self) -> None:
        """Deliver no more messages and grant no flow-control window, so that the peer is stopped after one window."""
    def resume(self) -> None:
        """Undo `pause`; what was held back is delivered from a later loop callback, never from inside `resume`."""

class ServerCall(Call):
    peer: str
    """Address of the client, `host:port` or the socket's path."""
    def start(self, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        """Send response headers now. Otherwise they leave with the first message."""
    def reply(self, message: bytes, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        """The whole answer of a unary call at once: headers, one message, trailers with status OK."""
    def finish(self, status: int = 0, message: str = "", trailers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        """End the call after all queued messages. `message` is percent-encoded (gRPC over HTTP/2). Trailers-only if
        nothing was sent.
        """
    def fail(self, status: int, message: str) -> None:
        """`finish` that throws away messages still queued."""

class WebCall(Call):
    """A request that is not gRPC's, and its answer: `answer` once, or `begin`, `write` any number of times, `end`.

    `path` is the target with its query. `headers` are all headers, with `:authority` as `host`. The body was read as a
    whole, bounded by `Limits.max_message_size`; a larger one gets 413 without the handler, and one that does not come
    408. The headers of an answer are sent as they are given: ValueError names one that cannot be.
    """

    method: bytes
    peer: str
    def answer(self, status: int, headers: Sequence[tuple[bytes, bytes]] = (), body: bytes = b"") -> None:
        """The whole answer. For HEAD the body is left out."""
    def begin(self, status: int, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        """The headers of an answer in pieces, now. For HEAD they are all of it: the call has ended."""
    def write(self, data: bytes) -> bool:
        """A further piece. False: stop until `on_drain`."""
    def end(self, complete: bool = True) -> None:
        """The last piece was written. Not `complete`: the stream is reset with INTERNAL_ERROR after what is queued."""

class ClientCall(Call):
    unprocessed: bool
    """After `on_end`: the peer surely did not process the call (REFUSED_STREAM, above GOAWAY's last stream, never
    sent).
    """
    def half_close(self) -> None:
        """Nothing more will be sent, after what is queued."""
    def cancel(self) -> None:
        """Reset the stream with CANCEL; `on_end` follows with CANCELLED from a later loop callback."""

CALL_SECONDS: tuple[float, ...]
"""Bounds of the histograms of call times."""

class CallFigures:
    """What was counted of the calls of one path. Bytes are those of messages with their prefixes."""

    path: bytes
    codes: dict[str, int]
    """Calls by the name of their gRPC status; `OTHER`: by none, or refused as HTTP."""
    seconds: Histogram
    """From the request's headers to the moment the answer was given to the transport."""
    bytes_in: int
    bytes_out: int

class Limits:
    """Bounds of one server or channel. All keyword arguments, all with defaults; sizes in bytes, times in seconds."""
    def __init__(
        self,
        *,
        max_message_size: int = 12 * 1024 * 1024,  # larger: RESOURCE_EXHAUSTED
        max_header_bytes: int = 16 * 1024,  # names + values + 32 each, counted as received: 431 / stream reset
        max_header_count: int = 128,
        # calls at once per connection; above: RESOURCE_EXHAUSTED (server), open() refuses (client)
        max_streams: int = 10_000,
        # server: MAX_CONCURRENT_STREAMS; 0 = well above max_streams, so that calls are refused politely
        announced_streams: int = 0,
        max_connections: int = 10_000,  # server; above: accepted and closed at once with GOAWAY ENHANCE_YOUR_CALM
        stream_window: int = 256 * 1024,
        connection_window: int = 16 * 1024 * 1024,
        send_high_water: int = 64 * 1024,
        send_low_water: int = 16 * 1024,
        reset_burst: int = 10_000,  # stream resets by the peer allowed at once (honest cancels count) ...
        reset_rate: int = 1_000,  # ... and refilled per second; beyond: connection closed, ENHANCE_YOUR_CALM
        max_outbound_acks: int = 1_000,  # unsent SETTINGS/PING answers
        # connection preface, each unfinished header block, and 64 KiB each of the message of a unary call
        header_timeout: float = 10.0,
        idle_timeout: float = 0.0,  # server: connection without calls; 0 = never
        keepalive_interval: float = 0.0,  # send PING when nothing was read for so long; 0 = never
        keepalive_timeout: float = 20.0,  # no answer: connection is lost
    ) -> None: ...

class Server:
    """Accepts connections and calls.

    `lookup(path)` gives the handler of a path such as b"/pkg.Service/Method", or None (UNIMPLEMENTED). Answers are
    remembered per path until `forget()`. `http1(data)` may give an asyncio protocol factory result for a connection
    that does not begin with the HTTP/2 preface; `data` is what was read so far and is fed to the protocol's
    data_received. Without it such a connection gets `400` in HTTP/1.1 and is closed. `web` takes requests whose content
    type is not gRPC's, whatever their path and method. Without it they get `415`, or `405` unless they are POST.
    """

    connections: int
    streams: int
    """Calls open now."""
    counters: dict[str, int]
    """connections_total, calls_total, refused_streams (of those `untaken`: because answers were not taken),
    refused_connections (of those `refused_draining`: because the server stops), oversized, floods, protocol_errors,
    cancelled, expired.
    """
    figures: list[CallFigures]
    """Of every path that was called and is or was served; the first one of all other paths, its `path` is empty."""
    access_log: AccessLog | None
    max_calls: int
    """Calls at once over all connections; further ones are refused until a tenth is gone. 0: any number."""
    other_calls: int
    """Calls under way that came another way and count too."""
    shedding: str | None
    """Why calls are refused that are not `essential`; None: they are not."""
    shed: dict[str, int]
    """Calls so refused, by reason; `max_calls_in_flight` is the one of `max_calls`."""
    def refusal(self, counted: int = 0) -> str | None:
        """Whether one more call has to be refused: why. It is counted in `shed` then. `counted`: 1 if it is one of
        `streams` already."""
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        lookup: Callable[[bytes], Handler | None],
        *,
        limits: Limits | None = None,
        http1: Callable[[bytes], asyncio.Protocol] | None = None,
        web: Handler | None = None,
    ) -> None: ...
    async def listen_tcp(
        self, host: str, port: int, *, reuse_port: bool = False, ssl: ssl.SSLContext | None = None, backlog: int = 1024
    ) -> int:
        """Bind and serve; the bound port. Several calls add listeners. A TLS handshake may take `header_timeout`.
        Raises OSError."""
    async def listen_unix(self, path: str, *, backlog: int = 1024) -> None: ...
    def forget(self) -> None:
        """The routing table changed: ask `lookup` again for every path."""
    def stop_accepting(self) -> None: ...
    async def close(self, grace: float = 0.0) -> None:
        """Stop accepting, GOAWAY, wait up to `grace` seconds for open calls, then close. Calls still open are
        cancelled.
        """

class Channel:
    """One client connection.

    `capacity` is the number of calls that may be opened now (what the peer allows and `Limits.max_streams`, less those
    open). It may be negative after the peer lowered its limit. `on_change(channel)` is called, from the loop, when
    capacity became positive again, when the peer's SETTINGS changed it, when GOAWAY came (`draining`) and when the
    connection was lost (`closed`).
    """

    active: int
    capacity: int
    peer_max_streams: int
    """Peer's MAX_CONCURRENT_STREAMS; 2**32 - 1 if it announced none."""
    draining: bool
    closed: bool
    on_change: Callable[[Channel], None] | None
    @staticmethod
    async def connect(
        loop: asyncio.AbstractEventLoop,
        host: str,
        port: int,
        *,
        limits: Limits | None = None,
        ssl: ssl.SSLContext | None = None,
        authority: str | None = None,
        server_hostname: str | None = None,
    ) -> Channel:
        """A ready channel: the peer's first SETTINGS were received. Raises OSError, or TimeoutError after 10 s.

        `server_hostname`, with `ssl`: the name that the peer's certificate is to have, if it is not `host`.
        """
    @staticmethod
    async def connect_unix(loop: asyncio.AbstractEventLoop, path: str, *, limits: Limits | None = None) -> Channel: ...
    def open(
        self,
        path: bytes,
        handler: Handler,
        *,
        context: Any = None,
        headers: Sequence[tuple[bytes, bytes]] = (),
        timeout: float = 0.0,
    ) -> ClientCall:
        """Open a call; request headers leave with this turn's write. `timeout` in seconds is sent as grpc-timeout and
        enforced here too. Raises ChannelUnavailable when closed or draining or without capacity.
        """
    def close(self) -> None:
        """GOAWAY and close at once; open calls end with UNAVAILABLE."""

class ChannelUnavailable(Exception): ...

class PassedCall:
    """A call on its way to another server, in `context` of its client until that has its answer. `client` is None from
    then on. `tries`: how often it was sent. `since` is for its owner to use."""

    client: Any
    path: bytes
    message: bytes
    streams: bool
    tries: int
    since: float
    def on_client_drain(self) -> None:
        """The client takes messages again."""
    def on_client_cancel(self, status: int) -> None:
        """The client went away, or its time is up: the other server is told."""
    def fail(self, status: int, message: str) -> None:
        """Give the client this status in place of an answer."""

class PassageOwner(Protocol):
    """What becomes of calls while there is no channel, and of those that broke off."""

    def on_waiting(self, passed: PassedCall) -> None:
        """The call cannot be sent now."""
    def on_withdrawn(self, passed: PassedCall) -> None:
        """The client of a call that was not sent is gone."""
    def on_broken(self, passed: PassedCall, unprocessed: bool) -> None:
        """The connection was lost before the call's answer. `unprocessed`: the other server surely never saw it."""

@final
class Passage(Handler):
    """Passes calls with one request message on to another server over `channel`, and the answers back as they are:
    headers, messages, status, trailers; with the client's deadline, cancellation and back-pressure."""

    channel: Channel | None
    holding: bool
    """Calls wait for their turn: later ones wait too."""
    passed: int
    """Calls sent, each time."""
    def __init__(self, owner: PassageOwner) -> None: ...
    def take(
        self,
        client: Any,
        path: bytes,
        message: bytes,
        streams: bool = False,
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        """Pass the call of `client` on, or have `on_waiting` called. The client is a ServerCall, whose handler the
        passage becomes, or offers the same methods and tells its `context` (`PassedCall`) what happens. `streams`: any
        number of messages may come back, each is given to the client at once. `headers`: sent along."""
    def pass_on(self, passed: PassedCall) -> bool:
        """Send a call that waited. False: still not possible."""

def live_objects() -> dict[str, int]:
    """Count of live Call, connection and queue objects of this process, for leak tests."""
