"""What a copy of a journal is made of: items on their way, the two sides, and how far the copy has come.

    Source --- Batch of Items ---> Target            stage after stage, each from a place on
    Source.digests == Target.digests                 at the end, entity by entity

A source has one or more logs (a folder of several workers has one for each). Its stages are these logs, one after the
other, each in its own order, and behind each what has no place in an order: values (Postgres), and the proxy's own
entities, whose ids begin with `|`. Places are JSON: a target stores the one it has reached together with what it got,
or just behind it, so a copy that was killed goes on there.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from stateside.journal.contract import JournalError
from stateside.journal.limits import COPY_ENTITY, INTERNAL, MOVED_ENTITY, NODE_ENTITY
from stateside.journal.offsets import PREFIX as OFFSETS
from stateside.journal.offsets import SKIPPED, Ranges

BATCH_ITEMS = 20_000
BATCH_BYTES = 8 << 20
PAGE_NAMES = 1_000  # entities compared at a time

Place = int | str | list[Any] | None
"""Where a stage goes on; None: at its beginning."""


class Item(NamedTuple):
    """Consecutive events of one entity, or its value. `place`: where to go on behind it."""

    place: Place
    entity: str
    first: int  # sequence of the first event, or the version of the value
    events: Sequence[bytes]  # none: it is a value
    snapshot: bytes | None  # that covers the last event; or the value
    covers: bool  # whether there is a snapshot

    @property
    def is_value(self) -> bool:
        return not self.events

    @property
    def last(self) -> int:
        return self.first + max(len(self.events) - 1, 0)

    @property
    def size(self) -> int:
        return sum(map(len, self.events)) + len(self.snapshot or b"")


@dataclass(slots=True)
class Batch:
    """`place`: where the stage goes on behind all items."""

    items: list[Item] = field(default_factory=list)
    place: Place = None
    size: int = 0
    events: int = 0

    def add(self, item: Item) -> None:
        self.items.append(item)
        self.place = item.place
        self.size += item.size
        self.events += len(item.events)

    @property
    def is_full(self) -> bool:
        return self.events + len(self.items) >= 2 * BATCH_ITEMS or self.size >= BATCH_BYTES


def batched(items: Iterable[Item]) -> Iterator[Batch]:
    batch = Batch()
    for item in items:
        batch.add(item)
        if batch.is_full:
            yield batch
            batch = Batch()
    if batch.items:
        yield batch


@dataclass(slots=True)
class CopyState:
    """What a target knows of the copy into it."""

    source: str  # identity
    mark: str  # changes with every change of the source
    new_node: bool
    target: str = ""  # how the target is laid out
    stage: int = 0
    place: Place = None
    events: int = 0
    done: bool = False

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, data: bytes) -> CopyState:
        try:
            return cls(**json.loads(data))
        except (ValueError, TypeError) as error:
            raise JournalError(f"the record of the copy cannot be read: {error}") from error


class Digest(NamedTuple):
    """What must be equal on both sides. Of the proxy's own entities with events only what is behind the snapshot
    counts, and their sequences from there."""

    kind: str  # events, value or own
    last: int
    snapshot_sequence: int
    snapshot: bytes | None  # its SHA-256; of a value that is deleted None
    events: bytes | None  # the SHA-256 of the SHA-256s of all events


class Consumer(NamedTuple):
    """Which events of source log `log` a consumer has not seen: those in `wanted`, pairs of offsets, the second
    exclusive (None: all that come)."""

    name: str
    log: int
    wanted: list[tuple[int, int | None]]


Owner = Callable[[str], int]
"""Which of a target's logs an entity belongs to."""


class Side(ABC):
    """A journal that is copied from, or to."""

    label: str

    @abstractmethod
    def digests(self) -> AsyncIterator[dict[str, Digest]]:
        """All entities in pages, but for offsets and the record of a copy."""

    @abstractmethod
    async def digests_of(self, entities: Sequence[str]) -> dict[str, Digest]:
        """Those of `entities` that there are."""

    @abstractmethod
    async def count(self) -> int:
        """How many entities `digests` gives."""


