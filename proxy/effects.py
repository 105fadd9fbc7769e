"""What follows a reply: side effects in their order, then the reply itself or the forward (spec core 7).

Off the hot path: replies with neither effect nor forward never come here. By the time these run an entity has been
released, so effects and forwards may target the very entity they come from. Synchronous effects are waited for, one
after the other; asynchronous ones are started when their turn comes and counted while they run. What an effect
answers never changes the answer to the client. A chain that is too long fails and is named, so that loops end.

Targets are methods of any entity type, and answer a `StandIn` as they would answer a client. Replies come from
single calls, or are items of a stream of replies (`Items`), of which the next waits until this one is done with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

from google.protobuf.message import DecodeError

from stateside._speedups.h2 import Call, Handler, ServerCall
from stateside._speedups.wire import ACTION_FORWARD, ServiceCall, WireError, scan_forward, scan_side_effect
from stateside.proto import cloudstate
from stateside.proto.status import Status
from stateside.proxy import logs
from stateside.proxy.grpc_web import GrpcWebCall

if TYPE_CHECKING:
    from stateside._speedups.h2 import Headers
    from stateside.proxy.http_calls import HttpCall
    from stateside.proxy.router import Router

log = logs.get(__name__)


class Method(Protocol):
    """A method of any entity type: where replies come from and where effects and forwards go to."""

    name: str
    """Full service name, dot, method name."""
    output_type_url: str
    takes_clients: bool
    """A forward may hand it the client's own call: it answers once, and leaves `context` alone."""

    def on_request(self, call: ServerCall, message: bytes) -> None: ...


class Reply(Protocol):
    """What the scanned answers of all entity types have in common."""

    action: int
    type_url: str
    payload: bytes
    metadata: bytes | None
    forward: bytes | None
    description: str
    side_effects: Sequence[bytes]


def check_parts(reply: Reply) -> None:
    """Raise WireError when a part of the reply that is looked into only later is malformed. Before its events are
    stored."""
    for effect in reply.side_effects:
        check_metadata(scan_side_effect(effect).metadata)
    if reply.forward is not None:
        check_metadata(scan_forward(reply.forward).metadata)
    check_metadata(reply.metadata)


def check_metadata(metadata: bytes | None) -> None:
    if metadata:
        try:
            cloudstate.Metadata.FromString(metadata)
        except DecodeError as error:
            raise WireError(f"metadata: {error}") from error


class Items(Protocol):
    """A stream of replies, seen from one of its items. One item at a time is with `Onward`."""

    forwarded: StandIn | None

    def on_item(self, reply: Reply) -> None:
        """The effects of the item are done with; the item itself is no forward."""

    def on_forward_end(self, status: int, message: str) -> None:
        """The item was a forward, and its target has sent all it had to say."""


class Listener(Protocol):
    """What a target leaves in `context` of its client in order to hear of these two."""

    def on_client_drain(self) -> None: ...

    def on_client_cancel(self, status: int) -> None: ...


class Hop(NamedTuple):
    """A step on the way of a command that no client sent."""

    relation: str  # "side-effect of" or "forwarded from"
    method: str
    key: str  # of the entity that answered, if it was one

    @property
    def name(self) -> str:
        return f"{self.method}({self.key})" if self.key else self.method


Way: TypeAlias = tuple[Hop, ...]  # innermost first


class Trail(NamedTuple):
    """In `context` of a client's call that was handed on by forwards."""

    origin: Method  # that the client called
    way: Way


