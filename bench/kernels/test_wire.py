"""The wire kernels on the way of a command, beside protobuf's own C runtime and plain Python doing the same work."""

from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from stateside._speedups.wire import CommandWriter, KeyScanner, scan_event_sourced_out, write_reply
from stateside.bench.kernels import wire_plain
from stateside.bench.kernels.figures import FIGURES, KERNEL
from stateside.bench.messages import echo_message, message_class
from stateside.proto import Any as AnyMessage
from stateside.proto import eventsourced

RUNTIME, PLAIN = "protobuf (upb)", "plain Python"
EVERYBODY = [KERNEL, RUNTIME, PLAIN]
KEY = "entity-000042"
TYPE_URL = "type.googleapis.com/bench.Message"
PAYLOAD = echo_message(KEY)
EVENT = AnyMessage(type_url="type.googleapis.com/bench.Written", value=bytes(100)).SerializeToString()
REPLY = write_reply(7, TYPE_URL, PAYLOAD, events=[EVENT])


@pytest.mark.parametrize("who", EVERYBODY)
def test_key_scan(benchmark: BenchmarkFixture, who: str) -> None:
    parse = message_class("bench.Message").FromString
    scan: dict[str, Any] = {
        KERNEL: KeyScanner([(1, "string")]).scan,
        RUNTIME: lambda message: parse(message).key,
        PLAIN: wire_plain.scan_key,
    }
    assert FIGURES.run("key scan", who, benchmark, scan[who], PAYLOAD) == KEY


@pytest.mark.parametrize("who", EVERYBODY)
def test_envelope_write(benchmark: BenchmarkFixture, who: str) -> None:
    key, writer = KEY.encode(), CommandWriter(3, "Read", TYPE_URL).write
    write: dict[str, Any] = {
        KERNEL: lambda: writer(key, 7, PAYLOAD),
        RUNTIME: command_by_protobuf,
        PLAIN: lambda: wire_plain.write_command(key, 7, "Read", TYPE_URL, PAYLOAD),
    }
    assert FIGURES.run("envelope of a command, written", who, benchmark, write[who]) == command_by_protobuf()


@pytest.mark.parametrize("who", EVERYBODY)
def test_envelope_scan(benchmark: BenchmarkFixture, who: str) -> None:
    scan: dict[str, Any] = {
        KERNEL: lambda: read(scan_event_sourced_out(REPLY)),
        RUNTIME: reply_by_protobuf,
        PLAIN: lambda: wire_plain.scan_reply(REPLY),
    }
    assert FIGURES.run("envelope of a reply, scanned", who, benchmark, scan[who]) == (7, TYPE_URL, PAYLOAD, [EVENT])


def command_by_protobuf() -> bytes:
    message = eventsourced.EventSourcedStreamIn()
    command = message.command
    command.entity_id = KEY
    command.id = 7
    command.name = "Read"
    command.payload.type_url = TYPE_URL
    command.payload.value = PAYLOAD
    serialized: bytes = message.SerializeToString()
    return serialized


def read(reply: object) -> tuple[int, str, bytes, list[bytes]]:
    """What the proxy needs of a scanned reply."""
    return reply.command_id, reply.type_url, reply.payload, list(reply.events)  # type: ignore[attr-defined]


def reply_by_protobuf() -> tuple[int, str, bytes, list[bytes]]:
    """The same from the protobuf runtime. Events are stored serialized, so each is written again."""
    reply = eventsourced.EventSourcedStreamOut.FromString(REPLY).reply
    payload = reply.client_action.reply.payload
    return reply.command_id, payload.type_url, payload.value, [event.SerializeToString() for event in reply.events]
