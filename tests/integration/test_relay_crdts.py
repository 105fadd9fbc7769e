"""Streamed commands on the wrong worker: many answers, the client's pace, and the end from either side."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import count
from typing import Any

import grpc
import pytest
from tck import crdt_pb2 as model

from ..helpers.workers import Workers, keys_of
from . import crdt_messages as said
from . import grpc_web_client
from .crdt_function import CrdtFunction
from .crdt_messages import STREAMED, request, streamed_request, update
from .harness import method_path
from .messages import CRDT_MODEL, CRDT_TWO, PERSISTENCE_IDS
from .user_function import soon

BUFFER = 20
BIG = 50_000
_numbers = count()


class Stage:
    def __init__(self, user_function: CrdtFunction, workers: Workers) -> None:
        self.user_function = user_function
        self.workers = workers

    def key(self, worker: int, service: str = CRDT_MODEL, played: bool = False) -> str:
        prefix = f"GSet-{next(_numbers)}-"
        key = next(iter(keys_of(worker, PERSISTENCE_IDS[service], 2, lambda number: f"{prefix}{number}")))
        return self.user_function.play(key) if played else key

    def listen(self, worker: int, key: str, **fields: Any) -> Any:
        path = f"/{CRDT_MODEL}/{STREAMED}"
        return self.workers.clients[worker].channel.unary_stream(path)(
            streamed_request(key, **fields).SerializeToString()
        )

    async def add(self, worker: int, key: str, element: str) -> list[str]:
        call = self.workers.clients[worker].call(
            method_path(CRDT_MODEL), request(key, update(gset=element)).SerializeToString()
        )
        return list(model.Response.FromString(await call).state.gset.elements)

    async def streaming(self, worker: int, key: str) -> tuple[Any, Any]:
        """A streamed call of a played entity, number 1, that has had its first answer."""
        call = self.listen(worker, key)
        stream = await self.user_function.stream(key)
        assert [await stream.next() for _ in range(2)] == [said.init(key), said.streamed_command(1, key)]
        await stream.send(said.reply(1, said.answer(), streamed=True))
        assert await heard(call) == []
        return call, stream


async def heard(call: Any) -> list[str] | None:
    data = await soon(call.read(), "a streamed message")
    return None if data is grpc.aio.EOF else list(model.Response.FromString(data).state.gset.elements)


def big(number: int) -> Any:
    return said.answer(model.State(gset=model.GSetValue(elements=[f"{number:0{BIG}}"])))


@pytest.fixture(scope="module")
def stage(runner: asyncio.Runner, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    user_function = CrdtFunction()
    runner.run(user_function.start())
    settings = {"crdt_stream_buffer": str(BUFFER), "max_hops": "4"}
    workers = Workers(user_function.port, tmp_path_factory.mktemp("relay"), 2, **settings)
    runner.run(workers.__aenter__())
    yield Stage(user_function, workers)
    runner.run(workers.__aexit__())
    runner.run(user_function.stop())


async def test_a_stream_of_answers_is_told_as_it_comes(stage: Stage) -> None:
    key = stage.key(1)
    call = stage.listen(0, key)
    assert await heard(call) == []
    assert await stage.add(1, key, "a") == ["a"]
    assert await heard(call) == ["a"]
    assert await stage.add(0, key, "b") == ["a", "b"]
    assert await heard(call) == ["a", "b"]
    call.cancel()


async def test_the_last_answer_ends_the_call_with_its_status(stage: Stage) -> None:
    key = stage.key(1, played=True)
    call, stream = await stage.streaming(0, key)
    await stream.send(said.message(1, said.answer(), end=True))
    assert await heard(call) == [] and await heard(call) is None
    assert await call.code() == grpc.StatusCode.OK
    failing, _ = stage.listen(0, key), await stream.next()
    await stream.send(said.reply(2, said.answer(), streamed=True))
    await stream.send(said.message(2, said.failure_action(2, "not any more").reply.client_action, end=True))
    assert await soon(failing.code(), "the end") == grpc.StatusCode.UNKNOWN
    assert await failing.details() == "not any more"


async def test_a_client_that_cancels_is_told_to_the_user_function(stage: Stage) -> None:
    key = stage.key(1, played=True)
    call, stream = await stage.streaming(0, key)
    call.cancel()
    assert await stream.next() == said.cancelled(1, key)
    await stream.send(said.cancel_response(1))


async def test_a_deadline_ends_a_stream(stage: Stage) -> None:
    key = stage.key(1, played=True)
    path = f"/{CRDT_MODEL}/{STREAMED}"
    call = stage.workers.clients[0].channel.unary_stream(path)(streamed_request(key).SerializeToString(), timeout=0.3)
    stream = await stage.user_function.stream(key)
    assert [await stream.next() for _ in range(2)] == [said.init(key), said.streamed_command(1, key)]
    await stream.send(said.reply(1, said.answer(), streamed=True))
    assert await soon(call.code(), "the end") == grpc.StatusCode.DEADLINE_EXCEEDED
    assert await stream.next() == said.cancelled(1, key)
    await stream.send(said.cancel_response(1))


async def test_a_slow_client_is_waited_for_and_has_every_message_in_order(stage: Stage) -> None:
    """More than one hop may hold, and less than all hops and the bound of the owner do."""
    key = stage.key(1, played=True)
    call, stream = await stage.streaming(0, key)
    count_of = BUFFER + 5
    for number in range(count_of):
        await stream.send(said.message(1, big(number), end=number == count_of - 1))
    assert [await heard(call) for _ in range(count_of)] == [[f"{number:0{BIG}}"] for number in range(count_of)]
    assert await heard(call) is None


async def test_a_client_that_takes_nothing_stops_the_owner_and_fails_alone(stage: Stage) -> None:
    """The messages wait at the owner, up to its bound; nothing piles up between the workers."""
    key = stage.key(1, played=True)
    slow, stream = await stage.streaming(0, key)
    data = streamed_request(key).SerializeToString()
    for number in range(400):  # 20 MB: far beyond the windows of two hops
        await stream.send(said.message(1, big(number)))
        if stream.received[-1].HasField("stream_cancelled"):
            break
    await soon(_told(stream), "the call to be given up")
    await stream.send(said.cancel_response(1))
    assert (await soon(_drained(slow), "the end")) == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "crdt_stream_buffer" in await slow.details()
    other = stage.workers.clients[0].channel.unary_stream(f"/{CRDT_MODEL}/{STREAMED}")(data)
    while (await stream.next()).WhichOneof("message") != "command":
        pass
    await stream.send(said.reply(2, said.answer()))
    assert await heard(other) == []


async def _told(stream: Any) -> None:
    while not stream.received[-1].HasField("stream_cancelled"):
        await asyncio.sleep(0.01)


async def _drained(call: Any) -> Any:
    while await call.read() is not grpc.aio.EOF:
        pass
    return await call.code()


async def test_streams_are_relayed_over_grpc_web(stage: Stage) -> None:
    key = stage.key(1)
    data = streamed_request(key).SerializeToString()
    path = f"/{CRDT_MODEL}/{STREAMED}"
    async with grpc_web_client.WebCall(stage.workers.all[0].port, path, data) as call:
        await call.begun()
        frames = call.frames()
        assert model.Response.FromString((await anext(frames))[1]).state.gset.elements == []
        await stage.add(1, key, "a")
        assert model.Response.FromString((await anext(frames))[1]).state.gset.elements == ["a"]
        await frames.aclose()


async def test_a_streamed_item_is_forwarded_to_another_worker(stage: Stage) -> None:
    key, other = stage.key(1, played=True), stage.key(0, CRDT_TWO, played=True)
    call, stream = await stage.streaming(0, key)
    await stream.send(said.message(1, said.forwarded(other), end=True))
    target = await stage.user_function.stream(other)
    assert await target.next() == said.init(other, service=CRDT_TWO)
    await target.next()
    await target.send(said.reply(1, said.answer(model.State(gset=model.GSetValue(elements=["there"])))))
    assert await heard(call) == ["there"] and await heard(call) is None


async def test_a_loop_of_streamed_forwards_over_workers_ends(stage: Stage) -> None:
    key, other = stage.key(0, played=True), stage.key(1, played=True)
    call = stage.listen(0, key)
    streams: dict[str, Any] = {}
    for hop in range(5):
        here, there = (key, other) if hop % 2 == 0 else (other, key)
        if here not in streams:
            streams[here] = await stage.user_function.stream(here)
            await streams[here].next()
        number = (await streams[here].next()).command.id
        forwarded = said.forwarded(there, service=CRDT_MODEL, method=STREAMED)
        await streams[here].send(said.reply(number, forwarded))
    assert await soon(call.code(), "the end") == grpc.StatusCode.INTERNAL
    assert "max_hops (4)" in await call.details()
