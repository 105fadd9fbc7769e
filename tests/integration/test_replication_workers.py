"""Nodes of several workers that replicate to each other: a worker with its counterparts, over its part of the keys."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
import uvloop

from stateside._speedups.crdt import GCOUNTER, ORSET, VOTE, State
from stateside.journal.contract import Durability
from stateside.journal.layout import JournalFolder
from stateside.journal.memory import MemoryJournal
from stateside.proxy import peer_link
from stateside.proxy.peer_messages import Left
from stateside.proxy.place import ALONE
from stateside.proxy.replicas import Consistency
from stateside.proxy.replication import Replication
from tests.helpers.machines import Machine, connected, converged, free_ports, place_of
from tests.helpers.nodes import Node, until

KEYS = [f"counters|{number}" for number in range(40)]
IDENTITIES = (11, 22, 33)


def with_machines(
    folder: Path, scenario: Callable[..., Awaitable[None]], count: int = 2, workers: int = 2, **settings: object
) -> None:
    """Run the scenario with nodes that know each other."""

    async def run() -> None:
        ports = [free_ports(workers) for _ in range(count)]
        names = tuple(f"127.0.0.1:{port}" for port in ports)
        machines = [
            Machine(folder / str(number), port, names, workers, IDENTITIES[number], peer_name=name, **settings)
            for number, (port, name) in enumerate(zip(ports, names, strict=True))
        ]
        await asyncio.gather(*(machine.start() for machine in machines))
        try:
            await connected(*machines)
            await scenario(*machines)
        finally:
            await asyncio.gather(*(machine.stop() for machine in machines))

    uvloop.run(run())


def test_deltas_come_to_the_worker_that_has_the_key_and_to_no_other(tmp_path: Path) -> None:
    async def scenario(one: Machine, other: Machine) -> None:
        for number, key in enumerate(KEYS):
            assert await (one, other)[number % 2].change(key, GCOUNTER, State.increment, Consistency.ALL) is None
        await converged(one, other)
        for machine in (one, other):
            parts = [set(worker.replicas.keys()) for worker in machine.workers]
            assert all(parts)
            assert not parts[0] & parts[1]
            assert parts[0] | parts[1] == set(KEYS)
            assert [await machine.value(key) for key in KEYS] == [1] * len(KEYS)

    with_machines(tmp_path, scenario)


def test_all_workers_of_a_node_are_one_replica(tmp_path: Path) -> None:
    async def scenario(one: Machine, other: Machine) -> None:
        for worker in other.workers:
            (member,) = worker.replicas.membership.others.values()
            assert (member.name, member.replica) == (one.name, IDENTITIES[0])
        incarnations = {worker.replicas.origin.incarnation for worker in one.workers}
        assert len(incarnations) == 2

    with_machines(tmp_path, scenario)


def test_votes_count_nodes_and_not_workers(tmp_path: Path) -> None:
    async def scenario(one: Machine, other: Machine) -> None:
        for key in KEYS[:6]:
            assert await one.change(key, VOTE, lambda state: state.vote(True), Consistency.ALL) is None
            assert await other.value(key) == (False, 1, 2)

    with_machines(tmp_path, scenario)


def test_a_worker_that_was_away_catches_up_with_its_part_and_quorums_of_its_keys_wait_for_it_alone(
    tmp_path: Path,
) -> None:
    async def scenario(one: Machine, other: Machine) -> None:
        lost = other.workers[1]
        (theirs, *_) = (key for key in KEYS if one.worker(key) is one.workers[1])
        (ours, *_) = (key for key in KEYS if one.worker(key) is one.workers[0])
        assert await one.change(theirs, GCOUNTER, State.increment, Consistency.ALL) is None
        await lost.stop()
        await until(lambda: not one.workers[1].replicas.links[other.name].live, "its counterpart noticed")
        assert await one.change(ours, GCOUNTER, State.increment, Consistency.ALL) is None
        error = await one.change(theirs, GCOUNTER, State.increment, Consistency.ALL)
        assert error is not None
        assert error.text.startswith("Failed to update CRDT at requested write consistency")
        await lost.start()
        assert await lost.value(theirs) == 2
        await connected(one, other)
        assert await one.change(theirs, GCOUNTER, State.increment, Consistency.ALL) is None
        assert await other.value(theirs) == 3

    with_machines(tmp_path, scenario, crdt_write_timeout=0.3)


def test_random_changes_with_workers_that_stop_and_start_converge_and_count_once(tmp_path: Path) -> None:
    chance = random.Random(3)

    async def scenario(*machines: Machine) -> None:
        expected = dict.fromkeys(KEYS[:8], 0)
        for turn in range(240):
            machine, key = chance.choice(machines), chance.choice(KEYS[:8])
            assert await machine.change(key, GCOUNTER, State.increment) is None
            expected[key] += 1
            if turn % 60 == 30:
                worker = chance.choice(machine.workers)
                await worker.stop()
                await worker.start()
        await converged(*machines)
        for machine in machines:
            assert {key: await machine.value(key) for key in expected} == expected

    with_machines(tmp_path, scenario, count=3)


# --- members that leave ----------------------------------------------------------------------------------------------


def test_a_node_that_left_is_pruned_by_each_worker(tmp_path: Path) -> None:
    async def scenario(one: Machine, two: Machine, three: Machine) -> None:
        for key in KEYS:
            assert await three.change(key, GCOUNTER, State.increment, Consistency.ALL) is None
        await three.stop()
        for worker in one.workers:  # as the supervisor does with /peers/leave
            worker.replicas.leave(three.name)
        for machine in (one, two):
            for worker in machine.workers:
                await until(lambda worker=worker: not names(worker, IDENTITIES[2]), "its part was taken over")
        assert [await two.value(key) for key in KEYS] == [1] * len(KEYS)
        await three.start()
        for worker in three.workers:
            link = worker.replicas.links[one.name]
            await until(lambda link=link: link.refused, "it is refused")

    def names(worker: Node, replica: int) -> bool:
        entries = worker.replicas.store._entries.values()
        return any(entry.state is not None and entry.state.names(replica) for entry in entries)

    with_machines(tmp_path, scenario, count=3)


# --- what does not fit -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("workers", "shards", "said"),
    [
        (1, 1024, "has 1 worker and 1024 shards"),
        (3, 1024, "has 3 workers and 1024 shards"),
        (2, 512, "has 2 workers and 512 shards"),
    ],
)
def test_nodes_with_other_workers_or_shards_refuse_each_other_and_say_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, shards: int, said: str
) -> None:
    logged: list[dict[str, str]] = []
    monkeypatch.setattr(peer_link, "BACKOFF_S", (0.01, 0.02))
    monkeypatch.setattr("stateside.proxy.replication.log.warning", lambda text, **about: logged.append(about))

    async def run() -> None:
        ports = free_ports(2), free_ports(workers)
        names = tuple(f"127.0.0.1:{port}" for port in ports)
        one = Machine(tmp_path / "one", ports[0], names, 2, 11)
        other = Machine(tmp_path / "other", ports[1], names, workers, 22, number_of_shards=shards)
        await one.start()
        await other.start()
        link = one.workers[0].replicas.links[other.name]
        await until(lambda: link.refused, "they refuse each other")
        assert f"{one.name} has 2 workers and 1024 shards" in link._trouble
        assert f"{other.name} {said}" in link._trouble
        assert "set `workers` and `number_of_shards` alike on all nodes" in link._trouble
        await until(lambda: other.workers[0].replicas.figures.errors > 5, "it comes again and again")
        assert len([about for about in logged if about["peer"] == one.name]) <= workers
        assert await one.change(KEYS[0], GCOUNTER, State.increment) is None
        assert not any(worker.replicas.store.index.count for worker in other.workers)
        await one.stop()
        await other.stop()

    uvloop.run(run())


def test_a_peer_whose_port_is_that_of_another_worker_is_refused(tmp_path: Path) -> None:
    async def run() -> None:
        port = free_ports(4)
        one = await Machine(tmp_path / "one", port, (f"127.0.0.1:{port + 3}",), 2, 11).start()
        other = await Machine(tmp_path / "other", port + 2, (), 2, 22).start()
        (link,) = one.workers[0].replicas.links.values()
        await until(lambda: link.refused, "it is refused")
        assert f"worker-0 of 127.0.0.1:{port} and worker-1 of 127.0.0.1:{port + 2} have met" in link._trouble
        await one.stop()
        await other.stop()

    uvloop.run(run())


def test_one_worker_need_not_have_the_same_number_of_shards(tmp_path: Path) -> None:
    async def run() -> None:
        ports = free_ports(1), free_ports(1)
        names = tuple(f"127.0.0.1:{port}" for port in ports)
        one = await Machine(tmp_path / "one", ports[0], names, 1, 11).start()
        other = await Machine(tmp_path / "other", ports[1], names, 1, 22, number_of_shards=64).start()
        await connected(one, other)
        assert await one.change(KEYS[0], ORSET, lambda state: state.add(b"\x0a\x01t"), Consistency.ALL) is None
        await one.stop()
        await other.stop()

    uvloop.run(run())


# --- another number of workers ---------------------------------------------------------------------------------------


def test_states_go_on_and_are_counted_once_when_the_number_of_workers_changes(tmp_path: Path) -> None:
    chance = random.Random(5)

    async def run() -> None:
        ports = [free_ports(4) for _ in range(2)]
        names = tuple(f"127.0.0.1:{port}" for port in ports)
        expected, seen = dict.fromkeys(KEYS[:10], 0), set[bytes]()
        for workers in (1, 2, 4, 1):
            folders = [JournalFolder.open(tmp_path / str(number), workers, 1024) for number in range(2)]
            machines = [
                Machine(folder.path, port, names, workers, folder.replica, peer_name=name)
                for folder, port, name in zip(folders, ports, names, strict=True)
            ]
            await asyncio.gather(*(machine.start() for machine in machines))
            for machine in machines:
                assert [await machine.value(key) for key in expected] == [value or None for value in expected.values()]
            for _ in range(50):
                key = chance.choice(list(expected))
                assert await chance.choice(machines).change(key, GCOUNTER, State.increment) is None
                expected[key] += 1
            for machine in machines:
                assert await machine.change("set", ORSET, partial(State.add, element=element(workers))) is None
            await converged(*machines)
            seen.add(element(workers))
            assert await machines[1].value("set") == seen
            for machine, folder in zip(machines, folders, strict=True):
                assert {worker.replicas.origin.replica for worker in machine.workers} == {folder.replica}
                await machine.stop()
                folder.close()

    uvloop.run(run())


def element(number: int) -> bytes:
    return b"\x0a\x01t\x12\x01" + str(number).encode()


def test_new_workers_know_who_has_left_before_they_were_there(tmp_path: Path) -> None:
    async def run() -> None:
        for workers in (1, 3, 2, 3):
            with JournalFolder.open(tmp_path, workers, 1024) as folder:
                machine = await Machine(tmp_path, free_ports(workers), (), workers, folder.replica).start()
                if workers == 1:
                    machine.workers[0].replicas.on_left(Left(77, "gone:1"))
                assert [worker.replicas.departed for worker in machine.workers] == [{77}] * workers
                await machine.stop()

    uvloop.run(run())


# --- identities ------------------------------------------------------------------------------------------------------


class SharedJournal(MemoryJournal):
    """One store for all workers of a node, that lasts."""

    is_shared = True

    def __init__(self) -> None:
        super().__init__()
        self.durability = Durability.DURABLE


def test_workers_that_share_a_store_make_one_identity_among_them_and_keep_their_own_records() -> None:
    async def run() -> None:
        journal = SharedJournal()
        await journal.open()
        settings = Node("lmdb:as-if", free_ports(3), ()).settings

        async def started() -> list[Replication]:
            workers = [Replication(settings, journal, place_of(index, 3, 0)) for index in range(3)]
            await asyncio.gather(*(worker.start() for worker in workers))
            return workers

        workers = await started()
        (identity,) = {worker.origin.replica for worker in workers}
        for worker in workers:
            worker.on_left(Left(77, "gone:1"))
        for worker in workers:
            await worker.close_all()
        again = await started()
        assert {worker.origin.replica for worker in again} == {identity}
        assert all(worker.departed == {77} for worker in again)
        for worker in again:
            await worker.close_all()

    uvloop.run(run())


def test_a_worker_looks_only_after_its_own_keys_of_a_shared_store() -> None:
    async def run() -> None:
        journal = SharedJournal()
        await journal.open()
        port = free_ports(2)
        alone = Replication(Node("lmdb:as-if", port, ()).settings, journal, ALONE)
        await alone.start()
        node = Node("lmdb:as-if", port, ())
        node.replicas = alone
        for key in KEYS:
            await node.change(key, GCOUNTER, State.increment)
        await alone.close_all()
        workers = [Replication(node.settings, journal, place_of(index, 2, 0)) for index in range(2)]
        for worker in workers:
            await worker.start()
        await until(lambda: all(worker.indexed for worker in workers), "all keys were read")
        parts = [set(worker.keys()) for worker in workers]
        assert all(parts)
        assert not parts[0] & parts[1]
        assert parts[0] | parts[1] == set(KEYS)
        assert {worker.origin.replica for worker in workers} == {alone.origin.replica}
        for worker in workers:
            await worker.close_all()

    uvloop.run(run())


def test_the_identity_that_a_node_is_given_takes_the_place_of_the_one_in_its_journal(tmp_path: Path) -> None:
    async def run() -> None:
        def node(replica: int) -> Node:
            return Node(f"lmdb:{tmp_path}", 0, (), place_of(0, 1, replica))

        first = await node(0).start()
        await first.change(KEYS[0], GCOUNTER, partial(State.increment, amount=2))
        await first.stop()
        given = await node(11).start()
        assert given.replicas.origin.replica == 11
        await given.change(KEYS[0], GCOUNTER, State.increment)
        assert await given.value(KEYS[0]) == 3
        await given.stop()
        last = await node(0).start()
        assert last.replicas.origin.replica == 11
        await last.stop()

    uvloop.run(run())
