"""The state machine of CRDT entities where a black box cannot look: what crosses, and when.

Rows L are those of spec crdt 2.2, rows S those of 3, K the reference's defects that are mended (8.1).
"""

from __future__ import annotations

from time import monotonic
from typing import Any

import pytest

from stateside._speedups.crdt import FLAG, GCOUNTER, GSET, LWWREGISTER, PNCOUNTER
from stateside.proto import crdt
from stateside.proto.status import Status
from stateside.proxy.replicas import Consistency, ReplicaError

from ..helpers.replicas import OWN
from ..integration.crdt_messages import (
    ALL,
    DELETED,
    MAJORITY,
    answer,
    cancelled,
    changed,
    command,
    deletion,
    delta,
    effect_on,
    failure_action,
    flag,
    forwarded,
    gcounter,
    gset,
    init,
    pncounter,
    register,
    reply,
    stream_failure,
    text,
    vote,
)
from .crdt_machine import FULL_KEY, Machine
from .machine import KEY

TERMINATING = "Entity terminating"
NOT_UPDATED = "Failed to update CRDT at requested write consistency"
LATE = ReplicaError(Status.UNAVAILABLE, f"{NOT_UPDATED}: 1 of 2 nodes answered")


@pytest.fixture
def machine() -> Machine:
    return Machine()


def plus(amount: int) -> Any:
    return lambda state: state.increment(amount)


def adds(*elements: str) -> Any:
    return lambda state: [state.add(text(each).SerializeToString()) for each in elements]


# --- activation ------------------------------------------------------------------------------------------------------


def test_L1_commands_wait_for_replica_and_stream_and_are_passed_on_in_order(machine: Machine) -> None:
    machine.replicas.waits = True
    clients = [machine.ask(), machine.ask(effect_on("x"))]
    assert machine.user_function.streams == []
    machine.replicas.opened()
    assert machine.sent == [init(KEY), command(1, KEY), command(2, KEY, effect_on("x"))]
    assert [client.status for client in clients] == [None, None]


def test_L2_init_carries_the_whole_value(machine: Machine) -> None:
    machine.elsewhere(GCOUNTER, plus(5))
    machine.call()
    assert machine.sent == [init(KEY, gcounter(5)), command(1, KEY)]


def test_L3_init_has_no_delta_where_nothing_was_ever_written(machine: Machine) -> None:
    machine.call()
    assert machine.sent == [init(KEY), command(1, KEY)]


def test_A3_an_empty_state_is_a_delta_all_the_same(machine: Machine) -> None:
    machine.elsewhere(GSET, lambda state: None)
    machine.call()
    assert machine.sent == [init(KEY, crdt.CrdtDelta(gset=crdt.GSetDelta())), command(1, KEY)]


def test_a_replica_that_cannot_be_read_fails_the_commands_and_nothing_else(machine: Machine) -> None:
    machine.replicas.waits = True
    client = machine.call()
    machine.replicas.opened(ReplicaError(Status.DATA_LOSS, "a record is corrupt"))
    assert (client.status, "a record is corrupt" in client.text) == (Status.DATA_LOSS, True)
    assert machine.active == {}
    machine.replicas.waits = False
    machine.call()
    assert machine.sent == [init(KEY), command(1, KEY)]


def test_L5_K1_a_deleted_key_answers_at_once_and_needs_no_stream(machine: Machine) -> None:
    machine.replicas.deleted_elsewhere(FULL_KEY)
    client, listener = machine.call(), machine.listen()
    assert (client.status, client.text) == (Status.UNKNOWN, "Entity deleted")
    assert (listener.status, listener.text) == (Status.UNKNOWN, "Entity deleted")
    assert (machine.user_function.streams, machine.active, len(machine.replicas.closed)) == ([], {}, 2)


def test_no_stream_within_relay_timeout_fails_those_who_wait(machine: Machine) -> None:
    machine.user_function.request = lambda path, borrower: None  # type: ignore[method-assign]
    client = machine.call()
    machine.passes(machine.settings.relay_timeout + 1)
    assert client.status == Status.UNAVAILABLE
    assert (machine.active, machine.replicas.closed) == ({}, [FULL_KEY])


# --- turns -----------------------------------------------------------------------------------------------------------


def test_L6_a_reply_without_a_state_action_is_answered_at_once(machine: Machine) -> None:
    client = machine.call()
    machine.says(reply(1))
    assert client.answers == [(Status.OK, answer().reply.payload.value)]
    assert machine.replicas.asked == []


