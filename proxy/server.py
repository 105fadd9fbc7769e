"""The proxy process: puts the parts together, starts them in order, and takes them down again.

    journal -> admin port -> discovery -> main port -> ready ... SIGTERM -> drain -> passivate -> journal closed

The main port opens once the user function has been discovered and then stays open whatever happens to the user
function.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from time import monotonic

import uvloop

from stateside._speedups.h2 import Limits, Server
from stateside.journal import open_journal
from stateside.journal.contract import JournalError
from stateside.proxy.admin import Admin
from stateside.proxy.config import Settings
from stateside.proxy.discovery import Discovery
from stateside.proxy.eventsourced import Entities
from stateside.proxy.health import HealthService
from stateside.proxy.http1 import http1
from stateside.proxy.logs import get_logger
from stateside.proxy.metrics import Metrics
from stateside.proxy.reflection import ReflectionService
from stateside.proxy.router import Router
from stateside.proxy.spec import EntityModel, ServiceModel
from stateside.proxy.timers import Timers
from stateside.proxy.userfunction import UserFunction

EXIT_OK = 0
EXIT_CONFIG = 2
EXIT_BROKEN = 70  # the journal cannot be trusted any more (sysexits: EX_SOFTWARE)

log = get_logger(__name__)


def main(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT; the exit code."""
    return uvloop.run(Proxy(settings).run())


class Proxy:
    """One sidecar."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.started = monotonic()
        self.exit_code = EXIT_OK
        self.port = 0
        self._stop = asyncio.Event()
        self._stopping = False

    async def run(self) -> int:
        try:
            await self._build()
        except (JournalError, OSError) as error:
            print(f"stateside: {error}", file=sys.stderr)
            return EXIT_CONFIG
        discovery = asyncio.create_task(self.discovery.run())
        stop = asyncio.create_task(self._stop.wait())
        await asyncio.wait((discovery, stop), return_when=asyncio.FIRST_COMPLETED)
        if discovery.done() and not discovery.cancelled() and discovery.exception() is not None:
            log.error("stopping: discovery failed", exc_info=discovery.exception())
            self.exit_code = EXIT_BROKEN
        await self._drain(discovery)
        return self.exit_code

    def stop(self, exit_code: int = EXIT_OK) -> None:
        """Begin the drain."""
        self.exit_code = self.exit_code or exit_code
        self._stopping = True
        self._stop.set()

    def problems(self) -> list[str]:
        """Why the proxy is not ready; empty when it is."""
        found = []
        if self._stopping:
            found.append("the proxy is stopping")
        if self.discovery.problem:
            found.append(self.discovery.problem)
        if not self.port and not found:
            found.append("the main port is not open yet")
        if not self.journal.writable:
            found.append("the journal does not accept events")
        return found

    # --- start -------------------------------------------------------------------------------------------------------

    async def _build(self) -> None:
        settings = self.settings
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        self.metrics = Metrics()
        self.timers = Timers(loop)
        self.journal = open_journal(
            settings.journal,
            durability=settings.durability,
            map_max=settings.journal_map_max,
            on_broken=self._on_broken,
        )
        await self.journal.open()
        self.user_function = UserFunction(settings, self.timers.evict)
        self.discovery = Discovery(settings, self._found)
        self.router = Router(settings, self.timers, self._make_entities, self.discovery.report)
        self.server = Server(loop, self.router.lookup, limits=server_limits(settings), http1=http1)
        self.reflection = ReflectionService()
        self.health = HealthService(lambda: not self.problems())
        for path, handler in {**self.reflection.handlers(), **self.health.handlers()}.items():
            self.router.add(path, handler)
        self.admin = Admin(settings, self.problems, self.metrics)
        await self.admin.start()

    def _make_entities(self, model: EntityModel, router: Router) -> Entities:
        return Entities(
            model,
            self.settings,
            journal=self.journal,
            user_function=self.user_function,
            timers=self.timers,
            metrics=self.metrics.event_sourced(model.persistence_id),
            router=router,
        )

    async def _found(self, model: ServiceModel) -> None:
        """The user function was discovered: serve what it offers."""
        self.router.update(model)
        self.server.forget()
        self.reflection.update(model)
        self.health.update([entity.service_name for entity in model.entities])
        log.info("user function discovered", services=[entity.service_name for entity in model.entities])
        if not self.port:
            await self._listen()

    async def _listen(self) -> None:
        settings = self.settings
        self.port = await self.server.listen_tcp(settings.http_interface, settings.http_port)
        log.info("ready", port=self.port, seconds=round(monotonic() - self.started, 3))
        host = "127.0.0.1" if settings.http_interface in ("0.0.0.0", "::") else settings.http_interface
        print(f"Stateside serves http://{host}:{self.port}", flush=True)

    # --- end ---------------------------------------------------------------------------------------------------------

    def _on_broken(self, error: JournalError) -> None:
        """A flush failed: what is on disk is unknown, so nothing may be acknowledged any more."""
        log.critical("the journal is broken; the proxy stops", error=str(error))
        self.stop(EXIT_BROKEN)

    async def _drain(self, discovery: asyncio.Task[None]) -> None:
        """Let calls finish, passivate what is idle, close."""
        log.info("stopping", grace_seconds=self.settings.graceful_termination_timeout)
        discovery.cancel()
        await self.server.close(self.settings.graceful_termination_timeout)
        self.timers.evict_all()
        self.timers.stop()
        await asyncio.sleep(0)  # half-closes leave with this turn's write
        await self.user_function.close()
        await self.journal.close()
        await self.admin.close()
        log.info("stopped")


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
