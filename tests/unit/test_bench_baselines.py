"""Ratios of the kernels' benchmarks beside the stored ones."""

from pathlib import Path
from typing import Any

import pytest

from stateside.bench.kernels.baselines import (
    BaselineError,
    Line,
    Ratio,
    Verdict,
    compare,
    nodes_of_worse,
    ratios,
    read,
    to_store,
    write,
)


def benchmark(work: str, who: str, least: float, operations: int = 1, steady: bool = True) -> dict[str, Any]:
    """As pytest-benchmark reports it."""
    extra_info = {"work": work, "who": who, "operations": operations, "steady": steady}
    return {"fullname": f"suite.py::{work}[{who}]", "stats": {"min": least, "median": 9.0}, "extra_info": extra_info}


def ratio(value: float, rival: str = "upb", steady: bool = True) -> Ratio:
    return Ratio("scan", rival, 1.0, value, steady, ("ours", f"of {rival}"))


def line(now: float, stored: float | None, steady: bool = True) -> Line:
    (found,) = compare([[ratio(now, steady=steady)]], {} if stored is None else {"scan": {"upb": stored}})
    return found


def test_a_ratio_is_how_many_times_as_long_the_quickest_round_of_the_other_took_for_one_operation() -> None:
    report = {"benchmarks": [benchmark("scan", "kernel", 2.0, 10), benchmark("scan", "upb", 3.0)]}
    (found,) = ratios(report)
    assert (found.work, found.rival, found.ours, found.theirs, found.value) == ("scan", "upb", 0.2, 3.0, 15.0)
    assert found.nodes == ("suite.py::scan[kernel]", "suite.py::scan[upb]")


def test_every_other_contender_of_a_work_is_beside_ours() -> None:
    report = {"benchmarks": [benchmark("scan", who, 1.0) for who in ("upb", "kernel", "plain")]}
    assert [each.rival for each in ratios(report)] == ["upb", "plain"]


def test_a_work_without_ours_and_a_benchmark_without_a_work_make_no_ratio() -> None:
    alone = benchmark("scan", "upb", 1.0)
    assert ratios({"benchmarks": [alone, {"fullname": "other", "stats": {"min": 1.0}, "extra_info": {}}]}) == []


@pytest.mark.parametrize(
    ("now", "verdict"),
    [
        (8.4, Verdict.WORSE),
        (8.6, Verdict.KEPT),
        (10.0, Verdict.KEPT),
        (11.4, Verdict.KEPT),
        (11.6, Verdict.BETTER),
    ],
)
def test_a_ratio_that_lost_more_than_15_percent_is_worse(now: float, verdict: Verdict) -> None:
    assert line(now, 10.0).verdict is verdict


def test_the_change_is_a_share_of_the_stored_ratio() -> None:
    assert line(8.0, 10.0).change == pytest.approx(-0.2)
    assert line(8.0, None).change is None


def test_a_ratio_below_one_is_held_against_its_baseline_like_all() -> None:
    assert line(0.5, 0.7).verdict is Verdict.WORSE


def test_a_ratio_without_a_baseline_is_named_and_no_failure() -> None:
    assert line(0.1, None).verdict is Verdict.NEW


def test_a_ratio_that_depends_on_the_machine_never_fails() -> None:
    assert line(0.1, 10.0, steady=False).verdict is Verdict.SHOWN


def test_a_stored_ratio_that_was_not_measured_is_named_and_no_failure() -> None:
    lines = compare([[ratio(10.0)]], {"scan": {"upb": 10.0, "gone": 3.0}})
    assert [(each.rival, each.now, each.verdict) for each in lines] == [
        ("upb", 10.0, Verdict.KEPT),
        ("gone", None, Verdict.MISSING),
    ]


def test_only_what_is_worse_is_measured_again_with_its_partner() -> None:
    run = [ratio(8.0), ratio(10.0, "plain")]
    lines = compare([run], {"scan": {"upb": 10.0, "plain": 10.0}})
    assert nodes_of_worse(lines, run) == ["of upb", "ours"]


def test_the_median_of_all_measurements_decides() -> None:
    stored = {"scan": {"upb": 10.0, "plain": 10.0}}
    first = [ratio(5.0), ratio(9.9, "plain")]
    lines = compare([first, [ratio(10.0)], [ratio(9.0)]], stored)
    assert [(each.now, each.verdict) for each in lines] == [(9.0, Verdict.KEPT), (9.9, Verdict.KEPT)]
    assert compare([first, [ratio(5.1)], [ratio(10.0)]], stored)[0].verdict is Verdict.WORSE


def test_steady_medians_are_stored(tmp_path: Path) -> None:
    runs = [[ratio(value), ratio(2.0, "disk", steady=False)] for value in (9.0, 7.123456, 1.0)]
    path = tmp_path / "folder" / "kernels.json"
    write(to_store(runs), path)
    assert read(path) == {"scan": {"upb": 7.123}}


def test_no_file_is_no_baseline(tmp_path: Path) -> None:
    assert read(tmp_path / "none.json") == {}


@pytest.mark.parametrize("text", ["{", "[]", '{"scan": 3}', '{"scan": {"upb": "quick"}}'])
def test_a_file_that_holds_no_ratios_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "kernels.json"
    path.write_text(text)
    with pytest.raises(BaselineError, match="must hold numbers"):
        read(path)


def test_the_stored_ratios_of_the_project_can_be_read() -> None:
    assert read()["key scan"]["protobuf (upb)"] > 1
