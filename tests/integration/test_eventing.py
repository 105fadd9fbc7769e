"""Consumers of event logs when something goes wrong: crashes on either side, events that nobody can handle, and
several groups (core 13.5, 13.6, D16, D30)."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from tck import eventlogeventing_pb2 as model

from stateside.journal.limits import APPEND_OFFSETS
from stateside.proto import pack

from .eventing_function import (
    LOG_ONE,
    SECOND,
    SUBSCRIBER,
    Delivery,
    EventingFunction,
    answer_as_model,
    emit,
    emit_json,
    emitted,
    event_one,
    event_two,
    eventing_spec,
    failure,
    json_any,
)
from .harness import Client, World, eventually
from .user_function import EntityStream, soon


@asynccontextmanager
async def started(folder: Path, second: bool = False, **settings: str) -> AsyncIterator[tuple[World, EventingFunction]]:
    """A world of the test's own."""
    user_function = EventingFunction(eventing_spec(second))
    async with World(folder, user_function=user_function, **settings) as world:
        yield world, user_function


async def emit_all(world: World, first: int, last: int) -> None:
    """Events with the texts first ... last, over three entities."""
    for number in range(first, last + 1):
        assert (await emit(world, f"key-{number % 3}", event_one(str(number)))).ok


def numbers(deliveries: list[Delivery]) -> list[int]:
    return [int(each.text) for each in deliveries]


def check_order(found: list[int], last: int, restarts: int) -> None:
    """1 ... last, in order and complete, but that each restart may go back to an event that was given before."""
    assert found[0] == 1 and set(found) == set(range(1, last + 1))
    jumps = [(number, following) for number, following in pairwise(found) if following != number + 1]
    assert all(following <= number for number, following in jumps)
    assert len(jumps) <= restarts


async def metric(world: World, name: str) -> float:
    _, text = await world.proxy.admin("/metrics")
    found = re.search(rf"^stateside_eventing_{name}_total (\S+)$", text, re.MULTILINE)
    assert found is not None
    return float(found[1])


async def until_metric(world: World, name: str, value: float) -> None:
    async def now() -> bool:
        return await metric(world, name) == value

    await eventually(now, f"{name} = {value:g}")


def stuck_at(text: str) -> Callable[[Delivery], Awaitable[None]]:
    """Behaviour: never answers the event with this text."""

    async def on_event(delivery: Delivery) -> None:
        if delivery.text == text:
            await asyncio.Event().wait()
        await answer_as_model(delivery)

    return on_event


# --- order -----------------------------------------------------------------------------------------------------------


async def test_events_come_one_at_a_time_in_the_order_of_the_journal(tmp_path: Path) -> None:
    async with started(tmp_path) as (world, user_function):
        under_way: list[str] = []

        async def on_event(delivery: Delivery) -> None:
            under_way.append(delivery.text)
            assert len(under_way) == 1
            await asyncio.sleep(0)
            await answer_as_model(delivery)
            under_way.clear()

        user_function.on_event = on_event
        await emit_all(world, 1, 30)
        found = await user_function.delivered(30)
        assert numbers(found) == list(range(1, 31))
        assert [each.subject for each in found[:3]] == ["key-1", "key-2", "key-0"]
        offsets = [each.offset for each in found]
        assert offsets == sorted(set(offsets))
        await until_metric(world, "handled", 30)


async def test_a_new_consumer_begins_with_the_first_event_of_the_log(tmp_path: Path) -> None:
    async with started(tmp_path) as (world, user_function):
        await emit_all(world, 1, 5)
        await user_function.delivered(5)
        await user_function.stop()
        user_function.spec = eventing_spec(second=True)
        await user_function.start()
        await user_function.until(lambda: len(user_function.of(SECOND)) == 5, "the second group's events")
        assert numbers(user_function.of(SECOND)) == [1, 2, 3, 4, 5]


async def test_groups_do_not_wait_for_each_other(tmp_path: Path) -> None:
    async with started(tmp_path, second=True) as (world, user_function):

        async def on_event(delivery: Delivery) -> None:
            if delivery.service == SECOND:
                await asyncio.Event().wait()
            await answer_as_model(delivery)

        user_function.on_event = on_event
        await emit_all(world, 1, 5)
        await user_function.until(lambda: len(user_function.of(SUBSCRIBER)) == 5, "the first group's events")
        assert numbers(user_function.of(SUBSCRIBER)) == [1, 2, 3, 4, 5]
        assert numbers(user_function.of(SECOND)) == [1]


async def test_the_logs_of_one_service_do_not_wait_for_each_other(tmp_path: Path) -> None:
    async with started(tmp_path) as (world, user_function):
        user_function.on_event = stuck_at("1")
        await emit_all(world, 1, 2)
        await emit_json(world, "key", "text")
        await user_function.until(
            lambda: [each.method for each in user_function.deliveries].count("ProcessAnyEvent") == 1, "the JSON event"
        )


