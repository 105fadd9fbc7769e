"""The CRDT model service of the TCK (package cloudstate.tck.model.crdt), written with the support library."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from stateside.support import (
    CancelContext,
    ChangeContext,
    Clock,
    Crdt,
    CrdtContext,
    CrdtEntity,
    Flag,
    GCounter,
    GSet,
    LWWRegister,
    ORMap,
    ORSet,
    PNCounter,
    Service,
    Vote,
    WriteConsistency,
    command,
)
from tests.protos.tck.crdt_pb2 import (
    DESCRIPTOR,
    FlagValue,
    GCounterValue,
    GSetValue,
    LWWRegisterValue,
    ORMapEntryValue,
    ORMapValue,
    ORSetValue,
    PNCounterValue,
    Request,
    RequestAction,
    Response,
    State,
    StreamedRequest,
    Update,
    VoteValue,
)

SERVICES = DESCRIPTOR.services_by_name
TWO = Service(SERVICES["CrdtTwo"])

TYPES: dict[str, Callable[[], Crdt]] = {
    "GCounter": GCounter,
    "PNCounter": PNCounter,
    "GSet": GSet,
    "ORSet": ORSet,
    "LWWRegister": lambda: LWWRegister(""),
    "Flag": Flag,
    "ORMap": ORMap,
    "Vote": Vote,
}


def maker(name: str) -> Callable[[], Crdt]:
    """What makes the CRDT of an entity, or the entry of a map, of this name."""
    return TYPES[name.partition("-")[0]]


@CrdtEntity(service=SERVICES["CrdtTckModel"], persistence_id="crdt-tck-model")
class CrdtTckModel:
    """Does to its CRDT what it is told."""

    @command
    def process(self, request: Request, ctx: CrdtContext[Any]) -> Response | None:
        crdt = ctx.get_or_create(maker(ctx.entity_id))
        for action in request.actions:
            self._act(action, crdt, ctx)
        if any(action.HasField("forward") for action in request.actions):
            return None
        return Response(state=state_of(crdt))

    @command
    def process_streamed(self, request: StreamedRequest, ctx: CrdtContext[Any]) -> Response | None:
        crdt = ctx.get_or_create(maker(ctx.entity_id))
        if ctx.streamed:
            ctx.on_change(lambda change: self._changed(request, crdt, change))
            ctx.on_cancel(lambda cancel: self._cancelled(request, crdt, cancel))
        if request.HasField("initial_update"):
            update(crdt, request.initial_update)
        return None if request.empty else Response(state=state_of(crdt))

    def _act(self, action: RequestAction, crdt: Any, ctx: CrdtContext[Any]) -> None:
        match action.WhichOneof("action"):
            case "update":
                ctx.write_consistency = WriteConsistency(action.update.write_consistency)
                update(crdt, action.update)
            case "delete":
                ctx.delete()
            case "forward":
                ctx.forward(TWO.call("Call", Request(id=action.forward.id)))
            case "effect":
                ctx.effect(TWO.call("Call", Request(id=action.effect.id)), synchronous=action.effect.synchronous)
            case "fail":
                ctx.fail(action.fail.message)

    def _changed(self, request: StreamedRequest, crdt: Any, change: ChangeContext[Any]) -> Response | None:
        for effect in request.effects:
            change.effect(TWO.call("Call", Request(id=effect.id)), synchronous=effect.synchronous)
        state = state_of(crdt)
        if request.HasField("end_state") and state == request.end_state:
            change.end()
        return None if request.empty else Response(state=state)

    def _cancelled(self, request: StreamedRequest, crdt: Any, cancel: CancelContext[Any]) -> None:
        if request.HasField("cancel_update"):
            update(crdt, request.cancel_update)


@CrdtEntity(service=SERVICES["CrdtTwo"], persistence_id="crdt-tck-model-two")
class CrdtTwo:
    """Target of forwards and side effects."""

    @command
    def call(self, request: Request, ctx: CrdtContext[GCounter]) -> Response:
        if any(action.HasField("delete") for action in request.actions):
            ctx.delete()
        return Response()


@CrdtEntity(
    service=SERVICES["CrdtConfigured"],
    persistence_id="crdt-configured",
    passivate_after=timedelta(milliseconds=100),
)
class CrdtConfigured:
    """Has its own passivation timeout."""

    @command
    def call(self) -> Response:
        return Response()


def update(crdt: Any, request: Update) -> None:
    """Change a CRDT as an Update says."""
    match request.WhichOneof("update"):
        case "gcounter":
            crdt.increment(request.gcounter.increment)
        case "pncounter":
            crdt.increment(request.pncounter.change)
        case "gset":
            crdt.add(request.gset.add)
        case "orset":
            _update_set(crdt, request.orset)
        case "lwwregister":
            clock = request.lwwregister.clock
            crdt.set(request.lwwregister.value, Clock(clock.clockType), clock.customClockValue)
        case "flag":
            crdt.enable()
        case "ormap":
            _update_map(crdt, request.ormap)
        case "vote":
            crdt.vote = request.vote.self_vote


def _update_set(crdt: ORSet[str], request: Any) -> None:
    match request.WhichOneof("action"):
        case "add":
            crdt.add(request.add)
        case "remove":
            crdt.discard(request.remove)
        case "clear":
            crdt.clear()


def _update_map(crdt: ORMap[str], request: Any) -> None:
    match request.WhichOneof("action"):
        case "add":
            crdt.get_or_create(request.add, maker(request.add))
        case "update":
            update(crdt.get_or_create(request.update.key, maker(request.update.key)), request.update.update)
        case "remove":
            crdt.pop(request.remove, None)
        case "clear":
            crdt.clear()


def state_of(crdt: Any) -> State:
    """The value of a CRDT as the model tells it."""
    match crdt:
        case GCounter():
            return State(gcounter=GCounterValue(value=int(crdt)))
        case PNCounter():
            return State(pncounter=PNCounterValue(value=int(crdt)))
        case GSet():
            return State(gset=GSetValue(elements=sorted(crdt)))
        case ORSet():
            return State(orset=ORSetValue(elements=sorted(crdt)))
        case LWWRegister():
            return State(lwwregister=LWWRegisterValue(value=crdt.value))
        case Flag():
            return State(flag=FlagValue(value=crdt.value))
        case Vote():
            return State(vote=VoteValue(self_vote=crdt.vote, votes_for=crdt.votes_for, total_voters=crdt.total))
        case _:
            entries = [ORMapEntryValue(key=key, value=state_of(crdt[key])) for key in sorted(crdt)]
            return State(ormap=ORMapValue(entries=entries))
