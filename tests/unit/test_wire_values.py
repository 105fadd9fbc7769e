"""The messages of the value entity protocol: written, scanned and refused as the protobuf runtime does."""

from itertools import permutations
from typing import Any as Untyped

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stateside._speedups import wire
from stateside.proto import Any, cloudstate, valueentity
from tests import wire_oracle as oracle
from tests.fuzz import fuzz_wire
from tests.unit.wire_strategies import command_ids, payloads, serialized, texts, wire_messages

Out, In = valueentity.ValueEntityStreamOut, valueentity.ValueEntityStreamIn
AN_ANY = Any(type_url="type.googleapis.com/x.Y", value=b"\x08\x01")
METADATA = cloudstate.Metadata(entries=[cloudstate.MetadataEntry(key="k", string_value="v")])
DEFAULTS = oracle.seen_value_out(wire.ValueOut())

anys = serialized(Any)
metadatas = st.none() | serialized(cloudstate.Metadata)
side_effects = st.lists(serialized(cloudstate.SideEffect), max_size=2)
state_actions = st.one_of(
    st.just((wire.STATE_NONE, None)), st.just((wire.STATE_DELETE, None)), anys.map(lambda a: (wire.STATE_UPDATE, a))
)
some = settings(max_examples=50, deadline=None)
many = settings(max_examples=120, deadline=None)


# --- scanned ---------------------------------------------------------------------------------------------------------


@many
@given(wire_messages(Out.DESCRIPTOR))
def test_any_serialization_of_a_stream_out_message_is_scanned_as_the_runtime_parses_it(data: bytes) -> None:
    assert fuzz_wire.value_out(data)


@many
@given(wire_messages(valueentity.ValueEntityAction.DESCRIPTOR), wire_messages(Out.DESCRIPTOR))
def test_any_serialization_of_a_state_action_is_scanned_as_the_runtime_parses_it(change: bytes, rest: bytes) -> None:
    reply = b"\x22" + bytes([len(change) & 0x7F | 0x80, len(change) >> 7 | 0x80, 0]) + change
    head = b"\x0a" + bytes([len(reply) & 0x7F | 0x80, len(reply) >> 7 | 0x80, 0])
    assert fuzz_wire.value_out(rest + head + reply)


@many
@given(wire_messages(In.DESCRIPTOR))
def test_any_serialization_of_a_stream_in_message_is_scanned_as_the_runtime_parses_it(data: bytes) -> None:
    assert fuzz_wire.value_in(data)


@settings(max_examples=30, deadline=None)
@given(wire_messages(Out.DESCRIPTOR), wire_messages(In.DESCRIPTOR))
def test_every_truncation_is_refused_exactly_when_the_runtime_refuses_it(out: bytes, into: bytes) -> None:
    for size in range(len(out)):
        fuzz_wire.value_out(out[:size])
    for size in range(len(into)):
        fuzz_wire.value_in(into[:size])


def test_empty_messages_have_no_kind() -> None:
    assert oracle.seen_value_out(wire.scan_value_out(b"")) == DEFAULTS
    assert (DEFAULTS["kind"], DEFAULTS["action"]) == (wire.KIND_NONE, wire.ACTION_NONE)
    assert (DEFAULTS["state_action"], DEFAULTS["value"]) == (wire.STATE_NONE, None)
    assert wire.scan_value_in(b"").kind == wire.IN_NONE


def full_reply() -> Untyped:
    action = cloudstate.ClientAction(reply=cloudstate.Reply(payload=AN_ANY, metadata=METADATA))
    effect = cloudstate.SideEffect(service_name="s", command_name="c", payload=AN_ANY)
    return valueentity.ValueEntityReply(
        command_id=7, client_action=action, side_effects=[effect] * 2, state_action=state_action("update with value")
    )


def test_a_reply_is_taken_apart() -> None:
    out = wire.scan_value_out(Out(reply=full_reply()).SerializeToString())
    assert (out.kind, out.command_id, out.action) == (wire.KIND_REPLY, 7, wire.ACTION_REPLY)
    assert (out.type_url, out.payload) == (AN_ANY.type_url, AN_ANY.value)
    assert out.metadata == METADATA.SerializeToString()
    assert len(out.side_effects) == 2
    assert (out.state_action, out.value) == (wire.STATE_UPDATE, AN_ANY.SerializeToString())


def test_a_stream_failure_after_a_reply_replaces_it_whole() -> None:
    failure = Out(failure=cloudstate.Failure(command_id=3, description="broken", restart=True))
    out = wire.scan_value_out(Out(reply=full_reply()).SerializeToString() + failure.SerializeToString())
    expected = {"kind": wire.KIND_FAILURE, "command_id": 3, "description": "broken", "restart": True}
    assert oracle.seen_value_out(out) == DEFAULTS | expected


