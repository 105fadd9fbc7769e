"""Messages of value entities as the tests write them, around the value entity model of the Cloudstate TCK.

What a proxy is expected to send (`value_init`, `command`) stands in messages.py, where the services of both models have
their names.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tck import eventsourced_pb2 as event_sourced_model
from tck import valueentity_pb2 as model

from stateside.proto import cloudstate, pack, valueentity

from .messages import (
    CONFIGURED,
    CONFIGURED_TIMEOUT_MS,
    MODEL,
    TWO,
    VALUE_CONFIGURED,
    VALUE_MODEL,
    VALUE_TWO,
    descriptor_set,
    entity,
    model_spec,
    request,
)

# --- what a client asks ----------------------------------------------------------------------------------------------


def update(value: str) -> model.RequestAction:
    return model.RequestAction(update=model.Update(value=value))


def delete() -> model.RequestAction:
    return model.RequestAction(delete=model.Delete())


def forward_to(key: str) -> model.RequestAction:
    return model.RequestAction(forward=model.Forward(id=key))


def effect_on(key: str, synchronous: bool = False) -> model.RequestAction:
    return model.RequestAction(effect=model.Effect(id=key, synchronous=synchronous))


def fail(text: str) -> model.RequestAction:
    return model.RequestAction(fail=model.Fail(message=text))


# --- what the user function answers ----------------------------------------------------------------------------------

DELETE = valueentity.ValueEntityAction(delete=valueentity.ValueEntityDelete())
INVALID_STATE_ACTIONS = {
    "no member": valueentity.ValueEntityAction(),
    "update without a value": valueentity.ValueEntityAction(update=valueentity.ValueEntityUpdate()),
}


def persisted(value: str) -> Any:
    return pack(model.Persisted(value=value))


def updated(value: str) -> Any:
    """The state action that stores a value."""
    return valueentity.ValueEntityAction(update=valueentity.ValueEntityUpdate(value=persisted(value)))


def reply(command_id: int, text: str = "", state: Any = None, effects: Iterable[Any] = ()) -> Any:
    """A reply that answers the client with `text`; state: an action such as `updated("x")` or DELETE."""
    answer = cloudstate.Reply(payload=pack(model.Response(message=text)))
    return _reply(command_id, cloudstate.ClientAction(reply=answer), state, effects)


def forward(command_id: int, key: str, service: str = VALUE_TWO, state: Any = None, effects: Iterable[Any] = ()) -> Any:
    payload = pack(request(key, service=service))
    target = cloudstate.Forward(service_name=service, command_name="Call", payload=payload)
    return _reply(command_id, cloudstate.ClientAction(forward=target), state, effects)


def failed(
    command_id: int, description: str, restart: bool = False, state: Any = None, effects: Iterable[Any] = ()
) -> Any:
    failure = cloudstate.Failure(command_id=command_id, description=description, restart=restart)
    return _reply(command_id, cloudstate.ClientAction(failure=failure), state, effects)


def no_action(command_id: int, state: Any = None) -> Any:
    return _reply(command_id, None, state, ())


def stream_failure(command_id: int, description: str = "broken") -> Any:
    return valueentity.ValueEntityStreamOut(failure=cloudstate.Failure(command_id=command_id, description=description))


def _reply(command_id: int, action: Any, state: Any, effects: Iterable[Any]) -> Any:
    return valueentity.ValueEntityStreamOut(
        reply=valueentity.ValueEntityReply(
            command_id=command_id, client_action=action, state_action=state, side_effects=effects
        )
    )


# --- discovery -------------------------------------------------------------------------------------------------------


def both_models() -> Any:
    """The EntitySpec of the TCK's value entity model and its event sourced model."""
    spec = model_spec()
    spec.proto = descriptor_set(event_sourced_model.DESCRIPTOR, model.DESCRIPTOR)
    del spec.entities[:]
    spec.entities.extend(entity(service) for service in (MODEL, TWO, VALUE_MODEL, VALUE_TWO))
    for service in (CONFIGURED, VALUE_CONFIGURED):
        spec.entities.append(entity(service, timeout_ms=CONFIGURED_TIMEOUT_MS))
    return spec
