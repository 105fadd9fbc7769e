"""When new calls are refused, and when they are taken again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from stateside.proxy import overload
from stateside.proxy.config import load
from stateside.proxy.overload import Overload, resident_bytes, trim_memory


class Server:
    """What Overload sets."""

    max_calls = -1
    shedding: str | None = None


class Timers:
    def __init__(self) -> None:
        self.evicted = 0

    def evict(self, wanted: int) -> int:
        self.evicted += wanted
        return wanted


class Stage:
    def __init__(self, **settings: str) -> None:
        self.server, self.timers = Server(), Timers()
        loop: Any = None
        self.overload = Overload(load(settings), loop, self.server, self.timers)  # type: ignore[arg-type]
        self.now = 100.0

    def late(self, *seconds: float) -> str | None:
        for each in seconds:
            self.now += 0.05 + each
            self.overload.on_lag(self.now, each)
        return self.server.shedding

    def uses(self, size: int) -> str | None:
        self.overload.on_memory(size)
        return self.server.shedding


def test_one_hiccup_refuses_nobody() -> None:
    stage = Stage(max_loop_lag="200ms")
    assert stage.late(0.0, 5.0, 0.0, 0.0, 5.0, 0.0) is None
    assert stage.overload.highest_lag == 5.0


def test_a_loop_that_stays_late_refuses_calls_until_it_was_in_time_for_a_while() -> None:
    stage = Stage(max_loop_lag="200ms")
    assert stage.late(0.2) is None
    assert stage.late(0.2) == "max_loop_lag"
    assert stage.late(*[0.11] * 50) == "max_loop_lag"  # not late enough to begin, too late to end
    assert stage.late(*[0.0] * 9) == "max_loop_lag"
    assert stage.late(*[0.0] * 2) is None


def test_lag_may_be_no_reason() -> None:
    assert Stage(max_loop_lag="0").late(*[100.0] * 10) is None


def test_memory_above_the_limit_refuses_calls_until_it_is_clearly_below(monkeypatch: pytest.MonkeyPatch) -> None:
    trimmed = []
    monkeypatch.setattr(overload, "trim_memory", lambda: trimmed.append(1))
    stage = Stage(max_memory="1000000")
    assert stage.uses(999_999) is None
    assert stage.uses(1_000_000) == "max_memory"
    assert stage.uses(960_000) == "max_memory"
    assert (stage.timers.evicted, len(trimmed)) == (overload.EVICTED_AT_ONCE, 1)
    assert stage.uses(949_999) is None


def test_of_two_reasons_both_have_to_end() -> None:
    stage = Stage(max_loop_lag="200ms", max_memory="1000")
    assert stage.uses(2000) == "max_memory"
    assert stage.late(1.0, 1.0) == "max_loop_lag"
    assert stage.uses(0) == "max_loop_lag"
    assert stage.uses(2000) == "max_loop_lag"
    assert stage.late(*[0.0] * 20) == "max_memory"


def test_the_bound_of_calls_is_the_transport_s() -> None:
    assert Stage(max_calls_in_flight="7").server.max_calls == 7


def test_the_process_knows_its_memory_and_can_give_some_back() -> None:
    before = resident_bytes()
    ballast = bytearray(b"x") * (64 << 20)
    assert resident_bytes() - before > 60 << 20
    del ballast
    trim_memory()
    assert resident_bytes() - before < 30 << 20


def test_the_timer_measures_how_late_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overload, "INTERVAL", 0.001)

    async def body() -> None:
        server: Any = Server()
        timers: Any = Timers()
        watched = Overload(load({"max_memory": "1"}), asyncio.get_running_loop(), server, timers)
        watched.start()
        while watched.lag.count < 3 or server.shedding is None:
            await asyncio.sleep(0.001)
        assert server.shedding == "max_memory"
        watched.stop()
        count = watched.lag.count
        await asyncio.sleep(0.01)
        assert watched.lag.count == count

    asyncio.run(body())
