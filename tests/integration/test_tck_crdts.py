"""The TCK's CRDT scenarios through the proxy (spec crdt 6.6, Y1 to Y6): every message compared in full, and nothing
besides."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from tck import crdt_pb2 as model

from .crdt_calls import Listener, Said, ask
from .crdt_function import CrdtFunction
from .crdt_messages import (
    an_update,
    cancelled,
    command,
    delete,
    effect_on,
    fail,
    forward_to,
    init,
    streamed_command,
    update,
)
from .harness import World, eventually
from .http_client import JSON, HttpConnection
from .messages import CRDT, CRDT_CONFIGURED, CRDT_TWO
from .user_function import EntityStream, a_key

SETTINGS = {"journal": "memory:"}
USER_FUNCTION = CrdtFunction
OK = grpc.StatusCode.OK


def only_stream(world: World, key: str) -> EntityStream:
    (stream,) = world.user_function.streams_of(key)
    return stream


async def completed(stream: EntityStream) -> None:
    """Both sides of the stream have ended as they should."""
    await stream.wait_half_closed()
    await stream.wait_over()
    assert not stream.reset.is_set()


async def received(stream: EntityStream, count: int) -> None:
    async def so_many() -> bool:
        return len(stream.received) == count

    await eventually(so_many, f"{count} messages on {stream}")


def a_vote(self_vote: bool, votes_for: int) -> Any:
    return model.State(vote=model.VoteValue(self_vote=self_vote, votes_for=votes_for, total_voters=1))


async def test_discovery_offers_crdts(world: World) -> None:
    (info,) = world.user_function.discovered
    assert CRDT in info.supported_entity_types
    assert world.user_function.reports == []


async def test_y1_the_state_follows_updates_and_a_deletion_ends_the_stream(world: World) -> None:
    key = a_key("PNCounter")
    steps: list[tuple[list[Any], int]] = [
        ([], 0),
        ([update(pncounter=1), update(pncounter=-2), update(pncounter=3)], 2),
        ([update(pncounter=4), update(pncounter=-5), update(pncounter=6)], 7),
        ([delete()], 7),
    ]
    for actions, value in steps:
        assert (await ask(world, key, *actions)).value == value
    await completed(only_stream(world, key))
    commands = [command(number, key, *actions) for number, (actions, _) in enumerate(steps, 1)]
    assert only_stream(world, key).received == [init(key), *commands]


async def test_y2_forwards_and_effects_reach_the_other_entity_on_one_stream(world: World) -> None:
    key, other = a_key("GSet"), a_key("X")
    assert (await ask(world, key, update(gset="one"))).value == ["one"]
    assert await ask(world, key, forward_to(other)) == Said(OK, "", model.State())
    assert (await ask(world, key, effect_on(other))).value == ["one"]
    assert (await ask(world, key, delete())).value == ["one"]
    two = only_stream(world, other)
    await received(two, 3)
    assert await ask(world, other, delete(), service=CRDT_TWO) == Said(OK, "", model.State())
    await completed(only_stream(world, key))
    await completed(two)
    assert two.received == [
        init(other, service=CRDT_TWO),
        command(1, other, service=CRDT_TWO),
        command(2, other, service=CRDT_TWO),
        command(3, other, delete(), service=CRDT_TWO),
    ]
    assert only_stream(world, key).received == [
        init(key),
        command(1, key, update(gset="one")),
        command(2, key, forward_to(other)),
        command(3, key, effect_on(other)),
        command(4, key, delete()),
    ]


async def test_y3_a_failure_is_an_error_with_its_text_and_the_stream_goes_on(world: World) -> None:
    key = a_key("GCounter")
    assert (await ask(world, key, update(gcounter=42))).value == 42
    assert await ask(world, key, fail("expected failure")) == Said(grpc.StatusCode.UNKNOWN, "expected failure", None)
    assert (await ask(world, key, delete())).value == 42
    await completed(only_stream(world, key))
    assert only_stream(world, key).received == [
        init(key),
        command(1, key, update(gcounter=42)),
        command(2, key, fail("expected failure")),
        command(3, key, delete()),
    ]


async def test_y4_streamed_calls_follow_votes_and_their_cancellations(world: World) -> None:
    key = a_key("Vote")
    monitor = Listener(world, key)
    assert await monitor.next() == a_vote(False, 0)
    connecting: dict[str, Any] = {
        "initial_update": an_update(vote=True),
        "cancel_update": an_update(vote=False),
        "empty": True,
    }
    connection = Listener(world, key, **connecting)
    assert await monitor.next() == a_vote(True, 1)
    silent = asyncio.create_task(connection.call.read())
    await asyncio.wait((silent,), timeout=0.1)
    assert not silent.done()
    connection.cancel()
    await asyncio.wait((silent,))
    assert await monitor.next() == a_vote(False, 0)
    monitor.cancel()
    stream = only_stream(world, key)
    await received(stream, 5)
    assert (await ask(world, key, delete())).state == a_vote(False, 0)
    await completed(stream)
    assert stream.received == [
        init(key),
        streamed_command(1, key),
        streamed_command(2, key, **connecting),
        cancelled(2, key),
        cancelled(1, key),
        command(3, key, delete()),
    ]


async def test_y5_http(world: World) -> None:
    key, other = a_key("PNCounter"), a_key("X")
    path = f"/tck/model/crdt/{key}"
    async with HttpConnection(world.proxy.port) as http:
        answer = await http.ask("POST", path, "{}")
        expected = '{"state":{"pncounter":{"value":"0"}}}'
        assert (answer.status, answer.headers["content-type"], answer.text) == (200, JSON, expected)
        answer = await http.ask("POST", f"/{CRDT_TWO}/Call", f'{{"id": "{other}"}}')
        assert (answer.status, answer.text) == (200, "{}")
        for body, status, text in (
            ('{"actions": [{"update": {"pncounter": {"change": 42}}}]}', 200, '{"state":{"pncounter":{"value":"42"}}}'),
            ('{"actions": [{"fail": {"message": "expected failure"}}]}', 500, "expected failure"),
            (
                '{"actions": [{"update": {"pncounter": {"change": -123}}}]}',
                200,
                '{"state":{"pncounter":{"value":"-81"}}}',
            ),
            ('{"actions": [{"delete": {}}]}', 200, '{"state":{"pncounter":{"value":"-81"}}}'),
        ):
            answer = await http.ask("POST", path, body)
            assert (answer.status, answer.text) == (status, text)
    await completed(only_stream(world, key))
    assert only_stream(world, key).received == [
        init(key),
        command(1, key),
        command(2, key, update(pncounter=42)),
        command(3, key, fail("expected failure")),
        command(4, key, update(pncounter=-123)),
        command(5, key, delete()),
    ]
    assert only_stream(world, other).received == [init(other, service=CRDT_TWO), command(1, other, service=CRDT_TWO)]


async def test_y6_a_passivation_timeout_of_100_ms_ends_both_sides_of_the_stream(world: World) -> None:
    key = a_key("GCounter")
    assert (await ask(world, key, service=CRDT_CONFIGURED)).status == OK
    stream = only_stream(world, key)
    await completed(stream)
    assert stream.received == [init(key, service=CRDT_CONFIGURED), command(1, key, service=CRDT_CONFIGURED)]


async def test_all_that_asks_only_once_to_discover_and_opens_no_other_stream(world: World) -> None:
    assert len(world.user_function.discovered) == 1
    assert len(world.user_function.streams) == 8
    assert world.user_function.reports == []
