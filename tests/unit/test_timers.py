"""The heap of moments: who is looked at when, and who gives way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic

import pytest
import uvloop

from stateside.proxy.timers import EVICTION_SCAN, MAX_PER_TURN, Timers


class Target:
    """Looked at once, or every `again` seconds."""

    def __init__(self, again: float = 0.0, idle: bool = True) -> None:
        self.due = 0.0
        self.touched = monotonic()
        self.again = again
        self.idle = idle
        self.looked_at: list[float] = []
        self.evicted = False

    def on_time(self, now: float) -> float:
        self.looked_at.append(now)
        return now + self.again if self.again else 0.0

    def evict(self) -> bool:
        was_idle, self.idle = self.idle, False
        self.evicted = was_idle
        return was_idle


def run(scenario: Callable[[Timers], Awaitable[None]]) -> None:
    async def main() -> None:
        timers = Timers(asyncio.get_running_loop())
        await scenario(timers)
        timers.stop()

    uvloop.run(main())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(2):
        while not condition():
            await asyncio.sleep(0.001)


def test_a_target_is_looked_at_when_its_moment_comes_and_not_before() -> None:
    async def scenario(timers: Timers) -> None:
        target, due = Target(), monotonic() + 0.03
        timers.watch(target, due)
        await until(lambda: bool(target.looked_at))
        assert target.looked_at[0] >= due
        assert target.due == 0.0

    run(scenario)


def test_moments_come_in_order_whatever_the_order_of_asking() -> None:
    async def scenario(timers: Timers) -> None:
        now = monotonic()
        targets = [Target() for _ in range(3)]
        for target, after in zip(targets, (0.03, 0.01, 0.02), strict=True):
            timers.watch(target, now + after)
        await until(lambda: all(target.looked_at for target in targets))
        third, first, second = (target.looked_at[0] for target in targets)
        assert first <= second <= third

    run(scenario)


def test_a_target_that_names_a_later_moment_does_not_delay_the_others() -> None:
    async def scenario(timers: Timers) -> None:
        now = monotonic()
        patient, hasty = Target(again=3600), Target()
        timers.watch(patient, now + 0.01)
        timers.watch(hasty, now + 0.03)
        await until(lambda: bool(hasty.looked_at))
        assert patient.looked_at

    run(scenario)


def test_the_earlier_of_two_moments_counts() -> None:
    async def scenario(timers: Timers) -> None:
        target, now = Target(), monotonic()
        timers.watch(target, now + 3600)
        timers.watch(target, now + 0.01)
        timers.watch(target, now + 1800)
        await until(lambda: bool(target.looked_at))
        await asyncio.sleep(0.02)
        assert len(target.looked_at) == 1

    run(scenario)


def test_a_forgotten_target_is_not_looked_at() -> None:
    async def scenario(timers: Timers) -> None:
        forgotten, marker, now = Target(), Target(), monotonic()
        timers.watch(forgotten, now + 0.01)
        timers.watch(marker, now + 0.02)
        timers.forget(forgotten)
        await until(lambda: bool(marker.looked_at))
        assert not forgotten.looked_at

    run(scenario)


def test_a_crowd_is_looked_at_in_several_turns_of_the_loop() -> None:
    async def scenario(timers: Timers) -> None:
        targets = [Target() for _ in range(MAX_PER_TURN * 3)]
        seen_by_others: list[int] = []

        def count() -> None:
            seen_by_others.append(sum(bool(target.looked_at) for target in targets))

        class First(Target):
            def on_time(self, now: float) -> float:
                """Whatever else waits for the loop gets its turn before the crowd is through."""
                asyncio.get_running_loop().call_soon(count)
                return super().on_time(now)

        now = monotonic()
        for target in [First(), *targets]:
            timers.watch(target, now)
        await until(lambda: all(target.looked_at for target in targets))
        assert seen_by_others[0] < len(targets)

    run(scenario)


@pytest.mark.parametrize("wanted", [0, 1, 3])
def test_those_that_rested_longest_give_way_first(wanted: int) -> None:
    async def scenario(timers: Timers) -> None:
        now = monotonic()
        targets = [Target() for _ in range(5)]
        for number, target in enumerate(targets):
            timers.watch(target, now + 100 + number)
            target.touched = now - number  # the last one rested longest
        assert timers.evict(wanted) == wanted
        assert [target.evicted for target in reversed(targets)] == [True] * wanted + [False] * (5 - wanted)

    run(scenario)


def test_busy_and_forgotten_targets_do_not_give_way() -> None:
    async def scenario(timers: Timers) -> None:
        busy, gone, idle = Target(idle=False), Target(), Target()
        for target in (busy, gone, idle):
            timers.watch(target, monotonic() + 100)
        timers.forget(gone)
        assert timers.evict(3) == 1
        assert idle.evicted and not busy.evicted and not gone.evicted

    run(scenario)


def test_all_that_is_idle_gives_way_when_the_proxy_stops() -> None:
    async def scenario(timers: Timers) -> None:
        targets = [Target() for _ in range(EVICTION_SCAN * 3)]
        for target in targets:
            timers.watch(target, monotonic() + 100)
        timers.evict_all()
        assert all(target.evicted for target in targets)

    run(scenario)
