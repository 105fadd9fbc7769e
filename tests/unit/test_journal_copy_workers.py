"""Copies from and into folders of several workers: every entity comes to its owner, and consumers that were at
different places of the workers' logs see each event once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from stateside.journal.cli import journal as commands
from stateside.journal.contract import JournalError
from stateside.journal.copy_lmdb import LmdbSource
from stateside.journal.copy_postgres import PostgresSource
from stateside.journal.copy_to_lmdb import LmdbTarget
from stateside.journal.copy_to_postgres import PostgresTarget
from stateside.journal.copying import copy
from stateside.journal.folders import Owners
from stateside.journal.layout import JournalFolder
from stateside.journal.lmdb import LmdbJournal
from stateside.journal.offsets import Position
from stateside.journal.postgres import PostgresJournal, PostgresSettings
from tests.helpers.copies import Nothing, lmdb_at
from tests.helpers.journal import append, load, put, read_all, read_whole_log, run
from tests.helpers.postgres import PostgresServer

SHARDS = 64
ENTITIES = [f"u.cart|{number}" for number in range(40)]
Event = tuple[str, int]


@asynccontextmanager
async def opened(path: Path, workers: int) -> AsyncIterator[list[LmdbJournal]]:
    """The journals of all workers, as their supervisor opens the folder."""
    with JournalFolder.open(path, workers, SHARDS) as folder:
        journals = [lmdb_at(folder.environment(worker)) for worker in range(workers)]
        for journal in journals:
            await journal.open()
        yield journals
        for journal in journals:
            await journal.close()


async def fill(path: Path, workers: int) -> None:
    owners = Owners(workers, SHARDS)
    async with opened(path, workers) as journals:
        for first in (1, 3):
            for entity in ENTITIES:
                await append(journals[owners.of(entity)], entity, first, b"a", b"b")
        await put(journals[owners.of("u.account|x")], "u.account|x", 1, b"value")
        await append(journals[owners.of("|crdt|u.set|k")], "|crdt|u.set|k", 1, b"\x01delta")


async def consume(journals: list[LmdbJournal], name: str, counts: list[int]) -> set[Event]:
    """The consumer handles so many events in each log. What it has yet to see."""
    left: set[Event] = set()
    for journal, count in zip(journals, counts, strict=True):
        entries = await read_whole_log(journal, "u.cart|")
        if count:
            position = Position(journal, name)
            await position.load()
            position.store(entries[count - 1].offset + 1)
            await position.flush()
        left |= {(entry.entity, entry.sequence) for entry in entries[count:]}
    return left


async def to_come(journal: LmdbJournal | PostgresJournal, name: str) -> list[Event]:
    """What the consumer will handle here."""
    position = Position(journal, name)
    entries = await read_whole_log(journal, "u.cart|", await position.load())
    return [(entry.entity, entry.sequence) for entry in entries if not position.skips(entry.offset)]


COUNTS = [[0, 0, 0], [1, 0, 0], [0, 0, 5], [7, 2, 30], [3, 3, 3], [1000, 1, 0], [1000, 1000, 1000]]


def test_consumers_of_several_logs_see_the_rest_of_each_once_in_one(tmp_path: Path) -> None:
    async def scenario() -> None:
        await fill(tmp_path / "from", 3)
        async with opened(tmp_path / "from", 3) as journals:
            expected = {str(counts): await consume(journals, str(counts), capped(counts)) for counts in COUNTS}
        await copy(LmdbSource(tmp_path / "from"), LmdbTarget(tmp_path / "to"), False, Nothing())
        async with opened(tmp_path / "to", 1) as (journal,):
            for name, left in expected.items():
                seen = await to_come(journal, name)
                assert set(seen) == left
                assert len(seen) == len(left)

    run(scenario())


def capped(counts: list[int]) -> list[int]:
    """At most as many as each log has."""
    owners = Owners(3, SHARDS)
    sizes = [4 * sum(owners.of(entity) == worker for entity in ENTITIES) for worker in range(3)]
    return [min(count, size) for count, size in zip(counts, sizes, strict=True)]


def test_consumers_of_several_logs_go_on_in_as_many_others(tmp_path: Path) -> None:
    async def scenario() -> None:
        await fill(tmp_path / "from", 3)
        async with opened(tmp_path / "from", 3) as journals:
            expected = {str(counts): await consume(journals, str(counts), capped(counts)) for counts in COUNTS}
        outcome = await copy(LmdbSource(tmp_path / "from"), LmdbTarget(tmp_path / "to", 2), False, Nothing())
        assert outcome.compared.different == 0
        async with opened(tmp_path / "to", 2) as journals:
            for name, left in expected.items():
                seen = [event for journal in journals for event in await to_come(journal, name)]
                assert set(seen) == left
                assert len(seen) == len(left)

    run(scenario())


def test_consumers_of_several_logs_go_on_in_postgres(
    tmp_path: Path, postgres_server: PostgresServer, postgres_schema: str
) -> None:
    async def scenario() -> None:
        await fill(tmp_path / "from", 3)
        async with opened(tmp_path / "from", 3) as journals:
            expected = {str(counts): await consume(journals, str(counts), capped(counts)) for counts in COUNTS}
        target = PostgresTarget(postgres_server.dsn, postgres_schema)
        await copy(LmdbSource(tmp_path / "from"), target, False, Nothing())
        journal = PostgresJournal(postgres_server.dsn, settings=PostgresSettings(schema=postgres_schema))
        await journal.open()
        for name, left in expected.items():
            seen = await to_come(journal, name)
            assert set(seen) == left
            assert len(seen) == len(left)
        await journal.close()
        # And from there, with what is to be skipped, into two logs.
        back = LmdbTarget(tmp_path / "back", 2, SHARDS)
        await copy(PostgresSource(postgres_server.dsn, postgres_schema), back, False, Nothing())
        async with opened(tmp_path / "back", 2) as journals:
            for name, left in expected.items():
                seen = [event for journal in journals for event in await to_come(journal, name)]
                assert set(seen) == left
                assert len(seen) == len(left)

    run(scenario())


def test_each_entity_comes_to_its_owner(tmp_path: Path) -> None:
    async def scenario() -> None:
        await fill(tmp_path / "from", 1)
        await copy(LmdbSource(tmp_path / "from"), LmdbTarget(tmp_path / "to", 3), False, Nothing())
        owners = Owners(3, SHARDS)
        async with opened(tmp_path / "to", 3) as journals:
            for entity in ENTITIES:
                assert await read_all(journals[owners.of(entity)], entity) == [b"a", b"b"] * 2
            assert (await load(journals[owners.of("|crdt|u.set|k")], "|crdt|u.set|k")).last_sequence == 1

    run(scenario())


def test_the_node_keeps_its_identity_and_a_clone_gets_another(tmp_path: Path) -> None:
    async def scenario() -> list[int]:
        await fill(tmp_path / "from", 2)
        await copy(LmdbSource(tmp_path / "from"), LmdbTarget(tmp_path / "moved", 3), False, Nothing())
        await copy(LmdbSource(tmp_path / "from"), LmdbTarget(tmp_path / "clone", 3), True, Nothing())
        found = []
        for name, workers in (("from", 2), ("moved", 3), ("clone", 3)):
            with JournalFolder.open(tmp_path / name, workers, SHARDS) as folder:
                found.append(folder.replica)
        return found

    identity, moved, clone = run(scenario())
    assert moved == identity != clone


def test_a_folder_whose_supervisor_runs_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        await fill(tmp_path / "from", 2)
        with (
            JournalFolder.open(tmp_path / "from", 2, SHARDS),
            pytest.raises(JournalError, match=r"in use by process .* journal backup"),
        ):
            await copy(LmdbSource(tmp_path / "from"), LmdbTarget(tmp_path / "to"), False, Nothing())

    run(scenario())


def call(*arguments: object) -> str:
    done = CliRunner().invoke(commands, [str(argument) for argument in arguments], prog_name="stateside journal")
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_commands_that_read_know_folders_of_several_workers(tmp_path: Path) -> None:
    run(fill(tmp_path, 3))
    assert "161 events" in call("verify", "--path", tmp_path)
    assert "workers            3" in call("stat", "--path", tmp_path)
    assert len(call("list", "--prefix", "u.cart", "--path", tmp_path).splitlines()) == len(ENTITIES)
    assert len(call("show", "u.cart|7", "--path", tmp_path).splitlines()) == 4
    assert len(call("export", "-", "--path", tmp_path).splitlines()) == 162


def test_an_entity_in_the_wrong_environment_is_found(tmp_path: Path) -> None:
    async def scenario() -> None:
        await fill(tmp_path, 2)
        async with opened(tmp_path, 2) as journals:
            wrong = 1 - Owners(2, SHARDS).of("u.cart|new")
            await append(journals[wrong], "u.cart|new", 1, b"x")

    run(scenario())
    done = CliRunner().invoke(commands, ["verify", "--path", str(tmp_path)])
    assert done.exit_code == 1
    assert "damaged  u.cart|new  worker " in done.stdout


def test_stat_and_verify_know_postgres(postgres_server: PostgresServer, postgres_schema: str) -> None:
    async def scenario() -> None:
        journal = PostgresJournal(postgres_server.dsn, settings=PostgresSettings(schema=postgres_schema))
        await journal.open()
        await append(journal, "u.cart|1", 1, b"a", b"b", snapshot=b"s")
        await append(journal, "|crdt|u.set|k", 1, b"a", b"b", snapshot=b"s")
        await append(journal, "|crdt|u.set|k", 3, b"c")
        journal.forget("|crdt|u.set|k", 2)
        await put(journal, "u.account|x", 1, b"value")
        await journal.close()

    run(scenario())
    place = ("--path", postgres_server.dsn, "--schema", postgres_schema)
    assert "3 entities, 3 events" in call("verify", *place)
    assert "entities           3" in call("stat", *place)


@pytest.mark.parametrize(
    ("statement", "word"),
    [
        ("DELETE FROM events WHERE sequence = 1", "the last sequence is 2, there are 1 events, from 2 to 2"),
        ("UPDATE entities SET snapshot_sequence = 5", "snapshot covers sequence 5, the last one is 2"),
        ("DELETE FROM entities", "nothing says how many"),
        ("UPDATE log SET next_offset = 1", "the next one 1"),
    ],
)
def test_verify_finds_what_is_wrong_in_postgres(
    postgres_server: PostgresServer, postgres_schema: str, statement: str, word: str
) -> None:
    async def scenario() -> None:
        journal = PostgresJournal(postgres_server.dsn, settings=PostgresSettings(schema=postgres_schema))
        await journal.open()
        await append(journal, "u.cart|1", 1, b"a", b"b")
        assert journal._connection is not None
        await journal._connection.execute(statement)
        await journal.close()

    run(scenario())
    arguments = ["verify", "--path", postgres_server.dsn, "--schema", postgres_schema]
    done = CliRunner().invoke(commands, arguments)
    assert done.exit_code == 1
    assert word in done.stdout


def test_commands_that_read_folders_only_say_what_to_do_with_postgres() -> None:
    done = CliRunner().invoke(commands, ["list", "--path", "postgresql://somewhere/db"])
    assert done.exit_code == 2
    assert "stateside journal copy URL FOLDER" in done.output
