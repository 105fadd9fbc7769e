"""The writers produce, byte for byte, what the protobuf runtime serializes."""

from typing import Any as Untyped

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stateside._speedups import wire
from stateside.proto import Any, cloudstate, crdt, eventsourced, valueentity
from tests.unit.wire_strategies import command_ids, payloads, serialized, texts

STREAM_IN = {3: eventsourced.EventSourcedStreamIn, 2: valueentity.ValueEntityStreamIn, 4: crdt.CrdtStreamIn}
In, Out = eventsourced.EventSourcedStreamIn, eventsourced.EventSourcedStreamOut

anys = serialized(Any)
effects = serialized(cloudstate.SideEffect)
metadatas = st.none() | serialized(cloudstate.Metadata)
some = settings(max_examples=50, deadline=None)


def optional(message_class: Untyped, data: bytes | None) -> Untyped:
    return None if data is None else message_class.FromString(data)


@some
@given(st.sampled_from([2, 3, 4]), texts, texts, texts, command_ids, payloads, metadatas, st.booleans())
def test_command(
    member: int, name: str, url: str, key: str, number: int, payload: bytes, metadata: bytes | None, streamed: bool
) -> None:
    written = wire.CommandWriter(member, name, url).write(key.encode(), number, payload, metadata, streamed)
    command = cloudstate.Command(
        entity_id=key,
        id=number,
        name=name,
        payload=Any(type_url=url, value=payload),
        streamed=streamed,
        metadata=optional(cloudstate.Metadata, metadata),
    )
    assert written == STREAM_IN[member](command=command).SerializeToString()


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16383, 16384, 2**21])
def test_command_with_payload_around_the_sizes_where_lengths_grow(size: int) -> None:
    written = wire.CommandWriter(3, "n", "t").write(b"k", 1, b"x" * size)
    assert In.FromString(written).command.payload.value == b"x" * size
    assert In.FromString(written).SerializeToString() == written


@pytest.mark.parametrize("member", [-1, 0, 16, 300])
def test_command_writer_refuses_what_cannot_be_a_member(member: int) -> None:
    with pytest.raises(ValueError, match="member"):
        wire.CommandWriter(member, "name", "url")


@some
@given(texts, texts, command_ids, st.none() | anys)
def test_init(service: str, key: str, sequence: int, snapshot: bytes | None) -> None:
    taken = eventsourced.EventSourcedSnapshot(snapshot_sequence=sequence, snapshot=Any.FromString(snapshot or b""))
    init = eventsourced.EventSourcedInit(
        service_name=service, entity_id=key, snapshot=taken if snapshot is not None else None
    )
    assert wire.write_init(service, key, sequence, snapshot) == In(init=init).SerializeToString()


@some
@given(st.integers(1, 2**40), st.lists(anys, max_size=5), st.sampled_from([list, tuple]))
def test_events_are_numbered_and_framed_as_grpc_messages(first: int, events: list[bytes], container: Untyped) -> None:
    framed = wire.frame_events(first, container(events))
    expected = b""
    for sequence, event in enumerate(events, first):
        payload = eventsourced.EventSourcedEvent(sequence=sequence, payload=Any.FromString(event))
        message = In(event=payload).SerializeToString()
        expected += b"\0" + len(message).to_bytes(4, "big") + message
    assert framed == expected


def out_reply(number: int, action: Untyped, extras: dict[str, Untyped]) -> bytes:
    reply = eventsourced.EventSourcedReply(command_id=number, client_action=action)
    reply.side_effects.extend(cloudstate.SideEffect.FromString(effect) for effect in extras["side_effects"])
    reply.events.extend(Any.FromString(event) for event in extras["events"])
    if extras["snapshot"] is not None:
        reply.snapshot.ParseFromString(extras["snapshot"])
        reply.snapshot.SetInParent()
    data: bytes = Out(reply=reply).SerializeToString()
    return data


extras = st.fixed_dictionaries(
    {
        "events": st.lists(anys, max_size=3),
        "snapshot": st.none() | anys,
        "side_effects": st.lists(effects, max_size=2).map(tuple),
    }
)


@some
@given(command_ids, texts, payloads, metadatas, extras)
def test_reply(number: int, url: str, payload: bytes, metadata: bytes | None, extras: dict[str, Untyped]) -> None:
    reply = cloudstate.Reply(payload=Any(type_url=url, value=payload), metadata=optional(cloudstate.Metadata, metadata))
    written = wire.write_reply(number, url, payload, metadata=metadata, **extras)
    assert written == out_reply(number, cloudstate.ClientAction(reply=reply), extras)


@some
@given(command_ids, serialized(cloudstate.Forward), extras)
def test_forward(number: int, forward: bytes, extras: dict[str, Untyped]) -> None:
    action = cloudstate.ClientAction(forward=cloudstate.Forward.FromString(forward))
    assert wire.write_forward(number, forward, **extras) == out_reply(number, action, extras)


@some
@given(command_ids, texts, st.booleans())
def test_failures_carry_the_command_id(number: int, text: str, restart: bool) -> None:
    failure = cloudstate.Failure(command_id=number, description=text, restart=restart)
    action = cloudstate.ClientAction(failure=failure)
    nothing: dict[str, Untyped] = {"events": [], "snapshot": None, "side_effects": []}
    assert wire.write_action_failure(number, text, restart) == out_reply(number, action, nothing)
    failure.restart = False
    assert wire.write_stream_failure(number, text) == Out(failure=failure).SerializeToString()


def test_what_is_no_sequence_of_bytes_is_refused() -> None:
    for wrong in [["text"], [None], [b"", bytearray(b"")], 7, None]:
        with pytest.raises(TypeError, match="events must be a sequence of bytes"):
            wire.frame_events(1, wrong)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="side_effects must be a sequence of bytes"):
            wire.write_reply(1, "", b"", side_effects=wrong)  # type: ignore[arg-type]


def test_text_that_has_no_utf8_form_is_refused() -> None:
    with pytest.raises(UnicodeEncodeError):
        wire.write_stream_failure(1, "\ud800")


def test_none_in_place_of_bytes_or_text_is_refused() -> None:
    writer = wire.CommandWriter(3, "n", "t")
    calls: list[Untyped] = [
        lambda: writer.write(None, 1, b""),  # type: ignore[arg-type]
        lambda: writer.write(b"", 1, None),  # type: ignore[arg-type]
        lambda: wire.write_any("", None),  # type: ignore[arg-type]
        lambda: wire.write_any(None, b""),  # type: ignore[arg-type]
        lambda: wire.write_init(None, ""),  # type: ignore[arg-type]
        lambda: wire.write_reply(1, "", None),  # type: ignore[arg-type]
        lambda: wire.write_forward(1, None),  # type: ignore[arg-type]
    ]
    for call in calls:
        with pytest.raises(TypeError):
            call()
