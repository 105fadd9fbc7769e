"""Calls that one server passes on to another: client and far server see each other as if nothing stood between them."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

from stateside._speedups.h2 import (
    Call,
    Channel,
    ClientCall,
    Handler,
    Passage,
    PassedCall,
    Server,
    ServerCall,
    live_objects,
)
from stateside.proto.status import Status

from ..helpers.nodes import until

if TYPE_CHECKING:
    from stateside._speedups.h2 import Headers

PATH = b"/pkg.Service/Method"
PIECE = b"x" * 10_000


class Front(Handler):
    """The server that clients are connected to. Owner of the passage."""

    def __init__(self) -> None:
        self.unary = True
        self.streams = False
        self.headers: Headers = []
        self.passage = Passage(self)
        self.broken: list[bool] = []
        self.waiting: list[PassedCall] = []

    def on_request(self, call: ServerCall, message: bytes) -> None:
        self.passage.take(call, call.path, message, self.streams, self.headers)

    def on_waiting(self, passed: PassedCall) -> None:
        self.waiting.append(passed)

    def on_withdrawn(self, passed: PassedCall) -> None:
        self.waiting.remove(passed)

    def on_broken(self, passed: PassedCall, unprocessed: bool) -> None:
        self.broken.append(unprocessed)
        passed.fail(Status.UNAVAILABLE, "broken")


class Far(Handler):
    """The other server; keeps what it gets."""

    def __init__(self) -> None:
        self.unary = True
        self.wants_metadata = True
        self.calls: list[ServerCall] = []
        self.messages: list[bytes] = []
        self.metadata: Headers = []
        self.cancelled: list[int] = []
        self.drained = 0

    def on_metadata(self, call: ServerCall) -> None:
        self.metadata = call.headers

    def on_request(self, call: ServerCall, message: bytes) -> None:
        self.calls.append(call)
        self.messages.append(message)

    def on_drain(self, call: Call) -> None:
        self.drained += 1

    def on_cancel(self, call: ServerCall, status: int) -> None:
        self.cancelled.append(status)


class Client(Handler):
    def __init__(self) -> None:
        self.wants_metadata = True
        self.messages: list[bytes] = []
        self.end: tuple[Status, str] | None = None
        self.metadata: Headers = []

    def has(self, count: int) -> Callable[[], bool]:
        return lambda: len(self.messages) == count

    def on_headers(self, call: ClientCall) -> None:
        self.metadata = call.headers

    def on_message(self, call: Call, message: bytes) -> None:
        self.messages.append(message)

    def on_end(self, call: ClientCall, status: int, message: str) -> None:
        self.end = (Status(status), message)


class Stage:
    def __init__(self) -> None:
        self.front, self.far = Front(), Far()

    async def start(self, folder: Path) -> None:
        loop = asyncio.get_running_loop()
        self.servers = [Server(loop, lambda path: self.front), Server(loop, lambda path: self.far)]
        for server, name in zip(self.servers, ("front", "far"), strict=True):
            await server.listen_unix(str(folder / name))
        self.front.passage.channel = await Channel.connect_unix(loop, str(folder / "far"))
        self.channel = await Channel.connect_unix(loop, str(folder / "front"))

    async def stop(self) -> None:
        self.channel.close()
        for server in self.servers:
            await server.close()

    def call(self, message: bytes = b"asked", **more: Any) -> tuple[ClientCall, Client]:
        client = Client()
        call = self.channel.open(PATH, client, **more)
        call.send(message)
        call.half_close()
        return call, client

    async def arrived(self, count: int = 1) -> ServerCall:
        await until(lambda: len(self.far.calls) == count, f"{count} calls at the far server")
        return self.far.calls[-1]


Scenario = Callable[[Stage], Awaitable[None]]


@contextmanager
def no_call_left() -> Iterator[None]:
    gc.collect()  # what earlier tests left is not ours
    before = live_objects()
    yield
    gc.collect()  # a stage and its servers know each other
    after = live_objects()
    assert (after["calls"], after["queues"]) == (before["calls"], before["queues"])


def play(folder: Path, scenario: Scenario) -> None:
    async def run() -> None:
        stage = Stage()
        await stage.start(folder)
        try:
            await asyncio.wait_for(scenario(stage), 10)
        finally:
            await stage.stop()

    with no_call_left():
        uvloop.run(run())


async def ended(client: Client) -> None:
    await until(lambda: client.end is not None, "the end of the call")


@pytest.mark.parametrize("size", [0, 1, 100_000, 3_000_000])
def test_a_message_and_its_answer_pass_as_they_are(tmp_path: Path, size: int) -> None:
    async def scenario(stage: Stage) -> None:
        _, client = stage.call(b"a" * size)
        (await stage.arrived()).reply(b"b" * size, [(b"x-own", b"1")])
        await ended(client)
        assert stage.far.messages == [b"a" * size]
        assert (client.messages, client.end) == ([b"b" * size], (Status.OK, ""))
        assert client.metadata == [(b"x-own", b"1")]
        assert stage.front.passage.passed == 1

    play(tmp_path, scenario)


def test_status_message_and_trailers_pass_as_they_are(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        call, client = stage.call()
        (await stage.arrived()).finish(Status.NOT_FOUND, "käse % \n", [(b"x-own", b"1")])
        await ended(client)
        assert client.end == (Status.NOT_FOUND, "käse % \n")
        assert call.trailers == [(b"x-own", b"1")]

    play(tmp_path, scenario)


def test_headers_of_the_passage_go_along_and_those_of_the_client_do_not(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.front.headers = [(b"x-passage", b"1")]
        _, client = stage.call(headers=[(b"x-client", b"1")])
        (await stage.arrived()).reply(b"")
        await ended(client)
        assert stage.far.metadata == [(b"x-passage", b"1")]

    play(tmp_path, scenario)


def test_a_client_that_cancels_is_told(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        call, client = stage.call()
        await stage.arrived()
        call.cancel()
        await until(lambda: stage.far.cancelled == [Status.CANCELLED], "the far server knows")
        await ended(client)

    play(tmp_path, scenario)


def test_the_deadline_holds_on_both_ways(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        _, client = stage.call(timeout=0.1)
        assert (await stage.arrived()).deadline > 0.0
        await ended(client)
        assert client.end is not None and client.end[0] == Status.DEADLINE_EXCEEDED
        await until(lambda: bool(stage.far.cancelled), "the far server knows")

    play(tmp_path, scenario)


def test_a_stream_of_answers_begins_at_once_and_ends_after_its_last(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.front.streams = True
        _, client = stage.call()
        far = await stage.arrived()
        far.start([(b"x-own", b"1")])
        await until(lambda: client.metadata == [(b"x-own", b"1")], "headers")
        for number in range(3):
            far.send(b"%d" % number)
            await until(client.has(number + 1), "a message")
        far.finish(Status.ABORTED, "in the middle")
        await ended(client)
        assert (client.messages, client.end) == ([b"0", b"1", b"2"], (Status.ABORTED, "in the middle"))

    play(tmp_path, scenario)


def test_a_client_that_pauses_stops_the_far_server(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.front.streams = True
        call, client = stage.call()
        call.pause()
        far = await stage.arrived()
        sent = 0
        while far.send(PIECE) or not await stopped(stage):
            sent += 1
            await asyncio.sleep(0)
            assert sent < 1000, "nothing stops the far server"
        sent += 1
        assert not client.messages
        call.resume()
        await until(lambda: len(client.messages) == sent, "all messages")
        assert stage.far.drained
        far.finish()
        await ended(client)

    play(tmp_path, scenario)


async def stopped(stage: Stage) -> bool:
    """Whether the far server is not told to go on, for a while."""
    before = stage.far.drained
    await asyncio.sleep(0.05)
    return stage.far.drained == before


def test_a_lost_connection_is_told_to_the_owner(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        _, client = stage.call()
        await stage.arrived()
        assert stage.front.passage.channel is not None
        stage.front.passage.channel.close()
        await ended(client)
        assert client.end == (Status.UNAVAILABLE, "broken") and stage.front.broken == [False]
        _, client = stage.call()
        await until(lambda: len(stage.front.waiting) == 1, "it waits")
        stage.front.waiting.pop().fail(Status.ABORTED, "no more")
        await ended(client)
        assert client.end == (Status.ABORTED, "no more")

    play(tmp_path, scenario)


def test_a_client_that_leaves_while_its_call_waits_is_forgotten(tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        stage.front.passage.channel, channel = None, stage.front.passage.channel
        call, client = stage.call()
        await until(lambda: len(stage.front.waiting) == 1, "it waits")
        call.cancel()
        await until(lambda: not stage.front.waiting, "it is forgotten")
        await ended(client)
        assert channel is not None
        channel.close()

    play(tmp_path, scenario)


def test_nobody_makes_a_passed_call_by_hand() -> None:
    with pytest.raises(TypeError, match="Passage"):
        PassedCall()
