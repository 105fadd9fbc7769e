"""HTTP/JSON: path templates, which request is which method, what message it becomes, and how replies are written.

Numbers are the rows of the test catalogue of google.api.http (spec http 10).
"""

from __future__ import annotations

import json
import math
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stateside.proto import cloudstate
from stateside.proto.status import Status
from stateside.proxy import templates, transcode
from stateside.proxy.descriptors import SpecError
from tests.unit.transcoding import JSON, Desk, build, rule

ADD = rule(post="/cart/{user_id}/items/add", body="*")


# --- templates -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "path", "captures"),
    [
        ("/foo", "/foo", ()),
        ("/foo", "/bar", None),
        ("/", "/", ()),
        ("/a//b", "/a//b", ()),
        ("/a:", "/a:", ()),
        ("/foo/{bar}/baz", "/foo", None),
        ("/foo/{bar}/baz", "/foo/bl/ah/baz", None),
        ("/foo/{bar}/baz", "/foo/blah/baz", ("blah",)),
        ("/foo/{bar}/baz", "/foo//baz", ("",)),
        ("/foo/{bar}/baz/{other}", "/foo/blah/baz", None),
        ("/foo/{bar}/baz/{other}", "/foo/blah/baz/blah2", ("blah", "blah2")),
        ("/foo/{id=*/a/*}/baz", "/foo/bl/a/h/baz", ("bl/a/h",)),  # 63
        ("/foo/{id=*/a/*}/baz", "/foo/blah/baz", None),  # 64
        ("/foo/{id=**}", "/foo/blah/baz", ("blah/baz",)),  # 65
        ("/foo/{id=**}", "/foo/", ("",)),
        ("/foo/{id=**}", "/foo", None),
        ("/foo/{id}:watch", "/foo/x:watch", ("x",)),  # 66
        ("/foo/{id}:watch", "/foo/x", None),
        ("/foo/{id=**}:watch", "/foo/a/b:c:watch", ("a/b:c",)),  # 67
        ("/foo/*/bar/{id}", "/foo/anything/bar/1", ("1",)),  # 68
        ("/v1/{id=messages/*}", "/v1/messages/123", ("messages/123",)),  # 69
        ("/v1/{a.b.c=x/**}", "/v1/x/y/z", ("x/y/z",)),
        ("/a b/é", "/a%20b/%C3%A9", ()),
        ("/f.o+", "/fxoo", None),
        ("/50%", "/50%25", ()),
    ],
)
def test_templates_match(template: str, path: str, captures: tuple[str, ...] | None) -> None:
    parsed = templates.parse(template)
    assert parsed.match(templates.canonical(path.encode())) == captures
    assert parsed.literal is None or parsed.match(parsed.literal) == ()


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("foo", "Template must start with a slash at character 1"),  # 71
        ("", "Template must start with a slash at character 1"),
        ("/foo/{bar*}", "Unclosed variable or unexpected character at character 10"),  # 72
        ("/foo/{bar", "Unclosed variable or unexpected character at end of input"),  # 73
        ("/f*o", "Expected '/', ':', path literal character, or end of input at character 3"),  # 74
        ("/{id}.html", "Expected '/', ':', path literal character, or end of input at character 6"),
        ("/foo/{bar=ba*}", "Unclosed variable or unexpected character at character 13"),  # 75
        ("/foo/{bar={baz}}", "Variable segments may not be nested at character 11"),  # 76
        ("/{duplicated}/{duplicated}", "Duplicate path in template at character 16"),  # 77
        ("/{_a}", "Expected identifier first letter, but got '_' at character 3"),
        ("/{}", "Expected identifier first letter, but got '}' at end of input"),
        (
            "/**/a",
            "Multi segment matchers (**) may only be in the last position of the template at character 2",
        ),
        (
            "/{a=**}/{b}",
            "Multi segment matchers (**) may only be in the last position of the template at character 5",
        ),
    ],
)
def test_wrong_templates_are_told_with_their_place(template: str, problem: str) -> None:
    with pytest.raises(templates.TemplateError) as caught:
        templates.parse(template)
    assert str(caught.value) == f"{problem} of '{template}'"


