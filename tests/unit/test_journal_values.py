"""Values in the LMDB store: what it keeps of them, what it notices, and what operators see of them."""

from __future__ import annotations

import asyncio
import base64
import errno
import json
from pathlib import Path

import lmdb
import pytest

from stateside.journal.anyvalue import join_any
from stateside.journal.contract import Corrupt, Durability, Full, Head, SequenceTaken, StaleEpoch, TooLarge
from stateside.journal.format import index_key, pack_offset, pack_value_entry, parse_record
from stateside.journal.lmdb import LmdbSettings
from tests.helpers.journal import Answer, append, load, put, read_all, run
from tests.unit.test_journal_cli import call, contents, json_lines
from tests.unit.test_journal_lmdb import SMALL_TAIL, crash, damage, opened, raw

BALANCE = "type.googleapis.com/bank.Balance"
HEADER_SIZE = 36

UPDATE_AND_CRASH = """
    journal = LmdbJournal(path, Durability.DURABLE, LmdbSettings(tail_appends=5))
    await journal.open()
    for i in range(23):
        await put(journal, f"account|{i % 3}", i // 3 + 1, None if i == 22 else b"value-%d." % i, epoch=2)
        await append(journal, "log", i + 1, b"event")
"""
AFTER_UPDATES = [Head(8, 8, b"value-21."), Head(8, 8, None), Head(7, 7, b"value-20.")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def entries(path: Path, database: bytes) -> list[tuple[bytes, bytes]]:
    with raw(path) as environment, environment.begin() as txn:
        return list(txn.cursor(environment.open_db(database, txn, create=False)))


# What is kept.


@pytest.mark.parametrize("durability", list(Durability))
def test_values_are_there_after_a_restart(path, durability):
    async def scenario():
        async with opened(path, durability=durability) as journal:
            await put(journal, "kept", 1, b"one", epoch=7)
            await put(journal, "kept", 2, b"two", epoch=7)
            await put(journal, "gone", 1, b"one")
            await put(journal, "gone", 2, None)
        async with opened(path, durability=durability) as journal:
            assert await load(journal, "kept") == Head(2, 2, b"two")
            assert await load(journal, "gone") == Head(2, 2, None)
            with pytest.raises(StaleEpoch):
                await put(journal, "kept", 3, b"late", epoch=6)
            with pytest.raises(SequenceTaken):
                await append(journal, "gone", 3, b"event")
            with pytest.raises(SequenceTaken):
                await put(journal, "kept", 2, b"again", epoch=7)
            await put(journal, "kept", 3, b"three", epoch=7)
            assert await load(journal, "kept") == Head(3, 3, b"three")

    run(scenario())


def test_loads_agree_with_puts_at_every_stage_of_the_lagging_index(path):
    async def scenario():
        async with opened(path, SMALL_TAIL) as journal:
            written: dict[str, int] = {}
            for step in range(60):
                entity = f"account|{step * step % 7}"
                written[entity] = written.get(entity, 0) + 1
                await put(journal, entity, written[entity], b"%d" % written[entity])
                for name, version in written.items():
                    assert await load(journal, name) == Head(version, version, b"%d" % version)

    run(scenario())


def test_the_index_has_one_entry_for_each_value_however_often_it_was_put(path):
    async def scenario():
        async with opened(path, SMALL_TAIL) as journal:
            for version in range(1, 51):
                await put(journal, "one", version, b"%d" % version)
                await put(journal, "two", version, b"%d" % version)

    run(scenario())
    assert entries(path, b"index") == [
        (index_key("one", 0), pack_value_entry(98, 50)),
        (index_key("two", 0), pack_value_entry(99, 50)),
    ]


def test_updates_of_one_value_in_flight_at_once_leave_the_last(path):
    async def scenario():
        async with opened(path, SMALL_TAIL) as journal:
            answers = [Answer() for _ in range(100)]
            for index, answer in enumerate(answers):
                journal.put("hot", index + 1, b"%d" % index, answer)
            for answer in answers:
                await answer.result()
            assert await load(journal, "hot") == Head(100, 100, b"99")
            assert (journal.log.values, journal.log.events, journal.log.appends) == (100, 0, 100)
        async with opened(path) as journal:
            assert await load(journal, "hot") == Head(100, 100, b"99")

    run(scenario())


def test_values_missing_in_the_index_are_found_again_after_a_crash(path):
    crash(path, UPDATE_AND_CRASH)
    assert entries(path, b"index") != []

    async def scenario():
        for _ in range(2):
            async with opened(path, SMALL_TAIL) as journal:
                assert [await load(journal, f"account|{i}") for i in range(3)] == AFTER_UPDATES
                assert len(await read_all(journal, "log")) == 23
        async with opened(path) as journal:
            with pytest.raises(StaleEpoch):
                await put(journal, "account|1", 9, b"late", epoch=1)
            await put(journal, "account|1", 9, b"back", epoch=2)
            assert await load(journal, "account|1") == Head(9, 9, b"back")

    run(scenario())
    assert [key for key, _ in entries(path, b"index") if key.startswith(b"account")] == [
        index_key(f"account|{i}", 0) for i in range(3)
    ]


def test_a_value_that_left_the_cache_of_heads_is_checked_against_what_is_stored(path):
    async def scenario():
        async with opened(path, LmdbSettings(head_cache=2, tail_appends=4)) as journal:
            for version in (1, 2, 3):
                for index in range(10):
                    await put(journal, f"account|{index}", version, b"value", epoch=1)
            for index in range(10):
                with pytest.raises(SequenceTaken):
                    await put(journal, f"account|{index}", 3, b"again", epoch=1)
                with pytest.raises(SequenceTaken, match="keeps a value"):
                    await append(journal, f"account|{index}", 4, b"event", epoch=1)

    run(scenario())


def test_the_stored_bytes_of_values_are_what_the_format_says(path):
    async def scenario():
        async with opened(path) as journal:
            await put(journal, "a", 1, b"value", epoch=3)
            await put(journal, "a", 2, None, epoch=4)

    run(scenario())
    first, second = (parse_record(data, offset) for offset, (_, data) in enumerate(entries(path, b"log")))
    assert (first.entity, first.first_sequence, first.epoch, first.is_value, first.value) == ("a", 1, 3, True, b"value")
    assert (second.first_sequence, second.epoch, second.is_value, second.value) == (2, 4, True, None)


# Damage.


async def store_two(path: Path) -> None:
    async with opened(path, SMALL_TAIL) as journal:
        for version in (1, 2, 3):
            await put(journal, "victim", version, b"marked-value-%d" % version)
            await put(journal, "other", version, b"sound-value-%d" % version)


async def assert_only_the_victim_is_corrupt(path: Path) -> None:
    async with opened(path) as journal:
        with pytest.raises(Corrupt, match="victim"):
            await load(journal, "victim")
        assert await load(journal, "other") == Head(3, 3, b"sound-value-3")
        await put(journal, "other", 4, b"goes on")


@pytest.mark.parametrize("shift", [0, -1, -4, -8, -10, -11, 12])
def test_damage_anywhere_in_a_value_is_reported_for_its_entity_only(path, shift):
    run(store_two(path))
    damage(path, b"marked-value-3", shift)
    run(assert_only_the_victim_is_corrupt(path))
    result = call("verify", "--path", path)
    assert (result.exit_code, result.stdout.count("victim")) == (1, result.stdout.count("damaged  victim"))
    assert "damaged  other" not in result.stdout


@pytest.mark.parametrize("byte", range(HEADER_SIZE))
def test_damage_in_any_byte_of_a_values_header_is_noticed(path, byte):
    run(store_two(path))
    damage(path, b"victim" + (14).to_bytes(4, "little") + b"marked-value-3", byte - HEADER_SIZE)
    run(assert_only_the_victim_is_corrupt(path))


def test_damage_in_a_superseded_value_harms_nobody(path):
    run(store_two(path))
    damage(path, b"marked-value-2")

    async def scenario():
        async with opened(path) as journal:
            assert await load(journal, "victim") == Head(3, 3, b"marked-value-3")

    run(scenario())
    assert call("verify", "--path", path).exit_code == 0


@pytest.mark.parametrize(
    "entry",
    [
        pack_value_entry(2, 3),  # an older version of the value under the newer number
        pack_value_entry(5, 3),  # another entity's
        pack_value_entry(99, 3),  # nothing
        pack_value_entry(4, 2),
    ],
)
def test_an_index_entry_that_does_not_lead_to_the_value_is_noticed(path, entry):
    run(store_two(path))
    with raw(path) as environment, environment.begin(write=True) as txn:
        txn.put(index_key("victim", 0), entry, db=environment.open_db(b"index", txn, create=False))
    run(assert_only_the_victim_is_corrupt(path))
    assert "damaged  victim" in call("verify", "--path", path).stdout


def test_verify_notices_an_index_that_leads_to_an_older_value_and_values_between_events(path):
    run(store_two(path))
    with raw(path) as environment, environment.begin(write=True) as txn:
        index = environment.open_db(b"index", txn, create=False)
        txn.put(index_key("victim", 0), pack_value_entry(0, 1), db=index)
        txn.put(index_key("other", 7), pack_offset(5), db=index)
    result = call("verify", "--path", path)
    assert result.exit_code == 1
    assert "the index has version 1, the log version 3" in result.stdout
    assert "damaged  other" in result.stdout


def test_a_damaged_value_at_the_unindexed_end_is_reported_for_its_entity_only(path):
    crash(path, UPDATE_AND_CRASH)
    damage(path, b"value-21.")

    async def scenario():
        async with opened(path) as journal:
            with pytest.raises(Corrupt, match=r"account\|0"):
                await load(journal, "account|0")
            assert [await load(journal, f"account|{i}") for i in (1, 2)] == AFTER_UPDATES[1:]

    run(scenario())


# Bounds and failures.


def test_a_value_larger_than_the_bound_is_refused(path):
    async def scenario():
        async with opened(path, LmdbSettings(record_bytes=1000)) as journal:
            with pytest.raises(TooLarge, match=r"big.*1000"):
                await put(journal, "big", 1, b"x" * 1000)
            await put(journal, "big", 1, b"x" * 900)

    run(scenario())


def test_values_beyond_the_queue_are_refused_and_those_in_it_are_stored(path):
    async def scenario():
        async with opened(path, LmdbSettings(queue_appends=3)) as journal:
            answers = [Answer() for _ in range(5)]
            for index, answer in enumerate(answers):
                journal.put(f"account|{index}", 1, b"value", answer)
            for answer in answers:
                await answer.done.wait()
            assert [type(answer.error) for answer in answers] == [type(None)] * 3 + [Full] * 2

    run(scenario())


def test_no_space_fails_values_under_way_and_leaves_the_one_before(path):
    async def scenario():
        async with opened(path, LmdbSettings(probe_interval=0.001)) as journal:
            await put(journal, "account", 1, b"one")
            journal.log.fail_next_flush(errno.ENOSPC)
            lost = [Answer(), Answer()]
            journal.put("account", 2, b"two", lost[0])
            journal.put("account", 3, None, lost[1])
            for answer in lost:
                with pytest.raises(Full):
                    await answer.result()
            assert await load(journal, "account") == Head(1, 1, b"one")
            while not journal.writable:
                await asyncio.sleep(0.001)
            await put(journal, "account", 2, b"again")
            assert await load(journal, "account") == Head(2, 2, b"again")

    run(scenario())


# What operators see.


@pytest.fixture
def filled(path: Path) -> Path:
    """account|1 at version 3, account|2 deleted at version 2, cart|1 with two events and a snapshot."""

    async def scenario() -> None:
        async with opened(path) as journal:
            await put(journal, "account|1", 1, join_any(BALANCE, b"ten"))
            await append(journal, "cart|1", 1, b"a", b"b", snapshot=b"ab")
            await put(journal, "account|2", 1, join_any(BALANCE, b"five"))
            await put(journal, "account|1", 2, join_any(BALANCE, b"twenty"))
            await put(journal, "account|2", 2, None)
            await put(journal, "account|1", 3, join_any(BALANCE, b"thirty"))

    run(scenario())
    return path


def test_list_shows_kind_and_version(filled):
    lines = [line.split() for line in call("list", "--path", filled).stdout.splitlines()]
    assert lines == [
        ["value", "3", "-", "account|1"],
        ["value", "2", "deleted", "account|2"],
        ["events", "2", "2", "cart|1"],
    ]
    assert json_lines(call("list", "--json", "--path", filled).stdout) == [
        {"entity": "account|1", "kind": "value", "version": 3, "deleted": False},
        {"entity": "account|2", "kind": "value", "version": 2, "deleted": True},
        {"entity": "cart|1", "kind": "events", "events": 2, "snapshot": 2},
    ]


def test_stat_counts_values_apart_from_events(filled):
    found = json.loads(call("stat", "--json", "--path", filled).stdout)
    assert {name: found[name] for name in ("entities", "events", "values", "appends")} == {
        "entities": 3,
        "events": 2,
        "values": 2,
        "appends": 6,
    }


def test_show_prints_the_value(filled):
    size = len(join_any(BALANCE, b"thirty"))
    assert call("show", "account|1", "--path", filled).stdout.split() == ["3", BALANCE, str(size), "thirty"]
    assert call("show", "account|2", "--path", filled).stdout.split() == ["2", "deleted"]
    shown = json_lines(call("show", "account|1", "--json", "--path", filled).stdout)
    value = base64.b64encode(b"thirty").decode()
    assert shown == [{"version": 3, "size": size, "type_url": BALANCE, "value": value}]
    assert json_lines(call("show", "account|2", "--json", "--path", filled).stdout) == [{"version": 2, "deleted": True}]


def test_list_and_show_tell_of_a_damaged_value(filled):
    damage(filled, b"thirty")
    assert "DAMAGED" in call("list", "--prefix", "account|1", "--path", filled).stdout
    assert "DAMAGED" not in call("list", "--prefix", "account|2", "--path", filled).stdout
    result = call("show", "account|1", "--path", filled)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "Damaged: account|1" in result.stderr


def test_an_export_has_the_latest_values_and_an_import_restores_them(filled, tmp_path):
    exported = call("export", "-", "--path", filled).stdout
    values = [line for line in json_lines(exported) if "version" in line]
    assert [(line["entity"], line["version"], line.get("deleted")) for line in values] == [
        ("account|2", 2, True),
        ("account|1", 3, None),
    ]
    result = call("import", "-", "--path", tmp_path / "copy", input=exported)
    assert result.stdout == "2 events, 1 snapshots and 2 values imported, 0 were there already\n"
    assert contents(tmp_path / "copy") == contents(filled)
    assert call("export", "-", "--path", tmp_path / "copy").stdout == exported
    again = call("import", "-", "--path", filled, input=exported)
    assert again.stdout == "0 events, 0 snapshots and 0 values imported, 5 were there already\n"
    assert call("verify", "--path", tmp_path / "copy").exit_code == 0


def value_line(entity: str, version: int, value: bytes | None) -> str:
    data = {"deleted": True} if value is None else {"data": base64.b64encode(value).decode()}
    return json.dumps({"entity": entity, "version": version} | data) + "\n"


def test_an_import_takes_later_versions_and_skips_earlier_ones(filled):
    lines = value_line("account|1", 9, b"late") + value_line("account|2", 1, b"old") + value_line("account|1", 4, None)
    result = call("import", "-", "--path", filled, input=lines)
    assert result.stdout == "0 events, 0 snapshots and 1 values imported, 2 were there already\n"
    found = contents(filled)
    assert found["account|1"][0] == Head(9, 9, b"late")
    assert found["account|2"][0] == Head(2, 2, None)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (value_line("account|1", 3, b"other"), "another value is stored as version 3"),
        (value_line("account|2", 2, b""), "another value is stored as version 2"),
        (value_line("cart|1", 2, b"ab"), "it keeps events here"),
        (value_line("cart|1", 3, b"ab"), "it keeps events here"),
        (json.dumps({"entity": "account|1", "sequence": 4, "data": ""}), "it keeps a value here"),
        (json.dumps({"entity": "account|1", "snapshot": 3, "data": ""}), "it keeps a value here"),
        (json.dumps({"entity": "account|1", "version": 4}), "not an exported event, snapshot or value"),
        (json.dumps({"entity": "cart|2", "sequence": 1, "deleted": True}), "not an exported event, snapshot or value"),
    ],
)
def test_an_import_writes_over_nothing(filled, line, reason):
    before = contents(filled)
    result = call("import", "-", "--path", filled, input=line)
    assert result.exit_code == 1
    assert reason in result.stderr
    assert contents(filled) == before


