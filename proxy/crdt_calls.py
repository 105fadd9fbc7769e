"""Commands of CRDT entities while they are under way, and the streams of replies that some of them get.

On the way of a command this file stands between crdt.py, which says what becomes of a reply, and the client: a
`Command` knows who asked and gives the answer, and is who waits for a write (`replicas.Writer`). A `StreamedCall` is
the command of a server-streaming method (spec crdt 3). What it gets are items, the first reply and then streamed
messages, each of which may bring effects or be a forward; one item at a time is being given to the client.

A user function sends the items of all calls on one stream, so a slow client cannot slow it down. Items wait for the
client up to a bound; then the call fails, and the user function is told that it was cancelled.

Life of a StreamedCall, as its activation sees it:

    pending -> (first reply) -> streaming -> (end_stream) -> over
       client goes away: kept until the first reply    client goes away, fails: cancelling -> (response) -> over
"""

from __future__ import annotations

from collections import deque
from time import monotonic
from typing import TYPE_CHECKING

from stateside._speedups.wire import ACTION_FAILURE, ACTION_FORWARD, ACTION_NONE, ACTION_REPLY, KIND_REPLY
from stateside.proto.status import Status
from stateside.proxy import logs
from stateside.proxy.effects import Onward, hand_over, origin_of

if TYPE_CHECKING:
    from stateside._speedups.wire import CrdtOut
    from stateside.proxy.crdt import Crdt
    from stateside.proxy.crdt_service import CrdtMethod
    from stateside.proxy.effects import Client, Reply, StandIn
    from stateside.proxy.replicas import ReplicaError

log = logs.get(__name__)


class Command:
    """One command with the user function, and its client. `reply` is kept while the write that it asked for is under
    way; `written_from` is when that began."""

    __slots__ = ("activation", "client", "method", "number", "payload", "received", "reply", "sent", "written_from")

    def __init__(
        self,
        activation: Crdt,
        client: Client,
        method: CrdtMethod,
        payload: bytes,
        received: float,
        number: int,
        sent: float,
    ) -> None:
        self.activation = activation
        self.client = client
        self.method = method
        self.payload = payload
        self.received = received
        self.number = number
        self.sent = sent
        self.reply: CrdtOut | None = None
        self.written_from = 0.0

    def on_written(self, error: ReplicaError | None) -> None:
        self.activation.on_written(self, error)

    def answer(self, reply: CrdtOut) -> None:
        """Give the client what the user function replied, now that it is written."""
        client, method, router = self.client, self.method, self.activation.entities.router
        self._count()
        if reply.action == ACTION_FAILURE:
            self.activation.entities.metrics.failed_commands += 1
            self._fail_as_asked(reply)
        elif reply.side_effects or reply.action == ACTION_FORWARD:
            key = self.activation.key
            if reply.action != ACTION_FORWARD or not hand_over(router, client, method, reply, key):
                Onward(router, client, method, reply, key).run()
        elif reply.action == ACTION_REPLY and reply.metadata is None and reply.type_url == method.output_type_url:
            client.reply(reply.payload)
        else:
            router.answer(client, method, reply)

    def fail(self, status: int, text: str) -> None:
        """Nothing comes of it."""
        self._count()
        self.activation.entities.metrics.failed_commands += 1
        self.client.fail(status, text)

    def run_effects(self, reply: CrdtOut) -> None:
        """What is left of a reply when there is nobody to be answered."""
        if reply.side_effects:
            activation = self.activation
            Onward(activation.entities.router, self.client, self.method, reply, activation.key, NOBODY).run()

    def _fail_as_asked(self, reply: CrdtOut) -> None:
        if reply.side_effects:
            self.activation.report("sent side effects together with a failure; they were not run")
        self.client.fail(Status.UNKNOWN, reply.description)

    def _count(self) -> None:
        metrics = self.activation.entities.metrics
        metrics.completed_commands += 1
        metrics.command_total_time.observe(monotonic() - self.received)


class Aftermath(Command):
    """The write of a command whose client has been answered, or went away: only its effects are left."""

    __slots__ = ()

    def __init__(self, command: Command, reply: CrdtOut, now: float) -> None:
        Command.__init__(
            self, command.activation, command.client, command.method, b"", command.received, command.number, now
        )
        self.reply = reply

    def answer(self, reply: CrdtOut) -> None:
        self.run_effects(reply)

    def fail(self, status: int, text: str) -> None:
        log.warning("a change that nobody waits for was not written", entity=self.activation.log_id, problem=text)


class Nobody:
    """Items of a call that has no client."""

    forwarded: StandIn | None = None

    def on_item(self, reply: Reply) -> None:
        """Its effects were all that mattered."""

    def on_forward_end(self, status: int, message: str) -> None:
        """Nobody waits for the answer."""


NOBODY = Nobody()


