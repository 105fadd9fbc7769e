"""Between the proxy and a user function of the support library: passes everything on, in both directions, and keeps it.

The scripted user functions record what the proxy sends; here what they would answer comes from the library's TCK
models (tests/tck), on the compiled transport. Discovery answers with the library's own EntitySpec.
"""

from __future__ import annotations

import asyncio
from typing import Any

import grpc

from stateside.proto import action
from stateside.support import Stateside

from .action_function import ActionCall, ActionFunction
from .crdt_function import CrdtFunction, CrdtStream
from .user_function import EntityStream, ScriptedUserFunction
from .value_function import ValueFunction, ValueStream

EVENT_SOURCED = "/cloudstate.eventsourced.EventSourced/handle"
CRDT = "/cloudstate.crdt.Crdt/handle"
VALUE_ENTITY = "/cloudstate.valueentity.ValueEntity/handle"
PATHS: dict[type, str] = {ValueStream: VALUE_ENTITY, CrdtStream: CRDT}
ACTIONS = "/cloudstate.action.ActionProtocol/"


class Interceptor(ScriptedUserFunction):
    """Plays entities by asking the library."""

    models: tuple[type, ...] = ()
    relayed = 0
    """Answers of the library that were passed on."""

    async def start(self) -> ScriptedUserFunction:
        self.app = Stateside(*self.models)
        library_port = await self.app.start("127.0.0.1", 0)
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{library_port}")
        self.discover_answer = self.app.entity_spec
        return await super().start()

    async def stop(self) -> None:
        await super().stop()
        await self.channel.close()
        await self.app.stop(0)

    async def _play_model(self, stream: EntityStream, init: Any) -> None:
        path = next((path for kind, path in PATHS.items() if isinstance(stream, kind)), EVENT_SOURCED)
        async for answer in self.asked(path, stream):
            await stream.send_bytes(answer)

    async def asked(self, path: str, stream: EntityStream) -> Any:
        """Pass all that the proxy sends to the library; what the library answers."""
        call = self.channel.stream_stream(path)()
        sending = asyncio.create_task(pass_on(stream, call))
        try:
            async for answer in call:
                self.relayed += 1
                yield answer
        finally:
            sending.cancel()
            call.cancel()


class ActionInterceptor(Interceptor, ActionFunction):
    """Plays actions too."""

    async def _play_call(self, call: ActionCall, first: Any) -> None:
        async for answer in self.asked(ACTIONS + call.rpc, call):
            await call.send(action.ActionResponse.FromString(answer))


class ValueInterceptor(Interceptor, ValueFunction):
    """Plays value entities too."""


class CrdtInterceptor(Interceptor, CrdtFunction):
    """Plays CRDT entities too."""


async def pass_on(stream: EntityStream, call: Any) -> None:
    stream.rewind()
    while (message := await stream.take()) is not None:
        await call.write(message.SerializeToString())
    await call.done_writing()
