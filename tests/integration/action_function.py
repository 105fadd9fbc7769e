"""A user function with actions (and the event sourced model), whose every word the tests decide.

All that a proxy sends is recorded as `ActionCall`s. Services named by `play_services` are played by the test itself;
the others behave as the action model of the TCK. Messages as the tests write them stand here too: `request` and its
steps are what a client asks, `command`, `opening` and `message` what a proxy is expected to send, the others what a
user function answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import grpc
import grpc.aio
from tck import action_pb2 as model
from tck import eventsourced_pb2 as entities

from stateside.proto import action, cloudstate, pack

from . import messages
from .user_function import EntityStream, ScriptedUserFunction, soon

PACKAGE = "cloudstate.tck.model.action"
MODEL = f"{PACKAGE}.ActionTckModel"
TWO = f"{PACKAGE}.ActionTwo"
ACTION = "cloudstate.action.ActionProtocol"
RPCS = ("handleUnary", "handleStreamedIn", "handleStreamedOut", "handleStreamed")


# --- what a client asks ----------------------------------------------------------------------------------------------


def say(text: str) -> model.ProcessStep:
    return model.ProcessStep(reply=model.Reply(message=text))


def forward_to(identity: str) -> model.ProcessStep:
    return model.ProcessStep(forward=model.Forward(id=identity))


def fail(text: str) -> model.ProcessStep:
    return model.ProcessStep(fail=model.Fail(message=text))


def effect_on(identity: str, synchronous: bool = False) -> model.ProcessStep:
    return model.ProcessStep(effect=model.SideEffect(id=identity, synchronous=synchronous))


def request(*groups: Iterable[model.ProcessStep]) -> model.Request:
    return model.Request(groups=[model.ProcessGroup(steps=steps) for steps in groups])


# --- what the proxy sends, metadata apart ----------------------------------------------------------------------------


def command(name: str, payload: Any, service: str = MODEL) -> Any:
    """The one message of a unary or streamed-out call."""
    return action.ActionCommand(service_name=service, name=name, payload=pack(payload))


def call_two(identity: str) -> Any:
    return command("Call", model.OtherRequest(id=identity), TWO)


def opening(name: str, service: str = MODEL) -> Any:
    return action.ActionCommand(service_name=service, name=name)


def message(payload: Any) -> Any:
    return action.ActionCommand(payload=pack(payload))


def plain(sent: Any) -> Any:
    """A command without its metadata, as the TCK compares them."""
    copy = action.ActionCommand.FromString(sent.SerializeToString())
    copy.ClearField("metadata")
    return copy


def entries(metadata: Any) -> list[tuple[str, str | bytes]]:
    return [(entry.key, getattr(entry, entry.WhichOneof("value"))) for entry in metadata.entries]


# --- what the user function answers ----------------------------------------------------------------------------------


def metadata_with(*given: tuple[str, str | bytes]) -> Any:
    made = cloudstate.Metadata()
    for key, value in given:
        field = "bytes_value" if isinstance(value, bytes) else "string_value"
        made.entries.add(**{"key": key, field: value})
    return made


def reply(text: str = "", *effects: Any, metadata: Any = None) -> Any:
    answer = cloudstate.Reply(payload=pack(model.Response(message=text)), metadata=metadata)
    return action.ActionResponse(reply=answer, side_effects=effects)


def failure(text: str, *effects: Any) -> Any:
    return action.ActionResponse(failure=cloudstate.Failure(description=text), side_effects=effects)


def no_reply(*effects: Any) -> Any:
    return action.ActionResponse(side_effects=effects)


def forward(service: str, name: str, payload: Any, *effects: Any, metadata: Any = None) -> Any:
    target = cloudstate.Forward(service_name=service, command_name=name, payload=pack(payload), metadata=metadata)
    return action.ActionResponse(forward=target, side_effects=effects)


def forward_two(identity: str, *effects: Any, metadata: Any = None) -> Any:
    return forward(TWO, "Call", model.OtherRequest(id=identity), *effects, metadata=metadata)


def side_effect(service: str, name: str, payload: Any, synchronous: bool = False, metadata: Any = None) -> Any:
    return cloudstate.SideEffect(
        service_name=service, command_name=name, payload=pack(payload), synchronous=synchronous, metadata=metadata
    )


def effect_two(identity: str, synchronous: bool = False, metadata: Any = None) -> Any:
    return side_effect(TWO, "Call", model.OtherRequest(id=identity), synchronous, metadata)


# --- discovery -------------------------------------------------------------------------------------------------------


def action_entity(service: str) -> Any:
    return cloudstate.Entity(entity_type=ACTION, service_name=service)


def actions_spec(with_entities: bool = True) -> Any:
    """The TCK's action model, and its event sourced model with it."""
    spec = messages.model_spec()
    offered = [action_entity(MODEL), action_entity(TWO)]
    spec.proto = messages.descriptor_set(model.DESCRIPTOR)
    if with_entities:
        spec.proto = messages.descriptor_set(model.DESCRIPTOR, entities.DESCRIPTOR)
        offered += [messages.entity(messages.MODEL), messages.entity(messages.TWO)]
    del spec.entities[:]
    spec.entities.extend(offered)
    return spec


