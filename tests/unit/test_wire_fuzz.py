"""The fuzz target of the wire scanners on seeded mutations of valid messages."""

import random
from collections.abc import Callable
from typing import Any as Untyped

import pytest

from stateside._speedups import wire
from stateside.proto import Any, action, cloudstate, crdt, eventsourced
from tests.fuzz.fuzz_wire import KEYS, TestOneInput

INPUTS_PER_SCANNER = 2000
METADATA = cloudstate.Metadata(entries=[cloudstate.MetadataEntry(key="k", string_value="v")])
AN_ANY = Any(type_url="type.googleapis.com/x.Y", value=b"\x08\x01")
EFFECT = cloudstate.SideEffect(service_name="s", command_name="c", payload=AN_ANY, metadata=METADATA)

FORWARD = cloudstate.Forward(service_name="s", command_name="c", payload=AN_ANY).SerializeToString()


def outs() -> list[bytes]:
    extras: dict[str, Untyped] = {
        "events": [AN_ANY.SerializeToString()] * 2,
        "side_effects": [EFFECT.SerializeToString()],
    }
    return [
        wire.write_reply(7, "type.googleapis.com/x.Y", b"abc", metadata=METADATA.SerializeToString()),
        wire.write_reply(300, "t/é", b"", snapshot=AN_ANY.SerializeToString(), **extras),
        wire.write_forward(2, FORWARD, events=extras["events"]),
        wire.write_action_failure(3, "not in the cart", restart=True),
        wire.write_stream_failure(4, "broken"),
    ]


def ins() -> list[bytes]:
    command = wire.CommandWriter(3, "AddItem", "type.googleapis.com/x.Y")
    event = wire.frame_events(5, [AN_ANY.SerializeToString()])[5:]
    return [
        wire.write_init("x.Service", "user-1", 9, AN_ANY.SerializeToString()),
        event,
        command.write(b"user-1", 1, b"payload", METADATA.SerializeToString(), True),
        eventsourced.EventSourcedStreamIn(command=cloudstate.Command(name="NoPayload")).SerializeToString(),
    ]


def value_outs() -> list[bytes]:
    value, effects = AN_ANY.SerializeToString(), [EFFECT.SerializeToString()]
    return [
        wire.write_value_reply(7, "t/é", b"abc", side_effects=effects, state_action=wire.STATE_UPDATE, value=value),
        wire.write_value_forward(300, FORWARD, state_action=wire.STATE_DELETE),
        wire.write_action_failure(3, "not in the cart", restart=True),
        wire.write_stream_failure(4, "broken"),
        b"\x0a\x04\x22\x02\x0a\x00",
    ]


def value_ins() -> list[bytes]:
    command = wire.CommandWriter(2, "AddItem", "type.googleapis.com/x.Y")
    return [
        wire.write_value_init("x.Service", "user-1", AN_ANY.SerializeToString()),
        wire.write_value_init("x.Service", "user-1", None),
        command.write(b"user-1", 1, b"payload", METADATA.SerializeToString()),
    ]


def action_outs() -> list[bytes]:
    effects = [EFFECT.SerializeToString()]
    reply = {"type_url": "t/é", "payload": b"abc", "metadata": METADATA.SerializeToString()}
    return [
        wire.write_action_response(wire.ACTION_REPLY, side_effects=effects, **reply),
        wire.write_action_response(wire.ACTION_FORWARD, forward=FORWARD),
        wire.write_action_response(wire.ACTION_FAILURE, description="no", side_effects=effects),
        action.ActionResponse(failure=cloudstate.Failure(command_id=9, restart=True)).SerializeToString(),
    ]


def action_ins() -> list[bytes]:
    writer = wire.ActionWriter("x.Service", "Call", "type.googleapis.com/x.Y")
    metadata = METADATA.SerializeToString()
    return [writer.command(b"payload", metadata), writer.opening(metadata), writer.message(b"payload")]


