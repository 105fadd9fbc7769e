"""The messages between proxies: read back as they were written, and refused with a reason when they are not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stateside.proxy import peer_messages as messages
from stateside.proxy.peer_messages import (
    MAX_ITEMS,
    MAX_KEY_BYTES,
    MAX_LEFT,
    Batch,
    Buckets,
    Differ,
    Digests,
    Hello,
    Item,
    ItemKind,
    Kind,
    Left,
    PeerError,
    Reader,
    Wanted,
    replicas_of,
)

HELLO = Hello(1, 2**64 - 1, 7, "shop", "höst:7000", (Left(5, "gone:1"), Left(0, "")), 4, 3, 1 << 16)
DIGEST = bytes(range(16))
SUMS = bytes(4096)
MESSAGES: dict[str, tuple[bytes, Callable[[Reader], object], object]] = {
    "hello": (messages.hello(HELLO), Reader.hello, HELLO),
    "batch": (
        messages.batch(9, [(1, "ké".encode(), b"delta"), (2, b"gone", b""), (3, b"", b"")]),
        Reader.batch,
        Batch(9, [Item(1, "ké", b"delta"), Item(2, "gone", b""), Item(3, "", b"")]),
    ),
    "ack": (messages.ack(2**64 - 1), Reader.ack, 2**64 - 1),
    "buckets": (messages.buckets(Buckets(3, True, SUMS)), Reader.buckets, Buckets(3, True, SUMS)),
    "differ": (messages.differ(3, range(256)), Reader.differ, Differ(3, list(range(256)))),
    "digests": (
        messages.digests(4, [("a", DIGEST), ("b", DIGEST)]),
        Reader.digests,
        Digests(4, [("a", DIGEST), ("b", DIGEST)]),
    ),
    "wanted": (messages.wanted(4, ["a", "é"]), Reader.wanted, Wanted(4, ["a", "é"])),
    "leave": (messages.leave(Left(5, "gone:1")), Reader.leave, Left(5, "gone:1")),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_is_read_as_it_was_written(name: str) -> None:
    data, read, message = MESSAGES[name]
    reader = Reader(data)
    assert reader.kind == Kind[name.upper()]
    assert read(reader) == message


@pytest.mark.parametrize("name", [name for name in MESSAGES if name != "differ"])
def test_a_message_cut_short_or_too_long_is_refused(name: str) -> None:
    data, read, _ = MESSAGES[name]
    for end in range(1, len(data), max(1, len(data) // 50)):
        with pytest.raises(PeerError):
            read(Reader(data[:end]))
    with pytest.raises(PeerError, match="1 bytes too many"):
        read(Reader(data + b"x"))


@given(name=st.sampled_from(sorted(MESSAGES)), noise=st.data())
def test_damaged_bytes_are_refused_or_read_as_some_message_and_never_anything_else(
    name: str, noise: st.DataObject
) -> None:
    data, read, _ = MESSAGES[name]
    damaged = bytearray(data)
    for _ in range(noise.draw(st.integers(1, 4))):
        damaged[noise.draw(st.integers(1, len(data) - 1))] = noise.draw(st.integers(0, 255))
    try:
        read(Reader(bytes(damaged)))
    except PeerError as error:
        assert str(error)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"\x00", "unknown kind 0"),
        (b"\xff123", "unknown kind 255"),
    ],
)
def test_what_begins_like_no_message_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(PeerError, match=reason):
        Reader(data)


def refused(data: bytes, read: Callable[[Reader], object]) -> str:
    with pytest.raises(PeerError) as caught:
        read(Reader(data))
    return str(caught.value)


def test_a_hello_of_another_version_says_both_versions() -> None:
    data = bytearray(messages.hello(HELLO))
    data[5:7] = b"\x00\x63"
    assert refused(bytes(data), Reader.hello) == "messages have format version 99, this node speaks version 2"


def test_a_hello_of_something_else_and_one_without_identity_are_refused() -> None:
    assert "not of a Stateside proxy" in refused(b"\x01HTTP/2 and more", Reader.hello)
    assert "identity 0" in refused(messages.hello(HELLO._replace(replica=0)), Reader.hello)
    many = tuple(Left(number, "") for number in range(MAX_LEFT + 1))
    assert "departed" in refused(messages.hello(HELLO._replace(left=many)), Reader.hello)


def test_bounds_of_items_hold() -> None:
    assert "parts" in refused(b"\x02" + bytes(8) + (MAX_ITEMS + 1).to_bytes(4, "big"), Reader.batch)
    assert "481 bytes" in refused(messages.batch(1, [(1, b"k" * (MAX_KEY_BYTES + 1), b"")]), Reader.batch)
    assert "0 bytes" in refused(messages.batch(1, [(1, b"", b"delta")]), Reader.batch)
    assert "1 bytes" in refused(messages.batch(1, [(ItemKind.END, b"k", b"")]), Reader.batch)
    assert "unknown kind 9" in refused(messages.batch(1, [(9, b"k", b"")]), Reader.batch)
    assert "not UTF-8" in refused(messages.batch(1, [(1, b"\xff", b"")]), Reader.batch)


def test_replicas_of_an_end_are_read_back_and_odd_bytes_refused() -> None:
    assert replicas_of(messages.replicas([1, 2**64 - 1])) == {1, 2**64 - 1}
    with pytest.raises(PeerError):
        replicas_of(b"1234567")
