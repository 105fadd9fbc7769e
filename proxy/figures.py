"""What /metrics says of the process as a whole, read from its parts at each scrape: calls, refusals, journal, loop.

Nothing here is on the way of a command. Figures of entity types and actions are in metrics.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from stateside._speedups.h2 import CALL_SECONDS
from stateside.proxy.metrics import FINE_SECONDS, cumulative

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from stateside._speedups.accesslog import AccessLog
    from stateside._speedups.h2 import CallFigures, Server
    from stateside.journal.contract import Journal
    from stateside.journal.lmdb import LmdbJournal
    from stateside.proxy.http1 import Service
    from stateside.proxy.overload import Overload
    from stateside.proxy.router import Router
    from stateside.proxy.userfunction import UserFunction
    from stateside.proxy.webcalls import WebCalls, WebFigures

GRPC = "grpc"

# Every reason of `stateside_refusals_total` and its meaning; each is there from the start, so that alerts can use it.
REASONS = {
    "stash_depth": "too many commands wait for one entity instance",
    "max_entities": "too many entity instances are active and none is idle",
    "user_function_max_waiting": "too many instances or calls wait for a stream to the user function",
    "max_pending_effects": "too many side effects are running",
    "relay_queue": "too many commands wait for a worker that is away",
    "max_streams": "too many calls on one connection",
    "untaken_answers": "the client does not take its answers",
    "max_connections": "too many client connections",
    "draining": "the proxy is stopping",
    "too_large": "a message, a header block or an append is too large",
    "journal_full": "the journal cannot grow, or too much waits for its flush",
    "max_calls_in_flight": "too many calls are under way",
    "max_loop_lag": "the event loop is late",
    "max_memory": "the process uses too much memory",
}


def refusals(
    server: Server, http1: Service, router: Router, user_function: UserFunction, counted: Mapping[str, int]
) -> Callable[[], Iterator[Metric]]:
    """`counted` are those that entities and HTTP count themselves."""

    def read() -> dict[str, int]:
        transport = server.counters
        found = dict(counted)
        more = {
            "user_function_max_waiting": user_function.refused,
            "max_pending_effects": router.refused_effects,
            "max_streams": transport["refused_streams"] - transport["untaken"],
            "untaken_answers": transport["untaken"],
            "max_connections": transport["refused_connections"]
            - transport["refused_draining"]
            + http1.refused_connections,
            "draining": transport["refused_draining"],
            "too_large": transport["oversized"],
            **server.shed,
        }
        for reason, count in more.items():
            found[reason] = found.get(reason, 0) + count
        return found

    def collect() -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily

        family = CounterMetricFamily("stateside_refusals", "Refused, by the bound that was reached", labels=["reason"])
        found = read()
        for reason in REASONS:
            family.add_metric([reason], found.pop(reason, 0))
        for reason, count in found.items():
            family.add_metric([reason], count)
        yield family

    return collect


def calls(server: Server, web_calls: WebCalls) -> Callable[[], Iterator[Metric]]:
    """Calls of every method by status, their times and bytes. What reaches no method is one, with an empty name."""

    def collect() -> Iterator[Metric]:
        count, seconds, sizes = call_families()
        for of in server.figures:
            method = of.path.decode("ascii", "replace")
            for code, number in of.codes.items():
                count.add_metric([GRPC, method, code], number)
            if method:
                add_times(seconds, sizes, [GRPC, method], of)
        for (protocol, method), web in web_calls.figures.items():
            for code, number in web.codes.items():
                count.add_metric([protocol, method, code], number)
            add_times(seconds, sizes, [protocol, method], web)
        yield from (count, seconds, sizes)

    return collect


def rejected(http1: Service) -> Callable[[], Iterator[Metric]]:
    def collect() -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily

        meaning = "Requests over HTTP/1.1 that are none, or beyond a bound"
        family = CounterMetricFamily("stateside_http_rejected", meaning, labels=["code"])
        for status, count in http1.refused.items():
            family.add_metric([str(int(status))], count)
        yield family

    return collect


def add_times(seconds: Any, sizes: Any, labels: list[str], of: CallFigures | WebFigures) -> None:
    seconds.add_metric(labels, cumulative(CALL_SECONDS, of.seconds.counts), of.seconds.sum)
    sizes.add_metric([*labels, "in"], of.bytes_in)
    sizes.add_metric([*labels, "out"], of.bytes_out)


def call_families() -> tuple[Any, Any, Any]:
    """Empty families of calls, their times and their bytes."""
    from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

    labels = ["protocol", "method"]
    return (
        CounterMetricFamily("stateside_requests", "Calls of clients by method and status", labels=[*labels, "code"]),
        HistogramMetricFamily("stateside_request_seconds", "Calls from request to answer", labels=labels),
        CounterMetricFamily("stateside_request_bytes", "Messages of calls", labels=[*labels, "direction"]),
    )


def journal(of: Callable[[], Journal | None]) -> Callable[[], Iterator[Metric]]:
    """Batches, flushes and room of the journal; nothing as long as there is none, or of one that has no disk."""

    def collect() -> Iterator[Metric]:
        from stateside.journal.lmdb import LmdbJournal  # other journals do without it

        found = of()
        local = getattr(found, "local", found)  # what is below a synchronous replica
        if found is not None:
            yield simple("gauge", "stateside_journal_writable", "1 while the journal takes events", found.writable)
        if isinstance(local, LmdbJournal):
            yield from lmdb_families(local)

    return collect


def lmdb_families(journal: LmdbJournal) -> Iterator[Metric]:
    from prometheus_client.core import HistogramMetricFamily

    log = journal.log
    sizes, times = log.batch_sizes, log.flush_times
    name = "stateside_journal_batch_appends"
    family = HistogramMetricFamily(name, "Appends in one transaction of the journal")
    family.add_metric([], cumulative(*sizes), log.appends)
    yield family
    family = HistogramMetricFamily("stateside_journal_flush_seconds", "Batch handed over to committed (and flushed)")
    family.add_metric([], cumulative(*times), log.flush_seconds)
    yield family
    yield simple("counter", "stateside_journal_appends", "Appends stored", log.appends)
    yield simple("counter", "stateside_journal_events", "Events stored", log.events)
    yield simple("counter", "stateside_journal_values", "Values stored", log.values)
    yield simple("gauge", "stateside_journal_queue_bytes", "Waiting for the writer", log.queue_bytes_now)
    yield simple("gauge", "stateside_journal_used_bytes", "Pages ever written in the journal", log.used_bytes)
    yield simple("gauge", "stateside_journal_map_bytes", "Size of the journal's map, which grows", log.map_size)
    most = journal.settings.map_size_max
    yield simple("gauge", "stateside_journal_map_max_bytes", "Most that the map may grow to", most)
    disk = os.statvfs(journal.path)
    free = disk.f_bavail * disk.f_frsize
    yield simple("gauge", "stateside_journal_disk_free_bytes", "Free on the journal's disk", free)


def loop(overload: Overload, server: Server) -> Callable[[], Iterator[Metric]]:
    def collect() -> Iterator[Metric]:
        from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily

        family = HistogramMetricFamily("stateside_loop_lag_seconds", "How late the event loop came to its timer")
        family.add_metric([], cumulative(FINE_SECONDS, overload.lag.counts), overload.lag.sum)
        yield family
        yield simple("gauge", "stateside_highest_loop_lag_seconds", "The latest it ever came", overload.highest_lag)
        shedding = GaugeMetricFamily("stateside_shedding", "1 while new calls are refused", labels=["reason"])
        for reason in ("max_loop_lag", "max_memory"):
            shedding.add_metric([reason], float(server.shedding == reason))
        yield shedding

    return collect


def access_log(lines: AccessLog) -> Callable[[], Iterator[Metric]]:
    def collect() -> Iterator[Metric]:
        yield simple("counter", "stateside_access_log_lines", "Lines written to the access log", lines.lines)
        dropped = "Lines dropped, because they were not taken fast enough or could not be written"
        yield simple("counter", "stateside_access_log_dropped", dropped, lines.dropped)

    return collect


def simple(sort: str, name: str, meaning: str, value: float) -> Metric:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    family: Any = CounterMetricFamily if sort == "counter" else GaugeMetricFamily
    made: Metric = family(name, meaning, value=float(value))
    return made
