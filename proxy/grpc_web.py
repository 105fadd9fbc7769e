"""gRPC-web: gRPC for browsers, and for whoever sits behind a proxy that lets no trailers through.

A request is a POST with a body of gRPC frames, plain or in base64 (`-text`); its answer has the frames of gRPC, and the
trailers as a last frame of their own. `GrpcWeb.route` finds the handler as the transport does for gRPC, and
`GrpcWebCall` stands before it where a client of gRPC has its `ServerCall`: so entities, actions, health and reflection
all are served, over HTTP/1.1 and HTTP/2 alike. The body is whole when the call begins; messages are taken from it at
the handler's pace. Whatever happens to a call, its answer is status 200 with the status of gRPC in the trailers' frame.
"""

from __future__ import annotations

import binascii
import re
import zlib
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from stateside._speedups.h2 import Handler
from stateside.proto.status import Status, status_name
from stateside.proxy import logs
from stateside.proxy.exchange import Later, Response, text

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from stateside._speedups.h2 import Headers
    from stateside.proxy.exchange import Carrier, Request

PROTOCOL = "grpc-web"  # in figures and logs
PREFIX_BYTES = 5
COMPRESSED = 0x01
TRAILERS = 0x80
# So many messages of a body, or so many bytes of them, are given to the handler before others have their turn.
MESSAGES_PER_TURN = 100
BYTES_PER_TURN = 256 * 1024
# Clients pad the base64 of each frame at most; decoding piece by piece is slow.
MAX_TEXT_PIECES = 10_000
# Headers of the connection or of the body, which are no metadata of the call.
NOT_METADATA = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"transfer-encoding",
        b"upgrade",
        b"expect",
        b"proxy-connection",
        b"trailer",
        b"accept",
    )
)
PRINTABLE = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")
TIMEOUT_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_MEDIA_TYPE = re.compile(r"application/grpc-web(-text)?(?:\+(\w+))?", re.IGNORECASE)
_AUTHORITY = re.compile(rb"https?://[^/?#]*", re.IGNORECASE)
_TIMEOUT = re.compile(r"(\d{1,8})([HMSmun])")
_BASE64_PIECE = re.compile(rb"[^=]+={0,2}")

log = logs.get(__name__)


class GrpcWeb:
    """The face. `calls` are those under way."""

    def __init__(
        self,
        lookup: Callable[[bytes], Handler | None],
        loop: asyncio.AbstractEventLoop,
        max_message_size: int,
    ) -> None:
        """`lookup(path)` gives the handler of a path, as for the transport."""
        self.lookup = lookup
        self.loop = loop
        self.max_message_size = max_message_size
        self.calls = 0

    @staticmethod
    def recognizes(request: Request) -> bool:
        """Whether this is gRPC-web, well-formed or not."""
        return request.method == "POST" and _format(request.headers.get("content-type", "")) is not None

    def route(self, request: Request) -> Response | Later:
        """The call that will have the answer to a request that is gRPC-web."""
        found = _format(request.headers.get("content-type", ""))
        if found is None or found[2] not in ("", "proto"):
            return text(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "gRPC-web is served as application/grpc-web[-text][+proto]")
        handler = self.lookup(path_of(request))
        request.protocol = PROTOCOL
        request.routed = path_of(request).decode("ascii", "replace") if handler is not None else ""
        return GrpcWebCall(self, request, handler)


