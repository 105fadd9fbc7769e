"""Batches for Postgres: what was appended is gathered and goes to the server in one call.

Consecutive appends of one entity become one group, which the server takes or refuses as a whole. An append that does
not follow the one before it in its group waits for the next batch, and so do all later ones of that entity: they keep
their order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from stateside.journal.contract import JournalError, SequenceTaken, StaleEpoch, Waiter
from stateside.journal.sharding import EntityShards

EVENTS, VALUE, RESTORED = 0, 1, 2


@dataclass(slots=True)
class Append:
    """One request: events from `first` on, or a value as version `first`."""

    entity: str
    kind: int
    first: int
    events: Sequence[bytes]
    has_snapshot: bool  # or a value, which may be None
    snapshot: bytes | None
    epoch: int
    waiter: Waiter

    @property
    def last(self) -> int:
        return self.first + len(self.events) - 1 if self.kind == EVENTS else self.first

    @property
    def size(self) -> int:
        return sum(map(len, self.events)) + len(self.snapshot or b"") + len(self.entity)


class Group:
    """Appends of one entity that follow each other."""

    __slots__ = ("appends", "snapshot", "snapshot_sequence")

    def __init__(self, append: Append) -> None:
        self.appends: list[Append] = []
        self.snapshot: bytes | None = None
        self.snapshot_sequence = 0
        self.add(append)

    def takes(self, append: Append) -> bool:
        last = self.appends[-1]
        return append.first == last.last + 1 and append.kind == last.kind != RESTORED and append.epoch == last.epoch

    def add(self, append: Append) -> None:
        self.appends.append(append)
        if append.has_snapshot:
            self.snapshot, self.snapshot_sequence = append.snapshot, append.last


@dataclass(slots=True)
class Outcome:
    """Who is answered with what, what has to be tried again, how many events were stored, and under which epochs
    something was refused because another one owns it."""

    answers: list[tuple[Waiter, JournalError | None]]
    again: list[Append]
    events: int
    stale: dict[int, StaleEpoch] = field(default_factory=dict)


class Batch:
    """Groups that go in one call."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.groups: dict[str, Group] = {}
        self.size = 0

    def fill(self, waiting: deque[Append], max_bytes: int) -> None:
        """Take from `waiting` what can go together, about `max_bytes` at most; what cannot stays, in order."""
        left: list[Append] = []
        blocked: set[str] = set()
        while waiting and self.size < max_bytes:
            append = waiting.popleft()
            group = self.groups.get(append.entity)
            if append.entity in blocked or (group is not None and not group.takes(append)):
                blocked.add(append.entity)
                left.append(append)
                continue
            if group is None:
                self.groups[append.entity] = Group(append)
            else:
                group.add(append)
            self.size += append.size
        waiting.extendleft(reversed(left))

    def arguments(self, shards: EntityShards | None) -> tuple[Any, ...]:
        """Of the function `append`, behind writer and batch. shards: None if their number is not known."""
        groups = list(self.groups.values())
        events = [
            (place, append.first + index, event)
            for place, group in enumerate(groups, 1)
            for append in group.appends
            for index, event in enumerate(append.events)
        ]
        return (
            [name.encode("utf-8", "surrogatepass") for name in self.groups],
            [group.appends[0].first for group in groups],
            [group.appends[-1].last for group in groups],
            [group.appends[0].epoch for group in groups],
            [group.appends[0].kind for group in groups],
            [group.snapshot_sequence for group in groups],
            [group.snapshot for group in groups],
            [place for place, _, _ in events],
            [sequence for _, sequence, _ in events],
            [event for _, _, event in events],
            [None if shards is None else _place(shards.shard(name)) for name in self.groups],
        )

    def outcome(self, refusals: Sequence[int]) -> Outcome:
        """What came of it. Of a refused group only the first append is known to be wrong; the others are to be tried
        again."""
        refused = {refusals[at]: refusals[at + 1 : at + 4] for at in range(0, len(refusals), 4)}
        outcome = Outcome([], [], 0)
        for place, group in enumerate(self.groups.values(), 1):
            first, *others = group.appends
            if place in refused:
                error = explain(first, *refused[place])
                if isinstance(error, StaleEpoch):
                    outcome.stale[first.epoch] = error
                outcome.answers.append((first.waiter, error))
                outcome.again.extend(others)
            else:
                outcome.answers.extend((append.waiter, None) for append in group.appends)
                outcome.events += sum(len(append.events) for append in group.appends)
        return outcome


def _place(shard: int | None) -> int:
    return -1 if shard is None else shard


def explain(append: Append, last: int, epoch: int, keeps_value: int) -> JournalError:
    """Why the server refused it."""
    entity = append.entity[:200]
    if append.epoch < epoch:
        return StaleEpoch(f"{entity}: epoch {append.epoch} is over, the entity is owned under epoch {epoch}")
    if last and bool(keeps_value) != (append.kind != EVENTS):
        kept, asked = ("a value", "events") if keeps_value else ("events", "a value")
        return SequenceTaken(f"{entity}: it keeps {kept} (the last is {last}), and never {asked} beside")
    return SequenceTaken(f"{entity}: sequence {append.first} does not follow the last one, {last}; load again")
