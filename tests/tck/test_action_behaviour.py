"""Actions beyond the model: contexts, refusals, faults, cancellation, back-pressure both ways, graceful stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool

from stateside.proto import action, cloudstate, pack
from stateside.proto.status import Status
from stateside.support import (
    Action,
    ActionContext,
    Effect,
    Fail,
    Forward,
    Metadata,
    NoReply,
    RegistrationError,
    Reply,
    Service,
    Stateside,
    command,
)
from stateside.support.action_calls import QUEUE_HIGH, QUEUE_LOW
from tests.protos.tck.action_pb2 import DESCRIPTOR, OtherRequest, ProcessGroup, ProcessStep, Request, Response
from tests.protos.tck.action_pb2 import Reply as ReplyStep
from tests.tck.action_model import ActionTwo
from tests.tck.driver import ActionStream, Driver

MODEL = "cloudstate.tck.model.action.ActionTckModel"
SERVICE = DESCRIPTOR.services_by_name["ActionTckModel"]
TWO = Service(DESCRIPTOR.services_by_name["ActionTwo"])
OTHER = TWO.call("Call", OtherRequest(id="other"))


def text_of(request: Request) -> str:
    return request.groups[0].steps[0].reply.message


def request(text: str = "") -> Request:
    return Request(groups=[ProcessGroup(steps=[ProcessStep(reply=ReplyStep(message=text))])])


@Action(service=SERVICE)
class Probe:
    """Does what the text of the request says. What it holds is for the test to look at."""

    def __init__(self) -> None:
        self.contexts: list[ActionContext] = []
        self.log: list[str] = []
        self.gate = asyncio.Event()

    @command
    def process_unary(self, request: Request, ctx: ActionContext, metadata: Metadata) -> Response | Reply | None:
        self.contexts.append(ctx)
        ctx.effect(OTHER)
        match text_of(request):
            case "fail":
                ctx.fail("refused")
            case "caught":
                try:
                    ctx.fail("refused though caught")
                except Fail:
                    return Response(message="never seen")
            case "raise":
                raise RuntimeError("boom")
            case "forward":
                ctx.forward(OTHER)
                return None
            case "both":
                ctx.forward(OTHER)
                return Response()
            case "wrong":
                return OtherRequest()  # type: ignore[return-value]
            case "metadata":
                return Reply(Response(message=str(metadata.get("X-Asked"))), Metadata([("x-answer", "yes")]))
            case "nothing":
                return None
        return Response(message="done")

    @command
    async def process_streamed_in(self, requests: AsyncIterator[Request], ctx: ActionContext) -> Response:
        count = 0
        async for request in requests:
            count += 1
            self.log.append(text_of(request))
            if text_of(request) == "wait":
                await self.gate.wait()
            if text_of(request) == "early":
                break
        return Response(message=str(count))

    @command
    async def process_streamed_out(self, request: Request, ctx: ActionContext) -> AsyncIterator[Response | Forward]:
        try:
            match text_of(request):
                case "endless":
                    while True:
                        self.log.append("yield")
                        yield Response(message="x" * 4096)
                case "wait":
                    yield Response(message="begun")
                    await self.gate.wait()
                    yield Response(message="finished")
                case "effects":
                    ctx.effect(OTHER)
                    yield Response(message="one")
                    yield Forward(OTHER, [Effect(OTHER, True)])
                    ctx.effect(OTHER, synchronous=True)
                case "fail":
                    yield Response(message="one")
                    ctx.effect(OTHER)
                    ctx.fail("refused")
                case "raise":
                    yield Response(message="one")
                    raise RuntimeError("boom")
                case "forward":
                    ctx.forward(OTHER)
        finally:
            self.log.append("closed")

    @command
    async def process_streamed(self, requests: AsyncIterator[Request]) -> AsyncIterator[Response | NoReply]:
        async for request in requests:
            yield Response(message=text_of(request)) if text_of(request) else NoReply()


@pytest.fixture
def probe() -> Probe:
    return Probe()


@pytest.fixture
def driver(probe: Probe) -> Iterator[Driver]:
    driver = Driver(probe, ActionTwo)
    yield driver
    driver.close()
    assert driver.open_streams == 0


def until(driver: Driver, condition: Callable[[], bool]) -> None:
    async def poll() -> None:
        while not condition():
            await asyncio.sleep(0.001)

    driver.run(poll())


def unary(driver: Driver, text: str, metadata: Any = None) -> Any:
    call = driver.open_action("handleUnary", MODEL).command("ProcessUnary", request(text), metadata)
    call.half_close()
    answer = call.next()
    call.expect_end()
    return answer


def streamed_out(driver: Driver, text: str) -> ActionStream:
    call = driver.open_action("handleStreamedOut", MODEL).command("ProcessStreamedOut", request(text))
    call.half_close()
    return call


def says(text: str, *effects: Any) -> Any:
    out = action.ActionResponse(side_effects=effects)
    out.reply.payload.CopyFrom(pack(Response(message=text)))
    return out


def failing(text: str, *effects: Any) -> Any:
    out = action.ActionResponse(side_effects=effects)
    out.failure.description = text
    return out


def forwarding(*effects: Any) -> Any:
    out = action.ActionResponse(side_effects=effects)
    out.forward.service_name, out.forward.command_name = "cloudstate.tck.model.action.ActionTwo", "Call"
    out.forward.payload.CopyFrom(pack(OtherRequest(id="other")))
    return out


def effect(synchronous: bool = False) -> Any:
    made = cloudstate.SideEffect(
        service_name="cloudstate.tck.model.action.ActionTwo", command_name="Call", synchronous=synchronous
    )
    made.payload.CopyFrom(pack(OtherRequest(id="other")))
    return made


# --- one response ----------------------------------------------------------------------------------------------------


def test_what_the_context_collects_goes_with_the_answer(driver: Driver) -> None:
    assert unary(driver, "reply") == says("done", effect())
    assert unary(driver, "forward") == forwarding(effect())
    assert unary(driver, "nothing") == action.ActionResponse(side_effects=[effect()])


@pytest.mark.parametrize(("what", "text"), [("fail", "refused"), ("caught", "refused though caught")])
def test_a_refusal_keeps_its_side_effects(driver: Driver, what: str, text: str) -> None:
    assert unary(driver, what) == failing(text, effect())
    assert driver.hooks.failures == []


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("raise", "boom"),
        ("both", "Both a reply and a forward were given by the command handler!"),
        (
            "wrong",
            "command handler ProcessUnary answered with cloudstate.tck.model.action.OtherRequest, "
            "the reply is cloudstate.tck.model.action.Response",
        ),
    ],
)
def test_a_fault_is_told_to_the_hooks_and_drops_side_effects(driver: Driver, what: str, text: str) -> None:
    assert unary(driver, what) == failing(f"Unexpected failure: {text}")
    [(description, _)] = driver.hooks.failures
    assert description == f"Unexpected failure: {text}"


def test_metadata_in_and_out(driver: Driver) -> None:
    asked = cloudstate.Metadata(entries=[cloudstate.MetadataEntry(key="x-asked", string_value="why")])
    answer = unary(driver, "metadata", asked)
    assert answer.reply.payload == pack(Response(message="why"))
    [entry] = answer.reply.metadata.entries
    assert (entry.key, entry.string_value) == ("x-answer", "yes")


def test_a_sync_handler_needs_no_task_and_its_context_dies_with_the_call(driver: Driver, probe: Probe) -> None:
    unary(driver, "reply")
    with pytest.raises(Exception, match="cannot be used after the command ended"):
        probe.contexts[0].effect(OTHER)


# --- protocol --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("service", "name", "text"),
    [
        ("no.such.Service", "X", "Unknown service: no.such.Service"),
        (MODEL, "Nope", "No command handler found for command [Nope] on Probe"),
        (
            MODEL,
            "ProcessStreamed",
            f"Protocol error: {MODEL}.ProcessStreamed is streamed, but was called as unary",
        ),
        (MODEL, "ProcessUnary", "Protocol error: No command payload"),
    ],
)
def test_commands_that_cannot_be_handled(driver: Driver, service: str, name: str, text: str) -> None:
    call = driver.open_action("handleUnary", service).command(name)
    call.half_close()
    assert call.next() == failing(text)
    call.expect_end()


def test_unknown_service_on_a_stream(driver: Driver) -> None:
    call = driver.open_action("handleStreamed", "no.such.Service").command("X")
    assert call.next() == failing("Unknown service: no.such.Service")
    call.expect_end()


def test_an_empty_stream(driver: Driver) -> None:
    call = driver.open_action("handleStreamedIn", MODEL)
    call.half_close()
    assert call.next() == failing("Protocol error: Expected a first message naming a command")
    call.expect_end()


def test_malformed_messages(driver: Driver) -> None:
    for rpc in ("handleUnary", "handleStreamed"):
        call = driver.open_action(rpc, MODEL)
        call.send(b"\xff\xff")
        call.half_close()
        assert call.next().failure.description.startswith("Protocol error: ")
        call.expect_end()


def test_a_malformed_request_within_a_stream(driver: Driver) -> None:
    call = driver.open_action("handleStreamed", MODEL).command("ProcessStreamed")
    call.send(action.ActionCommand())
    assert call.next() == failing("Protocol error: No command payload")
    call.expect_end()


# --- streams ---------------------------------------------------------------------------------------------------------


def test_effects_go_with_the_next_response_and_the_last_ones_with_an_empty_one(driver: Driver) -> None:
    call = streamed_out(driver, "effects")
    assert [call.next() for _ in range(3)] == [
        says("one", effect()),
        forwarding(effect(True)),
        action.ActionResponse(side_effects=[effect(True)]),
    ]
    call.expect_end()


def test_fail_ends_a_stream_of_responses(driver: Driver) -> None:
    call = streamed_out(driver, "fail")
    assert (call.next(), call.next()) == (says("one"), failing("refused", effect()))
    call.expect_end()


def test_an_exception_ends_a_stream_of_responses(driver: Driver) -> None:
    call = streamed_out(driver, "raise")
    assert (call.next(), call.next()) == (says("one"), failing("Unexpected failure: boom"))
    call.expect_end()


def test_forward_of_the_context_is_not_for_streams(driver: Driver) -> None:
    call = streamed_out(driver, "forward")
    assert "yield Forward(call) instead" in call.next().failure.description
    call.expect_end()


def test_a_handler_may_answer_before_the_requests_end(driver: Driver) -> None:
    call = driver.open_action("handleStreamedIn", MODEL).command("ProcessStreamedIn").request(request("early"))
    assert call.next() == says("1")
    call.expect_end()


# --- cancellation ----------------------------------------------------------------------------------------------------


def test_cancellation_reaches_the_handler(driver: Driver, probe: Probe) -> None:
    call = streamed_out(driver, "wait")
    assert call.next() == says("begun")
    call.call.cancel()
    until(driver, lambda: probe.log == ["closed"])
    until(driver, lambda: driver.open_streams == 0)
    assert driver.hooks.failures == []


def test_cancellation_closes_a_handler_that_waits_for_the_client_to_read(driver: Driver, probe: Probe) -> None:
    call = streamed_out(driver, "endless")
    call.next()
    call.call.pause()
    settled(driver, probe.log)
    call.call.cancel()
    until(driver, lambda: "closed" in probe.log)
    until(driver, lambda: driver.open_streams == 0)


def test_cancellation_while_requests_are_awaited(driver: Driver) -> None:
    call = driver.open_action("handleStreamedIn", MODEL).command("ProcessStreamedIn").request(request("x"))
    until(driver, lambda: driver.open_streams == 1)
    call.call.cancel()
    until(driver, lambda: driver.open_streams == 0)


# --- back-pressure ---------------------------------------------------------------------------------------------------


def settled(driver: Driver, log: list[str]) -> int:
    """Length of a log that did not grow for a while."""

    async def settle() -> None:
        length = -1
        while length != len(log):
            length = len(log)
            await asyncio.sleep(0.1)

    driver.run(settle())
    return len(log)


def test_a_handler_is_not_asked_for_more_than_the_client_reads(driver: Driver, probe: Probe) -> None:
    call = streamed_out(driver, "endless")
    call.next()
    call.call.pause()
    first = settled(driver, probe.log)
    assert first * 4096 < 2 << 20
    call.call.resume()
    until(driver, lambda: len(probe.log) > 2 * first)
    call.call.cancel()


def test_requests_that_the_handler_does_not_take_are_left_with_the_sender(driver: Driver, probe: Probe) -> None:
    call = driver.open_action("handleStreamedIn", MODEL).command("ProcessStreamedIn").request(request("wait"))
    for _ in range(1000):
        call.request(request("y" * 4096))
    call.half_close()
    until(driver, lambda: probe.log == ["wait"])
    [running] = driver.app._actions.streams
    assert running.incoming is not None
    waiting = running.incoming._waiting
    settled(driver, probe.log)
    assert QUEUE_LOW < len(waiting) <= QUEUE_HIGH and call.call.queued_bytes > 1 << 20
    probe.gate.set()
    assert call.next() == says("1001")
    call.expect_end()


# --- the end ---------------------------------------------------------------------------------------------------------


def test_a_graceful_stop_lets_running_actions_finish(driver: Driver, probe: Probe) -> None:
    call = streamed_out(driver, "wait")
    assert call.next() == says("begun")
    stopping = driver.loop.create_task(driver.app.stop(2.0))
    until(driver, lambda: driver.app._actions.stopping)
    probe.gate.set()
    assert call.next() == says("finished")
    call.expect_end()
    driver.run(stopping)


def test_a_stop_cancels_actions_that_take_too_long(driver: Driver, probe: Probe) -> None:
    call = streamed_out(driver, "wait")
    assert call.next() == says("begun")
    driver.run(driver.app.stop(0.05))
    assert probe.log == ["closed"] and driver.open_streams == 0
    until(driver, lambda: call.end is not None)
    assert call.end is not None and call.end[0] != Status.OK


# --- registration ----------------------------------------------------------------------------------------------------


def refused(body: dict[str, Any], *words: str) -> None:
    with pytest.raises(RegistrationError) as caught:
        Stateside(Action(service=SERVICE)(type("Wrong", (), body)))
    for word in words:
        assert word in str(caught.value)


def test_handlers_have_to_fit_the_shape_of_their_rpc() -> None:
    @command
    def process_streamed_out(self: Any) -> None: ...

    refused({"process_streamed_out": process_streamed_out}, "has to be an async generator", "its rpc streams out")

    @command
    def process_streamed_in(self: Any, requests: AsyncIterator[Request]) -> None: ...

    refused({"process_streamed_in": process_streamed_in}, "has to be async def", "AsyncIterator[Request]")

    @command
    async def process_unary(self: Any) -> AsyncIterator[Response]:
        yield Response()

    refused({"process_unary": process_unary}, "is a generator; its rpc has one reply")


def test_what_streams_take_and_yield_is_checked() -> None:
    @command("ProcessStreamedIn")
    async def takes(self: Any, requests: Request) -> None: ...

    refused({"takes": takes}, "parameter 'requests' of type Request", "the payloads AsyncIterator[Request]")

    @command("ProcessStreamedOut")
    async def yields(self: Any, request: Request) -> AsyncIterator[Request]:
        yield request

    refused({"yields": yields}, "returns Request; the rpc replies Response")

    @command("ProcessUnary")
    def keyed(self: Any, entity_id: str) -> None: ...

    refused({"keyed": keyed}, "parameter 'entity_id'", "ActionContext")


def test_a_class_that_needs_arguments_is_registered_as_an_instance() -> None:
    @Action(service=DESCRIPTOR.services_by_name["ActionTwo"])
    class Needs:
        def __init__(self, database: object) -> None: ...

        @command
        def call(self) -> Response:
            return Response()

    with pytest.raises(RegistrationError, match=r"without arguments \(database\); register an instance"):
        Stateside(Needs)
    Stateside(Needs(object()))


def test_a_request_that_is_an_any_is_the_payload_itself() -> None:
    file = FileDescriptorProto(name="anys.proto", package="anys", dependency=["google/protobuf/any.proto"])
    any_name = ".google.protobuf.Any"
    file.service.add(name="S").method.add(name="Pass", input_type=any_name, output_type=any_name)
    pool = DescriptorPool()
    pool.AddSerializedFile(DESCRIPTOR.pool.FindFileByName("google/protobuf/any.proto").serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())

    @Action(service=pool.FindServiceByName("anys.S"))
    class Passes:
        @command("Pass")
        def passes(self, request):  # type: ignore[no-untyped-def]
            assert request.type_url == "json.cloudstate.io/x"
            return request

    driver = Driver(Passes)
    command_message = action.ActionCommand(service_name="anys.S", name="Pass")
    command_message.payload.type_url, command_message.payload.value = "json.cloudstate.io/x", b"\x0a\x02{}"
    call = driver.open_action("handleUnary", "anys.S")
    call.send(command_message)
    call.half_close()
    assert call.next().reply.payload == command_message.payload
    call.expect_end()
    driver.close()
