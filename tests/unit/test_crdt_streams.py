"""Streamed commands of CRDT entities: rows S of spec crdt 3, and the reference's defects K5 to K9 that are mended."""

from __future__ import annotations

from typing import Any

import pytest

from stateside._speedups.crdt import GCOUNTER
from stateside.proto.status import Status

from ..integration.crdt_messages import (
    STREAMED,
    answer,
    cancel_response,
    cancelled,
    changed,
    command,
    delta,
    failure_action,
    forwarded,
    gcounter,
    init,
    message,
    model,
    reply,
    side_effect,
    stream_failure,
)
from ..integration.messages import CRDT_MODEL
from .crdt_machine import Machine, StreamClient
from .machine import KEY


@pytest.fixture
def machine() -> Machine:
    return Machine()


def plus(amount: int) -> Any:
    return lambda state: state.increment(amount)


def says(value: int) -> Any:
    """A client action that tells a counter's value."""
    return answer(model.State(gcounter=model.GCounterValue(value=value)))


def heard(client: StreamClient) -> list[int]:
    return [model.Response.FromString(each).state.gcounter.value for each in client.messages]


def streaming(machine: Machine) -> StreamClient:
    """A call that streams, number 1; `sent` is empty."""
    client = machine.listen()
    machine.says(reply(1, says(0), streamed=True))
    assert heard(client) == [0]
    del machine.sent[:]
    return client


# --- messages --------------------------------------------------------------------------------------------------------


def test_S1_the_command_says_that_a_stream_is_expected(machine: Machine) -> None:
    machine.listen()
    assert machine.sent == [init(KEY), machine.streamed(1)]


def test_S2_S4_the_first_answer_is_the_first_message_and_headers_wait_for_it(machine: Machine) -> None:
    client = machine.listen()
    assert not client.started
    machine.says(reply(1, None, streamed=True))
    assert (client.started, client.messages, client.ended) == (True, [], False)
    machine.says(message(1, says(1)))
    assert heard(client) == [1]


def test_S3_the_first_answer_waits_for_its_write_and_later_messages_for_it(machine: Machine) -> None:
    client = machine.listen()
    machine.says(reply(1, says(1), changed(gcounter(1)), streamed=True))
    machine.says(message(1, says(2)))
    assert client.messages == []
    machine.replicas.written()
    assert heard(client) == [1, 2]


def test_S5_messages_are_passed_on_and_empty_ones_dropped(machine: Machine) -> None:
    client = streaming(machine)
    for value in (3, 6):
        machine.says(message(1, says(value)))
        machine.says(message(1, None))
    assert heard(client) == [0, 3, 6]


def test_S6_the_last_message_ends_the_call_without_a_cancellation(machine: Machine) -> None:
    client = streaming(machine)
    machine.says(message(1, says(3), end=True))
    assert (heard(client), client.status) == ([0, 3], Status.OK)
    assert machine.sent == []
    machine.says(message(1, says(4)))
    assert "Received streamed message for unknown command id: 1" in machine.reports[0]
    assert not machine.stream.half_closed


def test_L26_a_message_for_nothing_is_reported_and_hurts_nobody(machine: Machine) -> None:
    client = streaming(machine)
    machine.says(message(7))
    assert "Received streamed message for unknown command id: 7" in machine.reports[0]
    assert (client.ended, machine.stream.half_closed) == (False, False)


def test_S14_a_reply_that_is_not_streamed_is_the_only_message(machine: Machine) -> None:
    client = machine.listen()
    machine.says(reply(1, says(2), changed(gcounter(2))))
    machine.replicas.written()
    assert (heard(client), client.status) == ([2], Status.OK)


def test_S15_K8_also_without_a_write(machine: Machine) -> None:
    client = machine.listen()
    machine.says(reply(1, says(2)))
    assert (heard(client), client.status) == ([2], Status.OK)
    assert machine.instance.evict(), "nothing is left of it"


def test_S23_a_message_before_the_first_reply_is_delivered(machine: Machine) -> None:
    client = machine.listen()
    machine.says(message(1, says(1)))
    machine.says(reply(1, says(2), streamed=True))
    assert heard(client) == [1, 2]


