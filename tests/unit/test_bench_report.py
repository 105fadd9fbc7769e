"""The report of the measurements: medians, ratios, targets, comparison with an earlier run, and a word about noise."""

import json
from pathlib import Path
from typing import Any

import pytest

from stateside.bench.machine import Weather, facts, unrest
from stateside.bench.progress import Progress
from stateside.bench.report import (
    FORMAT,
    ReportError,
    Rounds,
    Row,
    compare,
    medians,
    missed,
    noise,
    number,
    read_report,
    rows,
    rows_as_json,
    short,
    time_text,
)
from stateside.bench.suite.catalogue import GROUPS, MEASUREMENTS, chosen
from stateside.bench.targets import READ, TARGETS, label
from stateside.bench.terminal import details, markdown

RELAY = [{"calls_per_s": rate, "proxy_cpu_us": 8.0, "p50_us": 500.0, "p99_us": 900.0} for rate in (90e3, 60e3, 300e3)]
SLOW = [{"calls_per_s": rate, "proxy_cpu_us": 300.0, "p50_us": 3e4, "p99_us": 4e4} for rate in (4e3, 4.1e3, 3.9e3)]


def find(rounds: Rounds, work: str, anchor: str) -> Row:
    return next(row for row in rows(rounds) if row.work == work and anchor in row.anchor)


def test_a_row_holds_the_median_over_the_rounds_and_its_ratio_to_the_anchor() -> None:
    row = find({"relay": RELAY, "relay_grpc_aio": SLOW}, READ, "grpc.aio")
    assert (row.figure, row.anchor_figure, row.ratio) == (90e3, 4e3, 22.5)
    assert (row.target, row.met) == (">= 30 x anchor", False)


def test_a_row_tells_how_far_the_rounds_were_apart() -> None:
    assert find({"relay": RELAY}, READ, "").spread == pytest.approx(240 / 90)


def test_a_target_of_at_most_is_met_from_below() -> None:
    rounds: Rounds = {"idle": [{"resident_mb": 61.0, "ready_after_discovery_ms": 500.0, "ready_after_start_ms": 1.0}]}
    verdicts = {row.unit + row.target: row.met for row in rows(rounds)}
    assert verdicts == {"MB resident<= 60": False, "ms after discovery<= 500": True, "ms after start": None}
    assert [row.unit for row in missed(rows(rounds))] == ["MB resident"]


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
    (first, *_) = rows_as_json(rows({"relay": RELAY}))
    assert list(first) == ["work", "figure", "unit", "anchor", "anchor_figure", "ratio", "target", "met", "spread"]


def test_anchors_that_vary_between_rounds_are_called_noisy() -> None:
    steady = {"relay_grpc_aio": SLOW}
    assert noise(steady) == []
    assert noise({"commit_per_event": [{"commits_per_s": rate} for rate in (1e3, 2e3, 1e3)]}) == [
        "commit_per_event varied by 100% between rounds (commits_per_s)"
    ]


def test_a_machine_that_others_use_is_called_noisy() -> None:
    assert unrest([Weather(0.0, 0.05), Weather(0.01, 0.1)]) == []
    said = unrest([Weather(0.1, 0.3), Weather(0.0, 0.1)])
    assert said == [
        "the host took 5% of the cores' time for others (steal)",
        "other processes used 20% of the cores' time",
    ]
    assert unrest([]) == []


def test_the_machine_is_told_with_all_that_took_part() -> None:
    said = facts()
    assert set(said) == {"cpu_model", "cores", "memory_mb", "system", "kernel", "python", "versions", "commit"}
    assert {"stateside", "uvloop", "protobuf", "lmdb"} <= set(said["versions"])
    assert said["cores"] >= 1
    assert said["cpu_model"]


# --- comparison ------------------------------------------------------------------------------------------------------


def test_a_change_is_told_of_the_figure_and_of_its_ratio_to_the_anchor() -> None:
    before = rows({"relay": RELAY, "relay_grpc_aio": SLOW})
    halved = [each | {"calls_per_s": each["calls_per_s"] / 2} for each in RELAY]
    slower = [each | {"calls_per_s": each["calls_per_s"] / 2} for each in SLOW]
    change = compare(rows({"relay": halved, "relay_grpc_aio": slower}), before)[0]
    assert (change.before, change.now, change.ratio, change.anchored) == (90e3, 45e3, 0.5, 1.0)


def test_what_only_one_run_has_is_not_compared() -> None:
    assert compare(rows({"relay": RELAY}), rows({"cart": [{"calls_per_core": 1.0, "calls_per_s": 1.0}]})) == []


