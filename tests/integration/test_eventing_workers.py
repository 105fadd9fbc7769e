"""Consumers of event logs when the proxy has several workers: each event by one of them, those of an entity in order,
none lost when a worker is killed or when there are more or fewer workers than before."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from pathlib import Path

from stateside.journal.sharding import EntityShards, owners_among
from tests.helpers.postgres import PostgresServer

from .eventing_function import LOG_ONE, Delivery, EventingFunction, emit, event_one, json_any
from .harness import Client, World
from .test_eventing import Chain, eventing_spec, with_consuming_entity
from .workers import SHARDS, figure, in_time, kill, replaced, until_ready

KEYS = [f"key-{number}" for number in range(8)]


def owner_of(key: str, workers: int = 2) -> int:
    shard = EntityShards(SHARDS).shard(f"{LOG_ONE}|{key}")
    assert shard is not None
    return owners_among(workers, SHARDS)[shard]


@asynccontextmanager
async def started(folder: Path, workers: int = 2, **settings: str) -> AsyncIterator[tuple[World, EventingFunction]]:
    user_function = EventingFunction()
    async with World(folder, user_function=user_function, workers=str(workers), **settings) as world:
        yield world, user_function


async def emit_all(world: World, first: int, last: int) -> None:
    """Events with the texts first ... last for each key."""
    for number in range(first, last + 1):
        said = await asyncio.gather(*(emit(world, key, event_one(str(number))) for key in KEYS))
        assert all(each.ok for each in said), said


def by_entity(deliveries: Sequence[Delivery]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for each in deliveries:
        assert int(each.text) == each.sequence
        found.setdefault(each.subject, []).append(each.sequence)
    return found


def each_once(last: int) -> dict[str, list[int]]:
    return {key: list(range(1, last + 1)) for key in KEYS}


async def all_delivered(user_function: EventingFunction, last: int) -> None:
    wanted = {(key, number) for key in KEYS for number in range(1, last + 1)}

    async def now() -> bool:
        return wanted <= {(each.subject, each.sequence) for each in user_function.deliveries}

    await in_time(now, f"the events 1 to {last} of all entities")


async def delivered(user_function: EventingFunction, count: int) -> None:
    async def now() -> bool:
        return len(user_function.deliveries) >= count

    await in_time(now, f"{count} events")


async def handled(world: World, count: float, workers: int = 2) -> None:
    async def now() -> bool:
        figures = [await figure(world.proxy, "stateside_eventing_handled_total", worker=str(n)) for n in range(workers)]
        return sum(figures) == count

    await in_time(now, f"{count} events were handled")


async def restart(world: World, workers: int) -> None:
    assert await world.proxy.terminate() == 0
    world.proxy.settings["workers"] = str(workers)
    await world.proxy.start()
    await world.client.close()
    world.client = Client(world.proxy.port)


async def test_each_event_is_handled_by_one_worker_and_those_of_an_entity_in_their_order(tmp_path: Path) -> None:
    async with started(tmp_path) as (world, user_function):
        await emit_all(world, 1, 10)
        await all_delivered(user_function, 10)
        await handled(world, 10 * len(KEYS))
        assert by_entity(user_function.deliveries) == each_once(10)
        ids = [each.event_id for each in user_function.deliveries]
        assert len(set(ids)) == len(ids)
        for each in user_function.deliveries:
            assert each.event_id.startswith(f"worker-{owner_of(each.subject)}/")
        for worker in (0, 1):
            share = sum(owner_of(key) == worker for key in KEYS)
            assert await figure(world.proxy, "stateside_eventing_handled_total", worker=str(worker)) == 10 * share


async def test_an_entity_of_any_worker_consumes_events_of_any_other(tmp_path: Path) -> None:
    """EntityOne emits what EntityTwo takes as a command, and what that emits goes on to the action."""
    user_function = Chain(with_consuming_entity(eventing_spec()))
    async with World(tmp_path, user_function=user_function, workers="2") as world:
        for key in KEYS:
            assert (await emit(world, key, event_one("passed on"))).ok
        found = await user_function.delivered(len(KEYS))
        assert {(each.method, each.subject) for each in found} == {("ProcessAnyEvent", "second")}
        assert [each.sequence for each in found] == list(range(1, len(KEYS) + 1))
        assert all(each.payload == json_any("passed on") for each in found)


async def test_kill_9_of_a_worker_loses_no_event_and_no_order_and_does_not_disturb_the_other(tmp_path: Path) -> None:
    async with started(tmp_path) as (world, user_function), AsyncExitStack() as stack:
        acknowledged: list[tuple[str, str]] = []
        stop = asyncio.Event()

        async def emit_on(key: str) -> None:
            client = Client(world.proxy.port)
            stack.push_async_callback(client.close)
            own = World(world.folder, user_function=user_function)
            own.client = client
            number = 0
            while not stop.is_set():
                number += 1
                if (await emit(own, key, event_one(f"{key}/{number}"))).ok:
                    acknowledged.append((key, f"{key}/{number}"))

        load = asyncio.gather(*(emit_on(key) for key in KEYS))
        await delivered(user_function, 120)
        pid = kill(world.proxy, "worker-1")
        await replaced(world.proxy, "worker-1", pid)
        await until_ready(world.proxy)
        before = len(user_function.deliveries)
        await delivered(user_function, before + 120)
        stop.set()
        await load

        async def all_acknowledged() -> bool:
            return set(acknowledged) <= {(each.subject, each.text) for each in user_function.deliveries}

        await in_time(all_acknowledged, "all acknowledged events")
        for key in KEYS:
            found = [each.sequence for each in user_function.deliveries if each.subject == key]
            check_order(found, restarts=owner_of(key) == 1)


def check_order(found: list[int], restarts: int) -> None:
    """1, 2, 3 ... but that each restart may go back to an event that was given before."""
    assert found[0] == 1
    jumps = [(number, following) for number, following in pairwise(found) if following != number + 1]
    assert all(following <= number for number, following in jumps), jumps
    assert len(jumps) <= restarts, jumps


async def test_a_change_of_the_number_of_workers_repeats_nothing_and_loses_nothing(tmp_path: Path) -> None:
    async with started(tmp_path, workers=1) as (world, user_function):
        last = 0
        for workers in (3, 1):
            await emit_all(world, last + 1, last + 6)
            last += 6
            await all_delivered(user_function, last)
            await restart(world, workers)
        await emit_all(world, last + 1, last + 1)
        await all_delivered(user_function, last + 1)
        assert by_entity(user_function.deliveries) == each_once(last + 1)


async def test_what_was_not_handled_before_the_number_of_workers_changed_is_handled_after_it(tmp_path: Path) -> None:
    async with started(tmp_path, workers=2) as (world, user_function):
        await emit_all(world, 1, 3)
        await all_delivered(user_function, 3)
        await handled(world, 3 * len(KEYS))
        answer, stuck = user_function.on_event, asyncio.Event()

        async def never(delivery: Delivery) -> None:
            await stuck.wait()

        user_function.on_event = never
        await emit_all(world, 4, 6)
        await user_function.until(lambda: len(user_function.deliveries) >= 3 * len(KEYS) + 2, "both workers are stuck")
        stuck_at = {(each.subject, each.sequence) for each in user_function.deliveries[3 * len(KEYS) :]}
        user_function.on_event = answer
        await restart(world, 3)
        await all_delivered(user_function, 6)
        counts = Counter((each.subject, each.sequence) for each in user_function.deliveries)
        assert {event for event, count in counts.items() if count > 1} <= stuck_at
        stuck.set()


async def test_workers_on_one_postgres_share_a_consumer_and_its_offset(tmp_path: Path) -> None:
    server = PostgresServer().start()
    try:
        async with started(tmp_path, journal=server.dsn) as (world, user_function):
            last = 0
            for workers in (3,):
                await emit_all(world, last + 1, last + 3)
                last += 3
                await all_delivered(user_function, last)
                await restart(world, workers)
            await emit_all(world, last + 1, last + 1)
            await all_delivered(user_function, last + 1)
            assert by_entity(user_function.deliveries) == each_once(last + 1)
            ids = [each.offset for each in user_function.deliveries]
            assert ids == sorted(set(ids))
    finally:
        server.remove()
