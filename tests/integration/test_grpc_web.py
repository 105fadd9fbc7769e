"""gRPC-web and CORS on the main port of a real proxy, over HTTP/1.1."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest
from tck import action_pb2 as model
from tck import eventsourced_pb2 as entity_model

from stateside.proto import health, reflection
from stateside.proto.status import Status

from . import messages
from .action_calls import function, next_calls, path
from .action_function import (
    MODEL,
    TWO,
    ActionFunction,
    entries,
    fail,
    forward_to,
    metadata_with,
    reply,
    request,
    say,
)
from .grpc_web_client import BINARY, TEXT, WebCall, WebOutcome, call
from .harness import ProxyProcess, World, eventually, method_path
from .http_client import ask
from .user_function import a_key, soon

SHOP = "https://shop.example"
SETTINGS = {"journal": "memory:", "max_request_size": "64K", "cors_allow_origins": SHOP, "relay_buffer": "4K"}
USER_FUNCTION = ActionFunction
ENTITY = method_path(messages.MODEL)
UNARY, STREAMED_IN, STREAMED_OUT = path("ProcessUnary"), path("ProcessStreamedIn"), path("ProcessStreamedOut")


def asked(key: str, *actions: Any) -> bytes:
    data: bytes = messages.request(key, *actions).SerializeToString()
    return data


def texts(outcome: WebOutcome) -> list[str]:
    assert outcome.status == 0, outcome
    return [str(model.Response.FromString(message).message) for message in outcome.messages]


async def no_calls(proxy: ProxyProcess) -> bool:
    _, figures = await proxy.admin("/metrics")
    return "\nstateside_grpc_web_calls 0.0\n" in figures


# --- methods of every kind -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content_type", [BINARY, TEXT, "application/grpc-web", "application/grpc-web-text"])
async def test_an_entity_is_called_and_its_failures_told(world: World, content_type: str) -> None:
    port, key = world.proxy.port, a_key()
    first = await call(port, ENTITY, asked(key, messages.emit("x")), content_type=content_type)
    assert first.headers["content-type"] == content_type
    assert entity_model.Response.FromString(first.messages[0]).message == "x"
    failed = await call(port, ENTITY, asked(key, messages.fail("käse")), content_type=content_type)
    assert failed[:3] == (Status.UNKNOWN, "k%C3%A4se", [])
    again = await call(port, ENTITY, asked(key, messages.emit("y")), content_type=content_type)
    assert entity_model.Response.FromString(again.messages[0]).message == "xy"


async def test_forwards_and_effects_are_those_of_grpc(world: World) -> None:
    port, key, other = world.proxy.port, a_key(), a_key()
    found = await call(port, ENTITY, asked(key, messages.forward_to(other)))
    assert (found.status, len(found.messages)) == (0, 1)
    assert len(world.user_function.streams_of(other)) == 1
    found = await call(port, ENTITY, asked(key, messages.emit("x"), messages.effect_on(a_key(), synchronous=True)))
    assert entity_model.Response.FromString(found.messages[0]).message == "x"
    assert texts(await call(port, UNARY, request([forward_to("a")]).SerializeToString())) == [""]


async def test_streamed_in_and_streamed_out_methods(world: World) -> None:
    port = world.proxy.port
    asked_in = [request([say(text)]).SerializeToString() for text in ("a", "b", "c")]
    before = len(function(world).calls)
    assert texts(await call(port, STREAMED_IN, *asked_in)) == ["c"]
    ((opening, *commands),) = [sent.received for sent in await next_calls(world, before, 1)]
    assert (opening.HasField("payload"), len(commands)) == (False, 3)
    found = await call(port, STREAMED_OUT, request([say("a")], [say("b")]).SerializeToString())
    assert texts(found) == ["a", "b"]
    found = await call(port, STREAMED_OUT, request([say("a")], [fail("boom")]).SerializeToString())
    assert (found.status, found.details, len(found.messages)) == (Status.UNKNOWN, "boom", 1)


async def test_each_message_of_a_stream_is_there_before_the_next_is_made(world: World) -> None:
    function(world).play_services(MODEL)
    async with WebCall(world.proxy.port, STREAMED_OUT, request().SerializeToString(), content_type=TEXT) as opened:
        played = await function(world).call()
        await played.next()
        await played.send(reply("first"))
        await opened.begun()
        frames = opened.frames()
        assert model.Response.FromString((await anext(frames))[1]).message == "first"
        await played.send(reply("second"))
        assert model.Response.FromString((await anext(frames))[1]).message == "second"
        await played.answer()
        assert await anext(frames) == (0x80, b"grpc-status: 0\r\n")
    function(world).play_services()


async def test_metadata_goes_both_ways(world: World) -> None:
    function(world).play_services(MODEL)
    blob = base64.b64encode(b"\0\1").decode()
    async with WebCall(
        world.proxy.port, UNARY, request().SerializeToString(), x_token="t", x_blob_bin=blob, x_grpc_web="1"
    ) as opened:
        played = await function(world).call()
        sent = entries((await played.next()).metadata)
        assert ("x-token", "t") in sent
        assert ("x-blob-bin", b"\0\1") in sent
        assert "content-type" not in dict(sent)
        await played.answer(reply("hi", metadata=metadata_with(("x-answer", "yes"), ("x-more-bin", b"\2"))))
        outcome = await opened.end()
    assert (outcome.headers["x-answer"], outcome.headers["x-more-bin"]) == ("yes", "Ag")
    assert texts(outcome) == ["hi"]
    function(world).play_services()


# --- the end of calls ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [UNARY, STREAMED_OUT])
async def test_a_client_that_goes_away_cancels_its_call(world: World, method: str) -> None:
    function(world).play_services(MODEL)
    async with WebCall(world.proxy.port, method, request().SerializeToString()):
        played = await function(world).call()
        await played.next()
    await played.wait_reset()
    function(world).play_services()
    await eventually(lambda: no_calls(world.proxy), "no calls under way")


async def test_the_clients_deadline_is_the_user_functions_too(world: World) -> None:
    function(world).play_services(MODEL)
    async with WebCall(world.proxy.port, UNARY, request().SerializeToString(), grpc_timeout="300m") as opened:
        played = await function(world).call()
        left = played.time_left_s
        assert left is not None and 0 < left <= 0.31
        outcome = await opened.end()
        assert (outcome.status, outcome.details) == (Status.DEADLINE_EXCEEDED, "deadline exceeded")
        await played.wait_reset()
    function(world).play_services()


async def test_a_client_that_does_not_read_stops_the_user_function(world: World) -> None:
    function(world).play_services(MODEL)
    async with WebCall(world.proxy.port, STREAMED_OUT, request().SerializeToString()) as opened:
        played = await function(world).call()
        await played.next()
        big = reply("x" * 60_000)
        sent = 0

        async def flood() -> None:
            nonlocal sent
            while sent < 1000:
                await played.send(big)
                sent += 1

        flooding = asyncio.create_task(flood())
        seen = -1
        while seen != sent:  # until nothing is taken any more
            seen = sent
            await asyncio.sleep(0.3)
        assert 0 < seen < 1000
        await opened.begun()
        frames = opened.frames()
        for _ in range(1000):
            assert len((await soon(anext(frames), "a message"))[1]) > 60_000
        await soon(flooding, "the end of the flood")
        await played.answer()
        assert (await anext(frames))[0] == 0x80
    function(world).play_services()


async def test_calls_of_many_connections_are_under_way_at_once(world: World) -> None:
    calls = (call(world.proxy.port, ENTITY, asked(a_key(), messages.emit("x"))) for _ in range(50))
    assert {outcome.status for outcome in await asyncio.gather(*calls)} == {0}


async def test_an_unknown_method_and_an_unknown_format(world: World) -> None:
    port = world.proxy.port
    found = await call(port, "/no.Service/Method", b"")
    assert (found.status, found.details) == (Status.UNIMPLEMENTED, "unknown method /no.Service/Method")
    assert (await ask(port, "POST", ENTITY, b"x", content_type="application/grpc-web+json")).status == 415


async def test_what_is_not_grpc_web_is_http_json_as_before(world: World) -> None:
    key = a_key()
    answer = await ask(world.proxy.port, "POST", f"/{TWO.replace('.action.ActionTwo', '')}/x", "{}")
    assert answer.status == 404
    answer = await ask(world.proxy.port, "POST", f"/tck/model/eventsourced/{key}", "{}")
    assert (answer.status, answer.text) == (200, '{"message":""}')


# --- standard services -----------------------------------------------------------------------------------------------


async def test_health_and_reflection_are_served_too(world: World) -> None:
    port = world.proxy.port
    found = await call(port, "/grpc.health.v1.Health/Check", b"")
    assert health.HealthCheckResponse.FromString(found.messages[0]).status == health.HealthCheckResponse.SERVING
    questions = [reflection.ServerReflectionRequest(list_services="").SerializeToString()] * 3
    found = await call(port, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", *questions)
    assert (found.status, len(found.messages)) == (0, 3)
    listed = reflection.ServerReflectionResponse.FromString(found.messages[0]).list_services_response.service
    assert MODEL in [service.name for service in listed]


async def test_a_watcher_of_health_that_goes_away_is_forgotten(world: World) -> None:
    async with WebCall(world.proxy.port, "/grpc.health.v1.Health/Watch", b"") as opened:
        await opened.begun()
        _, message = await anext(opened.frames())
        assert health.HealthCheckResponse.FromString(message).status == health.HealthCheckResponse.SERVING
    await eventually(lambda: no_calls(world.proxy), "no calls under way")


# --- CORS ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [ENTITY, "/tck/model/eventsourced/some", "/grpc.health.v1.Health/Check"])
async def test_a_preflight_is_answered_for_every_served_path(world: World, target: str) -> None:
    answer = await ask(
        world.proxy.port,
        "OPTIONS",
        target,
        origin=SHOP,
        access_control_request_method="POST",
        access_control_request_headers="x-grpc-web,content-type",
    )
    assert (answer.status, answer.text) == (200, "")
    assert answer.headers["access-control-allow-origin"] == SHOP
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert "x-grpc-web" in answer.headers["access-control-allow-headers"]


async def test_answers_may_be_read_by_the_page_errors_too(world: World) -> None:
    port = world.proxy.port
    outcomes = [
        await call(port, ENTITY, asked(a_key(), messages.emit("x")), origin=SHOP),
        await call(port, ENTITY, asked(a_key(), messages.fail("no")), origin=SHOP),
        await call(port, STREAMED_OUT, request([say("a")]).SerializeToString(), origin=SHOP),
        await ask(port, "POST", "/tck/model/eventsourced/some", "{}", origin=SHOP),
        await ask(port, "POST", "/tck/model/eventsourced/some", "nonsense", origin=SHOP),
        await ask(port, "GET", "/nowhere", origin=SHOP),
    ]
    for outcome in outcomes:
        assert outcome.headers["access-control-allow-origin"] == SHOP
        assert outcome.headers["vary"] == "origin"
        assert "grpc-status" in outcome.headers["access-control-expose-headers"]


async def test_pages_of_other_origins_may_not_read_answers(world: World) -> None:
    found = await call(world.proxy.port, ENTITY, asked(a_key(), messages.emit("x")), origin="https://evil.example")
    assert (found.status, found.headers.get("access-control-allow-origin")) == (0, None)


async def test_nobody_waits_for_what_it_called(world: World) -> None:
    before = len(function(world).calls)
    assert texts(await call(world.proxy.port, UNARY, request([say("hi")]).SerializeToString())) == ["hi"]
    await next_calls(world, before, 1)
    await eventually(lambda: no_calls(world.proxy), "no calls under way")
