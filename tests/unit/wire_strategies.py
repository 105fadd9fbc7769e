"""Hypothesis strategies for serialized messages as no well-behaved writer would make them, yet which are valid.

Fields come in any order and any number of times, among unknown ones, with tags, lengths and varints padded with
needless bytes.
"""

from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from hypothesis import strategies as st

VARINT, I64, LEN, I32 = 0, 1, 2, 5
SHORT, LONG = 5, 10  # most bytes of tags and lengths, of values

WIRE_TYPES = {
    FieldDescriptor.TYPE_DOUBLE: I64,
    FieldDescriptor.TYPE_FIXED64: I64,
    FieldDescriptor.TYPE_SFIXED64: I64,
    FieldDescriptor.TYPE_FLOAT: I32,
    FieldDescriptor.TYPE_FIXED32: I32,
    FieldDescriptor.TYPE_SFIXED32: I32,
    FieldDescriptor.TYPE_STRING: LEN,
    FieldDescriptor.TYPE_BYTES: LEN,
    FieldDescriptor.TYPE_MESSAGE: LEN,
}

int64s = st.integers(-(2**63), 2**63 - 1)
command_ids = st.one_of(st.integers(0, 300), int64s)
texts = st.text(max_size=20)
payloads = st.binary(max_size=300)


def varint(value: int, padding: int, longest: int) -> bytes:
    """`value` as varint with up to `padding` needless bytes, `longest` in all."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    padding = min(padding, longest - len(out) - 1)
    return bytes(out) + (bytes([value | 0x80]) + b"\x80" * (padding - 1) + b"\x00" if padding else bytes([value]))


@st.composite
def wire_messages(draw: st.DrawFn, descriptor: Any, depth: int = 5) -> bytes:
    """Any serialization of any message of a type."""
    fields = list(descriptor.fields)
    records = []
    for _ in range(draw(st.integers(0, 2 + depth // 2))):
        field: Any = draw(st.sampled_from([None, *fields, *fields, *fields]))
        records.append(draw(known_field(field, depth) if field else unknown_field(descriptor)))
    return b"".join(records)


@st.composite
def known_field(draw: st.DrawFn, field: Any, depth: int) -> bytes:
    wire_type = WIRE_TYPES.get(field.type, VARINT)
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        content = draw(wire_messages(field.message_type, depth - 1)) if depth else b""
    elif field.type == FieldDescriptor.TYPE_STRING:
        content = draw(texts).encode()
    else:
        content = draw(st.binary(max_size=12))
    return draw(record(field.number, wire_type, content))


@st.composite
def unknown_field(draw: st.DrawFn, descriptor: Any) -> bytes:
    """A number that the type does not know, or one that it knows with another wire type."""
    number = draw(st.one_of(st.integers(1, 20), st.integers(1, 2**29 - 1)))
    wire_type = draw(st.sampled_from([VARINT, I64, LEN, I32]))
    known = descriptor.fields_by_number.get(number)
    if known is not None and WIRE_TYPES.get(known.type, VARINT) == wire_type:
        number += 1000
    return draw(record(number, wire_type, draw(st.binary(max_size=12))))


@st.composite
def record(draw: st.DrawFn, number: int, wire_type: int, content: bytes) -> bytes:
    padding = st.sampled_from([0, 0, 0, 1, 9])
    tag = varint(number << 3 | wire_type, draw(padding), SHORT)
    if wire_type == VARINT:
        value = draw(st.one_of(st.integers(0, 300), st.integers(0, 2**64 - 1)))
        return tag + varint(value, draw(padding), LONG)
    if wire_type == LEN:
        return tag + varint(len(content), draw(padding), SHORT) + content
    size = 8 if wire_type == I64 else 4
    return tag + draw(st.binary(min_size=size, max_size=size))


def serialized(message_class: Any) -> st.SearchStrategy[bytes]:
    """Well-formed serializations, as sub-message arguments of the writers."""
    return wire_messages(message_class.DESCRIPTOR, 2).map(
        lambda data: message_class.FromString(data).SerializeToString()
    )
