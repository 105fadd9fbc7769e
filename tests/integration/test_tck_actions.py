"""The scenarios that the Cloudstate TCK plays through a proxy with its action model, with the traffic it expects on the
other side (support D3, 34 to 41)."""

from __future__ import annotations

import grpc
from tck import action_pb2 as model

from .action_calls import duplex, function, next_calls, read, read_all, streamed_in, streamed_out, unary, write
from .action_function import (
    ACTION,
    MODEL,
    TWO,
    ActionFunction,
    call_two,
    command,
    effect_on,
    effect_two,
    fail,
    forward_to,
    forward_two,
    message,
    no_reply,
    opening,
    plain,
    reply,
    request,
    say,
)
from .harness import World, ok, unknown
from .user_function import soon

SETTINGS = {"journal": "memory:"}
USER_FUNCTION = ActionFunction


async def test_discovery_offers_actions(world: World) -> None:
    (info,) = function(world).discovered
    assert ACTION in info.supported_entity_types
    assert not function(world).reports


async def test_34_unary_reply(world: World) -> None:
    before = len(function(world).calls)
    asked = request([say("one")])
    assert await unary(world, asked) == ok("one")
    (call,) = await next_calls(world, before, 1)
    assert (call.rpc, call.commands) == ("handleUnary", [command("ProcessUnary", asked)])
    assert call.half_closed.is_set() and not call.reset.is_set()
    assert call.sent == [reply("one")]


async def test_35_streamed_in(world: World) -> None:
    before = len(function(world).calls)
    call = streamed_in(world)
    asked = request([say("two")])
    await write(call, asked)
    await call.done_writing()
    assert model.Response.FromString(await soon(call, "a reply")).message == "two"
    (relayed,) = await next_calls(world, before, 1)
    assert relayed.rpc == "handleStreamedIn"
    assert relayed.commands == [opening("ProcessStreamedIn"), message(asked)]
    assert relayed.half_closed.is_set()
    assert relayed.sent == [reply("two")]


async def test_35_the_opening_is_sent_at_once_and_only_there_is_metadata(world: World) -> None:
    function(world).play_services(MODEL)
    call = streamed_in(world, metadata=(("x-call", "yes"),))
    relayed = await function(world).call()
    first = await relayed.next()
    assert plain(first) == opening("ProcessStreamedIn")
    assert "x-call" in [entry.key for entry in first.metadata.entries]
    assert not relayed.half_closed.is_set()
    await write(call, request([say("later")]))
    assert not (await relayed.next()).metadata.entries
    await call.done_writing()
    await relayed.wait_half_closed()
    await relayed.answer(reply("done"))
    assert model.Response.FromString(await call).message == "done"
    function(world).play_services()


async def test_36_streamed_out(world: World) -> None:
    before = len(function(world).calls)
    asked = request([say("A")], [say("B")], [say("C")])
    assert await read_all(streamed_out(world, asked)) == (["A", "B", "C"], grpc.StatusCode.OK, "")
    (call,) = await next_calls(world, before, 1)
    assert (call.rpc, call.commands) == ("handleStreamedOut", [command("ProcessStreamedOut", asked)])
    assert call.sent == [reply("A"), reply("B"), reply("C")]
    assert call.half_closed.is_set() and not call.reset.is_set()


async def test_37_duplex(world: World) -> None:
    before = len(function(world).calls)
    call = duplex(world)
    for text in "XYZ":
        await write(call, request([say(text)]))
        assert await read(call) == text
    await call.done_writing()
    assert await read(call) is None
    (relayed,) = await next_calls(world, before, 1)
    assert relayed.rpc == "handleStreamed"
    assert relayed.commands == [opening("ProcessStreamed"), *(message(request([say(text)])) for text in "XYZ")]
    assert relayed.half_closed.is_set() and not relayed.reset.is_set()


async def test_38_unary_forward(world: World) -> None:
    before = len(function(world).calls)
    assert await unary(world, request([forward_to("other")])) == ok("")
    first, second = await next_calls(world, before, 2)
    assert first.sent == [forward_two("other")]
    assert (second.rpc, second.commands, second.sent) == ("handleUnary", [call_two("other")], [reply()])


async def test_38_unary_side_effect(world: World) -> None:
    before = len(function(world).calls)
    assert await unary(world, request([say(""), effect_on("another")])) == ok("")
    first, second = await next_calls(world, before, 2)
    assert first.sent == [reply("", effect_two("another"))]
    assert (second.rpc, second.commands, second.sent) == ("handleUnary", [call_two("another")], [reply()])


async def test_39_duplex_forward_and_side_effect(world: World) -> None:
    before = len(function(world).calls)
    call = duplex(world)
    await write(call, request([forward_to("one")]))
    assert await read(call) == ""
    await write(call, request([effect_on("two")]))
    await call.done_writing()
    assert await read(call) is None
    relayed, forwarded, effect = await next_calls(world, before, 3)
    assert relayed.sent == [forward_two("one"), no_reply(effect_two("two"))]
    assert relayed.half_closed.is_set()
    assert (forwarded.commands, effect.commands) == ([call_two("one")], [call_two("two")])


async def test_40_unary_failure(world: World) -> None:
    assert await unary(world, request([fail("expected failure")])) == unknown("expected failure")


async def test_41_a_duplex_failure_ends_the_call_and_cancels_the_request_stream(world: World) -> None:
    before = len(function(world).calls)
    call = duplex(world)
    await write(call, request([fail("expected failure")]))
    assert await read_all(call) == ([], grpc.StatusCode.UNKNOWN, "expected failure")
    (relayed,) = await next_calls(world, before, 1)
    await relayed.wait_reset()
    assert not relayed.half_closed.is_set()


async def test_two_services_are_no_entity_streams(world: World) -> None:
    assert not function(world).streams
    assert {call.first.service_name for call in function(world).calls} == {MODEL, TWO}
