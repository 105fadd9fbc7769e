"""How far Postgres is, told over a Unix socket: the replicator serves it, each worker in synchronous mode asks.

    worker -> replicator    HELLO index | STORED offset      which log it writes; its records are flushed up to here
    replicator -> worker    APPLIED offset | AWAY            Postgres has them up to here; there is no Postgres now

Every message is nine bytes. Offsets are those behind a record of the worker's LMDB log, told once per flushed batch.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from struct import Struct
from typing import cast

HELLO, STORED, APPLIED, AWAY = 1, 2, 3, 4

_MESSAGE = Struct(">BQ")
MAX_LOGS = 256


class _Peer(asyncio.Protocol):
    """One connection, from either side."""

    def __init__(
        self, on_message: Callable[[_Peer, int, int], None], on_lost: Callable[[_Peer], None] = lambda peer: None
    ) -> None:
        self._on_message = on_message
        self._on_lost = on_lost
        self._buffer = b""
        self.transport: asyncio.Transport | None = None
        self.index = -1  # the worker, as the replicator knows it

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        data = self._buffer + data
        end = len(data) - len(data) % _MESSAGE.size
        self._buffer = data[end:]
        for kind, number in _MESSAGE.iter_unpack(data[:end]):
            self._on_message(self, kind, number)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._on_lost(self)

    def send(self, kind: int, number: int = 0) -> None:
        if self.transport is not None:
            self.transport.write(_MESSAGE.pack(kind, number))

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()


class Confirmations:
    """The replicator's side. `on_stored` is called when a worker has something new."""

    def __init__(self, on_stored: Callable[[], None]) -> None:
        self._on_stored = on_stored
        self._peers: set[_Peer] = set()
        self._applied: dict[int, int] = {}
        self._connected = False
        self._server: asyncio.AbstractServer | None = None

    async def serve(self, path: str) -> None:
        """Raises OSError."""
        _remove(path)  # that of a replicator which was killed
        self._server = await asyncio.get_running_loop().create_unix_server(self._make_peer, path)
        os.chmod(path, 0o600)

    async def close(self) -> None:
        for peer in list(self._peers):
            peer.close()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    def on_applied(self, index: int, applied: int) -> None:
        """Postgres has the log of the worker `index` up to here."""
        self._applied[index] = applied
        for peer in self._peers:
            if peer.index == index:
                peer.send(APPLIED, applied)

    def on_connected(self, connected: bool) -> None:
        self._connected = connected
        if not connected:
            for peer in self._peers:
                peer.send(AWAY)

    def _make_peer(self) -> _Peer:
        peer = _Peer(self._take, self._peers.discard)
        self._peers.add(peer)
        return peer

    def _take(self, peer: _Peer, kind: int, number: int) -> None:
        if kind == STORED:
            self._on_stored()
        elif kind == HELLO and number < MAX_LOGS:
            peer.index = number
            if not self._connected:
                peer.send(AWAY)
            elif number in self._applied:
                peer.send(APPLIED, self._applied[number])
        else:
            peer.close()  # no worker of ours


class Confirmed:
    """A worker's side: connected as long as it can be. `on_applied`, `on_away` are called with what is told."""

    RETRY_INTERVAL = 0.1

    def __init__(
        self,
        path: str,
        index: int,
        stored: Callable[[], int],
        on_applied: Callable[[int], None],
        on_away: Callable[[], None],
    ) -> None:
        """stored: gives how far the log is flushed."""
        self._path = path
        self._index = index
        self._stored = stored
        self._on_applied = on_applied
        self._on_away = on_away
        self._told = -1
        self._telling = False
        self._peer: _Peer | None = None
        self._lost = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        return self._peer is not None

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep_connected())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._peer is not None:
            self._peer.close()

    def tell_soon(self) -> None:
        """More is flushed: tell it at the end of this loop turn, once."""
        if not self._telling:
            self._telling = True
            asyncio.get_running_loop().call_soon(self._tell)

    def _tell(self) -> None:
        self._telling = False
        if self._peer is not None and (stored := self._stored()) > self._told:
            self._told = stored
            self._peer.send(STORED, stored)

    async def _keep_connected(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._lost.clear()
            try:
                _, peer = await loop.create_unix_connection(lambda: _Peer(self._take, self._on_lost), self._path)
            except OSError:
                await asyncio.sleep(self.RETRY_INTERVAL)  # it is just being started
                continue
            self._peer, self._told = peer, -1
            peer.send(HELLO, self._index)
            self._tell()
            await self._lost.wait()

    def _on_lost(self, peer: _Peer) -> None:
        self._peer = None
        self._lost.set()

    def _take(self, peer: _Peer, kind: int, number: int) -> None:
        if kind == APPLIED:
            self._on_applied(number)
        elif kind == AWAY:
            self._on_away()


def _remove(path: str) -> None:
    Path(path).unlink(missing_ok=True)
