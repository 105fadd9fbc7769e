"""kill -9 of one worker after the other in the middle of the load: what was acknowledged is there, once and in order,
whichever worker a client is connected to."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

import pytest

from ..helpers.workers import Workers, owner
from ..integration.messages import MODEL, PERSISTENCE_IDS
from ..integration.user_function import ScriptedUserFunction
from .load import Load, check, read, stored

SOAK_ROUNDS = 60
PACE_S = 0.3  # between two kills, at least


async def kill_the_workers(folder: Path, seed: int, rounds: int, count: int = 2) -> None:
    """Each worker has clients of its own, which ask for the same entities."""
    chance = random.Random(seed)
    user_function = await ScriptedUserFunction().start()
    settings = {"passivation_timeout": "150ms", "backoff_max": "50ms"}
    async with Workers(user_function.port, folder, count, **settings) as workers:
        loads = [Load(worker.port, seed, clients=3, entities=6, name=f"{worker.place.name}.") for worker in workers.all]
        for _ in range(rounds):
            victim = chance.randrange(count)
            await asyncio.gather(*(load.progress(chance.randrange(1, 60)) for load in loads))
            await workers.all[victim].kill()
            await asyncio.sleep(chance.random() * PACE_S)
            await workers.all[victim].start()
        await asyncio.gather(*(load.progress(30) for load in loads))
        for load in loads:
            await load.stop()
        commands = [command for load in loads for command in load.commands]
        logs = {entity: await read(workers.all[0].port, entity) for entity in loads[0].entities}
        check(commands, logs)
        for worker in workers.all:
            assert await worker.terminate() == 0
    for entity, log in logs.items():
        index = owner(PERSISTENCE_IDS[MODEL], entity, count)
        assert await stored(folder / "journal" / (f"worker-{index}" if index else ""), entity) == log
    await user_function.stop()


async def test_nothing_acknowledged_is_lost_when_workers_are_killed(tmp_path: Path) -> None:
    await kill_the_workers(tmp_path, seed=5, rounds=4)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_nothing_acknowledged_is_lost_in_many_kills_of_workers(tmp_path: Path) -> None:
    seed = int(os.environ.get("CHAOS_SEED", random.randrange(1_000_000)))
    print(f"CHAOS_SEED={seed}")
    await kill_the_workers(tmp_path, seed, SOAK_ROUNDS, count=3)