def test_L7_an_update_is_applied_at_once_and_answered_when_it_is_written(machine: Machine) -> None:
    client = machine.call()
    machine.says(reply(1, change=changed(gcounter(3))))
    assert machine.state == 3
    assert client.status is None
    (write,) = machine.replicas.asked
    assert (write.what, write.consistency) == ("write", Consistency.LOCAL)
    machine.replicas.written()
    assert client.status == Status.OK
    assert len(machine.sent) == 2, "the user function never gets its own change back"


@pytest.mark.parametrize(("level", "consistency"), [(MAJORITY, Consistency.MAJORITY), (ALL, Consistency.ALL)])
def test_L8_the_reply_waits_for_the_asked_consistency(machine: Machine, level: int, consistency: Consistency) -> None:
    client = machine.call()
    machine.says(reply(1, change=changed(gcounter(3), level)))
    assert (machine.replicas.asked[0].consistency, client.status) == (consistency, None)
    machine.replicas.written()
    assert client.status == Status.OK


def test_A1_an_empty_delta_creates_the_key(machine: Machine) -> None:
    for number, zero in enumerate((gcounter(), pncounter(), gset(), flag(False)), 1):
        machine = Machine()
        machine.call()
        machine.says(reply(1, change=changed(zero)))
        machine.replicas.written()
        machine.passes(0.15)
        assert machine.replicas.replicas[FULL_KEY].state is not None
        assert len(machine.sent) == 2, f"no message for {number}"


def test_L9_a_reply_without_an_answer_is_written_and_an_error_for_the_client(machine: Machine) -> None:
    client = machine.call()
    machine.says(reply(1, None, changed(gcounter(3))))
    machine.replicas.written()
    assert (client.status, machine.state) == (Status.INTERNAL, 3)


def test_L10_the_write_comes_before_effects_and_forward(machine: Machine) -> None:
    client = machine.call()
    machine.says(reply(1, forwarded("x", "no.Service"), changed(gcounter(3)), effects=[]))
    assert client.status is None
    machine.replicas.written()
    assert client.status == Status.UNIMPLEMENTED


def test_L11_replies_in_another_order_reach_their_own_clients(machine: Machine) -> None:
    first, second = machine.call(), machine.call()
    machine.says(reply(2, change=changed(gcounter(2))))
    machine.says(reply(1, change=changed(gcounter(3))))
    machine.replicas.written()
    assert (first.status, second.status) == (None, Status.OK)
    machine.replicas.written()
    assert (first.status, machine.state) == (Status.OK, 5)


def test_L12_changes_during_a_turn_are_told_after_it_as_one(machine: Machine) -> None:
    machine.elsewhere(GCOUNTER, plus(1))
    machine.call()
    del machine.sent[:]
    machine.elsewhere(GCOUNTER, plus(3))
    machine.elsewhere(GCOUNTER, plus(6))
    assert machine.sent == []
    machine.says(reply(1, change=changed(gcounter(2))))
    assert machine.sent == [delta(gcounter(9))]
    assert machine.state == 12


def test_L13_overlapping_turns_are_waited_for(machine: Machine) -> None:
    machine.elsewhere(GCOUNTER, plus(1))
    machine.call()
    machine.call()
    del machine.sent[:]
    machine.elsewhere(GCOUNTER, plus(9))
    machine.says(reply(1))
    assert machine.sent == []
    machine.says(reply(2))
    assert machine.sent == [delta(gcounter(9))]


def test_L14_changes_that_cancel_out_are_not_told(machine: Machine) -> None:
    machine.elsewhere(PNCOUNTER, plus(1))
    machine.call()
    del machine.sent[:]
    machine.elsewhere(PNCOUNTER, plus(3))
    machine.elsewhere(PNCOUNTER, plus(-3))
    machine.says(reply(1))
    assert machine.sent == []


def test_L15_A5_the_first_state_is_told_as_a_whole_when_it_appears(machine: Machine) -> None:
    machine.opened()
    machine.elsewhere(GSET, adds("a", "b"))
    (sent,) = machine.sent
    assert sorted(sent.delta.gset.added, key=str) == sorted(gset("a", "b").gset.added, key=str)


