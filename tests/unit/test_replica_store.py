"""The store of replicas on a journal: what is written, when, what is read again, and what is kept in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
import uvloop

from stateside._speedups.crdt import GCOUNTER, GSET, LWWREGISTER, ORSET, Bounds, Malformed, State
from stateside.journal import open_journal
from stateside.journal.contract import Corrupt, Durability, Journal, JournalError
from stateside.journal.memory import MemoryJournal
from stateside.proxy.replica_log import COVERED, PREFIX, Origin
from stateside.proxy.replica_store import Entry, ReplicaStore
from stateside.proxy.tickets import Ticket
from tests.helpers.journal import append, load, read_all

Scenario = Callable[[Journal], Awaitable[None]]
KEY = "key"


@pytest.fixture(params=["memory:", "lmdb:"])
def check(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Scenario], None]:
    """Runs a scenario on an open journal."""
    url = request.param if request.param == "memory:" else f"lmdb:{tmp_path / 'journal'}"

    async def play(scenario: Scenario) -> None:
        journal = open_journal(url, Durability.NONE)  # the order of things is the same without flushes
        await journal.open()
        await scenario(journal)
        await journal.close()

    return lambda scenario: uvloop.run(play(scenario))


class Store(ReplicaStore):
    """With answers that can be awaited, and what peers would be told."""

    def __init__(self, journal: Journal, replica: int = 1, **more: int) -> None:
        self.told: list[tuple[str, bytes | None]] = []
        origin = Origin(replica, 100 + replica, Bounds(max_state_size=1 << 20))
        super().__init__(journal, origin, lambda key, delta: self.told.append((key, delta)), **more)

    def entry(self, key: str = KEY) -> Entry:
        """Loaded at once, as these journals do."""
        found: list[Entry | None] = []
        self.get(key, lambda entry, error: found.append(entry))
        assert found[0] is not None
        return found[0]

    def state(self, kind: int, key: str = KEY) -> State:
        entry = self.entry(key)
        return entry.state or self.create(entry, kind)

    async def done(self, ask: Callable[[Ticket], None], one: bool = False) -> None:
        """one: `ask` finishes the ticket once, without having begun anything."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def settle(error: Exception | None) -> None:
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

        ticket = Ticket(settle)
        ask(ticket)
        if not one:
            ticket.release()
        await future

    async def write(self, key: str = KEY) -> None:
        entry = self.entry(key)
        await self.done(lambda ticket: self.write_now(entry, ticket), one=True)

    def write_now(self, entry: Entry, ticket: Ticket) -> None:
        ReplicaStore.write(self, entry, ticket)

    async def merge_all(self, *data: bytes, key: str = KEY) -> None:
        await self.done(lambda ticket: [self.merge(key, one, ticket) for one in data] and None)

    async def full_state(self, key: str = KEY) -> bytes | None:
        future: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self.full(key, future.set_result)
        return await future


def foreign(kind: int, change: Callable[[State], object], replica: int = 9) -> bytes:
    state = State(kind, replica)
    change(state)
    return state.take_delta()


def added(text: bytes) -> bytes:
    return b"\x12" + bytes((len(text),)) + text


def test_all_changes_of_a_key_in_one_turn_are_one_event_and_one_delta(check) -> None:
    async def scenario(journal: Journal) -> None:
        store = Store(journal)
        state = store.state(GCOUNTER)
        asked = []
        for _ in range(50):
            state.increment()
            asked.append(store.write())
        await asyncio.gather(*asked)
        assert len(await read_all(journal, PREFIX + KEY)) == 1
        assert len(store.told) == 1
        assert State.decode(store.told[0][1] or b"", 5).value() == 50

    check(scenario)


def test_what_is_stored_is_read_again(check) -> None:
    async def scenario(journal: Journal) -> None:
        store = Store(journal)
        for number in range(5):
            store.state(ORSET).add(added(b"%d" % number))
            await store.write()
            await store.merge_all(foreign(ORSET, lambda state: state.add(added(b"foreign"))))
        again = Store(journal)
        assert again.state(ORSET).digest() == store.state(ORSET).digest()
        assert again.index.sums() == store.index.sums()
        again.state(ORSET).add(added(b"5"))  # dots go on where they ended
        await again.write()
        assert len(again.state(ORSET).value()) == 7

    check(scenario)


