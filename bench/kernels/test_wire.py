"""The protobuf kernels on the way of a command, each beside protobuf's own C runtime doing the same work."""

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from stateside._speedups.wire import CommandWriter, KeyScanner, scan_event_sourced_out, write_reply
from stateside.bench.messages import echo_message, message_class
from stateside.proto import Any, eventsourced

KEY = "entity-000042"
TYPE_URL = "type.googleapis.com/bench.Message"
PAYLOAD = echo_message(KEY)
EVENT = Any(type_url="type.googleapis.com/bench.Written", value=bytes(100)).SerializeToString()
REPLY = write_reply(7, TYPE_URL, PAYLOAD, events=[EVENT])


@pytest.mark.benchmark(group="key scan")
def test_key_scan(benchmark: BenchmarkFixture) -> None:
    scan = KeyScanner([(1, "string")]).scan
    assert benchmark(scan, PAYLOAD) == KEY


@pytest.mark.benchmark(group="key scan")
def test_key_scan_by_protobuf(benchmark: BenchmarkFixture) -> None:
    parse = message_class("bench.Message").FromString
    assert benchmark(lambda: parse(PAYLOAD).key) == KEY


@pytest.mark.benchmark(group="command envelope")
def test_command_envelope(benchmark: BenchmarkFixture) -> None:
    key = KEY.encode()
    write = CommandWriter(3, "Read", TYPE_URL).write
    assert benchmark(write, key, 7, PAYLOAD) == command_by_protobuf()


@pytest.mark.benchmark(group="command envelope")
def test_command_envelope_by_protobuf(benchmark: BenchmarkFixture) -> None:
    written = benchmark(command_by_protobuf)
    assert eventsourced.EventSourcedStreamIn.FromString(written).command.payload.value == PAYLOAD


@pytest.mark.benchmark(group="reply scan")
def test_reply_scan(benchmark: BenchmarkFixture) -> None:
    assert benchmark(lambda: read(scan_event_sourced_out(REPLY))) == (7, TYPE_URL, PAYLOAD, [EVENT])


@pytest.mark.benchmark(group="reply scan")
def test_reply_scan_by_protobuf(benchmark: BenchmarkFixture) -> None:
    assert benchmark(reply_by_protobuf) == (7, TYPE_URL, PAYLOAD, [EVENT])


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
