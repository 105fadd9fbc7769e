"""Workers of one proxy without their supervisor: each with a main port of its own, so that a test knows which of them a
call reaches. The user function is shared, as are the relay sockets."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from stateside._speedups.ring import ShardHash
from stateside.journal.sharding import owners_among, worker_name
from stateside.proxy.admin_client import AdminAnswer, ask
from stateside.proxy.place import Place

from ..integration.harness import START_PATIENCE_S, Client, ProxyProcess, free_port

NUMBER_OF_SHARDS = 1024
REPLICA = 4711


def owner(persistence_id: str, key: str, workers: int, number_of_shards: int = NUMBER_OF_SHARDS) -> int:
    """The index of the worker that has an entity."""
    return owners_among(workers, number_of_shards)[ShardHash(persistence_id, number_of_shards).shard(key)]


def keys_of(worker: int, persistence_id: str, workers: int, make: Callable[[int], str]) -> Iterable[str]:
    """Endless keys that belong to one worker; `make(n)` gives candidates."""
    number = 0
    while True:
        number += 1
        if owner(persistence_id, make(number), workers) == worker:
            yield make(number)


class WorkerProcess(ProxyProcess):
    """One worker. It may be killed and started again."""

    def __init__(self, place: Place, to_port: int, folder: Path, **settings: str) -> None:
        folder.mkdir(exist_ok=True)
        super().__init__(to_port, folder, **settings)
        self.place = place
        self.port = place.http_port

    def environment(self) -> dict[str, str]:
        return super().environment() | self.place.to_environment()

    async def wait_ready(self) -> None:
        async def ready() -> bool:
            assert self.process is not None and self.process.returncode is None, self.log
            try:
                return (await self.ask("/ready")).status == 200
            except (OSError, TimeoutError):
                return False

        async with asyncio.timeout(START_PATIENCE_S):
            while not await ready():
                await asyncio.sleep(0.02)

    async def ask(self, path: str) -> AdminAnswer:
        return await ask(self.place.admin_socket(self.place.name), "GET", path)

    async def series(self) -> dict[str, float]:
        """All its figures, with their labels."""
        lines = (line.rpartition(" ") for line in (await self.ask("/metrics")).text.splitlines() if line[:1] != "#")
        return {name: float(value) for name, _, value in lines}


class Workers:
    """`async with Workers(port, folder, 2, setting=...)`: so many workers that serve."""

    def __init__(self, to_port: int, folder: Path, count: int = 2, **settings: str) -> None:
        self._run = tempfile.TemporaryDirectory(prefix="stateside-")
        self.all = []
        settings = {"journal": f"lmdb:{folder / 'journal'}"} | settings
        for index in range(count):
            place = Place(worker_name(index), index, count, self._run.name, free_port(), REPLICA)
            self.all.append(WorkerProcess(place, to_port, folder / place.name, **settings))
        self.clients: list[Client] = []

    async def __aenter__(self) -> Workers:
        try:
            for worker in self.all:
                await worker.start(ready=False)  # together
            for worker in self.all:
                await worker.wait_ready()
        except BaseException:
            await self._stop()
            raise
        self.clients = [Client(worker.port) for worker in self.all]
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self.clients:
            await client.close()
        await self._stop()

    async def _stop(self) -> None:
        for worker in self.all:
            await worker.stop()
        self._run.cleanup()
