"""Events and snapshots inside google.protobuf.Any, by the conventions of Cloudstate.

- protobuf messages: `type.googleapis.com/<full name>`, the message's bytes;
- primitives: `p.cloudstate.io/<protobuf type>`, a message with the value in field 1;
- JSON: `json.cloudstate.io/<type name>`, a message with UTF-8 JSON in field 1.

Bytes are stable: a default value is written as no bytes at all, JSON canonically, maps in order of their keys.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from stateside._speedups.wire import WireError, scan_any, write_any

from .errors import SerializationError
from .json_values import dump_json, json_name, load_json

MESSAGE_PREFIX = "type.googleapis.com"
PRIMITIVE_PREFIX = "p.cloudstate.io"
JSON_PREFIX = "json.cloudstate.io"

PRIMITIVES: dict[type, str] = {str: "string", bytes: "bytes", bool: "bool", int: "int64", float: "double"}
"""Protobuf type written for a Python type; all seven of `encode_primitive` are read."""

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_WIRE_TYPES = {
    "string": _LENGTH,
    "bytes": _LENGTH,
    "int32": _VARINT,
    "int64": _VARINT,
    "bool": _VARINT,
    "float": _FIXED32,
    "double": _FIXED64,
}


class AnyCodec:
    """Turns values into serialized Any and back, for one entity type.

    classes: the message and JSON classes its handlers name; other messages are found by name in `pool`.
    prefix: host part of the type URL of messages when writing; when reading any host is accepted.
    primitives, json: whether values of these kinds may be stored.
    """

    def __init__(
        self,
        pool: DescriptorPool,
        classes: Iterable[type] = (),
        *,
        prefix: str = MESSAGE_PREFIX,
        primitives: bool = True,
        json: bool = True,
    ) -> None:
        self._pool = pool
        self._prefix = prefix.rstrip("/")
        self._primitives = primitives
        self._json = json
        self._encoders: dict[type, Callable[[Any], bytes]] = {}
        self._messages: dict[str, type[Message]] = {}
        self._json_classes: dict[str, type] = {}
        for cls in classes:
            self._declare(cls)

    def encode(self, value: Any) -> bytes:
        """Serialized Any of a value. Raises SerializationError naming the type and what is allowed."""
        cls = type(value)
        encoder = self._encoders.get(cls)
        if encoder is None:
            encoder = self._encoders[cls] = self._make_encoder(cls)
        return encoder(value)

    def decode(self, data: bytes) -> Any:
        """The value of a serialized Any. Raises SerializationError."""
        try:
            type_url, value = scan_any(data)
        except WireError as error:
            raise SerializationError(f"Malformed google.protobuf.Any: {error}") from error
        host, slash, name = type_url.partition("/")
        if host == PRIMITIVE_PREFIX and slash:
            self._allow(self._primitives, type_url, "primitives")
            return decode_primitive(name, value)
        if host == JSON_PREFIX and slash:
            self._allow(self._json, type_url, "JSON")
            return load_json(self._json_classes.get(name), decode_primitive("bytes", value))
        return self._decode_message(name if slash else type_url, value)

    def _declare(self, cls: type) -> None:
        stored = json_name(cls)
        if stored is not None:
            self._json_classes[stored] = cls
        elif issubclass(cls, Message) and cls is not Message:
            self._messages[cls.DESCRIPTOR.full_name] = cls

    def _decode_message(self, name: str, value: bytes) -> Message:
        cls = self._messages.get(name)
        if cls is None:
            cls = self._messages[name] = self._find_message(name)
        try:
            return cls.FromString(value)
        except DecodeError as error:
            raise SerializationError(f"Malformed {name}: {error}") from error

    def _find_message(self, name: str) -> type[Message]:
        try:
            return GetMessageClass(self._pool.FindMessageTypeByName(name))
        except KeyError:
            raise SerializationError(f"Unknown message type {name}: no module that declares it is imported") from None

    def _make_encoder(self, cls: type) -> Callable[[Any], bytes]:
        if issubclass(cls, Message):
            return self._message_encoder(cls)
        if cls in PRIMITIVES:
            self._allow(self._primitives, cls.__name__, "primitives")
            kind = PRIMITIVES[cls]
            type_url = f"{PRIMITIVE_PREFIX}/{kind}"
            return lambda value: write_any(type_url, encode_primitive(kind, value))
        stored = json_name(cls)
        if stored is not None or cls is dict:
            self._allow(self._json, cls.__name__, "JSON")
            return lambda value: write_any(
                f"{JSON_PREFIX}/{stored or _type_member(value)}", encode_primitive("bytes", dump_json(value))
            )
        raise SerializationError(
            f"Cannot store a {cls.__qualname__}: allowed are protobuf messages, str, bytes, bool, int, float, "
            "classes declared by @json_type and dicts with a 'type'"
        )

    def _message_encoder(self, cls: type[Message]) -> Callable[[Any], bytes]:
        if cls.DESCRIPTOR.full_name == "google.protobuf.Any":
            return lambda packed: bytes(packed.SerializeToString(deterministic=True))
        type_url = f"{self._prefix}/{cls.DESCRIPTOR.full_name}"
        return lambda message: write_any(type_url, message.SerializeToString(deterministic=True))

    @staticmethod
    def _allow(allowed: bool, what: str, kind: str) -> None:
        if not allowed:
            raise SerializationError(f"{what}: this entity does not store {kind} (allow_{kind.lower()} is False)")


def _type_member(value: dict[str, Any]) -> str:
    """JSON type name of a plain dict: its member `type`."""
    name = value.get("type")
    if not isinstance(name, str) or not name:
        raise SerializationError("Cannot store a dict without a 'type' member (str): it gives the JSON type name")
    return name


def encode_primitive(kind: str, value: Any) -> bytes:
    """`value` as field 1 of protobuf type `kind`; no bytes at all for the type's default value."""
    if kind not in _WIRE_TYPES:
        raise SerializationError(f"Unknown primitive type {kind!r}; known are {', '.join(_WIRE_TYPES)}")
    if not value and not (isinstance(value, float) and math.copysign(1, value) < 0):
        return b""
    try:
        return bytes([0x08 | _WIRE_TYPES[kind]]) + _encode_field(kind, value)
    except (struct.error, OverflowError, UnicodeEncodeError) as error:
        raise SerializationError(f"{value!r} does not fit {kind}: {error}") from error


