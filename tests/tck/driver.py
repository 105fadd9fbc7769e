"""A raw protocol client: a user function under test and the connection of a proxy to it, stepped by the test.

Client and server share one event loop that runs only while the test waits for something, so tests read as plain
sequences.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

import uvloop

from stateside._speedups.h2 import Channel, Handler
from stateside.proto import action, cloudstate, crdt, eventsourced, pack, valueentity
from stateside.support import Hooks, Stateside

TIMEOUT_SECONDS = 3.0


class RecordingHooks(Hooks):
    """Remembers failures of streams instead of logging them."""

    def __init__(self) -> None:
        self.failures: list[tuple[str, Exception]] = []

    def stream_failed(self, service: str, entity_id: str, command: str, description: str, error: Exception) -> None:
        self.failures.append((description, error))


class Driver:
    """A served user function and one connection to it."""

    def __init__(self, *entities: type) -> None:
        self.hooks = RecordingHooks()
        self.app = Stateside(*entities, hooks=self.hooks)
        self.loop = uvloop.new_event_loop()
        self.channel: Channel = self.run(self._connect())

    async def _connect(self) -> Channel:
        port = await self.app.start("127.0.0.1", 0)
        return await Channel.connect(asyncio.get_running_loop(), "127.0.0.1", port)

    def run(self, coroutine: Any) -> Any:
        """Run the loop until a coroutine is done, within the TCK's time limit."""
        return self.loop.run_until_complete(asyncio.wait_for(coroutine, TIMEOUT_SECONDS))

    def unary(self, path: bytes, request: Any, reply_class: Any) -> Any:
        """Call a unary method; the reply."""
        stream = RawStream(self, path)
        stream.send(request)
        stream.half_close()
        reply = reply_class.FromString(stream.receive())
        stream.expect_end()
        return reply

    def discover(self) -> Any:
        """What the user function answers to discovery."""
        info = cloudstate.ProxyInfo(protocol_minor_version=2, proxy_name="driver")
        return self.unary(b"/cloudstate.EntityDiscovery/discover", info, cloudstate.EntitySpec)

    def open(self) -> EntityStream:
        """A stream on which nothing was sent yet."""
        return EntityStream(self)

    def open_value(self) -> ValueStream:
        """A stream of a value entity on which nothing was sent yet."""
        return ValueStream(self)

    def open_crdt(self) -> CrdtStream:
        """A stream of a CRDT entity on which nothing was sent yet."""
        return CrdtStream(self)

    def open_action(self, rpc: str, service: str) -> ActionStream:
        """A call of an action on which nothing was sent yet."""
        return ActionStream(self, rpc, service)

    @property
    def open_streams(self) -> int:
        """Entity streams and calls of actions that the user function has open."""
        return sum(len(handler.streams) for handler in self.app._handlers)

    def close(self) -> None:
        self.channel.close()
        self.run(self.app.stop(0))
        self.loop.close()


class RawStream(Handler):
    """One call of the connection; messages as bytes."""

    def __init__(self, driver: Driver, path: bytes) -> None:
        self._driver = driver
        self._received: deque[bytes] = deque()
        self._changed = asyncio.Event()
        self.end: tuple[int, str] | None = None
        self.call = driver.channel.open(path, self)

    def on_message(self, call: Any, message: bytes) -> None:
        self._received.append(message)
        self._changed.set()

    def on_end(self, call: Any, status: int, message: str) -> None:
        self.end = (status, message)
        self._changed.set()

    def send(self, message: Any) -> None:
        self.call.send(message if isinstance(message, bytes) else message.SerializeToString())

    def half_close(self) -> None:
        self.call.half_close()

    def receive(self) -> bytes:
        """The next message."""
        self._wait(lambda: bool(self._received) or self.end is not None)
        assert self._received, f"the stream ended with {self.end} where a message was expected"
        return self._received.popleft()

    def expect_end(self, status: int = 0) -> None:
        """The peer completes the stream without another message."""
        self._wait(lambda: self.end is not None)
        assert not self._received and self.end is not None and self.end[0] == status, (self._received, self.end)

    def _wait(self, condition: Callable[[], bool]) -> None:
        self._driver.run(self._until(condition))

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()


class EntityStream(RawStream):
    """A stream of cloudstate.eventsourced.EventSourced/handle."""

    def __init__(self, driver: Driver) -> None:
        super().__init__(driver, b"/cloudstate.eventsourced.EventSourced/handle")

    def init(self, service: str, entity_id: str, snapshot: tuple[int, Any] | None = None) -> EntityStream:
        message = eventsourced.EventSourcedStreamIn()
        message.init.service_name = service
        message.init.entity_id = entity_id
        if snapshot is not None:
            message.init.snapshot.snapshot_sequence = snapshot[0]
            message.init.snapshot.snapshot.CopyFrom(pack(snapshot[1]))
        self.send(message)
        return self

    def event(self, sequence: int, event: Any) -> EntityStream:
        message = eventsourced.EventSourcedStreamIn()
        message.event.sequence = sequence
        message.event.payload.CopyFrom(pack(event))
        self.send(message)
        return self

    def command(self, entity_id: str, command_id: int, name: str, payload: Any) -> EntityStream:
        message = eventsourced.EventSourcedStreamIn()
        message.command.entity_id = entity_id
        message.command.id = command_id
        message.command.name = name
        if payload is not None:
            message.command.payload.CopyFrom(pack(payload))
        self.send(message)
        return self

    def next(self) -> Any:
        """The next EventSourcedStreamOut."""
        return eventsourced.EventSourcedStreamOut.FromString(self.receive())

    def passivate(self) -> None:
        """Half-close, as a proxy does with an idle entity: the user function completes, without another message."""
        self.half_close()
        self.expect_end()

    def expect_failure(self, description: str, command_id: int = 0) -> None:
        """A stream-level Failure, and then the end of the stream."""
        assert self.next() == failure(description, command_id)
        self.expect_end()