def test_A6_a_change_is_told_at_once_when_no_turn_is_open(machine: Machine) -> None:
    machine.elsewhere(GCOUNTER, plus(5))
    machine.call()
    machine.says(reply(1))
    del machine.sent[:]
    machine.elsewhere(GCOUNTER, plus(3))
    assert machine.sent == [delta(gcounter(3))]
    assert machine.metrics.sent_deltas == 1


def test_A10_a_losing_write_is_answered_and_the_winner_told(machine: Machine) -> None:
    machine.elsewhere(LWWREGISTER, lambda state: state.set(text("one").SerializeToString(), 1))
    client = machine.call()
    del machine.sent[:]
    machine.says(reply(1, change=changed(register("two", clock=1))))  # first write wins
    machine.replicas.written()
    assert client.status == Status.OK
    assert machine.sent == [delta(register("one"))]


def test_a_state_that_appears_during_the_first_turn_is_joined_and_its_rest_told(machine: Machine) -> None:
    machine.call()
    del machine.sent[:]
    machine.elsewhere(GCOUNTER, plus(5))
    machine.says(reply(1, change=changed(gcounter(2))))
    assert (machine.state, machine.sent) == (7, [delta(gcounter(5))])
    machine.elsewhere(GCOUNTER, plus(1))
    assert machine.sent[1:] == [delta(gcounter(1))]


@pytest.mark.parametrize(
    ("clock", "told"), [(0, []), (1, [delta(register("theirs"))])], ids=["ours is newer", "theirs was first"]
)
def test_of_a_register_written_on_two_nodes_at_once_only_a_winner_from_elsewhere_is_told(
    machine: Machine, clock: int, told: list[Any]
) -> None:
    machine.call()
    del machine.sent[:]
    machine.elsewhere(LWWREGISTER, lambda state: state.set(text("theirs").SerializeToString(), 1))
    machine.says(reply(1, change=changed(register("ours", clock))))
    assert machine.sent == told


def test_a_first_vote_is_followed_by_the_totals_only_if_there_are_others_K3(machine: Machine) -> None:
    machine.call()
    del machine.sent[:]
    machine.says(reply(1, change=changed(vote(True))))
    assert machine.sent == []
    machine = Machine()
    create = machine.replicas.create

    def create_among_three(replica: Any, kind: int) -> Any:
        state = create(replica, kind)
        state.set_members([OWN, 1, 2])
        return state

    machine.replicas.create = create_among_three  # type: ignore[method-assign]
    machine.call()
    del machine.sent[:]
    machine.says(reply(1, change=changed(vote(True))))
    assert machine.sent == [delta(vote(True, 1, 3))]


def test_K3_totals_are_told_when_members_come(machine: Machine) -> None:
    machine.call()
    machine.says(reply(1, change=changed(vote(True))))
    del machine.sent[:]
    state = machine.replicas.replicas[FULL_KEY].state
    assert state is not None and state.set_members([OWN, 1])
    machine.instance.on_changed()
    assert machine.sent == [delta(vote(True, 1, 2))]


# --- failures --------------------------------------------------------------------------------------------------------


def test_L16_a_failure_is_passed_on_and_its_update_kept(machine: Machine) -> None:
    client = machine.call()
    machine.says(reply(1, failure_action(1, "not today"), changed(gcounter(2))))
    machine.replicas.written()
    assert (client.status, client.text, machine.state) == (Status.UNKNOWN, "not today", 2)
    assert KEY in machine.active and not machine.stream.half_closed


def test_L17_K4_the_description_of_a_top_level_failure_is_passed_on(machine: Machine) -> None:
    client, other = machine.call(), machine.call()
    machine.says(stream_failure(1, "really broken"))
    assert (client.status, client.text, other.status) == (Status.UNKNOWN, "really broken", None)
    assert not machine.stream.half_closed
    machine.says(reply(2))
    assert other.status == Status.OK


@pytest.mark.parametrize("number", [0, 17])
def test_L18_L19_a_failure_of_nothing_known_is_only_logged(machine: Machine, number: int) -> None:
    client = machine.call()
    machine.says(stream_failure(number))
    assert (client.status, machine.stream.half_closed, machine.reports) == (None, False, [])


def test_K4_a_failure_that_asks_for_a_restart_gets_one(machine: Machine) -> None:
    machine.call()
    machine.says(stream_failure(1, restart=True))
    machine.ends_as_asked()
    assert machine.sent == [init(KEY)]
    assert len(machine.user_function.streams) == 2


