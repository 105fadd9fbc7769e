"""A call over HTTP, where a client of gRPC has its own: it turns the answers of a method into that of a request.

`HttpCall` is answered once, by methods with a single reply. `StreamCall` is answered piece by piece, by methods with a
stream of replies: newline-delimited JSON, server-sent events where the client accepts them, or the bytes of
google.api.HttpBody (spec http 7.5). A failure that is the first answer has its own status; one that comes later cuts
the answer off. No task and no future is made for a call, and a client that is slow slows the method down.
"""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from typing import TYPE_CHECKING

from google.protobuf.json_format import SerializeToJsonError
from google.protobuf.message import DecodeError

from stateside.proto import cloudstate
from stateside.proto.status import Status
from stateside.proxy import logs, transcode
from stateside.proxy.exchange import Later, Response
from stateside.proxy.transcode import JSON

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stateside._speedups.h2 import Headers
    from stateside.proxy.effects import Listener
    from stateside.proxy.http_json import HttpJson
    from stateside.proxy.http_rules import Binding

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
EVENTS = "text/event-stream"
BYTES = "application/octet-stream"
UNREADABLE = (DecodeError, SerializeToJsonError, TypeError, ValueError, RecursionError)

_MEDIA_TYPE = re.compile(r"[ -~]*")

log = logs.get(__name__)


class HttpCall(Later):
    """One call with a single reply; offers the method what `ServerCall` does. `context` hears when the client goes
    away."""

    __slots__ = ("_face", "_headers", "_message", "binding", "context", "ended", "note")

    headers: Headers = []  # the metadata is passed on its own  # noqa: RUF012
    peer = ""
    deadline = 0.0

    def __init__(self, face: HttpJson, binding: Binding) -> None:
        Later.__init__(self)
        face.calls += 1
        self._face = face
        self._headers: Sequence[tuple[bytes, bytes]] = ()
        self._message: bytes | None = None
        self.binding = binding
        self.context: Listener | None = None
        self.note: str | None = None
        self.ended = False

    def start(self, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        self._headers = self._headers or headers

    def name_type(self, metadata: bytes) -> None:
        """Metadata of the first reply, which may name a content type."""

    def send(self, message: bytes) -> bool:
        if self._message is None:
            self._message = message
        return True

    def reply(self, message: bytes, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        self.start(headers)
        self.send(message)
        self.finish()

    def finish(self, status: int = 0, message: str = "", trailers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        if self.end_call():
            self.answer(failed(status, message) if status else self._response())

    def fail(self, status: int, message: str) -> None:
        self.finish(status, message)

    def pause(self) -> None:
        """The request was read as a whole, so nothing can be held back."""

    def resume(self) -> None:
        """See `pause`."""

    def on_gone(self) -> None:
        """The client is cancelling, as far as HTTP/1.1 can tell."""
        if self.end_call():
            self.cancel()

    def end_call(self) -> bool:
        """False: it has ended before."""
        if self.ended:
            return False
        self.ended = True
        self._face.calls -= 1
        return True

    def cancel(self) -> None:
        """Whoever answers may stop."""
        if self.context is not None:
            self.context.on_client_cancel(Status.CANCELLED)

    def own_headers(self) -> tuple[tuple[str, str], ...]:
        """Metadata of the first reply."""
        if not self._headers:
            return ()
        return tuple((name.decode(), value.decode()) for name, value in self._headers if not name.endswith(b"-bin"))

    def _response(self) -> Response:
        binding = self.binding
        if self._message is None:
            return failed(Status.INTERNAL, f"{binding.name} gave no answer")
        try:
            raw = transcode.http_body(binding, self._message)
            if raw is None:
                return Response(HTTPStatus.OK, transcode.json_reply(binding, self._message), JSON, self.own_headers())
            content_type, body = raw
        except UNREADABLE as error:
            return unreadable(binding, error)
        if not _MEDIA_TYPE.fullmatch(content_type):
            return failed(Status.INTERNAL, f"the reply of {binding.name} has an impossible content type")
        return Response(HTTPStatus.OK, body, content_type, self.own_headers())


class StreamCall(HttpCall):
    """One call with a stream of replies."""

    __slots__ = ("_begun", "_content_type", "_is_raw")

    def __init__(self, face: HttpJson, binding: Binding, accept: str) -> None:
        """accept: the client's Accept header."""
        HttpCall.__init__(self, face, binding)
        self._begun = False
        self._content_type = JSON
        self._is_raw = binding.answers_bytes
        if accepts_events(accept):
            self._content_type = EVENTS
            self._is_raw = False
        elif self._is_raw:
            self._content_type = BYTES

    def name_type(self, metadata: bytes) -> None:
        if self._is_raw and not self._begun:
            self._content_type = content_type_of(metadata) or self._content_type

    def send(self, message: bytes) -> bool:
        if self.ended:
            return True
        try:
            piece = self._piece(message)
        except UNREADABLE as error:
            self._give_up(unreadable(self.binding, error))
            return True
        if not self._begun:
            self._begin()
        return self.write(piece)

    def finish(self, status: int = 0, message: str = "", trailers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        if not self.end_call():
            return
        if status and not self._begun:
            self.answer(failed(status, message))
            return
        if status:
            log.warning("a stream was cut off", method=self.binding.name, status=int(status), message=message)
        elif not self._begun:
            self._begin()
        self.end(complete=not status)

    def on_drain(self) -> None:
        if self.context is not None:
            self.context.on_client_drain()

    def _begin(self) -> None:
        self._begun = True
        self.begin(Response(HTTPStatus.OK, b"", self._content_type, self.own_headers()))

    def _piece(self, message: bytes) -> bytes:
        if self._is_raw:
            raw = transcode.http_body(self.binding, message)
            assert raw is not None
            return raw[1]
        text = transcode.json_reply(self.binding, message)
        return b"data:%b\n\n" % text if self._content_type == EVENTS else text + b"\n"

    def _give_up(self, response: Response) -> None:
        """A reply that cannot be passed on ends the call on both sides."""
        self.end_call()
        if self._begun:
            self.end(complete=False)
        else:
            self.answer(response)
        self.cancel()


def accepts_events(accept: str) -> bool:
    """Whether any media range of an Accept header begins with text/event-stream."""
    return any(each.strip().lower().startswith(EVENTS) for each in accept.split(","))


def content_type_of(metadata: bytes) -> str:
    """The first entry of serialized Metadata that names a content type; empty if there is none that can be sent."""
    for entry in cloudstate.Metadata.FromString(metadata).entries:
        if entry.key.lower() == "content-type" and _MEDIA_TYPE.fullmatch(entry.string_value):
            named: str = entry.string_value
            return named
    return ""


def unreadable(binding: Binding, error: Exception) -> Response:
    log.warning("a reply cannot be written as JSON", method=binding.name, error=str(error))
    return failed(Status.INTERNAL, f"the reply of {binding.name} cannot be written as JSON: {error}")


def failed(status: int, message: str) -> Response:
    """A failure of the user function is its description and nothing else (spec core 16 #8); others are JSON."""
    if status == Status.UNKNOWN:
        return Response(HTTPStatus.INTERNAL_SERVER_ERROR, message.encode())
    body = json.dumps({"code": int(status), "message": message}, separators=(",", ":"), ensure_ascii=False)
    return Response(STATUS.get(status, HTTPStatus.INTERNAL_SERVER_ERROR), body.encode(), JSON)