def test_peers_are_told_only_what_is_durable_and_get_whole_states_only_from_such_moments(check) -> None:
    async def scenario(journal: Journal) -> None:
        store = Store(journal)
        state = store.state(GCOUNTER)
        state.increment(1)
        writing = asyncio.ensure_future(store.write())
        await asyncio.sleep(0)
        state.increment(10)  # not even asked to be written, and yet in the state
        full = await store.full_state()
        assert full is not None
        durable = Store(journal).state(GCOUNTER).value()
        assert State.decode(full, 5).value() <= durable
        await writing
        assert sum(State.decode(delta or b"", 5).value() for _, delta in store.told[-1:]) == durable == 11

    check(scenario)


def test_snapshots_keep_replay_short_and_writes_cheap(check) -> None:
    async def scenario(journal: Journal) -> None:
        store = Store(journal)
        written: list[int] = []
        append, journal.append = journal.append, lambda *args: (written.append(sizes(*args)), append(*args))  # type: ignore[method-assign]
        for number in range(700):
            store.state(GSET).add(added(b"%0120d" % number))
            await store.write()
        head = await load(journal, PREFIX + KEY)
        assert head.snapshot is not None
        behind = await read_all(journal, PREFIX + KEY, head.snapshot_sequence + 1)
        assert sum(map(len, behind)) <= max(64 * 1024, len(head.snapshot))
        assert sum(written) < 3 * 700 * 160
        assert len(Store(journal).state(GSET).value()) == 700

    def sizes(entity: str, first: int, events: list[bytes], snapshot: bytes | None, *_: object) -> int:
        return sum(map(len, events)) + len(snapshot or b"")

    check(scenario)


def test_a_tombstone_stays_and_absorbs(check) -> None:
    async def scenario(journal: Journal) -> None:
        store = Store(journal)
        store.state(GCOUNTER).increment()
        await store.write()
        entry = store.entry()
        await store.done(partial(store.delete, entry), one=True)
        assert (entry.state, entry.deleted, store.told[-1]) == (None, True, (KEY, None))
        await store.merge_all(foreign(GCOUNTER, State.increment))
        await store.done(partial(store.merge_tombstone, KEY))
        await store.write()
        again = Store(journal)
        assert (again.entry().state, again.entry().deleted) == (None, True)
        assert await again.full_state() is None
        assert len(store.told) == 2

    check(scenario)


def test_the_lower_type_wins_in_memory_and_when_it_is_read_again(check) -> None:
    async def scenario(journal: Journal) -> None:
        store = Store(journal)
        await store.merge_all(foreign(LWWREGISTER, lambda state: state.set(added(b"x"), 1)))
        await store.merge_all(foreign(GSET, lambda state: state.add(added(b"x"))))
        await store.merge_all(foreign(ORSET, lambda state: state.add(added(b"y"))))
        for each in (store, Store(journal)):
            assert each.state(GSET).value() == {added(b"x")}
        assert store.clashes == 2

    check(scenario)


@pytest.mark.parametrize("data", [b"", b"\xff" * 20, b"garbage"])
def test_a_malformed_change_of_a_peer_leaves_the_state_and_the_journal_untouched(check, data: bytes) -> None:
    async def scenario(journal: Journal) -> None:
        store = Store(journal)
        good = foreign(GCOUNTER, State.increment)
        with pytest.raises(Malformed):
            await store.merge_all(good, data)
        await store.merge_all(good)
        assert store.state(GCOUNTER).value() == 1
        with pytest.raises(Malformed):
            await store.merge_all(data, key="unknown")
        assert list(store.known()) == [KEY]

    check(scenario)


def test_what_nobody_uses_is_forgotten_when_there_is_no_room(check) -> None:
    async def scenario(journal: Journal) -> None:
        store = Store(journal, cache_bytes=20_000)
        pinned = store.entry("pinned")
        pinned.watcher = object()  # type: ignore[assignment]
        for number in range(200):
            await store.merge_all(foreign(GSET, lambda state: state.add(added(b"x" * 100))), key=str(number))
        assert store.cached_bytes <= 20_000
        assert store.index.count == 200
        assert store.entry("pinned") is pinned
        assert store.state(GSET, "0").value() == {added(b"x" * 100)}

    check(scenario)


