"""The LMDB store's engine: a log of records, one per append, group-committed by a thread that never takes the GIL.

It knows no contract: errors are made by `explain(kind, entity, a, b)` and handed to waiters or raised; see `ErrorKind`
for what `a` and `b` are. All methods are called on the event loop's thread.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

class ErrorKind:
    """First argument of `explain`; in brackets the numbers that go with it."""

    TAKEN: int
    """Sequence taken [asked for, last stored or in flight]."""
    STALE: int
    """Epoch is over [asked for, highest seen]."""
    CORRUPT: int
    """A record or snapshot cannot be trusted [sequence, 0]."""
    ORPHAN: int
    """A record at the unindexed end of the log cannot be attributed to an entity; `open` refuses [offset, 0]."""
    FULL: int
    """No space [errno or LMDB code, map size in bytes]."""
    QUEUE: int
    """Too much gathered behind the running flush [bytes, appends]."""
    BROKEN: int
    """A flush failed [errno or LMDB code, 0]."""
    TOO_LARGE: int
    """[bytes, allowed]."""
    ENTITY: int
    """Entity id empty or too long [bytes, allowed]."""
    CLOSED: int
    FORMAT: int
    """Unknown format [found, known]."""
    STORE: int
    """LMDB refused [code, 0]."""
    HAS_VALUE: int
    """The entity keeps a value, events cannot be appended [sequence asked for, version]."""
    HAS_EVENTS: int
    """The entity keeps events, a value cannot be put [version asked for, last sequence]."""
    OTHER_SHARDS: int
    """Claimed with another number of shards than the store was made for [stored, asked for]."""

Explain = Callable[[int, str | None, int, int], Exception]

class Log:
    appends: int
    events: int
    values: int
    batches_total: int
    batch_size_last: int
    batch_size_max: int
    flush_seconds: float
    batch_sizes: tuple[list[float], list[int]]
    """Bounds and counts of the batches by their appends; one count more than there are bounds."""
    flush_times: tuple[list[float], list[int]]
    """The same by the seconds from the hand-over to the commit."""
    used_bytes: int
    """Of the map: all pages that were ever written."""
    stored_offset: int
    """Behind the last record that was stored."""
    queue_bytes_now: int
    map_size: int
    identity: str
    """Random name of the store, made with it."""
    state: int
    """0 writable, 1 full, 2 broken."""
    opened: bool
    tail_size: int
    """Entities with records that the index may not have yet."""
    on_events: Callable[[], None] | None
    """Called after the appends of a batch were answered, if events were among them."""
    def __init__(
        self,
        path: str,
        *,
        explain: Explain,
        error_type: type[Exception],
        on_broken: Callable[[Exception], None] | None,
        durability: int,
        map_size: int,
        map_size_max: int,
        queue_bytes: int,
        queue_appends: int,
        record_bytes: int,
        tail_appends: int,
        head_cache: int,
        probe_interval: float,
    ) -> None: ...
    def open(self, loop: asyncio.AbstractEventLoop) -> None: ...
    async def close(self) -> None: ...
    epoch: int
    """Of the latest claim; 0: none. What is appended under epoch 0 is appended under this."""
    def claim(self, number_of_shards: int) -> int:
        """Raise the store's epoch, durably. Appends under a lower one are refused from now on."""
    def load(self, entity: str) -> tuple[int, int, bytes | None]:
        """Last sequence, snapshot sequence, snapshot; of a value: version, version, value or None (deleted)."""
    def read(self, entity: str, from_sequence: int, max_bytes: int) -> tuple[list[bytes], bool]:
        """Events, and whether there are more."""
    def read_log(
        self, prefix: str, from_offset: int, limit: int, max_bytes: int
    ) -> tuple[list[tuple[int, str, int, bytes]], int, bool]:
        """Events of all entities whose id begins with `prefix`, in the order of the log: (offset, entity, sequence,
        event) each; the offset to go on from; and whether that is before the end of the log."""
    def entities(self, prefix: str, after: str, limit: int) -> list[str]:
        """Ids of entities that begin with `prefix`, those behind `after` in the order of the index ("": all)."""
    def append(
        self, entity: str, first_sequence: int, events: Sequence[bytes], snapshot: bytes | None, waiter: Any, epoch: int
    ) -> None: ...
    def put(
        self, entity: str, version: int, value: bytes | None, waiter: Any, epoch: int, gap_allowed: bool = False
    ) -> None:
        """Store a value in place of the one before. `gap_allowed`: any higher version will do, not just the next."""
    def fail_next_flush(self, code: int) -> None:
        """For tests: the next commit or background sync fails with this errno."""

def error_text(code: int) -> str:
    """What an errno or LMDB code means."""
