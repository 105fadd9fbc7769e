"""The LMDB store: what it keeps over restarts, what it notices, what it refuses and how it recovers."""

from __future__ import annotations

import asyncio
import errno
import json
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import lmdb
import pytest

from stateside.journal.contract import Broken, Corrupt, Durability, Full, Head, JournalError, SequenceTaken, TooLarge
from stateside.journal.format import index_key, pack_offset, parse_record, parse_snapshot
from stateside.journal.lmdb import LmdbJournal, LmdbSettings
from tests.helpers.journal import Answer, append, list_all, load, read_all, read_page, run

MIB = 1 << 20
SMALL_TAIL = LmdbSettings(tail_appends=4)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@asynccontextmanager
async def opened(path, settings=None, durability=Durability.NONE, on_broken=None):
    journal = LmdbJournal(path, durability, settings, on_broken)
    await journal.open()
    try:
        yield journal
    finally:
        await journal.close()


@contextmanager
def raw(path: Path) -> Iterator[lmdb.Environment]:
    """The environment as another program sees it, while no journal has it open."""
    with lmdb.open(str(path), max_dbs=8, map_size=64 * MIB) as environment:
        yield environment


def crash(path: Path, body: str) -> str:
    """Run `body`, a coroutine's body with an open `journal`, in a process that then ends without closing it."""
    script = textwrap.dedent(
        """
        import os, sys, errno, json, asyncio, resource, uvloop
        sys.path.insert(0, ".")
        from tests.helpers.journal import *
        from stateside.journal.contract import *
        from stateside.journal.lmdb import LmdbJournal, LmdbSettings
        async def main():
            path = sys.argv[1]
        {body}
            sys.stdout.flush()
            os._exit(0)
        uvloop.run(main())
        """
    ).format(body=textwrap.indent(textwrap.dedent(body), " " * 4))
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", script, str(path)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def damage(path: Path, needle: bytes, shift: int = 0) -> None:
    """Flip one bit of every copy of `needle` in the data file, `shift` bytes from its start."""
    file = path / "data.mdb"
    data = bytearray(file.read_bytes())
    places = [match.start() + shift for match in re.finditer(re.escape(needle), data)]
    assert places
    for place in places:
        data[place] ^= 0x10
    file.write_bytes(data)


# What is kept.


@pytest.mark.parametrize("durability", list(Durability))
def test_events_and_snapshots_are_there_after_a_restart(path, durability):
    async def scenario():
        async with opened(path, durability=durability) as journal:
            await append(journal, "cart", 1, b"a", b"b", snapshot=b"ab", epoch=7)
            await append(journal, "cart", 3, b"c", epoch=7)
        async with opened(path, durability=durability) as journal:
            assert await load(journal, "cart") == Head(3, 2, b"ab")
            assert await read_all(journal, "cart") == [b"a", b"b", b"c"]
            with pytest.raises(SequenceTaken):
                await append(journal, "cart", 3, b"again", epoch=7)
            with pytest.raises(JournalError, match="epoch 6"):
                await append(journal, "cart", 4, b"late", epoch=6)
            await append(journal, "cart", 4, b"d", epoch=7)

    run(scenario())


def test_reads_agree_with_appends_at_every_stage_of_the_lagging_index(path):
    async def scenario():
        async with opened(path, SMALL_TAIL) as journal:
            written: dict[str, list[bytes]] = {f"entity-{i}": [] for i in range(7)}
            for step in range(60):
                entity = f"entity-{step * step % 7}"
                events = [b"%d" % step] * (step % 3 + 1)
                await append(journal, entity, len(written[entity]) + 1, *events)
                written[entity] += events
                for name, expected in written.items():
                    assert await read_all(journal, name) == expected
                    assert (await load(journal, name)).last_sequence == len(expected)
            assert journal.log.tail_size <= 2 * 7

    run(scenario())


def test_entries_missing_in_the_index_are_found_again_after_a_crash(path):
    crash(
        path,
        """
        journal = LmdbJournal(path, Durability.DURABLE, LmdbSettings(tail_appends=5))
        await journal.open()
        for i in range(23):
            await append(journal, f"entity-{i % 3}", i // 3 + 1, b"%d" % i)
        """,
    )
    with raw(path) as environment, environment.begin() as txn:
        assert txn.stat(environment.open_db(b"index", txn, create=False))["entries"] < 23

    async def scenario():
        async with opened(path) as journal:
            for entity in range(3):
                expected = [b"%d" % i for i in range(23) if i % 3 == entity]
                assert await read_all(journal, f"entity-{entity}") == expected
            await append(journal, "entity-0", 9, b"more")
            assert (await read_all(journal, "entity-0", 8)) == [b"21", b"more"]

    run(scenario())


