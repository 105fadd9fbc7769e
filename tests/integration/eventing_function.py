"""A user function with the event log model of the TCK: two entities that emit, and an action that consumes.

`deliveries` are all calls of consuming methods, in the order in which they came. `on_event` may be replaced by a test
that wants to answer otherwise than the model does.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from tck import eventlogeventing_pb2 as model

from stateside.proto import Any as ProtoAny
from stateside.proto import action, cloudstate, eventsourced, pack

from . import messages
from .action_function import ActionCall, ActionFunction, action_entity, entries
from .harness import Outcome, World
from .user_function import EntityStream

PACKAGE = "cloudstate.tck.model.eventlogeventing"
SUBSCRIBER = f"{PACKAGE}.EventLogSubscriberModel"
SECOND = f"{PACKAGE}.SecondSubscriber"  # the same again, in a consumer group of its own
ONE = f"{PACKAGE}.EventSourcedEntityOne"
TWO = f"{PACKAGE}.EventSourcedEntityTwo"
LOG_ONE, LOG_TWO = "eventlogeventing-one", "eventlogeventing-two"
JSON_TYPE = "json.cloudstate.io/tck.SomeEvent"


# --- what clients ask, and what follows ------------------------------------------------------------------------------


def event_one(text: str) -> model.EventOne:
    return model.EventOne(step=model.ProcessStep(reply=model.Reply(message=text)))


def event_forwarded(text: str) -> model.EventOne:
    return model.EventOne(step=model.ProcessStep(forward=model.Forward(message=text)))


def event_two(*texts: str) -> model.EventTwo:
    return model.EventTwo(step=[model.ProcessStep(reply=model.Reply(message=text)) for text in texts])


async def emit(world: World, key: str, event: Any) -> Outcome:
    name = "event_one" if isinstance(event, model.EventOne) else "event_two"
    asked = model.EmitEventRequest(id=key, **{name: event})
    return await world.client.raw(f"/{ONE}/EmitEvent", asked.SerializeToString())


async def emit_json(world: World, key: str, text: str) -> Outcome:
    asked = model.JsonEvent(id=key, message=text)
    return await world.client.raw(f"/{TWO}/EmitJsonEvent", asked.SerializeToString())


def json_any(text: str) -> Any:
    """An Any by the convention for JSON: the text as bytes in field 1, as in `JsonEvent.id`."""
    return ProtoAny(type_url=JSON_TYPE, value=model.JsonEvent(id=json.dumps({"message": text})).SerializeToString())


def response(key: str, text: str) -> Any:
    return action.ActionResponse(reply=cloudstate.Reply(payload=pack(model.Response(id=key, message=text))))


def failure(text: str) -> Any:
    return action.ActionResponse(failure=cloudstate.Failure(description=text))


# --- the user function -----------------------------------------------------------------------------------------------


class Delivery(NamedTuple):
    """One event as the user function was given it."""

    call: ActionCall
    service: str
    method: str
    payload: Any
    metadata: list[tuple[str, Any]]

    @property
    def offset(self) -> int:
        return int(dict(self.metadata)["ce-id"])

    @property
    def event_id(self) -> str:
        return str(dict(self.metadata)["ce-id"])

    @property
    def sequence(self) -> int:
        return int(dict(self.metadata)["ce-sequence"])

    @property
    def subject(self) -> str:
        return str(dict(self.metadata)["ce-subject"])

    @property
    def text(self) -> str:
        """Of an EventOne."""
        step = model.EventOne.FromString(self.payload.value).step
        return str(step.reply.message or step.forward.message)


def eventing_spec(second: bool = False) -> Any:
    """The EntitySpec; `second`: with another consumer of the same logs."""
    file = FileDescriptorProto.FromString(model.DESCRIPTOR.serialized_pb)
    offered = [action_entity(SUBSCRIBER), messages.entity(ONE, LOG_ONE), messages.entity(TWO, LOG_TWO)]
    if second:
        file.service.add().CopyFrom(file.service[0])
        file.service[-1].name = SECOND.rpartition(".")[2]
        offered.append(action_entity(SECOND))
    imports = FileDescriptorSet.FromString(messages.descriptor_set(model.DESCRIPTOR)).file[:-1]
    spec = messages.model_spec()
    spec.proto = FileDescriptorSet(file=[*imports, file]).SerializeToString()
    del spec.entities[:]
    spec.entities.extend(offered)
    return spec


class EventingFunction(ActionFunction):
    """Plays the model, unless `on_event` says otherwise."""

    def __init__(self, spec: Any = None, **more: Any) -> None:
        super().__init__(spec if spec is not None else eventing_spec(), **more)
        self.deliveries: list[Delivery] = []
        self.on_event: Callable[[Delivery], Awaitable[None]] = answer_as_model

    async def delivered(self, count: int) -> list[Delivery]:
        """The first `count` deliveries, when there are so many."""
        await self.until(lambda: len(self.deliveries) >= count, f"{count} events, not {len(self.deliveries)}")
        return self.deliveries[:count]

    def of(self, service: str) -> list[Delivery]:
        return [each for each in self.deliveries if each.service == service]

    async def _answer(self, call: ActionCall) -> None:
        first = await call.take()
        if first is None:
            return
        if first.name == "Effect":
            asked = model.EffectRequest.FromString(first.payload.value)
            await call.send(response(asked.id, asked.message))
            return
        delivery = Delivery(call, first.service_name, first.name, first.payload, entries(first.metadata))
        self.deliveries.append(delivery)
        await self._tell()
        await self.on_event(delivery)

    async def _play_model(self, stream: EntityStream, init: Any) -> None:
        while (message := await stream.take()) is not None:
            if message.HasField("command"):
                await stream.send(emitted(message.command))


async def answer_as_model(delivery: Delivery) -> None:
    if delivery.method == "ProcessAnyEvent":
        text = json.loads(model.JsonEvent.FromString(delivery.payload.value).id)["message"]
        await delivery.call.send(response(delivery.subject, text))
    elif delivery.method == "ProcessEventTwo":
        for step in model.EventTwo.FromString(delivery.payload.value).step:
            await delivery.call.send(response(delivery.subject, step.reply.message))
    elif model.EventOne.FromString(delivery.payload.value).step.HasField("forward"):
        await delivery.call.send(forward_to_effect(delivery.subject, delivery.text))
    else:
        await delivery.call.send(response(delivery.subject, delivery.text))


def forward_to_effect(key: str, text: str) -> Any:
    payload = pack(model.EffectRequest(id=key, message=text))
    forward = cloudstate.Forward(service_name=SUBSCRIBER, command_name="Effect", payload=payload)
    return action.ActionResponse(forward=forward)


def emitted(command: Any) -> Any:
    """The EventSourcedStreamOut of both entities: the event that was asked for."""
    reply = eventsourced.EventSourcedReply(command_id=command.id)
    if command.name == "EmitJsonEvent":
        reply.events.append(json_any(model.JsonEvent.FromString(command.payload.value).message))
    else:
        asked = model.EmitEventRequest.FromString(command.payload.value)
        reply.events.append(pack(getattr(asked, asked.WhichOneof("event"))))
    reply.client_action.reply.payload.CopyFrom(pack(model.Response()))
    return eventsourced.EventSourcedStreamOut(reply=reply)
