"""Calls of actions, one kind of method after the other: who may end, refuse or
cancel a call, and who hears of it (core 6)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from tck import action_pb2 as model

from stateside.proto import action, pack

from .action_calls import (
    duplex,
    function,
    path,
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
    ActionCall,
    ActionFunction,
    actions_spec,
    command,
    entries,
    failure,
    message,
    metadata_with,
    no_reply,
    opening,
    reply,
    request,
    say,
)
from .harness import Outcome, World, eventually, ok, outcome, unknown
from .user_function import soon

SETTINGS = {"journal": "memory:", "max_request_size": "64K", "max_inbound_message_size": "64K"}
USER_FUNCTION = ActionFunction

CODE = grpc.StatusCode
ASKED = request([say("x")])


@pytest.fixture(autouse=True)
def played(world: World) -> Iterator[None]:
    """The tests of this file answer for the model themselves."""
    function(world).play_services(MODEL)
    yield
    function(world).play_services()


async def begun(world: World, call: Any) -> ActionCall:
    """The user function's end of a streamed-in or duplex call that a client has just made."""
    relayed = await function(world).call()
    first = await relayed.next()
    assert first.name and not first.HasField("payload")
    return relayed


async def asked_unary(world: World, **more: Any) -> tuple[asyncio.Task[Outcome], ActionCall]:
    call = asyncio.create_task(unary(world, ASKED, **more))
    relayed = await function(world).call()
    await relayed.next()
    return call, relayed


async def asked_streamed_out(world: World, **more: Any) -> tuple[Any, ActionCall]:
    call = streamed_out(world, ASKED, **more)
    relayed = await function(world).call()
    await relayed.next()
    return call, relayed


# --- replies ---------------------------------------------------------------------------------------------------------


async def test_an_empty_payload_is_relayed_as_such(world: World) -> None:
    call = asyncio.create_task(outcome(world.client.call(path("ProcessUnary"), b"")))
    relayed = await function(world).call()
    await relayed.next()
    assert relayed.commands == [command("ProcessUnary", request())]
    await relayed.answer(reply(""))
    assert await call == ok("")


async def test_a_streamed_in_call_may_be_answered_before_the_client_has_finished(world: World) -> None:
    call = streamed_in(world)
    relayed = await begun(world, call)
    await write(call, ASKED)
    await relayed.next()
    await relayed.answer(reply("enough"))
    assert model.Response.FromString(await soon(call, "a reply")).message == "enough"


async def test_a_duplex_call_may_be_answered_at_any_time_and_go_on_after_the_half_close(world: World) -> None:
    call = duplex(world)
    relayed = await begun(world, call)
    await relayed.send(reply("before anything"))
    assert await read(call) == "before anything"
    await write(call, ASKED)
    assert (await relayed.next()).payload == message(ASKED).payload
    await call.done_writing()
    await relayed.wait_half_closed()
    await relayed.answer(reply("after the end"), reply("and again"))
    assert await read_all(call) == (["after the end", "and again"], CODE.OK, "")


async def test_a_streamed_call_without_any_message_reaches_the_user_function(world: World) -> None:
    for make in (streamed_in, duplex):
        call = make(world)
        relayed = await begun(world, call)
        await call.done_writing()
        await relayed.wait_half_closed()
        assert len(relayed.received) == 1
        await relayed.answer(reply("nothing came"))
        if make is duplex:
            assert await read_all(call) == (["nothing came"], CODE.OK, "")
        else:
            assert model.Response.FromString(await call).message == "nothing came"


async def test_responses_without_a_member_are_left_out_of_a_stream(world: World) -> None:
    call, relayed = await asked_streamed_out(world)
    await relayed.answer(no_reply(), reply("one"), no_reply(), reply("two"), no_reply())
    assert await read_all(call) == (["one", "two"], CODE.OK, "")
    call, relayed = await asked_streamed_out(world)
    await relayed.answer()
    assert await read_all(call) == ([], CODE.OK, "")


async def test_a_unary_call_without_a_reply_is_internal_and_named(world: World) -> None:
    """The reference answers OK without a message, which most clients cannot read."""
    call, relayed = await asked_unary(world)
    await relayed.answer(no_reply())
    result = await call
    assert result.status == CODE.INTERNAL
    assert f"{MODEL}.ProcessUnary" in result.details


