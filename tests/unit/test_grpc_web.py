"""gRPC-web between a connection and a handler: formats, pace, deadlines, and every end a call can come to."""

from __future__ import annotations

import asyncio
import base64
import gzip
from http import HTTPStatus
from typing import Any

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from stateside._speedups.h2 import Handler
from stateside.proto.status import Status
from stateside.proxy.exchange import Later, Request, Response
from stateside.proxy.grpc_web import CallError, GrpcWeb, GrpcWebCall, frame, from_text, messages

BINARY, TEXT = "application/grpc-web+proto", "application/grpc-web-text+proto"
LIMIT = 1000


class Client:
    """The connection's side: what the client would read."""

    def __init__(self) -> None:
        self.head: Response | None = None
        self.pieces: list[bytes] = []
        self.complete: bool | None = None
        self.keeps_up = True

    def answer(self, response: Response) -> None:
        self.begin(response)
        self.end(True)

    def begin(self, head: Response) -> None:
        assert self.head is None
        self.head = head
        self.pieces = [head.body] if head.body else []

    def write(self, data: bytes) -> bool:
        assert self.head is not None and self.complete is None
        self.pieces.append(data)
        return self.keeps_up

    def end(self, complete: bool) -> None:
        assert self.complete is None
        self.complete = complete

    @property
    def frames(self) -> list[tuple[int, bytes]]:
        """(flags, content) of all frames."""
        assert self.head is not None
        assert self.head.status == HTTPStatus.OK
        is_text = self.head.content_type.startswith("application/grpc-web-text")
        data = b"".join(base64.b64decode(piece, validate=True) if is_text else piece for piece in self.pieces)
        found = []
        while data:
            length = int.from_bytes(data[1:5], "big")
            found.append((data[0], data[5 : 5 + length]))
            assert len(data) >= 5 + length
            data = data[5 + length :]
        return found

    @property
    def end_of_call(self) -> list[str]:
        """The lines of the trailers, after which nothing may come."""
        assert self.complete
        flags, content = self.frames[-1]
        assert flags == 0x80
        return content.decode().removesuffix("\r\n").split("\r\n")

    @property
    def messages(self) -> list[bytes]:
        return [content for flags, content in self.frames if flags == 0]


class Unary(Handler):
    unary = True

    def __init__(self) -> None:
        self.asked: list[tuple[Any, bytes]] = []
        self.cancelled: list[int] = []

    def on_request(self, call: Any, message: bytes) -> None:
        self.asked.append((call, message))

    def on_cancel(self, call: Any, status: int) -> None:
        self.cancelled.append(status)


class Stream(Handler):
    unary = False

    def __init__(self, pause_after: int = 10**9) -> None:
        self.call: Any = None
        self.read: list[bytes] = []
        self.half_closed = False
        self.cancelled: list[int] = []
        self.drained = 0
        self.pause_after = pause_after

    def on_open(self, call: Any) -> None:
        self.call = call

    def on_message(self, call: Any, message: bytes) -> None:
        self.read.append(message)
        if len(self.read) >= self.pause_after:
            call.pause()

    def on_half_close(self, call: Any) -> None:
        self.half_closed = True

    def on_drain(self, call: Any) -> None:
        self.drained += 1

    def on_cancel(self, call: Any, status: int) -> None:
        self.cancelled.append(status)


class StillLoop:
    """Nothing ever has its turn here."""

    def call_soon(self, callback: Any, *arguments: Any) -> None:
        pass


def face(handler: Handler | None, loop: Any = None) -> GrpcWeb:
    return GrpcWeb({b"/pkg.Service/Method": handler}.get, loop or StillLoop(), LIMIT)


def request(body: bytes, content_type: str = BINARY, **headers: str) -> Request:
    fields = {"content-type": content_type} | {name.replace("_", "-"): value for name, value in headers.items()}
    raw = [(name.encode(), value.encode()) for name, value in fields.items()]
    return Request("POST", b"/pkg.Service/Method", "/pkg.Service/Method", fields, raw, body)


