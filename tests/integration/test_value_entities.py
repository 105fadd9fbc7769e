"""Value entities through the proxy: core 5.1 (life), 5.2 (replies) and 5.3 (failures), row by row.

Rows 11, 13, 14 and 15 (what the store answers, and when) stand in tests/unit/test_value_entity_machine.py; 22 (a full
relay buffer) has no counterpart here. Deviations from the reference carry their D-number (core 15).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from . import messages
from . import value_messages as values
from .harness import Outcome, World, eventually, ok, unknown
from .messages import TWO, VALUE_CONFIGURED, VALUE_MODEL, VALUE_TWO, command, side_effect, value_init
from .user_function import EntityStream, a_key
from .value_function import ValueFunction
from .value_messages import (
    DELETE,
    INVALID_STATE_ACTIONS,
    delete,
    failed,
    forward,
    no_action,
    reply,
    stream_failure,
    update,
    updated,
)

SETTINGS = {
    "journal": "memory:",
    "relay_timeout": "700ms",
    "max_inbound_message_size": "1M",
    "stream_close_timeout": "400ms",
}
USER_FUNCTION = ValueFunction
MIB = 1 << 20

Ending = Callable[[EntityStream], None]


def start(world: World, key: str, *actions: Any, **more: Any) -> asyncio.Task[Outcome]:
    return world.client.start(key, *actions, **{"service": VALUE_MODEL} | more)


async def ask(world: World, key: str, *actions: Any, **more: Any) -> Outcome:
    return await start(world, key, *actions, **more)


async def busy(world: World, key: str, **more: Any) -> tuple[asyncio.Task[Outcome], EntityStream]:
    return await world.busy(key, **{"service": VALUE_MODEL} | more)


async def a_value(world: World, value: str) -> tuple[str, EntityStream]:
    """A played entity that keeps `value`, idle after its first command."""
    key = world.user_function.play()
    call, stream = await busy(world, key)
    await stream.send(reply(1, state=updated(value)))
    assert await call == ok()
    return key, stream


async def served_by_a_new_instance(
    world: World, key: str, *queued: asyncio.Task[Outcome], value: str | None = None
) -> EntityStream:
    """Queued commands, or else a new one, reach a new instance, from id 1 on; it begins with `value`."""
    calls = queued or (start(world, key),)
    stream = await world.user_function.stream(key)
    assert await stream.next() == value_init(key, value=value)
    for number, call in enumerate(calls, 1):
        assert await stream.next() == command(number, key, service=VALUE_MODEL)
        await stream.send(reply(number, f"answer {number}"))
        assert await call == ok(f"answer {number}")
    return stream


async def stored(world: World, key: str, stream: EntityStream) -> str | None:
    """What a new instance of an idle played entity begins with."""
    stream.complete()
    await stream.wait_over()
    call = start(world, key)
    stream = await world.user_function.stream(key)
    init = (await stream.next()).init
    assert init.HasField("state")
    await stream.next()
    await stream.send(reply(1))
    assert await call == ok()
    return values.model.Persisted.FromString(init.state.value.value).value if init.state.HasField("value") else None


# --- 5.1: life -------------------------------------------------------------------------------------------------------


async def test_init_always_has_a_state_and_commands_have_ids_from_1_and_no_metadata(world: World) -> None:
    key = a_key()
    assert await ask(world, key, metadata=(("x-header", "1"),)) == ok()
    assert await ask(world, key, update("x")) == ok("x")
    (stream,) = world.user_function.streams_of(key)
    assert stream.received == [
        value_init(key),
        command(1, key, service=VALUE_MODEL),
        command(2, key, update("x"), service=VALUE_MODEL),
    ]
    assert stream.received[0].init.HasField("state")


async def test_one_command_at_a_time_the_others_wait_in_order(world: World) -> None:
    key = world.user_function.play()
    call, stream = await busy(world, key)
    calls = [call]
    for number in range(1, 4):
        calls.append(start(world, key))
        await world.queued(number, VALUE_MODEL)
    for number, waiting in enumerate(calls, 1):
        assert len(stream.received) == 1 + number
        await stream.send(reply(number, str(number), updated(str(number))))
        assert await waiting == ok(str(number))
        if number < len(calls):
            assert await stream.next() == command(number + 1, key, service=VALUE_MODEL)


async def test_a_stored_value_is_there_for_the_next_instance(world: World) -> None:
    key, stream = await a_value(world, "kept")
    stream.complete()
    await stream.wait_over()
    await served_by_a_new_instance(world, key, value="kept")


async def test_after_a_deletion_the_stream_stays_open_and_a_later_init_has_no_value(world: World) -> None:
    key, stream = await a_value(world, "kept")
    call = start(world, key)
    await stream.next()
    await stream.send(reply(2, "gone", DELETE))
    assert await call == ok("gone")
    call = start(world, key)
    assert await stream.next() == command(3, key, service=VALUE_MODEL)
    await stream.send(reply(3))
    assert await call == ok()
    assert await stored(world, key, stream) is None


async def test_after_a_deletion_a_value_can_be_stored_again(world: World) -> None:
    key = a_key()
    for action, text in ((update("one"), "one"), (delete(), ""), (update("two"), "two")):
        assert await ask(world, key, action) == ok(text)
    (stream,) = world.user_function.streams_of(key)
    stream.complete()


async def test_deleting_what_is_not_there_is_no_mistake(world: World) -> None:
    key = a_key()
    assert await ask(world, key, delete()) == ok()
    assert await ask(world, key, delete()) == ok()


async def test_an_empty_value_is_a_value(world: World) -> None:
    key, stream = await a_value(world, "")
    assert await stored(world, key, stream) == ""


async def test_an_idle_instance_passivates_and_the_next_command_finds_its_value(world: World) -> None:
    key = world.user_function.play()
    call, stream = await busy(world, key, service=VALUE_CONFIGURED)
    await stream.send(reply(1, state=updated("kept")))
    assert await call == ok()
    assert await stream.next() is None
    late = start(world, key, service=VALUE_CONFIGURED)
    await world.queued(1, VALUE_CONFIGURED)
    stream.complete()
    await stream.wait_over()
    assert not stream.reset.is_set()
    stream = await world.user_function.stream(key)
    expected = [value_init(key, VALUE_CONFIGURED, "kept"), command(1, key, service=VALUE_CONFIGURED)]
    assert [await stream.next(), await stream.next()] == expected
    await stream.send(reply(1, "still there"))
    assert await late == ok("still there")


async def test_d7_a_passivated_instance_that_never_completes_its_side_is_reset_and_reported(world: World) -> None:
    key = world.user_function.play()
    call, old = await busy(world, key, service=VALUE_CONFIGURED)
    await old.send(reply(1))
    await call
    assert await old.next() is None
    late = start(world, key, service=VALUE_CONFIGURED)
    stream = await world.user_function.ready_stream(key, VALUE_CONFIGURED)
    await stream.next()
    await stream.send(reply(1, "freed"))
    assert await late == ok("freed")
    await old.wait_over()
    assert old.reset.is_set()
    await world.user_function.report_about(key, VALUE_CONFIGURED, "did not complete its side")


# --- 5.2: replies ----------------------------------------------------------------------------------------------------


async def test_row_1_a_reply_without_state_action_changes_nothing(world: World) -> None:
    key, stream = await a_value(world, "kept")
    call = start(world, key)
    await stream.next()
    await stream.send(reply(2, "just looking"))
    assert await call == ok("just looking")
    assert await stored(world, key, stream) == "kept"


async def test_row_2_an_update_takes_the_place_of_the_value_before(world: World) -> None:
    key, stream = await a_value(world, "old")
    call = start(world, key)
    await stream.next()
    await stream.send(reply(2, "changed", updated("new")))
    assert await call == ok("changed")
    assert await stored(world, key, stream) == "new"


async def test_row_4_a_forward_runs_after_its_state_action(world: World) -> None:
    key, other = world.user_function.play(), world.user_function.play()
    call, stream = await busy(world, key)
    await stream.send(forward(1, other, state=updated("stored")))
    target = await world.user_function.ready_stream(other, VALUE_TWO)
    assert await target.next() == command(1, other, service=VALUE_TWO)
    assert await stored(world, key, stream) == "stored"  # while the target has not answered
    assert not call.done()
    await target.send(reply(1, "from the other"))
    assert await call == ok("from the other")


@pytest.mark.parametrize("restart", [False, True], ids=["restart unset", "restart set"])
async def test_row_5_a_failure_is_passed_on_and_the_instance_lives_on_whatever_its_restart_flag(
    world: World, restart: bool
) -> None:
    key, stream = await a_value(world, "kept")
    call = start(world, key)
    await stream.next()
    await stream.send(failed(2, "you may not", restart=restart))
    assert await call == unknown("you may not")
    call = start(world, key)
    assert await stream.next() == command(3, key, service=VALUE_MODEL)
    await stream.send(reply(3, "alive"))
    assert await call == ok("alive")
    assert await stored(world, key, stream) == "kept"


@pytest.mark.parametrize("state", [updated("new"), DELETE], ids=["update", "delete"])
async def test_row_6_d13_a_failure_with_a_state_action_changes_nothing_is_reported_and_restarts(
    world: World, state: Any
) -> None:
    """The reference stores it."""
    key, stream = await a_value(world, "kept")
    call = start(world, key)
    queued = start(world, key)
    await world.queued(1, VALUE_MODEL)
    await stream.next()
    await stream.send(failed(2, "failed", state=state))
    assert await call == unknown("failed")
    await world.user_function.report_about(key, VALUE_MODEL, "state action together with a failure", "discarded")
    await stream.close_as_asked()
    await served_by_a_new_instance(world, key, queued, value="kept")


async def test_d13_a_failure_with_a_state_action_restarts_without_waiting_for_a_command(world: World) -> None:
    key, stream = await a_value(world, "kept")
    call = start(world, key)
    await stream.next()
    await stream.send(failed(2, "failed", state=DELETE))
    assert await call == unknown("failed")
    await world.user_function.report_about(key, "together with a failure")
    await stream.close_as_asked()
    stream = await world.user_function.stream(key)
    assert await stream.next() == value_init(key, value="kept")


async def test_d13_side_effects_of_a_failure_do_not_run_and_are_reported(world: World) -> None:
    key, other = world.user_function.play(), world.user_function.play()
    call, stream = await busy(world, key)
    await stream.send(failed(1, "failed", effects=[side_effect(other, VALUE_TWO)]))
    assert await call == unknown("failed")
    await world.user_function.report_about(key, "side effects together with a failure")
    call = start(world, key)
    await stream.next()
    await stream.send(reply(2))
    assert await call == ok()
    assert world.user_function.streams_of(other) == []


async def test_row_7_a_reply_without_client_action_is_an_internal_error_and_is_reported(world: World) -> None:
    """Its state action is stored, as in the reference, where the client gets neither message nor error."""
    key, stream = await a_value(world, "old")
    call = start(world, key)
    await stream.next()
    await stream.send(no_action(2, updated("new")))
    outcome = await call
    assert outcome.status == grpc.StatusCode.INTERNAL
    assert f"{VALUE_MODEL}.Process" in outcome.details
    await world.user_function.report_about(f"{VALUE_MODEL}.Process", "neither reply, forward nor failure")
    assert await stored(world, key, stream) == "new"


@pytest.mark.parametrize("state", INVALID_STATE_ACTIONS.values(), ids=INVALID_STATE_ACTIONS.keys())
async def test_row_8_d9_an_invalid_state_action_fails_the_command_and_is_reported(world: World, state: Any) -> None:
    """The reference leaves all clients of the entity without an answer."""
    key, stream = await a_value(world, "kept")
    call = start(world, key)
    queued = start(world, key)
    await world.queued(1, VALUE_MODEL)
    await stream.next()
    await stream.send(reply(2, "done", state))
    assert await call == unknown("Unexpected Value entity reply")
    await world.user_function.report_about(key, VALUE_MODEL, "state action")
    await stream.close_as_asked()
    await served_by_a_new_instance(world, key, queued, value="kept")


async def test_row_9_a_reply_with_another_id_fails_the_command_and_those_behind_go_to_a_new_instance(
    world: World,
) -> None:
    """D10: the reference fails those too."""
    key, stream = await a_value(world, "kept")
    call = start(world, key)
    queued = start(world, key)
    await world.queued(1, VALUE_MODEL)
    await stream.next()
    await stream.send(reply(9, "done", updated("new")))
    assert await call == unknown("Unexpected Value entity reply")
    await world.user_function.report_about(key, VALUE_MODEL, "command 9", "command 2")
    await stream.close_as_asked()
    await served_by_a_new_instance(world, key, queued, value="kept")


async def test_row_10_a_reply_with_nothing_in_flight_ends_the_instance_and_is_reported(world: World) -> None:
    key, stream = await a_value(world, "kept")
    await stream.send(reply(1, "again", updated("new")))
    await world.user_function.report_about(key, VALUE_MODEL, "none was in flight")
    await stream.close_as_asked()
    await stream.wait_over()
    await served_by_a_new_instance(world, key, value="kept")


async def test_row_11_d14_of_two_replies_at_once_only_the_first_counts(world: World) -> None:
    key = world.user_function.play()
    call, stream = await busy(world, key)
    queued = start(world, key)
    await world.queued(1, VALUE_MODEL)
    await stream.send(reply(1, "first", updated("first")))
    await stream.send(reply(1, "second", updated("second")))
    assert await call == ok("first")
    await world.user_function.report_about(key, VALUE_MODEL, "command 1")
    # Whether the second one came while the first was stored or just after, when the queued command was in flight.
    outcome: Outcome | None = None
    while (message := await stream.next()) is not None:
        assert message == command(2, key, service=VALUE_MODEL)
        outcome = await queued
    stream.complete()
    if outcome:
        assert outcome == unknown("Unexpected Value entity reply")
        await served_by_a_new_instance(world, key, value="first")
    else:
        await served_by_a_new_instance(world, key, queued, value="first")


async def test_row_12_a_message_without_reply_or_failure_is_an_unexpected_failure_and_is_reported(world: World) -> None:
    key = world.user_function.play()
    call, stream = await busy(world, key)
    await stream.send_bytes(b"")
    assert await call == unknown("Unexpected Value entity failure")
    await world.user_function.report_about(key, VALUE_MODEL, "neither reply nor failure")
    await stream.close_as_asked()
    await served_by_a_new_instance(world, key)


async def test_garbage_is_an_unexpected_failure_and_is_reported(world: World) -> None:
    key = world.user_function.play()
    call, stream = await busy(world, key)
    await stream.send_bytes(b"\x0a\xff\xff")
    assert await call == unknown("Unexpected Value entity failure")
    await world.user_function.report_about(key, VALUE_MODEL, "malformed")
    await stream.close_as_asked()
    await served_by_a_new_instance(world, key)


async def test_a_value_that_could_not_be_read_again_is_not_stored(world: World) -> None:
    """It would end every later instance before its first command."""
    key, stream = await a_value(world, "kept")
    call = start(world, key)
    await stream.next()
    sound = reply(2, "done", updated("new")).SerializeToString()
    await stream.send_bytes(sound.replace(b"Persisted", b"Persiste\xff"))
    assert await call == unknown("Unexpected Value entity failure")
    await world.user_function.report_about(key, VALUE_MODEL, "malformed", "Any")
    await stream.close_as_asked()
    await served_by_a_new_instance(world, key, value="kept")


async def test_a_message_before_the_init_fails_the_first_command_and_is_reported(world: World) -> None:
    user_function = world.user_function
    usual = user_function.behaviour

    async def talk_first(stream: EntityStream) -> None:
        await stream.send(reply(7, "before being asked"))
        await stream.read_on()

    user_function.behaviour = talk_first
    key = a_key()
    try:
        outcome = await ask(world, key)
    finally:
        user_function.behaviour = usual
    assert outcome == unknown("Unexpected Value entity reply")
    await user_function.report_about(key, VALUE_MODEL, "command 7")
    assert await ask(world, key) == ok()


# --- 5.3: failures ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command_id", [0, 2, 9], ids=["no id", "its id", "another id"])
async def test_row_16_a_stream_failure_fails_the_command_without_its_description(world: World, command_id: int) -> None:
    key, stream = await a_value(world, "kept")
    call = start(world, key)
    await stream.next()
    await stream.send(stream_failure(command_id, "a secret of the user function"))
    assert await call == unknown("Unexpected Value entity failure")
    await stream.close_as_asked()
    await served_by_a_new_instance(world, key, value="kept")


async def test_row_16_a_stream_failure_of_an_idle_instance_ends_it(world: World) -> None:
    key, stream = await a_value(world, "kept")
    await stream.send(stream_failure(0))
    await stream.close_as_asked()
    await stream.wait_over()
    await served_by_a_new_instance(world, key, value="kept")


def complete(stream: EntityStream) -> None:
    stream.complete()


def abort_internal(stream: EntityStream) -> None:
    stream.abort(grpc.StatusCode.INTERNAL)


def abort_unavailable(stream: EntityStream) -> None:
    stream.abort(grpc.StatusCode.UNAVAILABLE)


ENDINGS = [complete, abort_internal, abort_unavailable]


@pytest.mark.parametrize("end", ENDINGS)
async def test_rows_17_19_and_20_d1_an_end_of_the_stream_fails_the_command_and_never_leaves_the_key_dead(
    world: World, end: Ending
) -> None:
    """In the reference every later command of the key hangs after an error. D10: the queued one is not lost either."""
    key, stream = await a_value(world, "kept")
    call = start(world, key)
    queued = start(world, key)
    await world.queued(1, VALUE_MODEL)
    await stream.next()
    end(stream)
    assert await call == unknown("Unexpected Value entity termination")
    stream = await served_by_a_new_instance(world, key, queued, value="kept")
    end(stream)
    await stream.wait_over()
    await served_by_a_new_instance(world, key, value="kept")


@pytest.mark.parametrize("end", ENDINGS)
async def test_rows_18_and_20_d1_an_end_of_an_idle_stream_ends_the_instance_quietly(world: World, end: Ending) -> None:
    key, stream = await a_value(world, "kept")
    before = await world.proxy.metrics(VALUE_MODEL)
    end(stream)
    await world.until_metric("passivated_entities_total", before["passivated_entities_total"] + 1, VALUE_MODEL)
    assert not [text for text in world.user_function.reports if f"Entity {key} " in text]
    await served_by_a_new_instance(world, key, value="kept")


async def test_a_message_above_the_limit_counts_as_an_end_of_the_stream(world: World) -> None:
    key = world.user_function.play()
    call, stream = await busy(world, key)
    sending = asyncio.create_task(stream.send(reply(1, "x", updated("x" * (MIB + 1)))))
    assert await call == unknown("Unexpected Value entity termination")
    await asyncio.gather(sending, return_exceptions=True)  # whether grpc.aio sees the reset in time does not matter
    await served_by_a_new_instance(world, key)


async def test_row_21_d7_a_silent_user_function_frees_its_entity_after_relay_timeout(world: World) -> None:
    key, stream = await a_value(world, "kept")
    call = start(world, key)
    await stream.next()
    queued = start(world, key)
    await world.queued(1, VALUE_MODEL)
    outcome = await call
    assert outcome.status == grpc.StatusCode.DEADLINE_EXCEEDED
    assert "relay_timeout" in outcome.details
    await stream.wait_over()
    assert stream.reset.is_set()
    await world.user_function.report_about(key, VALUE_MODEL, "relay_timeout")
    await served_by_a_new_instance(world, key, queued, value="kept")


async def test_d25_a_client_that_goes_away_does_not_stop_its_command(world: World) -> None:
    key = world.user_function.play()
    call, stream = await busy(world, key)
    call.cancel()
    await stream.send(reply(1, state=updated("stored")))
    late = start(world, key)
    await stream.next()
    await stream.send(reply(2))
    assert await late == ok()
    assert await stored(world, key, stream) == "stored"


# --- beside event sourced entities -----------------------------------------------------------------------------------


async def test_a_value_entity_forwards_to_an_event_sourced_one(world: World) -> None:
    key, other = world.user_function.play(), world.user_function.play()
    call, stream = await busy(world, key)
    await stream.send(forward(1, other, TWO, state=updated("stored")))
    target = await world.user_function.ready_stream(other, TWO)
    assert await target.next() == command(1, other, service=TWO)
    await target.send(messages.reply(1, "event sourced", events="a"))
    assert await call == ok("event sourced")
    await world.user_function.report_about("Warning", VALUE_MODEL)  # the two models have response types of their own
    assert await stored(world, key, stream) == "stored"


async def test_an_event_sourced_entity_forwards_to_a_value_entity(world: World) -> None:
    key, other = world.user_function.play(), world.user_function.play()
    call, stream = await world.busy(key)
    await stream.send(messages.forward(1, other, service=VALUE_TWO, events="a"))
    target = await world.user_function.ready_stream(other, VALUE_TWO)
    assert await target.next() == command(1, other, service=VALUE_TWO)
    await target.send(reply(1, "a value", updated("x")))
    assert await call == ok("a value")
    await world.user_function.report_about("Warning", messages.MODEL)


@pytest.mark.parametrize("synchronous", [False, True])
async def test_effects_go_from_one_type_to_the_other_and_back(world: World, synchronous: bool) -> None:
    key, middle, last = (world.user_function.play() for _ in range(3))
    call, stream = await busy(world, key)
    await stream.send(reply(1, "done", updated("x"), [side_effect(middle, TWO, synchronous=synchronous)]))
    target = await world.user_function.ready_stream(middle, TWO)
    assert await target.next() == command(1, middle, service=TWO)
    await target.send(messages.reply(1, effects=[side_effect(last, VALUE_TWO, synchronous=synchronous)]))
    target = await world.user_function.ready_stream(last, VALUE_TWO)
    assert await target.next() == command(1, last, service=VALUE_TWO)
    assert call.done() or synchronous
    await target.send(reply(1))
    assert await call == ok("done")


async def test_an_effect_on_the_entity_itself_waits_its_turn(world: World) -> None:
    key = world.user_function.play()
    call, stream = await busy(world, key)
    await stream.send(reply(1, "done", updated("x"), [side_effect(key, VALUE_MODEL, "Process", synchronous=True)]))
    assert await stream.next() == command(2, key, service=VALUE_MODEL)
    assert not call.done()
    await stream.send(reply(2))
    assert await call == ok("done")


async def test_one_key_in_both_types_is_two_entities(world: World) -> None:
    key = a_key()
    assert await ask(world, key, update("value")) == ok("value")
    assert await world.client.ask(key, messages.emit("event")) == ok("event")
    assert await ask(world, key) == ok("value")
    assert await world.client.ask(key) == ok("event")


# --- restarts --------------------------------------------------------------------------------------------------------


async def test_values_survive_a_kill_of_the_proxy(tmp_path: Path) -> None:
    async with World(tmp_path, user_function=ValueFunction()) as world:
        kept, deleted, both = a_key(), a_key(), a_key()
        assert await ask(world, kept, update("old")) == ok("old")
        assert await ask(world, kept, update("new")) == ok("new")
        assert await ask(world, deleted, update("x")) == ok("x")
        assert await ask(world, deleted, delete()) == ok()
        assert await ask(world, both, update("v")) == ok("v")
        assert await world.client.ask(both, messages.emit("e")) == ok("e")
        await world.restart_proxy()
        assert [await ask(world, key) for key in (kept, deleted, both)] == [ok("new"), ok(), ok("v")]
        assert await world.client.ask(both) == ok("e")
        assert await ask(world, deleted, update("again")) == ok("again")
        assert world.user_function.streams_of(kept)[-1].received[0] == value_init(kept, value="new")
        assert world.user_function.streams_of(deleted)[-1].received[0] == value_init(deleted)


async def test_d1_entities_are_served_again_when_the_user_function_comes_back(tmp_path: Path) -> None:
    """In the reference those that were active stay dead until the proxy restarts."""
    async with World(tmp_path, user_function=ValueFunction()) as world:
        key, other = a_key(), world.user_function.play()
        assert await ask(world, key, update("kept")) == ok("kept")
        call, _ = await busy(world, other)
        await world.user_function.stop()
        assert await call == unknown("Unexpected Value entity termination")
        assert (await ask(world, key, timeout=2)).status == grpc.StatusCode.UNAVAILABLE
        await world.user_function.start()

        async def served() -> bool:
            return await ask(world, key) == ok("kept")

        await eventually(served, "the entity is served again")
        await served_by_a_new_instance(world, other)
        assert world.proxy.process is not None
        assert await world.proxy.terminate() == 0


# --- figures ---------------------------------------------------------------------------------------------------------


async def test_values_are_counted_and_nothing_of_them_as_events(world: World) -> None:
    before = await world.proxy.metrics(VALUE_MODEL)
    await a_value(world, "12345")
    changes = (await world.proxy.metrics(VALUE_MODEL)).since(before)
    assert changes["persisted_values_total"] == 1
    assert changes["persisted_value_bytes_total"] == len(values.persisted("12345").SerializeToString())
    assert changes["persist_time_seconds_count"] == changes["completed_commands_total"] == 1
    _, text = await world.proxy.admin("/metrics")
    lines = [line for line in text.splitlines() if "value-entity-" in line and 'entity_type="value"' not in line]
    assert lines and all(line.startswith("stateside_value_") for line in lines)
