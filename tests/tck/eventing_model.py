"""The event log model services of the TCK (package cloudstate.tck.model.eventlogeventing), written with the support
library."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass

from google.protobuf.any_pb2 import Any

from stateside.support import (
    Action,
    ActionContext,
    Answer,
    EventSourced,
    EventSourcedContext,
    Forward,
    Reply,
    Service,
    command,
    event,
    json_type,
)
from tests.protos.tck.eventlogeventing_pb2 import (
    DESCRIPTOR,
    EffectRequest,
    EmitEventRequest,
    EventOne,
    EventTwo,
    JsonEvent,
    ProcessStep,
    Response,
)

SERVICES = DESCRIPTOR.services_by_name
SUBSCRIBER = Service(SERVICES["EventLogSubscriberModel"])


@json_type("tck.SomeEvent")
@dataclass
class SomeEvent:
    message: str


@EventSourced(service=SERVICES["EventSourcedEntityOne"], persistence_id="eventlogeventing-one")
class EntityOne:
    """Emits the event it is given."""

    @command
    def emit_event(self, request: EmitEventRequest, ctx: EventSourcedContext) -> Response:
        ctx.emit(request.event_one if request.HasField("event_one") else request.event_two)
        return Response()

    @event
    def one(self, event: EventOne) -> None:
        """It has no state."""

    @event
    def two(self, event: EventTwo) -> None:
        """It has no state."""


@EventSourced(service=SERVICES["EventSourcedEntityTwo"], persistence_id="eventlogeventing-two")
class EntityTwo:
    """Emits its request as JSON."""

    @command
    def emit_json_event(self, request: JsonEvent, ctx: EventSourcedContext) -> Response:
        ctx.emit(SomeEvent(request.message))
        return Response()

    @event
    def some(self, event: SomeEvent) -> None:
        """It has no state."""


@Action(service=SERVICES["EventLogSubscriberModel"])
class Subscriber:
    """Answers with the key of the entity and the text of the event; `seen` are its answers, whoever asked."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, str]] = []

    @command
    def process_event_one(self, event: EventOne, ctx: ActionContext) -> Answer:
        return self._step("ProcessEventOne", event.step, ctx)

    @command
    async def process_event_two(self, event: EventTwo, ctx: ActionContext) -> AsyncIterator[Answer]:
        for step in event.step:
            yield self._step("ProcessEventTwo", step, ctx)

    @command
    def effect(self, request: EffectRequest) -> Response:
        return self._response("Effect", request.id, request.message)

    @command
    def process_any_event(self, event: Any, ctx: ActionContext) -> Response:
        text = JsonEvent.FromString(event.value).id  # JSON stands in field 1, as the id does
        return self._response("ProcessAnyEvent", subject(ctx), json.loads(text)["message"])

    def _step(self, method: str, step: ProcessStep, ctx: ActionContext) -> Answer:
        if step.HasField("forward"):
            return Forward(SUBSCRIBER.call("Effect", EffectRequest(id=subject(ctx), message=step.forward.message)))
        return Reply(self._response(method, subject(ctx), step.reply.message))

    def _response(self, method: str, key: str, text: str) -> Response:
        self.seen.append((method, key, text))
        return Response(id=key, message=text)


def subject(ctx: ActionContext) -> str:
    """Key of the entity that emitted the event."""
    cloud_event = ctx.cloud_event
    assert cloud_event is not None and cloud_event.subject is not None
    return cloud_event.subject
