"""Commands that landed on the wrong worker: each is passed on, once, to the worker that owns its entity.

On the way of a command this file stands where no instance of the entity is active: `Entities.activate` asks for the
link to the owner, and makes an instance only if there is none because the owner is this worker. Who owns what follows
from the names of the workers (journal/sharding.py), so nobody is asked. The other end of a link is the relay socket of
the owner, a second server that knows methods of entities only and passes nothing on: it was decided where the call came
in that this is its place. Calls were counted, logged and admitted there too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from stateside._speedups.h2 import Server
from stateside._speedups.ring import ShardHash
from stateside.journal.sharding import owners_among, worker_name
from stateside.proto.status import Status
from stateside.proxy import logs
from stateside.proxy.activation import EntityMethod
from stateside.proxy.crdt_service import CrdtMethod
from stateside.proxy.effects import StandIn
from stateside.proxy.relay_link import Link, limits
from stateside.proxy.relay_way import trail_of

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from stateside._speedups.h2 import Handler, ServerCall
    from stateside.proxy.activation import Entities
    from stateside.proxy.config import Settings
    from stateside.proxy.metrics import Metrics
    from stateside.proxy.place import Place
    from stateside.proxy.router import Router

QUIET_CHECK_S = 0.01

LinkOf = Callable[[str], Link | None]

log = logs.get(__name__)


class Relay:
    """Of one worker. Where there are no others it does nothing."""

    def __init__(self, place: Place, settings: Settings, router: Router, metrics: Metrics) -> None:
        self.place = place
        self.links: dict[int, Link] = {}
        self.server: Server | None = None
        self._settings = settings
        self._router = router
        self._of_shards: Sequence[Link | None] = ()
        if place.is_alone or place.workers == 1:
            return
        for index in range(place.workers):
            if index != place.index:
                path = place.relay_socket(index)
                self.links[index] = Link(worker_name(index), path, settings, metrics.refusals)
        self._of_shards = list(map(self.links.get, owners_among(place.workers, settings.number_of_shards)))
        router.relay = self
        metrics.families(self._figures)

    def link_of(self, persistence_id: str) -> LinkOf:
        """The function that gives, for each key of an entity type, the link to its owner; None: it is here."""
        links, shard = self._of_shards, ShardHash(persistence_id, self._settings.number_of_shards).shard

        def link_of_key(key: str) -> Link | None:
            return links[shard(key)]

        return link_of_key

    # --- from start to end -------------------------------------------------------------------------------------------

    async def update(self) -> None:
        """The methods that are served have changed. At the first time: begin to take commands, and to pass them on.
        Raises OSError."""
        if not self.links:
            return
        if self.server is not None:
            self.server.forget()
            return
        self.server = Server(asyncio.get_running_loop(), self._lookup, limits=limits(self._settings))
        await self.server.listen_unix(self.place.relay_socket(self.place.index))
        for link in self.links.values():
            link.start()

    async def close(self, grace: float) -> None:
        """No client waits here any more. Others may still need our entities until they are that far too."""
        if self.server is None:
            return
        loop = asyncio.get_running_loop()
        end = loop.time() + grace
        await asyncio.gather(*(link.close(grace) for link in self.links.values()))
        while True:
            if not self.server.connections or loop.time() >= end:
                break
            await asyncio.sleep(QUIET_CHECK_S)
        await self.server.close(max(0.0, end - loop.time()))

    # --- what other workers send -------------------------------------------------------------------------------------

    def _lookup(self, path: bytes) -> Handler | None:
        method = self._router.lookup(path)
        if not isinstance(method, EntityMethod):
            return None
        entities: Any = method.entities
        is_crdt = isinstance(method, CrdtMethod)
        received = ReceivedByCrdt(entities, method.model) if is_crdt else Received(entities, method.model)
        received.relay = self
        received.entities = Here(entities, self.place, self.link_of(entities.model.persistence_id))  # type: ignore[assignment]
        return received

    def client_of(self, call: ServerCall, method: EntityMethod) -> Any:
        """Who gets the answer to a command that came with headers, which say how it came to be sent."""
        trail = trail_of(call.headers, self._router, method)
        if trail is None or method.takes_clients:
            call.context = trail
            return call
        stand_in = StandIn(self._router, method, trail.way, partial(_over, call), call, trail.origin)
        call.context = call.handler = stand_in
        return stand_in

    # --- figures -----------------------------------------------------------------------------------------------------

    def _figures(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        links = self.links.values()
        commands: Any = CounterMetricFamily(
            "stateside_relayed_commands",
            "Commands passed on to other workers, and taken from them",
            labels=["direction"],
        )
        commands.add_metric(["out"], sum(link.passed for link in links))
        commands.add_metric(["in"], self.server.counters["calls_total"] if self.server is not None else 0)
        failures: Any = CounterMetricFamily(
            "stateside_relay_failures", "Commands that failed because another worker was away", labels=["reason"]
        )
        failures.add_metric(["away"], sum(link.away for link in links))
        failures.add_metric(["broken"], sum(link.broken for link in links))
        waiting = sum(len(link.waiting) for link in links)
        up = sum(link.is_up for link in links)
        yield from (commands, failures)
        yield GaugeMetricFamily("stateside_relay_waiting", "Commands that wait for another worker", value=waiting)
        yield GaugeMetricFamily("stateside_relay_links", "Other workers that are connected", value=up)


class Here:
    """Stands before the instances of one service where commands of other workers come in."""

    def __init__(self, entities: Entities, place: Place, link_of: LinkOf) -> None:
        self._entities = entities
        self._place = place
        self._link_of = link_of

    def activate(self, key: str, call: ServerCall, method: EntityMethod, payload: bytes) -> None:
        """As `Entities.activate`, but nothing is passed on: one of two workers is wrong about who owns the entity."""
        link = self._link_of(key)
        if link is None:
            self._entities.begin(key, call, method, payload)
            return
        entity = f"{self._entities.model.persistence_id}|{key}"
        text = (
            f"{self._place.name} was sent a command for entity {entity}, which {link.name} owns: workers disagree "
            "about `workers` or `number_of_shards`"
        )
        log.error("a command for an entity of another worker was refused", entity=entity, owner=link.name)
        call.fail(Status.FAILED_PRECONDITION, text)


class Received(EntityMethod):
    """A method as other workers call it."""

    __slots__ = ("relay",)

    wants_metadata = True
    relay: Relay

    def on_request(self, call: ServerCall, message: bytes) -> None:
        EntityMethod.on_request(self, self.relay.client_of(call, self) if call.headers else call, message)


class ReceivedByCrdt(CrdtMethod):
    """A method of a CRDT entity as other workers call it."""

    __slots__ = ("relay",)

    wants_metadata = True
    relay: Relay

    def on_request(self, call: ServerCall, message: bytes) -> None:
        CrdtMethod.on_request(self, self.relay.client_of(call, self) if call.headers else call, message)


def _over(call: ServerCall, stand_in: StandIn, status: int, message: str) -> None:
    """A streamed command of another worker has its last answer."""
    call.context = None
    call.finish(status, message)
