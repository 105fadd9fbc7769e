"""A user function that misbehaves on purpose: entities whose streams do all that the protocol forbids, beside some that
behave.

Misdeeds come from shuffled decks, so each is tried as often as any other; how they are done is drawn from random
numbers of each stream. So a seed plays the same game again, as far as its clients ask in the same order.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import grpc

from ..integration import messages
from ..integration import value_messages as values
from ..integration.messages import TWO, VALUE_TWO
from ..integration.user_function import EntityStream
from ..integration.value_function import ValueFunction, ValueStream

ROGUE = "rogue"  # keys of entities that misbehave begin with it
HUGE_BYTES = 300_000  # above the proxy's limit in these tests
LARGE_BYTES = 100_000  # below it
SLOW_S = (0.05, 0.2, 0.7)  # the last one is above relay_timeout
STATUSES = [status for status in grpc.StatusCode if status is not grpc.StatusCode.OK]

EARLY_SHARE = 0.15  # of the streams: they misbehave before their init came
GOOD_SHARE = 0.25  # of the answers
DEAF_SHARE = 0.3  # of the half-closed streams: they are never completed


class RogueFunction(ValueFunction):
    """`rude`: streams may misbehave before their init, when nobody knows whose they are. `honest`: nobody does."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed
        self.rude = self.honest = False
        self.deck = shuffled_decks(random.Random(seed))
        self.done: Counter[str] = Counter()  # misdeeds by name
        self.behaviour = self._behave

    async def _behave(self, stream: EntityStream) -> None:
        chance = random.Random(f"{self.seed}/{stream.number}")
        reading = asyncio.create_task(stream.read_on())
        rogue = Rogue(stream, chance, self.deck, self.done)
        try:
            if self.rude and chance.random() < EARLY_SHARE and not await rogue.misbehave(1):
                return
            first = await stream.take()
            if first is None:
                return
            if first.init.entity_id.startswith(ROGUE):
                await (play_honestly(stream) if self.honest else rogue.play())
            else:
                await self._play_model(stream, first.init)
        finally:
            reading.cancel()


def shuffled_decks(chance: random.Random) -> Iterator[Misdeed]:
    while True:
        yield from chance.sample(MISDEEDS, len(MISDEEDS))


async def play_honestly(stream: EntityStream) -> None:
    """Whatever was stored: an answer to each command."""
    while (message := await stream.take()) is not None:
        if message.HasField("command"):
            said = values if isinstance(stream, ValueStream) else messages
            await stream.send(said.reply(message.command.id, "honest"))


