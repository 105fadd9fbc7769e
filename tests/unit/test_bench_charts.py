"""Charts and page of the bench: well-formed, self-contained, with the numbers in them."""

import re
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stateside.bench.charts import Line, levels, line_chart, linear, logarithmic, nice_step, percentiles, stacked_bars
from stateside.bench.page import page, quantiles
from stateside.bench.report import compare, rows

SVG = "{http://www.w3.org/2000/svg}"
FIGURES = {
    "calls": 1000.0,
    "calls_per_s": 111_222.0,
    "p50_us": 1100.0,
    "p90_us": 1300.0,
    "p99_us": 1900.0,
    "p999_us": 2500.0,
    "proxy_cpu_us": 8.8,
    "user_function_cpu_us": 3.3,
    "load_cpu_us": 2.7,
    "proxy_mb": 41.0,
}
HALF = FIGURES | {f"direct_p{each}_us": 60.0 for each in ("50", "90", "99", "999")}
HALF |= {"p50_added_us": 71.5, "p90_added_us": 80.0, "p99_added_us": 400.0, "p999_added_us": 900.0}
SWEEP = {f"calls_per_s_at_{level}": 1000.0 * level for level in (1, 4, 16)}


def report(**changed: Any) -> dict[str, Any]:
    run = {"begun": "2026-01-02T03:04:05+00:00", "ended": "2026-01-02T03:12:05+00:00", "rounds": 2, "only": []}
    machine = {"cpu_model": "Wheel & <Axle>", "cores": 2, "system": "Debian", "python": "3.11", "commit": "abc"}
    figures = {"relay": [FIGURES, FIGURES], "half_load": [HALF], "sweep": [SWEEP], "relay_nginx": [FIGURES]}
    return {
        "run": run | {"load_average_begun": 0.5, "load_average_ended": 1.5},
        "machine": machine | {"versions": {"uvloop": "0.22"}},
        "noise": [],
        "problems": [],
        "figures": figures,
        "weather": [{"round": 1, "measurement": "relay", "steal": 0.013, "others": 0.25}],
    } | changed


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def texts(svg: str) -> list[str]:
    return [each.text or "" for each in parsed(svg).iter(f"{SVG}text")]


def test_a_line_chart_is_an_svg_with_each_point_and_its_value() -> None:
    lines = [Line("ours & <yours>", [(1, 10.0), (16, 160.0)]), Line("other", [(1, 20.0), (16, 80.0)])]
    svg = line_chart("A > B", lines, levels("in flight", [1, 16]), linear("calls", [160.0], str))
    drawn = parsed(svg)
    assert drawn.tag == f"{SVG}svg"
    assert drawn.attrib["aria-label"] == "A > B"
    assert len(list(drawn.iter(f"{SVG}circle"))) == 4
    titles = [each.text for each in drawn.iter(f"{SVG}title")]
    assert "ours & <yours>: 160" in titles
    assert {"ours & <yours>", "other", "in flight", "calls", "1", "16"} <= set(texts(svg))


def test_lines_stay_within_the_frame_and_rise_with_their_values() -> None:
    up = linear("calls", [10.0, 90.0], str)
    svg = line_chart("chart", [Line("one", [(1, 10.0), (4, 90.0)])], levels("in flight", [1, 4]), up)
    (low, high) = [(float(each.attrib["cx"]), float(each.attrib["cy"])) for each in parsed(svg).iter(f"{SVG}circle")]
    assert 0 < low[0] < high[0] < 760
    assert 0 < high[1] < low[1] < 380


def test_every_further_nine_takes_the_same_room() -> None:
    scale = percentiles()
    nines = [scale.share(each) for each in (0.0, 0.9, 0.99, 0.999, 0.9999)]
    assert nines == pytest.approx([0, 0.25, 0.5, 0.75, 1])


