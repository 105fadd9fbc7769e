"""Actions of a user function that misbehaves: every client is answered in time, whatever the shape of its call, other
services are served as if nothing were, and nothing is left behind."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import monotonic
from typing import Any

import grpc
import pytest
from tck import action_pb2 as model

from ..integration import action_function as said
from ..integration.action_calls import duplex, path, streamed_in, streamed_out, unary_call, write
from ..integration.action_function import ActionCall, ActionFunction
from ..integration.harness import World, eventually, ok, outcome
from .test_misbehaving_user_function import GONE, readings

SETTINGS = {"action_timeout": "500ms", "max_inbound_message_size": "256K", "max_hops": "3"}
HUGE = "x" * 300_000  # above the limit
ANSWER_LIMIT_S = 5.0
CLIENT_PATIENCE_S = 30.0  # never reached: the proxy has to answer before
CLIENTS = 12
STATUSES = [status for status in grpc.StatusCode if status is not grpc.StatusCode.OK]

Misdeed = Callable[[ActionCall, random.Random], Awaitable[None]]


async def no_answer(call: ActionCall, chance: random.Random) -> None:
    await asyncio.Event().wait()  # until the proxy resets the call


async def early_close(call: ActionCall, chance: random.Random) -> None:
    """Ends well, without a word."""


async def many_answers(call: ActionCall, chance: random.Random) -> None:
    for _ in range(chance.randrange(2, 5)):
        await call.send(said.reply("again"))


async def slow(call: ActionCall, chance: random.Random) -> None:
    await asyncio.sleep(chance.choice((0.05, 0.2, 0.7)))
    await call.send(said.reply("late"))


async def abort(call: ActionCall, chance: random.Random) -> None:
    if chance.random() < 0.5:
        await call.send(said.reply("before"))
    await call.context.abort(chance.choice(STATUSES), "abgebrochen: ä\n" * chance.randrange(3))


async def garbage(call: ActionCall, chance: random.Random) -> None:
    await call.send_bytes(chance.randbytes(chance.choice((0, 1, 3, 20, 1000))))


async def damaged(call: ActionCall, chance: random.Random) -> None:
    data = bytearray(said.reply("fine", said.effect_two("e")).SerializeToString())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    await call.send_bytes(bytes(data))


async def huge(call: ActionCall, chance: random.Random) -> None:
    await call.send(said.reply(HUGE))


async def loop(call: ActionCall, chance: random.Random) -> None:
    await call.send(said.forward(said.MODEL, "ProcessUnary", model.Request()))


async def unknown_targets(call: ActionCall, chance: random.Random) -> None:
    nowhere = said.side_effect("nowhere.Service", "Call", model.Request(), synchronous=chance.random() < 0.5)
    await call.send(said.forward("nowhere.Service", "Call", model.Request(), nowhere))


async def effects_on_rogues(call: ActionCall, chance: random.Random) -> None:
    effects = [
        said.side_effect(said.MODEL, name, model.Request(), synchronous=chance.random() < 0.5)
        for name in ("ProcessUnary", "ProcessStreamedOut", "ProcessStreamed")
    ]
    await call.send(said.reply("with effects", *effects))


MISDEEDS: list[Misdeed] = [
    no_answer,
    early_close,
    many_answers,
    slow,
    abort,
    garbage,
    damaged,
    huge,
    loop,
    unknown_targets,
    effects_on_rogues,
]


class RogueActions(ActionFunction):
    """ActionTckModel misbehaves; ActionTwo does not."""

    def __init__(self, seed: int) -> None:
        super().__init__(said.actions_spec(with_entities=False))
        self.chance = random.Random(seed)
        self.done: Counter[str] = Counter()
        self.deck: list[Misdeed] = []

    async def _play_call(self, call: ActionCall, first: Any) -> None:
        if first.service_name != said.MODEL:
            await super()._play_call(call, first)
            return
        if not self.deck:
            self.deck = self.chance.sample(MISDEEDS, len(MISDEEDS))
        misdeed = self.deck.pop()
        self.done[misdeed.__name__] += 1
        await misdeed(call, self.chance)


async def ask(world: World, shape: int) -> None:
    """One call of one of the four shapes, read to its end, however that is. It has to come in time."""
    asked = model.Request()
    began = monotonic()
    if shape == 0:
        call = unary_call(world, asked, timeout=CLIENT_PATIENCE_S)
    elif shape == 1:
        call = streamed_out(world, asked, timeout=CLIENT_PATIENCE_S)
    else:
        call = (streamed_in if shape == 2 else duplex)(world, timeout=CLIENT_PATIENCE_S)
        try:
            await write(call, asked)
            await call.done_writing()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            pass  # ended before it was written: its status says why
    if shape in (1, 3):
        await drain(call)
    assert await call.code() is not None
    assert monotonic() - began < ANSWER_LIMIT_S


async def drain(call: Any) -> None:
    """Read all responses, which may be no messages of theirs: the status comes behind them."""
    try:
        while await call.read() is not grpc.aio.EOF:
            pass
    except grpc.aio.AioRpcError:
        pass  # `code` tells it again


async def storm(world: World, calls: int) -> None:
    over = asyncio.Event()

    async def insist(number: int) -> None:
        for turn in range(calls):
            await ask(world, (number + turn) % 4)

    async def behave() -> None:
        make = world.client.channel.unary_unary(path("Call", said.TWO))
        while not over.is_set():
            assert await outcome(make(model.OtherRequest(id="good").SerializeToString(), timeout=10)) == ok("")
            await asyncio.sleep(0.01)

    good = asyncio.create_task(behave())
    await asyncio.gather(*(insist(number) for number in range(CLIENTS)))
    over.set()
    await good


@pytest.mark.parametrize("seed", [1, 2])
async def test_misbehaving_actions_hurt_only_their_own_calls(tmp_path: Path, seed: int) -> None:
    function = RogueActions(seed)
    async with World(tmp_path, user_function=function, **SETTINGS) as world:
        await storm(world, 2)
        before = (await readings(world))["process_resident_memory_bytes"]
        await storm(world, 8)

        async def gone() -> bool:
            found = await readings(world)
            return not any(found[f"stateside_{name}"] for name in GONE)

        await eventually(gone, "all calls and streams are gone")
        assert set(function.done) == {misdeed.__name__ for misdeed in MISDEEDS}  # each was tried
        assert (await readings(world))["process_resident_memory_bytes"] - before < 48 << 20
        assert await world.proxy.terminate() == 0
        assert "Traceback" not in world.proxy.log
