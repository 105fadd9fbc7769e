"""Test kit: an entity or an action in a test, without proxy and without network.

The kit plays the proxy: it keeps what entities store in memory, opens streams, replays them and restarts entities as
the protocol says. Everything passes through the same encoding and the same state machines as in production, so a value
that cannot be stored fails the test.

    kit = TestKit(ShoppingCart)
    result = kit.entity("alice").add_item(AddLineItem(user_id="alice", product_id="p1", name="Tea", quantity=2))
    assert result.events == [ItemAdded(...)]
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from stateside._speedups import wire
from stateside.proto import cloudstate

from .action_calls import Actions
from .action_model import ActionType, Shape
from .answers import Effect
from .calls import SERVICE_ATTRIBUTE, ServiceCall, find_method
from .crdt_entity import WriteConsistency
from .crdt_model import CrdtType
from .crdt_stream import CrdtHandler
from .entity_stream import EntityHandler, EntityStream
from .errors import EntityFailure
from .event_sourced_model import EventSourcedType
from .event_sourced_stream import EventSourcedHandler
from .metadata import EMPTY_METADATA, Metadata
from .registration import read
from .testkit_calls import KitCall, KitHooks
from .value_entity_model import ValueEntityType
from .value_entity_stream import ValueEntityHandler

if TYPE_CHECKING:
    from .testkit_crdt import TestCrdt

_FRAME_HEADER_BYTES = 5
_COMMAND_MEMBER = {EventSourcedType: 3, ValueEntityType: 2, CrdtType: 4}
_HANDLERS = {EventSourcedType: EventSourcedHandler, ValueEntityType: ValueEntityHandler, CrdtType: CrdtHandler}


@dataclass(frozen=True, slots=True)
class Result:
    """What one command led to. Exactly one of `reply`, `forward` and `failure` is set, or none where an action does
    not reply.
    """

    reply: Any = None
    """The reply message."""
    forward: ServiceCall | None = None
    failure: str | None = None
    """The text given to `fail`; of an action also that of an exception."""
    restarted: bool = False
    """The command failed after emitting events, so the entity was started again from its journal."""
    events: list[Any] = field(default_factory=list)
    """Events written to the journal, decoded from what was written."""
    effects: list[Effect] = field(default_factory=list)
    snapshot: Any = None
    """The snapshot taken with this command, or None."""
    updated: Any = None
    """The value that a value entity stored with this command, decoded from what was stored, or None."""
    deleted: bool = False
    """The command deleted the value, or the CRDT entity."""
    delta: Any = None
    """What changed in a CRDT, the cloudstate.crdt.CrdtDelta as it was sent, or None."""
    write_consistency: WriteConsistency = WriteConsistency.LOCAL
    """How many replicas were to have the changes first."""
    ended: bool = False
    """Of a message of a stream: it was the last."""
    metadata: Metadata = EMPTY_METADATA
    """Metadata of the reply."""


@dataclass(slots=True)
class Journal:
    """What is stored of one entity instance: serialized Any each."""

    events: list[bytes] = field(default_factory=list)
    snapshot: bytes | None = None
    snapshot_sequence: int = 0
    value: bytes | None = None
    """Of a value entity."""


class TestKit:
    """Runs one entity class or action in process.

    entity: the class; of an action also an instance. targets: further entity classes or service descriptors that it may
    forward to; they are not run. Raises RegistrationError as `Stateside` does.
    """

    __test__ = False  # pytest collects classes called Test*

    def __init__(self, entity: Any, *, targets: Iterable[type | ServiceDescriptor] = ()) -> None:
        self.type = read(entity)
        self.targets: dict[str, Any] = {}
        for target in [entity, *targets]:
            descriptor: Any = getattr(target, SERVICE_ATTRIBUTE, target)
            self.targets[descriptor.full_name] = descriptor
        self._hooks = KitHooks()
        self._entities: dict[str, TestEntity] = {}

    def entity(self, entity_id: str) -> TestEntity:
        """The entity instance of this key; the same object every time."""
        if isinstance(self.type, ActionType):
            raise TypeError(f"{self.type.label} is an action, without entities: use kit.action")
        if entity_id not in self._entities:
            self._entities[entity_id] = self._new_entity(self.type, entity_id)
        return self._entities[entity_id]

    def crdt(self, entity_id: str) -> TestCrdt:
        """`entity`, typed as a CRDT entity. Raises TypeError if the class is of another kind."""
        entity = self.entity(entity_id)
        if not isinstance(entity, _test_crdt()):
            raise TypeError(f"{self.type.label} is no CRDT entity: use kit.entity(key)")
        return entity

    def _new_entity(self, entity: EventSourcedType | ValueEntityType | CrdtType, entity_id: str) -> TestEntity:
        kind = _test_crdt() if isinstance(entity, CrdtType) else TestEntity
        return kind(self, entity, entity_id)

    @property
    def action(self) -> TestAction:
        """The action. Its unary commands are methods of this object."""
        if not isinstance(self.type, ActionType):
            raise TypeError(f"{self.type.label} is no action: use kit.entity(key)")
        return TestAction(self, self.type)

    def restart(self) -> None:
        """Passivate all instances. Each comes back from what is stored with its next command."""
        for entity in self._entities.values():
            entity.passivate()

    def open(self, call: KitCall) -> EntityStream:
        """A stream as the transport would open it."""
        owner = self._owner()
        stream: EntityStream = owner.stream_class(call, owner)
        call.context = stream
        return stream

    def actions(self) -> Actions:
        """What serves the action."""
        actions = Actions(self.targets.keys(), self._hooks)
        assert isinstance(self.type, ActionType)
        actions.types[self.type.service_name] = self.type
        return actions

    def _owner(self) -> EntityHandler:
        assert not isinstance(self.type, ActionType)
        owner = _HANDLERS[type(self.type)](self.targets.keys(), self._hooks)
        owner.types[self.type.service_name] = self.type
        return owner

    def take_error(self) -> Exception | None:
        """The exception behind the last failure of a stream."""
        error, self._hooks.error = self._hooks.error, None
        return error

    # --- reading what was answered ------------------------------------------------------------------------------------

    def method(self, name: str, message: Message | None = None) -> Any:
        """The rpc of this name. Raises AttributeError if there is none, TypeError if it does not take `message`."""
        service = self.type.declaration.service
        method = find_method({method.name: method for method in service.methods}, name)
        if method is None:
            raise AttributeError(f"service {service.full_name} has no rpc {name!r}")
        if message is not None and message.DESCRIPTOR.full_name != method.input_type.full_name:
            raise TypeError(
                f"{method.full_name} takes {method.input_type.full_name}, not {message.DESCRIPTOR.full_name}"
            )
        return method

    def reply(self, method: Any, type_url: str, payload: bytes) -> Any:
        """The reply message of an rpc."""
        if type_url.partition("/")[2] != method.output_type.full_name:
            raise EntityFailure(f"reply of type {type_url}, which {method.full_name} does not return")
        return GetMessageClass(method.output_type).FromString(payload)

    def effect(self, data: bytes) -> Effect:
        """A side effect as it was asked for."""
        effect = cloudstate.SideEffect.FromString(data)
        return Effect(self._service_call(effect), effect.synchronous)

    def forward(self, data: bytes | None) -> ServiceCall | None:
        """A forward as the call it was made from."""
        return None if data is None else self._service_call(cloudstate.Forward.FromString(data))

    def _service_call(self, call: Any) -> ServiceCall:
        method = self.targets[call.service_name].methods_by_name[call.command_name]
        message = GetMessageClass(method.input_type).FromString(call.payload.value)
        return ServiceCall(
            call.service_name, call.command_name, message, Metadata.parse(call.metadata.SerializeToString())
        )


class TestAction:
    """An action in the kit. Unary commands are methods, named as the rpc or in snake_case: `action.score(message)`."""

    __test__ = False

    def __init__(self, kit: TestKit, action: ActionType) -> None:
        self._kit = kit
        self._type = action

    def __getattr__(self, name: str) -> Callable[..., Result]:
        if name.startswith("_"):
            raise AttributeError(name)
        method = self._kit.method(name)
        return lambda message, metadata=EMPTY_METADATA: self.call(method.name, message, metadata)

    def call(self, method: str, message: Message, metadata: Metadata = EMPTY_METADATA) -> Result:
        """Send a command and return what it led to. An async handler is run to its end, so no event loop may be
        running.

        Raises the exception of the handler. TypeError: the rpc is streamed.
        """
        handler = self._type.commands.get(self._kit.method(method).name)
        if handler is None or not handler.is_async:
            return self._result(self._send(method, message, metadata), method)
        if asyncio._get_running_loop() is not None:
            raise RuntimeError(f"{method} has an async handler and a loop is running: await acall(...) instead")
        return asyncio.run(self.acall(method, message, metadata))

    async def acall(self, method: str, message: Message, metadata: Metadata = EMPTY_METADATA) -> Result:
        """`call` for tests that run in an event loop."""
        call = self._send(method, message, metadata)
        await call.answered()
        return self._result(call, method)

    def _send(self, name: str, message: Message, metadata: Metadata) -> KitCall:
        method = self._kit.method(name, message)
        if method.client_streaming or method.server_streaming:
            raise TypeError(f"{method.full_name} is streamed; the kit calls unary methods, iterate the handler itself")
        writer = wire.ActionWriter(
            self._type.service_name, method.name, f"type.googleapis.com/{message.DESCRIPTOR.full_name}"
        )
        call = KitCall()
        command = writer.command(message.SerializeToString(), metadata.serialize())
        self._kit.actions().handler(Shape.UNARY).on_request(call, command)  # type: ignore[arg-type]
        return call

    def _result(self, call: KitCall, method: str) -> Result:
        error = self._kit.take_error()
        if error is not None:
            raise error
        out = wire.scan_action_out(call.sent.popleft())
        replied = out.action == wire.ACTION_REPLY
        return Result(
            reply=self._kit.reply(self._kit.method(method), out.type_url, out.payload) if replied else None,
            forward=self._kit.forward(out.forward),
            failure=out.description if out.action == wire.ACTION_FAILURE else None,
            effects=[self._kit.effect(effect) for effect in out.side_effects],
            metadata=Metadata.parse(out.metadata),
        )


class TestEntity:
    """One entity instance in the kit. Commands are methods, named as the rpc or in snake_case:
    `entity.add_item(message)`.
    """

    __test__ = False

    def __init__(self, kit: TestKit, entity: EventSourcedType | ValueEntityType | CrdtType, entity_id: str) -> None:
        self.entity_id = entity_id
        self.journal = Journal()
        self._kit = kit
        self._type = entity
        self._call = KitCall()
        self._stream: EntityStream | None = None
        self._last_command_id = 0

    def __getattr__(self, name: str) -> Callable[[Message], Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        method = self._kit.method(name)
        return lambda message: self.call(method.name, message)

    @property
    def state(self) -> Any:
        """For looking at: of an event sourced entity the instance of its class, brought back from the journal if it is
        not in memory; of a value entity the stored value, None if there is none.
        """
        if isinstance(self._type, EventSourcedType):
            return self._open().instance
        return None if self.journal.value is None else self._type.codec.decode(self.journal.value)

    @property
    def events(self) -> list[Any]:
        """All events of the journal, decoded."""
        return [self._type.codec.decode(event) for event in self.journal.events]

    def call(self, method: str, message: Message) -> Result:
        """Send a command and return what it led to. An async handler is run to its end, so no event loop may be
        running.

        Raises the exception of the handler, or EntityFailure, where the entity's stream would have failed.
        """
        handler = self._type.commands.get(self._kit.method(method).name)
        if handler is not None and handler.is_async:
            if asyncio._get_running_loop() is not None:
                raise RuntimeError(f"{method} has an async handler and a loop is running: await acall(...) instead")
            return asyncio.run(self.acall(method, message))
        self._send(method, message)
        return self._result(method)

    async def acall(self, method: str, message: Message) -> Result:
        """`call` for tests that run in an event loop."""
        self._send(method, message)
        await self._call.answered()
        return self._result(method)

    def passivate(self) -> None:
        """Drop the instance from memory, as a proxy does after a while without commands."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.half_closed()

    # --- the proxy's part ------------------------------------------------------------------------------------------

    def _send(self, name: str, message: Message) -> None:
        method = self._kit.method(name, message)
        stream = self._open()
        self._last_command_id += 1
        stream.receive(self._command(method, message))

    def _command(self, method: Any, message: Message, streamed: bool = False) -> bytes:
        """The message that is the last command."""
        member = _COMMAND_MEMBER[type(self._type)]
        writer = wire.CommandWriter(member, method.name, f"type.googleapis.com/{message.DESCRIPTOR.full_name}")
        key, payload = self.entity_id.encode(), message.SerializeToString()
        return writer.write(key, self._last_command_id, payload, streamed=streamed)

    def _open(self) -> EntityStream:
        """The stream of the instance; a new one is given what is stored."""
        if self._stream is None:
            self._call, self._last_command_id = KitCall(), 0
            stream = self._kit.open(self._call)
            for message in self._stored():
                stream.receive(message)
            if self._call.sent:
                self._raise(self._scan(self._call.sent.popleft()))
            self._stream = stream
        return self._stream

    def _stored(self) -> Iterable[bytes]:
        """The messages that bring an instance back."""
        name, journal = self._type.service_name, self.journal
        if isinstance(self._type, ValueEntityType):
            yield wire.write_value_init(name, self.entity_id, journal.value)
            return
        first = journal.snapshot_sequence
        yield wire.write_init(name, self.entity_id, first, journal.snapshot)
        for sequence, stored in enumerate(journal.events[first:], first + 1):
            yield wire.frame_events(sequence, [stored])[_FRAME_HEADER_BYTES:]

    def _scan(self, message: bytes) -> Any:
        if isinstance(self._type, ValueEntityType):
            return wire.scan_value_out(message)
        return wire.scan_event_sourced_out(message)

    def _result(self, method: str) -> Result:
        out = self._scan(self._call.sent.popleft())
        if out.kind == wire.KIND_FAILURE:
            self._stream = None
            self._raise(out)
        if out.action == wire.ACTION_FAILURE:
            if out.restart:
                self.passivate()
            return Result(failure=out.description, restarted=out.restart)
        replied = out.action == wire.ACTION_REPLY
        return Result(
            reply=self._kit.reply(self._kit.method(method), out.type_url, out.payload) if replied else None,
            forward=self._kit.forward(out.forward),
            effects=[self._kit.effect(effect) for effect in out.side_effects],
            metadata=Metadata.parse(out.metadata),
            **(self._keep_value(out) if isinstance(self._type, ValueEntityType) else self._keep_events(out)),
        )

    def _keep_events(self, out: wire.StreamOut) -> dict[str, Any]:
        decode = self._type.codec.decode
        self.journal.events.extend(out.events)
        if out.snapshot is not None:
            self.journal.snapshot, self.journal.snapshot_sequence = out.snapshot, len(self.journal.events)
        return {
            "events": [decode(event) for event in out.events],
            "snapshot": None if out.snapshot is None else decode(out.snapshot),
        }

    def _keep_value(self, out: wire.ValueOut) -> dict[str, Any]:
        if out.state_action == wire.STATE_NONE:
            return {}
        self.journal.value = out.value
        if out.value is None:
            return {"deleted": True}
        return {"updated": self._type.codec.decode(out.value)}

    def _raise(self, out: Any) -> NoReturn:
        raise self._kit.take_error() or EntityFailure(out.description, out.command_id)


def _test_crdt() -> type[TestCrdt]:
    """That module builds on this one."""
    from .testkit_crdt import TestCrdt

    return TestCrdt