@given(st.lists(st.floats(1e-3, 1e9), min_size=1))
def test_scales_hold_all_values(values: list[float]) -> None:
    for scale in (linear("x", values, str), logarithmic("x", values, str)):
        assert all(-1e-9 <= scale.share(value) <= 1 + 1e-9 for value in values)
        assert 2 <= len(scale.ticks) <= 14


@given(st.floats(1e-6, 1e9))
def test_steps_are_round_and_not_too_small(rough: float) -> None:
    step = nice_step(rough)
    assert rough * (1 - 1e-6) <= step <= rough * 2.6
    assert float(f"{step:.0e}") == pytest.approx(step)


def test_stacked_bars_are_as_long_as_their_values() -> None:
    svg = stacked_bars("CPU", {"relay": {"proxy": 8.0, "load": 4.0}, "other": {"proxy": 16.0}}, "µs")
    widths = [float(each.attrib["width"]) for each in parsed(svg).iter(f"{SVG}rect") if len(each)]
    assert widths == pytest.approx([widths[0], widths[0] / 2, widths[0] * 2], abs=0.2)
    titles = [each.text for each in parsed(svg).iter(f"{SVG}title")]
    assert titles == ["relay, proxy: 8 µs", "relay, load: 4 µs", "other, proxy: 16 µs"]
    assert {"12", "16", "proxy", "load", "relay", "other"} <= set(texts(svg))


def test_quantiles_are_read_from_the_names_of_figures() -> None:
    assert quantiles({"p50_us": 1.0, "p999_us": 3.0, "p99_us": 2.0, "p99_added_us": 9.0, "calls": 5.0}) == [
        (0.5, 1.0),
        (0.99, 2.0),
        (0.999, 3.0),
    ]
    assert quantiles({"p50_us": 1.0, "direct_p50_us": 7.0}, "direct_") == [(0.5, 7.0)]


class Reader(HTMLParser):
    """Fails where tags are not closed in order; keeps what the page refers to."""

    VOID = ("meta", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.said: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.references += [value or "" for name, value in attrs if name in ("src", "href", "data", "xlink:href")]
        assert tag not in ("script", "link", "img", "iframe", "object")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        return

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.said.append(data)


def read(html: str) -> str:
    """The page's text, after it was found well-formed and in need of nothing else."""
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert (reader.open, reader.references) == ([], [])
    assert "@import" not in html
    assert "url(" not in html
    return " ".join(reader.said)


def test_the_page_is_well_formed_needs_nothing_else_and_has_the_numbers() -> None:
    said = report()
    html = page(said, rows(said["figures"]))
    text = read(html)
    for expected in ("111,222", "111 k", "8.8", "71.5 µs", "1.1 ms", "Wheel & <Axle>", "commit abc", ">= 30 x anchor"):
        assert expected in text, expected
    assert "stolen by the host 1.3%, used by other processes 25.0%" in text
    assert "too noisy" not in text
    assert html.count("<svg") == 4


def test_the_page_serves_light_dark_and_paper() -> None:
    html = page(report(), [])
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html


def test_the_page_tells_noise_problems_and_missed_targets() -> None:
    said = report(noise=["relay_nginx varied by 99%"], problems=["relay_envoy: envoy is missing"])
    table = rows({"relay": [FIGURES | {"proxy_cpu_us": 12.0}]})
    html = page(said, table)
    text = read(html)
    for expected in ("too noisy", "relay_nginx varied by 99%", "Not measured", "relay_envoy: envoy is missing"):
        assert expected in text
    assert re.search(r'<td class="no">no</td>', html)


def test_the_page_shows_a_comparison() -> None:
    said = report()
    said["run"]["compared_with"] = "older.json"
    now, before = (rows({"relay": [FIGURES | {"calls_per_s": rate}]}) for rate in (120e3, 100e3))
    text = read(page(said, now, compare(now, before)))
    assert "Against an earlier run" in text
    assert "1.20" in text
    assert "older.json" in text


def test_a_page_of_nothing_is_still_a_page() -> None:
    text = read(page(report(figures={}, weather=[]), []))
    assert "Stateside: figures" in text
