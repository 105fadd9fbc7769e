"""The messages of the action protocol: written, scanned and refused as the protobuf runtime does."""

from itertools import permutations
from typing import Any as Untyped

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stateside._speedups import wire
from stateside.proto import Any, action, cloudstate
from tests import wire_oracle as oracle
from tests.fuzz import fuzz_wire
from tests.unit.wire_strategies import payloads, serialized, texts, wire_messages

Response, Command = action.ActionResponse, action.ActionCommand
AN_ANY = Any(type_url="type.googleapis.com/x.Y", value=b"\x08\x01")
METADATA = cloudstate.Metadata(entries=[cloudstate.MetadataEntry(key="k", string_value="v")])
EFFECT = cloudstate.SideEffect(service_name="s", command_name="c", payload=AN_ANY)
DEFAULTS = oracle.seen_action_out(wire.ActionOut())

metadatas = st.none() | serialized(cloudstate.Metadata)
side_effects = st.lists(serialized(cloudstate.SideEffect), max_size=2)
some = settings(max_examples=50, deadline=None)
many = settings(max_examples=120, deadline=None)


def optional(message_class: Untyped, data: bytes | None) -> Untyped:
    return None if data is None else message_class.FromString(data)


# --- scanned ---------------------------------------------------------------------------------------------------------


@many
@given(wire_messages(Response.DESCRIPTOR))
def test_any_serialization_of_a_response_is_scanned_as_the_runtime_parses_it(data: bytes) -> None:
    assert fuzz_wire.action_out(data)


@many
@given(wire_messages(Command.DESCRIPTOR))
def test_any_serialization_of_a_command_is_scanned_as_the_runtime_parses_it(data: bytes) -> None:
    assert fuzz_wire.action_in(data)


@settings(max_examples=30, deadline=None)
@given(wire_messages(Response.DESCRIPTOR), wire_messages(Command.DESCRIPTOR))
def test_every_truncation_is_refused_exactly_when_the_runtime_refuses_it(out: bytes, into: bytes) -> None:
    for size in range(len(out)):
        fuzz_wire.action_out(out[:size])
    for size in range(len(into)):
        fuzz_wire.action_in(into[:size])


def response(name: str) -> Untyped:
    return {
        "failure": Response(failure=cloudstate.Failure(command_id=9, description="no", restart=True)),
        "reply": Response(reply=cloudstate.Reply(payload=AN_ANY, metadata=METADATA)),
        "forward": Response(forward=cloudstate.Forward(service_name="s", command_name="c", payload=AN_ANY)),
        "effects only": Response(side_effects=[EFFECT, EFFECT]),
    }[name]


MEMBERS: dict[str, dict[str, Untyped]] = {
    "failure": {"action": wire.ACTION_FAILURE, "description": "no"},
    "reply": {
        "action": wire.ACTION_REPLY,
        "type_url": AN_ANY.type_url,
        "payload": AN_ANY.value,
        "metadata": METADATA.SerializeToString(),
    },
    "forward": {"action": wire.ACTION_FORWARD, "forward": response("forward").forward.SerializeToString()},
    "effects only": {"action": wire.ACTION_NONE, "side_effects": [EFFECT.SerializeToString()] * 2},
}


@pytest.mark.parametrize("name", MEMBERS)
def test_a_response_is_taken_apart(name: str) -> None:
    out = wire.scan_action_out(response(name).SerializeToString())
    assert oracle.seen_action_out(out) == DEFAULTS | MEMBERS[name]


@pytest.mark.parametrize("names", list(permutations(MEMBERS, 3)), ids=" then ".join)
def test_of_several_members_the_last_one_counts_and_effects_stay(names: tuple[str, ...]) -> None:
    data = b"".join(response(name).SerializeToString() for name in names)
    last = [name for name in names if name != "effects only"][-1]
    effects = MEMBERS["effects only"]["side_effects"] if "effects only" in names else []
    expected = DEFAULTS | MEMBERS[last] | {"side_effects": effects}
    assert oracle.seen_action_out(wire.scan_action_out(data)) == expected
    assert fuzz_wire.action_out(data)


def test_the_same_member_twice_is_merged() -> None:
    later = Response(reply=cloudstate.Reply(payload=Any(value=b"later"), metadata=METADATA))
    out = wire.scan_action_out(response("reply").SerializeToString() + later.SerializeToString())
    assert (out.type_url, out.payload) == (AN_ANY.type_url, b"later")
    assert len(cloudstate.Metadata.FromString(out.metadata).entries) == 2


def test_an_empty_message_is_a_response_without_member_and_a_command_without_payload() -> None:
    assert oracle.seen_action_out(wire.scan_action_out(b"")) == DEFAULTS
    assert DEFAULTS["action"] == wire.ACTION_NONE
    found = wire.scan_action_in(b"")
    assert (found.service_name, found.name, found.type_url) == ("", "", "")
    assert (found.payload, found.metadata) == (None, None)


def test_a_command_without_payload_differs_from_one_with_an_empty_payload() -> None:
    assert wire.scan_action_in(Command(name="Get").SerializeToString()).payload is None
    assert wire.scan_action_in(Command(name="Get", payload=Any()).SerializeToString()).payload == b""


