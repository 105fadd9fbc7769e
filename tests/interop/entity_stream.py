"""One event sourced entity stream, spoken by hand as a proxy would, so that each answer of a user function is seen."""

from __future__ import annotations

from typing import Any

import grpc
import grpc.aio

from stateside.proto import cloudstate, eventsourced

STREAM_TIMEOUT_S = 20


class EntityStream:
    """`/cloudstate.eventsourced.EventSourced/handle` on a channel; the call's deadline bounds every wait."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        handle = channel.stream_stream(
            "/cloudstate.eventsourced.EventSourced/handle",
            request_serializer=eventsourced.EventSourcedStreamIn.SerializeToString,
            response_deserializer=eventsourced.EventSourcedStreamOut.FromString,
        )
        self.call = handle(timeout=STREAM_TIMEOUT_S)

    async def send(self, **message: Any) -> None:
        """One EventSourcedStreamIn, of the fields given."""
        await self.call.write(eventsourced.EventSourcedStreamIn(**message))

    async def init(self, service: str, entity_id: str, snapshot: Any = None, snapshot_sequence: int = 0) -> None:
        init = eventsourced.EventSourcedInit(service_name=service, entity_id=entity_id)
        if snapshot is not None:
            init.snapshot.snapshot_sequence = snapshot_sequence
            init.snapshot.snapshot.CopyFrom(snapshot)
        await self.send(init=init)

    async def event(self, sequence: int, payload: Any) -> None:
        await self.send(event=eventsourced.EventSourcedEvent(sequence=sequence, payload=payload))

    async def command(self, command_id: int, name: str, payload: Any, entity_id: str) -> Any:
        """Send a command and read the next message of the user function."""
        command = cloudstate.Command(entity_id=entity_id, id=command_id, name=name, payload=payload)
        await self.send(command=command)
        return await self.answer()

    async def answer(self) -> Any:
        """The next message of the user function; EOFError when it ended the stream instead."""
        message = await self.call.read()
        if message is grpc.aio.EOF:
            raise EOFError(f"stream ended with {await self.call.code()}: {await self.call.details()}")
        return message

    async def passivate(self) -> list[Any]:
        """Half-close as a proxy does that passivates the entity; answers what comes until the other side ends too."""
        await self.call.done_writing()
        return await self.rest()

    async def rest(self) -> list[Any]:
        """What still comes until the user function ends the stream, with our half left as it is."""
        messages = []
        while (message := await self.call.read()) is not grpc.aio.EOF:
            messages.append(message)
        return messages

    async def status(self) -> grpc.StatusCode:
        return await self.call.code()
