"""Peers of the transport's contract tests: the same little service and the same client on our transport and on grpcio.

The service has these methods, all below /contract.Service/:

    Unary     answers with its one request
    Count     request b"n size": n messages of size bytes
    Sum       counts the request's messages: answers b"n total-bytes"
    Chat      echoes every message, ends with the client's half-close
    Status    request b"code text": ends with that status and a trailer x-end: done
    Metadata  response header x-seen and trailer x-end-bin repeat the request's x-ask and x-ask-bin
    Never     does not answer
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from stateside._speedups import h2

SERVICE = b"/contract.Service/"
Headers = Sequence[tuple[bytes, bytes]]


@dataclass
class Result:
    status: int
    text: str
    messages: list[bytes]
    headers: dict[bytes, bytes] = field(default_factory=dict)
    trailers: dict[bytes, bytes] = field(default_factory=dict)


async def eventually(condition: Callable[[], Any], what: str = "condition", seconds: float = 5.0) -> None:
    """Wait until `condition()` is true."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"still not: {what}"
        await asyncio.sleep(0.002)


# --- ours ------------------------------------------------------------------------------------------------------------


class Unary(h2.Handler):
    unary = True

    def on_request(self, call: h2.ServerCall, message: bytes) -> None:
        call.reply(message)


class Count(h2.Handler):
    """Sends as the send queue drains, as every well-behaved sender does."""

    unary = True

    def on_request(self, call: h2.ServerCall, message: bytes) -> None:
        count, size = map(int, message.split())
        call.context = [count, bytes(size)]
        self.on_drain(call)

    def on_drain(self, call: h2.Call) -> None:
        left = call.context
        while left[0]:
            left[0] -= 1
            if not call.send(left[1]):
                return
        assert isinstance(call, h2.ServerCall)
        call.finish()


class Sum(h2.Handler):
    def on_open(self, call: h2.ServerCall) -> None:
        call.context = [0, 0]

    def on_message(self, call: h2.Call, message: bytes) -> None:
        call.context[0] += 1
        call.context[1] += len(message)

    def on_half_close(self, call: h2.ServerCall) -> None:
        call.reply(b"%d %d" % tuple(call.context))


class Chat(h2.Handler):
    def on_message(self, call: h2.Call, message: bytes) -> None:
        if not call.send(message):
            call.pause()

    def on_drain(self, call: h2.Call) -> None:
        call.resume()

    def on_half_close(self, call: h2.ServerCall) -> None:
        call.finish()


class Status(h2.Handler):
    unary = True

    def on_request(self, call: h2.ServerCall, message: bytes) -> None:
        code, _, text = message.partition(b" ")
        call.finish(int(code), text.decode(), [(b"x-end", b"done")])


class Metadata(h2.Handler):
    unary = True
    wants_headers = True

    def on_request(self, call: h2.ServerCall, message: bytes) -> None:
        asked = dict(call.headers)
        call.start([(b"x-seen", asked[b"x-ask"])])
        call.send(b"")
        call.finish(trailers=[(b"x-end-bin", asked[b"x-ask-bin"])])


class Never(h2.Handler):
    """Keeps what happened to its calls in `cancelled`."""

    def __init__(self) -> None:
        self.opened = 0
        self.cancelled: list[int] = []

    def on_open(self, call: h2.ServerCall) -> None:
        self.opened += 1

    def on_cancel(self, call: h2.ServerCall, status: int) -> None:
        self.cancelled.append(status)


class OurServer:
    def __init__(self, limits: h2.Limits | None = None) -> None:
        self.never = Never()
        self.routes: dict[bytes, h2.Handler] = {
            SERVICE + b"Unary": Unary(),
            SERVICE + b"Count": Count(),
            SERVICE + b"Sum": Sum(),
            SERVICE + b"Chat": Chat(),
            SERVICE + b"Status": Status(),
            SERVICE + b"Metadata": Metadata(),
            SERVICE + b"Never": self.never,
        }
        self.server = h2.Server(asyncio.get_running_loop(), self.routes.get, limits=limits)
        self.port = 0

    @property
    def never_opened(self) -> int:
        return self.never.opened

    @property
    def never_cancelled(self) -> int:
        return len(self.never.cancelled)

    async def never_called(self, times: int = 1) -> None:
        await eventually(lambda: self.never_opened >= times, "the call of Never")

    async def idle(self) -> None:
        await eventually(lambda: self.server.streams == 0, "the end of all calls")

    async def start(self) -> None:
        self.port = await self.server.listen_tcp("127.0.0.1", 0)

    async def close(self, grace: float = 0.0) -> None:
        await self.server.close(grace)


class Collector(h2.Handler):
    """Gathers one call's answer."""

    wants_headers = True

    def __init__(self) -> None:
        self.done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self.messages: list[bytes] = []
        self.saw_headers = False
        self.drained = 0

    def on_headers(self, call: h2.ClientCall) -> None:
        self.saw_headers = True

    def on_message(self, call: h2.Call, message: bytes) -> None:
        self.messages.append(message)

    def on_drain(self, call: h2.Call) -> None:
        self.drained += 1

    def on_end(self, call: h2.ClientCall, status: int, message: str) -> None:
        self.done.set_result(Result(status, message, self.messages, dict(call.headers), dict(call.trailers)))


class OurCall:
    def __init__(self, call: h2.ClientCall, collector: Collector) -> None:
        self.call = call
        self.collector = collector

    async def result(self) -> Result:
        return await asyncio.wait_for(self.collector.done, 20)

    async def first_message(self) -> None:
        await eventually(lambda: self.collector.messages, "a message")

    def cancel(self) -> None:
        self.call.cancel()


