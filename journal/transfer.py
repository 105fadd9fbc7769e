"""Export and import of a journal as JSON lines, one event, snapshot or value each.

    {"entity": "cart|42", "sequence": 7, "type_url": "type.googleapis.com/shop.ItemAdded", "value": "<base64>"}
    {"entity": "cart|42", "snapshot": 7, "type_url": ..., "value": ...}
    {"entity": "account|5", "version": 31, "type_url": ..., "value": ...}
    {"entity": "account|6", "version": 12, "deleted": true}

`data` (base64) stands in place of `type_url` and `value` where the bytes are not a canonical google.protobuf.Any. Lines
come in the order of the log, a snapshot right behind the event it covers; of a value there is the latest version only.
An export ends an entity at its first damage: what is written can always be imported. An import goes on where an earlier
one of the same file ended; it never writes over an event, nor over a value of the same or a later version. Epochs are
not carried over: an imported entity may be owned by anybody. Offsets of consumers are left out (`journal.offsets`),
and the record of the node that the journal belongs to.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from stateside.journal.anyvalue import join_any, split_any
from stateside.journal.contract import Head, JournalError, Page
from stateside.journal.format import Damaged, Record, Snapshot, parse_header, parse_record
from stateside.journal.limits import INTERNAL, MOVED_ENTITY, NODE_ENTITY
from stateside.journal.lmdb import LmdbJournal
from stateside.journal.offsets import PREFIX as OFFSETS
from stateside.journal.offsets import SKIPPED
from stateside.journal.reader import View

FLIGHT_APPENDS = 5_000  # appended before the answers are awaited
FLIGHT_BYTES = 16 << 20

Warn = Callable[[str], None]


# Export.


def export_lines(view: View, warn: Warn) -> Iterator[str]:
    """All events, snapshots and values that can be trusted, as JSON lines. `warn` is told what is left out, once per
    entity."""
    export = _Export(view, warn)
    for offset, data in view.log_values():
        yield from export.lines_of(offset, data)


class _Export:
    def __init__(self, view: View, warn: Warn) -> None:
        self.view = view
        self.warn = warn
        self.left_out: dict[str, int] = {}  # entity -> covered events before its first one
        self.next: dict[str, int] = {}  # entity -> sequence that must come now; 0 = it ended at its first damage

    def lines_of(self, offset: int, data: bytes) -> Iterator[str]:
        try:
            header = parse_header(data, offset)
        except Damaged as damaged:
            self.warn(damaged.what)
            return
        if header.entity.startswith((OFFSETS, SKIPPED)) or header.entity in (NODE_ENTITY, MOVED_ENTITY):
            return  # elsewhere the events have other offsets, and the journal another owner
        if header.is_value:
            if not self.view.superseded(header):
                yield from self._value_lines(header.entity, data, offset)
            return
        if self.view.covered(header):
            return  # `compact` would leave it out, or has left out others
        if header.entity.startswith(INTERNAL) and header.entity not in self.next:
            # Nobody knows the numbers of these events; an import has to begin at 1.
            self.left_out[header.entity] = header.first_sequence - 1
            self.next[header.entity] = header.first_sequence
        expected = self.next.get(header.entity, 1)
        if expected == 0:
            return
        try:
            if header.first_sequence != expected:
                raise Damaged(header.entity, expected, f"sequence {expected} is missing")
            yield from self._record_lines(parse_record(data, offset))
        except Damaged as damaged:
            self.warn(f"{header.entity}: {damaged.what}; its events end before sequence {expected}")
            self.next[header.entity] = 0

    def _value_lines(self, entity: str, data: bytes, offset: int) -> Iterator[str]:
        try:
            record = parse_record(data, offset)
        except Damaged as damaged:
            self.warn(f"{entity}: {damaged.what}; its value is left out")
            return
        fields = {"deleted": True} if record.value is None else any_fields(record.value)
        yield json.dumps({"entity": entity, "version": record.first_sequence} | fields)

    def _record_lines(self, record: Record) -> Iterator[str]:
        snapshot = self._snapshot_in(record)
        less = self.left_out.get(record.entity, 0)
        for sequence, event in enumerate(record.events, record.first_sequence):
            yield json.dumps({"entity": record.entity, "sequence": sequence - less} | any_fields(event))
            if snapshot is not None and snapshot.sequence == sequence:
                yield json.dumps({"entity": record.entity, "snapshot": sequence - less} | any_fields(snapshot.payload))
        self.next[record.entity] = record.last_sequence + 1

    def _snapshot_in(self, record: Record) -> Snapshot | None:
        try:
            snapshot = self.view.snapshot(record.entity)
        except Damaged as damaged:
            if record.first_sequence == 1:
                self.warn(f"{record.entity}: {damaged.what}; it is left out")
            return None
        return snapshot


def any_fields(data: bytes) -> dict[str, str]:
    """The JSON fields of an event's or snapshot's bytes."""
    parts = split_any(data)
    if parts is None:
        return {"data": base64.b64encode(data).decode()}
    return {"type_url": parts[0], "value": base64.b64encode(parts[1]).decode()}


# Import.


@dataclass(slots=True)
class Imported:
    """What an import did."""

    events: int = 0
    snapshots: int = 0
    values: int = 0
    known: int = 0  # lines that were stored already


class Kind(StrEnum):
    """What a line has, by the name of its number."""

    EVENT = "sequence"
    SNAPSHOT = "snapshot"
    VALUE = "version"


@dataclass(frozen=True, slots=True)
class Line:
    entity: str
    kind: Kind
    sequence: int
    payload: bytes | None  # None: a deleted value


async def import_lines(
    journal: LmdbJournal, lines: Iterable[str], advance: Callable[[], object] = lambda: None
) -> Imported:
    """Append what is not stored yet. Raises JournalError naming the line that conflicts or is malformed."""
    importer = _Importer(journal)
    for number, text in enumerate(lines, 1):
        if text.strip():
            try:
                importer.take(parse_line(text))
            except JournalError as error:
                await importer.settle()
                raise JournalError(f"line {number}: {error}") from error
            if importer.is_full:
                await importer.settle()
        advance()
    await importer.settle()
    return importer.done


def parse_line(text: str) -> Line:
    try:
        fields: dict[str, Any] = json.loads(text)
        kind = next((kind for kind in Kind if kind in fields), Kind.EVENT)
        sequence = fields[kind]
        entity = fields["entity"]
        if not isinstance(entity, str) or type(sequence) is not int or sequence < 1:
            raise JournalError(
                f"entity must be a text and the sequence a number from 1 on, not {entity!r} and {sequence!r}"
            )
        return Line(entity, kind, sequence, _payload(fields, kind))
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error) as error:
        raise JournalError(f"not an exported event, snapshot or value: {error!r}") from error


def _payload(fields: dict[str, Any], kind: Kind) -> bytes | None:
    if kind == Kind.VALUE and fields.get("deleted") is True:
        return None
    if "data" in fields:
        return base64.b64decode(fields["data"], validate=True)
    return join_any(fields["type_url"], base64.b64decode(fields["value"], validate=True))


@dataclass(slots=True)
class _Asked:
    """A waiter whose answer comes before the request returns (loads and reads of LMDB and memory)."""

    answer: Any = None
    error: JournalError | None = None

    def on_loaded(self, head: Head | None, error: JournalError | None) -> None:
        self.answer, self.error = head, error

    def on_page(self, page: Page | None, error: JournalError | None) -> None:
        self.answer, self.error = page, error

    def on_appended(self, error: JournalError | None) -> None:
        raise AssertionError("only loads and reads are asked for here")

    def get(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.answer


@dataclass(slots=True)
class Stored:
    """An entity's head, with what is in flight."""

    last_sequence: int
    snapshot_sequence: int
    keeps_value: bool = False
    value: bytes | None = None


