"""Errors and protocol violations on a value entity stream, line by line of the table (spec support A10)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from stateside.proto import pack, valueentity
from stateside.support import (
    Failure,
    Forward,
    NoReply,
    Reply,
    SerializationError,
    Service,
    ValueEntity,
    ValueEntityContext,
    command,
)
from tests.protos.tck.valueentity_pb2 import DESCRIPTOR, Fail, Persisted, Request, RequestAction, Response, Update
from tests.tck.driver import Driver, ValueStream, value_failure
from tests.tck.value_entity_model import ValueTckModel

MODEL = "cloudstate.tck.model.valueentity.ValueEntityTckModel"
BROKEN = "cloudstate.tck.model.valueentity.ValueEntityTwo"
CALLS = Service(DESCRIPTOR.services_by_name["ValueEntityTwo"])


@ValueEntity(service=DESCRIPTOR.services_by_name["ValueEntityTwo"])
class Broken:
    """Breaks in every place where user code can break."""

    def __init__(self, entity_id: str) -> None:
        if entity_id == "constructor":
            raise ValueError("no instance")

    @command
    async def call(
        self, request: Request, ctx: ValueEntityContext[Persisted]
    ) -> Response | Reply | Forward | Failure | NoReply | None:
        ctx.update(Persisted(value="before"))
        match request.id:
            case "read":
                return Response(message=ctx.state.value if ctx.state else "")
            case "silent":
                return None
            case "none":
                ctx.update(None)  # type: ignore[arg-type]
            case "unstorable":
                with contextlib.suppress(SerializationError):
                    ctx.update(object())  # type: ignore[arg-type]
                return Response()
            case "both":
                ctx.forward(CALLS.call("Call", request))
                return Response()
            case "no reply":
                return NoReply()
            case "failure":
                return Failure("refused")
            case "forward":
                return Forward(CALLS.call("Call", request))
        raise RuntimeError("boom")


@pytest.fixture(scope="module")
def served() -> Iterator[Driver]:
    driver = Driver(ValueTckModel, Broken)
    yield driver
    driver.close()


@pytest.fixture
def stream(driver: Driver) -> ValueStream:
    return driver.open_value()


@pytest.fixture
def model(stream: ValueStream) -> ValueStream:
    return stream.init(MODEL, "e")


def test_first_message_is_a_command(stream: ValueStream) -> None:
    stream.command("e", 1, "Process", Request(id="e"))
    stream.expect_failure("Protocol error: Expected init message for Value entity")


def test_first_message_is_empty(stream: ValueStream) -> None:
    stream.send(valueentity.ValueEntityStreamIn())
    stream.expect_failure("Protocol error: Expected init message for Value entity")


def test_unknown_service(stream: ValueStream) -> None:
    stream.init("no.such.Service", "e")
    stream.expect_failure("Protocol error: Service not found: no.such.Service")


def test_second_init(model: ValueStream) -> None:
    model.init(MODEL, "e")
    model.expect_failure("Protocol error: Value entity already inited")


def test_empty_message(model: ValueStream) -> None:
    model.send(valueentity.ValueEntityStreamIn())
    model.expect_failure("Protocol error: Value entity received empty/unknown message")


def test_command_for_another_entity(model: ValueStream) -> None:
    model.command("other", 7, "Process", Request(id="e"))
    model.expect_failure("Protocol error: Receiving Value entity is not the intended recipient of command", 7)


def test_command_without_payload(model: ValueStream) -> None:
    model.command("e", 7, "Process", None)
    model.expect_failure("Protocol error: No command payload for Value entity", 7)


def test_unknown_command(model: ValueStream) -> None:
    model.command("e", 7, "Nope", Request(id="e"))
    model.expect_failure("No command handler found for command [Nope] on ValueTckModel", 7)


@pytest.mark.parametrize(
    ("what", "description"),
    [
        ("plain", "boom"),
        ("silent", "No reply or forward returned by command handler!"),
        ("none", "Call: update takes a value, not None; to remove it call delete()"),
        ("both", "Both a reply and a forward were given by the command handler!"),
        ("no reply", "An entity answers every command: NoReply is for actions"),
    ],
)
def test_exception_in_a_command_handler(driver: Driver, what: str, description: str) -> None:
    stream = driver.open_value().init(BROKEN, "e").command("e", 3, "Call", Request(id=what))
    stream.expect_failure(f"Value entity unexpected failure: {description}", 3)
    assert driver.hooks.failures[0][0] == f"Value entity unexpected failure: {description}"


def test_a_value_that_cannot_be_stored_fails_the_command_even_if_that_is_caught(driver: Driver) -> None:
    stream = driver.open_value().init(BROKEN, "e").command("e", 3, "Call", Request(id="unstorable"))
    failure = stream.next().failure
    assert failure.description.startswith("Value entity unexpected failure: Cannot store a object")
    stream.expect_end()


def test_exception_in_a_constructor(driver: Driver) -> None:
    stream = driver.open_value().init(BROKEN, "constructor")
    stream.expect_failure("Value entity unexpected failure: no instance")


def test_a_stored_value_that_cannot_be_read(driver: Driver) -> None:
    message = valueentity.ValueEntityStreamIn()
    message.init.service_name, message.init.entity_id = MODEL, "e"
    message.init.state.value.type_url = "type.googleapis.com/no.such.Type"
    stream = driver.open_value()
    stream.send(message)
    stream.command("e", 1, "Process", Request(id="e"))
    failure = stream.next().failure
    assert failure.command_id == 1
    assert failure.description.startswith("Value entity unexpected failure: Unknown message type no.such.Type")
    stream.expect_end()


def test_malformed_stream_message(model: ValueStream) -> None:
    model.send(b"\xff\xff")
    assert model.next().failure.description.startswith("Protocol error: ")
    model.expect_end()


def test_returned_answers(driver: Driver) -> None:
    stream = driver.open_value().init(BROKEN, "e").command("e", 1, "Call", Request(id="failure"))
    refused = stream.next().reply
    assert refused.client_action.failure.description == "refused" and not refused.HasField("state_action")
    forwarded = stream.command("e", 2, "Call", Request(id="forward")).next().reply
    assert forwarded.client_action.forward.service_name == BROKEN
    assert forwarded.state_action.update.value == pack(Persisted(value="before"))
    stream.passivate()


def test_a_failed_command_leaves_the_stream_open(model: ValueStream) -> None:
    actions = [RequestAction(update=Update(value="A")), RequestAction(fail=Fail(message="text"))]
    model.command("e", 1, "Process", Request(id="e", actions=actions))
    assert model.next().reply.client_action.failure.description == "text"
    model.command("e", 2, "Process", Request(id="e"))
    assert model.next().reply.client_action.reply.payload == pack(Response())
    model.passivate()


def test_a_failure_is_that_of_one_entity_only(driver: Driver) -> None:
    good, bad = driver.open_value().init(MODEL, "good"), driver.open_value().init(BROKEN, "bad")
    bad.command("bad", 1, "Call", Request(id="plain"))
    assert bad.next() == value_failure("Value entity unexpected failure: boom", 1)
    bad.expect_end()
    good.command("good", 1, "Process", Request(id="good"))
    assert good.next().reply.command_id == 1
    good.passivate()
