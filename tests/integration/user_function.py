"""A user function whose every word the tests decide, on grpc.aio, so that nothing of ours is on both sides.

`ScriptedUserFunction` records all that a proxy sends. Entities named by `play` are played by the test itself through
`EntityStream`s; all others behave as the event sourced model of the TCK (`play_model`).
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from typing import Any, TypeVar

import grpc
import grpc.aio
from tck import eventsourced_pb2 as model

from stateside.proto import Any as ProtoAny
from stateside.proto import Empty, cloudstate, eventsourced

from . import messages

PATIENCE_S = 5.0  # for anything that a test expects to happen
RESET_SHOWS_S = 0.02  # grpc.aio tells of a reset as of a half-close first, and of the difference just after
SNAPSHOT_EVERY = 5

Behaviour = Callable[["EntityStream"], Awaitable[None]]
T = TypeVar("T")
_numbers = count(1)


def a_key(prefix: str = "entity") -> str:
    """An entity key that no other test uses."""
    return f"{prefix}-{next(_numbers)}"


async def soon(awaitable: Awaitable[T], what: str, patience: float = PATIENCE_S) -> T:
    """What is expected to happen, with patience (seconds) that ends."""
    try:
        async with asyncio.timeout(patience):
            return await awaitable
    except TimeoutError:
        raise AssertionError(f"expected within {patience:g} s: {what}") from None


class EntityStream:
    """The user function's end of one entity stream. `received` holds all messages of the proxy in order."""

    parse = staticmethod(eventsourced.EventSourcedStreamIn.FromString)

    def __init__(self, context: Any, number: int) -> None:
        self.context = context
        self.number = number
        self.received: list[Any] = []
        self.half_closed = asyncio.Event()  # the proxy ended its side
        self.over = asyncio.Event()  # the call is done with, for whatever reason
        self.reset = asyncio.Event()  # the proxy reset the stream, or its connection went away
        self._taken = 0
        self._news = asyncio.Event()
        self._outcome: asyncio.Future[grpc.StatusCode | None] = asyncio.get_running_loop().create_future()

    def __repr__(self) -> str:
        return f"<stream {self.number} of {self.entity_id or 'nobody'}>"

    @property
    def entity_id(self) -> str:
        return self.received[0].init.entity_id if self.received else ""

    async def read_on(self) -> None:
        """Record until the proxy half-closes."""
        while (data := await self.context.read()) is not grpc.aio.EOF:
            self.received.append(self.parse(data))
            self._news.set()
        try:
            async with asyncio.timeout(RESET_SHOWS_S):
                await self.reset.wait()
        except TimeoutError:
            self.half_closed.set()
            self._news.set()

    async def take(self) -> Any:
        """The proxy's next message; None when it half-closed instead. For models: waits without end."""
        while self._taken == len(self.received):
            if self.half_closed.is_set():
                return None
            self._news.clear()
            await self._news.wait()
        self._taken += 1
        return self.received[self._taken - 1]

    async def next(self) -> Any:
        """`take` for tests: with patience that ends."""
        return await soon(self.take(), f"a message on {self}, after {len(self.received)} others")

    def rewind(self) -> None:
        self._taken = 0

    async def send(self, message: Any) -> None:
        await self.send_bytes(message.SerializeToString())

    async def send_bytes(self, data: bytes) -> None:
        await self.context.write(data)

    def complete(self) -> None:
        """End the user function's side normally."""
        self._end(None)

    def abort(self, status: grpc.StatusCode) -> None:
        self._end(status)

    def _end(self, status: grpc.StatusCode | None) -> None:
        if not self._outcome.done():
            self._outcome.set_result(status)

    async def until_ended(self) -> None:
        """What a played stream's handler does: wait for the test to say how it ends."""
        status = await self._outcome
        if status is not None:
            await self.context.abort(status, "aborted by the test")

    async def wait_half_closed(self) -> None:
        await soon(self.half_closed.wait(), f"half-close of {self}")

    async def wait_over(self) -> None:
        await soon(self.over.wait(), f"end of {self}")

    async def close_as_asked(self) -> None:
        """The proxy half-closes, the user function completes: how every stream should end."""
        assert await self.next() is None
        self.complete()


