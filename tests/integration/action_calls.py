"""Calls of the action model as a client makes them, one function for each kind of method."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc.aio
from tck import action_pb2 as model

from .action_function import MODEL, ActionCall, ActionFunction
from .harness import Outcome, World, outcome
from .user_function import PATIENCE_S, soon

RESPONSE = model.Response.FromString


def function(world: World) -> ActionFunction:
    assert isinstance(world.user_function, ActionFunction)
    return world.user_function


def path(name: str, service: str = MODEL) -> str:
    return f"/{service}/{name}"


def unary_call(world: World, asked: Any, timeout: float = PATIENCE_S, **more: Any) -> Any:
    make = world.client.channel.unary_unary(path("ProcessUnary"))
    return make(asked.SerializeToString(), timeout=timeout, **more)


async def unary(world: World, asked: Any, **more: Any) -> Outcome:
    return await outcome(unary_call(world, asked, **more))


def streamed_in(world: World, timeout: float = PATIENCE_S, **more: Any) -> Any:
    return world.client.channel.stream_unary(path("ProcessStreamedIn"))(timeout=timeout, **more)


def streamed_out(world: World, asked: Any, timeout: float = PATIENCE_S, **more: Any) -> Any:
    make = world.client.channel.unary_stream(path("ProcessStreamedOut"))
    return make(asked.SerializeToString(), timeout=timeout, **more)


def duplex(world: World, timeout: float = PATIENCE_S, **more: Any) -> Any:
    return world.client.channel.stream_stream(path("ProcessStreamed"))(timeout=timeout, **more)


async def write(call: Any, asked: Any) -> None:
    await call.write(asked.SerializeToString())


async def read(call: Any) -> str | None:
    """The text of the next response; None at a good end."""
    data = await soon(call.read(), "a response")
    return None if data is grpc.aio.EOF else str(RESPONSE(data).message)


async def read_all(call: Any) -> tuple[list[str], Any, str]:
    """Texts of all responses, and how the call ended."""
    texts: list[str] = []
    try:
        while (text := await read(call)) is not None:
            texts.append(text)
    except grpc.aio.AioRpcError as error:
        return texts, error.code(), error.details() or ""
    return texts, await call.code(), await call.details()


async def next_calls(world: World, number: int, count: int) -> Sequence[ActionCall]:
    """The `count` calls after the first `number`, when they are over."""
    user_function = function(world)
    await user_function.until(lambda: len(user_function.calls) >= number + count, f"{count} calls of actions")
    found = user_function.since(number)
    assert len(found) == count
    await asyncio.gather(*(call.wait_over() for call in found))
    return found
