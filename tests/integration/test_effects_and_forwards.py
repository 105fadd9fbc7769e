"""Forwards and side effects among entities of one user function: core 7, and what bounds them."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from .harness import World, ok, unknown
from .messages import MODEL, TWO, command, failed, forward, init, reply, side_effect
from .user_function import PATIENCE_S, a_key, soon

SETTINGS = {"journal": "memory:", "max_hops": "4", "max_pending_effects": "20", "relay_timeout": "1s"}

NOWHERE = [("no.such.Service", "Call"), (TWO, "NoSuchMethod")]


async def test_effects_start_in_their_order(world: World) -> None:
    key, other = world.user_function.play(), world.user_function.play()
    call, stream = await world.busy(key)
    await stream.send(reply(1, "done", effects=[side_effect(other)] * 3))
    assert await call == ok("done")
    target = await world.user_function.ready_stream(other, TWO)
    for number in range(1, 4):
        assert await target.next() == command(number, other, service=TWO)
        await target.send(reply(number))


async def test_an_asynchronous_effect_is_not_waited_for(world: World) -> None:
    key, other = world.user_function.play(), world.user_function.play()
    call, stream = await world.busy(key)
    await stream.send(reply(1, "at once", effects=[side_effect(other)]))
    assert await call == ok("at once")
    target = await world.user_function.ready_stream(other, TWO)
    assert await target.next() == command(1, other, service=TWO)
    await target.send(reply(1))


async def test_a_synchronous_effect_is_over_before_the_next_effect_and_the_answer(world: World) -> None:
    key, first, second = (world.user_function.play() for _ in range(3))
    call, stream = await world.busy(key)
    effects = [side_effect(first, synchronous=True), side_effect(second, synchronous=True)]
    await stream.send(reply(1, "after both", effects=effects))
    target = await world.user_function.ready_stream(first, TWO)
    assert await target.next() == command(1, first, service=TWO)
    # The first one has not been answered: neither the second one nor the answer may come. A later call of another
    # entity passes both on its way.
    assert (await world.client.ask(a_key())).ok
    assert not call.done() and not world.user_function.streams_of(second)
    await target.send(reply(1))
    target = await world.user_function.ready_stream(second, TWO)
    assert await target.next() == command(1, second, service=TWO)
    assert not call.done()
    await target.send(reply(1))
    assert await call == ok("after both")


async def test_a_synchronous_effect_includes_its_own_effects_and_forwards(world: World) -> None:
    key, middle, last = (world.user_function.play() for _ in range(3))
    call, stream = await world.busy(key)
    await stream.send(reply(1, "after all", effects=[side_effect(middle, synchronous=True)]))
    target = await world.user_function.ready_stream(middle, TWO)
    await target.next()
    await target.send(forward(1, last))
    target = await world.user_function.ready_stream(last, TWO)
    assert await target.next() == command(1, last, service=TWO)
    assert not call.done()
    await target.send(reply(1))
    assert await call == ok("after all")


async def test_d21_a_synchronous_effect_that_fails_never_fails_the_call(world: World) -> None:
    """In the reference it does when it fails below the protocol."""
    key, other = world.user_function.play(), world.user_function.play()
    call, stream = await world.busy(key)
    effects = [side_effect(other, synchronous=True), side_effect(other, synchronous=True)]
    await stream.send(reply(1, "all the same", effects=effects))
    target = await world.user_function.ready_stream(other, TWO)
    await target.next()
    await target.send(failed(1, "the effect is refused"))
    assert await target.next() == command(2, other, service=TWO)
    target.abort(grpc.StatusCode.INTERNAL)
    assert await call == ok("all the same")


async def test_d21_a_silent_synchronous_effect_holds_the_answer_for_relay_timeout_at_most(world: World) -> None:
    key, other = world.user_function.play(), world.user_function.play()
    call, stream = await world.busy(key)
    await stream.send(reply(1, "in the end", effects=[side_effect(other, synchronous=True)]))
    target = await world.user_function.ready_stream(other, TWO)
    await target.next()
    assert await call == ok("in the end")
    await world.user_function.report_about(other, "relay_timeout")


@pytest.mark.parametrize(("service", "method"), NOWHERE)
@pytest.mark.parametrize("synchronous", [False, True])
async def test_an_effect_to_nowhere_is_reported_with_its_trace_and_the_call_succeeds(
    world: World, service: str, method: str, synchronous: bool
) -> None:
    key = world.user_function.play()
    call, stream = await world.busy(key)
    effect = side_effect(key, service=service, method=method, synchronous=synchronous)
    await stream.send(reply(1, "all the same", effects=[effect]))
    assert await call == ok("all the same")
    await world.user_function.report_about(f"{service}.{method}", f"{MODEL}.Process", key)


@pytest.mark.parametrize(("service", "method"), NOWHERE)
async def test_a_forward_to_nowhere_is_unimplemented_and_reported(world: World, service: str, method: str) -> None:
    """The reference drops the client's connection."""
    key = world.user_function.play()
    call, stream = await world.busy(key)
    await stream.send(forward(1, key, service=service, method=method))
    outcome = await call
    assert outcome.status == grpc.StatusCode.UNIMPLEMENTED
    assert f"{service}.{method}" in outcome.details
    await world.user_function.report_about(f"{service}.{method}", f"{MODEL}.Process", key)