class Source(Side):
    identity: str
    mark: str
    stages: int
    logs: int
    number_of_shards = 0  # 0: not known
    replica = 0  # identity of the node's CRDT replicas; 0: it is in the record of the node, if anywhere
    steps: int  # about as many events as there are, for the progress

    @abstractmethod
    async def open(self) -> None:
        """Raises JournalError when it cannot be read, or is in use."""

    @abstractmethod
    async def close(self) -> None: ...

    @abstractmethod
    def batches(self, stage: int, place: Place) -> AsyncIterator[Batch]:
        """What the stage has from `place` on."""

    @abstractmethod
    async def consumers(self) -> list[Consumer]: ...

    @abstractmethod
    async def next_event(self, log: int, offset: int, owner: Owner, member: int) -> tuple[str, int] | None:
        """Entity and sequence of the first event at or behind `offset` whose entity belongs to `member`."""


class Target(Side):
    layout = ""
    logs = 1

    def prepare(self, source: Source, new_node: bool) -> None:
        """The source is open."""

    @abstractmethod
    async def open(self, state: CopyState) -> CopyState:
        """Begin a copy, or go on with this one: its state. Raises JournalError when something else is in it."""

    @abstractmethod
    async def store(self, batch: Batch, state: CopyState) -> None:
        """Durably, with `state` never ahead of it."""

    @abstractmethod
    async def settle(self) -> None:
        """All is stored: digests and offsets are asked for next."""

    @abstractmethod
    def owner(self, entity: str) -> int: ...

    @abstractmethod
    async def offset_of(self, log: int, entity: str, sequence: int) -> int: ...

    @abstractmethod
    async def end(self, log: int) -> int:
        """The offset behind everything."""

    @abstractmethod
    async def store_offsets(self, offsets: Sequence[tuple[int, str, bytes]]) -> None:
        """Log, entity of the proxy's own, and the value it gets."""

    @abstractmethod
    async def finish(self, state: CopyState) -> None:
        """All was verified: from now on it is a journal that may be opened."""

    @abstractmethod
    async def close(self) -> None: ...


def wanted_of(offset: bytes, skipped: Ranges) -> list[tuple[int, int | None]]:
    """The offsets that a consumer has yet to see which stored this."""
    at = int.from_bytes(offset, "big")
    found: list[tuple[int, int | None]] = []
    for low, high in skipped:
        if low > at:
            found.append((at, low))
        at = max(at, high)
    return [*found, (at, None)]


def is_own(entity: str) -> bool:
    return entity.startswith(INTERNAL)


def is_copied(entity: str, new_node: bool = False) -> bool:
    """Whether it comes along as it is: offsets are translated, and a new node makes a record of its own."""
    if entity.startswith((OFFSETS, SKIPPED)) or entity in (COPY_ENTITY, MOVED_ENTITY):
        return False
    return not (new_node and entity == NODE_ENTITY)


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def refuse_other(found: CopyState, wanted: CopyState, where: str) -> None:
    """A target goes on with the copy that it began, and with no other."""
    advice = "choose another target, or empty this one"
    if found.source != wanted.source:
        raise JournalError(f"{where} has the copy of another journal; {advice}")
    if found.mark != wanted.mark and not found.done:
        raise JournalError(f"{where} has the beginning of a copy, and the source has changed since; {advice}")
    if found.new_node != wanted.new_node:
        kind = "a clone (--new-node)" if found.new_node else "a copy that keeps the node's identity"
        raise JournalError(f"{where} has {kind}; go on with it as it was begun, or {advice}")
    if found.target != wanted.target:
        raise JournalError(f"{where} was begun as {found.target}, and not as {wanted.target}; {advice}")
