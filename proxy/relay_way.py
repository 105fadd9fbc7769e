"""What goes along with a command from one worker to another: how it came to be sent, if no client sent it.

Forwards and side effects have a way (effects.py), which bounds chains and names their members in reports, and an
origin, the method whose type the client expects. Both travel in a header that only relay sockets take for what it is; a
client that sends one has sent metadata.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from stateside._speedups.h2 import Handler
from stateside.proxy.effects import Hop, Trail, origin_of, way_of

if TYPE_CHECKING:
    from stateside._speedups.h2 import Call, Headers, ServerCall
    from stateside.proxy.effects import Client, Method
    from stateside.proxy.router import Router

HEADER = b"stateside-way"
MAX_HOPS_TOLD = 16  # the latest; of those before them only their number is told
MAX_KEY = 64  # characters told of each entity key
UNTOLD = Hop("forwarded from", "...", "")


class Hears(Handler):
    """The handler of a gRPC-web call that was passed on."""

    def on_drain(self, call: Call) -> None:
        if call.context is not None:
            call.context.on_client_drain()

    def on_cancel(self, call: ServerCall, status: int) -> None:
        if call.context is not None:
            call.context.on_client_cancel(status)


HEARS = Hears()


def headers_of(client: Client, method: Method) -> tuple[tuple[bytes, bytes], ...]:
    """For a command to `method` on behalf of `client`."""
    way = way_of(client)
    if not way:
        return ()
    hops = [(hop.relation, hop.method, hop.key[:MAX_KEY]) for hop in way[:MAX_HOPS_TOLD]]
    return ((HEADER, json.dumps((origin_of(client, method).name, len(way), hops)).encode()),)


def trail_of(headers: Headers, router: Router, method: Method) -> Trail | None:
    """What `headers_of` wrote at another worker for a command to `method`."""
    for name, value in headers:
        if name == HEADER:
            origin, length, hops = json.loads(value)
            service, _, command = origin.rpartition(".")
            way = tuple(Hop(*hop) for hop in hops)
            return Trail(router.method(service, command) or method, way + (UNTOLD,) * (length - len(way)))
    return None
