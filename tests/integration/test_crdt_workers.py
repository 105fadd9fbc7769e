"""Proxies of two workers each, as processes: CRDT entities that are on one worker of every node."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from stateside.journal.sharding import EntityShards, owners_among
from tests.helpers.machines import free_ports

from .crdt_calls import Listener, ask
from .crdt_function import CrdtFunction
from .crdt_messages import ALL, update
from .harness import Client, World, http_get
from .messages import CRDT_MODEL, PERSISTENCE_IDS
from .test_crdt_cluster import agree, at, post
from .workers import SHARDS, figure, in_time, kill, replaced, until_ready

COUNTERS = [f"GCounter-{number}" for number in range(12)]
TIMEOUT = "700ms"


def owner_of(key: str, workers: int = 2) -> int:
    shard = EntityShards(SHARDS).shard(f"{PERSISTENCE_IDS[CRDT_MODEL]}|{key}")
    assert shard is not None
    return owners_among(workers, SHARDS)[shard]


def key_on(worker: int) -> str:
    return next(key for key in COUNTERS if owner_of(key) == worker)


@asynccontextmanager
async def nodes(folder: Path, workers: Sequence[int]) -> AsyncIterator[list[World]]:
    """Nodes of so many workers each, which know each other."""
    ports = [free_ports(count) for count in workers]
    names = [f"127.0.0.1:{port}" for port in ports]
    worlds = []
    async with AsyncExitStack() as stack:
        for number, (port, count) in enumerate(zip(ports, workers, strict=True)):
            place = folder / str(number)
            place.mkdir()
            settings = {
                "workers": str(count),
                "peers": ",".join(names),
                "peer_port": str(port),
                "peer_name": names[number],
                "peer_interface": "127.0.0.1",
                "crdt_write_timeout": TIMEOUT,
                "crdt_read_timeout": "200ms",
            }
            world = World(place, user_function=CrdtFunction(), **settings)
            worlds.append(await stack.enter_async_context(world))
        yield worlds


async def connected(worlds: Sequence[World], peers: int = 1, workers: int = 2) -> None:
    for world in worlds:
        for index in range(workers):

            async def now(world: World = world, index: int = index) -> bool:
                return await connections(world, index, workers) == peers

            await in_time(now, f"worker {index} has {peers} peers")


async def connections(world: World, index: int, workers: int) -> float:
    labels = {"worker": str(index)} if workers > 1 else {}
    return await figure(world.proxy, "stateside_crdt_peers_connected", **labels)


async def restart(world: World, workers: int) -> None:
    """SIGTERM, and a start with so many workers."""
    assert await world.proxy.terminate() == 0
    world.proxy.settings["workers"] = str(workers)
    await world.proxy.start()
    await world.client.close()
    world.client = Client(world.proxy.port)


async def test_clients_of_different_workers_see_one_state(tmp_path: Path) -> None:
    async with World(tmp_path, user_function=CrdtFunction(), workers="2") as world, AsyncExitStack() as stack:
        clients = [Client(world.proxy.port) for _ in range(8)]  # the kernel spreads them
        for client in clients:
            stack.push_async_callback(client.close)
        for key in COUNTERS[:4]:
            listener = Listener(world, key)
            assert (await listener.next()).gcounter.value == 0
            for number, client in enumerate(clients, 1):
                said = await ask(with_client(world, client), key, update(gcounter=1))
                assert (said.status, said.value) == (grpc.StatusCode.OK, number)
                assert (await listener.next()).gcounter.value == number
            listener.cancel()
        streams = [stream.entity_id for stream in world.user_function.streams]
        assert sorted(streams) == sorted(COUNTERS[:4])  # each entity is in one place


def with_client(world: World, client: Client) -> Any:
    """A world as another client sees it."""
    return SimpleNamespace(proxy=world.proxy, client=client)


async def test_deltas_cross_nodes_and_workers(tmp_path: Path) -> None:
    async with nodes(tmp_path, (2, 2)) as worlds:
        await connected(worlds)
        first, second = worlds
        listener = Listener(second, key_on(1))
        assert (await listener.next()).gcounter.value == 0
        asked = [ask(world, key, update(gcounter=1)) for key in COUNTERS for world in worlds for _ in range(5)]
        assert {said.status for said in await asyncio.gather(*asked)} == {grpc.StatusCode.OK}
        for key in COUNTERS:
            await agree(worlds, key, 10)
        while (await listener.next()).gcounter.value != 10:
            pass
        listener.cancel()
        for worker in (0, 1):
            assert (await ask(first, key_on(worker), at(ALL, gcounter=1))).value == 11
            assert (await ask(second, key_on(worker))).value == 11
        voting = Listener(second, "Vote-1")
        await voting.next()
        await ask(first, "Vote-1", update(vote=True))
        vote = (await voting.next()).vote
        assert (vote.self_vote, vote.votes_for, vote.total_voters) == (False, 1, 2)
        voting.cancel()


async def test_a_worker_that_is_killed_comes_back_with_its_keys_and_with_what_the_peers_changed_meanwhile(
    tmp_path: Path,
) -> None:
    async with nodes(tmp_path, (2, 2)) as worlds:
        await connected(worlds)
        first, second = worlds
        for key in COUNTERS:
            assert (await ask(first, key, at(ALL, gcounter=1))).value == 1
        pid = kill(second.proxy, "worker-1")
        for key in COUNTERS:
            assert (await ask(first, key, update(gcounter=1))).value == 2
        assert (await ask(second, key_on(0))).value == 2  # the other worker has not noticed
        await replaced(second.proxy, "worker-1", pid)
        await until_ready(second.proxy)
        await connected(worlds)
        for key in COUNTERS:
            await agree(worlds, key, 2)
        for key in COUNTERS:
            assert (await ask(second, key, at(ALL, gcounter=1))).value == 3
            assert (await ask(first, key)).value == 3


@pytest.mark.slow  # tests/integration/test_replication_workers.py has it in one process
async def test_states_go_on_where_they_are_when_the_number_of_workers_changes(tmp_path: Path) -> None:
    """One worker, two, one again: nothing is counted twice, votes and sets go on, and digests agree."""
    async with nodes(tmp_path, (1, 1)) as worlds:
        await connected(worlds, workers=1)
        count = 0
        for workers in (2, 1):
            for key in COUNTERS:
                for world in worlds:
                    assert (await ask(world, key, update(gcounter=1))).status == grpc.StatusCode.OK
            await ask(worlds[0], "GSet-1", update(gset=str(workers)))
            count += 2
            for world in worlds:
                await restart(world, workers)
            await connected(worlds, workers=workers)
            for key in COUNTERS:
                await agree(worlds, key, count)
        for key in COUNTERS:
            assert (await ask(worlds[0], key, at(ALL, gcounter=1))).value == count + 1
            await agree(worlds, key, count + 1)
        await agree(worlds, "GSet-1", ["1", "2"])


async def test_nodes_with_other_numbers_of_workers_refuse_each_other_and_say_so_once(tmp_path: Path) -> None:
    async with nodes(tmp_path, (2, 1)) as worlds:
        first, second = worlds

        async def refused() -> bool:
            return await figure(second.proxy, "stateside_crdt_peers_refused") == 1

        await in_time(refused, "the peer is refused")
        names = [world.proxy.settings["peer_name"] for world in worlds]
        for world in worlds:
            for line in (f"{names[0]} has 2 workers and 1024 shards", f"{names[1]} has 1 worker and 1024 shards"):
                assert line in world.proxy.log
        assert "set `workers` and `number_of_shards` alike on all nodes" in first.proxy.log
        assert (await ask(first, key_on(1), update(gcounter=1))).value == 1
        await restart(second, 2)
        await connected(worlds)
        await agree(worlds, key_on(1), 1)


@pytest.mark.slow  # ... and this
async def test_a_node_that_left_is_forgotten_by_all_workers(tmp_path: Path) -> None:
    async with nodes(tmp_path, (2, 2)) as worlds:
        await connected(worlds)
        first, second = worlds
        for worker in (0, 1):
            assert (await ask(second, key_on(worker), at(ALL, gcounter=2))).value == 2
        assert await second.proxy.terminate() == 0
        for worker in (0, 1):
            said = await ask(first, key_on(worker), at(ALL, gcounter=1))
            assert said.details.startswith("Failed to update")
        status, _ = await post(first.proxy.admin_port, f"/peers/leave?name={second.proxy.settings['peer_name']}")
        assert status == 200
        for worker in (0, 1):
            assert (await ask(first, key_on(worker), at(ALL, gcounter=1))).value == 4
        assert (await http_get(first.proxy.admin_port, "/ready"))[0] == 200


@pytest.mark.parametrize("port", ["65535"])
async def test_a_peer_port_without_room_for_all_workers_is_refused(tmp_path: Path, port: str) -> None:
    world = World(tmp_path, user_function=CrdtFunction(), workers="2", peer_port=port)
    with pytest.raises(AssertionError, match="with workers = 2 the 1 ports behind it are needed"):
        async with world:
            pass