async def test_a_streamed_in_call_without_a_reply_is_internal_and_named(world: World) -> None:
    call = streamed_in(world)
    relayed = await begun(world, call)
    await call.done_writing()
    await relayed.answer(no_reply())
    result = await outcome(call)
    assert result.status == CODE.INTERNAL
    assert f"{MODEL}.ProcessStreamedIn" in result.details


async def test_a_reply_of_another_type_is_sent_all_the_same_and_reported(world: World) -> None:
    call, relayed = await asked_unary(world)
    answer = reply("")
    answer.reply.payload.CopyFrom(pack(model.OtherRequest(id="of another type")))
    await relayed.answer(answer)
    assert await call == ok("of another type")
    await function(world).report_about("Warning:", f"{MODEL}.ProcessUnary", "Response", "OtherRequest")


# --- failures --------------------------------------------------------------------------------------------------------


async def test_a_failure_of_a_streamed_in_call_is_unknown_with_its_description(world: World) -> None:
    call = streamed_in(world)
    relayed = await begun(world, call)
    await relayed.answer(failure("not this way"))
    assert await outcome(call) == unknown("not this way")


async def test_replies_before_a_failure_are_delivered_and_the_user_function_is_cancelled(world: World) -> None:
    call, relayed = await asked_streamed_out(world)
    for answer in (reply("one"), reply("two"), failure("three")):
        await relayed.send(answer)
    assert await read_all(call) == (["one", "two"], CODE.UNKNOWN, "three")
    await relayed.wait_over()


@pytest.mark.parametrize("status", [CODE.NOT_FOUND, CODE.RESOURCE_EXHAUSTED, CODE.UNAUTHENTICATED])
async def test_d5_a_status_of_the_user_function_is_the_client_s(world: World, status: grpc.StatusCode) -> None:
    """The reference drops the client's connection, with all calls on it."""
    call, relayed = await asked_unary(world)
    relayed.abort(status)
    assert await call == Outcome(status, "aborted by the test", None)
    streaming, relayed = await asked_streamed_out(world)
    relayed.abort(status)
    assert await read_all(streaming) == ([], status, "aborted by the test")


async def test_a_status_after_replies_is_the_client_s_too(world: World) -> None:
    call, relayed = await asked_streamed_out(world)
    await relayed.send(reply("one"))
    relayed.abort(CODE.FAILED_PRECONDITION)
    assert await read_all(call) == (["one"], CODE.FAILED_PRECONDITION, "aborted by the test")


async def test_a_status_ends_a_call_whose_client_still_sends(world: World) -> None:
    call = duplex(world)
    relayed = await begun(world, call)
    relayed.abort(CODE.PERMISSION_DENIED)
    assert await read_all(call) == ([], CODE.PERMISSION_DENIED, "aborted by the test")
    call = streamed_in(world)
    relayed = await begun(world, call)
    relayed.abort(CODE.PERMISSION_DENIED)
    assert (await outcome(call)).status == CODE.PERMISSION_DENIED


async def test_a_malformed_response_is_internal_and_reported(world: World) -> None:
    call, relayed = await asked_unary(world)
    await relayed.send_bytes(b"\xff")
    result = await call
    assert result.status == CODE.INTERNAL and "malformed" in result.details
    await function(world).report_about(f"{MODEL}.ProcessUnary", "malformed")
    streaming, relayed = await asked_streamed_out(world)
    await relayed.send(reply("one"))
    await relayed.send_bytes(b"\x22\x02\x0a\x7f")  # a side effect that is none
    texts, status, details = await read_all(streaming)
    assert (texts, status) == (["one"], CODE.INTERNAL) and "malformed" in details
    await relayed.wait_reset()
    await function(world).report_about(f"{MODEL}.ProcessStreamedOut", "malformed")


async def test_two_answers_to_a_unary_call_are_internal_and_reported(world: World) -> None:
    call, relayed = await asked_unary(world)
    await relayed.answer(reply("one"), reply("two"))
    assert (await call).status == CODE.INTERNAL
    await function(world).report_about(f"{MODEL}.ProcessUnary", "twice")


