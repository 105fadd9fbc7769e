"""A node and peers that it cannot trust to be right: wrong versions, wrong clusters, garbage, repetitions, silence."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from stateside._speedups import crdt
from stateside._speedups.crdt import GCOUNTER, ORSET, State
from stateside._speedups.h2 import Channel, Handler, Server
from stateside.journal.contract import JournalError, ListWaiter
from stateside.journal.memory import MemoryJournal
from stateside.proto.status import Status
from stateside.proxy import peer_link, replication
from stateside.proxy import peer_messages as messages
from stateside.proxy.peer_messages import PATH, Buckets, Digests, Hello, ItemKind, Kind, Left, Reader
from stateside.proxy.replica_index import BUCKETS, DIGEST_BYTES, SUM_BYTES
from stateside.proxy.replicas import Consistency
from stateside.proxy.replication import Replication
from tests.helpers.nodes import Cable, Node, free_port, until

HELLO = Hello(crdt.FORMAT, 77, 770, "", "127.0.0.1:9", ())


class Peer(Handler):
    """A peer that says whatever the test wants."""

    def __init__(self) -> None:
        self.unary = False
        self.wants_headers = False
        self.heard: list[Reader] = []
        self.ended: tuple[int, str] | None = None

    async def connect(self, node: Node, hello: Hello | None = HELLO) -> Peer:
        self.channel = await Channel.connect(asyncio.get_running_loop(), "127.0.0.1", node.replicas.port)
        self.call = self.channel.open(PATH, self)
        if hello is not None:
            self.send(messages.hello(hello))
        return self

    def send(self, message: bytes) -> None:
        self.call.send(message)

    def on_message(self, call: object, message: bytes) -> None:
        self.heard.append(Reader(message))

    def on_end(self, call: object, status: int, message: str) -> None:
        self.ended = (status, message)

    def of_kind(self, kind: Kind) -> list[Reader]:
        return [reader for reader in self.heard if reader.kind == kind]

    async def answer(self, kind: Kind, count: int = 1) -> Reader:
        await until(lambda: len(self.of_kind(kind)) >= count or self.ended is not None, f"a {kind.name}")
        assert self.ended is None, self.ended
        return self.of_kind(kind)[count - 1]

    async def end(self) -> tuple[int, str]:
        await until(lambda: self.ended is not None, "the stream ends")
        assert self.ended is not None
        return self.ended


def with_node(scenario: Callable[[Node], Awaitable[None]], *peers: str, **settings: object) -> None:
    async def run() -> None:
        node = await Node("memory:", free_port(), peers, **settings).start()
        try:
            await scenario(node)
        finally:
            await node.stop()

    uvloop.run(run())


def delta(kind: int, change: Callable[[State], object], replica: int = 77) -> bytes:
    state = State(kind, replica)
    change(state)
    return state.take_delta()


def batch(position: int, *items: tuple[str, bytes]) -> bytes:
    return messages.batch(position, [(ItemKind.DELTA, key.encode(), data) for key, data in items])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"crdt_format": crdt.FORMAT + 1}, "format version"),
        ({"cluster": "other"}, "cluster 'other'"),
        ({"replica": 0}, "identity 0"),
    ],
)
def test_a_peer_that_does_not_fit_is_told_why(change: dict[str, object], reason: str) -> None:
    async def scenario(node: Node) -> None:
        peer = await Peer().connect(node, HELLO._replace(**change))  # type: ignore[arg-type]
        status, text = await peer.end()
        assert status == Status.INVALID_ARGUMENT
        assert reason in text
        assert node.replicas.figures.errors == 1

    with_node(scenario)


def test_a_copied_journal_and_a_node_that_calls_itself_are_found_out() -> None:
    async def scenario(node: Node) -> None:
        own = node.replicas.origin
        copy = await Peer().connect(node, HELLO._replace(replica=own.replica))
        assert "is a copy of the other" in (await copy.end())[1]
        itself = await Peer().connect(node, HELLO._replace(replica=own.replica, incarnation=own.incarnation))
        assert "is this node itself" in (await itself.end())[1]

    with_node(scenario)


GARBAGE = {
    "nothing": b"",
    "no message": b"\xffgarbage",
    "cut short": batch(1, ("a", b"delta"))[:-1],
    "no delta": batch(1, ("a", b"\xff\xff\xff")),
    "an empty delta": batch(1, ("a", b"")),
    "a message of receivers": messages.ack(1),
    "a second hello": messages.hello(HELLO),
    "digests cut short": messages.digests(1, [("a", bytes(DIGEST_BYTES))])[:-1],
    "an odd end": messages.batch(1, [(ItemKind.END, b"", b"123")]),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_ends_the_stream_with_a_reason_and_touches_nothing(name: str) -> None:
    async def scenario(node: Node) -> None:
        await node.change("a", GCOUNTER, State.increment)
        before = node.sums
        peer = await Peer().connect(node)
        await peer.answer(Kind.HELLO)
        peer.send(GARBAGE[name])
        status, text = await peer.end()
        assert status == Status.INVALID_ARGUMENT
        assert text
        assert node.replicas.figures.errors == 1
        assert node.sums == before
        assert await node.change("a", GCOUNTER, State.increment) is None  # others are not concerned
        assert await (await Peer().connect(node)).answer(Kind.HELLO)

    with_node(scenario)


def test_garbage_in_place_of_a_hello_is_refused() -> None:
    async def scenario(node: Node) -> None:
        for message in (messages.ack(1), b"PRI * HTTP/2.0"):
            peer = await Peer().connect(node, None)
            peer.send(message)
            assert (await peer.end())[0] == Status.INVALID_ARGUMENT

    with_node(scenario)


def test_a_message_beyond_the_bound_is_refused() -> None:
    async def scenario(node: Node) -> None:
        peer = await Peer().connect(node)
        await peer.answer(Kind.HELLO)
        peer.send(batch(1, ("a", bytes(3 << 20))))
        assert (await peer.end())[0] == Status.RESOURCE_EXHAUSTED

    with_node(scenario, crdt_max_state_size=1 << 20)


def test_repeated_late_and_reordered_changes_are_merged_to_the_same_state() -> None:
    async def scenario(node: Node) -> None:
        state = State(ORSET, 77)
        deltas = []
        for number in range(6):
            element = b"\x12\x01" + bytes((65 + number % 3,))
            state.remove(element) if number > 3 else state.add(element)
            deltas.append(state.take_delta())
        peer = await Peer().connect(node)
        order = [3, 0, 5, 5, 1, 0, 4, 2, 3]
        for position, number in enumerate(order, 1):
            peer.send(batch(position, ("a", deltas[number])))
        await until(lambda: any(Reader.ack(each) == len(order) for each in acks(peer)), "all are acknowledged")
        entry = node.replicas.store._entries["a"]
        assert entry.state is not None
        assert entry.state.digest() == state.digest()

    with_node(scenario)


def acks(peer: Peer) -> list[Reader]:
    """Unread ones: a reader reads once."""
    found = peer.of_kind(Kind.ACK)
    peer.heard = [reader for reader in peer.heard if reader.kind != Kind.ACK]
    return found


def test_positions_that_go_back_are_refused() -> None:
    async def scenario(node: Node) -> None:
        peer = await Peer().connect(node)
        peer.send(batch(5, ("a", delta(GCOUNTER, State.increment))))
        assert (await peer.answer(Kind.ACK)).ack() == 5
        peer.send(batch(5, ("a", delta(GCOUNTER, State.increment))))
        assert (await peer.end())[0] == Status.INVALID_ARGUMENT

    with_node(scenario)


def test_an_exchange_asks_for_what_is_lacking_and_for_nothing_else() -> None:
    async def scenario(node: Node) -> None:
        await node.change("same", GCOUNTER, State.increment)
        await until(lambda: node.replicas.indexed, "indexed")
        peer = await Peer().connect(node)
        peer.send(messages.buckets(Buckets(1, True, node.sums)))
        assert (await peer.answer(Kind.DIFFER)).differ().buckets == []
        peer.send(messages.buckets(Buckets(2, True, bytes(BUCKETS * SUM_BYTES))))
        differing = (await peer.answer(Kind.DIFFER, 2)).differ()
        assert (differing.exchange, len(differing.buckets)) == (2, 1)
        same = node.replicas.store.index.get("same")
        assert same is not None
        page = Digests(2, [("same", same), ("other", bytes(DIGEST_BYTES))])
        peer.send(messages.digests(*page))
        assert (await peer.answer(Kind.WANTED)).wanted().keys == ["other"]

    with_node(scenario)


def test_a_leave_told_by_a_peer_holds_here() -> None:
    async def scenario(node: Node) -> None:
        peer = await Peer().connect(node)
        peer.send(messages.leave(Left(0, "127.0.0.1:2")))
        await until(lambda: len(node.replicas.membership.members()) == 2, "it has left")
        assert await node.change("a", GCOUNTER, State.increment, Consistency.MAJORITY) is not None

    with_node(scenario, "127.0.0.1:1", "127.0.0.1:2", crdt_write_timeout=0.1)


@pytest.mark.parametrize("answer", ["nothing", "garbage", "a status"])
def test_a_receiver_that_misbehaves_is_left_and_tried_again(answer: str) -> None:
    """The other direction: what stands at a peer's address is no node."""

    async def scenario() -> None:
        calls = []

        class Stranger(Handler):
            unary = False
            wants_headers = False

            def on_open(self, call):  # type: ignore[no-untyped-def]
                calls.append(call)
                if answer == "garbage":
                    call.send(b"\xff")
                elif answer == "a status":
                    call.finish(Status.UNIMPLEMENTED, "who are you?")

        server = Server(asyncio.get_running_loop(), lambda path: Stranger())
        port = await server.listen_tcp("127.0.0.1", 0)
        node = await Node("memory:", free_port(), (f"127.0.0.1:{port}",), crdt_write_timeout=0.1).start()
        await until(lambda: len(calls) >= (1 if answer == "nothing" else 3), "it is tried again")
        assert not any(link.live for link in node.replicas.links.values())
        assert await node.change("a", GCOUNTER, State.increment, Consistency.ALL) is not None
        await node.stop()
        await server.close()

    uvloop.run(scenario())


