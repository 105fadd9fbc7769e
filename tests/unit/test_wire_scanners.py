"""The scanners of the event sourced protocol understand and refuse what the protobuf runtime does."""

from typing import Any as Untyped

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stateside._speedups import wire
from stateside.proto import Any, Empty, cloudstate, eventsourced
from tests import wire_oracle as oracle
from tests.fuzz import fuzz_wire
from tests.unit.wire_strategies import wire_messages

Out, In = eventsourced.EventSourcedStreamOut, eventsourced.EventSourcedStreamIn
AN_ANY = Any(type_url="type.googleapis.com/x.Y", value=b"\x08\x01")
METADATA = cloudstate.Metadata(entries=[cloudstate.MetadataEntry(key="k", bytes_value=b"v")])
DEFAULTS_OUT = oracle.seen_out(wire.StreamOut())
DEFAULTS_IN = oracle.seen_in(wire.StreamIn())


@settings(max_examples=120, deadline=None)
@given(wire_messages(Out.DESCRIPTOR))
def test_any_serialization_of_a_stream_out_message_is_scanned_as_the_runtime_parses_it(data: bytes) -> None:
    assert fuzz_wire.stream_out(data)


@settings(max_examples=120, deadline=None)
@given(wire_messages(In.DESCRIPTOR))
def test_any_serialization_of_a_stream_in_message_is_scanned_as_the_runtime_parses_it(data: bytes) -> None:
    assert fuzz_wire.stream_in(data)


@settings(max_examples=30, deadline=None)
@given(wire_messages(Out.DESCRIPTOR), wire_messages(In.DESCRIPTOR))
def test_every_truncation_is_refused_exactly_when_the_runtime_refuses_it(out: bytes, into: bytes) -> None:
    for size in range(len(out)):
        fuzz_wire.stream_out(out[:size])
    for size in range(len(into)):
        fuzz_wire.stream_in(into[:size])


def test_empty_messages_have_no_kind() -> None:
    assert oracle.seen_out(wire.scan_event_sourced_out(b"")) == DEFAULTS_OUT
    assert oracle.seen_in(wire.scan_event_sourced_in(b"")) == DEFAULTS_IN
    assert DEFAULTS_OUT["kind"] == wire.KIND_NONE and DEFAULTS_OUT["action"] == wire.ACTION_NONE
    assert DEFAULTS_IN["kind"] == wire.IN_NONE


def full_reply() -> Untyped:
    effect = cloudstate.SideEffect(service_name="s", command_name="c", payload=AN_ANY)
    action = cloudstate.ClientAction(reply=cloudstate.Reply(payload=AN_ANY, metadata=METADATA))
    return eventsourced.EventSourcedReply(
        command_id=7, client_action=action, side_effects=[effect] * 2, events=[AN_ANY] * 3, snapshot=AN_ANY
    )


def test_a_reply_is_taken_apart() -> None:
    out = wire.scan_event_sourced_out(Out(reply=full_reply()).SerializeToString())
    assert (out.kind, out.command_id, out.action) == (wire.KIND_REPLY, 7, wire.ACTION_REPLY)
    assert (out.type_url, out.payload) == (AN_ANY.type_url, AN_ANY.value)
    assert out.metadata == METADATA.SerializeToString()
    assert out.snapshot == AN_ANY.SerializeToString()
    assert list(out.events) == [AN_ANY.SerializeToString()] * 3
    assert len(out.side_effects) == 2


def test_a_stream_failure_after_a_reply_replaces_it_whole() -> None:
    failure = Out(failure=cloudstate.Failure(description="broken", restart=True))
    out = wire.scan_event_sourced_out(Out(reply=full_reply()).SerializeToString() + failure.SerializeToString())
    expected = {"kind": wire.KIND_FAILURE, "description": "broken", "restart": True}
    assert oracle.seen_out(out) == DEFAULTS_OUT | expected


def test_a_second_reply_is_merged_into_the_first() -> None:
    action = cloudstate.ClientAction(reply=cloudstate.Reply(payload=Any(value=b"later"), metadata=METADATA))
    second = eventsourced.EventSourcedReply(client_action=action, events=[AN_ANY])
    out = wire.scan_event_sourced_out(
        Out(reply=full_reply()).SerializeToString() + Out(reply=second).SerializeToString()
    )
    assert (out.command_id, out.type_url, out.payload) == (7, AN_ANY.type_url, b"later")
    assert len(out.events) == 4
    assert len(cloudstate.Metadata.FromString(out.metadata).entries) == 2


