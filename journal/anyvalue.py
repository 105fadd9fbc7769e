"""`google.protobuf.Any` as bytes: taken apart to show it, put together again to import it.

Events and snapshots are opaque to the journal; only its tools look inside, and only where an event is an Any in
canonical form, so that what was taken apart becomes the same bytes again.
"""

from __future__ import annotations

_TYPE_URL = 0x0A  # field 1, length-delimited
_VALUE = 0x12  # field 2, length-delimited


def split_any(data: bytes) -> tuple[str, bytes] | None:
    """Type URL and value, or None when `data` is not the canonical encoding of an Any with a type URL."""
    parts: dict[int, bytes] = {}
    position = 0
    try:
        while position < len(data):
            size, start = _read_varint(data, position + 1)
            parts[data[position]] = data[start : start + size]
            position = start + size
        type_url = parts.get(_TYPE_URL, b"").decode()
    except (IndexError, UnicodeDecodeError):
        return None
    value = parts.get(_VALUE, b"")
    if not type_url or join_any(type_url, value) != data:
        return None
    return type_url, value


def join_any(type_url: str, value: bytes) -> bytes:
    """The canonical encoding: no field for an empty value."""
    encoded = type_url.encode()
    parts = [bytes([_TYPE_URL]), _varint(len(encoded)), encoded]
    if value:
        parts += [bytes([_VALUE]), _varint(len(value)), value]
    return b"".join(parts)


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    number = shift = 0
    while data[position] & 0x80:
        number |= (data[position] & 0x7F) << shift
        shift += 7
        position += 1
    return number | data[position] << shift, position + 1