class Rogue:
    """One stream that misbehaves. Each misdeed answers the command `number`, or not, and returns whether it goes on."""

    def __init__(
        self, stream: EntityStream, chance: random.Random, deck: Iterator[Misdeed], done: Counter[str]
    ) -> None:
        self.stream = stream
        self.chance = chance
        self.deck = deck
        self.done = done
        self.is_value = isinstance(stream, ValueStream)
        self.say: Any = values if self.is_value else messages  # both have the same answers
        self.held = 0  # a command that is to be answered later

    async def play(self) -> None:
        while (message := await self.stream.take()) is not None:
            if not message.HasField("command"):
                continue
            if self.chance.random() < GOOD_SHARE:
                await self.stream.send(self.a_reply(message.command.id))
            elif not await self.misbehave(message.command.id):
                return
        if self.chance.random() < DEAF_SHARE:
            await asyncio.Event().wait()  # until the proxy resets the stream

    async def misbehave(self, number: int) -> bool:
        misdeed = next(self.deck)
        self.done[misdeed.__name__] += 1
        return await misdeed(self, number)

    def a_reply(self, number: int) -> Any:
        """A good one, with a change of state or without."""
        return self.say.reply(number, "fine", **self.a_change())

    def a_change(self) -> dict[str, Any]:
        if self.is_value:
            return {"state": self.chance.choice((None, values.updated("rogue"), values.DELETE))}
        return {"events": ["rogue"] * self.chance.randrange(3)}

    async def wrong_id(self, number: int) -> bool:
        wrong = self.chance.choice((number + 1, number - 1, 0, -1, 1 << 62))
        await self.stream.send(self.a_reply(wrong))
        return True

    async def out_of_order(self, number: int) -> bool:
        """An answer to the command before this one, which had none."""
        if self.held:
            await self.stream.send(self.a_reply(self.held))
        self.held = number
        return True

    async def two_replies(self, number: int) -> bool:
        for _ in range(self.chance.randrange(2, 5)):
            await self.stream.send(self.a_reply(number))
        return True

    async def no_reply(self, number: int) -> bool:
        return True

    async def slow(self, number: int) -> bool:
        await asyncio.sleep(self.chance.choice(SLOW_S))
        await self.stream.send(self.a_reply(number))
        return True

    async def early_close(self, number: int) -> bool:
        return False

    async def reply_and_close(self, number: int) -> bool:
        await self.stream.send(self.a_reply(number))
        return False

    async def abort(self, number: int) -> bool:
        await self.stream.context.abort(self.chance.choice(STATUSES), "abgebrochen: ä\n" * self.chance.randrange(3))
        return False

    async def garbage(self, number: int) -> bool:
        await self.stream.send_bytes(self.chance.randbytes(self.chance.choice((0, 1, 3, 20, 1000))))
        return True

    async def damaged(self, number: int) -> bool:
        """A good reply with one bit changed, or cut short."""
        data = bytearray(self.a_reply(number).SerializeToString())
        if self.chance.random() < 0.5:
            data[self.chance.randrange(len(data))] ^= 1 << self.chance.randrange(8)
        else:
            del data[self.chance.randrange(len(data)) :]
        await self.stream.send_bytes(bytes(data))
        return True

    async def huge(self, number: int) -> bool:
        size = self.chance.choice((HUGE_BYTES, LARGE_BYTES))
        await self.stream.send(self.say.reply(number, "x" * size))
        return True

    async def stream_failure(self, number: int) -> bool:
        await self.stream.send(self.say.stream_failure(self.chance.choice((0, number, number + 1)), "broken"))
        return True

    async def failure_with_change(self, number: int) -> bool:
        restart = self.chance.random() < 0.5
        await self.stream.send(self.say.failed(number, "failed", restart=restart, **self.a_change()))
        return True

    async def no_action(self, number: int) -> bool:
        await self.stream.send(self.say.no_action(number, **self.a_change()))
        return True

    async def invalid_state(self, number: int) -> bool:
        """A state action without a member; a snapshot without events."""
        if self.is_value:
            change: dict[str, Any] = {"state": self.chance.choice(list(values.INVALID_STATE_ACTIONS.values()))}
        else:
            change = {"snapshot": "of nothing"}
        await self.stream.send(self.say.reply(number, "fine", **change))
        return True

    async def forward(self, number: int) -> bool:
        service, key = self.chance.choice(self.targets())
        await self.stream.send(self.say.forward(number, key, service))
        return True

    async def effects(self, number: int) -> bool:
        effects = []
        for _ in range(self.chance.randrange(1, 4)):
            service, key = self.chance.choice(self.targets())
            effects.append(messages.side_effect(key, service, synchronous=self.chance.random() < 0.5))
        await self.stream.send(self.say.reply(number, "fine", effects=effects))
        return True

    def targets(self) -> list[tuple[str, str]]:
        """Others, nobody, and one that misbehaves itself."""
        return [(TWO, "target"), (VALUE_TWO, "target"), ("no.such.Service", "x"), (TWO, ROGUE), (VALUE_TWO, ROGUE)]

    async def flood(self, number: int) -> bool:
        """The answer, and a hundred that nobody asked for."""
        for extra in range(100):
            await self.stream.send(self.a_reply(number + extra))
        return True


Misdeed = Callable[[Rogue, int], Awaitable[bool]]
MISDEEDS: list[Misdeed] = [
    Rogue.wrong_id,
    Rogue.out_of_order,
    Rogue.two_replies,
    Rogue.no_reply,
    Rogue.slow,
    Rogue.early_close,
    Rogue.reply_and_close,
    Rogue.abort,
    Rogue.garbage,
    Rogue.damaged,
    Rogue.huge,
    Rogue.stream_failure,
    Rogue.failure_with_change,
    Rogue.no_action,
    Rogue.invalid_state,
    Rogue.forward,
    Rogue.effects,
    Rogue.flood,
]
