"""The journal in synchronous mode: what is acknowledged is in Postgres, and nothing is lost while there is none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop

from stateside.journal.contract import Durability, JournalError
from stateside.journal.lmdb import LmdbJournal
from stateside.journal.synced import SyncedJournal
from tests.helpers.journal import Answer, append, load, put, read_all, read_log
from tests.helpers.postgres import PostgresServer
from tests.helpers.relay import Relay
from tests.helpers.standby import Remote, contents, replicating, shipped, standby_contents, until


@pytest.fixture(scope="module")
def mortal() -> Iterator[PostgresServer]:
    """A server of its own that waits for the disk, to be killed."""
    server = PostgresServer().start()
    yield server
    server.remove()


@asynccontextmanager
async def synced(
    folder: Path, dsn: str, schema: str, timeout: float = 20.0
) -> AsyncIterator[tuple[SyncedJournal, Remote]]:
    socket = str(folder / "replicator.sock")
    journal = SyncedJournal(LmdbJournal(folder / "journal", Durability.NONE), socket, 0, timeout)
    async with replicating([folder / "journal"], dsn, schema, socket=socket) as replicator:
        await journal.open()
        yield journal, replicator
        await journal.close()


def test_what_is_acknowledged_is_in_postgres(
    postgres_server: PostgresServer, postgres_schema: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with synced(tmp_path, postgres_server.dsn, postgres_schema) as (journal, _):
            assert journal.writable and journal.durability == Durability.NONE
            heard = asyncio.Event()
            journal.watch(heard.set)
            for sequence in range(1, 6):
                await append(journal, "cart|1", sequence, b"%d" % sequence)
                await put(journal, "value|1", sequence, b"%d" % sequence)
                there = await standby_contents(postgres_server.dsn, postgres_schema)
                assert there["cart|1"].last == there["value|1"].last == sequence
            assert heard.is_set() and journal.waiting == 0
            with pytest.raises(JournalError, match="sequence 1 does not follow"):
                await append(journal, "cart|1", 1, b"again")
            assert there == await contents(journal.local)

    uvloop.run(scenario())


def test_many_appends_are_confirmed_together(
    postgres_server: PostgresServer, postgres_schema: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with synced(tmp_path, postgres_server.dsn, postgres_schema) as (journal, replicator):
            answers = [Answer() for _ in range(1000)]
            for number, answer in enumerate(answers):
                journal.append(f"cart|{number}", 1, [b"x" * 100], None, answer)
            for answer in answers:
                await answer.result()
            await shipped(replicator, journal.local)
            assert replicator.batches <= 20

    uvloop.run(scenario())


def test_without_postgres_appends_fail_in_time_then_at_once_and_go_on_when_it_is_back(
    mortal: PostgresServer, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with synced(tmp_path, mortal.dsn, "away", timeout=1.0) as (journal, _):
            await until(lambda: journal.writable)
            await append(journal, "cart|1", 1, b"one")
            answer = Answer()
            journal.append("cart|2", 1, [b"on its way"], None, answer)
            mortal.kill()
            with pytest.raises(JournalError, match="unknown|not known"):
                await asyncio.gather(answer.result(), append(journal, "cart|3", 1, b"perhaps"))
            await until(lambda: not journal.writable)
            with pytest.raises(JournalError, match="is away; nothing was stored, try again"):
                await append(journal, "cart|1", 2, b"refused")
            assert (await load(journal, "cart|1")).last_sequence == 1
            assert await read_all(journal, "cart|1") == [b"one"], "reads go on"
            mortal.start()
            await until(lambda: journal.writable)
            there = await standby_contents(mortal.dsn, "away")
            assert there == await contents(journal.local), "what was stored here was shipped first"
            assert "cart|3" in there or not (await load(journal, "cart|3")).last_sequence
            await append(journal, "cart|1", 2, b"two")
            assert (await standby_contents(mortal.dsn, "away"))["cart|1"].events == [b"one", b"two"]

    uvloop.run(scenario())


def test_lost_answers_of_postgres_are_not_noticed(
    postgres_server: PostgresServer, postgres_schema: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        relay = Relay(postgres_server.port)
        dsn = postgres_server.dsn.replace(f":{postgres_server.port}/", f":{await relay.start()}/")
        async with synced(tmp_path, dsn, postgres_schema) as (journal, _):
            last = 0
            for skipping in range(6):
                await until(lambda: journal.writable)
                relay.cut(skipping)
                while relay.cuts == skipping:
                    await until(lambda: journal.writable)
                    try:
                        await append(journal, "cart|1", last + 1, b"%d" % (last + 1))
                        last += 1
                    except JournalError as error:
                        assert "nothing was stored" in str(error)
            await until(lambda: journal.writable)
            assert (await standby_contents(postgres_server.dsn, postgres_schema))["cart|1"].last == last
        await relay.close()

    uvloop.run(scenario())


def test_a_replicator_that_is_killed_is_waited_for(
    postgres_server: PostgresServer, postgres_schema: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with synced(tmp_path, postgres_server.dsn, postgres_schema) as (journal, replicator):
            await append(journal, "cart|1", 1, b"one")
            await replicator.kill()
            appending = asyncio.create_task(append(journal, "cart|1", 2, b"two"))
            await until(lambda: journal.waiting == 1)
            page = await read_log(journal, "cart|")
            assert [entry.event for entry in page.entries] == [b"one"], "nobody acts on what may still be lost"
            await replicator.start()
            await appending
            assert len((await read_log(journal, "cart|", page.next_offset)).entries) == 1
            assert (await standby_contents(postgres_server.dsn, postgres_schema))["cart|1"].last == 2

    uvloop.run(scenario())


def test_without_a_replicator_the_journal_opens_and_takes_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        journal = SyncedJournal(LmdbJournal(tmp_path / "journal"), str(tmp_path / "absent.sock"), 0, 0.05)
        await journal.open()
        assert not journal.writable
        with pytest.raises(JournalError, match="has not told yet that it has all of this journal"):
            await append(journal, "cart|1", 1, b"one")
        await journal.close()

    uvloop.run(scenario())
