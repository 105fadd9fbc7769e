"""The test catalogue of google.api.http (spec http 10), row by row: each test here is called by its number.

`A` is the message of tests/unit/transcoding.py, carts are those of the shopping cart sample. What differs from the
reference proxy is marked `ours`; docs/compatibility.md has the reasons.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from tck import action_pb2, valueentity_pb2

from examples.shopping_cart.protos.shoppingcart import shoppingcart_pb2 as shop
from stateside.proto import cloudstate
from stateside.proto.status import Status
from stateside.proxy import descriptors
from stateside.proxy.descriptors import SpecError
from stateside.proxy.http_rules import bindings
from tests.unit.transcoding import Desk, Model, build, rule

CASES: dict[int, Callable[[], None]] = {}
CART = "com.example.shoppingcart.ShoppingCart"


class ServiceDesk(Desk):
    """A face before a real service, whose messages arrive as (method, message)."""

    def __init__(self, root: Any, service: str) -> None:
        files: dict[str, FileDescriptorProto] = {}

        def visit(file: Any) -> None:
            for each in file.dependencies:
                visit(each)
            files[file.name] = FileDescriptorProto.FromString(file.serialized_pb)

        visit(root)
        found = bindings(descriptors.build(FileDescriptorSet(file=files.values()).SerializeToString()), [service])
        super().__init__(None)
        self.face.update(Model(found))  # type: ignore[arg-type]
        self.inputs = {each.method: each.input.new for each in found}
        self.pool = found[0].input.new.DESCRIPTOR.file.pool

    def deliver(self, target: str, call: Any, payload: bytes, metadata: bytes | None) -> None:
        self.input_class = self.inputs[target]
        super().deliver(target, call, payload, metadata)


def cart_desk(items: list[dict[str, Any]] | None = None) -> ServiceDesk:
    """The shopping cart; reads are answered with `items`."""
    desk = ServiceDesk(shop.DESCRIPTOR, CART)

    def answer(call: Any) -> None:
        is_read = desk.asked[-1][0] == "GetCart"
        call.reply(shop.Cart(items=items or []).SerializeToString() if is_read else b"")

    desk.answer = answer
    return desk


def row(number: int) -> Callable[[Callable[[], None]], Callable[[], None]]:
    def add(test: Callable[[], None]) -> Callable[[], None]:
        assert number not in CASES
        CASES[number] = test
        return test

    return add


def asks(number: int, rules: list[Any], *requests: tuple[Any, ...]) -> None:
    """Requests `(verb, target, expected)` or `(verb, target, body, content type, expected)`: the fields of the message
    that arrives, or the status of a refusal."""

    @row(number)
    def test() -> None:
        for verb, target, *given, expected in requests:
            desk = Desk(*rules)
            wanted = expected if isinstance(expected, int) else desk.make(**expected)
            assert desk.request(verb, target, *given) == wanted, target


def cart_asks(number: int, body: str, content_type: str, status: int, target: str = "/cart/u1/items/add") -> None:
    """A line is added, or the status of a refusal."""

    @row(number)
    def test() -> None:
        desk = cart_desk()
        response = desk.ask("POST", target, body, content_type)
        assert response.status == status
        if status == 200:
            line = shop.AddLineItem(user_id="u1", product_id="p", name="N", quantity=2)
            (asked,) = desk.asked
            assert asked[0] == "AddItem" and asked[1].SerializeToString() == line.SerializeToString()
            assert response.body == b"{}" and response.content_type == JSON
        else:
            assert not desk.asked and json.loads(response.body)["code"] == Status.INVALID_ARGUMENT


def refused(number: int, text: str, *rules: Any, **more: Any) -> None:
    """The rules are illegal; the text of the error begins so."""

    @row(number)
    def test() -> None:
        with pytest.raises(SpecError) as error:
            build(*rules, **more)
        assert str(error.value).startswith(text) and "pkg.S.M" in str(error.value)


JSON = "application/json"
LINE = '{"productId":"p","name":"N","quantity":2}'

# --- the default rule ------------------------------------------------------------------------------------------------

asks(1, [None], ("POST", "/pkg.S/M1", '{"id":"x"}', JSON, {"id": "x"}))
asks(2, [None], ("POST", "/pkg.S/M1", "{}", JSON, {}))
asks(3, [None], ("GET", "/pkg.S/M1", 405))  # ours: 404 there
asks(4, [rule(get="/x")], ("POST", "/pkg.S/M1", "{}", JSON, 404))

# --- bodies ----------------------------------------------------------------------------------------------------------

cart_asks(5, LINE, JSON, 200)
cart_asks(6, LINE.replace("productId", "product_id"), JSON, 200)
cart_asks(7, LINE.replace("{", '{"userId":"evil",'), JSON, 200)
cart_asks(8, LINE, JSON, 200, target="/cart/u1/items/add?quantity=9")
cart_asks(9, LINE, "text/plain", 400)
cart_asks(10, "", "", 400)
cart_asks(11, LINE, "application/json; charset=utf-8", 200)
cart_asks(12, LINE, "application/json;v=1", 400)
cart_asks(13, LINE, "application/vnd.x+json", 400)
cart_asks(14, '{"nope":1}', JSON, 400)


@row(15)
def _() -> None:
    for body in ("{", "", "null", "[]"):
        assert cart_desk().ask("POST", "/cart/u1/items/add", body, JSON).status == 400


cart_asks(16, LINE.replace("2", '"2"'), JSON, 200)
cart_asks(17, LINE.replace("2", "2.5"), JSON, 400)


@row(18)
def _() -> None:
    for given in ((), ("nonsense", "text/plain")):
        desk = cart_desk()
        assert desk.ask("POST", "/cart/u1/items/p1/remove", *given).body == b"{}"
        ((name, message),) = desk.asked
        assert (name, message.user_id, message.product_id) == ("RemoveItem", "u1", "p1")


# --- carts -----------------------------------------------------------------------------------------------------------

TEA = {"product_id": "p", "name": "N", "quantity": 2}


def reads(number: int, target: str, items: list[dict[str, Any]], expected: str) -> None:
    @row(number)
    def test() -> None:
        desk = cart_desk(items)
        assert desk.ask("GET", target).body == expected.encode()
        assert desk.asked[0][1].user_id == "u1"


reads(19, "/carts/u1", [TEA], '{"items":[{"productId":"p","name":"N","quantity":2}]}')
reads(20, "/carts/u1", [], '{"items":[]}')
reads(21, "/carts/u1/items", [TEA], '[{"productId":"p","name":"N","quantity":2}]')
reads(22, "/carts/u1/items", [], "[]")
reads(23, "/carts/u1/items", [TEA | {"quantity": 0}], '[{"productId":"p","name":"N","quantity":0}]')  # ours


def user(number: int, target: str, expected: str | int) -> None:
    @row(number)
    def test() -> None:
        desk = cart_desk()
        response = desk.ask("GET", target)
        if isinstance(expected, int):
            assert response.status == expected and not desk.asked
        else:
            assert desk.asked[0][1].user_id == expected


user(24, "/carts/", "")
user(25, "/carts/u1/", 404)
user(26, "/Carts/u1", 404)
user(27, "/carts/a%20b", "a b")
user(28, "/carts/a%2Fb", "a/b")
user(29, "/carts/%C3%A9", "é")
user(30, "/carts/a+b", "a+b")  # ours
user(31, "/carts/a%2Bb", "a+b")  # ours
user(32, "/carts/a:b", 404)
user(33, "/carts/a%3Ab", "a:b")  # ours
user(34, "/carts/%zz", 400)

# --- path variables --------------------------------------------------------------------------------------------------

asks(35, [rule(get="/v/{i}")], ("GET", "/v/42", {"i": 42}))
asks(36, [rule(get="/v/{i}")], ("GET", "/v/-7", {"i": -7}), ("GET", "/v/+7", {"i": 7}))
asks(37, [rule(get="/v/{i}")], *(("GET", target, 400) for target in ("/v/abc", "/v/", "/v/2147483648")))  # ours
asks(38, [rule(get="/v/{u}")], ("GET", "/v/3000000000", {"u": 3_000_000_000}))  # ours
asks(39, [rule(get="/v/{u}")], ("GET", "/v/-1", 400))  # ours
asks(
    40, [rule(get="/v/{b}")], ("GET", "/v/TRUE", {"b": True}), ("GET", "/v/False", {"b": False}), ("GET", "/v/yes", 400)
)


@row(41)
def _() -> None:
    assert Desk(rule(get="/v/{d}")).request("GET", "/v/1e3").d == 1000
    assert math.isnan(Desk(rule(get="/v/{d}")).request("GET", "/v/NaN").d)


asks(42, [rule(get="/v/{y}")], ("GET", "/v/Zm9v", {"y": b"foo"}))

# --- query parameters ------------------------------------------------------------------------------------------------

QUERY = [rule(get="/q")]
asks(43, QUERY, ("GET", "/q?id=a&i=1&b=true&d=0.5", {"id": "a", "i": 1, "b": True, "d": 0.5}))
asks(44, QUERY, ("GET", "/q?ns=1&ns=2&ns=3", {"ns": [1, 2, 3]}))
asks(45, QUERY, ("GET", "/q?id=a&id=b", 400))  # ours
asks(46, QUERY, ("GET", "/q?nope=1", 400))  # ours
asks(47, QUERY, ("GET", "/q?n.s=x&n.k=3", {"n": {"s": "x", "k": 3}}))  # ours
asks(48, QUERY, ("GET", "/q?n=x", 400))  # ours
asks(49, QUERY, ("GET", "/q?e=GREEN", {"e": 1}))  # ours
asks(50, QUERY, ("GET", "/q?id=a+b%26c", {"id": "a b&c"}))
asks(51, QUERY, ("GET", "/q?id", {"id": ""}))
asks(52, QUERY, ("GET", "/q?userId=u", {"user_id": "u"}))  # ours
asks(53, [rule(get="/q/{id}")], ("GET", "/q/p?id=z", {"id": "p"}))
asks(54, QUERY, ("GET", "/q", '{"id":"x"}', JSON, {}), ("GET", "/q", "<x/>", "text/xml", {}))

# --- bodies that are a field, and verbs ------------------------------------------------------------------------------

PATCH = [rule(patch="/p/{id}", body="n")]
asks(55, PATCH, ("PATCH", "/p/7?i=5", '{"s":"hi"}', JSON, {"id": "7", "i": 5, "n": {"s": "hi"}}))
asks(56, PATCH, ("PATCH", "/p/7", "{}", JSON, {"id": "7", "n": {}}))
asks(57, PATCH, ("PATCH", "/p/7", "{}", "", 400))
asks(58, PATCH, ("PATCH", "/p/7?i=x", "{}", JSON, 400))
asks(
    59,
    [rule(put="/p/{id}", body="*")],
    ("PUT", "/p/1", "{}", JSON, {"id": "1"}),
    ("POST", "/p/1", "{}", JSON, 405),  # ours: 404 there
)
asks(60, [rule(delete="/p/{id}")], ("DELETE", "/p/1", {"id": "1"}))
asks(61, [rule(get="/g", body="*")], ("GET", "/g", '{"id":"x"}', JSON, {"id": "x"}))
asks(
    62,
    [rule(custom={"kind": "*", "path": "/any/{id}"})],
    *((verb, "/any/1", {"id": "1"}) for verb in ("OPTIONS", "PUT", "GET")),
)

# --- templates -------------------------------------------------------------------------------------------------------

asks(63, [rule(get="/foo/{id=*/a/*}/baz")], ("GET", "/foo/bl/a/h/baz", {"id": "bl/a/h"}))
asks(64, [rule(get="/foo/{id=*/a/*}/baz")], ("GET", "/foo/blah/baz", 404))
asks(
    65,
    [rule(get="/foo/{id=**}")],
    ("GET", "/foo/blah/baz", {"id": "blah/baz"}),
    ("GET", "/foo/", {"id": ""}),
    ("GET", "/foo", 404),
)
asks(66, [rule(get="/foo/{id}:watch")], ("GET", "/foo/x:watch", {"id": "x"}), ("GET", "/foo/x", 404))
asks(67, [rule(get="/foo/{id=**}:watch")], ("GET", "/foo/a/b:c:watch", {"id": "a/b:c"}))
asks(68, [rule(get="/foo/*/bar/{id}")], ("GET", "/foo/anything/bar/1", {"id": "1"}))
asks(69, [rule(get="/v1/{id=messages/*}")], ("GET", "/v1/messages/123", {"id": "messages/123"}))

# --- illegal rules ---------------------------------------------------------------------------------------------------

refused(
    70,
    "HTTP API Config: Repeated parameters [pkg.A.ss] are not allowed as path variables",
    rule(get="/foo/{id}"),
    rule(get="/foo/{ss}"),
)
refused(71, "Template must start with a slash at character 1 of 'foo'", rule(get="foo"))
refused(72, "Unclosed variable or unexpected character at character 10 of", rule(get="/foo/{bar*}"))
refused(73, "Unclosed variable or unexpected character at end of input of '/foo/{bar'", rule(get="/foo/{bar"))
refused(74, "Expected '/', ':', path literal character, or end of input at character 3 of '/f*o'", rule(get="/f*o"))
refused(75, "Unclosed variable or unexpected character at character 13 of", rule(get="/foo/{bar=ba*}"))
refused(76, "Variable segments may not be nested at character 11 of", rule(get="/foo/{bar={baz}}"))
refused(
    77,
    "Duplicate path in template at character 16 of '/{duplicated}/{duplicated}'",
    rule(get="/{duplicated}/{duplicated}"),
)
refused(
    78,
    "HTTP API Config: Body configured to [not-available] but that field does not exist on input type.",
    rule(get="/foo", body="not-available"),
)
refused(
    79,
    "HTTP API Config: Response body field [not-available] does not exist on type [pkg.N]",
    rule(get="/foo", response_body="not-available"),
    output=".pkg.N",
)
refused(
    80, "HTTP API Config: Rule selector [wrongSelector] must be empty or [pkg.S.M1]", rule(selector="wrongSelector")
)


@row(81)
def _() -> None:
    inner = rule(get="/b")
    inner.additional_bindings.add(get="/c")
    outer = rule(get="/a")
    outer.additional_bindings.append(inner)
    with pytest.raises(SpecError, match="Only one level of additionalBindings supported, but"):
        build(outer)


@row(82)
def _() -> None:
    desk = Desk(rule(get="/same/{id}"), rule(get="/same/{id}"))
    desk.ask("GET", "/same/1")
    assert desk.asked[0][0] == "M2"


# --- replies ---------------------------------------------------------------------------------------------------------


def replied(desk: Desk, message: Any, headers: Any = ()) -> Any:
    desk.answer = lambda call: call.reply(message.SerializeToString(), headers)
    return desk.ask("GET", "/r")


def streamed(desk: Desk, messages: list[Any], metadata: dict[str, str] | None = None, **headers: str) -> Any:
    """The client of a stream of replies."""

    def answer(call: Any) -> None:
        entries = [{"key": key, "string_value": value} for key, value in (metadata or {}).items()]
        call.name_type(cloudstate.Metadata(entries=entries).SerializeToString())
        for message in messages:
            call.send(message.SerializeToString())
        call.finish()

    desk.answer = answer
    return desk.open("GET", "/r", **headers)


@row(83)
def _() -> None:
    desk = Desk(rule(get="/r"), output=".google.api.HttpBody")
    page = replied(desk, desk.make("google.api.HttpBody", content_type="text/html", data=b"<p>"))
    assert (page.status, page.content_type, page.body) == (200, "text/html", b"<p>")


@row(84)
def _() -> None:
    desk = Desk(rule(get="/r"), output=".google.api.HttpBody")
    assert replied(desk, desk.make("google.api.HttpBody", data=b"<p>")).content_type == ""


@row(85)
def _() -> None:
    desk = Desk(rule(get="/r", response_body="s"), output=".pkg.N", server_streaming=True)
    client = streamed(desk, [desk.make("pkg.N", s="A"), desk.make("pkg.N", s="B")])
    assert (client.head.content_type, client.body, client.ended) == (JSON, b'"A"\n"B"\n', True)


@row(86)
def _() -> None:
    desk = Desk(rule(get="/r"), output=".pkg.N", server_streaming=True)
    client = streamed(desk, [desk.make("pkg.N", s="A"), desk.make("pkg.N", s="B")], accept="text/event-stream")
    assert client.head.content_type == "text/event-stream"
    assert client.body == b'data:{"s":"A","k":0}\n\ndata:{"s":"B","k":0}\n\n'


@row(87)
def _() -> None:
    desk = Desk(rule(get="/r"), output=".google.api.HttpBody", server_streaming=True)
    parts = [desk.make("google.api.HttpBody", data=data) for data in (b"\x89P", b"NG")]
    client = streamed(desk, parts, {"Content-Type": "image/png"})
    assert (client.head.content_type, client.body) == ("image/png", b"\x89PNG")


def fails(number: int, text: str) -> None:
    @row(number)
    def test() -> None:
        desk = Desk(rule(get="/r"))
        desk.answer = lambda call: call.fail(Status.UNKNOWN, text)
        response = desk.ask("GET", "/r")
        assert (response.status, response.body.decode()) == (500, text)


fails(88, "boom")
fails(89, "Unexpected entity failure")


@row(90)
def _() -> None:
    desk = Desk(rule(get="/r"))
    assert replied(desk, desk.make(), [(b"x-foo", b"1")]).headers == (("x-foo", "1"),)


@row(91)
def _() -> None:
    desk = Desk(rule(get="/r"))
    assert json.loads(replied(desk, desk.make(l=(1 << 53) + 1)).body)["l"] == "9007199254740993"


@row(92)
def _() -> None:
    desk = Desk(rule(get="/r"))
    found = json.loads(replied(desk, desk.make()).body)
    assert not {"n", "x", "z", "o"} & set(found)
    assert (found["id"], found["b"], found["i"], found["ns"], found["m"], found["e"]) == ("", False, 0, [], {}, "RED")


@row(93)
def _() -> None:
    desk = Desk(rule(get="/r"))
    found = json.loads(replied(desk, desk.make(y=b"foo", e=1, t={"seconds": 5})).body)
    assert (found["y"], found["e"], found["t"]) == ("Zm9v", "GREEN", "1970-01-01T00:00:05Z")


# --- the TCK's models, and what no rule fits -------------------------------------------------------------------------


def tck(number: int, root: Any, service: str, target: str, body: str, reply: Any, expected: str) -> None:
    @row(number)
    def test() -> None:
        desk = ServiceDesk(root, service)
        desk.answer = lambda call: call.reply(reply.SerializeToString())
        response = desk.ask("POST", target, body)
        assert (response.status, response.body.decode()) == (200, expected)


ACTION = "cloudstate.tck.model.action.ActionTckModel"
ENTITY = "cloudstate.tck.model.valueentity"
ONE = f"{ENTITY}.ValueEntityTckModel"
FOO = '{"groups": [{"steps": [{"reply": {"message": "foo"}}]}]}'
NOTHING = valueentity_pb2.Response()
tck(
    94,
    action_pb2.DESCRIPTOR,
    ACTION,
    "/tck/model/action/unary",
    FOO,
    action_pb2.Response(message="foo"),
    '{"message":"foo"}',
)
tck(
    95,
    valueentity_pb2.DESCRIPTOR,
    f"{ENTITY}.ValueEntityTckModel",
    "/tck/model/entity/a",
    "{}",
    NOTHING,
    '{"message":""}',
)
TWO = f"{ENTITY}.ValueEntityTwo"
tck(96, valueentity_pb2.DESCRIPTOR, TWO, f"/{TWO}/Call", '{"id": "x"}', NOTHING, '{"message":""}')


@row(97)
def _() -> None:
    response = Desk(None).ask("GET", "/", k_network_probe="queue")
    assert (response.status, response.body) == (200, b"queue")


@row(98)
def _() -> None:
    response = Desk(None).ask("GET", "/", k_network_probe="x")
    assert (response.status, response.body) == (400, b"unexpected probe header value: x")


@row(99)
def _() -> None:
    assert Desk(None).ask("GET", "/").status == 404


# --- all of them -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", sorted(CASES))
def test_row(number: int) -> None:
    CASES[number]()


def test_no_row_is_missing() -> None:
    assert sorted(CASES) == list(range(1, 100))
