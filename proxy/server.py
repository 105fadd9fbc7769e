"""The proxy process: puts the parts together, starts them in order, and takes them down again.

    admin port -> discovery -> journal -> main port -> consumers -> ready
    SIGTERM -> consumers end -> drain -> passivate -> journal closed

The main port opens once the user function has been discovered and then stays open whatever happens to the user
function. The journal opens when the first entity type that keeps state is discovered, before anything of it is served:
a user function of actions alone needs no store and starts none. A journal that cannot be opened ends the process with
one line on stderr and exit code 2.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from functools import partial
from time import monotonic

import uvloop

from stateside._speedups.h2 import Limits, Server
from stateside.journal import open_journal
from stateside.journal.contract import Durability, Journal, JournalError
from stateside.proxy import figures, http1, http2, logs, reflection, standby
from stateside.proxy.accesslog import AccessLogWriter
from stateside.proxy.action import Actions
from stateside.proxy.activation import Entities
from stateside.proxy.admin import AdminServer
from stateside.proxy.config import ConfigError, Settings
from stateside.proxy.cors import Cors
from stateside.proxy.crdt_service import Crdts
from stateside.proxy.discovery import Discovery
from stateside.proxy.eventing import Eventing
from stateside.proxy.eventsourced import EventSourcedEntities
from stateside.proxy.grpc_web import GrpcWeb
from stateside.proxy.health import Health
from stateside.proxy.http_json import HttpJson
from stateside.proxy.http_route import HttpRoute
from stateside.proxy.metrics import Metrics
from stateside.proxy.overload import Overload
from stateside.proxy.place import ALONE, Place, from_environment
from stateside.proxy.readiness import Readiness
from stateside.proxy.relay import Relay
from stateside.proxy.replication import Replication
from stateside.proxy.router import Router, Service
from stateside.proxy.spec import ACTION, CRDT, EVENT_SOURCED, VALUE_ENTITY, EntityModel, ServiceModel
from stateside.proxy.timers import Timers
from stateside.proxy.tls import Contexts
from stateside.proxy.userfunction import UserFunction
from stateside.proxy.valueentity import ValueEntities
from stateside.proxy.webcalls import WebCalls
from stateside.proxy.words import EXIT_BROKEN, EXIT_CONFIG, EXIT_OK, complain, serving, worker_journal

JOURNAL_CHECK_INTERVAL = 1.0  # seconds
PASSIVATION_CHECK_INTERVAL = 0.01  # seconds; while the proxy stops

# entity type -> what keeps its instances
ENTITIES: dict[str, type[Entities]] = {
    EVENT_SOURCED: EventSourcedEntities,
    VALUE_ENTITY: ValueEntities,
    CRDT: Crdts,
}

log = logs.get(__name__)


def main(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT; the exit code."""
    place = from_environment()
    logs.configure(settings, "" if place.is_alone else place.label)
    return uvloop.run(Proxy(settings, place).run())


