"""CRDT entities of a user function that misbehaves: every client is answered in time, entities that behave count
exactly, and nothing is left behind."""

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

from stateside.proto import crdt

from ..integration import crdt_messages as said
from ..integration.crdt_calls import ask
from ..integration.crdt_function import CrdtFunction
from ..integration.harness import World, eventually, method_path
from ..integration.messages import CRDT_MODEL
from ..integration.user_function import EntityStream
from .test_misbehaving_user_function import GONE, readings

SETTINGS = {
    "journal": "memory:",
    "relay_timeout": "500ms",
    "stream_close_timeout": "300ms",
    "passivation_timeout": "300ms",
    "max_inbound_message_size": "256K",
    "max_hops": "3",
    "crdt_stream_buffer": "20",
    "crdt_hold_limit": "50ms",
    "crdt_max_in_flight": "20",
}
ROGUE = "rogue"
GOOD = "GCounter-good"
KEYS = 30
CLIENTS = 12
ANSWER_LIMIT_S = 5.0
STATUSES = [status for status in grpc.StatusCode if status is not grpc.StatusCode.OK]
IMPOSSIBLE = [said.gcounter(2**63), said.flag(False), crdt.CrdtDelta(), said.gset("a"), said.pncounter(-(2**63))]

Misdeed = Callable[[EntityStream, int, random.Random], Awaitable[None]]


async def silence(stream: EntityStream, number: int, chance: random.Random) -> None:
    """Never answers."""


async def slow(stream: EntityStream, number: int, chance: random.Random) -> None:
    await asyncio.sleep(chance.choice((0.05, 0.2, 0.7)))
    await stream.send(said.reply(number, change=said.changed(said.gcounter(1)), streamed=chance.random() < 0.5))


async def unknown_numbers(stream: EntityStream, number: int, chance: random.Random) -> None:
    other = chance.choice((0, -1, number + 7, 2**63 - 1))
    await stream.send(
        chance.choice((said.reply, said.message, said.cancel_response, said.stream_failure))(other)  # type: ignore[operator]
    )


async def twice(stream: EntityStream, number: int, chance: random.Random) -> None:
    for _ in range(2):
        await stream.send(said.reply(number, change=said.changed(said.gcounter(1))))


async def streamed(stream: EntityStream, number: int, chance: random.Random) -> None:
    """Whatever was asked for."""
    await stream.send(said.reply(number, streamed=True))


async def flood(stream: EntityStream, number: int, chance: random.Random) -> None:
    await stream.send(said.reply(number, streamed=True))
    for _ in range(200):
        await stream.send(said.message(number, effects=[said.side_effect("x", synchronous=chance.random() < 0.1)]))


async def impossible(stream: EntityStream, number: int, chance: random.Random) -> None:
    change = said.changed(chance.choice(IMPOSSIBLE), chance.randrange(3))
    await stream.send(chance.choice((said.reply(number, change=change), said.cancel_response(number, change))))


async def no_member(stream: EntityStream, number: int, chance: random.Random) -> None:
    await stream.send(said.reply(number, None, crdt.CrdtStateAction(write_consistency=chance.randrange(9))))
    await stream.send(crdt.CrdtStreamOut())


async def deletion(stream: EntityStream, number: int, chance: random.Random) -> None:
    await stream.send(said.reply(number, change=said.deletion(chance.randrange(3))))


async def failures(stream: EntityStream, number: int, chance: random.Random) -> None:
    await stream.send(said.stream_failure(number, "no", restart=chance.random() < 0.5))


async def garbage(stream: EntityStream, number: int, chance: random.Random) -> None:
    await stream.send_bytes(chance.randbytes(chance.choice((1, 3, 20, 1000))))


async def damaged(stream: EntityStream, number: int, chance: random.Random) -> None:
    data = bytearray(said.reply(number, change=said.changed(said.gset("a", "b"))).SerializeToString())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    await stream.send_bytes(bytes(data))


async def huge(stream: EntityStream, number: int, chance: random.Random) -> None:
    await stream.send(said.stream_failure(number, "x" * 300_000))


