"""Shards in a real Postgres: claims while others write, and stores from before there were claims."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest
import uvloop

from stateside.journal.contract import JournalError, StaleEpoch
from stateside.journal.postgres import PostgresJournal, PostgresSettings
from stateside.journal.postgres_schema import MIGRATIONS
from stateside.journal.sharding import EntityShards
from tests.helpers.journal import append, load, put, read_all
from tests.helpers.postgres import PostgresServer

SHARDS = 8
ENTITIES = [f"cart|{index}" for index in range(40)]


class Appender:
    """Appends event after event to one entity until it is refused."""

    def __init__(self, journal: PostgresJournal, entity: str) -> None:
        self.journal, self.entity = journal, entity
        self.acknowledged = 0
        self.error: JournalError | None = None
        self.ended = asyncio.Event()
        self._next()

    def _next(self) -> None:
        self.journal.append(self.entity, self.acknowledged + 1, [b"event"], None, self)

    def on_appended(self, error: JournalError | None) -> None:
        if error is None:
            self.acknowledged += 1
            self._next()
        else:
            self.error = error
            self.ended.set()


def journal_in(server: PostgresServer, schema: str, on_broken=None) -> PostgresJournal:
    return PostgresJournal(server.dsn, settings=PostgresSettings(schema=schema), on_broken=on_broken)


def test_a_claim_and_the_appends_of_the_owner_before_cannot_pass_each_other(
    postgres_server: PostgresServer, postgres_schema: str
) -> None:
    async def scenario() -> None:
        told: list[JournalError] = []
        old = journal_in(postgres_server, postgres_schema, told.append)
        new = journal_in(postgres_server, postgres_schema)
        await asyncio.gather(old.open(), new.open())
        await old.claim(range(SHARDS), SHARDS)
        appenders = [Appender(old, entity) for entity in ENTITIES]
        while min(appender.acknowledged for appender in appenders) < 5:
            await asyncio.sleep(0.001)
        await new.claim(range(SHARDS), SHARDS)
        seen = [(await load(new, entity)).last_sequence for entity in ENTITIES]
        for appender, last in zip(appenders, seen, strict=True):
            await appender.ended.wait()
            assert isinstance(appender.error, StaleEpoch)
            assert appender.acknowledged == last
            await append(new, appender.entity, last + 1, b"mine")
        assert len(told) == 1 and isinstance(told[0], StaleEpoch)
        await asyncio.gather(old.close(), new.close())

    uvloop.run(scenario())


def test_a_claim_to_some_shards_leaves_the_owners_of_others_alone(
    postgres_server: PostgresServer, postgres_schema: str
) -> None:
    async def scenario() -> None:
        journals = [journal_in(postgres_server, postgres_schema) for _ in range(2)]
        shards = EntityShards(SHARDS)
        for half, journal in enumerate(journals):
            await journal.open()
            await journal.claim([shard for shard in range(SHARDS) if shard % 2 == half], SHARDS)
        for entity in ENTITIES:
            shard = shards.shard(entity)
            assert shard is not None
            await append(journals[shard % 2], entity, 1, b"mine")
            if shard % 2 == 1:
                with pytest.raises(StaleEpoch):
                    await append(journals[0], entity, 2, b"not mine")
        await asyncio.gather(*(journal.close() for journal in journals))

    uvloop.run(scenario())


def test_who_does_not_know_the_shards_cannot_write_once_they_are_claimed(
    postgres_server: PostgresServer, postgres_schema: str
) -> None:
    async def scenario() -> None:
        early, owner = (journal_in(postgres_server, postgres_schema) for _ in range(2))
        await early.open()
        await append(early, "cart|a", 1, b"before")
        await owner.open()
        await owner.claim(range(SHARDS), SHARDS)
        for late in (append(early, "cart|a", 2, b"late"), append(early, "cart|new", 1, b"late")):
            with pytest.raises(StaleEpoch):
                await late
        await put(early, "|offset|mail", 1, b"8")
        await append(owner, "cart|a", 2, b"after")
        assert await read_all(owner, "cart|a") == [b"before", b"after"]
        await asyncio.gather(early.close(), owner.close())

    uvloop.run(scenario())


def test_a_store_from_before_there_were_claims_is_brought_up_to_date_with_what_it_holds(
    postgres_server: PostgresServer, postgres_schema: str
) -> None:
    async def scenario() -> None:
        connection = await asyncpg.connect(postgres_server.dsn, server_settings={"search_path": postgres_schema})
        await connection.execute(f"CREATE SCHEMA {postgres_schema}")
        await connection.execute("CREATE TABLE migrations (number int PRIMARY KEY, applied timestamptz DEFAULT now())")
        await connection.execute(MIGRATIONS[0])
        await connection.execute("INSERT INTO migrations (number) VALUES (1)")
        await connection.execute("INSERT INTO entities VALUES ('cart|a', 1, 7, false, 0, NULL)")
        await connection.execute("INSERT INTO events VALUES ('cart|a', 1, 1, 7, 'old')")
        await connection.execute("UPDATE log SET next_offset = 2")
        await connection.close()
        journal = journal_in(postgres_server, postgres_schema)
        await journal.open()
        assert await journal.claim(range(SHARDS), SHARDS) == 8
        await append(journal, "cart|a", 2, b"new")
        assert await read_all(journal, "cart|a") == [b"old", b"new"]
        await journal.close()

    uvloop.run(scenario())