def begun(web: GrpcWeb, asked: Request) -> tuple[GrpcWebCall, Client]:
    answer = web.route(asked)
    assert isinstance(answer, GrpcWebCall)
    client = Client()
    answer.attach(client)
    return answer, client


def unary(asked: Request) -> tuple[Unary, Client]:
    handler = Unary()
    _, client = begun(face(handler), asked)
    return handler, client


@pytest.mark.parametrize("content_type", ["application/grpc-web", BINARY, "Application/Grpc-Web+Proto; charset=x"])
def test_a_unary_call_in_binary(content_type: str) -> None:
    handler, client = unary(request(frame(0, b"question"), content_type))
    ((call, message),) = handler.asked
    assert message == b"question"
    call.reply(b"answer", [(b"x-id", b"7")])
    assert client.head is not None
    assert client.head.headers == (("x-id", "7"),)
    assert client.frames == [(0, b"answer"), (0x80, b"grpc-status: 0\r\n")]


def test_a_unary_call_in_base64() -> None:
    handler, client = unary(request(base64.b64encode(frame(0, b"question")), TEXT))
    ((call, message),) = handler.asked
    assert message == b"question"
    call.reply(b"answer")
    assert client.head is not None
    assert client.head.content_type == TEXT
    assert client.messages == [b"answer"]
    assert client.end_of_call == ["grpc-status: 0"]


@pytest.mark.parametrize(
    ("accept", "content_type", "expected"),
    [
        ("", TEXT, TEXT),
        ("*/*", BINARY, BINARY),
        ("application/grpc-web-text", BINARY, "application/grpc-web-text"),
        ("text/html, application/grpc-web-text+proto;q=0.9", BINARY, TEXT),
        ("application/grpc-web", TEXT, "application/grpc-web"),
        ("application/grpc-web-text+json", BINARY, BINARY),
    ],
)
def test_the_answer_has_the_format_that_is_accepted_or_else_that_of_the_request(
    accept: str, content_type: str, expected: str
) -> None:
    body = frame(0, b"q")
    asked = request(base64.b64encode(body) if "text" in content_type else body, content_type, accept=accept)
    handler, client = unary(asked)
    handler.asked[0][0].reply(b"a")
    assert client.head is not None
    assert client.head.content_type == expected
    assert client.messages == [b"a"]


def test_each_piece_of_a_stream_in_base64_can_be_read_by_itself() -> None:
    handler = Stream()
    _, client = begun(face(handler), request(b"", TEXT))
    for message in (b"a", b"bc", b"def"):
        assert handler.call.send(message)
    assert [base64.b64decode(piece) for piece in client.pieces] == [frame(0, m) for m in (b"a", b"bc", b"def")]
    handler.call.finish()
    assert client.messages == [b"a", b"bc", b"def"]
    assert client.end_of_call == ["grpc-status: 0"]


def test_a_streamed_in_call_gets_all_messages_of_the_body_then_the_half_close() -> None:
    handler = Stream()
    _, client = begun(face(handler), request(b"".join(frame(0, m) for m in (b"a", b"", b"c"))))
    assert handler.read == [b"a", b"", b"c"]
    assert handler.half_closed
    handler.call.finish(trailers=[(b"x-sum", b"2")])
    assert client.end_of_call == ["grpc-status: 0", "x-sum: 2"]


def test_a_paused_handler_gets_no_more_until_it_resumes() -> None:
    async def scenario() -> None:
        handler = Stream(pause_after=2)
        call, _ = begun(face(handler, asyncio.get_running_loop()), request(frame(0, b"x") * 4))
        assert len(handler.read) == 2
        handler.pause_after = 10**9
        call.resume()
        assert len(handler.read) == 2  # never from inside
        await asyncio.sleep(0)
        assert len(handler.read) == 4
        assert handler.half_closed

    uvloop.run(scenario())


def test_a_body_of_many_messages_leaves_room_for_others() -> None:
    async def scenario() -> None:
        handler = Stream()
        begun(face(handler, asyncio.get_running_loop()), request(frame(0, b"") * 1000))
        assert len(handler.read) < 1000
        while not handler.half_closed:
            await asyncio.sleep(0)
        assert len(handler.read) == 1000

    uvloop.run(scenario())