def test_escapes_are_compared_in_one_spelling() -> None:
    assert templates.canonical(b"/%63art/%c3%a9%2f%3a") == "/cart/%C3%A9%2F%3A"
    for bad in (b"/%zz", b"/%4", b"/\xc3\xa9"):
        with pytest.raises(ValueError, match="percent-encoding"):
            templates.canonical(bad)


# --- illegal rules ---------------------------------------------------------------------------------------------------


def nested_additional() -> Any:
    made = rule(get="/a")
    made.additional_bindings.add(get="/b").additional_bindings.add(get="/c")
    return made


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        (rule(selector="wrongSelector"), "Rule selector [wrongSelector] must be empty or [pkg.S.M1]"),  # 80
        (rule(), "Pattern missing for rule []!"),
        (
            rule(custom={"kind": "HEAD", "path": "/a"}),
            "Only Custom patterns with [*] kind supported but [HEAD] found!",
        ),
        (
            rule(get="/{nope}"),
            "Unknown field name [nope] in type [pkg.A] reference in path template for method [pkg.S.M1]",
        ),
        (
            rule(get="/{n.nope}"),
            "Unknown field name [n.nope] in type [pkg.A] reference in path template for method [pkg.S.M1]",
        ),
        (rule(get="/foo/{ss}"), "Repeated parameters [pkg.A.ss] are not allowed as path variables"),  # 70
        (rule(get="/foo/{m}"), "Repeated parameters [pkg.A.m] are not allowed as path variables"),
        (rule(get="/foo/{n}"), "Message path parameters not supported!"),
        (
            rule(get="/foo", body="not-available"),
            "Body configured to [not-available] but that field does not exist on input type.",
        ),  # 78
        (rule(put="/foo", body="ss"), "Body configured to [ss] but that field is a repeated field."),
        (
            rule(get="/foo", response_body="not-available"),
            "Response body field [not-available] does not exist on type [pkg.A]",
        ),  # 79
    ],
)
def test_illegal_rules_are_errors_of_discovery(wrong: Any, problem: str) -> None:
    with pytest.raises(SpecError) as caught:
        build(wrong)
    assert str(caught.value) == f"HTTP API Config: {problem} (method pkg.S.M1)"


def test_bindings_of_bindings_are_refused() -> None:  # 81
    with pytest.raises(SpecError, match="Only one level of additionalBindings supported"):
        build(nested_additional())


def test_a_wrong_template_names_its_method() -> None:
    with pytest.raises(SpecError, match=r"^Template must start with a slash .* \(method pkg\.S\.M2\)$"):
        build(None, rule(get="foo"))


# --- which method ----------------------------------------------------------------------------------------------------


def test_a_method_without_a_rule_is_a_post_to_its_path() -> None:  # 1, 2
    desk = Desk(None)
    assert desk.request("POST", "/pkg.S/M1", '{"id":"x"}') == desk.make(id="x")
    assert desk.request("POST", "/pkg.S/M1", "{}") == desk.make()


def test_a_method_with_a_rule_has_no_other_path() -> None:  # 4
    assert Desk(rule(get="/x")).request("POST", "/pkg.S/M1", "{}") == 404


def test_only_the_verb_is_wrong() -> None:  # 3, 59
    response = Desk(None, rule(put="/p/{id}", body="*"), rule(get="/p/{user_id}")).ask("POST", "/p/1", "{}")
    assert (response.status, response.headers) == (405, (("allow", "GET, HEAD, PUT"),))
    assert Desk(None).ask("GET", "/pkg.S/M1").headers == (("allow", "POST"),)


def test_what_was_declared_last_comes_first() -> None:  # 82
    desk = Desk(rule(get="/a"), rule(get="/a"))
    desk.ask("GET", "/a")
    assert desk.asked.pop()[0] == "M2"
    desk = Desk(rule(get="/a/{id}"), rule(get="/a/b"))
    desk.ask("GET", "/a/b")
    assert desk.asked.pop()[0] == "M2"
    desk = Desk(rule(get="/a/b"), rule(get="/a/{id}"))
    desk.ask("GET", "/a/b")
    assert desk.asked.pop()[0] == "M2"


