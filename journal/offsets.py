"""How far a consumer of the log has come, kept in the journal itself, in whatever store.

An offset is a value (`Journal.put`) of an entity that cannot be one of a user function: its id begins with `|`, behind
an empty persistence id. So offsets share the flushes of events, and cost no store anything of its own. They may lag
behind what was handled: consumers see events again after a crash, and never miss one.

When shards are moved to another log (journal/reshard.py), their events get offsets there at which consumers of that log
have not been, though they may have been handled before. Which those are is another value beside the offset: ranges to
skip.

An export leaves both out, because an import gives events new offsets; consumers then begin anew.
"""

from __future__ import annotations

import asyncio
import struct
from bisect import bisect_right

from stateside.journal.contract import Head, Journal, JournalError, Page

PREFIX = "|offset|"
SKIPPED = "|skip|"

Ranges = list[tuple[int, int]]
"""Of offsets, ascending: from the first, up to and without the second."""

_RANGE = struct.Struct(">QQ")


def encode_ranges(ranges: Ranges) -> bytes:
    return b"".join(_RANGE.pack(low, high) for low, high in ranges)


def decode_ranges(data: bytes) -> Ranges:
    """JournalError: it is none."""
    if len(data) % _RANGE.size:
        raise JournalError(f"ranges of offsets to skip have {len(data)} bytes, which is not possible")
    return list(_RANGE.iter_unpack(data))


class Position:
    """The stored offset of the consumer `name`: `load` it, then `store` as often as wanted. `skips` says which events
    behind it were handled all the same."""

    def __init__(self, journal: Journal, name: str) -> None:
        """name: together with PREFIX a possible entity id, see `journal.limits`."""
        self.journal = journal
        self.entity = PREFIX + name
        self._name = name
        self.stored = 0
        self._skipped: Ranges = []
        self._version = 0
        self._wanted: int | None = None  # to be stored when the put under way is done
        self._storing: asyncio.Future[None] | None = None
        self._loading: asyncio.Future[Head] | None = None

    async def load(self) -> int:
        """The offset, 0 if none was ever stored. Raises JournalError."""
        await self.flush()
        head = await self._load(self.entity)
        self._version = head.last_sequence
        self.stored = int.from_bytes(head.snapshot or b"", "big")
        skipped = await self._load(SKIPPED + self._name)
        self._skipped = [(low, high) for low, high in decode_ranges(skipped.snapshot or b"") if high > self.stored]
        return self.stored

    def skips(self, offset: int) -> bool:
        """Whether the event there was handled before it was moved into this log. To be asked of every event that is
        read, and answered with passing it as if it had been handled."""
        if not self._skipped:
            return False
        at = bisect_right(self._skipped, offset, key=lambda skipped: skipped[0])
        return at > 0 and offset < self._skipped[at - 1][1]

    async def _load(self, entity: str) -> Head:
        self._loading = asyncio.get_running_loop().create_future()
        self.journal.load(entity, self)
        return await self._loading

    def store(self, offset: int) -> None:
        """Store it soon. Of several wanted during one write, only the last is written. A failure is not told: the
        offset then lags until the next one is stored."""
        if self._storing is not None:
            self._wanted = offset
            return
        self._storing = asyncio.get_running_loop().create_future()
        self._version += 1
        self._offset = offset
        self.journal.put(self.entity, self._version, offset.to_bytes(8, "big"), self)

    async def flush(self) -> None:
        """Wait until nothing is being stored."""
        while self._storing is not None:
            await self._storing

    # --- the journal's answers ---------------------------------------------------------------------------------------

    def on_loaded(self, head: Head | None, error: JournalError | None) -> None:
        assert self._loading is not None
        if self._loading.cancelled():
            return
        if head is None:
            self._loading.set_exception(error or JournalError(f"{self.entity}: no answer"))
        else:
            self._loading.set_result(head)

    def on_appended(self, error: JournalError | None) -> None:
        done, self._storing = self._storing, None
        if error is None:
            self.stored = self._offset
        else:
            self._version -= 1
        if done is not None and not done.done():
            done.set_result(None)
        wanted, self._wanted = self._wanted, None
        if wanted is not None:
            self.store(wanted)

    def on_page(self, page: Page | None, error: JournalError | None) -> None:
        raise AssertionError("pages are not asked for here")
