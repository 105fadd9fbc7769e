"""SIGTERM: what is under way is finished, what is idle is passivated, and nothing new comes in. D20 of core 15."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import grpc
import pytest

from .harness import Client, ProxyProcess, World, free_port, ok
from .messages import emit, event, init, reply
from .user_function import PATIENCE_S, a_key


async def test_a_command_in_flight_is_answered_and_its_event_kept(tmp_path: Path) -> None:
    async with World(tmp_path, graceful_termination_timeout="5s") as world:
        key = world.user_function.play()
        call, stream = await world.busy(key)
        world.proxy.signal(signal.SIGTERM)
        await refused(world.proxy.port)
        await stream.send(reply(1, "in time", events="a"))
        assert await call == ok("in time")
        await stream.close_as_asked()
        assert await world.proxy.wait_exit() == 0
        assert not stream.reset.is_set()
        await world.proxy.start()
        await world.client.close()
        world.client = Client(world.proxy.port)
        call = world.client.start(key)
        stream = await world.user_function.stream(key)
        assert [await stream.next() for _ in range(2)] == [init(key), event(1, "a")]
        await stream.next()
        await stream.send(reply(1))
        assert await call == ok()


async def refused(port: int) -> None:
    """Wait until nobody listens any more."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                return
            except ConnectionResetError:
                continue  # it was in the queue of the listener that went away
            writer.close()
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_an_idle_proxy_leaves_at_once_with_exit_code_0(tmp_path: Path, number: int) -> None:
    async with World(tmp_path, journal="memory:", graceful_termination_timeout="30s") as world:
        assert (await world.client.ask(a_key(), emit("x"))).ok
        world.proxy.signal(number)
        assert await world.proxy.wait_exit() == 0


async def test_all_idle_streams_are_half_closed_and_may_complete(tmp_path: Path) -> None:
    """The user function sees a passivation, not an abort."""
    async with World(tmp_path, journal="memory:") as world:
        keys = [a_key() for _ in range(400)]
        assert all(answer.ok for answer in await asyncio.gather(*(world.client.ask(key) for key in keys)))
        assert await world.proxy.terminate() == 0
        for key in keys:
            (stream,) = world.user_function.streams_of(key)
            await stream.wait_over()
            assert stream.half_closed.is_set() and not stream.reset.is_set()


async def test_a_command_that_never_ends_is_cut_after_the_grace(tmp_path: Path) -> None:
    async with World(tmp_path, journal="memory:", graceful_termination_timeout="300ms") as world:
        call, _ = await world.busy(world.user_function.play())
        assert await world.proxy.terminate() == 0
        assert (await call).status in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


async def test_a_stopping_proxy_is_not_ready_but_alive(tmp_path: Path) -> None:
    async with World(tmp_path, journal="memory:", graceful_termination_timeout="5s") as world:
        call, stream = await world.busy(world.user_function.play())
        world.proxy.signal(signal.SIGTERM)
        await refused(world.proxy.port)
        status, text = await world.proxy.admin("/ready")
        assert status == 503 and "stopping" in text
        assert (await world.proxy.admin("/alive"))[0] == 200
        await stream.send(reply(1))
        assert await call == ok()
        await stream.close_as_asked()
        assert await world.proxy.wait_exit() == 0


async def test_sigterm_before_the_user_function_was_found_ends_the_proxy(tmp_path: Path) -> None:
    proxy = await ProxyProcess(free_port(), tmp_path, journal="memory:").start(ready=False)
    try:
        async with asyncio.timeout(15):
            while "not available" not in proxy.log:
                await asyncio.sleep(0.02)
        assert await proxy.terminate() == 0
    finally:
        await proxy.stop()
