"""A client of gRPC-web over HTTP/1.1 that sees each piece of an answer as it comes."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import NamedTuple

from .user_function import soon

BINARY, TEXT = "application/grpc-web+proto", "application/grpc-web-text+proto"
TRAILERS = 0x80


class WebOutcome(NamedTuple):
    """How a call ended."""

    status: int
    details: str
    messages: list[bytes]
    headers: dict[str, str]
    trailers: dict[str, str]


class WebCall:
    """One call on a connection of its own. `async with WebCall(port, path, messages) as call`."""

    def __init__(self, port: int, path: str, *messages: bytes, content_type: str = BINARY, **headers: str) -> None:
        """Names of headers with `_` for `-`."""
        body = b"".join(b"\0" + len(message).to_bytes(4, "big") + message for message in messages)
        self.body = base64.b64encode(body) if "text" in content_type else body
        self.port = port
        self.path = path
        fields = {"host": "localhost", "content-type": content_type, "content-length": str(len(self.body))}
        self.fields = fields | {name.replace("_", "-"): value for name, value in headers.items()}
        self.http_status = 0
        self.headers: dict[str, str] = {}

    async def __aenter__(self) -> WebCall:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        lines = [f"POST {self.path} HTTP/1.1", *(f"{name}: {value}" for name, value in self.fields.items())]
        self.writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + self.body)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()

    async def begun(self) -> None:
        """The headers of the answer are there."""
        top = await soon(self.reader.readuntil(b"\r\n\r\n"), "the headers of an answer")
        status, *lines = top.decode().removesuffix("\r\n\r\n").split("\r\n")
        self.http_status = int(status.split()[1])
        self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}

    async def frames(self) -> AsyncIterator[tuple[int, bytes]]:
        """(flags, content) of each frame, as soon as it is there."""
        data = b""
        async for piece in self._pieces():
            is_text = "grpc-web-text" in self.headers["content-type"]
            data += base64.b64decode(piece, validate=True) if is_text else piece
            while len(data) >= 5 and len(data) >= (end := 5 + int.from_bytes(data[1:5], "big")):
                yield data[0], data[5:end]
                data = data[end:]
        assert data == b""

    async def _pieces(self) -> AsyncIterator[bytes]:
        if self.headers.get("transfer-encoding") != "chunked":
            yield await soon(self.reader.readexactly(int(self.headers["content-length"])), "an answer")
            return
        while size := int(await soon(self.reader.readline(), "a chunk"), 16):
            piece = await soon(self.reader.readexactly(size + 2), "a chunk")
            yield piece[:-2]

    async def end(self) -> WebOutcome:
        """Read on to the end."""
        if not self.http_status:
            await self.begun()
        assert self.http_status == 200, self.http_status
        found = [frame async for frame in self.frames()]
        flags, content = found.pop()
        assert flags == TRAILERS
        lines = content.decode().removesuffix("\r\n").split("\r\n")
        trailers = dict(line.split(": ", 1) for line in lines)
        messages = [message for _, message in found]
        return WebOutcome(
            int(trailers["grpc-status"]), trailers.get("grpc-message", ""), messages, self.headers, trailers
        )


async def call(port: int, path: str, *messages: bytes, **more: str) -> WebOutcome:
    """One call, to its end."""
    async with WebCall(port, path, *messages, **more) as opened:
        return await opened.end()
