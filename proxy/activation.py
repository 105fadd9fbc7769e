"""Entity instances: the state machine between a command and its reply, common to all with one command at a time.

On the way of a command this file stands in the middle: `EntityMethod.on_request` takes the client's bytes from the
transport, finds the `Activation` of the entity key, and the activation passes the command to the user function over
its own stream, has what the reply changes stored, and answers the client. There is no task and no future on that way:
every method below is called from a transport, journal or timer callback and returns at once.

One command at a time is with the user function; the others wait in the activation's stash. What the user function,
the client and the journal may do, and what each of it leads to, is the table at the end of this file (spec core 4, 5).
What an entity type does differently - how it begins, what a reply changes - is in eventsourced.py and valueentity.py.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from enum import IntEnum
from time import monotonic
from typing import TYPE_CHECKING, ClassVar

from stateside._speedups.h2 import ClientCall, Handler, ServerCall
from stateside._speedups.wire import (
    ACTION_FORWARD,
    ACTION_REPLY,
    KIND_FAILURE,
    KIND_REPLY,
    CommandWriter,
    KeyScanner,
    WireError,
)
from stateside.journal.contract import (
    Corrupt,
    Full,
    Head,
    Journal,
    JournalError,
    Page,
    SequenceTaken,
    StaleEpoch,
    TooLarge,
)
from stateside.proto.status import Status
from stateside.proxy import logs
from stateside.proxy.effects import Onward, check_parts, hand_over

if TYPE_CHECKING:
    from stateside._speedups.h2 import Call, Channel
    from stateside._speedups.wire import StreamOut, ValueOut
    from stateside.proxy.config import Settings
    from stateside.proxy.metrics import EntityMetrics
    from stateside.proxy.router import Router
    from stateside.proxy.spec import EntityModel, MethodModel
    from stateside.proxy.timers import Timers
    from stateside.proxy.userfunction import UserFunction

    Reply = StreamOut | ValueOut

MAX_REFUSALS = 10  # streams in a row that the user function may refuse
REFUSAL_DELAY = 0.001  # seconds before the next one is asked for; doubled each time
CRASH_CLOSE_TIMEOUT = 1.0  # seconds that a failed stream gets to complete by itself before it is reset

log = logs.get(__name__)


class State(IntEnum):
    """Where an activation stands. `touched` is the moment of the last progress within it."""

    OPENING = 0  # waiting for a stream to the user function and for the head of the log
    REPLAYING = 1  # init sent, events on their way
    READY = 2  # idle
    BUSY = 3  # one command is with the user function
    STORING = 4  # its events are with the journal
    CLOSING = 5  # half-closed; waiting for the user function to complete its side
    GONE = 6


class Close(IntEnum):
    """Why a stream is being closed decides what follows it."""

    PASSIVATE = 0  # a new instance only if commands arrived meanwhile
    RESTART = 1  # the user function asked for a new instance: open it now
    CRASH = 2  # like PASSIVATE; counted as a failure


# gRPC status of an append or a read that the journal refused.
JOURNAL_STATUS: dict[type[JournalError], Status] = {
    Full: Status.RESOURCE_EXHAUSTED,
    TooLarge: Status.RESOURCE_EXHAUSTED,
    SequenceTaken: Status.ABORTED,
    StaleEpoch: Status.UNAVAILABLE,
    Corrupt: Status.DATA_LOSS,
}

Stashed = tuple[ServerCall, "EntityMethod", bytes, float]


class EntityMethod(Handler):
    """One method of an entity's service, as the transport calls it."""

    __slots__ = ("_active", "_scan", "entities", "model", "name", "output_type_url", "takes_clients", "write")

    def __init__(self, entities: Entities, model: MethodModel) -> None:
        self.unary = True
        self.takes_clients = True
        self.entities = entities
        self.model = model
        self.name = f"{entities.model.service_name}.{model.name}"
        self.output_type_url = model.output_type_url
        self.write = CommandWriter(entities.command_member, model.name, model.input_type_url).write
        self._scan = KeyScanner(model.key_fields, model.enums).scan
        self._active = entities.active

    def on_request(self, call: ServerCall, message: bytes) -> None:
        try:
            key = self._scan(message)
        except WireError as error:
            call.fail(Status.INVALID_ARGUMENT, f"{self.name}: malformed request: {error}")
            return
        activation = self._active.get(key)
        if activation is None:
            if not key:
                call.fail(Status.INVALID_ARGUMENT, f"{self.name}: the entity key is empty")
                return
            self.entities.activate(key, call, self, message)
        else:
            ON_COMMAND[activation.state](activation, call, self, message)


