"""The state machine of value entities where a black box cannot look: what the journal answers, and when.

Rows are those of core 5.2 and 5.3, D-numbers those of core 15. What value entities have in common with event sourced
ones (refused streams, abandoned streams) stands in test_event_sourced_machine.py.
"""

from __future__ import annotations

from typing import Any

import pytest

from stateside.journal.contract import Broken, Corrupt, Full, JournalError, SequenceTaken, StaleEpoch, TooLarge
from stateside.proto import valueentity
from stateside.proto.status import Status
from stateside.proxy.metrics import VALUE
from stateside.proxy.valueentity import ValueEntities

from ..integration.messages import VALUE_MODEL, value_init
from ..integration.value_messages import DELETE, failed, persisted, reply, stream_failure, updated
from .machine import KEY, Client
from .machine import Machine as AnyMachine


def stored(value: str) -> bytes:
    data: bytes = persisted(value).SerializeToString()
    return data


class Machine(AnyMachine):
    """The value entity model of the TCK with its fakes."""

    service = VALUE_MODEL
    entities = ValueEntities
    kind = VALUE
    parse = staticmethod(valueentity.ValueEntityStreamIn.FromString)

    def storing(self, state: Any = None) -> Client:
        """Its reply carried a state action, which is with the journal."""
        client = self.busy()
        self.says(reply(1, "done", updated("a") if state is None else state))
        assert len(self.journal.puts) == 1
        assert client.status is None
        return client


@pytest.fixture
def machine() -> Machine:
    return Machine()


# --- storing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("state", "value"), [(updated("a"), stored("a")), (DELETE, None)], ids=["update", "delete"])
def test_rows_2_and_3_the_client_is_answered_only_after_the_journal(
    machine: Machine, state: Any, value: bytes | None
) -> None:
    client = machine.storing(state)
    assert machine.journal.puts == [(1, value)]
    machine.appended()
    assert client.status == Status.OK
    assert machine.metrics.persisted_values == 1
    assert machine.metrics.persisted_value_bytes == len(value or b"")


def test_states_are_numbered_on_from_the_stored_one(machine: Machine) -> None:
    machine.call()
    machine.loaded(last=7, snapshot_sequence=7, snapshot=stored("S"))
    assert machine.stream.sent[0] == value_init(KEY, value="S")
    machine.says(reply(1, "", updated("a")))
    machine.appended()
    machine.call()
    machine.says(reply(2, "", DELETE))
    machine.appended()
    machine.call()
    machine.says(reply(3, "", updated("b")))
    assert machine.journal.puts == [(8, stored("a")), (9, None), (10, stored("b"))]


def test_a_deleted_value_keeps_its_number(machine: Machine) -> None:
    machine.call()
    machine.loaded(last=4, snapshot_sequence=4)
    assert machine.stream.sent[0] == value_init(KEY)
    machine.says(reply(1, "", updated("a")))
    assert machine.journal.puts == [(5, stored("a"))]


def test_a_command_waits_while_the_one_before_it_is_stored(machine: Machine) -> None:
    machine.storing()
    second = machine.call()
    assert machine.stream.sent[-1] == machine.command(1)
    machine.appended()
    assert machine.stream.sent[-1] == machine.command(2)
    machine.says(reply(2))
    assert second.status == Status.OK


def test_a_reply_without_state_action_does_not_reach_the_journal(machine: Machine) -> None:
    client = machine.busy()
    machine.says(reply(1))
    assert client.status == Status.OK
    assert machine.journal.puts == []


@pytest.mark.parametrize("state", [updated("a"), DELETE], ids=["update", "delete"])
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
def test_rows_14_and_15_what_the_journal_refuses_the_client_learns_and_the_instance_goes(
    machine: Machine, error: JournalError, status: Status, state: Any
) -> None:
    """The reference says only "Unexpected Value entity failure"."""
    client = machine.storing(state)
    waiting = machine.call()
    machine.appended(error)
    assert client.status == status
    assert str(error) in client.text and f"{VALUE_MODEL}.Process" in client.text
    assert machine.stream.half_closed and waiting.status is None
    machine.ends()
    assert len(machine.user_function.streams) == 2  # a new instance for the command that waited
    machine.loaded()
    assert machine.stream.sent == [value_init(KEY), machine.command(1)]
    assert machine.metrics.failed_entities == 1
    assert machine.metrics.persisted_values == 0


def test_d13_a_failure_with_a_state_action_does_not_reach_the_journal_and_restarts(machine: Machine) -> None:
    client = machine.busy()
    machine.says(failed(1, "no", state=updated("a")))
    assert client.answers == [(Status.UNKNOWN, "no")]
    assert machine.journal.puts == []
    assert machine.stream.half_closed
    assert any("discarded" in report and KEY in report for report in machine.reports)
    machine.ends()
    machine.loaded()
    assert machine.stream.sent == [value_init(KEY)]