def test_an_export_leaves_a_damaged_value_out_and_says_so(filled):
    damage(filled, b"thirty")
    result = call("export", "-", "--path", filled)
    assert result.exit_code == 1
    assert "Left out: account|1" in result.stderr
    assert {str(line["entity"]) for line in json_lines(result.stdout)} == {"cart|1", "account|2"}


@pytest.mark.parametrize("in_place", [True, False])
def test_compaction_drops_superseded_values(path, tmp_path, in_place):
    async def churn():
        async with opened(path, SMALL_TAIL) as journal:
            for version in range(1, 100):
                await put(journal, "account|1", version, b"%d" % version * 5000)
                await append(journal, "cart|1", version, b"event")

    run(churn())
    before, size = contents(path), (path / "data.mdb").stat().st_size
    target = path if in_place else tmp_path / "copy"
    assert call("compact", "--in-place" if in_place else target, "--path", path).exit_code == 0
    assert (target / "data.mdb").stat().st_size < size / 5
    assert contents(target) == before
    assert len(entries(target, b"log")) == 99 + 1
    assert call("verify", "--path", target).exit_code == 0

    async def go_on():
        async with opened(target) as journal:
            await put(journal, "account|1", 100, b"more")
            await append(journal, "cart|1", 100, b"event")

    run(go_on())
    assert call("verify", "--path", target).exit_code == 0