def test_a_body_of_large_messages_leaves_room_for_others_too() -> None:
    handler = Stream()
    begun(face(handler), request(frame(0, bytes(100_000)) * 10))
    assert len(handler.read) == 3  # nobody has a second turn here


def test_a_client_that_does_not_keep_up_is_told_to_the_handler() -> None:
    handler = Stream()
    call, client = begun(face(handler), request(b""))
    assert handler.call.send(b"first")
    client.keeps_up = False
    assert not handler.call.send(b"second")
    call.on_drain()
    assert handler.drained == 1


def test_a_failure_is_status_200_and_the_trailers_alone() -> None:
    handler, client = unary(request(frame(0, b"q")))
    handler.asked[0][0].fail(Status.UNKNOWN, "käse 100%\r\nx: y")
    assert client.messages == []
    assert client.end_of_call == ["grpc-status: 2", "grpc-message: k%C3%A4se 100%25%0D%0Ax: y"]


@pytest.mark.parametrize(
    ("asked", "status", "message"),
    [
        (request(b""), Status.INVALID_ARGUMENT, "none came"),
        (request(frame(0, b"") * 2), Status.INVALID_ARGUMENT, "more came"),
        (request(b"\0\0\0"), Status.INTERNAL, "cut short"),
        (request(frame(0, b"abc")[:-1]), Status.INTERNAL, "cut short"),
        (request(frame(0x80, b"x: y\r\n")), Status.INTERNAL, "flags 0x80"),
        (request(frame(1, b"abc")), Status.INTERNAL, "names no compression"),
        (request(frame(1, b"abc"), grpc_encoding="gzip"), Status.INTERNAL, "not well-formed gzip"),
        (request(frame(1, gzip.compress(b"x" * 50)[:-1]), grpc_encoding="gzip"), Status.INTERNAL, "not well-formed"),
        (request(frame(1, gzip.compress(bytes(LIMIT + 1))), grpc_encoding="gzip"), Status.RESOURCE_EXHAUSTED, "1000"),
        (request(frame(0, b""), grpc_encoding="br"), Status.UNIMPLEMENTED, "'br'"),
        (request(frame(0, b""), grpc_timeout="1 S"), Status.INTERNAL, "malformed grpc-timeout '1 S'"),
        (request(b"AAAA?AAA", TEXT), Status.INVALID_ARGUMENT, "not base64"),
        (request(b"AAAAA", TEXT), Status.INVALID_ARGUMENT, "not base64"),
        (request(b"AA==" * 10_001, TEXT), Status.INVALID_ARGUMENT, "more than 10000 pieces"),
    ],
)
def test_what_is_malformed_is_refused_with_its_reason(asked: Request, status: Status, message: str) -> None:
    handler, client = unary(asked)
    assert handler.asked == []
    lines = client.end_of_call
    assert lines[0] == f"grpc-status: {status.value}"
    assert message in lines[1]
    if status == Status.UNIMPLEMENTED:
        assert lines[2] == "grpc-accept-encoding: identity,gzip"


def test_a_compressed_message_arrives_plain() -> None:
    body = frame(1, gzip.compress(b"x" * LIMIT)) + frame(0, b"y")
    handler = Stream()
    begun(face(handler), request(body, grpc_encoding="gzip"))
    assert handler.read == [b"x" * LIMIT, b"y"]


def test_an_unknown_method_is_unimplemented() -> None:
    _, client = begun(face(None), request(frame(0, b"")))
    assert client.end_of_call == ["grpc-status: 12", "grpc-message: unknown method /pkg.Service/Method"]


@pytest.mark.parametrize("content_type", ["application/grpc-web+json", "application/grpc-web-text+thrift"])
def test_messages_of_another_format_are_an_unsupported_media_type(content_type: str) -> None:
    answer = face(Unary()).route(request(b"", content_type))
    assert isinstance(answer, Response)
    assert answer.status == HTTPStatus.UNSUPPORTED_MEDIA_TYPE


