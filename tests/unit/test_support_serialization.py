"""Values in google.protobuf.Any: the table of the conventions byte by byte, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from google.protobuf import any_pb2, descriptor_pool, wrappers_pb2

from stateside._speedups.wire import scan_any, write_any
from stateside.support import SerializationError, json_type
from stateside.support.serialization import AnyCodec, decode_primitive, encode_primitive
from tests.protos.tck.eventsourced_pb2 import Persisted, Request

POOL = descriptor_pool.Default()


@json_type("greeting")
@dataclass(frozen=True)
class Greeting:
    message: str


@json_type("order")
@dataclass
class Order:
    lines: list[Greeting] = field(default_factory=list)
    prices: dict[str, float] = field(default_factory=dict)
    note: str | None = None
    parent: Greeting | None = None


@json_type("temperature")
class Temperature:
    def __init__(self, celsius: float) -> None:
        self.celsius = celsius

    def to_json(self) -> float:
        return self.celsius

    @classmethod
    def from_json(cls, value: float) -> Temperature:
        return cls(value)


@pytest.mark.parametrize(
    ("kind", "value", "data"),
    [
        ("string", "foo", "0a 03 66 6f 6f"),
        ("bytes", b"foo", "0a 03 66 6f 6f"),
        ("int32", 10, "08 0a"),
        ("int32", -1, "08 ff ff ff ff ff ff ff ff ff 01"),
        ("int64", -1, "08 ff ff ff ff ff ff ff ff ff 01"),
        ("int64", 2789, "08 e5 15"),
        ("float", 0.5, "0d 00 00 00 3f"),
        ("double", 0.5, "09 00 00 00 00 00 00 e0 3f"),
        ("bool", True, "08 01"),
        ("string", "", ""),
        ("bytes", b"", ""),
        ("int32", 0, ""),
        ("int64", 0, ""),
        ("float", 0.0, ""),
        ("double", 0.0, ""),
        ("bool", False, ""),
        ("double", -0.0, "09 00 00 00 00 00 00 00 80"),
        ("int64", 2**63 - 1, "08 ff ff ff ff ff ff ff ff 7f"),
        ("int64", -(2**63), "08 80 80 80 80 80 80 80 80 80 01"),
        ("string", "x" * 200, "0a c8 01" + " 78" * 200),
    ],
)
def test_primitives_have_exactly_these_bytes_and_come_back(kind: str, value: object, data: str) -> None:
    encoded = encode_primitive(kind, value)
    assert encoded == bytes.fromhex(data)
    decoded = decode_primitive(kind, encoded)
    assert (decoded, type(decoded), str(decoded)) == (value, type(value), str(value))


@pytest.mark.parametrize(
    ("value", "type_url"),
    [
        ("foo", "p.cloudstate.io/string"),
        (b"foo", "p.cloudstate.io/bytes"),
        (True, "p.cloudstate.io/bool"),
        (7, "p.cloudstate.io/int64"),
        (0.5, "p.cloudstate.io/double"),
        (Persisted(value="x"), "type.googleapis.com/cloudstate.tck.model.Persisted"),
        (Greeting("hi"), "json.cloudstate.io/greeting"),
        ({"type": "free", "b": 1, "a": [None]}, "json.cloudstate.io/free"),
    ],
)
def test_the_python_type_decides_the_type_url(value: object, type_url: str) -> None:
    codec = AnyCodec(POOL, [Greeting])
    encoded = codec.encode(value)
    assert scan_any(encoded)[0] == type_url
    assert codec.decode(encoded) == value


def test_json_is_canonical_inside_field_1() -> None:
    codec = AnyCodec(POOL)
    assert scan_any(codec.encode(Greeting("hi")))[1] == bytes.fromhex(
        "0a 10 7b 22 6d 65 73 73 61 67 65 22 3a 22 68 69 22 7d"
    )
    assert scan_any(codec.encode({"type": "t", "b": "ü", "a": 1}))[1][2:] == '{"a":1,"b":"ü","type":"t"}'.encode()


def test_nested_dataclasses_come_back_as_dataclasses() -> None:
    codec = AnyCodec(POOL, [Order])
    order = Order([Greeting("a"), Greeting("b")], {"x": 1}, None, Greeting("p"))
    assert codec.decode(codec.encode(order)) == order


def test_a_class_may_bring_its_own_json() -> None:
    codec = AnyCodec(POOL, [Temperature])
    assert codec.decode(codec.encode(Temperature(21.5))).celsius == 21.5


def test_json_of_an_undeclared_type_is_plain_data() -> None:
    codec = AnyCodec(POOL)
    assert codec.decode(codec.encode(Greeting("hi"))) == {"message": "hi"}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"message":1}', "expected str, JSON has int"),
        ('{"massage":"x"}', "massage"),
        ("{}", "message"),
        ("{", "Malformed JSON"),
        ("[]", "expected dict"),
    ],
)
def test_json_that_does_not_fit_its_class_is_refused(text: str, complaint: str) -> None:
    data = write_any("json.cloudstate.io/greeting", encode_primitive("bytes", text.encode()))
    with pytest.raises(SerializationError, match=complaint):
        AnyCodec(POOL, [Greeting]).decode(data)


def test_other_fields_are_skipped_and_the_first_field_1_counts() -> None:
    other = "10 05 1d 00 00 00 00 21 00 00 00 00 00 00 00 00 2a 01 61 "
    assert decode_primitive("string", bytes.fromhex(other + "0a 01 78 0a 01 79")) == "x"
    assert decode_primitive("string", bytes.fromhex(other)) == ""


def test_explicit_defaults_of_other_libraries_are_read() -> None:
    assert decode_primitive("string", bytes.fromhex("0a 00")) == ""
    assert decode_primitive("int64", bytes.fromhex("08 00")) == 0


def test_an_int32_is_read_from_its_low_32_bits() -> None:
    assert decode_primitive("int32", bytes.fromhex("08 ff ff ff ff 0f")) == -1


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("string", "0a 05 61"),
        ("string", "0a 01 ff"),
        ("int64", "08 ff"),
        ("int64", "0a 00"),
        ("double", "09 00"),
        ("bool", "0b"),
    ],
)
def test_malformed_primitives_are_refused(kind: str, data: str) -> None:
    with pytest.raises(SerializationError, match=r"Malformed primitive"):
        decode_primitive(kind, bytes.fromhex(data))


@pytest.mark.parametrize(
    ("kind", "value"), [("int64", 2**63), ("int32", 2**31), ("float", 1e300), ("string", "\ud800")]
)
def test_a_value_that_does_not_fit_is_refused(kind: str, value: object) -> None:
    with pytest.raises(SerializationError, match=f"does not fit {kind}"):
        encode_primitive(kind, value)


def test_an_unknown_primitive_is_refused() -> None:
    with pytest.raises(SerializationError, match="Unknown primitive type 'sint32'; known are string, bytes"):
        AnyCodec(POOL).decode(write_any("p.cloudstate.io/sint32", b""))


@pytest.mark.parametrize("type_url", ["type.googleapis.com/", "example.com/", ""])
def test_messages_are_found_by_name_whatever_the_host(type_url: str) -> None:
    stored = write_any(type_url + "cloudstate.tck.model.Persisted", Persisted(value="x").SerializeToString())
    assert AnyCodec(POOL).decode(stored) == Persisted(value="x")


def test_the_host_of_message_type_urls_can_be_chosen() -> None:
    codec = AnyCodec(POOL, prefix="types.example.com/")
    assert scan_any(codec.encode(Persisted()))[0] == "types.example.com/cloudstate.tck.model.Persisted"


def test_unknown_and_malformed_messages_are_refused() -> None:
    with pytest.raises(SerializationError, match=r"Unknown message type no\.such\.Type"):
        AnyCodec(POOL).decode(write_any("type.googleapis.com/no.such.Type", b""))
    with pytest.raises(SerializationError, match=r"Malformed cloudstate\.tck\.model\.Request"):
        AnyCodec(POOL, [Request]).decode(write_any("type.googleapis.com/cloudstate.tck.model.Request", b"\xff"))
    with pytest.raises(SerializationError, match=r"Malformed google\.protobuf\.Any"):
        AnyCodec(POOL).decode(b"\xff")


def test_a_packed_any_passes_untouched() -> None:
    packed = any_pb2.Any(type_url="anything", value=b"at all")
    assert scan_any(AnyCodec(POOL).encode(packed)) == ("anything", b"at all")


@pytest.mark.parametrize("value", [object(), [1], None, (1,), {"no": "type"}, {"type": 1}])
def test_what_cannot_be_stored_is_named(value: object) -> None:
    with pytest.raises(SerializationError, match="Cannot store a"):
        AnyCodec(POOL).encode(value)


@pytest.mark.parametrize(
    "value", [{"type": "t", "x": float("nan")}, {"type": "t", "x": object()}, {"type": "t", "x": "\ud800"}]
)
def test_what_is_not_json_is_refused(value: object) -> None:
    with pytest.raises(SerializationError, match="Cannot write dict as JSON"):
        AnyCodec(POOL).encode(value)


def test_primitives_and_json_can_be_forbidden() -> None:
    codec = AnyCodec(POOL, primitives=False, json=False)
    with pytest.raises(SerializationError, match="allow_primitives is False"):
        codec.encode("text")
    with pytest.raises(SerializationError, match="allow_primitives is False"):
        codec.decode(write_any("p.cloudstate.io/string", b""))
    with pytest.raises(SerializationError, match="allow_json is False"):
        codec.encode(Greeting("hi"))
    with pytest.raises(SerializationError, match="allow_json is False"):
        codec.decode(write_any("json.cloudstate.io/x", b""))
    assert codec.decode(codec.encode(wrappers_pb2.StringValue(value="x"))).value == "x"


def test_json_type_needs_a_name_and_a_class_that_can_be_written() -> None:
    with pytest.raises(TypeError, match="type name"):
        json_type("")
    with pytest.raises(TypeError, match="neither a dataclass nor has to_json"):
        json_type("x")(type("Plain", (), {}))