@pytest.mark.parametrize(
    ("events", "snapshot"),
    [([b"\x01garbage"], None), ([b"\x09"], None), ([COVERED], None), ([COVERED], b"\x01no state"), ([b""], b"?")],
)
def test_a_key_that_cannot_be_read_is_an_error_for_that_key_only(check, events, snapshot) -> None:
    async def scenario(journal: Journal) -> None:
        await append(journal, PREFIX + "broken", 1, *events, snapshot=snapshot)
        store = Store(journal)
        errors: list[JournalError | None] = []
        store.get("broken", lambda entry, error: errors.append(error))
        assert isinstance(errors[0], Corrupt)
        await store.merge_all(foreign(GCOUNTER, State.increment), key="broken")  # others must not wait for it
        await store.merge_all(foreign(GCOUNTER, State.increment))
        assert store.state(GCOUNTER).value() == 1

    check(scenario)


def test_a_barrier_waits_for_everything_that_is_under_way(check) -> None:
    async def scenario(journal: Journal) -> None:
        store = Store(journal)
        asked = []
        for number in range(20):
            store.state(GCOUNTER, str(number)).increment()
            asked.append(asyncio.ensure_future(store.write(str(number))))
        await asyncio.sleep(0)
        waiting = asyncio.get_running_loop().create_future()
        store.barrier(Ticket(waiting.set_result))
        await waiting
        assert store.index.count == 20
        heads = [await load(journal, PREFIX + str(number)) for number in range(20)]
        assert [head.last_sequence for head in heads] == [1] * 20
        await asyncio.gather(*asked)

    check(scenario)


def test_a_watcher_hears_of_what_comes_while_further_changes_wait_for_the_journal(check) -> None:
    class Watcher:
        seen = 0

        def on_changed(self) -> None:
            self.seen = entry.state.value()

    async def scenario(journal: Journal) -> None:
        nonlocal entry
        store = Store(journal)
        state = store.state(GCOUNTER)
        entry = store.entry()
        watcher = entry.watcher = Watcher()
        asked = []
        for _ in range(2):  # the first on its way to the journal, the second behind it
            state.increment()
            asked.append(asyncio.ensure_future(store.write()))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        await store.merge_all(foreign(GCOUNTER, lambda other: other.increment(40)))
        await asyncio.gather(*asked)
        assert watcher.seen == 42

    entry: Entry
    check(scenario)


def test_a_departed_replica_is_pruned_from_states_that_name_it(check) -> None:
    async def scenario(journal: Journal) -> None:
        store = Store(journal)
        await store.merge_all(foreign(GCOUNTER, partial(State.increment, amount=5), replica=9))
        await store.merge_all(foreign(GCOUNTER, State.increment, replica=8), key="other")
        for key in (KEY, "other"):
            await store.done(partial(store.prune, key, 9))
        for each in (store, Store(journal)):
            state = each.state(GCOUNTER)
            assert state.value() == 5
            assert 9 not in state.dump()[1]
        assert [key for key, _ in store.told] == [KEY]

    check(scenario)


def test_a_journal_in_memory_does_not_grow_with_the_number_of_changes() -> None:
    async def scenario() -> None:
        journal = MemoryJournal()
        await journal.open()
        store = Store(journal)
        sizes = []
        for _ in range(6):
            for _ in range(1500):
                store.state(GCOUNTER).increment()
                await store.write()
            sizes.append(journal.size_bytes)
        assert max(sizes) < 100_000
        assert Store(journal).state(GCOUNTER).value() == 9000
        await journal.close()

    uvloop.run(scenario())


def test_the_zero_of_a_type_from_a_peer_is_stored_also_where_it_was_made_and_not_written(check) -> None:
    async def scenario(journal: Journal) -> None:
        zero = State(GSET, 9).encode()
        store = Store(journal)
        store.state(GSET)
        await store.merge_all(zero)
        await store.merge_all(zero)
        assert list(store.known()) == [KEY]
        assert len(await read_all(journal, PREFIX + KEY)) == 1
        assert Store(journal).entry().state is not None

    check(scenario)
