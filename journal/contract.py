"""The contract of a journal: what every store promises, and how the proxy talks to one.

A journal keeps, per entity, a dense sequence of events numbered from 1 and at most one snapshot. It knows nothing of
commands: an entity is a text, an event or a snapshot is bytes. Results come through callbacks of a waiter, on the
event loop's thread, so that a store may answer at once, after a flush, or after a network round trip without a future
per command.

Promises, tested once against every store (tests/unit/test_journal_contract.py):

- An append is atomic and, when `on_appended(None)` is called, as durable as the journal's `durability` says.
- Sequences are dense: an append whose `first_sequence` is not the last one + 1 is refused (`SequenceTaken`).
- An epoch lower than the highest one seen for the entity is refused (`StaleEpoch`), and so is one lower than that
  of the latest `claim` to its shard: who lost a shard cannot write to it, however late it wakes up. Epoch 0 stands for
  that of the journal object's own latest claim, so callers that have one owner's journal need not know it.
- Events are read in order; a snapshot never covers an event that is not stored.
- A record whose checksum does not fit is reported for that entity (`Corrupt`); others are not affected.
- Appends have an order over all entities, and `read_log` gives their events in it. What was acknowledged is there;
  an event that shows up later never has a lower offset than one that was read. Offsets stay what they are until the
  journal is exported and imported. Listeners (`watch`) are called after events were acknowledged.
- A store that can't append says so (`Full`, `Broken`) and keeps serving reads while it can.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol


class Durability(StrEnum):
    """When an append is acknowledged."""

    DURABLE = "durable"  # after the flush to disk: survives a power cut
    RELAXED = "relaxed"  # after the commit, flushed within a second: survives kill -9 of the process
    NONE = "none"  # never flushed on purpose


class JournalError(Exception):
    """Base of all errors of a journal. The text says what happened, to which entity and what to do."""


class SequenceTaken(JournalError):
    """Somebody else appended to this entity: the appender's state is out of date."""


class StaleEpoch(JournalError):
    """The appender no longer owns the entity."""


class Corrupt(JournalError):
    """A stored record of this entity cannot be trusted."""


class Full(JournalError):
    """No space: appends are refused until there is; reads go on."""


class Broken(JournalError):
    """A flush failed: nothing more can be trusted to reach the disk; the process has to stop."""


class TooLarge(JournalError):
    """The record is larger than the store can hold."""


@dataclass(slots=True)
class Head:
    """Where an entity's log stands."""

    last_sequence: int
    snapshot_sequence: int
    snapshot: bytes | None


@dataclass(slots=True)
class Page:
    """Consecutive events of one entity. `more`: there are further ones behind."""

    first_sequence: int
    events: list[bytes]
    more: bool


class LogEntry(NamedTuple):
    """One event in the log over all entities. Offsets ascend with gaps."""

    offset: int
    entity: str
    sequence: int
    event: bytes


@dataclass(slots=True)
class LogPage:
    """Some of the log. `next_offset`: where to go on. `more`: the log does not end there, though there need not be an
    entry behind it that was asked for; a page may be empty and have `more`."""

    entries: list[LogEntry]
    next_offset: int
    more: bool


class LogWaiter(Protocol):
    """Who asked for some of the log; called once, as a `Waiter` is."""

    def on_log(self, page: LogPage | None, error: JournalError | None) -> None: ...


class ListWaiter(Protocol):
    """Who asked for entities; called once, as a `Waiter` is."""

    def on_entities(self, entities: list[str] | None, error: JournalError | None) -> None: ...


class Waiter(Protocol):
    """Who asked. Exactly one callback follows each request, on the loop's thread, possibly before the request returns
    (never for append). Answers to several `load` come in the order of the requests."""

    def on_appended(self, error: JournalError | None) -> None: ...

    def on_loaded(self, head: Head | None, error: JournalError | None) -> None: ...

    def on_page(self, page: Page | None, error: JournalError | None) -> None: ...


