"""Replication of LMDB logs to a real Postgres: all arrives, once, whatever breaks, and a proxy can start there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import asyncpg
import pytest
import uvloop

from stateside.journal import postgres_standby
from stateside.journal.contract import Durability, JournalError
from stateside.journal.lmdb import LmdbJournal, LmdbSettings
from stateside.journal.offsets import Position
from stateside.journal.postgres import PostgresJournal, PostgresSettings
from stateside.journal.postgres_schema import MIGRATIONS, quoted
from tests.helpers.journal import Answer, append, load, put, read_log, read_whole_log
from tests.helpers.postgres import PostgresServer
from tests.helpers.relay import Relay
from tests.helpers.standby import (
    contents,
    replicating,
    shipped,
    standby_contents,
    until,
)

ANSWERS = 24  # of Postgres, from the connection to behind the first commits


@pytest.fixture(scope="module")
def mortal() -> Iterator[PostgresServer]:
    """A server of its own that waits for the disk, to be killed."""
    server = PostgresServer().start()
    yield server
    server.remove()


def store_in(server: PostgresServer, schema: str) -> PostgresJournal:
    return PostgresJournal(server.dsn, settings=PostgresSettings(schema=schema))


def local(path: Path, **settings: int) -> LmdbJournal:
    return LmdbJournal(path, Durability.NONE, LmdbSettings(**settings))  # type: ignore[arg-type]


async def fill(journal: LmdbJournal, turn: int = 0) -> None:
    """Some of everything that a journal holds."""
    for number in range(20):
        events = [b"%d-%d-%d" % (turn, number, each) for each in range(number % 3 + 1)]
        first = turn * len(events) + 1
        snapshot = b"snapshot %d" % turn if number % 5 == 0 else None
        await append(journal, f"cart|{number}", first, *events, snapshot=snapshot, epoch=turn + 1)
        await put(journal, f"value|{number}", turn + 1, None if number == turn else b"value %d" % turn)
    await append(journal, "cart|ключ\0", turn + 1, b"")
    await append(journal, "|crdt|key", turn + 1, b"delta %d" % turn, snapshot=b"state" if turn % 2 else None)
    await put(journal, "|node|", turn + 1, b"whose it is")


def test_events_snapshots_values_and_deletions_arrive_as_they_are(
    postgres_server: PostgresServer, postgres_schema: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        journal = local(tmp_path)
        await journal.open()
        await fill(journal)
        async with replicating([tmp_path], postgres_server.dsn, postgres_schema) as replicator:
            for turn in range(1, 4):
                await fill(journal, turn)
                await shipped(replicator, journal)
                here = await contents(journal)
                assert await standby_contents(postgres_server.dsn, postgres_schema) == here
        assert replicator.events == journal.log.events
        store = store_in(postgres_server, postgres_schema)
        await store.open()
        assert await contents(store) == here
        assert (await load(store, "|node|")).last_sequence == 0, "another journal belongs to another node"
        await append(store, "cart|1", here["cart|1"].last + 1, b"goes on", epoch=await store.claim(range(8), 8))
        await store.close()
        await journal.close()

    uvloop.run(scenario())


def test_logs_of_several_workers_that_come_later_go_into_one_schema(
    postgres_server: PostgresServer, postgres_schema: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        folders = [tmp_path, tmp_path / "worker-1"]
        journals = [local(folder) for folder in folders]
        async with replicating(folders, postgres_server.dsn, postgres_schema) as replicator:
            await asyncio.sleep(0.02)
            assert not replicator.connected, "there is no journal yet"
            for number, journal in enumerate(journals):
                await journal.open()
                for sequence in range(1, 50):
                    await append(journal, f"cart|{number}", sequence, b"%d" % sequence)
            await shipped(replicator, *journals)
            assert await standby_contents(postgres_server.dsn, postgres_schema) == await contents(*journals)
        for journal in journals:
            await journal.close()

    uvloop.run(scenario())


def test_a_log_whose_map_grows_while_it_is_read_is_followed(
    postgres_server: PostgresServer, postgres_schema: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        journal = local(tmp_path, map_size=1 << 20)
        await journal.open()
        before = journal.log.map_size
        async with replicating([tmp_path], postgres_server.dsn, postgres_schema) as replicator:
            for number in range(300):
                await append(journal, f"cart|{number}", 1, b"x" * 50_000)
            await shipped(replicator, journal)
            assert journal.log.map_size > before
            assert await standby_contents(postgres_server.dsn, postgres_schema) == await contents(journal)
        assert replicator.batches > 2, "what is large comes in several batches"
        await journal.close()

    uvloop.run(scenario())


def test_a_lost_answer_at_any_step_changes_nothing(
    postgres_server: PostgresServer, postgres_schema: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        relay = Relay(postgres_server.port)
        dsn = postgres_server.dsn.replace(f":{postgres_server.port}/", f":{await relay.start()}/")
        journal = local(tmp_path)
        await journal.open()
        turn = 0
        async with replicating([tmp_path], dsn, postgres_schema) as replicator:
            for skipping in range(ANSWERS):
                relay.cut(skipping)
                while relay.cuts == skipping:
                    await fill(journal, turn)
                    turn += 1
                    await until(lambda: relay.cuts > skipping or replicator.applied[0] == journal.log.stored_offset)  # noqa: B023
                await shipped(replicator, journal)
            assert replicator.errors >= ANSWERS
            assert await standby_contents(postgres_server.dsn, postgres_schema) == await contents(journal)
        await journal.close()
        await relay.close()

    uvloop.run(scenario())


def test_kill_9_of_postgres_loses_and_doubles_nothing_and_says_one_line(mortal: PostgresServer, tmp_path: Path) -> None:
    async def scenario() -> None:
        journal = local(tmp_path)
        await journal.open()
        async with replicating([tmp_path], mortal.dsn, "killed") as replicator:
            last = 0
            for _ in range(2):
                goal = replicator.events + 200
                while replicator.events < goal:
                    last += 1
                    await append(journal, "cart|1", last, b"%d" % last)
                mortal.kill()
                await until(lambda: replicator.seconds > 0.2 or not replicator.connected)
                for _ in range(100):
                    last += 1
                    await append(journal, "cart|1", last, b"%d" % last)
                    await asyncio.sleep(0.002)
                assert replicator.behind and not replicator.connected
                assert replicator.trouble.startswith("Postgres is away")
                mortal.start()
                await shipped(replicator, journal)
                assert replicator.trouble == "" and replicator.seconds == 0
            assert await standby_contents(mortal.dsn, "killed") == await contents(journal)
            assert len(replicator.reasons) <= 2 * 2 < replicator.errors, "not a line for each try"
        await journal.close()

    uvloop.run(scenario())


def test_kill_9_of_the_replicator_at_any_moment_loses_and_doubles_nothing(
    postgres_server: PostgresServer, postgres_schema: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        journal = local(tmp_path)
        await journal.open()
        stopped = False

        async def write(number: int) -> None:
            last = 0
            while not stopped:
                last += 1
                snapshot = b"%d" % last if last % 7 == 0 else None
                await append(journal, f"cart|{number}", last, b"%d" % last, snapshot=snapshot)
                await put(journal, f"value|{number}", last, b"%d" % last)
                await asyncio.sleep(0.002)

        writers = [asyncio.create_task(write(number)) for number in range(20)]
        for turn in range(5):
            async with replicating([tmp_path], postgres_server.dsn, postgres_schema) as replicator:
                if turn < 4:
                    await until(lambda: replicator.batches > 2 + turn)  # noqa: B023
                    await replicator.kill()
                else:
                    stopped = True
                    await asyncio.gather(*writers)
                    await shipped(replicator, journal)
        assert await standby_contents(postgres_server.dsn, postgres_schema) == await contents(journal)
        await journal.close()

    uvloop.run(scenario())


# --- whose a schema is ------------------------------------------------------------------------------------------------


def test_the_schema_of_a_proxy_is_not_replicated_to(
    postgres_server: PostgresServer, postgres_schema: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        store, journal = store_in(postgres_server, postgres_schema), local(tmp_path)
        await asyncio.gather(store.open(), journal.open())
        async with replicating([tmp_path], postgres_server.dsn, postgres_schema) as replicator:
            await until(lambda: "is the journal of a proxy, not a replica" in replicator.trouble)
        await append(store, "cart|1", 1, b"undisturbed")
        await asyncio.gather(store.close(), journal.close())

    uvloop.run(scenario())


def test_a_journal_that_was_made_anew_is_not_mixed_in(
    postgres_server: PostgresServer, postgres_schema: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        for folder in (tmp_path / "old", tmp_path / "new"):
            journal = local(folder)
            await journal.open()
            await append(journal, "cart|1", 1, folder.name.encode())
            async with replicating([folder], postgres_server.dsn, postgres_schema) as replicator:
                if folder.name == "old":
                    await shipped(replicator, journal)
                else:
                    await until(lambda: "the folder was made anew" in replicator.trouble)
            await journal.close()
        assert (await standby_contents(postgres_server.dsn, postgres_schema))["cart|1"].events == [b"old"]

    uvloop.run(scenario())


def test_an_older_state_of_the_same_folder_is_refused(
    postgres_server: PostgresServer, postgres_schema: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        journal = local(tmp_path / "journal")
        await journal.open()
        await append(journal, "cart|1", 1, b"one")
        await journal.close()
        backup = (tmp_path / "journal" / "data.mdb").read_bytes()
        for text in (b"shipped", b"after the restore"):
            journal = local(tmp_path / "journal")
            await journal.open()
            for sequence in (2, 3):
                await append(journal, "cart|1", sequence, text)
            async with replicating([tmp_path / "journal"], postgres_server.dsn, postgres_schema) as replicator:
                if text == b"shipped":
                    await shipped(replicator, journal)
                else:
                    await until(lambda: "has another history of it" in replicator.trouble)
            await journal.close()
            (tmp_path / "journal" / "data.mdb").write_bytes(backup)

    uvloop.run(scenario())


def test_a_proxy_waits_for_the_lease_and_is_refused_while_the_replica_is_written(
    postgres_server: PostgresServer, postgres_schema: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        monkeypatch.setattr(postgres_standby, "LEASE", 0.9)
        journal, store = local(tmp_path), store_in(postgres_server, postgres_schema)
        await journal.open()
        await append(journal, "cart|1", 1, b"one")
        async with replicating([tmp_path], postgres_server.dsn, postgres_schema, 0.9) as replicator:
            await shipped(replicator, journal)
            with pytest.raises(JournalError, match="is a replica of the journal .+, and its proxy is writing to it"):
                await store.open()
            await store.close()
            await replicator.kill()
        begun, store = monotonic(), store_in(postgres_server, postgres_schema)
        await store.open()
        assert monotonic() - begun < 3
        await append(store, "cart|1", 2, b"two")
        await store.close()
        async with replicating([tmp_path], postgres_server.dsn, postgres_schema) as late:
            await until(lambda: "until a proxy took it over at" in late.trouble)
        await journal.close()

    uvloop.run(scenario())


def test_a_replica_that_is_promoted_under_its_replicator_takes_nothing_more(
    postgres_server: PostgresServer, postgres_schema: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        journal = local(tmp_path)
        await journal.open()
        await append(journal, "cart|1", 1, b"one")
        async with replicating([tmp_path], postgres_server.dsn, postgres_schema) as replicator:
            await shipped(replicator, journal)
            settings = {"search_path": quoted(postgres_schema)}
            connection = await asyncpg.connect(postgres_server.dsn, server_settings=settings)
            assert await postgres_standby.promote(connection, postgres_schema) == journal.log.identity
            with pytest.raises(JournalError, match="is no replica"):
                await postgres_standby.promote(connection, postgres_schema)
            await connection.close()
            await append(journal, "cart|1", 2, b"too late")
            await until(lambda: "until a proxy took it over at" in replicator.trouble)
        assert (await standby_contents(postgres_server.dsn, postgres_schema))["cart|1"].events == [b"one"]
        await journal.close()

    uvloop.run(scenario())


def test_a_schema_of_a_newer_program_is_refused(
    postgres_server: PostgresServer, postgres_schema: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        journal, store = local(tmp_path), store_in(postgres_server, postgres_schema)
        await asyncio.gather(journal.open(), store.open())
        await store.close()
        connection = await asyncpg.connect(postgres_server.dsn)
        await connection.execute(f"INSERT INTO {postgres_schema}.migrations VALUES ({len(MIGRATIONS) + 1})")
        await connection.close()
        async with replicating([tmp_path], postgres_server.dsn, postgres_schema) as replicator:
            await until(lambda: "this program knows version" in replicator.trouble)
        await journal.close()

    uvloop.run(scenario())


# --- what is not simply copied ----------------------------------------------------------------------------------------


def test_a_consumer_goes_on_at_the_same_event_in_postgres(
    postgres_server: PostgresServer, postgres_schema: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        journal = local(tmp_path)
        await journal.open()
        position = Position(journal, "mailer|cart")
        async with replicating([tmp_path], postgres_server.dsn, postgres_schema) as replicator:
            for sequence in range(0, 30, 3):
                await append(journal, "cart|1", sequence + 1, *(b"%d" % (sequence + each) for each in (1, 2, 3)))
                await append(journal, "other|1", sequence // 3 + 1, b"not its own")
                if sequence == 15:
                    entries = await read_whole_log(journal, "cart|")
                    position.store(entries[10].offset + 1)  # in the middle of an append
                    await position.flush()
            await shipped(replicator, journal)
        store = store_in(postgres_server, postgres_schema)
        await store.open()
        offset = await Position(store, "mailer|cart").load()
        unread = (await read_log(store, "cart|", offset)).entries
        assert [entry.event for entry in unread] == [b"%d" % number for number in range(12, 31)]
        await asyncio.gather(store.close(), journal.close())

    uvloop.run(scenario())


def test_a_consumer_of_several_logs_misses_nothing_in_postgres(
    postgres_server: PostgresServer, postgres_schema: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        folders = [tmp_path, tmp_path / "worker-1"]
        journals = [local(folder) for folder in folders]
        for journal in journals:
            await journal.open()
        handled: set[str] = set()
        positions = [Position(journal, "mailer|cart") for journal in journals]
        async with replicating(folders, postgres_server.dsn, postgres_schema) as replicator:
            for turn in range(1, 11):
                for number, journal in enumerate(journals):
                    await append(journal, f"cart|{number}", turn, b"%d-%d" % (number, turn))
                    if turn <= 6 + number:
                        last = (await read_whole_log(journal, "cart|"))[-1]
                        positions[number].store(last.offset + 1)
                        await positions[number].flush()
                        handled.add(last.event.decode())
                await shipped(replicator, *journals)
        store = store_in(postgres_server, postgres_schema)
        await store.open()
        unread = (await read_log(store, "cart|", await Position(store, "mailer|cart").load())).entries
        events = [entry.event.decode() for entry in unread]
        assert {f"{number}-{turn}" for number in (0, 1) for turn in range(1, 11)} - handled <= set(events)
        assert events[0] == "0-7", "the first that was not handled"
        await asyncio.gather(store.close(), *(journal.close() for journal in journals))

    uvloop.run(scenario())


def test_an_entity_that_moved_to_another_worker_is_there_once(
    postgres_server: PostgresServer, postgres_schema: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        folders = [tmp_path, tmp_path / "worker-1"]
        before, after = (local(folder) for folder in folders)
        await asyncio.gather(before.open(), after.open())
        for sequence in range(1, 11):
            await append(before, "cart|1", sequence, b"%d" % sequence)
        async with replicating(folders, postgres_server.dsn, postgres_schema) as replicator:
            await shipped(replicator, before, after)
            for sequence in range(1, 16):
                await append(after, "cart|1", sequence, b"%d" % sequence)
            await shipped(replicator, before, after)
            assert await standby_contents(postgres_server.dsn, postgres_schema) == await contents(after)
            await append(after, "cart|2", 1, b"here")
            await shipped(replicator, before, after)
            await append(before, "cart|2", 1, b"something else")
            await until(lambda: "another event is stored in Postgres at sequence 1" in replicator.trouble)
        await asyncio.gather(before.close(), after.close())

    uvloop.run(scenario())


def test_a_snapshot_without_a_record_in_the_log_arrives_too(
    postgres_server: PostgresServer, postgres_schema: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        journal = local(tmp_path)
        await journal.open()
        await append(journal, "cart|1", 1, b"one", b"two")
        await append(journal, "cart|1", 3, snapshot=b"covers two")
        async with replicating([tmp_path], postgres_server.dsn, postgres_schema) as replicator:
            await until(lambda: replicator.swept[0])
            assert await standby_contents(postgres_server.dsn, postgres_schema) == await contents(journal)
        await journal.close()

    uvloop.run(scenario())


# --- pace -------------------------------------------------------------------------------------------------------------


def test_a_backlog_is_shipped_in_bounded_batches_and_fast(
    postgres_server: PostgresServer, postgres_schema: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        journal = local(tmp_path)
        await journal.open()
        answers = []
        for sequence in range(1, 61):
            answers = [Answer() for _ in range(1000)]
            for number, answer in enumerate(answers):
                journal.append(f"cart|{number}", sequence, [b"x" * 100], None, answer)
            for answer in answers:
                await answer.result()
        begun = monotonic()
        async with replicating([tmp_path], postgres_server.dsn, postgres_schema) as replicator:
            await shipped(replicator, journal)
        pace = 60_000 / (monotonic() - begun)
        print(f"replication of a backlog: {pace:,.0f} events/s, {replicator.batches} batches")
        assert replicator.batches >= 3
        assert pace > 5_000
        await journal.close()

    uvloop.run(scenario())
