"""The messages of the CRDT protocol: written, scanned and refused as the protobuf runtime does."""

from itertools import permutations
from typing import Any as Untyped

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stateside._speedups import wire
from stateside.proto import Any, cloudstate, crdt
from tests import wire_oracle as oracle
from tests.fuzz import fuzz_wire
from tests.unit.wire_strategies import command_ids, payloads, serialized, texts, wire_messages

Out, In = crdt.CrdtStreamOut, crdt.CrdtStreamIn
AN_ANY = Any(type_url="type.googleapis.com/x.Y", value=b"\x08\x01")
EFFECT = cloudstate.SideEffect(service_name="s", command_name="c", payload=AN_ANY)
DELTA = crdt.CrdtDelta(gcounter=crdt.GCounterDelta(increment=3))
DEFAULTS = oracle.seen_crdt_out(wire.CrdtOut())
NO_CHANGE = (wire.STATE_NONE, None, 0)

deltas = serialized(crdt.CrdtDelta)
side_effects = st.lists(serialized(cloudstate.SideEffect), max_size=2)
levels = st.integers(0, 2)
changes = st.one_of(
    st.just(NO_CHANGE),
    st.tuples(st.just(wire.STATE_DELETE), st.none(), levels),
    st.tuples(st.just(wire.STATE_UPDATE), deltas, levels),
)
some = settings(max_examples=50, deadline=None)
many = settings(max_examples=120, deadline=None)


# --- scanned ---------------------------------------------------------------------------------------------------------


@many
@given(wire_messages(Out.DESCRIPTOR))
def test_any_serialization_of_a_stream_out_message_is_scanned_as_the_runtime_parses_it(data: bytes) -> None:
    assert fuzz_wire.crdt_out(data)


@many
@given(wire_messages(crdt.CrdtStateAction.DESCRIPTOR), wire_messages(Out.DESCRIPTOR), st.sampled_from([True, False]))
def test_any_serialization_of_a_state_action_is_scanned_as_the_runtime_parses_it(
    change: bytes, rest: bytes, in_reply: bool
) -> None:
    member = wrapped(0x2A, change) if in_reply else wrapped(0x1A, change)
    assert fuzz_wire.crdt_out(rest + wrapped(0x0A if in_reply else 0x1A, member))


def wrapped(tag: int, content: bytes) -> bytes:
    size = len(content)
    return bytes([tag, size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14]) + content


@many
@given(wire_messages(In.DESCRIPTOR))
def test_any_serialization_of_a_stream_in_message_is_scanned_as_the_runtime_parses_it(data: bytes) -> None:
    assert fuzz_wire.crdt_in(data)


@settings(max_examples=30, deadline=None)
@given(wire_messages(Out.DESCRIPTOR), wire_messages(In.DESCRIPTOR))
def test_every_truncation_is_refused_exactly_when_the_runtime_refuses_it(out: bytes, into: bytes) -> None:
    for size in range(len(out)):
        fuzz_wire.crdt_out(out[:size])
    for size in range(len(into)):
        fuzz_wire.crdt_in(into[:size])


def test_empty_messages_have_no_kind() -> None:
    assert oracle.seen_crdt_out(wire.scan_crdt_out(b"")) == DEFAULTS
    assert (DEFAULTS["kind"], DEFAULTS["action"], DEFAULTS["update"]) == (wire.KIND_NONE, wire.ACTION_NONE, None)
    assert wire.scan_crdt_in(b"").kind == wire.IN_NONE


def full_reply() -> Untyped:
    return crdt.CrdtReply(
        command_id=7,
        client_action=cloudstate.ClientAction(reply=cloudstate.Reply(payload=AN_ANY)),
        side_effects=[EFFECT] * 2,
        state_action=crdt.CrdtStateAction(update=DELTA, write_consistency=crdt.CrdtWriteConsistency.ALL),
        streamed=True,
    )


def test_a_reply_is_taken_apart() -> None:
    out = wire.scan_crdt_out(Out(reply=full_reply()).SerializeToString())
    assert (out.kind, out.command_id, out.action, out.streamed) == (wire.KIND_REPLY, 7, wire.ACTION_REPLY, True)
    assert (out.type_url, out.payload, len(out.side_effects)) == (AN_ANY.type_url, AN_ANY.value, 2)
    assert (out.state_action, out.update, out.write_consistency) == (wire.STATE_UPDATE, DELTA.SerializeToString(), 2)


