"""Forwards and side effects from and to actions of every kind, and between actions and entities (core 7)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from tck import action_pb2 as model

from stateside.proto import action, cloudstate, eventsourced, pack

from . import messages
from .action_calls import (
    duplex,
    function,
    next_calls,
    read,
    read_all,
    streamed_in,
    streamed_out,
    unary,
    unary_call,
    write,
)
from .action_function import (
    MODEL,
    TWO,
    ActionCall,
    ActionFunction,
    call_two,
    command,
    effect_two,
    entries,
    failure,
    forward,
    forward_two,
    message,
    metadata_with,
    no_reply,
    opening,
    reply,
    request,
    say,
    side_effect,
)
from .harness import Outcome, World, ok, outcome, unknown
from .user_function import a_key, soon

SETTINGS = {"journal": "memory:", "max_hops": "4", "max_pending_effects": "5", "relay_timeout": "2s"}
USER_FUNCTION = ActionFunction

CODE = grpc.StatusCode
ASKED = request([say("x")])
THREE = request([say("A")], [say("B")], [say("C")])


@pytest.fixture(autouse=True)
def played(world: World) -> Iterator[None]:
    """The tests of this file answer for all actions themselves, unless they say otherwise."""
    function(world).play_services(MODEL, TWO)
    yield
    function(world).play_services()


async def next_call(world: World, *expected: Any) -> ActionCall:
    """The next call of an action, once it has begun with what is expected."""
    relayed = await function(world).call()
    for _ in expected:
        await relayed.next()
    assert relayed.commands[: len(expected)] == list(expected)
    return relayed


async def asked_unary(world: World, **more: Any) -> tuple[asyncio.Task[Outcome], ActionCall]:
    call = asyncio.create_task(unary(world, ASKED, **more))
    return call, await next_call(world, command("ProcessUnary", ASKED))


async def asked_streamed_out(world: World, **more: Any) -> tuple[Any, ActionCall]:
    call = streamed_out(world, ASKED, **more)
    return call, await next_call(world, command("ProcessStreamedOut", ASKED))


def forward_model(name: str, payload: Any = ASKED, **more: Any) -> Any:
    return forward(MODEL, name, payload, **more)


# --- forwards from a call with one answer ----------------------------------------------------------------------------


async def test_a_unary_call_forwarded_to_a_streamed_out_method_gets_all_its_replies(world: World) -> None:
    """Through a client that reads a unary method as a stream, as the protocol allows."""
    make = world.client.channel.unary_stream(f"/{MODEL}/ProcessUnary")
    call = make(ASKED.SerializeToString(), timeout=5)
    relayed = await next_call(world, command("ProcessUnary", ASKED))
    await relayed.answer(forward_model("ProcessStreamedOut", THREE))
    target = await next_call(world, command("ProcessStreamedOut", THREE))
    await target.answer(reply("A"), reply("B"), reply("C"))
    assert await read_all(call) == (["A", "B", "C"], CODE.OK, "")


@pytest.mark.parametrize(
    ("name", "rpc"), [("ProcessStreamedIn", "handleStreamedIn"), ("ProcessStreamed", "handleStreamed")]
)
async def test_a_forward_to_a_method_with_streamed_requests_is_an_opening_and_one_message(
    world: World, name: str, rpc: str
) -> None:
    call, relayed = await asked_unary(world)
    given = metadata_with(("x-given", "1"))
    await relayed.answer(forward_model(name, THREE, metadata=given))
    target = await next_call(world, opening(name), message(THREE))
    await target.wait_half_closed()
    assert (target.rpc, len(target.received)) == (rpc, 2)
    assert entries(target.first.metadata) == [("x-given", "1")]
    assert not target.received[1].metadata.entries
    await target.answer(reply("by the target"))
    assert await call == ok("by the target")


async def test_a_streamed_in_call_may_be_forwarded(world: World) -> None:
    call = streamed_in(world)
    relayed = await next_call(world, opening("ProcessStreamedIn"))
    await call.done_writing()
    await relayed.answer(forward_two("other"))
    target = await next_call(world, call_two("other"))
    await target.answer(reply("other"))
    assert await outcome(call) == ok("other")


async def test_metadata_of_a_forward_arrives_once_and_that_of_the_call_never(world: World) -> None:
    """In the reference its entries arrive twice (D26)."""
    call, relayed = await asked_unary(world, metadata=(("x-call", "not for others"),))
    given = (("x-one", "1"), ("x-many", "a"), ("x-many", "b"), ("x-raw-bin", b"\x00\xff"))
    await relayed.answer(forward_two("with", metadata=metadata_with(*given)))
    target = await next_call(world)
    await target.next()
    assert entries(target.first.metadata) == list(given)
    await target.answer(forward_two("without"))
    target = await next_call(world)
    assert not (await target.next()).metadata.entries
    await target.answer(reply("done"))
    assert await call == ok("done")


async def test_metadata_of_the_target_s_reply_is_that_of_the_answer(world: World) -> None:
    call = unary_call(world, ASKED)
    relayed = await next_call(world, command("ProcessUnary", ASKED))
    await relayed.answer(forward_two("other"))
    target = await next_call(world, call_two("other"))
    await target.answer(reply("done", metadata=metadata_with(("x-target", "1"))))
    assert ("x-target", "1") in list(await call.initial_metadata())
    assert await outcome(call) == ok("done")


async def test_a_forward_to_an_entity_carries_no_metadata(world: World) -> None:
    key = function(world).play()
    call, relayed = await asked_unary(world)
    asked = messages.request(key)
    await relayed.answer(forward(messages.TWO, "Call", asked, metadata=metadata_with(("x-given", "1"))))
    stream = await function(world).ready_stream(key, messages.TWO)
    assert await stream.next() == messages.command(1, key, service=messages.TWO)
    await stream.send(messages.reply(1, "by the entity"))
    assert await call == ok("by the entity")
    await function(world).report_about("Warning:", f"{MODEL}.ProcessUnary", "action.Response", "model.Response")


async def test_a_reply_is_checked_against_the_method_that_the_client_called(world: World) -> None:
    """Both ways: what the target promises does not matter (core 9.4)."""
    key = function(world).play()
    call, relayed = await asked_unary(world)
    await relayed.answer(forward(messages.MODEL, "Process", messages.request(key)))
    stream = await function(world).ready_stream(key)
    await stream.next()
    answer = messages.reply(1)
    answer.reply.client_action.reply.payload.CopyFrom(pack(model.Response(message="of the type of the action")))
    await stream.send(answer)
    assert await call == ok("of the type of the action")
    assert not [text for text in function(world).reports if f"{messages.MODEL}.Process " in text]


async def test_an_entity_may_forward_to_an_action(world: World) -> None:
    key = function(world).play()
    call, stream = await world.busy(key)
    target = cloudstate.Forward(
        service_name=TWO, command_name="Call", payload=pack(model.OtherRequest(id="by an entity"))
    )
    answer = eventsourced.EventSourcedReply(command_id=1, client_action=cloudstate.ClientAction(forward=target))
    await stream.send(eventsourced.EventSourcedStreamOut(reply=answer))
    relayed = await next_call(world, call_two("by an entity"))
    assert not relayed.first.metadata.entries
    await relayed.answer(reply("by an action"))
    assert await call == ok("by an action")
    await function(world).report_about("Warning:", f"{messages.MODEL}.Process", "action.Response")


async def test_an_entity_s_call_forwarded_to_a_stream_is_cancelled_with_its_client(world: World) -> None:
    key = function(world).play()
    make = world.client.channel.unary_stream(f"/{messages.MODEL}/Process")
    call = make(messages.request(key).SerializeToString(), timeout=5)
    stream = await function(world).ready_stream(key)
    await stream.next()
    target = cloudstate.Forward(service_name=MODEL, command_name="ProcessStreamedOut", payload=pack(ASKED))
    answer = eventsourced.EventSourcedReply(command_id=1, client_action=cloudstate.ClientAction(forward=target))
    await stream.send(eventsourced.EventSourcedStreamOut(reply=answer))
    relayed = await next_call(world, command("ProcessStreamedOut", ASKED))
    await relayed.send(reply("one"))
    assert await read(call) == "one"
    call.cancel()
    await relayed.wait_reset()
    function(world).reports.clear()


async def test_a_forward_s_failure_and_status_are_the_answer(world: World) -> None:
    call, relayed = await asked_unary(world)
    await relayed.answer(forward_two("other"))
    await (await next_call(world, call_two("other"))).answer(failure("said by the other"))
    assert await call == unknown("said by the other")
    call, relayed = await asked_unary(world)
    await relayed.answer(forward_two("other"))
    (await next_call(world, call_two("other"))).abort(CODE.NOT_FOUND)
    assert (await call).status == CODE.NOT_FOUND


async def test_a_forward_that_ends_without_an_answer_is_internal(world: World) -> None:
    for target in (forward_two("other"), forward_model("ProcessStreamedOut")):
        call, relayed = await asked_unary(world)
        await relayed.answer(target)
        ending = await function(world).call()
        await ending.answer(no_reply())
        result = await call
        assert result.status == CODE.INTERNAL and f"{MODEL}.ProcessUnary" in result.details


# --- forwards as items of a stream -----------------------------------------------------------------------------------


async def test_a_forwarded_item_is_replaced_in_place_and_the_next_one_waits(world: World) -> None:
    call, relayed = await asked_streamed_out(world)
    await relayed.answer(reply("first"), forward_model("ProcessStreamedOut", THREE), reply("last"))
    target = await next_call(world, command("ProcessStreamedOut", THREE))
    assert await read(call) == "first"
    await target.send(reply("A"))
    assert await read(call) == "A"
    await target.answer(reply("B"))
    assert await read_all(call) == (["B", "last"], CODE.OK, "")


async def test_a_duplex_call_goes_on_taking_requests_while_an_item_is_forwarded(world: World) -> None:
    call = duplex(world)
    relayed = await next_call(world, opening("ProcessStreamed"))
    await relayed.send(forward_two("other"))
    target = await next_call(world, call_two("other"))
    await write(call, ASKED)
    assert (await relayed.next()).payload == message(ASKED).payload
    await call.done_writing()
    await relayed.wait_half_closed()
    await relayed.answer(reply("after"))
    await target.answer(reply("forwarded"))
    assert await read_all(call) == (["forwarded", "after"], CODE.OK, "")


async def test_a_forwarded_item_that_fails_ends_the_stream(world: World) -> None:
    call, relayed = await asked_streamed_out(world)
    await relayed.send(reply("one"))
    await relayed.send(forward_two("other"))
    await (await next_call(world, call_two("other"))).answer(failure("no further"))
    assert await read_all(call) == (["one"], CODE.UNKNOWN, "no further")
    await relayed.wait_reset()


async def test_a_client_that_cancels_during_a_forwarded_item_cancels_both(world: World) -> None:
    call, relayed = await asked_streamed_out(world)
    await relayed.send(forward_model("ProcessStreamedOut", THREE))
    target = await next_call(world, command("ProcessStreamedOut", THREE))
    await target.send(reply("A"))
    assert await read(call) == "A"
    call.cancel()
    await target.wait_reset()
    await relayed.wait_reset()


async def test_an_item_may_be_forwarded_to_an_entity(world: World) -> None:
    key = a_key()
    call, relayed = await asked_streamed_out(world)
    await relayed.answer(
        forward(messages.MODEL, "Process", messages.request(key, messages.emit("state"))), reply("last")
    )
    assert await read_all(call) == (["state", "last"], CODE.OK, "")


# --- side effects ----------------------------------------------------------------------------------------------------


async def test_d13_side_effects_of_a_failure_run(world: World) -> None:
    call, relayed = await asked_unary(world)
    await relayed.answer(failure("all the same", effect_two("one"), effect_two("two")))
    for identity in ("one", "two"):
        await (await next_call(world, call_two(identity))).answer(reply())
    assert await call == unknown("all the same")


async def test_side_effects_of_a_response_without_a_member_run(world: World) -> None:
    call, relayed = await asked_streamed_out(world)
    await relayed.answer(no_reply(effect_two("one")), reply("two"))
    await (await next_call(world, call_two("one"))).answer(reply())
    assert await read_all(call) == (["two"], CODE.OK, "")


async def test_a_synchronous_effect_is_over_before_the_item_and_the_items_after_it(world: World) -> None:
    call, relayed = await asked_streamed_out(world)
    given = metadata_with(("x-given", "1"))
    await relayed.answer(
        reply("first"), reply("second", effect_two("slow", synchronous=True, metadata=given)), reply("third")
    )
    target = await next_call(world, call_two("slow"))
    assert entries(target.first.metadata) == [("x-given", "1")]
    assert await read(call) == "first"
    following = asyncio.create_task(read(call))
    assert await unary_by_model(world) == ok("x")  # passes both on its way
    assert not following.done()
    await target.answer(reply())
    assert await following == "second"
    assert await read_all(call) == (["third"], CODE.OK, "")


async def unary_by_model(world: World) -> Outcome:
    function(world).play_services(TWO)
    result = await unary(world, ASKED)
    function(world).play_services(MODEL, TWO)
    return result


async def test_a_synchronous_effect_on_a_stream_is_over_when_the_stream_is_drained(world: World) -> None:
    call, relayed = await asked_unary(world)
    effect = side_effect(MODEL, "ProcessStreamedOut", THREE, synchronous=True)
    await relayed.answer(reply("after all", effect))
    target = await next_call(world, command("ProcessStreamedOut", THREE))
    for text in "AB":
        await target.send(reply(text))
    assert not call.done()
    await target.answer(reply("C"))
    assert await call == ok("after all")


@pytest.mark.parametrize("name", ["ProcessStreamedIn", "ProcessStreamed"])
async def test_an_effect_on_a_method_with_streamed_requests_is_an_opening_and_one_message(
    world: World, name: str
) -> None:
    call, relayed = await asked_unary(world)
    await relayed.answer(reply("done", side_effect(MODEL, name, THREE)))
    assert await call == ok("done")
    target = await next_call(world, opening(name), message(THREE))
    await target.wait_half_closed()
    assert len(target.received) == 2
    await target.answer(reply())


async def test_d21_a_synchronous_effect_that_fails_in_any_way_never_fails_the_call(world: World) -> None:
    call, relayed = await asked_unary(world)
    effects = [effect_two(identity, synchronous=True) for identity in ("fails", "aborts", "babbles", "is silent")]
    await relayed.answer(reply("all the same", *effects))
    await (await next_call(world, call_two("fails"))).answer(failure("no"))
    (await next_call(world, call_two("aborts"))).abort(CODE.INTERNAL)
    await (await next_call(world, call_two("babbles"))).send_bytes(b"\xff")
    await (await next_call(world, call_two("is silent"))).answer(no_reply())
    assert await call == ok("all the same")
    await function(world).report_about(f"{TWO}.Call", "malformed")


async def test_an_effect_outlives_the_client(world: World) -> None:
    call = unary_call(world, ASKED)
    relayed = await next_call(world, command("ProcessUnary", ASKED))
    await relayed.answer(reply("", effect_two("first", synchronous=True), effect_two("second", synchronous=True)))
    target = await next_call(world, call_two("first"))
    call.cancel()
    await soon(asyncio.gather(outcome(call), return_exceptions=True), "the cancelled call to end")
    await target.answer(reply())
    target = await next_call(world, call_two("second"))
    assert not target.reset.is_set()
    await target.answer(reply())


async def test_effects_of_effects_and_between_entities_and_actions_run(world: World) -> None:
    key = a_key()
    call, relayed = await asked_unary(world)
    await relayed.answer(reply("all done", effect_two("one", synchronous=True)))
    target = await next_call(world, call_two("one"))
    on_entity = side_effect(messages.MODEL, "Process", messages.request(key, messages.emit("e")), synchronous=True)
    await target.answer(reply("", on_entity))
    assert await call == ok("all done")
    assert await world.client.ask(key) == Outcome(CODE.OK, "", "e")


async def test_an_effect_of_an_entity_on_an_action_runs(world: World) -> None:
    key = function(world).play()
    call, stream = await world.busy(key)
    answer = messages.reply(1, "done")
    answer.reply.side_effects.append(effect_two("by an entity", synchronous=True))
    await stream.send(answer)
    relayed = await next_call(world, call_two("by an entity"))
    assert not call.done()
    await relayed.answer(reply())
    assert await call == ok("done")


async def test_more_effects_than_may_run_at_once_are_refused_logged_and_counted(world: World) -> None:
    before = await effects_figures(world)
    call, relayed = await asked_unary(world)
    await relayed.answer(reply("bounded", *(effect_two(str(number)) for number in range(8))))
    assert await call == ok("bounded")
    running = [await next_call(world) for _ in range(5)]
    pending, failed = await effects_figures(world)
    assert (pending, failed - before[1]) == (5, 3)
    assert "max_pending_effects (5)" in world.proxy.log
    for each in running:
        await each.next()
        await each.answer(reply())
    call, relayed = await asked_unary(world)
    await relayed.answer(reply("again", effect_two("now", synchronous=True)))
    await (await next_call(world, call_two("now"))).answer(reply())
    assert await call == ok("again")
    assert (await effects_figures(world))[0] == 0


async def effects_figures(world: World) -> tuple[float, float]:
    """(pending, failed in all)."""
    _, text = await world.proxy.admin("/metrics")
    values = {
        name: float(value) for name, _, value in (line.rpartition(" ") for line in text.splitlines() if line[0] != "#")
    }
    return values["stateside_pending_effects"], values["stateside_failed_effects_total"]


# --- to nowhere, and round and round ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("service", "name"), [("no.such.Service", "Call"), (TWO, "NoSuchMethod")])
async def test_a_target_that_does_not_exist_is_reported_with_its_trace(world: World, service: str, name: str) -> None:
    call, relayed = await asked_unary(world)
    await relayed.answer(reply("", effect_two("one", synchronous=True)))
    target = await next_call(world, call_two("one"))
    await target.answer(forward_two("two"))
    target = await next_call(world, call_two("two"))
    await target.answer(forward(service, name, ASKED))
    assert await call == ok("")
    text = await function(world).report_about(f"{service}.{name}")
    assert text.splitlines()[1:] == [
        f"  forwarded from {TWO}.Call",
        f"  forwarded from {TWO}.Call",
        f"  side-effect of {MODEL}.ProcessUnary",
    ]
    assert service in text.splitlines()[0]


@pytest.mark.parametrize(("service", "name"), [("no.such.Service", "Call"), (TWO, "NoSuchMethod")])
async def test_an_item_forwarded_to_nowhere_is_unimplemented(world: World, service: str, name: str) -> None:
    call, relayed = await asked_streamed_out(world)
    await relayed.send(reply("one"))
    await relayed.send(forward(service, name, ASKED))
    texts, status, details = await read_all(call)
    assert (texts, status) == (["one"], CODE.UNIMPLEMENTED) and f"{service}.{name}" in details
    await function(world).report_about(f"{service}.{name}", f"forwarded from {MODEL}.ProcessStreamedOut")


async def test_a_loop_of_forwards_ends_at_max_hops_and_is_named(world: World) -> None:
    call, relayed = await asked_unary(world)
    for _ in range(4):
        await relayed.answer(forward_model("ProcessUnary"))
        relayed = await next_call(world, command("ProcessUnary", ASKED))
    await relayed.answer(forward_model("ProcessUnary"))
    result = await call
    assert result.status == CODE.INTERNAL
    assert " -> ".join([f"{MODEL}.ProcessUnary"] * 6) in result.details
    await function(world).report_about("max_hops (4)", f"{MODEL}.ProcessUnary")


async def test_a_loop_of_effects_ends_at_max_hops(world: World) -> None:
    effect = side_effect(MODEL, "ProcessUnary", ASKED, synchronous=True)
    call, relayed = await asked_unary(world)
    for _ in range(4):
        await relayed.answer(reply("", effect))
        relayed = await next_call(world, command("ProcessUnary", ASKED))
    await relayed.answer(reply("", effect))
    assert await call == ok("")
    assert "Side effect chain longer than max_hops (4)" in world.proxy.log


async def test_many_forwards_in_one_stream_are_no_chain(world: World) -> None:
    function(world).play_services(MODEL)
    before = len(function(world).calls)
    call, relayed = await asked_streamed_out(world)
    await relayed.answer(*(forward_two(str(number)) for number in range(20)))
    assert await read_all(call) == ([""] * 20, CODE.OK, "")
    found = await next_calls(world, before, 21)
    assert [each.commands for each in found[1:]] == [[call_two(str(number))] for number in range(20)]


async def test_what_is_not_a_request_of_the_target_is_its_own_affair(world: World) -> None:
    """Payloads are relayed to actions as they are; an entity whose key cannot be found refuses."""
    call, relayed = await asked_unary(world)
    raw = action.ActionResponse(
        forward=cloudstate.Forward(service_name=messages.TWO, command_name="Call", payload={"value": b"\xff"})
    )
    await relayed.answer(raw)
    assert (await call).status == CODE.INVALID_ARGUMENT
