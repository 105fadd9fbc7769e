"""CRDT entities: many commands at once, over a state that others change too (spec crdt 2 to 4).

On the way of a command this file stands behind crdt_service.py, where activation.py stands for other entity types, and
shares with that how instances are activated, stashed, closed and ended. An instance is one stream to the user function
and one replica of the key's state (replicas.py). Commands are passed on as they come, answered in any order, and a
reply may change the state: that is applied to the replica and written with the asked consistency before the client
hears of anything.

What others change is told to the user function as a delta, but only while none of its *turns* is open: from a
command until its first reply, from a cancellation of a streamed command until the response. So a delta never crosses a
reply that was made without it. When turns overlap without end, new commands are held back after `crdt_hold_limit`
until the delta has been sent.

The instance hurts only the command that asked for something impossible. Where the user function's memory and the
replica may have come apart, the instance goes on with a new stream, which begins with the whole value. What happens
when, is the table at the end of this file.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import TYPE_CHECKING

from stateside._speedups.crdt import CrdtError
from stateside._speedups.wire import (
    STATE_DELETE,
    STATE_NONE,
    STATE_UPDATE,
    CrdtOut,
    WireError,
    scan_crdt_out,
    write_crdt_delete,
    write_crdt_delta,
    write_crdt_init,
    write_stream_cancelled,
)
from stateside.proto.status import Status
from stateside.proxy import logs
from stateside.proxy.activation import Activation, Close, State
from stateside.proxy.crdt_calls import Aftermath, Command, StreamedCall
from stateside.proxy.crdt_view import View
from stateside.proxy.effects import check_parts
from stateside.proxy.replicas import Consistency

if TYPE_CHECKING:
    from stateside._speedups.h2 import Call, ClientCall, ServerCall
    from stateside.journal.contract import Head
    from stateside.proxy.activation import EntityMethod, Reply
    from stateside.proxy.crdt_service import Crdts
    from stateside.proxy.replicas import Replica, ReplicaError

CANCEL_PATIENCE = 1.0  # seconds that the user function has for answering a cancellation before deltas flow again
MAX_LATE = 1000  # commands given up whose answer may still come

LEVELS = tuple(Consistency)

# What clients read; the reference proxy's words.
TERMINATING = "Entity terminating"
DELETED = "Entity deleted"
NOT_UPDATED = "Failed to update CRDT at requested write consistency"

log = logs.get(__name__)


class Crdt(Activation):
    """One instance. Also the `Watcher` of its replica.

    Of the states, READY takes commands whatever is under way, and BUSY holds new ones back until all turns are over:
    then a delta is sent, or the stream is closed if `close_as` says so.
    """

    __slots__ = (
        "cancelling",
        "deleted",
        "held_since",
        "is_full",
        "is_stale",
        "late",
        "lost",
        "pending",
        "streams",
        "view",
        "writing",
    )

    entities: Crdts

    def __init__(self, entities: Crdts, key: str) -> None:
        self.view: View | None = None  # None: no replica
        self.deleted = False
        self.lost = False  # the replica is to be opened anew
        self.writing = 0  # answers of `Replicas` that are still to come
        Activation.__init__(self, entities, key)

    def _forget(self) -> None:
        Activation._forget(self)
        self.pending: dict[int, Command] = {}  # without first reply, in the order in which they were sent
        self.streams: dict[int, StreamedCall] = {}
        self.cancelling: dict[int, tuple[StreamedCall, float]] = {}  # since when
        self.late: dict[int, Command] = {}  # given up; what the user function still says of them matters
        self.is_full = False  # the user function is slow: nothing more until the stream has drained
        self.is_stale = False  # the replica may have changed without the user function knowing
        self.held_since = 0.0  # ... since when, if a turn is in the way

    # --- opening -----------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Begin a life: open the replica unless it is still there, then ask for a stream."""
        self._forget()
        self.touched = self.activated = monotonic()
        self.state = State.OPENING
        self.entities.metrics.activated_entities += 1
        self.entities.timers.watch(self, self.touched + self.entities.check_interval)
        if self.view is None:
            self.entities.replicas.open(self.log_id, self)
        else:
            self.entities.user_function.request(self.entities.stream_path, self)

    def on_opened(self, replica: Replica | None, error: ReplicaError | None) -> None:
        if replica is None:
            assert error is not None
            log.error("entity cannot be recovered", entity=self.log_id, error=error.text)
            self._fail_stash(error.status, f"entity {self.log_id} cannot be recovered: {error.text}")
            self._end()
            return
        self.view = View(self.entities.replicas, replica)
        if replica.deleted:
            self._bury()
        else:
            self.touched = monotonic()
            self.entities.user_function.request(self.entities.stream_path, self)

    def on_stream(self, stream: ClientCall) -> None:
        assert self.view is not None
        self.stream = stream
        now = monotonic()
        self.entities.metrics.recovery_time.observe(now - self.activated)
        stream.send(write_crdt_init(self.entities.model.service_name, self.key, self.view.begin()))
        self.state = State.READY
        self.touched = now
        if self.stash:
            call, method, payload, received = self._take()  # it caused the activation: it does not count as stashed
            if not call.ended:
                self._send(call, method, payload, received)
            self._unstash(now)

    def _begin(self, head: Head, stream: ClientCall) -> None:
        raise AssertionError("a CRDT begins with its replica")

    def _stored(self, reply: Reply) -> None:
        raise AssertionError("a CRDT is written to its replica")

    # --- commands ----------------------------------------------------------------------------------------------------

    def on_command(self, call: ServerCall, method: EntityMethod, payload: bytes) -> None:
        ON_COMMAND[self.state](self, call, method, payload)

    def on_ready_command(self, call: ServerCall, method: EntityMethod, payload: bytes) -> None:
        entities = self.entities
        if self.stash or self.is_full:
            self.on_early_command(call, method, payload)
        elif len(self.pending) >= entities.max_in_flight:
            self._refuse(call, f"{entities.max_in_flight} commands (crdt_max_in_flight) are with the user function")
        elif method.streamed and len(self.streams) >= entities.max_streams:
            self._refuse(call, f"{entities.max_streams} streamed calls (crdt_max_streams) are open")
        else:
            entities.metrics.received_commands += 1
            self._send(call, method, payload, monotonic())

    def _refuse(self, call: ServerCall, why: str) -> None:
        self.entities.metrics.received_commands += 1
        self.entities.metrics.refused_commands += 1
        call.fail(Status.RESOURCE_EXHAUSTED, f"entity {self.log_id}: {why}")

    def on_closing_command(self, call: ServerCall, method: EntityMethod, payload: bytes) -> None:
        if self.deleted:
            self.entities.metrics.received_commands += 1
            self.entities.metrics.completed_commands += 1
            call.fail(Status.UNKNOWN, DELETED)
            return
        self.on_early_command(call, method, payload)
        if self.stream is None and not self.lost:
            self._end()  # it was only waiting for its last writes

    def _send(self, call: ServerCall, method: EntityMethod, payload: bytes, received: float) -> None:
        assert self.stream is not None
        self.command_id = number = self.command_id + 1
        self.touched = now = monotonic()
        make: type[Command] = method.make  # type: ignore[attr-defined]
        self.pending[number] = make(self, call, method, payload, received, number, now)  # type: ignore[arg-type]
        if make is StreamedCall:
            self.entities.metrics.streamed_calls += 1
        if not self.stream.send(method.write(self.key_utf8, number, payload)):
            self.is_full = True

    def _unstash(self, now: float) -> None:
        """As many waiting commands as the user function may have."""
        metrics = self.entities.metrics
        while self.stash and not self.is_full and len(self.pending) < self.entities.max_in_flight:
            call, method, payload, received = self._take()
            metrics.unstashed_commands += 1
            metrics.command_stash_time.observe(now - received)
            if not call.ended:  # the client may have gone while its command waited
                self._send(call, method, payload, received)

    def on_drain(self, call: Call) -> None:
        """The user function takes more."""
        if call is self.stream and self.is_full:
            self.is_full = False
            self._turn_over()

    # --- what the user function says ---------------------------------------------------------------------------------

    def on_message(self, call: Call, message: bytes) -> None:
        if call is not self.stream or (self.state >= State.CLOSING and not self.deleted):
            return  # too late to matter
        try:
            out = scan_crdt_out(message)
            if out.side_effects or out.forward is not None or out.metadata is not None:
                check_parts(out)
        except WireError as error:
            self._crash(f"the user function sent a malformed message: {error}")
            return
        self.touched = monotonic()
        ON_MESSAGE[out.kind](self, out)

    def on_nothing(self, out: CrdtOut) -> None:
        self.report("sent a message without any content; ignored")

    def on_reply(self, reply: CrdtOut) -> None:
        command = self.pending.pop(reply.command_id, None)
        if command is None:
            self._late_reply(reply)
            return
        self.entities.metrics.command_processing_time.observe(self.touched - command.sent)
        if reply.streamed:
            if not isinstance(command, StreamedCall):
                text = f"Streamed reply to non streamed command {command.number}"
                self._refused_by_us(command, text, text)
                self._turn_over()
                return
            self.streams[command.number] = command
        if reply.state_action == STATE_NONE or self.deleted:
            command.answer(reply)
        else:
            self._write(command, reply)
        if reply.streamed and command.over:  # type: ignore[attr-defined]
            self.cancel(command)  # type: ignore[arg-type]
        if reply.restart:
            self.restart()
        self._turn_over()

    def on_streamed_message(self, item: CrdtOut) -> None:
        number = item.command_id
        call = self.streams.get(number) or self.pending.get(number)
        if isinstance(call, StreamedCall):
            if item.end_stream:
                self.streams.pop(number, None)
            self.entities.metrics.streamed_messages += 1
            call.offer(item)
        elif number not in self.cancelling and number not in self.late:  # those may have crossed
            self.entities.report(self._named(f"Received streamed message for unknown command id: {number}"))

    def on_cancelled_response(self, response: CrdtOut) -> None:
        number = response.command_id
        call, _ = self.cancelling.pop(number, (None, 0.0))
        late = call is None
        command = self.late.pop(number, None) if call is None else call
        if command is None:
            self._crash(f"Received stream cancelled response for unknown command {number}")
            return
        self._after(command, response, late)

    def on_failure(self, failure: CrdtOut) -> None:
        number = failure.command_id
        log.error("user function failed", entity=self.log_id, command=number, description=failure.description)
        command = self.pending.pop(number, None) or self.streams.pop(number, None)
        if command is not None:
            command.fail(Status.UNKNOWN, failure.description)
        elif number in self.cancelling:
            del self.cancelling[number]
        if failure.restart:
            self.restart()
        self._turn_over()

    def _late_reply(self, reply: CrdtOut) -> None:
        command = self.late.pop(reply.command_id, None)
        if command is None:
            self._crash(f"Received reply for entity id {self.key} for unknown command {reply.command_id}")
            return
        if reply.streamed and isinstance(command, StreamedCall):
            self.streams[command.number] = command
            self.cancel(command)
        self._after(command, reply, late=True)

    def _after(self, command: Command, out: CrdtOut, late: bool) -> None:
        """What a cancelled call or a command that was given up still changes. If the user function was told of others'
        changes meanwhile, its memory is not to be trusted."""
        aftermath = Aftermath(command, out, self.touched)
        if out.state_action == STATE_NONE or self.deleted:
            aftermath.answer(out)
        else:
            self._write(aftermath, out)
            if late:
                self.restart()
        self._turn_over()

    # --- changes of the state ----------------------------------------------------------------------------------------

    def _write(self, command: Command, reply: CrdtOut) -> None:
        """Do what the state action says; `on_written` follows."""
        assert self.view is not None
        replica = self.view.replica
        metrics = self.entities.metrics
        command.reply = reply
        command.written_from = self.touched
        if reply.state_action == STATE_UPDATE:
            if not replica.deleted:  # otherwise there is nothing to be changed any more (K2)
                try:
                    self.view.apply(reply.update or b"")
                except CrdtError as error:
                    self._refused_by_us(command, f"{NOT_UPDATED}: {error}", str(error))
                    return
            self.is_stale = True  # own changes may have lost
            metrics.updates += 1
            self.writing += 1
            self.entities.replicas.write(replica, LEVELS[reply.write_consistency], command)
        elif reply.state_action == STATE_DELETE:
            metrics.deletions += 1
            self.writing += 1
            self.entities.replicas.delete(replica, LEVELS[reply.write_consistency], command)
            self._bury()
        else:
            text = "the state action is neither an update nor a delete"
            self._refused_by_us(command, f"{NOT_UPDATED}: {text}", text)

    def on_written(self, command: Command, error: ReplicaError | None) -> None:
        self.writing -= 1
        reply, command.reply = command.reply, None
        assert reply is not None
        self.entities.metrics.persist_time.observe(monotonic() - command.written_from)
        if error is None:
            command.answer(reply)
        else:
            log.warning("a change was not written as asked", entity=self.log_id, error=error.text)
            command.fail(error.status, error.text)
        if self.state == State.CLOSING and self.stream is None:
            self._end()

    def _refused_by_us(self, command: Command, text: str, problem: str) -> None:
        """The command fails and changes nothing; the user function, which thinks otherwise, begins anew."""
        command.reply = None
        self.entities.metrics.refused_updates += 1
        self.streams.pop(command.number, None)
        command.fail(Status.UNKNOWN, text)
        self.entities.report(self._named(f"command {command.number}: {problem}"))
        self.restart()

    def _bury(self) -> None:
        """The key is deleted, here or elsewhere, and will never be used again."""
        was_opening = self.state == State.OPENING
        self.deleted = True
        self.cancelling.clear()
        self._fail_stash(Status.UNKNOWN, DELETED)
        if self.state != State.CLOSING:
            self._close(Close.PASSIVATE)
        elif self.close_as == Close.RESTART:
            self.close_as = Close.PASSIVATE
        if was_opening:
            self._end()

    # --- what others change ------------------------------------------------------------------------------------------

    def on_changed(self) -> None:
        if self.state != State.READY and self.state != State.BUSY:
            return  # init will tell, or nobody is left to be told
        self.is_stale = True
        if self._is_quiet:
            self._push()
        elif not self.held_since:
            self.held_since = now = monotonic()
            self.entities.timers.watch(self, now + self.entities.hold_limit)

    def on_deleted(self) -> None:
        if self.state == State.READY or self.state == State.BUSY:
            assert self.stream is not None
            self.stream.send(write_crdt_delete())
        if self.state != State.GONE:
            self._bury()

    def on_lost(self, text: str) -> None:
        log.error("the replica is replaced", entity=self.log_id, problem=text)
        self.lost = True
        if self.state == State.OPENING:
            self.close_as = Close.RESTART
            self._end()
        else:
            self.restart()
            self._turn_over()

    @property
    def _is_quiet(self) -> bool:
        """No turn is open, and the user function takes what it is sent."""
        return not (self.pending or self.cancelling or self.is_full)

    def _push(self) -> None:
        assert self.view is not None and self.stream is not None
        self.is_stale = False
        self.held_since = 0.0
        delta = self.view.change()
        if delta:
            self.touched = monotonic()
            self.entities.metrics.sent_deltas += 1
            if not self.stream.send(write_crdt_delta(delta)):
                self.is_full = True

    def _turn_over(self) -> None:
        """A turn may be over: do what had to wait for that."""
        if self.state != State.READY and self.state != State.BUSY:
            return
        if self._is_quiet:
            if self.close_as is not None and not self._stays():
                self._close_now(self.close_as)
                return
            if self.is_stale:
                self._push()
            self.state = State.READY
        if self.entities.user_function.crowded:
            self._make_room(self.touched)
        if self.stash and self.state == State.READY:
            self._unstash(self.touched)

    # --- streamed calls ----------------------------------------------------------------------------------------------

    def cancel(self, call: StreamedCall) -> None:
        """The call is over for its client; tell the user function if it still streams."""
        if self.streams.pop(call.number, None) is None or self.stream is None:
            return
        if self.state == State.READY or self.state == State.BUSY:
            now = monotonic()
            self.cancelling[call.number] = (call, now)
            self.stream.send(write_stream_cancelled(self.key_utf8, call.number))
            self.entities.timers.watch(self, now + CANCEL_PATIENCE)

    def complete_streams(self) -> None:
        streams, self.streams = self.streams, {}
        for number, call in streams.items():
            self._remember(number, call)
            call.complete()

    def _remember(self, number: int, command: Command) -> None:
        self.late[number] = command
        if len(self.late) > MAX_LATE:
            del self.late[next(iter(self.late))]

    # --- what should not happen --------------------------------------------------------------------------------------

    def report(self, problem: str) -> None:
        """Of a command or call: the user function broke a rule."""
        self._report(problem)

    def _named(self, text: str) -> str:
        return f"Entity {self.key} of {self.entities.model.service_name}: {text}."

    def restart(self) -> None:
        """Go on with a new stream, which begins with the whole value, once all turns are over."""
        if self.state == State.READY or self.state == State.BUSY:
            self.close_as = Close.RESTART
            self.state = State.BUSY

    def _crash(self, what: str) -> None:
        """The user function cannot be understood any more: all that it is working on fails."""
        self.entities.report(self._named(what))
        self._fail_all(TERMINATING)
        if self.state != State.CLOSING:
            self._close(Close.CRASH)

    def _fail_all(self, text: str) -> None:
        """Everything that the user function could still have answered."""
        pending, self.pending = self.pending, {}
        streams, self.streams = self.streams, {}
        self.cancelling.clear()
        for command in (*pending.values(), *streams.values()):
            command.fail(Status.UNKNOWN, text)

    # --- the end -----------------------------------------------------------------------------------------------------

    def _close_now(self, how: Close) -> None:
        self._fail_all(TERMINATING)  # streamed calls: the next stream knows nothing of them
        self._close(how)

    def _stays(self) -> bool:
        """A passivation is off when a stream was opened meanwhile."""
        if self.close_as == Close.PASSIVATE and self.streams:
            self.close_as = None
        return self.close_as is None

    def _make_room(self, now: float) -> None:
        """Others wait for a stream. Give ours up when idle, or after a fair share of commands."""
        self.served += 1
        if self.streams or self.state != State.READY:
            return
        if self._is_quiet and not self.stash:
            self._close(Close.PASSIVATE)
        elif self.served >= self.entities.settings.fair_share:
            self.close_as = Close.PASSIVATE
            self.state = State.BUSY
            self._turn_over()

    def on_end(self, call: ClientCall, status: int, message: str) -> None:
        if call is not self.stream:
            return
        self.stream = None
        self.entities.user_function.release(self)
        ON_STREAM_END[self.state](self, call, status, message)

    def on_live_stream_end(self, call: ClientCall, status: int, message: str) -> None:
        """Nobody asked for it, unless nothing was under way."""
        if call.unprocessed and not self.streams and self._again():
            return
        if call.unprocessed:
            for command in self.pending.values():
                command.fail(Status.UNAVAILABLE, f"the user function refused the stream: {message}")
            self.pending.clear()
        elif status == Status.OK:
            self.entities.report(self._named("Unexpected entity termination due to stream closure"))
        elif self.pending or self.streams:
            log.error("Entity crashed", entity=self.log_id, status=status, problem=message)
        self._fail_all(TERMINATING)
        self._end()

    def on_closing_stream_end(self, call: ClientCall, status: int, message: str) -> None:
        self._fail_all(DELETED if self.deleted else TERMINATING)
        self._end()

    def _abandon(self) -> None:
        self._fail_all(DELETED if self.deleted else TERMINATING)
        Activation._abandon(self)

    def _again(self) -> bool:
        """The user function refused the stream and has seen nothing of it: commands wait for the next one."""
        pending = list(self.pending.values())
        if not Activation._again(self):
            return False
        for command in reversed(pending):
            self._put_back(command)
        self.entities.metrics.stashed_commands += max(0, len(pending) - 1)
        return True

    def _put_back(self, command: Command) -> None:
        self.stash = self.stash or deque()
        self.stash.appendleft((command.client, command.method, command.payload, command.received))  # type: ignore[arg-type]

    def _end(self) -> None:
        """This life is over. Writes under way keep the replica; their answers come back here (`on_written`)."""
        self._drop_ended()
        goes_on = bool(self.stash) or self.close_as == Close.RESTART
        if self.writing and (self.lost or not goes_on):
            self.state = State.CLOSING
            self.touched = monotonic()
            return
        if self.view is not None:
            self.view.end()
            if self.lost or not goes_on:
                self.entities.replicas.close(self.view.replica)
                self.view = None
                self.lost = False
        Activation._end(self)

    # --- time --------------------------------------------------------------------------------------------------------

    def on_time(self, now: float) -> float:
        ON_TIME[self.state](self, now)
        if self.state == State.GONE:
            return 0.0
        due, latest = self._due(), now + self.entities.check_interval
        return due if now < due < latest else latest

    def _due(self) -> float:
        """The next moment that matters; `inf` when none is known."""
        if self.state == State.OPENING or self.state == State.CLOSING:
            return float(self.touched + self._timeout())
        moments = [inf]
        for command in self.pending.values():
            moments.append(command.sent + self.entities.relay_timeout)
            break
        for _, since in self.cancelling.values():
            moments.append(since + CANCEL_PATIENCE)
            break
        if self.held_since and self.state == State.READY:
            moments.append(self.held_since + self.entities.hold_limit)
        if self._is_idle:
            moments.append(self.touched + self.entities.passivation_timeout)
        return min(moments)

    @property
    def _is_idle(self) -> bool:
        return self.state == State.READY and self._is_quiet and not (self.streams or self.stash)

    def on_opening_time(self, now: float) -> None:
        """The replica always answers; a stream may not come free in time."""
        if self.view is not None and now >= self.touched + self._timeout():
            self.on_unready_timeout()

    def on_live_time(self, now: float) -> None:
        self._give_up(now)
        if self.held_since and now >= self.held_since + self.entities.hold_limit and self.state == State.READY:
            self.state = State.BUSY
        if self._is_idle and now >= self.touched + self.entities.passivation_timeout:
            self._close(Close.PASSIVATE)

    def on_closing_time(self, now: float) -> None:
        if self.stream is not None and now >= self.touched + self._timeout():
            self.on_closing_timeout()

    def _give_up(self, now: float) -> None:
        """Turns that took too long are over. Only who waits for them is hurt."""
        entities = self.entities
        timeout = entities.relay_timeout
        for command in [each for each in self.pending.values() if now >= each.sent + timeout]:
            del self.pending[command.number]
            self.touched = now
            self._remember(command.number, command)
            self._report(f"did not answer command {command.number} within relay_timeout")
            text = f"the user function did not answer within relay_timeout ({timeout:g} s)"
            command.fail(Status.DEADLINE_EXCEEDED, text)
        for call, _ in [each for each in self.cancelling.values() if now >= each[1] + CANCEL_PATIENCE]:
            del self.cancelling[call.number]
            self._remember(call.number, call)
        self._turn_over()

    def evict(self) -> bool:
        """Passivate now if idle; somebody needs the room."""
        if not self._is_idle:
            return False
        self._close(Close.PASSIVATE)
        return True