async def loop(stream: EntityStream, number: int, chance: random.Random) -> None:
    await stream.send(said.reply(number, said.forwarded(f"{ROGUE}-{chance.randrange(KEYS)}", "nowhere.Service")))


async def early_end(stream: EntityStream, number: int, chance: random.Random) -> None:
    stream.complete()


async def abort(stream: EntityStream, number: int, chance: random.Random) -> None:
    stream.abort(chance.choice(STATUSES))


async def honest(stream: EntityStream, number: int, chance: random.Random) -> None:
    await stream.send(said.reply(number, change=said.changed(said.gcounter(1))))


MISDEEDS: list[Misdeed] = [
    silence,
    slow,
    unknown_numbers,
    twice,
    streamed,
    flood,
    impossible,
    no_member,
    deletion,
    failures,
    garbage,
    damaged,
    huge,
    loop,
    early_end,
    abort,
    honest,
    honest,
]


class RogueCrdts(CrdtFunction):
    """Entities whose key begins with ROGUE misbehave."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.chance = random.Random(seed)
        self.deck: list[Misdeed] = []
        self.done: Counter[str] = Counter()

    async def _play_model(self, stream: EntityStream, init: Any) -> None:
        if not init.entity_id.startswith(ROGUE):
            await super()._play_model(stream, init)
            return
        ending = asyncio.create_task(stream.until_ended())
        playing = asyncio.create_task(self._misbehave(stream))
        await asyncio.wait((ending, playing), return_when=asyncio.FIRST_COMPLETED)
        for task in (ending, playing):
            task.cancel()
        outcomes = await asyncio.gather(ending, playing, return_exceptions=True)
        if isinstance(outcomes[0], Exception):
            raise outcomes[0]  # an abort

    async def _misbehave(self, stream: EntityStream) -> None:
        while (message := await stream.take()) is not None:
            number = message.command.id or message.stream_cancelled.id
            if not number:
                continue
            if not self.deck:
                self.deck = self.chance.sample(MISDEEDS, len(MISDEEDS))
            misdeed = self.deck.pop()
            self.done[misdeed.__name__] += 1
            await misdeed(stream, number, self.chance)


async def insist(world: World, chance: random.Random, turns: int) -> None:
    for _ in range(turns):
        key = f"{ROGUE}-{chance.randrange(KEYS)}"
        began = monotonic()
        if chance.random() < 0.5:
            call = world.client.call(method_path(CRDT_MODEL), said.request(key).SerializeToString(), timeout=30)
        else:
            call = world.client.channel.unary_stream(f"/{CRDT_MODEL}/{said.STREAMED}")(
                said.streamed_request(key).SerializeToString(), timeout=30
            )
            asyncio.get_running_loop().call_later(chance.choice((0.01, 0.1, 0.8)), call.cancel)
        assert await call.code() is not None
        assert monotonic() - began < ANSWER_LIMIT_S


async def storm(world: World, seed: int, turns: int) -> int:
    """Clients of rogues and one of an entity that behaves; how often that was asked."""
    over, asked = asyncio.Event(), 0

    async def behave() -> None:
        nonlocal asked
        while not over.is_set():
            assert (await ask(world, GOOD, said.update(gcounter=1))).status == grpc.StatusCode.OK
            asked += 1

    good = asyncio.create_task(behave())
    await asyncio.gather(*(insist(world, random.Random(f"{seed}/{number}"), turns) for number in range(CLIENTS)))
    over.set()
    await good
    return asked


@pytest.mark.parametrize("seed", [1, 2])
async def test_misbehaving_crdts_hurt_only_themselves(tmp_path: Path, seed: int) -> None:
    function = RogueCrdts(seed)
    async with World(tmp_path, user_function=function, **SETTINGS) as world:
        asked = await storm(world, seed, 12)
        assert (await ask(world, GOOD)).value == asked
        assert set(function.done) == {misdeed.__name__ for misdeed in MISDEEDS}  # each was tried

        async def gone() -> bool:
            found = await readings(world)
            return not any(found[f"stateside_{name}"] for name in GONE)

        await eventually(gone, "all instances, calls and streams are gone")
        assert await world.proxy.terminate() == 0
        assert "Traceback" not in world.proxy.log