def test_closing_leaves_a_complete_index(path):
    async def scenario():
        async with opened(path) as journal:
            for i in range(10):
                await append(journal, "cart", i + 1, b"x")

    run(scenario())
    with raw(path) as environment, environment.begin() as txn:
        assert txn.stat(environment.open_db(b"index", txn, create=False))["entries"] == 10
        assert txn.get(b"indexed", db=environment.open_db(b"meta", txn, create=False)) == pack_offset(10)


def test_the_stored_bytes_are_what_the_format_says(path):
    async def scenario():
        async with opened(path) as journal:
            await append(journal, "wägen", 1, b"first", b"", snapshot=b"snap", epoch=5)
            await append(journal, "wägen", 3, b"third", epoch=5)

    run(scenario())
    with raw(path) as environment, environment.begin() as txn:
        log, index, snapshots = (
            environment.open_db(name, txn, create=False) for name in (b"log", b"index", b"snapshots")
        )
        record = parse_record(txn.get(pack_offset(0), db=log), 0)
        assert (record.entity, record.first_sequence, record.epoch, record.events) == ("wägen", 1, 5, [b"first", b""])
        assert txn.get(index_key("wägen", 3), db=index) == pack_offset(1)
        snapshot = parse_snapshot("wägen", txn.get("wägen".encode(), db=snapshots))
        assert (snapshot.sequence, snapshot.epoch, snapshot.payload) == (2, 5, b"snap")


def test_heads_that_left_the_cache_are_read_again_and_those_in_flight_never_leave_it(path):
    async def scenario():
        async with opened(path, LmdbSettings(head_cache=1)) as journal:
            answers = []
            for sequence in range(1, 4):
                for entity in range(20):
                    answers.append(Answer())
                    journal.append(f"entity-{entity}", sequence, [b"x"], None, answers[-1])
                await asyncio.sleep(0)
            for answer in answers:
                await answer.result()
            for entity in range(20):
                with pytest.raises(SequenceTaken):
                    await append(journal, f"entity-{entity}", 3, b"x")

    run(scenario())


# What is noticed.


async def store_two(path: Path) -> None:
    async with opened(path) as journal:
        await append(journal, "victim", 1, b"untouched")
        await append(journal, "victim", 2, b"marked-event-of-the-victim", snapshot=b"marked-snapshot")
        await append(journal, "victim", 3, b"behind")
        await append(journal, "other", 1, b"fine", snapshot=b"fine too")


async def assert_other_is_fine(journal: LmdbJournal) -> None:
    assert await read_all(journal, "other") == [b"fine"]
    assert await load(journal, "other") == Head(1, 1, b"fine too")
    await append(journal, "other", 2, b"still fine")


def test_a_damaged_event_is_reported_for_its_entity_and_sequence_only(path):
    async def scenario():
        await store_two(path)
        damage(path, b"marked-event-of-the-victim", 3)
        async with opened(path) as journal:
            with pytest.raises(Corrupt, match=r"victim.*sequence 2\b"):
                await read_all(journal, "victim")
            assert (await read_page(journal, "victim", 3)).events == [b"behind"]
            await assert_other_is_fine(journal)

    run(scenario())


@pytest.mark.parametrize("field", [0, 8, 12, 14, 16, 20, 28, 36])
def test_damage_in_any_field_of_a_record_is_noticed(path, field):
    async def scenario():
        await store_two(path)
        damage(path, b"marked-event-of-the-victim", field - (36 + len("victim") + 4))
        async with opened(path) as journal:
            with pytest.raises(Corrupt, match=r"victim.*sequence 2\b"):
                await read_all(journal, "victim")
            await assert_other_is_fine(journal)

    run(scenario())


def test_a_damaged_snapshot_is_reported_for_its_entity_only(path):
    async def scenario():
        await store_two(path)
        damage(path, b"marked-snapshot")
        async with opened(path) as journal:
            with pytest.raises(Corrupt, match=r"victim.*snapshot"):
                await load(journal, "victim")
            with pytest.raises(Corrupt, match="victim"):
                await append(journal, "victim", 4, b"on top of damage")
            await assert_other_is_fine(journal)

    run(scenario())


