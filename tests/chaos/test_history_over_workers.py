"""Concurrent commands over two workers, and kill -9 of either in the middle of them: per entity, what clients were told
is one history, wherever their connections are and whoever passed their commands on."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from stateside.journal.environment import environment_of
from stateside.journal.sharding import EntityShards, owners_among

from ..integration.harness import ProxyProcess, free_port
from ..integration.messages import MODEL, PERSISTENCE_IDS
from ..integration.user_function import ScriptedUserFunction
from ..integration.workers import SHARDS, figure, kill, replaced, until_ready
from .load import Load, check, read, stored

WORKERS = 2
SOAK_ROUNDS = 40


def owner_of(entity: str) -> int:
    shard = EntityShards(SHARDS).shard(f"{PERSISTENCE_IDS[MODEL]}|{entity}")
    assert shard is not None
    return owners_among(WORKERS, SHARDS)[shard]


async def kill_workers(folder: Path, seed: int, rounds: int) -> None:
    chance = random.Random(seed)
    user_function = await ScriptedUserFunction().start()
    settings = {"http_port": str(free_port()), "passivation_timeout": "150ms", "workers": str(WORKERS)}
    proxy = ProxyProcess(user_function.port, folder, **settings)
    try:
        await proxy.start()
        load = Load(proxy.port, seed, clients=10, entities=6)
        for _ in range(rounds):
            await load.progress(chance.randrange(50, 150))
            name = f"worker-{chance.randrange(WORKERS)}"
            await replaced(proxy, name, kill(proxy, name))
            await until_ready(proxy)
        await load.progress(200)
        await load.stop()
        assert {owner_of(entity) for entity in load.entities} == set(range(WORKERS))
        for worker in range(WORKERS):
            labels = {"worker": str(worker), "direction": "in"}
            assert await figure(proxy, "stateside_relayed_commands_total", **labels) > 0
        logs = {entity: await read(proxy.port, entity) for entity in load.entities}
        check(load.commands, logs)
        assert await proxy.terminate() == 0
        for entity, log in logs.items():
            assert await stored(environment_of(folder / "journal", owner_of(entity)), entity) == log
    finally:
        await proxy.stop()
        await user_function.stop()


async def test_commands_of_an_entity_have_one_order_over_two_workers(tmp_path: Path) -> None:
    await kill_workers(tmp_path, seed=1, rounds=0)


async def test_nothing_acknowledged_is_lost_when_workers_are_killed(tmp_path: Path) -> None:
    await kill_workers(tmp_path, seed=2, rounds=2)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_nothing_acknowledged_is_lost_in_many_kills_of_workers(tmp_path: Path) -> None:
    seed = int(os.environ.get("CHAOS_SEED", random.randrange(1_000_000)))
    print(f"CHAOS_SEED={seed}")
    await kill_workers(tmp_path, seed, SOAK_ROUNDS)
