"""Test kit: an event sourced entity in a test, without proxy and without network.

The kit plays the proxy: it keeps a journal in memory, opens streams, replays them and restarts entities as the
protocol says. Everything passes through the same encoding and the same state machine as in production, so a value
that cannot be stored fails the test.

    kit = TestKit(ShoppingCart)
    result = kit.entity("alice").add_item(AddLineItem(user_id="alice", product_id="p1", name="Tea", quantity=2))
    assert result.events == [ItemAdded(...)]
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NoReturn

from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from stateside._speedups import wire
from stateside.proto import cloudstate

from .answers import Effect
from .calls import SERVICE_ATTRIBUTE, ServiceCall, find_method
from .errors import EntityFailure
from .event_sourced_model import EventSourcedType
from .event_sourced_stream import EventSourcedHandler, EventSourcedStream
from .hooks import Hooks
from .metadata import Metadata

_COMMAND_MEMBER = 3
_FRAME_HEADER_BYTES = 5


@dataclass(frozen=True, slots=True)
class Result:
    """What one command led to. Exactly one of `reply`, `forward` and `failure` is set."""

    reply: Any = None
    """The reply message."""
    forward: ServiceCall | None = None
    failure: str | None = None
    """The text given to `fail`."""
    restarted: bool = False
    """The command failed after emitting events, so the entity was started again from its journal."""
    events: list[Any] = field(default_factory=list)
    """Events written to the journal, decoded from what was written."""
    effects: list[Effect] = field(default_factory=list)
    snapshot: Any = None
    """The snapshot taken with this command, or None."""


@dataclass(slots=True)
class Journal:
    """What is stored of one entity instance: serialized Any each."""

    events: list[bytes] = field(default_factory=list)
    snapshot: bytes | None = None
    snapshot_sequence: int = 0


class TestKit:
    """Runs one event sourced entity class in process.

    entity: the class. targets: further entity classes or service descriptors that it may forward to; they are not run.
    Raises RegistrationError as `Stateside` does.
    """

    __test__ = False  # pytest collects classes called Test*

    def __init__(self, entity: type, *, targets: Iterable[type | ServiceDescriptor] = ()) -> None:
        self.type = EventSourcedType(entity)
        self.targets: dict[str, Any] = {}
        for target in [entity, *targets]:
            descriptor: Any = getattr(target, SERVICE_ATTRIBUTE, target)
            self.targets[descriptor.full_name] = descriptor
        self._hooks = _KitHooks()
        self._owner = EventSourcedHandler(self.targets.keys(), self._hooks)
        self._owner.types[self.type.service_name] = self.type
        self._entities: dict[str, TestEntity] = {}

    def entity(self, entity_id: str) -> TestEntity:
        """The entity instance of this key; the same object every time."""
        if entity_id not in self._entities:
            self._entities[entity_id] = TestEntity(self, entity_id)
        return self._entities[entity_id]

    def restart(self) -> None:
        """Passivate all instances. Each comes back from its snapshot and journal with its next command."""
        for entity in self._entities.values():
            entity.passivate()

    def open(self, call: _KitCall) -> EventSourcedStream:
        """A stream as the transport would open it."""
        stream = call.context = EventSourcedStream(call, self._owner)
        return stream

    def take_error(self) -> Exception | None:
        """The exception behind the last failure of a stream."""
        error, self._hooks.error = self._hooks.error, None
        return error


class TestEntity:
    """One entity instance in the kit. Commands are methods, named as the rpc or in snake_case:
    `entity.add_item(message)`.
    """

    __test__ = False

    def __init__(self, kit: TestKit, entity_id: str) -> None:
        self.entity_id = entity_id
        self.journal = Journal()
        self._kit = kit
        self._call = _KitCall()
        self._stream: EventSourcedStream | None = None
        self._last_command_id = 0

    def __getattr__(self, name: str) -> Callable[[Message], Result]:
        if name.startswith("_"):
            raise AttributeError(name)
        method = self._method(name)
        return lambda message: self.call(method.name, message)

    @property
    def state(self) -> Any:
        """The instance of the entity class, brought back from the journal if it is not in memory. For looking at."""
        return self._open().instance

    @property
    def events(self) -> list[Any]:
        """All events of the journal, decoded."""
        return [self._kit.type.codec.decode(event) for event in self.journal.events]

    def call(self, method: str, message: Message) -> Result:
        """Send a command and return what it led to. An async handler is run to its end, so no event loop may be
        running.

        Raises the exception of the handler, or EntityFailure, where the entity's stream would have failed.
        """
        handler = self._kit.type.commands.get(self._method(method).name)
        if handler is not None and handler.is_async:
            if asyncio._get_running_loop() is not None:
                raise RuntimeError(f"{method} has an async handler and a loop is running: await acall(...) instead")
            return asyncio.run(self.acall(method, message))
        self._send(method, message)
        return self._result()

    async def acall(self, method: str, message: Message) -> Result:
        """`call` for tests that run in an event loop."""
        self._send(method, message)
        await self._call.answered()
        return self._result()

    def passivate(self) -> None:
        """Drop the instance from memory, as a proxy does after a while without commands."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.half_closed()

    # --- the proxy's part ------------------------------------------------------------------------------------------

    def _method(self, name: str) -> Any:
        service = self._kit.type.declaration.service
        method = find_method({method.name: method for method in service.methods}, name)
        if method is None:
            raise AttributeError(f"service {service.full_name} has no rpc {name!r}")
        return method

    def _send(self, name: str, message: Message) -> None:
        method = self._method(name)
        if message.DESCRIPTOR.full_name != method.input_type.full_name:
            raise TypeError(
                f"{method.full_name} takes {method.input_type.full_name}, not {message.DESCRIPTOR.full_name}"
            )
        stream = self._open()
        self._last_command_id += 1
        writer = wire.CommandWriter(_COMMAND_MEMBER, method.name, f"type.googleapis.com/{message.DESCRIPTOR.full_name}")
        stream.receive(writer.write(self.entity_id.encode(), self._last_command_id, message.SerializeToString()))

    def _open(self) -> EventSourcedStream:
        """The stream of the instance; a new one is given the snapshot and the events behind it."""
        if self._stream is None:
            self._call, self._last_command_id = _KitCall(), 0
            stream, journal = self._kit.open(self._call), self.journal
            stream.receive(
                wire.write_init(
                    self._kit.type.service_name, self.entity_id, journal.snapshot_sequence, journal.snapshot
                )
            )
            for sequence, stored in enumerate(
                journal.events[journal.snapshot_sequence :], journal.snapshot_sequence + 1
            ):
                stream.receive(wire.frame_events(sequence, [stored])[_FRAME_HEADER_BYTES:])
            if self._call.sent:
                self._raise(wire.scan_event_sourced_out(self._call.sent.popleft()))
            self._stream = stream
        return self._stream

    def _result(self) -> Result:
        out = wire.scan_event_sourced_out(self._call.sent.popleft())
        if out.kind == wire.KIND_FAILURE:
            self._stream = None
            self._raise(out)
        if out.action == wire.ACTION_FAILURE:
            if out.restart:
                self.passivate()
            return Result(failure=out.description, restarted=out.restart)
        self._store(out)
        decode = self._kit.type.codec.decode
        return Result(
            reply=self._reply(out) if out.action == wire.ACTION_REPLY else None,
            forward=self._forward(cloudstate.Forward.FromString(out.forward)) if out.forward is not None else None,
            events=[decode(event) for event in out.events],
            effects=[self._effect(effect) for effect in out.side_effects],
            snapshot=None if out.snapshot is None else decode(out.snapshot),
        )

    def _store(self, out: wire.StreamOut) -> None:
        self.journal.events.extend(out.events)
        if out.snapshot is not None:
            self.journal.snapshot, self.journal.snapshot_sequence = out.snapshot, len(self.journal.events)

    def _raise(self, out: wire.StreamOut) -> NoReturn:
        raise self._kit.take_error() or EntityFailure(out.description, out.command_id)

    def _reply(self, out: wire.StreamOut) -> Any:
        name = out.type_url.partition("/")[2]
        for handler in self._kit.type.commands.values():
            if handler.reply_class.DESCRIPTOR.full_name == name:
                return handler.reply_class.FromString(out.payload)
        raise EntityFailure(f"reply of type {out.type_url}, which no rpc of the service returns", out.command_id)

    def _effect(self, data: bytes) -> Effect:
        effect = cloudstate.SideEffect.FromString(data)
        return Effect(self._forward(effect), effect.synchronous)

    def _forward(self, call: Any) -> ServiceCall:
        """A Forward or SideEffect as the call it was made from."""
        method = self._kit.targets[call.service_name].methods_by_name[call.command_name]
        message = GetMessageClass(method.input_type).FromString(call.payload.value)
        return ServiceCall(
            call.service_name, call.command_name, message, Metadata.parse(call.metadata.SerializeToString())
        )


class _KitCall:
    """The transport's side of a stream: keeps what is sent."""

    def __init__(self) -> None:
        self.context: Any = None
        self.sent: deque[bytes] = deque()
        self._waiter: asyncio.Future[None] | None = None

    def send(self, message: bytes) -> bool:
        self.sent.append(message)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        return True

    async def answered(self) -> None:
        """Wait until something was sent."""
        if not self.sent:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    def finish(self) -> None:
        """The stream ended; what it sent can still be read."""

    def pause(self) -> None:
        """Nothing is held back here."""

    def resume(self) -> None:
        """Nothing was held back."""


class _KitHooks(Hooks):
    """Keeps the exception of a failed stream, so that the test sees it where it happened."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    def stream_failed(self, service: str, entity_id: str, command: str, description: str, error: Exception) -> None:
        self.error = error