async def test_a_call_that_ends_well_without_an_answer_is_internal_and_reported(world: World) -> None:
    call, relayed = await asked_unary(world)
    await relayed.answer()
    assert (await call).status == CODE.INTERNAL
    await function(world).report_about(f"{MODEL}.ProcessUnary", "without an answer")


async def test_an_answer_that_is_too_large_is_resource_exhausted(world: World) -> None:
    call, relayed = await asked_unary(world)
    await relayed.send(reply("x" * 70_000))
    assert (await call).status == CODE.RESOURCE_EXHAUSTED
    await relayed.wait_over()


async def test_a_request_that_is_too_large_is_resource_exhausted_and_never_sent(world: World) -> None:
    before = len(function(world).calls)
    large = request([say("x" * 70_000)])
    assert (await unary(world, large)).status == CODE.RESOURCE_EXHAUSTED
    assert len(function(world).calls) == before


async def test_a_streamed_request_that_is_too_large_ends_the_call_on_both_sides(world: World) -> None:
    call = duplex(world)
    relayed = await begun(world, call)
    await write(call, request([say("x" * 70_000)]))
    assert (await read_all(call))[1] == CODE.RESOURCE_EXHAUSTED
    await relayed.wait_reset()


# --- cancelling, deadlines -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("replied", [False, True])
async def test_a_client_that_cancels_cancels_the_user_function(world: World, replied: bool) -> None:
    """At any time; in the reference only after the first reply."""
    streaming, relayed = await asked_streamed_out(world)
    if replied:
        await relayed.send(reply("one"))
        assert await read(streaming) == "one"
    streaming.cancel()
    await relayed.wait_reset()


async def test_a_client_that_cancels_while_it_still_sends_cancels_the_user_function(world: World) -> None:
    for make in (streamed_in, duplex):
        call = make(world)
        relayed = await begun(world, call)
        await write(call, ASKED)
        await relayed.next()
        call.cancel()
        await relayed.wait_reset()
        assert not relayed.half_closed.is_set()


async def test_a_cancelled_unary_call_cancels_the_user_function(world: World) -> None:
    call = unary_call(world, ASKED)
    task = asyncio.ensure_future(outcome(call))
    relayed = await function(world).call()
    call.cancel()
    await relayed.wait_reset()
    await asyncio.gather(task, return_exceptions=True)


async def test_the_deadline_of_the_client_is_the_user_function_s(world: World) -> None:
    call, relayed = await asked_unary(world, timeout=0.3)
    left = relayed.time_left_s
    assert left is not None and 0.0 < left < 0.4  # a clock and rounding apart
    assert (await call).status == CODE.DEADLINE_EXCEEDED
    await relayed.wait_reset()


async def test_the_deadline_of_a_streamed_call_ends_it_on_both_sides(world: World) -> None:
    call, relayed = await asked_streamed_out(world, timeout=0.3)
    await relayed.send(reply("one"))
    texts, status, _ = await read_all(call)
    assert (texts, status) == (["one"], CODE.DEADLINE_EXCEEDED)
    await relayed.wait_reset()


async def test_without_a_deadline_the_user_function_has_none(world: World) -> None:
    call, relayed = await asked_unary(world, timeout=None)
    left = relayed.time_left_s
    assert left is None or left > 1e6
    await relayed.answer(reply("in its own time"))
    assert await call == ok("in its own time")


async def test_action_timeout_bounds_calls_of_clients_without_a_deadline(tmp_path: Path) -> None:
    settings = {"journal": "memory:", "action_timeout": "200ms"}
    async with World(tmp_path, user_function=ActionFunction(), **settings) as world:
        function(world).play_services(MODEL)
        call, relayed = await asked_unary(world, timeout=None)
        result = await call
        assert result.status == CODE.DEADLINE_EXCEEDED
        assert "action_timeout" in result.details and f"{MODEL}.ProcessUnary" in result.details
        await relayed.wait_reset()
        call, relayed = await asked_unary(world, timeout=0.1)
        assert "action_timeout" not in (await call).details


# --- metadata (core 8) -----------------------------------------------------------------------------------------------


GIVEN = (("x-one", "1"), ("x-many", "a"), ("x-many", "b"), ("x-raw-bin", b"\x00\xff"))
PASSED = [("x-one", "1"), ("x-many", "a"), ("x-many", "b"), ("x-raw-bin", b"\x00\xff")]


