"""The owner of an entity is away: killed with a command, starting again, for too long, or wanted by too many."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import grpc

from ..helpers.workers import Workers, keys_of
from .harness import Client, ProxyProcess, eventually, free_port, ok
from .messages import MODEL, PERSISTENCE_IDS, command, emit, reply
from .user_function import ScriptedUserFunction

_numbers = count()


class Stage:
    def __init__(self, user_function: ScriptedUserFunction, workers: Workers) -> None:
        self.user_function = user_function
        self.workers = workers
        self.owner = workers.all[1]
        self.client = workers.clients[0]

    def key(self, worker: int = 1) -> str:
        prefix = f"away-{next(_numbers)}-"
        return next(iter(keys_of(worker, PERSISTENCE_IDS[MODEL], 2, lambda number: f"{prefix}{number}")))

    async def until(self, name: str, value: float) -> None:
        async def now() -> bool:
            return (await self.workers.all[0].series())[f"stateside_{name}"] == value

        await eventually(now, f"{name} = {value:g}")

    async def kill_the_owner(self) -> None:
        await self.owner.kill()
        await self.until("relay_links", 0)


@asynccontextmanager
async def a_stage(folder: Path, **settings: str) -> AsyncIterator[Stage]:
    user_function = await ScriptedUserFunction().start()
    async with Workers(user_function.port, folder, 2, **settings) as workers:
        yield Stage(user_function, workers)
    await user_function.stop()


async def test_a_killed_owner_leaves_its_command_unknown_and_the_next_waits_for_its_successor(
    tmp_path: Path,
) -> None:
    async with a_stage(tmp_path) as stage:
        kept, key = stage.key(), stage.user_function.play(stage.key())
        assert await stage.client.ask(kept, emit("a;")) == ok("a;")
        had = stage.client.start(key)
        stream = await stage.user_function.ready_stream(key)
        await stream.next()
        await stage.kill_the_owner()
        outcome = await had
        assert outcome.status == grpc.StatusCode.UNAVAILABLE
        assert outcome.details == "worker-1 went away while it had the command: whether it was done is not known"
        waiting = [stage.client.start(kept, emit(f"{number};")) for number in range(3)]
        await stage.until("relay_waiting", 3)
        assert await stage.client.ask(stage.key(0), emit("x")) == ok("x")  # others are served meanwhile
        await stage.owner.start()
        assert {(await call).status for call in waiting} == {grpc.StatusCode.OK}
        assert sorted(((await stage.client.ask(kept)).message or "").split(";")) == ["", "0", "1", "2", "a"]
        await stage.until("relay_links", 1)
        await stage.until('relay_failures_total{reason="broken"}', 1)
        again = stage.client.start(key)
        stream = await stage.user_function.ready_stream(key)
        assert await stream.next() == command(1, key)
        await stream.send(reply(1))
        assert await again == ok()


async def test_commands_for_a_worker_that_stays_away_end_in_time(tmp_path: Path) -> None:
    async with a_stage(tmp_path, relay_timeout="600ms", relay_queue="2") as stage:
        await stage.kill_the_owner()
        hasty = await stage.client.ask(stage.key(), timeout=0.1)
        assert hasty.status == grpc.StatusCode.DEADLINE_EXCEEDED
        await stage.until("relay_waiting", 0)
        waiting = [stage.client.start(stage.key()) for _ in range(2)]
        await stage.until("relay_waiting", 2)
        refused = await stage.client.ask(stage.key())
        assert refused.status == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert refused.details == "2 commands (relay_queue) already wait for worker-1, which owns the entity"
        for call in waiting:
            outcome = await call
            assert outcome.status == grpc.StatusCode.UNAVAILABLE
            text = "worker-1, which owns the entity, did not come back within relay_timeout (0.6 s)"
            assert outcome.details == text
        await stage.until('refusals_total{reason="relay_queue"}', 1)
        await stage.until('relay_failures_total{reason="away"}', 2)


async def test_workers_that_disagree_say_so(tmp_path: Path) -> None:
    """The one was started with another number of shards: neither passes the command on and on."""
    async with a_stage(tmp_path, journal="memory:") as stage:
        await stage.kill_the_owner()
        stage.owner.settings["number_of_shards"] = "7"
        await stage.owner.start()
        seen = set()
        for _ in range(20):
            outcome = await stage.client.ask(stage.key())
            seen.add(outcome.status)
            if not outcome.ok:
                assert "workers disagree about `workers` or `number_of_shards`" in outcome.details
        assert grpc.StatusCode.FAILED_PRECONDITION in seen <= {grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.OK}


async def test_all_workers_under_one_supervisor(tmp_path: Path) -> None:
    """As an operator starts them, one port for all; a proxy that stops lets commands of all workers end."""
    user_function = await ScriptedUserFunction().start()
    proxy = ProxyProcess(user_function.port, tmp_path, workers="2", http_port=str(free_port()))
    try:
        await proxy.start()
        clients = [Client(proxy.port) for _ in range(8)]
        for number in range(40):
            key = f"all-{number}"
            answers = [await client.ask(key, emit(";")) for client in clients]
            assert answers == [ok(";" * (length + 1)) for length in range(len(clients))]
        relayed = [
            line for line in (await proxy.admin("/metrics"))[1].splitlines() if "relayed_commands_total{" in line
        ]
        assert any(float(line.rpartition(" ")[2]) > 0 for line in relayed)
        assert await proxy.terminate() == 0
        await asyncio.gather(*(client.close() for client in clients))
    finally:
        await proxy.stop()
        await user_function.stop()
