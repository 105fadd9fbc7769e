"""The state machine of event sourced entities where a black box cannot look: what the journal answers, and when.

The journal, the stream, the connections and the client are fakes that do what the test says; all else is the proxy's
own. Rows are those of core 4.3 and 4.4, D-numbers those of core 15.
"""

from __future__ import annotations

import pytest

from stateside._speedups.wire import frame_events
from stateside.journal.contract import (
    Broken,
    Corrupt,
    Full,
    JournalError,
    Page,
    SequenceTaken,
    StaleEpoch,
    TooLarge,
)
from stateside.proto import eventsourced
from stateside.proto.status import Status
from stateside.proxy.eventsourced import EventSourcedEntities
from stateside.proxy.metrics import EVENT_SOURCED

from ..integration.messages import (
    MODEL,
    command,
    event,
    failed,
    init,
    persisted,
    reply,
    stream_failure,
)
from .machine import KEY, Client
from .machine import Machine as AnyMachine


class Machine(AnyMachine):
    """The event sourced model of the TCK with its fakes."""

    service = MODEL
    entities = EventSourcedEntities
    kind = EVENT_SOURCED
    parse = staticmethod(eventsourced.EventSourcedStreamIn.FromString)

    def storing(self) -> Client:
        """Its reply carried an event, which is with the journal."""
        client = self.busy()
        self.says(reply(1, "done", events="a"))
        assert self.journal.appends == [(1, [persisted("a").SerializeToString()], None)]
        assert client.status is None
        return client


@pytest.fixture
def machine() -> Machine:
    return Machine()


# --- storing ---------------------------------------------------------------------------------------------------------


def test_row_2_the_client_is_answered_only_after_the_journal(machine: Machine) -> None:
    client = machine.storing()
    machine.appended()
    assert client.status == Status.OK


def test_row_3_events_and_snapshot_go_to_the_journal_in_one_step(machine: Machine) -> None:
    machine.busy()
    machine.says(reply(1, events="ab", snapshot="AB"))
    events = [persisted(value).SerializeToString() for value in "ab"]
    assert machine.journal.appends == [(1, events, persisted("AB").SerializeToString())]


def test_sequences_go_on_where_the_log_stands(machine: Machine) -> None:
    machine.call()
    machine.loaded(last=7, snapshot_sequence=7, snapshot=persisted("S").SerializeToString())
    assert machine.stream.sent[0] == init(KEY, snapshot="S", sequence=7)
    machine.says(reply(1, events="ab"))
    machine.appended()
    machine.call()
    machine.says(reply(2, events="c"))
    assert [first for first, _, _ in machine.journal.appends] == [8, 10]


def test_a_command_waits_while_the_one_before_it_is_stored(machine: Machine) -> None:
    machine.storing()
    second = machine.call()
    assert machine.stream.sent[-1] == command(1, KEY)
    machine.appended()
    assert machine.stream.sent[-1] == command(2, KEY)
    machine.says(reply(2))
    assert second.status == Status.OK


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Full("no space"), Status.RESOURCE_EXHAUSTED),
        (TooLarge("too large"), Status.RESOURCE_EXHAUSTED),
        (SequenceTaken("taken"), Status.ABORTED),
        (StaleEpoch("stale"), Status.UNAVAILABLE),
        (Broken("broken"), Status.UNAVAILABLE),
        (Corrupt("corrupt"), Status.DATA_LOSS),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, JournalError) else "",
)
def test_rows_26_and_27_d9_what_the_journal_refuses_the_client_learns_and_the_instance_goes(
    machine: Machine, error: JournalError, status: Status
) -> None:
    """The reference leaves the client without an answer."""
    client = machine.storing()
    waiting = machine.call()
    machine.appended(error)
    assert client.status == status
    assert str(error) in client.text and f"{MODEL}.Process" in client.text
    assert machine.stream.half_closed and waiting.status is None
    machine.ends()
    assert len(machine.user_function.streams) == 2  # a new instance for the command that waited
    machine.loaded()
    assert machine.stream.sent == [init(KEY), command(1, KEY)]
    assert machine.metrics.failed_entities == 1


