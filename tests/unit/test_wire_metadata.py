"""Metadata and HTTP/2 headers: what of each the other side sees, and in which form (spec core 8)."""

import base64
from typing import Any as Untyped

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stateside._speedups import wire
from stateside.proto import cloudstate
from tests import wire_oracle as oracle
from tests.fuzz import fuzz_wire
from tests.unit.wire_strategies import wire_messages

Metadata, Entry = cloudstate.Metadata, cloudstate.MetadataEntry
many = settings(max_examples=200, deadline=None)

names = st.one_of(
    st.sampled_from(sorted(name.encode() for name in oracle.NOT_IN_RESPONSES)),
    st.sampled_from([b":path", b"x-id", b"user-agent", b"X-Upper", b"x-bin", b"trace-Bin", b"-bin", b"bin", b""]),
    st.binary(max_size=24),
)
base64_texts = st.text("AZaz09+/=, -", max_size=16).map(str.encode)
values = st.one_of(base64_texts, st.binary(max_size=24), st.text(max_size=12).map(str.encode))


# --- of request headers ----------------------------------------------------------------------------------------------


@many
@given(st.lists(st.tuples(names, values), max_size=6), st.sampled_from([list, tuple]))
def test_metadata_of_any_headers(headers: oracle.Headers, container: Untyped) -> None:
    written, expected = wire.metadata_of_headers(container(headers)), oracle.expected_metadata(headers)
    assert (written or b"") == expected.SerializeToString()
    assert (written is None) == (not expected.entries)


@many
@given(st.lists(st.binary(max_size=40), min_size=1, max_size=3), st.booleans(), st.sampled_from([b",", b", ", b" ,"]))
def test_binary_values_are_decoded_padded_or_not(binaries: list[bytes], padded: bool, comma: bytes) -> None:
    encoded = [base64.b64encode(binary) for binary in binaries]
    value = comma.join(part if padded else part.rstrip(b"=") for part in encoded)
    assert entries((b"trace-bin", value)) == [("trace-bin", binary) for binary in binaries]


def entries(*headers: tuple[bytes, bytes]) -> list[tuple[str, str | bytes]]:
    data = wire.metadata_of_headers(headers)
    assert data is not None
    found = Metadata.FromString(data).entries
    return [(entry.key, getattr(entry, entry.WhichOneof("value"))) for entry in found]


def test_headers_keep_their_order_and_their_duplicates() -> None:
    headers = [(b"b", b"1"), (b"a", b"2"), (b"b", b"1"), (b"user-agent", b"curl")]
    assert entries(*headers) == [("b", "1"), ("a", "2"), ("b", "1"), ("user-agent", "curl")]


@pytest.mark.parametrize("name", [*sorted(oracle.NOT_METADATA), ":path", ":", "TE", "Content-Type"])
def test_what_speaks_to_the_transport_is_left_out(name: str) -> None:
    assert wire.metadata_of_headers([(name.encode(), b"x")]) is None
    assert entries((b"a", b"1"), (name.encode(), b"x"), (b"b", b"")) == [("a", "1"), ("b", "")]


def test_no_headers_are_no_metadata() -> None:
    assert wire.metadata_of_headers([]) is None


@pytest.mark.parametrize("value", [b"Y", b"YQ=", b"Y===", b"YQ==YQ==", b"Y-Q_", b"Y Q", b"YWJj,Y", b"\xff", b"=="])
def test_a_binary_value_that_is_no_base64_stays_one_string(value: bytes) -> None:
    assert entries((b"x-bin", value)) == [("x-bin", value.decode("latin-1"))]


def test_an_empty_binary_value_is_an_empty_binary_value() -> None:
    assert entries((b"x-bin", b""), (b"x-bin", b"YQ,,YQ")) == [("x-bin", value) for value in [b"", b"a", b"", b"a"]]


@pytest.mark.parametrize(
    "raw, text",
    [
        (b"\xc3\xa9", "é"),
        ("🛒".encode(), "🛒"),
        (b"caf\xe9", "café"),
        (b"\xe9\xc3\xa9", "éÃ©"),
        (b"\xc0\x80", "À\x80"),
        (b"\xed\xa0\x80", "í\xa0\x80"),
        (b"\xf4\x90\x80\x80", "ô\x90\x80\x80"),
        (b"\xe2\x82", "â\x82"),
    ],
)
def test_text_is_utf8_and_otherwise_latin_1(raw: bytes, text: str) -> None:
    assert entries((b"name", raw), (b"x-" + raw, b"v")) == [("name", text), ("x-" + text, "v")]


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=8), st.lists(st.sampled_from(range(0x7E, 0x100)), max_size=6).map(bytes)))
def test_what_counts_as_utf8_is_what_python_decodes(raw: bytes) -> None:
    assert entries((b"name", raw)) == [("name", oracle.text(raw))]


def test_what_are_no_headers_is_refused() -> None:
    for wrong in [None, 7, [None], [b"name"], [(b"name",)], [("name", "value")], [(b"n", b"v", b"")], [[b"n", b"v"]]]:
        with pytest.raises(TypeError, match="headers must be a sequence of pairs of bytes"):
            wire.metadata_of_headers(wrong)  # type: ignore[arg-type]


