"""Streamed methods over WebSocket: a frame of text is a message as JSON, in both directions.

A client of HTTP/1.1 asks for the upgrade on the path of a streamed method. Methods that take a stream get a message
for each frame, until an empty one, which says that no more will come (WebSocket knows no half-close); methods that take
one message get it from the first frame, or from path and query alone where the rule has no body. The end of the call
is a close frame: 1000, or 1011 with the description of a failure. wsproto knows the frames, http1.py carries them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING

from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, TextMessage
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import generate_accept_token

from stateside._speedups.wire import metadata_of_headers
from stateside.proxy import transcode
from stateside.proxy.action import ActionCall, ActionMethod
from stateside.proxy.exchange import Request, Response, Upgrade
from stateside.proxy.http_calls import UNREADABLE, HttpCall, unreadable
from stateside.proxy.http_rules import WHOLE
from stateside.proxy.transcode import JSON, BadRequest

if TYPE_CHECKING:
    from stateside._speedups.h2 import Headers
    from stateside.proxy.http_json import HttpJson
    from stateside.proxy.http_rules import Binding
    from stateside.proxy.router import Target

VERSION = "13"
MAX_REASON_BYTES = 123  # RFC 6455 5.5: a control frame has 125 bytes
KEY_LENGTH = 24  # of 16 bytes in base64
CLOSE_TIMEOUT = 2.0  # seconds a client has to answer a close frame


def is_offered(request: Request) -> bool:
    return (
        request.version == "1.1"
        and request.method == "GET"
        and request.headers.get("upgrade", "").lower() == "websocket"
    )


def problem_of(request: Request) -> str:
    """What is wrong with an opening handshake (RFC 6455 4.2.1); empty if nothing is."""
    headers = request.headers
    if "upgrade" not in [each.strip().lower() for each in headers.get("connection", "").split(",")]:
        return "a WebSocket needs the header Connection: Upgrade"
    if headers.get("sec-websocket-version") != VERSION:
        return f"the header Sec-WebSocket-Version has to be {VERSION}"
    if len(headers.get("sec-websocket-key", "")) != KEY_LENGTH:
        return "the header Sec-WebSocket-Key has to be 16 bytes in base64"
    return ""


class SocketCall(HttpCall, Upgrade):
    """One WebSocket, which is one call."""

    __slots__ = (
        "_captures",
        "_closing",
        "_frames",
        "_heard",
        "_is_complete",
        "_limit",
        "_parts",
        "_paused",
        "_pinged",
        "_query",
        "_reading",
        "_release_due",
        "_size",
        "_target",
        "_timer",
        "_waiting",
        "headers",
    )

    def __init__(
        self,
        face: HttpJson,
        binding: Binding,
        target: Target,
        captures: tuple[str, ...],
        query: str,
        headers: Headers,
    ) -> None:
        HttpCall.__init__(self, face, binding)
        self.headers = headers
        self._target = target
        self._captures = captures
        self._query = query
        self._limit = face.router.settings.max_request_size
        # How a frame is read; where messages are a stream, each is whole.
        self._reading = replace(binding, body=binding.body or WHOLE) if binding.client_streaming else binding
        self._frames = Connection(ConnectionType.SERVER)
        self._parts: list[str] = []  # of the message that is coming
        self._size = 0
        self._waiting: deque[str] = deque()  # messages that came while the call was paused
        self._paused = False
        self._release_due = False
        self._is_complete = False  # all request messages came
        self._closing = False  # a close frame was sent
        self._heard = self._pinged = False  # since the timer was armed
        self._timer: asyncio.TimerHandle | None = None

    def open(self, request: Request) -> None:
        """Begin the call. Raises BadRequest while there still is an answer of HTTP."""
        first = None
        if not self.binding.client_streaming and self.binding.body is None:
            first = transcode.request_message(self.binding, self._captures, self._query, "", b"")
        accepted = generate_accept_token(request.headers["sec-websocket-key"].encode()).decode()
        headers = (("upgrade", "websocket"), ("sec-websocket-accept", accepted))
        self.begin(Response(HTTPStatus.SWITCHING_PROTOCOLS, b"", "", headers))
        self._arm(self._face.router.settings.keepalive_interval)
        if first is not None:
            self._deliver(first)
        elif self.binding.client_streaming and isinstance(self._target, ActionMethod):
            self._target.on_open(self)  # type: ignore[arg-type]

    # --- to the client -----------------------------------------------------------------------------------------------

    def send(self, message: bytes) -> bool:
        if self.ended:
            return True
        try:
            frame = self._frame(message)
        except UNREADABLE as error:
            unreadable(self.binding, error)
            self._fail(CloseReason.INTERNAL_ERROR, f"the reply of {self.binding.name} cannot be written as JSON")
            return True
        return self.write(self._frames.send(frame))

    def finish(self, status: int = 0, message: str = "", trailers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        if self.end_call():
            self._close(CloseReason.INTERNAL_ERROR if status else CloseReason.NORMAL_CLOSURE, message)

    def on_drain(self) -> None:
        if self.context is not None:
            self.context.on_client_drain()

    def _frame(self, message: bytes) -> Event:
        raw = transcode.http_body(self.binding, message)
        if raw is not None:
            return BytesMessage(data=raw[1])
        return TextMessage(data=transcode.json_reply(self.binding, message).decode())

    # --- from the client ---------------------------------------------------------------------------------------------

    def on_data(self, data: bytes) -> None:
        if self._frames.state is ConnectionState.CLOSED:
            return
        self._heard = True
        self._frames.receive_data(data)
        for event in self._frames.events():
            if isinstance(event, TextMessage):
                self._on_text(event)
            elif isinstance(event, Ping):
                self._write(event.response())
            elif isinstance(event, CloseConnection):
                self._on_close(event)
            elif isinstance(event, BytesMessage):
                self._fail(CloseReason.UNSUPPORTED_DATA, "messages are frames of text")

    def _on_text(self, event: TextMessage) -> None:
        if self.ended:
            return
        self._size += len(event.data)
        if self._size > self._limit:
            self._fail(CloseReason.MESSAGE_TOO_BIG, f"the message is larger than {self._limit} bytes")
            return
        self._parts.append(event.data)
        if event.message_finished:
            text = "".join(self._parts)
            self._parts.clear()
            self._size = 0
            if self._paused or self._waiting:
                self._waiting.append(text)
            else:
                self._on_message(text)

    def _on_message(self, text: str) -> None:
        if self.ended:
            return
        if self._is_complete:
            self._fail(CloseReason.POLICY_VIOLATION, "no further message was expected")
        elif not text and self.binding.client_streaming:
            self._is_complete = True
            if isinstance(self.context, ActionCall):
                self.context.on_client_half_close()
        else:
            self._pass_on(text)

    def _pass_on(self, text: str) -> None:
        try:
            message = transcode.request_message(self._reading, self._captures, self._query, JSON, text.encode())
        except BadRequest as error:
            self._fail(CloseReason.INVALID_FRAME_PAYLOAD_DATA, str(error))
            return
        if not self.binding.client_streaming:
            self._deliver(message)
        elif isinstance(self.context, ActionCall):
            self.context.on_client_message(message)

    def _deliver(self, message: bytes) -> None:
        """The one message of a method that takes but one."""
        self._is_complete = True
        self._face.router.deliver(self._target, self, message, metadata_of_headers(self.headers))

    # --- pace --------------------------------------------------------------------------------------------------------

    def pause(self) -> None:
        self._paused = True
        self.hold(True)

    def resume(self) -> None:
        """What came meanwhile is delivered later in the loop, as the transport does."""
        if self._paused:
            self._paused = False
            if not self._release_due:
                self._release_due = True
                asyncio.get_running_loop().call_soon(self._release)

    def _release(self) -> None:
        self._release_due = False
        while self._waiting and not self._paused:
            self._on_message(self._waiting.popleft())
        if not self._paused:
            self.hold(False)

    # --- the end -----------------------------------------------------------------------------------------------------

    def on_gone(self) -> None:
        self._forget_timer()
        HttpCall.on_gone(self)

    def _fail(self, code: int, reason: str) -> None:
        """The client is at fault or closes, or the reply cannot be sent."""
        if self.end_call():
            self._close(code, reason)
            self.cancel()

    def _close(self, code: int, reason: str) -> None:
        """Say why, and give the client time to read it."""
        text = reason.encode()[:MAX_REASON_BYTES].decode(errors="ignore")
        self._write(CloseConnection(code=code, reason=text))
        self.hold(False)
        self._closing = True
        self._arm(CLOSE_TIMEOUT)

    def _on_close(self, event: CloseConnection) -> None:
        """The client closes, or answers our own close frame, or sends what is no frame."""
        was_closing = self._closing
        self._fail(event.code, event.reason or "")
        if was_closing or self._frames.state is ConnectionState.CLOSED:
            self._forget_timer()
            self.end()

    def _arm(self, seconds: float) -> None:
        self._forget_timer()
        if seconds:
            self._heard = False
            self._timer = asyncio.get_running_loop().call_later(seconds, self._on_quiet)

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_quiet(self) -> None:
        """A close frame was not answered; or it is time to ask whether the client is still there, or it is not."""
        settings = self._face.router.settings
        if self._closing:
            self.end()
        elif self._heard or self._paused:
            self._pinged = False
            self._arm(settings.keepalive_interval)
        elif not self._pinged:
            self._pinged = True
            self._write(Ping(payload=b""))
            self._arm(settings.keepalive_timeout)
        else:
            self.end(complete=False)
            self.on_gone()

    def _write(self, event: Event) -> None:
        if self._frames.state in (ConnectionState.OPEN, ConnectionState.REMOTE_CLOSING):
            self.write(self._frames.send(event))