class Journal(ABC):
    """One store. All methods are called on the event loop's thread; `open` and `close` may block or be awaited."""

    durability: Durability
    is_shared = False
    """Several processes write to this store: its log has the events of all."""

    def __init__(self) -> None:
        self._listeners: list[Callable[[], None]] = []

    def watch(self, listener: Callable[[], None]) -> None:
        """Call `listener` on the loop's thread each time after events of any entity were acknowledged, before or after
        the journal is opened. It must return at once and raise nothing."""
        self._listeners.append(listener)

    def unwatch(self, listener: Callable[[], None]) -> None:
        self._listeners.remove(listener)

    def _tell_listeners(self) -> None:
        for listener in self._listeners:
            listener()

    @abstractmethod
    async def open(self) -> None:
        """Make the store ready. Raises JournalError with what to do when it cannot be used."""

    @abstractmethod
    async def close(self) -> None:
        """Finish pending appends, flush, release."""

    @abstractmethod
    async def claim(self, shards: Collection[int], number_of_shards: int) -> int:
        """Own `shards` (journal.sharding) from now on. The answer is the epoch to append under: higher than any that
        was given before. It is durable before this returns, and from then on appends to entities of these shards under
        a lower epoch are refused, whoever asks for them. What this object appends under epoch 0 is appended under the
        latest epoch it claimed. The number of shards is kept with the first claim; JournalError for another one.

        A store that one process has at a time (memory, LMDB) belongs to its latest claimant as a whole. When a shared
        one refuses what was appended under an object's own claim, it tells `on_broken`, once: somebody else claimed
        the shards, and what this process remembers of its entities is out of date."""

    @abstractmethod
    def load(self, entity: str, waiter: Waiter) -> None:
        """Ask for the entity's head. An unknown entity has last_sequence 0."""

    @abstractmethod
    def read(self, entity: str, from_sequence: int, max_bytes: int, waiter: Waiter) -> None:
        """Ask for events from a sequence on, at least one if there is any, about `max_bytes` bytes at most."""

    @abstractmethod
    def read_log(self, prefix: str, from_offset: int, limit: int, waiter: LogWaiter) -> None:
        """Ask for events of all entities whose id begins with `prefix`, in the order of the journal, from an offset on
        (0: the beginning), `limit` at most. How much is looked through in one call is bounded (see `LogPage.more`). To
        go on behind an entry, ask from its offset + 1."""

    @abstractmethod
    def list_entities(self, prefix: str, after: str, limit: int, waiter: ListWaiter) -> None:
        """Ask for the ids of stored entities that begin with `prefix`, `limit` at most: those behind `after` in the
        store's own order, the first ones if it is empty. Fewer than `limit` means that there are no more. Deleted
        values are among them; entities whose first append comes after the first page may or may not be."""

    @abstractmethod
    def append(
        self,
        entity: str,
        first_sequence: int,
        events: Sequence[bytes],
        snapshot: bytes | None,
        waiter: Waiter,
        epoch: int = 0,
    ) -> None:
        """Store `events` numbered from `first_sequence`, and, in the same step, `snapshot` as covering the last of
        them."""

    def forget(self, entity: str, through: int) -> None:  # noqa: B027 - to keep everything is right
        """Events up to the sequence `through`, which a stored snapshot covers, will never be read again. A store may
        drop them at any time, or keep them."""

    @abstractmethod
    def put(self, entity: str, version: int, value: bytes | None, waiter: Waiter, epoch: int = 0) -> None:
        """Store `value` (None: delete it) as the entity's state number `version`, in place of the one before.

        For entities that keep a value and no events: versions are dense from 1 like sequences, checked and acknowledged
        like an append (`on_appended`), and flushed together with appends. `load` answers with `last_sequence` =
        `snapshot_sequence` = version and `snapshot` = the value, None after a deletion. One entity has either events or
        values, never both: mixing is refused with SequenceTaken.
        """

    @property
    @abstractmethod
    def writable(self) -> bool:
        """False while appends are refused (full or broken)."""