class ValueStream(RawStream):
    """A stream of cloudstate.valueentity.ValueEntity/handle."""

    def __init__(self, driver: Driver) -> None:
        super().__init__(driver, b"/cloudstate.valueentity.ValueEntity/handle")

    def init(self, service: str, entity_id: str, stored: Any = None) -> ValueStream:
        message = valueentity.ValueEntityStreamIn()
        message.init.service_name = service
        message.init.entity_id = entity_id
        message.init.state.SetInParent()
        if stored is not None:
            message.init.state.value.CopyFrom(pack(stored))
        self.send(message)
        return self

    def command(self, entity_id: str, command_id: int, name: str, payload: Any) -> ValueStream:
        message = valueentity.ValueEntityStreamIn()
        message.command.entity_id = entity_id
        message.command.id = command_id
        message.command.name = name
        if payload is not None:
            message.command.payload.CopyFrom(pack(payload))
        self.send(message)
        return self

    def next(self) -> Any:
        """The next ValueEntityStreamOut."""
        return valueentity.ValueEntityStreamOut.FromString(self.receive())

    def passivate(self) -> None:
        """Half-close, as a proxy does with an idle entity: the user function completes, without another message."""
        self.half_close()
        self.expect_end()

    def expect_failure(self, description: str, command_id: int = 0) -> None:
        """A stream-level Failure, and then the end of the stream."""
        assert self.next() == value_failure(description, command_id)
        self.expect_end()


class CrdtStream(RawStream):
    """A stream of cloudstate.crdt.Crdt/handle."""

    def __init__(self, driver: Driver) -> None:
        super().__init__(driver, b"/cloudstate.crdt.Crdt/handle")

    def init(self, service: str, entity_id: str, delta: Any = None) -> CrdtStream:
        self.send(crdt.CrdtStreamIn(init=crdt.CrdtInit(service_name=service, entity_id=entity_id, delta=delta)))
        return self

    def delta(self, delta: Any) -> CrdtStream:
        self.send(crdt.CrdtStreamIn(delta=delta))
        return self

    def delete(self) -> CrdtStream:
        self.send(crdt.CrdtStreamIn(delete=crdt.CrdtDelete()))
        return self

    def command(self, entity_id: str, command_id: int, name: str, payload: Any, streamed: bool = False) -> CrdtStream:
        command = cloudstate.Command(entity_id=entity_id, id=command_id, name=name, streamed=streamed)
        if payload is not None:
            command.payload.CopyFrom(pack(payload))
        self.send(crdt.CrdtStreamIn(command=command))
        return self

    def cancel(self, entity_id: str, command_id: int) -> CrdtStream:
        """The client of a streamed command has gone."""
        self.send(crdt.CrdtStreamIn(stream_cancelled=cloudstate.StreamCancelled(entity_id=entity_id, id=command_id)))
        return self

    def next(self) -> Any:
        """The next CrdtStreamOut."""
        return crdt.CrdtStreamOut.FromString(self.receive())

    def passivate(self) -> None:
        """Half-close, as a proxy does with an idle entity: the user function completes, without another message."""
        self.half_close()
        self.expect_end()

    def expect_failure(self, description: str, command_id: int = 0) -> None:
        """A stream-level Failure, and then the end of the stream."""
        assert self.next().failure == cloudstate.Failure(command_id=command_id, description=description)
        self.expect_end()


class ActionStream(RawStream):
    """A call of cloudstate.action.ActionProtocol."""

    def __init__(self, driver: Driver, rpc: str, service: str) -> None:
        super().__init__(driver, f"/cloudstate.action.ActionProtocol/{rpc}".encode())
        self._service = service

    def command(self, name: str, payload: Any = None, metadata: Any = None) -> ActionStream:
        """The message that names the command; without payload where requests are streamed."""
        message = action.ActionCommand(service_name=self._service, name=name, metadata=metadata)
        if payload is not None:
            message.payload.CopyFrom(pack(payload))
        self.send(message)
        return self

    def request(self, payload: Any) -> ActionStream:
        """A later message of a stream of requests."""
        self.send(action.ActionCommand(payload=pack(payload)))
        return self

    def next(self) -> Any:
        """The next ActionResponse."""
        return action.ActionResponse.FromString(self.receive())


def value_failure(description: str, command_id: int = 0) -> Any:
    out = valueentity.ValueEntityStreamOut()
    out.failure.command_id = command_id
    out.failure.description = description
    return out


def failure(description: str, command_id: int = 0) -> Any:
    out = eventsourced.EventSourcedStreamOut()
    out.failure.command_id = command_id
    out.failure.description = description
    return out
