"""Replicas on several nodes in one process, over real connections: how they converge, and whatever is in the way."""

from __future__ import annotations

import asyncio
import random
from functools import partial
from pathlib import Path

import pytest
import uvloop

from stateside._speedups import crdt
from stateside._speedups.crdt import GCOUNTER, GSET, LWWREGISTER, ORMAP, ORSET, PNCOUNTER, VOTE, State
from stateside.proto import crdt as messages
from stateside.proto.status import Status
from stateside.proxy.replicas import Consistency
from tests.helpers.nodes import Activation, Cluster, Node, free_port, until

KINDS = range(1, 9)


def any_bytes(text: str) -> bytes:
    """A serialized google.protobuf.Any."""
    return b"\x0a\x01t\x12" + bytes((len(text),)) + text.encode()


def random_change(state: State, chance: random.Random) -> None:
    element = any_bytes(chance.choice("abcdefg"))
    kind = state.kind
    if kind in (GCOUNTER, PNCOUNTER):
        state.increment(chance.randint(1, 9) if kind == GCOUNTER else chance.randint(-9, 9))
    elif kind == GSET:
        state.add(element)
    elif kind == ORSET:
        chance.choice((state.add, state.add, state.remove))(element)
    elif kind == LWWREGISTER:
        state.set(element, chance.randint(1, 10))
    elif kind == VOTE:
        state.vote(chance.random() < 0.5)
    elif kind == ORMAP:
        state.apply(map_delta(element, chance), 1)
    else:
        state.enable()


def map_delta(key: bytes, chance: random.Random) -> bytes:
    delta = messages.CrdtDelta()
    if chance.random() < 0.3:
        delta.ormap.removed.add().ParseFromString(key)
    else:
        entry = delta.ormap.added.add()
        entry.key.ParseFromString(key)
        entry.delta.pncounter.change = chance.randint(-5, 5)
    return delta.SerializeToString()