class CallError(Exception):
    """The request cannot be served; the status that the client gets."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status


class GrpcWebCall(Later):
    """One call; offers its handler what `ServerCall` does. It begins when the connection has taken it over, so that the
    handler's pace is the connection's from the first message on."""

    __slots__ = (
        "_begun",
        "_code",
        "_content_type",
        "_face",
        "_headers",
        "_is_scheduled",
        "_is_text",
        "_messages",
        "_paused",
        "_request",
        "_timer",
        "context",
        "deadline",
        "ended",
        "handler",
        "headers",
        "path",
        "peer",
    )

    def __init__(self, face: GrpcWeb, request: Request, handler: Handler | None) -> None:
        Later.__init__(self)
        face.calls += 1
        self._face = face
        self._request: Request | None = request
        self._content_type, self._is_text = answer_format(request)
        self._headers: Sequence[tuple[bytes, bytes]] = ()
        self._messages: Iterator[bytes] = iter(())
        self._timer: asyncio.TimerHandle | None = None
        self._begun = self._paused = self._is_scheduled = False
        self.handler = handler
        self.context: Any = None
        self.headers: Headers = [field for field in request.fields if field[0] not in NOT_METADATA]
        self.path = path_of(request)
        self.peer = request.peer
        self.deadline = 0.0
        self.ended = False
        self._code = ""

    # --- from the connection -----------------------------------------------------------------------------------------

    def attach(self, carrier: Carrier) -> None:
        Later.attach(self, carrier)
        request, self._request = self._request, None
        if request is not None:
            self._guarded(self._open, request)

    @property
    def code(self) -> str:
        return self._code or Status.CANCELLED.name

    def on_drain(self) -> None:
        if not self.ended:
            self._guarded(self._tell, "on_drain")

    def on_gone(self) -> None:
        """The client is cancelling, as far as HTTP can tell."""
        if self._end():
            self._tell_cancelled(Status.CANCELLED)

    # --- from the request to the handler -----------------------------------------------------------------------------

    def _open(self, request: Request) -> None:
        handler = self.handler
        if handler is None:
            name = self.path[:200].decode("utf-8", "replace")
            raise CallError(Status.UNIMPLEMENTED, f"unknown method {name}")
        self._limit(request.headers.get("grpc-timeout"))
        encoding = request.headers.get("grpc-encoding", "identity")
        if encoding not in ("identity", "gzip"):
            self.finish(
                Status.UNIMPLEMENTED,
                f"grpc-encoding {encoding[:40]!r} is not known here",
                ((b"grpc-accept-encoding", b"identity,gzip"),),
            )
            return
        body = from_text(request.body) if _is_text(request) else request.body
        self._messages = messages(body, encoding == "gzip", self._face.max_message_size)
        if handler.unary:
            self._tell("on_request", self._only_message())
        else:
            self._tell("on_open")
            self._go_on()

    def _limit(self, timeout: str | None) -> None:
        """Hold the client's deadline."""
        if timeout is None:
            return
        found = _TIMEOUT.fullmatch(timeout)
        if found is None:
            raise CallError(Status.INTERNAL, f"malformed grpc-timeout {timeout[:40]!r}")
        loop = self._face.loop
        self.deadline = loop.time() + int(found[1]) * TIMEOUT_UNITS[found[2]]
        self._timer = loop.call_at(self.deadline, self._expire)

    def _only_message(self) -> bytes:
        for message in self._messages:
            if next(self._messages, None) is not None:
                raise CallError(Status.INVALID_ARGUMENT, "a unary method takes one request message, more came")
            return message
        raise CallError(Status.INVALID_ARGUMENT, "a unary method takes one request message, none came")

    def _go_on(self) -> None:
        """Give the handler messages, until it has had enough for now."""
        self._is_scheduled = False
        count = taken = 0
        while count < MESSAGES_PER_TURN and taken < BYTES_PER_TURN:
            if self.ended or self._paused:
                return
            message = next(self._messages, None)
            if message is None:
                self._tell("on_half_close")
                return
            count += 1
            taken += len(message)
            self._tell("on_message", message)
        self._schedule()

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._face.loop.call_soon(self._guarded, self._go_on)

    def _guarded(self, what: Callable[..., object], *arguments: object) -> None:
        """Whatever goes wrong in it is the end of this call and of nothing else."""
        try:
            what(*arguments)
        except CallError as error:
            self._fault(error.status, str(error))
        except Exception:
            log.exception("a call over gRPC-web failed", path=self.path.decode("latin-1"))
            self.finish(Status.INTERNAL, "internal error")

    def _expire(self) -> None:
        self._timer = None
        self._fault(Status.DEADLINE_EXCEEDED, "deadline exceeded", Status.DEADLINE_EXCEEDED)

    def _fault(self, status: Status, message: str, cancelled: Status = Status.CANCELLED) -> None:
        """The end that the handler has not asked for."""
        if self._end():
            self._say_end(status, message, ())
            self._tell_cancelled(cancelled)

    def _tell_cancelled(self, status: Status) -> None:
        self._guarded(self._tell, "on_cancel", status)

    def _tell(self, event: str, *arguments: object) -> None:
        """The handler, unless it is deaf to such an event: the transport's own methods take its own calls only."""
        handler = self.handler
        if handler is not None and getattr(type(handler), event) is not getattr(Handler, event):
            getattr(handler, event)(self, *arguments)

    # --- from the handler: what a ServerCall offers ------------------------------------------------------------------

    def start(self, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        if not self.ended and not self._begun:
            self._headers = headers
            self._begin(b"")

    def send(self, message: bytes) -> bool:
        if self.ended:
            return True
        data = self._coded(frame(0, message))
        if self._begun:
            return self.write(data)
        self._begin(data)
        return True

    def reply(self, message: bytes, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        if self.ended:
            return
        if self._begun:
            self.send(message)
            self.finish()
        elif self._end():
            self._headers = headers
            self._code = Status.OK.name
            self.answer(self._response(self._coded(frame(0, message) + trailers_frame(Status.OK, "", ()))))

    def finish(self, status: int = 0, message: str = "", trailers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        if self._end():
            self._say_end(status, message, trailers)

    def fail(self, status: int, message: str) -> None:
        self.finish(status, message)

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        if self._paused:
            self._paused = False
            self._schedule()

    # --- to the connection -------------------------------------------------------------------------------------------

    def _begin(self, data: bytes) -> None:
        self._begun = True
        self.begin(self._response(data))

    def _say_end(self, status: int, message: str, trailers: Sequence[tuple[bytes, bytes]]) -> None:
        self._code = status_name(status)
        data = self._coded(trailers_frame(status, message, trailers))
        if self._begun:
            self.write(data)
            self.end()
        else:
            self.answer(self._response(data))

    def _end(self) -> bool:
        """False: it has ended before."""
        if self.ended:
            return False
        self.ended = True
        self._face.calls -= 1
        self._messages = iter(())
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return True

    def _coded(self, data: bytes) -> bytes:
        """Each piece of an answer in base64 is padded, so that it can be read without waiting for the next one."""
        return binascii.b2a_base64(data, newline=False) if self._is_text else data

    def _response(self, data: bytes) -> Response:
        headers = tuple((name.decode(), value.decode("latin-1")) for name, value in self._headers)
        return Response(HTTPStatus.OK, data, self._content_type, headers)


def path_of(request: Request) -> bytes:
    """The path of a method, also where the target is a whole URL."""
    return _AUTHORITY.sub(b"", request.target, count=1).partition(b"?")[0]


# --- formats ---------------------------------------------------------------------------------------------------------


def _format(media_type: str) -> tuple[str, bool, str] | None:
    """(media type, whether in base64, the messages' format), or None if it is not gRPC-web."""
    found = _MEDIA_TYPE.fullmatch(media_type.partition(";")[0].strip())
    return (found[0].lower(), found[1] is not None, (found[2] or "").lower()) if found else None


def _is_text(request: Request) -> bool:
    found = _format(request.headers.get("content-type", ""))
    return found is not None and found[1]


def answer_format(request: Request) -> tuple[str, bool]:
    """Media type of the answer and whether it is in base64: as the client accepts it, else as it asked."""
    accepted = request.headers.get("accept", "").split(",")
    wanted = next((found for each in accepted if (found := _format(each)) and found[2] in ("", "proto")), None)
    media_type, is_text, _ = wanted or _format(request.headers.get("content-type", "")) or ("", False, "")
    return media_type, is_text


def from_text(body: bytes) -> bytes:
    """The bytes of a body in base64, which may be several pieces one after the other, each with its padding."""
    if body.count(b"=") > 2 * MAX_TEXT_PIECES:
        raise CallError(Status.INVALID_ARGUMENT, f"the body has more than {MAX_TEXT_PIECES} pieces of base64")
    pieces = _BASE64_PIECE.findall(body) if b"=" in body[:-2] else [body]
    try:
        return b"".join(binascii.a2b_base64(piece, strict_mode=True) for piece in pieces)
    except binascii.Error as error:
        raise CallError(Status.INVALID_ARGUMENT, f"the body is not base64: {error}") from error


def messages(body: bytes, gzip: bool, limit: int) -> Iterator[bytes]:
    """The messages of a request's body, in order. Raises CallError where it is malformed."""
    at = 0
    while at < len(body):
        flags, start = body[at], at + PREFIX_BYTES
        at = start + int.from_bytes(body[at + 1 : start], "big")
        if start > len(body) or at > len(body):
            raise CallError(Status.INTERNAL, "the last message is cut short")
        if flags & ~COMPRESSED:
            raise CallError(Status.INTERNAL, f"a frame of the request has the unknown flags {flags:#04x}")
        message = body[start:at]
        yield decompressed(message, gzip, limit) if flags else message


def decompressed(message: bytes, gzip: bool, limit: int) -> bytes:
    if not gzip:
        text = "a message is marked as compressed, but grpc-encoding names no compression known here"
        raise CallError(Status.INTERNAL, text)
    inflater = zlib.decompressobj(31)
    try:
        plain = inflater.decompress(message, limit + 1)
    except zlib.error as error:
        raise CallError(Status.INTERNAL, f"a message is not well-formed gzip: {error}") from error
    if len(plain) > limit:
        text = f"a compressed message is larger than the limit of {limit} bytes"
        raise CallError(Status.RESOURCE_EXHAUSTED, text)
    if not inflater.eof:
        raise CallError(Status.INTERNAL, "a message is not well-formed gzip: it is cut short")
    return plain


def frame(flags: int, data: bytes) -> bytes:
    return bytes((flags,)) + len(data).to_bytes(4, "big") + data


def trailers_frame(status: int, message: str, trailers: Sequence[tuple[bytes, bytes]]) -> bytes:
    lines = [b"grpc-status: %d\r\n" % status]
    if message:
        lines.append(b"grpc-message: %s\r\n" % quote(message, safe=PRINTABLE).encode())
    lines.extend(b"%s: %s\r\n" % each for each in trailers)
    return frame(TRAILERS, b"".join(lines))
