"""How the supervisor asks its children: HTTP/1.1 over their admin sockets, one request per connection."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

MAX_ANSWER_BYTES = 64 << 20
_CHUNK = 1 << 16


class AdminAnswer(NamedTuple):
    status: int
    content_type: str
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace").rstrip("\n")


async def ask(path: str, method: str, target: str, body: bytes = b"", within: float = 1.0) -> AdminAnswer:
    """Ask the process behind the socket `path`. Raises TimeoutError when it does not answer within so many seconds, and
    OSError when nobody is there or what comes is no answer."""
    async with asyncio.timeout(within):
        reader, writer = await asyncio.open_unix_connection(path)
        try:
            head = f"{method} {target} HTTP/1.1\r\nHost: supervisor\r\nConnection: close\r\nContent-Length: {len(body)}"
            writer.write(f"{head}\r\n\r\n".encode("latin-1") + body)
            return _parse(await _read_all(reader))
        finally:
            writer.close()


async def _read_all(reader: asyncio.StreamReader) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while piece := await reader.read(_CHUNK):
        pieces.append(piece)
        size += len(piece)
        if size > MAX_ANSWER_BYTES:
            raise ConnectionError(f"an answer of more than {MAX_ANSWER_BYTES} bytes")
    return b"".join(pieces)


def _parse(data: bytes) -> AdminAnswer:
    head, found, body = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if not found or len(words) < 2 or not words[1].isdigit():
        raise ConnectionError("the answer was cut off")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    if len(body) != int(headers.get("content-length", len(body))):
        raise ConnectionError("the answer was cut off")
    return AdminAnswer(int(words[1]), headers.get("content-type", ""), body)