def test_compaction_of_a_journal_that_was_not_closed_keeps_every_value(path):
    crash(path, UPDATE_AND_CRASH)
    assert call("compact", "--in-place", "--path", path).exit_code == 0
    assert call("verify", "--path", path).exit_code == 0
    assert len(entries(path, b"log")) == 23 + 3

    async def scenario():
        async with opened(path) as journal:
            assert [await load(journal, f"account|{i}") for i in range(3)] == AFTER_UPDATES
            await put(journal, "account|0", 9, b"more", epoch=2)

    run(scenario())
    assert call("verify", "--path", path).exit_code == 0


@pytest.mark.parametrize("tail", [10, 1000], ids=["indexed", "not indexed yet"])
def test_compaction_drops_what_a_snapshot_of_the_proxys_own_covers(path, tmp_path, tail):
    """Of `|...`: the log of a replicated state, of which nobody wants the past."""

    async def churn():
        async with opened(path, LmdbSettings(tail_appends=tail)) as journal:
            for sequence in range(1, 100):
                snapshot = b"state" if sequence == 90 else None
                for entity in ("|crdt|chat", "cart|1"):
                    await append(journal, entity, sequence, b"%d" % sequence * 1000, snapshot=snapshot)

    run(churn())
    size = (path / "data.mdb").stat().st_size
    assert call("compact", tmp_path / "copy", "--path", path).exit_code == 0
    assert (tmp_path / "copy" / "data.mdb").stat().st_size < size * 0.8
    assert len(entries(tmp_path / "copy", b"log")) == 99 + 10
    assert call("verify", "--path", tmp_path / "copy").exit_code == 0

    async def go_on():
        async with opened(tmp_path / "copy") as journal:
            assert await load(journal, "|crdt|chat") == Head(99, 90, b"state")
            assert await read_all(journal, "|crdt|chat", 91) == [b"%d" % sequence * 1000 for sequence in range(91, 100)]
            await append(journal, "|crdt|chat", 100, b"more")
            assert await read_all(journal, "cart|1") == [b"%d" % sequence * 1000 for sequence in range(1, 100)]

    run(go_on())
    assert call("verify", "--path", tmp_path / "copy").exit_code == 0
    lines = call("export", "-", "--path", tmp_path / "copy").stdout
    assert call("import", "-", "--path", tmp_path / "imported", input=lines).exit_code == 0
    assert lines == call("export", "-", "--path", tmp_path / "imported").stdout

    async def restored():
        async with opened(tmp_path / "imported") as journal:
            assert await load(journal, "|crdt|chat") == Head(11, 1, b"state")
            assert (await read_all(journal, "|crdt|chat", 2))[-1] == b"more"

    run(restored())


def test_events_of_the_proxys_own_that_no_snapshot_covers_are_missed(path):
    async def churn():
        async with opened(path, SMALL_TAIL) as journal:
            for sequence in range(1, 30):
                await append(journal, "|crdt|chat", sequence, b"event", snapshot=b"s" if sequence == 20 else None)

    run(churn())
    assert call("compact", "--in-place", "--path", path).exit_code == 0
    with lmdb.open(str(path), max_dbs=32) as environment, environment.begin(write=True) as txn:
        txn.delete(b"|crdt|chat", db=environment.open_db(b"snapshots", txn))
    result = call("verify", "--path", path)
    assert result.exit_code == 1
    assert "sequence 1 is missing: sequence 20 comes first, and no snapshot covers it" in result.stdout + result.stderr
