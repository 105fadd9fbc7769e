"""The requests that nearly all are, read at once: one that came whole, alone and without anything unusual.

The parser of http1.py calls back for each part of a request, which costs most of what a small request costs. `read`
takes a piece of data that is exactly one plain request of HTTP/1.1, and leaves all others, whatever is special or wrong
with them, to the parser, which would have made the same of what is taken here.
"""

from __future__ import annotations

import re

from stateside.proxy.exchange import Request

MAX_BYTES = 4096
# What the connection, its end or its protocol depend on is not plain.
_SPECIAL = frozenset(
    (b"connection", b"expect", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade")
)
_FIRST = re.compile(rb"(GET|POST|PUT|PATCH|DELETE|HEAD|OPTIONS) (/[!-~]*) HTTP/1\.1")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ?([!-~](?:[ -~]*[!-~])?)")
HOST = re.compile(rb"[\w.~!$&'()*+,;=:%\[\]-]*", re.ASCII)
_LENGTH = re.compile(rb"[0-9]{1,4}")


class PlainReader:
    """Of one connection. Clients say the same headers in each request: those of the last one are not read again."""

    __slots__ = ("_block", "_fields", "_headers", "_max_bytes", "_max_header_count", "_peer")

    def __init__(self, max_header_bytes: int, max_header_count: int, peer: str) -> None:
        self._max_bytes = min(max_header_bytes, MAX_BYTES)
        self._max_header_count = max_header_count
        self._peer = peer
        self._block = b"\r"  # as no block is
        self._fields: list[tuple[bytes, bytes]] = []
        self._headers: dict[str, str] = {}

    def read(self, data: bytes) -> Request | None:
        """The request that `data` is, or None."""
        if len(data) > self._max_bytes:
            return None
        head, end, body = data.partition(b"\r\n\r\n")
        line, _, block = head.partition(b"\r\n")
        first = _FIRST.fullmatch(line)
        if first is None or not end or (block != self._block and not self._read_block(block)):
            return None
        if (body or "content-length" in self._headers) and not self._is_length(body):
            return None
        verb, target = first.groups()
        path = target.partition(b"?")[0].decode()
        return Request(verb.decode(), target, path, self._headers.copy(), self._fields.copy(), body, "1.1", self._peer)

    def _read_block(self, block: bytes) -> bool:
        """Whether these are plain headers, which are the known ones then."""
        fields: list[tuple[bytes, bytes]] = []
        for line in block.split(b"\r\n"):
            header = _HEADER.fullmatch(line)
            if header is None:
                return False
            fields.append((header[1].lower(), header[2]))
        names = [name for name, _ in fields]
        hosts = [value for name, value in fields if name == b"host"]
        if len(hosts) != 1 or not HOST.fullmatch(hosts[0]):
            return False
        if len(fields) > self._max_header_count or not _SPECIAL.isdisjoint(names):
            return False
        self._fields = fields
        self._headers = {name.decode(): value.decode() for name, value in fields}
        self._block = block
        return True

    def _is_length(self, body: bytes) -> bool:
        lengths = [value for name, value in self._fields if name == b"content-length"]
        return len(lengths) == 1 and _LENGTH.fullmatch(lengths[0]) is not None and int(lengths[0]) == len(body)