def test_pushes_flow_while_a_call_streams(machine: Machine) -> None:
    machine.elsewhere(GCOUNTER, plus(1))
    streaming(machine)
    machine.elsewhere(GCOUNTER, plus(2))
    assert machine.sent == [delta(gcounter(2))]


def test_an_effect_of_a_message_runs_before_it_and_the_next_message_waits(machine: Machine) -> None:
    client = streaming(machine)
    own = machine.stream
    effect = side_effect("other", synchronous=True, service=CRDT_MODEL, method="Process")
    for said in (message(1, says(1), effects=[effect]), message(1, says(2)), message(1, says(3), end=True)):
        machine.instance.on_message(own, said.SerializeToString())
    assert heard(client) == [0]
    machine.active["other"].on_message(machine.stream, reply(1).SerializeToString())
    assert (heard(client), client.status) == ([0], None)
    machine.timers.turn()
    machine.timers.turn()
    assert (heard(client), client.status) == ([0, 1, 2, 3], Status.OK)


def test_an_effect_runs_for_a_client_that_went_away_meanwhile(machine: Machine) -> None:
    client = streaming(machine)
    own = machine.stream
    machine.goes_away(client)
    effect = side_effect("other", service=CRDT_MODEL, method="Process")
    machine.instance.on_message(own, cancel_response(1, effects=[effect]).SerializeToString())
    assert machine.active.keys() == {KEY, "other"}


# --- the client goes away --------------------------------------------------------------------------------------------


def test_S7_S8_a_cancellation_is_a_turn_and_its_response_changes_the_state(machine: Machine) -> None:
    machine.elsewhere(GCOUNTER, plus(1))
    client = streaming(machine)
    machine.goes_away(client)
    assert machine.sent == [cancelled(1, KEY)]
    machine.elsewhere(GCOUNTER, plus(2))
    machine.elsewhere(GCOUNTER, plus(6))
    assert len(machine.sent) == 1
    machine.says(cancel_response(1, changed(gcounter(3))))
    assert (machine.sent[1:], machine.state) == ([delta(gcounter(8))], 12)
    machine.replicas.written()
    assert machine.instance.evict()


def test_S9_a_response_without_a_change_writes_nothing(machine: Machine) -> None:
    client = streaming(machine)
    machine.goes_away(client)
    machine.says(cancel_response(1))
    assert machine.replicas.asked == []
    assert machine.instance.evict()


def test_S10_K5_effects_of_the_response_run_after_its_write(machine: Machine) -> None:
    client = streaming(machine)
    machine.goes_away(client)
    effect = side_effect("other", service="no.Service")
    machine.says(cancel_response(1, changed(gcounter(3)), [effect]))
    assert machine.reports == []
    machine.replicas.written()
    assert "no.Service" in machine.reports[0]


def test_S11_K6_without_a_response_deltas_flow_again_after_a_second(machine: Machine) -> None:
    machine.elsewhere(GCOUNTER, plus(1))
    client = streaming(machine)
    machine.goes_away(client)
    machine.elsewhere(GCOUNTER, plus(2))
    machine.passes(0.5)
    assert machine.sent == [cancelled(1, KEY)]
    machine.passes(1.1)
    assert machine.sent[1:] == [delta(gcounter(2))]
    machine.says(cancel_response(1))
    assert not machine.stream.half_closed


def test_K6_a_late_response_with_a_change_is_applied_and_the_stream_begins_anew(machine: Machine) -> None:
    client = streaming(machine)
    machine.goes_away(client)
    machine.passes(1.1)
    machine.says(cancel_response(1, changed(gcounter(3))))
    assert machine.state == 3
    machine.ends_as_asked()
    assert machine.sent == [init(KEY, gcounter(3))]


def test_S12_K7_a_cancellation_before_the_first_reply_is_told_once_after_it(machine: Machine) -> None:
    client = machine.listen()
    machine.goes_away(client)
    assert len(machine.sent) == 2
    machine.says(reply(1, says(0), streamed=True))
    assert machine.sent[2:] == [cancelled(1, KEY)]
    machine.says(cancel_response(1))
    assert machine.sent[3:] == [] and client.messages == []
    assert machine.instance.evict()


