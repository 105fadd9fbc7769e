"""Nodes that replicate to each other in one process, activations in the small, and cables that can be cut."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from stateside._speedups.crdt import State
from stateside.journal import open_journal
from stateside.journal.contract import Durability, Journal
from stateside.proxy.config import Settings
from stateside.proxy.place import ALONE, Place
from stateside.proxy.replicas import Consistency, Replica, ReplicaError
from stateside.proxy.replication import Replication

PATIENCE_S = 10.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def until(condition: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
    """Look again and again."""
    end = asyncio.get_running_loop().time() + patience_s
    while not condition():
        assert asyncio.get_running_loop().time() < end, f"it did not happen in {patience_s:g} s: {what}"
        await asyncio.sleep(0.005)


class Written:
    """A `Writer`."""

    def __init__(self) -> None:
        self.done: asyncio.Future[ReplicaError | None] = asyncio.get_running_loop().create_future()

    def on_written(self, error: ReplicaError | None) -> None:
        assert not self.done.done(), "answered twice"
        self.done.set_result(error)


class Activation:
    """Who opens a replica: a `Watcher` that keeps what it is told."""

    def __init__(self, replicas: Replication, key: str) -> None:
        self.replicas = replicas
        self.key = key
        self.replica: Replica | None = None
        self.error: ReplicaError | None = None
        self.told: list[str] = []
        self._opened = asyncio.Event()

    def on_opened(self, replica: Replica | None, error: ReplicaError | None) -> None:
        assert not self._opened.is_set(), "opened twice"
        self.replica, self.error = replica, error
        self._opened.set()

    def on_changed(self) -> None:
        self.told.append("changed")

    def on_deleted(self) -> None:
        self.told.append("deleted")

    def on_lost(self, text: str) -> None:
        self.told.append("lost")

    async def open(self) -> Activation:
        self.replicas.open(self.key, self)
        async with asyncio.timeout(PATIENCE_S):
            await self._opened.wait()
        return self

    def state(self, kind: int) -> State:
        """The state, as the zero of a type if there is none."""
        assert self.replica is not None, self.error
        return self.replica.state or self.replicas.create(self.replica, kind)

    def begin_write(self, consistency: Consistency = Consistency.LOCAL) -> asyncio.Future[ReplicaError | None]:
        assert self.replica is not None
        writer = Written()
        self.replicas.write(self.replica, consistency, writer)
        assert not writer.done.done(), "answered from inside"
        return writer.done

    async def write(self, consistency: Consistency = Consistency.LOCAL) -> ReplicaError | None:
        async with asyncio.timeout(PATIENCE_S):
            return await self.begin_write(consistency)

    async def delete(self, consistency: Consistency = Consistency.LOCAL) -> ReplicaError | None:
        assert self.replica is not None
        writer = Written()
        self.replicas.delete(self.replica, consistency, writer)
        async with asyncio.timeout(PATIENCE_S):
            return await writer.done

    def close(self) -> None:
        assert self.replica is not None
        self.replicas.close(self.replica)
        self.replica = None


class Node:
    """A proxy's replicas with their journal, or those of one of its workers. May be stopped and started again."""

    def __init__(self, journal: str, port: int, peers: tuple[str, ...], place: Place = ALONE, **settings: Any) -> None:
        self.place = place
        self.settings = Settings(
            **{
                "journal": journal,
                "peers": peers,
                "peer_interface": "127.0.0.1",
                "peer_port": port,
                "crdt_read_timeout": 0.5,
                "crdt_write_timeout": 1.0,
                "crdt_digest_interval": 0.3,
                **settings,
            }
        )
        self.port = port
        self.journal: Journal
        self.replicas: Replication

    @property
    def name(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> Node:
        self.journal = open_journal(self.settings.journal, Durability(self.settings.durability))
        await self.journal.open()
        self.replicas = Replication(self.settings, self.journal, self.place)
        await self.replicas.start()
        return self

    async def stop(self, grace: float = 0.0) -> None:
        await self.replicas.close_all(grace)
        await self.journal.close()

    async def open(self, key: str) -> Activation:
        return await Activation(self.replicas, key).open()

    async def change(
        self, key: str, kind: int, change: Callable[[State], object], consistency: Consistency = Consistency.LOCAL
    ) -> ReplicaError | None:
        """Open, change, write, close."""
        activation = await self.open(key)
        change(activation.state(kind))
        error = await activation.write(consistency)
        activation.close()
        return error

    async def value(self, key: str) -> Any:
        """None: no state; "deleted": a tombstone."""
        activation = await self.open(key)
        assert activation.replica is not None, activation.error
        state, deleted = activation.replica.state, activation.replica.deleted
        value = "deleted" if deleted else state.value() if state is not None else None
        activation.close()
        return value

    @property
    def sums(self) -> bytes:
        return self.replicas.store.index.sums()


class Cable:
    """A TCP relay from one node to another's port."""

    def __init__(self, to_port: int) -> None:
        self.port = 0
        self._to_port = to_port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()

    async def plug(self) -> Cable:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def cut(self) -> None:
        """Reset what there is, and refuse what comes."""
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)
        self._writers.clear()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            out_reader, out_writer = await asyncio.open_connection("127.0.0.1", self._to_port)
        except OSError:
            writer.transport.abort()
            return
        self._writers.add(out_writer)
        for pair in ((reader, out_writer), (out_reader, writer)):
            pump = asyncio.get_running_loop().create_task(_pump(*pair))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.transport.abort()


class Cluster:
    """`async with Cluster(3, folder)`: nodes that know each other. `folder` None: journals in memory. With `cables`, a
    relay stands between each two: `cut(a, b)`, `mend(a, b)`."""

    def __init__(self, count: int, folder: Path | None, *, cables: bool = False, **settings: Any) -> None:
        self.count = count
        self.folder = folder
        self.with_cables = cables
        self.settings = settings
        self.nodes: list[Node] = []
        self.cables: dict[tuple[int, int], Cable] = {}

    async def __aenter__(self) -> Cluster:
        ports = [free_port() for _ in range(self.count)]
        for number, port in enumerate(ports):
            names = []
            for other, other_port in enumerate(ports):
                if other == number:
                    continue
                if self.with_cables:
                    cable = self.cables[number, other] = await Cable(other_port).plug()
                    other_port = cable.port
                names.append(f"127.0.0.1:{other_port}")
            journal = f"lmdb:{self.folder / str(number)}" if self.folder else "memory:"
            self.nodes.append(Node(journal, port, tuple(names), **self.settings))
        await asyncio.gather(*(node.start() for node in self.nodes))
        await self.connected()
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(node.stop() for node in self.nodes))
        for cable in self.cables.values():
            await cable.cut()

    async def connected(self) -> None:
        await until(lambda: all(all_live(node) for node in self.nodes), "all nodes are connected")

    async def cut(self, one: int, other: int) -> None:
        await self.cables[one, other].cut()
        await self.cables[other, one].cut()

    async def mend(self, one: int, other: int) -> None:
        await self.cables[one, other].plug()
        await self.cables[other, one].plug()

    async def converged(self, patience_s: float = PATIENCE_S) -> None:
        def equal() -> bool:
            return len({node.sums for node in self.nodes}) == 1 and all(node.replicas.store.idle for node in self.nodes)

        await until(equal, "all nodes have the same digests", patience_s)


def all_live(node: Node) -> bool:
    return all(link.live for link in node.replicas.links.values())
