"""HTTP/JSON: the methods of the user function for clients that speak neither gRPC nor protobuf.

`HttpJson.route` is the route of the main port for requests that are not gRPC's, over HTTP/1.1 and HTTP/2. It finds the
binding of a request (http_rules.py), makes the request message of it (transcode.py) and calls the method through the
router, as a forward would; http_calls.py and websocket.py stand where a client of gRPC has its call.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING

from stateside._speedups.wire import metadata_of_headers
from stateside.proto.status import Status
from stateside.proxy import templates, transcode, websocket
from stateside.proxy.exchange import Later, Request, Response, text
from stateside.proxy.http1 import route_main_port
from stateside.proxy.http_calls import HttpCall, StreamCall, failed
from stateside.proxy.http_rules import Table
from stateside.proxy.transcode import BadRequest

if TYPE_CHECKING:
    from stateside._speedups.h2 import Headers
    from stateside.proxy.http_rules import Binding
    from stateside.proxy.router import Router
    from stateside.proxy.spec import ServiceModel

# Headers of the connection or of the body, which are no metadata of the call. gRPC's own are left out as everywhere.
NOT_METADATA = frozenset(
    (b"connection", b"keep-alive", b"transfer-encoding", b"upgrade", b"expect", b"proxy-connection", b"trailer")
)
_AUTHORITY = re.compile(rb"https?://[^/?#]*", re.IGNORECASE)

__all__ = ["HttpCall", "HttpJson"]


class HttpJson:
    """The face. `calls` are those under way."""

    def __init__(self, router: Router) -> None:
        self.router = router
        self.calls = 0
        self._table = Table()

    def update(self, model: ServiceModel) -> None:
        """Serve the bindings of `model`, and no others."""
        self._table = Table(model.bindings)

    def route(self, request: Request) -> Response | Later:
        """The answer to a request, or the call that will have it."""
        target, _, query = path_and_query(request.target)
        try:
            path = templates.canonical(target)
        except ValueError as error:
            return text(HTTPStatus.BAD_REQUEST, str(error))
        if "upgrade" in request.headers and websocket.is_offered(request):
            found = self._find_streamed(path)
            if found is not None:
                request.routed = found[0].path
                return self._open_socket(*found, query, request)
        verb = "GET" if request.method == "HEAD" else request.method
        found = self._table.find(verb, path)
        if found is None:
            return self._unrouted(request, path)
        request.routed = found[0].path
        return self._call(*found, query, request)

    def _find_streamed(self, path: str) -> tuple[Binding, tuple[str, ...]] | None:
        """What a WebSocket may be opened on: it is asked for by GET, whatever verb the rule names."""
        for verb in ("GET", "POST"):
            found = self._table.find(verb, path)
            if found is not None and found[0].streamed:
                return found
        return None

    def _unrouted(self, request: Request, path: str) -> Response:
        verbs = self._table.verbs(path)
        if verbs and "k-network-probe" not in request.headers:
            line = f"{request.method} is not allowed here"
            return text(HTTPStatus.METHOD_NOT_ALLOWED, line, (("allow", ", ".join(verbs)),))
        return route_main_port(request)

    def _call(self, binding: Binding, captures: tuple[str, ...], query: bytes, request: Request) -> Response | Later:
        """One request message, whatever the method takes; the request is complete with it."""
        target = self.router.method(binding.service, binding.method)
        if target is None:
            return not_served(binding)
        content_type = request.headers.get("content-type", "")
        try:
            message = transcode.request_message(binding, captures, query.decode("latin-1"), content_type, request.body)
        except BadRequest as error:
            return failed(Status.INVALID_ARGUMENT, f"{binding.name}: {error}")
        accept = request.headers.get("accept", "")
        call = StreamCall(self, binding, accept) if binding.server_streaming else HttpCall(self, binding)
        entries = metadata_of_headers(metadata(request)) if getattr(target, "wants_headers", True) else None
        self.router.deliver(target, call, message, entries)
        return call

    def _open_socket(
        self, binding: Binding, captures: tuple[str, ...], query: bytes, request: Request
    ) -> Response | Later:
        target = self.router.method(binding.service, binding.method)
        if target is None:
            return not_served(binding)
        problem = websocket.problem_of(request)
        if problem:
            return text(HTTPStatus.BAD_REQUEST, problem, (("sec-websocket-version", websocket.VERSION),))
        call = websocket.SocketCall(self, binding, target, captures, query.decode("latin-1"), metadata(request))
        try:
            call.open(request)
        except BadRequest as error:
            call.end_call()
            return failed(Status.INVALID_ARGUMENT, f"{binding.name}: {error}")
        return call


def path_and_query(target: bytes) -> tuple[bytes, bytes, bytes]:
    """As `partition` gives them. A target may be a whole URL."""
    if not target.startswith(b"/"):
        target = _AUTHORITY.sub(b"", target, count=1)
    return target.partition(b"?")


def not_served(binding: Binding) -> Response:
    return failed(Status.UNIMPLEMENTED, f"{binding.name} is not served any more")


def metadata(request: Request) -> Headers:
    """The headers of a request that are metadata of its call."""
    return [field for field in request.fields if field[0] not in NOT_METADATA]
