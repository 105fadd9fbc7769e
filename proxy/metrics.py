"""Figures for Prometheus: plain attributes on the hot path, rendered only when somebody asks.

An entity machine does `metrics.received_commands += 1`; nothing is locked, labelled or formatted then. The library
prometheus_client is imported at the first scrape, not at start. Names, types and buckets of event sourced entities are
those of the Cloudstate reference proxy, which has no figures of others. What is not of one entity type or action, but
of the process, is in figures.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stateside.proxy.observations import (
    FINE_SECONDS,
    REPLAYED_EVENTS,
    Histogram,
    Refusals,
    Summary,
    number,
)
from stateside.proxy.service_metrics import ActionMetrics, EntityMetrics

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

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
                family.add_sample(family.name, {LABEL: name, "quantile": number(quantile)}, seconds)
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
