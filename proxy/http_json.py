"""HTTP/JSON: the methods of the user function for clients that speak neither gRPC nor protobuf.

`HttpJson.route` is the route of the main port's HTTP/1.1 side. It finds the binding of a request (http_rules.py), makes
the request message of it (transcode.py) and calls the method through the router, as a forward would; `HttpCall` stands
where a client of gRPC has its call, and turns the method's answer into that of the request. No task and no future is
made for a call.
"""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from typing import TYPE_CHECKING

from google.protobuf.json_format import SerializeToJsonError
from google.protobuf.message import DecodeError

from stateside._speedups.wire import metadata_of_headers
from stateside.proto.status import Status
from stateside.proxy import logs, templates, transcode
from stateside.proxy.exchange import Later, Request, Response, text
from stateside.proxy.http1 import route_main_port
from stateside.proxy.http_rules import Table
from stateside.proxy.transcode import JSON, BadRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stateside._speedups.h2 import Headers
    from stateside.proxy.effects import Listener
    from stateside.proxy.http_rules import Binding
    from stateside.proxy.router import Router
    from stateside.proxy.spec import ServiceModel

# Codes as google.rpc.Code maps them; those missing are 500. UNKNOWN is what user functions fail with.
STATUS: dict[int, HTTPStatus] = {
    Status.INVALID_ARGUMENT: HTTPStatus.BAD_REQUEST,
    Status.DEADLINE_EXCEEDED: HTTPStatus.GATEWAY_TIMEOUT,
    Status.NOT_FOUND: HTTPStatus.NOT_FOUND,
    Status.ALREADY_EXISTS: HTTPStatus.CONFLICT,
    Status.PERMISSION_DENIED: HTTPStatus.FORBIDDEN,
    Status.RESOURCE_EXHAUSTED: HTTPStatus.TOO_MANY_REQUESTS,
    Status.FAILED_PRECONDITION: HTTPStatus.BAD_REQUEST,
    Status.ABORTED: HTTPStatus.CONFLICT,
    Status.OUT_OF_RANGE: HTTPStatus.BAD_REQUEST,
    Status.UNIMPLEMENTED: HTTPStatus.NOT_IMPLEMENTED,
    Status.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    Status.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED,
}
# Headers of the connection or of the body, which are no metadata of the call. gRPC's own are left out as everywhere.
NOT_METADATA = frozenset(
    (b"connection", b"keep-alive", b"transfer-encoding", b"upgrade", b"expect", b"proxy-connection", b"trailer")
)
_AUTHORITY = re.compile(rb"https?://[^/?#]*", re.IGNORECASE)
_MEDIA_TYPE = re.compile(r"[ -~]*")

log = logs.get(__name__)


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
        target, _, query = _AUTHORITY.sub(b"", request.target, count=1).partition(b"?")
        try:
            path = templates.canonical(target)
        except ValueError as error:
            return text(HTTPStatus.BAD_REQUEST, str(error))
        verb = "GET" if request.method == "HEAD" else request.method
        found = self._table.find(verb, path)
        if found is None:
            return self._unrouted(request, path)
        binding, captures = found
        request.routed = f"/{binding.service}/{binding.method}"
        if binding.streamed:
            return text(HTTPStatus.NOT_IMPLEMENTED, f"{binding.name} is a streamed method, which is served over gRPC")
        return self._call(binding, captures, query, request)

    def _unrouted(self, request: Request, path: str) -> Response:
        verbs = self._table.verbs(path)
        if verbs and "k-network-probe" not in request.headers:
            line = f"{request.method} is not allowed here"
            return text(HTTPStatus.METHOD_NOT_ALLOWED, line, (("allow", ", ".join(verbs)),))
        return route_main_port(request)

    def _call(self, binding: Binding, captures: tuple[str, ...], query: bytes, request: Request) -> Response | Later:
        content_type = request.headers.get("content-type", "")
        target = self.router.method(binding.service, binding.method)
        if target is None:
            return failed(Status.UNIMPLEMENTED, f"{binding.name} is not served any more")
        try:
            message = transcode.request_message(binding, captures, query.decode("latin-1"), content_type, request.body)
        except BadRequest as error:
            return failed(Status.INVALID_ARGUMENT, f"{binding.name}: {error}")
        call = HttpCall(self, binding)
        self.router.deliver(target, call, message, metadata(request))
        return call


class HttpCall(Later):
    """One unary call; offers the method what `ServerCall` does. `context` hears when the client goes away."""

    __slots__ = ("_binding", "_face", "_headers", "_message", "context", "ended", "note")

    headers: Headers = []  # the metadata is passed on its own  # noqa: RUF012
    peer = ""
    deadline = 0.0

    def __init__(self, face: HttpJson, binding: Binding) -> None:
        Later.__init__(self)
        face.calls += 1
        self._face = face
        self._binding = binding
        self._headers: Sequence[tuple[bytes, bytes]] = ()
        self._message: bytes | None = None
        self.context: Listener | None = None
        self.note: str | None = None
        self.ended = False

    def start(self, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        self._headers = self._headers or headers

    def send(self, message: bytes) -> bool:
        if self._message is None:
            self._message = message
        return True

    def reply(self, message: bytes, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        self.start(headers)
        self.send(message)
        self.finish()

    def finish(self, status: int = 0, message: str = "", trailers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        if self._end():
            self.answer(failed(status, message) if status else self._response())

    def fail(self, status: int, message: str) -> None:
        self.finish(status, message)

    def pause(self) -> None:
        """The request was read as a whole, so nothing can be held back."""

    def resume(self) -> None:
        """See `pause`."""

    def on_gone(self) -> None:
        """The client is cancelling, as far as HTTP/1.1 can tell."""
        if self._end() and self.context is not None:
            self.context.on_client_cancel(Status.CANCELLED)

    def _end(self) -> bool:
        """False: it has ended before."""
        if self.ended:
            return False
        self.ended = True
        self._face.calls -= 1
        return True

    def _response(self) -> Response:
        binding = self._binding
        if self._message is None:
            return failed(Status.INTERNAL, f"{binding.name} gave no answer")
        headers = tuple((name.decode(), value.decode()) for name, value in self._headers if not name.endswith(b"-bin"))
        try:
            raw = transcode.http_body(binding, self._message)
            content_type, body = raw or (JSON, transcode.json_reply(binding, self._message))
        except (DecodeError, SerializeToJsonError, TypeError, ValueError, RecursionError) as error:
            log.warning("a reply cannot be written as JSON", method=binding.name, error=str(error))
            return failed(Status.INTERNAL, f"the reply of {binding.name} cannot be written as JSON: {error}")
        if not _MEDIA_TYPE.fullmatch(content_type):
            return failed(Status.INTERNAL, f"the reply of {binding.name} has an impossible content type")
        return Response(HTTPStatus.OK, body, content_type, headers)


def metadata(request: Request) -> bytes | None:
    """Serialized Metadata of the request's headers."""
    return metadata_of_headers([field for field in request.fields if field[0] not in NOT_METADATA])


def failed(status: int, message: str) -> Response:
    """A failure of the user function is its description and nothing else (spec core 16 #8); others are JSON."""
    if status == Status.UNKNOWN:
        return Response(HTTPStatus.INTERNAL_SERVER_ERROR, message.encode())
    body = json.dumps({"code": int(status), "message": message}, separators=(",", ":"), ensure_ascii=False)
    return Response(STATUS.get(status, HTTPStatus.INTERNAL_SERVER_ERROR), body.encode(), JSON)
