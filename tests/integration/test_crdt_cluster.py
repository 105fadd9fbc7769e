"""Several proxies with their user functions as processes: CRDT entities that are on all of them at once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from tck import crdt_pb2 as model

from .crdt_calls import Listener, ask
from .crdt_function import CrdtFunction
from .crdt_messages import ALL, MAJORITY, an_update, delete, update
from .harness import World, eventually, free_port, http_get

TIMEOUT = "600ms"


@asynccontextmanager
async def cluster(folder: Path, count: int) -> AsyncIterator[list[World]]:
    ports = [free_port() for _ in range(count)]
    names = [f"127.0.0.1:{port}" for port in ports]
    worlds = []
    async with AsyncExitStack() as stack:
        for number, port in enumerate(ports):
            place = folder / str(number)
            place.mkdir()
            settings = {
                "peers": ",".join(names),
                "peer_port": str(port),
                "peer_name": names[number],
                "peer_interface": "127.0.0.1",
                "crdt_write_timeout": TIMEOUT,
                "crdt_read_timeout": "200ms",
            }
            world = World(place, user_function=CrdtFunction(), **settings)
            worlds.append(await stack.enter_async_context(world))
        await connected(worlds, count - 1)
        yield worlds


async def figure(world: World, name: str) -> float:
    _, text = await world.proxy.admin("/metrics")
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith(name + " "))


async def connected(worlds: list[World], peers: int) -> None:
    for world in worlds:

        async def now(world: World = world) -> bool:
            return await figure(world, "stateside_crdt_peers_connected") == peers

        await eventually(now, f"{peers} peers are connected")


async def agree(worlds: list[World], key: str, value: Any) -> None:
    for world in worlds:

        async def now(world: World = world) -> bool:
            return (await ask(world, key)).value == value

        await eventually(now, f"{key} is {value} everywhere")


def at(consistency: int, **which: Any) -> model.RequestAction:
    change = an_update(**which)
    change.write_consistency = consistency
    return model.RequestAction(update=change)


async def test_increments_on_any_proxy_count_once_on_all(tmp_path: Path) -> None:
    chance = random.Random(5)
    async with cluster(tmp_path, 3) as worlds:
        asked = [ask(chance.choice(worlds), "GCounter-1", update(gcounter=1)) for _ in range(300)]
        said = await asyncio.gather(*asked)
        assert {each.status for each in said} == {grpc.StatusCode.OK}
        await agree(worlds, "GCounter-1", 300)
        for number in range(60):
            await ask(chance.choice(worlds), "GSet-1", update(gset=f"{number:02}"))
        await agree(worlds, "GSet-1", [f"{number:02}" for number in range(60)])


async def test_a_quorum_is_what_it_is_on_all_proxies_and_one_that_is_killed_catches_up(tmp_path: Path) -> None:
    async with cluster(tmp_path, 3) as worlds:
        first, second, third = worlds
        assert (await ask(first, "PNCounter-1", at(ALL, pncounter=5))).value == 5
        assert (await ask(third, "PNCounter-1")).value == 5
        await third.proxy.kill()
        await connected([first, second], 1)
        assert (await ask(first, "PNCounter-1", at(MAJORITY, pncounter=1))).value == 6
        late = await ask(first, "PNCounter-1", at(ALL, pncounter=1))
        assert late.details.startswith("Failed to update CRDT at requested write consistency")
        assert (await ask(second, "PNCounter-1", update(pncounter=1))).status == grpc.StatusCode.OK
        await third.proxy.start()
        await third.client.close()
        third.client = type(third.client)(third.proxy.port)
        await agree(worlds, "PNCounter-1", 8)
        await connected(worlds, 2)
        assert (await ask(third, "PNCounter-1", at(ALL, pncounter=1))).value == 9


async def test_a_deletion_is_heard_of_on_all_proxies(tmp_path: Path) -> None:
    async with cluster(tmp_path, 2) as worlds:
        first, second = worlds
        await ask(first, "GSet-1", at(ALL, gset="one"))
        assert (await ask(second, "GSet-1")).value == ["one"]
        await ask(first, "GSet-1", delete())

        async def deleted() -> bool:
            return (await ask(second, "GSet-1")).details == "Entity deleted"

        await eventually(deleted, "the other proxy knows of the deletion")


async def test_streams_on_one_proxy_follow_changes_on_another_and_votes_the_members(tmp_path: Path) -> None:
    async with cluster(tmp_path, 2) as worlds:
        first, second = worlds
        counting, voting = Listener(second, "GCounter-1"), Listener(second, "Vote-1")
        assert (await counting.next()).gcounter.value == 0
        await voting.next()
        await ask(first, "GCounter-1", update(gcounter=3))
        assert (await counting.next()).gcounter.value == 3
        await ask(first, "Vote-1", update(vote=True))
        vote = (await voting.next()).vote
        assert (vote.self_vote, vote.votes_for, vote.total_voters) == (False, 1, 2)
        counting.cancel()
        voting.cancel()


async def test_a_proxy_that_left_is_no_longer_waited_for(tmp_path: Path) -> None:
    async with cluster(tmp_path, 2) as worlds:
        first, second = worlds
        await ask(second, "GCounter-1", at(ALL, gcounter=2))
        assert await second.proxy.terminate() == 0
        assert (await ask(first, "GCounter-1", at(MAJORITY, gcounter=1))).details.startswith("Failed to update")
        name = second.proxy.settings["peer_name"]
        assert (await http_get(first.proxy.admin_port, f"/peers/leave?name={name}"))[0] == 405
        assert (await post(first.proxy.admin_port, "/peers/leave?name=nonsense"))[0] == 400
        assert await post(first.proxy.admin_port, f"/peers/leave?name={name}") == (200, f"{name} has left\n")
        assert (await ask(first, "GCounter-1", at(ALL, gcounter=1))).value == 4


async def post(port: int, path: str) -> tuple[int, str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".encode())
    top, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    return int(top.split()[1]), body
