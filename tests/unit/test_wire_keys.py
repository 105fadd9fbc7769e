"""Entity keys: the text that the reference proxy makes of the key fields of a command message (spec core 3)."""

import math
import struct
from typing import Any as Untyped

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stateside._speedups import wire
from stateside._speedups.java_numbers import double_text, float_text
from tests.fuzz import fuzz_wire
from tests.unit.wire_strategies import wire_messages
from tests.wire_oracle import KEY_TYPES, key_message, key_scanner

Keys = key_message()

TEXTS: list[tuple[str, Untyped, str]] = [
    ("string", "", ""),
    ("string", "user-1", "user-1"),
    ("string", "schön 🛒", "schön 🛒"),
    ("bool", False, "false"),
    ("bool", True, "true"),
    ("int32", -(2**31), "-2147483648"),
    ("int64", -(2**63), "-9223372036854775808"),
    ("sint32", -(2**31), "-2147483648"),
    ("sint64", 2**63 - 1, "9223372036854775807"),
    ("sfixed32", -5, "-5"),
    ("sfixed64", -5, "-5"),
    ("uint32", 2**31 - 1, "2147483647"),
    ("uint32", 2**32 - 1, "-1"),
    ("fixed32", 2**31, "-2147483648"),
    ("uint64", 2**64 - 1, "-1"),
    ("fixed64", 2**63, "-9223372036854775808"),
    ("float", 0.0, "0.0"),
    ("float", 0.1, "0.1"),
    ("float", 16777216.0, "1.6777216E7"),
    ("double", 1e10, "1.0E10"),
    ("double", -0.0, "-0.0"),
    ("enum", 1, "GREEN"),
    ("enum", -7, "BLUE"),
    ("enum", 5, "UNKNOWN_ENUM_VALUE_Colour_5"),
]


@pytest.mark.parametrize("type_name, value, text", TEXTS)
def test_text_of_one_key(type_name: str, value: Untyped, text: str) -> None:
    message = Keys(**{f"a_{type_name}": value}).SerializeToString()
    assert key_scanner(type_name).scan(message) == text


def test_unset_keys_have_the_default_of_their_type() -> None:
    expected = "-false-0-0-0-0-0-0-0-0-0-0-0.0-0.0-RED"
    assert key_scanner(*KEY_TYPES).scan(b"") == expected


def test_several_keys_are_joined_in_order_of_declaration_not_of_number() -> None:
    message = Keys(a_string="a", a_int32=2, a_bool=True).SerializeToString()
    assert key_scanner("int32", "string", "bool").scan(message) == "2-a-true"


@settings(max_examples=80, deadline=None)
@given(wire_messages(Keys.DESCRIPTOR))
def test_any_serialization_has_the_key_that_the_runtime_reads(data: bytes) -> None:
    assert fuzz_wire.keys(data)
    for size in range(len(data)):
        fuzz_wire.keys(data[:size])


def test_a_field_with_another_wire_type_is_not_the_key() -> None:
    assert key_scanner("string").scan(b"\x08\x05") == ""
    assert key_scanner("int32").scan(b"\x1a\x01a") == "0"


@pytest.mark.parametrize("message", [b"\x12", b"\x0a\x01a\x12\x05x", b"\x0a\x01a\x13", b"\x0a\x01a\x00\x00"])
def test_a_message_that_is_malformed_beside_its_key_is_refused(message: bytes) -> None:
    with pytest.raises(wire.WireError, match=r"command message: .* at offset"):
        wire.KeyScanner([(1, "string")]).scan(message)


def test_a_key_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(wire.WireError, match="entity key: invalid UTF-8 at offset 3"):
        wire.KeyScanner([(1, "string")]).scan(b"\x0a\x02a\xff")


def test_unknown_groups_are_walked_over() -> None:
    assert wire.KeyScanner([(1, "string")]).scan(b"\x13\x0a\x01x\x14\x0a\x01a") == "a"


def test_an_enum_without_its_own_name_still_has_a_text_for_unknown_numbers() -> None:
    assert wire.KeyScanner([(1, "enum")], {1: {0: "RED"}}).scan(b"\x08\x05") == "UNKNOWN_ENUM_VALUE_Enum_5"


@pytest.mark.parametrize("type_name", ["bytes", "message", "group", "repeated string", "repeated", ""])
def test_types_without_a_usable_text_are_refused(type_name: str) -> None:
    with pytest.raises(ValueError, match=r"field 3: type .* cannot be an entity key"):
        wire.KeyScanner([(3, type_name)])


@pytest.mark.parametrize(
    "fields, reason",
    [
        ([], "1 to 64 fields"),
        ([(number, "string") for number in range(1, 66)], "1 to 64 fields"),
        ([(0, "string")], "not a field number"),
        ([(2**29, "string")], "not a field number"),
        ([(1, "string"), (1, "int32")], "twice"),
        ([(1, "enum")], "names of the enum's values are missing"),
    ],
)
def test_impossible_keys_are_refused(fields: list[tuple[int, str]], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        wire.KeyScanner(fields)


# --- Java's floating-point texts -------------------------------------------------------------------------------------

DOUBLES = {
    1.0: "1.0",
    -1.5: "-1.5",
    100.0: "100.0",
    0.001: "0.001",
    0.0123: "0.0123",
    9999999.0: "9999999.0",
    9999999.999: "9999999.999",
    1e7: "1.0E7",
    12345678.9: "1.23456789E7",
    9.999e-4: "9.999E-4",
    2e-3: "0.002",
    2e23: "2.0E23",
    1e21: "1.0E21",
    math.pi: "3.141592653589793",
    5e-324: "4.9E-324",
    2.2250738585072014e-308: "2.2250738585072014E-308",
    1.7976931348623157e308: "1.7976931348623157E308",
    math.inf: "Infinity",
    -math.inf: "-Infinity",
}

# bits -> text
FLOATS = {
    0x00000001: "1.4E-45",
    0x00800000: "1.1754944E-38",
    0x7F7FFFFF: "3.4028235E38",
    0x3F800000: "1.0",
    0x3DCCCCCD: "0.1",
    0x3EAAAAAB: "0.33333334",
    0x4B189680: "1.0E7",
    0x4B18967F: "9999999.0",
    0x3A83126F: "0.001",
    0x3A83126E: "9.999999E-4",
    0x40490FDB: "3.1415927",
    0x7F800000: "Infinity",
    0xFF800000: "-Infinity",
    0x7FC00001: "NaN",
    0x80000000: "-0.0",
    0xC2F6E979: "-123.456",
}


@pytest.mark.parametrize("value, text", DOUBLES.items())
def test_double_as_java_prints_it(value: float, text: str) -> None:
    assert double_text(value) == text


@pytest.mark.parametrize("bits, text", FLOATS.items(), ids=FLOATS.values())
def test_float_as_java_prints_it(bits: int, text: str) -> None:
    assert float_text(struct.unpack("<f", struct.pack("<I", bits))[0]) == text


def test_not_a_number_as_java_prints_it() -> None:
    assert double_text(math.nan) == double_text(-math.nan) == "NaN"


@settings(deadline=None)
@given(st.floats(allow_nan=False))
def test_double_text_reads_back_as_the_same_number(value: float) -> None:
    assert float(double_text(value)) == value


@settings(deadline=None)
@given(st.floats(allow_nan=False, width=32))
def test_float_text_reads_back_as_the_same_number(value: float) -> None:
    assert struct.pack("<f", float(float_text(value))) == struct.pack("<f", value)