def crdt_outs() -> list[bytes]:
    delta = crdt.CrdtDelta(gcounter=crdt.GCounterDelta(increment=3)).SerializeToString()
    effects, update = [EFFECT.SerializeToString()], {"state_action": wire.STATE_UPDATE, "update": delta}
    reply = {"type_url": "t/é", "payload": b"abc", "metadata": METADATA.SerializeToString()}
    return [
        wire.write_crdt_reply(7, wire.ACTION_REPLY, side_effects=effects, streamed=True, **reply, **update),
        wire.write_crdt_reply(2, wire.ACTION_FORWARD, forward=FORWARD, state_action=wire.STATE_DELETE),
        wire.write_crdt_streamed_message(3, wire.ACTION_FAILURE, description="no", end_stream=True),
        wire.write_crdt_cancelled_response(300, side_effects=effects, write_consistency=2, **update),
        wire.write_crdt_failure(4, "broken"),
    ]


def crdt_ins() -> list[bytes]:
    delta = crdt.CrdtDelta(flag=crdt.FlagDelta(value=True)).SerializeToString()
    command = wire.CommandWriter(4, "AddItem", "type.googleapis.com/x.Y")
    return [
        wire.write_crdt_init("x.Service", "user-1", delta),
        wire.write_crdt_delta(delta),
        wire.write_crdt_delete(),
        command.write(b"user-1", 1, b"payload", streamed=True),
        wire.write_stream_cancelled(b"user-1", 1),
    ]


def metadatas() -> list[bytes]:
    headers = [(b"x-text", b"one"), (b"x-bin", b"AAEC,/w"), (b"user-agent", b"\xc3\xa9"), (b"server", b"")]
    names = ["Upper", "date", "a b", "", "binary"]
    entries = [cloudstate.MetadataEntry(key=name, bytes_value=b"\xfe\xff") for name in names]
    return [wire.metadata_of_headers(headers) or b"", cloudstate.Metadata(entries=entries).SerializeToString()]


def keys() -> list[bytes]:
    full = KEYS(
        a_string="ü", a_bool=True, a_int64=-5, a_sint32=-3, a_fixed64=2**63, a_double=1e10, a_float=0.1, a_enum=5
    )
    return [full.SerializeToString(), KEYS(a_string="only").SerializeToString(), b"\xa3\x01\x08\x01\xa4\x01"]


CORPORA = [
    outs(),
    ins(),
    keys(),
    value_outs(),
    value_ins(),
    action_outs(),
    action_ins(),
    metadatas(),
    crdt_outs(),
    crdt_ins(),
]
NAMES = [
    "stream out",
    "stream in",
    "keys",
    "value out",
    "value in",
    "action out",
    "action in",
    "metadata",
    "crdt out",
    "crdt in",
]


@pytest.mark.parametrize("scanner, corpus", list(enumerate(CORPORA)), ids=NAMES)
def test_scanner_and_protobuf_runtime_agree_on_mutated_messages(scanner: int, corpus: list[bytes]) -> None:
    rng = random.Random(scanner)
    accepted = 0
    for _ in range(INPUTS_PER_SCANNER):
        data = rng.choice(corpus)
        for _ in range(rng.randrange(4)):
            data = mutated(rng, data, corpus)
        accepted += TestOneInput(bytes([scanner]) + data)
    assert INPUTS_PER_SCANNER / 10 < accepted < INPUTS_PER_SCANNER, "mutations have to yield good and bad messages"


def mutated(rng: random.Random, data: bytes, corpus: list[bytes]) -> bytes:
    start = rng.randrange(len(data) + 1)
    end = min(len(data), start + rng.randrange(1, 8))
    replacements: list[Callable[[], bytes]] = [
        lambda: b"",
        lambda: rng.randbytes(end - start),
        lambda: data[start:end] * 2,
        lambda: bytes([rng.choice([0x00, 0x0A, 0x12, 0x0B, 0x0C, 0x7F, 0x80, 0xFF])]),
        lambda: rng.choice(corpus),
    ]
    return data[:start] + rng.choice(replacements)() + data[end:]