def test_another_client_action_leaves_the_state_action_alone() -> None:
    failure = cloudstate.ClientAction(failure=cloudstate.Failure(description="no", restart=True))
    second = Out(reply=valueentity.ValueEntityReply(client_action=failure))
    out = wire.scan_value_out(Out(reply=full_reply()).SerializeToString() + second.SerializeToString())
    assert (out.action, out.description, out.restart, out.payload) == (wire.ACTION_FAILURE, "no", True, b"")
    assert (out.state_action, out.value) == (wire.STATE_UPDATE, AN_ANY.SerializeToString())


def state_action(name: str) -> Untyped:
    update, delete = valueentity.ValueEntityUpdate, valueentity.ValueEntityDelete()
    return {
        "no member": valueentity.ValueEntityAction(),
        "update with value": valueentity.ValueEntityAction(update=update(value=AN_ANY)),
        "update with empty value": valueentity.ValueEntityAction(update=update(value=Any())),
        "update without value": valueentity.ValueEntityAction(update=update()),
        "delete": valueentity.ValueEntityAction(delete=delete),
    }[name]


STATE_ACTIONS = {
    "no member": (wire.STATE_INVALID, None),
    "update with value": (wire.STATE_UPDATE, AN_ANY.SerializeToString()),
    "update with empty value": (wire.STATE_UPDATE, b""),
    "update without value": (wire.STATE_INVALID, None),
    "delete": (wire.STATE_DELETE, None),
}


def message_with(*names: str) -> bytes:
    replies = [valueentity.ValueEntityReply(state_action=state_action(name)) for name in names]
    return b"".join(Out(reply=reply).SerializeToString() for reply in replies)


@pytest.mark.parametrize("name", STATE_ACTIONS)
def test_a_state_action_is_told_from_its_absence_and_from_an_invalid_one(name: str) -> None:
    out = wire.scan_value_out(message_with(name))
    assert (out.state_action, out.value) == STATE_ACTIONS[name]


def test_of_several_state_actions_the_last_member_counts_and_updates_are_merged() -> None:
    def scanned(*names: str) -> tuple[int, bytes | None]:
        out = wire.scan_value_out(message_with(*names))
        return out.state_action, out.value

    value = AN_ANY.SerializeToString()
    assert scanned("update with value", "delete") == (wire.STATE_DELETE, None)
    assert scanned("delete", "update with value") == (wire.STATE_UPDATE, value)
    assert scanned("update with value", "delete", "update without value") == (wire.STATE_INVALID, None)
    assert scanned("update with value", "update without value") == (wire.STATE_UPDATE, value)
    assert scanned("delete", "no member") == (wire.STATE_DELETE, None)


@pytest.mark.parametrize("names", list(permutations(STATE_ACTIONS, 3)), ids=" then ".join)
def test_state_actions_in_any_order_mean_what_the_runtime_makes_of_them(names: tuple[str, ...]) -> None:
    assert fuzz_wire.value_out(message_with(*names))


MALFORMED = {
    b"\x0a": "ValueEntityStreamOut: truncated varint at offset 1",
    b"\x0a\x02\x08\xff": "ValueEntityReply: truncated varint at offset 3",
    b"\x0a\x03\x22\x01\x0a": "ValueEntityAction: truncated varint at offset 5",
    b"\x0a\x05\x22\x03\x0a\x01\x0a": "ValueEntityUpdate: truncated varint at offset 7",
    b"\x0a\x05\x22\x03\x12\x01\x0a": "ValueEntityDelete: truncated varint at offset 7",
    b"\x0b\x0c": "ValueEntityStreamOut: group at offset 0",
    b"\x12\x04\x12\x02a\xff": "Failure.description: invalid UTF-8 at offset 5",
}


@pytest.mark.parametrize("data, text", MALFORMED.items(), ids=MALFORMED.values())
def test_malformed_messages_are_refused_with_what_and_where(data: bytes, text: str) -> None:
    with pytest.raises(wire.WireError) as caught:
        wire.scan_value_out(data)
    assert str(caught.value) == text


def test_a_malformed_init_is_refused_with_what_and_where() -> None:
    for data, text in [
        (b"\x0a\x03\x0a\x01\xff", "init.service_name: invalid UTF-8 at offset 4"),
        (b"\x0a\x03\x12\x01\xff", "init.entity_id: invalid UTF-8 at offset 4"),
        (b"\x0a\x03\x1a\x01\x0a", "ValueEntityInitState: truncated varint at offset 5"),
    ]:
        with pytest.raises(wire.WireError) as caught:
            wire.scan_value_in(data)
        assert str(caught.value) == text


@pytest.mark.parametrize("scan", [wire.scan_value_out, wire.scan_value_in])
def test_only_bytes_are_scanned(scan: Untyped) -> None:
    for not_bytes in [None, "text", bytearray(b"")]:
        with pytest.raises(TypeError):
            scan(not_bytes)