@pytest.mark.parametrize("database", [b"log", b"index"])
def test_a_record_that_vanished_is_reported_as_a_gap(path, database):
    async def scenario():
        await store_two(path)
        with raw(path) as environment, environment.begin(write=True) as txn:
            key = pack_offset(1) if database == b"log" else index_key("victim", 2)
            assert txn.delete(key, db=environment.open_db(database, txn, create=False))
        async with opened(path) as journal:
            with pytest.raises(Corrupt, match=r"victim.*sequence 2\b"):
                await read_all(journal, "victim")
            await assert_other_is_fine(journal)

    run(scenario())


def test_an_index_entry_that_points_to_another_entity_is_noticed(path):
    async def scenario():
        await store_two(path)
        with raw(path) as environment, environment.begin(write=True) as txn:
            txn.put(index_key("victim", 3), pack_offset(3), db=environment.open_db(b"index", txn, create=False))
        async with opened(path) as journal:
            with pytest.raises(Corrupt, match=r"victim.*sequence 3\b"):
                await load(journal, "victim")
            await assert_other_is_fine(journal)

    run(scenario())


STORE_AND_CRASH = """
    journal = LmdbJournal(path)
    await journal.open()
    await append(journal, "victim", 1, b"marked-event-of-the-victim")
    await append(journal, "other", 1, b"fine", snapshot=b"fine too")
"""


def test_a_damaged_event_at_the_unindexed_end_is_reported_for_its_entity_only(path):
    crash(path, STORE_AND_CRASH)
    damage(path, b"marked-event-of-the-victim")

    async def scenario():
        async with opened(path) as journal:
            with pytest.raises(Corrupt, match=r"victim.*sequence 1\b"):
                await read_all(journal, "victim")
            with pytest.raises(SequenceTaken):
                await append(journal, "victim", 1, b"over the damage")
            await assert_other_is_fine(journal)

    run(scenario())


def test_a_record_at_the_unindexed_end_that_belongs_to_nobody_keeps_the_journal_closed(path):
    crash(path, STORE_AND_CRASH)
    damage(path, b"marked-event-of-the-victim", -7)

    async def scenario():
        with pytest.raises(Corrupt, match=r"offset 0.*export"):
            async with opened(path):
                pass

    run(scenario())


# What is refused.


def test_a_second_writer_is_refused_and_told_who_has_the_journal(path):
    async def scenario():
        async with opened(path):
            with pytest.raises(JournalError, match=r"in use by process \d+"):
                async with opened(path):
                    pass
        async with opened(path) as journal:
            await append(journal, "cart", 1, b"a")

    run(scenario())


@pytest.mark.parametrize("version", [0, 2, 255])
def test_an_unknown_format_version_is_refused_with_what_to_do(path, version):
    async def scenario():
        async with opened(path):
            pass
        with raw(path) as environment, environment.begin(write=True) as txn:
            txn.put(b"format", pack_offset(version), db=environment.open_db(b"meta", txn, create=False))
        with pytest.raises(JournalError, match=f"version {version} is unknown.*knows version 1.*export"):
            async with opened(path):
                pass

    run(scenario())


def test_a_directory_with_something_else_in_it_is_refused(path):
    async def scenario():
        path.mkdir()
        (path / "data.mdb").write_bytes(b"not a journal" * 1000)
        with pytest.raises(JournalError, match="not a journal"):
            async with opened(path):
                pass
        (path / "data.mdb").unlink()
        async with opened(path):
            pass

    run(scenario())


def test_a_path_that_cannot_be_a_directory_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"")

    async def scenario():
        with pytest.raises(JournalError, match=r"file.*choose another"):
            async with opened(tmp_path / "file"):
                pass

    run(scenario())


def test_an_append_larger_than_the_bound_is_refused(path):
    async def scenario():
        async with opened(path, LmdbSettings(record_bytes=1000, queue_bytes=2000)) as journal:
            with pytest.raises(TooLarge, match=r"cart.*at most 1000"):
                await append(journal, "cart", 1, b"x" * 900, b"x" * 100)
            with pytest.raises(TooLarge):
                await append(journal, "cart", 1, b"x", snapshot=b"x" * 1000)
            await append(journal, "cart", 1, b"x" * 900)

    run(scenario())