def test_S13_a_reply_that_is_not_streamed_after_a_cancellation_is_the_end_of_it(machine: Machine) -> None:
    client = machine.listen()
    machine.goes_away(client)
    machine.says(reply(1, says(2), changed(gcounter(2))))
    machine.replicas.written()
    assert (len(machine.sent), machine.state, client.messages) == (2, 2, [])
    assert machine.instance.evict()


def test_a_cancellation_during_the_first_write_is_told_at_once_and_both_writes_count(machine: Machine) -> None:
    client = machine.listen()
    machine.says(reply(1, says(2), changed(gcounter(2)), streamed=True))
    machine.goes_away(client)
    assert machine.sent[2:] == [cancelled(1, KEY)]
    machine.says(cancel_response(1, changed(gcounter(3))))
    machine.replicas.written()
    machine.replicas.written()
    assert (machine.state, client.messages, machine.instance.writing) == (5, [], 0)


def test_messages_that_cross_a_cancellation_are_dropped_silently(machine: Machine) -> None:
    client = streaming(machine)
    machine.goes_away(client)
    machine.says(message(1, says(1)))
    assert (heard(client), machine.reports) == ([0], [])


def test_a_response_that_nobody_waits_for_fails_the_instance(machine: Machine) -> None:
    client = machine.call()
    machine.says(cancel_response(5))
    assert (client.status, client.text) == (Status.UNKNOWN, "Entity terminating")
    assert machine.stream.half_closed


# --- failures --------------------------------------------------------------------------------------------------------


def test_S16_a_failure_in_a_message_ends_the_call_and_the_user_function_is_told(machine: Machine) -> None:
    client = streaming(machine)
    machine.says(message(1, failure_action(1, "enough")))
    assert (client.status, client.text) == (Status.UNKNOWN, "enough")
    assert machine.sent == [cancelled(1, KEY)]


def test_a_failure_in_the_last_message_needs_no_cancellation(machine: Machine) -> None:
    client = streaming(machine)
    machine.says(message(1, failure_action(1, "enough"), end=True))
    assert (client.text, machine.sent) == ("enough", [])


def test_S17_K4_a_top_level_failure_ends_the_call_with_its_description(machine: Machine) -> None:
    client = streaming(machine)
    machine.says(stream_failure(1, "it broke"))
    assert (client.status, client.text) == (Status.UNKNOWN, "it broke")
    assert (machine.sent, machine.stream.half_closed) == ([], False)


def test_S18_K9_a_slow_client_is_waited_for_then_fails_and_the_user_function_is_told() -> None:
    machine = Machine(crdt_stream_buffer=3)
    client = streaming(machine)
    client.takes = False
    for value in range(1, 5):
        machine.says(message(1, says(value)))
    assert (heard(client), client.ended) == ([0, 1], False)
    machine.drains(client)
    assert heard(client) == [0, 1, 2, 3, 4]
    client.takes = False
    for value in range(5, 10):
        machine.says(message(1, says(value)))
    assert (client.status, "crdt_stream_buffer" in client.text) == (Status.RESOURCE_EXHAUSTED, True)
    assert machine.sent == [cancelled(1, KEY)]
    machine.says(cancel_response(1))
    assert machine.instance.evict()


def test_the_end_waits_for_a_slow_client(machine: Machine) -> None:
    client = streaming(machine)
    client.takes = False
    machine.says(message(1, says(1)))
    machine.says(message(1, says(2), end=True))
    assert client.status is None
    machine.drains(client)
    assert (heard(client), client.status) == ([0, 1, 2], Status.OK)


def test_S20_a_crash_fails_open_calls(machine: Machine) -> None:
    client = streaming(machine)
    machine.ends()
    assert (client.status, client.text) == (Status.UNKNOWN, "Entity terminating")


def test_a_stream_that_begins_anew_ends_open_calls(machine: Machine) -> None:
    client = streaming(machine)
    machine.call()
    machine.says(stream_failure(2, restart=True))
    assert (client.status, client.text) == (Status.UNKNOWN, "Entity terminating")


def test_a_first_write_that_fails_ends_the_call_and_the_user_function_is_told(machine: Machine) -> None:
    from .test_crdt_machine import LATE

    client = machine.listen()
    machine.says(reply(1, says(0), changed(gcounter(1), 2), streamed=True))
    machine.replicas.written(LATE)
    assert (client.status, client.text) == LATE
    assert machine.sent[2:] == [cancelled(1, KEY)]