@dataclass(slots=True)
class _Importer:
    journal: LmdbJournal
    done: Imported = field(default_factory=Imported)
    heads: dict[str, Stored] = field(
        default_factory=dict
    )  # of entities since the last settling, with what is in flight
    in_flight: int = 0
    bytes_in_flight: int = 0
    failed: JournalError | None = None
    settled: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_full(self) -> bool:
        return (
            self.in_flight >= FLIGHT_APPENDS
            or self.bytes_in_flight >= FLIGHT_BYTES
            or len(self.heads) >= FLIGHT_APPENDS
        )

    def take(self, line: Line) -> None:
        head = self.heads.get(line.entity)
        if head is None:
            head = self.heads[line.entity] = self._load(line.entity)
        if head.last_sequence > 0 and head.keeps_value != (line.kind == Kind.VALUE):
            kept = "a value" if head.keeps_value else "events"
            raise JournalError(f"{line.entity}: it keeps {kept} here; nothing is written over")
        if line.payload is None or line.kind == Kind.VALUE:
            self._take_value(line, head)
        elif line.kind == Kind.SNAPSHOT:
            self._take_snapshot(line, head, line.payload)
        elif line.sequence == head.last_sequence + 1:
            self._append(line, line.sequence, [line.payload], None)
            head.last_sequence += 1
            self.done.events += 1
        else:
            self._compare(line, head)

    def _take_value(self, line: Line, head: Stored) -> None:
        if line.sequence > head.last_sequence:
            self._count(line)
            self.journal.restore(line.entity, line.sequence, line.payload, self)
            head.last_sequence, head.value, head.keeps_value = line.sequence, line.payload, True
            self.done.values += 1
        elif line.sequence == head.last_sequence and line.payload != head.value:
            raise JournalError(f"{line.entity}: another value is stored as version {line.sequence}")
        else:
            self.done.known += 1  # stored, or superseded by a later version

    def _take_snapshot(self, line: Line, head: Stored, payload: bytes) -> None:
        if line.sequence > head.last_sequence:
            raise JournalError(
                f"{line.entity}: a snapshot of {line.sequence} is ahead of the last event, {head.last_sequence}"
            )
        if line.sequence == head.last_sequence and line.sequence > head.snapshot_sequence:
            self._append(line, line.sequence + 1, [], payload)
            head.snapshot_sequence = line.sequence
            self.done.snapshots += 1
        else:
            self.done.known += 1  # stored, or superseded by events behind it: a snapshot is only a shortcut

    def _compare(self, line: Line, head: Stored) -> None:
        if line.sequence > head.last_sequence:
            raise JournalError(
                f"{line.entity}: sequence {line.sequence} does not follow the last one, {head.last_sequence}"
            )
        if self._stored(line) not in (line.payload, None):
            raise JournalError(
                f"{line.entity}: another event is stored at sequence {line.sequence}; nothing is written over"
            )
        self.done.known += 1

    def _stored(self, line: Line) -> bytes | None:
        asked = _Asked()
        self.journal.read(line.entity, line.sequence, 1, asked)
        events: list[bytes] = asked.get().events
        return events[0] if events else None

    def _load(self, entity: str) -> Stored:
        asked = _Asked()
        self.journal.load(entity, asked)
        head: Head = asked.get()
        if not self._keeps_value(entity, head):
            return Stored(head.last_sequence, head.snapshot_sequence)
        self.bytes_in_flight += len(head.snapshot or b"")
        return Stored(head.last_sequence, head.snapshot_sequence, True, head.snapshot)

    def _keeps_value(self, entity: str, head: Head) -> bool:
        """A value has no events."""
        if head.last_sequence == 0 or head.snapshot_sequence != head.last_sequence:
            return False
        asked = _Asked()
        self.journal.read(entity, head.last_sequence, 1, asked)
        return not asked.get().events

    def _count(self, line: Line) -> None:
        self.in_flight += 1
        self.bytes_in_flight += len(line.payload or b"")

    def _append(self, line: Line, first: int, events: list[bytes], snapshot: bytes | None) -> None:
        self._count(line)
        self.journal.append(line.entity, first, events, snapshot, self)

    def on_appended(self, error: JournalError | None) -> None:
        self.in_flight -= 1
        self.failed = self.failed or error
        if self.in_flight == 0:
            self.settled.set()

    def on_loaded(self, head: Head | None, error: JournalError | None) -> None:
        raise AssertionError("loads have a waiter of their own")

    def on_page(self, page: Page | None, error: JournalError | None) -> None:
        raise AssertionError("reads have a waiter of their own")

    async def settle(self) -> None:
        """Wait for what is in flight. Raises what it met."""
        self.settled.clear()
        if self.in_flight:
            await self.settled.wait()
        self.heads.clear()
        self.bytes_in_flight = 0
        if self.failed is not None:
            raise self.failed
