"""The event sourced model service of the TCK (package cloudstate.tck.model), written with the support library."""

from datetime import timedelta

from stateside.support import EventSourced, EventSourcedContext, Service, command, event, snapshot, snapshot_handler
from tests.protos.tck.eventsourced_pb2 import DESCRIPTOR, Persisted, Request, RequestAction, Response

SERVICES = DESCRIPTOR.services_by_name
TWO = Service(SERVICES["EventSourcedTwo"])


@EventSourced(service=SERVICES["EventSourcedTckModel"], persistence_id="event-sourced-tck-model", snapshot_every=5)
class TckModel:
    """Concatenates the values emitted to it."""

    def __init__(self) -> None:
        self.state = ""

    @command
    def process(self, request: Request, ctx: EventSourcedContext) -> Response | None:
        for action in request.actions:
            self._act(action, ctx)
        forwarded = any(action.HasField("forward") for action in request.actions)
        return None if forwarded else Response(message=self.state)

    def _act(self, action: RequestAction, ctx: EventSourcedContext) -> None:
        match action.WhichOneof("action"):
            case "emit":
                ctx.emit(Persisted(value=action.emit.value))
            case "forward":
                ctx.forward(TWO.call("Call", Request(id=action.forward.id)))
            case "effect":
                ctx.effect(TWO.call("Call", Request(id=action.effect.id)), synchronous=action.effect.synchronous)
            case "fail":
                ctx.fail(action.fail.message)

    @event
    def persisted(self, event: Persisted) -> None:
        self.state += event.value

    @snapshot
    def take_snapshot(self) -> Persisted:
        return Persisted(value=self.state)

    @snapshot_handler
    def load_snapshot(self, snapshot: Persisted) -> None:
        self.state = snapshot.value


@EventSourced(service=SERVICES["EventSourcedTwo"])
class Two:
    """Target of forwards and side effects."""

    @command
    def call(self) -> Response:
        return Response()


@EventSourced(
    service=SERVICES["EventSourcedConfigured"],
    persistence_id="event-sourced-configured",
    passivate_after=timedelta(milliseconds=100),
)
class Configured:
    """Has its own passivation timeout."""

    @command
    def call(self) -> Response:
        return Response()
