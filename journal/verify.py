"""A full check of a stored journal: every checksum, every entity's sequences, the index against the log and back.

Of a value only the latest version counts: damage in an earlier one harms nobody, and one that is missing was compacted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from stateside.journal.format import (
    Damaged,
    Header,
    index_key,
    pack_offset,
    parse_entry,
    parse_header,
    parse_record,
    parse_snapshot,
)
from stateside.journal.limits import INTERNAL
from stateside.journal.reader import View

Advance = Callable[[], object]


@dataclass(slots=True)
class LastValue:
    """What the log says of an entity's value, as far as it was read."""

    version: int = 0
    damage: str = ""
    indexed: int = 0  # the last version that the index must have, or a later one


@dataclass(slots=True)
class Totals:
    """What checks found in all. `damaged` as of a verdict."""

    entities: int = 0
    events: int = 0
    appends: int = 0
    snapshots: int = 0
    values: int = 0
    damaged: dict[str, list[str]] = field(default_factory=dict)

    def report(self, entity: str | None, what: str) -> None:
        found = self.damaged.setdefault(entity or "", [])
        if what not in found:
            found.append(what)

    def add(self, verdict: Verdict) -> None:
        self.entities += len(verdict.last_sequences)
        self.events += verdict.events
        self.appends += verdict.appends
        self.snapshots += verdict.snapshots
        self.values += len(verdict.values)
        for entity, problems in verdict.damaged.items():
            for problem in problems:
                self.report(entity, problem)


@dataclass(slots=True)
class Verdict:
    """What a check found. `damaged` maps an entity ("" when it cannot be told) to what is wrong with it."""

    appends: int = 0
    events: int = 0
    snapshots: int = 0
    last_sequences: dict[str, int] = field(default_factory=dict)
    first_sequences: dict[str, int] = field(default_factory=dict)  # of the proxy's own, as far as no snapshot covers it
    values: dict[str, LastValue] = field(default_factory=dict)
    damaged: dict[str, list[str]] = field(default_factory=dict)

    def report(self, entity: str | None, what: str) -> None:
        found = self.damaged.setdefault(entity or "", [])
        if what not in found:
            found.append(what)


def verify(view: View, advance: Advance = lambda: None) -> Verdict:
    """Read everything. `advance` is called after each of `work_of(view)` steps."""
    verdict = Verdict()
    for offset, data in view.log_values():
        _check_record(view, verdict, offset, data)
        advance()
    for entity, value in verdict.values.items():
        _check_value(view, verdict, entity, value)
    for key, data in view.index_values():
        _check_entry(view, verdict, key, data)
        advance()
    for name, data in view.snapshot_values():
        _check_snapshot(verdict, name, data)
        advance()
    for entity, first in verdict.first_sequences.items():
        if first > 1:
            verdict.report(entity, f"sequence 1 is missing: sequence {first} comes first, and no snapshot covers it")
    return verdict


def work_of(view: View) -> int:
    return sum(view.txn.stat(database)["entries"] for database in (view.log, view.index, view.snapshots))


def _check_record(view: View, verdict: Verdict, offset: int, data: bytes) -> None:
    verdict.appends += 1
    try:
        header = parse_header(data, offset)
    except Damaged as damaged:
        verdict.report(None, damaged.what)
        return
    damage = ""
    try:
        parse_record(data, offset)
    except Damaged as damaged:
        damage = f"sequence {header.first_sequence}: {damaged.what}"
    if (header.entity in verdict.values) != header.is_value and header.entity in verdict.last_sequences:
        verdict.report(header.entity, f"sequence {header.first_sequence}: events and values are mixed")
    elif header.is_value:
        _note_value(verdict, header, damage, offset < view.meta.indexed)
    else:
        _check_events(view, verdict, header, damage, offset)


def _note_value(verdict: Verdict, header: Header, damage: str, is_indexed: bool) -> None:
    value = verdict.values.setdefault(header.entity, LastValue())
    if header.first_sequence <= value.version:
        verdict.report(header.entity, f"version {header.first_sequence} comes behind version {value.version}")
    verdict.last_sequences[header.entity] = value.version = header.first_sequence
    value.damage = damage
    if is_indexed:
        value.indexed = header.first_sequence


def _check_value(view: View, verdict: Verdict, entity: str, value: LastValue) -> None:
    if value.damage:
        verdict.report(entity, value.damage)
    try:
        entry = view.value_entry(entity)
    except Damaged as damaged:
        verdict.report(entity, damaged.what)
        return
    found = 0 if entry is None else entry.sequence
    if not value.indexed <= found <= value.version:
        verdict.report(entity, f"the index has version {found}, the log version {value.version}")


def _check_events(view: View, verdict: Verdict, header: Header, damage: str, offset: int) -> None:
    if damage:
        verdict.report(header.entity, damage)
    _check_sequence(verdict, header)
    if offset < view.meta.indexed:
        _check_indexed(view, verdict, header, offset)


def _check_sequence(verdict: Verdict, header: Header) -> None:
    expected = verdict.last_sequences.get(header.entity, 0) + 1
    if expected == 1 and header.entity.startswith(INTERNAL):
        verdict.first_sequences[header.entity] = header.first_sequence  # what came before may have been left out
    elif header.first_sequence != expected:
        verdict.report(header.entity, f"sequence {expected} is missing: sequence {header.first_sequence} comes next")
    verdict.last_sequences[header.entity] = header.last_sequence
    verdict.events += header.event_count


def _check_indexed(view: View, verdict: Verdict, header: Header, offset: int) -> None:
    if view.txn.get(index_key(header.entity, header.first_sequence), db=view.index) != pack_offset(offset):
        verdict.report(header.entity, f"sequence {header.first_sequence}: the index does not lead to offset {offset}")


def _check_entry(view: View, verdict: Verdict, key: bytes, data: bytes) -> None:
    entity: str | None = None
    try:
        entry = parse_entry(key, data)
        entity = entry.entity
        header = view.header(entry.offset)
    except Damaged as damaged:
        verdict.report(damaged.entity or entity, damaged.what)
        return
    if (header.entity, header.first_sequence, header.is_value) != (entity, entry.sequence, entry.is_value):
        found = f"a record of {header.entity!r} at offset {entry.offset}"
        verdict.report(entity, f"sequence {entry.sequence}: the index leads to {found}")


def _check_snapshot(verdict: Verdict, name: bytes, data: bytes) -> None:
    verdict.snapshots += 1
    entity = name.decode(errors="replace")
    try:
        snapshot = parse_snapshot(entity, data)
    except Damaged as damaged:
        verdict.report(entity, damaged.what)
        return
    if entity in verdict.values:
        verdict.report(entity, "a snapshot beside a value")
    elif not 0 < snapshot.sequence <= verdict.last_sequences.get(entity, 0):
        verdict.report(entity, f"snapshot covers sequence {snapshot.sequence}, which is not stored")
    elif snapshot.sequence >= verdict.first_sequences.get(entity, 0):
        verdict.first_sequences.pop(entity, None)