def _encode_field(kind: str, value: Any) -> bytes:
    if kind == "float":
        return struct.pack("<f", value)
    if kind == "double":
        return struct.pack("<d", value)
    if kind in ("string", "bytes"):
        data: bytes = value.encode() if kind == "string" else value
        return _varint(len(data)) + data
    bits = 31 if kind == "int32" else 63
    if not -(1 << bits) <= value < 1 << bits:
        raise OverflowError(f"allowed are {-(1 << bits)} to {(1 << bits) - 1}")
    return _varint(value & 0xFFFF_FFFF_FFFF_FFFF)


def decode_primitive(kind: str, data: bytes) -> Any:
    """Field 1 of `data` as protobuf type `kind`: the first one found, other fields skipped, the default if there is
    none.
    """
    if kind not in _WIRE_TYPES:
        raise SerializationError(f"Unknown primitive type {kind!r}; known are {', '.join(_WIRE_TYPES)}")
    for number, wire_type, raw in _fields(data):
        if number != 1:
            continue
        if wire_type != _WIRE_TYPES[kind]:
            raise SerializationError(f"Malformed primitive {kind}: field 1 has wire type {wire_type}")
        return _decode_field(kind, raw)
    return {"string": "", "bytes": b"", "float": 0.0, "double": 0.0, "bool": False}.get(kind, 0)


def _decode_field(kind: str, raw: Any) -> Any:
    if kind == "bytes":
        return raw
    if kind == "string":
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise SerializationError(f"Malformed primitive string: {error}") from error
    if kind in ("float", "double"):
        return struct.unpack("<f" if kind == "float" else "<d", raw)[0]
    if kind == "bool":
        return raw != 0
    bits = 32 if kind == "int32" else 64
    raw &= (1 << bits) - 1
    return raw - (1 << bits) if raw >> (bits - 1) else raw


def _fields(data: bytes) -> Iterator[tuple[int, int, Any]]:
    """(number, wire type, integer or bytes) of each field."""
    position = 0
    while position < len(data):
        tag, position = _read_varint(data, position)
        wire_type = tag & 7
        raw: int | bytes | None = None
        if wire_type == _VARINT:
            raw, position = _read_varint(data, position)
        elif wire_type in (_FIXED64, _FIXED32, _LENGTH):
            size = {_FIXED64: 8, _FIXED32: 4}.get(wire_type, 0)
            if wire_type == _LENGTH:
                size, position = _read_varint(data, position)
            raw, position = data[position : position + size], position + size
        if raw is None or tag >> 3 == 0 or position > len(data):
            raise SerializationError(
                f"Malformed primitive: field {tag >> 3} of wire type {wire_type} ends at {position}"
            )
        yield tag >> 3, wire_type, raw


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            break
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, position
    raise SerializationError(f"Malformed primitive: varint without end at {position}")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