def test_additional_bindings_have_bodies_of_their_own() -> None:
    made = rule(post="/a", body="*")
    made.additional_bindings.add(get="/b/{id}")
    desk = Desk(made)
    assert desk.request("POST", "/a", '{"id":"x"}') == desk.make(id="x")
    assert desk.request("GET", "/b/y?i=1") == desk.make(id="y", i=1)


@pytest.mark.parametrize("verb", ["GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS"])
def test_a_custom_star_is_every_verb(verb: str) -> None:  # 62
    desk = Desk(rule(custom={"kind": "*", "path": "/any/{id}"}))
    assert desk.request(verb, "/any/1") == desk.make(id="1")


@pytest.mark.parametrize("verb", ["get", "put", "post", "delete", "patch"])
def test_verbs(verb: str) -> None:  # 60
    desk = Desk(rule(**{verb: "/p/{id}"}))
    assert desk.request(verb.upper(), "/p/1") == desk.make(id="1")
    assert desk.request("OPTIONS", "/p/1") == 405


def test_head_is_a_get() -> None:
    desk = Desk(rule(get="/p/{id}"))
    assert desk.request("HEAD", "/p/1") == desk.make(id="1")


def test_a_whole_url_is_its_path() -> None:
    desk = Desk(rule(get="/p/{id}"))
    assert desk.request("GET", "http://host:80/p/1?i=2") == desk.make(id="1", i=2)


# --- bodies ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "body", "content_type"),
    [
        ("/cart/u1/items/add", '{"id":"p","i":2}', JSON),  # 5
        ("/cart/u1/items/add", '{"id":"p","i":2,"userId":"evil"}', JSON),  # 7
        ("/cart/u1/items/add", '{"id":"p","i":2,"user_id":"evil"}', JSON),  # 6, 7
        ("/cart/u1/items/add?i=9", '{"id":"p","i":2}', JSON),  # 8
        ("/cart/u1/items/add", '{"id":"p","i":2}', "application/json; charset=utf-8"),  # 11
        ("/cart/u1/items/add", '{"id":"p","i":2}', "Application/JSON"),
        ("/cart/u1/items/add", '{"id":"p","i":"2"}', JSON),  # 16
        ("/cart/u1/items/add", ' {"id":"p", "i":2.0, "b": null}\n', JSON),
    ],
)
def test_the_body_is_the_message(target: str, body: str, content_type: str) -> None:
    desk = Desk(ADD)
    assert desk.request("POST", target, body, content_type) == desk.make(user_id="u1", id="p", i=2)


@pytest.mark.parametrize(
    "content_type", ["", "text/plain", "application/json;v=1", "application/vnd.x+json", "text/json"]
)
def test_other_content_types_are_refused(content_type: str) -> None:  # 9, 10, 12, 13
    response = Desk(ADD).ask("POST", "/cart/u1/items/add", "{}", content_type)
    assert response.status == 400 and b"application/json" in response.body


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b'{"nope":1}', '"nope"'),  # 14
        (b"{", "valid JSON"),  # 15
        (b"", "valid JSON"),
        (b"null", "null"),
        (b"[]", "JSON object"),
        (b'"x"', "JSON object"),
        (b'{"i":2.5}', "i field"),  # 17
        (b'{"i":"x"}', "i field"),
        (b'{"i":2147483648}', "i field"),
        (b'{"b":1}', "b field"),
        (b'{"e":"BLUE"}', "BLUE"),
        (b'{"n":{"k":"x"}}', "k field"),
        (b'{"n":5}', "n"),
        (b'{"ns":5}', "ns"),
        (b'{"ns":[null]}', "ns"),
        (b'{"m":5}', "m field"),
        (b'{"t":"yesterday"}', "t"),
        (b'{"t":5}', "t"),
        (b'{"w":{}}', "w"),
        (b'{"y":5}', ""),
        (b'{"x":"1","z":2}', "oneof"),
        (b'{"i":1,"i":2}', "twice"),
        (b'{"id":"\xff"}', "UTF-8"),
        (b'{"id":"\\ud800"}', ""),
        (b'{"i":' + b"9" * 5000 + b"}", ""),
        (b'{"n":' + b'{"deep":' * 5000 + b"{}" + b"}" * 5001, ""),
        (b"[" * 200_000, ""),
        (b'{"j":' + b'{"a":' * 500 + b"1" + b"}" * 501, ""),
    ],
)
def test_what_is_wrong_with_a_body_is_named(body: bytes, named: str) -> None:
    desk = Desk(ADD)
    response = desk.ask("POST", "/cart/u1/items/add", body, JSON)
    answer = json.loads(response.body)
    assert (response.status, response.content_type, answer["code"]) == (400, JSON, Status.INVALID_ARGUMENT)
    assert answer["message"].startswith("pkg.S.M1: ") and named in answer["message"]
    assert not desk.asked and len(response.body) < 1000