# The machine as a table: one column per state that a CRDT has, one row per kind of event. What `Replicas` calls
# (on_opened, on_changed, on_deleted, on_lost, on_written) looks at the state by itself.
#
#                  OPENING            READY                BUSY                 CLOSING
#   command        waits              to the user function waits                waits; fails if the key is deleted
#   message        -                  by its kind          by its kind          ignored; replies count after a delete
#   stream ends    -                  crash                crash                the end
#   time           no stream          silence, hold, idle  silence              reset
_C = Crdt
_Command = Callable[[Crdt, "ServerCall", "EntityMethod", bytes], None]
ON_COMMAND: dict[int, _Command] = {
    State.OPENING: _C.on_early_command,
    State.READY: _C.on_ready_command,
    State.BUSY: _C.on_early_command,
    State.CLOSING: _C.on_closing_command,
    State.GONE: _C.on_early_command,  # only within `_end`
}
ON_MESSAGE: tuple[Callable[[Crdt, CrdtOut], None], ...] = (
    _C.on_nothing,  # KIND_NONE
    _C.on_reply,  # KIND_REPLY
    _C.on_failure,  # KIND_FAILURE
    _C.on_streamed_message,  # KIND_STREAMED_MESSAGE
    _C.on_cancelled_response,  # KIND_CANCELLED_RESPONSE
)
ON_STREAM_END: dict[int, Callable[[Crdt, ClientCall, int, str], None]] = {
    State.READY: _C.on_live_stream_end,
    State.BUSY: _C.on_live_stream_end,
    State.CLOSING: _C.on_closing_stream_end,
}
ON_TIME: dict[int, Callable[[Crdt, float], None]] = {
    State.OPENING: _C.on_opening_time,
    State.READY: _C.on_live_time,
    State.BUSY: _C.on_live_time,
    State.CLOSING: _C.on_closing_time,
}
