"""Nodes of several workers in one process: each worker with its own replicas, journal and peer port."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from stateside._speedups.crdt import State
from stateside.journal.sharding import worker_name
from stateside.proxy.place import Place
from stateside.proxy.replicas import Consistency, ReplicaError
from tests.helpers.nodes import Node, all_live, until

TRIES = 50
PORTS = (20_000, 32_000)  # none that the kernel gives to whoever wants any


def free_ports(count: int) -> int:
    """The first of so many ports in a row that were free a moment ago."""
    for _ in range(TRIES):
        port = random.randrange(*PORTS)
        with ExitStack() as probes:
            try:
                for number in range(count):
                    probes.enter_context(socket.socket()).bind(("127.0.0.1", port + number))
            except OSError:
                continue
            return port
    raise AssertionError(f"no {count} free ports in a row")


class Machine:
    """A node of `workers` workers at `port`, `port` + 1, ... Its journals are as the layout has them: that of worker i
    in `folder`/worker-i, the first one's in `folder`."""

    def __init__(
        self, folder: Path, port: int, peers: tuple[str, ...], workers: int = 2, replica: int = 0, **settings: Any
    ) -> None:
        self.port = port
        self.workers = [
            Node(f"lmdb:{journal_of(folder, index)}", port, peers, place_of(index, workers, replica), **settings)
            for index in range(workers)
        ]

    @property
    def name(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> Machine:
        await asyncio.gather(*(worker.start() for worker in self.workers))
        return self

    async def stop(self, grace: float = 0.0) -> None:
        await asyncio.gather(*(worker.stop(grace) for worker in self.workers))

    def worker(self, key: str) -> Node:
        """Who has the key."""
        (owner,) = [worker for worker in self.workers if worker.replicas.part.has(key)]
        return owner

    async def change(
        self, key: str, kind: int, change: Callable[[State], object], consistency: Consistency = Consistency.LOCAL
    ) -> ReplicaError | None:
        return await self.worker(key).change(key, kind, change, consistency)

    async def value(self, key: str) -> Any:
        return await self.worker(key).value(key)

    @property
    def sums(self) -> list[bytes]:
        return [worker.sums for worker in self.workers]

    @property
    def connected(self) -> bool:
        return all(all_live(worker) for worker in self.workers)


def place_of(index: int, workers: int, replica: int) -> Place:
    return Place(worker_name(index), index, workers, "", 0, replica)


def journal_of(folder: Path, index: int) -> Path:
    return folder if index == 0 else folder / worker_name(index)


async def connected(*machines: Machine) -> None:
    await until(lambda: all(machine.connected for machine in machines), "all workers are connected")


async def converged(*machines: Machine) -> None:
    def equal() -> bool:
        idle = all(worker.replicas.store.idle for machine in machines for worker in machine.workers)
        return idle and all(machine.sums == machines[0].sums for machine in machines)

    await until(equal, "all nodes have the same digests")
