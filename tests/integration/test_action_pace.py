"""Back-pressure from end to end: whoever is slow stalls whoever sends to it; the proxy keeps next to nothing (9.2)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from tck import action_pb2 as model

from .action_calls import RESPONSE, duplex, function, path, read, streamed_out, unary, write
from .action_function import (
    MODEL,
    TWO,
    ActionCall,
    ActionFunction,
    call_two,
    effect_two,
    forward,
    plain,
    reply,
    request,
    say,
)
from .harness import World, ok
from .user_function import soon

SETTINGS = {"journal": "memory:"}
USER_FUNCTION = ActionFunction

PIECE_BYTES = 256 * 1024
PIECES = 800
PIECE = "x" * PIECE_BYTES
BUFFERED_PIECES = 60  # what sockets, windows and gRPC's own buffers may hold on the whole way
ROOM_BYTES = 30 * 1024 * 1024
STILL_S = 0.3
ASKED = request([say("x")])


@pytest.fixture(autouse=True)
def played(world: World) -> Iterator[None]:
    """The tests of this file answer for the model themselves."""
    function(world).play_services(MODEL)
    yield
    function(world).play_services()
    function(world).unread = None


def memory_bytes(world: World, figure: str = "VmRSS") -> int:
    """Of the proxy: VmRSS is what it holds now, VmHWM the most it ever held."""
    assert world.proxy.process is not None
    with open(f"/proc/{world.proxy.process.pid}/status") as status:
        (line,) = (line for line in status if line.startswith(figure))
    return int(line.split()[1]) * 1024


@asynccontextmanager
async def bounded_memory(world: World) -> AsyncIterator[None]:
    assert await unary_by_model(world)  # all that is needed for calls is loaded
    before = max(memory_bytes(world), memory_bytes(world, "VmHWM"))
    yield
    assert memory_bytes(world, "VmHWM") - before < ROOM_BYTES


async def unary_by_model(world: World) -> bool:
    """Whether another call passes meanwhile."""
    function(world).play_services(TWO)
    answered = await unary(world, ASKED) == ok("x")
    function(world).play_services(MODEL)
    return answered


async def stalled(count: Callable[[], int]) -> int:
    """Wait until a count stands still; the count."""

    async def wait() -> int:
        last = -1
        while last != (last := count()):
            await asyncio.sleep(STILL_S)
        return last

    return await soon(wait(), "the sender to stall")


async def send_pieces(call: ActionCall) -> None:
    for number in range(PIECES):
        await call.context.write(reply(f"{number} {PIECE}").SerializeToString())
        call.sent.append(number)
    call.complete()


async def read_pieces(call: Any, count: int = PIECES) -> None:
    for number in range(count):
        text = RESPONSE(await soon(call.read(), "a piece")).message
        assert text.startswith(f"{number} ") and len(text) >= PIECE_BYTES


async def test_a_stalled_client_stalls_the_user_function_and_loses_nothing(world: World) -> None:
    async with bounded_memory(world):
        call = streamed_out(world, ASKED, timeout=60)
        relayed = await function(world).call()
        sending = asyncio.create_task(send_pieces(relayed))
        assert await stalled(lambda: len(relayed.sent)) < BUFFERED_PIECES
        assert await unary_by_model(world)
        assert len(relayed.sent) < BUFFERED_PIECES
        await read_pieces(call)
        assert await read(call) is None
        await sending


async def test_a_stalled_client_that_goes_away_leaves_nothing_behind(world: World) -> None:
    async with bounded_memory(world):
        calls = [streamed_out(world, ASKED, timeout=60) for _ in range(5)]
        relayed = [await function(world).call() for _ in calls]
        sending = [asyncio.create_task(send_pieces(each)) for each in relayed]
        for each in relayed:
            await stalled(lambda call=each: len(call.sent))  # type: ignore[misc]
        for call in calls:
            call.cancel()
        for each in relayed:
            await each.wait_reset()
        await asyncio.gather(*sending, return_exceptions=True)
        assert await unary_by_model(world)


async def test_a_stalled_client_stalls_the_target_of_a_forwarded_item(world: World) -> None:
    async with bounded_memory(world):
        call = duplex(world, timeout=60)
        relayed = await function(world).call()
        await relayed.send(forward(MODEL, "ProcessStreamedOut", ASKED))
        target = await function(world).call()
        sending = asyncio.create_task(send_pieces(target))
        assert await stalled(lambda: len(target.sent)) < BUFFERED_PIECES
        await relayed.answer(reply("the last"))
        await read_pieces(call)
        assert await read(call) == "the last"
        await sending


async def test_a_pending_synchronous_effect_stalls_the_items_after_it(world: World) -> None:
    function(world).play_services(MODEL, TWO)
    async with bounded_memory(world):
        function(world).play_services(MODEL, TWO)
        call = streamed_out(world, ASKED, timeout=60)
        relayed = await function(world).call()
        await relayed.send(reply("first", effect_two("slow", synchronous=True)))
        effect = await function(world).call()
        assert plain(await effect.next()) == call_two("slow")
        reading = asyncio.create_task(read(call))
        sending = asyncio.create_task(send_pieces(relayed))
        assert await stalled(lambda: len(relayed.sent)) < BUFFERED_PIECES
        assert not reading.done()
        await effect.answer(reply())
        assert await reading == "first"
        await read_pieces(call)
        await sending


@pytest.mark.parametrize("kind", ["streamed in", "duplex"])
async def test_a_user_function_that_does_not_read_stalls_the_client(world: World, kind: str) -> None:
    read_now = asyncio.Event()
    received: list[int] = []

    async def read_late(call: ActionCall) -> None:
        await read_now.wait()
        while (data := await call.context.read()) is not grpc.aio.EOF:
            received.append(len(data))
        await call.context.write(reply("all read").SerializeToString())

    async with bounded_memory(world):
        function(world).unread = read_late
        if kind == "duplex":
            call = duplex(world, timeout=60)
        else:
            call = world.client.channel.stream_unary(path("ProcessStreamedIn"))(timeout=60)
        written: list[int] = []

        async def write_pieces() -> None:
            asked = request([say(PIECE)])
            for number in range(PIECES):
                await write(call, asked)
                written.append(number)
            await call.done_writing()

        writing = asyncio.create_task(write_pieces())
        assert await stalled(lambda: len(written)) < BUFFERED_PIECES
        read_now.set()
        await writing
        if kind == "duplex":
            assert await read(call) == "all read"
        else:
            assert model.Response.FromString(await call).message == "all read"
        assert len(received) == PIECES + 1
        assert min(received[1:]) > PIECE_BYTES
