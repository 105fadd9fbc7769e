"""`python -m stateside.bench.anchors.grpc_aio_relay`: the same relay as it is usually written in Python.

grpc.aio on uvloop as server and as client, protobuf's C runtime for the envelopes, one bidirectional stream per entity
to the same echo user function, a task per stream that reads its answers, a future per call. It stores nothing. Says
`{"port": n}` when it listens.
"""

import argparse
import asyncio
import json
import signal
from typing import Any

import grpc
import uvloop

from stateside.bench.messages import ECHO_SERVICE, message_class
from stateside.proto import eventsourced

STREAM_PATH = "/cloudstate.eventsourced.EventSourced/handle"
TYPE_URL = "type.googleapis.com/bench.Message"
LOST = "the stream to the user function has ended"


class Entity:
    """One entity's stream. Calls wait for their answers by command id."""

    def __init__(self, channel: grpc.aio.Channel, key: str) -> None:
        self.key = key
        self.waiting: dict[int, asyncio.Future[bytes]] = {}
        self.last_id = 0
        self.writing = asyncio.Lock()  # grpc.aio takes one write of a stream at a time
        self.stream = channel.stream_stream(
            STREAM_PATH,
            request_serializer=eventsourced.EventSourcedStreamIn.SerializeToString,
            response_deserializer=eventsourced.EventSourcedStreamOut.FromString,
        )()
        self.opened = asyncio.create_task(self.open())
        self.reader = asyncio.create_task(self.read())

    async def open(self) -> None:
        init = eventsourced.EventSourcedInit(service_name=ECHO_SERVICE, entity_id=self.key)
        await self.stream.write(eventsourced.EventSourcedStreamIn(init=init))

    async def call(self, name: str, request: bytes) -> bytes:
        """Answer of the user function to one command."""
        await self.opened
        self.last_id += 1
        answer = self.waiting[self.last_id] = asyncio.get_running_loop().create_future()
        message = eventsourced.EventSourcedStreamIn()
        command = message.command
        command.entity_id = self.key
        command.id = self.last_id
        command.name = name
        command.payload.type_url = TYPE_URL
        command.payload.value = request
        async with self.writing:
            await self.stream.write(message)
        payload: bytes = await answer
        return payload

    async def read(self) -> None:
        async for message in self.stream:
            reply = message.reply
            self.waiting.pop(reply.command_id).set_result(reply.client_action.reply.payload.value)
        for answer in self.waiting.values():
            answer.set_exception(ConnectionError(LOST))


class Relay:
    """The Echo service, passed on to the user function."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.entities: dict[str, Entity] = {}
        self.parse = message_class("bench.Message").FromString

    def handler(self, name: str) -> grpc.RpcMethodHandler:
        async def method(request: bytes, context: Any) -> bytes:
            key = self.parse(request).key
            entity = self.entities.get(key)
            if entity is None:
                entity = self.entities[key] = Entity(self.channel, key)
            return await entity.call(name, request)

        return grpc.unary_unary_rpc_method_handler(method)

    async def close(self) -> None:
        for entity in self.entities.values():
            entity.stream.cancel()
        await asyncio.gather(*(entity.reader for entity in self.entities.values()), return_exceptions=True)


async def serve(user_function_port: int) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{user_function_port}") as channel:
        relay = Relay(channel)
        server = grpc.aio.server()
        methods = {name: relay.handler(name) for name in ("Read", "Write")}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(ECHO_SERVICE, methods),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        print(json.dumps({"port": port}), flush=True)
        await stopped.wait()
        await server.stop(0)
        await relay.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="stateside.bench.anchors.grpc_aio_relay", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--user-function-port", type=int, required=True)
    uvloop.run(serve(parser.parse_args().user_function_port))


if __name__ == "__main__":
    main()
