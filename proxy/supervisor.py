"""The process above several workers: starts them, asks whether they live, replaces them, and takes them down again.

    admin port -> main port held -> journal's folder -> workers and replicator -> all ready
    SIGTERM -> workers drain, all at once -> replicator ships the rest -> folder closed

It is never on the way of a command, and imports little. A configuration error of any process, while the proxy has not
been ready yet, stops all of them with that one line and exit code 2; a journal that breaks stops them with its own.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterable
from time import monotonic

from stateside.journal.sharding import worker_name
from stateside.proxy import logs
from stateside.proxy.child import Child
from stateside.proxy.config import ConfigError, Settings
from stateside.proxy.journal_folder import JournalFolder
from stateside.proxy.main_port import MainPort
from stateside.proxy.place import ALONE, REPLICATOR, Place
from stateside.proxy.run_folder import RunFolder
from stateside.proxy.supervisor_admin import SupervisorAdmin
from stateside.proxy.words import EXIT_BROKEN, EXIT_CONFIG, EXIT_OK, complain, serving
from stateside.proxy.worker import settings_environment

WORKER_MODULE = "stateside.proxy.worker"
REPLICATOR_MODULE = "stateside.proxy.replicator"
DRAIN_SLACK_S = 10.0  # beside the graces, for flushing and closing
GRACES = 3  # calls, streams and peers may each take graceful_termination_timeout
EXIT_BY_SIGNAL = 128  # + its number, as shells have it

log = logs.get(__name__)


def main(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT; the exit code."""
    logs.configure(settings)
    return asyncio.run(Supervisor(settings).run())


class Supervisor:
    """All processes of one proxy."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.started = monotonic()
        self.exit_code = EXIT_OK
        self.workers: list[Child] = []
        self.replicator: Child | None = None
        self.has_served = False
        self.folder = JournalFolder(settings)
        self.admin = SupervisorAdmin(settings, self)
        self._run: RunFolder | None = None
        self._port: MainPort | None = None
        self._stop = asyncio.Event()

    @property
    def children(self) -> list[Child]:
        return self.workers + ([self.replicator] if self.replicator is not None else [])

    @property
    def required(self) -> list[Child]:
        """Those without which the proxy is not ready."""
        return self.children if self.settings.journal_replica_mode == "sync" else self.workers

    @property
    def is_stopping(self) -> bool:
        return self._stop.is_set()

    async def run(self) -> int:
        try:
            await self._open()
        except (ConfigError, OSError, self.folder.Error) as error:
            complain(ALONE, error)
            self.exit_code = EXIT_CONFIG
        else:
            keeping = [asyncio.create_task(self._keep(child)) for child in self.children]
            await self._stop.wait()
            await self._drain(keeping)
        await self._close()
        return self.exit_code

    def stop(self, exit_code: int = EXIT_OK) -> None:
        """Begin the drain."""
        self.exit_code = self.exit_code or exit_code
        self._stop.set()

    # --- start -------------------------------------------------------------------------------------------------------

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop_signal, number)
        loop.add_signal_handler(signal.SIGUSR1, self._on_debug)
        if self.settings.tls_certificate or self.settings.user_function_tls:
            loop.add_signal_handler(signal.SIGHUP, self._pass_on, signal.SIGHUP)
        loop.add_signal_handler(signal.SIGCHLD, self._reap)
        await self.admin.start()
        self._port = MainPort(self.settings)
        self._run = RunFolder()
        await self.folder.open()
        self._make_children(self._run, self._port.number)

    def _make_children(self, run: RunFolder, port: int) -> None:
        settings = self.settings
        environment = settings_environment(settings)

        def child(name: str, index: int, module: str) -> Child:
            place = Place(name, index, settings.workers, str(run.path), port, self.folder.replica)
            made = Child(place, module, environment, settings.worker_timeout, (run.lock,))
            made.on_news = self._on_news
            return made

        self.workers = [child(worker_name(index), index, WORKER_MODULE) for index in range(settings.workers)]
        if settings.journal_replica:
            self.replicator = child(REPLICATOR, 0, REPLICATOR_MODULE)

    async def _keep(self, child: Child) -> int:
        """See to it that there is this process; when it may not be started again, neither may the others."""
        try:
            code = await child.keep(lambda: self.has_served)
        except Exception:
            log.exception("the supervisor failed", process=child.name)
            child.kill()
            code = EXIT_BROKEN
        if not self.is_stopping:
            if child.complaint:
                complain(ALONE, child.complaint)
            log.error("stopping: a process cannot go on", process=child.name, exit_code=code)
            self.stop(code)
        return code

    def _on_news(self, child: Child) -> None:
        if child.answered:
            self.admin.bring_up_to_date(child)
        if self._port is not None and not self.has_served and all(worker.ready for worker in self.workers):
            self.has_served = True
            log.info("ready", port=self._port.number, seconds=round(monotonic() - self.started, 3))
            print(serving(self.settings, self._port.number), flush=True)

    # --- signals -----------------------------------------------------------------------------------------------------

    def _on_stop_signal(self, number: int) -> None:
        if not self.is_stopping:
            self.stop()
            return
        log.warning("stopping at once: asked a second time")
        self.exit_code = EXIT_BY_SIGNAL + number
        for child in self.children:
            child.kill()

    def _on_debug(self) -> None:
        logs.toggle_debug(self.settings.log_level)
        self._pass_on(signal.SIGUSR1)

    def _pass_on(self, number: int) -> None:
        for child in self.children:
            if child.answered:
                child.signal(number)

    def _reap(self) -> None:
        for child in self.children:
            child.reap()

    # --- end ---------------------------------------------------------------------------------------------------------

    async def _drain(self, keeping: list[asyncio.Task[int]]) -> None:
        """Workers first, so that there is nothing more to replicate when the replicator is told to stop."""
        log.info("stopping", grace_seconds=self.settings.graceful_termination_timeout)
        count = len(self.workers)
        await self._end(self.workers, keeping[:count])
        if self.replicator is not None:
            await self._end([self.replicator], keeping[count:])
        for code in (keep.result() for keep in keeping):
            self.exit_code = self.exit_code or code
        log.info("stopped")

    async def _end(self, children: Iterable[Child], keeping: list[asyncio.Task[int]]) -> None:
        for child in children:
            child.stop()
        within = GRACES * self.settings.graceful_termination_timeout + DRAIN_SLACK_S
        _, late = await asyncio.wait(keeping, timeout=within)
        if late:
            log.error("processes that did not stop in time are killed", seconds=within)
            for child in children:
                child.kill()
            await asyncio.wait(keeping)

    async def _close(self) -> None:
        await self.admin.close()
        await self.folder.close()
        if self._port is not None:
            self._port.close()
        if self._run is not None:
            self._run.close()
