"""HTTP/1.1 in the small: the admin ports, and the side of the main port that does not speak HTTP/2.

A `Service` holds the connections of one port and a route (exchange.py). Requests of a connection are served one after
another: while an answer is awaited, those behind it wait, and a client that goes away is told to the `Later`. Answers
in pieces are chunked for HTTP/1.1 and end with the connection for HTTP/1.0. Everything is bounded: connections, header
bytes, body bytes (kept only where a route wants bodies), what a client may send ahead, what waits to be taken by it,
and the time it may take.
"""

import asyncio
from collections import deque
from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus
from typing import NamedTuple, cast

import httptools

from stateside.proxy import logs
from stateside.proxy.config import Settings
from stateside.proxy.exchange import Later, Request, Response, Route, Upgrade, text
from stateside.proxy.plain_request import HOST, PlainReader

# Data is parsed in slices, so that headers are refused soon after they exceed their bound.
_SLICE_BYTES = 4096
# More requests in one read than this are not a client in a hurry.
_MAX_PIPELINED = 16
# A client that sends too large a body is read on for so long, in seconds: closing before would reset the connection,
# and it might never read why.
_LINGER = 2.0
# Loops round their clock to milliseconds, so timers may come a little early.
_CLOCK_STEP = 0.002
# A body may take any time, as long as so many bytes of it come within each `request_timeout`.
_BODY_STEP_BYTES = 64 * 1024
# What a client may send ahead while it waits for an answer, before it is not read any more.
_MAX_AHEAD_BYTES = 64 * 1024
log = logs.get(__name__)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds of one port. Sizes in bytes, times in seconds."""

    max_connections: int = 256
    max_header_bytes: int = 16 * 1024
    max_header_count: int = 128
    max_body_bytes: int = 64 * 1024
    keep_bodies: bool = False  # otherwise they are counted and dropped
    request_timeout: float = (
        10.0  # from the first byte of a request to its end or the next part of its body; also for the first byte at all
    )
    idle_timeout: float = 75.0  # between requests


def main_port(settings: Settings, loop: asyncio.AbstractEventLoop, route: Route | None = None) -> "Service":
    """The HTTP/1.1 side of the main port: `Server(http1=main_port(...).connect)`."""
    bounds = Bounds(
        max_connections=settings.max_connections,
        max_header_bytes=settings.max_header_bytes,
        max_header_count=settings.max_header_count,
        max_body_bytes=settings.max_request_size,
        keep_bodies=True,
        request_timeout=settings.header_timeout,
    )
    return Service(route or route_main_port, loop, bounds)


def route_main_port(request: Request) -> Response:
    """What fits no HTTP rule: Knative's network probe, or nothing."""
    probe = request.headers.get("k-network-probe")
    if probe == "queue":
        return Response(HTTPStatus.OK, b"queue")
    if probe is not None:
        return Response(HTTPStatus.BAD_REQUEST, f"unexpected probe header value: {probe}".encode())
    return text(HTTPStatus.NOT_FOUND)


class Service:
    """The connections of one port."""

    def __init__(self, route: Route, loop: asyncio.AbstractEventLoop, bounds: Bounds | None = None) -> None:
        self.route = route
        self.loop = loop
        self.bounds = bounds or Bounds()
        self.connections: set[Connection] = set()
        self.stopping = False
        self.refused_connections = 0
        self.refused: dict[int, int] = {}  # requests that never reached the route, by status
        self._empty = asyncio.Event()

    def connect(self, data: bytes = b"") -> asyncio.Protocol:
        """A protocol for a new connection. `data` is there for the transport's hook; `data_received` gets it."""
        return Connection(self)

    def close(self) -> None:
        """Close all connections."""
        for connection in list(self.connections):
            connection.close()

    async def drain(self, grace: float) -> None:
        """Let requests be answered for up to `grace` seconds, accept no others, then close all connections."""
        self.stopping = True
        for connection in list(self.connections):
            if not connection.busy:
                connection.close()
        if any(connection.busy for connection in self.connections):
            self._empty.clear()
            try:
                async with asyncio.timeout(grace):
                    await self._empty.wait()
            except TimeoutError:
                log.warning("requests were cut off: they were not answered within graceful_termination_timeout")
        self.close()

    def forget(self, connection: "Connection") -> None:
        self.connections.discard(connection)
        if not any(other.busy for other in self.connections):
            self._empty.set()