class ScriptedUserFunction:
    """A gRPC server with EntityDiscovery and EventSourced. `port` stays the same over `stop` and `start`."""

    def __init__(self, spec: Any = None, options: Sequence[tuple[str, Any]] = (), port: int = 0) -> None:
        self.spec = spec if spec is not None else messages.model_spec()
        self.port = port
        self.options = options
        self.discovered: list[Any] = []  # ProxyInfo of each discover call
        self.reports: list[str] = []
        self.streams: list[EntityStream] = []
        self.peers: list[str] = []  # the connection of each stream
        self.behaviour: Behaviour = self._by_entity
        self.discover_answer: Callable[[], bytes] | None = None
        self._played: dict[str, asyncio.Queue[EntityStream]] = {}
        self._by_key: defaultdict[str, list[EntityStream]] = defaultdict(list)
        self._changed = asyncio.Condition()
        self._server: Any = None

    # --- life --------------------------------------------------------------------------------------------------------

    async def start(self) -> ScriptedUserFunction:
        self._server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1), *self.options])
        self._server.add_generic_rpc_handlers(self._services())
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()
        return self

    async def stop(self) -> None:
        """Go away at once, as a killed process does: all connections drop."""
        await self._server.stop(None)

    # --- what tests ask ----------------------------------------------------------------------------------------------

    def play(self, key: str | None = None) -> str:
        """The test itself answers for this entity (a fresh one by default); the key."""
        key = key or a_key("played")
        self._played[key] = asyncio.Queue()
        return key

    async def stream(self, key: str) -> EntityStream:
        """The next new stream of a played entity, its init not yet taken with `next`."""
        return await soon(self._played[key].get(), f"a new stream of {key}")

    async def ready_stream(self, key: str, service: str = messages.MODEL) -> EntityStream:
        """The next new stream of a played entity that has no history."""
        stream = await self.stream(key)
        assert await stream.next() == messages.init(key, service)
        return stream

    def streams_of(self, key: str) -> list[EntityStream]:
        return self._by_key[key]

    async def until(self, condition: Callable[[], bool], what: str, patience: float = PATIENCE_S) -> None:
        """Wait for something among what this user function saw."""

        async def wait() -> None:
            async with self._changed:
                await self._changed.wait_for(condition)

        await soon(wait(), what, patience)

    async def report_about(self, *words: str) -> str:
        """The next reportError whose text has all these words; it is taken off `reports`."""

        def matching() -> list[str]:
            return [text for text in self.reports if all(word in text for word in words)]

        await self.until(lambda: bool(matching()), f"a report with {words}, not only {self.reports}")
        text = matching()[0]
        self.reports.remove(text)
        return text

    # --- services ----------------------------------------------------------------------------------------------------

    def _services(self) -> tuple[Any, ...]:
        return self._discovery_service(), self._event_sourced_service()

    def _discovery_service(self) -> Any:
        handlers = {
            "discover": grpc.unary_unary_rpc_method_handler(self._discover, cloudstate.ProxyInfo.FromString, None),
            "reportError": grpc.unary_unary_rpc_method_handler(
                self._report_error, cloudstate.UserFunctionError.FromString, None
            ),
        }
        return grpc.method_handlers_generic_handler("cloudstate.EntityDiscovery", handlers)

    def _event_sourced_service(self) -> Any:
        handlers = {"handle": grpc.stream_stream_rpc_method_handler(self._handle, None, None)}
        return grpc.method_handlers_generic_handler("cloudstate.eventsourced.EventSourced", handlers)

    async def _discover(self, info: Any, context: Any) -> bytes:
        self.discovered.append(info)
        await self._tell()
        if self.discover_answer is not None:
            return self.discover_answer()
        spec: bytes = self.spec.SerializeToString()
        return spec

    async def _report_error(self, error: Any, context: Any) -> bytes:
        self.reports.append(error.message)
        await self._tell()
        empty: bytes = Empty().SerializeToString()
        return empty

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _handle(self, requests: Any, context: Any) -> None:
        await self._serve(EntityStream(context, len(self.streams) + 1), context)

    async def _serve(self, stream: EntityStream, context: Any) -> None:
        self.streams.append(stream)
        self.peers.append(context.peer())
        await self._tell()
        try:
            await self.behaviour(stream)
        except asyncio.CancelledError:
            stream.reset.set()
            raise
        finally:
            stream.over.set()
            await self._tell()

    async def _by_entity(self, stream: EntityStream) -> None:
        """Played by the test, or by the model."""
        reading = asyncio.create_task(stream.read_on())
        try:
            first = await stream.take()
            if first is None:
                return
            key = first.init.entity_id
            self._by_key[key].append(stream)
            await self._tell()
            if key in self._played:
                stream.rewind()
                self._played[key].put_nowait(stream)
                await stream.until_ended()
            else:
                await self._play_model(stream, first.init)
        finally:
            reading.cancel()

    async def _play_model(self, stream: EntityStream, init: Any) -> None:
        await play_model(stream, init)


# --- the TCK's model -------------------------------------------------------------------------------------------------


class ModelState:
    """State of one instance of the model: all values in a row, a snapshot at every fifth event."""

    def __init__(self) -> None:
        self.value = ""
        self.sequence = 0

    def snapshot(self, sequence: int, value: str) -> None:
        self.sequence, self.value = sequence, value

    def apply(self, value: str) -> None:
        self.sequence += 1
        self.value += value


async def play_model(stream: EntityStream, init: Any) -> None:
    """Answer as a support library with the TCK's model would. A failure after events asks for a restart."""
    state = ModelState()
    if init.HasField("snapshot"):
        snapshot = init.snapshot
        state.snapshot(snapshot.snapshot_sequence, value_of(snapshot.snapshot))
    while (message := await stream.take()) is not None:
        if message.HasField("event"):
            state.apply(value_of(message.event.payload))
        else:
            await stream.send(model_answer(init.service_name, state, message.command))


def value_of(persisted: ProtoAny) -> str:
    value: str = model.Persisted.FromString(persisted.value).value
    return value


def model_answer(service: str, state: ModelState, command: Any) -> Any:
    """The EventSourcedStreamOut that answers a command."""
    if service != messages.MODEL:
        return messages.reply(command.id)
    before = state.sequence
    events: list[str] = []
    effects: list[Any] = []
    forward = ""
    for action in model.Request.FromString(command.payload.value).actions:
        kind = action.WhichOneof("action")
        if kind == "fail":
            return messages.failed(command.id, action.fail.message, restart=bool(events))
        if kind == "emit":
            events.append(action.emit.value)
            state.apply(action.emit.value)
        elif kind == "effect":
            effects.append(messages.side_effect(action.effect.id, synchronous=action.effect.synchronous))
        else:
            forward = action.forward.id
    crossed = state.sequence // SNAPSHOT_EVERY > before // SNAPSHOT_EVERY
    more = {"events": events, "snapshot": state.value if crossed else None, "effects": effects}
    return messages.forward(command.id, forward, **more) if forward else messages.reply(command.id, state.value, **more)
