"""Unary calls as coroutines, for what is not hot: discovery and error reports."""

from __future__ import annotations

import asyncio

from stateside._speedups.h2 import Call, Channel, ClientCall, Handler
from stateside.proto.status import Status


class CallFailed(Exception):
    """A call ended with another status than OK."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{Status(status).name}: {message}")
        self.status = Status(status)
        self.message = message


async def unary(channel: Channel, path: bytes, request: bytes, deadline: float) -> bytes:
    """Send one message, receive one within `deadline` seconds.

    Raises CallFailed, or ChannelUnavailable when the connection is gone.
    """
    handler = _Unary()
    call = channel.open(path, handler, timeout=deadline)
    call.send(request)
    call.half_close()
    try:
        return await handler.answer
    except asyncio.CancelledError:
        call.cancel()
        raise


class _Unary(Handler):
    def __init__(self) -> None:
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.message: bytes | None = None

    def on_message(self, call: Call, message: bytes) -> None:
        self.message = message

    def on_end(self, call: ClientCall, status: int, message: str) -> None:
        if self.answer.done():
            return
        if status != Status.OK:
            self.answer.set_exception(CallFailed(status, message))
        elif self.message is None:
            self.answer.set_exception(CallFailed(Status.INTERNAL, "the call ended without an answer"))
        else:
            self.answer.set_result(self.message)
