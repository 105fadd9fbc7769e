"""One entity instance on its stream: messages of the proxy in, handler calls, replies out.

Everything happens in callbacks of the transport. A sync command handler is answered before its callback returns; an
async one runs as a task, and what arrives for the same entity meanwhile waits.

    state    | init        | event      | command    | empty      | half-close
    ---------+-------------+------------+------------+------------+---------------
    OPENING  | -> READY    | failure    | failure    | failure    | -> GONE
    READY    | failure     | READY      | READY/BUSY | failure    | -> GONE
    BUSY     | waits       | waits      | waits      | waits      | after the reply
    SPOILED  | failure     | failure    | failure    | failure    | -> GONE
    GONE     | ignored     | ignored    | ignored    | ignored    | ignored

A failure is a stream-level `Failure`, after which the stream is finished: -> GONE. SPOILED follows a failed command
that had
emitted events: the proxy was asked to start the entity again, the state in memory is not the journal's any more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection
from enum import IntEnum
from typing import Any, NoReturn, Protocol

from google.protobuf.any_pb2 import Any as PackedAny

from stateside._speedups.h2 import Handler
from stateside._speedups.wire import (
    StreamIn,
    WireError,
    scan_event_sourced_in,
    write_action_failure,
    write_forward,
    write_reply,
    write_stream_failure,
)
from stateside.proto.status import Status

from .context import EntityContext
from .errors import ContextError, EntityFailure, Fail, SupportError
from .event_sourced import EventSourcedContext
from .event_sourced_model import CommandHandler, EventSourcedType
from .hooks import Hooks


class State(IntEnum):
    OPENING = 0
    READY = 1
    BUSY = 2
    SPOILED = 3
    GONE = 4


class StreamCall(Protocol):
    """What a stream needs of a transport's call; the test kit brings its own."""

    context: Any

    def send(self, message: bytes) -> bool: ...
    def finish(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...


class EventSourcedStream:
    """State machine of one stream of cloudstate.eventsourced.EventSourced/handle."""

    __slots__ = (
        "_blocked",
        "_call",
        "_half_closed",
        "_hooks",
        "_paused",
        "_served",
        "_streams",
        "_task",
        "_types",
        "_waiting",
        "entity",
        "entity_id",
        "instance",
        "sequence",
        "state",
    )

    def __init__(self, call: StreamCall, owner: EventSourcedHandler) -> None:
        self.state = State.OPENING
        self.entity: EventSourcedType
        self.entity_id = ""
        self.instance: Any = None
        self.sequence = 0
        self._call = call
        self._types = owner.types
        self._served = owner.served
        self._hooks = owner.hooks
        self._streams = owner.streams
        self._streams.add(self)
        self._task: asyncio.Task[None] | None = None
        self._waiting: deque[bytes] = deque()
        self._half_closed = False
        self._blocked = False
        self._paused = False

    # --- callbacks of the transport ------------------------------------------------------------------------------

    def receive(self, message: bytes) -> None:
        """One EventSourcedStreamIn."""
        if self.state is State.BUSY or self._blocked:
            self._waiting.append(message)
            self._pause()
        else:
            self._handle(message)

    def half_closed(self) -> None:
        """The proxy passivates the entity: finish once nothing is under way."""
        self._half_closed = True
        self._proceed()

    def drained(self) -> None:
        """The proxy reads again."""
        self._blocked = False
        self._proceed()

    def cancelled(self) -> None:
        """The stream is lost."""
        self._leave()

    def stop(self) -> None:
        """The user function stops: finish after the commands that already arrived."""
        self.half_closed()

    # --- order: one message at a time ----------------------------------------------------------------------------

    def _proceed(self) -> None:
        while self._waiting and self.state is not State.BUSY and not self._blocked:
            self._handle(self._waiting.popleft())
        if self._waiting or self.state in (State.BUSY, State.GONE):
            return
        if self._half_closed:
            self._finish()
        elif self._paused and not self._blocked:
            self._paused = False
            self._call.resume()

    def _pause(self) -> None:
        if not self._paused:
            self._paused = True
            self._call.pause()

    def _send(self, message: bytes) -> None:
        if not self._call.send(message):
            self._blocked = True
            self._pause()

    def _handle(self, message: bytes) -> None:
        if self.state is State.GONE:
            return
        try:
            incoming = scan_event_sourced_in(message)
            _TABLE[self.state][incoming.kind](self, incoming)
        except WireError as error:
            self._fail(EntityFailure(f"Protocol error: {error}"), error)
        except EntityFailure as failure:
            self._fail(failure, failure)
        except Exception as error:
            self._fail(unexpected(error), error)

    # --- one method per state and message ------------------------------------------------------------------------

    def _opening__init(self, init: StreamIn) -> None:
        entity = self._types.get(init.service_name)
        if entity is None:
            raise EntityFailure(f"Protocol error: Service not found: {init.service_name}")
        self.entity = entity
        self.entity_id = init.entity_id
        self.instance = entity.create(EntityContext(init.entity_id))
        if init.snapshot is not None:
            self._load_snapshot(init.snapshot_sequence, init.snapshot)
        self.state = State.READY

    def _opening__other(self, _: StreamIn) -> NoReturn:
        raise EntityFailure("Protocol error: Expected Init message")

    def _ready__init(self, _: StreamIn) -> NoReturn:
        raise EntityFailure("Protocol error: Entity already inited")

    def _ready__none(self, _: StreamIn) -> NoReturn:
        raise EntityFailure("Protocol error: Received empty/unknown message")

    def _ready__event(self, incoming: StreamIn) -> None:
        self._apply(self.entity.codec.decode(incoming.event or b""), incoming.sequence)

    def _ready__command(self, command: StreamIn) -> None:
        command_id = command.command_id
        if command.entity_id != self.entity_id:
            raise EntityFailure("Protocol error: Receiving entity is not the intended recipient of command", command_id)
        if command.payload is None:
            raise EntityFailure("Protocol error: No command payload", command_id)
        handler = self.entity.commands.get(command.name)
        if handler is None:
            raise EntityFailure(
                f"No command handler found for command [{command.name}] on {self.entity.label}", command_id
            )
        context = EventSourcedContext(self.entity_id, command_id, command.name, command.metadata, self._served, self)
        if handler.is_async:
            self.state = State.BUSY
            self._task = asyncio.get_running_loop().create_task(self._run(handler, context, command.payload))
            return
        result, error, before = None, None, self.sequence
        try:
            result = handler.invoke(self.instance, handler.parse(command.payload), context)
        except Exception as raised:
            error = raised
        self._conclude(handler, context, before, result, error)

    def _spoiled__any(self, incoming: StreamIn) -> NoReturn:
        raise EntityFailure("Protocol error: Expected a new stream after the requested restart", incoming.command_id)

    # --- the end of a command ------------------------------------------------------------------------------------

    async def _run(self, handler: CommandHandler, context: EventSourcedContext, payload: bytes) -> None:
        """Task of an async command handler."""
        result: Any = None
        error: Exception | None = None
        before = self.sequence
        try:
            result = await handler.invoke(self.instance, handler.parse(payload), context)
        except asyncio.CancelledError:
            if self.state is State.GONE:
                raise
            error = SupportError(f"command handler {handler.name} was cancelled")
        except Exception as raised:
            error = raised
        self._task = None
        if self.state is State.GONE:
            return
        self.state = State.READY
        self._conclude(handler, context, before, result, error)
        self._proceed()

    def _conclude(
        self, handler: CommandHandler, context: EventSourcedContext, before: int, result: Any, error: Exception | None
    ) -> None:
        """Answer a command whose handler returned `result` or raised `error`."""
        context._closed = True
        try:
            if isinstance(error, Fail) or (error is None and context._failure is not None):
                self._refuse(context, context._failure if context._failure is not None else str(error))
            elif error is not None:
                raise error
            elif context._broken is not None:
                raise context._broken
            else:
                self._send(self._answer(handler, context, before, result))
        except EntityFailure as failure:
            self._fail(EntityFailure(failure.description, context.command_id), failure, context.command_name)
        except Exception as raised:
            self._fail(unexpected(raised, context.command_id), raised, context.command_name)

    def _answer(self, handler: CommandHandler, context: EventSourcedContext, before: int, result: Any) -> bytes:
        snapshot = None
        if context._events and self.entity.snapshot_due(before, self.sequence):
            snapshot = self._take_snapshot()
        if context._forward is not None:
            if result is not None:
                raise ContextError("Both a reply and a forward were given by the command handler!")
            return write_forward(
                context.command_id,
                context._forward,
                events=context._events,
                snapshot=snapshot,
                side_effects=context._effects,
            )
        return write_reply(
            context.command_id,
            handler.reply_url,
            _reply_bytes(handler, result),
            events=context._events,
            snapshot=snapshot,
            side_effects=context._effects,
        )

    def _refuse(self, context: EventSourcedContext, description: str) -> None:
        """The handler failed the command. Emitted events already changed the instance, so it has to start again."""
        restart = bool(context._events) or context._broken is not None
        if restart:
            self.state = State.SPOILED
        self._hooks.command_failed(self.entity.service_name, self.entity_id, context.command_name, description)
        self._send(write_action_failure(context.command_id, description, restart))

    # --- state of the instance -----------------------------------------------------------------------------------

    def record(self, event: Any) -> bytes:
        """Serialize and apply an emitted event; the serialized Any."""
        encoded = self.entity.codec.encode(event)
        self._apply(self.entity.codec.decode(encoded) if type(event) is PackedAny else event, self.sequence + 1)
        return encoded

    def _apply(self, event: Any, sequence: int) -> None:
        handler = self.entity.event_handler(event)
        if handler is None:
            raise EntityFailure(f"No event handler found for event {_type_name(event)} on {self.entity.label}")
        handler(self.instance, event, EntityContext(self.entity_id, sequence))
        self.sequence = sequence

    def _load_snapshot(self, sequence: int, data: bytes) -> None:
        snapshot = self.entity.codec.decode(data)
        handler = self.entity.snapshot_handler(snapshot)
        if handler is None:
            raise EntityFailure(f"No snapshot handler found for snapshot {_type_name(snapshot)} on {self.entity.label}")
        handler(self.instance, snapshot, EntityContext(self.entity_id, sequence))
        self.sequence = sequence

    def _take_snapshot(self) -> bytes:
        assert self.entity.take_snapshot is not None
        context = EntityContext(self.entity_id, self.sequence)
        return self.entity.codec.encode(self.entity.take_snapshot(self.instance, None, context))

    # --- the end of the stream -----------------------------------------------------------------------------------

    def _fail(self, failure: EntityFailure, error: Exception, command: str = "") -> None:
        service = self.entity.service_name if self.instance is not None else "cloudstate.eventsourced.EventSourced"
        self._hooks.stream_failed(service, self.entity_id, command, failure.description, error)
        self._call.send(write_stream_failure(failure.command_id, failure.description))
        self._finish()

    def _finish(self) -> None:
        if self.state is not State.GONE:
            self._leave()
            self._call.finish()

    def _leave(self) -> None:
        self.state = State.GONE
        self._streams.discard(self)
        self._call.context = None
        self.instance = None
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()
            self._task = None


_TABLE: tuple[tuple[Callable[[EventSourcedStream, StreamIn], None], ...], ...] = (
    # IN_NONE, IN_INIT, IN_EVENT, IN_COMMAND
    (
        EventSourcedStream._opening__other,
        EventSourcedStream._opening__init,
        EventSourcedStream._opening__other,
        EventSourcedStream._opening__other,
    ),
    (
        EventSourcedStream._ready__none,
        EventSourcedStream._ready__init,
        EventSourcedStream._ready__event,
        EventSourcedStream._ready__command,
    ),
    (),
    (EventSourcedStream._spoiled__any,) * 4,
)
"""What happens to a message, by state (OPENING, READY, BUSY, SPOILED) and kind. In BUSY messages wait; in GONE they
are dropped before.
"""


def _reply_bytes(handler: CommandHandler, result: Any) -> bytes:
    if type(result) is handler.reply_class:
        return bytes(result.SerializeToString())
    if result is None and handler.empty_reply:
        return b""
    if result is None:
        raise SupportError("No reply or forward returned by command handler!")
    descriptor = getattr(result, "DESCRIPTOR", None)
    if descriptor is not None and descriptor.full_name == handler.reply_class.DESCRIPTOR.full_name:
        return bytes(result.SerializeToString())
    expected = handler.reply_class.DESCRIPTOR.full_name
    raise SupportError(f"command handler {handler.name} returned {_type_name(result)}, the reply is {expected}")


def _type_name(value: Any) -> str:
    descriptor = getattr(value, "DESCRIPTOR", None)
    return descriptor.full_name if descriptor is not None else type(value).__qualname__


def unexpected(error: Exception, command_id: int = 0) -> EntityFailure:
    """The failure the proxy is told for an exception of a handler."""
    return EntityFailure(f"Unexpected failure: {str(error) or type(error).__name__}", command_id)


class EventSourcedHandler(Handler):
    """Serves /cloudstate.eventsourced.EventSourced/handle: one stream per entity instance, of all event sourced
    services.
    """

    def __init__(self, served: Collection[str], hooks: Hooks) -> None:
        self.types: dict[str, EventSourcedType] = {}
        self.streams: set[EventSourcedStream] = set()
        self.served = served
        self.hooks = hooks
        self.stopping = False

    def on_open(self, call: Any) -> None:
        if self.stopping:
            call.finish(Status.UNAVAILABLE, "the user function is stopping")
        else:
            call.context = EventSourcedStream(call, self)

    def on_message(self, call: Any, message: bytes) -> None:
        if call.context is not None:
            call.context.receive(message)

    def on_half_close(self, call: Any) -> None:
        if call.context is not None:
            call.context.half_closed()

    def on_drain(self, call: Any) -> None:
        if call.context is not None:
            call.context.drained()

    def on_cancel(self, call: Any, status: int) -> None:
        if call.context is not None:
            call.context.cancelled()

    def stop(self) -> None:
        """Finish every stream, those in the middle of a command after it."""
        self.stopping = True
        for stream in list(self.streams):
            stream.stop()
