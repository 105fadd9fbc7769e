"""The report of the measurements: medians, ratios, targets, and a word about noise."""

from itertools import pairwise

import pytest

from stateside.bench.native import Histogram, Load
from stateside.bench.report import READ, Rounds, Row, as_json, noise, number, rows

RELAY = [{"calls_per_s": rate, "proxy_cpu_us": 8.0, "p50_us": 500.0, "p99_us": 900.0} for rate in (90e3, 60e3, 300e3)]
SLOW = [{"calls_per_s": rate, "proxy_cpu_us": 300.0, "p50_us": 3e4, "p99_us": 4e4} for rate in (4e3, 4.1e3, 3.9e3)]


def find(rounds: Rounds, work: str, anchor: str) -> Row:
    return next(row for row in rows(rounds) if row.work == work and anchor in row.anchor)


def test_a_row_holds_the_median_over_the_rounds_and_its_ratio_to_the_anchor() -> None:
    row = find({"relay": RELAY, "relay_grpc_aio": SLOW}, READ, "grpc.aio")
    assert (row.figure, row.anchor_figure, row.ratio) == (90e3, 4e3, 22.5)
    assert (row.target, row.met) == (">= 15 x anchor", True)


def test_a_target_of_at_most_is_met_from_below() -> None:
    rounds: Rounds = {"idle": [{"resident_mb": 61.0, "ready_after_discovery_ms": 500.0, "ready_after_start_ms": 1.0}]}
    verdicts = {row.unit + row.target: row.met for row in rows(rounds)}
    assert verdicts == {"MB resident<= 60": False, "ms after discovery<= 500": True, "ms after start": None}


def test_without_the_anchor_a_relative_target_has_no_verdict() -> None:
    row = find({"relay": RELAY, "relay_grpc_aio": []}, READ, "grpc.aio")
    assert (row.anchor_figure, row.ratio, row.met) == (None, None, None)


def test_a_relative_target_of_at_most_is_met_from_below_the_anchor() -> None:
    forwarded = [{"calls_per_s": 40e3, "proxy_cpu_us": cost} for cost in (16.0, 17.0, 30.0)]
    row = next(row for row in rows({"relay": RELAY, "forward": forwarded}) if row.target == "<= 2.2 x anchor")
    assert (row.figure, row.anchor_figure, row.ratio, row.met) == (17.0, 8.0, 2.125, True)


def test_what_was_not_measured_has_no_row() -> None:
    assert rows({"relay": [], "cart": []}) == []


def test_json_rows_have_the_columns_of_the_table() -> None:
    (first, *_) = as_json(rows({"relay": RELAY}))
    assert list(first) == ["work", "figure", "unit", "anchor", "anchor_figure", "ratio", "target", "met"]


def test_anchors_that_vary_between_rounds_are_called_noisy() -> None:
    steady = {"relay_grpc_aio": SLOW}
    assert noise(steady) == []
    assert noise({"commit_per_event": [{"commits_per_s": rate} for rate in (1e3, 2e3, 1e3)]}) == [
        "commit_per_event varied by 100% between rounds"
    ]


def test_numbers_are_short() -> None:
    assert [number(each) for each in (None, 123456.7, 3.14159, 0.0123)] == ["", "123,457", "3.14", "0.0123"]


def test_quantiles_of_the_histogram_are_exact_to_two_percent() -> None:
    histogram = Histogram()
    for ns in range(1, 100_001):
        histogram.add(ns * 10)
    assert histogram.count == 100_000
    assert histogram.max_ns == 1_000_000
    for share in (0.01, 0.5, 0.9, 0.99, 0.999):
        assert histogram.quantile_ns(share) == pytest.approx(share * 1e6, rel=0.02)


def test_buckets_never_go_down_as_latencies_grow() -> None:
    middles = []
    for exponent in range(62):
        histogram = Histogram()
        histogram.add(1 << exponent)
        histogram.add((1 << 62) + 1)  # so that the quantile is not capped by the maximum
        middles.append(histogram.quantile_ns(0.0))
    assert all(before < after for before, after in pairwise(middles))


def test_a_load_refuses_requests_that_are_not_bytes() -> None:
    with pytest.raises(TypeError, match="a request is"):
        Load([("/bench.Echo/Direct", b"", None)], lambda: None)  # type: ignore[list-item]
    with pytest.raises(ValueError, match="at least one request"):
        Load([], lambda: None)
