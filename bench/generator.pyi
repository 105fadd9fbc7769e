"""The load generator behind `stateside load`: calls of a mix of commands over a population of keys, timed and
checked."""

import asyncio
from collections.abc import Callable, Sequence

from stateside._speedups.h2 import Channel

class Latencies:
    """A histogram of times with three significant digits, from a nanosecond to the end of time (HdrHistogram's
    layout:
    1024 linear steps in each power of two)."""

    count: int
    total_ns: int
    max_ns: int
    def add(self, ns: int) -> None: ...
    def clear(self) -> None: ...
    def merge(self, other: Latencies) -> None: ...
    def quantile_ns(self, share: float) -> int:
        """The time that `share` (0 to 1) of all do not exceed; 0 when there is none."""
    def distribution(self) -> list[tuple[int, int]]:
        """(highest time of a step in ns, how many lie in it), steps without any left out."""

class Keys:
    """Which entity is next. Keys are `prefix` and a number from 0 to population - 1.

    distribution: "uniform"; "zipf" (argument: exponent, between 0 and 1; number 0 is the most frequent, as in
    YCSB); "hot" (argument: the share of commands that go to number 0; the others are uniform); "turn" (one after the
    other). digits: shorter numbers begin with zeros. ValueError.
    """

    distribution: str
    population: int
    def __init__(
        self,
        prefix: str,
        population: int,
        distribution: str = "uniform",
        argument: float = 0.0,
        seed: int = 1,
        digits: int = 1,
    ) -> None: ...
    def next(self) -> int:
        """The number of the next key."""

class Command:
    """One kind of call, and what came of it.

    message: serialized, without its key. key_field: number of the key's field, a string; 0 = none. expected: the
    answer, or None
    for any well-formed message; echoes: the answer has to be the request.
    """

    name: str
    latencies: Latencies
    completed: int
    failed: int
    statuses: dict[int, int]
    """gRPC status -> calls, of those that failed by status."""
    def __init__(
        self,
        path: bytes,
        message: bytes,
        key_field: int,
        weight: float = 1.0,
        expected: bytes | None = None,
        echoes: bool = False,
    ) -> None: ...

class Generator:
    """Calls until `stop`, or `count` of them. `on_done()` is called when the last one has ended.

    rate 0: a closed loop, `in_flight` calls at all times, each timed from its beginning; each channel has its share of
    them, and the next call goes where one has ended. Otherwise an open loop: calls are due at a constant rate per
    second whatever the server does, each is timed from when it was due, so that waiting for a stalled server counts (no
    coordinated omission); at most `in_flight` run at once, others begin late; channels are used in turn.
    """

    commands: list[Command]
    window: Latencies
    """Of all commands since somebody cleared it."""
    begun: int
    completed: int
    """Calls that ended with OK and one right answer."""
    failed: int
    in_flight: int
    late: int
    """Open loop: calls that began more than 2 ms after they were due: in_flight was reached, or this process was
    busy."""
    problems: list[str]
    """The first few different ones."""
    stopping: bool
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        channels: Sequence[Channel],
        commands: Sequence[Command],
        keys: Keys,
        on_done: Callable[[], None],
        *,
        in_flight: int = 128,
        rate: float = 0.0,
        count: int = -1,
    ) -> None: ...
    def start(self) -> None: ...
    def clear(self) -> None:
        """The warm-up is over: forget what was recorded."""
    def stop(self) -> None:
        """Begin no more calls."""

class StreamReader:
    """Reads endless streams of numbered messages (bench.Written), all at once. `on_done()` is called when the last
    stream has ended, after `stop` or by itself.
    """

    completed: int
    """Messages that came in order."""
    failed: int
    """Streams that lost messages or ended by themselves."""
    in_flight: int
    problems: list[str]
    def __init__(self, path: bytes, message: bytes, on_done: Callable[[], None]) -> None: ...
    def start(self, channels: Sequence[Channel], in_flight: int) -> None:
        """Open `in_flight` streams on each channel."""
    def clear(self) -> None: ...
    def stop(self) -> None: ...
