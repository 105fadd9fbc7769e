"""HTTP/2 requests that are not gRPC's: the same routes as over HTTP/1.1 (exchange.py), carried by the transport.

The transport collects a request and hands it over as a `WebCall`; limits, flow control and draining are its own, as for
gRPC on the same connection. Here a `Request` is made of it, and a `Later` finds in `_Exchange` whoever carries its
answer.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from stateside._speedups.h2 import Call, Handler
from stateside.proxy import logs
from stateside.proxy.exchange import Later, Request, Response, Route, text

if TYPE_CHECKING:
    from stateside._speedups.h2 import Headers, WebCall

# What belongs to a connection of HTTP/1.1 has no place in HTTP/2 (RFC 9113 8.2.2).
OF_CONNECTIONS = frozenset(("connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"))

log = logs.get(__name__)


class Web(Handler):
    """`Server(web=Web(route))`."""

    def __init__(self, route: Route) -> None:
        self.route = route

    def on_web(self, call: WebCall, body: bytes) -> None:
        request = request_of(call, body)
        try:
            answer = self.route(request)
        except Exception:
            log.exception("a request failed", method=request.method, path=request.path)
            answer = text(HTTPStatus.INTERNAL_SERVER_ERROR)
        if isinstance(answer, Later):
            call.context = answer
            answer.attach(_Exchange(call, answer))
        else:
            _answer(call, answer)

    def on_drain(self, call: Call) -> None:
        call.context.on_drain()

    def on_gone(self, call: WebCall) -> None:
        later, call.context = call.context, None
        if later is not None:
            later.detach()
            later.on_gone()


class _Exchange:
    """One request that waits for its answer."""

    __slots__ = ("_begun", "_call", "_later")

    def __init__(self, call: WebCall, later: Later) -> None:
        self._call = call
        self._later = later
        self._begun = False

    def answer(self, response: Response) -> None:
        if self._begun:
            self.end(False)
            return
        self._later.detach()
        _answer(self._call, response)

    def begin(self, head: Response) -> None:
        call = self._call
        self._begun = True
        _submit(call, head)
        if call.ended:  # HEAD, or what cannot be sent
            self._later.detach()
            self._later.on_gone()
        elif head.body:
            call.write(head.body)

    def write(self, data: bytes) -> bool:
        return self._call.write(data)

    def end(self, complete: bool) -> None:
        self._later.detach()
        self._call.end(complete)


def request_of(call: WebCall, body: bytes) -> Request:
    """Cookies, which HTTP/2 may take apart, are one header again."""
    fields = call.headers
    cookies = [value for name, value in fields if name == b"cookie"]
    if len(cookies) > 1:
        fields = [field for field in fields if field[0] != b"cookie"]
        fields.append((b"cookie", b"; ".join(cookies)))
    return Request(
        method=call.method.decode("latin-1"),
        target=call.path,
        path=call.path.partition(b"?")[0].decode("latin-1"),
        headers={name.decode("latin-1"): value.decode("latin-1") for name, value in fields},
        fields=fields,
        body=body,
        version="2",
        peer=call.peer,
    )


def _answer(call: WebCall, response: Response) -> None:
    headers = _headers(response)
    headers.append((b"content-length", b"%d" % len(response.body)))
    try:
        call.answer(response.status, headers, response.body)
    except ValueError as error:
        log.error("an answer cannot be sent", path=call.path.decode("latin-1"), error=str(error))
        call.answer(HTTPStatus.INTERNAL_SERVER_ERROR)


def _submit(call: WebCall, head: Response) -> None:
    try:
        call.begin(head.status, _headers(head))
    except ValueError as error:
        log.error("an answer cannot be sent", path=call.path.decode("latin-1"), error=str(error))
        call.answer(HTTPStatus.INTERNAL_SERVER_ERROR)


def _headers(response: Response) -> Headers:
    headers = [(b"content-type", response.content_type.encode("latin-1"))] if response.content_type else []
    for name, value in response.headers:
        name = name.lower()
        if name not in OF_CONNECTIONS:
            headers.append((name.encode("latin-1"), value.encode("latin-1")))
    return headers