def test_S21_a_forward_in_a_message_that_fails_ends_the_call(machine: Machine) -> None:
    client = streaming(machine)
    machine.says(message(1, forwarded("x", "no.Service")))
    assert client.status == Status.UNIMPLEMENTED
    assert machine.sent == [cancelled(1, KEY)]


def test_S21_K24_a_forward_to_a_streamed_command_is_spliced_into_the_stream(machine: Machine) -> None:
    client = streaming(machine)
    own = machine.stream
    for said in (message(1, forwarded("other", CRDT_MODEL, STREAMED)), message(1, says(9), end=True)):
        machine.instance.on_message(own, said.SerializeToString())
    other = machine.active["other"]
    assert machine.sent[-1].command.streamed
    for said in (reply(1, says(1), streamed=True), message(1, says(2)), message(1, says(3), end=True)):
        other.on_message(machine.stream, said.SerializeToString())
    for _ in range(2):
        machine.timers.turn()
    assert (heard(client), client.status) == ([0, 1, 2, 3, 9], Status.OK)


def test_a_client_that_goes_away_is_told_to_where_it_was_forwarded_too(machine: Machine) -> None:
    client = streaming(machine)
    own = machine.stream
    said = message(1, forwarded("other", CRDT_MODEL, STREAMED))
    machine.instance.on_message(own, said.SerializeToString())
    machine.active["other"].on_message(machine.stream, reply(1, streamed=True).SerializeToString())
    machine.goes_away(client)
    assert own.sent[-1] == cancelled(1, KEY)
    assert machine.sent[-1] == cancelled(1, "other")


def test_K24_messages_of_a_side_effect_go_nowhere(machine: Machine) -> None:
    client = machine.call()
    own = machine.stream
    effect = side_effect("other", service=CRDT_MODEL, method=STREAMED)
    machine.instance.on_message(own, reply(1, effects=[effect]).SerializeToString())
    assert client.status == Status.OK
    other = machine.active["other"]
    for each in (reply(1, says(1), streamed=True), message(1, says(2), end=True)):
        other.on_message(machine.stream, each.SerializeToString())
    assert (machine.reports, other.evict()) == ([], True)


def test_a_silent_streamed_command_fails_and_a_late_stream_is_cancelled(machine: Machine) -> None:
    client = machine.listen()
    machine.passes(machine.settings.relay_timeout + 1)
    assert client.status == Status.DEADLINE_EXCEEDED
    machine.says(reply(1, says(0), streamed=True))
    assert machine.sent[2:] == [cancelled(1, KEY)]


# --- bounds and ends -------------------------------------------------------------------------------------------------


def test_more_streams_than_may_be_open_are_refused() -> None:
    machine = Machine(crdt_max_streams=1)
    streaming(machine)
    client = machine.listen()
    assert (client.status, "crdt_max_streams" in client.text) == (Status.RESOURCE_EXHAUSTED, True)


def test_L51_an_open_stream_keeps_the_instance(machine: Machine) -> None:
    streaming(machine)
    machine.passes(10 * machine.settings.passivation_timeout)
    assert not machine.stream.half_closed and not machine.instance.evict()


def test_L48_open_streams_end_with_the_deleted_entity(machine: Machine) -> None:
    client = streaming(machine)
    machine.call()
    machine.says(reply(2, change=changed(gcounter(1))))
    machine.replicas.deleted_elsewhere("crdt-tck-model|" + KEY)
    machine.says(message(1, says(1)))
    assert heard(client) == [0, 1]
    machine.ends_as_asked()
    assert (client.status, client.text) == (Status.UNKNOWN, "Entity deleted")


def test_L56_S19_streams_end_well_when_the_proxy_stops(machine: Machine) -> None:
    client = streaming(machine)
    machine.method.entities.complete_streams()  # type: ignore[attr-defined]
    assert (client.status, machine.sent) == (Status.OK, [])
    machine.says(message(1, says(1)))
    assert machine.reports == []
    assert machine.instance.evict()


def test_a_stream_and_single_commands_share_their_numbers(machine: Machine) -> None:
    streaming(machine)
    machine.call()
    assert machine.sent == [command(2, KEY)]