class _Pieces(Enum):
    """How the answer in pieces that was begun is delimited."""

    NONE = 0  # none was begun
    CHUNKED = 1
    UNTIL_CLOSE = 2
    TUNNEL = 3  # another protocol's


class _Exchange(NamedTuple):
    """A whole request, or what it is refused with."""

    request: Request
    refusal: Response | None
    keep_alive: bool


class Connection(asyncio.Protocol):
    """One client. The parser calls `on_...`; whole requests are queued, and served in their order.

    While an answer is awaited nothing more is parsed, and what arrives is held; a piece of data may hold several
    requests, so some may be queued already. To a `Later` the connection is its `Carrier`.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._bounds = service.bounds
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._peer = ""
        self._timer_due = 0.0  # in loop time, as `_due`
        self._due = 0.0  # when the client's time is up
        self._request = Request()
        self._body = bytearray()
        self._header_bytes = 0
        self._header_count = 0
        self._body_bytes = 0
        self._beside_body = 0  # chunk sizes, extensions and trailers since the last byte of the body
        self._answered = 0  # requests of the last read
        self._in_headers = True
        self._between_requests = True
        self._queue: deque[_Exchange] = deque()
        self._is_last = False  # the connection is closed after what is queued
        self._later: Later | None = None  # what `_exchange` waits for
        self._exchange: _Exchange | None = None
        self._serving = False
        self._pieces = _Pieces.NONE
        self._drain_due = False  # `write` answered False
        self._peer = ""
        self._plain = PlainReader(0, 0, "")
        self._held = bytearray()
        self._reading = True
        self._is_full = False  # the client does not take what is written
        self._is_held = False  # what was waited for does not want to read on

    @property
    def busy(self) -> bool:
        """Whether a request waits for its answer."""
        return self._later is not None or bool(self._queue)

    # --- asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._peer = _name_of_peer(transport.get_extra_info("peername"))
        self._plain = PlainReader(self._bounds.max_header_bytes, self._bounds.max_header_count, self._peer)
        self._service.connections.add(self)
        self._arm(self._bounds.request_timeout)
        if len(self._service.connections) > self._bounds.max_connections:
            self._service.refused_connections += 1
            self._refuse(text(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections"))
            self._serve()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._disarm()
        self._abandon()
        self._service.forget(self)

    def data_received(self, data: bytes) -> None:
        if self._pieces is _Pieces.TUNNEL and isinstance(self._later, Upgrade):
            self._later.on_data(data)
            return
        self._answered = 0
        if self._between_requests and not self._held and not self.busy and not self._is_last:
            request = self._plain.read(data)
            if request is not None and len(request.body) <= self._bounds.max_body_bytes:
                self._take_plain(request)
                return
        self._held += data
        self._go_on()

    def _take_plain(self, request: Request) -> None:
        """A request that came at once; the parser never sees it."""
        if not self._bounds.keep_bodies:
            request.body = b""
        self._queue.append(_Exchange(request, None, True))
        self._serve()
        self._arm(self._bounds.idle_timeout)

    def pause_writing(self) -> None:
        self._is_full = True
        self._pace()

    def resume_writing(self) -> None:
        self._is_full = False
        self._pace()
        if self._drain_due and self._later is not None:
            self._drain_due = False
            self._later.on_drain()

    # --- parser

    def on_message_begin(self) -> None:
        self._request = Request()
        self._body = bytearray()
        self._header_bytes = self._header_count = self._body_bytes = self._beside_body = 0
        self._in_headers = True
        self._between_requests = False
        self._arm(self._bounds.request_timeout)

    def on_url(self, url: bytes) -> None:
        self._request.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_count += 1
        if self._header_count > self._bounds.max_header_count:
            self._refuse(text(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE))
        elif self._in_headers:  # trailers are counted and dropped: nobody is to pass them off as headers
            self._request.fields.append((name.lower(), value))
            self._request.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._in_headers = False
        request = self._request
        request.method = self._parser.get_method().decode("latin-1")
        request.path = request.target.partition(b"?")[0].decode("latin-1")
        request.version = self._parser.get_http_version()
        request.peer = self._peer
        if problem := framing_problem(request):
            self._refuse(text(HTTPStatus.BAD_REQUEST, problem))
        elif self._bounds.keep_bodies and self._announced_bytes() > self._bounds.max_body_bytes:
            self._refuse_body()
        elif "expect" in request.headers:
            self._expected()

    def on_body(self, body: bytes) -> None:
        steps = self._body_bytes // _BODY_STEP_BYTES
        self._body_bytes += len(body)
        self._beside_body = 0
        if self._body_bytes > self._bounds.max_body_bytes:
            self._refuse_body()
        elif self._bounds.keep_bodies:
            self._body += body
            if self._body_bytes // _BODY_STEP_BYTES > steps:
                self._arm(self._bounds.request_timeout)

    def on_message_complete(self) -> None:
        if self._is_last or self._offers_with_body():
            return
        self._answered += 1
        wanted = self._parser.should_keep_alive() and not self._parser.should_upgrade()
        keep_alive = wanted and self._answered < _MAX_PIPELINED
        self._between_requests = True
        self._request.body = bytes(self._body)
        self._body.clear()
        self._enqueue(None, keep_alive)
        self._arm(self._bounds.idle_timeout)

    def _offers_with_body(self) -> bool:
        """Whether the request that was just read offers another protocol and has a body, which the parser leaves
        unread."""
        has_body = self._announced_bytes() > 0 or "transfer-encoding" in self._request.headers
        return has_body and self._parser.should_upgrade() and self._request.method != "CONNECT"

    def _announced_bytes(self) -> int:
        length = self._request.headers.get("content-length", "")
        return int(length[:20]) if length.isdecimal() else 0

    def _expected(self) -> None:
        """The client asks before it sends its body."""
        if not self._bounds.keep_bodies:
            self._enqueue(None, keep_alive=False)  # answered without waiting for a body nobody reads
        elif self._transport is not None and not self.busy:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    # --- ours

    def close(self) -> None:
        """Close after what was written, or when the client does not take it. Nothing is read or answered any more."""
        if self._transport is not None:
            transport, self._transport = self._transport, None
            self._abandon()
            transport.close()
            self._disarm()
            self._timer = self._service.loop.call_later(self._bounds.request_timeout, transport.abort)

    def _go_on(self) -> None:
        """Parse and serve what is there, until an answer has to be waited for."""
        self._serve()
        while self._held and self._later is None and not self._is_last and self._transport is not None:
            piece = bytes(self._held[:_SLICE_BYTES])
            del self._held[:_SLICE_BYTES]
            self._feed(piece)
            self._serve()
        if self._is_last:
            rest = bytes(self._held)
            self._held.clear()
            if rest and self._pieces is _Pieces.TUNNEL:
                self.data_received(rest)
        self._pace()

    def _feed(self, data: bytes) -> None:
        if not self._between_requests:
            if self._in_headers:
                self._header_bytes += len(data)
            else:
                self._beside_body += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._offers_with_body() and not self._is_last:
                self._decline(data[upgrade.args[0] :])
            else:
                # Answered as an ordinary request, unless the route takes the offer: what follows is another protocol.
                self._is_last = True
                self._held[:0] = data[upgrade.args[0] :]
        except httptools.HttpParserError as error:
            self._refuse(text(HTTPStatus.BAD_REQUEST, f"not a valid HTTP/1.1 request: {error}"))
        if max(self._header_bytes if self._in_headers else 0, self._beside_body) > self._bounds.max_header_bytes:
            self._refuse(text(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE))

    def _decline(self, rest: bytes) -> None:
        """Begin the request anew without the offer of another protocol, as Java's client makes it with its first one.
        `rest` is what follows the headers."""
        request = self._request
        offer = (b"upgrade", b"connection", b"http2-settings", b"expect")
        first = f"{request.method} {request.target.decode('latin-1')} HTTP/{self._parser.get_http_version()}"
        lines = [
            first.encode("latin-1"),
            *(name + b": " + value for name, value in request.fields if name not in offer),
        ]
        self._parser = httptools.HttpRequestParser(self)
        self._feed(b"\r\n".join(lines) + b"\r\n\r\n" + rest)

    def _refuse(self, response: Response) -> None:
        """Answer in turn and close, unless that is about to happen already."""
        self._enqueue(response, keep_alive=False)

    def _refuse_body(self) -> None:
        self._body.clear()
        line = f"the body is larger than {self._bounds.max_body_bytes} bytes"
        self._refuse(text(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, line))

    def _enqueue(self, refusal: Response | None, keep_alive: bool) -> None:
        if not self._is_last:
            self._is_last = not keep_alive
            if refusal is not None:
                counts = self._service.refused
                counts[refusal.status] = counts.get(refusal.status, 0) + 1
            self._queue.append(_Exchange(self._request, refusal, keep_alive))

    def _serve(self) -> None:
        """Answer what is queued, until an answer has to be waited for."""
        self._serving = True
        while self._queue and self._later is None and self._transport is not None:
            exchange = self._queue.popleft()
            answer = exchange.refusal or self._ask(exchange.request)
            if isinstance(answer, Later):
                self._later, self._exchange = answer, exchange
                answer.attach(self)
            else:
                self._write(exchange, answer)
        self._serving = False

    def _ask(self, request: Request) -> Response | Later:
        try:
            return self._service.route(request)
        except Exception:
            log.exception("a request failed", method=request.method, path=request.path)
            return text(HTTPStatus.INTERNAL_SERVER_ERROR)

    def _abandon(self) -> None:
        """The client is not answered any more."""
        later = self._forget()
        self._queue.clear()
        self._held.clear()
        if later is not None:
            later.on_gone()

    def _forget(self) -> Later | None:
        """What was waited for, which is waited for no longer."""
        later, self._later, self._exchange = self._later, None, None
        self._pieces, self._drain_due = _Pieces.NONE, False
        if later is not None:
            later.detach()
        return later

    # --- what is waited for: we are its carrier

    def answer(self, response: Response) -> None:
        exchange = self._exchange
        if exchange is None:
            return
        if self._pieces is not _Pieces.NONE:
            self.end(False)
            return
        self._write(exchange, response)
        self._over()

    def begin(self, head: Response) -> None:
        exchange = self._exchange
        if exchange is None or self._transport is None or self._pieces is not _Pieces.NONE:
            return
        if head.status == HTTPStatus.SWITCHING_PROTOCOLS:
            self._pieces = _Pieces.TUNNEL
            self._transport.write(_lines(head, "connection: upgrade\r\n"))
            return
        request = exchange.request
        self._pieces = _Pieces.CHUNKED if request.version == "1.1" else _Pieces.UNTIL_CLOSE
        keep_alive = self._goes_on(exchange) and (self._pieces is _Pieces.CHUNKED or request.method == "HEAD")
        delimiter = "transfer-encoding: chunked\r\n" if self._pieces is _Pieces.CHUNKED else ""
        self._transport.write(_head(head, keep_alive, delimiter))
        if request.method == "HEAD":
            self._only_the_head(keep_alive)
        elif head.body:
            self.write(head.body)

    def _only_the_head(self, keep_alive: bool) -> None:
        """The client has its answer, and whoever writes the rest may stop."""
        later = self._forget()
        if later is not None:
            later.on_gone()
        if not keep_alive:
            self.close()
        self._over()

    def write(self, data: bytes) -> bool:
        if self._transport is None or not data:
            return not self._is_full
        if self._pieces is _Pieces.CHUNKED:
            self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        elif self._pieces is not _Pieces.NONE:
            self._transport.write(data)
        self._drain_due = self._is_full
        return not self._is_full

    def end(self, complete: bool) -> None:
        exchange, pieces = self._exchange, self._pieces
        if exchange is None or self._transport is None:
            return
        self._forget()
        if pieces is _Pieces.NONE or not complete:
            self._cut_off(pieces)
        elif pieces is _Pieces.CHUNKED:
            self._transport.write(b"0\r\n\r\n")
        if pieces is not _Pieces.CHUNKED or not self._goes_on(exchange):
            self.close()
        self._over()

    def hold(self, held: bool) -> None:
        self._is_held = held
        self._pace()

    def _cut_off(self, pieces: _Pieces) -> None:
        """So that the client sees it: a missing last chunk, or a reset where the end of the connection is the end."""
        transport = self._transport
        self.close()
        if pieces is not _Pieces.CHUNKED and transport is not None:
            transport.abort()

    def _over(self) -> None:
        """The answer is written."""
        self._forget()
        if not self._serving:
            self._arm(self._bounds.idle_timeout if self._between_requests else self._bounds.request_timeout)
            self._go_on()

    def _goes_on(self, exchange: _Exchange) -> bool:
        """Whether the connection is kept after an answer."""
        return exchange.keep_alive and not self._service.stopping

    def _write(self, exchange: _Exchange, response: Response) -> None:
        if self._transport is None:
            return
        keep_alive = self._goes_on(exchange)
        with_body = exchange.request.method != "HEAD"
        self._transport.write(_serialize(response, keep_alive, with_body))
        if response.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE and not self._transport.is_closing():
            if self._transport.can_write_eof():  # TLS cannot
                self._transport.write_eof()
            self._arm(_LINGER)
        elif not keep_alive:
            self.close()

    def _pace(self) -> None:
        """Go on reading while an answer is awaited: that is how it shows that the client went away."""
        wanted = not self._is_full and not self._is_held and len(self._held) < _MAX_AHEAD_BYTES
        if self._transport is not None and wanted != self._reading:
            self._reading = wanted
            (self._transport.resume_reading if wanted else self._transport.pause_reading)()

    def _arm(self, timeout: float) -> None:
        """Have `_expire` called then, unless it is armed anew. The timer itself is left to run and looks again, at
        least each `request_timeout`: requests come and go far more often."""
        if self._transport is None:
            return
        loop = self._service.loop
        self._due = loop.time() + timeout
        if self._timer is None or self._timer_due > self._due:
            self._disarm()
            delay = min(timeout, self._bounds.request_timeout)
            self._timer_due = loop.time() + delay
            self._timer = loop.call_later(delay, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        left = self._due - self._service.loop.time()
        if left <= _CLOCK_STEP:
            self._expire()
        else:
            self._arm(left)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        if self.busy:
            return  # it is ours to answer; the timer begins anew then
        if self._between_requests or self._is_last:
            self.close()
        else:
            self._refuse(text(HTTPStatus.REQUEST_TIMEOUT))
            self._serve()


def _serialize(response: Response, keep_alive: bool, with_body: bool) -> bytes:
    head = _head(response, keep_alive, f"content-length: {len(response.body)}\r\n")
    return head + response.body if with_body else head


def _head(response: Response, keep_alive: bool, delimiter: str) -> bytes:
    return _lines(response, f"{delimiter}connection: {'keep-alive' if keep_alive else 'close'}\r\n")


def _lines(response: Response, own: str) -> bytes:
    """own: headers of the connection, each with its line end."""
    kind = f"content-type: {response.content_type}\r\n" if response.content_type else ""
    others = "".join([f"{name}: {value}\r\n" for name, value in response.headers]) if response.headers else ""
    return f"{_STATUS_LINES[response.status]}\r\n{kind}{own}{others}\r\n".encode("latin-1")


_STATUS_LINES = {status: f"HTTP/1.1 {status.value} {status.phrase}" for status in HTTPStatus}


def framing_problem(request: Request) -> str:
    """What somebody between the client and us might understand otherwise than we do, and the parser lets pass
    (RFC 9112 3.2 and 6.1); empty if there is nothing."""
    hosts = [value for name, value in request.fields if name == b"host"]
    codings = [value for name, value in request.fields if name == b"transfer-encoding"]
    if len(hosts) != 1 and (hosts or request.version == "1.1"):
        return "a request needs a Host header, and only one"
    if hosts and not HOST.fullmatch(hosts[0]):
        return "the Host header is not a host"
    if codings and ([each.lower() for each in codings] != [b"chunked"] or request.version != "1.1"):
        return "the only Transfer-Encoding known here is chunked, once, in HTTP/1.1"
    return ""


def _name_of_peer(address: object) -> str:
    if not isinstance(address, tuple):
        return str(address or "unknown")
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    return f"{host}:{address[1]}"
