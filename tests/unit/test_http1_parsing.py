"""HTTP/1.1 under any bytes in any pieces: answers do not depend on how data is cut, and nothing escapes."""

import asyncio
from http import HTTPStatus
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stateside.proxy.exchange import Later, Request, Response
from stateside.proxy.http1 import Bounds, Connection, Service, route_main_port


class FakeTransport:
    def __init__(self) -> None:
        self.written = b""
        self.closing = self.aborted = False

    def write(self, data: bytes) -> None:
        assert not self.closing
        self.written += data

    def get_extra_info(self, name: str) -> Any:
        return ("::1", 7)

    def is_closing(self) -> bool:
        return self.closing

    def write_eof(self) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = self.aborted = True


class FakeLoop:
    """Timers never fire here."""

    def time(self) -> float:
        return 0.0

    def call_later(self, delay: float, callback: Any) -> Any:
        return asyncio.TimerHandle(delay, callback, (), self)  # type: ignore[arg-type]

    def get_debug(self) -> bool:
        return False

    def _timer_handle_cancelled(self, handle: Any) -> None:
        pass


class Desk:
    """A route that answers when it is told to."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Request, Later]] = []

    def route(self, request: Request) -> Later:
        self.waiting.append((request, Later()))
        return self.waiting[-1][1]

    def answer(self) -> None:
        ((request, later),) = self.waiting  # never more than one
        self.waiting.clear()
        later.answer(route_main_port(request))


def talk(
    pieces: list[bytes],
    route: Any = route_main_port,
    after: Any = lambda: None,
    at_end: Any = lambda: None,
    keep_bodies: bool = False,
) -> FakeTransport:
    """`after` is called after each piece, `at_end` before the client goes away."""
    service = Service(route, FakeLoop(), Bounds(max_header_bytes=1000, keep_bodies=keep_bodies))  # type: ignore[arg-type]
    protocol, transport = service.connect(), FakeTransport()
    protocol.connection_made(transport)  # type: ignore[arg-type]
    for piece in pieces:
        if transport.closing:
            break
        protocol.data_received(piece)
        after()
    at_end()
    protocol.connection_lost(None)
    assert not service.connections
    return transport


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


REQUESTS = st.lists(
    st.sampled_from(
        [
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET /a?b=c HTTP/1.1\r\nHost: x\r\nK-Network-Probe: queue\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nGET ",
            b"POST / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: a\r\nContent-Length: 4\r\n\r\nGET ",
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET / HTTP/1.0\r\n\r\n",
            b"GET / HTTP/1.1\r\n\r\n",
            b"nonsense\r\n\r\n",
        ]
    ),
    max_size=6,
).map(b"".join)


@given(REQUESTS, st.lists(st.integers(0, 10_000), max_size=20))
def test_answers_do_not_depend_on_how_the_data_is_cut(data: bytes, places: list[int]) -> None:
    whole, pieces = talk([data]), talk(cut(data, places))
    assert pieces.written == whole.written
    assert pieces.closing == whole.closing


@given(REQUESTS, st.lists(st.integers(0, 10_000), max_size=20), st.lists(st.booleans(), min_size=21, max_size=21))
def test_answers_that_come_later_are_the_same_in_the_same_order(
    data: bytes, places: list[int], answered: list[bool]
) -> None:
    desk, turns = Desk(), iter(answered)

    def some() -> None:
        if next(turns) and desk.waiting:
            desk.answer()

    def the_rest() -> None:
        while desk.waiting:
            desk.answer()

    whole, later = talk([data]), talk(cut(data, places), desk.route, some, the_rest)
    assert later.written == whole.written
    assert later.closing == whole.closing


def test_whoever_answers_later_hears_that_the_client_went_away() -> None:
    gone = []

    class Heard(Later):
        def on_gone(self) -> None:
            gone.append(self)

    transport = talk([b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 2], lambda request: Heard())
    assert len(gone) == 1 and not transport.written


class Pieces(Later):
    """An answer of three pieces; `say` says them."""

    def __init__(self) -> None:
        Later.__init__(self)
        self.gone = self.drained = 0

    def say(self, complete: bool = True) -> None:
        self.begin(Response(HTTPStatus.OK, b"one", "a/b", (("x-y", "z"),)))
        self.write(b"")
        self.write(b"two" * 10)
        self.end(complete)

    def on_gone(self) -> None:
        self.gone += 1

    def on_drain(self) -> None:
        self.drained += 1


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: a/b\r\n%bconnection: %b\r\nx-y: z\r\n\r\n"
CHUNKED = HEAD % (b"transfer-encoding: chunked\r\n", b"keep-alive")
CHUNKS = b"3\r\none\r\n1e\r\n" + b"two" * 10 + b"\r\n"


@pytest.mark.parametrize("early", [True, False])
def test_an_answer_in_pieces_is_chunked_and_those_behind_it_wait(early: bool) -> None:
    answers: list[Pieces] = []

    def route(request: Request) -> Any:
        if request.path == "/now":
            return Response(HTTPStatus.NO_CONTENT)
        answers.append(Pieces())
        if early:
            answers[0].say()
        return answers[0]

    def say() -> None:
        if not early:
            answers[0].say()

    data = b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET /now HTTP/1.1\r\nHost: x\r\n\r\n"
    transport = talk([data], route, at_end=say)
    first, _, second = transport.written.partition(b"0\r\n\r\n")
    assert first == CHUNKED + CHUNKS and second.startswith(b"HTTP/1.1 204 ")
    assert not transport.closing and not answers[0].gone


def test_an_answer_in_pieces_ends_with_the_connection_for_http_1_0() -> None:
    pieces = Pieces()
    transport = talk([b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"], lambda request: pieces, at_end=pieces.say)
    assert transport.written == HEAD % (b"", b"close") + b"one" + b"two" * 10 and transport.closing


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_an_answer_that_is_cut_off_closes_the_connection_without_the_last_chunk(version: str) -> None:
    pieces = Pieces()
    transport = talk(
        [f"GET / HTTP/{version}\r\nHost: x\r\n\r\n".encode()], lambda request: pieces, at_end=lambda: pieces.say(False)
    )
    assert transport.closing and transport.aborted == (version == "1.0") and not pieces.gone
    assert version == "1.0" or transport.written == CHUNKED + CHUNKS


def test_the_head_of_an_answer_in_pieces_is_all_that_head_asks_for() -> None:
    heads = [Pieces(), Pieces()]
    waiting = iter(heads)

    def say() -> None:
        for head in heads:
            head.say()

    transport = talk([b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n" * 2], lambda request: next(waiting), at_end=say)
    assert transport.written == CHUNKED * 2 and not transport.closing
    assert [head.gone for head in heads] == [1, 1]


def test_a_client_that_does_not_keep_up_is_waited_for() -> None:
    pieces = Pieces()
    service = Service(lambda request: pieces, FakeLoop())  # type: ignore[arg-type]
    connection = Connection(service)
    connection.connection_made(FakeTransport())  # type: ignore[arg-type]
    connection.data_received(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    pieces.begin(Response(HTTPStatus.OK))
    assert pieces.write(b"x")
    connection.resume_writing()
    assert not pieces.drained
    connection.pause_writing()
    assert not pieces.write(b"x") and not pieces.write(b"x")
    connection.resume_writing()
    assert pieces.drained == 1 and pieces.write(b"x")
    connection.connection_lost(None)
    assert pieces.gone == 1 and pieces.write(b"x")
    pieces.end()


def test_what_is_said_after_the_end_changes_nothing() -> None:
    answers = [Later(), Later()]
    waiting = iter(answers)

    def say() -> None:
        for word in (b"one", b"two"):
            answers[0].answer(Response(HTTPStatus.OK, word))
            answers[0].write(word)
        answers[0].end(False)

    transport = talk([b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 2], lambda request: next(waiting), at_end=say)
    assert transport.written.count(b"HTTP/1.1") == 1 and transport.written.endswith(b"one") and not transport.closing


def test_requests_name_their_version_and_their_peer() -> None:
    asked: list[Request] = []

    def route(request: Request) -> Response:
        asked.append(request)
        return Response(HTTPStatus.OK)

    talk([b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.0\r\n\r\n"], route)
    assert [(request.version, request.peer) for request in asked] == [("1.1", "[::1]:7"), ("1.0", "[::1]:7")]


LINES = st.sampled_from(
    [
        b"Host: x",
        b"HOST: y",
        b"Accept: */*",
        b"X-A:1",
        b"x-a:  two  words ",
        b"X-Empty:",
        b"x-\xff: 1",
        b"x-high: \xe9",
        b"x-tab: a\tb",
        b"Content-Length: 2",
        b"content-length: 02",
        b"content-length: +2",
        b"Content-Length: 0",
        b"Connection: close",
        b"Connection: keep-alive",
        b"Transfer-Encoding: chunked",
        b"Expect: 100-continue",
        b" folded",
        b"no colon",
        b"space : x",
        b"Upgrade: h2c",
    ]
)
FIRST = st.sampled_from(
    [
        b"GET /a?b=%20 HTTP/1.1",
        b"POST / HTTP/1.1",
        b"get / HTTP/1.1",
        b"GET / HTTP/1.0",
        b"GET  / HTTP/1.1",
        b"GET http://x/a HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
        b"DELETE /\xe9 HTTP/1.1",
        b"PUT /a/b:c HTTP/1.1",
        b"PRI / HTTP/1.1",
        b"GET / HTTP/1.2",
        b"GET /a#b HTTP/1.1",
        b"GET /a\\b|c HTTP/1.1",
    ]
)


@settings(max_examples=500)
@given(FIRST, st.lists(LINES, max_size=5), st.sampled_from([b"", b"ab", b"abc"]), st.booleans(), st.booleans())
def test_what_comes_at_once_is_what_comes_byte_by_byte(
    first: bytes, lines: list[bytes], body: bytes, with_host: bool, keep_bodies: bool
) -> None:
    data = b"\r\n".join([first, *([b"Host: x"] if with_host else []), *lines, b"", body])
    asked: list[list[Request]] = []
    answers = []
    for pieces in ([data, data], [data[at : at + 1] for at in range(len(data))] * 2):
        heard: list[Request] = []
        asked.append(heard)

        def route(request: Request, heard: list[Request] = heard) -> Response:
            heard.append(request)
            return Response(HTTPStatus.OK)

        answers.append(talk(pieces, route, keep_bodies=keep_bodies).written)
    assert asked[0] == asked[1] and answers[0] == answers[1]


def test_a_plain_request_is_one_of_its_own() -> None:
    """Headers that were read before are given anew."""
    asked: list[Request] = []

    def route(request: Request) -> Response:
        asked.append(request)
        request.headers["x"] = "changed"
        request.fields.clear()
        return Response(HTTPStatus.OK)

    talk([b"GET /1 HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /2 HTTP/1.1\r\nHost: x\r\n\r\n"], route)
    assert asked[1].path == "/2" and asked[1].headers == {"host": "x", "x": "changed"}
    assert asked[0].headers is not asked[1].headers


def test_a_route_that_fails_is_an_internal_error_and_the_connection_goes_on() -> None:
    def route(request: Request) -> Any:
        raise ValueError("a mistake of ours")

    transport = talk([b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 2], route)
    assert transport.written.count(b"HTTP/1.1 500") == 2 and not transport.closing


@settings(max_examples=300)
@given(st.lists(st.binary(max_size=200) | REQUESTS, max_size=8))
def test_no_bytes_do_harm(pieces: list[bytes]) -> None:
    transport = talk(pieces)
    assert transport.written == b"" or transport.written.startswith(b"HTTP/1.1 ")


@given(st.binary(min_size=1, max_size=3))
def test_headers_without_an_end_are_refused(filler: bytes) -> None:
    filler = filler.translate(None, b"\r\n:\x00") or b"a"
    transport = talk([b"GET / HTTP/1.1\r\nHost: x\r\na: ", *[filler * 100] * 20])
    assert transport.closing
    assert transport.written.startswith((b"HTTP/1.1 431", b"HTTP/1.1 400"))