def test_a_file_of_figures_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "latest.json"
    path.write_text(json.dumps({"format": FORMAT, "figures": {"relay": RELAY}}))
    assert read_report(path)["figures"] == {"relay": RELAY}


@pytest.mark.parametrize("text", ["[]", "{", '{"format": 1}'])
def test_another_file_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(ReportError, match=r"other\.json"):
        read_report(path)


def test_a_file_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"gone\.json"):
        read_report(tmp_path / "gone.json")


# --- what people read ------------------------------------------------------------------------------------------------


def test_the_table_for_the_readme_has_a_line_for_each_anchor() -> None:
    lines = markdown(rows({"relay": RELAY, "relay_grpc_aio": SLOW}), "Medians of 3:").splitlines()
    assert lines[0] == "Medians of 3:"
    figures = "90 k commands/s, 8 µs proxy CPU, p50 500 µs, p99 900 µs"
    assert lines[4] == f"| {READ} | {figures} | grpc.aio relay, 4,000 commands/s | 22.5 x |"
    assert len(lines) == 5


def test_the_table_for_the_readme_has_works_without_anchors_too() -> None:
    idle = {"resident_mb": 40.0, "ready_after_discovery_ms": 17.0, "ready_after_start_ms": 200.0}
    lines = markdown(rows({"idle": [idle]}), "").splitlines()
    assert lines[4:] == [
        "| idle proxy | 40 MB resident | | |",
        "| ready | 17 ms after discovery, 200 ms after start | | |",
    ]


def test_details_show_throughput_cpu_by_process_latencies_and_memory() -> None:
    figures = {
        "calls_per_s": 123_456.0,
        "proxy_cpu_us": 8.25,
        "user_function_cpu_us": 3.0,
        "load_cpu_us": 4.0,
        "p50_us": 512.0,
        "p90_us": 700.0,
        "p99_us": 1900.0,
        "p999_us": 2_500_000.0,
        "proxy_mb": 41.0,
    }
    (line,) = details({"relay": [figures], "idle": [{"resident_mb": 40.0}]})
    assert line == ["read-only", "123 k", "8.25", "3", "4", "512 µs", "700 µs", "1.9 ms", "2.5 s", "41"]


def test_medians_are_of_each_figure_by_itself() -> None:
    assert medians({"relay": RELAY}, "relay")["calls_per_s"] == 90e3
    assert medians({"relay": []}, "relay") == {}


def test_numbers_are_short() -> None:
    assert [number(each) for each in (None, 123456.7, 3.14159, 0.0123)] == ["", "123,457", "3.14", "0.0123"]
    assert [short(each) for each in (9_999.0, 12_345.0, 123_456.0, 2_700_000.0)] == [
        "9,999",
        "12.3 k",
        "123 k",
        "2.7 M",
    ]
    assert [time_text(each) for each in (8.0, 1900.0, 2_500_000.0)] == ["8 µs", "1.9 ms", "2.5 s"]


def test_what_is_left_is_told_from_what_was_taken_before() -> None:
    progress = Progress(["relay", "idle", "relay", "idle"], 2.5)
    assert progress.text() == "0/4, 0:20 left"
    progress.done("relay", 30.0)
    assert progress.text() == "1/4, 0:40 left"
    progress.give_up("idle")
    assert progress.text() == "3/4, 0:30 left"


# --- the catalogue ---------------------------------------------------------------------------------------------------


def test_every_measurement_can_be_chosen_and_every_target_be_measured() -> None:
    grouped = {name for names in GROUPS.values() for name in names}
    assert grouped == set(MEASUREMENTS) == set(chosen(None))
    for target in TARGETS:
        assert target.figure[0] in grouped
        assert target.anchor_figure is None or target.anchor_figure[0] in grouped


def test_chosen_works_bring_their_anchors() -> None:
    assert list(chosen(["tls", "relay"]))[:3] == ["relay_tls", "relay", "direct"]


def test_a_measurement_without_a_name_for_people_is_called_by_its_own() -> None:
    assert label("relay") == "read-only"
    assert label("some_work") == "some work"


def every_figure() -> Any:
    """Names of all figures that are asked for, by measurement."""
    asked = [each for target in TARGETS for each in (target.figure, target.anchor_figure) if each]
    return {measurement: {name for other, name in asked if other == measurement} for measurement, _ in asked}


def test_each_line_of_the_report_is_a_line_of_its_own() -> None:
    keys = [(target.work, target.unit, target.anchor) for target in TARGETS]
    assert len(set(keys)) == len(keys)
    assert {"calls_per_s", "proxy_cpu_us", "p50_us", "p99_us"} <= every_figure()["relay"]
