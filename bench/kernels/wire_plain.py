"""The wire kernels' work in plain Python: what one would write by hand without a compiler and without the runtime."""

from collections.abc import Iterator

LEN = 2
SIZES = {1: 8, 5: 4}  # of wire types of a fixed size


def varint(data: bytes, at: int) -> tuple[int, int]:
    """The value, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value, at
        shift += 7


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field of a message. Raises ValueError."""
    at, end = 0, len(data)
    while at < end:
        tag, at = varint(data, at)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            value, at = varint(data, at)
            yield number, value
            continue
        if kind == LEN:
            size, at = varint(data, at)
        elif kind in SIZES:
            size = SIZES[kind]
        else:
            raise ValueError(f"wire type {kind}")
        if at + size > end:
            raise ValueError("the message ends within a field")
        yield number, data[at : at + size]
        at += size


def number_bytes(value: int) -> bytes:
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def block(number: int, data: bytes) -> bytes:
    """A field that has a length."""
    return number_bytes(number << 3 | LEN) + number_bytes(len(data)) + data


def scan_key(message: bytes) -> str:
    """The text of field 1."""
    key = b""
    for number, value in fields(message):
        if number == 1 and isinstance(value, bytes):
            key = value
    return key.decode()


def write_command(key: bytes, command_id: int, name: str, type_url: str, payload: bytes) -> bytes:
    """EventSourcedStreamIn{command}."""
    packed = block(1, type_url.encode()) + block(2, payload)
    command = block(1, key) + b"\x10" + number_bytes(command_id) + block(3, name.encode()) + block(4, packed)
    return block(3, command)


def scan_reply(message: bytes) -> tuple[int, str, bytes, list[bytes]]:
    """Of EventSourcedStreamOut{reply}: the command's id, the payload's type and value, and the events."""
    command_id, type_url, payload, events = 0, b"", b"", []
    for number, value in fields(_only(message, 1)):
        if number == 1 and isinstance(value, int):
            command_id = value
        elif number == 2 and isinstance(value, bytes):
            packed = dict(fields(_only(_only(value, 1), 1)))
            type_url, payload = _bytes(packed[1]), _bytes(packed[2])
        elif number == 4:
            events.append(_bytes(value))
    return command_id, type_url.decode(), payload, events


def _only(message: bytes, number: int) -> bytes:
    return _bytes(dict(fields(message))[number])


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number in place of bytes")
    return value
