"""CORS: who is allowed what, and that every answer says so."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import pytest

from stateside.proxy.config import ConfigError, Settings, load
from stateside.proxy.cors import Cors
from stateside.proxy.exchange import Later, Request, Response, Upgrade
from stateside.proxy.http_route import HttpRoute

SHOP = "https://shop.example"


class Face:
    """Stands for gRPC-web and HTTP/JSON: POST and GET of /served."""

    def __init__(self, answer: Response | Later | None = None) -> None:
        self.answer = answer or Response(HTTPStatus.OK, b"here", headers=(("x-own", "1"),))
        self.asked: list[Request] = []

    def recognizes(self, request: Request) -> bool:
        return request.headers.get("content-type") == "application/grpc-web"

    def route(self, request: Request) -> Response | Later:
        self.asked.append(request)
        return self.answer

    def lookup(self, path: bytes) -> Any:
        return self if path == b"/served" else None

    def verbs(self, request: Request) -> list[str]:
        return {b"/served": ["GET", "HEAD"], b"/any": ["*"]}.get(request.target, [])


def route(**settings: Any) -> tuple[HttpRoute, Face]:
    face = Face()
    return HttpRoute(face, face, Cors(Settings(**settings))), face  # type: ignore[arg-type]


def request(method: str = "POST", target: bytes = b"/served", **headers: str) -> Request:
    return Request(method, target, headers={name.replace("_", "-"): value for name, value in headers.items()})


def preflight(target: bytes = b"/served", origin: str = SHOP, method: str = "POST", headers: str = "") -> Request:
    return request(
        "OPTIONS",
        target,
        origin=origin,
        access_control_request_method=method,
        access_control_request_headers=headers,
    )


def answered(asked: Request, **settings: Any) -> dict[str, str]:
    """CORS headers and `vary` of an answer."""
    answer = route(**settings)[0](asked)
    assert isinstance(answer, Response)
    return {name: value for name, value in answer.headers if name.startswith(("access-control-", "vary"))}


def test_off_by_default_nothing_is_added_and_options_is_an_ordinary_request() -> None:
    on_its_way, face = route()
    assert on_its_way(request(origin=SHOP)) is face.answer
    assert on_its_way(preflight()) is face.answer


def test_any_origin() -> None:
    assert answered(request(origin=SHOP), cors_allow_origins=("*",)) == {
        "access-control-allow-origin": "*",
        "access-control-expose-headers": "grpc-status, grpc-message, grpc-status-details-bin",
    }


def test_a_listed_origin_is_named_and_answers_vary_with_it() -> None:
    found = answered(request(origin=SHOP), cors_allow_origins=(SHOP, "null"), cors_expose_headers=())
    assert found == {"access-control-allow-origin": SHOP, "vary": "origin"}


@pytest.mark.parametrize("origin", ["https://evil.example", "https://shop.example.evil", "http://shop.example", ""])
def test_other_origins_are_served_without_leave_to_read_the_answer(origin: str) -> None:
    assert answered(request(origin=origin), cors_allow_origins=(SHOP,)) == {"vary": "origin"}


def test_no_origin_no_leave_but_caches_are_warned() -> None:
    assert answered(request(), cors_allow_origins=(SHOP,)) == {"vary": "origin"}
    assert answered(request(), cors_allow_origins=("*",)) == {}


def test_credentials() -> None:
    found = answered(request(origin=SHOP), cors_allow_origins=(SHOP,), cors_allow_credentials=True)
    assert (found["access-control-allow-origin"], found["access-control-allow-credentials"]) == (SHOP, "true")


def test_a_preflight_is_answered_for_both_faces_without_asking_them() -> None:
    on_its_way, face = route(cors_allow_origins=(SHOP,), cors_max_age=60.0)
    answer = on_its_way(preflight(headers="x-grpc-web"))
    assert isinstance(answer, Response)
    assert (answer.status, answer.body) == (HTTPStatus.OK, b"")
    assert dict(answer.headers) == {
        "access-control-allow-origin": SHOP,
        "access-control-allow-methods": "GET, HEAD, POST",
        "access-control-allow-headers": "content-type, authorization, grpc-timeout, x-grpc-web, x-user-agent",
        "access-control-max-age": "60",
        "vary": "origin, access-control-request-method, access-control-request-headers",
    }
    assert face.asked == []


def test_a_preflight_of_a_path_that_takes_any_verb_allows_the_one_that_is_asked_for() -> None:
    found = answered(preflight(b"/any", method="PUT"), cors_allow_origins=("*",))
    assert found["access-control-allow-methods"] == "PUT"


def test_all_headers_are_allowed_by_naming_those_that_are_asked_for() -> None:
    asked = preflight(headers="X-One, x-two,bad name,")
    found = answered(asked, cors_allow_origins=("*",), cors_allow_headers=("*",))
    assert found["access-control-allow-headers"] == "X-One, x-two"


def test_a_preflight_of_another_origin_is_forbidden() -> None:
    answer = route(cors_allow_origins=(SHOP,))[0](preflight(origin="https://evil.example"))
    assert isinstance(answer, Response)
    assert answer.status == HTTPStatus.FORBIDDEN
    assert not [name for name, _ in answer.headers if name.startswith("access-control-")]


def test_a_preflight_of_a_path_that_nobody_serves_goes_the_way_of_all_requests() -> None:
    on_its_way, face = route(cors_allow_origins=("*",))
    on_its_way(preflight(b"/nowhere"))
    assert [asked.method for asked in face.asked] == ["OPTIONS"]


@pytest.mark.parametrize("in_pieces", [False, True])
def test_an_answer_that_comes_later_has_the_headers_too(in_pieces: bool) -> None:
    class Carrier:
        said: list[Any] = []  # noqa: RUF012

        def answer(self, response: Response) -> None:
            self.said.append(response)

        def begin(self, head: Response) -> None:
            self.said.append(head)

        def write(self, data: bytes) -> bool:
            self.said.append(data)
            return False

        def end(self, complete: bool) -> None:
            self.said.append(complete)

    class Call(Later):
        gone = drained = 0

        def on_gone(self) -> None:
            self.gone += 1

        def on_drain(self) -> None:
            self.drained += 1

    carrier, call = Carrier(), Call()
    carrier.said = []
    face = Face(call)
    later = HttpRoute(face, face, Cors(Settings(cors_allow_origins=("*",))))(request(origin=SHOP))  # type: ignore[arg-type]
    assert isinstance(later, Later)
    head = Response(HTTPStatus.OK, b"x", headers=(("x-own", "1"),))
    if in_pieces:
        call.begin(head)
        later.attach(carrier)
        assert call.write(b"y") is False
        call.end(False)
        assert carrier.said[1:] == [b"y", False]
    else:
        later.attach(carrier)
        call.answer(head)
    names = [name for name, _ in carrier.said[0].headers]
    assert names == ["x-own", "access-control-allow-origin", "access-control-expose-headers"]
    later.on_drain()
    later.on_gone()
    assert (call.gone, call.drained) == (1, 1)


@pytest.mark.parametrize(
    ("origin", "is_served"),
    [
        (SHOP, True),
        ("https://proxy.example:9000", True),
        ("https://evil.example", False),
        ("https://evil.example/proxy.example:9000", False),
        ("null", False),
    ],
)
def test_pages_of_other_origins_may_not_open_a_websocket(origin: str, is_served: bool) -> None:
    """Browsers do not ask before they open one. The proxy's own origin is no other."""
    on_its_way, face = route(cors_allow_origins=(SHOP,))
    face.answer = Upgrade()
    offer = {"host": "proxy.example:9000", "upgrade": "websocket", "connection": "Upgrade", "origin": origin}
    answer = on_its_way(Request("GET", b"/served", headers=offer))
    assert (answer is face.answer) is is_served
    assert is_served or (isinstance(answer, Response) and answer.status == HTTPStatus.FORBIDDEN)


