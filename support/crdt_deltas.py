"""Serialized cloudstate.crdt.CrdtDelta, one function for each type of CRDT.

Elements, keys and values are serialized Any already, so a delta is put together from pieces of bytes. An empty delta is
not no delta: it says of which type the CRDT is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

_DELIMITED = 2


def gcounter(increment: int) -> bytes:
    """CrdtDelta{gcounter}; increment: 0 to 2^64 - 1."""
    if 0 < increment < 0x80:
        return bytes((0x0A, 2, 0x08, increment))  # nearly always
    return _delimited(1, _varint_field(1, increment))


def pncounter(change: int) -> bytes:
    """CrdtDelta{pncounter}; change: a signed integer of 64 bits."""
    zigzag = change << 1 if change >= 0 else (-change << 1) - 1
    if 0 < zigzag < 0x80:
        return bytes((0x12, 2, 0x08, zigzag))
    return _delimited(2, _varint_field(1, zigzag))


def gset(added: Iterable[bytes]) -> bytes:
    """CrdtDelta{gset}."""
    return _delimited(3, _repeated(1, added))


def orset(cleared: bool, removed: Iterable[bytes], added: Iterable[bytes]) -> bytes:
    """CrdtDelta{orset}."""
    return _delimited(4, _varint_field(1, cleared) + _repeated(2, removed) + _repeated(3, added))


def lwwregister(value: bytes | None, clock: int, custom_clock_value: int) -> bytes:
    """CrdtDelta{lwwregister}; value None: a register that was never set."""
    held = b"" if value is None else _delimited(1, value)
    return _delimited(5, held + _varint_field(2, clock) + _varint_field(3, custom_clock_value & 0xFFFF_FFFF_FFFF_FFFF))


def flag(value: bool) -> bytes:
    """CrdtDelta{flag}."""
    return _delimited(6, _varint_field(1, value))


def ormap(
    cleared: bool, removed: Iterable[bytes], updated: Mapping[bytes, bytes], added: Mapping[bytes, bytes]
) -> bytes:
    """CrdtDelta{ormap}; updated, added: serialized CrdtDelta by key."""
    return _delimited(
        7,
        _varint_field(1, cleared)
        + _repeated(2, removed)
        + _repeated(3, map(_entry, updated.items()))
        + _repeated(4, map(_entry, added.items())),
    )


def vote(self_vote: bool, votes_for: int = 0, total_voters: int = 0) -> bytes:
    """CrdtDelta{vote}; a user function says only how it votes itself."""
    return _delimited(8, _varint_field(1, self_vote) + _varint_field(2, votes_for) + _varint_field(3, total_voters))


def _entry(entry: tuple[bytes, bytes]) -> bytes:
    key, delta = entry
    return _delimited(1, key) + _delimited(2, delta)


def _repeated(number: int, items: Iterable[bytes]) -> bytes:
    return b"".join([_delimited(number, item) for item in items])


def _delimited(number: int, data: bytes) -> bytes:
    size = len(data)
    tag = number << 3 | _DELIMITED
    return (bytes((tag, size)) if size < 0x80 else bytes((tag,)) + _varint(size)) + data


def _varint_field(number: int, value: int) -> bytes:
    return bytes((number << 3,)) + _varint(value) if value else b""


def _varint(value: int) -> bytes:
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