async def test_a_failure_of_a_forward_is_the_answer(world: World) -> None:
    key, other = world.user_function.play(), world.user_function.play()
    call, stream = await world.busy(key)
    await stream.send(forward(1, other))
    target = await world.user_function.ready_stream(other, TWO)
    await target.next()
    await target.send(failed(1, "said by the other"))
    assert await call == unknown("said by the other")


async def test_a_forward_to_the_very_same_entity_waits_behind_queued_commands(world: World) -> None:
    key = world.user_function.play()
    call, stream = await world.busy(key)
    queued = world.client.start(key)
    await world.queued(1)
    await stream.send(forward(1, key, service=MODEL, method="Process"))
    assert await stream.next() == command(2, key)
    await stream.send(reply(2, "the queued one"))
    assert await queued == ok("the queued one")
    assert await stream.next() == command(3, key)
    await stream.send(reply(3, "the forwarded one"))
    assert await call == ok("the forwarded one")


async def test_a_synchronous_effect_on_the_very_same_entity_does_not_lock_it(world: World) -> None:
    key = world.user_function.play()
    call, stream = await world.busy(key)
    effect = side_effect(key, service=MODEL, method="Process", synchronous=True)
    await stream.send(reply(1, "no deadlock", effects=[effect]))
    assert await stream.next() == command(2, key)
    assert not call.done()
    await stream.send(reply(2))
    assert await call == ok("no deadlock")


async def test_an_effect_with_an_empty_payload_or_key_fails_alone(world: World) -> None:
    key = world.user_function.play()
    call, stream = await world.busy(key)
    effect = side_effect("")
    effect.ClearField("payload")
    await stream.send(reply(1, "all the same", effects=[effect]))
    assert await call == ok("all the same")


async def test_a_chain_of_forwards_ends_at_max_hops_and_names_its_members(world: World) -> None:
    """The reference forwards for ever."""
    key = world.user_function.play()
    call, stream = await world.busy(key)
    hops = 0
    while not call.done():
        hops += 1
        await stream.send(forward(hops, key, service=MODEL, method="Process"))
        following = asyncio.create_task(stream.take())
        await asyncio.wait((following, call), return_when=asyncio.FIRST_COMPLETED, timeout=PATIENCE_S)
        following.cancel()
    outcome = await call
    assert outcome.status == grpc.StatusCode.INTERNAL
    assert f"{MODEL}.Process" in outcome.details
    assert hops == 5
    await world.user_function.report_about("max_hops", key)


async def test_a_loop_of_effects_ends_at_max_hops(world: World) -> None:
    key = world.user_function.play()
    call, stream = await world.busy(key)
    effect = side_effect(key, service=MODEL, method="Process")
    await stream.send(reply(1, effects=[effect]))
    assert await call == ok()
    for number in range(2, 6):
        assert await stream.next() == command(number, key)
        await stream.send(reply(number, effects=[effect]))
    call = world.client.start(key)
    assert await stream.next() == command(6, key)
    await stream.send(reply(6))
    assert await call == ok()


async def test_many_forwards_on_one_connection_are_no_chain(world: World) -> None:
    key, other = world.user_function.play(), a_key()
    call, stream = await world.busy(key)
    for number in range(1, 12):
        await stream.send(forward(number, other))
        assert await call == ok()
        call = world.client.start(key)
        await stream.next()
    await stream.send(reply(12))
    assert await call == ok()


async def test_a_reply_with_more_effects_than_may_run_at_once_drops_the_rest_and_goes_on(world: World) -> None:
    key, other = world.user_function.play(), world.user_function.play()
    call, stream = await world.busy(key)
    await stream.send(reply(1, "bounded", effects=[side_effect(other)] * 30))
    assert await call == ok("bounded")
    target = await world.user_function.ready_stream(other, TWO)
    for number in range(1, 21):
        assert await target.next() == command(number, other, service=TWO)
        await target.send(reply(number))
    call = world.client.start(other, service=TWO)
    assert await target.next() == command(21, other, service=TWO)
    await target.send(reply(21, "nothing stayed behind"))
    assert await call == ok("nothing stayed behind")


async def test_the_client_may_go_while_effects_run(world: World) -> None:
    key, first, second = (world.user_function.play() for _ in range(3))
    call, stream = await world.busy(key)
    effects = [side_effect(first, synchronous=True), side_effect(second, synchronous=True)]
    await stream.send(reply(1, effects=effects))
    target = await world.user_function.ready_stream(first, TWO)
    await target.next()
    call.cancel()
    await soon(asyncio.gather(call, return_exceptions=True), "the cancelled call to end")
    await target.send(reply(1))
    target = await world.user_function.stream(second)
    assert [await target.next() for _ in range(2)] == [init(second, TWO), command(1, second, service=TWO)]
    await target.send(reply(1))
