"""A service with HTTP rules, built in memory, and a face before it whose method answers what a test says.

message A { string id = 1; bool b = 2; int32 i = 3; int64 l = 4; uint32 u = 5; float f = 6; double d = 7; bytes y = 8;
            E e = 9; repeated int32 ns = 10; repeated string ss = 11; N n = 12; map<string, string> m = 13;
            google.protobuf.Timestamp t = 14; oneof one { string x = 15; int32 z = 16; } Int32Value w = 17;
            optional int32 o = 18; Struct j = 19; HttpBody raw = 20; string user_id = 21; }
message N { string s = 1; int32 k = 2; N deep = 3; }         enum E { RED = 0; GREEN = 1; }
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, struct_pb2, timestamp_pb2, wrappers_pb2
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.message_factory import GetMessageClass

from stateside.proto import api, extension, protobuf
from stateside.proxy import descriptors
from stateside.proxy.exchange import Request, Response
from stateside.proxy.http_calls import HttpCall
from stateside.proxy.http_json import HttpJson
from stateside.proxy.http_rules import Binding, bindings

JSON = "application/json"
SCALARS = {
    "id": Field.TYPE_STRING,
    "b": Field.TYPE_BOOL,
    "i": Field.TYPE_INT32,
    "l": Field.TYPE_INT64,
    "u": Field.TYPE_UINT32,
    "f": Field.TYPE_FLOAT,
    "d": Field.TYPE_DOUBLE,
    "y": Field.TYPE_BYTES,
}
MESSAGES = {"t": ".google.protobuf.Timestamp", "w": ".google.protobuf.Int32Value", "j": ".google.protobuf.Struct"}


def rule(body: str = "", response_body: str = "", selector: str = "", **pattern: Any) -> Any:
    """An HttpRule, such as `rule(get="/a/{id}")`."""
    return api.HttpRule(body=body, response_body=response_body, selector=selector, **pattern)


def service_file() -> FileDescriptorProto:
    file = FileDescriptorProto(name="a.proto", package="pkg", syntax="proto3")
    file.dependency.extend(f"google/protobuf/{name}.proto" for name in ("timestamp", "wrappers", "struct"))
    file.dependency.append("google/api/httpbody.proto")
    colors = file.enum_type.add(name="E")
    colors.value.add(name="RED", number=0)
    colors.value.add(name="GREEN", number=1)
    inner = file.message_type.add(name="N")
    add(inner, "s", 1)
    add(inner, "k", 2, Field.TYPE_INT32)
    add(inner, "deep", 3, Field.TYPE_MESSAGE, type_name=".pkg.N")
    add_a(file.message_type.add(name="A"))
    return file


def add_a(message: Any) -> None:
    for number, (name, sort) in enumerate(SCALARS.items(), 1):
        add(message, name, number, sort)
    add(message, "e", 9, Field.TYPE_ENUM, type_name=".pkg.E")
    add(message, "ns", 10, Field.TYPE_INT32, label=Field.LABEL_REPEATED)
    add(message, "ss", 11, label=Field.LABEL_REPEATED)
    add(message, "n", 12, Field.TYPE_MESSAGE, type_name=".pkg.N")
    entry = message.nested_type.add(name="MEntry")
    entry.options.map_entry = True
    add(entry, "key", 1)
    add(entry, "value", 2)
    add(message, "m", 13, Field.TYPE_MESSAGE, type_name=".pkg.A.MEntry", label=Field.LABEL_REPEATED)
    add(message, "t", 14, Field.TYPE_MESSAGE, type_name=MESSAGES["t"])
    message.oneof_decl.add(name="one")
    message.oneof_decl.add(name="_o")
    add(message, "x", 15, oneof_index=0)
    add(message, "z", 16, Field.TYPE_INT32, oneof_index=0)
    add(message, "w", 17, Field.TYPE_MESSAGE, type_name=MESSAGES["w"])
    add(message, "o", 18, Field.TYPE_INT32, oneof_index=1, proto3_optional=True)
    add(message, "j", 19, Field.TYPE_MESSAGE, type_name=MESSAGES["j"])
    add(message, "raw", 20, Field.TYPE_MESSAGE, type_name=".google.api.HttpBody")
    add(message, "user_id", 21)


def add(message: Any, name: str, number: int, sort: Any = Field.TYPE_STRING, **more: Any) -> None:
    message.field.add(name=name, number=number, type=sort, **{"label": Field.LABEL_OPTIONAL} | more)


def http_body_file() -> FileDescriptorProto:
    file = FileDescriptorProto(name="google/api/httpbody.proto", package="google.api", syntax="proto3")
    message = file.message_type.add(name="HttpBody")
    add(message, "content_type", 1)
    add(message, "data", 2, Field.TYPE_BYTES)
    return file


def build(*rules: Any, output: str = ".pkg.A", input: str = ".pkg.A", **more: Any) -> tuple[Binding, ...]:
    """The bindings of service pkg.S with methods M1, M2, ..., one for each rule; None = a method without a rule."""
    file = service_file()
    service = file.service.add(name="S")
    for number, each in enumerate(rules, 1):
        method = service.method.add(name=f"M{number}", input_type=input, output_type=output, **more)
        if each is not None:
            options = protobuf.MethodOptions()
            options.Extensions[extension("google.api.http")].CopyFrom(each)
            method.options.ParseFromString(options.SerializeToString())
    imports = [
        FileDescriptorProto.FromString(each.DESCRIPTOR.serialized_pb)
        for each in (timestamp_pb2, wrappers_pb2, struct_pb2, descriptor_pb2)
    ]
    files = FileDescriptorSet(file=[*imports, http_body_file(), file])
    return bindings(descriptors.build(files.SerializeToString()), ["pkg.S"])


class Model:
    """As much of a ServiceModel as the face looks at."""

    def __init__(self, found: tuple[Binding, ...]) -> None:
        self.bindings = found


class Client:
    """A carrier that keeps what it is given. `whole` is an answer that came as one."""

    def __init__(self) -> None:
        self.whole: Response | None = None
        self.head: Response | None = None
        self.pieces: list[bytes] = []
        self.ended: bool | None = None  # whether complete
        self.full = False
        self.later: Any = None

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    def answer(self, response: Response) -> None:
        assert self.whole is None and self.head is None
        self.whole = response

    def begin(self, head: Response) -> None:
        assert self.whole is None and self.head is None
        self.head = head

    def write(self, data: bytes) -> bool:
        assert self.head is not None and self.ended is None
        self.pieces.append(data)
        return not self.full

    def end(self, complete: bool) -> None:
        assert self.head is not None and self.ended is None
        self.ended = complete


class Desk:
    """A face, and the methods behind it: `asked` is what arrived, `answer` what is done with a call."""

    def __init__(self, *rules: Any, **more: Any) -> None:
        found = build(*rules, **more)
        self.pool = found[0].input.new.DESCRIPTOR.file.pool
        self.face = HttpJson(self)  # type: ignore[arg-type]
        self.face.update(Model(found))  # type: ignore[arg-type]
        self.asked: list[tuple[str, Any]] = []
        self.metadata: bytes | None = None
        self.answer: Any = None
        self.input_class = found[0].input.new

    # what the face asks of a router

    def method(self, service: str, method: str) -> str:
        return method

    def deliver(self, target: str, call: HttpCall, payload: bytes, metadata: bytes | None) -> None:
        self.asked.append((target, self.input_class.FromString(payload)))
        self.metadata = metadata
        if self.answer is None:
            call.reply(b"")
        else:
            self.answer(call)

    # what a test asks

    def make(self, name: str = "pkg.A", **fields: Any) -> Any:
        return GetMessageClass(self.pool.FindMessageTypeByName(name))(**fields)

    def ask(
        self, verb: str, target: str, body: str | bytes = b"", content_type: str | None = None, **headers: str
    ) -> Response:
        """The answer that came as one. `content_type` is JSON where there is a body."""
        client = self.open(verb, target, body, content_type, **headers)
        assert client.whole is not None, "the method has not answered yet"
        return client.whole

    def open(
        self, verb: str, target: str, body: str | bytes = b"", content_type: str | None = None, **headers: str
    ) -> Client:
        """A client that waits for what comes."""
        body = body.encode() if isinstance(body, str) else body
        if content_type is None:
            content_type = JSON if body else ""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if content_type:
            given["content-type"] = content_type
        fields = [(name.encode(), value.encode()) for name, value in given.items()]
        answer = self.face.route(
            Request(method=verb, target=target.encode(), path=target, headers=given, fields=fields, body=body)
        )
        client = Client()
        if isinstance(answer, Response):
            client.answer(answer)
        else:
            client.later = answer
            answer.attach(client)
        return client

    def request(self, verb: str, target: str, body: str | bytes = b"", content_type: str | None = None) -> Any:
        """The request message that arrived as fields that are set, or the status of a request that was refused."""
        response = self.ask(verb, target, body, content_type)
        if not self.asked:
            return int(response.status)
        return self.asked.pop()[1]
