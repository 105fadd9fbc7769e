"""The value entity model service of the TCK (package cloudstate.tck.model.valueentity), written with the support
library.
"""

from datetime import timedelta

from stateside.support import Service, ValueEntity, ValueEntityContext, command
from tests.protos.tck.valueentity_pb2 import DESCRIPTOR, Persisted, Request, RequestAction, Response

SERVICES = DESCRIPTOR.services_by_name
TWO = Service(SERVICES["ValueEntityTwo"])
Context = ValueEntityContext[Persisted]


@ValueEntity(service=SERVICES["ValueEntityTckModel"], persistence_id="value-entity-tck-model")
class ValueTckModel:
    """Holds the value last given to it."""

    @command
    def process(self, request: Request, ctx: Context) -> Response | None:
        for action in request.actions:
            self._act(action, ctx)
        if any(action.HasField("forward") for action in request.actions):
            return None
        return Response(message=ctx.state.value if ctx.state else "")

    def _act(self, action: RequestAction, ctx: Context) -> None:
        match action.WhichOneof("action"):
            case "update":
                ctx.update(Persisted(value=action.update.value))
            case "delete":
                ctx.delete()
            case "forward":
                ctx.forward(TWO.call("Call", Request(id=action.forward.id)))
            case "effect":
                ctx.effect(TWO.call("Call", Request(id=action.effect.id)), synchronous=action.effect.synchronous)
            case "fail":
                ctx.fail(action.fail.message)


@ValueEntity(service=SERVICES["ValueEntityTwo"], persistence_id="value-entity-tck-model-two")
class ValueTwo:
    """Target of forwards and side effects."""

    @command
    def call(self) -> Response:
        return Response()


@ValueEntity(
    service=SERVICES["ValueEntityConfigured"],
    persistence_id="value-entity-configured",
    passivate_after=timedelta(milliseconds=100),
)
class ValueConfigured:
    """Has its own passivation timeout."""

    @command
    def call(self) -> Response:
        return Response()