OTHERS = {
    "failure": (cloudstate.Failure(command_id=3, description="broken"), wire.KIND_FAILURE),
    "streamed_message": (crdt.CrdtStreamedMessage(command_id=3, end_stream=True), wire.KIND_STREAMED_MESSAGE),
    "stream_cancelled_response": (crdt.CrdtStreamCancelledResponse(command_id=3), wire.KIND_CANCELLED_RESPONSE),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_message_after_a_reply_replaces_it_whole(name: str) -> None:
    member, kind = OTHERS[name]
    second = Out(**{name: member}).SerializeToString()
    out = wire.scan_crdt_out(Out(reply=full_reply()).SerializeToString() + second)
    assert oracle.seen_crdt_out(out) == oracle.seen_crdt_out(wire.scan_crdt_out(second))
    assert (out.kind, out.command_id, out.streamed, out.update, out.side_effects) == (kind, 3, False, None, ())


def test_an_unchanged_counter_is_an_update_all_the_same() -> None:
    """Presence in the oneof counts, not the bytes of what is in it."""
    zero = crdt.CrdtDelta(gcounter=crdt.GCounterDelta())
    for delta in (zero, crdt.CrdtDelta()):
        change = crdt.CrdtStateAction(update=delta)
        out = wire.scan_crdt_out(Out(reply=crdt.CrdtReply(state_action=change)).SerializeToString())
        assert (out.state_action, out.update) == (wire.STATE_UPDATE, delta.SerializeToString())


STATE_ACTIONS = {
    "no member": crdt.CrdtStateAction(write_consistency=1),
    "update": crdt.CrdtStateAction(update=DELTA),
    "empty update": crdt.CrdtStateAction(update=crdt.CrdtDelta(), write_consistency=2),
    "delete": crdt.CrdtStateAction(delete=crdt.CrdtDelete()),
    "unknown consistency": crdt.CrdtStateAction(update=DELTA, write_consistency=9),
}


@pytest.mark.parametrize("names", list(permutations(STATE_ACTIONS, 3)), ids=" then ".join)
def test_state_actions_in_any_order_mean_what_the_runtime_makes_of_them(names: tuple[str, ...]) -> None:
    replies = [crdt.CrdtReply(state_action=STATE_ACTIONS[name]) for name in names]
    assert fuzz_wire.crdt_out(b"".join(Out(reply=reply).SerializeToString() for reply in replies))


def test_a_state_action_without_a_member_is_invalid_and_an_unknown_consistency_is_local() -> None:
    seen = {}
    for name, change in STATE_ACTIONS.items():
        out = wire.scan_crdt_out(Out(reply=crdt.CrdtReply(state_action=change)).SerializeToString())
        seen[name] = (out.state_action, out.write_consistency)
    assert seen["no member"] == (wire.STATE_INVALID, 1)
    assert seen["delete"] == (wire.STATE_DELETE, 0)
    assert seen["unknown consistency"] == (wire.STATE_UPDATE, 0)


MALFORMED = {
    b"\x0a": "CrdtStreamOut: truncated varint at offset 1",
    b"\x0a\x02\x08\xff": "CrdtReply: truncated varint at offset 3",
    b"\x0a\x03\x2a\x01\x0a": "CrdtStateAction: truncated varint at offset 5",
    b"\x0a\x05\x2a\x03\x12\x01\x0a": "CrdtDelete: truncated varint at offset 7",
    b"\x12\x02\x08\xff": "CrdtStreamedMessage: truncated varint at offset 3",
    b"\x1a\x02\x08\xff": "CrdtStreamCancelledResponse: truncated varint at offset 3",
    b"\x0b\x0c": "CrdtStreamOut: group at offset 0",
    b"\x22\x04\x12\x02a\xff": "Failure.description: invalid UTF-8 at offset 5",
}


@pytest.mark.parametrize("data, text", MALFORMED.items(), ids=MALFORMED.values())
def test_malformed_messages_are_refused_with_what_and_where(data: bytes, text: str) -> None:
    with pytest.raises(wire.WireError) as caught:
        wire.scan_crdt_out(data)
    assert str(caught.value) == text


def test_malformed_messages_of_a_proxy_are_refused_with_what_and_where() -> None:
    for data, text in [
        (b"\x0a\x03\x0a\x01\xff", "init.service_name: invalid UTF-8 at offset 4"),
        (b"\x0a\x03\x12\x01\xff", "init.entity_id: invalid UTF-8 at offset 4"),
        (b"\x1a\x01\x0a", "CrdtDelete: truncated varint at offset 3"),
        (b"\x2a\x03\x0a\x01\xff", "StreamCancelled.entity_id: invalid UTF-8 at offset 4"),
    ]:
        with pytest.raises(wire.WireError) as caught:
            wire.scan_crdt_in(data)
        assert str(caught.value) == text


@pytest.mark.parametrize("scan", [wire.scan_crdt_out, wire.scan_crdt_in])
def test_only_bytes_are_scanned(scan: Untyped) -> None:
    for not_bytes in [None, "text", bytearray(b"")]:
        with pytest.raises(TypeError):
            scan(not_bytes)


# --- written by a proxy ----------------------------------------------------------------------------------------------


@some
@given(texts, texts, st.none() | deltas)
def test_init_has_a_delta_only_when_there_is_state(service: str, key: str, delta: bytes | None) -> None:
    init = crdt.CrdtInit(service_name=service, entity_id=key)
    if delta is not None:
        init.delta.CopyFrom(crdt.CrdtDelta.FromString(delta))
    written = wire.write_crdt_init(service, key, delta)
    assert written == In(init=init).SerializeToString()
    found = wire.scan_crdt_in(written)
    assert (found.kind, found.service_name, found.entity_id, found.delta) == (wire.IN_INIT, service, key, delta)


@some
@given(deltas)
def test_delta(delta: bytes) -> None:
    written = wire.write_crdt_delta(delta)
    assert written == In(delta=crdt.CrdtDelta.FromString(delta)).SerializeToString()
    found = wire.scan_crdt_in(written)
    assert (found.kind, found.delta) == (wire.IN_DELTA, delta)


def test_delete() -> None:
    assert wire.write_crdt_delete() == In(delete=crdt.CrdtDelete()).SerializeToString()
    assert wire.scan_crdt_in(wire.write_crdt_delete()).kind == wire.IN_DELETE


@some
@given(texts, command_ids)
def test_stream_cancelled(key: str, number: int) -> None:
    written = wire.write_stream_cancelled(key.encode(), number)
    assert written == In(stream_cancelled=cloudstate.StreamCancelled(entity_id=key, id=number)).SerializeToString()
    found = wire.scan_crdt_in(written)
    assert (found.kind, found.entity_id, found.command_id) == (wire.IN_STREAM_CANCELLED, key, number)


@some
@given(texts, command_ids, payloads, st.booleans())
def test_a_command_is_scanned_as_it_was_written(key: str, number: int, payload: bytes, streamed: bool) -> None:
    command = cloudstate.Command(entity_id=key, id=number, name="Get", streamed=streamed)
    command.payload.CopyFrom(Any(type_url=AN_ANY.type_url, value=payload))
    written = wire.CommandWriter(4, "Get", AN_ANY.type_url).write(key.encode(), number, payload, streamed=streamed)
    assert written == In(command=command).SerializeToString()
    found = wire.scan_crdt_in(written)
    assert (found.kind, found.entity_id, found.command_id, found.name) == (wire.IN_COMMAND, key, number, "Get")
    assert (found.type_url, found.payload, found.streamed) == (AN_ANY.type_url, payload, streamed)
    assert found.metadata is None


# --- written by a user function --------------------------------------------------------------------------------------


@st.composite
def actions(draw: st.DrawFn) -> tuple[dict[str, Untyped], Untyped]:
    """Arguments of a writer, and the ClientAction that they mean but for its command id."""
    which = draw(st.sampled_from([wire.ACTION_NONE, wire.ACTION_REPLY, wire.ACTION_FORWARD, wire.ACTION_FAILURE]))
    if which == wire.ACTION_REPLY:
        url, payload, metadata = draw(texts), draw(payloads), draw(st.none() | serialized(cloudstate.Metadata))
        reply = cloudstate.Reply(payload=Any(type_url=url, value=payload))
        if metadata is not None:
            reply.metadata.CopyFrom(cloudstate.Metadata.FromString(metadata))
        given = {"type_url": url, "payload": payload, "metadata": metadata}
        return {"action": which, **given}, cloudstate.ClientAction(reply=reply)
    if which == wire.ACTION_FORWARD:
        forward = draw(serialized(cloudstate.Forward))
        action = cloudstate.ClientAction(forward=cloudstate.Forward.FromString(forward))
        return {"action": which, "forward": forward}, action
    if which == wire.ACTION_FAILURE:
        text = draw(texts)
        return {"action": which, "description": text}, cloudstate.ClientAction(failure={"description": text})
    return {}, None


def numbered(action: Untyped, number: int) -> Untyped:
    if action is not None and action.HasField("failure"):
        action.failure.command_id = number
    return action


def expected_change(change: Untyped) -> Untyped:
    state_action, update, level = change
    if state_action == wire.STATE_UPDATE:
        return crdt.CrdtStateAction(update=crdt.CrdtDelta.FromString(update), write_consistency=level)
    return crdt.CrdtStateAction(delete=crdt.CrdtDelete(), write_consistency=level) if state_action else None


def effects_of(serialized_effects: list[bytes]) -> list[Untyped]:
    return [cloudstate.SideEffect.FromString(effect) for effect in serialized_effects]


def change_arguments(change: Untyped) -> dict[str, Untyped]:
    return dict(zip(("state_action", "update", "write_consistency"), change, strict=True))


@many
@given(command_ids, actions(), side_effects, changes, st.booleans())
def test_reply(number: int, action: Untyped, effects: list[bytes], change: Untyped, streamed: bool) -> None:
    arguments, client_action = action
    reply = crdt.CrdtReply(
        command_id=number,
        client_action=numbered(client_action, number),
        side_effects=effects_of(effects),
        state_action=expected_change(change),
        streamed=streamed,
    )
    written = wire.write_crdt_reply(
        number, side_effects=effects, streamed=streamed, **arguments, **change_arguments(change)
    )
    assert written == Out(reply=reply).SerializeToString()


@some
@given(command_ids, actions(), side_effects, st.booleans())
def test_streamed_message(number: int, action: Untyped, effects: list[bytes], end: bool) -> None:
    arguments, client_action = action
    message = crdt.CrdtStreamedMessage(
        command_id=number,
        client_action=numbered(client_action, number),
        side_effects=effects_of(effects),
        end_stream=end,
    )
    written = wire.write_crdt_streamed_message(number, side_effects=tuple(effects), end_stream=end, **arguments)
    assert written == Out(streamed_message=message).SerializeToString()


@some
@given(command_ids, side_effects, changes)
def test_cancelled_response(number: int, effects: list[bytes], change: Untyped) -> None:
    response = crdt.CrdtStreamCancelledResponse(
        command_id=number, side_effects=effects_of(effects), state_action=expected_change(change)
    )
    written = wire.write_crdt_cancelled_response(number, side_effects=effects, **change_arguments(change))
    assert written == Out(stream_cancelled_response=response).SerializeToString()


@some
@given(command_ids, texts)
def test_failure(number: int, text: str) -> None:
    failure = Out(failure=cloudstate.Failure(command_id=number, description=text))
    assert wire.write_crdt_failure(number, text) == failure.SerializeToString()


@pytest.mark.parametrize(
    "arguments, reason",
    [
        ({"state_action": wire.STATE_UPDATE}, "an update goes with STATE_UPDATE"),
        ({"state_action": wire.STATE_DELETE, "update": b""}, "an update goes with STATE_UPDATE"),
        ({"update": b""}, "an update goes with STATE_UPDATE"),
        ({"state_action": wire.STATE_INVALID}, "3 is not a state action"),
        ({"state_action": wire.STATE_DELETE, "write_consistency": 3}, "3 is not a write consistency"),
    ],
)
def test_what_is_no_state_action_is_not_written(arguments: dict[str, Untyped], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        wire.write_crdt_reply(1, **arguments)
    with pytest.raises(ValueError, match=reason):
        wire.write_crdt_cancelled_response(1, **arguments)


def test_what_is_no_action_and_none_in_place_of_bytes_or_text_are_refused() -> None:
    with pytest.raises(ValueError, match="4 is not an action"):
        wire.write_crdt_reply(1, 4)
    calls: list[Untyped] = [
        lambda: wire.write_crdt_init(None, ""),  # type: ignore[arg-type]
        lambda: wire.write_crdt_init("", None),  # type: ignore[arg-type]
        lambda: wire.write_crdt_delta(None),  # type: ignore[arg-type]
        lambda: wire.write_stream_cancelled(None, 1),  # type: ignore[arg-type]
        lambda: wire.write_crdt_reply(1, wire.ACTION_REPLY, type_url=None),  # type: ignore[arg-type]
        lambda: wire.write_crdt_reply(1, wire.ACTION_REPLY, payload=None),  # type: ignore[arg-type]
        lambda: wire.write_crdt_streamed_message(1, wire.ACTION_FORWARD),
        lambda: wire.write_crdt_streamed_message(1, side_effects=[None]),  # type: ignore[list-item]
        lambda: wire.write_crdt_failure(1, None),  # type: ignore[arg-type]
    ]
    for call in calls:
        with pytest.raises(TypeError):
            call()
