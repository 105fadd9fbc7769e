"""Errors and protocol violations on an event sourced stream, line by line of the table (spec support A10).

Each is answered by a stream-level Failure, after which the stream completes; other entities are not touched.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from stateside.proto import eventsourced, pack
from stateside.support import EventSourced, EventSourcedContext, command, event, snapshot_handler
from tests.protos.tck.eventsourced_pb2 import DESCRIPTOR, Emit, Fail, Persisted, Request, RequestAction, Response
from tests.tck.driver import Driver, EntityStream
from tests.tck.model import TckModel

MODEL = "cloudstate.tck.model.EventSourcedTckModel"
BROKEN = "cloudstate.tck.model.EventSourcedTwo"


@EventSourced(service=DESCRIPTOR.services_by_name["EventSourcedTwo"])
class Broken:
    """Breaks in every place where user code can break."""

    def __init__(self, entity_id: str) -> None:
        if entity_id == "constructor":
            raise ValueError("no instance")

    @command
    def call(self, request: Request, ctx: EventSourcedContext) -> Response | None:
        if request.id == "silent":
            return None
        if request.id == "event":
            ctx.emit(Persisted(value="bad"))
        if request.id == "unhandled":
            ctx.emit(Response())
        if request.id == "unstorable":
            ctx.emit(object())
        raise RuntimeError("boom" if request.id != "mute" else "")

    @event
    def persisted(self, event: Persisted) -> None:
        raise ValueError("bad event")

    @snapshot_handler
    def load(self, snapshot: Persisted) -> None:
        raise ValueError("bad snapshot")


@pytest.fixture(scope="module")
def served() -> Iterator[Driver]:
    driver = Driver(TckModel, Broken)
    yield driver
    driver.close()


@pytest.fixture
def stream(driver: Driver) -> EntityStream:
    return driver.open()


@pytest.fixture
def model(stream: EntityStream) -> EntityStream:
    return stream.init(MODEL, "e")


def test_first_message_is_not_init(stream: EntityStream) -> None:
    stream.event(1, Persisted(value="A"))
    stream.expect_failure("Protocol error: Expected Init message")


def test_first_message_is_a_command(stream: EntityStream) -> None:
    stream.command("e", 1, "Process", Request(id="e"))
    stream.expect_failure("Protocol error: Expected Init message")


def test_first_message_is_empty(stream: EntityStream) -> None:
    stream.send(eventsourced.EventSourcedStreamIn())
    stream.expect_failure("Protocol error: Expected Init message")


def test_unknown_service(stream: EntityStream) -> None:
    stream.init("no.such.Service", "e")
    stream.expect_failure("Protocol error: Service not found: no.such.Service")


def test_second_init(model: EntityStream) -> None:
    model.init(MODEL, "e")
    model.expect_failure("Protocol error: Entity already inited")


def test_empty_message(model: EntityStream) -> None:
    model.send(eventsourced.EventSourcedStreamIn())
    model.expect_failure("Protocol error: Received empty/unknown message")


def test_command_for_another_entity(model: EntityStream) -> None:
    model.command("other", 7, "Process", Request(id="e"))
    model.expect_failure("Protocol error: Receiving entity is not the intended recipient of command", 7)


def test_command_without_payload(model: EntityStream) -> None:
    model.command("e", 7, "Process", None)
    model.expect_failure("Protocol error: No command payload", 7)


def test_unknown_command(model: EntityStream) -> None:
    model.command("e", 7, "Nope", Request(id="e"))
    model.expect_failure("No command handler found for command [Nope] on TckModel", 7)


@pytest.mark.parametrize(
    ("what", "description"),
    [
        ("plain", "Unexpected failure: boom"),
        ("mute", "Unexpected failure: RuntimeError"),
        ("event", "Unexpected failure: bad event"),
        ("silent", "Unexpected failure: No reply or forward returned by command handler!"),
        ("unhandled", "No event handler found for event cloudstate.tck.model.Response on Broken"),
    ],
)
def test_exception_in_a_command_handler(driver: Driver, what: str, description: str) -> None:
    stream = driver.open().init(BROKEN, "e").command("e", 3, "Call", Request(id=what))
    stream.expect_failure(description, 3)


def test_event_that_cannot_be_stored(driver: Driver) -> None:
    stream = driver.open().init(BROKEN, "e").command("e", 3, "Call", Request(id="unstorable"))
    failure = stream.next().failure
    assert failure.command_id == 3 and failure.description.startswith("Unexpected failure: Cannot store a object")
    stream.expect_end()


def test_the_exception_itself_reaches_the_hooks(driver: Driver) -> None:
    driver.open().init(BROKEN, "e").command("e", 3, "Call", Request(id="plain")).expect_failure(
        "Unexpected failure: boom", 3
    )
    [(description, error)] = driver.hooks.failures
    assert description == "Unexpected failure: boom"
    assert isinstance(error, RuntimeError) and error.__traceback__ is not None


def test_malformed_command_payload(model: EntityStream) -> None:
    message = eventsourced.EventSourcedStreamIn()
    message.command.entity_id, message.command.id, message.command.name = "e", 5, "Process"
    message.command.payload.value = b"\xff"
    model.send(message)
    failure = model.next().failure
    assert failure.command_id == 5 and failure.description.startswith("Unexpected failure: ")
    model.expect_end()


def test_exception_in_an_event_handler_on_load(driver: Driver) -> None:
    driver.open().init(BROKEN, "e").event(1, Persisted(value="A")).expect_failure("Unexpected failure: bad event")


def test_exception_in_a_snapshot_handler(driver: Driver) -> None:
    stream = driver.open().init(BROKEN, "e", (5, Persisted(value="A")))
    stream.expect_failure("Unexpected failure: bad snapshot")


def test_exception_in_a_constructor(driver: Driver) -> None:
    driver.open().init(BROKEN, "constructor").expect_failure("Unexpected failure: no instance")


def test_no_event_handler(model: EntityStream) -> None:
    model.event(1, Response())
    model.expect_failure("No event handler found for event cloudstate.tck.model.Response on TckModel")


def test_no_snapshot_handler(stream: EntityStream) -> None:
    stream.init(MODEL, "e", (5, Response()))
    stream.expect_failure("No snapshot handler found for snapshot cloudstate.tck.model.Response on TckModel")


def test_unknown_event_type(model: EntityStream) -> None:
    message = eventsourced.EventSourcedStreamIn()
    message.event.payload.type_url = "type.googleapis.com/no.such.Type"
    model.send(message)
    assert model.next().failure.description.startswith("Unexpected failure: Unknown message type no.such.Type")
    model.expect_end()


def test_malformed_stream_message(model: EntityStream) -> None:
    model.send(b"\xff\xff")
    assert model.next().failure.description.startswith("Protocol error: ")
    model.expect_end()


def test_a_failed_command_leaves_the_stream_open(model: EntityStream) -> None:
    model.command("e", 1, "Process", Request(id="e", actions=[RequestAction(fail=Fail(message="text"))]))
    assert model.next().reply.client_action.failure.description == "text"
    model.command("e", 2, "Process", Request(id="e"))
    assert model.next().reply.client_action.reply.payload == pack(Response())
    model.passivate()


def test_a_command_instead_of_the_requested_restart(model: EntityStream) -> None:
    actions = [RequestAction(emit=Emit(value="A")), RequestAction(fail=Fail(message="text"))]
    model.command("e", 1, "Process", Request(id="e", actions=actions))
    assert model.next().reply.client_action.failure.restart
    model.command("e", 2, "Process", Request(id="e"))
    model.expect_failure("Protocol error: Expected a new stream after the requested restart", 2)


def test_a_failure_is_that_of_one_entity_only(driver: Driver) -> None:
    good, bad = driver.open().init(MODEL, "good"), driver.open().init(BROKEN, "bad")
    bad.command("bad", 1, "Call", Request(id="plain")).expect_failure("Unexpected failure: boom", 1)
    good.command("good", 1, "Process", Request(id="good"))
    assert good.next().reply.command_id == 1
    good.passivate()
