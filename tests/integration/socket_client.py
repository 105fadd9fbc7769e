"""A WebSocket client on the loop of the tests; frames are wsproto's."""

from __future__ import annotations

import json

from wsproto.connection import Connection, ConnectionType
from wsproto.events import CloseConnection, Event, TextMessage

from .http_client import Answer, HttpConnection
from .user_function import soon

KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455 1.3, as is what it is accepted with
ACCEPTED = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
OFFER = {
    "connection": "keep-alive, Upgrade",
    "upgrade": "websocket",
    "sec_websocket_version": "13",
    "sec_websocket_key": KEY,
}


class Socket:
    """`async with Socket(port, path) as socket`."""

    def __init__(self, port: int, path: str, **headers: str) -> None:
        self.http = HttpConnection(port)
        self.path = path
        self.given = OFFER | headers
        self.frames = Connection(ConnectionType.CLIENT)
        self.events: list[Event] = []

    async def __aenter__(self) -> Socket:
        await self.http.__aenter__()
        self.http.send("GET", self.path, **self.given)
        self.answer: Answer = await self.http.read()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.http.close()

    def send(self, *texts: str) -> None:
        for text in texts:
            self.write(TextMessage(data=text))

    def write(self, event: Event) -> None:
        self.http.writer.write(self.frames.send(event))

    async def event(self) -> Event:
        return await soon(self._event(), "a frame")

    async def text(self) -> str:
        """The `message` of the next reply."""
        text, finished = "", False
        while not finished:
            event = await self.event()
            assert isinstance(event, TextMessage), str(event)[:200]
            text += event.data
            finished = event.message_finished
        return str(json.loads(text)["message"])

    async def closed(self) -> tuple[int, str]:
        """Code and reason of the next frame, which closes; answered, and then the connection ends."""
        event = await self.event()
        assert isinstance(event, CloseConnection), event
        self.write(event.response())
        assert await self.http.closed()
        return event.code, event.reason or ""

    async def _event(self) -> Event:
        while not self.events:
            data = await self.http.reader.read(65536)
            assert data, "the connection was closed without a close frame"
            self.frames.receive_data(data)
            self.events.extend(self.frames.events())
        return self.events.pop(0)
