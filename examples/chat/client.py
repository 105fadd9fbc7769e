"""A client of the chat on the transport of this project: says, looks, and stays in a room.

`python -m examples.chat.client alice kitchen` joins a room through a proxy at 127.0.0.1:9000 and prints what happens.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import uvloop
from google.protobuf.empty_pb2 import Empty

from stateside._speedups.h2 import Channel, Handler
from stateside.proto.status import Status

from .protos.chat.chat_pb2 import GetRoom, JoinRoom, Post, Room

SERVICE = "example.chat.Rooms"
TIMEOUT = 10.0  # seconds


class CallFailed(Exception):
    """A call ended with a gRPC status other than OK."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(f"{status.name}: {message}")
        self.status = status


class ChatClient:
    """Calls of the Rooms service over one connection. Methods raise CallFailed, or OSError where nobody listens."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    @classmethod
    async def connect(cls, host: str, port: int) -> ChatClient:
        """A client of the server at host:port."""
        return cls(await Channel.connect(asyncio.get_running_loop(), host, port))

    async def say(self, room: str, user: str, text: str) -> None:
        """Say something in a room."""
        await self._unary("Say", Post(room=room, user=user, text=text), Empty)

    async def look(self, room: str) -> Room:
        """Everything that was said in a room, and who is there."""
        found: Room = await self._unary("Look", GetRoom(room=room), Room)
        return found

    def join(self, room: str, user: str) -> Visit:
        """Go into a room."""
        return Visit(self._start("Join", JoinRoom(room=room, user=user), None))

    async def _unary(self, method: str, request: Any, reply_class: Any) -> Any:
        call = self._start(method, request, TIMEOUT)
        reply = await call.next()
        if reply is None:
            raise CallFailed(Status.INTERNAL, "no message")
        return reply_class.FromString(reply)

    def _start(self, method: str, request: Any, timeout: float | None) -> _Call:
        handler = _Call()
        handler.call = self._channel.open(f"/{SERVICE}/{method}".encode(), handler, timeout=timeout or 0.0)
        handler.call.send(request.SerializeToString())
        handler.call.half_close()
        return handler

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()


class Visit:
    """Somebody in a room. What he has seen grows while he is there."""

    def __init__(self, call: _Call) -> None:
        self.seen: list[str] = []
        """What was said, as `user: text`."""
        self.online: list[str] = []
        self._call = call

    async def next(self) -> bool:
        """Wait for news; False if the visit is over. Raises CallFailed if it ended badly."""
        news = await self._call.next()
        if news is None:
            return False
        room = Room.FromString(news)
        self.seen += [f"{message.user}: {message.text}" for message in room.messages]
        self.online = list(room.online)
        return True

    def leave(self) -> None:
        """Go."""
        self._call.call.cancel()


class _Call(Handler):
    """One call; its messages in a queue, then None or an exception."""

    def __init__(self) -> None:
        self.call: Any = None
        self._news: asyncio.Queue[bytes | CallFailed | None] = asyncio.Queue()

    def on_message(self, call: Any, message: bytes) -> None:
        self._news.put_nowait(message)

    def on_end(self, call: Any, status: int, message: str) -> None:
        self._news.put_nowait(None if status == Status.OK else CallFailed(Status(status), message))

    async def next(self) -> bytes | None:
        news = await self._news.get()
        if isinstance(news, CallFailed):
            raise news
        return news


async def main(user: str, room: str, host: str, port: int) -> None:
    """Stay in a room, and print what happens there."""
    client = await ChatClient.connect(host, port)
    visit = client.join(room, user)
    printed = 0
    while await visit.next():
        for line in visit.seen[printed:]:
            print(line, flush=True)
        printed = len(visit.seen)
        print(f"  [{', '.join(visit.online)}]", flush=True)


if __name__ == "__main__":
    arguments = dict(enumerate(sys.argv))
    uvloop.run(
        main(
            arguments.get(1, "somebody"),
            arguments.get(2, "kitchen"),
            arguments.get(3, "127.0.0.1"),
            int(arguments.get(4, "9000")),
        )
    )