def test_without_a_body_in_the_rule_any_is_ignored() -> None:  # 18, 54
    desk = Desk(rule(post="/cart/{user_id}/items/{id}/remove"))
    expected = desk.make(user_id="u1", id="p1")
    assert desk.request("POST", "/cart/u1/items/p1/remove") == expected
    assert desk.request("POST", "/cart/u1/items/p1/remove", "nonsense", "text/plain") == expected


def test_the_body_is_a_field() -> None:  # 55 - 58
    desk = Desk(rule(patch="/p/{id}", body="n"))
    expected = desk.make(id="7", i=5)
    expected.n.s = "hi"
    assert desk.request("PATCH", "/p/7?i=5", '{"s":"hi"}') == expected
    assert desk.request("PATCH", "/p/7?i=5&n.k=9", '{"s":"hi"}') == expected
    assert desk.request("PATCH", "/p/7", "{}").HasField("n")
    assert desk.request("PATCH", "/p/7", "{}", "") == 400
    assert desk.request("PATCH", "/p/7?i=x", "{}") == 400
    assert desk.request("PATCH", "/p/7", '{"s":"hi"},"i":5') == 400
    assert desk.request("PATCH", "/p/7", "null") == 400


def test_the_body_may_be_a_scalar_or_a_well_known_type() -> None:
    desk = Desk(rule(put="/i", body="i"), rule(put="/t", body="t"), rule(put="/j", body="j"))
    assert desk.request("PUT", "/i", "7") == desk.make(i=7)
    assert desk.request("PUT", "/t", '"1970-01-01T00:00:05Z"').t.seconds == 5
    assert desk.request("PUT", "/j", '{"a":[1,null]}').j["a"][0] == 1
    assert desk.request("PUT", "/i", '{"i":7}') == 400


def test_a_get_may_have_a_body() -> None:  # 61
    desk = Desk(rule(get="/g", body="*"))
    assert desk.request("GET", "/g", '{"id":"x"}') == desk.make(id="x")


def test_an_http_body_is_the_body_as_it_came() -> None:
    desk = Desk(rule(put="/raw/{id}", body="raw"))
    expected = desk.make(id="1")
    expected.raw.content_type = "image/png"
    expected.raw.data = b"\x89PNG"
    assert desk.request("PUT", "/raw/1", b"\x89PNG", "image/png") == expected
    whole = Desk(rule(put="/raw", body="*"), input=".google.api.HttpBody")
    assert whole.request("PUT", "/raw", b"\xff", "a/b") == whole.make(
        "google.api.HttpBody", content_type="a/b", data=b"\xff"
    )


