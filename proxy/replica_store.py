"""The replicas of this node in memory and in the journal: loading, joining, making durable, forgetting.

    write, merge, delete -> the entry is dirty -> end of the loop turn: one append of all its changes -> durable

Of a key at most one append is under way; what is changed meanwhile goes with the next one, so a hot key costs one event
per flush of the disk. Own changes are told to the peers when they are durable here, and a whole state only from a
moment at which everything in it was made durable: a node that comes back never makes a dot that somebody knows
already. An append that fails takes the state in memory with it; what the journal has is read again.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from functools import partial

from stateside._speedups.crdt import ORMAP, VOTE, Malformed, State
from stateside.journal.contract import Corrupt, Head, Journal, JournalError, Page
from stateside.proxy import logs
from stateside.proxy.replica_index import TOMBSTONE_DIGEST, KeyIndex
from stateside.proxy.replica_log import (
    COVERED,
    MERGED,
    OWN,
    PREFIX,
    STATE,
    TOMBSTONE,
    Joined,
    Origin,
    Replay,
    Stored,
    join,
    wants_snapshot,
)
from stateside.proxy.replicas import Watcher
from stateside.proxy.tickets import Ticket

ENTRY_BYTES = 600  # of memory for an entry beside its state, roughly

log = logs.get(__name__)

Opened = Callable[["Entry | None", JournalError | None], None]
Full = Callable[[bytes | None], None]


class Flight:
    """What waits for an append that is under way."""

    __slots__ = ("count", "covering", "full", "fulls", "own", "tickets", "tombstone")

    def __init__(self, tickets: list[Ticket], fulls: list[Full]) -> None:
        self.tickets = tickets
        self.fulls = fulls
        self.count = 0  # events
        self.covering = False  # with a snapshot of all before
        self.own = b""  # delta for the peers
        self.tombstone = False  # for the peers
        self.full: bytes | None = None  # for `fulls`


class Entry:
    """One key in memory: the `Replica` of its activation, and the waiter of its appends."""

    __slots__ = (
        "asked",
        "changed",
        "deleted",
        "deleted_here",
        "event_bytes",
        "flight",
        "fresh",
        "fulls",
        "gone",
        "key",
        "loading",
        "merged",
        "queued",
        "sequence",
        "session",
        "size",
        "state",
        "store",
        "tickets",
        "unstored_tombstone",
        "watcher",
    )

    def __init__(self, store: ReplicaStore, key: str) -> None:
        self.store = store
        self.key = key
        self.state: State | None = None
        self.deleted = False
        self.deleted_here = False  # the tombstone is still to be told to the peers
        self.unstored_tombstone = False
        self.fresh = False  # `state` was created here and never stored
        self.asked = False  # ... but is to be
        self.gone = False  # not in the store any more
        self.changed = False  # the watcher is to be told
        self.queued = False
        self.loading: list[Opened] | None = []  # None: loaded
        self.watcher: Watcher | None = None
        self.session = 0  # which opening this is
        self.sequence = 0
        self.event_bytes = 0
        self.merged: list[bytes] = []  # joined, and not given to the journal yet
        self.tickets: list[Ticket] = []
        self.fulls: list[Full] = []
        self.flight: Flight | None = None
        self.size = 0

    @property
    def busy(self) -> bool:
        return self.queued or self.flight is not None

    @property
    def pinned(self) -> bool:
        return self.busy or self.watcher is not None or self.loading is not None

    def on_appended(self, error: JournalError | None) -> None:
        self.store.on_appended(self, error)

    def on_loaded(self, head: Head | None, error: JournalError | None) -> None:
        raise AssertionError("a replay loads")

    def on_page(self, page: Page | None, error: JournalError | None) -> None:
        raise AssertionError("a replay reads")


class ReplicaStore:
    """All entries. `on_own(key, delta)` is called when a change made here is durable, with None for a tombstone."""

    def __init__(
        self,
        journal: Journal,
        origin: Origin,
        on_own: Callable[[str, bytes | None], None],
        cache_bytes: int = 1 << 28,
        page_bytes: int = 1 << 18,
    ) -> None:
        self.index = KeyIndex()
        self.cached_bytes = 0
        self.clashes = 0
        self.landed_own = False  # while tickets are finished: whether an own change was among what became durable
        self._journal = journal
        self._origin = origin
        self._on_own = on_own
        self._cache_bytes = cache_bytes
        self._page_bytes = page_bytes
        self._entries: dict[str, Entry] = {}
        self._idle: OrderedDict[str, Entry] = OrderedDict()  # not pinned, the longest unused first
        self._dirty: list[Entry] = []
        self._busy: set[Entry] = set()
        self._voters: tuple[frozenset[int], int] | None = None

    # --- what is asked for ---------------------------------------------------------------------------------------

    def get(self, key: str, done: Opened) -> None:
        """Load the entry, if it is not in memory; `done` may be called from inside. Pin it or `settle` it then."""
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = Entry(self, key)
            assert entry.loading is not None
            entry.loading.append(done)
            replay = Replay(self._journal, key, self._origin, self._page_bytes, lambda *got: self._loaded(entry, *got))
            replay.start()
        elif entry.loading is not None:
            entry.loading.append(done)
        else:
            self._idle.pop(key, None)
            done(entry, None)

    def create(self, entry: Entry, kind: int) -> State:
        state = self.zero(kind)
        entry.fresh, entry.asked = True, False
        self._adopt(entry, state)
        return state

    def zero(self, kind: int) -> State:
        """A state of no key, as this node makes them."""
        return self._origin.zero(kind)

    def write(self, entry: Entry, ticket: Ticket) -> None:
        """Make own changes durable. The ticket is finished later, never from inside."""
        entry.asked = True
        self._wait(entry, ticket)

    def merge(self, key: str, data: bytes, ticket: Ticket) -> None:
        """Join what a peer sent; the ticket is finished when it is durable, with Malformed or the journal's error."""
        ticket.begin()
        self.get(key, lambda entry, error: self._merge(entry, error, data, ticket))

    def delete(self, entry: Entry, ticket: Ticket) -> None:
        """A tombstone made here."""
        if not entry.deleted:
            entry.deleted_here = True
            self._bury(entry)
        self._wait(entry, ticket)

    def merge_tombstone(self, key: str, ticket: Ticket) -> None:
        ticket.begin()
        self.get(key, lambda entry, error: self._merge_tombstone(entry, error, ticket))

    def full(self, key: str, done: Full) -> None:
        """The whole state, all of it durable; None: there is none, or a tombstone, or it cannot be read."""
        self.get(key, lambda entry, error: self._full(entry, done))

    def prune(self, key: str, gone: int, ticket: Ticket) -> None:
        """Take the part of a replica that left for good over. The ticket is finished when that is durable."""
        ticket.begin()
        self.get(key, lambda entry, error: self._prune(entry, error, gone, ticket))

    def barrier(self, ticket: Ticket) -> None:
        """Finish the ticket when everything that is changed now is durable."""
        for entry in list(self._busy):
            ticket.begin()
            self._wait(entry, ticket)
        ticket.release()

    def settle(self, entry: Entry) -> None:
        """Whoever asked for the entry needs it no longer: it may be forgotten when there is no room."""
        if entry.gone:
            return
        size = ENTRY_BYTES + (entry.state.size if entry.state is not None else 0)
        self.cached_bytes += size - entry.size
        entry.size = size
        if not entry.pinned:
            self._idle[entry.key] = entry
            self._idle.move_to_end(entry.key)
        while self.cached_bytes > self._cache_bytes and self._idle:
            self._forget(self._idle.popitem(last=False)[1])

    def set_voters(self, incarnations: Collection[int], absent: int) -> None:
        """Membership changed."""
        self._voters = (frozenset(incarnations), absent)
        for entry in list(self._entries.values()):
            if entry.state is not None and self.seat(entry.state) and entry.watcher is not None:
                entry.changed = True
                self._touch(entry)

    @property
    def idle(self) -> bool:
        """Nothing waits for the journal."""
        return not self._busy

    # --- loading -------------------------------------------------------------------------------------------------

    def _loaded(self, entry: Entry, stored: Stored | None, error: JournalError | None) -> None:
        waiting, entry.loading = entry.loading or [], None
        if stored is None:
            log.error("a replica cannot be read", key=entry.key, error=str(error))
            self._forget(entry)
            for done in waiting:
                done(None, error)
            return
        entry.deleted, entry.sequence, entry.event_bytes = stored.deleted, stored.last_sequence, stored.event_bytes
        if stored.state is not None:
            self._adopt(entry, stored.state)
        if entry.sequence:
            self._note(entry)
        else:
            self.index.discard(entry.key)
        for done in waiting:
            done(entry, None)

    def _adopt(self, entry: Entry, state: State) -> None:
        entry.state = state
        self.seat(state)

    def seat(self, state: State) -> bool:
        """Tell a state who votes; whether that makes a difference."""
        if self._voters is None or state.kind not in (VOTE, ORMAP):
            return False
        return state.set_members(*self._voters)

    def _note(self, entry: Entry) -> None:
        if entry.deleted:
            self.index.set(entry.key, TOMBSTONE_DIGEST)
        elif entry.state is not None:
            self.index.set(entry.key, entry.state.digest())

    def _forget(self, entry: Entry) -> None:
        entry.gone = True
        self.cached_bytes -= entry.size
        self._busy.discard(entry)
        self._idle.pop(entry.key, None)
        if self._entries.get(entry.key) is entry:
            del self._entries[entry.key]

    # --- joining -------------------------------------------------------------------------------------------------

    def _merge(self, entry: Entry | None, error: JournalError | None, data: bytes, ticket: Ticket) -> None:
        if entry is None:
            return ticket.finish(None if isinstance(error, Corrupt) else error)
        if entry.deleted:
            return self._wait_if_busy(entry, ticket)
        try:
            joined = self._join(entry, data)
        except Malformed as malformed:
            self.settle(entry)
            return ticket.finish(malformed)
        if joined is Joined.SAME and not (entry.sequence or entry.busy):
            joined = Joined.CHANGED  # the zero of a type, that only now exists for others
        if joined in (Joined.SAME, Joined.CLASHED):
            self.clashes += joined is Joined.CLASHED
            return self._wait_if_busy(entry, ticket)
        entry.merged.append(data)
        entry.changed = True
        self._wait(entry, ticket)
        if joined is Joined.REPLACED:
            self.clashes += 1
            self._lose(entry, f"{entry.key}: another node has this key with another type, which wins")

    def _join(self, entry: Entry, data: bytes) -> Joined:
        base = entry.state
        if base is not None and entry.fresh and not entry.asked:
            # Nobody knows of this state yet, and nobody shall have to yield to its type.
            other, joined = join(None, data, self._origin)
            entry.fresh = False
            if other.kind != base.kind:
                self._adopt(entry, other)
                return Joined.REPLACED
        state, joined = join(base, data, self._origin)
        if state is not base:
            self._adopt(entry, state)
        return joined

    def _merge_tombstone(self, entry: Entry | None, error: JournalError | None, ticket: Ticket) -> None:
        if entry is None:
            return ticket.finish(None if isinstance(error, Corrupt) else error)
        if entry.deleted:
            return self._wait_if_busy(entry, ticket)
        self._bury(entry)
        self._wait(entry, ticket)
        if entry.watcher is not None:
            _tell(entry.watcher.on_deleted)

    def _bury(self, entry: Entry) -> None:
        entry.state, entry.deleted, entry.unstored_tombstone = None, True, True
        entry.fresh = entry.changed = False
        entry.merged = []

    def _prune(self, entry: Entry | None, error: JournalError | None, gone: int, ticket: Ticket) -> None:
        if entry is None:
            return ticket.finish(None if isinstance(error, Corrupt) else error)
        state = entry.state
        if state is None or not state.names(gone):
            return self._wait_if_busy(entry, ticket)
        state.prune(gone, self._origin.replica)
        self._wait(entry, ticket)

    def _full(self, entry: Entry | None, done: Full) -> None:
        if entry is None or entry.state is None:
            if entry is not None:
                self.settle(entry)
            return done(None)
        entry.fulls.append(done)
        self._touch(entry)

    def _lose(self, entry: Entry, text: str) -> None:
        watcher, entry.changed = entry.watcher, False
        if watcher is not None:
            _tell(partial(watcher.on_lost, text))

    # --- making durable ------------------------------------------------------------------------------------------

    def _wait_if_busy(self, entry: Entry, ticket: Ticket) -> None:
        """For what changed nothing: it may be a change that is not durable yet."""
        if entry.busy:
            return self._wait(entry, ticket)
        self.settle(entry)
        ticket.finish()

    def _wait(self, entry: Entry, ticket: Ticket) -> None:
        entry.tickets.append(ticket)
        self._touch(entry)

    def _touch(self, entry: Entry) -> None:
        if entry.queued:
            return
        entry.queued = True
        self._busy.add(entry)
        self._idle.pop(entry.key, None)
        if not self._dirty:
            asyncio.get_running_loop().call_soon(self._flush)
        self._dirty.append(entry)

    def _flush(self) -> None:
        """The end of a loop turn."""
        dirty, self._dirty = self._dirty, []
        for entry in dirty:
            self._tell_watcher(entry)
            if entry.flight is None:
                self._append(entry)

    def _tell_watcher(self, entry: Entry) -> None:
        if entry.changed:
            entry.changed = False
            if entry.watcher is not None:
                _tell(entry.watcher.on_changed)

    def _append(self, entry: Entry) -> None:
        entry.queued = False
        flight = Flight(entry.tickets, entry.fulls)
        entry.tickets, entry.fulls = [], []
        if entry.gone:
            self._busy.discard(entry)
            return self._answer(flight, JournalError(f"{entry.key}: the replica was lost; open it again"))
        entry.flight = flight
        events, snapshot = self._changes(entry, flight)
        if flight.fulls and entry.state is not None and not entry.fresh:
            flight.full = entry.state.encode()
        flight.count = len(events)
        if not events:
            return self._landed(entry, flight)
        flight.covering = snapshot is not None
        self._note(entry)
        self._journal.append(PREFIX + entry.key, entry.sequence + 1, events, snapshot, entry)

    def _changes(self, entry: Entry, flight: Flight) -> tuple[list[bytes], bytes | None]:
        """What the journal has not got yet, and a snapshot if it is due."""
        merged, entry.merged = entry.merged, []
        if entry.deleted:
            if not entry.unstored_tombstone:
                return [], None
            entry.unstored_tombstone = False
            flight.tombstone, entry.deleted_here = entry.deleted_here, False
            return [TOMBSTONE], TOMBSTONE
        state = entry.state
        if state is None:
            return [], None
        flight.own = self._take_own(entry, state)
        events = [MERGED + data for data in merged]
        if flight.own:
            events.append(OWN + flight.own)
        entry.event_bytes += sum(map(len, events))
        if not wants_snapshot(entry.event_bytes, state.size):
            return events, None
        entry.event_bytes = 0
        return [COVERED], STATE + state.encode()

    def _take_own(self, entry: Entry, state: State) -> bytes:
        own = state.take_delta()
        if entry.fresh and (entry.asked or own):
            entry.fresh = False
            return state.encode()  # also the zero of a type is something
        return own

    def on_appended(self, entry: Entry, error: JournalError | None) -> None:
        flight = entry.flight
        assert flight is not None
        if error is not None:
            return self._fail(entry, flight, error)
        entry.sequence += flight.count
        if flight.covering:
            self._journal.forget(PREFIX + entry.key, entry.sequence)
        self._landed(entry, flight)

    def _landed(self, entry: Entry, flight: Flight) -> None:
        """Durable: tell the peers, then whoever waits."""
        entry.flight = None
        self.landed_own = bool(flight.own) or flight.tombstone
        if self.landed_own:
            self._on_own(entry.key, None if flight.tombstone else flight.own)
        self._answer(flight, None)
        if entry.queued:
            self._tell_watcher(entry)  # of what came after the turn in which the entry was queued
            self._append(entry)
        elif entry.flight is None:
            self._busy.discard(entry)
            self.settle(entry)

    def _answer(self, flight: Flight, error: JournalError | None) -> None:
        for done in flight.fulls:
            _tell(partial(done, flight.full))
        for ticket in flight.tickets:
            _tell(partial(ticket.finish, error))

    def _fail(self, entry: Entry, flight: Flight, error: JournalError) -> None:
        """The journal refused: memory must not know more than it does."""
        log.error("a replica's changes were not stored; it is read again", key=entry.key, error=str(error))
        flight.full = None
        flight.tickets += entry.tickets
        flight.fulls += entry.fulls
        entry.tickets, entry.fulls, entry.merged, entry.flight = [], [], [], None
        self._forget(entry)
        self._answer(flight, error)
        self._lose(entry, f"{entry.key}: its changes were not stored: {error}")
        self.get(entry.key, self._reread)

    def _reread(self, entry: Entry | None, error: JournalError | None) -> None:
        if entry is not None:
            self.settle(entry)

    def known(self) -> Iterable[str]:
        return self.index.keys()


def _tell(callback: Callable[[], object]) -> None:
    """What one activation or peer makes of it must not keep it from others."""
    try:
        callback()
    except Exception as exception:
        report = {"message": "a replica's callback failed", "exception": exception}
        asyncio.get_running_loop().call_exception_handler(report)
