"""What clients of the CRDT model ask, and what they see of the answers."""

from __future__ import annotations

from typing import Any, NamedTuple

import grpc
from tck import crdt_pb2 as model

from .crdt_messages import STREAMED, request, streamed_request
from .harness import World, method_path
from .messages import CRDT_MODEL
from .user_function import PATIENCE_S, soon


class Said(NamedTuple):
    status: grpc.StatusCode
    details: str
    state: Any  # a model.State

    @property
    def value(self) -> Any:
        """Of a counter or a set."""
        which = self.state.WhichOneof("value")
        value = getattr(self.state, which)
        return list(value.elements) if which == "gset" else value.value


async def ask(world: World, key: str, *actions: Any, service: str = CRDT_MODEL) -> Said:
    call = world.client.call(method_path(service), request(key, *actions).SerializeToString(), PATIENCE_S)
    try:
        message = model.Response.FromString(await call)
    except grpc.aio.AioRpcError as error:
        return Said(error.code(), error.details() or "", None)
    return Said(grpc.StatusCode.OK, "", message.state)


class Listener:
    """A streamed call."""

    def __init__(self, world: World, key: str, **fields: Any) -> None:
        path = f"/{CRDT_MODEL}/{STREAMED}"
        self.call = world.client.channel.unary_stream(path)(streamed_request(key, **fields).SerializeToString())

    async def next(self) -> Any:
        """The state that the next message tells; None at the end of the stream."""
        data = await soon(self.call.read(), "a streamed message")
        return None if data is grpc.aio.EOF else model.Response.FromString(data).state

    def cancel(self) -> None:
        self.call.cancel()

    async def outcome(self) -> tuple[grpc.StatusCode, str]:
        return await soon(self.call.code(), "the end of the call"), await self.call.details() or ""
