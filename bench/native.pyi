"""The two ends of a measurement, compiled: an echo user function and a closed loop of calls."""

from collections.abc import Callable

from stateside._speedups.h2 import Channel, Handler

FILL_EVENTS: int
"""Events that the method Fill emits."""

class EntityEcho(Handler):
    """Handler of `/cloudstate.eventsourced.EventSourced/handle`: answers a command with its own payload. A command
    named `Write` emits one event of 100 bytes, `Fill` emits FILL_EVENTS of them, all others none. `Forward` is answered
    by a forward of the payload to bench.Other/Read."""

    inits: int
    replayed: int
    """Events received."""
    commands: int
    emitted: int
    """Events sent."""
    violations: int
    """Messages that the protocol does not allow, or replayed events that are not those which were emitted."""
    last_violation: str
    """The rule that was broken."""
    first_replayed_ns: int
    last_replayed_ns: int
    """CLOCK_MONOTONIC of the first and last event received."""

class ValueEcho(Handler):
    """Handler of `/cloudstate.valueentity.ValueEntity/handle`: answers a command with its own payload, and replaces
    the value by one of 100 bytes that holds how often this was done."""

    inits: int
    commands: int
    updates: int
    violations: int
    """Messages that the protocol does not allow, or a state that was never stored."""
    last_violation: str

class CounterEcho(Handler):
    """Handler of `/cloudstate.crdt.Crdt/handle`: answers a command with its own payload, and adds 1 to a GCounter."""

    inits: int
    commands: int
    deltas: int
    violations: int
    """Messages that the protocol does not allow."""
    last_violation: str

class ActionEcho(Handler):
    """Handler of `/cloudstate.action.ActionProtocol/handleUnary`: answers with the payload of the command."""

    calls: int

class EndlessAction(Handler):
    """Handler of `/cloudstate.action.ActionProtocol/handleStreamedOut`: messages of 100 bytes, numbered from 1, as
    fast as they are taken, until the call is cancelled."""

    calls: int
    sent: int
    open: int
    """Calls not yet cancelled."""

class DirectEcho(Handler):
    """A unary method that answers with its request."""

    calls: int

class Histogram:
    """Latencies in buckets of 1/32 of their magnitude."""

    count: int
    total_ns: int
    max_ns: int
    def add(self, ns: int) -> None: ...
    def quantile_ns(self, share: float) -> int:
        """The latency below which `share` (0 to 1) of all lie, to 2 %."""

class Load:
    """A closed loop: as soon as a call has ended the next one is begun in its place.

    requests: (path, message, expected answer or None for any), used in turn. `on_done()` is called when the last call
    has ended after `stop`, after `count` calls, or after 1000 failed ones.
    """

    histogram: Histogram
    completed: int
    """Calls that ended with OK and one answer, the expected one."""
    failed: int
    in_flight: int
    problems: list[str]
    """What went wrong with the first few of those that failed."""
    def __init__(self, requests: list[tuple[bytes, bytes, bytes | None]], on_done: Callable[[], None]) -> None: ...
    def start(self, channels: list[Channel], in_flight: int, count: int = -1) -> None:
        """Begin `in_flight` calls on each channel. count: calls in all, -1 = until `stop`."""
    def clear(self) -> None:
        """The warm-up is over: forget what was recorded."""
    def stop(self) -> None:
        """Begin no more calls."""

class StreamLoad:
    """Reads endless streams of numbered messages (bench.Written), all at once. It has the face of a `Load`, but counts
    messages and has no latencies. `on_done()` is called when the last stream has ended, after `stop` or by itself.
    """

    histogram: Histogram
    """Empty."""
    completed: int
    """Messages that came in order."""
    failed: int
    """Streams that lost messages or ended by themselves."""
    in_flight: int
    problems: list[str]
    def __init__(self, path: bytes, message: bytes, on_done: Callable[[], None]) -> None: ...
    def start(self, channels: list[Channel], in_flight: int) -> None: ...
    def clear(self) -> None: ...
    def stop(self) -> None: ...