# --- while the journal works -----------------------------------------------------------------------------------------


def test_d14_a_second_reply_while_the_first_is_stored_changes_nothing_of_it_and_ends_the_instance(
    machine: Machine,
) -> None:
    client = machine.storing()
    machine.says(reply(1, "again", events="b"))
    assert len(machine.journal.appends) == 1 and client.status is None
    assert any("replied again" in report and KEY in report for report in machine.reports)
    machine.appended()
    assert client.status == Status.OK
    assert machine.stream.half_closed


def test_a_stream_failure_while_storing_ends_the_instance_after_the_answer(machine: Machine) -> None:
    client = machine.storing()
    machine.says(stream_failure(1))
    assert not machine.stream.half_closed
    machine.appended()
    assert client.status == Status.OK
    assert machine.stream.half_closed


@pytest.mark.parametrize("status", [Status.OK, Status.UNAVAILABLE])
def test_the_stream_ends_while_storing_and_the_events_are_stored(machine: Machine, status: Status) -> None:
    client = machine.storing()
    machine.ends(status)
    assert client.status is None
    machine.appended()
    assert client.status == Status.OK
    assert KEY not in machine.active


def test_the_stream_ends_while_storing_and_the_events_are_refused(machine: Machine) -> None:
    client = machine.storing()
    machine.ends(Status.UNAVAILABLE)
    machine.appended(Full("no space"))
    assert client.status == Status.RESOURCE_EXHAUSTED
    assert KEY not in machine.active


def test_commands_that_wait_while_the_stream_ends_and_the_journal_works_go_to_a_new_instance(machine: Machine) -> None:
    machine.storing()
    machine.ends(Status.UNAVAILABLE)
    waiting = machine.call()
    assert len(machine.user_function.streams) == 1
    machine.appended()
    assert len(machine.user_function.streams) == 2
    machine.loaded(last=1)
    assert waiting.status is None
    (from_sequence, waiter), *_ = machine.journal.reads
    assert from_sequence == 1
    waiter.on_page(Page(1, [persisted("a").SerializeToString()], more=False), None)
    assert machine.stream.sent[-1] == command(1, KEY)


# --- opening and replaying -------------------------------------------------------------------------------------------


def test_row_29_d9_a_head_that_cannot_be_read_fails_those_who_wait(machine: Machine) -> None:
    first, second = machine.call(), machine.call()
    machine.journal.loads.pop().on_loaded(None, Corrupt("checksum of record 3"))
    assert [first.status, second.status] == [Status.DATA_LOSS] * 2
    assert "checksum of record 3" in first.text
    assert machine.stream.half_closed and machine.stream.sent == []
    machine.ends()
    assert KEY not in machine.active


def test_row_29_d9_a_page_that_cannot_be_read_fails_those_who_wait(machine: Machine) -> None:
    client = machine.call()
    machine.loaded(last=2)
    machine.journal.reads.pop()[1].on_page(None, Broken("gone"))
    assert client.status == Status.UNAVAILABLE
    assert machine.stream.half_closed


def values(*texts: str) -> list[bytes]:
    return [persisted(text).SerializeToString() for text in texts]


def test_replay_goes_page_by_page_through_the_loop(machine: Machine) -> None:
    machine.call()
    machine.loaded(last=3)
    machine.journal.reads.pop()[1].on_page(Page(1, values("a", "b"), more=True), None)
    assert machine.journal.reads == []  # not by recursion
    machine.timers.turn()
    from_sequence, waiter = machine.journal.reads.pop()
    assert from_sequence == 3
    waiter.on_page(Page(3, values("c"), more=False), None)
    assert machine.stream.framed == [frame_events(1, values("a", "b")), frame_events(3, values("c"))]
    assert event(3, "c").SerializeToString() in machine.stream.framed[1]
    assert machine.stream.sent[-1] == command(1, KEY)


