"""CRDT entities through the proxy: many commands at once, other nodes, restarts, clients that go away.

What happens row by row stands in tests/unit/test_crdt_machine.py and test_crdt_streams.py.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc

from . import crdt_messages as said
from .crdt_calls import Listener, ask
from .crdt_function import CrdtFunction
from .crdt_messages import command, delta, gcounter, init, request, update
from .harness import Client, ProxyProcess, World, eventually, free_port, method_path
from .messages import CRDT_MODEL
from .user_function import a_key

SETTINGS = {"journal": "memory:", "relay_timeout": "700ms"}
USER_FUNCTION = CrdtFunction


async def increments(client: Client, key: str, count: int) -> None:
    """So many at once, each of 1."""
    data = request(key, update(gcounter=1)).SerializeToString()
    calls = [client.call(method_path(CRDT_MODEL), data) for _ in range(count)]
    assert set(await asyncio.gather(*(call.code() for call in calls))) == {grpc.StatusCode.OK}


async def test_many_commands_at_once_are_all_counted(world: World) -> None:
    key = a_key("GCounter")
    await increments(world.client, key, 200)
    assert (await ask(world, key)).value == 200
    (stream,) = world.user_function.streams_of(key)
    assert [message.command.id for message in stream.received[1:]] == list(range(1, 202))


async def test_a_command_whose_time_is_up_runs_to_its_end(world: World) -> None:
    key = world.user_function.play(a_key("GCounter"))
    data = request(key, update(gcounter=1)).SerializeToString()
    call = world.client.call(method_path(CRDT_MODEL), data, timeout=0.1)
    stream = await world.user_function.stream(key)
    assert await stream.next() == init(key)
    assert await stream.next() == command(1, key, update(gcounter=1))
    assert await call.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    await stream.send(said.reply(1, change=said.changed(gcounter(1))))
    other = asyncio.create_task(ask(world, key))
    assert await stream.next() == command(2, key)
    await stream.send(said.reply(2))
    assert (await other).status == grpc.StatusCode.OK


async def test_a_silent_command_fails_alone(world: World) -> None:
    key = world.user_function.play(a_key("GCounter"))
    silent = asyncio.create_task(ask(world, key))
    stream = await world.user_function.stream(key)
    assert (await silent).status == grpc.StatusCode.DEADLINE_EXCEEDED
    other = asyncio.create_task(ask(world, key))
    stream.rewind()
    assert [await stream.next() for _ in range(3)] == [init(key), command(1, key), command(2, key)]
    await stream.send(said.reply(2))
    assert (await other).status == grpc.StatusCode.OK
    assert await world.user_function.report_about("command 1", "relay_timeout")


async def test_an_impossible_update_is_reported_and_the_entity_goes_on(world: World) -> None:
    key = world.user_function.play(a_key("GCounter"))
    failing = asyncio.create_task(ask(world, key))
    stream = await world.user_function.stream(key)
    assert [await stream.next() for _ in range(2)] == [init(key), command(1, key)]
    await stream.send(said.reply(1, change=said.changed(gcounter(2**63))))
    outcome = await failing
    assert outcome.status == grpc.StatusCode.UNKNOWN
    assert outcome.details.startswith("Failed to update CRDT at requested write consistency: ")
    await stream.close_as_asked()
    assert await (await world.user_function.stream(key)).next() == init(key)
    assert await world.user_function.report_about(key, "command 1")


async def test_figures_tell_what_happened(world: World) -> None:
    key = a_key("GCounter")
    before = await world.proxy.metrics(CRDT_MODEL)
    await increments(world.client, key, 3)
    listener = Listener(world, key)
    await listener.next()
    listener.cancel()

    async def cancelled() -> bool:
        since = (await world.proxy.metrics(CRDT_MODEL)).since(before)
        return since.get("cancelled_calls_total") == 1

    await eventually(cancelled, "a cancelled call")
    since = (await world.proxy.metrics(CRDT_MODEL)).since(before)
    for name, value in {
        "activated_entities": 1,
        "received_commands": 4,
        "completed_commands": 4,
        "updates": 3,
        "streamed_calls": 1,
    }.items():
        assert since[f"{name}_total"] == value


async def test_the_state_survives_a_killed_proxy(tmp_path: Path) -> None:
    async with World(tmp_path, user_function=CrdtFunction()) as world:
        key = a_key("GCounter")
        await increments(world.client, key, 20)
        await world.restart_proxy()
        assert (await ask(world, key)).value == 20
        assert world.user_function.streams_of(key)[-1].received == [init(key, gcounter(20)), command(1, key)]


async def test_streams_end_well_when_the_proxy_stops(tmp_path: Path) -> None:
    async with World(tmp_path, user_function=CrdtFunction(), journal="memory:") as world:
        listener = Listener(world, a_key("GCounter"))
        await listener.next()
        assert await world.proxy.terminate() == 0
        assert await listener.next() is None
        assert await listener.outcome() == (grpc.StatusCode.OK, "")


async def test_two_nodes_have_one_state(tmp_path: Path) -> None:
    ports = [free_port(), free_port()]
    peers = ",".join(f"127.0.0.1:{port}" for port in ports)
    of_each: list[dict[str, Any]] = [
        {"peers": peers, "peer_interface": "127.0.0.1", "peer_port": str(port), "journal": "memory:"} for port in ports
    ]
    (tmp_path / "second").mkdir()
    async with World(tmp_path, user_function=CrdtFunction(), **of_each[0]) as world:
        second = ProxyProcess(world.user_function.port, tmp_path / "second", **of_each[1])
        try:
            await second.start()
            client = Client(second.port)
            await converge(world, client)
            await client.close()
        finally:
            await second.stop()


async def converge(world: World, second: Client) -> None:
    """Both nodes increment; a stream on the first hears of what the second did."""
    key = a_key("GCounter")
    listener = Listener(world, key)
    assert (await listener.next()).gcounter.value == 0
    await asyncio.gather(increments(world.client, key, 50), increments(second, key, 50))
    heard = 0
    while heard < 100:
        heard = (await listener.next()).gcounter.value
    assert heard == 100
    everywhere = said.an_update(gcounter=1)
    everywhere.write_consistency = said.ALL
    action = said.model.RequestAction(update=everywhere)
    data = request(key, action).SerializeToString()
    assert await second.call(method_path(CRDT_MODEL), data).code() == grpc.StatusCode.OK
    assert (await listener.next()).gcounter.value == 101
    listener.cancel()
    streams = world.user_function.streams_of(key)
    assert len(streams) == 2
    assert delta(gcounter(1)) in streams[0].received or delta(gcounter(1)) in streams[1].received