# --- path variables --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("/carts/u1", "u1"),  # 19
        ("/carts/", ""),  # 24
        ("/carts/u1/", 404),  # 25
        ("/Carts/u1", 404),  # 26
        ("/carts/a%20b", "a b"),  # 27
        ("/carts/a%2Fb", "a/b"),  # 28
        ("/carts/%C3%A9", "é"),  # 29
        ("/carts/a+b", "a+b"),  # 30
        ("/carts/a%2Bb", "a+b"),  # 31
        ("/carts/a:b", 404),  # 32
        ("/carts/a%3Ab", "a:b"),  # 33
        ("/carts/%zz", 400),  # 34
        ("/carts/%ff", 400),
        ("/carts/%2541", "%41"),
    ],
)
def test_variables_of_text(path: str, value: str | int) -> None:
    desk = Desk(rule(get="/carts/{user_id}"))
    expected = value if isinstance(value, int) else desk.make(user_id=value)
    assert desk.request("GET", path) == expected


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("i", "42", 42),  # 35
        ("i", "-7", -7),  # 36
        ("i", "+7", 7),
        ("i", "abc", 400),  # 37
        ("i", "", 400),
        ("i", "2147483648", 400),
        ("i", "1_0", 400),
        ("i", "9" * 5000, 400),
        ("i", "%D9%A1", 400),  # an Arabic digit
        ("l", "-9223372036854775808", -(1 << 63)),
        ("l", "9223372036854775808", 400),
        ("u", "3000000000", 3_000_000_000),  # 38
        ("u", "-1", 400),  # 39
        ("b", "TRUE", True),  # 40
        ("b", "False", False),
        ("b", "yes", 400),
        ("d", "1e3", 1000.0),  # 41
        ("d", "-.5", -0.5),
        ("d", "Infinity", math.inf),
        ("d", "1e999", 400),
        ("d", "inf", 400),
        ("d", "1_0", 400),
        ("f", "0.5", 0.5),
        ("f", "1e39", 400),
        ("y", "Zm9v", b"foo"),  # 42
        ("y", "-_8", b"\xfb\xff"),
        ("y", "!", 400),
        ("e", "GREEN", 1),
        ("e", "1", 1),
        ("e", "7", 7),
        ("e", "BLUE", 400),
        ("x", "last", "last"),
        ("o", "0", 0),
    ],
)
@pytest.mark.parametrize("place", ["path", "query"])
def test_scalars(field: str, text: str, value: Any, place: str) -> None:
    desk = Desk(rule(get=f"/v/{{{field}}}"), rule(get="/q"))
    target = f"/v/{text}" if place == "path" else f"/q?{field}={text.replace('+', '%2B')}"
    expected = 400 if value == 400 else desk.make(**{field: value})
    assert desk.request("GET", target) == expected


def test_not_a_number_is_one_of_a_double() -> None:
    assert math.isnan(Desk(rule(get="/v/{d}")).request("GET", "/v/NaN").d)


def test_variables_of_inner_fields_and_of_textual_messages() -> None:
    desk = Desk(rule(get="/n/{n.deep.s}/{w}/{t}"))
    expected = desk.make()
    expected.n.deep.s = "x"
    expected.w.value = 0
    expected.w.SetInParent()
    expected.t.seconds = 5
    assert desk.request("GET", "/n/x/0/1970-01-01T00%3A00%3A05Z") == expected
    assert desk.request("GET", "/n/x/0/yesterday") == 400


def test_what_is_wrong_with_a_variable_is_named() -> None:
    message = json.loads(Desk(rule(get="/v/{i}")).ask("GET", "/v/abc").body)["message"]
    assert message == "pkg.S.M1: i: 'abc' is not a whole number"


