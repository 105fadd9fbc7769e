"""A user function that asks for a restart of an instance: core 4.5."""

from __future__ import annotations

from .harness import World, ok, unknown
from .messages import MODEL, command, event, failed, init, reply
from .user_function import EntityStream

SETTINGS = {"journal": "memory:", "stream_close_timeout": "500ms"}


async def restarting(world: World, key: str, queued: int = 0) -> tuple[EntityStream, list[object]]:
    """An entity with one event whose second command failed with restart, and so many commands behind it."""
    call, stream = await world.busy(key)
    await stream.send(reply(1, events="a"))
    await call
    call = world.client.start(key)
    assert await stream.next() == command(2, key)
    waiting = []
    for number in range(1, queued + 1):
        waiting.append(world.client.start(key))
        await world.queued(number)
    await stream.send(failed(2, "start over", restart=True))
    assert await call == unknown("start over")  # at once: the old stream is still open
    return stream, waiting


async def test_a_new_stream_is_opened_and_told_the_history_without_a_new_command(world: World) -> None:
    key = world.user_function.play()
    stream, _ = await restarting(world, key)
    await stream.close_as_asked()
    stream = await world.user_function.stream(key)
    assert [await stream.next() for _ in range(2)] == [init(key), event(1, "a")]


async def test_queued_commands_follow_in_order_with_ids_from_one(world: World) -> None:
    key = world.user_function.play()
    stream, queued = await restarting(world, key, queued=3)
    await stream.close_as_asked()
    stream = await world.user_function.stream(key)
    assert [await stream.next() for _ in range(2)] == [init(key), event(1, "a")]
    for number, call in enumerate(queued, 1):
        assert await stream.next() == command(number, key)
        await stream.send(reply(number, str(number)))
        assert await call == ok(str(number))  # type: ignore[misc]


async def test_nothing_is_opened_before_the_user_function_completed_the_old_stream(world: World) -> None:
    key = world.user_function.play()
    stream, _ = await restarting(world, key)
    assert await stream.next() is None
    late = world.client.start(key)
    await world.queued(1)
    assert world.user_function.streams_of(key) == [stream]
    stream.complete()
    stream = await world.user_function.stream(key)
    assert [await stream.next() for _ in range(3)] == [init(key), event(1, "a"), command(1, key)]
    await stream.send(reply(1, "late"))
    assert await late == ok("late")


async def test_d7_an_old_stream_that_is_never_completed_is_reset_and_the_restart_goes_on(world: World) -> None:
    """The reference waits for ever."""
    key = world.user_function.play()
    old, queued = await restarting(world, key, queued=1)
    stream = await world.user_function.stream(key)
    assert [await stream.next() for _ in range(3)] == [init(key), event(1, "a"), command(1, key)]
    await stream.send(reply(1, "after all"))
    assert await queued[0] == ok("after all")  # type: ignore[misc]
    await old.wait_over()
    assert old.reset.is_set()
    await world.user_function.report_about(key, MODEL, "did not complete its side")


async def test_restarts_may_follow_each_other(world: World) -> None:
    key = world.user_function.play()
    stream, _ = await restarting(world, key)
    for round_number in range(3):
        await stream.close_as_asked()
        stream = await world.user_function.stream(key)
        assert [await stream.next() for _ in range(2)] == [init(key), event(1, "a")]
        call = world.client.start(key)
        assert await stream.next() == command(1, key)
        await stream.send(failed(1, f"again {round_number}", restart=True))
        assert await call == unknown(f"again {round_number}")
