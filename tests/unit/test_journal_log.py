"""The log over all entities (`read_log`, `watch`) and the offsets of its consumers, checked against each store."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from stateside.journal import open_journal
from stateside.journal.contract import Corrupt, Durability, Full, Journal, JournalError
from stateside.journal.lmdb import LmdbJournal, LmdbSettings
from stateside.journal.offsets import Position
from stateside.journal.postgres import PostgresJournal
from tests.helpers.journal import Answer, append, load, put, read_log, read_whole_log, run

Scenario = Callable[[Journal], Awaitable[None]]
STORES = ["memory:", "lmdb:", "postgres"]


@pytest.fixture(params=STORES)
def check(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Scenario], None]:
    """Runs a scenario on an open journal."""
    postgres = request.param == "postgres"
    settings = {"schema": request.getfixturevalue("postgres_schema")} if postgres else {}
    dsn = request.getfixturevalue("postgres_server").dsn if postgres else ""

    async def play(scenario: Scenario) -> None:
        url = request.param if request.param == "memory:" else f"lmdb:{tmp_path / 'journal'}"
        journal = open_journal(dsn or url, **settings)
        await journal.open()
        await scenario(journal)
        await journal.close()

    return lambda scenario: run(play(scenario))


def lmdb(path: Path, **settings: int) -> LmdbJournal:
    return LmdbJournal(path / "journal", Durability.NONE, LmdbSettings(**settings))


async def events_of(
    journal: Journal, prefix: str, from_offset: int = 0, limit: int = 1000
) -> list[tuple[str, int, bytes]]:
    return [tuple(entry[1:]) for entry in await read_whole_log(journal, prefix, from_offset, limit)]  # type: ignore[misc]


# --- reading ---------------------------------------------------------------------------------------------------------


def test_an_empty_log_has_one_empty_page(check):
    async def scenario(journal):
        page = await read_log(journal, "cart|")
        assert (page.entries, page.more) == ([], False)
        page = await read_log(journal, "cart|", 5 << 24)
        assert (page.entries, page.next_offset, page.more) == ([], 5 << 24, False)

    check(scenario)


def test_events_of_all_entities_of_a_prefix_come_in_the_order_of_the_appends(check):
    async def scenario(journal):
        await append(journal, "cart|1", 1, b"a", b"b")
        await append(journal, "cart|2", 1, b"c")
        await append(journal, "carts|3", 1, b"of another type")
        await append(journal, "cart|1", 3, b"d")
        assert await events_of(journal, "cart|") == [
            ("cart|1", 1, b"a"),
            ("cart|1", 2, b"b"),
            ("cart|2", 1, b"c"),
            ("cart|1", 3, b"d"),
        ]

    check(scenario)


def test_offsets_ascend_and_the_log_goes_on_behind_any_of_them(check):
    async def scenario(journal):
        for number in range(5):
            await append(journal, f"cart|{number}", 1, b"x", b"y", b"z")
            await append(journal, f"stock|{number}", 1, b"foreign")
        entries = await read_whole_log(journal, "cart|")
        offsets = [entry.offset for entry in entries]
        assert offsets == sorted(set(offsets))
        for index, entry in enumerate(entries):
            assert await read_whole_log(journal, "cart|", entry.offset) == entries[index:]
            assert await read_whole_log(journal, "cart|", entry.offset + 1) == entries[index + 1 :]

    check(scenario)


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
def test_pages_have_as_many_events_as_asked_for_and_join_without_gaps(check, limit):
    async def scenario(journal):
        choose = random.Random(7)
        lasts, expected = {}, []
        for number in range(60):
            entity = choose.choice(["cart|a", "cart|b", "stock|c"])
            events = [b"%d-%d" % (number, place) for place in range(choose.randint(1, 4))]
            first = lasts.get(entity, 0) + 1
            await append(journal, entity, first, *events)
            lasts[entity] = first + len(events) - 1
            if entity.startswith("cart|"):
                expected += [(entity, first + place, event) for place, event in enumerate(events)]
        assert len((await read_log(journal, "cart|", 0, limit)).entries) == limit
        assert await events_of(journal, "cart|", 0, limit) == expected

    check(scenario)


def test_values_and_snapshots_are_no_events_of_the_log(check):
    async def scenario(journal):
        await put(journal, "cart|value", 1, b"v")
        await append(journal, "cart|1", 1, b"a", snapshot=b"s")
        await append(journal, "cart|1", 2, snapshot=b"t")
        assert await events_of(journal, "cart|") == [("cart|1", 1, b"a")]

    check(scenario)


def test_one_read_looks_through_a_bounded_part_of_a_foreign_log(check):
    async def scenario(journal):
        answers = [Answer() for _ in range(2500)]
        for number, answer in enumerate(answers):
            journal.append("stock|1", number + 1, [b"x"], None, answer)
        await answers[-1].result()
        await append(journal, "cart|1", 1, b"a")
        if not isinstance(journal, PostgresJournal):  # which has an index to find its way
            page = await read_log(journal, "cart|")
            assert page.entries == [] and page.more
        assert await events_of(journal, "cart|") == [("cart|1", 1, b"a")]

    check(scenario)


def test_a_limit_of_nothing_is_refused(check):
    async def scenario(journal):
        with pytest.raises(ValueError, match="limit is 0"):
            await read_log(journal, "cart|", 0, 0)

    check(scenario)


def test_the_log_is_the_same_after_a_restart_and_goes_on_behind_it(tmp_path):
    async def scenario():
        journal = lmdb(tmp_path)
        await journal.open()
        await append(journal, "cart|1", 1, b"a", b"b")
        before = await read_whole_log(journal, "cart|")
        await journal.close()
        journal = lmdb(tmp_path)
        await journal.open()
        assert await read_whole_log(journal, "cart|") == before
        await append(journal, "cart|1", 3, b"c")
        assert [entry.event for entry in await read_whole_log(journal, "cart|", before[-1].offset + 1)] == [b"c"]
        await journal.close()

    run(scenario())


def test_damage_is_told_after_what_stands_before_it(tmp_path):
    async def scenario():
        journal = lmdb(tmp_path)
        await journal.open()
        await append(journal, "cart|1", 1, b"whole")
        await append(journal, "cart|2", 1, b"to be damaged")
        await journal.close()
        data = tmp_path / "journal" / "data.mdb"
        content = data.read_bytes()
        assert content.count(b"to be damaged") >= 1
        data.write_bytes(content.replace(b"to be damaged", b"to be dAmaged"))
        journal = lmdb(tmp_path)
        await journal.open()
        page = await read_log(journal, "cart|")
        assert [entry.event for entry in page.entries] == [b"whole"] and page.more
        with pytest.raises(Corrupt, match=r"cart\|2.*sequence 1"):
            await read_log(journal, "cart|", page.next_offset)
        assert await events_of(journal, "stock|") == []
        await journal.close()

    run(scenario())


# --- listeners -------------------------------------------------------------------------------------------------------


def test_a_listener_is_called_after_events_were_acknowledged_and_finds_them(check):
    async def scenario(journal):
        found = []

        def listen():
            was_answered = first.done.is_set()
            read = Answer(lambda read: found.append((was_answered, [entry.event for entry in read.value.entries])))
            journal.read_log("cart|", 0, 10, read)
            reads.append(read)

        reads: list[Answer] = []
        journal.watch(listen)
        first = Answer()
        journal.append("cart|1", 1, [b"a"], None, first)
        await first.result()
        await asyncio.sleep(0)
        await reads[0].done.wait()
        assert found == [(True, [b"a"])]
        journal.unwatch(listen)
        await append(journal, "cart|1", 2, b"b")
        assert len(found) == 1

    check(scenario)


def test_neither_values_nor_refused_appends_call_a_listener(check):
    async def scenario(journal):
        calls = []
        journal.watch(lambda: calls.append(1))
        await put(journal, "value|1", 1, b"v")
        with pytest.raises(JournalError):
            await append(journal, "cart|1", 5, b"out of order")
        await asyncio.sleep(0)
        assert calls == []

    check(scenario)


# --- offsets ---------------------------------------------------------------------------------------------------------


def test_an_offset_is_nothing_at_first_and_then_what_was_stored_last(check):
    async def scenario(journal):
        position = Position(journal, "group|cart")
        assert await position.load() == 0
        for offset in (5, 7 << 24, (7 << 24) + 3):
            position.store(offset)
        await position.flush()
        assert position.stored == (7 << 24) + 3
        assert await Position(journal, "group|cart").load() == (7 << 24) + 3
        assert await Position(journal, "other|cart").load() == 0

    check(scenario)


def test_of_offsets_that_come_during_a_write_only_the_last_is_written(check):
    async def scenario(journal):
        position = Position(journal, "group|cart")
        await position.load()
        for offset in range(1, 101):
            position.store(offset)
        await position.flush()
        assert (await load(journal, position.entity)).last_sequence == 2
        assert position.stored == 100

    check(scenario)


def test_an_offset_survives_a_restart_and_goes_on(tmp_path):
    async def scenario():
        for offset in (10, 20, 30):
            journal = lmdb(tmp_path)
            await journal.open()
            position = Position(journal, "group|cart")
            assert await position.load() == offset - 10
            position.store(offset)
            await position.flush()
            await journal.close()

    run(scenario())


def test_an_offset_that_could_not_be_stored_lags_until_the_next(tmp_path):
    async def scenario():
        journal = lmdb(tmp_path, probe_interval=0.01)  # type: ignore[arg-type]
        await journal.open()
        position = Position(journal, "group|cart")
        await position.load()
        position.store(1)
        await position.flush()
        journal.log.fail_next_flush(28)  # ENOSPC
        position.store(2)
        await position.flush()
        assert position.stored == 1
        with pytest.raises(Full):
            await append(journal, "cart|1", 1, b"refused")
        while not journal.writable:
            await asyncio.sleep(0.005)
        position.store(3)
        await position.flush()
        assert await Position(journal, "group|cart").load() == 3
        await journal.close()

    run(scenario())
