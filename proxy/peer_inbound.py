"""The other end of a peer's link: merges what it pushes, acknowledges what is durable, and asks for what is lacking.

Acknowledgements are cumulative and leave once per loop turn. A message that is none, or changes that are none, end the
stream with INVALID_ARGUMENT and the reason; the state is untouched, and the peer comes back after a pause.
"""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from typing import Protocol

from stateside._speedups.crdt import Malformed
from stateside._speedups.h2 import Call, Handler, ServerCall
from stateside.proto.status import Status
from stateside.proxy import peer_messages as messages
from stateside.proxy.peer_link import WINDOW_BYTES, Figures
from stateside.proxy.peer_messages import (
    Buckets,
    Hello,
    ItemKind,
    Kind,
    Left,
    PeerError,
    Reader,
    replicas_of,
)
from stateside.proxy.replica_index import TOMBSTONE_DIGEST
from stateside.proxy.replica_store import ReplicaStore
from stateside.proxy.tickets import Ticket


class Host(Protocol):
    """What an inbound stream knows of the node that it came to."""

    store: ReplicaStore
    figures: Figures

    @property
    def indexed(self) -> bool: ...

    def hello(self) -> bytes: ...

    def on_visitor(self, inbound: Inbound, hello: Hello) -> None:
        """A peer said who it is. Raises PeerError to refuse."""

    def on_caught_up(self, replica: int, departed: frozenset[int]) -> None:
        """An exchange is over: everything the peer had at its start is here, and from then on it took nothing of
        `departed`."""

    def on_left(self, left: Left) -> None: ...

    def on_refused(self, name: str, text: str) -> None: ...

    def on_gone(self, inbound: Inbound) -> None: ...

    def has(self, key: str) -> bool:
        """Whether the key is replicated here, and not by another worker of this node."""


class InboundHandler(Handler):
    """The method that peers call."""

    def __init__(self, host: Host) -> None:
        self.unary = False
        self.wants_headers = False
        self.host = host

    def on_open(self, call: ServerCall) -> None:
        call.context = Inbound(self.host, call)
        call.start()

    def on_message(self, call: Call, message: bytes) -> None:
        call.context.on_message(message)

    def on_half_close(self, call: ServerCall) -> None:
        call.finish()
        call.context.end()

    def on_cancel(self, call: ServerCall, status: int) -> None:
        call.context.end()


class Arrival:
    """A batch that is being made durable."""

    __slots__ = ("done", "ends", "position", "size")

    def __init__(self, position: int, size: int) -> None:
        self.position = position
        self.size = size
        self.done = False
        self.ends: list[frozenset[int]] = []


