"""What follows a reply: side effects in their order, then the reply itself or the forward (spec core 7).

Off the hot path: replies with neither effect nor forward never come here. By the time these run the entity has been
released, so effects and forwards may target the very entity they come from. Synchronous effects are waited for, one
after the other; asynchronous ones are started when their turn comes and counted while they run. What an effect
answers never changes the answer to the client. A chain that is too long fails and is named, so that loops end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError

from stateside._speedups.h2 import ServerCall
from stateside._speedups.wire import ACTION_FORWARD, WireError
from stateside.proto import cloudstate
from stateside.proto.status import Status
from stateside.proxy import logs

if TYPE_CHECKING:
    from stateside._speedups.wire import StreamOut, ValueOut
    from stateside.proxy.activation import EntityMethod
    from stateside.proxy.router import Router

log = logs.get(__name__)

Hops = tuple[str, ...]


def check_parts(reply: StreamOut | ValueOut) -> None:
    """Raise WireError when a part of the reply that is looked into only later is malformed: before its events are
    stored."""
    try:
        for effect in reply.side_effects:
            cloudstate.SideEffect.FromString(effect)
        cloudstate.Forward.FromString(reply.forward or b"")
        cloudstate.Metadata.FromString(reply.metadata or b"")
    except DecodeError as error:
        raise WireError(f"side effect, forward or metadata: {error}") from error


class EffectCall:
    """Stands where the client's call would: the answer to a side effect is looked at and dropped."""

    __slots__ = ("_router", "_then", "context", "ended", "name")

    def __init__(self, router: Router, name: str, hops: Hops, then: Onward | None) -> None:
        self._router = router
        self._then = then
        self.name = name
        self.context: Any = hops
        self.ended = False

    def reply(self, message: bytes, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        self._done()

    def fail(self, status: int, message: str) -> None:
        if not self.ended:
            self._router.effect_failed(self.name, Status(status), message)
        self._done()

    def _done(self) -> None:
        if self.ended:
            return
        self.ended = True
        self._router.pending_effects -= 1
        if self._then is not None:
            self._then.effect_done()


class Onward:
    """Runs the effects of one reply, then answers the client."""

    __slots__ = ("_client", "_effects", "_hops", "_method", "_next", "_reply", "_router", "_running")

    def __init__(
        self, router: Router, client: ServerCall, method: EntityMethod, reply: StreamOut | ValueOut, key: str
    ) -> None:
        self._router = router
        self._client = client
        self._method = method
        self._reply = reply
        self._effects = reply.side_effects
        self._hops: Hops = (client.context or ()) + (f"{method.name}({key})",)
        self._next = 0
        self._running = False

    def run(self) -> None:
        """Go through the effects that are left; return while a synchronous one runs."""
        self._running = True
        while self._next < len(self._effects):
            effect = cloudstate.SideEffect.FromString(self._effects[self._next])
            self._next += 1
            if self._start(effect) and effect.synchronous:
                self._running = False
                return
        self._answer()

    def effect_done(self) -> None:
        """A synchronous effect is over. From a callback of the transport, or from within `_start`."""
        if not self._running:
            self._router.timers.soon(self.run)

    def _start(self, effect: Any) -> bool:
        """Start one effect; True when its end is to be waited for."""
        router = self._router
        name = f"{effect.service_name}.{effect.command_name}"
        target = router.method(effect.service_name, effect.command_name)
        problem = ""
        if target is None:
            problem = f"Side effect to unknown method {name}, from {' -> '.join(self._hops)}."
            router.report(problem)
        elif len(self._hops) > router.settings.max_hops:
            chain = " -> ".join((*self._hops, name))
            problem = f"Side effect chain longer than max_hops ({router.settings.max_hops}): {chain}"
        elif router.pending_effects >= router.settings.max_pending_effects:
            problem = f"max_pending_effects ({router.settings.max_pending_effects}) side effects are running"
        if problem or target is None:
            router.effect_failed(name, Status.RESOURCE_EXHAUSTED if target else Status.UNIMPLEMENTED, problem)
            return False
        router.pending_effects += 1
        call = EffectCall(router, name, self._hops, self if effect.synchronous else None)
        target.on_request(call, effect.payload.value)  # type: ignore[arg-type]
        return not call.ended

    def _answer(self) -> None:
        reply = self._reply
        if reply.action == ACTION_FORWARD:
            self._forward(cloudstate.Forward.FromString(reply.forward or b""))
        else:
            self._router.answer(self._client, self._method, reply)

    def _forward(self, forward: Any) -> None:
        router = self._router
        name = f"{forward.service_name}.{forward.command_name}"
        target = router.method(forward.service_name, forward.command_name)
        trace = " -> ".join((*self._hops, name))
        if target is None:
            router.report(f"Forward to unknown method {name}: {trace}.")
            self._client.fail(Status.UNIMPLEMENTED, f"forward to unknown method {name}")
        elif len(self._hops) > router.settings.max_hops:
            router.report(f"Forward chain longer than max_hops ({router.settings.max_hops}): {trace}.")
            self._client.fail(Status.INTERNAL, f"forward chain longer than {router.settings.max_hops}: {trace}")
        else:
            if target.output_type_url != self._method.output_type_url:
                router.warn_type(self._method, target.output_type_url)
            self._client.context = self._hops
            target.on_request(self._client, forward.payload.value)