# --- the user function -----------------------------------------------------------------------------------------------


class ActionCall(EntityStream):
    """The user function's end of one call of an action. `sent` holds all that it answered."""

    parse = staticmethod(action.ActionCommand.FromString)

    def __init__(self, rpc: str, context: Any, number: int) -> None:
        super().__init__(context, number)
        self.rpc = rpc
        self.sent: list[Any] = []

    def __repr__(self) -> str:
        return f"<{self.rpc} {self.number}>"

    @property
    def first(self) -> Any:
        return self.received[0]

    @property
    def commands(self) -> list[Any]:
        return [plain(each) for each in self.received]

    @property
    def time_left_s(self) -> float | None:
        left: float | None = self.context.time_remaining()
        return left

    async def send(self, message: Any) -> None:
        self.sent.append(message)
        await super().send(message)

    async def answer(self, *responses: Any) -> None:
        """Send them all and end the call well."""
        for each in responses:
            await self.send(each)
        self.complete()

    async def wait_reset(self) -> None:
        await soon(self.reset.wait(), f"{self} to be cancelled")


class ActionFunction(ScriptedUserFunction):
    """`calls` are all calls of actions, in the order in which they came."""

    def __init__(self, spec: Any = None, **more: Any) -> None:
        super().__init__(spec if spec is not None else actions_spec(), **more)
        self.calls: list[ActionCall] = []
        self.unread: Callable[[ActionCall], Awaitable[None]] | None = None  # answers without anybody reading
        self._played_services: set[str] = set()
        self._played_calls: asyncio.Queue[ActionCall] = asyncio.Queue()

    def play_services(self, *services: str) -> None:
        """The test answers for these, and for no others."""
        self._played_services = set(services)

    async def call(self) -> ActionCall:
        """The next call of a played service, its first message not yet taken with `next`."""
        return await soon(self._played_calls.get(), "a call of a played action")

    def since(self, number: int) -> list[ActionCall]:
        return self.calls[number:]

    def _services(self) -> tuple[Any, ...]:
        handlers = {rpc: grpc.stream_stream_rpc_method_handler(self._handler(rpc), None, None) for rpc in RPCS}
        return (*super()._services(), grpc.method_handlers_generic_handler(ACTION, handlers))

    def _handler(self, rpc: str) -> Any:
        async def handle(requests: Any, context: Any) -> None:
            call = ActionCall(rpc, context, len(self.calls) + 1)
            self.calls.append(call)
            reading = asyncio.create_task(call.read_on() if self.unread is None else asyncio.sleep(0))
            try:
                await (self._answer if self.unread is None else self.unread)(call)
            except asyncio.CancelledError:
                call.reset.set()
                raise
            finally:
                reading.cancel()
                call.over.set()
                await self._tell()

        return handle

    async def _answer(self, call: ActionCall) -> None:
        first = await call.take()
        if first is None:
            return
        if first.service_name in self._played_services:
            call.rewind()
            self._played_calls.put_nowait(call)
            await call.until_ended()
        else:
            await self._play_call(call, first)

    async def _play_call(self, call: ActionCall, first: Any) -> None:
        await play_model(call, first)


# --- the TCK's model -------------------------------------------------------------------------------------------------


async def play_model(call: ActionCall, first: Any) -> None:
    """Answer as a support library with the TCK's model would."""
    if call.rpc in ("handleUnary", "handleStreamedOut"):
        await call.half_closed.wait()
    if first.service_name == TWO:
        await call.send(reply())
    elif call.rpc == "handleUnary":
        await call.send(single_response([model.Request.FromString(first.payload.value)]))
    elif call.rpc == "handleStreamedOut":
        await send_groups(call, first)
    elif call.rpc == "handleStreamedIn":
        requests = []
        while (sent := await call.take()) is not None:
            requests.append(model.Request.FromString(sent.payload.value))
        await call.send(single_response(requests))
    else:
        while (sent := await call.take()) is not None:
            await send_groups(call, sent)


async def send_groups(call: ActionCall, command: Any) -> None:
    for group in model.Request.FromString(command.payload.value).groups:
        await call.send(response_to(group.steps))


def single_response(requests: list[Any]) -> Any:
    return response_to([step for request in requests for group in request.groups for step in group.steps])


def response_to(steps: Iterable[Any]) -> Any:
    """The last of reply, forward and failure, and all effects in their order."""
    response = no_reply()
    effects = []
    for step in steps:
        kind = step.WhichOneof("step")
        if kind == "effect":
            effects.append(effect_two(step.effect.id, step.effect.synchronous))
        elif kind == "reply":
            response = reply(step.reply.message)
        elif kind == "forward":
            response = forward_two(step.forward.id)
        else:
            response = failure(step.fail.message)
    response.side_effects.extend(effects)
    return response