def test_L20_a_reply_to_nothing_fails_all_that_is_under_way(machine: Machine) -> None:
    clients = [machine.call(), machine.call(), machine.listen()]
    machine.says(reply(9))
    assert [(client.status, client.text) for client in clients] == [(Status.UNKNOWN, TERMINATING)] * 3
    assert "Received reply for entity id k for unknown command 9" in machine.reports[0]
    assert machine.stream.half_closed


def test_L21_a_second_reply_is_one_to_nothing_and_the_first_is_still_answered(machine: Machine) -> None:
    client = machine.call()
    machine.says(reply(1, change=changed(gcounter(1))))
    machine.says(reply(1, change=changed(gcounter(1))))
    assert machine.state == 1
    machine.ends_as_asked()
    machine.replicas.written()
    assert client.status == Status.OK
    assert (machine.active, machine.replicas.closed) == ({}, [FULL_KEY])


IMPOSSIBLE = {
    "negative GCounter": (GCOUNTER, plus(5), gcounter(2**64 - 3)),
    "another type": (GCOUNTER, plus(5), gset("a")),
    "empty delta": (GCOUNTER, plus(5), crdt.CrdtDelta()),
    "map entry without a key": (
        7,
        lambda state: None,
        crdt.CrdtDelta(ormap=crdt.ORMapDelta(added=[crdt.ORMapEntryDelta(delta=gcounter(1))])),
    ),
    "flag switched off": (FLAG, lambda state: state.enable(), flag(False)),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_L22_L23_K11_an_impossible_update_fails_its_command_alone_and_the_stream_begins_anew(
    machine: Machine, name: str
) -> None:
    kind, change, update = IMPOSSIBLE[name]
    machine.elsewhere(kind, change)
    before = machine.state
    client, other = machine.call(), machine.call()
    first_init = machine.sent[0]
    machine.says(reply(1, change=changed(update)))
    assert client.status == Status.UNKNOWN and client.text.startswith(f"{NOT_UPDATED}: ")
    assert (len(machine.reports), machine.state, machine.replicas.asked) == (1, before, [])
    assert other.status is None and not machine.stream.half_closed
    late = machine.call()
    machine.says(reply(2))
    assert other.status == Status.OK
    machine.ends_as_asked()
    assert machine.sent == [first_init, command(1, KEY)], "with the value as it is"
    machine.says(reply(1))
    assert late.status == Status.OK
    assert machine.replicas.closed == []


@pytest.mark.parametrize("update", [crdt.CrdtDelta(), gcounter(2**63)], ids=["empty", "negative"])
def test_an_impossible_first_update_leaves_no_key_behind(machine: Machine, update: Any) -> None:
    client = machine.call()
    machine.says(reply(1, change=changed(update)))
    assert client.status == Status.UNKNOWN
    machine.ends_as_asked()
    assert (machine.sent, machine.state) == ([init(KEY)], None)


def test_a_state_action_without_a_member_fails_its_command(machine: Machine) -> None:
    client = machine.call()
    machine.says(reply(1, change=crdt.CrdtStateAction(write_consistency=1)))
    assert (client.status, len(machine.reports)) == (Status.UNKNOWN, 1)


def test_L24_K11_a_write_that_times_out_fails_its_command_alone_and_stays(machine: Machine) -> None:
    client, other = machine.call(), machine.call()
    machine.says(reply(1, change=changed(gcounter(1), ALL)))
    machine.replicas.written(LATE)
    assert (client.status, client.text) == LATE
    assert (other.status, machine.state, machine.stream.half_closed) == (None, 1, False)


def test_L25_a_streamed_reply_to_a_single_command_fails_it_and_is_not_performed(machine: Machine) -> None:
    client = machine.call()
    machine.says(reply(1, change=changed(gcounter(1)), streamed=True))
    assert (client.status, machine.state) == (Status.UNKNOWN, None)
    assert "Streamed reply to non streamed command 1" in machine.reports[0]


def test_L27_a_stream_that_ends_unasked_fails_all_and_the_next_command_begins_anew(machine: Machine) -> None:
    clients = [machine.call(), machine.listen()]
    machine.ends()
    assert [(client.status, client.text) for client in clients] == [(Status.UNKNOWN, TERMINATING)] * 2
    assert "Unexpected entity termination due to stream closure" in machine.reports[0]
    assert (machine.active, machine.metrics.failed_entities) == ({}, 1)
    machine.call()
    assert machine.sent == [init(KEY), command(1, KEY)]


def test_L28_a_stream_that_fails_fails_all(machine: Machine) -> None:
    client = machine.call()
    machine.ends(Status.UNAVAILABLE)
    assert (client.status, client.text) == (Status.UNKNOWN, TERMINATING)


def test_a_refused_stream_is_asked_for_again(machine: Machine) -> None:
    clients = [machine.ask(), machine.ask(effect_on("x"))]
    machine.stream.unprocessed = True
    machine.ends(Status.UNAVAILABLE)
    machine.timers.turn()
    assert machine.sent == [init(KEY), command(1, KEY), command(2, KEY, effect_on("x"))]
    assert [client.status for client in clients] == [None, None]


def test_L29_a_slow_user_function_gets_no_more_until_it_has_drained(machine: Machine) -> None:
    machine.elsewhere(GCOUNTER, plus(1))
    machine.call()
    machine.stream.flowing = False
    machine.call()
    waiting = machine.call()
    assert len(machine.sent) == 3
    machine.says(reply(1))
    machine.says(reply(2))
    machine.elsewhere(GCOUNTER, plus(2))
    assert len(machine.sent) == 3
    machine.stream.flowing = True
    machine.instance.on_drain(machine.stream)
    assert machine.sent[3:] == [delta(gcounter(2)), command(3, KEY)]
    assert waiting.status is None


def test_L30_a_silent_command_fails_alone_and_ends_its_turn() -> None:
    machine = Machine(relay_timeout=5.0)
    machine.elsewhere(GCOUNTER, plus(1))
    client = machine.call()
    machine.elsewhere(GCOUNTER, plus(2))
    machine.passes(machine.settings.relay_timeout + 1)
    assert client.status == Status.DEADLINE_EXCEEDED
    assert machine.sent[-1] == delta(gcounter(2))
    assert not machine.stream.half_closed
    machine.says(reply(1))
    assert not machine.stream.half_closed, "a late reply without a change is nothing"


def test_a_late_reply_with_a_change_is_applied_and_the_stream_begins_anew(machine: Machine) -> None:
    machine.call()
    machine.passes(machine.settings.relay_timeout + 1)
    machine.says(reply(1, change=changed(gcounter(2))))
    assert machine.state == 2
    machine.ends_as_asked()
    assert machine.sent == [init(KEY, gcounter(2))]


def test_L31_a_replica_of_another_type_is_opened_anew(machine: Machine) -> None:
    client = machine.call()
    machine.instance.on_lost("another type won")
    assert not machine.stream.half_closed
    machine.says(reply(1))
    assert client.status == Status.OK
    machine.ends_as_asked()
    assert (machine.replicas.closed, machine.sent) == ([FULL_KEY], [init(KEY)])
    assert len(machine.replicas.watchers) == 1


def test_L32_a_message_without_content_is_ignored(machine: Machine) -> None:
    client = machine.call()
    machine.says(crdt.CrdtStreamOut())
    assert (client.status, machine.stream.half_closed, len(machine.reports)) == (None, False, 1)


def test_malformed_messages_fail_all_that_is_under_way(machine: Machine) -> None:
    client = machine.call()
    machine.instance.on_message(machine.stream, b"\x0a\xff")
    assert (client.status, client.text) == (Status.UNKNOWN, TERMINATING)
    assert "malformed" in machine.reports[0]


# --- deletion --------------------------------------------------------------------------------------------------------


def test_L40_the_deleter_gets_its_answer_and_no_delete(machine: Machine) -> None:
    machine.elsewhere(GCOUNTER, plus(1))
    client = machine.call()
    machine.says(reply(1, change=deletion(ALL)))
    assert machine.stream.half_closed
    assert machine.sent == [init(KEY, gcounter(1)), command(1, KEY)]
    (write,) = machine.replicas.asked
    assert (write.what, write.consistency, client.status) == ("delete", Consistency.ALL, None)
    machine.ends()
    machine.replicas.written()
    assert client.status == Status.OK
    assert (machine.active, machine.replicas.closed) == ({}, [FULL_KEY])


def test_L41_others_under_way_may_still_be_answered_but_change_nothing(machine: Machine) -> None:
    machine.call()
    answered, forgotten = machine.call(), machine.call()
    machine.says(reply(1, change=deletion()))
    machine.says(reply(2, change=changed(gcounter(1))))
    assert answered.status == Status.OK
    assert len(machine.replicas.asked) == 1
    machine.ends_as_asked()
    assert (forgotten.status, forgotten.text) == (Status.UNKNOWN, "Entity deleted")


def test_L42_a_key_that_never_existed_can_be_deleted(machine: Machine) -> None:
    client = machine.call()
    machine.says(reply(1, change=deletion()))
    machine.replicas.written()
    assert client.status == Status.OK
    assert machine.replicas.replicas[FULL_KEY].deleted


def test_L43_a_deletion_elsewhere_is_told_even_during_a_turn(machine: Machine) -> None:
    client = machine.call()
    machine.replicas.deleted_elsewhere(FULL_KEY)
    assert machine.sent[-1] == DELETED
    assert machine.stream.half_closed and client.status is None
    machine.ends()
    assert (client.status, client.text) == (Status.UNKNOWN, "Entity deleted")


def test_L44_L45_commands_after_a_deletion_fail_at_once(machine: Machine) -> None:
    machine.opened()
    machine.replicas.deleted_elsewhere(FULL_KEY)
    for _ in range(2):
        client, listener = machine.call(), machine.listen()
        assert (client.status, client.text) == (Status.UNKNOWN, "Entity deleted")
        assert (listener.status, listener.text) == (Status.UNKNOWN, "Entity deleted")
        if machine.active:
            machine.ends()
    assert len(machine.user_function.streams) == 1


def test_L46_K2_an_update_that_races_with_a_deletion_is_answered(machine: Machine) -> None:
    client = machine.call()
    replica = machine.replicas.replicas[FULL_KEY]
    replica.state, replica.deleted = None, True  # not told yet
    machine.says(reply(1, change=changed(gcounter(1))))
    machine.replicas.written()
    assert (client.status, replica.state) == (Status.OK, None)


def test_L47_a_deletion_that_times_out_is_one_all_the_same(machine: Machine) -> None:
    client = machine.call()
    machine.says(reply(1, change=deletion(ALL)))
    machine.replicas.written(LATE)
    assert (client.status, client.text) == LATE
    assert machine.call().text == "Entity deleted"


def test_commands_under_way_at_a_deletion_fail_when_the_stream_is_never_completed(machine: Machine) -> None:
    client, listener = machine.call(), machine.listen()
    machine.replicas.deleted_elsewhere(FULL_KEY)
    machine.passes(machine.settings.stream_close_timeout + 1)
    assert machine.stream.cancelled
    assert [(each.status, each.text) for each in (client, listener)] == [(Status.UNKNOWN, "Entity deleted")] * 2
    assert machine.active == {}


def test_time_goes_on_while_replicas_and_writes_are_waited_for(machine: Machine) -> None:
    machine.replicas.waits = True
    machine.call()
    now = monotonic() + 1000
    assert machine.instance.on_time(now) > now
    machine.replicas.opened()
    machine.says(reply(1, change=changed(gcounter(1))))
    machine.instance.evict()
    machine.ends()
    assert machine.instance.on_time(now) > now


def test_a_deletion_while_the_stream_is_to_begin_anew_is_the_end(machine: Machine) -> None:
    machine.call()
    machine.says(stream_failure(1, restart=True))
    waiting = machine.call()
    machine.replicas.deleted_elsewhere(FULL_KEY)
    assert (waiting.status, waiting.text) == (Status.UNKNOWN, "Entity deleted")
    machine.ends_as_asked()
    assert (machine.active, len(machine.user_function.streams)) == ({}, 1)


def test_a_deletion_while_a_stream_is_waited_for_fails_those_who_wait(machine: Machine) -> None:
    machine.user_function.request = lambda path, borrower: None  # type: ignore[method-assign]
    client = machine.call()
    machine.replicas.deleted_elsewhere(FULL_KEY)
    assert (client.status, client.text, machine.active) == (Status.UNKNOWN, "Entity deleted", {})


# --- passivation -----------------------------------------------------------------------------------------------------


def test_L50_an_idle_instance_is_passivated_and_its_replica_closed(machine: Machine) -> None:
    machine.opened()
    machine.passes(machine.settings.passivation_timeout + 1)
    machine.ends_as_asked()
    assert (machine.active, machine.replicas.closed) == ({}, [FULL_KEY])
    assert (machine.metrics.activated_entities, machine.metrics.passivated_entities) == (1, 1)
    assert machine.metrics.failed_entities == 0


def test_a_command_under_way_or_a_write_keeps_the_instance(machine: Machine) -> None:
    client = machine.call()
    assert not machine.instance.evict()
    machine.says(reply(1, change=changed(gcounter(1))))
    assert machine.instance.evict()
    machine.ends()
    assert client.status is None and machine.replicas.closed == []
    machine.replicas.written()
    assert (client.status, machine.replicas.closed) == (Status.OK, [FULL_KEY])


def test_a_command_during_the_last_write_begins_the_next_life_on_the_same_replica(machine: Machine) -> None:
    first = machine.call()
    machine.says(reply(1, change=changed(gcounter(1))))
    machine.instance.evict()
    machine.ends()
    second = machine.call()
    assert machine.sent == [init(KEY, gcounter(1)), command(1, KEY)]
    machine.replicas.written()
    machine.says(reply(1))
    assert (first.status, second.status) == (Status.OK, Status.OK)
    assert machine.replicas.closed == []


def test_L52_commands_during_passivation_are_served_by_the_next_life_in_order(machine: Machine) -> None:
    machine.opened()
    machine.instance.evict()
    machine.ask()
    machine.ask(effect_on("x"))
    machine.ends()
    assert machine.sent == [init(KEY), command(1, KEY), command(2, KEY, effect_on("x"))]


def test_L54_a_stream_that_is_not_completed_is_reset(machine: Machine) -> None:
    machine.opened()
    machine.instance.evict()
    client = machine.call()
    stream = machine.stream
    machine.passes(machine.settings.stream_close_timeout + 1)
    assert stream.cancelled
    assert machine.sent == [init(KEY), command(1, KEY)]
    assert client.status is None


# --- bounds ----------------------------------------------------------------------------------------------------------


def test_more_commands_than_may_be_in_flight_are_refused() -> None:
    machine = Machine(crdt_max_in_flight=2)
    machine.opened()
    clients = [machine.call() for _ in range(3)]
    assert [client.status for client in clients] == [None, None, Status.RESOURCE_EXHAUSTED]
    assert "crdt_max_in_flight" in clients[2].text
    assert machine.metrics.refused_commands == 1


def test_commands_that_waited_are_passed_on_as_others_are_answered() -> None:
    machine = Machine(crdt_max_in_flight=2)
    machine.replicas.waits = True
    for _ in range(4):
        machine.call()
    machine.replicas.opened()
    assert len(machine.sent) == 3
    machine.says(reply(1))
    machine.says(reply(2))
    assert len(machine.sent) == 5
    assert machine.metrics.unstashed_commands == machine.metrics.stashed_commands == 3


def test_K10_remote_changes_are_held_back_for_a_bounded_time_only(machine: Machine) -> None:
    machine.elsewhere(GCOUNTER, plus(1))
    machine.call()
    machine.elsewhere(GCOUNTER, plus(2))
    machine.call()
    machine.says(reply(1))
    machine.passes(machine.settings.crdt_hold_limit + 0.01)
    waits = machine.call()
    assert len(machine.sent) == 3
    machine.says(reply(2))
    assert machine.sent[3:] == [delta(gcounter(2)), command(3, KEY)]
    machine.says(reply(3))
    assert waits.status == Status.OK


def test_K10_a_write_under_way_holds_nothing_back(machine: Machine) -> None:
    machine.elsewhere(GCOUNTER, plus(1))
    client = machine.call()
    machine.says(reply(1, change=changed(gcounter(1), ALL)))
    machine.elsewhere(GCOUNTER, plus(2))
    assert machine.sent[-1] == delta(gcounter(2))
    assert client.status is None


# --- streamed calls: see test_crdt_streams.py ------------------------------------------------------------------------


def test_a_cancelled_command_of_a_single_reply_runs_to_its_end(machine: Machine) -> None:
    client = machine.call()
    client.ended = True
    machine.method.on_cancel(client, Status.CANCELLED)  # type: ignore[arg-type]
    assert cancelled(1, KEY) not in machine.sent
    machine.says(reply(1, change=changed(gcounter(2))))
    assert machine.state == 2


def test_a_command_whose_client_went_away_while_it_waited_is_dropped(machine: Machine) -> None:
    machine.replicas.waits = True
    gone = machine.ask()
    machine.ask(effect_on("x"))
    gone.ended = True
    machine.replicas.opened()
    assert machine.sent == [init(KEY), command(1, KEY, effect_on("x"))]
