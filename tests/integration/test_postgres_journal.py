"""The journal in a real Postgres that is killed, cut off, silent, shared or too new."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest
import uvloop

from stateside.journal.contract import JournalError, SequenceTaken, StaleEpoch
from stateside.journal.postgres import PostgresJournal, PostgresSettings
from stateside.journal.postgres_schema import MIGRATIONS
from tests.helpers.journal import Answer, append, load, put, read_all, read_whole_log
from tests.helpers.postgres import PostgresServer
from tests.helpers.relay import Relay


def journal_in(server: PostgresServer, schema: str, port: int = 0, **settings: Any) -> PostgresJournal:
    dsn = server.dsn.replace(f":{server.port}/", f":{port or server.port}/")
    return PostgresJournal(dsn, settings=PostgresSettings(schema=schema, **settings))


@pytest.fixture(scope="module")
def mortal() -> Iterator[PostgresServer]:
    """A server of its own that waits for the disk, to be killed."""
    server = PostgresServer().start()
    yield server
    server.remove()


def test_a_batch_whose_answer_is_lost_is_stored_once(postgres_server: PostgresServer, postgres_schema: str) -> None:
    async def scenario() -> None:
        relay = Relay(postgres_server.port)
        journal = journal_in(postgres_server, postgres_schema, await relay.start())
        await journal.open()
        for sequence in range(1, 21):
            if sequence % 4 == 0:
                relay.cut()
            await append(journal, "cart", sequence, b"%d" % sequence)
        assert relay.cuts == journal.reconnects == 5
        assert await read_all(journal, "cart") == [b"%d" % number for number in range(1, 21)]
        await journal.close()
        await relay.close()

    uvloop.run(scenario())


def test_a_refusal_whose_answer_is_lost_stays_a_refusal(postgres_server: PostgresServer, postgres_schema: str) -> None:
    async def scenario() -> None:
        relay = Relay(postgres_server.port)
        journal = journal_in(postgres_server, postgres_schema, await relay.start())
        await journal.open()
        await append(journal, "cart", 1, b"one")
        relay.cut()
        with pytest.raises(SequenceTaken, match="sequence 1 does not follow the last one, 1"):
            await append(journal, "cart", 1, b"again")
        assert relay.cuts == 1
        await journal.close()
        await relay.close()

    uvloop.run(scenario())


def test_kill_9_of_the_server_loses_and_doubles_nothing(mortal: PostgresServer) -> None:
    async def scenario() -> None:
        journal = journal_in(mortal, "killed", write_timeout=30.0, retry_interval=0.05)
        await journal.open()
        stored = dict.fromkeys((f"entity-{number}" for number in range(50)), 0)
        stopped = False

        async def write(entity: str) -> None:
            while not stopped:
                await append(journal, entity, stored[entity] + 1, b"%d" % (stored[entity] + 1))
                stored[entity] += 1

        writers = [asyncio.create_task(write(entity)) for entity in stored]
        for _ in range(3):
            goal = sum(stored.values()) + 500
            while sum(stored.values()) < goal:
                await asyncio.sleep(0.01)
            mortal.kill()
            mortal.start()
        stopped = True
        await asyncio.gather(*writers)
        for entity, last in stored.items():
            assert await read_all(journal, entity) == [b"%d" % number for number in range(1, last + 1)]
        offsets = [entry.offset for entry in await read_whole_log(journal, "entity-")]
        assert len(offsets) == sum(stored.values())
        assert offsets == sorted(set(offsets))
        assert journal.reconnects >= 2, "the last server may have gone while nobody wrote"
        await journal.close()

    uvloop.run(scenario())


def test_without_a_server_appends_fail_in_time_and_go_on_when_it_is_back(mortal: PostgresServer) -> None:
    async def scenario() -> None:
        journal = journal_in(mortal, "absent", write_timeout=0.5, retry_interval=0.05)
        await journal.open()
        await append(journal, "cart", 1, b"one")
        mortal.kill()
        with pytest.raises(JournalError, match="did not answer within write_timeout"):
            await append(journal, "cart", 2, b"two")
        assert not journal.writable
        with pytest.raises(JournalError, match="no connection to Postgres"):
            await append(journal, "cart", 2, b"two")
        with pytest.raises(JournalError, match="cannot be read"):
            await load(journal, "cart")
        mortal.start()
        while not journal.writable:
            await asyncio.sleep(0.01)
        last = (await load(journal, "cart")).last_sequence
        assert last == 1, "nothing was sent to a server that was not there"
        await append(journal, "cart", 2, b"two")
        await journal.close()

    uvloop.run(scenario())


def test_two_proxies_on_one_database_are_told_apart_by_epochs(
    postgres_server: PostgresServer, postgres_schema: str
) -> None:
    async def scenario() -> None:
        old, new = (journal_in(postgres_server, postgres_schema) for _ in range(2))
        await asyncio.gather(old.open(), new.open())
        await append(old, "cart", 1, b"one", epoch=1)
        await append(new, "cart", 2, b"two", epoch=2)
        with pytest.raises(StaleEpoch):
            await append(old, "cart", 3, b"late", epoch=1)
        with pytest.raises(SequenceTaken):
            await append(old, "cart", 2, b"blind", epoch=2)
        assert await read_all(old, "cart") == [b"one", b"two"]
        await old.close()
        await new.close()

    uvloop.run(scenario())


def test_offsets_of_two_writers_are_seen_in_their_order(postgres_server: PostgresServer, postgres_schema: str) -> None:
    async def scenario() -> None:
        journals = [journal_in(postgres_server, postgres_schema) for _ in range(2)]
        await asyncio.gather(*(journal.open() for journal in journals))
        seen: list[int] = []

        async def write(number: int) -> None:
            for sequence in range(1, 101):
                await append(journals[number], f"cart|{number}", sequence, b"x")

        async def follow() -> None:
            while len(seen) < 200:
                start = seen[-1] + 1 if seen else 0
                seen.extend(entry.offset for entry in await read_whole_log(journals[0], "cart|", start))

        await asyncio.wait_for(asyncio.gather(write(0), write(1), follow()), 30)
        assert seen == sorted(set(seen))
        for journal in journals:
            await journal.close()

    uvloop.run(scenario())


def test_a_schema_of_a_newer_program_is_refused(postgres_server: PostgresServer, postgres_schema: str) -> None:
    async def scenario() -> None:
        journal = journal_in(postgres_server, postgres_schema)
        await journal.open()
        await journal.close()
        connection = await asyncpg.connect(postgres_server.dsn)
        await connection.execute(f"INSERT INTO {postgres_schema}.migrations VALUES ({len(MIGRATIONS) + 1})")
        await connection.close()
        newer = journal_in(postgres_server, postgres_schema)
        with pytest.raises(JournalError, match=f"has version {len(MIGRATIONS) + 1}, this program knows version"):
            await newer.open()
        await newer.close()

    uvloop.run(scenario())


@pytest.mark.parametrize("dsn", ["postgresql://127.0.0.1:1/nothing", "postgresql://nobody@127.0.0.1:{port}/absent"])
def test_a_database_that_cannot_be_reached_is_named(postgres_server: PostgresServer, dsn: str) -> None:
    async def scenario() -> None:
        journal = PostgresJournal(dsn.format(port=postgres_server.port))
        with pytest.raises(JournalError, match="journal in Postgres: cannot be opened: .+"):
            await journal.open()
        await journal.close()

    uvloop.run(scenario())


def test_a_full_queue_refuses_at_once(postgres_server: PostgresServer, postgres_schema: str) -> None:
    async def scenario() -> None:
        journal = journal_in(postgres_server, postgres_schema, queue_bytes=1000)
        await journal.open()
        answers = [Answer() for _ in range(20)]
        for number, answer in enumerate(answers):
            journal.append(f"cart-{number}", 1, [b"x" * 90], None, answer)
        for answer in answers:
            await answer.done.wait()
        refused = [answer for answer in answers if answer.error is not None]
        assert 5 <= len(refused) <= 15
        assert all("queue of appends is full" in str(answer.error) for answer in refused)
        await put(journal, "value", 1, b"later there is room")
        await journal.close()

    uvloop.run(scenario())


def test_events_of_another_process_wake_listeners(postgres_server: PostgresServer, postgres_schema: str) -> None:
    async def scenario() -> None:
        writer, follower = (journal_in(postgres_server, postgres_schema) for _ in range(2))
        assert follower.is_shared
        await asyncio.gather(writer.open(), follower.open())
        heard = asyncio.Event()
        follower.watch(heard.set)
        for sequence in range(1, 4):
            heard.clear()
            await append(writer, "cart|1", sequence, b"one")
            await asyncio.wait_for(heard.wait(), 0.2)
        assert len(await read_whole_log(follower, "cart|")) == 3
        heard.clear()
        await put(writer, "value|1", 1, b"no event")
        await append(follower, "cart|2", 1, b"own")
        assert heard.is_set(), "own events are told of with their acknowledgement"
        await asyncio.gather(writer.close(), follower.close())

    uvloop.run(scenario())


def test_listeners_go_on_after_the_connection_was_lost(postgres_server: PostgresServer, postgres_schema: str) -> None:
    async def scenario() -> None:
        relay = Relay(postgres_server.port)
        writer = journal_in(postgres_server, postgres_schema)
        follower = journal_in(postgres_server, postgres_schema, await relay.start())
        await asyncio.gather(writer.open(), follower.open())
        relay.cut()
        await append(follower, "cart|1", 1, b"its answer is lost")
        heard = asyncio.Event()
        follower.watch(heard.set)
        await append(writer, "cart|2", 1, b"one")
        await asyncio.wait_for(heard.wait(), 5)
        assert relay.cuts == 1
        await asyncio.gather(writer.close(), follower.close())
        await relay.close()

    uvloop.run(scenario())