class NotingMethod(EntityMethod):
    """Tells the access log the entity key."""

    __slots__ = ()

    def on_request(self, call: ServerCall, message: bytes) -> None:
        with suppress(WireError):  # found again, and told to the client, by what follows
            call.note = self._scan(message)  # forwards and HTTP calls have one too
        EntityMethod.on_request(self, call, message)


class Entities:
    """All active instances of one service, and what they share. A subclass for each entity type.

    Bounded by `max_entities` instances over the process and `stash_depth` commands waiting at each instance.
    """

    stream_path: ClassVar[bytes]
    """gRPC path of the user function that serves an instance."""
    command_member: ClassVar[int]
    """Field number of `command` in the stream-in message."""
    noun: ClassVar[str]
    """What clients read: `Unexpected <noun> reply`."""
    unknown_message: ClassVar[str] = "message"
    """What they read when the user function sent neither reply nor failure."""
    instance: ClassVar[type[Activation]]

    def __init__(
        self,
        model: EntityModel,
        settings: Settings,
        *,
        journal: Journal,
        user_function: UserFunction,
        timers: Timers,
        metrics: EntityMetrics,
        router: Router,
    ) -> None:
        self.active: dict[str, Activation] = {}
        self.journal = journal
        self.user_function = user_function
        self.timers = timers
        self.metrics = metrics
        metrics.active = self.active.__len__
        self.router = router
        self.settings = settings
        self.update(model)

    def update(self, model: EntityModel) -> None:
        """Serve `model` from now on: at start, and when the user function came back with another one."""
        self.model = model
        self.relay_timeout = self.settings.relay_timeout
        self.stash_depth = self.settings.stash_depth
        idle = model.passivation_timeout
        self.passivation_timeout = idle if idle is not None else self.settings.passivation_timeout
        # Seconds of standstill after which ON_TIMEOUT is called, by state; 0 = never.
        self.timeouts = tuple(
            {
                State.OPENING: self.relay_timeout,
                State.REPLAYING: self.relay_timeout,
                State.READY: self.passivation_timeout,
                State.BUSY: self.relay_timeout,
                State.STORING: 0.0,  # the journal always answers
                State.CLOSING: self.settings.stream_close_timeout,
                State.GONE: 0.0,
            }.values()
        )
        # Whatever state an instance is in, it is looked at before a state entered meanwhile can run out.
        self.check_interval = min(self.relay_timeout, self.passivation_timeout)
        # Some libraries never complete a stream that they have failed, and commands may wait for it: insist earlier.
        self.crash_close_timeout = min(self.settings.stream_close_timeout, CRASH_CLOSE_TIMEOUT)
        relay = self.router.relay
        self.links = relay.links_of_shards if relay is not None else None  # to the owners of shards
        self.shard_of = relay.shard_of(model.persistence_id) if relay is not None else None
        made = NotingMethod if self.settings.access_log_keys else EntityMethod
        self.methods = {method.name: made(self, method) for method in model.methods}

    def activate(self, key: str, call: ServerCall, method: EntityMethod, payload: bytes) -> None:
        """No instance is active here: one is made, or the command is passed on to the worker that owns the entity."""
        if self.links is not None and (link := self.links[self.shard_of(key)]) is not None:  # type: ignore[misc]
            link.command(call, method, payload)
        else:
            self.begin(key, call, method, payload)

    def begin(self, key: str, call: ServerCall, method: EntityMethod, payload: bytes) -> None:
        """A new instance for its first command; the call is refused when there are too many."""
        if self.router.active_instances() >= self.settings.max_entities and not self.timers.evict(1):
            call.fail(
                Status.RESOURCE_EXHAUSTED, f"max_entities ({self.settings.max_entities}) instances are active and busy"
            )
            self.metrics.refusals.count("max_entities")
            return
        self.metrics.received_commands += 1
        activation = type(self).instance(self, key)
        activation.stash = deque(((call, method, payload, monotonic()),))
        self.active[key] = activation
        activation.open()

    def report(self, text: str) -> None:
        """Tell the user function, and the log, that it broke a rule."""
        log.warning("user function broke the protocol", service=self.model.service_name, problem=text)
        self.router.report(text)


