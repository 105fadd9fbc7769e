"""The TCK's value entity scenarios through the proxy (support.md D5 19-23): every message compared in full, and
nothing besides."""

from __future__ import annotations

from typing import Any

from .harness import Outcome, World, ok, unknown
from .http_client import JSON, HttpConnection
from .messages import VALUE_CONFIGURED, VALUE_ENTITY, VALUE_MODEL, VALUE_TWO, value_init
from .messages import command as any_command
from .user_function import EntityStream, a_key
from .value_function import ValueFunction
from .value_messages import delete, effect_on, fail, forward_to, update

SETTINGS = {"journal": "memory:"}
USER_FUNCTION = ValueFunction


async def ask(world: World, key: str, *actions: Any) -> Outcome:
    return await world.client.ask(key, *actions, service=VALUE_MODEL)


def command(number: int, key: str, *actions: Any) -> Any:
    return any_command(number, key, *actions, service=VALUE_MODEL)


def only_stream(world: World, key: str) -> EntityStream:
    (stream,) = world.user_function.streams_of(key)
    return stream


async def test_discovery_offers_value_entities(world: World) -> None:
    (info,) = world.user_function.discovered
    assert VALUE_ENTITY in info.supported_entity_types
    assert world.user_function.reports == []


async def test_19_the_state_follows_updates_and_deletions_on_one_stream_with_ids_from_one(world: World) -> None:
    key = a_key()
    steps: list[tuple[list[Any], str]] = [
        ([], ""),
        ([update("one")], "one"),
        ([update("two")], "two"),
        ([], "two"),
        ([delete()], ""),
        ([], ""),
        ([update("foo")], "foo"),
        ([delete()], ""),
    ]
    for actions, state in steps:
        assert await ask(world, key, *actions) == ok(state)
    commands = [command(number, key, *actions) for number, (actions, _) in enumerate(steps, 1)]
    assert only_stream(world, key).received == [value_init(key), *commands]


async def test_20_forwards_and_effects_reach_the_other_entity_on_one_stream(world: World) -> None:
    key, other = a_key(), a_key()
    assert await ask(world, key, update("one")) == ok("one")
    assert await ask(world, key, forward_to(other)) == ok()
    assert await ask(world, key, effect_on(other)) == ok("one")
    assert await ask(world, key) == ok("one")
    two = only_stream(world, other)
    await world.user_function.until(lambda: len(two.received) == 3, "the effect")
    calls = [any_command(number, other, service=VALUE_TWO) for number in (1, 2)]
    assert two.received == [value_init(other, VALUE_TWO), *calls]
    assert only_stream(world, key).received == [
        value_init(key),
        command(1, key, update("one")),
        command(2, key, forward_to(other)),
        command(3, key, effect_on(other)),
        command(4, key),
    ]


async def test_21_a_failure_is_an_error_with_its_text_and_the_stream_goes_on(world: World) -> None:
    key = a_key()
    assert await ask(world, key, update("one")) == ok("one")
    assert await ask(world, key, fail("expected failure")) == unknown("expected failure")
    assert await ask(world, key) == ok("one")
    assert only_stream(world, key).received == [
        value_init(key),
        command(1, key, update("one")),
        command(2, key, fail("expected failure")),
        command(3, key),
    ]


async def test_22_http(world: World) -> None:
    key = a_key()
    async with HttpConnection(world.proxy.port) as http:
        answer = await http.ask("POST", f"/{VALUE_TWO}/Call", f'{{"id": "{a_key()}"}}')
        assert (answer.status, answer.headers["content-type"], answer.text) == (200, JSON, '{"message":""}')
        for body, status, text in (
            ("{}", 200, '{"message":""}'),
            ('{"actions": [{"update": {"value": "one"}}]}', 200, '{"message":"one"}'),
            ('{"actions": [{"fail": {"message": "expected failure"}}]}', 500, "expected failure"),
            ('{"actions": [{"update": {"value": "two"}}]}', 200, '{"message":"two"}'),
            ("{}", 200, '{"message":"two"}'),
        ):
            answer = await http.ask("POST", f"/tck/model/entity/{key}", body)
            assert (answer.status, answer.text) == (status, text)
    assert only_stream(world, key).received == [
        value_init(key),
        command(1, key),
        command(2, key, update("one")),
        command(3, key, fail("expected failure")),
        command(4, key, update("two")),
        command(5, key),
    ]


async def test_23_a_passivation_timeout_of_100_ms_ends_both_sides_of_the_stream(world: World) -> None:
    key = a_key()
    assert await world.client.ask(key, service=VALUE_CONFIGURED) == ok()
    stream = only_stream(world, key)
    await stream.wait_half_closed()
    await stream.wait_over()
    assert not stream.reset.is_set()
    assert stream.received == [value_init(key, VALUE_CONFIGURED), any_command(1, key, service=VALUE_CONFIGURED)]


async def test_all_that_asks_only_once_to_discover_and_opens_no_other_stream(world: World) -> None:
    assert len(world.user_function.discovered) == 1
    assert len(world.user_function.streams) == 7
    assert world.user_function.reports == []
