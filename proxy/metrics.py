"""Figures for Prometheus: plain attributes on the hot path, rendered only when somebody asks.

An entity machine does `metrics.received_commands += 1`; nothing is locked, labelled or formatted then. The library
prometheus_client is imported at the first scrape, not at start. Names, types and buckets of event sourced entities are
those of the Cloudstate reference proxy, which has no figures of others. What is not of one entity type or action, but
of the process, is in figures.py.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stateside._speedups.histogram import Histogram as Counts

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

BUCKETS_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
# Ours go down to what a relayed command really takes; the reference's lowest is 5 ms.
FINE_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
# One observation serves both.
ALL_SECONDS = tuple(sorted({*BUCKETS_SECONDS, *FINE_SECONDS}))
REPLAYED_EVENTS = (0.0, 1.0, 10.0, 100.0, 1_000.0, 10_000.0, 100_000.0, 1_000_000.0)
QUANTILES = (0.5, 0.95, 0.99, 1.0)

LABEL = "entity_name"

# attribute of EntityMetrics -> help text; the name is the prefix of the entity type + attribute (+ _total or _seconds)
INSTANCE_COUNTERS = {
    "activated_entities": "Entity instances created",
    "passivated_entities": "Entity instances ended, for whatever reason",
    "failed_entities": "Entity instances that crashed, lost their stream or failed to recover",
    "received_commands": "Commands that reached an entity instance",
    "stashed_commands": "Commands queued behind another",
    "unstashed_commands": "Commands that left the queue",
    "refused_commands": "Commands refused because too many waited",
    "failed_commands": "Commands answered with a failure",
    "completed_commands": "Commands answered, failures included",
}
COUNTERS = INSTANCE_COUNTERS | {
    "persisted_events": "Events appended to the journal",
    "persisted_event_bytes": "Serialized size of appended events in bytes",
    "loaded_events": "Events replayed to entity instances",
    "loaded_event_bytes": "Serialized size of replayed events in bytes",
    "persisted_snapshots": "Snapshots given to the journal",
    "persisted_snapshot_bytes": "Serialized size of those snapshots in bytes",
    "loaded_snapshots": "Snapshots read at activation",
    "loaded_snapshot_bytes": "Serialized size of read snapshots in bytes",
}
VALUE_COUNTERS = INSTANCE_COUNTERS | {
    "persisted_values": "Values stored, deletions included",
    "persisted_value_bytes": "Serialized size of stored values in bytes",
}
CRDT_COUNTERS = INSTANCE_COUNTERS | {
    "updates": "Updates of the user function applied and given to the journal",
    "refused_updates": "Updates and other state changes that could not be applied",
    "deletions": "Keys deleted by the user function",
    "sent_deltas": "Deltas sent to the user function because of changes elsewhere",
    "streamed_calls": "Commands of methods with streamed replies",
    "streamed_messages": "Streamed messages of the user function",
    "cancelled_calls": "Streamed calls whose client went away or ran out of time",
}
HISTOGRAMS = {
    "recovery_time": "Activation to the end of replay",
    "command_stash_time": "Time of commands in the queue",
    "command_processing_time": "Command sent to its reply or failure",
    "command_total_time": "Command received to answered, queueing and persisting included",
    "persist_time": "Append started to confirmed",
}
VALUE_HISTOGRAMS = HISTOGRAMS | {
    "recovery_time": "Activation to the value sent",
    "persist_time": "Storing a value started to confirmed",
}
CRDT_HISTOGRAMS = HISTOGRAMS | {
    "recovery_time": "Activation to the init sent",
    "persist_time": "A change applied to as many replicas having it as asked",
}
SUMMARIES = {"entity_active_time": "Life time of entity instances"}
# Of every entity type, whatever its kind: attribute of EntityMetrics -> name, bounds, help text.
COMMON_LABELS = ["entity_type", LABEL]
COMMON_HISTOGRAMS = {
    "relay_time": (
        "stateside_relay_seconds",
        FINE_SECONDS,
        "Command received to answered, without the time that the user function had it",
    ),
    "command_processing_time": (
        "stateside_user_function_seconds",
        FINE_SECONDS,
        "Command given to the user function to its reply",
    ),
    "replayed_events": ("stateside_replayed_events", REPLAYED_EVENTS, "Events replayed at an activation"),
}
COMMON_GAUGES: dict[str, tuple[str, Callable[[EntityMetrics], float]]] = {
    "stateside_entities": ("Entity instances active now", lambda metrics: metrics.active()),
    "stateside_stashed_commands": (
        "Commands that wait behind others now",
        lambda metrics: metrics.stashed_commands - metrics.unstashed_commands,
    ),
    "stateside_highest_stash_depth": (
        "The most commands that ever waited for one instance",
        lambda metrics: metrics.highest_stash_depth,
    ),
}


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """What an entity type exports: the prefix of its series, and its own counters and histograms."""

    prefix: str
    counters: Mapping[str, str]
    histograms: Mapping[str, str]

    @property
    def entity_type(self) -> str:
        """The value of the label."""
        return self.prefix.split("_")[1]


EVENT_SOURCED = Kind("cloudstate_eventsourced_", COUNTERS, HISTOGRAMS)
VALUE = Kind("stateside_value_", VALUE_COUNTERS, VALUE_HISTOGRAMS)
CRDT = Kind("stateside_crdt_", CRDT_COUNTERS, CRDT_HISTOGRAMS)

ACTION_PREFIX = "stateside_action_"
# attribute of ActionMetrics -> help text; the name is ACTION_PREFIX + attribute + _total
ACTION_COUNTERS = {
    "calls": "Calls of actions, side effects and forwards included",
    "failed_calls": "Calls answered with a failure or an error status",
    "cancelled_calls": "Calls whose client went away or ran out of time",
    "messages_in": "Messages streamed in by clients",
    "messages_out": "Responses of the user function",
}
ACTION_GAUGES = {"active_calls": "Calls under way"}


class Histogram(Counts):
    """Counts in fixed buckets."""

    __slots__ = ()

    def __init__(self, bounds: Iterable[float] = ALL_SECONDS) -> None:
        super().__init__(bounds)

    def cumulative(self, bounds: Sequence[float] = BUCKETS_SECONDS) -> list[tuple[str, float]]:
        """See `cumulative`; `bounds` are some of those of the histogram."""
        return cumulative(self.bounds, self.counts, bounds)


def cumulative(
    bounds: Sequence[float], counts: Sequence[int], wanted: Sequence[float] | None = None
) -> list[tuple[str, float]]:
    """(upper bound, observations up to it), as Prometheus wants it; of the `wanted` bounds only."""
    shown = frozenset(bounds if wanted is None else wanted) | {math.inf}
    found, total = [], 0
    for bound, count in zip((*bounds, math.inf), counts, strict=True):
        total += count
        if bound in shown:
            found.append((_number(bound), float(total)))
    return found


class Refusals:
    """Commands and calls that were refused, by the bound that was reached."""

    __slots__ = ("counts",)

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def count(self, reason: str) -> None:
        self.counts[reason] = self.counts.get(reason, 0) + 1


class Summary:
    """Quantiles of the last minute, within 1 % of the value; count and sum of all time.

    Observations fall into buckets that grow by 2 %, kept in six windows of ten seconds.
    """

    __slots__ = ("_clock", "_windows", "count", "sum")

    WINDOWS = 6
    WINDOW_SECONDS = 10.0
    GROWTH = math.log(1.02)
    # 10 µs to about 3 years: bounds the number of buckets
    LOW, HIGH = 1e-5, 1e8

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.count = 0
        self.sum = 0.0
        self._clock = clock
        self._windows: deque[_Window] = deque(maxlen=self.WINDOWS)

    def observe(self, seconds: float) -> None:
        self.count += 1
        self.sum += seconds
        window = self._window()
        index = round(math.log(min(max(seconds, self.LOW), self.HIGH)) / self.GROWTH)
        window.counts[index] = window.counts.get(index, 0) + 1
        window.highest = max(window.highest, seconds)

    def quantiles(self) -> list[tuple[float, float]]:
        """(quantile, seconds); NaN when nothing was observed in the last minute."""
        oldest = self._clock() - self.WINDOWS * self.WINDOW_SECONDS
        recent = [window for window in self._windows if window.start > oldest]
        counts: dict[int, int] = {}
        for window in recent:
            for index, count in window.counts.items():
                counts[index] = counts.get(index, 0) + count
        highest = max((window.highest for window in recent), default=math.nan)
        return [(quantile, min(self._at(quantile, counts), highest)) for quantile in QUANTILES[:-1]] + [(1.0, highest)]

    def _at(self, quantile: float, counts: dict[int, int]) -> float:
        wanted = quantile * sum(counts.values())
        for index in sorted(counts):
            wanted -= counts[index]
            if wanted <= 0:
                return math.exp(index * self.GROWTH)
        return math.nan

    def _window(self) -> _Window:
        start = self._clock() // self.WINDOW_SECONDS * self.WINDOW_SECONDS
        if not self._windows or self._windows[-1].start != start:
            self._windows.append(_Window(start))
        return self._windows[-1]


class _Window:
    __slots__ = ("counts", "highest", "start")

    def __init__(self, start: float) -> None:
        self.start = start
        self.counts: dict[int, int] = {}
        self.highest = 0.0


class EntityMetrics:
    """All figures of one service with entity instances, to be incremented in place."""

    __slots__ = (
        "active",
        "entity_name",
        "highest_stash_depth",
        "kind",
        "refusals",
        "relay_time",
        "replayed_events",
        *(COUNTERS | VALUE_COUNTERS | CRDT_COUNTERS),
        *HISTOGRAMS,
        *SUMMARIES,
    )

    active: Callable[[], int]
    """How many instances there are; given by whoever keeps them."""
    highest_stash_depth: int
    relay_time: Histogram
    replayed_events: Histogram
    activated_entities: int
    passivated_entities: int
    failed_entities: int
    received_commands: int
    stashed_commands: int
    unstashed_commands: int
    refused_commands: int
    failed_commands: int
    completed_commands: int
    persisted_events: int
    persisted_event_bytes: int
    loaded_events: int
    loaded_event_bytes: int
    persisted_snapshots: int
    persisted_snapshot_bytes: int
    loaded_snapshots: int
    loaded_snapshot_bytes: int
    persisted_values: int
    persisted_value_bytes: int
    updates: int
    refused_updates: int
    deletions: int
    sent_deltas: int
    streamed_calls: int
    streamed_messages: int
    cancelled_calls: int
    recovery_time: Histogram
    command_stash_time: Histogram
    command_processing_time: Histogram
    command_total_time: Histogram
    persist_time: Histogram
    entity_active_time: Summary

    def __init__(self, entity_name: str, kind: Kind = EVENT_SOURCED, refusals: Refusals | None = None) -> None:
        self.entity_name = entity_name
        self.kind = kind
        self.refusals = refusals or Refusals()
        self.active = int
        self.highest_stash_depth = 0
        self.relay_time = Histogram(FINE_SECONDS)
        self.replayed_events = Histogram(REPLAYED_EVENTS)
        for name in kind.counters:
            setattr(self, name, 0)
        for name in HISTOGRAMS:
            setattr(self, name, Histogram())
        for name in SUMMARIES:
            setattr(self, name, Summary())


class ActionMetrics:
    """All figures of one action, to be incremented in place."""

    __slots__ = ("service", "user_function_time", *ACTION_COUNTERS, *ACTION_GAUGES)

    calls: int
    failed_calls: int
    cancelled_calls: int
    messages_in: int
    messages_out: int
    active_calls: int

    def __init__(self, service: str) -> None:
        self.service = service
        self.user_function_time = Histogram(FINE_SECONDS)
        for name in (*ACTION_COUNTERS, *ACTION_GAUGES):
            setattr(self, name, 0)


class Metrics:
    """All figures of the process."""

    def __init__(self) -> None:
        self._actions: dict[str, ActionMetrics] = {}
        self._entities: dict[Kind, dict[str, EntityMetrics]] = {EVENT_SOURCED: {}, VALUE: {}, CRDT: {}}
        self.refusals = Refusals()
        self._readings: list[tuple[str, str, str, Callable[[], float]]] = []
        self._families: list[Callable[[], Iterable[Metric]]] = []
        self._registry: CollectorRegistry | None = None

    def event_sourced(self, entity_name: str) -> EntityMetrics:
        """The figures of an event sourced entity type, by its persistence id."""
        return self._of_kind(EVENT_SOURCED, entity_name)

    def value(self, entity_name: str) -> EntityMetrics:
        """The figures of a value entity type, by its persistence id."""
        return self._of_kind(VALUE, entity_name)

    def crdt(self, entity_name: str) -> EntityMetrics:
        """The figures of a CRDT entity type, by its persistence id."""
        return self._of_kind(CRDT, entity_name)

    def action(self, service: str) -> ActionMetrics:
        """The figures of an action, by the name of its service."""
        return self._actions.setdefault(service, ActionMetrics(service))

    def gauge(self, name: str, meaning: str, read: Callable[[], float]) -> None:
        """A value that is read at every scrape."""
        self._readings.append(("gauge", name, meaning, read))

    def counter(self, name: str, meaning: str, read: Callable[[], float]) -> None:
        """A count that is read at every scrape; `name` without `_total`."""
        self._readings.append(("counter", name, meaning, read))

    def families(self, collect: Callable[[], Iterable[Metric]]) -> None:
        """Families of series that are made at every scrape."""
        self._families.append(collect)

    def render(self, names: list[str] | None = None) -> bytes:
        """Text format 0.0.4; only the series called `names`, if any are given."""
        from prometheus_client import generate_latest

        registry: Any = self._made_registry()
        return generate_latest(_Selection(registry, names) if names else registry)

    def collect(self) -> Iterator[Metric]:
        """Called by prometheus_client."""
        for kind, entities in self._entities.items():
            if entities:
                yield from _counters(kind, entities)
                yield from _histograms(kind, entities)
                yield from _summaries(kind, entities)
        yield from self._common()
        if self._actions:
            yield from self._of_actions()
        for collect in self._families:
            yield from collect()
        for sort, name, meaning, read in self._readings:
            yield _reading(sort, name, meaning, read())

    def _made_registry(self) -> CollectorRegistry:
        if self._registry is None:
            from prometheus_client import CollectorRegistry, ProcessCollector

            self._registry = CollectorRegistry(auto_describe=False)
            ProcessCollector(registry=self._registry)
            self._registry.register(self)
        return self._registry

    def _of_kind(self, kind: Kind, entity_name: str) -> EntityMetrics:
        return self._entities[kind].setdefault(entity_name, EntityMetrics(entity_name, kind, self.refusals))

    def _common(self) -> Iterator[Metric]:
        """What every entity type has, under one name with the type as a label."""
        from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily

        all_metrics = [metrics for entities in self._entities.values() for metrics in entities.values()]
        if not all_metrics and not self._actions:
            return
        for name, (meaning, read) in COMMON_GAUGES.items():
            gauge = GaugeMetricFamily(name, meaning, labels=COMMON_LABELS)
            for metrics in all_metrics:
                gauge.add_metric([metrics.kind.entity_type, metrics.entity_name], read(metrics))
            yield gauge
        for attribute, (name, bounds, meaning) in COMMON_HISTOGRAMS.items():
            family = HistogramMetricFamily(name, meaning, labels=COMMON_LABELS)
            for metrics in all_metrics:
                of: Histogram = getattr(metrics, attribute)
                family.add_metric([metrics.kind.entity_type, metrics.entity_name], of.cumulative(bounds), of.sum)
            if attribute == "command_processing_time":
                for service, action in self._actions.items():
                    of = action.user_function_time
                    family.add_metric(["action", service], of.cumulative(bounds), of.sum)
            yield family

    def _of_actions(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        for made, series in ((CounterMetricFamily, ACTION_COUNTERS), (GaugeMetricFamily, ACTION_GAUGES)):
            for attribute, meaning in series.items():
                family: Any = made(ACTION_PREFIX + attribute, meaning, labels=["service"])
                for name, metrics in self._actions.items():
                    family.add_metric([name], getattr(metrics, attribute))
                yield family


def _counters(kind: Kind, entities: dict[str, EntityMetrics]) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily

    for attribute, meaning in kind.counters.items():
        family = CounterMetricFamily(kind.prefix + attribute, meaning, labels=[LABEL])
        for name, metrics in entities.items():
            family.add_metric([name], getattr(metrics, attribute))
        yield family


def _histograms(kind: Kind, entities: dict[str, EntityMetrics]) -> Iterator[Metric]:
    from prometheus_client.core import HistogramMetricFamily

    for attribute, meaning in kind.histograms.items():
        family = HistogramMetricFamily(f"{kind.prefix}{attribute}_seconds", meaning, labels=[LABEL])
        for name, metrics in entities.items():
            histogram: Histogram = getattr(metrics, attribute)
            family.add_metric([name], histogram.cumulative(), histogram.sum)
        yield family


def _summaries(kind: Kind, entities: dict[str, EntityMetrics]) -> Iterator[Metric]:
    from prometheus_client.core import SummaryMetricFamily

    for attribute, meaning in SUMMARIES.items():
        family = SummaryMetricFamily(f"{kind.prefix}{attribute}_seconds", meaning, labels=[LABEL])
        for name, metrics in entities.items():
            summary: Summary = getattr(metrics, attribute)
            for quantile, seconds in summary.quantiles():
                family.add_sample(family.name, {LABEL: name, "quantile": _number(quantile)}, seconds)
            family.add_metric([name], summary.count, summary.sum)
        yield family


class _Selection:
    """A registry that shows only the series of some names."""

    def __init__(self, registry: CollectorRegistry, names: list[str]) -> None:
        self._registry = registry
        self._names = frozenset(names)

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            metric.samples = [sample for sample in metric.samples if sample.name in self._names]
            if metric.samples:
                yield metric


def _reading(sort: str, name: str, meaning: str, value: float) -> Metric:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    family: Any = CounterMetricFamily if sort == "counter" else GaugeMetricFamily
    made: Metric = family(name, meaning, value=value)
    return made


def _number(value: float) -> str:
    return "+Inf" if value == math.inf else str(value)
