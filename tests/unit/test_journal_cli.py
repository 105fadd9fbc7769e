"""`stateside journal ...`: what operators see of a stored journal."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from google.protobuf.any_pb2 import Any

from stateside.journal.anyvalue import join_any, split_any
from stateside.journal.cli import journal as commands
from stateside.journal.contract import Durability, Head
from stateside.journal.format import index_key, pack_offset
from stateside.journal.lmdb import LmdbJournal, LmdbSettings
from stateside.journal.offsets import Position
from stateside.journal.reader import StoredJournal
from stateside.journal.verify import verify
from tests.helpers.journal import append, load, read_all, run
from tests.unit.test_journal_lmdb import STORE_AND_CRASH, crash, damage, opened, raw

ADDED = "type.googleapis.com/shop.ItemAdded"
READ_ONLY = (["stat"], ["list"], ["show", "cart|1"], ["verify"], ["export", "-"])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def filled(path: Path) -> Path:
    """cart|1 with four events and a snapshot, cart|2 with one event, user|9 with one that is no Any."""

    async def scenario() -> None:
        async with opened(path) as journal:
            await append(journal, "cart|1", 1, join_any(ADDED, b"apple"), join_any(ADDED, b"\x01\xff"))
            await append(journal, "user|9", 1, b"\x00raw")
            await append(journal, "cart|1", 3, join_any(ADDED, b""), snapshot=join_any("cart", b"3 items"))
            await append(journal, "cart|2", 1, join_any(ADDED, b"pear"))
            await append(journal, "cart|1", 4, join_any(ADDED, b"plum"))

    run(scenario())
    return path


def call(*arguments: str | Path, input: str | None = None) -> Result:
    return CliRunner().invoke(
        commands, [str(argument) for argument in arguments], input=input, prog_name="stateside journal"
    )


def json_lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


# Looking.


def test_stat_counts_what_is_stored(filled):
    found = json.loads(call("stat", "--json", "--path", filled).stdout)
    counts = {
        name: found[name] for name in ("format", "entities", "events", "appends", "snapshots", "unindexed_appends")
    }
    assert counts == {"format": 1, "entities": 3, "events": 6, "appends": 5, "snapshots": 1, "unindexed_appends": 0}
    assert 0 < found["used_bytes"] <= found["file_bytes"]
    assert "entities           3" in call("stat", "--path", filled).stdout


def test_list_shows_events_and_snapshot_of_each_entity(filled):
    lines = [line.split() for line in call("list", "--path", filled).stdout.splitlines()]
    assert lines == [["events", "4", "3", "cart|1"], ["events", "1", "-", "cart|2"], ["events", "1", "-", "user|9"]]


def test_list_can_be_narrowed(filled):
    assert [
        line["entity"] for line in json_lines(call("list", "--json", "--prefix", "cart", "--path", filled).stdout)
    ] == [
        "cart|1",
        "cart|2",
    ]
    assert call("list", "--prefix", "cart|2", "--path", filled).stdout.split() == ["events", "1", "-", "cart|2"]
    assert len(call("list", "--limit", "2", "--path", filled).stdout.splitlines()) == 2
    assert call("list", "--prefix", "nobody", "--path", filled).stdout == ""


def test_show_prints_sequence_type_size_and_value(filled):
    lines = [line.split() for line in call("show", "cart|1", "--path", filled).stdout.splitlines()]
    assert lines == [
        ["1", ADDED, str(len(join_any(ADDED, b"apple"))), "apple"],
        ["2", ADDED, str(len(join_any(ADDED, b"12"))), "01ff"],
        ["3", ADDED, str(len(join_any(ADDED, b"")))],
        ["4", ADDED, str(len(join_any(ADDED, b"plum"))), "plum"],
    ]


def test_show_can_be_narrowed_to_sequences(filled):
    shown = json_lines(call("show", "cart|1", "--from", "2", "--to", "3", "--json", "--path", filled).stdout)
    assert [(line["sequence"], base64.b64decode(str(line["value"]))) for line in shown] == [(2, b"\x01\xff"), (3, b"")]


@pytest.mark.parametrize(("payload", "shown"), [("hex", "6170706c65"), ("text", "apple"), ("none", "")])
def test_show_prints_values_as_asked(filled, payload, shown):
    line = call("show", "cart|1", "--to", "1", "--payload", payload, "--path", filled).stdout.split()
    assert line[3:] == ([shown] if shown else [])


def test_show_of_bytes_that_are_no_any_has_no_type(filled):
    assert call("show", "user|9", "--path", filled).stdout.split() == ["1", "-", "4", "00726177"]


def test_nothing_stored_moves_the_operators_cursor(path):
    async def scenario():
        async with opened(path) as journal:
            await append(journal, "evil\x1b[2J", 1, b"\x1b[2Jevent")

    run(scenario())
    for arguments in (["list"], ["show", "evil\x1b[2J", "--payload", "text"], ["verify"]):
        result = call(*arguments, "--path", path)
        assert result.exit_code == 0
        assert "\x1b" not in result.output


def test_a_journal_that_was_not_closed_is_shown_whole(path):
    crash(
        path,
        """
        journal = LmdbJournal(path, Durability.DURABLE, LmdbSettings(tail_appends=4))
        await journal.open()
        for i in range(30):
            await append(journal, f"entity-{i % 3}", i // 3 + 1, b"%d" % i)
        """,
    )
    listed = json_lines(call("list", "--json", "--path", path).stdout)
    assert [(line["entity"], line["events"]) for line in listed] == [(f"entity-{i}", 10) for i in range(3)]
    shown = json_lines(call("show", "entity-1", "--json", "--path", path).stdout)
    assert [base64.b64decode(str(line["data"])) for line in shown] == [b"%d" % i for i in range(1, 30, 3)]
    assert [
        line["sequence"]
        for line in json_lines(call("show", "entity-1", "--json", "--from", "8", "--path", path).stdout)
    ] == [
        8,
        9,
        10,
    ]
    assert "30 events in 30 appends" in call("verify", "--path", path).stdout


BUSY = """
import asyncio, sys, uvloop
sys.path.insert(0, ".")
from tests.helpers.journal import append
from stateside.journal.lmdb import LmdbJournal, LmdbSettings
from stateside.journal.contract import Durability
async def main():
    journal = LmdbJournal(sys.argv[1], Durability.NONE, LmdbSettings(tail_appends=50, map_size=1 << 20))
    await journal.open()
    sequence = 0
    while True:
        for index in range(20):
            await append(journal, f"cart|{index}", sequence + 1, b"x" * 300, b"y" * 50, snapshot=b"z" * 3000)
        sequence += 2
        if sequence == 20:
            print("ready", flush=True)
uvloop.run(main())
"""


def test_read_only_commands_work_while_another_process_appends(path):
    """Also proves that the two versions of LMDB share their lock file: a reader's pages are not used again under it."""
    process = subprocess.Popen([sys.executable, "-c", BUSY, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        for _ in range(3):
            for arguments in READ_ONLY:
                result = call(*arguments, "--path", path)
                assert (result.exit_code, result.stderr) == (0, "")
        for arguments in (["import", "-"], ["compact", "--in-place"], ["compact", path / "copy"]):
            result = call(*arguments, "--path", path)
            assert result.exit_code == 2
            assert f"in use by process {process.pid}" in result.stderr
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_view_stays_what_it_was_while_another_process_appends(path):
    process = subprocess.Popen([sys.executable, "-c", BUSY, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        with StoredJournal(path) as stored, stored.view() as view:
            first = verify(view)
            # Many transactions later, no page of the view may have been written over.
            while stored.environment.info()["last_txnid"] < view.txn.id() + 1000:
                assert process.poll() is None
            assert verify(view) == first
        assert first.damaged == {}
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


# Damage.


def test_verify_lists_the_damaged_entities(filled):
    damage(filled, b"apple")
    result = call("verify", "--path", filled)
    assert result.exit_code == 1
    assert [line.split()[:2] for line in result.stdout.splitlines()[:-1]] == [["damaged", "cart|1"]]
    assert "1 damaged" in result.stdout


def test_verify_notices_what_the_index_lost_and_what_it_invented(filled):
    with raw(filled) as environment, environment.begin(write=True) as txn:
        index = environment.open_db(b"index", txn, create=False)
        assert txn.delete(index_key("cart|2", 1), db=index)
        txn.put(index_key("ghost", 1), pack_offset(0), db=index)
        txn.put(index_key("user|9", 2), pack_offset(77), db=index)
    lines = call("verify", "--path", filled).stdout.splitlines()
    assert [line.split()[1] for line in lines[:-1]] == ["cart|2", "ghost", "user|9"]


def test_verify_notices_a_missing_record_and_a_snapshot_ahead_of_the_events(filled):
    with raw(filled) as environment, environment.begin(write=True) as txn:
        log = environment.open_db(b"log", txn, create=False)
        assert txn.delete(pack_offset(4), db=log)
        assert txn.delete(pack_offset(2), db=log)
    result = call("verify", "--path", filled)
    assert result.exit_code == 1
    assert "snapshot covers sequence 3, which is not stored" in result.stdout
    assert "no record at offset 2" in result.stdout


def test_list_marks_and_show_stops_at_damage(filled):
    damage(filled, b"plum")
    result = call("show", "cart|1", "--path", filled)
    assert (result.exit_code, len(result.stdout.splitlines())) == (1, 3)
    assert "Damaged: cart|1" in result.stderr
    damage(filled, b"3 items")
    assert "DAMAGED: snapshot" in call("list", "--prefix", "cart|1", "--path", filled).stdout
    assert "DAMAGED" not in call("list", "--prefix", "cart|2", "--path", filled).stdout


def test_a_journal_with_a_record_of_nobody_can_still_be_checked_and_exported(path, tmp_path):
    crash(path, STORE_AND_CRASH)
    damage(path, b"marked-event-of-the-victim", -7)
    assert "(unknown entity)" in call("verify", "--path", path).stdout
    result = call("export", "-", "--path", path)
    assert result.exit_code == 1
    assert "Left out: header of the record at offset 0" in result.stderr
    assert [line["entity"] for line in json_lines(result.stdout)] == ["other", "other"]
    assert call("import", "-", "--path", tmp_path / "new", input=result.stdout).exit_code == 0


def test_an_export_ends_a_damaged_entity_before_its_damage(filled):
    damage(filled, b"plum")
    result = call("export", "-", "--path", filled)
    assert result.exit_code == 1
    assert "Left out: cart|1" in result.stderr
    exported = [(line["entity"], line["sequence"]) for line in json_lines(result.stdout) if "sequence" in line]
    assert exported == [("cart|1", 1), ("cart|1", 2), ("user|9", 1), ("cart|1", 3), ("cart|2", 1)]


# Export, import, compact.


def contents(path: Path) -> dict[str, tuple[Head, list[bytes]]]:
    entities = [str(line["entity"]) for line in json_lines(call("list", "--json", "--path", path).stdout)]

    async def scenario() -> dict[str, tuple[Head, list[bytes]]]:
        async with opened(path) as journal:
            return {entity: (await load(journal, entity), await read_all(journal, entity)) for entity in entities}

    return run(scenario())


def test_an_export_imported_elsewhere_is_the_same_journal(filled, tmp_path):
    file, copy = tmp_path / "export.jsonl", tmp_path / "copy"
    assert call("export", file, "--path", filled).exit_code == 0
    result = call("import", file, "--path", copy)
    assert result.stdout == "6 events, 1 snapshots and 0 values imported, 0 were there already\n"
    assert contents(copy) == contents(filled)
    assert call("export", "-", "--path", copy).stdout == file.read_text()


def test_importing_twice_is_harmless(filled):
    exported = call("export", "-", "--path", filled).stdout
    before = contents(filled)
    result = call("import", "-", "--path", filled, input=exported)
    assert result.stdout == "0 events, 0 snapshots and 0 values imported, 7 were there already\n"
    assert contents(filled) == before


def test_an_import_goes_on_where_an_earlier_one_ended(filled, tmp_path):
    lines = call("export", "-", "--path", filled).stdout.splitlines(keepends=True)
    for end in range(len(lines) + 1):
        assert call("import", "-", "--path", tmp_path / "copy", input="".join(lines[:end])).exit_code == 0
    assert contents(tmp_path / "copy") == contents(filled)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ({"entity": "cart|2", "sequence": 1, "data": "YWJj"}, "another event is stored at sequence 1"),
        ({"entity": "cart|2", "sequence": 9, "data": "YWJj"}, "sequence 9 does not follow the last one, 1"),
        ({"entity": "cart|2", "snapshot": 9, "data": "YWJj"}, "ahead of the last event, 1"),
        ({"entity": "cart|2", "sequence": 0, "data": "YWJj"}, "number from 1 on"),
        ({"entity": 7, "sequence": 2, "data": "YWJj"}, "entity must be a text"),
        ({"entity": "cart|2", "sequence": 2, "data": "?"}, "not an exported event"),
        ({"entity": "cart|2", "sequence": 2}, "not an exported event"),
        ({"entity": "e" * 500, "sequence": 1, "data": ""}, "500 bytes"),
        ([1, 2], "not an exported event"),
    ],
)
def test_an_import_names_the_line_that_conflicts_and_keeps_those_before(filled, line, reason):
    good = json.dumps({"entity": "new", "sequence": 1, "data": "YWJj"})
    result = call("import", "-", "--path", filled, input=f"{good}\n{json.dumps(line)}\n")
    assert result.exit_code == 1
    assert "line 2" in result.stderr
    assert reason in result.stderr
    assert contents(filled)["new"][1] == [b"abc"]
    assert contents(filled)["cart|2"][1] == [join_any(ADDED, b"pear")]


@pytest.fixture
def churned(path: Path) -> Path:
    """A journal with many free pages."""

    async def scenario() -> None:
        async with opened(path, LmdbSettings(tail_appends=10)) as journal:
            for sequence in range(1, 100):
                await append(journal, "large", sequence, b"event", snapshot=bytes([sequence]) * 100_000)

    run(scenario())
    return path


def test_a_compact_copy_is_smaller_and_holds_the_same(churned, tmp_path):
    result = call("compact", tmp_path / "copy", "--path", churned)
    before, after = (int(word) for word in result.stdout.split() if word.isdigit())
    assert after < before
    assert contents(tmp_path / "copy") == contents(churned)


def test_compaction_in_place_keeps_everything_and_the_journal_goes_on(churned):
    before = contents(churned)
    size = (churned / "data.mdb").stat().st_size
    assert call("compact", "--in-place", "--path", churned).exit_code == 0
    assert (churned / "data.mdb").stat().st_size < size
    assert sorted(file.name for file in churned.iterdir()) == ["data.mdb", "journal.lock"]
    assert contents(churned) == before

    async def scenario():
        async with opened(churned, durability=Durability.DURABLE) as journal:
            await append(journal, "large", 100, b"event")

    run(scenario())
    assert call("verify", "--path", churned).exit_code == 0


# What cannot be done.


@pytest.mark.parametrize("arguments", [*READ_ONLY, ["compact", "--in-place"], ["compact", "copy"]])
def test_a_journal_that_is_not_there_is_named(tmp_path, arguments):
    result = call(*arguments, "--path", tmp_path / "nowhere")
    assert result.exit_code == 2
    assert f"there is no journal in {tmp_path / 'nowhere'}" in result.stderr
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    "arguments",
    [["show", "nobody"], ["compact"], ["compact", "x", "--in-place"], ["list", "--limit", "0"], ["show", ""]],
)
def test_impossible_arguments_are_refused_with_exit_code_2(filled, arguments):
    assert call(*arguments, "--path", filled).exit_code == 2


def test_a_destination_that_holds_something_is_refused(filled, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    result = call("compact", tmp_path / "full", "--path", filled)
    assert (result.exit_code, "not empty" in result.stderr) == (2, True)


def test_a_directory_with_another_environment_is_refused(path):
    path.mkdir()
    with raw(path):
        pass
    result = call("stat", "--path", path)
    assert (result.exit_code, "something else than a journal" in result.stderr) == (2, True)


def test_an_unknown_format_version_is_refused(filled):
    with raw(filled) as environment, environment.begin(write=True) as txn:
        txn.put(b"format", pack_offset(9), db=environment.open_db(b"meta", txn, create=False))
    result = call("list", "--path", filled)
    assert (result.exit_code, "format version 9 is unknown" in result.stderr) == (2, True)


def test_importing_the_package_loads_no_command_line(tmp_path):
    script = (
        "import sys, stateside.journal, stateside.journal.lmdb; print({'click', 'rich', 'lmdb'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout == "set()\n"


# google.protobuf.Any as bytes.


def test_an_any_is_split_as_protobuf_splits_it():
    for type_url, value in [(ADDED, b""), (ADDED, b"x" * 300), ("ü" * 100, bytes(range(256)))]:
        encoded = Any(type_url=type_url, value=value).SerializeToString()
        assert join_any(type_url, value) == encoded
        assert split_any(encoded) == (type_url, value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"\x0a\x05ab",
        b"\x0a\x01\xff",
        b"\x12\x01a",
        b"\x0a\x01a\x12\x00",
        b"\x12\x01v\x0a\x01a",
        b"\x0a\xff",
    ],
)
def test_bytes_that_are_no_canonical_any_are_left_alone(data):
    assert split_any(data) is None


def test_offsets_of_consumers_stay_behind_because_an_import_gives_events_other_offsets(filled, tmp_path):
    async def store():
        journal = LmdbJournal(filled)
        await journal.open()
        position = Position(journal, "group|cart")
        await position.load()
        position.store(77)
        await position.flush()
        await journal.close()

    before = call("export", "-", "--path", filled).stdout
    run(store())
    assert "|offset|group|cart" in contents(filled)
    assert call("verify", "--path", filled).exit_code == 0
    assert call("export", "-", "--path", filled).stdout == before