@pytest.mark.parametrize(
    "settings", [LmdbSettings(queue_appends=10), LmdbSettings(queue_bytes=1600, record_bytes=1600)]
)
def test_appends_beyond_the_queue_are_refused_and_those_in_it_are_stored(path, settings):
    async def scenario():
        async with opened(path, settings) as journal:
            answers = [Answer() for _ in range(15)]
            for index, answer in enumerate(answers):
                journal.append(f"entity-{index}", 1, [b"x" * 100], None, answer)
            for answer in answers:
                await answer.done.wait()
            assert [answer.error for answer in answers[:10]] == [None] * 10
            assert all(isinstance(answer.error, Full) and "queue" in str(answer.error) for answer in answers[10:])
            await append(journal, "entity-14", 1, b"later there is room")

    run(scenario())


@pytest.mark.parametrize(
    "wrong",
    [
        {"map_size": 1},
        {"map_size": 2 * MIB, "map_size_max": MIB},
        {"record_bytes": 1 << 40},
        {"probe_interval": 0},
        {"head_cache": 0},
    ],
)
def test_impossible_settings_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LmdbSettings(**wrong)


# Growing, full, broken.


def test_the_map_grows_by_itself_while_entities_are_read(path):
    settings = LmdbSettings(map_size=MIB, map_size_max=64 * MIB)

    async def scenario():
        async with opened(path, settings) as journal:
            for i in range(100):
                await append(journal, "large", i + 1, bytes([i]) * 100_000)
                assert (await read_page(journal, "large", i + 1)).events == [bytes([i]) * 100_000]
            assert journal.log.map_size >= 16 * MIB
        async with opened(path, settings) as journal:
            assert await read_all(journal, "large") == [bytes([i]) * 100_000 for i in range(100)]

    run(scenario())


def test_a_map_at_its_maximum_refuses_appends_and_serves_reads(path):
    async def scenario():
        async with opened(path, LmdbSettings(map_size=MIB, map_size_max=2 * MIB, probe_interval=0.01)) as journal:
            stored = 0
            with pytest.raises(Full, match=r"large.*map_size_max"):
                while True:
                    await append(journal, "large", stored + 1, b"x" * 10_000)
                    stored += 1
            assert stored > 100
            assert not journal.writable
            with pytest.raises(Full):
                await append(journal, "large", stored + 1, b"x" * 10_000)
            assert (await load(journal, "large")).last_sequence == stored
            assert len(await read_all(journal, "large")) == stored
        async with opened(path) as journal:
            await append(journal, "large", stored + 1, b"x" * 10_000)

    run(scenario())


async def until(condition) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def test_a_full_disk_refuses_appends_serves_reads_and_recovers_without_restart(path):
    output = crash(
        path,
        """
        journal = LmdbJournal(path, Durability.DURABLE, LmdbSettings(probe_interval=0.02))
        await journal.open()
        resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 20, resource.RLIM_INFINITY))
        stored, error = 0, None
        while error is None:
            try:
                await append(journal, "cart", stored + 1, b"x" * 10_000)
                stored += 1
            except Full as full:
                error = str(full)
        full = journal.writable
        readable = len(await read_all(journal, "cart"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        async with asyncio.timeout(10):
            while not journal.writable:
                await asyncio.sleep(0.01)
        await append(journal, "cart", stored + 1, b"after")
        print(json.dumps([stored, error, full, readable, (await load(journal, "cart")).last_sequence]))
        """,
    )
    stored, error, writable, readable, last = json.loads(output)
    assert stored > 50
    assert "cart" in error and "File too large" in error
    assert not writable
    assert readable == stored
    assert last == stored + 1

    async def scenario():
        async with opened(path) as journal:
            assert await read_all(journal, "cart", stored + 1) == [b"after"]

    run(scenario())


def test_no_space_fails_all_appends_under_way_and_their_heads_are_read_again(path):
    async def scenario():
        async with opened(path, LmdbSettings(probe_interval=0.05), Durability.DURABLE) as journal:
            await append(journal, "cart", 1, b"a")
            journal.log.fail_next_flush(errno.ENOSPC)
            flying, gathering, other = Answer(), Answer(), Answer()
            journal.append("cart", 2, [b"lost"], b"lost", flying)
            await asyncio.sleep(0)
            journal.append("cart", 3, [b"lost too"], None, gathering)
            journal.append("other", 1, [b"lost too"], None, other)
            for answer in (flying, gathering, other):
                with pytest.raises(Full, match=r"No space left.*goes on by itself"):
                    await answer.result()
            assert not journal.writable
            assert await load(journal, "cart") == Head(1, 0, None)
            await until(lambda: journal.writable)
            await append(journal, "cart", 2, b"b")
            await append(journal, "other", 1, b"o")
            assert await read_all(journal, "cart") == [b"a", b"b"]

    run(scenario())