class Proxy:
    """One sidecar, or one worker of one (proxy/place.py)."""

    def __init__(self, settings: Settings, place: Place = ALONE) -> None:
        self.settings = settings
        self.place = place
        self.started = monotonic()
        self.exit_code = EXIT_OK
        self.port = 0
        self.journal: Journal | None = None  # until an entity type needs it
        self.replication: Replication | None = None  # until a CRDT entity needs it
        self.readiness = Readiness()
        self.metrics = Metrics()
        self._stop = asyncio.Event()

    async def run(self) -> int:
        try:
            await self._build()
        except (ConfigError, OSError) as error:
            complain(self.place, error)
            return EXIT_CONFIG
        discovery = asyncio.create_task(self.discovery.run())
        watch = asyncio.create_task(self._watch_journal())
        stop = asyncio.create_task(self._stop.wait())
        await asyncio.wait((discovery, stop), return_when=asyncio.FIRST_COMPLETED)
        if discovery.done() and not discovery.cancelled() and discovery.exception() is not None:
            log.error("stopping: discovery failed", exc_info=discovery.exception())
            self.exit_code = EXIT_BROKEN
        watch.cancel()
        discovery.cancel()
        await self._drain()
        return self.exit_code

    def stop(self, exit_code: int = EXIT_OK) -> None:
        """Begin the drain."""
        self.exit_code = self.exit_code or exit_code
        self.readiness.block("process", "the proxy is stopping")
        self._stop.set()

    # --- start -------------------------------------------------------------------------------------------------------

    async def _build(self) -> None:
        settings = self.settings
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        self.tls = Contexts(settings, loop)
        loop.add_signal_handler(signal.SIGUSR1, logs.toggle_debug, settings.log_level)
        self.timers = Timers(loop)
        self.user_function = UserFunction(settings, self.timers.evict, self.tls.user_function)
        self.discovery = Discovery(settings, self._found, self.readiness, self.tls.user_function)
        self.router = Router(settings, self.timers, self._make_service, self.discovery.report)
        self.relay = Relay(self.place, settings, self.router, self.metrics)
        self.eventing = Eventing(settings, self.router)
        self.http_json = HttpJson(self.router)
        self.grpc_web = GrpcWeb(self.router.lookup, loop, settings.max_request_size)
        self.route = HttpRoute(self.grpc_web, self.http_json, Cors(settings))
        self.web_calls = WebCalls(self.route)
        self.http1 = http1.main_port(settings, loop, self.web_calls.route)
        self.server = Server(
            loop,
            self.router.lookup,
            limits=server_limits(settings),
            http1=self.http1.connect,
            web=http2.Web(self.web_calls.route),
        )
        self.web_calls.server = self.server
        self.health = Health(self.readiness)
        self.router.add(self.health.handlers())
        self.admin = AdminServer(settings, self.readiness, self.metrics, self.place)
        if self.tls.watch:
            loop.add_signal_handler(signal.SIGHUP, self.tls.watch.renew)
            self.tls.watch.start()
        await self.admin.start()
        self.overload = Overload(settings, loop, self.server, self.timers)
        self.overload.start()
        self._open_access_log()
        self._offer_metrics()
        self._offer_figures()

    def _open_access_log(self) -> None:
        self.access_log: AccessLogWriter | None = None
        if self.settings.access_log != "off":
            self.access_log = AccessLogWriter(self.settings)
            self.server.access_log = self.access_log.lines

    def _offer_figures(self) -> None:
        families, refused = self.metrics.families, self.metrics.refusals.counts
        families(figures.calls(self.server, self.web_calls))
        families(figures.rejected(self.http1))
        families(figures.refusals(self.server, self.http1, self.router, self.user_function, refused))
        families(figures.journal(lambda: self.journal))
        families(figures.loop(self.overload, self.server))
        if self.access_log is not None:
            families(figures.access_log(self.access_log.lines))

    def _offer_metrics(self) -> None:
        gauge, counter = self.metrics.gauge, self.metrics.counter
        gauge("stateside_active_entities", "Active entity instances", self.router.active_instances)
        gauge("stateside_connections", "Client connections", lambda: self.server.connections)
        gauge("stateside_calls", "Calls of clients under way", lambda: self.server.streams)
        gauge("stateside_http_calls", "Calls over HTTP/JSON under way", lambda: self.http_json.calls)
        gauge("stateside_grpc_web_calls", "Calls over gRPC-web under way", lambda: self.grpc_web.calls)
        gauge(
            "stateside_user_function_connections",
            "Connections to the user function",
            lambda: self.user_function.connections,
        )
        gauge("stateside_user_function_streams", "Streams to the user function", lambda: self.user_function.streams)
        gauge("stateside_waiting_entities", "Instances that wait for a stream", lambda: len(self.user_function.waiting))
        gauge("stateside_pending_effects", "Side effects running", lambda: self.router.pending_effects)
        counter("stateside_failed_effects", "Side effects not done or failed", lambda: self.router.failed_effects)
        if (clients := self.tls.clients) is not None:
            counter(
                "stateside_tls_failed_handshakes", "TLS handshakes of clients that failed", lambda: clients.failures
            )
        events = self.eventing.figures
        counter("stateside_eventing_handled", "Events that consumers handled", lambda: events.handled)
        counter("stateside_eventing_failed_deliveries", "Events not handled, each try", lambda: events.failed)
        counter("stateside_eventing_dead_letters", "Events given up by a consumer", lambda: events.dead_letters)
        counter("stateside_dropped_reports", "Error reports not sent", lambda: self.discovery.dropped_reports)
        for name in self.server.counters:
            reading = partial(self._transport_count, name)
            counter(f"stateside_{name.removesuffix('_total')}", f"Transport: {name}", reading)

    def _transport_count(self, name: str) -> int:
        return self.server.counters[name]  # a new reading each time

    def _make_service(self, model: EntityModel, router: Router) -> Service:
        if model.entity_type == ACTION:
            return Actions(
                model,
                self.settings,
                user_function=self.user_function,
                timers=self.timers,
                metrics=self.metrics.action(model.service_name),
                router=router,
            )
        assert self.journal is not None
        measure = {EVENT_SOURCED: self.metrics.event_sourced, VALUE_ENTITY: self.metrics.value, CRDT: self.metrics.crdt}
        make: Callable[..., Entities] = ENTITIES[model.entity_type]
        if model.entity_type == CRDT:
            assert self.replication is not None
            make = partial(make, replicas=self.replication)
        return make(
            model,
            self.settings,
            journal=self.journal,
            user_function=self.user_function,
            timers=self.timers,
            metrics=measure[model.entity_type](model.persistence_id),
            router=router,
        )

    async def _found(self, model: ServiceModel) -> None:
        """The user function was discovered: serve what it offers."""
        if model.is_stored and self.journal is None and not await self._open_journal():
            return
        if model.is_replicated and self.replication is None and not await self._start_replication():
            return
        self.router.update(model)
        self.http_json.update(model)
        self.router.add(reflection.handlers(model))
        self.server.forget()
        await self.relay.update()
        self.health.set_services(model.service_names)
        log.info("user function discovered", services=model.service_names)
        if not self.port:
            await self._listen()
        if self.journal is not None:
            await self.eventing.update(model.consumers, self.journal)

    async def _open_journal(self) -> bool:
        """False: it cannot be opened, and the proxy stops."""
        settings = self.settings
        try:
            url = worker_journal(settings.journal, self.place)
            journal = open_journal(url, Durability(settings.durability), self._on_broken, **journal_bounds(settings))
            journal = standby.synced(journal, settings, self.place)
            await journal.open()
        except (JournalError, OSError) as error:
            complain(self.place, error)
            self.stop(EXIT_CONFIG)
            return False
        self.journal = journal
        return True

    async def _start_replication(self) -> bool:
        """False: it cannot be started, and the proxy stops."""
        assert self.journal is not None
        replication = Replication(self.settings, self.journal)
        try:
            await replication.start()
        except (JournalError, OSError) as error:
            complain(self.place, error)
            self.stop(EXIT_CONFIG)
            return False
        replication.offer_metrics(self.metrics)
        self.admin.leave = replication.leave
        self.replication = replication
        return True

    async def _listen(self) -> None:
        settings = self.settings
        shared = not self.place.is_alone
        port = self.place.http_port if shared else settings.http_port
        try:
            self.port = await self.server.listen_tcp(
                settings.http_interface, port, reuse_port=shared, ssl=self.tls.clients
            )
        except OSError as error:
            place = f"http_port = {settings.http_port}: cannot listen on {settings.http_interface}"
            complain(self.place, f"{place}: {error.strerror}")
            self.stop(EXIT_CONFIG)
            return
        log.info("ready", port=self.port, seconds=round(monotonic() - self.started, 3))
        if not shared:
            print(serving(settings, self.port), flush=True)

    # --- end ---------------------------------------------------------------------------------------------------------

    async def _watch_journal(self) -> None:
        """Readiness follows whether the journal takes events."""
        while True:
            if self.journal is None or self.journal.writable:
                self.readiness.clear("journal")
            else:
                self.readiness.block("journal", "the journal does not take events")
            await asyncio.sleep(JOURNAL_CHECK_INTERVAL)

    def _on_broken(self, error: JournalError) -> None:
        """A flush failed: what is on disk is unknown, so nothing may be acknowledged any more."""
        log.critical("the journal is broken; the proxy stops", error=str(error))
        self.stop(EXIT_BROKEN)

    async def _drain(self) -> None:
        """Let calls finish, passivate what is idle, close."""
        log.info("stopping", grace_seconds=self.settings.graceful_termination_timeout)
        self.health.close()
        await self.eventing.close()
        grace = self.settings.graceful_termination_timeout
        for service in self.router.services.values():
            if isinstance(service, Crdts):
                service.complete_streams()
        await asyncio.gather(self.server.close(grace), self.http1.drain(grace))
        await self.relay.close(grace)
        await self._passivate_all()
        self.timers.stop()
        self.tls.watch.stop()
        self.overload.stop()
        await self.user_function.close()
        if self.replication is not None:
            await self.replication.close_all(grace)
        if self.journal is not None:
            await self.journal.close()
        await self.admin.close()
        if self.access_log is not None:
            self.access_log.close()
        log.info("stopped")

    async def _passivate_all(self) -> None:
        """Half-close every stream, and let the user function complete its side, as at any passivation."""
        end = monotonic() + min(self.settings.graceful_termination_timeout, self.settings.stream_close_timeout)
        self.timers.evict_all()
        while self.router.active_instances() and monotonic() < end:
            await asyncio.sleep(PASSIVATION_CHECK_INTERVAL)
            self.timers.evict_all()


def journal_bounds(settings: Settings) -> dict[str, int | float | str]:
    """Settings of the journal, as its store names them."""
    if settings.journal.startswith("postgres"):
        return {"schema": settings.postgres_schema, "write_timeout": settings.postgres_write_timeout}
    if not settings.journal.startswith("lmdb:"):
        return {}
    return {"map_size": min(1 << 30, settings.journal_map_max), "map_size_max": settings.journal_map_max}


def server_limits(settings: Settings) -> Limits:
    """Bounds of the main port."""
    return Limits(
        max_message_size=settings.max_request_size,
        max_header_bytes=settings.max_header_bytes,
        max_header_count=settings.max_header_count,
        max_streams=settings.max_streams,
        max_connections=settings.max_connections,
        header_timeout=settings.header_timeout,
        idle_timeout=settings.idle_timeout,
        keepalive_interval=settings.keepalive_interval,
        keepalive_timeout=settings.keepalive_timeout,
    )