# --- while the journal works -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("again", [reply(1, "again", updated("b")), reply(1, "again"), reply(2, "ahead", DELETE)])
def test_row_11_d14_a_second_reply_while_the_first_is_stored_answers_nobody_and_ends_the_instance(
    machine: Machine, again: Any
) -> None:
    client = machine.storing()
    waiting = machine.call()
    machine.says(again)
    assert len(machine.journal.puts) == 1
    assert (client.status, waiting.status) == (None, None)
    assert any("replied again" in report and KEY in report for report in machine.reports)
    machine.appended()
    assert client.status == Status.OK
    assert machine.stream.half_closed and waiting.status is None
    machine.ends()
    machine.loaded(last=1, snapshot_sequence=1, snapshot=stored("a"))
    assert machine.stream.sent == [value_init(KEY, value="a"), machine.command(1)]


def test_a_second_reply_while_the_first_is_refused_changes_nothing_of_the_refusal(machine: Machine) -> None:
    client = machine.storing()
    machine.says(reply(1, "again", updated("b")))
    machine.appended(Full("no space"))
    assert client.status == Status.RESOURCE_EXHAUSTED
    assert machine.stream.half_closed


def test_a_stream_failure_while_storing_ends_the_instance_after_the_answer(machine: Machine) -> None:
    client = machine.storing()
    machine.says(stream_failure(1))
    assert not machine.stream.half_closed
    machine.appended()
    assert client.status == Status.OK
    assert machine.stream.half_closed


@pytest.mark.parametrize("status", [Status.OK, Status.UNAVAILABLE])
@pytest.mark.parametrize(
    ("error", "answer"), [(None, Status.OK), (Full("no space"), Status.RESOURCE_EXHAUSTED)], ids=["stored", "refused"]
)
def test_d1_the_stream_ends_while_storing_and_the_journal_decides_what_the_client_hears(
    machine: Machine, status: Status, error: JournalError | None, answer: Status
) -> None:
    client = machine.storing()
    machine.ends(status)
    assert client.status is None
    machine.appended(error)
    assert client.status == answer
    assert KEY not in machine.active


def test_an_answer_of_the_journal_for_an_earlier_life_does_not_touch_the_next_one(machine: Machine) -> None:
    machine.storing()
    old = machine.instance
    machine.ends(Status.UNAVAILABLE)
    waiting = machine.call()
    machine.appended()
    machine.loaded(last=1, snapshot_sequence=1, snapshot=stored("a"))
    old.on_appended(None)
    assert waiting.status is None
    machine.says(reply(1, "now"))
    assert waiting.status == Status.OK


# --- opening ---------------------------------------------------------------------------------------------------------


def test_row_13_d9_a_value_that_cannot_be_read_fails_those_who_wait(machine: Machine) -> None:
    """In the reference they hang."""
    first, second = machine.call(), machine.call()
    machine.journal.loads.pop().on_loaded(None, Corrupt("checksum of record 3"))
    assert [first.status, second.status] == [Status.DATA_LOSS] * 2
    assert "checksum of record 3" in first.text
    assert machine.stream.half_closed and machine.stream.sent == []
    machine.ends()
    assert KEY not in machine.active


def test_the_stream_ends_while_the_value_is_read(machine: Machine) -> None:
    client = machine.call()
    machine.ends(Status.UNAVAILABLE)
    assert client.status == Status.UNAVAILABLE
    machine.loaded(last=1, snapshot_sequence=1, snapshot=stored("a"))
    assert machine.stream.sent == []
    assert KEY not in machine.active


# --- time ------------------------------------------------------------------------------------------------------------


def test_d7_a_reply_after_the_relay_timeout_stores_nothing(machine: Machine) -> None:
    client = machine.busy()
    waiting = machine.call()
    old, instance = machine.stream, machine.instance
    instance.on_busy_timeout()
    assert client.status == Status.DEADLINE_EXCEEDED and old.cancelled
    machine.loaded()
    instance.on_message(old, reply(1, "late", updated("late")).SerializeToString())
    assert machine.journal.puts == [] and waiting.status is None
    machine.says(reply(1, "in time"))
    assert waiting.status == Status.OK


def test_every_stream_is_given_back_once(machine: Machine) -> None:
    machine.busy()
    machine.says(failed(1, "restart", state=DELETE))
    machine.ends()
    machine.loaded()
    machine.call()
    machine.instance.on_busy_timeout()
    assert machine.user_function.released == len(machine.user_function.streams) == 2
    assert KEY not in machine.active