def test_every_node_gets_what_any_node_writes(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Cluster(3, tmp_path) as cluster:
            for number, node in enumerate(cluster.nodes):
                assert await node.change("counter", GCOUNTER, partial(State.increment, amount=number + 1)) is None
            await cluster.converged()
            assert [await node.value("counter") for node in cluster.nodes] == [6, 6, 6]

    uvloop.run(scenario())


@pytest.mark.parametrize("count", [2, 3, 5])
def test_random_changes_of_all_types_converge(tmp_path: Path, count: int) -> None:
    chance = random.Random(count)

    async def scenario() -> None:
        async with Cluster(count, tmp_path if count == 3 else None) as cluster:
            for _ in range(300):
                node, kind = chance.choice(cluster.nodes), chance.choice(KINDS)
                activation = await node.open(f"{kind}|{chance.randrange(3)}")
                random_change(activation.state(kind), chance)
                activation.begin_write()
                activation.close()
                if chance.random() < 0.1:
                    await asyncio.sleep(0)
            await cluster.converged()
            for key in list(cluster.nodes[0].replicas.store.index.keys()):
                values = [await node.value(key) for node in cluster.nodes]
                if not key.startswith(f"{VOTE}|"):  # what one sees of a vote depends on who one is
                    assert all(value == values[0] for value in values), key

    uvloop.run(scenario())


def test_an_open_replica_is_told_of_changes_of_others_once_a_turn_at_most() -> None:
    async def scenario() -> None:
        async with Cluster(2, None) as cluster:
            one, other = cluster.nodes
            activation = await other.open("counter")
            assert activation.replica is not None
            assert activation.replica.state is None
            await one.change("counter", GCOUNTER, lambda state: state.increment(3), Consistency.ALL)
            assert activation.told == ["changed"]
            assert activation.replica.state is not None
            assert activation.replica.state.value() == 3
            assert await activation.write() is None
            assert activation.told == ["changed"]

    uvloop.run(scenario())


def test_the_zero_of_a_type_is_something_when_it_is_written_and_nothing_when_not() -> None:
    async def scenario() -> None:
        async with Cluster(2, None) as cluster:
            one, other = cluster.nodes
            assert await one.change("written", GSET, lambda state: None, Consistency.ALL) is None
            assert await other.value("written") == set()
            unwritten = await one.open("unwritten")
            unwritten.state(GSET)
            unwritten.close()
            assert await one.value("unwritten") is None
            await cluster.converged()
            assert list(other.replicas.keys()) == ["written"]

    uvloop.run(scenario())


# --- consistency -----------------------------------------------------------------------------------------------------


def test_a_majority_suffices_for_majority_and_all_needs_all() -> None:
    async def scenario() -> None:
        async with Cluster(3, None, cables=True, crdt_write_timeout=0.3) as cluster:
            first = cluster.nodes[0]
            assert await first.change("a", GCOUNTER, State.increment, Consistency.ALL) is None
            assert await cluster.nodes[2].value("a") == 1
            await cluster.cut(0, 2)
            await until(lambda: sum(link.live for link in first.replicas.links.values()) == 1, "one is away")
            assert await first.change("a", GCOUNTER, State.increment, Consistency.MAJORITY) is None
            error = await first.change("a", GCOUNTER, State.increment, Consistency.ALL)
            assert error is not None
            assert error.status == Status.UNAVAILABLE
            assert error.text.startswith("Failed to update CRDT at requested write consistency")
            await cluster.cut(0, 1)
            await until(lambda: not any(link.live for link in first.replicas.links.values()), "both are away")
            assert await first.change("a", GCOUNTER, State.increment, Consistency.MAJORITY) is not None
            assert await first.change("a", GCOUNTER, State.increment, Consistency.LOCAL) is None
            assert first.replicas.quorums.timeouts == 2
            await cluster.mend(0, 1)
            await cluster.mend(0, 2)
            await cluster.connected()
            await cluster.converged()
            assert [await node.value("a") for node in cluster.nodes] == [5, 5, 5]

    uvloop.run(scenario())


def test_only_the_write_that_asked_for_too_much_fails() -> None:
    async def scenario() -> None:
        async with Cluster(2, None, cables=True, crdt_write_timeout=0.3) as cluster:
            await cluster.cut(0, 1)
            activation = await cluster.nodes[0].open("a")
            state = activation.state(GCOUNTER)
            state.increment()
            asked = activation.begin_write(Consistency.ALL)
            state.increment()
            assert await activation.write(Consistency.LOCAL) is None
            assert await asked is not None
            state.increment()
            assert await activation.write(Consistency.LOCAL) is None
            assert activation.told == []

    uvloop.run(scenario())


def test_a_write_that_waits_is_answered_when_the_peer_comes_back_in_time() -> None:
    async def scenario() -> None:
        async with Cluster(2, None, cables=True, crdt_write_timeout=8.0) as cluster:
            await cluster.cut(0, 1)
            one, other = cluster.nodes
            await until(lambda: not any(link.live for link in one.replicas.links.values()), "cut")
            activation = await one.open("a")
            activation.state(GCOUNTER).increment()
            asked = activation.begin_write(Consistency.ALL)
            await asyncio.sleep(0.1)
            assert not asked.done()
            await cluster.mend(0, 1)
            assert await asked is None
            assert await other.value("a") == 1

    uvloop.run(scenario())


def test_a_write_that_changes_nothing_waits_for_what_was_written_before() -> None:
    async def scenario() -> None:
        async with Cluster(2, None, cables=True, crdt_write_timeout=0.2) as cluster:
            activation = await cluster.nodes[0].open("a")
            activation.state(GCOUNTER).increment()
            assert await activation.write(Consistency.ALL) is None
            assert await activation.write(Consistency.ALL) is None
            await cluster.cut(0, 1)
            activation.state(GCOUNTER).increment()
            assert await activation.write() is None
            assert await activation.write(Consistency.ALL) is not None
            await cluster.mend(0, 1)
            await cluster.connected()
            await cluster.converged()
            assert await activation.write(Consistency.ALL) is None

    uvloop.run(scenario())


def test_a_node_alone_answers_every_consistency_at_once() -> None:
    async def scenario() -> None:
        node = await Node("memory:", 0, ()).start()
        for consistency in Consistency:
            assert await node.change("a", GCOUNTER, State.increment, consistency) is None
        assert await node.value("a") == 3
        await node.stop()

    uvloop.run(scenario())


def test_writes_of_a_closed_replica_go_on_and_are_not_answered() -> None:
    async def scenario() -> None:
        async with Cluster(2, None) as cluster:
            activation = await cluster.nodes[0].open("a")
            activation.state(GCOUNTER).increment()
            asked = activation.begin_write()
            activation.close()
            await cluster.converged()
            await until(lambda: "a" in set(cluster.nodes[1].replicas.keys()), "the write arrived")
            assert not asked.done()

    uvloop.run(scenario())


# --- deletion and clashes --------------------------------------------------------------------------------------------


def test_a_tombstone_absorbs_what_comes_later_everywhere_and_after_a_restart(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Cluster(2, tmp_path) as cluster:
            one, other = cluster.nodes
            await one.change("a", GCOUNTER, State.increment, Consistency.ALL)
            watching = await other.open("a")
            deleting = await one.open("a")
            assert await deleting.delete(Consistency.ALL) is None
            assert (watching.told, deleting.told) == (["deleted"], [])
            assert watching.replica is not None
            assert watching.replica.deleted
            assert await watching.write() is None  # too late, and nothing happens
            assert await watching.delete(Consistency.ALL) is None
            await cluster.converged()
            await one.stop()
            await one.start()
            assert await one.value("a") == "deleted"
            assert await other.value("never") is None

    uvloop.run(scenario())


def test_of_two_types_of_one_key_the_lower_wins_everywhere_and_the_loser_begins_anew() -> None:
    async def scenario() -> None:
        async with Cluster(2, None, cables=True) as cluster:
            one, other = cluster.nodes
            await cluster.cut(0, 1)
            counter, register = await one.open("a"), await other.open("a")
            counter.state(GCOUNTER).increment(7)
            register.state(LWWREGISTER).set(any_bytes("x"), 5)
            assert await counter.write() is None
            assert await register.write() is None
            await cluster.mend(0, 1)
            await cluster.connected()
            await cluster.converged()
            assert (counter.told, register.told) == ([], ["lost"])
            register.close()
            assert [await node.value("a") for node in (other,)] == [7]
            assert other.replicas.store.clashes >= 1

    uvloop.run(scenario())


# --- nodes come and go -----------------------------------------------------------------------------------------------


def test_a_joiner_gets_everything_with_tombstones_before_entities_open(tmp_path: Path) -> None:
    async def scenario() -> None:
        ports = [free_port(), free_port()]
        names = [f"127.0.0.1:{port}" for port in ports]
        one = await Node(f"lmdb:{tmp_path / 'one'}", ports[0], (names[1],)).start()
        add = partial(State.add, element=any_bytes("e"))
        await asyncio.gather(*(one.change(f"key-{number}", ORSET, add) for number in range(300)))
        gone = await one.open("key-7")
        await gone.delete()
        other = await Node(f"lmdb:{tmp_path / 'other'}", ports[1], (names[0],), crdt_read_timeout=8.0).start()
        assert await other.value("key-299") == {any_bytes("e")}
        assert await other.value("key-7") == "deleted"
        assert other.sums == one.sums
        assert one.replicas.figures.states == 300
        await asyncio.gather(one.stop(), other.stop())

    uvloop.run(scenario())


def test_entities_open_after_the_read_timeout_when_no_majority_is_there() -> None:
    async def scenario() -> None:
        node = await Node("memory:", free_port(), ("127.0.0.1:1",), crdt_read_timeout=0.2).start()
        start = asyncio.get_running_loop().time()
        assert await node.value("a") is None
        assert 0.15 <= asyncio.get_running_loop().time() - start < 2
        start = asyncio.get_running_loop().time()
        assert await node.value("b") is None
        assert asyncio.get_running_loop().time() - start < 0.15
        await node.stop()

    uvloop.run(scenario())


@pytest.mark.parametrize("cables", [False, True])
def test_the_part_of_a_departed_member_is_taken_over_and_its_changes_are_refused(cables: bool) -> None:
    async def scenario() -> None:
        async with Cluster(3, None, cables=cables) as cluster:
            leaver = cluster.nodes[2]
            gone = leaver.replicas.origin.replica
            for node in cluster.nodes:
                assert await node.change("a", PNCOUNTER, lambda state: state.increment(5), Consistency.ALL) is None
            await leaver.stop()
            error = await cluster.nodes[0].change("a", PNCOUNTER, lambda state: state.increment(1), Consistency.ALL)
            assert error is not None
            name = next(name for name in cluster.nodes[0].settings.peers if name not in live_names(cluster.nodes[0]))
            cluster.nodes[0].replicas.leave(name)
            stayers = cluster.nodes[:2]
            await until(lambda: all(len(n.replicas.membership.members()) == 2 for n in stayers), "it has left")
            for node in stayers:
                await until(lambda node=node: gone not in context(node, "a"), "its part was taken over")  # type: ignore[misc]
                assert await node.value("a") == 16
            assert await stayers[0].change("a", PNCOUNTER, State.increment, Consistency.ALL) is None
            await leaver.start()
            if not cables:  # the same identity would be refused; the one of a new journal in memory is somebody new
                await until(lambda: len(stayers[0].replicas.membership.members()) == 3, "somebody new is there")

    def context(node: Node, key: str) -> object:
        entry = node.replicas.store._entries.get(key)
        return entry.state.dump()[1] if entry is not None and entry.state is not None else {gone: 0 for gone in ()}

    def live_names(node: Node) -> set[str]:
        return {name for name, link in node.replicas.links.items() if link.live}

    uvloop.run(scenario())


def test_a_departed_member_with_its_old_journal_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Cluster(2, tmp_path) as cluster:
            one, other = cluster.nodes
            await other.change("a", GCOUNTER, State.increment, Consistency.ALL)
            await other.stop()
            one.replicas.leave(other.name)
            assert await one.change("a", GCOUNTER, State.increment, Consistency.ALL) is None
            await other.start()
            await other.change("a", GCOUNTER, lambda state: state.increment(100))
            await asyncio.sleep(0.5)
            assert await one.value("a") == 2
            assert not other.replicas.links[one.name].live

    uvloop.run(scenario())


def test_a_restart_of_all_nodes_keeps_everything_and_every_identity(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Cluster(3, tmp_path) as cluster:
            chance = random.Random(7)
            for number in range(200):
                node, kind = cluster.nodes[number % 3], chance.choice(KINDS)
                await node.change(f"{kind}", kind, partial(random_change, chance=chance))
            await cluster.converged()
            sums = cluster.nodes[0].sums
            identities = [node.replicas.origin.replica for node in cluster.nodes]
            await asyncio.gather(*(node.stop() for node in cluster.nodes))
            await asyncio.gather(*(node.start() for node in cluster.nodes))
            assert [node.replicas.origin.replica for node in cluster.nodes] == identities
            await until(lambda: all(node.replicas.indexed for node in cluster.nodes), "indexed")
            assert {node.sums for node in cluster.nodes} == {sums}
            await cluster.connected()
            for node in cluster.nodes:
                await node.change("1", GCOUNTER, State.increment)
            await cluster.converged()

    uvloop.run(scenario())


def test_a_journal_in_memory_or_not_flushed_makes_a_new_identity_at_each_start(tmp_path: Path) -> None:
    async def scenario() -> None:
        for journal, durability in (("memory:", "durable"), (f"lmdb:{tmp_path / 'relaxed'}", "relaxed")):
            node = await Node(journal, 0, (), durability=durability).start()
            before = node.replicas.origin
            await node.change("a", GCOUNTER, State.increment)
            await node.stop()
            await node.start()
            assert node.replicas.origin.replica != before.replica
            assert node.replicas.origin.incarnation != before.incarnation
            await node.change("a", GCOUNTER, State.increment)
            assert await node.value("a") == (1 if journal == "memory:" else 2)
            await node.stop()

    uvloop.run(scenario())


def test_votes_count_all_members_and_only_those_who_are_there_now() -> None:
    async def scenario() -> None:
        async with Cluster(3, None) as cluster:
            watching = await cluster.nodes[0].open("v")
            for node in cluster.nodes[1:]:
                await node.change("v", VOTE, lambda state: state.vote(True), Consistency.ALL)
            assert watching.state(VOTE).value() == (False, 2, 3)
            told = len(watching.told)
            cluster.nodes[0].replicas.leave(cluster.nodes[2].name)
            await until(lambda: watching.state(VOTE).value() == (False, 1, 2), "its vote is gone")
            if watching.state(VOTE).take_change() == b"":
                await until(lambda: len(watching.told) >= told, "told")

    uvloop.run(scenario())


# --- trouble ---------------------------------------------------------------------------------------------------------


def test_both_sides_of_a_partition_go_on_and_converge_when_it_heals(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Cluster(3, tmp_path, cables=True) as cluster:
            await cluster.cut(0, 1)
            await cluster.cut(0, 2)
            chance = random.Random(3)
            for number in range(150):
                node = cluster.nodes[number % 3]
                kind = chance.choice(KINDS)
                await node.change(f"{kind}", kind, lambda state: random_change(state, chance))
            assert cluster.nodes[0].sums != cluster.nodes[1].sums
            await cluster.mend(0, 1)
            await cluster.mend(0, 2)
            await cluster.connected()
            await cluster.converged()

    uvloop.run(scenario())


def test_a_queue_that_overflows_heals_by_an_exchange() -> None:
    async def scenario() -> None:
        async with Cluster(2, None, crdt_peer_buffer=65536) as cluster:
            one, other = cluster.nodes
            asked, early = [], list[str]()

            def check(key: str, asked: asyncio.Future[object]) -> None:
                if asked.result() is None and other.replicas.store.index.get(key) is None:
                    early.append(key)

            for number in range(2000):
                activation = await one.open(f"key-{number}")
                activation.state(GSET).add(any_bytes("e" * 60))
                asked.append(activation.begin_write(Consistency.ALL))
                asked[-1].add_done_callback(partial(check, activation.key))
            errors = await asyncio.gather(*asked)
            assert one.replicas.figures.overflows > 0
            assert early == []  # acknowledged, and not there
            assert one.replicas.quorums.timeouts == sum(error is not None for error in errors)
            await cluster.converged()
            assert len(list(other.replicas.keys())) == 2000

    uvloop.run(scenario())


def test_a_graceful_stop_gives_the_peers_what_is_unsent(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Cluster(2, tmp_path) as cluster:
            one, other = cluster.nodes
            activation = await one.open("a")
            for _ in range(500):
                activation.state(GCOUNTER).increment()
                activation.begin_write()
            await one.stop(grace=5.0)
            assert await other.value("a") == 500
            await one.start()

    uvloop.run(scenario())


def test_a_journal_that_refuses_costs_the_change_and_nothing_else(tmp_path: Path) -> None:
    import errno

    async def scenario() -> None:
        async with Cluster(2, tmp_path) as cluster:
            one, other = cluster.nodes
            activation = await one.open("a")
            activation.state(GCOUNTER).increment(5)
            assert await activation.write(Consistency.ALL) is None
            one.journal.log.fail_next_flush(errno.ENOSPC)  # type: ignore[attr-defined]
            activation.state(GCOUNTER).increment(7)
            error = await activation.write()
            assert error is not None
            assert error.status == Status.RESOURCE_EXHAUSTED
            assert activation.told == ["lost"]
            activation.close()
            await until(lambda: one.journal.writable, "the journal takes events again")
            again: Activation = await one.open("a")
            assert again.state(GCOUNTER).value() == 5
            again.state(GCOUNTER).increment()
            assert await again.write(Consistency.ALL) is None
            assert await other.value("a") == 6

    uvloop.run(scenario())


def test_no_state_is_left_behind() -> None:
    before = crdt.live_states()

    async def scenario() -> None:
        async with Cluster(2, None) as cluster:
            await cluster.nodes[0].change("a", GCOUNTER, State.increment, Consistency.ALL)

    uvloop.run(scenario())
    import gc

    gc.collect()
    assert crdt.live_states() <= before
