"""One entity instance on its stream, whatever its kind: messages of the proxy in, handler calls, replies out.

Everything happens in callbacks of the transport. A sync command handler is answered before its callback returns; an
async one runs as a task, and what arrives for the same entity meanwhile waits.

    state    | init        | event      | command    | empty      | half-close
    ---------+-------------+------------+------------+------------+---------------
    OPENING  | -> READY    | failure    | failure    | failure    | -> GONE
    READY    | failure     | READY      | READY/BUSY | failure    | -> GONE
    BUSY     | waits       | waits      | waits      | waits      | after the reply
    SPOILED  | failure     | failure    | failure    | failure    | -> GONE
    GONE     | ignored     | ignored    | ignored    | ignored    | ignored

A failure is a stream-level `Failure`, after which the stream is finished: -> GONE. Events and SPOILED are of event
sourced entities only: SPOILED follows a failed command that had emitted events; the proxy was asked to start the entity
again, the state in memory is not the journal's any more.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, ClassVar, NoReturn, Protocol

from stateside._speedups.h2 import Handler
from stateside._speedups.wire import StreamIn, WireError, write_action_failure, write_stream_failure
from stateside.proto.status import Status

from .answers import Answer, Failure, Forward, NoReply, Reply
from .context import Context, EntityContext
from .entity_model import CommandHandler, EntityType
from .errors import ContextError, EntityFailure, Fail, SupportError
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


@dataclass(frozen=True, slots=True)
class Texts:
    """What the proxy is told about errors on streams of one kind."""

    expected_init: str
    already_inited: str
    empty_message: str
    other_recipient: str
    no_payload: str
    unexpected: str
    """Before the text of an exception."""


class EntityStream:
    """State machine of one stream. Kinds of entities bring their messages and what a command may change."""

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
        "state",
    )

    protocol: ClassVar[str]
    """Name of the protocol service."""
    texts: ClassVar[Texts]
    table: ClassVar[tuple[tuple[Callable[[Any, StreamIn], None], ...], ...]]
    """What happens to a message, by state (OPENING, READY, BUSY, SPOILED) and kind (IN_NONE, IN_INIT, IN_EVENT,
    IN_COMMAND). In BUSY messages wait; in GONE they are dropped before.
    """

    def __init__(self, call: StreamCall, owner: EntityHandler) -> None:
        self.state = State.OPENING
        self.entity: Any = None
        self.entity_id = ""
        self.instance: Any = None
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

    write_failure = staticmethod(write_stream_failure)
    """(command id, description) -> the message that ends the stream."""

    # --- what kinds of entities differ in --------------------------------------------------------------------------

    @staticmethod
    @abstractmethod
    def scan(message: bytes) -> StreamIn:
        """A message of the proxy, taken apart. Raises WireError."""

    @abstractmethod
    def _load(self, init: StreamIn) -> None:
        """Bring the fresh instance to the stored state that came with init."""

    @abstractmethod
    def _context(self, command: StreamIn) -> Context:
        """The context of a command."""

    @abstractmethod
    def _write_reply(self, context: Any, handler: CommandHandler, payload: bytes, metadata: bytes | None) -> bytes:
        """The message that answers a command by a reply, with what the command changed."""

    @abstractmethod
    def _write_forward(self, context: Any, forward: bytes) -> bytes:
        """The message that answers a command by a forward, with what the command changed."""

    def _needs_restart(self, context: Any) -> bool:
        """Whether a failed command left the instance in a state that is not the stored one."""
        return False

    # --- callbacks of the transport ------------------------------------------------------------------------------

    def receive(self, message: bytes) -> None:
        """One message of the proxy."""
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
            incoming = self.scan(message)
            self.table[self.state][incoming.kind](self, incoming)
        except WireError as error:
            self._fail(EntityFailure(f"Protocol error: {error}"), error)
        except EntityFailure as failure:
            self._fail(failure, failure)
        except Exception as error:
            self._fail(self._unexpected(error), error)

    # --- one method per state and message ------------------------------------------------------------------------

    def _opening__init(self, init: StreamIn) -> None:
        entity = self._types.get(init.service_name)
        if entity is None:
            raise EntityFailure(f"Protocol error: Service not found: {init.service_name}")
        self.entity = entity
        self.entity_id = init.entity_id
        self.instance = entity.create(EntityContext(init.entity_id))
        self._load(init)
        self.state = State.READY

    def _opening__other(self, _: StreamIn) -> NoReturn:
        raise EntityFailure(self.texts.expected_init)

    def _ready__init(self, _: StreamIn) -> NoReturn:
        raise EntityFailure(self.texts.already_inited)

    def _ready__none(self, _: StreamIn) -> NoReturn:
        raise EntityFailure(self.texts.empty_message)

    def _ready__command(self, command: StreamIn) -> None:
        command_id = command.command_id
        if command.entity_id != self.entity_id:
            raise EntityFailure(self.texts.other_recipient, command_id)
        if command.payload is None:
            raise EntityFailure(self.texts.no_payload, command_id)
        handler = self.entity.commands.get(command.name)
        if handler is None:
            raise EntityFailure(
                f"No command handler found for command [{command.name}] on {self.entity.label}", command_id
            )
        context = self._context(command)
        if handler.is_async:
            self.state = State.BUSY
            self._task = asyncio.get_running_loop().create_task(self._run(handler, context, command.payload))
            return
        result, error = None, None
        try:
            result = handler.invoke(self.instance, handler.parse(command.payload), context)
        except Exception as raised:
            error = raised
        self._conclude(handler, context, result, error)

    def _spoiled__any(self, incoming: StreamIn) -> NoReturn:
        raise EntityFailure("Protocol error: Expected a new stream after the requested restart", incoming.command_id)

    # --- the end of a command ------------------------------------------------------------------------------------

    async def _run(self, handler: CommandHandler, context: Context, payload: bytes) -> None:
        """Task of an async command handler."""
        result: Any = None
        error: Exception | None = None
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
        self._conclude(handler, context, result, error)
        self._proceed()

    def _conclude(self, handler: CommandHandler, context: Context, result: Any, error: Exception | None) -> None:
        """Answer a command whose handler returned `result` or raised `error`."""
        context._closed = True
        try:
            if error is None and context._failure is None and context._broken is None:
                self._send(self._answer(handler, context, result))
            elif isinstance(error, Fail) or (error is None and context._failure is not None):
                self._refuse(context, context._failure if context._failure is not None else str(error))
            elif error is not None:
                raise error
            elif context._broken is not None:
                raise context._broken
        except Fail as refused:
            self._refuse(context, refused.description)
        except EntityFailure as failure:
            self._fail(EntityFailure(failure.description, context.command_id), failure, context.command_name)
        except Exception as raised:
            self._fail(self._unexpected(raised, context.command_id), raised, context.command_name)

    def _answer(self, handler: CommandHandler, context: Context, result: Any) -> bytes:
        if type(result) is handler.reply_class and context._forward is None:
            return self._write_reply(context, handler, result.SerializeToString(), None)
        metadata = None
        if isinstance(result, Answer):
            result, metadata = unfold(context, result)
        if context._forward is not None:
            if result is not None:
                raise ContextError("Both a reply and a forward were given by the command handler!")
            return self._write_forward(context, context._forward)
        return self._write_reply(context, handler, reply_bytes(handler, result), metadata)

    def _refuse(self, context: Context, description: str) -> None:
        """The handler failed the command: what it changed, forwards and effects are dropped."""
        restart = self._needs_restart(context)
        if restart:
            self.state = State.SPOILED
        self._hooks.command_failed(self.entity.service_name, self.entity_id, context.command_name, description)
        self._send(write_action_failure(context.command_id, description, restart))

    # --- the end of the stream -----------------------------------------------------------------------------------

    def _unexpected(self, error: Exception, command_id: int = 0) -> EntityFailure:
        """The failure the proxy is told for an exception of a handler."""
        return EntityFailure(f"{self.texts.unexpected}: {str(error) or type(error).__name__}", command_id)

    def _fail(self, failure: EntityFailure, error: Exception, command: str = "") -> None:
        service = self.entity.service_name if self.instance is not None else self.protocol
        self._hooks.stream_failed(service, self.entity_id, command, failure.description, error)
        self._call.send(self.write_failure(failure.command_id, failure.description))
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


def unfold(context: Context, answer: Answer) -> tuple[Any, bytes | None]:
    """Reply message and metadata of an answer; its forward and effects go into the context. A Failure raises Fail."""
    if isinstance(answer, Failure):
        raise Fail(answer.description)
    for effect in getattr(answer, "effects", ()):
        context._add_effect(effect.call, effect.synchronous)
    if isinstance(answer, Reply):
        return answer.message, answer.metadata.serialize()
    if isinstance(answer, Forward):
        context._set_forward(answer.call)
        return None, None
    if isinstance(answer, NoReply):
        raise ContextError("An entity answers every command: NoReply is for actions")
    raise ContextError(f"{type(answer).__qualname__} is no answer to a command")


def reply_bytes(handler: CommandHandler, result: Any) -> bytes:
    """The serialized reply. Raises SupportError if `result` is not the reply of the rpc."""
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
    raise SupportError(f"command handler {handler.name} returned {type_name(result)}, the reply is {expected}")


def type_name(value: Any) -> str:
    """Full name of a message's type, name of any other value's."""
    descriptor = getattr(value, "DESCRIPTOR", None)
    return descriptor.full_name if descriptor is not None else type(value).__qualname__


class EntityHandler(Handler):
    """Serves one rpc of the protocol: a stream per entity instance, of all services of one kind."""

    stream_class: type[EntityStream]

    def __init__(self, served: Collection[str], hooks: Hooks) -> None:
        self.types: dict[str, EntityType] = {}
        self.streams: set[EntityStream] = set()
        self.served = served
        self.hooks = hooks
        self.stopping = False

    def on_open(self, call: Any) -> None:
        if self.stopping:
            call.finish(Status.UNAVAILABLE, "the user function is stopping")
        else:
            call.context = self.stream_class(call, self)

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