def test_d6_replay_stops_while_the_stream_is_full(machine: Machine) -> None:
    machine.call()
    machine.stream.flowing = False
    machine.loaded(last=3)
    machine.journal.reads.pop()[1].on_page(Page(1, values("a"), more=True), None)
    machine.timers.turn()
    assert machine.journal.reads == []
    machine.instance.on_drain(machine.stream)
    assert machine.journal.reads.pop()[0] == 2


def test_a_page_that_was_asked_for_twice_is_sent_once(machine: Machine) -> None:
    """A snapshot larger than the stream's queue: the drain asks for the page that was asked for already."""
    machine.call()
    machine.loaded(last=2)
    machine.instance.on_drain(machine.stream)
    for _, waiter in list(machine.journal.reads):
        waiter.on_page(Page(1, values("a", "b"), more=False), None)
    assert len(machine.stream.framed) == 1


def test_a_page_for_an_earlier_life_is_not_told_to_the_next_one(machine: Machine) -> None:
    machine.call()
    machine.loaded(last=9, snapshot_sequence=5, snapshot=values("S")[0])
    old = machine.journal.reads.pop()[1]
    machine.says(reply(1))  # nobody asked: the replay is given up
    late = machine.call()
    machine.ends()
    machine.loaded(last=9, snapshot_sequence=7, snapshot=values("T")[0])
    old.on_page(Page(6, values("f", "g"), more=True), None)
    assert machine.stream.framed == []
    machine.journal.reads.pop()[1].on_page(Page(8, values("h", "i"), more=False), None)
    assert machine.stream.framed == [frame_events(8, values("h", "i"))]
    machine.says(reply(1, "after all"))
    assert late.status == Status.OK


# --- refused streams -------------------------------------------------------------------------------------------------


def refuse(machine: Machine) -> None:
    machine.stream.unprocessed = True
    machine.ends(Status.UNAVAILABLE)


def test_a_command_on_a_refused_stream_is_sent_on_another_one(machine: Machine) -> None:
    client = machine.busy()
    waiting = machine.call()
    refuse(machine)
    assert client.status is None
    machine.timers.turn()
    machine.loaded()
    assert machine.stream.sent == [init(KEY), command(1, KEY)]
    machine.says(reply(1))
    machine.says(reply(2))
    assert [client.status, waiting.status] == [Status.OK] * 2
    assert len(machine.user_function.streams) == 2


def test_a_user_function_that_refuses_every_stream_is_given_up(machine: Machine) -> None:
    client = machine.busy()
    for _ in range(100):
        refuse(machine)
        if client.ended:
            break
        machine.timers.turn()
        machine.loaded()
    assert client.status == Status.UNAVAILABLE
    assert len(machine.user_function.streams) == 11
    assert KEY not in machine.active


# --- bookkeeping -----------------------------------------------------------------------------------------------------


def test_every_stream_is_given_back_once(machine: Machine) -> None:
    machine.busy()
    machine.says(failed(1, "restart", restart=True))
    machine.ends()
    machine.loaded()
    machine.call()
    machine.instance.on_busy_timeout()
    assert machine.stream.cancelled
    assert machine.user_function.released == len(machine.user_function.streams) == 2
    assert KEY not in machine.active


def test_the_end_of_an_abandoned_stream_does_not_touch_the_next_instance(machine: Machine) -> None:
    machine.busy()
    waiting = machine.call()
    old = machine.stream
    machine.instance.on_busy_timeout()
    machine.loaded()
    machine.instance.on_end(old, Status.CANCELLED, "")
    machine.instance.on_message(old, reply(1, "late").SerializeToString())
    assert waiting.status is None
    machine.says(reply(1, "in time"))
    assert waiting.status == Status.OK
