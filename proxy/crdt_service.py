"""Services of CRDT entities: their methods, as the transport calls them, and their instances.

On the way of a command this file stands between the transport and the instance (crdt.py), as `EntityMethod` and
`Entities` of activation.py do for the other entity types.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stateside.proxy.activation import Entities, EntityMethod
from stateside.proxy.crdt import Crdt
from stateside.proxy.crdt_calls import Command, StreamedCall

if TYPE_CHECKING:
    from typing import Any

    from stateside._speedups.h2 import Call, ServerCall
    from stateside.proxy.replicas import Replicas
    from stateside.proxy.spec import EntityModel, MethodModel


class CrdtMethod(EntityMethod):
    """One method of a CRDT entity's service: unary, or with a stream of replies."""

    __slots__ = ("make",)

    def __init__(self, entities: Crdts, model: MethodModel) -> None:
        EntityMethod.__init__(self, entities, model)
        self.streamed = model.server_streaming
        self.make: type[Command] = Command
        if self.streamed:
            self.make = StreamedCall
            self.takes_clients = False

    # Of streams only: a unary command runs to its end, and its `context` is not ours.

    def on_drain(self, call: Call) -> None:
        if self.streamed and call.context is not None:
            call.context.on_client_drain()

    def on_cancel(self, call: ServerCall, status: int) -> None:
        if self.streamed and call.context is not None:
            call.context.on_client_cancel(status)


class Crdts(Entities):
    """All instances of one CRDT entity service.

    Bounded, besides what `Entities` bounds, by `crdt_max_in_flight` commands and `crdt_max_streams` streamed calls of
    each instance.
    """

    stream_path = b"/cloudstate.crdt.Crdt/handle"
    command_member = 4  # CrdtStreamIn.command
    noun = "CRDT"
    instance = Crdt

    def __init__(self, model: EntityModel, settings: Any, *, replicas: Replicas, **shared: Any) -> None:
        self.replicas = replicas
        Entities.__init__(self, model, settings, **shared)

    def update(self, model: EntityModel) -> None:
        Entities.update(self, model)
        self.max_in_flight = self.settings.crdt_max_in_flight
        self.max_streams = self.settings.crdt_max_streams
        self.hold_limit = self.settings.crdt_hold_limit
        self.methods = {method.name: CrdtMethod(self, method) for method in model.methods}

    def complete_streams(self) -> None:
        """The proxy stops: streams end well (spec crdt 3 S19)."""
        for instance in list(self.active.values()):
            assert isinstance(instance, Crdt)
            instance.complete_streams()
