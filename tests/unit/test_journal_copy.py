"""`stateside journal copy` from a folder into a folder, into Postgres and back: all that is stored, in its order, with
the places of its consumers."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from stateside.journal.cli import journal as commands
from stateside.journal.contract import Journal, JournalError
from stateside.journal.copy_lmdb import LmdbSource
from stateside.journal.copy_model import Batch, CopyState, Source, Target
from stateside.journal.copy_postgres import PostgresSource
from stateside.journal.copy_to_lmdb import LmdbTarget
from stateside.journal.copy_to_postgres import PostgresTarget
from stateside.journal.copying import Compared, Outcome, compare_only, copy
from stateside.journal.limits import NODE_ENTITY
from stateside.journal.postgres import PostgresJournal, PostgresSettings
from tests.helpers.copies import NODE, Nothing, consume, content, fill, lmdb_at, order, own, small_batches, to_come
from tests.helpers.journal import append, load, put, run
from tests.helpers.postgres import PostgresServer
from tests.unit.test_journal_lmdb import damage


@dataclass
class Store:
    """One side of a copy, in LMDB or Postgres."""

    journal: Callable[[], Journal]
    source: Callable[[], Source]
    target: Callable[[], Target]

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Journal]:
        journal = self.journal()
        try:
            await journal.open()
            yield journal
        finally:
            await journal.close()


def folder(path: Path) -> Store:
    return Store(lambda: lmdb_at(path), lambda: LmdbSource(path), lambda: LmdbTarget(path))


def database(dsn: str, schema: str) -> Store:
    return Store(
        lambda: PostgresJournal(dsn, settings=PostgresSettings(schema=schema)),
        lambda: PostgresSource(dsn, schema),
        lambda: PostgresTarget(dsn, schema),
    )


@pytest.fixture(params=["lmdb-lmdb", "lmdb-postgres", "postgres-lmdb", "postgres-postgres"])
def ways(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Store, Store]:
    """Where from and where to."""
    found = []
    for end, kind in zip(("from", "to"), request.param.split("-"), strict=True):
        if kind == "lmdb":
            found.append(folder(tmp_path / end))
        else:
            server: PostgresServer = request.getfixturevalue("postgres_server")
            found.append(database(server.dsn, f"{request.getfixturevalue('postgres_schema')}_{end}"))
    return found[0], found[1]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in small_batches(7):
        monkeypatch.setattr(name, value)


async def filled(store: Store) -> None:
    async with store.opened() as journal:
        await fill(journal)


async def copied(source: Store, target: Store, new_node: bool = False) -> Outcome:
    return await copy(source.source(), target.target(), new_node, Nothing())


def all_equal(compared: Compared) -> bool:
    return (compared.different, compared.entities > 20) == (0, True)


async def same(source: Store, target: Store) -> None:
    async with source.opened() as one, target.opened() as other:
        assert await content(one) == await content(other)
        assert await order(one) == await order(other)
        for entity in ("|crdt|set", "|crdt|new"):
            assert await own(one, entity) == await own(other, entity)


def test_a_copy_has_all_events_snapshots_values_and_crdts_in_the_same_order(ways: tuple[Store, Store]) -> None:
    source, target = ways

    async def scenario() -> None:
        await filled(source)
        outcome = await copied(source, target)
        assert all_equal(outcome.compared)
        assert not outcome.was_finished
        await same(source, target)
        async with target.opened() as journal:
            assert (await load(journal, NODE_ENTITY)).snapshot == NODE

    run(scenario())


def test_the_copy_goes_on_as_a_journal(ways: tuple[Store, Store]) -> None:
    source, target = ways

    async def scenario() -> None:
        await filled(source)
        await copied(source, target)
        async with target.opened() as journal:
            await append(journal, "u.cart|3", 7, b"next")
            await put(journal, "u.account|a", 4, b"more")
            await put(journal, "u.account|gone", 3, b"again")
            head = await load(journal, "|crdt|set")
            await append(journal, "|crdt|set", head.last_sequence + 1, b"\x01four")
            assert (await own(journal, "|crdt|set"))[1] == [b"\x01three", b"\x01four"]

    run(scenario())


def test_a_clone_is_another_node(ways: tuple[Store, Store]) -> None:
    source, target = ways

    async def scenario() -> None:
        await filled(source)
        outcome = await copied(source, target, new_node=True)
        assert all_equal(outcome.compared)
        async with target.opened() as journal:
            assert (await load(journal, NODE_ENTITY)).snapshot is None

    run(scenario())


def test_consumers_go_on_at_exactly_the_same_event(ways: tuple[Store, Store]) -> None:
    source, target = ways

    async def scenario() -> None:
        await filled(source)
        async with source.opened() as journal:
            expected = {handled: await consume(journal, f"{handled}|u.", "u.", handled) for handled in (1, 2, 31, 122)}
            carts = await consume(journal, "second|cart", "u.cart|", 5)
        await copied(source, target)
        async with target.opened() as journal:
            assert {handled: await to_come(journal, f"{handled}|u.", "u.") for handled in expected} == expected
            assert await to_come(journal, "second|cart", "u.cart|") == carts

    run(scenario())


class Killed(Exception):
    pass


def test_a_copy_that_ended_anywhere_goes_on_where_it_was(ways: tuple[Store, Store]) -> None:
    source, target = ways

    async def scenario() -> None:
        await filled(source)
        ended = 0
        while True:
            into = target.target()
            _end_after(into, 1 + ended % 2, before=ended % 3 == 0)
            try:
                outcome = await copy(source.source(), into, False, Nothing())
            except Killed:
                ended += 1
            else:
                break
        assert ended > 4
        assert all_equal(outcome.compared)
        await same(source, target)

    run(scenario())


def _end_after(target: Target, batches: int, before: bool) -> None:
    """End the copy at this batch: before the next one, or with its data stored and not its place."""
    store, left = target.store, batches

    async def limited(batch: Batch, state: CopyState) -> None:
        nonlocal left
        if left == 0:
            if not before and isinstance(target, LmdbTarget):
                target._write_state = lambda state: None  # type: ignore[method-assign]
                await store(batch, state)
            raise Killed
        left -= 1
        await store(batch, state)

    target.store = limited  # type: ignore[method-assign]


def test_a_finished_copy_is_compared_again_and_found_equal(ways: tuple[Store, Store]) -> None:
    source, target = ways

    async def scenario() -> None:
        await filled(source)
        await copied(source, target)
        again = await copied(source, target)
        assert again.was_finished
        assert all_equal(again.compared)
        assert all_equal(await compare_only(source.source(), target.source(), False, Nothing()))

    run(scenario())


def test_what_differs_is_named(ways: tuple[Store, Store]) -> None:
    source, target = ways

    async def scenario() -> None:
        await filled(source)
        await copied(source, target)
        async with target.opened() as journal:
            await append(journal, "u.cart|3", 7, b"foreign")
            await put(journal, "u.account|gone", 3, b"back")
            await append(journal, "u.cart|only-here", 1, b"x")
        async with source.opened() as journal:
            await append(journal, "u.cart|4", 7, b"mine")
            await append(journal, "u.cart|5", 7, b"new", snapshot=b"s")
            await append(journal, "u.cart|missing", 1, b"x")
        compared = await compare_only(source.source(), target.source(), False, Nothing())
        assert sorted(compared.differences) == [
            "u.account|gone: last sequence is 3 in place of 2",
            "u.cart|3: last sequence is 7 in place of 6",
            "u.cart|4: last sequence is 6 in place of 7",
            "u.cart|5: last sequence is 6 in place of 7",
            "u.cart|missing: it is missing",
        ]

    run(scenario())


def test_another_event_at_the_same_sequence_is_found(ways: tuple[Store, Store]) -> None:
    source, target = ways

    async def scenario() -> None:
        for store, text in ((source, b"one"), (target, b"two")):
            async with store.opened() as journal:
                await append(journal, "u.cart|1", 1, text)
                await append(journal, "u.cart|2", 1, b"same")
        compared = await compare_only(source.source(), target.source(), False, Nothing())
        assert compared.differences == ["u.cart|1: events differ"]

    run(scenario())


def test_a_target_with_the_copy_of_something_else_is_refused(ways: tuple[Store, Store], tmp_path: Path) -> None:
    source, target = ways

    async def scenario() -> None:
        await filled(source)
        await copied(source, target)
        other = folder(tmp_path / "other")
        await filled(other)
        with pytest.raises(JournalError, match="the copy of another journal"):
            await copied(other, target)
        with pytest.raises(JournalError, match="keeps the node's identity"):
            await copied(source, target, new_node=True)

    run(scenario())


def test_a_target_that_is_in_use_otherwise_is_refused(ways: tuple[Store, Store]) -> None:
    source, target = ways

    async def scenario() -> None:
        await filled(source)
        async with target.opened() as journal:
            await append(journal, "u.cart|1", 1, b"foreign")
        with pytest.raises(JournalError, match=r"no copy began it|has a journal already"):
            await copied(source, target)

    run(scenario())


def test_half_a_copy_cannot_be_opened_nor_mixed_with_later_changes(ways: tuple[Store, Store]) -> None:
    source, target = ways

    async def scenario() -> None:
        await filled(source)
        into = target.target()
        _end_after(into, 2, before=True)
        with pytest.raises(Killed):
            await copy(source.source(), into, False, Nothing())
        if isinstance(into, PostgresTarget):
            with pytest.raises(JournalError, match="half a copy"):
                async with target.opened():
                    pass
        else:
            assert not (into.path / "data.mdb").exists()
        async with source.opened() as journal:
            await append(journal, "u.cart|3", 7, b"later")
        with pytest.raises(JournalError, match="the source has changed since"):
            await copied(source, target)

    run(scenario())


def test_two_copies_at_once_into_one_target_are_refused(tmp_path: Path, second_way: tuple[Store, list[str]]) -> None:
    source, (target, arguments) = folder(tmp_path / "from"), second_way

    async def scenario() -> None:
        await filled(source)
        into = target.target()
        store = into.store

        async def beside_another(batch: Batch, state: CopyState) -> None:
            if batch.items[0].first == 1 and not refused:
                refused.append(await asyncio.to_thread(command, "copy", str(tmp_path / "other"), *arguments))
            await store(batch, state)

        into.store = beside_another  # type: ignore[method-assign]
        assert all_equal((await copy(source.source(), into, False, Nothing())).compared)

    refused: list[tuple[int, str]] = []
    run(filled(folder(tmp_path / "other")))
    run(scenario())
    code, text = refused[0]
    assert code == 2
    assert "in use by process" in text or "somebody else is copying" in text


@pytest.fixture(params=["lmdb", "postgres"])
def second_way(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Store, list[str]]:
    """A target, and how the command line names it."""
    if request.param == "lmdb":
        return folder(tmp_path / "to"), [str(tmp_path / "to")]
    server: PostgresServer = request.getfixturevalue("postgres_server")
    schema = request.getfixturevalue("postgres_schema")
    return database(server.dsn, schema), [server.dsn, "--to-schema", schema]


def command(*arguments: str) -> tuple[int, str]:
    """Of another process: exit code, and what it said."""
    program = [sys.executable, "-m", "stateside.journal", *arguments]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


def test_a_folder_in_use_is_refused_and_a_backup_recommended(tmp_path: Path) -> None:
    source, target = folder(tmp_path / "from"), folder(tmp_path / "to")

    async def scenario() -> None:
        async with source.opened() as journal:
            await fill(journal)
            with pytest.raises(JournalError, match=r"in use by process .* journal backup"):
                await copied(source, target)

    run(scenario())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere", "to"], "there is no journal in nowhere"),
        (["memory:", "to"], "memory: is neither a folder nor a URL of Postgres"),
        (["from", "mysql://x/y"], "mysql: is neither a folder nor a URL of Postgres"),
        (["from", "postgresql://x/y", "--workers", "2"], "in Postgres workers share one journal"),
        (["from", "postgresql://user:secret@127.0.0.1:1/y"], "postgresql://user@127.0.0.1:1/y cannot be reached"),
        (["from", "to", "--workers", "0"], "Invalid value for '--workers'"),
    ],
)
def test_what_cannot_be_copied_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    run(filled(folder(tmp_path / "from")))
    done = CliRunner().invoke(commands, ["copy", *arguments])
    assert done.exit_code == 2
    assert words in done.output


def test_a_copy_ends_at_damage_and_says_where(tmp_path: Path) -> None:
    run(filled(folder(tmp_path / "from")))
    damage(tmp_path / "from", b"13.5")
    done = CliRunner().invoke(commands, ["copy", str(tmp_path / "from"), str(tmp_path / "to")])
    assert done.exit_code == 2
    assert "u.cart|" in done.output
    assert "`stateside journal verify` lists all damage" in done.output
    assert not (tmp_path / "to").exists()


def test_the_command_line_shows_what_it_did(tmp_path: Path) -> None:
    run(filled(folder(tmp_path / "from")))
    for said in ("copied; 26 entities with 122 events", "copied before; 26 entities with 122 events"):
        done = CliRunner().invoke(commands, ["copy", str(tmp_path / "from"), str(tmp_path / "to"), "--quiet"])
        assert (done.exit_code, done.stderr) == (0, "")
        assert done.stdout == f"{said} compared: all equal\n"
