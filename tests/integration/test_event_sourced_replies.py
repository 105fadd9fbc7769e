"""What a reply of the user function leads to: core 4.3, row by row. Deviations from the reference carry their
D-number (core 15)."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from tck import eventsourced_pb2 as model

from stateside.proto import cloudstate, eventsourced, pack

from .harness import World, method_path, ok, unknown
from .messages import (
    MODEL,
    TWO,
    command,
    event,
    failed,
    forward,
    init,
    no_action,
    reply,
    request,
    side_effect,
)

SETTINGS = {"journal": "memory:"}


async def test_row_1_a_reply_without_events_answers_the_client(world: World) -> None:
    key = world.user_function.play()
    call, stream = await world.busy(key)
    await stream.send(reply(1, "hello"))
    assert await call == ok("hello")


async def test_row_1_another_type_than_promised_is_sent_all_the_same_and_reported(world: World) -> None:
    key = world.user_function.play()
    call, stream = await world.busy(key)
    answer = reply(1)
    answer.reply.client_action.reply.payload.CopyFrom(pack(model.Persisted(value="as bytes alike")))
    await stream.send(answer)
    assert await call == ok("as bytes alike")
    text = await world.user_function.report_about("Warning:", f"{MODEL}.Process")
    assert "type.googleapis.com/cloudstate.tck.model.Response" in text
    assert "type.googleapis.com/cloudstate.tck.model.Persisted" in text


async def test_row_2_events_are_kept_in_order(world: World) -> None:
    key = world.user_function.play()
    call, stream = await world.busy(key)
    await stream.send(reply(1, "abc", events="abc"))
    assert await call == ok("abc")
    replayed, _ = await world.next_life(key, stream)
    assert replayed == [init(key), event(1, "a"), event(2, "b"), event(3, "c")]


async def test_row_3_a_snapshot_stands_for_the_events_up_to_it(world: World) -> None:
    key = world.user_function.play()
    call, stream = await world.busy(key)
    await stream.send(reply(1, events="ab", snapshot="AB"))
    assert await call == ok()
    call = world.client.start(key)
    assert await stream.next() == command(2, key)
    await stream.send(reply(2, events="c"))
    assert await call == ok()
    replayed, _ = await world.next_life(key, stream)
    assert replayed == [init(key, snapshot="AB", sequence=2), event(3, "c")]


async def test_row_4_d36_a_snapshot_without_events_is_reported_and_ignored(world: World) -> None:
    key = world.user_function.play()
    call, stream = await world.busy(key)
    await stream.send(reply(1, "fine", snapshot="nothing behind it"))
    assert await call == ok("fine")
    await world.user_function.report_about(key, MODEL, "snapshot without events")
    replayed, _ = await world.next_life(key, stream)
    assert replayed == [init(key)]


async def test_row_5_a_forward_is_answered_by_its_target_after_the_events_are_kept(world: World) -> None:
    key, other = world.user_function.play(), world.user_function.play()
    call, stream = await world.busy(key)
    await stream.send(forward(1, other, events="a"))
    target = await world.user_function.ready_stream(other, TWO)
    assert await target.next() == command(1, other, service=TWO)
    await target.send(reply(1, "from the other"))
    assert await call == ok("from the other")
    replayed, _ = await world.next_life(key, stream)
    assert replayed == [init(key), event(1, "a")]


async def test_row_6_a_failure_is_shown_word_by_word_and_the_instance_lives_on(world: World) -> None:
    key = world.user_function.play()
    call, stream = await world.busy(key)
    await stream.send(failed(1, "out of stock"))
    assert await call == unknown("out of stock")
    call = world.client.start(key)
    assert await stream.next() == command(2, key)
    await stream.send(reply(2, "still here"))
    assert await call == ok("still here")


@pytest.mark.parametrize("text", ["", "ä – 漢字 🛒", "two\nlines\r\nand a tab\t", "100 % sure", "x" * 2000])
async def test_row_6_d27_any_text_of_a_failure_reaches_the_client(world: World, text: str) -> None:
    """The reference writes grpc-message raw; we percent-encode it."""
    key = world.user_function.play()
    call, stream = await world.busy(key)
    await stream.send(failed(1, text))
    assert await call == unknown(text)


async def test_row_6_a_huge_description_hurts_no_other_call_of_the_connection(world: World) -> None:
    key, other = world.user_function.play(), world.user_function.play()
    call, stream = await world.busy(key)
    bystander, other_stream = await world.busy(other)
    await stream.send(failed(1, "x" * 1_000_000))
    outcome = await call
    assert outcome.status == grpc.StatusCode.UNKNOWN
    assert outcome.details.startswith("xxxx")
    await other_stream.send(reply(1, "unharmed"))
    assert await bystander == ok("unharmed")


async def test_row_7_d13_a_failure_that_carries_events_leaves_nothing_and_restarts_the_instance(world: World) -> None:
    """The reference keeps the events of a failed command. A failed command leaves nothing here."""
    key = world.user_function.play()
    call, stream = await world.busy(key)
    await stream.send(failed(1, "no", events="ab", snapshot="AB"))
    assert await call == unknown("no")
    await world.user_function.report_about(key, MODEL, "together with a failure", "discarded")
    await stream.close_as_asked()
    stream = await world.user_function.ready_stream(key)
    call = world.client.start(key)
    assert await stream.next() == command(1, key)
    await stream.send(reply(1))
    assert await call == ok()


async def test_row_8_a_failure_with_restart_discards_the_events_of_its_reply(world: World) -> None:
    key = world.user_function.play()
    call, stream = await world.busy(key)
    await stream.send(reply(1, events="a"))
    await call
    call = world.client.start(key)
    await stream.next()
    await stream.send(failed(2, "start over", restart=True, events="b"))
    assert await call == unknown("start over")
    await stream.close_as_asked()
    stream = await world.user_function.stream(key)
    assert await stream.next() == init(key)
    assert await stream.next() == event(1, "a")
    call = world.client.start(key)
    assert await stream.next() == command(1, key)
    await stream.send(reply(1))
    assert await call == ok()


@pytest.mark.parametrize("events", ["", "a"])
async def test_row_9_no_client_action_is_internal_and_reported(world: World, events: str) -> None:
    """The reference answers OK without a message, which most clients cannot read. Events are kept as there."""
    key = world.user_function.play()
    call, stream = await world.busy(key)
    await stream.send(no_action(1, events=events))
    outcome = await call
    assert outcome.status == grpc.StatusCode.INTERNAL
    assert f"{MODEL}.Process" in outcome.details
    await world.user_function.report_about(f"{MODEL}.Process", "neither reply, forward nor failure")
    replayed, _ = await world.next_life(key, stream)
    assert replayed == [init(key), *(event(number, value) for number, value in enumerate(events, 1))]


@pytest.mark.parametrize("synchronous", [False, True])
async def test_row_10_side_effects_run_with_the_answer(world: World, synchronous: bool) -> None:
    key, other = world.user_function.play(), world.user_function.play()
    call, stream = await world.busy(key)
    await stream.send(reply(1, "done", events="a", effects=[side_effect(other, synchronous=synchronous)]))
    target = await world.user_function.ready_stream(other, TWO)
    assert await target.next() == command(1, other, service=TWO)
    await target.send(reply(1))
    assert await call == ok("done")


async def test_row_10_d13_side_effects_of_a_failure_do_not_run(world: World) -> None:
    """The reference runs them. A failed command leaves nothing here."""
    key, other = world.user_function.play(), world.user_function.play()
    call, stream = await world.busy(key)
    await stream.send(failed(1, "no", effects=[side_effect(other)]))
    assert await call == unknown("no")
    await world.user_function.report_about(key, "side effects")
    call = world.client.start(other, service=TWO)
    target = await world.user_function.ready_stream(other, TWO)
    assert await target.next() == command(1, other, service=TWO)
    await target.send(reply(1, "nobody was here before"))
    assert await call == ok("nobody was here before")


async def crash_with(world: World, answer: Any, text: str, *report: str) -> None:
    """One command in flight and two behind it; the user function says something impossible."""
    key = world.user_function.play()
    call, stream = await world.busy(key)
    queued = [world.client.start(key, timeout=5.0) for _ in range(2)]
    await world.queued(2)
    if isinstance(answer, bytes):
        await stream.send_bytes(answer)
    else:
        await stream.send(answer)
    assert await call == unknown(text)
    await world.user_function.report_about(key, MODEL, *report)
    await stream.close_as_asked()
    stream = await world.user_function.ready_stream(key)
    for number, later in enumerate(queued, 1):
        assert await stream.next() == command(number, key)
        await stream.send(reply(number, "by the next instance"))
        assert await later == ok("by the next instance")


async def test_row_11_d10_d15_a_wrong_id_crashes_the_instance_is_reported_and_queued_commands_go_to_the_next(
    world: World,
) -> None:
    """The reference fails queued commands with "Entity terminated" and reports nothing."""
    await crash_with(world, reply(7, events="a"), "Unexpected entity reply", "command 7", "command 1")


async def test_row_11_nothing_of_a_reply_with_a_wrong_id_is_kept(world: World) -> None:
    key = world.user_function.play()
    call, stream = await world.busy(key)
    await stream.send(reply(2, events="a", snapshot="A"))
    assert await call == unknown("Unexpected entity reply")
    await world.user_function.report_about(key)
    await stream.close_as_asked()
    call = world.client.start(key)
    stream = await world.user_function.ready_stream(key)
    assert await stream.next() == command(1, key)
    await stream.send(reply(1))
    assert await call == ok()


async def test_row_12_d15_a_second_reply_ends_the_instance_and_is_reported(world: World) -> None:
    """The reference only logs, and may lose the next command."""
    key = world.user_function.play()
    call, stream = await world.busy(key)
    await stream.send(reply(1, "once"))
    assert await call == ok("once")
    await stream.send(reply(1, "twice", events="a"))
    await world.user_function.report_about(key, MODEL, "none was in flight")
    call = world.client.start(key)
    await stream.close_as_asked()
    stream = await world.user_function.ready_stream(key)
    assert await stream.next() == command(1, key)
    await stream.send(reply(1, "by the next instance"))
    assert await call == ok("by the next instance")


async def test_row_13_a_message_that_is_neither_reply_nor_failure(world: World) -> None:
    empty = eventsourced.EventSourcedStreamOut()
    await crash_with(world, empty, "Unexpected entity message", "neither reply nor failure")


@pytest.mark.parametrize(
    "garbage",
    [b"\xff\xff\xff\xff", b"\x0a\x7f", b"\x0a\x02\x08", b"\x0a\x05\x12\x03\x0a\x01\xff", b"\x07"],
    ids=["tag", "beyond the end", "cut varint", "nested", "wire type 7"],
)
async def test_row_13_a_malformed_message(world: World, garbage: bytes) -> None:
    await crash_with(world, garbage, "Unexpected entity message", "malformed")


def with_bad_effect() -> Any:
    """A well-formed reply but for the bytes of its side effect."""
    outer = eventsourced.EventSourcedStreamOut()
    outer.reply.CopyFrom(reply(1).reply)
    inner: bytes = outer.reply.SerializeToString() + b"\x1a\x02\x0a\x7f"
    return b"\x0a" + bytes([len(inner)]) + inner


def with_bad_forward() -> Any:
    action = b"\x12\x02\x0a\x7f"
    inner = b"\x08\x01\x12" + bytes([len(action)]) + action
    return b"\x0a" + bytes([len(inner)]) + inner


def with_bad_metadata() -> Any:
    answer = b"\x12\x02\x0a\x7f"
    action = b"\x0a" + bytes([len(answer)]) + answer
    inner = b"\x08\x01\x12" + bytes([len(action)]) + action
    return b"\x0a" + bytes([len(inner)]) + inner


@pytest.mark.parametrize("malformed", [with_bad_effect, with_bad_forward, with_bad_metadata])
async def test_row_13_a_malformed_part_of_a_reply_leaves_nobody_waiting(world: World, malformed: Any) -> None:
    key = world.user_function.play()
    call, stream = await world.busy(key)
    await stream.send_bytes(malformed())
    assert await call == unknown("Unexpected entity message")
    await world.user_function.report_about(key, MODEL, "malformed")
    await stream.close_as_asked()


async def test_a_message_after_the_half_close_is_not_listened_to(world: World) -> None:
    key = world.user_function.play()
    call, stream = await world.busy(key)
    await stream.send(failed(1, "restart", restart=True))
    await call
    assert await stream.next() is None
    await stream.send(reply(1, "late", events="x"))
    await stream.send_bytes(b"\xff")
    stream.complete()
    stream = await world.user_function.ready_stream(key)
    call = world.client.start(key)
    assert await stream.next() == command(1, key)
    await stream.send(reply(1, "restarted all the same"))
    assert await call == ok("restarted all the same")


# --- reply metadata (core 8.2) ---------------------------------------------------------------------------------------


def metadata(*entries: tuple[str, str]) -> Any:
    return cloudstate.Metadata(
        entries=[cloudstate.MetadataEntry(key=key, string_value=value) for key, value in entries]
    )


async def headers_of_reply(world: World, given: Any) -> list[tuple[str, Any]]:
    key = world.user_function.play()
    call = world.client.call(method_path(MODEL), request(key).SerializeToString())
    stream = await world.user_function.ready_stream(key)
    await stream.next()
    await stream.send(reply(1, "with headers", metadata=given))
    assert model.Response.FromString(await call).message == "with headers"
    return list(await call.initial_metadata())


async def test_string_entries_of_reply_metadata_become_response_headers_in_order(world: World) -> None:
    headers = await headers_of_reply(world, metadata(("x-first", "1"), ("x-many", "a"), ("x-many", "b")))
    assert [pair for pair in headers if pair[0].startswith("x-")] == [
        ("x-first", "1"),
        ("x-many", "a"),
        ("x-many", "b"),
    ]


async def test_reserved_names_in_reply_metadata_are_dropped(world: World) -> None:
    given = metadata(("content-type", "text/html"), ("connection", "close"), ("grpc-status", "5"), ("x-kept", "1"))
    headers = await headers_of_reply(world, given)
    assert ("x-kept", "1") in headers
    assert not {name for name, _ in headers} & {"connection", "grpc-status"}


@pytest.mark.parametrize(
    "entry",
    [("x y", "1"), ("", "1"), (":status", "500"), ("x-bad", "a\r\nset: b"), ("x-bad", "\x00"), ("x-bad", "naïve")],
    ids=["blank in name", "no name", "pseudo header", "line break", "zero byte", "not ASCII"],
)
async def test_metadata_that_is_no_header_is_dropped_and_the_reply_still_comes(
    world: World, entry: tuple[str, str]
) -> None:
    headers = await headers_of_reply(world, metadata(entry, ("x-kept", "1")))
    assert ("x-kept", "1") in headers
    assert "x-bad" not in {name for name, _ in headers}