class Activation(Handler):
    """One active entity instance: its stream to the user function, its place in the journal, its waiting commands.

    It is the transport's handler of its own stream and the journal's waiter for its own requests. A subclass gives
    `_begin` and `on_message`; it ends the first with `_recovered`, the second with `_answer`, `_failed` or `_store`.
    """

    __slots__ = (
        "activated",
        "answered",
        "channel",
        "client",
        "close_as",
        "command_id",
        "due",
        "entities",
        "key",
        "key_utf8",
        "last_sequence",
        "loads",
        "log_id",
        "method",
        "payload",
        "received",
        "refusals",
        "reply",
        "sent",
        "served",
        "stash",
        "state",
        "stored_from",
        "stream",
        "touched",
    )

    def __init__(self, entities: Entities, key: str) -> None:
        self.entities = entities
        self.key = key
        self.key_utf8 = key.encode()
        self.log_id = f"{entities.model.persistence_id}|{key}"
        self.stash: deque[Stashed] | None = None  # made when needed: most instances never need one
        self.state = State.GONE
        self.due = 0.0  # owned by Timers
        self.channel: Channel | None = None  # owned by UserFunction
        self.refusals = 0
        self.loads = 0  # under way, those of earlier lives included
        self._forget()

    def _forget(self) -> None:
        """Everything that belongs to one stream only."""
        self.stream: ClientCall | None = None
        self.client: ServerCall | None = None
        self.method: EntityMethod | None = None
        self.payload = b""  # of the command in flight
        self.reply: Reply | None = None
        self.close_as: Close | None = None
        self.command_id = 0
        self.served = 0
        self.last_sequence = 0
        self.received = self.sent = self.answered = self.stored_from = 0.0

    # --- opening and replaying ---------------------------------------------------------------------------------------

    def open(self) -> None:
        """Begin a life: ask for a stream, then for the head of the log, then replay."""
        self._forget()
        self.touched = self.activated = monotonic()
        self.state = State.OPENING
        self.entities.metrics.activated_entities += 1
        self.entities.timers.watch(self, self.touched + self.entities.check_interval)
        self.entities.user_function.request(self.entities.stream_path, self)

    def on_stream(self, stream: ClientCall) -> None:
        """The user function's connection pool gives a stream."""
        self.stream = stream
        self.loads += 1
        self.entities.journal.load(self.log_id, self)

    def on_no_stream(self, status: Status, reason: str) -> None:
        """There is no stream to be had: everybody who waits is told at once."""
        if self.state != State.OPENING or self.stream is not None:
            return  # ended by a timeout meanwhile
        self._fail_stash(status, reason)
        self._end()

    def on_loaded(self, head: Head | None, error: JournalError | None) -> None:
        self.loads -= 1
        if self.state != State.OPENING or self.stream is None or self.loads:
            return  # the stream ended while the journal was asked, or an earlier life asked for this
        if head is None:
            self._recovery_failed(error)
            return
        self.state = State.REPLAYING
        self._begin(head, self.stream)

    @abstractmethod
    def _begin(self, head: Head, stream: ClientCall) -> None:
        """Send init and what else the user function needs to know, then call `_recovered`."""

    def on_page(self, page: Page | None, error: JournalError | None) -> None:
        """Only for entity types that read events."""

    def _recovered(self) -> None:
        now = monotonic()
        self.entities.metrics.recovery_time.observe(now - self.activated)
        if self.stash and not self.stash[0][0].ended:
            self._send(*self._take())  # it caused the activation, so it does not count as stashed
        else:
            self._ready(now)

    def _recovery_failed(self, error: JournalError | None) -> None:
        log.error("entity cannot be recovered", entity=self.log_id, error=str(error))
        status = JOURNAL_STATUS.get(type(error), Status.UNAVAILABLE)  # type: ignore[arg-type]
        self._fail_stash(status, f"entity {self.log_id} cannot be recovered: {error}")
        self._close(Close.CRASH)

    # --- commands ----------------------------------------------------------------------------------------------------

    def _ready(self, now: float) -> None:
        """Idle: take the next waiting command, or wait for one."""
        self.state = State.READY
        self.touched = now
        if self.entities.user_function.crowded:
            self._make_room(now)
        elif self.stash:
            self._unstash(now)

    def _make_room(self, now: float) -> None:
        """Others wait for a stream. Give ours up when idle, or after a fair share of commands."""
        if self.served < self.entities.settings.fair_share:
            self.served += 1
            self._unstash(now)
        if self.state == State.READY:
            self._close(Close.PASSIVATE)

    def _unstash(self, now: float) -> None:
        stash = self.stash
        metrics = self.entities.metrics
        while stash:
            call, method, payload, received = self._take()
            metrics.unstashed_commands += 1
            metrics.command_stash_time.observe(now - received)
            if not call.ended:  # the client may have gone while its command waited
                self._send(call, method, payload, received)
                return

    def _take(self) -> Stashed:
        """The next waiting command. An empty stash is given up: it is larger than the rest of an idle instance."""
        assert self.stash
        first = self.stash.popleft()
        if not self.stash:
            self.stash = None
        return first

    def on_ready_command(self, call: ServerCall, method: EntityMethod, payload: bytes) -> None:
        self.entities.metrics.received_commands += 1
        self._send(call, method, payload, monotonic())

    def _send(self, call: ServerCall, method: EntityMethod, payload: bytes, received: float) -> None:
        self.state = State.BUSY
        self.client = call
        self.method = method
        self.payload = payload
        self.command_id = command_id = self.command_id + 1
        self.received = received
        self.answered = 0.0
        self.touched = self.sent = monotonic()
        self.stream.send(method.write(self.key_utf8, command_id, payload))  # type: ignore[union-attr]

    def on_early_command(self, call: ServerCall, method: EntityMethod, payload: bytes) -> None:
        """Any state but READY: the command waits its turn."""
        metrics = self.entities.metrics
        metrics.received_commands += 1
        if self.stash is None:
            self.stash = deque()
        elif len(self.stash) >= self.entities.stash_depth:
            metrics.refused_commands += 1
            metrics.refusals.count("stash_depth")
            call.fail(
                Status.RESOURCE_EXHAUSTED,
                f"{self.entities.stash_depth} commands (stash_depth) already wait for entity {self.log_id}",
            )
            return
        # The command that waits for the activation itself does not count as stashed (see `_recovered`).
        metrics.stashed_commands += bool(self.stash) or self.state > State.REPLAYING
        self.stash.append((call, method, payload, monotonic()))
        if len(self.stash) > metrics.highest_stash_depth:
            metrics.highest_stash_depth = len(self.stash)

    # --- replies -----------------------------------------------------------------------------------------------------

    def _expected(self, call: Call, reply: Reply) -> bool:
        """Whether this answers the command in flight; otherwise it was dealt with. Raises WireError."""
        if call is not self.stream or self.state >= State.CLOSING:
            return False  # too late to matter
        if reply.side_effects or reply.forward is not None or reply.metadata is not None:
            check_parts(reply)
        if self.state != State.BUSY or reply.kind != KIND_REPLY or reply.command_id != self.command_id:
            self._odd_message(reply)
            return False
        return True

    def _malformed(self, call: Call, error: WireError) -> None:
        if call is self.stream and self.state < State.CLOSING:
            self._violation(self.entities.unknown_message, f"sent a malformed message: {error}")

    def _store(self, reply: Reply, now: float) -> None:
        """The reply changes state: a subclass gives it to the journal after this, and `on_appended` follows."""
        self.state = State.STORING
        self.reply = reply
        self.stored_from = now

    def on_appended(self, error: JournalError | None) -> None:
        reply = self.reply
        self.reply = None
        if reply is None:
            return
        if error is not None:
            self._not_stored(error)
            return
        now = monotonic()
        self.entities.metrics.persist_time.observe(now - self.stored_from)
        self._stored(reply)
        self._answer(reply, now)

    @abstractmethod
    def _stored(self, reply: Reply) -> None:
        """The journal has what the reply changed: count it."""

    def _answer(self, reply: Reply, now: float) -> None:
        """Release the client, then go on with the next command; effects and forwards may target this very entity."""
        client, method = self._completed(now)
        if reply.side_effects or reply.action == ACTION_FORWARD:
            if reply.action != ACTION_FORWARD or not hand_over(self.entities.router, client, method, reply, self.key):
                Onward(self.entities.router, client, method, reply, self.key).run()
        elif reply.action == ACTION_REPLY and reply.metadata is None and reply.type_url == method.output_type_url:
            client.reply(reply.payload)
        else:
            self.entities.router.answer(client, method, reply)
        self._next(now)

    def _next(self, now: float) -> None:
        """The command is done with: go on, unless the stream ended or was condemned while the journal was asked."""
        if self.stream is None:
            self._end()
        elif self.close_as is not None:
            self._close(self.close_as)
        else:
            self._ready(now)

    def _completed(self, now: float) -> tuple[ServerCall, EntityMethod]:
        client, method = self.client, self.method
        assert client is not None and method is not None
        self.client = self.method = None
        self.payload = b""
        metrics = self.entities.metrics
        metrics.completed_commands += 1
        metrics.command_total_time.observe(now - self.received)
        if self.answered:  # by the user function
            metrics.relay_time.observe(now - self.answered + self.sent - self.received)
        return client, method

    def _failed(self, reply: Reply, now: float, changes: str, restart: bool) -> None:
        """The command failed: nothing of it is kept. If `changes` (what they are called) came along, or a restart is
        asked for, what the user function has in memory is not what is stored, so a new instance follows."""
        client, _ = self._completed(now)
        self.entities.metrics.failed_commands += 1
        if changes:
            self._report(f"sent {changes} together with a failure; discarded, and the instance restarts")
        if reply.side_effects:
            self._report("sent side effects together with a failure; they were not run")
        client.fail(Status.UNKNOWN, reply.description)
        if restart or changes:
            self._close(Close.RESTART)
        else:
            self._ready(now)

    def _not_stored(self, error: JournalError) -> None:
        """The journal refused: the client learns why, and the user function's state, which is ahead now, is thrown
        away."""
        log.error("a change was not stored", entity=self.log_id, error=str(error))
        client, method = self._completed(monotonic())
        status = JOURNAL_STATUS.get(type(error), Status.UNAVAILABLE)
        if status == Status.RESOURCE_EXHAUSTED:
            self.entities.metrics.refusals.count("journal_full" if isinstance(error, Full) else "too_large")
        client.fail(status, f"{method.name}: the change was not stored: {error}")
        self.close_as = Close.CRASH
        self._next(monotonic())

    # --- what should not happen --------------------------------------------------------------------------------------

    def _odd_message(self, reply: Reply) -> None:
        """A message that does not answer the command in flight (spec core 4.3 rows 11-13, 4.4 rows 15-18)."""
        if reply.kind == KIND_FAILURE:
            if self.client is not None and reply.command_id == self.command_id:
                self.entities.metrics.failed_commands += 1
            log.error("user function failed an entity", entity=self.log_id, description=reply.description)
            self._crash("failure")
        elif reply.kind != KIND_REPLY:
            self._violation(self.entities.unknown_message, "sent a message that is neither reply nor failure")
        elif self.state == State.BUSY:
            expected = f"reply to command {self.command_id} was expected"
            self._violation("reply", f"replied to command {reply.command_id} where the {expected}")
        elif self.state == State.STORING:
            self._violation("reply", f"replied again (to command {reply.command_id}) before its first reply was stored")
        else:
            self._violation("reply", f"replied to command {reply.command_id} while none was in flight")

    def _violation(self, what: str, problem: str) -> None:
        self._report(problem)
        self._crash(what)

    def _report(self, problem: str) -> None:
        self.entities.report(f"Entity {self.key} of {self.entities.model.service_name}: the user function {problem}.")

    def _crash(self, what: str) -> None:
        """End the instance. The command in flight fails; those that wait go to the next instance, unless it was the
        replay that failed, which would only fail again."""
        if self.state == State.REPLAYING or self.state == State.OPENING:
            self._fail_stash(Status.UNKNOWN, self._unexpected(what))
        elif self.state != State.STORING:  # there the journal's answer decides what the client hears
            self._fail_client(Status.UNKNOWN, self._unexpected(what))
        self._close(Close.CRASH)

    def _unexpected(self, what: str) -> str:
        """What a client reads; the reference proxy's words."""
        return f"Unexpected {self.entities.noun} {what}"

    def _fail_client(self, status: Status, text: str) -> None:
        if self.client is not None:
            client, _ = self._completed(monotonic())
            client.fail(status, text)

    def _fail_stash(self, status: Status, text: str) -> None:
        stash, self.stash = self.stash or (), None
        metrics = self.entities.metrics
        metrics.completed_commands += len(stash)
        metrics.unstashed_commands += max(0, len(stash) - (self.state <= State.REPLAYING))
        for call, *_ in stash:
            call.fail(status, text)

    # --- the end -----------------------------------------------------------------------------------------------------

    def _close(self, how: Close) -> None:
        """Half-close and wait for the user function to complete its side (never a reset: spec core 16 #5)."""
        self.close_as = how
        if self.state == State.STORING and self.reply is not None:
            return  # `on_appended` comes first
        if self.stream is not None:
            self.stream.half_close()
        self.state = State.CLOSING
        self.touched = monotonic()
        self.entities.timers.watch(self, self.touched + self._timeout())

    def on_end(self, call: ClientCall, status: int, message: str) -> None:
        """The stream is over, for whatever reason."""
        if call is not self.stream:
            return
        self.stream = None
        self.entities.user_function.release(self)
        ON_STREAM_END[self.state](self, call, status, message)

    def on_unready_stream_end(self, call: ClientCall, status: int, message: str) -> None:
        """While opening or replaying: nobody's command has reached the user function."""
        if call.unprocessed and self._again():
            return
        if status == Status.OK:
            self._fail_stash(Status.UNKNOWN, self._unexpected("termination"))
        else:
            self._fail_stash(
                Status.UNAVAILABLE, f"the user function is not available: {message or Status(status).name}"
            )
        self._end()

    def on_ready_stream_end(self, call: ClientCall, status: int, message: str) -> None:
        self._end()

    def on_busy_stream_end(self, call: ClientCall, status: int, message: str) -> None:
        if call.unprocessed and self._again():
            return
        if call.unprocessed:
            self._fail_client(Status.UNAVAILABLE, f"the user function refused the stream: {message}")
        else:
            self._fail_client(Status.UNKNOWN, self._unexpected("termination"))
        self._end()

    def _again(self) -> bool:
        """The user function refused the stream and has seen nothing of it: ask for another a little later. Servers
        count a stream against their limit for a moment longer than we do."""
        if self.refusals == MAX_REFUSALS:
            return False
        self.refusals += 1
        client, method, payload, received = self.client, self.method, self.payload, self.received
        self._forget()
        if client is not None and method is not None:
            self.stash = self.stash or deque()
            self.stash.appendleft((client, method, payload, received))
        self.state = State.OPENING
        self.touched = monotonic()
        self.entities.timers.later(REFUSAL_DELAY * 2.0**self.refusals, self._ask_again, self.refusals)
        return True

    def _ask_again(self, refusals: int) -> None:
        if self.state == State.OPENING and self.stream is None and self.refusals == refusals:
            self.entities.user_function.request(self.entities.stream_path, self)

    def on_storing_stream_end(self, call: ClientCall, status: int, message: str) -> None:
        """The journal's answer decides what the client hears; `_next` ends the instance then."""

    def on_closing_stream_end(self, call: ClientCall, status: int, message: str) -> None:
        self._end()

    def _end(self) -> None:
        """This life is over. A next one begins at once if the user function asked for it or commands wait."""
        entities = self.entities
        metrics = entities.metrics
        metrics.passivated_entities += 1
        metrics.entity_active_time.observe(monotonic() - self.activated)
        if self.close_as is None or self.close_as == Close.CRASH:
            metrics.failed_entities += 1
        restart = self.close_as == Close.RESTART
        self.state = State.GONE
        self.refusals = 0
        self._drop_ended()
        entities.user_function.withdraw(self)
        if restart or self.stash:
            self._reopen()
        else:
            del entities.active[self.key]
            entities.timers.forget(self)

    def _drop_ended(self) -> None:
        if self.stash:
            kept = deque(stashed for stashed in self.stash if not stashed[0].ended)
            self.entities.metrics.unstashed_commands += len(self.stash) - len(kept)
            self.stash = kept or None

    def _reopen(self) -> None:
        """A new life for the commands that wait; they count as if they had just arrived (spec core 10.5)."""
        waiting = len(self.stash or ())
        metrics = self.entities.metrics
        metrics.unstashed_commands += waiting
        metrics.received_commands += waiting
        metrics.stashed_commands += max(0, waiting - 1)
        self.open()

    # --- time --------------------------------------------------------------------------------------------------------

    def on_time(self, now: float) -> float:
        """Timers ask; the answer is when to ask again (0.0: never)."""
        timeout = self._timeout()
        if timeout and now >= self.touched + timeout:
            ON_TIMEOUT[self.state](self)
            timeout = self._timeout()
        if self.state == State.GONE:
            return 0.0
        again = now + self.entities.check_interval
        return min(again, self.touched + timeout) if timeout else again

    def _timeout(self) -> float:
        if self.state == State.CLOSING and self.close_as == Close.CRASH:
            return self.entities.crash_close_timeout
        return self.entities.timeouts[self.state]

    def on_unready_timeout(self) -> None:
        text = f"entity {self.log_id} could not be activated within relay_timeout ({self.entities.relay_timeout:g} s)"
        self._fail_stash(Status.UNAVAILABLE, text)
        self._abandon()

    def on_ready_timeout(self) -> None:
        self._close(Close.PASSIVATE)

    def on_busy_timeout(self) -> None:
        """The user function is silent: the client is told, the key is freed, whatever it still says is not heard."""
        text = f"the user function did not answer within relay_timeout ({self.entities.relay_timeout:g} s)"
        self._report(f"did not answer command {self.command_id} within relay_timeout")
        self._fail_client(Status.DEADLINE_EXCEEDED, text)
        self._abandon()

    def on_closing_timeout(self) -> None:
        if self.close_as != Close.CRASH:
            self._report("did not complete its side of the stream after it was half-closed")
        self._abandon()

    def _abandon(self) -> None:
        """Reset the stream and end without waiting for the user function."""
        stream, self.stream = self.stream, None
        if stream is not None:
            stream.cancel()
            self.entities.user_function.release(self)
        self._end()

    def evict(self) -> bool:
        """Passivate now if idle; somebody needs the room."""
        if self.state != State.READY or self.stash:
            return False
        self._close(Close.PASSIVATE)
        return True