# --- query parameters ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("id=a&i=1&b=true&d=0.5", {"id": "a", "i": 1, "b": True, "d": 0.5}),  # 43
        ("ns=1&ns=2&ns=3", {"ns": [1, 2, 3]}),  # 44
        ("ss=b&ns=1&ss=a", {"ss": ["b", "a"], "ns": [1]}),
        ("n.s=x&n.k=3", {"n": {"s": "x", "k": 3}}),  # 47
        ("n.deep.deep.s=x", {"n": {"deep": {"deep": {"s": "x"}}}}),
        ("e=GREEN", {"e": 1}),  # 49
        ("id=a+b%26c", {"id": "a b&c"}),  # 50
        ("id", {"id": ""}),  # 51
        ("userId=u", {"user_id": "u"}),  # 52
        ("user_id=u", {"user_id": "u"}),
        ("t=1970-01-01T00:00:05Z", {"t": {"seconds": 5}}),
        ("w=7", {"w": {"value": 7}}),
        ("", {}),
        ("&&", {}),
    ],
)
def test_query_parameters(query: str, fields: dict[str, Any]) -> None:
    desk = Desk(rule(get="/q"))
    assert desk.request("GET", f"/q?{query}") == desk.make(**fields)


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("id=a&id=b", "id"),  # 45
        ("id=a&userId=b&user_id=c", "user_id"),
        ("nope=1", "nope"),  # 46
        ("n.nope=1", "n.nope"),
        ("id.x=1", "id.x"),
        ("n=x", "n"),  # 48
        ("m=x", "m"),
        ("m.key=x", "m.key"),
        ("j=x", "j"),
        ("ns=1&ns=x", "ns"),
        ("n" + ".deep" * 2000 + ".s=x", "deeper than 100"),
        ("i=%zz", "percent-encoding"),
        ("id=%ff", "UTF-8"),
        ("&".join(["ns=1"] * 1001), "1000"),
    ],
)
def test_what_is_wrong_with_a_query_is_named(query: str, named: str) -> None:
    desk = Desk(rule(get="/q"))
    response = desk.ask("GET", f"/q?{query}")
    assert response.status == 400 and named in json.loads(response.body)["message"]
    assert not desk.asked


def test_the_path_wins_over_the_query() -> None:  # 53
    desk = Desk(rule(get="/q/{id}"))
    assert desk.request("GET", "/q/p?id=z") == desk.make(id="p")


# --- replies ---------------------------------------------------------------------------------------------------------


def replied(desk: Desk, message: Any, headers: Any = ()) -> Any:
    desk.answer = lambda call: call.reply(message.SerializeToString(), headers)
    return desk.ask("GET", "/r")


def test_replies_are_json_with_default_values_and_without_blanks() -> None:  # 91, 92, 93
    desk = Desk(rule(get="/r"))
    response = replied(desk, desk.make(l=(1 << 53) + 1, y=b"\xff", e=1, t={"seconds": 5}, user_id="é"))
    assert (response.status, response.content_type) == (200, "application/json")
    assert b" " not in response.body and "é".encode() in response.body
    defaults = {"id": "", "b": False, "i": 0, "u": 0, "f": 0, "d": 0, "ns": [], "ss": [], "m": {}}
    given = {"l": "9007199254740993", "y": "/w==", "e": "GREEN", "t": "1970-01-01T00:00:05Z", "userId": "é"}
    assert json.loads(response.body) == defaults | given


def test_the_answer_may_be_a_field() -> None:
    def field(name: str, **fields: Any) -> Any:
        desk = Desk(rule(get="/r", response_body=name))
        return json.loads(replied(desk, desk.make(**fields)).body)

    assert field("id", id="x") == "x"
    assert field("ns", ns=[1, 2]) == [1, 2]
    assert field("ns") == []
    assert field("l", l=5) == "5"
    assert field("e", e=1) == "GREEN"
    assert field("y", y=b"foo") == "Zm9v"
    assert field("n", n={"s": "x"}) == {"s": "x", "k": 0}
    assert field("n") == {"s": "", "k": 0}
    assert field("o") == 0
    assert field("x") == ""
    assert field("m", m={"a": "b"}) == {"a": "b"}


def test_an_http_body_is_answered_as_it_is() -> None:  # 83, 84
    desk = Desk(rule(get="/r"), output=".google.api.HttpBody")
    page = replied(desk, desk.make("google.api.HttpBody", content_type="text/html", data=b"<p>"))
    assert (page.status, page.content_type, page.body) == (200, "text/html", b"<p>")
    assert replied(desk, desk.make("google.api.HttpBody", data=b"x")).content_type == ""
    split = desk.make("google.api.HttpBody", content_type="a\r\nset-cookie: b", data=b"x")
    assert replied(desk, split).status == 500