def test_credentials_for_everybody_are_refused_at_the_start() -> None:
    with pytest.raises(ConfigError, match=r"cors_allow_credentials = true: must not be with cors_allow_origins = \*"):
        load({"cors_allow_origins": "*", "cors_allow_credentials": "true"})


@pytest.mark.parametrize("text", ["shop.example", "https://shop.example/path", "https://", "https://a b", "a,,b"])
def test_what_is_no_origin_is_refused_at_the_start(text: str) -> None:
    with pytest.raises(ConfigError, match="cors_allow_origins = .*: must be a list, with commas, of origins"):
        load({"cors_allow_origins": text})


def test_lists_may_be_written_with_commas_or_as_arrays(tmp_path: Any) -> None:
    file = tmp_path / "stateside.toml"
    file.write_text('cors_allow_origins = ["https://a.example", "https://b.example"]\ncors_expose_headers = []\n')
    assert load(toml_path=file).cors_allow_origins == ("https://a.example", "https://b.example")
    assert load(toml_path=file).cors_expose_headers == ()
    found = load({"cors_allow_origins": "https://a.example, https://b.example", "cors_allow_headers": "X-A,x-a"})
    assert (found.cors_allow_origins, found.cors_allow_headers) == (
        ("https://a.example", "https://b.example"),
        ("x-a",),
    )