# --- written ---------------------------------------------------------------------------------------------------------


@some
@given(texts, texts, st.none() | anys)
def test_init_always_has_a_state(service: str, key: str, value: bytes | None) -> None:
    state = valueentity.ValueEntityInitState(value=None if value is None else Any.FromString(value))
    init = valueentity.ValueEntityInit(service_name=service, entity_id=key, state=state)
    written = wire.write_value_init(service, key, value)
    assert written == In(init=init).SerializeToString()
    found = wire.scan_value_in(written)
    assert (found.kind, found.service_name, found.entity_id) == (wire.IN_INIT, service, key)
    assert found.snapshot == value


def test_a_command_is_scanned_as_it_was_written() -> None:
    found = wire.scan_value_in(wire.CommandWriter(2, "Get", AN_ANY.type_url).write(b"key", 9, b"payload"))
    assert (found.kind, found.entity_id, found.command_id, found.name) == (wire.IN_COMMAND, "key", 9, "Get")
    assert (found.type_url, found.payload, found.metadata) == (AN_ANY.type_url, b"payload", None)


def out_reply(number: int, action: Untyped, effects: list[bytes], change: tuple[int, bytes | None]) -> bytes:
    reply = valueentity.ValueEntityReply(command_id=number, client_action=action)
    reply.side_effects.extend(cloudstate.SideEffect.FromString(effect) for effect in effects)
    if change[0] == wire.STATE_UPDATE:
        reply.state_action.update.value.ParseFromString(change[1])
        reply.state_action.update.value.SetInParent()
    elif change[0] == wire.STATE_DELETE:
        reply.state_action.delete.SetInParent()
    data: bytes = Out(reply=reply).SerializeToString()
    return data


@some
@given(command_ids, texts, payloads, metadatas, side_effects, state_actions)
def test_reply(
    number: int, url: str, payload: bytes, metadata: bytes | None, effects: list[bytes], change: Untyped
) -> None:
    reply = cloudstate.Reply(payload=Any(type_url=url, value=payload))
    if metadata is not None:
        reply.metadata.CopyFrom(cloudstate.Metadata.FromString(metadata))
    written = wire.write_value_reply(
        number, url, payload, metadata=metadata, side_effects=effects, state_action=change[0], value=change[1]
    )
    assert written == out_reply(number, cloudstate.ClientAction(reply=reply), effects, change)


@some
@given(command_ids, serialized(cloudstate.Forward), side_effects, state_actions)
def test_forward(number: int, forward: bytes, effects: list[bytes], change: Untyped) -> None:
    action = cloudstate.ClientAction(forward=cloudstate.Forward.FromString(forward))
    written = wire.write_value_forward(
        number, forward, side_effects=tuple(effects), state_action=change[0], value=change[1]
    )
    assert written == out_reply(number, action, effects, change)


@some
@given(command_ids, texts, st.booleans())
def test_failures_are_those_of_event_sourced_entities(number: int, text: str, restart: bool) -> None:
    failure = cloudstate.Failure(command_id=number, description=text, restart=restart)
    nothing = (wire.STATE_NONE, None)
    expected = out_reply(number, cloudstate.ClientAction(failure=failure), [], nothing)
    assert wire.write_action_failure(number, text, restart) == expected
    failure.restart = False
    assert wire.write_stream_failure(number, text) == Out(failure=failure).SerializeToString()


@pytest.mark.parametrize(
    "state_action, value, reason",
    [
        (wire.STATE_UPDATE, None, "a value goes with STATE_UPDATE"),
        (wire.STATE_DELETE, b"", "a value goes with STATE_UPDATE"),
        (wire.STATE_NONE, b"", "a value goes with STATE_UPDATE"),
        (wire.STATE_INVALID, None, "3 is not a state action"),
        (-1, None, "-1 is not a state action"),
    ],
)
def test_what_is_no_state_action_is_not_written(state_action: int, value: bytes | None, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        wire.write_value_reply(1, "t", b"", state_action=state_action, value=value)
    with pytest.raises(ValueError, match=reason):
        wire.write_value_forward(1, b"", state_action=state_action, value=value)


def test_none_in_place_of_bytes_or_text_is_refused() -> None:
    calls: list[Untyped] = [
        lambda: wire.write_value_init(None, "", None),  # type: ignore[arg-type]
        lambda: wire.write_value_init("", None, None),  # type: ignore[arg-type]
        lambda: wire.write_value_reply(1, None, b""),  # type: ignore[arg-type]
        lambda: wire.write_value_reply(1, "", None),  # type: ignore[arg-type]
        lambda: wire.write_value_reply(1, "", b"", side_effects=[None]),  # type: ignore[list-item]
        lambda: wire.write_value_forward(1, None),  # type: ignore[arg-type]
    ]
    for call in calls:
        with pytest.raises(TypeError):
            call()