class StandIn(Handler):
    """Stands in the client's place before the target of a side effect or a forward; offers it what `ServerCall` does.

    With a `client`, what the target sends goes on to it, and the stand-in becomes the transport's handler of that
    call where nobody else is; without one, for effects, it is dropped. `over` is called once, when the target has
    ended the call.
    """

    __slots__ = (
        "_over",
        "_router",
        "_target",
        "client",
        "context",
        "deadline",
        "ended",
        "note",
        "origin",
        "sent",
        "way",
    )

    headers: Headers = []  # a target never inherits those of the original call  # noqa: RUF012
    peer = ""

    def __init__(
        self,
        router: Router,
        target: Method,
        way: Way,
        over: Callable[[StandIn, int, str], None],
        client: Client | None = None,
        origin: Method | None = None,
    ) -> None:
        """origin: the method that the client called, whose type the answer is to have."""
        self._router = router
        self._target = target
        self._over = over
        self.way = way
        self.client = client
        self.origin = origin or target
        self.deadline: float = client.deadline if client is not None else 0.0
        self.context: Listener | None = None
        self.note: str | None = None
        self.ended = False
        self.sent = False

    @property
    def name(self) -> str:
        return self._target.name

    # --- to the target: a call of a client ---------------------------------------------------------------------------

    def start(self, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        if self.client is not None and not self.ended:
            self.client.start(headers)

    def send(self, message: bytes) -> bool:
        self.sent = True
        return self.client is None or self.ended or self.client.send(message)

    def reply(self, message: bytes, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        """The whole answer of a unary target, of the type that the target promises."""
        if self._target.output_type_url != self.origin.output_type_url:
            self._router.warn_type(self.origin, self._target.output_type_url)
        self.pass_on(message, headers)

    def pass_on(self, message: bytes, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        """The whole answer of a unary target, whose type has been checked."""
        if headers:
            self.start(headers)
        self.send(message)
        self.finish()

    def finish(self, status: int = 0, message: str = "", trailers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        if not self.ended:
            self.ended = True
            self.client = None
            self._over(self, status, message)

    def fail(self, status: int, message: str) -> None:
        self.finish(status, message)

    def pause(self) -> None:
        """One message is all there is to send, so nothing can be held back."""

    def resume(self) -> None:
        """See `pause`."""

    # --- to the client, directly or through another stand-in ---------------------------------------------------------

    def on_client_drain(self) -> None:
        if self.context is not None:
            self.context.on_client_drain()

    def on_client_cancel(self, status: int) -> None:
        if not self.ended:
            self.ended = True
            self.client = None
            if self.context is not None:
                self.context.on_client_cancel(status)

    def on_drain(self, call: Call) -> None:
        self.on_client_drain()

    def on_cancel(self, call: ServerCall, status: int) -> None:
        self.on_client_cancel(status)


Client: TypeAlias = "ServerCall | StandIn | HttpCall | GrpcWebCall"


class Onward:
    """Runs the effects of one reply, then gives the client the answer, or lets another method give it."""

    __slots__ = (
        "_client",
        "_effects",
        "_items",
        "_key",
        "_method",
        "_next",
        "_reply",
        "_router",
        "_running",
        "_waits_for",
    )

    def __init__(
        self, router: Router, client: Client, method: Method, reply: Reply, key: str = "", items: Items | None = None
    ) -> None:
        """key: of the entity that replied. items: the stream of replies, if `reply` is one of several."""
        self._router = router
        self._client = client
        self._method = method
        self._reply = reply
        self._key = key
        self._items = items
        self._effects = reply.side_effects
        self._next = 0
        self._running = False
        self._waits_for: StandIn | None = None

    def run(self) -> None:
        """Go through the effects that are left; return while a synchronous one runs."""
        self._running = True
        while self._next < len(self._effects):
            effect = scan_side_effect(self._effects[self._next])
            self._next += 1
            self._start(effect)
            if self._waits_for is not None:
                self._running = False
                return
        self._answer()

    # --- side effects ------------------------------------------------------------------------------------------------

    def _start(self, effect: ServiceCall) -> None:
        """Start one effect; `_waits_for` is set when its end is to be waited for."""
        router = self._router
        most = router.settings
        way = self._way("side-effect of")
        target = router.method(effect.service_name, effect.command_name)
        if target is None:
            problem = self._report_unknown("Side effect", effect, way)
            router.effect_failed(name_of(effect), Status.UNIMPLEMENTED, problem)
        elif len(way) > most.max_hops:
            problem = f"Side effect chain longer than max_hops ({most.max_hops}): {chain(way, name_of(effect))}"
            router.effect_failed(name_of(effect), Status.RESOURCE_EXHAUSTED, problem)
        elif router.pending_effects >= most.max_pending_effects:
            problem = f"max_pending_effects ({most.max_pending_effects}) side effects are running"
            router.refused_effects += 1
            router.effect_failed(name_of(effect), Status.RESOURCE_EXHAUSTED, problem)
        else:
            router.pending_effects += 1
            stand_in = StandIn(router, target, way, self._effect_over)
            router.deliver(target, stand_in, effect.payload, effect.metadata or None)
            if effect.synchronous and not stand_in.ended:
                self._waits_for = stand_in

    def _effect_over(self, stand_in: StandIn, status: int, message: str) -> None:
        """From a callback of the transport, or from within `_start`."""
        self._router.pending_effects -= 1
        if status != Status.OK:
            self._router.effect_failed(stand_in.name, status, message)
        if stand_in is self._waits_for:
            self._waits_for = None
            self._router.timers.soon(self.run)

    # --- the answer --------------------------------------------------------------------------------------------------

    def _answer(self) -> None:
        if self._reply.action == ACTION_FORWARD:
            self._forward(scan_forward(self._reply.forward or b""))
        elif self._items is not None:
            self._items.on_item(self._reply)
        else:
            self._router.answer(self._client, self._method, self._reply)

    def _forward(self, forward: ServiceCall) -> None:
        router = self._router
        way = self._way("forwarded from")
        target = router.method(forward.service_name, forward.command_name)
        if target is None:
            self._report_unknown("Forward", forward, way)
            self._over(Status.UNIMPLEMENTED, f"forward to unknown method {name_of(forward)}")
        elif len(way) > router.settings.max_hops:
            text = f"forward chain longer than max_hops ({router.settings.max_hops}): {chain(way, name_of(forward))}"
            router.report(f"F{text[1:]}.")
            self._over(Status.INTERNAL, text)
        elif not self._client.ended:  # otherwise nobody is left to be answered
            origin = origin_of(self._client, self._method)
            stand_in = StandIn(router, target, way, self._forward_over, self._client, origin)
            self._put_before_client(stand_in)
            router.deliver(target, stand_in, forward.payload, forward.metadata or None)

    def _put_before_client(self, stand_in: StandIn) -> None:
        """From now on the forward's target hears how the client fares."""
        if self._items is not None:
            self._items.forwarded = stand_in
            return
        self._client.context = stand_in
        if isinstance(self._client, ServerCall | GrpcWebCall):
            self._client.handler = stand_in

    def _forward_over(self, stand_in: StandIn, status: int, message: str) -> None:
        if self._items is None and status == Status.OK and not stand_in.sent and not isinstance(self._client, StandIn):
            self._over(Status.INTERNAL, f"{stand_in.name}, to which {self._method.name} forwarded, gave no answer")
        else:
            self._over(status, message)

    def _over(self, status: int, message: str) -> None:
        if self._items is not None:
            self._items.on_forward_end(status, message)
        else:
            self._client.context = None
            self._client.finish(status, message)

    # --- the way so far ----------------------------------------------------------------------------------------------

    def _way(self, relation: str) -> Way:
        return (Hop(relation, self._method.name, self._key), *way_of(self._client))

    def _report_unknown(self, what: str, target: ServiceCall, way: Way) -> str:
        """Spec core 7.2; the text."""
        name = name_of(target)
        if self._router.has_service(target.service_name):
            text = f"{what} to unknown method {name}."
        else:
            text = f"{what} to {name}: the service {target.service_name} is unknown."
        self._router.report("\n".join((text, *(f"  {hop.relation} {hop.name}" for hop in way))))
        return text


def hand_over(router: Router, client: Client, method: Method, reply: Reply, key: str) -> bool:
    """A forward from one entity's command to another's, as most are: the target gets the client's own call. False when
    it is not that simple; then `Onward` does it."""
    if reply.side_effects or not isinstance(client, ServerCall) or client.ended:
        return False
    call = scan_forward(reply.forward or b"")
    target = router.method(call.service_name, call.command_name)
    trail = client.context or Trail(method, ())
    if target is None or not target.takes_clients or len(trail.way) >= router.settings.max_hops:
        return False
    if target.output_type_url != trail.origin.output_type_url:
        router.warn_type(trail.origin, target.output_type_url)
    client.context = Trail(trail.origin, (Hop("forwarded from", method.name, key), *trail.way))
    target.on_request(client, call.payload)
    return True


def name_of(call: ServiceCall) -> str:
    return f"{call.service_name}.{call.command_name}"


def way_of(client: Client) -> Way:
    if isinstance(client, StandIn):
        return client.way
    return client.context.way if isinstance(client.context, Trail) else ()


def origin_of(client: Client, method: Method) -> Method:
    """The method whose type the client expects when `method` answers."""
    if isinstance(client, StandIn):
        return client.origin
    return client.context.origin if isinstance(client.context, Trail) else method


def chain(way: Way, name: str) -> str:
    """Its members in the order in which they were called."""
    return " -> ".join((*(hop.name for hop in reversed(way)), name))