@pytest.mark.parametrize(
    ("method", "content_type", "expected"),
    [
        ("POST", BINARY, True),
        ("POST", "application/grpc-web-text; x=y", True),
        ("POST", "application/grpc-web+json", True),
        ("GET", BINARY, False),
        ("POST", "application/grpc", False),
        ("POST", "application/grpc-webby", False),
        ("POST", "application/json", False),
        ("POST", "", False),
    ],
)
def test_grpc_web_is_known_by_verb_and_content_type(method: str, content_type: str, expected: bool) -> None:
    assert GrpcWeb.recognizes(Request(method, headers={"content-type": content_type})) is expected


def test_the_clients_deadline_ends_the_call_and_is_told_to_the_handler() -> None:
    async def scenario() -> None:
        handler, loop = Unary(), asyncio.get_running_loop()
        web = face(handler, loop)
        call, client = begun(web, request(frame(0, b""), grpc_timeout="20m"))
        assert 0 < call.deadline - loop.time() <= 0.021
        while client.complete is None:
            await asyncio.sleep(0.001)
        assert client.end_of_call == ["grpc-status: 4", "grpc-message: deadline exceeded"]
        assert handler.cancelled == [Status.DEADLINE_EXCEEDED]
        assert web.calls == 0
        call.reply(b"too late")
        assert client.messages == []

    uvloop.run(scenario())


def test_a_client_that_goes_away_cancels_the_call_once() -> None:
    handler = Unary()
    web = face(handler)
    call, client = begun(web, request(frame(0, b"")))
    call.on_gone()
    call.on_gone()
    assert handler.cancelled == [Status.CANCELLED]
    assert (call.ended, web.calls) == (True, 0)
    call.reply(b"to nobody")
    assert client.head is None


def test_who_has_its_answer_is_not_cancelled() -> None:
    handler = Unary()
    call, _ = begun(face(handler), request(frame(0, b"")))
    call.reply(b"")
    call.on_gone()
    assert handler.cancelled == []


def test_a_stream_that_turns_out_malformed_ends_with_the_reason_after_what_was_sent() -> None:
    class Echo(Stream):
        def on_message(self, call: Any, message: bytes) -> None:
            call.send(message)

    handler = Echo()
    _, client = begun(face(handler), request(frame(0, b"good") + b"\0"))
    assert client.messages == [b"good"]
    assert client.end_of_call == ["grpc-status: 13", "grpc-message: the last message is cut short"]
    assert handler.cancelled == [Status.CANCELLED]
    assert not handler.half_closed


def test_a_handler_that_raises_ends_its_call_with_internal(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Unary):
        def on_request(self, call: Any, message: bytes) -> None:
            raise RuntimeError("boom")

    _, client = begun(face(Broken()), request(frame(0, b"")))
    assert client.end_of_call == ["grpc-status: 13", "grpc-message: internal error"]


def test_headers_of_the_request_are_the_calls_but_not_those_of_the_connection() -> None:
    handler, _ = unary(request(frame(0, b""), x_token="t", connection="close", accept="*/*"))
    assert (b"x-token", b"t") in handler.asked[0][0].headers
    assert {name for name, _ in handler.asked[0][0].headers} == {b"content-type", b"x-token"}


def test_an_answer_is_only_begun_once_the_connection_has_taken_the_call() -> None:
    handler = Unary()
    answer = face(handler).route(request(frame(0, b"")))
    assert isinstance(answer, Later)
    assert handler.asked == []


@given(st.lists(st.binary(max_size=20), max_size=10), st.data())
def test_base64_in_any_pieces_with_padding_of_their_own_is_the_same_body(
    parts: list[bytes], data: st.DataObject
) -> None:
    body = b"".join(frame(0, part) for part in parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=5)))
    pieces = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    text = b"".join(map(base64.b64encode, pieces))
    assert from_text(text) == body
    assert list(messages(from_text(text), False, LIMIT)) == parts


@given(st.binary(max_size=200), st.booleans())
def test_no_body_does_anything_but_yield_messages_or_be_refused(body: bytes, is_gzip: bool) -> None:
    try:
        found = list(messages(body, is_gzip, LIMIT))
        assert sum(map(len, found)) <= LIMIT * max(1, len(found))
        from_text(body)
    except CallError as error:
        assert str(error)