class Inbound:
    """One stream."""

    def __init__(self, host: Host, call: ServerCall) -> None:
        self.host = host
        self.replica = 0  # of the peer; 0: it has not said
        self.name = call.peer
        self._call = call
        self._over = False
        self._position = 0  # of the latest batch
        self._arrivals: deque[Arrival] = deque()
        self._bytes = 0  # in them
        self._paused = False
        self._acknowledging = False
        self._everything = True  # of the exchange under way
        self._held: Buckets | None = None  # until the index is there

    def on_message(self, message: bytes) -> None:
        self.host.figures.bytes_in += len(message)
        try:
            self._on_message(Reader(message), len(message))
        except PeerError as error:
            self._refuse(str(error))

    def on_indexed(self) -> None:
        held, self._held = self._held, None
        if held is not None and not self._over:
            self._answer_buckets(held)

    def end(self) -> None:
        """The stream is over, whoever ended it."""
        if not self._over:
            self._over = True
            self.host.on_gone(self)

    def close(self, status: Status, text: str) -> None:
        if not self._over:
            self._call.fail(status, text)
            self.end()

    def _refuse(self, text: str) -> None:
        self.host.on_refused(self.name, text)
        self.close(Status.INVALID_ARGUMENT, text)

    # --- messages ----------------------------------------------------------------------------------------------------

    def _on_message(self, reader: Reader, size: int) -> None:
        if self._over:
            return
        if self.replica == 0:
            self._on_hello(reader)
        elif reader.kind == Kind.BATCH:
            self._on_batch(reader, size)
        elif reader.kind == Kind.BUCKETS:
            self._on_buckets(reader.buckets())
        elif reader.kind == Kind.DIGESTS:
            self._on_digests(reader)
        elif reader.kind == Kind.LEAVE:
            self.host.on_left(reader.leave())
        else:
            raise PeerError(f"a pusher of changes sent a {reader.kind.name}")

    def _on_hello(self, reader: Reader) -> None:
        if reader.kind != Kind.HELLO:
            raise PeerError(f"the first message is a {reader.kind.name}, not a HELLO")
        hello = reader.hello()
        self.name = hello.name
        self.host.on_visitor(self, hello)
        self.replica = hello.replica
        self._call.send(self.host.hello())

    def _on_batch(self, reader: Reader, size: int) -> None:
        batch = reader.batch()
        if batch.position <= self._position:
            raise PeerError(f"batch {batch.position} came behind batch {self._position}")
        self._position = batch.position
        arrival = Arrival(batch.position, size)
        self._arrivals.append(arrival)
        self._bytes += size
        if self._bytes > 2 * WINDOW_BYTES and not self._paused:
            self._paused = True  # a peer that goes beyond what was agreed waits
            self._call.pause()
        if any(item.key and not self.host.has(item.key) for item in batch.items):
            raise PeerError("a change is of a key that another worker of this node has")
        ticket = Ticket(partial(self._on_durable, arrival))
        store = self.host.store
        self.host.figures.deltas_in += len(batch.items)
        for kind, key, data in batch.items:
            if kind == ItemKind.DELTA:
                store.merge(key, data, ticket)
            elif kind == ItemKind.TOMBSTONE:
                store.merge_tombstone(key, ticket)
            else:
                arrival.ends.append(replicas_of(data))
                ticket.begin()
                store.barrier(Ticket(ticket.finish))
        ticket.release()

    def _on_durable(self, arrival: Arrival, error: Exception | None) -> None:
        if self._over:
            return
        if isinstance(error, Malformed):
            return self._refuse(f"a change is malformed: {error}")
        if error is not None:
            return self.close(Status.UNAVAILABLE, f"a change was not stored: {error}")
        arrival.done = True
        if self._arrivals[0].done and not self._acknowledging:
            self._acknowledging = True
            asyncio.get_running_loop().call_soon(self._acknowledge)

    def _acknowledge(self) -> None:
        self._acknowledging = False
        if self._over:
            return
        position = 0
        ends: list[frozenset[int]] = []
        while self._arrivals and self._arrivals[0].done:
            arrival = self._arrivals.popleft()
            position = arrival.position
            ends += arrival.ends
            self._bytes -= arrival.size
        if position:
            self._call.send(messages.ack(position))
        if self._paused and self._bytes <= WINDOW_BYTES:
            self._paused = False
            self._call.resume()
        for departed in ends:
            self.host.on_caught_up(self.replica, departed)

    # --- exchange of digests -----------------------------------------------------------------------------------------

    def _on_buckets(self, message: Buckets) -> None:
        self._everything = message.everything
        if self.host.indexed:
            self._answer_buckets(message)
        else:
            self._held = message

    def _answer_buckets(self, message: Buckets) -> None:
        self._call.send(messages.differ(message.exchange, self.host.store.index.differing(message.sums)))

    def _on_digests(self, reader: Reader) -> None:
        message = reader.digests()
        keys = [key for key, digest in message.items if self._is_wanted(key, digest)]
        self._call.send(messages.wanted(message.exchange, keys))

    def _is_wanted(self, key: str, digest: bytes) -> bool:
        own = self.host.store.index.get(key)
        if own in (digest, TOMBSTONE_DIGEST):
            return False
        return self._everything or not self.host.store.index.is_recent(key)