def test_a_failed_flush_breaks_the_journal_for_good(path):
    told = []

    async def scenario():
        async with opened(path, LmdbSettings(probe_interval=0.01), Durability.DURABLE, told.append) as journal:
            await append(journal, "cart", 1, b"a")
            journal.log.fail_next_flush(errno.EIO)
            flying, gathering = Answer(), Answer()
            journal.append("cart", 2, [b"lost"], None, flying)
            await asyncio.sleep(0)
            journal.append("other", 1, [b"lost"], None, gathering)
            for answer in (flying, gathering):
                with pytest.raises(Broken, match="flush failed: Input/output error"):
                    await answer.result()
            await asyncio.sleep(0.05)
            assert not journal.writable
            with pytest.raises(Broken):
                await append(journal, "cart", 2, b"again")
            assert await read_all(journal, "cart") == [b"a"]
        assert [type(error) for error in told] == [Broken]
        async with opened(path) as journal:
            assert await read_all(journal, "cart") == [b"a"]
            await append(journal, "cart", 2, b"b")

    run(scenario())


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_a_background_flush_that_fails_breaks_the_journal_even_without_appends(path, code):
    told = []

    async def scenario():
        async with opened(path, durability=Durability.RELAXED, on_broken=told.append) as journal:
            await append(journal, "cart", 1, b"a")
            journal.log.fail_next_flush(code)
            await until(lambda: told)
            assert not journal.writable
            with pytest.raises(Broken):
                await append(journal, "cart", 2, b"b")

    run(scenario())


def test_a_map_grown_by_another_process_is_taken_over(path):
    grow = """
        import sys, lmdb
        environment = lmdb.open(sys.argv[1], map_size=64 << 20, max_dbs=8)
        with environment.begin(write=True) as txn:
            txn.put(b"filler", b"x" * (8 << 20), db=environment.open_db(b"elsewhere", txn))
    """

    async def scenario():
        async with opened(path, LmdbSettings(map_size=MIB, map_size_max=64 * MIB)) as journal:
            for sequence in (1, 3):
                await append(journal, "cart", sequence, b"a", b"b")
            command = [sys.executable, "-c", textwrap.dedent(grow), str(path)]
            process = await asyncio.create_subprocess_exec(*command)
            assert await process.wait() == 0
            assert await read_all(journal, "cart") == [b"a", b"b", b"a", b"b"]
            await append(journal, "cart", 5, b"c")
            assert journal.log.map_size >= 8 * MIB

    run(scenario())


def test_a_journal_is_closed_once_and_for_all(path):
    async def scenario():
        journal = LmdbJournal(path)
        with pytest.raises(JournalError, match="not open"):
            await load(journal, "cart")
        await journal.open()
        answer = Answer()
        journal.append("cart", 1, [b"a"], None, answer)
        await asyncio.gather(journal.close(), journal.close())
        assert answer.error is None
        for attempt in (load(journal, "cart"), read_page(journal, "cart"), append(journal, "cart", 2, b"b")):
            with pytest.raises(JournalError, match="not open"):
                await attempt
        with pytest.raises(JournalError, match="make a new one"):
            await journal.open()

    run(scenario())


def test_the_counters_tell_what_was_done(path):
    async def scenario():
        async with opened(path, durability=Durability.DURABLE) as journal:
            answers = [Answer() for _ in range(30)]
            for index, answer in enumerate(answers):
                journal.append(f"entity-{index}", 1, [b"x", b"y"], None, answer)
            assert journal.log.queue_bytes_now > 30 * 36
            for answer in answers:
                await answer.result()
            log = journal.log
            assert (log.appends, log.events, log.batches_total, log.batch_size_max) == (30, 60, 1, 30)
            assert log.flush_seconds > 0
            assert log.queue_bytes_now == 0

    run(scenario())


def test_entities_are_listed_from_the_index_and_from_the_tails_and_after_a_restart(path):
    async def scenario():
        async with opened(path, SMALL_TAIL) as journal:
            for index in range(30):
                await append(journal, f"crdt|{index}", 1, b"event")
                await append(journal, f"cart|{index}", 1, b"event")
            await append(journal, "crdt|7", 2, b"event")
            assert 0 < journal.log.tail_size < 60
            expected = sorted(f"crdt|{index}" for index in range(30))
            assert sorted(await list_all(journal, "crdt|", 7)) == expected
        async with opened(path, SMALL_TAIL) as journal:
            assert sorted(await list_all(journal, "crdt|", 7)) == expected

    run(scenario())
