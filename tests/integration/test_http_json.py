"""HTTP/JSON over HTTP/1.1 on the main port of a real proxy: the TCK's scenarios, and what clients of HTTP expect."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from . import messages
from .action_calls import function, next_calls, unary
from .action_function import (
    MODEL,
    TWO,
    ActionFunction,
    actions_spec,
    command,
    entries,
    forward_to,
    metadata_with,
    reply,
    request,
    say,
)
from .harness import ProxyProcess, World, eventually, ok
from .http_client import JSON, HttpConnection, ask
from .user_function import a_key, soon

SETTINGS = {"journal": "memory:", "max_request_size": "64K", "stash_depth": "5"}
USER_FUNCTION = ActionFunction
ACTION = "/tck/model/action/unary"
FOO = '{"groups": [{"steps": [{"reply": {"message": "foo"}}]}]}'
BOOM = '{"groups": [{"steps": [{"fail": {"message": "boom"}}]}]}'
BY_DEFAULT = f"/{messages.TWO}/Call"


def entity(key: str) -> str:
    return f"/tck/model/eventsourced/{key}"


def emit(*values: str, fail: str = "") -> str:
    actions = [f'{{"emit": {{"value": "{value}"}}}}' for value in values]
    if fail:
        actions.append(f'{{"fail": {{"message": "{fail}"}}}}')
    return f'{{"actions": [{", ".join(actions)}]}}'


# --- the TCK ---------------------------------------------------------------------------------------------------------


async def test_d3_42_an_action(world: World) -> None:
    answer = await ask(world.proxy.port, "POST", ACTION, FOO)
    assert (answer.status, answer.headers["content-type"], answer.text) == (200, JSON, '{"message":"foo"}')
    answer = await ask(world.proxy.port, "POST", ACTION, BOOM)
    assert (answer.status, answer.text) == (500, "boom")


async def test_d4_24_an_event_sourced_entity(world: World) -> None:
    key = a_key()
    async with HttpConnection(world.proxy.port) as http:
        for body, status, text in (
            ("{}", 200, '{"message":""}'),
            (emit("x"), 200, '{"message":"x"}'),
            (emit(fail="expected failure"), 500, "expected failure"),
            (emit("y"), 200, '{"message":"xy"}'),
            (emit("z", fail="another failure"), 500, "another failure"),
            (emit("z"), 200, '{"message":"xyz"}'),
        ):
            answer = await http.ask("POST", entity(key), body)
            assert (answer.status, answer.text) == (status, text)
        answer = await http.ask("POST", BY_DEFAULT, f'{{"id": "{key}"}}')
        assert (answer.status, answer.headers["content-type"], answer.text) == (200, JSON, '{"message":""}')
    sent = world.user_function.streams_of(key)[0].received
    assert sent[:2] == [messages.init(key), messages.command(1, key)]


async def test_16_12_anything_answers_a_get_of_the_root(world: World) -> None:
    assert (await ask(world.proxy.port, "GET", "/")).status == 404


async def test_97_98_knative_probes_are_answered_where_no_rule_fits(world: World) -> None:
    answer = await ask(world.proxy.port, "GET", "/", K_Network_Probe="queue")
    assert (answer.status, answer.text) == (200, "queue")
    assert (await ask(world.proxy.port, "GET", ACTION, K_Network_Probe="x")).status == 400
    assert (await ask(world.proxy.port, "POST", ACTION, FOO, K_Network_Probe="queue")).text == '{"message":"foo"}'


# --- calls -----------------------------------------------------------------------------------------------------------


async def test_forwards_and_effects_work_as_for_grpc(world: World) -> None:
    body = '{"groups": [{"steps": [{"forward": {"id": "a"}}, {"effect": {"id": "b", "synchronous": true}}]}]}'
    before = len(function(world).calls)
    assert (await ask(world.proxy.port, "POST", ACTION, body)).text == '{"message":""}'
    calls = await next_calls(world, before, 3)
    assert [call.first.service_name for call in calls] == [MODEL, TWO, TWO]
    assert (await ask(world.proxy.port, "POST", ACTION, body)).status == 200
    assert (await unary(world, request([forward_to("a")]))) == ok()


async def test_an_entity_that_forwards_answers_with_its_target(world: World) -> None:
    body = f'{{"actions": [{{"emit": {{"value": "x"}}}}, {{"forward": {{"id": "{a_key()}"}}}}]}}'
    answer = await ask(world.proxy.port, "POST", entity(a_key()), body)
    assert (answer.status, answer.text) == (200, '{"message":""}')


async def test_headers_reach_an_action_and_its_metadata_becomes_headers(world: World) -> None:
    function(world).play_services(MODEL)
    async with HttpConnection(world.proxy.port) as http:
        http.send("POST", ACTION, FOO, authorization="Bearer x", X_Twice="1")
        call = await function(world).call()
        first = await call.next()
        given = dict(entries(first.metadata))
        assert (given["authorization"], given["x-twice"]) == ("Bearer x", "1")
        assert not {"content-type", "content-length", "connection"} & set(given)
        first.ClearField("metadata")
        assert first == command("ProcessUnary", request([say("foo")]))
        await call.answer(reply("bar", metadata=metadata_with(("X-Answer", "yes"), ("x-bin", b"no"))))
        answer = await http.read()
        assert (answer.text, answer.headers["x-answer"]) == ('{"message":"bar"}', "yes")
        assert "x-bin" not in answer.headers
    function(world).play_services()


async def test_a_client_that_goes_away_cancels_its_call(world: World) -> None:
    function(world).play_services(MODEL)
    async with HttpConnection(world.proxy.port) as http:
        http.send("POST", ACTION, FOO)
        call = await function(world).call()
        await call.next()
        http.close()
        await call.wait_reset()
    function(world).play_services()
    await eventually(lambda: no_calls(world.proxy), "no calls under way")


async def no_calls(proxy: ProxyProcess) -> bool:
    _, text = await proxy.admin("/metrics")
    return "\nstateside_http_calls 0.0\n" in text


async def test_calls_of_many_connections_are_under_way_at_once(world: World) -> None:
    answers = await asyncio.gather(*(ask(world.proxy.port, "POST", entity(a_key()), emit("x")) for _ in range(50)))
    assert {answer.text for answer in answers} == {'{"message":"x"}'}


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "path", "body", "status", "named"),
    [
        ("POST", ACTION, "{", 400, "not valid JSON"),
        ("POST", ACTION, '{"nope": 1}', 400, "nope"),
        ("POST", ACTION, '{"groups": 5}', 400, "groups"),
        ("POST", ACTION, "", 400, "content type"),
        ("POST", BY_DEFAULT, "{}", 400, "entity key is empty"),
        ("POST", "/tck/model/eventsourced/%zz", "{}", 400, "percent-encoding"),
        ("POST", "/nothing/here", "{}", 404, "Not Found"),
        ("POST", f"/{MODEL}/ProcessUnary", "{}", 404, "Not Found"),
        ("GET", ACTION, "", 405, "GET"),
        ("DELETE", BY_DEFAULT, "", 405, "DELETE"),
        ("POST", ACTION, " " * 70_000, 413, "65536"),
    ],
)
async def test_what_is_wrong_is_said(world: World, verb: str, path: str, body: str, status: int, named: str) -> None:
    before = len(function(world).calls)
    answer = await ask(world.proxy.port, verb, path, body)
    assert answer.status == status and named in answer.text
    assert (answer.headers.get("allow") == "POST") == (status == 405)
    assert len(function(world).calls) == before


async def test_a_full_stash_is_too_many_requests(world: World) -> None:
    key = world.user_function.play()
    async with asyncio.TaskGroup() as group:
        first = group.create_task(ask(world.proxy.port, "POST", entity(key), "{}"))
        stream = await world.user_function.ready_stream(key)
        message = await stream.next()
        others = [group.create_task(ask(world.proxy.port, "POST", entity(key), "{}")) for _ in range(5)]
        await world.queued(5)
        refused = await ask(world.proxy.port, "POST", entity(key), "{}")
        assert (refused.status, refused.json["code"]) == (429, 8)
        await stream.send(messages.reply(message.command.id, "a"))
        for _ in others:
            message = await stream.next()
            await stream.send(messages.reply(message.command.id, "b"))
    assert first.result().text == '{"message":"a"}'
    assert [each.result().text for each in others] == ['{"message":"b"}'] * 5


async def test_a_failing_entity_answers_in_the_reference_words(world: World) -> None:
    key = world.user_function.play()
    async with HttpConnection(world.proxy.port) as http:
        http.send("POST", entity(key), "{}")
        stream = await world.user_function.ready_stream(key)
        message = await stream.next()
        await stream.send(messages.stream_failure(message.command.id, "broken"))
        answer = await http.read()
        assert (answer.status, answer.text) == (500, "Unexpected entity failure")
        await stream.close_as_asked()


# --- connections -----------------------------------------------------------------------------------------------------


async def test_pipelined_requests_are_answered_in_their_order(world: World) -> None:
    async with HttpConnection(world.proxy.port) as http:
        for value in ("one", "two", "three"):
            http.send("POST", ACTION, FOO.replace("foo", value))
            http.send("GET", "/nothing")
        for value in ("one", "two", "three"):
            assert (await http.read()).text == f'{{"message":"{value}"}}'
            assert (await http.read()).status == 404


async def test_a_request_behind_one_that_is_not_answered_waits(world: World) -> None:
    function(world).play_services(MODEL)
    async with HttpConnection(world.proxy.port) as http:
        http.send("POST", ACTION, FOO)
        http.send("POST", ACTION, FOO)
        http.writer.write(b"nonsense\r\n\r\n")
        for text in ("one", "two"):
            call = await function(world).call()
            assert function(world)._played_calls.empty()
            await call.next()
            await call.answer(reply(text))
            assert (await http.read()).text == f'{{"message":"{text}"}}'
        assert (await http.read()).status == 400
        assert await http.closed()
    function(world).play_services()


async def test_a_client_that_asks_before_it_sends_its_body_is_told_to_go_on(world: World) -> None:
    async with HttpConnection(world.proxy.port) as http:
        head = f"POST {ACTION} HTTP/1.1\r\nhost: x\r\ncontent-type: {JSON}\r\ncontent-length: {len(FOO)}\r\n"
        http.writer.write(f"{head}expect: 100-continue\r\n\r\n".encode())
        assert await soon(http.reader.readuntil(b"\r\n\r\n"), "100") == b"HTTP/1.1 100 Continue\r\n\r\n"
        http.writer.write(FOO.encode())
        assert (await http.read()).text == '{"message":"foo"}'


async def test_an_offer_to_upgrade_does_not_lose_the_body(world: World) -> None:
    offer = {"connection": "Upgrade, HTTP2-Settings", "upgrade": "h2c", "http2_settings": "AAMAAABkAAQAoAAA"}
    async with HttpConnection(world.proxy.port) as http:
        for text in ("one", "two"):
            answer = await http.ask("POST", ACTION, FOO.replace("foo", text), **offer)
            assert (answer.text, answer.headers["connection"]) == (f'{{"message":"{text}"}}', "keep-alive")
        head = f"POST {ACTION} HTTP/1.1\r\nhost: x\r\ncontent-type: {JSON}\r\ncontent-length: {len(FOO)}\r\n"
        for byte in f"{head}connection: upgrade\r\nupgrade: h2c\r\n\r\n{FOO}".encode():
            http.writer.write(bytes((byte,)))
            await http.writer.drain()
        assert (await http.read()).text == '{"message":"foo"}'


async def test_a_chunked_body_and_a_connection_that_is_kept(world: World) -> None:
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (FOO[:9].encode(), FOO[9:].encode()))
    async with HttpConnection(world.proxy.port) as http:
        head = f"POST {ACTION} HTTP/1.1\r\nhost: x\r\ncontent-type: {JSON}\r\ntransfer-encoding: chunked\r\n\r\n"
        for _ in range(3):
            http.writer.write(head.encode() + chunks + b"0\r\n\r\n")
            assert (await http.read()).text == '{"message":"foo"}'


async def test_a_call_that_has_begun_is_answered_before_the_proxy_stops(tmp_path: Any) -> None:
    async with World(tmp_path, user_function=ActionFunction(), journal="memory:") as world:
        function(world).play_services(MODEL)
        async with HttpConnection(world.proxy.port) as http, HttpConnection(world.proxy.port) as idle:
            await idle.ask("GET", "/")
            http.send("POST", ACTION, FOO)
            call = await function(world).call()
            await call.next()
            stopping = asyncio.create_task(world.proxy.terminate())
            assert await idle.closed()
            await call.answer(reply("last"))
            answer = await http.read()
            assert (answer.text, answer.headers["connection"]) == ('{"message":"last"}', "close")
            assert await stopping == 0


async def test_a_client_that_sends_far_too_much_reads_why(world: World) -> None:
    async with HttpConnection(world.proxy.port) as http:
        answer = await http.ask("POST", ACTION, b" " * 4_000_000)
        assert (answer.status, answer.headers["connection"]) == (413, "close")


# --- discovery -------------------------------------------------------------------------------------------------------


async def test_an_illegal_rule_is_reported_and_nothing_is_served(tmp_path: Any) -> None:
    spec = actions_spec()
    assert spec.proto.count(b"/tck/model/action/unary") == 1
    spec.proto = spec.proto.replace(b"/tck/model/action/unary", b"/tck/model/action/una*y")
    user_function = await ActionFunction(spec).start()
    proxy = ProxyProcess(user_function.port, tmp_path, journal="memory:")
    try:
        await proxy.start(ready=False)
        report = await user_function.report_about("/tck/model/action/una*y", f"{MODEL}.ProcessUnary")
        assert report.startswith("Expected '/', ':', path literal character, or end of input at character 22 of")
        assert not proxy.ready
    finally:
        await proxy.stop()
        await user_function.stop()