def of_ours(metadata: Any) -> list[tuple[str, str | bytes]]:
    return [entry for entry in entries(metadata) if entry[0].startswith("x-")]


async def test_request_headers_are_metadata_of_the_command(world: World) -> None:
    _, relayed = await asked_unary(world, metadata=GIVEN, timeout=0.1)
    assert of_ours(relayed.first.metadata) == PASSED
    names = {name for name, _ in entries(relayed.first.metadata)}
    assert "user-agent" in names
    assert not names & {"te", "content-type", "grpc-timeout", "grpc-accept-encoding", ":path", ":authority"}
    _, relayed = await asked_streamed_out(world, metadata=GIVEN, timeout=0.1)
    assert of_ours(relayed.first.metadata) == PASSED


async def test_request_headers_of_a_streamed_request_are_metadata_of_the_opening_alone(world: World) -> None:
    call = duplex(world, metadata=GIVEN)
    relayed = await begun(world, call)
    assert of_ours(relayed.first.metadata) == PASSED
    await write(call, ASKED)
    sent = await relayed.next()
    assert sent.HasField("metadata") and not sent.metadata.entries
    assert action.ActionCommand(payload=sent.payload, metadata=sent.metadata) == sent
    call.cancel()


def headers_of_ours(headers: Any) -> list[tuple[str, str | bytes]]:
    return [(name, value) for name, value in headers if name.startswith("x-")]


async def test_metadata_of_a_reply_is_response_headers(world: World) -> None:
    call = unary_call(world, ASKED)
    relayed = await function(world).call()
    await relayed.answer(reply("with headers", metadata=metadata_with(*GIVEN)))
    assert headers_of_ours(await call.initial_metadata()) == PASSED
    assert await outcome(call) == ok("with headers")


async def test_only_metadata_of_the_first_reply_of_a_stream_is_response_headers(world: World) -> None:
    call, relayed = await asked_streamed_out(world)
    late = metadata_with(("x-late", "1"))
    await relayed.answer(
        reply("one", metadata=metadata_with(*GIVEN)), reply("two", metadata=late), reply("three", metadata=late)
    )
    assert headers_of_ours(await call.initial_metadata()) == PASSED
    assert await read_all(call) == (["one", "two", "three"], CODE.OK, "")
    assert not headers_of_ours(await call.trailing_metadata())


# --- a user function that is away ------------------------------------------------------------------------------------


async def test_a_user_function_that_dies_in_the_middle_is_unavailable(tmp_path: Path) -> None:
    async with World(tmp_path, user_function=ActionFunction(), journal="memory:") as world:
        function(world).play_services(MODEL)
        calls = [await asked_unary(world) for _ in range(3)]
        streaming, relayed = await asked_streamed_out(world)
        await relayed.send(reply("one"))
        assert await read(streaming) == "one"
        sending = duplex(world)
        await begun(world, sending)
        await function(world).stop()
        assert {(await call).status for call, _ in calls} == {CODE.UNAVAILABLE}
        assert (await read_all(streaming))[:2] == ([], CODE.UNAVAILABLE)
        assert (await read_all(sending))[:2] == ([], CODE.UNAVAILABLE)
        await function(world).start()


async def test_d5_a_user_function_that_is_away_is_unavailable_in_every_shape_and_comes_back(tmp_path: Path) -> None:
    async with World(tmp_path, user_function=ActionFunction(), journal="memory:") as world:
        await function(world).stop()
        assert (await unary(world, ASKED)).status == CODE.UNAVAILABLE
        assert (await read_all(streamed_out(world, ASKED)))[1] == CODE.UNAVAILABLE
        assert (await outcome(streamed_in(world))).status == CODE.UNAVAILABLE
        assert (await read_all(duplex(world)))[1] == CODE.UNAVAILABLE
        await function(world).start()

        async def answered() -> bool:
            return await unary(world, ASKED) == ok("x")

        await eventually(answered, "the user function to be found again")


