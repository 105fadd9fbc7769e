"""The scenarios that the Cloudstate TCK plays through a proxy with its event log model, with the traffic it expects on
the other side (support D6), and what a consumer is told about an event (core 13.3)."""

from __future__ import annotations

from typing import Any

from tck import eventlogeventing_pb2 as model

from stateside.proto import action, cloudstate, eventsourced, pack

from . import messages
from .action_function import plain
from .eventing_function import (
    JSON_TYPE,
    LOG_ONE,
    LOG_TWO,
    ONE,
    SUBSCRIBER,
    TWO,
    EventingFunction,
    emit,
    emit_json,
    emitted,
    event_forwarded,
    event_one,
    event_two,
    forward_to_effect,
    json_any,
    response,
)
from .harness import World

SETTINGS = {"journal": "memory:"}
USER_FUNCTION = EventingFunction


def function(world: World) -> EventingFunction:
    assert isinstance(world.user_function, EventingFunction)
    return world.user_function


def command(name: str, payload: Any) -> Any:
    return action.ActionCommand(service_name=SUBSCRIBER, name=name, payload=payload)


def entity_command(key: str, name: str, payload: Any) -> Any:
    sent = cloudstate.Command(entity_id=key, id=1, name=name, payload=pack(payload))
    return eventsourced.EventSourcedStreamIn(command=sent)


async def next_calls(world: World, before: int, count: int) -> list[Any]:
    user_function = function(world)
    await user_function.until(lambda: len(user_function.calls) >= before + count, f"{count} calls of the action")
    calls = user_function.calls[before:]
    for call in calls:
        await call.wait_over()
    assert len(calls) == count
    return calls


async def test_1_an_event_reaches_the_subscriber(world: World) -> None:
    key, before = "eventlogeventing:1", len(function(world).calls)
    assert (await emit(world, key, event_one("some message"))).ok
    (stream,) = function(world).streams_of(key)
    asked = model.EmitEventRequest(id=key, event_one=event_one("some message"))
    assert stream.received == [messages.init(key, ONE), entity_command(key, "EmitEvent", asked)]
    (call,) = await next_calls(world, before, 1)
    assert call.rpc == "handleUnary" and not call.reset.is_set()
    assert [plain(each) for each in call.received] == [command("ProcessEventOne", pack(event_one("some message")))]
    assert call.sent == [response(key, "some message")]


async def test_2_the_subscriber_forwards(world: World) -> None:
    key, before = "eventlogeventing:2", len(function(world).calls)
    assert (await emit(world, key, event_forwarded("some message"))).ok
    first, second = await next_calls(world, before, 2)
    assert [plain(each) for each in first.received] == [
        command("ProcessEventOne", pack(event_forwarded("some message")))
    ]
    assert first.sent == [forward_to_effect(key, "some message")]
    assert second.rpc == "handleUnary"
    asked = pack(model.EffectRequest(id=key, message="some message"))
    assert [plain(each) for each in second.received] == [command("Effect", asked)]


async def test_3_a_json_event_reaches_the_method_that_takes_any(world: World) -> None:
    key, before = "eventlogeventing:3", len(function(world).calls)
    assert (await emit_json(world, key, "some json message")).ok
    (stream,) = function(world).streams_of(key)
    asked = model.JsonEvent(id=key, message="some json message")
    assert stream.received == [messages.init(key, TWO), entity_command(key, "EmitJsonEvent", asked)]
    events = emitted(stream.received[1].command).reply.events
    assert [event.type_url for event in events] == [JSON_TYPE]
    (call,) = await next_calls(world, before, 1)
    assert [plain(each) for each in call.received] == [command("ProcessAnyEvent", json_any("some json message"))]
    assert call.sent == [response(key, "some json message")]


async def test_an_event_for_a_streamed_method_may_be_answered_often(world: World) -> None:
    key, before = "eventlogeventing:4", len(function(world).calls)
    assert (await emit(world, key, event_two("a", "b", "c"))).ok
    (call,) = await next_calls(world, before, 1)
    assert call.rpc == "handleStreamedOut" and not call.reset.is_set()
    assert [plain(each) for each in call.received] == [command("ProcessEventTwo", pack(event_two("a", "b", "c")))]
    assert call.sent == [response(key, text) for text in "abc"]


async def test_an_event_is_a_cloud_event(world: World) -> None:
    before = len(function(world).deliveries)
    await emit(world, "a|key", event_one("x"))
    await function(world).delivered(before + 1)
    await emit_json(world, "other", "y")
    first, second = (await function(world).delivered(before + 2))[before:]
    content_type = ("Content-Type", "application/vnd.cloudstate.protobuf.any")
    assert first.metadata == [
        ("ce-id", str(first.offset)),
        ("ce-source", LOG_ONE),
        ("ce-specversion", "1.0"),
        ("ce-type", f"type.googleapis.com/{model.EventOne.DESCRIPTOR.full_name}"),
        content_type,
        ("ce-subject", "a|key"),
        ("ce-sequence", "1"),
    ]
    assert second.metadata == [
        ("ce-id", str(second.offset)),
        ("ce-source", LOG_TWO),
        ("ce-specversion", "1.0"),
        ("ce-type", JSON_TYPE),
        content_type,
        ("ce-subject", "other"),
        ("ce-sequence", "1"),
    ]
    assert second.offset > first.offset
