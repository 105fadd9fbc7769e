"""What goes wrong with an entity and what everybody sees of it: core 4.4, row by row.

Row 25 (a silent user function) stands in test_deadlines.py, 26 to 28 (a journal that refuses) in
tests/unit/test_event_sourced_machine.py, 29 (a corrupt journal) in test_gateway.py. Deviations from the reference
carry their D-number (core 15).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpc
import pytest

from .harness import World, method_path, ok, unknown
from .messages import MODEL, command, event, failed, init, reply, stream_failure
from .user_function import EntityStream, a_key

SETTINGS = {"journal": "memory:", "max_inbound_message_size": "1M", "stream_close_timeout": "1s"}
MIB = 1 << 20

Ending = Callable[[EntityStream], None]


async def served_by_a_new_instance(world: World, key: str, *queued: asyncio.Task[object]) -> EntityStream:
    """Queued commands, or else a new one, reach a new instance, from id 1 on."""
    calls = queued or (world.client.start(key),)
    stream = await world.user_function.ready_stream(key)
    for number, call in enumerate(calls, 1):
        assert await stream.next() == command(number, key)
        await stream.send(reply(number, f"answer {number}"))
        assert await call == ok(f"answer {number}")
    return stream


# --- stream failures -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command_id", [0, 1, 9], ids=["row 15: no id", "row 16: its id", "row 17: another id"])
async def test_a_stream_failure_fails_the_command_in_flight_without_its_description(
    world: World, command_id: int
) -> None:
    key = world.user_function.play()
    call, stream = await world.busy(key)
    await stream.send(stream_failure(command_id, "a secret of the user function"))
    assert await call == unknown("Unexpected entity failure")
    await stream.close_as_asked()
    await served_by_a_new_instance(world, key)


async def test_rows_15_to_17_d10_queued_commands_go_to_the_next_instance_in_order(world: World) -> None:
    """The reference fails them with "Entity terminated"."""
    key = world.user_function.play()
    call, stream = await world.busy(key)
    queued = []
    for number in range(1, 4):
        queued.append(world.client.start(key))
        await world.queued(number)
    await stream.send(stream_failure(1))
    assert await call == unknown("Unexpected entity failure")
    await stream.close_as_asked()
    await served_by_a_new_instance(world, key, *queued)


@pytest.mark.parametrize("command_id", [0, 5])
async def test_row_18_a_stream_failure_of_an_idle_instance_ends_it(world: World, command_id: int) -> None:
    key = world.user_function.play()
    call, stream = await world.busy(key)
    await stream.send(reply(1))
    await call
    await stream.send(stream_failure(command_id))
    await stream.close_as_asked()
    await stream.wait_over()
    await served_by_a_new_instance(world, key)


# --- the user function ends the stream -------------------------------------------------------------------------------


def complete(stream: EntityStream) -> None:
    stream.complete()


def abort_internal(stream: EntityStream) -> None:
    stream.abort(grpc.StatusCode.INTERNAL)


def abort_unavailable(stream: EntityStream) -> None:
    stream.abort(grpc.StatusCode.UNAVAILABLE)


ENDINGS = [complete, abort_internal, abort_unavailable]


@pytest.mark.parametrize("end", ENDINGS)
async def test_rows_19_and_21_an_end_of_the_stream_fails_the_command_in_flight(world: World, end: Ending) -> None:
    key = world.user_function.play()
    call, stream = await world.busy(key)
    end(stream)
    assert await call == unknown("Unexpected entity termination")
    await served_by_a_new_instance(world, key)


@pytest.mark.parametrize("end", ENDINGS)
async def test_rows_19_and_21_d10_queued_commands_go_to_the_next_instance(world: World, end: Ending) -> None:
    key = world.user_function.play()
    call, stream = await world.busy(key)
    queued = world.client.start(key)
    await world.queued(1)
    end(stream)
    assert await call == unknown("Unexpected entity termination")
    await served_by_a_new_instance(world, key, queued)


@pytest.mark.parametrize("end", ENDINGS)
async def test_rows_20_and_22_an_end_of_an_idle_stream_ends_the_instance_quietly(world: World, end: Ending) -> None:
    key = world.user_function.play()
    call, stream = await world.busy(key)
    await stream.send(reply(1, events="a"))
    await call
    before = await world.proxy.metrics()
    end(stream)
    await world.until_metric("passivated_entities_total", before["passivated_entities_total"] + 1)
    assert world.user_function.reports == []
    call = world.client.start(key)
    stream = await world.user_function.stream(key)
    assert [await stream.next() for _ in range(3)] == [init(key), event(1, "a"), command(1, key)]
    await stream.send(reply(1))
    assert await call == ok()


async def test_a_stream_that_ends_before_it_was_opened_fails_its_commands_once_each(world: World) -> None:
    """There is no loop of opening streams for commands that wait."""
    user_function = world.user_function
    usual, before = user_function.behaviour, len(user_function.streams)

    async def refuse(stream: EntityStream) -> None:
        await stream.context.abort(grpc.StatusCode.INTERNAL, "not today")

    user_function.behaviour = refuse
    try:
        key = a_key()
        outcomes = await asyncio.gather(*(world.client.ask(key) for _ in range(5)))
    finally:
        user_function.behaviour = usual
    assert {outcome.status for outcome in outcomes} <= {grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNAVAILABLE}
    assert len(user_function.streams) - before <= 5
    assert await world.client.ask(key) == ok("")


async def test_a_message_before_the_init_fails_the_first_command_and_is_reported(world: World) -> None:
    user_function = world.user_function
    usual = user_function.behaviour

    async def talk_first(stream: EntityStream) -> None:
        await stream.send(reply(7, "before being asked"))
        await stream.read_on()

    user_function.behaviour = talk_first
    key = a_key()
    try:
        outcome = await world.client.ask(key)
    finally:
        user_function.behaviour = usual
    assert outcome == unknown("Unexpected entity reply")
    await world.user_function.report_about(key, MODEL, "command 7")
    assert await world.client.ask(key) == ok("")


async def test_row_24_a_message_above_the_limit_counts_as_an_end_of_the_stream(world: World) -> None:
    key = world.user_function.play()
    call, stream = await world.busy(key)
    sending = asyncio.create_task(stream.send(reply(1, "x" * (MIB + 1))))
    assert await call == unknown("Unexpected entity termination")
    await asyncio.gather(sending, return_exceptions=True)  # whether grpc.aio sees the reset in time does not matter
    await served_by_a_new_instance(world, key)


async def test_a_message_just_below_the_limit_is_served(world: World) -> None:
    key = world.user_function.play()
    text = "x" * (MIB - 100)
    call, stream = await world.busy(key)
    await stream.send(reply(1, text))
    assert await call == ok(text)


# --- slow readers, lost clients, races -------------------------------------------------------------------------------


async def test_row_30_d6_a_long_log_reaches_a_user_function_that_reads_late(world: World) -> None:
    """The reference kills the stream above 100 pending messages. Replay is paced here."""
    key = world.user_function.play()
    call, stream = await world.busy(key)
    values = [f"{number:04}" + "x" * 1000 for number in range(2400)]
    for number in range(1, 5):
        await stream.send(reply(number, events=values[600 * (number - 1) : 600 * number]))
        assert await call == ok()
        call = world.client.start(key)
        assert await stream.next() == command(number + 1, key)
    before = len(world.user_function.streams)
    usual, gate = world.user_function.behaviour, asyncio.Event()

    async def read_late(late: EntityStream) -> None:
        await gate.wait()
        await usual(late)

    world.user_function.behaviour = read_late
    try:
        await stream.send(failed(5, "restart", restart=True))
        await call
        await stream.close_as_asked()
        await world.user_function.until(lambda: len(world.user_function.streams) > before, "the new stream")
        call = world.client.start(key)
        await world.client.raw(method_path(MODEL), b"\xff")  # answered: so the other has reached its entity
        gate.set()
    finally:
        world.user_function.behaviour = usual
    stream = await world.user_function.stream(key)
    assert await stream.next() == init(key)
    for number, value in enumerate(values, 1):
        assert await stream.next() == event(number, value)
    assert await stream.next() == command(1, key)
    await stream.send(reply(1))
    assert await call == ok()


async def test_row_31_the_command_of_a_client_that_went_away_runs_to_its_end(world: World) -> None:
    key = world.user_function.play()
    call, stream = await world.busy(key)
    call.cancel()
    await stream.send(reply(1, events="a"))
    replayed, _ = await world.next_life(key, stream)
    assert replayed == [init(key), event(1, "a")]


async def test_row_32_d10_a_command_between_a_crash_and_the_end_of_the_stream_goes_to_the_next_instance(
    world: World,
) -> None:
    """The reference loses it."""
    key = world.user_function.play()
    call, stream = await world.busy(key)
    await stream.send(stream_failure(1))
    assert await call == unknown("Unexpected entity failure")
    assert await stream.next() is None
    late = world.client.start(key)
    await world.queued(1)
    stream.complete()
    await served_by_a_new_instance(world, key, late)


async def test_d7_a_user_function_that_never_completes_after_a_crash_is_reset(world: World) -> None:
    key = world.user_function.play()
    call, stream = await world.busy(key)
    await stream.send(stream_failure(1))
    assert await call == unknown("Unexpected entity failure")
    late = world.client.start(key)
    await world.queued(1)
    await served_by_a_new_instance(world, key, late)
    await stream.wait_over()
    assert stream.reset.is_set()


async def test_a_misbehaving_entity_does_not_disturb_its_neighbours(world: World) -> None:
    keys = [world.user_function.play() for _ in range(4)]
    calls, streams = zip(*[await world.busy(key) for key in keys], strict=True)
    await streams[0].send_bytes(b"\xff\xff")
    streams[1].abort(grpc.StatusCode.DATA_LOSS)
    await streams[2].send(reply(99))
    assert [(await call).status for call in calls[:3]] == [grpc.StatusCode.UNKNOWN] * 3
    await streams[3].send(reply(1, "undisturbed"))
    assert await calls[3] == ok("undisturbed")
    for stream in (streams[0], streams[2]):
        await stream.close_as_asked()
    for key in (keys[0], keys[2]):
        await world.user_function.report_about(key)
