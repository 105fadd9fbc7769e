"""The bytes of the journal in LMDB, read by Python: a second, independent reader for the command line and for tests.

docs/journal-format.md has the layout. The proxy's own reader and writer are compiled (`stateside._speedups.record`).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NamedTuple

import xxhash

FORMAT_VERSION = 1
RECORD_VERSION = 1
_HEADER = struct.Struct("<QIBBHIQQ")
_SNAPSHOT = struct.Struct("<QBBHQQ")
_U64 = struct.Struct(">Q")
_KEY_END = 9  # 0xFF and the sequence
_FLAG_VALUE = 2
_FLAG_DELETED = 4


class Damaged(Exception):
    """The bytes are not what was written. `entity` is None when not even that can be told."""

    def __init__(self, entity: str | None, sequence: int, what: str) -> None:
        super().__init__(what)
        self.entity = entity
        self.sequence = sequence
        self.what = what


@dataclass(frozen=True, slots=True)
class Record:
    """What one append or put stored. A value is the only event, and its version the sequence."""

    offset: int
    entity: str
    first_sequence: int
    epoch: int
    events: list[bytes]
    is_value: bool = False
    is_deleted: bool = False

    @property
    def value(self) -> bytes | None:
        return None if self.is_deleted else self.events[0]

    @property
    def last_sequence(self) -> int:
        return self.first_sequence + len(self.events) - 1


@dataclass(frozen=True, slots=True)
class Header:
    """What can be told of a record whose events are not needed, or damaged."""

    entity: str
    first_sequence: int
    event_count: int
    epoch: int
    is_value: bool
    is_deleted: bool

    @property
    def last_sequence(self) -> int:
        return self.first_sequence + self.event_count - 1


@dataclass(frozen=True, slots=True)
class Entry:
    """An index entry. The sequence is that of the record's first event, or the version of the entity's latest value."""

    entity: str
    sequence: int
    offset: int
    is_value: bool


@dataclass(frozen=True, slots=True)
class Snapshot:
    sequence: int
    epoch: int
    payload: bytes


def pack_offset(offset: int) -> bytes:
    return _U64.pack(offset)


def unpack_offset(data: bytes) -> int:
    return int.from_bytes(data, "big")


def index_key(entity: str | bytes, sequence: int) -> bytes:
    name = entity if isinstance(entity, bytes) else entity.encode()
    return name + b"\xff" + _U64.pack(sequence)


def pack_value_entry(offset: int, version: int) -> bytes:
    """What the index has of a value, at its key of sequence 0."""
    return _U64.pack(offset) + _U64.pack(version)


def parse_entry(key: bytes, data: bytes) -> Entry:
    if len(key) <= _KEY_END or key[-_KEY_END] != 0xFF:
        raise Damaged(None, 0, f"index key {key!r} is malformed")
    entity, sequence = _decode(key[:-_KEY_END]), unpack_offset(key[-8:])
    if len(data) != (8 if sequence else 16):
        raise Damaged(entity, sequence, f"index entry of sequence {sequence} has {len(data)} bytes")
    return Entry(entity, sequence or unpack_offset(data[8:]), unpack_offset(data[:8]), sequence == 0)


def parse_header(data: bytes, offset: int) -> Header:
    """The checked header of the record at `offset`."""
    if len(data) < _HEADER.size:
        raise Damaged(None, 0, f"record at offset {offset} is cut short")
    _, check, version, flags, entity_size, count, first, epoch = _HEADER.unpack_from(data)
    end = _HEADER.size + entity_size
    if version != RECORD_VERSION or end + 4 * count > len(data) or count == 0:
        raise Damaged(None, 0, f"record at offset {offset} has an impossible header")
    if xxhash.xxh3_64_intdigest(data[12:end], offset) & 0xFFFFFFFF != check:
        raise Damaged(None, 0, f"header of the record at offset {offset} does not fit its checksum")
    is_value, is_deleted = bool(flags & _FLAG_VALUE), bool(flags & _FLAG_DELETED)
    return Header(_decode(data[_HEADER.size : end]), first, count, epoch, is_value, is_deleted)


class Peeked(NamedTuple):
    """What a record's header says, unchecked. A value's version is its first sequence."""

    entity: bytes
    first_sequence: int
    event_count: int
    is_value: bool


def peek(data: bytes) -> Peeked:
    """The header of a record that was checked before."""
    _, _, _, flags, size, count, first, _ = _HEADER.unpack_from(data)
    return Peeked(data[_HEADER.size : _HEADER.size + size], first, count, flags & _FLAG_VALUE != 0)


def require_fit(data: bytes, offset: int) -> None:
    """Raise Damaged unless the record fits its checksum."""
    if xxhash.xxh3_64_intdigest(data[8:], offset) != int.from_bytes(data[:8], "little"):
        head = peek(data)
        entity = head.entity.decode(errors="replace")
        raise Damaged(entity, head.first_sequence, f"record at offset {offset} does not fit its checksum")


def parse_record(data: bytes, offset: int) -> Record:
    """The checked record at `offset`."""
    header = parse_header(data, offset)
    if xxhash.xxh3_64_intdigest(data[8:], offset) != int.from_bytes(data[:8], "little"):
        raise Damaged(header.entity, header.first_sequence, f"record at offset {offset} does not fit its checksum")
    start = _HEADER.size + len(header.entity.encode())
    sizes = struct.unpack_from(f"<{header.event_count}I", data, start)
    position = start + 4 * header.event_count
    events = []
    for size in sizes:
        events.append(data[position : position + size])
        position += size
    if position != len(data):
        raise Damaged(header.entity, header.first_sequence, f"record at offset {offset} has impossible lengths")
    first, flags = header.first_sequence, (header.is_value, header.is_deleted)
    return Record(offset, header.entity, first, header.epoch, events, *flags)


def seal_record(record: bytes, entity_size: int, offset: int) -> bytes:
    """The record as it is to be stored at `offset`, with the checksums of that place."""
    header_check = xxhash.xxh3_64_intdigest(record[12 : _HEADER.size + entity_size], offset) & 0xFFFFFFFF
    checked = header_check.to_bytes(4, "little") + record[12:]
    return xxhash.xxh3_64_intdigest(checked, offset).to_bytes(8, "little") + checked


def value_record(entity: bytes, version: int, epoch: int, value: bytes) -> bytes:
    """The record of a value, still to be sealed."""
    header = _HEADER.pack(0, 0, RECORD_VERSION, _FLAG_VALUE, len(entity), 1, version, epoch)
    return header + entity + len(value).to_bytes(4, "little") + value


def parse_snapshot(entity: str, data: bytes) -> Snapshot:
    """The checked snapshot of an entity."""
    if len(data) < _SNAPSHOT.size:
        raise Damaged(entity, 0, "snapshot is cut short")
    check, version, _, _, sequence, epoch = _SNAPSHOT.unpack_from(data)
    seed = xxhash.xxh3_64_intdigest(entity.encode())
    if version != RECORD_VERSION or xxhash.xxh3_64_intdigest(data[8:], seed) != check:
        raise Damaged(entity, 0, "snapshot does not fit its checksum")
    return Snapshot(sequence, epoch, data[_SNAPSHOT.size :])


def _decode(entity: bytes) -> str:
    try:
        return entity.decode()
    except UnicodeDecodeError:
        raise Damaged(None, 0, f"entity id {entity!r} is not UTF-8") from None
