"""The event log model of the TCK written with the support library, behind the proxy: the scenarios of support D6."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from stateside.support import Stateside
from tests.tck.eventing_model import EntityOne, EntityTwo, Subscriber

from .eventing_function import emit, emit_json, event_forwarded, event_one, event_two
from .harness import World, eventually


class Served:
    """A user function for a `World`, made with the support library."""

    def __init__(self) -> None:
        self.port = 0
        self.subscriber = Subscriber()
        self._server: Any = None

    async def start(self) -> Served:
        self._server = Stateside(EntityOne, EntityTwo, self.subscriber)
        self.port = await self._server.start("127.0.0.1", self.port)
        return self

    async def stop(self) -> None:
        await self._server.stop(0.1)

    async def seen(self, *expected: tuple[str, str, str]) -> None:
        async def now() -> bool:
            return len(self.subscriber.seen) >= len(expected)

        await eventually(now, f"{len(expected)} answers, not {self.subscriber.seen}")
        assert self.subscriber.seen == list(expected)


async def test_events_reach_the_subscriber_with_the_key_of_their_entity(tmp_path: Path) -> None:
    served = Served()
    async with World(tmp_path, user_function=served) as world:  # type: ignore[arg-type]
        assert (await emit(world, "eventlogeventing:1", event_one("one"))).ok
        await served.seen(("ProcessEventOne", "eventlogeventing:1", "one"))
        assert (await emit(world, "eventlogeventing:2", event_forwarded("two"))).ok
        first = ("ProcessEventOne", "eventlogeventing:1", "one"), ("Effect", "eventlogeventing:2", "two")
        await served.seen(*first)
        assert (await emit_json(world, "eventlogeventing:3", "three")).ok
        await served.seen(*first, ("ProcessAnyEvent", "eventlogeventing:3", "three"))
        assert (await emit(world, "eventlogeventing:4", event_two("a", "b"))).ok
        streamed = [("ProcessEventTwo", "eventlogeventing:4", text) for text in "ab"]
        await served.seen(*first, ("ProcessAnyEvent", "eventlogeventing:3", "three"), *streamed)


async def test_events_of_the_time_before_it_came_back_reach_a_subscriber_too(tmp_path: Path) -> None:
    served = Served()
    async with World(tmp_path, user_function=served) as world:  # type: ignore[arg-type]
        await asyncio.gather(*(emit(world, "key", event_one(str(number))) for number in range(20)))
        await served.stop()
        await served.start()

        async def all_seen() -> bool:
            return len({text for _, _, text in served.subscriber.seen}) == 20

        await eventually(all_seen, "all events")
