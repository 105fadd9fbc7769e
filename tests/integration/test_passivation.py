"""Idle instances give their stream up, and nothing is lost around it: core 4.2."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc

from .harness import World, ok
from .messages import CONFIGURED, TWO, command, emit, event, init, reply
from .user_function import EntityStream, a_key

# Most tests use the entity that asks for 100 ms; the proxy's own timeout is for the others.
SETTINGS = {"journal": "memory:", "passivation_timeout": "300ms", "stream_close_timeout": "400ms"}


async def passivating(world: World, key: str) -> EntityStream:
    """An instance of the 100 ms entity whose stream the proxy has half-closed."""
    call, stream = await world.busy(key, service=CONFIGURED)
    await stream.send(reply(1, events="a"))
    assert await call == ok()
    assert await stream.next() is None
    return stream


async def test_an_idle_instance_is_half_closed_and_the_next_command_opens_a_new_one(world: World) -> None:
    key = world.user_function.play()
    stream = await passivating(world, key)
    stream.complete()
    await stream.wait_over()
    assert not stream.reset.is_set()
    call = world.client.start(key, service=CONFIGURED)
    stream = await world.user_function.stream(key)
    expected = [init(key, CONFIGURED), event(1, "a"), command(1, key, service=CONFIGURED)]
    assert [await stream.next() for _ in range(3)] == expected
    await stream.send(reply(1))
    assert await call == ok()


async def test_without_a_timeout_of_its_own_an_entity_has_that_of_the_proxy(world: World) -> None:
    key = a_key()
    assert await world.client.ask(key, service=TWO) == ok()
    (stream,) = world.user_function.streams_of(key)
    await stream.wait_half_closed()


async def test_a_command_slower_than_the_timeout_is_waited_for_and_passivation_follows_soon(world: World) -> None:
    key, other = world.user_function.play(), world.user_function.play()
    call, stream = await world.busy(key, service=CONFIGURED)
    await passivating(world, other)  # so long that the first one's timeout has passed
    assert not stream.half_closed.is_set()
    await stream.send(reply(1, "slow"))
    assert await call == ok("slow")
    assert await stream.next() is None
    stream.complete()


async def test_commands_keep_an_instance_alive(world: World) -> None:
    key = a_key()
    idle = await passivating(world, world.user_function.play())
    idle.complete()
    for round_number in range(3):
        assert (await world.client.ask(key, emit(str(round_number)))).ok
        (await passivating(world, world.user_function.play())).complete()  # a third of the proxy's timeout and more
    assert len(world.user_function.streams_of(key)) == 1


async def test_a_command_that_comes_while_passivating_goes_to_a_new_instance(world: World) -> None:
    key = world.user_function.play()
    stream = await passivating(world, key)
    call = world.client.start(key, service=CONFIGURED)
    await world.queued(1, CONFIGURED)
    assert world.user_function.streams_of(key) == [stream]
    stream.complete()
    stream = await world.user_function.stream(key)
    expected = [init(key, CONFIGURED), event(1, "a"), command(1, key, service=CONFIGURED)]
    assert [await stream.next() for _ in range(3)] == expected
    await stream.send(reply(1, "new"))
    assert await call == ok("new")


async def test_d7_a_user_function_that_never_completes_its_side_is_reset_and_reported(world: World) -> None:
    """The reference lets all later commands of the key hang."""
    key = world.user_function.play()
    old = await passivating(world, key)
    call = world.client.start(key, service=CONFIGURED)
    stream = await world.user_function.stream(key)
    expected = [init(key, CONFIGURED), event(1, "a"), command(1, key, service=CONFIGURED)]
    assert [await stream.next() for _ in range(3)] == expected
    await stream.send(reply(1, "freed"))
    assert await call == ok("freed")
    await old.wait_over()
    assert old.reset.is_set()
    await world.user_function.report_about(key, CONFIGURED, "did not complete its side")


@asynccontextmanager
async def full_world(folder: Path) -> AsyncIterator[World]:
    """A proxy that may have three instances only."""
    async with World(folder, journal="memory:", max_entities="3", stream_close_timeout="400ms") as world:
        yield world


async def test_the_longest_idle_instance_makes_room_for_a_new_one(tmp_path: Path) -> None:
    async with full_world(tmp_path) as world:
        keys = [a_key() for _ in range(4)]
        for key in keys[:3]:
            assert (await world.client.ask(key, emit("x"))).ok
        assert await world.client.ask(keys[0]) == ok("x")  # used again: now the second one rested longest
        assert (await world.client.ask(keys[3])).ok
        first, second, third = (world.user_function.streams_of(key)[0] for key in keys[:3])
        await second.wait_over()
        assert not first.half_closed.is_set() and not third.half_closed.is_set()
        assert await world.client.ask(keys[1]) == ok("x")


async def test_when_all_instances_are_busy_a_new_one_is_refused(tmp_path: Path) -> None:
    async with full_world(tmp_path) as world:
        keys = [world.user_function.play() for _ in range(3)]
        busy = [await world.busy(key) for key in keys]
        refused = await world.client.ask(a_key())
        assert refused.status == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "max_entities" in refused.details
        for call, stream in busy:
            await stream.send(reply(1, "unharmed"))
            assert await call == ok("unharmed")