async def test_an_entity_consumes_events_as_commands(tmp_path: Path) -> None:
    """EntityOne emits what EntityTwo takes as a command, and what that emits goes on to the action."""
    user_function = Chain(with_consuming_entity(eventing_spec()))
    async with World(tmp_path, user_function=user_function) as world:
        assert (await emit(world, "first", event_one("passed on"))).ok
        (delivery,) = await user_function.delivered(1)
        assert (delivery.method, delivery.subject) == ("ProcessAnyEvent", "second")
        assert delivery.payload == json_any("passed on")


class Chain(EventingFunction):
    """Its EntityOne emits the JsonEvent that EntityTwo is asked with."""

    async def _play_model(self, stream: EntityStream, init: Any) -> None:
        while (message := await stream.take()) is not None:
            answer = emitted(message.command)
            if message.command.name == "EmitEvent":
                answer.reply.events[0].CopyFrom(pack(model.JsonEvent(id="second", message="passed on")))
            await stream.send(answer)


def with_consuming_entity(spec: Any) -> Any:
    files = FileDescriptorSet.FromString(spec.proto)
    action, _, two = files.file[-1].service
    two.method[0].options.CopyFrom(action.method[0].options)
    spec.proto = files.SerializeToString()
    return spec


# --- restarts of the proxy -------------------------------------------------------------------------------------------


async def test_after_kill_9_events_go_on_in_order_and_none_is_lost(tmp_path: Path) -> None:
    async with started(tmp_path) as (world, user_function):
        await emit_all(world, 1, 30)
        await user_function.delivered(30)
        await world.restart_proxy()
        await emit_all(world, 31, 45)
        await user_function.until(lambda: numbers(user_function.deliveries)[-1:] == [45], "the last event")
        await world.restart_proxy()
        await emit_all(world, 46, 50)
        await user_function.until(lambda: numbers(user_function.deliveries)[-1:] == [50], "the last event")
        check_order(numbers(user_function.deliveries), 50, restarts=2)
        assert len(user_function.deliveries) < 30 + 45 + 50  # the offset was stored now and then


async def test_an_event_that_was_not_answered_before_kill_9_comes_again(tmp_path: Path) -> None:
    async with started(tmp_path) as (world, user_function):
        user_function.on_event = stuck_at("2")
        await emit_all(world, 1, 3)
        await user_function.delivered(2)
        await world.proxy.kill()
        user_function.on_event = answer_as_model
        await world.proxy.start()
        await user_function.until(lambda: numbers(user_function.deliveries)[-1:] == [3], "the last event")
        check_order(numbers(user_function.deliveries), 3, restarts=1)
        assert numbers(user_function.deliveries).count(2) == 2


async def test_kill_9_under_load_loses_no_acknowledged_event_and_no_order(tmp_path: Path) -> None:
    async with started(tmp_path) as (world, user_function):
        acknowledged: set[str] = set()

        async def emit_until_killed(key: str) -> None:
            number = 0
            while (await emit(world, key, event_one(f"{key}/{number}"))).ok:
                acknowledged.add(f"{key}/{number}")
                number += 1

        load = asyncio.gather(*(emit_until_killed(f"key-{number}") for number in range(8)))
        await user_function.delivered(150)
        await world.proxy.kill()
        await load
        before = len(user_function.deliveries)
        await world.proxy.start()
        await user_function.until(
            lambda: acknowledged <= {each.text for each in user_function.deliveries},
            "all acknowledged events",
            patience=30,
        )
        for part in (user_function.deliveries[:before], user_function.deliveries[before:]):
            offsets = [each.offset for each in part]
            assert offsets == sorted(set(offsets))
        assert user_function.deliveries[before].offset <= user_function.deliveries[before - 1].offset + APPEND_OFFSETS
        assert len({(each.offset, each.text) for each in user_function.deliveries}) == len(
            {each.offset for each in user_function.deliveries}
        )


async def test_a_proxy_that_ends_well_repeats_nothing(tmp_path: Path) -> None:
    async with started(tmp_path) as (world, user_function):
        await emit_all(world, 1, 7)
        await user_function.delivered(7)
        await until_metric(world, "handled", 7)
        assert await world.proxy.terminate() == 0
        await world.proxy.start()
        await world.client.close()
        world.client = Client(world.proxy.port)
        await emit_all(world, 8, 8)
        assert numbers(await user_function.delivered(8)) == [1, 2, 3, 4, 5, 6, 7, 8]


async def test_the_end_of_the_proxy_does_not_wait_for_an_event_for_ever_and_gives_it_again(tmp_path: Path) -> None:
    async with started(tmp_path) as (world, user_function):
        user_function.on_event = stuck_at("2")
        await emit_all(world, 1, 3)
        stuck = (await user_function.delivered(2))[1]
        assert await world.proxy.terminate() == 0
        await stuck.call.wait_reset()
        user_function.on_event = answer_as_model
        await world.proxy.start()
        assert numbers(await user_function.delivered(4)) == [1, 2, 2, 3]


