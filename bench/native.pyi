"""The far end of a measurement, compiled: an echo user function."""

from stateside._speedups.h2 import Handler

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
