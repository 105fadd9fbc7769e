"""The TCK's event sourced scenarios through the proxy: every message compared in full, and nothing besides."""

from __future__ import annotations

from typing import Any

from .harness import World, ok, unknown
from .messages import (
    CONFIGURED,
    MODEL,
    TWO,
    command,
    effect_on,
    emit,
    event,
    fail,
    forward_to,
    init,
)
from .user_function import EntityStream, a_key

SETTINGS = {"journal": "memory:"}


def only_stream(world: World, key: str) -> EntityStream:
    (stream,) = world.user_function.streams_of(key)
    return stream


async def test_the_state_grows_on_one_stream_with_ids_from_one(world: World) -> None:
    key = a_key()
    steps: list[tuple[list[Any], str]] = [
        ([], ""),
        ([emit("A")], "A"),
        ([emit("B"), emit("C"), emit("D")], "ABCD"),
        ([emit("E")], "ABCDE"),
        ([emit("F"), emit("G"), emit("H"), emit("I")], "ABCDEFGHI"),
        ([emit("J"), emit("K")], "ABCDEFGHIJK"),
    ]
    for actions, state in steps:
        assert await world.client.ask(key, *actions) == ok(state)
    commands = [command(number, key, *actions) for number, (actions, _) in enumerate(steps, 1)]
    assert only_stream(world, key).received == [init(key), *commands]


async def test_forwards_and_effects_reach_the_other_entity_on_one_stream(world: World) -> None:
    key, other = a_key(), a_key()
    assert await world.client.ask(key, emit("one")) == ok("one")
    assert await world.client.ask(key, forward_to(other)) == ok()
    assert await world.client.ask(key, effect_on(other)) == ok("one")
    assert await world.client.ask(key) == ok("one")
    two = only_stream(world, other)
    await world.user_function.until(lambda: len(two.received) == 3, "the effect")
    assert two.received == [init(other, TWO), command(1, other, service=TWO), command(2, other, service=TWO)]
    assert only_stream(world, key).received == [
        init(key),
        command(1, key, emit("one")),
        command(2, key, forward_to(other)),
        command(3, key, effect_on(other)),
        command(4, key),
    ]


async def test_a_failure_after_events_replays_on_a_new_stream_before_the_next_command(world: World) -> None:
    key = a_key()
    for value, state in zip("123", ("1", "12", "123"), strict=True):
        assert await world.client.ask(key, emit(value)) == ok(state)
    assert await world.client.ask(key, fail("expected failure")) == unknown("expected failure")
    assert await world.client.ask(key) == ok("123")
    failing = [emit("4"), fail("another failure"), emit("5")]
    assert await world.client.ask(key, *failing) == unknown("another failure")

    streams = world.user_function.streams_of(key)
    await world.user_function.until(lambda: len(streams) == 2, "a new stream without a new command")
    first, second = streams
    await first.wait_over()
    assert not first.reset.is_set()
    values = [command(number, key, emit(value)) for number, value in enumerate("123", 1)]
    others = [command(4, key, fail("expected failure")), command(5, key), command(6, key, *failing)]
    assert first.received == [init(key), *values, *others]

    assert await world.client.ask(key, emit("4"), emit("5")) == ok("12345")
    replayed = [event(1, "1"), event(2, "2"), event(3, "3")]
    assert second.received == [init(key), *replayed, command(1, key, emit("4"), emit("5"))]


async def test_a_passivation_timeout_of_100_ms_ends_both_sides_of_the_stream(world: World) -> None:
    key = a_key()
    assert await world.client.ask(key, service=CONFIGURED) == ok()
    stream = only_stream(world, key)
    await stream.wait_half_closed()
    await stream.wait_over()
    assert not stream.reset.is_set()
    assert stream.received == [init(key, CONFIGURED), command(1, key, service=CONFIGURED)]


async def test_a_snapshot_is_replayed_in_place_of_the_events_it_covers(world: World) -> None:
    key = a_key()
    for value in "ABCDEFG":
        assert (await world.client.ask(key, emit(value))).ok
    await world.client.ask(key, emit("x"), fail("restart"))
    streams = world.user_function.streams_of(key)
    await world.user_function.until(lambda: len(streams) == 2, "a new stream")
    assert await world.client.ask(key) == ok("ABCDEFG")
    assert streams[1].received == [init(key, MODEL, "ABCDE", 5), event(6, "F"), event(7, "G"), command(1, key)]


async def test_all_that_asks_only_once_to_discover(world: World) -> None:
    (info,) = world.user_function.discovered
    assert (info.protocol_major_version, info.protocol_minor_version) == (0, 2)
    assert "cloudstate.eventsourced.EventSourced" in info.supported_entity_types
    assert info.proxy_name and info.proxy_version
    assert world.user_function.reports == []