# --- to response headers ---------------------------------------------------------------------------------------------


@many
@given(wire_messages(Metadata.DESCRIPTOR))
def test_any_serialization_of_metadata_is_read_as_the_runtime_parses_it(data: bytes) -> None:
    assert fuzz_wire.metadata(data)
    for size in range(len(data)):
        fuzz_wire.metadata(data[:size])


@st.composite
def plausible_entries(draw: st.DrawFn) -> Untyped:
    key = draw(names.map(lambda name: name.decode("latin-1")) | st.from_regex(r"[a-z-]{1,8}(-bin)?", fullmatch=True))
    if draw(st.booleans()):
        return Entry(key=key, bytes_value=draw(st.binary(max_size=20)))
    return Entry(key=key, string_value=draw(st.text("a \t\n\x7fé", max_size=5) | st.text(max_size=12)))


@many
@given(st.lists(plausible_entries(), max_size=5))
def test_headers_of_plausible_metadata(made: list[Untyped]) -> None:
    assert fuzz_wire.metadata(Metadata(entries=made).SerializeToString())


def headers(*made: Untyped) -> list[tuple[bytes, bytes]]:
    return wire.headers_of_metadata(Metadata(entries=made).SerializeToString())


def test_names_become_lower_case_and_order_and_duplicates_stay() -> None:
    made = [Entry(key="X-B", string_value="1"), Entry(key="a", string_value=""), Entry(key="x-b", string_value="1")]
    assert headers(*made) == [(b"x-b", b"1"), (b"a", b""), (b"x-b", b"1")]


def test_binary_values_are_base64_under_a_name_that_says_so() -> None:
    for key in ["trace", "trace-bin", "Trace-Bin"]:
        assert headers(Entry(key=key, bytes_value=b"\xfb\xff\xfe\x00")) == [(b"trace-bin", b"+//+AA")]
    assert headers(Entry(key="x", bytes_value=b"")) == [(b"x-bin", b"")]


def test_text_under_a_binary_name_is_taken_for_the_base64_that_it_should_be() -> None:
    assert headers(Entry(key="x-bin", string_value="YQ")) == [(b"x-bin", b"YQ")]


@pytest.mark.parametrize("key", [*sorted(oracle.NOT_IN_RESPONSES), ":status", "", "a b", "a:b", "é", "a\n", "Date"])
def test_names_that_are_reserved_or_forbidden_are_left_out(key: str) -> None:
    kept = Entry(key="kept", string_value="1")
    found = headers(kept, Entry(key=key, string_value="x"), Entry(key=key, bytes_value=b"x"), kept)
    assert found == [(b"kept", b"1")] * 2


@pytest.mark.parametrize("value", ["a\nb", "a\rb", "\x00", "\x7f", " a", "a ", "\ta", "a\t", " "])
def test_values_that_http2_forbids_are_left_out(value: str) -> None:
    assert headers(Entry(key="k", string_value=value), Entry(key="k", string_value="a \tb")) == [(b"k", b"a \tb")]


def test_text_outside_ascii_is_sent_as_utf8() -> None:
    assert headers(Entry(key="k", string_value="é")) == [(b"k", "é".encode())]


def test_an_entry_without_value_is_left_out() -> None:
    assert headers(Entry(key="k")) == []


def test_of_several_values_in_an_entry_the_last_one_counts() -> None:
    assert wire.headers_of_metadata(b"\x0a\x09\x0a\x01k\x12\x01a\x1a\x01a") == [(b"k-bin", b"YQ")]
    assert wire.headers_of_metadata(b"\x0a\x09\x0a\x01k\x1a\x01a\x12\x01a") == [(b"k", b"a")]


def test_headers_survive_the_way_there_and_back() -> None:
    sent = [(b"x-bin", b"AAEC/w"), (b"x-text", b"one two"), (b"x-text", "é".encode()), (b"a", b"")]
    assert wire.headers_of_metadata(wire.metadata_of_headers(sent) or b"") == sent


@pytest.mark.parametrize(
    "data, text",
    [
        (b"\x0a\x05", "Metadata: truncated: length beyond the end at offset 1"),
        (b"\x0a\x01\x0a", "MetadataEntry: truncated varint at offset 3"),
        (b"\x0a\x03\x0a\x01\xff", "MetadataEntry.key: invalid UTF-8 at offset 4"),
        (b"\x0a\x03\x12\x01\xff", "MetadataEntry.string_value: invalid UTF-8 at offset 4"),
        (b"\x0b\x0c", "Metadata: group at offset 0"),
    ],
)
def test_malformed_metadata_is_refused_with_what_and_where(data: bytes, text: str) -> None:
    with pytest.raises(wire.WireError) as caught:
        wire.headers_of_metadata(data)
    assert str(caught.value) == text


def test_only_bytes_are_read() -> None:
    for not_bytes in [None, "text", bytearray(b"")]:
        with pytest.raises(TypeError):
            wire.headers_of_metadata(not_bytes)  # type: ignore[arg-type]