class StreamedCall(Command):
    """A command whose client gets any number of answers. It listens to the client, as `context` of that call.

    over: the client has its last answer, or went away. last: no further item comes.
    """

    __slots__ = ("expected_type", "forwarded", "is_answered", "is_full", "item_is_open", "last", "over", "queue")

    def __init__(
        self,
        activation: Crdt,
        client: Client,
        method: CrdtMethod,
        payload: bytes,
        received: float,
        number: int,
        sent: float,
    ) -> None:
        Command.__init__(self, activation, client, method, payload, received, number, sent)
        self.expected_type = origin_of(client, method).output_type_url
        self.queue: deque[CrdtOut] = deque()
        self.forwarded: StandIn | None = None  # what hears of the client while an item is forwarded
        self.is_answered = False  # counted as completed
        self.is_full = False  # the client is slow: nothing more until it has drained
        self.item_is_open = False
        self.last = False
        self.over = False
        client.context = self

    # --- from the user function --------------------------------------------------------------------------------------

    def answer(self, reply: CrdtOut) -> None:
        """The first reply: an item like those that follow, and the last one unless it says that it is streamed."""
        self._count()
        if not self.over and reply.action == ACTION_NONE:
            self.client.start()
        self.last = self.last or not reply.streamed
        if self.item_is_open or self.is_full:
            self.queue.appendleft(reply)
        else:
            self._deliver(reply)
            self._go_on()

    def offer(self, item: CrdtOut) -> None:
        """A streamed message. Fails the call when the client is too slow."""
        bound = self.activation.entities.settings.crdt_stream_buffer
        self.last = self.last or item.end_stream
        if not self._waits:
            self._deliver(item)
            self._go_on()
        elif len(self.queue) < bound:
            self.queue.append(item)
        else:
            text = f"{self.method.name}: the client is too slow: {bound} messages (crdt_stream_buffer) wait for it"
            self.fail(Status.RESOURCE_EXHAUSTED, text)

    @property
    def _waits(self) -> bool:
        """Whether an item has to wait for an earlier one: for its write, its effects, or the client to take it."""
        return self.reply is not None or self.item_is_open or self.is_full or bool(self.queue)

    def _deliver(self, item: CrdtOut) -> None:
        if item.action == ACTION_FAILURE:
            self._fail_item(item)
        elif self.over:
            self.run_effects(item)
        elif item.side_effects or item.action == ACTION_FORWARD:
            self.item_is_open = True
            activation = self.activation
            Onward(activation.entities.router, self.client, self.method, item, activation.key, items=self).run()
        else:
            self._pass_on(item)

    def _pass_on(self, item: Reply) -> None:
        """An item as such. One without an action has nothing for the client."""
        client, router = self.client, self.activation.entities.router
        if self.over or item.action != ACTION_REPLY:
            return
        if item.type_url != self.expected_type:
            router.check_type(client, self.method, item.type_url)
        if item.metadata is not None:
            router.start(client, self.method, item.metadata)
        if not client.send(item.payload):
            self.is_full = True

    def _fail_item(self, item: CrdtOut) -> None:
        if item.side_effects:
            self.activation.report("sent side effects together with a failure; they were not run")
        if item.kind == KIND_REPLY:
            self.activation.entities.metrics.failed_commands += 1
        self._finish(Status.UNKNOWN, item.description)

    # --- items with effects, and forwarded ones ----------------------------------------------------------------------

    def on_item(self, reply: Reply) -> None:
        self._pass_on(reply)
        self._item_done()

    def on_forward_end(self, status: int, message: str) -> None:
        self.forwarded = None
        if status != Status.OK:
            self._finish(status, message)
        self._item_done()

    def _item_done(self) -> None:
        self.item_is_open = False
        if self.queue or self.last:
            self.activation.entities.timers.soon(self._go_on)  # out of the effect's own callback

    def _go_on(self) -> None:
        """Items that waited; then the end, if that was the last."""
        while self.queue and not (self.item_is_open or self.is_full or self.reply is not None):
            self._deliver(self.queue.popleft())
        if self.last and not self._waits:
            self._finish(Status.OK, "")

    # --- from the client ---------------------------------------------------------------------------------------------

    def on_client_drain(self) -> None:
        self.is_full = False
        if self.forwarded is not None:
            self.forwarded.on_client_drain()
        else:
            self._go_on()

    def on_client_cancel(self, status: int) -> None:
        """The client went away, or its time is up."""
        forwarded, self.forwarded = self.forwarded, None
        if not self.over:
            self.activation.entities.metrics.cancelled_calls += 1
        self._leave()
        if forwarded is not None:
            forwarded.on_client_cancel(status)

    # --- the end -----------------------------------------------------------------------------------------------------

    def fail(self, status: int, text: str) -> None:
        """End the call, after what the client was sent already."""
        if not self.is_answered:
            self._count()
            self.activation.entities.metrics.failed_commands += 1
        self._finish(status, text)

    def complete(self) -> None:
        """End the call well, though the user function goes on."""
        self._finish(Status.OK, "")

    def _finish(self, status: int, text: str) -> None:
        if not self.over:
            self._leave()
            self.client.finish(status, text)

    def _leave(self) -> None:
        """The client is not heard of again, and the user function has nobody to send to."""
        self.over = True
        self.queue.clear()
        self.is_full = False
        if self.client.context is self:
            self.client.context = None
        self.activation.cancel(self)

    def _count(self) -> None:
        if not self.is_answered:
            self.is_answered = True
            Command._count(self)
