"""The way of changes to one peer: a connection that is made again and again, a bounded queue, and who waits for its
acknowledgements.

Changes of one key that wait are joined into one. Each change has a position; a batch carries the highest position up to
which nothing is left behind, and the peer acknowledges it when everything in it is durable there. Changes that cannot
wait (no connection, queue full) are dropped, and an exchange of digests brings the peer what it lacks; writes that wait
for them are answered when that is done.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from dataclasses import dataclass
from typing import Protocol

from stateside._speedups.crdt import CrdtError, join_deltas
from stateside._speedups.h2 import Channel, ClientCall, Handler, Limits
from stateside.proto.status import Status
from stateside.proxy import logs
from stateside.proxy import peer_messages as messages
from stateside.proxy.peer_exchange import Exchange
from stateside.proxy.peer_messages import PATH, Hello, ItemKind, Kind, PeerError, Reader
from stateside.proxy.quorum import Quorum
from stateside.proxy.replica_store import ReplicaStore

BATCH_BYTES = 256 * 1024
WINDOW_BYTES = 4 << 20  # sent and not acknowledged
STATES_BYTES = 1 << 20  # queued, before further states of an exchange are read
ITEM_BYTES = 64  # of memory for a queued change, beside its bytes
BACKOFF_S = (0.05, 5.0)

log = logs.get(__name__)


@dataclass(slots=True)
class Figures:
    """For /metrics, of all links and inbound streams together."""

    deltas_out: int = 0
    deltas_in: int = 0
    bytes_out: int = 0
    bytes_in: int = 0
    exchanges: int = 0
    states: int = 0
    overflows: int = 0
    errors: int = 0


class Node(Protocol):
    """What a link knows of the node that it belongs to."""

    store: ReplicaStore
    figures: Figures

    @property
    def indexed(self) -> bool: ...

    @property
    def departed(self) -> frozenset[int]: ...

    def hello(self) -> bytes: ...

    def on_greeted(self, name: str, hello: Hello) -> None:
        """The peer of a link said who it is. Raises PeerError to refuse."""


class Slot:
    """A queued key."""

    __slots__ = ("deltas", "position", "size", "state_size", "tombstone")

    def __init__(self, position: int) -> None:
        self.position = position  # of the first change in it
        self.size = 0  # as counted in the queue
        self.state_size = 0  # of that, what an exchange put there
        self.deltas: list[bytes] = []
        self.tombstone = False


class PeerLink(Handler):
    """To the peer at `name`, host:port."""

    def __init__(self, node: Node, name: str, limits: Limits, buffer_bytes: int, offset: int = 0) -> None:
        """offset: of the port that is called, from that in the name."""
        self.unary = False
        self.wants_headers = False
        self.node = node
        self.name = name
        self.refused = False  # one of the two does not want to speak with the other
        self._offset = offset
        self.live = False  # greeted: changes are sent as they come
        self.unacked: deque[tuple[int, int]] = deque()  # position and bytes of batches
        self._limits = limits
        self._buffer_bytes = buffer_bytes
        self._queue: dict[str | int, Slot] = {}
        self._queue_bytes = 0
        self._state_bytes = 0  # of these, what an exchange put there: bounded by its own pace
        self._unacked_bytes = 0
        self._position = 0  # of the latest change
        self._sent = 0
        self._dropped = 0  # the latest change that the queue lost
        self._gap = True  # the peer may lack something that is not in the queue
        self._waiters: deque[tuple[int, Quorum]] = deque()
        self._gap_waiters: list[Quorum] = []
        self._exchange: Exchange | None = None
        self._exchanges = 0  # begun
        self._exchanged = 0  # completed
        self._again = False  # another exchange, of everything, behind the running one
        self._end_position = 0
        self._call: ClientCall | None = None
        self._ended: asyncio.Future[str] | None = None
        self._full = False  # the transport's queue
        self._scheduled = False
        self._task: asyncio.Task[None] | None = None
        self._trouble = ""
        self._closing = False

    # --- changes -----------------------------------------------------------------------------------------------------

    def push(self, key: str, delta: bytes | None, is_state: bool = False) -> None:
        """Send a delta, or a tombstone."""
        self._position += 1
        if not self.live:
            self._gap, self._dropped = True, self._position
            return
        slot = self._queue.get(key)
        size = ITEM_BYTES + len(delta or b"")
        if slot is None:
            slot = self._queue[key] = Slot(self._position)
            size += len(key)
        if delta is None:
            slot.tombstone = True
        else:
            slot.deltas.append(delta)
        slot.size += size
        self._queue_bytes += size
        if is_state:
            slot.state_size += size
            self._state_bytes += size
        if self._queue_bytes - self._state_bytes > self._buffer_bytes:
            self._overflow()
        else:
            self._schedule()

    def wait(self, quorum: Quorum, changed: bool) -> None:
        """Acknowledge the quorum when the peer has the change that was pushed just now; not `changed`: there was none,
        and it is about everything pushed before."""
        by_position = self.live and changed and self._dropped < self._position
        if by_position or not (self._gap or self._healing):
            self._wait_for_position(quorum)
        elif self._gap:
            if len(self._gap_waiters) % 1024 == 1023:
                self._gap_waiters = [quorum for quorum in self._gap_waiters if not quorum.done]
            self._gap_waiters.append(quorum)
        elif self._exchange is not None:
            self._exchange.waiting.append(quorum)

    def _wait_for_position(self, quorum: Quorum) -> None:
        if not self._queue and not self.unacked:
            return quorum.acknowledge(self.name)
        while self._waiters and self._waiters[0][1].done:
            self._waiters.popleft()
        self._waiters.append((self._position, quorum))

    @property
    def _healing(self) -> bool:
        """What was dropped is on its way, unless it is dropped again."""
        return self._exchange is not None and self._exchange.everything

    @property
    def settled(self) -> bool:
        """Nothing is unsent or unacknowledged, or there is nobody to send it to."""
        return not self.live or not (self._queue or self.unacked or self._exchange)

    @property
    def has_room(self) -> bool:
        return self._queue_bytes < min(STATES_BYTES, self._buffer_bytes // 2)

    def push_state(self, key: str, data: bytes | None) -> None:
        self.node.figures.states += 1
        self.push(key, data, is_state=True)

    def push_end(self, departed: frozenset[int]) -> None:
        self._position += 1
        self._end_position = self._position
        slot = self._queue[self._position] = Slot(self._position)
        slot.deltas.append(messages.replicas(departed))
        self._schedule()

    def send(self, message: bytes) -> None:
        if self._call is not None:
            self.node.figures.bytes_out += len(message)
            if not self._call.send(message):
                self._full = True

    def _overflow(self) -> None:
        self.node.figures.overflows += 1
        log.warning("more waits for a peer than crdt_peer_buffer holds; digests are exchanged instead", peer=self.name)
        self._queue.clear()
        self._queue_bytes = self._state_bytes = 0
        self._dropped = self._position
        kept: deque[tuple[int, Quorum]] = deque()
        for position, quorum in self._waiters:
            if position <= self._sent:
                kept.append((position, quorum))
            else:
                self._gap_waiters.append(quorum)
        self._waiters = kept
        self._gap = True
        self._abandon()
        self.exchange(True)

    # --- sending -----------------------------------------------------------------------------------------------------

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._send_batches)

    def _send_batches(self) -> None:
        self._scheduled = False
        while self.live and self._queue and not self._full and self._unacked_bytes < WINDOW_BYTES:
            items, size = self._take_items()
            following = next(iter(self._queue.values()), None)
            self._sent = self._position if following is None else following.position - 1
            self.unacked.append((self._sent, size))
            self._unacked_bytes += size
            self.node.figures.deltas_out += len(items)
            self.send(messages.batch(self._sent, items))

    def _take_items(self) -> tuple[list[tuple[int, bytes, bytes]], int]:
        items: list[tuple[int, bytes, bytes]] = []
        size = 0
        while self._queue and size < BATCH_BYTES and len(items) < messages.MAX_ITEMS // 2:
            key = next(iter(self._queue))
            slot = self._queue.pop(key)
            self._queue_bytes -= slot.size
            self._state_bytes -= slot.state_size
            for item in _items(key, slot):
                items.append(item)
                size += ITEM_BYTES + len(item[1]) + len(item[2])
        return items, size

    # --- exchange of digests -----------------------------------------------------------------------------------------

    def exchange(self, everything: bool) -> None:
        """Let the peer find out what it lacks. everything: also keys that changed a moment ago."""
        if not self.live or not self.node.indexed:
            return
        if self._exchange is not None:
            self._again = self._again or everything
            return
        self._exchanges = self._exchanges + 1 & 0xFFFFFFFF
        waiting, self._gap_waiters = (self._gap_waiters, []) if everything else ([], self._gap_waiters)
        self._gap = self._gap and not everything
        self._end_position = 0
        self._exchange = Exchange(self._exchanges, self, self.node.store, self.node.departed, waiting, everything)
        self._exchange.start()

    def _finish_exchange(self) -> None:
        exchange, self._exchange = self._exchange, None
        assert exchange is not None
        self.node.figures.exchanges += 1
        self._exchanged += 1
        for quorum in exchange.waiting:
            quorum.acknowledge(self.name)
        if self._again:
            self._again = False
            self.exchange(True)

    def _abandon(self) -> None:
        """The exchange under way cannot be completed."""
        if self._exchange is not None:
            self._exchange.stop()
            self._gap_waiters += self._exchange.waiting
            self._gap = True
            self._exchange = None
        self._again = False

    # --- what the peer says ------------------------------------------------------------------------------------------

    def on_message(self, call: object, message: bytes) -> None:
        self.node.figures.bytes_in += len(message)
        try:
            self._on_message(Reader(message))
        except PeerError as error:
            self.node.figures.errors += 1
            self.refused = True
            self._report(str(error))
            if self._call is not None:
                self._call.cancel()

    def _on_message(self, reader: Reader) -> None:
        if not self.live:
            self._on_hello(reader)
        elif reader.kind == Kind.ACK:
            self._on_ack(reader.ack())
        elif reader.kind == Kind.DIFFER:
            if self._exchange is not None:
                self._exchange.on_differ(reader.differ())
        elif reader.kind == Kind.WANTED:
            if self._exchange is not None:
                self._exchange.on_wanted(reader.wanted())
        else:
            raise PeerError(f"the receiver of changes sent a {reader.kind.name}")

    def _on_hello(self, reader: Reader) -> None:
        if reader.kind != Kind.HELLO:
            raise PeerError(f"the first message is a {reader.kind.name}, not a HELLO")
        self.node.on_greeted(self.name, reader.hello())
        log.info("connected to a peer", peer=self.name)
        self.live, self.refused, self._trouble = True, False, ""
        self.exchange(True)

    def _on_ack(self, position: int) -> None:
        if position > self._sent:
            raise PeerError(f"position {position} was acknowledged, and {self._sent} is the last one sent")
        while self.unacked and self.unacked[0][0] <= position:
            self._unacked_bytes -= self.unacked.popleft()[1]
        while self._waiters and self._waiters[0][0] <= position:
            self._waiters.popleft()[1].acknowledge(self.name)
        if self._exchange is not None:
            if self._exchange.ending and position >= self._end_position:
                self._finish_exchange()
            elif not self._exchange.ending:
                self._exchange.pump()
        if self._queue:
            self._schedule()

    def on_drain(self, call: object) -> None:
        self._full = False
        self._schedule()

    def on_end(self, call: object, status: int, message: str) -> None:
        if self._ended is not None and not self._ended.done():
            self.refused = status in (Status.INVALID_ARGUMENT, Status.FAILED_PRECONDITION)
            self._ended.set_result(message)

    # --- the connection ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        self._closing = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _run(self) -> None:
        pause, most = BACKOFF_S
        while not self._closing:  # a cancellation can be lost in a connect that fails at that moment
            try:
                useful = await self._connect()
            except (OSError, TimeoutError) as error:
                useful = self.refused = False
                self._report(str(error) or "no answer")
            pause = BACKOFF_S[0] if useful else min(2 * pause, most)
            if not self._closing:
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))

    async def _connect(self) -> bool:
        """One connection, from its beginning to its end; whether it was of use. One over which no exchange came to its
        end, because the peer refuses something, is not."""
        exchanged = self._exchanged
        loop = asyncio.get_running_loop()
        host, _, port = self.name.rpartition(":")
        channel = await Channel.connect(loop, host.strip("[]"), int(port) + self._offset, limits=self._limits)
        self._ended = loop.create_future()
        try:
            self._call = channel.open(PATH, self)
            self._full = False
            self.send(self.node.hello())
            reason = await self._ended
            self._report(reason or "the peer closed the connection")
            return self._exchanged != exchanged
        finally:
            self._lose()
            channel.close()

    def _lose(self) -> None:
        """The connection is gone, and with it all that was under way."""
        self._call = None
        self.live = False
        self._queue.clear()
        self.unacked.clear()
        self._queue_bytes = self._state_bytes = self._unacked_bytes = 0
        self._sent = self._dropped = self._position
        self._gap = True
        self._abandon()
        self._gap_waiters += (quorum for _, quorum in self._waiters)
        self._waiters.clear()

    def _report(self, trouble: str) -> None:
        if trouble != self._trouble:
            log.warning("no connection to a peer", peer=self.name, reason=trouble)
        self._trouble = trouble


def _items(key: str | int, slot: Slot) -> list[tuple[int, bytes, bytes]]:
    """What is sent of a queued key: as a rule one change."""
    if isinstance(key, int):
        return [(ItemKind.END, b"", slot.deltas[0])]
    name = key.encode()
    if slot.tombstone:
        return [(ItemKind.TOMBSTONE, name, b"")]
    deltas = slot.deltas
    if len(deltas) > 1:
        try:
            deltas = [join_deltas(deltas)]
        except CrdtError:
            pass  # of several types, one of which will win at the receiver
    return [(ItemKind.DELTA, name, delta) for delta in deltas]