MALFORMED = {
    b"\x0a": "ActionResponse: truncated varint at offset 1",
    b"\x0a\x01\x08": "Failure: truncated varint at offset 3",
    b"\x0a\x03\x12\x01\xff": "Failure.description: invalid UTF-8 at offset 4",
    b"\x12\x01\x0a": "Reply: truncated varint at offset 3",
    b"\x12\x05\x0a\x03\x0a\x01\xff": "Any.type_url: invalid UTF-8 at offset 6",
    b"\x0b\x0c": "ActionResponse: group at offset 0",
}


@pytest.mark.parametrize("data, text", MALFORMED.items(), ids=MALFORMED.values())
def test_malformed_responses_are_refused_with_what_and_where(data: bytes, text: str) -> None:
    with pytest.raises(wire.WireError) as caught:
        wire.scan_action_out(data)
    assert str(caught.value) == text


def test_malformed_commands_are_refused_with_what_and_where() -> None:
    for data, text in [
        (b"\x12\x05", "ActionCommand: truncated: length beyond the end at offset 1"),
        (b"\x12\x01\xff", "ActionCommand.service_name: invalid UTF-8 at offset 2"),
        (b"\x1a\x01\xff", "ActionCommand.name: invalid UTF-8 at offset 2"),
        (b"\x22\x01\x0a", "Any: truncated varint at offset 3"),
    ]:
        with pytest.raises(wire.WireError) as caught:
            wire.scan_action_in(data)
        assert str(caught.value) == text


@pytest.mark.parametrize("scan", [wire.scan_action_out, wire.scan_action_in])
def test_only_bytes_are_scanned(scan: Untyped) -> None:
    for not_bytes in [None, "text", bytearray(b"")]:
        with pytest.raises(TypeError):
            scan(not_bytes)


# --- written ---------------------------------------------------------------------------------------------------------


@some
@given(texts, texts, texts, payloads, metadatas)
def test_the_messages_of_a_call(service: str, name: str, url: str, payload: bytes, metadata: bytes | None) -> None:
    writer = wire.ActionWriter(service, name, url)
    packed = Any(type_url=url, value=payload)
    sent = optional(cloudstate.Metadata, metadata)
    command = Command(service_name=service, name=name, payload=packed, metadata=sent)
    opening = Command(service_name=service, name=name, metadata=sent)
    message = Command(payload=packed, metadata=cloudstate.Metadata())
    assert writer.command(payload, metadata) == command.SerializeToString()
    assert writer.opening(metadata) == opening.SerializeToString()
    assert writer.message(payload) == message.SerializeToString()


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16383, 16384, 2**21])
def test_command_with_payload_around_the_sizes_where_lengths_grow(size: int) -> None:
    written = wire.ActionWriter("s", "n", "t").command(b"x" * size, b"")
    assert Command.FromString(written).payload.value == b"x" * size
    assert Command.FromString(written).SerializeToString() == written


@some
@given(texts, payloads, metadatas, side_effects)
def test_reply(url: str, payload: bytes, metadata: bytes | None, effects: list[bytes]) -> None:
    reply = cloudstate.Reply(payload=Any(type_url=url, value=payload), metadata=optional(cloudstate.Metadata, metadata))
    written = wire.write_action_response(
        wire.ACTION_REPLY, type_url=url, payload=payload, metadata=metadata, side_effects=effects
    )
    assert written == Response(reply=reply, side_effects=parsed(effects)).SerializeToString()


@some
@given(serialized(cloudstate.Forward), texts, side_effects)
def test_forward_failure_and_neither(forward: bytes, text: str, effects: list[bytes]) -> None:
    for number, members in [
        (wire.ACTION_FORWARD, {"forward": cloudstate.Forward.FromString(forward)}),
        (wire.ACTION_FAILURE, {"failure": cloudstate.Failure(description=text)}),
        (wire.ACTION_NONE, {}),
    ]:
        written = wire.write_action_response(number, forward=forward, description=text, side_effects=tuple(effects))
        assert written == Response(**members, side_effects=parsed(effects)).SerializeToString()


def parsed(effects: list[bytes]) -> list[Untyped]:
    return [cloudstate.SideEffect.FromString(effect) for effect in effects]


@pytest.mark.parametrize("number", [-1, 4, 2**31 - 1])
def test_what_is_no_action_is_not_written(number: int) -> None:
    with pytest.raises(ValueError, match=f"{number} is not an action"):
        wire.write_action_response(number)


def test_none_in_place_of_bytes_or_text_is_refused() -> None:
    writer = wire.ActionWriter("s", "n", "t")
    calls: list[Untyped] = [
        lambda: wire.ActionWriter(None, "", ""),  # type: ignore[arg-type]
        lambda: writer.command(None),  # type: ignore[arg-type]
        lambda: writer.message(None),  # type: ignore[arg-type]
        lambda: wire.write_action_response(wire.ACTION_FORWARD),
        lambda: wire.write_action_response(wire.ACTION_REPLY, payload=None),  # type: ignore[arg-type]
        lambda: wire.write_action_response(wire.ACTION_FAILURE, description=None),  # type: ignore[arg-type]
        lambda: wire.write_action_response(wire.ACTION_NONE, side_effects=["text"]),  # type: ignore[list-item]
    ]
    for call in calls:
        with pytest.raises(TypeError):
            call()