class OurClient:
    channel: h2.Channel

    def __init__(self, port: int, limits: h2.Limits | None = None) -> None:
        self.port = port
        self.limits = limits

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self.channel = await h2.Channel.connect(loop, "127.0.0.1", self.port, limits=self.limits)

    def open(
        self,
        method: bytes,
        messages: Iterable[bytes],
        *,
        timeout: float = 0.0,
        headers: Headers = (),
        half_close: bool = True,
    ) -> OurCall:
        collector = Collector()
        call = self.channel.open(SERVICE + method, collector, headers=headers, timeout=timeout)
        for message in messages:
            call.send(message)
        if half_close:
            call.half_close()
        return OurCall(call, collector)

    async def call(self, method: bytes, messages: Iterable[bytes], **options: Any) -> Result:
        return await self.open(method, messages, **options).result()

    async def close(self) -> None:
        self.channel.close()
        await eventually(lambda: self.channel.closed)


# --- grpcio ----------------------------------------------------------------------------------------------------------

OPTIONS = [("grpc.max_receive_message_length", 64 << 20), ("grpc.max_send_message_length", 64 << 20)]


async def unary(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    async for message in requests:
        yield message


async def count(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    async for message in requests:
        number, size = map(int, message.split())
        for _ in range(number):
            yield bytes(size)


async def sum_up(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    sizes = [len(message) async for message in requests]
    yield b"%d %d" % (len(sizes), sum(sizes))


async def status(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    async for message in requests:
        code, _, text = message.partition(b" ")
        context.set_trailing_metadata((("x-end", "done"),))
        context.set_code(next(known for known in grpc.StatusCode if known.value[0] == int(code)))
        context.set_details(text.decode())
    for message in list[bytes]():  # makes this a generator
        yield message


async def metadata(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    asked = dict(context.invocation_metadata())
    await context.send_initial_metadata((("x-seen", asked["x-ask"]),))
    context.set_trailing_metadata((("x-end-bin", asked["x-ask-bin"]),))
    yield b""


class GrpcioServer:
    def __init__(self, limits: h2.Limits | None = None, **options: Any) -> None:
        self.server = grpc.aio.server(options=[*OPTIONS, *options.pop("settings", [])], **options)
        self.server.add_generic_rpc_handlers((self,))
        self.port = 0
        self.never_opened = 0
        self.never_cancelled = 0
        self.methods = {"Unary": unary, "Count": count, "Sum": sum_up, "Chat": unary, "Status": status}
        self.methods |= {"Metadata": metadata, "Never": self.never}

    def service(self, details: Any) -> Any:
        behaviour = self.methods.get(details.method.removeprefix(SERVICE.decode()))
        return behaviour and grpc.stream_stream_rpc_method_handler(behaviour)

    async def never(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        self.never_opened += 1
        try:
            await asyncio.get_running_loop().create_future()
            yield b""
        except asyncio.CancelledError:
            self.never_cancelled += 1
            raise

    async def start(self) -> None:
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        await self.server.start()

    async def close(self, grace: float = 0.0) -> None:
        await self.server.stop(grace)


class GrpcioCall:
    def __init__(self, call: Any, unary: bool) -> None:
        self.call = call
        self.unary = unary

    async def result(self) -> Result:
        messages = []
        try:
            if self.unary:
                messages.append(await self.call)
            else:
                async for message in self.call:
                    messages.append(message)
        except (grpc.RpcError, asyncio.CancelledError):
            pass  # told by the status below
        code = await self.call.code()
        headers = {} if not messages else bytes_of(await self.call.initial_metadata())
        trailers = bytes_of(await self.call.trailing_metadata() or ())
        return Result(code.value[0], await self.call.details() or "", messages, headers, trailers)

    def cancel(self) -> None:
        self.call.cancel()


def bytes_of(metadata: Iterable[tuple[str, str | bytes]]) -> dict[bytes, bytes]:
    return {name.encode(): value if isinstance(value, bytes) else value.encode() for name, value in metadata}


class GrpcioClient:
    def __init__(self, port: int, limits: h2.Limits | None = None, **options: Any) -> None:
        own_pool = ("grpc.use_local_subchannel_pool", 1)
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=[*OPTIONS, own_pool], **options)

    async def start(self) -> None:
        await self.channel.channel_ready()

    def open(
        self, method: bytes, messages: Sequence[bytes], *, timeout: float = 0.0, headers: Headers = (), **options: Any
    ) -> GrpcioCall:
        sent = tuple((name.decode(), value if name.endswith(b"-bin") else value.decode()) for name, value in headers)
        # grpc.aio makes INTERNAL of a refusal that comes while it still writes a stream of requests.
        unary = len(messages) == 1 and method != b"Count"
        shape = self.channel.unary_unary if unary else self.channel.stream_stream
        request = messages[0] if unary else iter(list(messages))
        call = shape((SERVICE + method).decode())(request, timeout=timeout or None, metadata=sent, **options)
        return GrpcioCall(call, unary)

    async def call(self, method: bytes, messages: Sequence[bytes], **options: Any) -> Result:
        return await self.open(method, messages, **options).result()

    async def close(self) -> None:
        await self.channel.close()


CLIENTS: dict[str, Callable[..., Any]] = {"ours": OurClient, "grpcio": GrpcioClient}
SERVERS: dict[str, Callable[..., Any]] = {"ours": OurServer, "grpcio": GrpcioServer}


@asynccontextmanager
async def meet(
    client: str, server: str, *, limits: h2.Limits | None = None, client_limits: h2.Limits | None = None
) -> AsyncIterator[tuple[Any, Any]]:
    """A running server of one kind and a connected client of another."""
    serving = SERVERS[server](limits)
    await serving.start()
    calling = CLIENTS[client](serving.port, client_limits)
    await calling.start()
    try:
        yield calling, serving
    finally:
        await calling.close()
        await serving.close()
