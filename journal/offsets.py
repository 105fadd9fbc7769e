"""How far a consumer of the log has come, kept in the journal itself, in whatever store.

An offset is a value (`Journal.put`) of an entity that cannot be one of a user function: its id begins with `|`, behind
an empty persistence id. So offsets share the flushes of events, and cost no store anything of its own. They may lag
behind what was handled: consumers see events again after a crash, and never miss one.

An export leaves them out, because an import gives events new offsets; consumers then begin anew.
"""

from __future__ import annotations

import asyncio

from stateside.journal.contract import Head, Journal, JournalError, Page

PREFIX = "|offset|"


class Position:
    """The stored offset of the consumer `name`: `load` it, then `store` as often as wanted."""

    def __init__(self, journal: Journal, name: str) -> None:
        """name: together with PREFIX a possible entity id, see `journal.limits`."""
        self.journal = journal
        self.entity = PREFIX + name
        self.stored = 0
        self._version = 0
        self._wanted: int | None = None  # to be stored when the put under way is done
        self._storing: asyncio.Future[None] | None = None
        self._loading: asyncio.Future[Head] | None = None

    async def load(self) -> int:
        """The offset, 0 if none was ever stored. Raises JournalError."""
        await self.flush()
        self._loading = asyncio.get_running_loop().create_future()
        self.journal.load(self.entity, self)
        head = await self._loading
        self._version = head.last_sequence
        self.stored = int.from_bytes(head.snapshot or b"", "big")
        return self.stored

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
