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

log = logs.get(__name__)


class Relay:
    """Of one worker. Where there are no others it does nothing."""

    def __init__(self, place: Place, settings: Settings, router: Router, metrics: Metrics) -> None:
        self.place = place
        self.links: dict[int, Link] = {}
        self.server: Server | None = None
        self._settings = settings
        self.router = router
        self.links_of_shards: Sequence[Link | None] = ()  # None: the shard is ours
        if place.is_alone or place.workers == 1:
            return
        for index in range(place.workers):
            if index != place.index:
                path = place.relay_socket(index)
                self.links[index] = Link(worker_name(index), path, settings, metrics.refusals)
        self.links_of_shards = list(map(self.links.get, owners_among(place.workers, settings.number_of_shards)))
        router.relay = self
        metrics.families(self._figures)

    def shard_of(self, persistence_id: str) -> Callable[[str], int]:
        """The function that gives the shard of each key of an entity type."""
        return ShardHash(persistence_id, self._settings.number_of_shards).shard

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
        method = self.router.lookup(path)
        if not isinstance(method, EntityMethod):
            return None
        entities: Any = method.entities
        is_crdt = isinstance(method, CrdtMethod)
        received = ReceivedByCrdt(entities, method.model) if is_crdt else Received(entities, method.model)
        received.relay = self
        received.entities = Here(entities, self)  # type: ignore[assignment]
        return received

    def take_way(self, call: ServerCall, method: EntityMethod) -> None:
        """A command came with headers, which say how it came to be sent."""
        call.context = trail_of(call.headers, self.router, method)

    # --- figures -----------------------------------------------------------------------------------------------------

    def _figures(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        links = self.links.values()
        commands: Any = CounterMetricFamily(
            "stateside_relayed_commands",
            "Commands passed on to other workers, and taken from them",
            labels=["direction"],
        )
        commands.add_metric(["out"], sum(link.passage.passed for link in links))
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

    def __init__(self, entities: Entities, relay: Relay) -> None:
        self._entities = entities
        self._relay = relay
        self._shard_of = relay.shard_of(entities.model.persistence_id)

    def activate(self, key: str, call: ServerCall, method: EntityMethod, payload: bytes) -> None:
        """As `Entities.activate`, but nothing is passed on: one of two workers is wrong about who owns the entity."""
        link = self._relay.links_of_shards[self._shard_of(key)]
        if link is None:
            self._entities.begin(key, call, method, payload)
            return
        entity = f"{self._entities.model.persistence_id}|{key}"
        text = (
            f"{self._relay.place.name} was sent a command for entity {entity}, which {link.name} owns: "
            "workers disagree about `workers` or `number_of_shards`"
        )
        log.error("a command for an entity of another worker was refused", entity=entity, owner=link.name)
        call.fail(Status.FAILED_PRECONDITION, text)


class Received(EntityMethod):
    """A method as other workers call it."""

    __slots__ = ("relay",)

    wants_metadata = True
    relay: Relay

    def on_metadata(self, call: ServerCall) -> None:
        self.relay.take_way(call, self)


class ReceivedByCrdt(CrdtMethod):
    """A method of a CRDT entity as other workers call it."""

    __slots__ = ("relay",)

    wants_metadata = True
    relay: Relay

    def on_metadata(self, call: ServerCall) -> None:
        self.relay.take_way(call, self)

    def on_request(self, call: ServerCall, message: bytes) -> None:
        """Of a stream of replies, `context` is its own: then a stand-in keeps the way."""
        trail = call.context
        if trail is not None and self.streams:
            stand_in = StandIn(self.relay.router, self, trail.way, partial(_over, call), call, trail.origin)
            call.context = call.handler = stand_in
            CrdtMethod.on_request(self, stand_in, message)  # type: ignore[arg-type]
        else:
            CrdtMethod.on_request(self, call, message)


def _over(call: ServerCall, stand_in: StandIn, status: int, message: str) -> None:
    """A streamed command of another worker has its last answer."""
    call.context = None
    call.finish(status, message)
