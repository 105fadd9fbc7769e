"""An HTTP/1.1 client as small as it can be, on the loop of the tests."""

from __future__ import annotations

import asyncio
import json
from typing import Any, NamedTuple

from .user_function import soon

JSON = "application/json"


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


class HttpConnection:
    """One connection. `async with HttpConnection(port) as http`."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def __aenter__(self) -> HttpConnection:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.writer.close()

    def send(self, verb: str, path: str, body: str | bytes = b"", content_type: str = JSON, **headers: str) -> None:
        """Send a request; `read` gets its answer. Names of headers with `_` for `-`."""
        body = body.encode() if isinstance(body, str) else body
        fields = {"host": "localhost"} | {name.replace("_", "-"): value for name, value in headers.items()}
        if body:
            fields |= {"content-type": content_type, "content-length": str(len(body))}
        lines = [f"{verb} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
        self.writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    async def read(self, verb: str = "") -> Answer:
        return await soon(self._read(verb), "an answer over HTTP")

    async def ask(self, verb: str, path: str, body: str | bytes = b"", **more: str) -> Answer:
        self.send(verb, path, body, **more)
        return await self.read(verb)

    async def closed(self) -> bool:
        """Wait until the proxy closes; nothing more may come."""
        return await soon(self.reader.read(), "the end of the connection") == b""

    async def _read(self, verb: str) -> Answer:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:-2])}
        length = 0 if verb == "HEAD" else int(headers.get("content-length", "0"))
        body = await self.reader.readexactly(length)
        return Answer(int(head[0].split()[1]), headers, body.decode())


async def ask(port: int, verb: str, path: str, body: str | bytes = b"", **more: str) -> Answer:
    """One request on a connection of its own."""
    async with HttpConnection(port) as http:
        return await http.ask(verb, path, body, **more)
