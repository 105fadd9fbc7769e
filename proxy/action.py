"""Actions: stateless services, whose calls are relayed between client and user function (spec core 6).

On the way of a command this file stands in the middle, as eventsourced.py does for entities: `ActionMethod` takes calls
from the transport, and for each call an `ActionCall` opens one of its own to the user function and passes messages on
in both directions, from callback to callback. There are two kinds, by what the client expects: `SingleReply` (unary
and streamed-in) and `ReplyStream` (streamed-out and duplex).

Both directions are paced end to end. A client that is slow fills the send queue of its call, which pauses the call of
the user function until the queue has drained; a user function that is slow pauses the client in the same way. So a call
costs two send queues and two windows at most, however much is streamed through it. Cancelling and half-closing reach
the other side too; a deadline is the user function's deadline as well.

Life of an ActionCall:

    begin -> (waits for a stream) -> on_stream -> messages both ways -> on_end
                 on_no_stream: the client is told            any time: on_client_cancel

`client` is None as soon as the client has its answer or went away, `stream` as soon as the user function's call ended.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from math import inf
from typing import TYPE_CHECKING

from cython.cimports.stateside._speedups.clock import monotonic
from cython.cimports.stateside._speedups.wire import (
    ACTION_FAILURE,
    ACTION_FORWARD,
    ACTION_REPLY,
    metadata_of_headers,
    scan_action_out,
)

from stateside._speedups.h2 import ClientCall, Handler, ServerCall
from stateside._speedups.wire import ActionOut, ActionWriter, WireError
from stateside.proto import action
from stateside.proto.status import Status
from stateside.proxy import logs
from stateside.proxy.activation import MAX_REFUSALS, REFUSAL_DELAY
from stateside.proxy.effects import Onward, StandIn, check_parts, origin_of

if TYPE_CHECKING:
    from stateside._speedups.h2 import Call, Channel
    from stateside.proxy.config import Settings
    from stateside.proxy.effects import Client, Reply
    from stateside.proxy.router import Router
    from stateside.proxy.service_metrics import ActionMetrics
    from stateside.proxy.spec import EntityModel, MethodModel
    from stateside.proxy.timers import Timers
    from stateside.proxy.userfunction import UserFunction

PROTOCOL = "/cloudstate.action.ActionProtocol/"
# (client streaming, server streaming) of the user's method -> method of the protocol
PATHS = {
    (False, False): f"{PROTOCOL}handleUnary".encode(),
    (True, False): f"{PROTOCOL}handleStreamedIn".encode(),
    (False, True): f"{PROTOCOL}handleStreamedOut".encode(),
    (True, True): f"{PROTOCOL}handleStreamed".encode(),
}

log = logs.get(__name__)


class ActionMethod(Handler):
    """One method of an action, as the transport calls it. What belongs to a call stands in its `context`."""

    def __init__(self, actions: Actions, model: MethodModel) -> None:
        self.unary = not model.client_streaming
        self.wants_headers = True
        self.actions = actions
        self.model = model
        self.name = f"{actions.model.service_name}.{model.name}"
        self.output_type_url = model.output_type_url
        self.takes_clients = False
        self.path = PATHS[model.client_streaming, model.server_streaming]
        self.writer = ActionWriter(actions.model.service_name, model.name, model.input_type_url)
        self._machine = ReplyStream if model.server_streaming else SingleReply

    def on_request(self, call: ServerCall, message: bytes) -> None:
        """The one message of a unary or streamed-out call."""
        self._machine(self, call, True).begin(self.writer.command(message, metadata_of_headers(call.headers)))

    def on_open(self, call: ServerCall) -> None:
        """A streamed-in or duplex call: the user function hears of it at once (spec core 16 #10)."""
        self._machine(self, call, False).begin(self.writer.opening(metadata_of_headers(call.headers)))

    def take(self, client: Client, payload: bytes, metadata: bytes | None) -> None:
        """A side effect, a forward or an HTTP request: one message, whatever the kind of method."""
        machine = self._machine(self, client, True)
        if self.unary:
            machine.begin(self.writer.command(payload, metadata))
        else:
            machine.begin(self.writer.opening(metadata), self.writer.message(payload))

    def take_event(self, client: StandIn, type_url: str, payload: bytes, metadata: bytes | None) -> None:
        """An event of a log, as the Any that was stored. Its metadata belongs to the message, not to the call."""
        machine = self._machine(self, client, True)
        service = self.actions.model.service_name
        if self.unary:
            writer = ActionWriter(service, self.model.name, type_url)
            machine.begin(writer.command(payload, metadata))
        else:
            message = action.ActionCommand(payload={"type_url": type_url, "value": payload})
            message.metadata.ParseFromString(metadata or b"")
            machine.begin(self.writer.opening(None), message.SerializeToString())

    def on_message(self, call: Call, message: bytes) -> None:
        if call.context is not None:
            call.context.on_client_message(message)

    def on_half_close(self, call: ServerCall) -> None:
        if call.context is not None:
            call.context.on_client_half_close()

    def on_drain(self, call: Call) -> None:
        if call.context is not None:
            call.context.on_client_drain()

    def on_cancel(self, call: ServerCall, status: int) -> None:
        if call.context is not None:
            call.context.on_client_cancel(status)


class Actions:
    """One action of the user function: its methods, and the calls of it that wait for a stream.

    Calls wait for `relay_timeout` at most, in the order in which they came; `user_function_max_waiting` bounds them.
    """

    def __init__(
        self,
        model: EntityModel,
        settings: Settings,
        *,
        user_function: UserFunction,
        timers: Timers,
        metrics: ActionMetrics,
        router: Router,
    ) -> None:
        self.user_function = user_function
        self.timers = timers
        self.metrics = metrics
        self.router = router
        self.settings = settings
        self.loop = asyncio.get_running_loop()
        self.timeout = settings.action_timeout
        self.due = 0.0  # owned by Timers
        self.touched = inf  # the last to be asked for its place
        self.waiting: dict[ActionCall, float] = {}  # since when
        self.update(model)

    def update(self, model: EntityModel) -> None:
        """Serve `model` from now on; calls under way end as they began."""
        self.model = model
        self.methods = {method.name: ActionMethod(self, method) for method in model.methods}

    def wait(self, call: ActionCall) -> None:
        """`call` has asked for a stream, and none was free."""
        now = monotonic()
        self.waiting[call] = now
        self.timers.watch(self, now + self.settings.relay_timeout)

    def on_time(self, now: float) -> float:
        """Timers ask: give up what has waited too long."""
        timeout = self.settings.relay_timeout
        for call, since in list(self.waiting.items()):
            if now < since + timeout:
                return since + timeout
            self.user_function.withdraw(call)
            text = f"no stream to the user function came free within relay_timeout ({timeout:g} s)"
            call.on_no_stream(Status.UNAVAILABLE, text)
        return 0.0

    def evict(self) -> bool:
        """Nothing here is ever idle."""
        return False

    def report(self, text: str) -> None:
        """Tell the user function, and the log, that it broke a rule."""
        log.warning("user function broke the protocol", service=self.model.service_name, problem=text)
        self.router.report(text)


class ActionCall(Handler):
    """One call of a client, and the one of the user function that answers it. It is the transport's handler of the
    latter and listens to the former.

    half_closed: the client will send nothing more. deadline: in loop time, 0.0 = none; that of the client, or
    `action_timeout` if it comes first. first: what opens the user function's call; kept until more than
    that was sent, because so far the call may be begun anew on another connection.
    """

    def __init__(self, method: ActionMethod, client: Client, half_closed: bool) -> None:
        self.method = method
        self.actions = method.actions
        self.client: Client | None = client
        self.half_closed = half_closed
        self.refusals = 0
        self.deadline: float = client.deadline
        self.stream: ClientCall | None = None
        self.channel: Channel | None = None  # owned by UserFunction
        client.context = self

    # --- the user function's call ------------------------------------------------------------------------------------

    def begin(self, *first: bytes) -> None:
        actions = self.actions
        metrics = actions.metrics
        metrics.calls += 1
        metrics.active_calls += 1
        self.first = first
        if actions.timeout:
            own = actions.loop.time() + actions.timeout
            self.deadline = min(self.deadline, own) if self.deadline else own
        self._ask()

    def _ask(self) -> None:
        if self.client is None:
            return  # it went away before this was tried again
        self.actions.user_function.request(self.method.path, self, self.deadline)
        if self.stream is None:
            self.actions.wait(self)
            if not self.half_closed:
                self.client.pause()

    def on_stream(self, stream: ClientCall) -> None:
        """The user function's connection pool gives a stream."""
        self.stream = stream
        self.given = monotonic()
        for message in self.first:
            stream.send(message)
        if self.half_closed:
            stream.half_close()
        elif self.client is not None:
            self.client.resume()
        if self.actions.waiting:
            self.actions.waiting.pop(self, None)

    def on_no_stream(self, status: Status, reason: str) -> None:
        self.actions.waiting.pop(self, None)
        self._fail(status, reason)

    # --- from the client ---------------------------------------------------------------------------------------------

    def on_client_message(self, message: bytes) -> None:
        self.first = ()
        self.actions.metrics.messages_in += 1
        stream = self.stream
        if stream is not None and not stream.send(self.method.writer.message(message)):
            self.client.pause()  # type: ignore[union-attr]

    def on_client_half_close(self) -> None:
        self.half_closed = True
        if self.stream is not None:
            self.stream.half_close()

    def on_client_cancel(self, status: int) -> None:
        """The client went away, or its time is up."""
        if self._released() is not None:
            self.actions.metrics.cancelled_calls += 1
        self._cancel()

    def on_client_drain(self) -> None:
        """The client takes more replies."""

    # --- from the user function --------------------------------------------------------------------------------------

    def on_drain(self, call: Call) -> None:
        """The user function takes more messages."""
        if self.client is not None:
            self.client.resume()

    def on_end(self, call: ClientCall, status: int, message: str) -> None:
        """The user function's call is over, for whatever reason."""
        self.stream = None
        self.actions.user_function.release(self)
        self.actions.metrics.user_function_time.observe(monotonic() - self.given)
        if self.client is None:
            return
        if call.unprocessed and self.first and self.refusals < MAX_REFUSALS:
            self._ask_later()
            return
        if status == Status.DEADLINE_EXCEEDED and self._is_own_deadline():
            message = f"{self.method.name} was not done within action_timeout ({self.actions.timeout:g} s)"
        self.on_outcome(status, message)

    def _ask_later(self) -> None:
        """The user function has surely not seen the call: its connection went away, or it counts a stream against its
        limit for a moment longer than we do."""
        self.refusals += 1
        if not self.half_closed and self.client is not None:
            self.client.pause()
        self.actions.timers.later(REFUSAL_DELAY * 2.0**self.refusals, self._ask)

    def _is_own_deadline(self) -> bool:
        """Whether it was `action_timeout` that expired, and nothing that the client or the user function laid down."""
        assert self.client is not None
        return 0.0 < self.deadline <= self.actions.loop.time() and self.deadline != self.client.deadline

    @abstractmethod
    def on_outcome(self, status: int, message: str) -> None:
        """Give the client what is left to give."""

    def _scan(self, message: bytes) -> ActionOut | None:
        """None after the call has ended over a malformed message."""
        self.actions.metrics.messages_out += 1
        try:
            reply: ActionOut = scan_action_out(message)
            if reply.side_effects or reply.forward is not None or reply.metadata is not None:
                check_parts(reply)
            return reply
        except WireError as error:
            self._violation(f"sent a malformed ActionResponse: {error}")
            return None

    def _violation(self, problem: str) -> None:
        text = f"the user function {problem}"
        self.actions.report(f"{self.method.name}: {text}.")
        self._fail(Status.INTERNAL, f"{self.method.name}: {text}")

    # --- the end -----------------------------------------------------------------------------------------------------

    def _released(self) -> Client | None:
        """The client, for the last time."""
        client, self.client = self.client, None
        if client is not None:
            client.context = None
            self.actions.metrics.active_calls -= 1
        return client

    def _fail(self, status: int, text: str) -> None:
        """End the client's call after what was sent to it already, and the user function's at once."""
        client = self._released()
        if client is not None:
            self.actions.metrics.failed_calls += 1
            client.finish(status, text)
        self._cancel()

    def _cancel(self) -> None:
        """Have no more to do with the user function; `on_end` follows if it knows of the call."""
        if self.stream is not None:
            self.stream.cancel()
        elif self.actions.waiting.pop(self, None) is not None:
            self.actions.user_function.withdraw(self)


class SingleReply(ActionCall):
    """Unary and streamed-in calls: one answer, given when the user function's call has ended well."""

    def __init__(self, method: ActionMethod, client: Client, half_closed: bool) -> None:
        ActionCall.__init__(self, method, client, half_closed)
        self.reply: ActionOut | None = None

    def on_message(self, call: Call, message: bytes) -> None:
        if self.client is None:
            return
        if self.reply is not None:
            self._violation("answered twice where one answer is expected")
        else:
            self.reply = self._scan(message)

    def on_outcome(self, status: int, message: str) -> None:
        reply = self.reply
        if status:
            self._fail(status, message)
        elif reply is None:
            self._violation("ended the call without an answer")
        else:
            self._answer(reply)

    def _answer(self, reply: ActionOut) -> None:
        client = self._released()
        assert client is not None
        method = self.method
        router = self.actions.router
        action = reply.action
        if reply.side_effects or action == ACTION_FORWARD:
            Onward(router, client, method, reply).run()
        elif action == ACTION_REPLY and reply.metadata is None and reply.type_url == method.output_type_url:
            client.reply(reply.payload)
        else:
            router.answer(client, method, reply)
        if action == ACTION_FAILURE:
            self.actions.metrics.failed_calls += 1


class ReplyStream(ActionCall):
    """Streamed-out and duplex calls: any number of replies, each an item that may bring effects or be a forward.

    One item at a time: the user function's call is paused while the effects of one, or the target it was forwarded to,
    are not done. What the user function ended with meanwhile waits in `outcome`.
    """

    def __init__(self, method: ActionMethod, client: Client, half_closed: bool) -> None:
        ActionCall.__init__(self, method, client, half_closed)
        self.expected_type = origin_of(client, method).output_type_url
        self.forwarded: StandIn | None = None  # what hears of the client while an item is forwarded
        self.is_full = False  # the client is slow: nothing more until it has drained
        self.item_is_open = False
        self.outcome: tuple[int, str] | None = None

    def on_message(self, call: Call, message: bytes) -> None:
        client = self.client
        reply = self._scan(message)
        if reply is None or client is None:
            return
        if reply.side_effects or reply.action == ACTION_FORWARD:
            self.item_is_open = True
            Onward(self.actions.router, client, self.method, reply, items=self).run()
            if self.item_is_open:
                call.pause()
        elif reply.action == ACTION_REPLY and reply.metadata is None and reply.type_url == self.expected_type:
            if not client.send(reply.payload):
                self.is_full = True
                call.pause()
        else:
            self._pass_on(reply)

    def _pass_on(self, reply: Reply) -> None:
        """An item as such. One that is neither reply nor failure has nothing for the client."""
        client = self.client
        if client is None:
            return
        if reply.action == ACTION_FAILURE:
            self._fail(Status.UNKNOWN, reply.description)
        elif reply.action == ACTION_REPLY:
            self.actions.router.check_type(client, self.method, reply.type_url)
            if reply.metadata is not None:
                self.actions.router.start(client, self.method, reply.metadata)
            if not client.send(reply.payload):
                self.is_full = True
                if self.stream is not None:
                    self.stream.pause()

    # --- items with effects, and forwarded ones ----------------------------------------------------------------------

    def on_item(self, reply: Reply) -> None:
        self._pass_on(reply)
        self._item_done()

    def on_forward_end(self, status: int, message: str) -> None:
        self.forwarded = None
        if status != Status.OK:
            self._fail(status, message)
        self._item_done()

    def _item_done(self) -> None:
        self.item_is_open = False
        if self.client is None:
            return
        if self.outcome is not None:
            self.on_outcome(*self.outcome)
        elif not self.is_full and self.stream is not None:
            self.stream.resume()

    # --- pace and end ------------------------------------------------------------------------------------------------

    def on_client_drain(self) -> None:
        self.is_full = False
        if self.forwarded is not None:
            self.forwarded.on_client_drain()
        elif not self.item_is_open and self.stream is not None:
            self.stream.resume()

    def on_client_cancel(self, status: int) -> None:
        forwarded, self.forwarded = self.forwarded, None
        ActionCall.on_client_cancel(self, status)
        if forwarded is not None:
            forwarded.on_client_cancel(status)

    def on_outcome(self, status: int, message: str) -> None:
        if self.item_is_open:
            self.outcome = (status, message)
        elif status:
            self._fail(status, message)
        else:
            client = self._released()
            assert client is not None
            client.finish()
