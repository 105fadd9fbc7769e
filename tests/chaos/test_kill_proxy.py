"""kill -9 of the proxy, or of the user function, in the middle of the load: what was acknowledged is there, once and
in order."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ..integration.harness import ROOT, ProxyProcess, free_port
from ..integration.user_function import ScriptedUserFunction
from .load import Command, Load, check, check_entity, read, stored

SOAK_ROUNDS = 100


@asynccontextmanager
async def proxy_on_a_fixed_port(folder: Path, user_function_port: int) -> AsyncIterator[ProxyProcess]:
    settings = {"http_port": str(free_port()), "passivation_timeout": "150ms", "backoff_max": "50ms"}
    proxy = ProxyProcess(user_function_port, folder, **settings)
    try:
        yield await proxy.start()
    finally:
        await proxy.stop()


async def check_all(load: Load, proxy: ProxyProcess) -> None:
    """What clients were told against what commands read, and against the journal's files."""
    logs = {entity: await read(proxy.port, entity) for entity in load.entities}
    check(load.commands, logs)
    assert await proxy.terminate() == 0
    for entity, log in logs.items():
        assert await stored(proxy.folder / "journal", entity) == log


async def kill_the_proxy(folder: Path, seed: int, rounds: int) -> None:
    chance = random.Random(seed)
    user_function = await ScriptedUserFunction().start()
    async with proxy_on_a_fixed_port(folder, user_function.port) as proxy:
        load = Load(proxy.port, seed)
        for _ in range(rounds):
            await load.progress(chance.randrange(1, 150))
            await proxy.kill()
            await proxy.start()
        await load.progress(50)
        await load.stop()
        await check_all(load, proxy)
    await user_function.stop()


async def test_nothing_acknowledged_is_lost_when_the_proxy_is_killed(tmp_path: Path) -> None:
    await kill_the_proxy(tmp_path, seed=1, rounds=5)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_nothing_acknowledged_is_lost_in_a_hundred_kills_of_the_proxy(tmp_path: Path) -> None:
    seed = int(os.environ.get("CHAOS_SEED", random.randrange(1_000_000)))
    print(f"CHAOS_SEED={seed}")
    await kill_the_proxy(tmp_path, seed, SOAK_ROUNDS)


class ModelProcess:
    """The model as a process on a port that it keeps."""

    def __init__(self) -> None:
        self.port = free_port()
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.integration.model_process", str(self.port)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests' / 'protos'}"},
        )
        assert self.process.stdout is not None
        async with asyncio.timeout(15):
            assert await self.process.stdout.readline() == f"listening on {self.port}\n".encode()

    async def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        await self.process.communicate()


async def kill_the_user_function(folder: Path, seed: int, rounds: int) -> None:
    chance = random.Random(seed)
    user_function = ModelProcess()
    await user_function.start()
    try:
        async with proxy_on_a_fixed_port(folder, user_function.port) as proxy:
            load = Load(proxy.port, seed)
            for _ in range(rounds):
                await load.progress(chance.randrange(1, 150))
                await user_function.kill()
                await user_function.start()
            await load.progress(50)
            await load.stop()
            await check_all(load, proxy)
    finally:
        await user_function.kill()


async def test_nothing_acknowledged_is_lost_when_the_user_function_is_killed(tmp_path: Path) -> None:
    await kill_the_user_function(tmp_path, seed=2, rounds=3)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_nothing_acknowledged_is_lost_in_many_kills_of_the_user_function(tmp_path: Path) -> None:
    await kill_the_user_function(tmp_path, random.randrange(1_000_000), 30)


# --- the check itself ------------------------------------------------------------------------------------------------


def told(value: str, began: float, ended: float, *reply: str) -> Command:
    return Command("e", value, began, ended, list(reply) or None)


GOOD = [told("a", 0, 1, "a"), told("b", 0, 2, "a", "b"), told("c", 3, 4)]


@pytest.mark.parametrize("log", [["a", "b"], ["a", "b", "c"]])
def test_the_check_accepts_a_log_with_or_without_what_was_not_acknowledged(log: list[str]) -> None:
    check_entity("e", GOOD, log)


@pytest.mark.parametrize(
    ("commands", "log", "word"),
    [
        (GOOD, ["a"], "lost"),
        (GOOD, ["a", "b", "b"], "more than once"),
        (GOOD, ["a", "b", "z"], "nobody"),
        (GOOD, ["b", "a"], "no history"),
        (GOOD, ["c", "a", "b"], "no history"),
        ([told("a", 2, 3, "a"), told("b", 0, 1, "a", "b")], ["a", "b"], "earlier answer"),
    ],
)
def test_the_check_finds(commands: list[Command], log: list[str], word: str) -> None:
    with pytest.raises(AssertionError, match=word):
        check_entity("e", commands, log)
