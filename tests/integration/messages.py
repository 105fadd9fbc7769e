"""Messages of the protocol as the tests write them, around the event sourced model of the Cloudstate TCK.

`init`, `event` and `command` are what a proxy is expected to send, compared for full equality; `reply`, `forward`,
`failed` and `stream_failure` are what a user function answers; `request` and its actions are what a client asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from tck import eventsourced_pb2 as model
from tck import valueentity_pb2 as value_model

from stateside.proto import cloudstate, eventsourced, pack, valueentity

PACKAGE = "cloudstate.tck.model"
MODEL = f"{PACKAGE}.EventSourcedTckModel"
TWO = f"{PACKAGE}.EventSourcedTwo"
CONFIGURED = f"{PACKAGE}.EventSourcedConfigured"
VALUE_PACKAGE = f"{PACKAGE}.valueentity"
VALUE_MODEL = f"{VALUE_PACKAGE}.ValueEntityTckModel"
VALUE_TWO = f"{VALUE_PACKAGE}.ValueEntityTwo"
VALUE_CONFIGURED = f"{VALUE_PACKAGE}.ValueEntityConfigured"
CRDT_PACKAGE = f"{PACKAGE}.crdt"
CRDT_MODEL = f"{CRDT_PACKAGE}.CrdtTckModel"
CRDT_TWO = f"{CRDT_PACKAGE}.CrdtTwo"
CRDT_CONFIGURED = f"{CRDT_PACKAGE}.CrdtConfigured"
VALUE_SERVICES = (VALUE_MODEL, VALUE_TWO, VALUE_CONFIGURED)
PERSISTENCE_IDS = {
    MODEL: "event-sourced-tck-model",
    TWO: "event-sourced-tck-model-two",
    CONFIGURED: "event-sourced-configured",
    VALUE_MODEL: "value-entity-tck-model",
    VALUE_TWO: "value-entity-tck-model-two",
    VALUE_CONFIGURED: "value-entity-configured",
    CRDT_MODEL: "crdt-tck-model",
    CRDT_TWO: "crdt-tck-model-two",
    CRDT_CONFIGURED: "crdt-configured",
}
METHODS = {MODEL: "Process", TWO: "Call", CONFIGURED: "Call"}
METHODS |= {VALUE_MODEL: "Process", VALUE_TWO: "Call", VALUE_CONFIGURED: "Call"}
METHODS |= {CRDT_MODEL: "Process", CRDT_TWO: "Call", CRDT_CONFIGURED: "Call"}
CONFIGURED_TIMEOUT_MS = 100
EVENT_SOURCED = "cloudstate.eventsourced.EventSourced"
VALUE_ENTITY = "cloudstate.valueentity.ValueEntity"
CRDT = "cloudstate.crdt.Crdt"


# --- what a client asks ----------------------------------------------------------------------------------------------


def emit(value: str) -> model.RequestAction:
    return model.RequestAction(emit=model.Emit(value=value))


def forward_to(key: str) -> model.RequestAction:
    return model.RequestAction(forward=model.Forward(id=key))


def effect_on(key: str, synchronous: bool = False) -> model.RequestAction:
    return model.RequestAction(effect=model.Effect(id=key, synchronous=synchronous))


def fail(text: str) -> model.RequestAction:
    return model.RequestAction(fail=model.Fail(message=text))


def request(key: str, *actions: Any, service: str = MODEL) -> Any:
    """Of either model: both have the same shape, with actions of their own."""
    kind = value_model.Request if service in VALUE_SERVICES else model.Request
    return kind(id=key, actions=actions)


# --- what the proxy sends --------------------------------------------------------------------------------------------


def persisted(value: str) -> Any:
    """An event or a snapshot of the model."""
    return pack(model.Persisted(value=value))


def init(key: str, service: str = MODEL, snapshot: str | None = None, sequence: int = 0) -> Any:
    if service in VALUE_SERVICES:
        return value_init(key, service)
    message = eventsourced.EventSourcedInit(service_name=service, entity_id=key)
    if snapshot is not None:
        message.snapshot.snapshot_sequence = sequence
        message.snapshot.snapshot.CopyFrom(persisted(snapshot))
    return eventsourced.EventSourcedStreamIn(init=message)


def value_init(key: str, service: str = VALUE_MODEL, value: str | None = None) -> Any:
    """`state` is always there, its value only when one is stored (core 5.1)."""
    state = valueentity.ValueEntityInitState()
    if value is not None:
        state.value.CopyFrom(pack(value_model.Persisted(value=value)))
    return valueentity.ValueEntityStreamIn(
        init=valueentity.ValueEntityInit(service_name=service, entity_id=key, state=state)
    )


def event(sequence: int, value: str) -> Any:
    return eventsourced.EventSourcedStreamIn(
        event=eventsourced.EventSourcedEvent(sequence=sequence, payload=persisted(value))
    )


def command(command_id: int, key: str, *actions: Any, service: str = MODEL) -> Any:
    """Without metadata, not streamed: the TCK compares for equality (core 16 #1)."""
    payload = pack(request(key, *actions, service=service))
    sent = cloudstate.Command(entity_id=key, id=command_id, name=METHODS[service], payload=payload)
    if service in VALUE_SERVICES:
        return valueentity.ValueEntityStreamIn(command=sent)
    return eventsourced.EventSourcedStreamIn(command=sent)


# --- what the user function answers ----------------------------------------------------------------------------------


def response(text: str) -> Any:
    """Payload of an answer: an Any around the model's Response."""
    return pack(model.Response(message=text))


def reply(command_id: int, text: str = "", **more: Any) -> Any:
    """A reply that answers the client with `text`; events, snapshot, effects and reply metadata as in `_reply`."""
    answer = cloudstate.Reply(payload=response(text), metadata=more.pop("metadata", None))
    return _reply(command_id, cloudstate.ClientAction(reply=answer), **more)


def forward(command_id: int, key: str, service: str = TWO, method: str = "Call", **more: Any) -> Any:
    payload = pack(request(key, service=service))
    target = cloudstate.Forward(service_name=service, command_name=method, payload=payload)
    return _reply(command_id, cloudstate.ClientAction(forward=target), **more)


def failed(command_id: int, description: str, restart: bool = False, **more: Any) -> Any:
    """A reply whose client action is a failure."""
    failure = cloudstate.Failure(command_id=command_id, description=description, restart=restart)
    return _reply(command_id, cloudstate.ClientAction(failure=failure), **more)


def no_action(command_id: int, **more: Any) -> Any:
    return _reply(command_id, None, **more)


def stream_failure(command_id: int, description: str = "broken") -> Any:
    return eventsourced.EventSourcedStreamOut(
        failure=cloudstate.Failure(command_id=command_id, description=description)
    )


def side_effect(key: str, service: str = TWO, method: str = "Call", synchronous: bool = False) -> Any:
    payload = pack(request(key, service=service))
    return cloudstate.SideEffect(service_name=service, command_name=method, payload=payload, synchronous=synchronous)


def _reply(
    command_id: int,
    action: Any,
    *,
    events: Iterable[str] = (),
    snapshot: str | None = None,
    effects: Iterable[Any] = (),
) -> Any:
    answer = eventsourced.EventSourcedReply(command_id=command_id, client_action=action)
    answer.events.extend(map(persisted, events))
    answer.side_effects.extend(effects)
    if snapshot is not None:
        answer.snapshot.CopyFrom(persisted(snapshot))
    return eventsourced.EventSourcedStreamOut(reply=answer)


# --- discovery -------------------------------------------------------------------------------------------------------


def entity(service: str, persistence_id: str | None = None, timeout_ms: int | None = None) -> Any:
    offered = cloudstate.Entity(
        entity_type=VALUE_ENTITY if service in VALUE_SERVICES else EVENT_SOURCED,
        service_name=service,
        persistence_id=persistence_id or PERSISTENCE_IDS[service],
    )
    if timeout_ms is not None:
        offered.passivation_strategy.timeout.timeout = timeout_ms
    return offered


def model_spec() -> Any:
    """The EntitySpec of the TCK's event sourced model."""
    return cloudstate.EntitySpec(
        proto=descriptor_set(model.DESCRIPTOR),
        entities=[entity(MODEL), entity(TWO), entity(CONFIGURED, timeout_ms=CONFIGURED_TIMEOUT_MS)],
        service_info=cloudstate.ServiceInfo(
            service_name="model", support_library_name="scripted", protocol_major_version=0, protocol_minor_version=2
        ),
    )


def descriptor_set(*roots: FileDescriptor) -> bytes:
    """Files and all they import, as a serialized FileDescriptorSet."""
    files = {found.name: found for root in roots for found in _with_imports(root)}
    found = FileDescriptorSet(file=[_as_proto(each) for each in files.values()])
    return found.SerializeToString()


def _with_imports(file: FileDescriptor) -> Iterator[FileDescriptor]:
    for imported in file.dependencies:
        yield from _with_imports(imported)
    yield file


def _as_proto(file: FileDescriptor) -> FileDescriptorProto:
    return FileDescriptorProto.FromString(file.serialized_pb)
