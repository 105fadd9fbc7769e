"""How soon nodes agree: three in one process, ten thousand updates a second in all."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

import pytest
import uvloop

from stateside._speedups.crdt import GCOUNTER, ORSET, State
from tests.helpers.nodes import Activation, Cluster

KEYS = 300
TICK_S = 0.005
SPAN_S = 3.0


def change(state: State, chance: random.Random) -> None:
    if state.kind == GCOUNTER:
        state.increment()
    elif chance.random() < 0.7:
        state.add(b"\x12\x02" + bytes((chance.randrange(64), chance.randrange(2))))
    else:
        state.remove(b"\x12\x02" + bytes((chance.randrange(64), chance.randrange(2))))


async def load(activations: list[Activation], rate: int, chance: random.Random) -> int:
    """So many updates a second, for a while; how many were made."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    done = 0
    while (now := loop.time() - start) < SPAN_S:
        while done < now * rate:
            activation = chance.choice(activations)
            assert activation.replica is not None
            change(activation.state(ORSET if activation.key.startswith("set") else GCOUNTER), chance)
            activation.begin_write()
            done += 1
        await asyncio.sleep(TICK_S)
    return done


async def measure(folder: Path | None, rate: int) -> tuple[int, float, float]:
    """Updates made, seconds of CPU for each, seconds from the last one until all nodes agree."""
    chance = random.Random(1)
    async with Cluster(3, folder, crdt_digest_interval=5.0) as cluster:
        keys = [f"{'set' if number % 10 == 0 else 'counter'}-{number}" for number in range(KEYS)]
        activations = [await node.open(key) for node in cluster.nodes for key in keys]
        cpu = time.process_time()
        done = await load(activations, rate, chance)
        spent = time.process_time() - cpu
        last = time.perf_counter()
        await cluster.converged(30.0)
        return done, spent / done, time.perf_counter() - last


@pytest.mark.slow
@pytest.mark.parametrize("stored", [False, True])
def test_three_nodes_agree_within_200_ms_of_the_last_of_many_updates(tmp_path: Path, stored: bool) -> None:
    found = []
    for attempt in range(3):  # the machine may be busy with something else
        done, cpu, seconds = uvloop.run(measure(tmp_path / str(attempt) if stored else None, 10_000))
        print(f"{done} updates in {SPAN_S:g} s, {cpu * 1e6:.1f} us of CPU each, agreed after {seconds * 1e3:.0f} ms")
        found.append((done > 0.9 * 10_000 * SPAN_S, seconds <= 0.2))
        if found[-1] == (True, True):
            return
    pytest.fail(f"pace kept, in time: {found}")