def test_an_acknowledgement_of_what_was_never_sent_is_refused() -> None:
    async def scenario() -> None:
        ends = []

        class Liar(Handler):
            unary = False
            wants_headers = False

            def on_message(self, call, message):  # type: ignore[no-untyped-def]
                call.send(messages.hello(HELLO))
                call.send(messages.ack(1000))

            def on_cancel(self, call, status):  # type: ignore[no-untyped-def]
                ends.append(status)

        server = Server(asyncio.get_running_loop(), lambda path: Liar())
        port = await server.listen_tcp("127.0.0.1", 0)
        node = await Node("memory:", free_port(), (f"127.0.0.1:{port}",)).start()
        await until(lambda: bool(ends), "the stream is reset")
        assert node.replicas.figures.errors >= 1
        await node.stop()
        await server.close()

    uvloop.run(scenario())


def test_a_peer_that_answers_nothing_any_more_does_not_stop_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its queue is bounded, and only writes that need it fail."""
    monkeypatch.setattr(peer_link, "WINDOW_BYTES", 65536)

    async def scenario() -> None:
        stuck = []

        class Deaf(Handler):
            unary = False
            wants_headers = False

            def on_message(self, call, message):  # type: ignore[no-untyped-def]
                if not stuck:
                    call.send(messages.hello(HELLO))
                    stuck.append(call)
                    call.pause()

        server = Server(asyncio.get_running_loop(), lambda path: Deaf())
        port = await server.listen_tcp("127.0.0.1", 0)
        bounds = {"crdt_peer_buffer": 65536, "crdt_write_timeout": 0.2}
        node = await Node("memory:", free_port(), (f"127.0.0.1:{port}",), **bounds).start()
        await until(lambda: any(link.live for link in node.replicas.links.values()), "greeted")
        asked = []
        for number in range(100):
            for part in range(30):
                activation = await node.open(f"{number}-{part}")
                activation.state(ORSET).add(b"\x12\x7e" + b"x" * 126)
                asked.append(activation.begin_write(Consistency.ALL))
            await asyncio.sleep(0.001)
        assert None not in await asyncio.gather(*asked)
        link = next(iter(node.replicas.links.values()))
        assert link._queue_bytes <= 65536
        assert node.replicas.figures.overflows > 1
        assert await node.change("a", GCOUNTER, State.increment) is None
        assert await node.change("a", GCOUNTER, State.increment, Consistency.ALL) is not None
        await node.stop()
        await server.close()

    uvloop.run(scenario())


def test_a_cable_that_is_cut_and_mended_again_and_again_loses_nothing() -> None:
    async def scenario() -> None:
        ports = [free_port(), free_port()]
        cable = await Cable(ports[1]).plug()
        one = await Node("memory:", ports[0], (f"127.0.0.1:{cable.port}",)).start()
        other = await Node("memory:", ports[1], (f"127.0.0.1:{ports[0]}",)).start()
        for _ in range(8):
            for _ in range(20):
                await one.change("a", GCOUNTER, State.increment)
            await cable.cut()
            await one.change("a", GCOUNTER, State.increment)
            await cable.plug()
        await until(lambda: one.sums == other.sums, "both have all")
        assert await other.value("a") == 168
        await one.stop()
        await other.stop()
        await cable.cut()

    uvloop.run(scenario())


def test_while_the_index_is_made_changes_flow_and_exchanges_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        may_read = asyncio.Event()
        read_all = Replication._read_all

        async def late(self: Replication) -> None:
            await may_read.wait()
            await read_all(self)

        monkeypatch.setattr(Replication, "_read_all", late)
        node = await Node("memory:", free_port(), (), peer_name="127.0.0.1:1").start()
        peer = await Peer().connect(node)
        peer.send(messages.buckets(Buckets(1, True, node.sums)))
        peer.send(batch(1, ("a", delta(GCOUNTER, State.increment))))
        assert (await peer.answer(Kind.ACK)).ack() == 1
        assert peer.of_kind(Kind.DIFFER) == []
        may_read.set()
        assert len((await peer.answer(Kind.DIFFER)).differ().buckets) == 1
        assert await node.value("a") == 1
        await node.stop()

    uvloop.run(scenario())


def test_a_journal_that_does_not_list_its_keys_at_once_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    failures = [JournalError("not now"), JournalError("nor now")]
    list_entities = MemoryJournal.list_entities

    def unwilling(self: MemoryJournal, prefix: str, after: str, limit: int, waiter: ListWaiter) -> None:
        if failures:
            waiter.on_entities(None, failures.pop())
        else:
            list_entities(self, prefix, after, limit, waiter)

    async def scenario(node: Node) -> None:
        await until(lambda: node.replicas.indexed, "the index is made")
        assert failures == []

    monkeypatch.setattr(MemoryJournal, "list_entities", unwilling)
    monkeypatch.setattr(replication, "INDEX_PAUSE_S", 0.01)
    with_node(scenario)


def test_a_link_that_is_stopped_while_it_connects_ends() -> None:
    async def scenario() -> None:
        for _ in range(20):
            node = await Node("memory:", free_port(), tuple(f"127.0.0.1:{free_port()}" for _ in range(5))).start()
            await asyncio.sleep(0.001)
            async with asyncio.timeout(5):
                await node.stop()

    uvloop.run(scenario())