def test_another_client_action_forgets_the_earlier_one_and_keeps_the_rest_of_the_reply() -> None:
    action = cloudstate.ClientAction(failure=cloudstate.Failure(command_id=99, description="no"))
    second = Out(reply=eventsourced.EventSourcedReply(client_action=action))
    out = wire.scan_event_sourced_out(Out(reply=full_reply()).SerializeToString() + second.SerializeToString())
    assert (out.action, out.description, out.payload, out.metadata) == (wire.ACTION_FAILURE, "no", b"", None)
    assert (out.command_id, len(out.events)) == (7, 3)


def test_a_command_without_payload_differs_from_one_with_an_empty_payload() -> None:
    def scanned(command: Untyped) -> wire.StreamIn:
        return wire.scan_event_sourced_in(In(command=command).SerializeToString())

    assert scanned(cloudstate.Command(name="Get")).payload is None
    assert scanned(cloudstate.Command(name="Get", payload=Any())).payload == b""


MALFORMED = {
    b"\x0a": "EventSourcedStreamOut: truncated varint at offset 1",
    b"\x0a\x05\x08\x01": "EventSourcedStreamOut: truncated: length beyond the end at offset 1",
    b"\x0a\x02\x08\xff": "EventSourcedReply: truncated varint at offset 3",
    b"\x0a\x0c\x08" + b"\xff" * 10 + b"\x01": "EventSourcedReply: varint too long at offset 3",
    b"\x88\x80\x80\x80\x80\x00\x05": "EventSourcedStreamOut: varint too long at offset 0",
    b"\x88\x80\x80\x80\x10\x05": "EventSourcedStreamOut: field number too large at offset 0",
    b"\x00\x01": "EventSourcedStreamOut: field number 0 at offset 0",
    b"\x0b\x0c": "EventSourcedStreamOut: group at offset 0",
    b"\x0c": "EventSourcedStreamOut: end of a group that was not begun at offset 0",
    b"\x0e\x00": "EventSourcedStreamOut: unknown wire type at offset 0",
    b"\x7d\x00\x00\x00": "EventSourcedStreamOut: truncated fixed-size value at offset 1",
    b"\x12\x04\x12\x02a\xff": "Failure.description: invalid UTF-8 at offset 5",
    b"\x0a\x0a\x12\x08\x0a\x06\x0a\x04\x0a\x02\xc0\x80": "Any.type_url: invalid UTF-8 at offset 10",
}


@pytest.mark.parametrize("data, text", MALFORMED.items(), ids=MALFORMED.values())
def test_malformed_messages_are_refused_with_what_and_where(data: bytes, text: str) -> None:
    with pytest.raises(wire.WireError) as caught:
        wire.scan_event_sourced_out(data)
    assert str(caught.value) == text


def test_overwritten_text_has_to_be_valid_too() -> None:
    with pytest.raises(wire.WireError, match="invalid UTF-8"):
        wire.scan_event_sourced_out(b"\x12\x06\x12\x01\xff\x12\x01a")


def test_the_same_type_url_is_decoded_once() -> None:
    def type_url(text: str) -> str:
        return wire.scan_event_sourced_out(wire.write_reply(1, text, b"")).type_url

    assert type_url("type.googleapis.com/a.B") is type_url("type.googleapis.com/a.B")
    many = [f"type.googleapis.com/package{n}.Message" for n in range(2000)] + ["", "é" * 20, "x" * 5000]
    assert [type_url(text) for text in many] == many


@settings(max_examples=120, deadline=None)
@given(st.one_of(st.binary(max_size=40), wire_messages(Out.DESCRIPTOR)))
def test_check_agrees_with_the_runtime_on_a_message_of_unknown_fields_only(data: bytes) -> None:
    message = oracle.parsed(Empty, data)
    try:
        wire.check(data)
    except wire.WireError as error:
        assert message is None or "field number 0" in str(error)
    else:
        assert message is not None


def test_check_walks_over_groups() -> None:
    wire.check(b"\x0b\x10\x05\x1b\x22\x01a\x1c\x0c\x08\x01")
    wire.check(b"\x0b" * 100 + b"\x0c" * 100)
    for malformed in [b"\x0b\x10\x05", b"\x0b\x14", b"\x0b" * 101 + b"\x0c" * 101, b"\x0b\x0a\x05\x0c"]:
        with pytest.raises(wire.WireError):
            wire.check(malformed)


@given(st.text(max_size=30), st.binary(max_size=60))
def test_any_is_written_and_scanned_as_the_runtime_does(type_url: str, value: bytes) -> None:
    data = wire.write_any(type_url, value)
    assert data == Any(type_url=type_url, value=value).SerializeToString()
    assert wire.scan_any(data) == (type_url, value)


@pytest.mark.parametrize("scan", [wire.scan_event_sourced_out, wire.scan_event_sourced_in, wire.scan_any, wire.check])
def test_only_bytes_are_scanned(scan: Untyped) -> None:
    for not_bytes in [None, "text", bytearray(b"")]:
        with pytest.raises(TypeError):
            scan(not_bytes)
