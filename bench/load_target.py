"""What `stateside load` calls: methods found by server reflection, requests written as JSON, made into commands.

A command is written `METHOD[@WEIGHT] [REQUEST [=> ANSWER]]`, both JSON; the text "{key}" in place of a string field
of the
request is where the key of the entity goes.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from typing import Any
from urllib.parse import urlsplit

from google.protobuf import descriptor_pb2, json_format
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from stateside import proto
from stateside._speedups.h2 import Call, Channel, ChannelUnavailable, ClientCall, Handler
from stateside.bench.generator import Command
from stateside.proto.status import Status

KEY = "{key}"
REFLECTION = b"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
TIMEOUT = 10.0
_COMMAND = re.compile(
    r"(?P<method>[^\s@]+)(@(?P<weight>\S+))?(\s+(?P<request>\{.*?\})(\s*=>\s*(?P<answer>\{.*\}))?)?", re.S
)

# Mixes for services that everybody has.
CART = "com.example.shoppingcart.ShoppingCart"
_ITEM = '{"userId": "{key}", "productId": "p1", "name": "Thing", "quantity": 1}'
PROFILES: dict[str, tuple[str, ...]] = {
    "cart": (f'{CART}/GetCart@75 {{"userId": "{KEY}"}}', f"{CART}/AddItem@25 {_ITEM} => {{}}"),
}


class TargetError(Exception):
    """The target or a command cannot be used. The text says which and why."""


class Target:
    """A server: where it is, and the connections to it."""

    def __init__(self, address: str, ca: str | None = None) -> None:
        """address: host:port, http://host:port or https://host:port. ca: file of the authority that signed its
        certificate."""
        parts = urlsplit(address if "//" in address else f"http://{address}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise TargetError(f"{address}: must be host:port, http://host:port or https://host:port")
        self.host = parts.hostname
        self.port = parts.port or (443 if parts.scheme == "https" else 9000)
        self.tls = client_tls(ca) if parts.scheme == "https" else None

    async def connect(self, connections: int) -> list[Channel]:
        loop = asyncio.get_running_loop()
        try:
            return [await Channel.connect(loop, self.host, self.port, ssl=self.tls) for _ in range(connections)]
        except (OSError, TimeoutError) as error:
            raise TargetError(f"{self.host}:{self.port}: cannot connect: {error or 'no answer'}") from error


def client_tls(ca: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca)
    context.set_alpn_protocols(["h2"])
    return context


async def commands(channel: Channel, texts: tuple[str, ...]) -> list[Command]:
    """The commands that are meant by `texts`. Raises TargetError."""
    pools: dict[str, DescriptorPool] = {}
    found = []
    for text in texts:
        parts = _COMMAND.fullmatch(text.strip())
        if parts is None:
            raise TargetError(f"{text}: must be METHOD[@WEIGHT] [REQUEST [=> ANSWER]]")
        service, _, method = parts["method"].strip("/").rpartition("/")
        if service not in pools:
            pools[service] = await _reflect(channel, service)
        found.append(_command(_method(pools[service], service, method), parts))
    return found


def _command(method: MethodDescriptor, parts: re.Match[str]) -> Command:
    name = f"{method.containing_service.full_name}/{method.name}"
    if method.client_streaming or method.server_streaming:
        raise TargetError(f"{name} is a streamed method; only unary ones can be called")
    request = _message(method.input_type, parts["request"] or "{}", name)
    answer = parts["answer"] and _message(method.output_type, parts["answer"], name)
    field = _key_field(request)
    if field is not None:
        request.ClearField(field.name)
    try:
        return Command(
            f"/{name}".encode(),
            request.SerializeToString(),
            field.number if field is not None else 0,
            float(parts["weight"] or 1),
            answer.SerializeToString(deterministic=True) if answer else None,
        )
    except ValueError as error:
        raise TargetError(f"{name}: {error}") from error


def _message(kind: Any, text: str, name: str) -> Any:
    try:
        return json_format.Parse(text, GetMessageClass(kind)())
    except (json_format.ParseError, json.JSONDecodeError) as error:
        raise TargetError(f"{name}: {text} is no {kind.full_name}: {error}") from error


def _key_field(request: Any) -> FieldDescriptor | None:
    """The field that holds the key."""
    for field, value in request.ListFields():
        if field.type == FieldDescriptor.TYPE_STRING and value == KEY:
            return field  # type: ignore[no-any-return]
    if KEY in str(request):
        raise TargetError(f"{request.DESCRIPTOR.full_name}: {KEY} must stand alone in a string field at the top")
    return None


def _method(pool: DescriptorPool, service: str, name: str) -> MethodDescriptor:
    methods = pool.FindServiceByName(service).methods_by_name
    if name not in methods:
        raise TargetError(f"{service} has no method {name!r}; it has {', '.join(methods)}")
    return methods[name]


# --- reflection
# ------------------------------------------------------------------------------------------------------


async def _reflect(channel: Channel, service: str) -> DescriptorPool:
    """Descriptors of a service and of all it imports, in a pool of their own."""
    if not service:
        raise TargetError("a method is written SERVICE/METHOD, with the full name of its service")
    request = proto.reflection.ServerReflectionRequest(file_containing_symbol=service)
    question = _Question()
    try:
        call = channel.open(REFLECTION, question, timeout=TIMEOUT)
        call.send(request.SerializeToString())
        call.half_close()
        answer = proto.reflection.ServerReflectionResponse.FromString(await question.answer)
    except ChannelUnavailable as error:
        raise TargetError(f"reflection: {error}") from error
    if answer.HasField("error_response"):
        raise TargetError(f"the server does not know {service}: {answer.error_response.error_message}")
    files = [
        descriptor_pb2.FileDescriptorProto.FromString(each)
        for each in answer.file_descriptor_response.file_descriptor_proto
    ]
    return _pool({file.name: file for file in files})


def _pool(files: dict[str, descriptor_pb2.FileDescriptorProto]) -> DescriptorPool:
    pool = DescriptorPool()
    added: set[str] = set()

    def add(name: str) -> None:
        if name in added or name not in files:
            return
        added.add(name)
        for imported in files[name].dependency:
            add(imported)
        pool.AddSerializedFile(files[name].SerializeToString())

    for name in files:
        add(name)
    return pool


class _Question(Handler):
    """One question to the reflection service."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def on_message(self, call: Call, message: bytes) -> None:
        if not self.answer.done():
            self.answer.set_result(message)

    def on_end(self, call: ClientCall, status: int, message: str) -> None:
        if not self.answer.done():
            self.answer.set_exception(
                TargetError(f"the server does not answer reflection (v1): {Status(status).name}: {message}")
            )
