"""Figures: cheap to count, and rendered as the reference proxy names them."""

import math
import subprocess
import sys

import pytest
from prometheus_client.parser import text_string_to_metric_families

from stateside.proxy.metrics import (
    COUNTERS,
    CRDT_COUNTERS,
    CRDT_HISTOGRAMS,
    EVENT_SOURCED,
    HISTOGRAMS,
    VALUE_COUNTERS,
    VALUE_HISTOGRAMS,
    EntityMetrics,
    Histogram,
    Metrics,
    Summary,
)

REFERENCE_NAMES = """
activated_entities_total passivated_entities_total entity_active_time_seconds failed_entities_total
recovery_time_seconds received_commands_total stashed_commands_total unstashed_commands_total
command_stash_time_seconds command_processing_time_seconds failed_commands_total completed_commands_total
command_total_time_seconds persist_time_seconds persisted_events_total persisted_event_bytes_total
loaded_events_total loaded_event_bytes_total persisted_snapshots_total persisted_snapshot_bytes_total
loaded_snapshots_total loaded_snapshot_bytes_total
"""


def samples(metrics: Metrics, names: list[str] | None = None) -> dict[tuple[str, ...], float]:
    """Value by name and label values."""
    families = text_string_to_metric_families(metrics.render(names).decode())
    return {(sample.name, *sample.labels.values()): sample.value for family in families for sample in family.samples}


def test_every_name_of_the_reference_proxy_is_there() -> None:
    metrics = Metrics()
    metrics.event_sourced("carts")
    text = metrics.render().decode()
    for name in REFERENCE_NAMES.split():
        sort = "counter" if name.endswith("_total") else "summary" if "active_time" in name else "histogram"
        assert f"# TYPE cloudstate_eventsourced_{name} {sort}\n" in text


def test_counting_is_adding_to_an_attribute() -> None:
    metrics = Metrics()
    carts = metrics.event_sourced("carts")
    for number, name in enumerate(COUNTERS, 1):
        setattr(carts, name, getattr(carts, name) + number)
    found = samples(metrics)
    for number, name in enumerate(COUNTERS, 1):
        assert found[f"cloudstate_eventsourced_{name}_total", "carts"] == number


def test_value_entities_have_names_of_their_own_and_nothing_of_events() -> None:
    metrics = Metrics()
    carts = metrics.value("carts")
    for number, name in enumerate(VALUE_COUNTERS, 1):
        setattr(carts, name, getattr(carts, name) + number)
    carts.persist_time.observe(1)
    found = samples(metrics)
    for number, name in enumerate(VALUE_COUNTERS, 1):
        assert found[f"stateside_value_{name}_total", "carts"] == number
    assert found["stateside_value_persist_time_seconds_count", "carts"] == 1
    assert found["stateside_value_entity_active_time_seconds_count", "carts"] == 0
    assert set(VALUE_HISTOGRAMS) == set(HISTOGRAMS)
    names = {name for name, *labels in found if "carts" in labels and "value" not in labels}
    assert all(name.startswith("stateside_value_") for name in names)
    assert not [name for name in names if "event" in name or "snapshot" in name or "loaded" in name]


def test_crdts_have_names_of_their_own() -> None:
    metrics = Metrics()
    carts = metrics.crdt("carts")
    for number, name in enumerate(CRDT_COUNTERS, 1):
        setattr(carts, name, getattr(carts, name) + number)
    found = samples(metrics)
    for number, name in enumerate(CRDT_COUNTERS, 1):
        assert found[f"stateside_crdt_{name}_total", "carts"] == number
    assert set(CRDT_HISTOGRAMS) == set(HISTOGRAMS)
    own = [name for name, *labels in found if "carts" in labels and "crdt" not in labels]
    assert own and all(name.startswith("stateside_crdt_") for name in own)


def test_figures_of_events_are_not_for_value_entities() -> None:
    metrics = Metrics()
    metrics.value("a").received_commands += 1
    assert not [name for name, *_ in samples(metrics) if "event" in name and "replayed" not in name]


def test_an_event_sourced_and_a_value_entity_of_one_name_are_counted_apart() -> None:
    metrics = Metrics()
    metrics.event_sourced("a").received_commands += 1
    metrics.value("a").received_commands += 2
    found = samples(metrics)
    assert found["cloudstate_eventsourced_received_commands_total", "a"] == 1
    assert found["stateside_value_received_commands_total", "a"] == 2


def test_each_entity_type_has_its_own_figures() -> None:
    metrics = Metrics()
    metrics.event_sourced("a").received_commands += 1
    metrics.event_sourced("b").received_commands += 2
    assert metrics.event_sourced("a").received_commands == 1
    found = samples(metrics)
    assert [found["cloudstate_eventsourced_received_commands_total", name] for name in "ab"] == [1, 2]


