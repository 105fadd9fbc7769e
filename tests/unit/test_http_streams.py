"""HTTP/JSON of methods with a stream of replies: their forms, their pace, and how they end (spec http 7.5).

Numbers are the rows of the test catalogue of google.api.http (spec http 10).
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from stateside.proto import cloudstate
from stateside.proto.status import Status
from tests.unit.transcoding import Client, Desk, rule

INNER = {"output": ".pkg.N", "server_streaming": True}


class Context:
    """What hears of the client."""

    def __init__(self) -> None:
        self.cancelled: list[int] = []
        self.drained = 0

    def on_client_cancel(self, status: int) -> None:
        self.cancelled.append(status)

    def on_client_drain(self) -> None:
        self.drained += 1


class Stream:
    """A call of a method with a stream of replies that waits for what the test says."""

    def __init__(self, verb: str = "GET", method: Any = None, accept: str = "", **more: Any) -> None:
        self.desk = Desk(method or rule(get="/r"), **(INNER | more))
        self.context = Context()
        self.call: Any = None
        self.desk.answer = self._keep
        self.client: Client = self.desk.open(verb, "/r", **({"accept": accept} if accept else {}))

    def _keep(self, call: Any) -> None:
        self.call = call
        call.context = self.context

    def send(self, *texts: str) -> None:
        for text in texts:
            self.call.send(self.desk.make("pkg.N", s=text).SerializeToString())


def test_replies_are_lines_of_json() -> None:  # 85
    stream = Stream()
    assert stream.client.head is None
    stream.send("A")
    assert stream.client.head is not None and stream.client.head.content_type == "application/json"
    assert stream.client.head.status == 200 and stream.client.body == b'{"s":"A","k":0}\n'
    stream.send("B")
    stream.call.finish()
    assert stream.client.body == b'{"s":"A","k":0}\n{"s":"B","k":0}\n' and stream.client.ended is True
    assert stream.desk.face.calls == 0


@pytest.mark.parametrize("accept", ["text/event-stream", "a/b;q=1, Text/Event-Stream ;q=0.5", "text/event-stream-x"])
def test_replies_are_events_for_clients_that_accept_them(accept: str) -> None:  # 86
    stream = Stream(accept=accept)
    stream.send("A", "B")
    assert stream.client.head is not None and stream.client.head.content_type == "text/event-stream"
    assert stream.client.body == b'data:{"s":"A","k":0}\n\ndata:{"s":"B","k":0}\n\n'


def test_other_ranges_change_nothing() -> None:
    stream = Stream(accept="application/xml, x/text/event-stream, */*")
    stream.send("A")
    assert stream.client.body == b'{"s":"A","k":0}\n'


def test_the_selected_field_of_each_reply() -> None:
    stream = Stream(method=rule(get="/r", response_body="s"))
    stream.send("A", "")
    assert stream.client.body == b'"A"\n""\n'


@pytest.mark.parametrize(
    ("entries", "content_type"),
    [
        ([("Content-Type", "image/png")], "image/png"),
        ([("x-a", "b")], "application/octet-stream"),
        ([("content-type", "a\r\nb: c")], "application/octet-stream"),
    ],
)
def test_http_bodies_are_their_bytes(entries: Any, content_type: str) -> None:  # 87
    stream = Stream(output=".google.api.HttpBody")
    metadata = cloudstate.Metadata(entries=[{"key": key, "string_value": value} for key, value in entries])
    stream.call.name_type(metadata.SerializeToString())
    for data in (b"\x89PNG", b"\xff"):
        body = stream.desk.make("google.api.HttpBody", content_type="not/this", data=data)
        stream.call.send(body.SerializeToString())
    stream.call.finish()
    assert stream.client.head is not None and stream.client.head.content_type == content_type
    assert stream.client.body == b"\x89PNG\xff"


def test_http_bodies_as_events_are_json() -> None:
    stream = Stream(output=".google.api.HttpBody", accept="text/event-stream")
    stream.call.send(stream.desk.make("google.api.HttpBody", content_type="a/b", data=b"foo").SerializeToString())
    assert stream.client.body == b'data:{"contentType":"a/b","data":"Zm9v"}\n\n'


def test_metadata_of_the_first_reply_becomes_headers() -> None:
    stream = Stream()
    stream.call.start([(b"x-a", b"1"), (b"x-bin", b"AA")])
    stream.call.start([(b"x-a", b"2")])
    stream.send("A")
    assert stream.client.head is not None and stream.client.head.headers == (("x-a", "1"),)


def test_a_stream_without_replies_is_an_empty_answer() -> None:
    stream = Stream()
    stream.call.finish()
    assert stream.client.head is not None and (stream.client.head.status, stream.client.body) == (200, b"")
    assert stream.client.ended is True


@pytest.mark.parametrize(("status", "http", "body"), [(2, 500, "boom"), (8, 429, '{"code":8,"message":"boom"}')])
def test_a_failure_that_comes_first_has_its_status(status: int, http: int, body: str) -> None:
    stream = Stream()
    stream.call.fail(status, "boom")
    assert stream.client.whole is not None
    assert (stream.client.whole.status, stream.client.whole.body.decode()) == (http, body)
    assert stream.desk.face.calls == 0


def test_a_failure_that_comes_later_cuts_the_answer_off() -> None:
    stream = Stream()
    stream.send("A")
    stream.call.finish(Status.UNKNOWN, "boom")
    assert stream.client.ended is False and stream.client.body == b'{"s":"A","k":0}\n'
    stream.call.finish()
    stream.send("B")
    assert stream.client.pieces == [b'{"s":"A","k":0}\n'] and stream.desk.face.calls == 0


@pytest.mark.parametrize("first", [True, False])
def test_a_reply_that_cannot_be_written_ends_the_call_on_both_sides(first: bool) -> None:
    stream = Stream()
    if not first:
        stream.send("A")
    assert stream.call.send(b"\xff")
    assert stream.context.cancelled == [Status.CANCELLED] and stream.call.ended
    if first:
        assert stream.client.whole is not None and stream.client.whole.status == 500
        assert json.loads(stream.client.whole.body)["code"] == Status.INTERNAL
    else:
        assert stream.client.ended is False


def test_a_client_that_does_not_keep_up_slows_the_method_down() -> None:
    stream = Stream()
    reply = stream.desk.make("pkg.N").SerializeToString()
    assert stream.call.send(reply)
    stream.client.full = True
    assert not stream.call.send(reply)
    stream.call.on_drain()
    assert stream.context.drained == 1


def test_a_client_that_goes_away_cancels_its_call_once() -> None:
    stream = Stream()
    stream.send("A")
    stream.call.detach()
    stream.call.on_gone()
    stream.call.on_gone()
    stream.send("B")
    stream.call.finish()
    assert stream.context.cancelled == [Status.CANCELLED] and stream.client.body == b'{"s":"A","k":0}\n'
    assert stream.client.ended is None and stream.desk.face.calls == 0


def test_a_method_that_takes_a_stream_gets_one_message() -> None:
    desk = Desk(None, output=".pkg.N", client_streaming=True)
    desk.answer = lambda call: call.reply(desk.make("pkg.N", s="x").SerializeToString())
    assert desk.ask("POST", "/pkg.S/M1", '{"id":"a"}').body == b'{"s":"x","k":0}'
    assert desk.asked == [("M1", desk.make(id="a"))]
    assert desk.ask("POST", "/pkg.S/M1", "{").status == 400
