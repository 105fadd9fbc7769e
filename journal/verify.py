"""A full check of a stored journal: every checksum, every entity's sequences, the index against the log and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from stateside.journal.format import (
    Damaged,
    Header,
    index_key,
    pack_offset,
    parse_header,
    parse_record,
    parse_snapshot,
    split_key,
)
from stateside.journal.reader import View

Advance = Callable[[], object]


@dataclass(slots=True)
class Verdict:
    """What a check found. `damaged` maps an entity ("" when it cannot be told) to what is wrong with it."""

    appends: int = 0
    events: int = 0
    snapshots: int = 0
    last_sequences: dict[str, int] = field(default_factory=dict)
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
    for key, offset in view.index_entries():
        _check_entry(view, verdict, key, offset)
        advance()
    for name, data in view.snapshot_values():
        _check_snapshot(verdict, name, data)
        advance()
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
    try:
        parse_record(data, offset)
    except Damaged as damaged:
        verdict.report(header.entity, f"sequence {header.first_sequence}: {damaged.what}")
    _check_sequence(verdict, header)
    if offset < view.meta.indexed:
        _check_indexed(view, verdict, header, offset)


def _check_sequence(verdict: Verdict, header: Header) -> None:
    expected = verdict.last_sequences.get(header.entity, 0) + 1
    if header.first_sequence != expected:
        verdict.report(header.entity, f"sequence {expected} is missing: sequence {header.first_sequence} comes next")
    verdict.last_sequences[header.entity] = header.first_sequence + header.event_count - 1
    verdict.events += header.event_count


def _check_indexed(view: View, verdict: Verdict, header: Header, offset: int) -> None:
    if view.txn.get(index_key(header.entity, header.first_sequence), db=view.index) != pack_offset(offset):
        verdict.report(header.entity, f"sequence {header.first_sequence}: the index does not lead to offset {offset}")


def _check_entry(view: View, verdict: Verdict, key: bytes, offset: int) -> None:
    entity: str | None = None
    try:
        entity, sequence = split_key(key)
        header = view.header(offset)
    except Damaged as damaged:
        verdict.report(entity, damaged.what)
        return
    if (header.entity, header.first_sequence) != (entity, sequence):
        verdict.report(
            entity, f"sequence {sequence}: the index leads to a record of {header.entity!r} at offset {offset}"
        )


def _check_snapshot(verdict: Verdict, name: bytes, data: bytes) -> None:
    verdict.snapshots += 1
    entity = name.decode(errors="replace")
    try:
        snapshot = parse_snapshot(entity, data)
    except Damaged as damaged:
        verdict.report(entity, damaged.what)
        return
    if not 0 < snapshot.sequence <= verdict.last_sequences.get(entity, 0):
        verdict.report(entity, f"snapshot covers sequence {snapshot.sequence}, which is not stored")
