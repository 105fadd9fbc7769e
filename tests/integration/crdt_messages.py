"""Messages of CRDTs as the tests write them, around the CRDT model of the Cloudstate TCK.

`init`, `delta`, `command` and `cancelled` are what a proxy is expected to send, compared for full equality; `reply`,
`message`, `cancel_response` and their like are what a user function answers; `request` and its actions are what a
client asks.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tck import crdt_pb2 as model

from stateside.proto import cloudstate, crdt, pack

from .messages import (
    CONFIGURED_TIMEOUT_MS,
    CRDT,
    CRDT_CONFIGURED,
    CRDT_MODEL,
    CRDT_TWO,
    METHODS,
    PERSISTENCE_IDS,
    descriptor_set,
    model_spec,
)

STREAMED = "ProcessStreamed"
LOCAL, MAJORITY, ALL = 0, 1, 2


# --- what a client asks ----------------------------------------------------------------------------------------------


def update(**which: Any) -> model.RequestAction:
    """update(pncounter=3), update(gset="one"), update(gcounter=4), update(vote=True)."""
    return model.RequestAction(update=an_update(**which))


def an_update(**which: Any) -> model.Update:
    ((name, value),) = which.items()
    field = {"gcounter": "increment", "pncounter": "change", "gset": "add", "vote": "self_vote"}[name]
    return model.Update(**{name: {field: value}})


def delete() -> model.RequestAction:
    return model.RequestAction(delete=model.Delete())


def forward_to(key: str) -> model.RequestAction:
    return model.RequestAction(forward=model.Forward(id=key))


def effect_on(key: str, synchronous: bool = False) -> model.RequestAction:
    return model.RequestAction(effect=model.Effect(id=key, synchronous=synchronous))


def fail(text: str) -> model.RequestAction:
    return model.RequestAction(fail=model.Fail(message=text))


def request(key: str, *actions: Any) -> model.Request:
    return model.Request(id=key, actions=actions)


def streamed_request(key: str, **fields: Any) -> model.StreamedRequest:
    return model.StreamedRequest(id=key, **fields)


# --- what the proxy sends --------------------------------------------------------------------------------------------


def init(key: str, value: Any = None, service: str = CRDT_MODEL) -> Any:
    return crdt.CrdtStreamIn(init=crdt.CrdtInit(service_name=service, entity_id=key, delta=value))


def delta(change: Any) -> Any:
    return crdt.CrdtStreamIn(delta=change)


DELETED = crdt.CrdtStreamIn(delete=crdt.CrdtDelete())


def command(number: int, key: str, *actions: Any, service: str = CRDT_MODEL) -> Any:
    """Without metadata: the TCK compares for equality."""
    payload = pack(request(key, *actions))
    sent = cloudstate.Command(entity_id=key, id=number, name=METHODS[service], payload=payload)
    return crdt.CrdtStreamIn(command=sent)


def streamed_command(number: int, key: str, **fields: Any) -> Any:
    payload = pack(streamed_request(key, **fields))
    sent = cloudstate.Command(entity_id=key, id=number, name=STREAMED, payload=payload, streamed=True)
    return crdt.CrdtStreamIn(command=sent)


def cancelled(number: int, key: str) -> Any:
    return crdt.CrdtStreamIn(stream_cancelled=cloudstate.StreamCancelled(entity_id=key, id=number))


# --- deltas ----------------------------------------------------------------------------------------------------------


def gcounter(increment: int = 0) -> Any:
    return crdt.CrdtDelta(gcounter=crdt.GCounterDelta(increment=increment))


def pncounter(change: int = 0) -> Any:
    return crdt.CrdtDelta(pncounter=crdt.PNCounterDelta(change=change))


def text(value: str) -> Any:
    """A string as libraries put it into sets and registers."""
    return pack(model.LWWRegisterValue(value=value))


def gset(*added: str) -> Any:
    return crdt.CrdtDelta(gset=crdt.GSetDelta(added=map(text, added)))


def register(value: str, clock: int = 0) -> Any:
    return crdt.CrdtDelta(lwwregister=crdt.LWWRegisterDelta(value=text(value), clock=clock))


def flag(value: bool) -> Any:
    return crdt.CrdtDelta(flag=crdt.FlagDelta(value=value))


def vote(self_vote: bool, votes_for: int = 0, total: int = 0) -> Any:
    return crdt.CrdtDelta(vote=crdt.VoteDelta(self_vote=self_vote, votes_for=votes_for, total_voters=total))


# --- what the user function answers ----------------------------------------------------------------------------------


def changed(value: Any, consistency: int = LOCAL) -> Any:
    """The state action of an update."""
    return crdt.CrdtStateAction(update=value, write_consistency=consistency)


def deletion(consistency: int = LOCAL) -> Any:
    return crdt.CrdtStateAction(delete=crdt.CrdtDelete(), write_consistency=consistency)


def answer(state: Any = None) -> Any:
    """Client action with a Response; state: a model.State."""
    return cloudstate.ClientAction(reply=cloudstate.Reply(payload=pack(model.Response(state=state))))


def forwarded(key: str, service: str = CRDT_TWO, method: str = "Call") -> Any:
    target = cloudstate.Forward(service_name=service, command_name=method, payload=pack(request(key)))
    return cloudstate.ClientAction(forward=target)


def failure_action(number: int, description: str, restart: bool = False) -> Any:
    failure = cloudstate.Failure(command_id=number, description=description, restart=restart)
    return cloudstate.ClientAction(failure=failure)


def side_effect(key: str, *, synchronous: bool = False, service: str = CRDT_TWO, method: str = "Call") -> Any:
    payload = pack(request(key))
    return cloudstate.SideEffect(service_name=service, command_name=method, payload=payload, synchronous=synchronous)


def reply(
    number: int,
    action: Any = ...,
    change: Any = None,
    *,
    effects: Iterable[Any] = (),
    streamed: bool = False,
) -> Any:
    """action: a ClientAction, by default an empty Response; None: none. change: a state action."""
    said = crdt.CrdtReply(
        command_id=number,
        client_action=answer() if action is ... else action,
        state_action=change,
        side_effects=effects,
        streamed=streamed,
    )
    return crdt.CrdtStreamOut(reply=said)


def message(number: int, action: Any = ..., *, effects: Iterable[Any] = (), end: bool = False) -> Any:
    said = crdt.CrdtStreamedMessage(
        command_id=number, client_action=answer() if action is ... else action, side_effects=effects, end_stream=end
    )
    return crdt.CrdtStreamOut(streamed_message=said)


def cancel_response(number: int, change: Any = None, effects: Iterable[Any] = ()) -> Any:
    said = crdt.CrdtStreamCancelledResponse(command_id=number, state_action=change, side_effects=effects)
    return crdt.CrdtStreamOut(stream_cancelled_response=said)


def stream_failure(number: int, description: str = "broken", restart: bool = False) -> Any:
    failure = cloudstate.Failure(command_id=number, description=description, restart=restart)
    return crdt.CrdtStreamOut(failure=failure)


# --- discovery -------------------------------------------------------------------------------------------------------


def crdt_spec() -> Any:
    """The EntitySpec of the TCK's CRDT model."""
    spec = model_spec()
    spec.proto = descriptor_set(model.DESCRIPTOR)
    del spec.entities[:]
    for service in (CRDT_MODEL, CRDT_TWO, CRDT_CONFIGURED):
        offered = spec.entities.add(entity_type=CRDT, service_name=service, persistence_id=PERSISTENCE_IDS[service])
        if service == CRDT_CONFIGURED:
            offered.passivation_strategy.timeout.timeout = CONFIGURED_TIMEOUT_MS
    return spec