# The machine as a table: one column per state, one row per kind of event.
_A = Activation
ON_COMMAND: tuple[Callable[[Activation, ServerCall, EntityMethod, bytes], None], ...] = (
    _A.on_early_command,  # OPENING
    _A.on_early_command,  # REPLAYING
    _A.on_ready_command,  # READY
    _A.on_early_command,  # BUSY
    _A.on_early_command,  # STORING
    _A.on_early_command,  # CLOSING: for the next instance
    _A.on_early_command,  # GONE: only within `_end`
)
ON_STREAM_END: tuple[Callable[[Activation, ClientCall, int, str], None], ...] = (
    _A.on_unready_stream_end,  # OPENING
    _A.on_unready_stream_end,  # REPLAYING
    _A.on_ready_stream_end,  # READY
    _A.on_busy_stream_end,  # BUSY
    _A.on_storing_stream_end,  # STORING
    _A.on_closing_stream_end,  # CLOSING
    _A.on_closing_stream_end,  # GONE
)
ON_TIMEOUT: tuple[Callable[[Activation], None], ...] = (
    _A.on_unready_timeout,  # OPENING
    _A.on_unready_timeout,  # REPLAYING
    _A.on_ready_timeout,  # READY
    _A.on_busy_timeout,  # BUSY
    _A.on_ready_timeout,  # STORING: no timeout, the journal always answers
    _A.on_closing_timeout,  # CLOSING
    _A.on_closing_timeout,  # GONE
)
