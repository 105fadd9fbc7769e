"""All replicas of this node and its peers: what a CRDT entity is given as `Replicas`. docs/replication.md says what is
promised.

    activation -> write -> journal -> links to all peers -> acknowledgements -> activation
    peers -> inbound streams -> merge -> journal -> acknowledgement, activation told

With several workers a node has a `Replication` in each, over its part of all keys (part.py).

Parts: replica_store (memory and journal), peer_link (the way out), peer_inbound (the way in), peer_exchange (what a
peer lacks), quorum (who waits), membership and node_record (who is there, who has left), pruning.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Callable, Iterable
from functools import partial

from stateside._speedups import crdt
from stateside._speedups.crdt import Bounds, State
from stateside._speedups.h2 import Limits, Server
from stateside.journal.contract import Durability, Journal, JournalError
from stateside.journal.limits import MAX_ENTITY_BYTES
from stateside.proto.status import Status
from stateside.proxy import logs
from stateside.proxy import peer_messages as messages
from stateside.proxy.activation import JOURNAL_STATUS
from stateside.proxy.config import Settings
from stateside.proxy.membership import StaticMembership
from stateside.proxy.metrics import Metrics
from stateside.proxy.node_record import NodeRecord, load_record
from stateside.proxy.part import Part
from stateside.proxy.peer_inbound import Inbound, InboundHandler
from stateside.proxy.peer_link import Figures, PeerLink
from stateside.proxy.peer_messages import Hello, Left, PeerError
from stateside.proxy.place import ALONE, Place
from stateside.proxy.pruning import Pruning
from stateside.proxy.quorum import Quorums
from stateside.proxy.replica_log import PREFIX, Listing, Origin
from stateside.proxy.replica_store import Entry, ReplicaStore
from stateside.proxy.replicas import Consistency, Member, Replica, ReplicaError, Replicas, Watcher, Writer
from stateside.proxy.tickets import Ticket

MESSAGE_BYTES = 1 << 20  # of a message to or from a peer, beside the largest state
MAX_REFUSALS = 1000  # that are remembered
LIST_KEYS = 1000  # in a page of the journal's listing
LOAD_KEYS = 64  # read in one loop turn while the index is made
INDEX_PAUSE_S = 1.0
DRAIN_CHECK_S = 0.005

log = logs.get(__name__)


def replica_error(error: Exception) -> ReplicaError:
    status = JOURNAL_STATUS.get(type(error), Status.UNAVAILABLE)  # type: ignore[arg-type]
    return ReplicaError(status, str(error))


class Replication(Replicas):
    """`start` it when the journal is open, `close` it before the journal is closed."""

    def __init__(self, settings: Settings, journal: Journal, place: Place = ALONE) -> None:
        self.settings = settings
        self.journal = journal
        self.part = Part(place.index, place.workers, settings.number_of_shards)
        self._place = place
        self.figures = Figures()
        self.indexed = False
        self.port = 0
        self.links: dict[str, PeerLink] = {}
        self.inbounds: set[Inbound] = set()
        self._record: NodeRecord
        self._refusals: dict[str, str] = {}  # by the name of a peer, the last one
        self._early: list[Callable[[], None]] | None = []  # opens before this node has caught up
        self._caught_up: set[int] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._server: Server | None = None
        self._closed = False

    # --- start -------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Raises JournalError, or OSError that names the setting."""
        settings = self.settings
        lasting = self.journal.durability == Durability.DURABLE and not settings.journal.startswith("memory:")
        self._record = await load_record(self.journal, self._place, lasting, secrets.randbits(63) + 1)
        self.origin = Origin(
            self._record.replica, secrets.randbits(63) + 1, Bounds(max_state_size=settings.crdt_max_state_size)
        )
        self.store = ReplicaStore(
            self.journal, self.origin, self._on_own, settings.crdt_cache_size, settings.replay_page_size
        )
        if settings.peers or settings.peer_port:
            await self._listen()
        names = [name for name in settings.peers if not self._is_departed(name)]
        own = Member(self._own_name(), self.origin.replica, self.origin.incarnation)
        self.membership = StaticMembership(own, names)
        self.quorums = Quorums(settings.crdt_write_timeout, lambda: frozenset(self.membership.others))
        self.pruning = Pruning(self.store, self._record, self.membership)
        self.membership.watch(self._on_members)
        self._on_members()
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._make_index()), loop.create_task(self._exchange_often())]
        loop.call_later(settings.crdt_read_timeout, self._stop_waiting)
        self._look_whether_caught_up()

    async def _listen(self) -> None:
        settings = self.settings
        server = Server(asyncio.get_running_loop(), self._lookup, limits=self._limits())
        port = settings.peer_port and settings.peer_port + self.part.index
        try:
            self.port = await server.listen_tcp(settings.peer_interface, port)
        except OSError as error:
            place = f"peer_port = {settings.peer_port}: cannot listen on {settings.peer_interface}"
            if self.part.index:
                place += f", port {port}, which is that of worker-{self.part.index}"
            raise OSError(error.errno, f"{place}: {error.strerror}") from error
        self._server = server
        self._handler = InboundHandler(self)
        log.info("peers are expected", port=self.port)

    def _lookup(self, path: bytes) -> InboundHandler | None:
        return self._handler if path == messages.PATH else None

    def _limits(self) -> Limits:
        largest = self.settings.crdt_max_state_size + MESSAGE_BYTES
        return Limits(
            max_message_size=largest,
            max_streams=64,
            max_connections=1024,
            stream_window=1 << 20,
            send_high_water=1 << 20,
            send_low_water=1 << 18,
            keepalive_interval=5.0,
            keepalive_timeout=5.0,
        )

    def _own_name(self) -> str:
        settings = self.settings
        if settings.peer_name:
            return settings.peer_name
        anywhere = settings.peer_interface in ("0.0.0.0", "::")
        host = socket.gethostname() if anywhere else settings.peer_interface
        return f"{host}:{self.port - self.part.index}"

    def _is_departed(self, name: str) -> bool:
        return any(left.name == name for left in self._record.left)

    async def _make_index(self) -> None:
        while not self.indexed:
            try:
                await self._read_all()
            except JournalError as error:
                log.error("the journal does not list its keys; it is tried again", error=str(error))
                await asyncio.sleep(INDEX_PAUSE_S)
        for inbound in list(self.inbounds):
            inbound.on_indexed()
        for link in self.links.values():
            link.exchange(True)

    async def _read_all(self) -> None:
        """Read every key once: its digest stays in memory."""
        key = ""
        while True:
            page = await Listing().after(self.journal, key, LIST_KEYS)
            for start in range(0, len(page), LOAD_KEYS):
                for key in page[start : start + LOAD_KEYS]:
                    if self.part.has(key) and self.store.index.get(key) is None:
                        self.store.get(key, self._on_indexed_key)
                await asyncio.sleep(0)
            if len(page) < LIST_KEYS:
                break
            key = page[-1]
        self.indexed = True

    def _on_indexed_key(self, entry: Entry | None, error: JournalError | None) -> None:
        if entry is not None:
            self.store.settle(entry)

    async def _exchange_often(self) -> None:
        while True:
            await asyncio.sleep(self.settings.crdt_digest_interval / 2)
            self.store.index.grow_older()
            await asyncio.sleep(self.settings.crdt_digest_interval / 2)
            self.store.index.grow_older()
            for link in self.links.values():
                link.exchange(False)
            self.pruning.look()

    # --- replicas ----------------------------------------------------------------------------------------------------

    def open(self, key: str, watcher: Watcher) -> None:
        size = len((PREFIX + key).encode())
        if size > MAX_ENTITY_BYTES:
            most = MAX_ENTITY_BYTES - len(PREFIX)
            text = f"the key of the entity has {size - len(PREFIX)} bytes, at most {most} are possible"
            watcher.on_opened(None, ReplicaError(Status.INVALID_ARGUMENT, text))
        elif self._early is not None:
            self._early.append(partial(self._open, key, watcher))
        else:
            self._open(key, watcher)

    def _open(self, key: str, watcher: Watcher) -> None:
        self.store.get(key, partial(self._opened, watcher))

    def _opened(self, watcher: Watcher, entry: Entry | None, error: JournalError | None) -> None:
        if entry is None:
            watcher.on_opened(None, replica_error(error or JournalError("the journal did not answer")))
        elif entry.watcher is not None:
            text = f"{entry.key} is open already; two services cannot share a CRDT entity at the same time"
            watcher.on_opened(None, ReplicaError(Status.UNAVAILABLE, text))
        else:
            entry.watcher = watcher
            watcher.on_opened(entry, None)

    def create(self, replica: Replica, kind: int) -> State:
        return self.store.create(_entry(replica), kind)

    def zero(self, kind: int) -> State:
        return self.store.zero(kind)

    def seat(self, state: State) -> None:
        self.store.seat(state)

    def write(self, replica: Replica, consistency: Consistency, writer: Writer) -> None:
        entry = _entry(replica)
        self.store.write(entry, Ticket(partial(self._durable, consistency, Asker(entry, writer))))

    def delete(self, replica: Replica, consistency: Consistency, writer: Writer) -> None:
        entry = _entry(replica)
        self.store.delete(entry, Ticket(partial(self._durable, consistency, Asker(entry, writer))))

    def close(self, replica: Replica) -> None:
        entry = _entry(replica)
        entry.watcher = None
        entry.session += 1
        if entry.fresh and not entry.asked:
            entry.state, entry.fresh = None, False  # nobody wanted it
        if entry.state is not None:
            entry.state.close_view()
        self.store.settle(entry)

    def keys(self) -> Iterable[str]:
        return self.store.index.keys()

    def _durable(self, consistency: Consistency, writer: Writer, error: Exception | None) -> None:
        """A write is in the journal, or was refused by it."""
        if error is not None:
            return writer.on_written(replica_error(error))
        if not self.quorums.needed(consistency):
            return writer.on_written(None)
        quorum = self.quorums.add(consistency, writer)
        changed = self.store.landed_own
        for link in list(self.links.values()):
            link.wait(quorum, changed)

    def _on_own(self, key: str, delta: bytes | None) -> None:
        for link in self.links.values():
            link.push(key, delta)

    # --- peers -------------------------------------------------------------------------------------------------------

    @property
    def departed(self) -> frozenset[int]:
        return self._record.departed

    def hello(self) -> bytes:
        left = tuple(self._record.left)
        origin, part = self.origin, self.part
        cluster, name = self.settings.cluster_name, self.membership.own.name
        place = (part.workers, part.index, part.number_of_shards)
        return messages.hello(Hello(crdt.FORMAT, origin.replica, origin.incarnation, cluster, name, left, *place))

    def on_greeted(self, name: str, hello: Hello) -> None:
        """The peer of a link said who it is."""
        self._check(hello)
        self.membership.heard(name, hello.replica, hello.incarnation)
        self._learn(hello)

    def on_visitor(self, inbound: Inbound, hello: Hello) -> None:
        self._check(hello)
        for other in list(self.inbounds):
            if other.replica == hello.replica:
                other.close(Status.UNAVAILABLE, "the same node connected again")
        self.inbounds.add(inbound)
        self._refusals.pop(hello.name, None)
        if self._is_departed(hello.name):
            self._welcome_back(hello.name)
        if hello.name not in self.membership.others and self.membership.find(hello.replica) is None:
            log.warning("a node that is no peer here sends its changes; add it to `peers`", peer=hello.name)
        self.membership.heard(hello.name, hello.replica, hello.incarnation)
        self._learn(hello)

    def _check(self, hello: Hello) -> None:
        self.part.check(hello, self.membership.own.name)
        if hello.replica == self.origin.replica:
            if hello.incarnation == self.origin.incarnation:
                raise PeerError(f"the peer {hello.name} is this node itself: take it out of `peers`")
            raise PeerError(
                f"the peer {hello.name} has the same identity as this node: one of the journals is a copy of the "
                "other; make it anew with `stateside journal export` and `import`"
            )
        if hello.crdt_format != crdt.FORMAT:
            raise PeerError(f"states have format version {hello.crdt_format}, this node knows version {crdt.FORMAT}")
        if hello.cluster != self.settings.cluster_name:
            own = self.settings.cluster_name
            raise PeerError(f"the peer {hello.name} is of cluster {hello.cluster!r}, this node of {own!r}")
        if hello.replica in self.departed:
            raise PeerError(f"the node {hello.name} has left for good; it comes back with a new journal only")

    def on_refused(self, name: str, text: str) -> None:
        """What was said to a peer; it comes again and again, and the log has it once."""
        self.figures.errors += 1
        if self._refusals.get(name) == text:
            return
        if len(self._refusals) >= MAX_REFUSALS:
            self._refusals.clear()
        self._refusals[name] = text
        log.warning("a peer's message was refused", peer=name, reason=text)

    def has(self, key: str) -> bool:
        return self.part.has(key)

    def on_gone(self, inbound: Inbound) -> None:
        self.inbounds.discard(inbound)

    def on_caught_up(self, replica: int, departed: frozenset[int]) -> None:
        self._caught_up.add(replica)
        self._look_whether_caught_up()
        self.pruning.confirm(replica, departed & self.departed)

    def _look_whether_caught_up(self) -> None:
        members = {member.replica for member in self.membership.others.values()}
        if len(self._caught_up & members) >= self.quorums.needed(Consistency.MAJORITY):
            self._stop_waiting()

    def _stop_waiting(self) -> None:
        early, self._early = self._early, None
        for opened in early or ():
            opened()

    # --- members -----------------------------------------------------------------------------------------------------

    def leave(self, name: str) -> None:
        member = self.membership.others.get(name)
        self.on_left(Left(member.replica if member is not None else 0, name))

    def on_left(self, left: Left) -> None:
        """Somebody said that a member has left."""
        if left in self._record.left or left.replica == self.origin.replica or left.name == self.membership.own.name:
            return
        member = self.membership.remove(left.name, left.replica)
        if member is not None and member.replica:
            left = Left(member.replica, left.name)
        log.info("a member has left", peer=left.name, replica=f"{left.replica:016x}")
        self._record.add(left)
        for inbound in list(self.inbounds):
            if inbound.replica == left.replica:
                inbound.close(Status.FAILED_PRECONDITION, f"the node {left.name} has left for good")
        for link in self.links.values():
            link.send(messages.leave(left))
            link.exchange(True)
        self.pruning.look()

    def _learn(self, hello: Hello) -> None:
        """Who has left, as a peer knows it."""
        for left in hello.left:
            if left.replica in self.departed:
                continue
            member = self.membership.others.get(left.name)
            if left.replica or (member is not None and not member.replica):
                if member is not None and left.replica and member.replica not in (0, left.replica):
                    left = Left(left.replica, "")  # the name belongs to somebody new
                self.on_left(left)

    def _welcome_back(self, name: str) -> None:
        """Somebody new has the name of a departed member."""
        log.info("a member has joined in the place of one that had left", peer=name)
        for left in [left for left in self._record.left if left.name == name]:
            pruned = self._record.left.pop(left)
            if left.replica:
                self._record.left[Left(left.replica, "")] = pruned
        self._record.store()
        self.membership.add(name)

    def _on_members(self) -> None:
        """Links follow the members, and so do quorums and votes."""
        others = self.membership.others
        for name in self.links.keys() - others.keys():
            link = self.links.pop(name)
            task = asyncio.get_running_loop().create_task(link.close())
            self._tasks.append(task)
        for name in others.keys() - self.links.keys():
            limits, buffer_bytes = self._limits(), self.settings.crdt_peer_buffer
            link = self.links[name] = PeerLink(self, name, limits, buffer_bytes, self.part.index)
            link.start()
        heard = [member.incarnation for member in self.membership.members() if member.incarnation]
        self.store.set_voters(heard, 1 + len(others) - len(heard))
        self.quorums.look_at_all()
        self._look_whether_caught_up()

    # --- end ---------------------------------------------------------------------------------------------------------

    async def close_all(self, grace: float = 0.0) -> None:
        """Give what is unsent to the peers that are there, for up to `grace` seconds, and stop."""
        loop = asyncio.get_running_loop()
        end = loop.time() + grace
        settled = False
        while not settled and loop.time() < end:
            await asyncio.sleep(DRAIN_CHECK_S)
            settled = self.store.idle and all(link.settled for link in self.links.values())
        await self.pruning.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, *(link.close() for link in self.links.values()), return_exceptions=True)
        if self._server is not None:
            await self._server.close()
        self.quorums.close()
        await self._record.flush()

    # --- figures -----------------------------------------------------------------------------------------------------

    def offer_metrics(self, metrics: Metrics) -> None:
        gauge, counter, figures = metrics.gauge, metrics.counter, self.figures
        links = self.links
        gauge("stateside_crdt_peers_connected", "Peers connected", lambda: sum(link.live for link in links.values()))
        gauge(
            "stateside_crdt_peers_refused",
            "Peers that do not fit this one (workers, versions, cluster); the log says why",
            lambda: sum(link.refused for link in links.values()),
        )
        gauge(
            "stateside_crdt_pending_acknowledgements",
            "Batches sent to peers and not acknowledged",
            lambda: sum(len(link.unacked) for link in links.values()),
        )
        gauge("stateside_crdt_keys", "Replicated keys known, deleted ones included", lambda: self.store.index.count)
        gauge("stateside_crdt_cache_bytes", "Replicas in memory, roughly", lambda: self.store.cached_bytes)
        counter("stateside_crdt_deltas_sent", "Changes sent to peers", lambda: figures.deltas_out)
        counter("stateside_crdt_deltas_received", "Changes received from peers", lambda: figures.deltas_in)
        counter("stateside_crdt_bytes_sent", "Bytes of messages to peers", lambda: figures.bytes_out)
        counter("stateside_crdt_bytes_received", "Bytes of messages from peers", lambda: figures.bytes_in)
        counter("stateside_crdt_exchanges", "Exchanges of digests completed", lambda: figures.exchanges)
        counter("stateside_crdt_full_states_sent", "Whole states sent in exchanges", lambda: figures.states)
        counter("stateside_crdt_queue_overflows", "Queues to peers dropped when full", lambda: figures.overflows)
        counter("stateside_crdt_peer_errors", "Messages of peers refused", lambda: figures.errors)
        counter("stateside_crdt_type_clashes", "Changes of a key of another type", lambda: self.store.clashes)
        counter("stateside_crdt_write_timeouts", "Writes without their quorum in time", lambda: self.quorums.timeouts)


class Asker:
    """Answers a write as long as its replica is open."""

    __slots__ = ("_entry", "_session", "_writer")

    def __init__(self, entry: Entry, writer: Writer) -> None:
        self._entry = entry
        self._session = entry.session
        self._writer = writer

    def on_written(self, error: ReplicaError | None) -> None:
        if self._entry.session == self._session:
            self._writer.on_written(error)


def _entry(replica: Replica) -> Entry:
    assert isinstance(replica, Entry)
    return replica
