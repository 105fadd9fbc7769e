"""HTTP/JSON under requests of any bytes: each gets an answer, errors say where and why, and nothing escapes."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from stateside.proxy.exchange import Later, Request, Response
from tests.unit.transcoding import JSON, Client, Desk, rule

DESK = Desk(
    rule(get="/q/{id}"),
    rule(get="/n/{n.deep.s}/{t}/{e}"),
    rule(post="/all/{i}", body="*"),
    rule(put="/part/{id}", body="n"),
    rule(patch="/when", body="t"),
    rule(post="/raw", body="raw"),
    rule(custom={"kind": "*", "path": "/any/{id=**}:go"}),
    None,
)
STREAMS = Desk(rule(get="/q/{id}"), rule(post="/all/{i}", body="*"), output=".pkg.N", server_streaming=True)

PATHS = [b"/q/", b"/n/a/b/c", b"/all/7", b"/part/1", b"/when", b"/raw", b"/any/x:go", b"/pkg.S/M8", b"*"]
paths = st.sampled_from(PATHS)
NAMES = ["id", "i", "l", "u", "f", "d", "y", "e", "ns", "n", "n.s", "n.deep.k", "m", "m.key", "t", "w", "w.value"]
names = st.sampled_from([*NAMES, "j", "x", "z", "o", "raw", "raw.data", "userId"])
TEXTS = ["7", "-1", "1e3", "x", "GREEN", "true", "AA==", "1970-01-01T00:00:00Z", "5s", "", "%ff", "%zz"]
texts = st.sampled_from(TEXTS)
queries = st.lists(st.tuples(names, texts | st.text(max_size=3)), max_size=4).map(
    lambda pairs: "&".join(f"{name}={text}" for name, text in pairs).encode()
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names | st.text(max_size=3), inner, max_size=4),
    max_leaves=8,
)
bodies = st.binary(max_size=20) | values.map(lambda value: json.dumps(value).encode())
types = st.sampled_from([JSON, JSON, JSON + ";charset=latin-1", "text/plain", "", "application/json;;=;\x80"])
verbs = st.sampled_from(["GET", "POST", "PUT", "PATCH", "HEAD", "DELETE", "BREW", ""])
fields = st.lists(st.tuples(st.binary(max_size=4), st.binary(max_size=6)), max_size=3)


@settings(max_examples=400, deadline=None)
@given(verbs, paths | st.binary(max_size=12), queries | st.binary(max_size=12), bodies, types, fields)
def test_every_request_gets_an_answer(
    verb: str, path: bytes, query: bytes, body: bytes, content_type: str, more: list[tuple[bytes, bytes]]
) -> None:
    headers = {"content-type": content_type, "accept": "text/event-stream"}
    for desk in (DESK, STREAMS):
        request = Request(verb, path + b"?" + query, "", headers, more, body)
        answer = answer_of(desk.face.route(request))
        assert desk.face.calls == 0
        if answer.status == 400 and answer.content_type == JSON:
            said: dict[str, Any] = json.loads(answer.body)
            assert said["code"] == 3 and said["message"].startswith("pkg.S.M") and len(answer.body) < 2000
        assert answer.status in (200, 400, 404, 405)


def answer_of(answer: Response | Later) -> Response:
    if isinstance(answer, Response):
        return answer
    client = Client()
    answer.attach(client)
    found = client.whole or client.head
    assert found is not None
    return found