async def test_calls_beyond_the_streams_of_the_user_function_wait_for_their_turn(tmp_path: Path) -> None:
    settings = {"journal": "memory:", "user_function_max_connections": "1"}
    scripted = ActionFunction(options=[("grpc.max_concurrent_streams", 2)])
    async with World(tmp_path, user_function=scripted, **settings) as world:
        function(world).play_services(MODEL)
        waiting = [asyncio.create_task(unary(world, request([say(str(number))]))) for number in range(7)]
        for _ in range(7):
            relayed = await function(world).call()
            (step,) = model.Request.FromString((await relayed.next()).payload.value).groups[0].steps
            await relayed.answer(reply(step.reply.message))
        assert await asyncio.gather(*waiting) == [ok(str(number)) for number in range(7)]


async def test_streams_that_the_user_function_refuses_are_asked_for_again(tmp_path: Path) -> None:
    """A server counts a stream against its limit for a moment longer than its client does."""
    settings = {"journal": "memory:", "user_function_max_connections": "1"}
    scripted = ActionFunction(options=[("grpc.max_concurrent_streams", 3)])
    async with World(tmp_path, user_function=scripted, **settings) as world:
        asked = [request([say(str(number))]) for number in range(200)]
        results = await asyncio.gather(*(unary(world, each, timeout=20) for each in asked))
        assert results == [ok(str(number)) for number in range(200)]


async def test_a_streamed_request_that_waits_for_a_stream_loses_nothing(tmp_path: Path) -> None:
    settings = {"journal": "memory:", "user_function_max_connections": "1"}
    scripted = ActionFunction(options=[("grpc.max_concurrent_streams", 1)])
    async with World(tmp_path, user_function=scripted, **settings) as world:
        function(world).play_services(MODEL)
        blocking, first = await asked_unary(world)
        call = duplex(world)
        asked = [request([say(str(number))]) for number in range(20)]
        for each in asked:
            await write(call, each)
        await call.done_writing()
        await first.answer(reply("done"))
        assert await blocking == ok("done")
        relayed = await function(world).call()
        await relayed.wait_half_closed()
        assert relayed.commands == [opening("ProcessStreamed"), *map(message, asked)]
        await relayed.answer(reply("all there"))
        assert await read_all(call) == (["all there"], CODE.OK, "")


async def test_a_call_for_which_no_stream_comes_free_is_unavailable_after_relay_timeout(tmp_path: Path) -> None:
    settings = {"journal": "memory:", "user_function_max_connections": "1", "relay_timeout": "300ms"}
    scripted = ActionFunction(options=[("grpc.max_concurrent_streams", 1)])
    async with World(tmp_path, user_function=scripted, **settings) as world:
        function(world).play_services(MODEL)
        blocking, first = await asked_unary(world)
        result = await unary(world, ASKED)
        assert result.status == CODE.UNAVAILABLE and "relay_timeout" in result.details
        cancelled = unary_call(world, ASKED)
        await asyncio.sleep(0)
        cancelled.cancel()
        await first.answer(reply("not bound by it"))
        assert await blocking == ok("not bound by it")


# --- without a store -------------------------------------------------------------------------------------------------


async def test_a_user_function_of_actions_alone_needs_no_journal(tmp_path: Path) -> None:
    """And starts none: one that could not even be opened does not matter."""
    (tmp_path / "file").write_text("not a folder")
    spec = actions_spec(with_entities=False)
    journal = f"lmdb:{tmp_path / 'file' / 'journal'}"
    async with World(tmp_path, user_function=ActionFunction(spec), journal=journal) as world:
        assert await unary(world, ASKED) == ok("x")
        assert await world.proxy.terminate() == 0


async def test_figures_of_actions(tmp_path: Path) -> None:
    async with World(tmp_path, user_function=ActionFunction(), journal="memory:") as world:
        await unary(world, ASKED)
        call = duplex(world)
        await write(call, ASKED)
        assert await read(call) == "x"
        wanted = {"calls_total": 2, "messages_in_total": 1, "messages_out_total": 2, "active_calls": 1}

        async def shown() -> bool:
            _, text = await world.proxy.admin("/metrics")
            lines = text.splitlines()
            return all(
                f'stateside_action_{name}{{service="{MODEL}"}} {count}.0' in lines for name, count in wanted.items()
            )

        await eventually(shown, f"metrics {wanted}")
        call.cancel()
        wanted = {"cancelled_calls_total": 1, "active_calls": 0, "failed_calls_total": 0}
        await eventually(shown, f"metrics {wanted}")
