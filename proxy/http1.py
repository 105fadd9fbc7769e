"""HTTP/1.1 in the small: the admin ports, and what the main port answers to clients that do not speak HTTP/2.

A `Service` holds the connections of one port and a route, a plain function from `Request` to `Response`. Requests of a
connection are answered one after another, at once. Everything is bounded: connections, header bytes, body bytes (bodies
are counted and dropped: no route here wants one), and the time a client may take.
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import cast
from urllib.parse import parse_qs

import httptools

from stateside.proxy.config import Settings

PLAIN_TEXT = "text/plain; charset=utf-8"
# Data is parsed in slices, so that headers are refused soon after they exceed their bound.
_SLICE_BYTES = 4096
# More requests in one read than this are not a client in a hurry.
_MAX_PIPELINED = 16


@dataclass(slots=True)
class Request:
    """A request without its body. Header names are in lower case; of repeated headers the last one counts."""

    method: str = ""
    target: bytes = b""
    path: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    def query(self, name: str) -> list[str]:
        """All values of a query parameter."""
        text = self.target.partition(b"?")[2].decode("latin-1")
        return parse_qs(text, max_num_fields=1000).get(name, [])


@dataclass(frozen=True, slots=True)
class Response:
    """An answer. `headers` are further ones, beside type and length."""

    status: HTTPStatus
    body: bytes = b""
    content_type: str = PLAIN_TEXT
    headers: tuple[tuple[str, str], ...] = ()


Route = Callable[[Request], Response]


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds of one port. Sizes in bytes, times in seconds."""

    max_connections: int = 256
    max_header_bytes: int = 16 * 1024
    max_header_count: int = 128
    max_body_bytes: int = 64 * 1024
    request_timeout: float = (
        10.0  # from the first byte of a request to its end; also for the first byte of a connection
    )
    idle_timeout: float = 75.0  # between requests


def text(status: HTTPStatus, line: str = "", headers: tuple[tuple[str, str], ...] = ()) -> Response:
    """A line for people."""
    return Response(status, f"{line or status.phrase}\n".encode(), headers=headers)


def main_port(settings: Settings, loop: asyncio.AbstractEventLoop) -> "Service":
    """The HTTP/1.1 side of the main port: `Server(http1=main_port(...).connect)`."""
    bounds = Bounds(
        max_connections=settings.max_connections,
        max_header_bytes=settings.max_header_bytes,
        max_header_count=settings.max_header_count,
        request_timeout=settings.header_timeout,
    )
    return Service(route_main_port, loop, bounds)


def route_main_port(request: Request) -> Response:
    """Nothing is served over HTTP/1.1 but Knative's network probe."""
    probe = request.headers.get("k-network-probe")
    if probe == "queue":
        return Response(HTTPStatus.OK, b"queue")
    if probe is not None:
        return text(HTTPStatus.BAD_REQUEST, f"unexpected probe header value: {probe!r}")
    return text(HTTPStatus.NOT_FOUND)


class Service:
    """The connections of one port."""

    def __init__(self, route: Route, loop: asyncio.AbstractEventLoop, bounds: Bounds | None = None) -> None:
        self.route = route
        self.loop = loop
        self.bounds = bounds or Bounds()
        self.connections: set[Connection] = set()

    def connect(self, data: bytes = b"") -> asyncio.Protocol:
        """A protocol for a new connection. `data` is there for the transport's hook; `data_received` gets it."""
        return Connection(self)

    def close(self) -> None:
        """Close all connections."""
        for connection in list(self.connections):
            connection.close()


class Connection(asyncio.Protocol):
    """One client. The parser calls `on_...`; each complete request is answered before the next is looked at."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._bounds = service.bounds
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._request = Request()
        self._header_bytes = 0
        self._header_count = 0
        self._body_bytes = 0
        self._answered = 0  # requests of the last read
        self._in_headers = True
        self._between_requests = True

    # --- asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._service.connections.add(self)
        self._arm(self._bounds.request_timeout)
        if len(self._service.connections) > self._bounds.max_connections:
            self._refuse(text(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._service.connections.discard(self)
        self._transport = None
        self._disarm()

    def data_received(self, data: bytes) -> None:
        self._answered = 0
        for piece in _slices(data):
            if self._transport is None:
                return
            self._feed(piece)

    def pause_writing(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()

    # --- parser

    def on_message_begin(self) -> None:
        self._request = Request()
        self._header_bytes = self._header_count = self._body_bytes = 0
        self._in_headers = True
        self._between_requests = False
        self._arm(self._bounds.request_timeout)

    def on_url(self, url: bytes) -> None:
        self._request.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_count += 1
        if self._header_count > self._bounds.max_header_count:
            self._refuse(text(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE))
        else:
            self._request.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._in_headers = False
        self._request.method = self._parser.get_method().decode("latin-1")
        self._request.path = self._request.target.partition(b"?")[0].decode("latin-1")
        if self._parser.get_http_version() == "1.1" and "host" not in self._request.headers:
            self._refuse(text(HTTPStatus.BAD_REQUEST, "a request needs a Host header"))
        elif "expect" in self._request.headers:
            self._refuse(self._service.route(self._request))  # answered without waiting for a body nobody reads

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > self._bounds.max_body_bytes:
            self._refuse(text(HTTPStatus.REQUEST_ENTITY_TOO_LARGE))

    def on_message_complete(self) -> None:
        if self._transport is None:
            return
        self._answered += 1
        wanted = self._parser.should_keep_alive() and not self._parser.should_upgrade()
        keep_alive = wanted and self._answered < _MAX_PIPELINED
        self._between_requests = True
        self._write(self._service.route(self._request), keep_alive)
        self._arm(self._bounds.idle_timeout)

    # --- ours

    def close(self) -> None:
        """Close after what was written, or when the client does not take it. Nothing is read or answered any more."""
        if self._transport is not None:
            transport, self._transport = self._transport, None
            transport.close()
            self._disarm()
            self._timer = self._service.loop.call_later(self._bounds.request_timeout, transport.abort)

    def _feed(self, data: bytes) -> None:
        if self._in_headers and not self._between_requests:
            self._header_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.close()  # the request was answered as an ordinary one; what follows would be another protocol
        except httptools.HttpParserError as error:
            self._refuse(text(HTTPStatus.BAD_REQUEST, f"not a valid HTTP/1.1 request: {error}"))
        if self._in_headers and self._header_bytes > self._bounds.max_header_bytes:
            self._refuse(text(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE))

    def _refuse(self, response: Response) -> None:
        """Answer and close, unless that has happened already."""
        self._write(response, keep_alive=False)

    def _write(self, response: Response, keep_alive: bool) -> None:
        if self._transport is None:
            return
        self._transport.write(_serialize(response, keep_alive, with_body=self._request.method != "HEAD"))
        if not keep_alive:
            self.close()

    def _arm(self, timeout: float) -> None:
        if self._transport is not None:
            self._disarm()
            self._timer = self._service.loop.call_later(timeout, self._expire)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        if self._between_requests:
            self.close()
        else:
            self._refuse(text(HTTPStatus.REQUEST_TIMEOUT))


def _slices(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), _SLICE_BYTES):
        yield data[start : start + _SLICE_BYTES]


def _serialize(response: Response, keep_alive: bool, with_body: bool) -> bytes:
    lines = [
        f"HTTP/1.1 {response.status.value} {response.status.phrase}",
        f"content-type: {response.content_type}",
        f"content-length: {len(response.body)}",
        f"connection: {'keep-alive' if keep_alive else 'close'}",
        *(f"{name}: {value}" for name, value in response.headers),
    ]
    head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
    return head + response.body if with_body else head
