"""The process `replicator`: `python -m stateside.proxy.replicator`, started by the supervisor with `journal_replica`.

It reads the LMDB log of every worker and brings it to Postgres (journal/replicate.py). No command waits for it, except
in synchronous mode. Whatever is wrong with Postgres, it stays and tries again: /ready and the log say what it is.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import uvloop

from stateside.journal.confirm import Confirmations
from stateside.journal.contract import JournalError
from stateside.journal.replicate import Observer, Replicator, ReplicatorSettings
from stateside.journal.source import Source
from stateside.proxy import logs
from stateside.proxy.admin import AdminServer
from stateside.proxy.config import ConfigError, Settings, load
from stateside.proxy.metrics import Metrics
from stateside.proxy.place import Place, from_environment
from stateside.proxy.readiness import Readiness
from stateside.proxy.standby import log_folders
from stateside.proxy.words import EXIT_BROKEN, EXIT_CONFIG, EXIT_OK, complain

READY_INTERVAL_S = 0.2
PART = "postgres"

log = logs.get(__name__)


def main() -> int:
    settings, place = load({}, os.environ), from_environment()
    logs.configure(settings, "" if place.is_alone else place.label)
    return uvloop.run(ReplicatorProcess(settings, place).run())


class ReplicatorProcess:
    """`run` until SIGTERM."""

    def __init__(self, settings: Settings, place: Place) -> None:
        self.settings = settings
        self.place = place
        self.readiness = Readiness({PART: "connecting to Postgres"})
        self.metrics = Metrics()
        sources = [Source(name, path, settings.journal_map_max) for name, path in log_folders(settings).items()]
        bounds = ReplicatorSettings(schema=settings.postgres_schema)
        self.confirmations = Confirmations(lambda: self.replicator.wake())
        observer = Observer(self.confirmations.on_applied, self.confirmations.on_connected, _say)
        self.replicator = Replicator(sources, settings.journal_replica, bounds, observer)
        self.admin = AdminServer(settings, self.readiness, self.metrics, place)
        self._stop = asyncio.Event()

    async def run(self) -> int:
        self._offer_metrics()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        try:
            await self.admin.start()
            if not self.place.is_alone:
                await self.confirmations.serve(self.place.replicator_socket)
        except (ConfigError, JournalError, OSError) as error:
            complain(self.place, str(error))
            return EXIT_CONFIG
        code = await self._replicate()
        await self.confirmations.close()
        await self.admin.close()
        return code

    async def _replicate(self) -> int:
        """Until stopped; then what is there is shipped, as long as the grace lasts."""
        running = asyncio.create_task(self.replicator.run())
        watching = asyncio.create_task(self._watch())
        stopping = asyncio.create_task(self._stop.wait())
        await asyncio.wait((running, stopping), return_when=asyncio.FIRST_COMPLETED)
        self.replicator.stop()
        await asyncio.wait((running,), timeout=self.settings.graceful_termination_timeout)
        for task in (running, watching, stopping):
            task.cancel()
        [ended, *_] = await asyncio.gather(running, watching, stopping, return_exceptions=True)
        if isinstance(ended, Exception):
            log.error("replication failed", exc_info=ended)
            return EXIT_BROKEN if isinstance(ended, MemoryError) else 1
        if behind := self.replicator.records_behind:
            log.warning("stopped before all was replicated to Postgres", records=behind)
        return EXIT_OK

    async def _watch(self) -> None:
        while True:
            if self.replicator.trouble:
                self.readiness.block(PART, self.replicator.trouble)
            else:
                self.readiness.clear(PART)
            await asyncio.sleep(READY_INTERVAL_S)

    def _offer_metrics(self) -> None:
        gauge, counter, it = self.metrics.gauge, self.metrics.counter, self.replicator
        gauge("stateside_replica_connected", "1 while Postgres takes what is stored", lambda: float(it.connected))
        gauge("stateside_replica_records_behind", "Appends that Postgres does not have", lambda: it.records_behind)
        gauge("stateside_replica_events_behind", "About how many events that are", lambda: it.events_behind)
        gauge("stateside_replica_bytes_behind", "About how many bytes that are", lambda: it.bytes_behind)
        gauge("stateside_replica_seconds_behind", "Age of the oldest of them", lambda: it.seconds_behind)
        counter("stateside_replica_batches", "Transactions in Postgres", lambda: it.counts.batches)
        counter("stateside_replica_events", "Events replicated", lambda: it.counts.events)
        counter("stateside_replica_records", "Appends and values replicated", lambda: it.counts.records)
        counter("stateside_replica_snapshots", "Snapshots replicated", lambda: it.counts.snapshots)
        counter("stateside_replica_errors", "Tries to replicate that failed", lambda: it.counts.errors)
        counter("stateside_replica_connects", "Connections made to Postgres", lambda: it.counts.reconnects)


def _say(level: str, text: str, **fields: object) -> None:
    getattr(log, level)(text, **fields)


if __name__ == "__main__":
    sys.exit(main())
