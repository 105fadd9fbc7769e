"""A user function with value entities beside the event sourced ones, whose every word the tests decide.

Played entities work as those of user_function.py; all others behave as the TCK's models (`play_value_model`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc
from tck import valueentity_pb2 as model

from stateside.proto import valueentity

from . import messages
from . import value_messages as values
from .user_function import EntityStream, ScriptedUserFunction


class ValueStream(EntityStream):
    """The user function's end of the stream of one value entity."""

    parse = staticmethod(valueentity.ValueEntityStreamIn.FromString)


class ValueFunction(ScriptedUserFunction):
    """A gRPC server with EntityDiscovery, EventSourced and ValueEntity."""

    def __init__(self, spec: Any = None, options: Sequence[tuple[str, Any]] = (), port: int = 0) -> None:
        super().__init__(spec if spec is not None else values.both_models(), options, port)

    def _services(self) -> tuple[Any, ...]:
        handlers = {"handle": grpc.stream_stream_rpc_method_handler(self._handle_value, None, None)}
        return *super()._services(), grpc.method_handlers_generic_handler(messages.VALUE_ENTITY, handlers)

    async def _handle_value(self, requests: Any, context: Any) -> None:
        await self._serve(ValueStream(context, len(self.streams) + 1), context)

    async def _play_model(self, stream: EntityStream, init: Any) -> None:
        if isinstance(stream, ValueStream):
            await play_value_model(stream, init)
        else:
            await super()._play_model(stream, init)


async def play_value_model(stream: EntityStream, init: Any) -> None:
    """Answer as a support library with the TCK's model would: the state is that of the last reply that did not fail."""
    state = ""
    if init.state.HasField("value"):
        state = model.Persisted.FromString(init.state.value.value).value
    while (message := await stream.take()) is not None:
        state, answer = value_answer(init.service_name, state, message.command)
        await stream.send(answer)


def value_answer(service: str, state: str, command: Any) -> tuple[str, Any]:
    """The state after a command, and the ValueEntityStreamOut that answers it."""
    if service != messages.VALUE_MODEL:
        return state, values.reply(command.id)
    new_state, changed, target = state, None, ""
    effects: list[Any] = []
    for action in model.Request.FromString(command.payload.value).actions:
        kind = action.WhichOneof("action")
        if kind == "fail":
            return state, values.failed(command.id, action.fail.message)
        if kind == "update":
            new_state, changed = action.update.value, values.updated(action.update.value)
        elif kind == "delete":
            new_state, changed = "", values.DELETE
        elif kind == "effect":
            effect = action.effect
            effects.append(messages.side_effect(effect.id, messages.VALUE_TWO, synchronous=effect.synchronous))
        else:
            target = action.forward.id
    if target:
        return new_state, values.forward(command.id, target, state=changed, effects=effects)
    return new_state, values.reply(command.id, new_state, changed, effects)
