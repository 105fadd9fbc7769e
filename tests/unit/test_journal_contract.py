"""What every journal promises (journal/contract.py), checked against each store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from stateside.journal import open_journal
from stateside.journal.contract import Head, Journal, JournalError, SequenceTaken, StaleEpoch, TooLarge
from tests.helpers.journal import Answer, append, list_all, load, put, read_all, read_page, read_whole_log, run

Scenario = Callable[[Journal], Awaitable[None]]


@pytest.fixture(params=["memory", "lmdb", "lmdb-relaxed", "lmdb-none", "postgres"])
def check(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Scenario], None]:
    """Runs a scenario on an open journal."""
    url = "memory:" if request.param == "memory" else f"lmdb:{tmp_path / 'journal'}"
    durability = (request.param.partition("-")[2] or "durable") if url != "memory:" else "none"
    settings = {}
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_server").dsn
        settings["schema"] = request.getfixturevalue("postgres_schema")

    @asynccontextmanager
    async def opened() -> AsyncIterator[Journal]:
        journal = open_journal(url, durability, **settings)  # type: ignore[arg-type]
        await journal.open()
        yield journal
        await journal.close()

    async def play(scenario: Scenario) -> None:
        async with opened() as journal:
            await scenario(journal)

    return lambda scenario: run(play(scenario))


def test_an_unknown_entity_has_no_events_and_no_snapshot(check):
    async def scenario(journal):
        assert await load(journal, "nobody") == Head(0, 0, None)
        page = await read_page(journal, "nobody")
        assert (page.events, page.more) == ([], False)

    check(scenario)


def test_events_are_read_in_the_order_of_their_sequences(check):
    async def scenario(journal):
        await append(journal, "cart", 1, b"a", b"b")
        await append(journal, "cart", 3, b"c")
        await append(journal, "other", 1, b"x")
        assert await read_all(journal, "cart") == [b"a", b"b", b"c"]
        assert await read_all(journal, "cart", 2) == [b"b", b"c"]
        assert await read_all(journal, "cart", 4) == []
        assert (await load(journal, "cart")).last_sequence == 3

    check(scenario)


def test_events_may_be_empty_or_hold_any_byte(check):
    events = [b"", bytes(range(256)), b"\0" * 5000, b""]

    async def scenario(journal):
        await append(journal, "bytes", 1, *events)
        assert await read_all(journal, "bytes") == events

    check(scenario)


def test_a_page_holds_at_least_one_event_and_about_max_bytes_at_most(check):
    events = [bytes([i]) * 100 for i in range(50)]

    async def scenario(journal):
        await append(journal, "pages", 1, *events[:30])
        for index in range(30, 50):
            await append(journal, "pages", index + 1, events[index])
        one = await read_page(journal, "pages", 7, max_bytes=1)
        assert (one.events, one.more) == ([events[6]], True)
        some = await read_page(journal, "pages", 1, max_bytes=1000)
        assert 5 <= len(some.events) <= 10
        last = await read_page(journal, "pages", 50, max_bytes=1)
        assert (last.events, last.more) == ([events[49]], False)
        assert await read_all(journal, "pages", max_bytes=700) == events

    check(scenario)


def test_an_append_is_never_answered_before_it_returns(check):
    async def scenario(journal):
        good, bad = Answer(), Answer()
        journal.append("later", 1, [b"a"], None, good)
        journal.append("later", 7, [b"a"], None, bad)
        assert not good.done.is_set()
        assert not bad.done.is_set()
        await good.result()
        with pytest.raises(SequenceTaken):
            await bad.result()

    check(scenario)


def test_all_appends_of_one_loop_turn_are_answered_in_one_loop_turn(check):
    async def scenario(journal):
        turn = 0
        turns: list[int] = []
        answers = [Answer(lambda _: turns.append(turn)) for _ in range(20)]
        for index, answer in enumerate(answers):
            journal.append(f"entity-{index}", 1, [b"event"], None, answer)
        while not answers[-1].done.is_set():
            turn += 1
            await asyncio.sleep(0)
        assert len(turns) == 20
        assert len(set(turns)) == 1

    check(scenario)


def test_appends_of_one_entity_may_follow_each_other_before_the_first_is_answered(check):
    async def scenario(journal):
        answers = [Answer() for _ in range(10)]
        for index, answer in enumerate(answers):
            journal.append("fast", index + 1, [b"%d" % index], None, answer)
        for answer in answers:
            await answer.result()
        assert await read_all(journal, "fast") == [b"%d" % index for index in range(10)]

    check(scenario)


@pytest.mark.parametrize("first", [1, 2, 4, 5, 99])
def test_an_append_that_does_not_follow_the_last_sequence_is_refused(check, first):
    async def scenario(journal):
        await append(journal, "dense", 1, b"a", b"b")
        with pytest.raises(SequenceTaken, match=r"dense.*2"):
            await append(journal, "dense", first, b"c")
        await append(journal, "dense", 3, b"c")
        assert await read_all(journal, "dense") == [b"a", b"b", b"c"]

    check(scenario)


def test_an_append_under_an_epoch_that_is_over_is_refused(check):
    async def scenario(journal):
        await append(journal, "owned", 1, b"a", epoch=3)
        with pytest.raises(StaleEpoch, match=r"owned.*2.*3"):
            await append(journal, "owned", 2, b"late", epoch=2)
        await append(journal, "owned", 2, b"b", epoch=3)
        await append(journal, "owned", 3, b"c", epoch=9)
        assert await read_all(journal, "owned") == [b"a", b"b", b"c"]

    check(scenario)


def test_a_snapshot_covers_the_last_event_it_was_stored_with(check):
    async def scenario(journal):
        await append(journal, "snap", 1, b"a", b"b", snapshot=b"ab")
        assert await load(journal, "snap") == Head(2, 2, b"ab")
        await append(journal, "snap", 3, b"c")
        assert await load(journal, "snap") == Head(3, 2, b"ab")
        await append(journal, "snap", 4, b"d", snapshot=b"")
        assert await load(journal, "snap") == Head(4, 4, b"")
        assert await read_all(journal, "snap") == [b"a", b"b", b"c", b"d"]

    check(scenario)


def test_a_snapshot_alone_covers_the_events_stored_before(check):
    async def scenario(journal):
        await append(journal, "alone", 1, b"a", epoch=1)
        await append(journal, "alone", 2, snapshot=b"A", epoch=2)
        assert await load(journal, "alone") == Head(1, 1, b"A")
        with pytest.raises(StaleEpoch):
            await append(journal, "alone", 2, b"b", epoch=1)
        with pytest.raises(SequenceTaken):
            await append(journal, "alone", 5, snapshot=b"ahead", epoch=2)
        assert await load(journal, "alone") == Head(1, 1, b"A")

    check(scenario)


def test_a_refused_append_leaves_no_snapshot_behind(check):
    async def scenario(journal):
        await append(journal, "clean", 1, b"a")
        with pytest.raises(SequenceTaken):
            await append(journal, "clean", 5, b"e", snapshot=b"bad")
        assert await load(journal, "clean") == Head(1, 0, None)

    check(scenario)


def test_entities_whose_names_begin_alike_do_not_mix(check):
    names = ["a", "aa", "a\0", "a\0\0\0\0\0\0\0\0", "a/b", "ä", "a" * 480]

    async def scenario(journal):
        for name in names:
            await append(journal, name, 1, name.encode(), b"2")
        for name in names:
            assert await read_all(journal, name) == [name.encode(), b"2"]
            assert (await load(journal, name)).last_sequence == 2

    check(scenario)


@pytest.mark.parametrize("name", ["", "x" * 481, "ü" * 241])
def test_an_entity_id_that_cannot_be_a_key_is_refused_by_every_method(check, name):
    async def scenario(journal):
        for attempt in (
            append(journal, name, 1, b"a"),
            put(journal, name, 1, b"a"),
            load(journal, name),
            read_page(journal, name),
        ):
            with pytest.raises(JournalError, match=r"bytes|empty") as caught:
                await attempt
            assert name == "" or isinstance(caught.value, TooLarge)

    check(scenario)


def test_what_no_correct_caller_asks_for_is_an_exception_at_once(check):
    async def scenario(journal):
        for first, events, snapshot in [(0, [b"a"], None), (1, [], None), (1, [], b"s"), (5, [], None)]:
            with pytest.raises(ValueError, match=r"sequence|nothing to append"):
                journal.append("wrong", first, events, snapshot, Answer())
        with pytest.raises(ValueError, match="sequences begin at 1"):
            journal.read("wrong", 0, 100, Answer())
        with pytest.raises(ValueError, match="versions begin at 1"):
            journal.put("wrong", 0, b"a", Answer())
        assert (await load(journal, "wrong")).last_sequence == 0

    check(scenario)


# Values.


def test_a_value_takes_the_place_of_the_one_before(check):
    async def scenario(journal):
        await put(journal, "account", 1, b"one")
        assert await load(journal, "account") == Head(1, 1, b"one")
        await put(journal, "account", 2, b"two")
        await put(journal, "account", 3, b"")
        assert await load(journal, "account") == Head(3, 3, b"")

    check(scenario)


def test_a_deleted_value_keeps_its_version_and_can_be_put_again(check):
    async def scenario(journal):
        await put(journal, "account", 1, b"one")
        await put(journal, "account", 2, None)
        assert await load(journal, "account") == Head(2, 2, None)
        with pytest.raises(SequenceTaken):
            await put(journal, "account", 1, b"again")
        await put(journal, "account", 3, b"three")
        assert await load(journal, "account") == Head(3, 3, b"three")

    check(scenario)


def test_a_value_may_begin_with_its_deletion(check):
    async def scenario(journal):
        await put(journal, "account", 1, None)
        assert await load(journal, "account") == Head(1, 1, None)

    check(scenario)


@pytest.mark.parametrize("version", [1, 2, 4, 99])
def test_a_version_that_does_not_follow_the_last_one_is_refused(check, version):
    async def scenario(journal):
        await put(journal, "dense", 1, b"one")
        await put(journal, "dense", 2, b"two")
        with pytest.raises(SequenceTaken, match=rf"dense.*{version}.*2"):
            await put(journal, "dense", version, b"wrong")
        assert await load(journal, "dense") == Head(2, 2, b"two")

    check(scenario)


def test_the_first_version_is_1(check):
    async def scenario(journal):
        with pytest.raises(SequenceTaken):
            await put(journal, "new", 2, b"two")
        assert await load(journal, "new") == Head(0, 0, None)

    check(scenario)


def test_a_value_under_an_epoch_that_is_over_is_refused(check):
    async def scenario(journal):
        await put(journal, "owned", 1, b"one", epoch=3)
        with pytest.raises(StaleEpoch, match=r"owned.*2.*3"):
            await put(journal, "owned", 2, b"late", epoch=2)
        await put(journal, "owned", 2, b"two", epoch=4)
        with pytest.raises(StaleEpoch):
            await put(journal, "owned", 3, None, epoch=3)
        assert await load(journal, "owned") == Head(2, 2, b"two")

    check(scenario)


def test_an_entity_has_events_or_a_value_and_never_both(check):
    async def scenario(journal):
        await append(journal, "events", 1, b"event", snapshot=b"S")
        await put(journal, "value", 1, b"one")
        with pytest.raises(SequenceTaken, match=r"events: .*keeps events"):
            await put(journal, "events", 2, b"two")
        with pytest.raises(SequenceTaken, match=r"value: .*keeps a value"):
            await append(journal, "value", 2, b"event")
        with pytest.raises(SequenceTaken, match=r"value: .*keeps a value"):
            await append(journal, "value", 2, snapshot=b"S")
        await put(journal, "value", 2, None)
        with pytest.raises(SequenceTaken, match=r"value: .*keeps a value"):
            await append(journal, "value", 3, b"event")
        assert await load(journal, "events") == Head(1, 1, b"S")
        assert await load(journal, "value") == Head(2, 2, None)

    check(scenario)


def test_a_value_in_flight_counts_for_what_comes_behind_it(check):
    async def scenario(journal):
        answers = [Answer() for _ in range(5)]
        journal.put("fast", 1, b"one", answers[0])
        journal.append("fast", 2, [b"event"], None, answers[1])
        journal.put("fast", 2, b"two", answers[2])
        journal.put("fast", 2, b"other", answers[3])
        journal.put("fast", 3, None, answers[4])
        assert not any(answer.done.is_set() for answer in answers)
        for answer in answers:
            await answer.done.wait()
        assert [type(answer.error) for answer in answers] == [
            type(None),
            SequenceTaken,
            type(None),
            SequenceTaken,
            type(None),
        ]
        assert await load(journal, "fast") == Head(3, 3, None)

    check(scenario)


def test_values_and_appends_of_one_loop_turn_are_answered_in_one_loop_turn(check):
    async def scenario(journal):
        turn = 0
        turns: list[int] = []
        answers = [Answer(lambda _: turns.append(turn)) for _ in range(20)]
        for index, answer in enumerate(answers):
            if index % 2:
                journal.put(f"entity-{index}", 1, b"value", answer)
            else:
                journal.append(f"entity-{index}", 1, [b"event"], None, answer)
        while not answers[-1].done.is_set():
            turn += 1
            await asyncio.sleep(0)
        assert len(turns) == 20
        assert len(set(turns)) == 1

    check(scenario)


@pytest.mark.parametrize("first", [1, 2, 3, 9])
def test_a_value_is_not_read_as_an_event(check, first):
    async def scenario(journal):
        await put(journal, "account", 1, b"one")
        await put(journal, "account", 2, b"two")
        assert await read_all(journal, "account", first) == []

    check(scenario)


def test_values_of_entities_whose_names_begin_alike_do_not_mix(check):
    names = ["a", "aa", "a\0", "a\0\0\0\0\0\0\0\0", "ä", "a" * 480]

    async def scenario(journal):
        for version in (1, 2):
            for index, name in enumerate(names):
                if index % 2:
                    await append(journal, name, version, b"event")
                else:
                    await put(journal, name, version, name.encode())
        for index, name in enumerate(names):
            assert await load(journal, name) == (Head(2, 0, None) if index % 2 else Head(2, 2, name.encode()))

    check(scenario)


# Around requests.


def test_an_exception_in_a_waiter_is_reported_and_the_others_are_answered(check):
    async def scenario(journal):
        def explode(_: Answer) -> None:
            raise RuntimeError("waiter broke")

        reports: list[dict[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
        first, second = Answer(explode), Answer()
        journal.append("one", 1, [b"a"], None, first)
        journal.append("two", 1, [b"a"], None, second)
        await second.result()
        assert first.done.is_set()
        assert [str(report["exception"]) for report in reports] == ["waiter broke"]

    check(scenario)


def test_a_journal_is_writable_while_it_is_open(check):
    async def scenario(journal):
        assert journal.writable
        await journal.close()
        assert not journal.writable

    check(scenario)


def test_closing_answers_the_appends_under_way(check):
    async def scenario(journal):
        answers = [Answer() for _ in range(5)]
        for index, answer in enumerate(answers):
            journal.append("closing", index + 1, [b"a"], None, answer)
        await journal.close()
        assert [answer.done.is_set() for answer in answers] == [True] * 5
        assert [answer.error for answer in answers] == [None] * 5

    check(scenario)


@pytest.mark.parametrize(
    ("url", "settings", "wrong"),
    [
        ("files:/x", {}, "files:/x"),
        ("lmdb:", {}, "lmdb:"),
        ("memory:", {"map_size": 1}, "map_size"),
        ("lmdb:x", {"size": 1}, "size"),
    ],
)
def test_an_unknown_url_or_setting_is_named(url, settings, wrong):
    with pytest.raises(ValueError, match=wrong):
        open_journal(url, **settings)


@pytest.mark.parametrize("limit", [1, 3, 1000])
def test_entities_are_listed_by_prefix_each_once_in_pages(check, limit):
    async def scenario(journal):
        wanted = [f"crdt|{index}" for index in range(8)] + ["crdt|1é", "crdt|10"]
        for entity in [*wanted, "crds|1", "crdu", "zebra", "a"]:
            await append(journal, entity, 1, b"event")
        await append(journal, "crdt|3", 2, b"event", b"event", snapshot=b"all")
        await put(journal, "crdt|value", 1, None)
        assert sorted(await list_all(journal, "crdt|", limit)) == sorted([*wanted, "crdt|value"])
        assert await list_all(journal, "nobody|", limit) == []

    check(scenario)


def test_events_that_are_to_be_forgotten_need_not_be_there_and_all_others_are(check):
    async def scenario(journal):
        await append(journal, "short", 1, b"a", b"b")
        await append(journal, "short", 3, b"c", snapshot=b"abc")
        await append(journal, "short", 4, b"d")
        await append(journal, "whole", 1, b"x")
        journal.forget("short", 4)  # more than the snapshot covers
        journal.forget("whole", 1)
        journal.forget("unknown", 1)
        assert await load(journal, "short") == Head(4, 3, b"abc")
        assert await read_all(journal, "short", 4) == [b"d"]
        assert await read_all(journal, "whole") == [b"x"]
        await append(journal, "short", 5, b"e", snapshot=b"abcde")
        journal.forget("short", 5)
        await append(journal, "short", 6, b"f")
        assert await read_all(journal, "short", 6) == [b"f"]
        entries = await read_whole_log(journal, "short")
        assert entries[-1].event == b"f"
        assert [entry.sequence for entry in entries] == sorted(entry.sequence for entry in entries)

    check(scenario)


# --- claims -----------------------------------------------------------------------------------------------------------

SHARDS = 16


def test_each_claim_gives_a_higher_epoch(check):
    async def scenario(journal):
        first = await journal.claim(range(SHARDS), SHARDS)
        second = await journal.claim([0, 5], SHARDS)
        assert 0 < first < second

    check(scenario)


def test_a_claim_with_another_number_of_shards_is_refused_and_says_what_to_do(check):
    async def scenario(journal):
        await journal.claim(range(SHARDS), SHARDS)
        with pytest.raises(JournalError, match=r"16 shards, not 17.*number_of_shards = 16.*journal copy"):
            await journal.claim(range(SHARDS + 1), SHARDS + 1)
        await journal.claim(range(SHARDS), SHARDS)

    check(scenario)


def test_what_is_appended_without_an_epoch_is_appended_under_that_of_the_claim(check):
    async def scenario(journal):
        await append(journal, "cart|a", 1, b"before")
        await put(journal, "book|a", 1, b"before")
        epoch = await journal.claim(range(SHARDS), SHARDS)
        await append(journal, "cart|a", 2, b"after")
        await put(journal, "book|a", 2, b"after")
        later = await journal.claim(range(SHARDS), SHARDS)
        await append(journal, "cart|a", 3, b"later")
        await put(journal, "book|a", 3, b"later")
        with pytest.raises(StaleEpoch, match=f"epoch {epoch} is over.*{later}"):
            await append(journal, "cart|a", 4, b"late", epoch=epoch)

    check(scenario)


def test_what_is_appended_under_an_older_epoch_than_the_claim_is_refused(check):
    async def scenario(journal):
        old = await journal.claim(range(SHARDS), SHARDS)
        await append(journal, "cart|a", 1, b"a")
        await put(journal, "book|a", 1, b"one")
        await journal.claim(range(SHARDS), SHARDS)
        for late in (
            append(journal, "cart|a", 2, b"late", epoch=old),
            append(journal, "cart|unheard of", 1, b"late", epoch=old),
            append(journal, "|crdt|set|a", 1, b"late", epoch=old),
            put(journal, "book|a", 2, b"late", epoch=old),
        ):
            with pytest.raises(StaleEpoch, match=f"epoch {old} is over"):
                await late
        await append(journal, "cart|a", 2, b"b")
        await put(journal, "book|a", 2, b"two")
        assert await read_all(journal, "cart|a") == [b"a", b"b"]
        assert (await load(journal, "book|a")).snapshot == b"two"

    check(scenario)


def test_what_the_proxy_keeps_for_itself_needs_no_claim(check):
    async def scenario(journal):
        await put(journal, "|offset|c", 1, b"1")
        await journal.claim([0], SHARDS)
        await put(journal, "|offset|c", 2, b"2")
        await journal.claim([1], SHARDS)
        await put(journal, "|offset|c", 3, b"3")
        assert (await load(journal, "|offset|c")).snapshot == b"3"

    check(scenario)
