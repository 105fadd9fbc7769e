"""Plans print and read exactly what protobuf's json_format does, whatever the type and the value."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from google.protobuf import (
    any_pb2,
    descriptor_pb2,
    duration_pb2,
    field_mask_pb2,
    json_format,
    struct_pb2,
    timestamp_pb2,
    wrappers_pb2,
)
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stateside.proxy.json_plan import Plan, Plans, by_json_format

KINDS = ["double", "float", "int64", "uint64", "int32", "fixed64", "fixed32", "bool", "string", "bytes", "uint32"]
KINDS += ["sfixed32", "sfixed64", "sint32", "sint64"]
MESSAGES = {
    "self": ".all.M",
    "other": ".all.N",
    "when": ".google.protobuf.Timestamp",
    "long": ".google.protobuf.Duration",
    "mask": ".google.protobuf.FieldMask",
    "wrapped": ".google.protobuf.Int64Value",
    "text": ".google.protobuf.StringValue",
    "any": ".google.protobuf.Any",
    "struct": ".google.protobuf.Struct",
    "value": ".google.protobuf.Value",
}
IMPORTS = (any_pb2, duration_pb2, field_mask_pb2, struct_pb2, timestamp_pb2, wrappers_pb2)


def build(syntax: str) -> Plan:
    """Message M with a field of each kind: alone, repeated, optional, in a oneof and in a map."""
    file = FileDescriptorProto(name="all.proto", package="all", syntax=syntax)
    file.dependency.extend(each.DESCRIPTOR.name for each in IMPORTS)
    color = file.enum_type.add(name="Color")
    for number, name in enumerate(("RED", "GREEN", "BLUE")):
        color.value.add(name=name, number=number)
    file.message_type.add(name="N").field.add(name="under_scored", number=1, type=Field.TYPE_STRING, label=1)
    message = file.message_type.add(name="M")
    message.oneof_decl.add(name="one")
    for kind in KINDS:
        sort = getattr(Field, f"TYPE_{kind.upper()}")
        add_each(message, kind, {"type": sort}, syntax)
    add_each(message, "color", {"type": Field.TYPE_ENUM, "type_name": ".all.Color"}, syntax)
    add_each(message, "nothing", {"type": Field.TYPE_ENUM, "type_name": ".google.protobuf.NullValue"}, syntax)
    for name, type_name in MESSAGES.items():
        add_each(message, name, {"type": Field.TYPE_MESSAGE, "type_name": type_name}, syntax)
    pool = DescriptorPool()
    for each in (*IMPORTS, descriptor_pb2):
        pool.AddSerializedFile(each.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return Plans().of(pool.FindMessageTypeByName("all.M"))


def add_each(message: Any, name: str, sort: dict[str, Any], syntax: str) -> None:
    number = len(message.field) + 1
    message.field.add(name=f"a_{name}", number=number, label=Field.LABEL_OPTIONAL, **sort)
    message.field.add(name=f"many_{name}", number=number + 1, label=Field.LABEL_REPEATED, **sort)
    message.field.add(name=f"one_{name}", number=number + 2, label=Field.LABEL_OPTIONAL, oneof_index=0, **sort)
    key = {"type": Field.TYPE_BOOL if len(name) % 3 == 0 else Field.TYPE_INT64 if len(name) % 3 else Field.TYPE_STRING}
    if name == "nothing" or (syntax == "proto2" and name == "self"):
        return
    entry = message.nested_type.add(name=f"Map{name.capitalize()}Entry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, label=Field.LABEL_OPTIONAL, **key)
    entry.field.add(name="value", number=2, label=Field.LABEL_OPTIONAL, **sort)
    message.field.add(
        name=f"map_{name}", number=number + 3, label=3, type=Field.TYPE_MESSAGE, type_name=f".all.M.{entry.name}"
    )


PLANS = {syntax: build(syntax) for syntax in ("proto3", "proto2")}
NUMBERS = [0, 1, -1, 7, 2**31 - 1, -(2**31), 2**32 - 1, 2**53 + 1, 2**63 - 1, -(2**63), 2**64 - 1]
FLOATS = [0.0, -0.0, 0.1, 1.5, 3.4028234663852886e38, 1e-45, 1e308, math.inf, -math.inf, math.nan, 16777217.0]


def scalars(field: Any) -> st.SearchStrategy[Any]:
    if field.enum_type is not None:
        return st.sampled_from([0] if field.enum_type.name == "NullValue" else [0, 1, 2, 2, 9])
    if field.type == Field.TYPE_STRING:
        return st.sampled_from(["", "a", 'é\n"\\', "\u2028", "\x00"]) | st.text(max_size=5)
    if field.type == Field.TYPE_BYTES:
        return st.binary(max_size=5)
    if field.type == Field.TYPE_BOOL:
        return st.booleans()
    return st.sampled_from(FLOATS if field.type in (Field.TYPE_DOUBLE, Field.TYPE_FLOAT) else NUMBERS)


def put(message: Any, field: Any, draw: Any) -> None:
    """Set something in a field, or nothing where the value is not for it."""
    try:
        if field.message_type is None:
            value = draw(scalars(field))
            if field.is_repeated:
                getattr(message, field.name).append(value)
            else:
                setattr(message, field.name, value)
        elif field.message_type.GetOptions().map_entry:
            entries = getattr(message, field.name)
            key, value = field.message_type.fields
            if value.message_type is not None:
                fill(entries[draw(scalars(key))], draw)
            else:
                entries[draw(scalars(key))] = draw(scalars(value))
        else:
            inner = getattr(message, field.name)
            target = inner.add() if field.is_repeated else inner
            target.SetInParent()
            fill(target, draw)
    except (ValueError, TypeError):
        return


def fill(message: Any, draw: Any) -> None:
    for field in draw(st.lists(st.sampled_from(list(message.DESCRIPTOR.fields)), max_size=4)):
        put(message, field, draw)


@st.composite
def messages(draw: Any, syntax: str) -> Any:
    message = PLANS[syntax].new()
    fill(message, draw)
    return message


def outcome(function: Any, *given: Any) -> Any:
    try:
        return json.dumps(function(*given))
    except (ValueError, TypeError, DecodeError, RecursionError, json_format.Error):
        return None


@pytest.mark.parametrize("syntax", list(PLANS))
@settings(max_examples=50, deadline=None)
@given(st.data())
def test_what_is_printed_is_what_json_format_prints(syntax: str, data: Any) -> None:
    message = data.draw(messages(syntax))
    assert outcome(PLANS[syntax].print, message) == outcome(by_json_format, message)


@pytest.mark.parametrize("syntax", list(PLANS))
@settings(max_examples=50, deadline=None)
@given(st.data())
def test_what_is_read_is_what_json_format_reads(syntax: str, data: Any) -> None:
    """Of what messages look like as JSON, which is then changed in one place."""
    plan = PLANS[syntax]
    text = outcome(by_json_format, data.draw(messages(syntax)))
    if text is None:
        return
    value = json.loads(text)
    for _ in range(data.draw(st.integers(0, 2))):
        change(value, data.draw)
    read_alike(plan, value)


def change(value: Any, draw: Any) -> None:
    fields = PLANS["proto3"].new.DESCRIPTOR.fields
    names = [field.json_name for field in fields] + [field.name for field in fields] + ["nope"]
    value[draw(st.sampled_from(names))] = draw(
        st.sampled_from(
            ["", "x", "7", "-7", "٣", "1e3", " 7", "GREEN", "NaN", "AA==", "9" * 30, None, True, [], {}, [None], [1, 2]]
            + [["a"], [[]], [{}], {"key": 1}, {"underScored": "x"}, {"aInt32": 1}, 7, 7.0, 7.5, -1, 2**32, 2**64, 1e39]
            + [1e308, math.inf, {"aSelf": {"aSelf": {}}}, {"oneInt32": 1, "oneBool": True}, "1970-01-01T00:00:01Z"]
        )
    )


def read_alike(plan: Plan, value: Any) -> None:
    ours, theirs = plan.new(), plan.new()
    if not plan.read(ours, value):
        assert ours == plan.new()
        return
    json_format.ParseDict(value, theirs, descriptor_pool=plan.new.DESCRIPTOR.file.pool, max_recursion_depth=100)
    assert ours.SerializeToString(deterministic=True) == theirs.SerializeToString(deterministic=True)


@pytest.mark.parametrize(
    "value",
    [
        {"aInt32": 7, "a_string": "x", "manyInt64": ["7", -7], "aColor": "BLUE", "aBool": True, "aDouble": 0.5},
        {"aSelf": {"aSelf": {"manyOther": [{"underScored": "x"}, {}]}}, "oneInt32": 7},
        {},
        {"manySelf": [], "aString": ""},
        {"aInt32": 1, "a_int32": 2, "manyInt32": [1], "many_int32": [2]},
    ],
)
def test_ordinary_json_is_read_by_the_plan(value: Any) -> None:
    assert PLANS["proto3"].read(PLANS["proto3"].new(), value)
    read_alike(PLANS["proto3"], value)


@given(st.integers(95, 105))
@example(100)
def test_a_message_that_is_too_deep_is_left_to_json_format(depth: int) -> None:
    value: Any = {}
    for _ in range(depth - 1):
        value = {"aSelf": value}
    read_alike(PLANS["proto3"], value)
    assert PLANS["proto3"].read(PLANS["proto3"].new(), value) == (depth <= 100)
