"""More entities than streams: a user function's MAX_CONCURRENT_STREAMS is kept, and everybody is served (design 3)."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from time import monotonic

import grpc
import pytest

from .harness import World, eventually, ok
from .messages import emit, reply
from .user_function import ScriptedUserFunction, a_key


def limited(streams: int) -> ScriptedUserFunction:
    return ScriptedUserFunction(options=[("grpc.max_concurrent_streams", streams)])


@pytest.mark.parametrize(("streams", "connections", "entities"), [(10, 3, 1000), (1, 1, 100), (100, 4, 1000)])
async def test_all_entities_make_progress_whatever_the_limit(
    tmp_path: Path, streams: int, connections: int, entities: int
) -> None:
    settings = {"journal": "memory:", "user_function_max_connections": str(connections)}
    async with World(tmp_path, user_function=limited(streams), **settings) as world:
        keys = [a_key() for _ in range(entities)]
        started = monotonic()
        for value, state in (("x", "x"), ("y", "xy")):
            answers = await asyncio.gather(*(world.client.ask(key, emit(value), timeout=20) for key in keys))
            assert Counter(answers) == {ok(state): entities}
        assert monotonic() - started < 20  # nobody waits for a passivation timeout
        assert len(set(world.user_function.peers)) <= connections


async def test_further_connections_are_opened_before_an_instance_gives_way(tmp_path: Path) -> None:
    async with World(tmp_path, user_function=limited(10), journal="memory:") as world:
        keys = [a_key() for _ in range(50)]
        for _ in range(2):
            answers = await asyncio.gather(*(world.client.ask(key) for key in keys))
            assert all(answer.ok for answer in answers)
        assert len(world.user_function.streams) == 50
        per_connection = Counter(world.user_function.peers)
        assert len(per_connection) == 5 and max(per_connection.values()) == 10


async def test_without_a_limit_of_the_peer_ours_holds(tmp_path: Path) -> None:
    settings = {"journal": "memory:", "user_function_streams_per_connection": "4"}
    async with World(tmp_path, **settings) as world:
        for _ in range(2):  # the second time on streams of instances that live
            answers = await asyncio.gather(*(world.client.ask(key) for key in ("a", "b", "c", "d", "e", "f")))
            assert all(answer.ok for answer in answers)
        assert sorted(Counter(world.user_function.peers).values()) == [2, 4]


async def test_room_that_came_free_is_used_again(tmp_path: Path) -> None:
    settings = {
        "journal": "memory:",
        "user_function_streams_per_connection": "2",
        "user_function_max_connections": "1",
        "passivation_timeout": "50ms",
    }
    async with World(tmp_path, **settings) as world:
        for _ in range(4):
            keys = [a_key() for _ in range(2)]
            assert all(answer.ok for answer in await asyncio.gather(*(world.client.ask(key) for key in keys)))
            for key in keys:
                await world.user_function.streams_of(key)[0].wait_over()


async def has_ended_a_call(world: World) -> bool:
    _, text = await world.proxy.admin("/metrics")
    figures = dict(line.split(" ") for line in text.splitlines() if not line.startswith("#") and "{" not in line)
    return float(figures["stateside_expired_total"]) + float(figures["stateside_cancelled_total"]) > 0


async def test_a_waiting_entity_gets_the_stream_of_a_busy_one_as_soon_as_that_is_done(tmp_path: Path) -> None:
    settings = {"journal": "memory:", "user_function_max_connections": "1"}
    async with World(tmp_path, user_function=limited(1), **settings) as world:
        key = world.user_function.play()
        call, stream = await world.busy(key)
        gone = world.client.start(key, timeout=0.2)
        other = world.client.start(a_key())
        assert (await gone).status == grpc.StatusCode.DEADLINE_EXCEEDED
        await eventually(lambda: has_ended_a_call(world), "the proxy, by its own clock or by the reset, ends it too")
        await stream.send(reply(1))
        assert await call == ok()
        await stream.close_as_asked()
        assert await other == ok()


async def test_one_busy_entity_with_many_commands_does_not_starve_those_that_wait(tmp_path: Path) -> None:
    settings = {"journal": "memory:", "user_function_max_connections": "1", "fair_share": "5"}
    async with World(tmp_path, user_function=limited(1), **settings) as world:
        hot, other = a_key(), a_key()
        order: list[str] = []

        async def ask(key: str) -> None:
            assert (await world.client.ask(key)).ok
            order.append(key)

        crowd = [asyncio.create_task(ask(hot)) for _ in range(60)]
        await world.user_function.until(lambda: bool(world.user_function.streams_of(hot)), "the hot one is active")
        await asyncio.gather(ask(other), *crowd)
        assert order.index(other) < 50


async def test_too_many_waiting_entities_are_refused_at_once(tmp_path: Path) -> None:
    settings = {"journal": "memory:", "user_function_max_connections": "1", "user_function_max_waiting": "2"}
    async with World(tmp_path, user_function=limited(1), **settings) as world:
        key = world.user_function.play()
        call, stream = await world.busy(key)
        others = [world.client.start(a_key()) for _ in range(5)]
        done, waiting = await asyncio.wait(others, timeout=0.5)
        assert [task.result().status for task in done] == [grpc.StatusCode.RESOURCE_EXHAUSTED] * 3
        assert "user_function_max_waiting" in done.pop().result().details
        await stream.send(reply(1))
        await call
        await stream.close_as_asked()
        assert [await task for task in waiting] == [ok(), ok()]
