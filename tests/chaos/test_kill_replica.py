"""kill -9 of a node under load: no acknowledged increment is lost, and none counts twice, here or at its peer."""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

import pytest

from stateside._speedups.crdt import GCOUNTER, State
from tests.helpers.nodes import Node, free_port, until

from ..integration.harness import ROOT

SOAK_ROUNDS = 60


class Victim:
    """The process, and what it said: `asked` increments in all its lives, `acknowledged` ones among them."""

    def __init__(self, folder: Path, port: int, peer: int) -> None:
        self.arguments = [str(folder), str(port), str(peer)]
        self.asked = 0
        self.acknowledged = 0
        self.values: list[int] = []  # at each start
        self._reading: asyncio.Task[None] | None = None

    async def start(self, die: str = "never") -> None:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.chaos.replica_process",
            *self.arguments,
            die,
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
        )
        self._reading = asyncio.create_task(self._read())

    async def kill(self) -> None:
        self.process.kill()
        await self.ended()

    async def ended(self) -> int:
        assert self._reading is not None
        code = await self.process.wait()
        await self._reading  # what it said before it died counts
        return code

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            word, _, value = line.decode().strip().partition(" ")
            if word == "value":
                self.values.append(int(value))
            self.asked += word == "asked"
            self.acknowledged += word == "acknowledged"


async def kill_again_and_again(folder: Path, rounds: int, seed: int) -> None:
    chance = random.Random(seed)
    ports = free_port(), free_port()
    stayer = await Node(f"lmdb:{folder / 'stayer'}", ports[0], (f"127.0.0.1:{ports[1]}",)).start()
    victim = Victim(folder / "victim", ports[1], ports[0])
    own = 0
    for _ in range(rounds):
        await victim.start()
        goal = victim.acknowledged + chance.randrange(1, 400)
        while victim.acknowledged < goal:
            assert await stayer.change("counter", GCOUNTER, State.increment) is None
            own += 1
            await asyncio.sleep(0.001)
        await victim.kill()
        seen = await stayer.value("counter")
        assert seen <= own + victim.asked
    assert victim.values == sorted(victim.values)
    await settle(stayer, victim, own)
    await stayer.stop()


async def settle(stayer: Node, victim: Victim, own: int) -> None:
    """A last life that only says what it has: all that was acknowledged, and nothing that was never asked."""
    before = await stayer.value("counter")
    node = await Node(f"lmdb:{victim.arguments[0]}", int(victim.arguments[1]), (stayer.name,)).start()
    await until(lambda: node.sums == stayer.sums, "both have the same", 20.0)
    value = await node.value("counter")
    assert own + victim.acknowledged <= value <= own + victim.asked
    assert value >= before
    assert await stayer.value("counter") == value
    await node.stop()


async def test_no_acknowledged_increment_is_lost_or_doubled_when_a_node_is_killed(tmp_path: Path) -> None:
    await kill_again_and_again(tmp_path, rounds=3, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_no_acknowledged_increment_is_lost_or_doubled_in_the_long_run(tmp_path: Path) -> None:
    await kill_again_and_again(tmp_path, rounds=SOAK_ROUNDS, seed=2)


async def test_a_change_that_was_durable_and_never_sent_reaches_the_peer_after_a_restart(tmp_path: Path) -> None:
    ports = free_port(), free_port()
    stayer = await Node(f"lmdb:{tmp_path / 'stayer'}", ports[0], (f"127.0.0.1:{ports[1]}",)).start()
    victim = Victim(tmp_path / "victim", ports[1], ports[0])
    await victim.start("before-send")
    assert await victim.ended() == 9
    assert (victim.asked, victim.acknowledged) == (8, 0)
    assert await stayer.value("counter") is None
    node = await Node(f"lmdb:{victim.arguments[0]}", ports[1], (stayer.name,)).start()
    await until(lambda: "counter" in set(stayer.replicas.keys()), "it arrived")
    assert await stayer.value("counter") == 8
    await node.change("counter", GCOUNTER, State.increment)
    await until(lambda: node.sums == stayer.sums, "dots go on where they ended")
    assert await stayer.value("counter") == 9
    await node.stop()
    await stayer.stop()
