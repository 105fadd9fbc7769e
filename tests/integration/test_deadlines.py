"""Time runs out: for a client, for the user function, for a command that waits. D7 and D25 of core 15."""

from __future__ import annotations

import asyncio

import grpc

from .harness import World, ok
from .messages import MODEL, command, event, init, reply

SETTINGS = {"journal": "memory:", "relay_timeout": "700ms", "stream_close_timeout": "300ms"}


async def test_d25_the_deadline_of_a_call_reaches_its_client_and_the_entity_goes_on(world: World) -> None:
    key = world.user_function.play()
    call, stream = await world.busy(key, timeout=0.15)
    assert (await call).status == grpc.StatusCode.DEADLINE_EXCEEDED
    await stream.send(reply(1, "too late", events="a"))
    call = world.client.start(key)
    assert await stream.next() == command(2, key)
    await stream.send(reply(2, "in time"))
    assert await call == ok("in time")
    replayed, _ = await world.next_life(key, stream)
    assert replayed == [init(key), event(1, "a")]


async def test_d25_the_command_of_a_client_that_went_away_while_it_waited_is_not_sent(world: World) -> None:
    key = world.user_function.play()
    call, stream = await world.busy(key)
    impatient = world.client.start(key, timeout=0.1)
    cancelled = world.client.start(key)
    patient = world.client.start(key)
    await world.queued(3)
    cancelled.cancel()
    assert (await impatient).status == grpc.StatusCode.DEADLINE_EXCEEDED
    await asyncio.gather(cancelled, return_exceptions=True)
    await world.client.ask("somebody else")  # the reset has surely arrived when a later call was answered
    await stream.send(reply(1))
    assert await call == ok()
    assert await stream.next() == command(2, key)
    await stream.send(reply(2, "for the patient one"))
    assert await patient == ok("for the patient one")
    assert len(stream.received) == 3


async def test_row_25_d7_a_silent_user_function_frees_its_entity_after_relay_timeout(world: World) -> None:
    """The reference blocks the key until the user function speaks."""
    key = world.user_function.play()
    call, stream = await world.busy(key)
    queued = world.client.start(key)
    await world.queued(1)
    outcome = await call
    assert outcome.status == grpc.StatusCode.DEADLINE_EXCEEDED
    assert "relay_timeout" in outcome.details
    await stream.wait_over()
    assert stream.reset.is_set()
    await world.user_function.report_about(key, MODEL, "relay_timeout")
    stream = await world.user_function.ready_stream(key)
    assert await stream.next() == command(1, key)
    await stream.send(reply(1, "by the next instance"))
    assert await queued == ok("by the next instance")


async def test_row_14_d7_a_reply_after_relay_timeout_leaves_nothing(world: World) -> None:
    """The reference stores its events although nobody waits."""
    key = world.user_function.play()
    call, stream = await world.busy(key)
    assert (await call).status == grpc.StatusCode.DEADLINE_EXCEEDED
    await stream.wait_over()
    await world.user_function.report_about(key, MODEL, "relay_timeout")
    call = world.client.start(key)
    stream = await world.user_function.ready_stream(key)
    assert await stream.next() == command(1, key)
    await stream.send(reply(1))
    assert await call == ok()


async def test_relay_timeout_counts_for_each_command_by_itself(world: World) -> None:
    key = world.user_function.play()
    call, stream = await world.busy(key)
    for number in range(2, 5):
        await asyncio.sleep(0.3)
        await stream.send(reply(number - 1))
        assert await call == ok()
        call = world.client.start(key)
        assert await stream.next() == command(number, key)
    await stream.send(reply(4, "three pauses of less than the timeout"))
    assert await call == ok("three pauses of less than the timeout")


async def test_a_user_function_that_does_not_read_while_replaying_is_given_up(world: World) -> None:
    key = world.user_function.play()
    call, stream = await world.busy(key)
    await stream.send(reply(1, events=["x" * 1000] * 1500))
    assert await call == ok()
    usual = world.user_function.behaviour

    async def never_read(stream: object) -> None:
        await asyncio.Event().wait()

    world.user_function.behaviour = never_read
    try:
        before = await world.proxy.metrics()
        stream.complete()
        await world.until_metric("passivated_entities_total", before["passivated_entities_total"] + 1)
        outcome = await world.client.ask(key)
    finally:
        world.user_function.behaviour = usual
    # Either the replay stood still, or all of it went into buffers and the command was not answered.
    assert outcome.status in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    assert "relay_timeout" in outcome.details
