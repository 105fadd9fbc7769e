"""What the journal keeps of a replicated key, and how a state is joined with what comes from a log or from a peer.

A key is an event sourced entity of the journal. An event is a byte that says whose change it is, and a delta; now and
then a snapshot with the whole state takes the place of all before it. Read again, the snapshot is joined with every
event behind it, in any order with the same result, for that is what a delta is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import NamedTuple

from stateside._speedups.crdt import Bounds, Malformed, State, kind_of
from stateside.journal.contract import Corrupt, Head, Journal, JournalError, Page
from stateside.journal.limits import CRDT_PREFIX

PREFIX = CRDT_PREFIX
"""Before the key in the journal. No entity of a user function begins with `|`."""

OWN = b"\x01"  # and a delta that was made here
MERGED = b"\x02"  # and a delta or state of another node
TOMBSTONE = b"\x03"
COVERED = b"\x04"  # nothing: the snapshot that was stored with it has all
STATE = b"\x01"  # first byte of a snapshot that is a state; of a tombstone it is TOMBSTONE

SNAPSHOT_BYTES = 64 * 1024  # of events at least, before a snapshot is worth it


class Joined(IntEnum):
    """What joining did to a state."""

    SAME = 0
    CHANGED = 1
    CLASHED = 2  # the other's type lost against ours (spec crdt K19)
    REPLACED = 3  # ours lost


class Origin(NamedTuple):
    """What states of this node are made with."""

    replica: int
    incarnation: int
    bounds: Bounds

    def zero(self, kind: int) -> State:
        return State(kind, self.replica, self.incarnation, self.bounds)

    def decode(self, data: bytes) -> State:
        """Malformed when it is none."""
        return State.decode(data, self.replica, self.incarnation, self.bounds)


def join(state: State | None, data: bytes, origin: Origin) -> tuple[State, Joined]:
    """`state` joined with a delta or state of another node. Of two types the lower number wins, everywhere alike.
    Malformed: `state` is what it was."""
    kind = kind_of(data)
    if state is None:
        return origin.decode(data), Joined.CHANGED
    if kind == state.kind:
        return state, Joined.CHANGED if state.merge(data) else Joined.SAME
    if kind > state.kind:
        return state, Joined.CLASHED
    return origin.decode(data), Joined.REPLACED


def wants_snapshot(event_bytes: int, state_bytes: int) -> bool:
    """Whether so many bytes of events since the last snapshot are enough: a write costs O(its delta) in the mean, and a
    replay O(the state)."""
    return event_bytes > max(SNAPSHOT_BYTES, state_bytes // 2)


class Stored(NamedTuple):
    """A key as it was read."""

    state: State | None
    deleted: bool
    last_sequence: int
    event_bytes: int  # behind the snapshot


Done = Callable[[Stored | None, JournalError | None], None]


class Replay:
    """Reads one key from the journal; `done` gets it or the error, possibly from inside `start`."""

    def __init__(self, journal: Journal, key: str, origin: Origin, page_bytes: int, done: Done) -> None:
        self._journal = journal
        self._entity = PREFIX + key
        self._origin = origin
        self._page_bytes = page_bytes
        self._done = done
        self._state: State | None = None
        self._deleted = False
        self._last = 0
        self._bytes = 0

    def start(self) -> None:
        self._journal.load(self._entity, self)

    def on_loaded(self, head: Head | None, error: JournalError | None) -> None:
        if head is None:
            return self._fail(error)
        self._last = head.last_sequence
        try:
            self._take_snapshot(head.snapshot)
        except Malformed as malformed:
            return self._fail(Corrupt(f"{self._entity}: the snapshot is no state: {malformed}"))
        if self._deleted or head.snapshot_sequence == head.last_sequence:
            self._finish()
        else:
            self._read(head.snapshot_sequence + 1)

    def on_page(self, page: Page | None, error: JournalError | None) -> None:
        if page is None:
            return self._fail(error)
        try:
            self._take_events(page.events)
        except Malformed as malformed:
            where = f"behind sequence {page.first_sequence - 1}"
            return self._fail(Corrupt(f"{self._entity}: an event {where} is no delta: {malformed}"))
        if page.more and not self._deleted:
            self._read(page.first_sequence + len(page.events))
        else:
            self._finish()

    def on_appended(self, error: JournalError | None) -> None:
        raise AssertionError("nothing is appended here")

    def _read(self, sequence: int) -> None:
        self._journal.read(self._entity, sequence, self._page_bytes, self)

    def _take_snapshot(self, snapshot: bytes | None) -> None:
        if snapshot is None:
            return
        if snapshot[:1] == STATE:
            self._state = self._origin.decode(snapshot[1:])
        elif snapshot == TOMBSTONE:
            self._deleted = True
        else:
            raise Malformed(f"it begins with {snapshot[:1]!r}")

    def _take_events(self, events: Sequence[bytes]) -> None:
        for event in events:
            mark = event[:1]
            self._bytes += len(event)
            if mark in (OWN, MERGED):
                self._state, _ = join(self._state, event[1:], self._origin)
            elif event == TOMBSTONE:
                self._deleted = True
                return
            else:
                raise Malformed(f"it begins with {mark!r}")

    def _finish(self) -> None:
        state = None if self._deleted else self._state
        self._done(Stored(state, self._deleted, self._last, self._bytes), None)

    def _fail(self, error: JournalError | None) -> None:
        self._done(None, error or JournalError(f"{self._entity}: the journal did not answer"))


class Listing:
    """One page of the keys of a journal, to be awaited."""

    def __init__(self) -> None:
        self._page: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()

    async def after(self, journal: Journal, key: str, limit: int) -> list[str]:
        """Keys behind `key`; fewer than `limit`: there are no more. Raises JournalError."""
        journal.list_entities(PREFIX, PREFIX + key if key else "", limit, self)
        return [entity[len(PREFIX) :] for entity in await self._page]

    def on_entities(self, entities: list[str] | None, error: JournalError | None) -> None:
        if self._page.done():
            return
        if entities is None:
            self._page.set_exception(error or JournalError("the journal did not list its entities"))
        else:
            self._page.set_result(entities)