def test_a_series_appears_on_first_use_of_its_entity() -> None:
    assert b"cloudstate_eventsourced" not in Metrics().render()


def test_misspelt_figures_are_refused() -> None:
    with pytest.raises(AttributeError):
        EntityMetrics("a", EVENT_SOURCED).recieved_commands = 1  # type: ignore[attr-defined]


def test_histograms_count_up_to_and_including_their_bounds() -> None:
    metrics = Metrics()
    histogram = metrics.event_sourced("carts").persist_time
    for seconds in (0.001, 0.005, 0.0051, 1.0, 10.0, 11.0):
        histogram.observe(seconds)
    found = samples(metrics)
    name = "cloudstate_eventsourced_persist_time_seconds"
    bounds = {"0.005": 2, "0.01": 3, "0.75": 3, "1.0": 4, "7.5": 4, "10.0": 5, "+Inf": 6}
    assert {bound: found[f"{name}_bucket", "carts", bound] for bound in bounds} == bounds
    assert found[f"{name}_count", "carts"] == histogram.count == 6
    assert found[f"{name}_sum", "carts"] == pytest.approx(22.0111)


def test_every_histogram_is_rendered() -> None:
    metrics = Metrics()
    for name in HISTOGRAMS:
        histogram: Histogram = getattr(metrics.event_sourced("a"), name)
        histogram.observe(1)
    found = samples(metrics)
    assert all(found[f"cloudstate_eventsourced_{name}_seconds_count", "a"] == 1 for name in HISTOGRAMS)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_summary_knows_the_quantiles_of_the_last_minute() -> None:
    summary = Summary(Clock())
    for number in range(1, 1001):
        summary.observe(number / 100)
    quantiles = dict(summary.quantiles())
    assert quantiles[0.5] == pytest.approx(5.0, rel=0.02)
    assert quantiles[0.95] == pytest.approx(9.5, rel=0.02)
    assert quantiles[0.99] == pytest.approx(9.9, rel=0.02)
    assert quantiles[1.0] == 10.0
    assert (summary.count, summary.sum) == (1000, pytest.approx(5005))


def test_a_summary_forgets_quantiles_after_a_minute_but_not_its_count() -> None:
    clock = Clock()
    summary = Summary(clock)
    summary.observe(100)
    clock.now += 30
    summary.observe(1)
    assert dict(summary.quantiles())[1.0] == 100
    clock.now += 31
    assert dict(summary.quantiles())[1.0] == 1
    clock.now += 60
    assert all(math.isnan(seconds) for _, seconds in summary.quantiles())
    assert summary.count == 2


def test_a_summary_takes_any_value_and_stays_small() -> None:
    summary = Summary(Clock())
    for exponent in range(-300, 300):
        summary.observe(10.0**exponent)
    summary.observe(0)
    assert dict(summary.quantiles())[1.0] == 1e299
    assert len(summary._windows[-1].counts) < 1600


def test_figures_of_actions_are_shown_by_service() -> None:
    metrics = Metrics()
    mine, other = metrics.action("shop.Mail"), metrics.action("shop.Tax")
    mine.calls += 2
    mine.active_calls += 1
    other.messages_out += 3
    assert metrics.action("shop.Mail") is mine
    shown = samples(metrics)
    assert shown[("stateside_action_calls_total", "shop.Mail")] == 2
    assert shown[("stateside_action_active_calls", "shop.Mail")] == 1
    assert shown[("stateside_action_messages_out_total", "shop.Tax")] == 3
    assert shown[("stateside_action_calls_total", "shop.Tax")] == 0


def test_gauges_and_counters_are_read_at_each_scrape() -> None:
    metrics, level = Metrics(), [1]
    metrics.gauge("stateside_level", "A level.", lambda: level[0])
    metrics.counter("stateside_steps", "Steps.", lambda: level[0] * 10)
    assert samples(metrics)[("stateside_level",)] == 1
    level[0] = 2
    assert samples(metrics)[("stateside_level",)] == 2
    assert samples(metrics)[("stateside_steps_total",)] == 20


def test_a_scrape_may_choose_series_by_name() -> None:
    metrics = Metrics()
    metrics.event_sourced("a")
    metrics.gauge("stateside_level", "A level.", lambda: 5)
    assert samples(metrics, ["stateside_level", "nothing"]) == {("stateside_level",): 5}


def test_the_process_itself_is_shown() -> None:
    assert samples(Metrics())[("process_resident_memory_bytes",)] > 0


def test_counting_alone_does_not_import_the_prometheus_library() -> None:
    code = (
        "import sys; from stateside.proxy.metrics import Metrics; Metrics().event_sourced('a').received_commands += 1;"
        "assert not [name for name in sys.modules if name.startswith('prometheus')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
