"""The fuzz target of the wire scanners on seeded mutations of valid messages."""

import random
from collections.abc import Callable
from typing import Any as Untyped

import pytest

from stateside._speedups import wire
from stateside.proto import Any, cloudstate, eventsourced
from tests.fuzz.fuzz_wire import KEYS, TestOneInput

INPUTS_PER_SCANNER = 2000
METADATA = cloudstate.Metadata(entries=[cloudstate.MetadataEntry(key="k", string_value="v")])
AN_ANY = Any(type_url="type.googleapis.com/x.Y", value=b"\x08\x01")
EFFECT = cloudstate.SideEffect(service_name="s", command_name="c", payload=AN_ANY, metadata=METADATA)


def outs() -> list[bytes]:
    extras: dict[str, Untyped] = {
        "events": [AN_ANY.SerializeToString()] * 2,
        "side_effects": [EFFECT.SerializeToString()],
    }
    forward = cloudstate.Forward(service_name="s", command_name="c", payload=AN_ANY).SerializeToString()
    return [
        wire.write_reply(7, "type.googleapis.com/x.Y", b"abc", metadata=METADATA.SerializeToString()),
        wire.write_reply(300, "t/é", b"", snapshot=AN_ANY.SerializeToString(), **extras),
        wire.write_forward(2, forward, events=extras["events"]),
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


def keys() -> list[bytes]:
    full = KEYS(
        a_string="ü", a_bool=True, a_int64=-5, a_sint32=-3, a_fixed64=2**63, a_double=1e10, a_float=0.1, a_enum=5
    )
    return [full.SerializeToString(), KEYS(a_string="only").SerializeToString(), b"\xa3\x01\x08\x01\xa4\x01"]


@pytest.mark.parametrize(
    "scanner, corpus", [(0, outs()), (1, ins()), (2, keys())], ids=["stream out", "stream in", "keys"]
)
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
