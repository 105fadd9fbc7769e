"""Reflection, health and HTTP/1.1 on one port, as grpcio and a plain socket see them."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest
import uvloop
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from stateside import proto
from stateside._speedups import h2
from stateside.proxy import descriptors, http1, reflection
from stateside.proxy.config import load
from stateside.proxy.health import Health
from stateside.proxy.readiness import Readiness
from stateside.proxy.spec import EVENT_SOURCED, EntityModel, ServiceModel

SERVING, NOT_SERVING, UNKNOWN = 1, 2, 3


def shop() -> ServiceModel:
    file = FileDescriptorProto(name="shop.proto", package="shop", syntax="proto3")
    file.message_type.add(name="Line")
    file.service.add(name="Cart").method.add(name="Add", input_type=".shop.Line", output_type=".shop.Line")
    built = descriptors.build(FileDescriptorSet(file=[file]).SerializeToString())
    return ServiceModel((EntityModel(EVENT_SOURCED, "shop.Cart", "carts", None, ()),), built)


class Port:
    """A listening server with all standard services, and a grpcio channel to it."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.readiness = Readiness({"discovery": "the user function was not discovered yet"})
        self.health = Health(self.readiness)
        self.health.set_services(["shop.Cart"])
        handlers = reflection.handlers(shop()) | self.health.handlers()
        self.http1 = http1.main_port(load(), self.loop)
        self.server = h2.Server(self.loop, handlers.get, http1=self.http1.connect)
        self.number = 0

    async def __aenter__(self) -> "Port":
        self.number = await self.server.listen_tcp("127.0.0.1", 0)
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{self.number}")
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.channel.close()
        self.health.close()
        self.http1.close()
        await self.server.close()

    def check(self, service: str = "") -> Any:
        return self._health(self.channel.unary_unary, "Check")(proto.health.HealthCheckRequest(service=service))

    def watch(self, service: str = "") -> Any:
        return self._health(self.channel.unary_stream, "Watch")(proto.health.HealthCheckRequest(service=service))

    def _health(self, kind: Any, method: str) -> Any:
        return kind(
            f"/grpc.health.v1.Health/{method}",
            request_serializer=proto.health.HealthCheckRequest.SerializeToString,
            response_deserializer=proto.health.HealthCheckResponse.FromString,
        )

    def reflect(self, version: str) -> Any:
        messages = proto.reflection_v1alpha if "alpha" in version else proto.reflection
        return self.channel.stream_stream(
            f"/{version}/ServerReflectionInfo",
            request_serializer=messages.ServerReflectionRequest.SerializeToString,
            response_deserializer=messages.ServerReflectionResponse.FromString,
        )()


def with_port(test: Callable[[Port], Awaitable[None]]) -> None:
    async def body() -> None:
        async with asyncio.timeout(20), Port() as port:
            await test(port)

    uvloop.run(body())


@pytest.mark.parametrize("version", [reflection.V1ALPHA, reflection.V1])
def test_a_reflection_stream_answers_in_order_and_completes_when_its_client_does(version: str) -> None:
    async def test(port: Port) -> None:
        messages = proto.reflection_v1alpha if "alpha" in version else proto.reflection
        call = port.reflect(version)
        await call.write(messages.ServerReflectionRequest(host="me", list_services=""))
        listed = await call.read()
        assert [each.name for each in listed.list_services_response.service] == [version, "shop.Cart"]
        await call.write(messages.ServerReflectionRequest(host="me", file_containing_symbol="shop.Cart"))
        assert len((await call.read()).file_descriptor_response.file_descriptor_proto) == 1
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK

    with_port(test)


def test_many_questions_before_the_first_answer_is_read_are_all_answered() -> None:
    async def test(port: Port) -> None:
        call = port.reflect(reflection.V1)
        question = proto.reflection.ServerReflectionRequest(file_by_filename="grpc/reflection/v1/reflection.proto")

        async def write() -> None:
            for _ in range(2000):
                await call.write(question)
            await call.done_writing()

        writing = asyncio.create_task(write())
        answers = 0
        while await call.read() is not grpc.aio.EOF:
            answers += 1
        await writing
        assert answers == 2000

    with_port(test)


def test_health_is_checked() -> None:
    async def test(port: Port) -> None:
        assert (await port.check()).status == NOT_SERVING
        port.readiness.clear("discovery")
        assert (await port.check()).status == SERVING
        assert (await port.check("shop.Cart")).status == SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await port.check("shop.Nope")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND

    with_port(test)


def test_health_is_watched_until_the_proxy_stops() -> None:
    async def test(port: Port) -> None:
        known, unknown = port.watch("shop.Cart"), port.watch("shop.Nope")
        assert (await known.read()).status == NOT_SERVING
        assert (await unknown.read()).status == UNKNOWN
        port.readiness.clear("discovery")
        assert (await known.read()).status == SERVING
        port.health.close()
        assert await known.code() is grpc.StatusCode.UNAVAILABLE
        assert await unknown.code() is grpc.StatusCode.UNAVAILABLE

    with_port(test)


def test_a_watcher_that_cancels_is_forgotten() -> None:
    async def test(port: Port) -> None:
        call = port.watch()
        await call.read()
        assert port.server.streams == 1
        call.cancel()
        while port.server.streams or port.health.watchers:  # inside the code under test
            await asyncio.sleep(0.001)

    with_port(test)


@pytest.mark.parametrize(("header", "status"), [("", b"404"), ("K-Network-Probe: queue\r\n", b"200")])
def test_the_same_port_answers_http_1_1(header: str, status: bytes) -> None:
    async def test(port: Port) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port.number)
        try:
            for _ in range(2):
                writer.write(f"GET / HTTP/1.1\r\nHost: x\r\n{header}\r\n".encode())
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 " + status)
                length = next(line for line in head.split(b"\r\n") if line.startswith(b"content-length"))
                await reader.readexactly(int(length.split(b":")[1]))
        finally:
            writer.close()
            await writer.wait_closed()

    with_port(test)
