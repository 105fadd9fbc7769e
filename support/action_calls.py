"""Calls of actions: one gRPC call of the proxy for each command of a client.

A sync unary handler is answered before the transport's callback returns. Every other handler runs as a task, which the
end of the call cancels. Both directions are bounded: requests that a handler has not taken yet are a short queue,
behind which the transport stops reading; a handler that yields responses is not asked for the next one while the proxy
does not read.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Mapping
from typing import Any

from google.protobuf.message import Message

from stateside._speedups.h2 import Handler
from stateside._speedups.wire import (
    ACTION_FAILURE,
    ACTION_FORWARD,
    ACTION_NONE,
    ACTION_REPLY,
    ActionIn,
    WireError,
    scan_action_in,
    write_action_response,
)
from stateside.proto.status import Status

from .action import ActionContext
from .action_model import ActionHandler, ActionType, Shape
from .answers import Answer, Failure, Forward, NoReply, Reply
from .entity_stream import type_name
from .errors import ContextError, EntityFailure, Fail, SupportError
from .hooks import Hooks

PROTOCOL = "cloudstate.action.ActionProtocol"
RPCS = {
    "handleUnary": Shape.UNARY,
    "handleStreamedIn": Shape.STREAMED_IN,
    "handleStreamedOut": Shape.STREAMED_OUT,
    "handleStreamed": Shape.STREAMED,
}
QUEUE_HIGH, QUEUE_LOW = 16, 8
"""Requests of a call that may wait for its handler; and how few have to be left before more are read."""

CANCEL_TIMEOUT = 1.0
"""Seconds that cancelled handlers have to end in when the user function stops."""


class Actions:
    """Everything served of cloudstate.action.ActionProtocol, for all actions."""

    def __init__(self, served: Collection[str], hooks: Hooks) -> None:
        self.types: dict[str, ActionType] = {}
        self.streams: set[RunningCall] = set()
        """Calls whose handler runs as a task."""
        self.served = served
        self.hooks = hooks
        self.stopping = False

    def routes(self) -> Mapping[bytes, Handler]:
        """Handlers of the transport by path."""
        return {f"/{PROTOCOL}/{rpc}".encode(): self.handler(shape) for rpc, shape in RPCS.items()}

    def handler(self, shape: Shape) -> Handler:
        """Serves the rpc of one shape."""
        return _StreamedIn(self, shape) if shape.streams_in else _OneIn(self, shape)

    def stop(self) -> None:
        """Take no more calls; those under way go on."""
        self.stopping = True

    async def ended(self) -> None:
        """Wait until cancelled handlers have ended, within reason."""
        tasks = [running.task for running in self.streams if running.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=CANCEL_TIMEOUT)

    def find(self, command: ActionIn, shape: Shape) -> tuple[ActionType, ActionHandler]:
        """Who answers a command. Raises EntityFailure with what the proxy is told."""
        action = self.types.get(command.service_name)
        if action is None:
            raise EntityFailure(f"Unknown service: {command.service_name}")
        handler = action.commands.get(command.name)
        if handler is None:
            raise EntityFailure(f"No command handler found for command [{command.name}] on {action.label}")
        if handler.shape is not shape:
            raise EntityFailure(
                f"Protocol error: {command.service_name}.{command.name} is {handler.shape.name.lower()}, "
                f"but was called as {shape.name.lower()}"
            )
        return action, handler

    def failed(self, name: tuple[str, str], error: BaseException, effects: list[bytes]) -> bytes:
        """The response for a handler that raised `error`, after telling the hooks. name: of service and command.

        What refuses a command keeps its side effects (unlike with entities); those before a fault are dropped.
        """
        if isinstance(error, Fail):
            self.hooks.command_failed(name[0], "", name[1], error.description)
            return write_action_response(ACTION_FAILURE, description=error.description, side_effects=effects)
        description = str(error) if isinstance(error, EntityFailure) else _unexpected(error)
        cause = error if isinstance(error, Exception) else SupportError("the command handler was cancelled")
        self.hooks.stream_failed(name[0] or PROTOCOL, "", name[1], description, cause)
        return write_action_response(ACTION_FAILURE, description=description)


def _unexpected(error: BaseException) -> str:
    if isinstance(error, WireError):
        return f"Protocol error: {error}"
    return f"Unexpected failure: {str(error) or type(error).__name__}"


class _OneIn(Handler):
    """Serves handleUnary and handleStreamedOut."""

    unary = True

    def __init__(self, actions: Actions, shape: Shape) -> None:
        self._actions = actions
        self._shape = shape

    def on_request(self, call: Any, message: bytes) -> None:
        actions = self._actions
        if actions.stopping:
            call.fail(Status.UNAVAILABLE, "the user function is stopping")
            return
        name = ("", "")
        try:
            command = scan_action_in(message)
            name = (command.service_name, command.name)
            action, handler = actions.find(command, self._shape)
            request = _request(handler, command)
        except Exception as error:
            call.reply(actions.failed(name, error, []))
            return
        context = ActionContext(handler.name, command.metadata, actions.served, handler.shape.streams_out)
        if handler.is_async or handler.shape.streams_out:
            RunningCall(actions, call, action, handler, context).start(request)
        else:
            call.reply(_run_sync(actions, action, handler, context, request))

    def on_drain(self, call: Any) -> None:
        if call.context is not None:
            call.context.drained.set()

    def on_cancel(self, call: Any, status: int) -> None:
        if call.context is not None:
            call.context.cancel()


def _run_sync(
    actions: Actions, action: ActionType, handler: ActionHandler, context: ActionContext, request: Message
) -> bytes:
    try:
        result = handler.invoke(action.instance, request, context)
        return respond(handler, context, result)
    except Exception as error:
        return actions.failed((handler.service_name, handler.name), error, context._effects)
    finally:
        context._closed = True


def _request(handler: ActionHandler, command: ActionIn) -> Message:
    if command.payload is None:
        raise EntityFailure("Protocol error: No command payload")
    return handler.parse(command.type_url, command.payload)


class _StreamedIn(Handler):
    """Serves handleStreamedIn and handleStreamed. `call.context` is None until the first message named the handler."""

    def __init__(self, actions: Actions, shape: Shape) -> None:
        self._actions = actions
        self._shape = shape

    def on_open(self, call: Any) -> None:
        if self._actions.stopping:
            call.finish(Status.UNAVAILABLE, "the user function is stopping")

    def on_message(self, call: Any, message: bytes) -> None:
        if call.context is not None:
            call.context.incoming.put(message)
        elif not call.ended:
            self._begin(call, message)

    def on_half_close(self, call: Any) -> None:
        if call.context is not None:
            call.context.incoming.end()
        elif not call.ended:
            self._refuse(call, ("", ""), EntityFailure("Protocol error: Expected a first message naming a command"))

    def on_drain(self, call: Any) -> None:
        if call.context is not None:
            call.context.drained.set()

    def on_cancel(self, call: Any, status: int) -> None:
        if call.context is not None:
            call.context.cancel()

    def _begin(self, call: Any, message: bytes) -> None:
        name = ("", "")
        try:
            command = scan_action_in(message)
            name = (command.service_name, command.name)
            action, handler = self._actions.find(command, self._shape)
        except Exception as error:
            self._refuse(call, name, error)
            return
        context = ActionContext(handler.name, command.metadata, self._actions.served, handler.shape.streams_out)
        running = RunningCall(self._actions, call, action, handler, context)
        running.incoming = Incoming(call, handler)
        if command.payload is not None:  # not foreseen by the protocol, but not to be lost either
            running.incoming.put(message)
        running.start(running.incoming)

    def _refuse(self, call: Any, name: tuple[str, str], error: Exception) -> None:
        call.send(self._actions.failed(name, error, []))
        call.finish()


class Incoming:
    """Requests of one call, as the async iterator that its handler takes."""

    def __init__(self, call: Any, handler: ActionHandler) -> None:
        self._call = call
        self._handler = handler
        self._waiting: deque[bytes] = deque()
        self._changed = asyncio.Event()
        self._ended = False
        self._paused = False

    def put(self, message: bytes) -> None:
        """One ActionCommand."""
        self._waiting.append(message)
        self._changed.set()
        if len(self._waiting) >= QUEUE_HIGH and not self._paused:
            self._paused = True
            self._call.pause()

    def end(self) -> None:
        """The client sends no more."""
        self._ended = True
        self._changed.set()

    def __aiter__(self) -> Incoming:
        return self

    async def __anext__(self) -> Message:
        while not self._waiting:
            if self._ended:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        message = self._waiting.popleft()
        if self._paused and len(self._waiting) <= QUEUE_LOW:
            self._paused = False
            self._call.resume()
        return _request(self._handler, scan_action_in(message))


class RunningCall:
    """A call whose handler runs as a task."""

    def __init__(
        self, actions: Actions, call: Any, action: ActionType, handler: ActionHandler, context: ActionContext
    ) -> None:
        self.drained = asyncio.Event()
        """Set when the proxy reads again."""
        self.incoming: Incoming | None = None
        self.task: asyncio.Task[None] | None = None
        self._actions = actions
        self._call = call
        self._action = action
        self._handler = handler
        self._context = context
        self._gone = False

    def start(self, payload: Message | Incoming) -> None:
        """Begin; `payload` is the request or the iterator of requests."""
        self._call.context = self
        self._actions.streams.add(self)
        self.task = asyncio.get_running_loop().create_task(self._run(payload))
        self.task.add_done_callback(self._left)  # a task that is cancelled before its first step never runs

    def cancel(self) -> None:
        """The proxy is not interested any more, or gone."""
        self._gone = True
        if self.task is not None:
            self.task.cancel()

    def _left(self, _: object = None) -> None:
        self._context._closed = True
        self._call.context = None
        self._actions.streams.discard(self)

    async def _run(self, payload: Any) -> None:
        last: bytes | None = None
        try:
            result = self._handler.invoke(self._action.instance, payload, self._context)
            last = await (self._stream(result) if self._handler.shape.streams_out else self._reply(result))
        except asyncio.CancelledError as error:
            if self._gone:
                raise
            last = self._failed(error)
        except Exception as error:
            last = self._failed(error)
        finally:
            self._left()
        if last is not None:
            self._call.send(last)
        self._call.finish()

    async def _reply(self, result: Any) -> bytes:
        return respond(self._handler, self._context, await result)

    async def _stream(self, generator: Any) -> bytes | None:
        """Send what the handler yields; the response that is left for the end, if any."""
        context = self._context
        try:
            async for item in generator:
                if context._failure is not None:
                    break
                if not self._call.send(respond(self._handler, context, item)):
                    await self._drain()
        finally:
            await generator.aclose()
        if context._failure is not None:
            raise Fail(context._failure)
        return respond(self._handler, context, NoReply()) if context._effects else None

    async def _drain(self) -> None:
        self.drained.clear()
        await self.drained.wait()

    def _failed(self, error: BaseException) -> bytes:
        return self._actions.failed((self._handler.service_name, self._handler.name), error, self._context._effects)


def respond(handler: ActionHandler, context: ActionContext, result: Any) -> bytes:
    """The ActionResponse for what a handler returned or yielded. Raises Fail if it failed the command, SupportError if
    it may not answer so.
    """
    if context._failure is not None:
        raise Fail(context._failure)
    if isinstance(result, Answer):
        _add_effects(context, result)
    if isinstance(result, Forward):
        context._set_forward(result.call)
    if result is None and handler.empty_reply and context._forward is None and not handler.shape.streams_out:
        result = handler.reply_class()
    forward, effects = context._take()
    write = _WRITERS.get(type(result), _write_message)
    if forward is not None and write not in (_write_nothing, _write_forward):
        raise ContextError("Both a reply and a forward were given by the command handler!")
    return write(handler, result, forward, effects)


def _add_effects(context: ActionContext, answer: Any) -> None:
    for effect in answer.effects:
        context._add_effect(effect.call, effect.synchronous)


def _write_message(handler: ActionHandler, message: Any, forward: bytes | None, effects: list[bytes]) -> bytes:
    return _write_reply(handler, Reply(message), forward, effects)


def _write_reply(handler: ActionHandler, reply: Reply, forward: bytes | None, effects: list[bytes]) -> bytes:
    message = reply.message
    if type(message) is not handler.reply_class:
        descriptor, expected = getattr(message, "DESCRIPTOR", None), handler.reply_class.DESCRIPTOR.full_name
        if descriptor is None or descriptor.full_name != expected:
            raise SupportError(
                f"command handler {handler.name} answered with {type_name(message)}, the reply is {expected}"
            )
    type_url, payload = handler.pack(message)
    return write_action_response(
        ACTION_REPLY,
        type_url=type_url,
        payload=payload,
        metadata=reply.metadata.serialize(),
        side_effects=effects,
    )


def _write_nothing(handler: ActionHandler, _: Any, forward: bytes | None, effects: list[bytes]) -> bytes:
    if forward is not None:
        return write_action_response(ACTION_FORWARD, forward=forward, side_effects=effects)
    return write_action_response(ACTION_NONE, side_effects=effects)


def _write_forward(handler: ActionHandler, _: Any, forward: bytes | None, effects: list[bytes]) -> bytes:
    return write_action_response(ACTION_FORWARD, forward=forward, side_effects=effects)


def _write_failure(handler: ActionHandler, failure: Failure, forward: bytes | None, effects: list[bytes]) -> bytes:
    return write_action_response(ACTION_FAILURE, description=failure.description, side_effects=effects)


_WRITERS: dict[type, Callable[[ActionHandler, Any, bytes | None, list[bytes]], bytes]] = {
    Reply: _write_reply,
    Forward: _write_forward,
    Failure: _write_failure,
    NoReply: _write_nothing,
    type(None): _write_nothing,
}
"""How each kind of answer is written; anything else has to be the reply message."""
