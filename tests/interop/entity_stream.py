"""One event sourced entity stream, spoken by hand as a proxy would: what a user function answers is seen message by message."""

from __future__ import annotations

from collections.abc import Sequence

import grpc
import grpc.aio
from cloudstate import entity_pb2, event_sourced_pb2
from google.protobuf import any_pb2
from google.protobuf.message import Message

ANSWER_TIMEOUT_S = 10


def packed(message: Message) -> any_pb2.Any:
    """The message in an Any as Cloudstate names it. Works for messages of any pool."""
    url = f"type.googleapis.com/{message.DESCRIPTOR.full_name}"
    return any_pb2.Any(type_url=url, value=message.SerializeToString(deterministic=True))


class EntityStream:
    """`/cloudstate.eventsourced.EventSourced/handle` on a channel; every wait is bounded by the call's deadline."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        handle = channel.stream_stream(
            "/cloudstate.eventsourced.EventSourced/handle",
            request_serializer=event_sourced_pb2.EventSourcedStreamIn.SerializeToString,
            response_deserializer=event_sourced_pb2.EventSourcedStreamOut.FromString,
        )
        self.call = handle(timeout=ANSWER_TIMEOUT_S)

    async def init(
        self, service: str, entity_id: str, snapshot: any_pb2.Any | None = None, snapshot_sequence: int = 0
    ) -> None:
        init = event_sourced_pb2.EventSourcedInit(service_name=service, entity_id=entity_id)
        if snapshot is not None:
            init.snapshot.snapshot_sequence = snapshot_sequence
            init.snapshot.snapshot.CopyFrom(snapshot)
        await self.call.write(event_sourced_pb2.EventSourcedStreamIn(init=init))

    async def event(self, sequence: int, payload: any_pb2.Any) -> None:
        event = event_sourced_pb2.EventSourcedEvent(sequence=sequence, payload=payload)
        await self.call.write(event_sourced_pb2.EventSourcedStreamIn(event=event))

    async def command(
        self, command_id: int, name: str, payload: any_pb2.Any | None, entity_id: str = ""
    ) -> event_sourced_pb2.EventSourcedStreamOut:
        """Send a command and read one message."""
        command = entity_pb2.Command(entity_id=entity_id, id=command_id, name=name, payload=payload)
        await self.call.write(event_sourced_pb2.EventSourcedStreamIn(command=command))
        return await self.answer()

    async def answer(self) -> event_sourced_pb2.EventSourcedStreamOut:
        """The next message of the user function; EOFError when it ended the stream instead."""
        message = await self.call.read()
        if message is grpc.aio.EOF:
            raise EOFError(f"stream ended with {await self.call.code()}: {await self.call.details()}")
        return message

    async def end(self) -> Sequence[event_sourced_pb2.EventSourcedStreamOut]:
        """Half-close, as a proxy passivating the entity does; answers what still came until the other side ended."""
        await self.call.done_writing()
        return await self.rest()

    async def rest(self) -> Sequence[event_sourced_pb2.EventSourcedStreamOut]:
        """What still comes until the user function ends the stream, with us keeping our half open."""
        messages = []
        while (message := await self.call.read()) is not grpc.aio.EOF:
            messages.append(message)
        return messages

    async def status(self) -> tuple[grpc.StatusCode, str]:
        return await self.call.code(), await self.call.details()