def test_metadata_of_the_reply_becomes_headers() -> None:  # 90
    desk = Desk(rule(get="/r"))
    assert replied(desk, desk.make(), [(b"x-foo", b"1"), (b"x-bin", b"AA")]).headers == (("x-foo", "1"),)


def test_a_reply_that_is_no_message_of_its_type_is_an_internal_error() -> None:
    desk = Desk(rule(get="/r"))
    desk.answer = lambda call: call.reply(b"\xff")
    response = desk.ask("GET", "/r")
    assert (response.status, json.loads(response.body)["code"]) == (500, Status.INTERNAL)


def test_a_failure_is_its_description_and_nothing_else() -> None:  # 88
    desk = Desk(rule(get="/r"))
    desk.answer = lambda call: call.fail(Status.UNKNOWN, "boom é")
    response = desk.ask("GET", "/r")
    assert (response.status, response.body.decode()) == (500, "boom é")
    assert response.content_type.startswith("text/plain")


@pytest.mark.parametrize(
    ("status", "http"),
    [
        (1, 500),
        (3, 400),
        (4, 504),
        (5, 404),
        (6, 409),
        (7, 403),
        (8, 429),
        (9, 400),
        (10, 409),
        (11, 400),
        (12, 501),
        (13, 500),
        (14, 503),
        (15, 500),
        (16, 401),
        (77, 500),
    ],
)
def test_other_failures_are_json(status: int, http: int) -> None:
    desk = Desk(rule(get="/r"))
    desk.answer = lambda call: call.finish(status, 'no "room"')
    response = desk.ask("GET", "/r")
    assert (response.status, response.content_type) == (http, JSON)
    assert json.loads(response.body) == {"code": status, "message": 'no "room"'}


def test_an_end_without_a_reply_is_an_internal_error() -> None:
    desk = Desk(rule(get="/r"))
    desk.answer = lambda call: call.finish()
    assert desk.ask("GET", "/r").status == 500


# --- calls -----------------------------------------------------------------------------------------------------------


def test_request_headers_are_metadata() -> None:
    desk = Desk(rule(get="/r"))
    desk.ask("GET", "/r", authorization="Bearer x", connection="close", te="trailers", x_b="1")
    entries = cloudstate.Metadata.FromString(desk.metadata).entries
    assert [(entry.key, entry.string_value) for entry in entries] == [("authorization", "Bearer x"), ("x-b", "1")]


def test_a_client_that_goes_away_cancels_its_call_once() -> None:
    class Context:
        def __init__(self) -> None:
            self.heard: list[int] = []

        def on_client_cancel(self, status: int) -> None:
            self.heard.append(status)

    desk, context, calls = Desk(rule(get="/r")), Context(), []

    def wait(call: Any) -> None:
        call.context = context
        calls.append(call)

    desk.answer = wait
    with pytest.raises(AssertionError, match="not answered yet"):
        desk.ask("GET", "/r")
    assert desk.face.calls == 1
    (call,) = calls
    call.on_gone()
    call.on_gone()
    call.reply(b"")
    assert (context.heard, call.ended, desk.face.calls) == ([Status.CANCELLED], True, 0)


@given(st.text(max_size=200), st.text(max_size=200))
def test_a_request_of_texts_alone_is_written_as_protobuf_writes_it(one: str, other: str) -> None:
    """By hand, and by protobuf where it is not ordinary."""
    (binding,) = build(rule(get="/x/{user_id}/of/{id}"))
    message = binding.input.new(id=other, user_id=one)
    captures = [quote(text, safe="") for text in (one, other)]
    assert transcode.request_message(binding, captures, "", "", b"") == message.SerializeToString()


def test_only_a_request_of_texts_alone_is_written_by_hand() -> None:
    assert [build(rule(get=path))[0].texts is not None for path in ("/x/{id}", "/x/{i}", "/x/{n.s}")] == [
        True,
        False,
        False,
    ]
    assert build(rule(get="/x"))[0].texts == ()
    assert build(rule(body="*", post="/x/{id}"))[0].texts is None