# --- restarts of the user function -----------------------------------------------------------------------------------


async def test_a_user_function_that_went_away_with_an_event_is_given_it_again(tmp_path: Path) -> None:
    async with started(tmp_path) as (world, user_function):
        user_function.on_event = stuck_at("3")
        await emit_all(world, 1, 5)
        await user_function.delivered(3)
        await user_function.stop()
        user_function.on_event = answer_as_model
        await user_function.start()
        assert numbers(await user_function.delivered(6)) == [1, 2, 3, 3, 4, 5]


async def test_a_consumer_that_is_offered_no_longer_stops(tmp_path: Path) -> None:
    async with started(tmp_path, second=True) as (world, user_function):
        await emit_all(world, 1, 2)
        await user_function.delivered(4)
        await user_function.stop()
        user_function.spec = eventing_spec()
        await user_function.start()
        await world.discovered(2)
        await emit_all(world, 3, 3)
        await user_function.until(lambda: len(user_function.of(SUBSCRIBER)) == 3, "the first group's events")
        assert numbers(user_function.of(SECOND)) == [1, 2]


async def test_unavailable_is_tried_again_without_being_counted_against_the_event(tmp_path: Path) -> None:
    async with started(tmp_path, eventing_max_attempts="1") as (world, user_function):

        async def on_event(delivery: Delivery) -> None:
            if len(user_function.deliveries) <= 3:
                await delivery.call.context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
            await answer_as_model(delivery)

        user_function.on_event = on_event
        await emit_all(world, 1, 2)
        assert numbers(await user_function.delivered(5)) == [1, 1, 1, 1, 2]
        await until_metric(world, "handled", 2)
        assert await metric(world, "failed_deliveries") == 3
        assert await metric(world, "dead_letters") == 0


# --- events that cannot be handled -----------------------------------------------------------------------------------


async def test_an_event_that_always_fails_is_given_up_and_the_next_ones_follow(tmp_path: Path) -> None:
    async with started(tmp_path, eventing_max_attempts="3") as (world, user_function):

        async def on_event(delivery: Delivery) -> None:
            if delivery.text == "2":
                await delivery.call.send(failure("poison"))
            else:
                await answer_as_model(delivery)

        user_function.on_event = on_event
        await emit_all(world, 1, 3)
        found = await user_function.delivered(5)
        assert numbers(found) == [1, 2, 2, 2, 3]
        assert len({each.offset for each in found[1:4]}) == 1
        await until_metric(world, "handled", 2)
        assert await metric(world, "dead_letters") == 1
        assert await metric(world, "failed_deliveries") == 3
        await user_function.report_about("eventlogeventing-one|key-2", "skipped", "poison")
        (line,) = [line for line in world.proxy.log.splitlines() if "event given up" in line]
        said = json.loads(line)
        assert (said["event_log"], said["entity"], said["sequence"]) == (LOG_ONE, f"{LOG_ONE}|key-2", 1)
        assert (said["offset"], said["attempts"]) == (found[1].offset, 3)
        assert (said["status"], said["reason"]) == ("UNKNOWN", "poison")


async def test_a_failure_that_passes_costs_nothing_but_time(tmp_path: Path) -> None:
    async with started(tmp_path) as (world, user_function):

        async def on_event(delivery: Delivery) -> None:
            if len(user_function.deliveries) <= 2:
                await delivery.call.send(failure("not yet"))
            else:
                await answer_as_model(delivery)

        user_function.on_event = on_event
        await emit_all(world, 1, 2)
        assert numbers(await user_function.delivered(4)) == [1, 1, 1, 2]
        await until_metric(world, "handled", 2)
        assert await metric(world, "dead_letters") == 0


async def test_an_event_that_no_method_takes_is_given_up_at_once(tmp_path: Path) -> None:
    user_function = EventingFunction(without_event_two(eventing_spec()))
    async with World(tmp_path, user_function=user_function) as world:
        assert (await emit(world, "key", event_two("nobody takes this"))).ok
        await emit_all(world, 1, 1)
        assert numbers(await user_function.delivered(1)) == [1]
        assert await metric(world, "dead_letters") == 1
        await user_function.report_about("eventlogeventing-one|key", "no method", "EventTwo")


def without_event_two(spec: Any) -> Any:
    """The spec, with nobody who consumes EventTwo."""
    files = FileDescriptorSet.FromString(spec.proto)
    for method in files.file[-1].service[0].method:
        if method.name == "ProcessEventTwo":
            method.ClearField("options")
    spec.proto = files.SerializeToString()
    return spec


async def test_a_call_that_is_never_answered_holds_up_its_consumer_but_no_client(tmp_path: Path) -> None:
    async with started(tmp_path) as (world, user_function):
        user_function.on_event = stuck_at("1")
        await emit_all(world, 1, 3)
        await user_function.delivered(1)
        assert (await soon(emit(world, "another", event_one("4")), "an answer")).ok
        assert numbers(user_function.deliveries) == [1]
