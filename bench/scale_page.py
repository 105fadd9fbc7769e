"""What is shown of the scale curves: tables, charts, a page of its own, and what the docs take over from it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from stateside.bench.charts import Line, line_chart, linear, logarithmic

Curves = Mapping[str, Mapping[str, Mapping[str, float]]]
PLACE = re.compile(r"(<!-- figures: (?P<name>[\w-]+) -->\n)(?P<body>.*?)(<!-- end of figures -->)", re.S)
COLOURS = ("#0b62a8", "#d1570a", "#0a8f68", "#b0428e", "#b58900", "#3aa0d8", "#6c4fc2", "#7a828c")
LEAST = 1e-3  # what a logarithmic scale takes in place of nothing

# Of drawings that stand alone, where no page has a style for them.
DRAWING_STYLE = (
    "svg { background: #ffffff; } text { fill: #1c2430; font: 12px system-ui, 'Liberation Sans', sans-serif; }"
    " .tick, .axis { fill: #5f6b7a; } .grid { stroke: #d9dee5; } .line { fill: none; stroke-width: 2.2; }"
    + "".join(
        f" .line.s{number} {{ stroke: {colour}; }} .dot.s{number} {{ fill: {colour}; }}"
        for number, colour in enumerate(COLOURS)
    )
)
PAGE_STYLE = (
    "body { margin: 0 auto; max-width: 900px; padding: 24px; font: 15px/1.5 system-ui, 'Liberation Sans', sans-serif;"
    " color: #1c2430; background: #ffffff; } table { border-collapse: collapse; font-size: 13.5px; }"
    " th, td { text-align: right; padding: 4px 10px; border-bottom: 1px solid #d9dee5; } svg { width: 100%; }"
    " .remark { background: #fff4d6; padding: 8px 14px; }"
)


@dataclass(frozen=True, slots=True)
class Column:
    """Of a curve's table. `figure`: its name among a point's figures; the first column has the point's own value."""

    name: str
    figure: str
    scale: float = 1.0

    @property
    def first(self) -> bool:
        return not self.figure

    def text(self, figures: Mapping[str, float]) -> str:
        return number(figures[self.figure] * self.scale)


HALF_LOAD = (
    Column("p50 ms at half load", "half_p50_us", 1e-3),
    Column("p99 ms at half load", "half_p99_us", 1e-3),
)
CPU = (Column("commands/s", "calls_per_s"), Column("µs proxy CPU", "proxy_cpu_us"))
COLUMNS: dict[str, tuple[Column, ...]] = {
    "entities": (
        Column("active entities", ""),
        *CPU,
        *HALF_LOAD,
        Column("activations/s", "activations_per_s"),
        Column("proxy memory MB", "memory_mb"),
        Column("bytes each", "bytes_each"),
    ),
    "connections": (
        Column("connections", ""),
        *CPU,
        Column("p50 ms", "p50_us", 1e-3),
        Column("p99 ms", "p99_us", 1e-3),
        Column("bytes each", "bytes_each"),
    ),
    "payload": (Column("bytes of payload", ""), *CPU, Column("MB/s each way", "mb_per_s"), *HALF_LOAD),
    "events": (
        Column("stored events", ""),
        Column("ms to the first answer", "replayed_us", 1e-3),
        Column("ms with a snapshot", "covered_us", 1e-3),
        Column("events/s", "events_per_s"),
    ),
}
# curve -> charts: name, title, label, whether the scale is logarithmic, and (line, figure, factor) of each line
CHARTS: dict[str, tuple[tuple[str, str, str, bool, tuple[tuple[str, str, float], ...]], ...]] = {
    "entities": (
        ("entities-cpu", "CPU of a command", "µs of proxy CPU", False, (("at full load", "proxy_cpu_us", 1),)),
        (
            "entities-latency",
            "Latency at half load",
            "ms",
            True,
            (("p50", "half_p50_us", 1e-3), ("p99", "half_p99_us", 1e-3)),
        ),
        ("entities-memory", "Memory of the proxy", "MB", True, (("all entities", "memory_mb", 1),)),
    ),
    "connections": (
        ("connections-cpu", "CPU of a command", "µs of proxy CPU", False, (("1 call each", "proxy_cpu_us", 1),)),
        ("connections-latency", "Latency at full load", "ms", True, (("p50", "p50_us", 1e-3), ("p99", "p99_us", 1e-3))),
    ),
    "payload": (
        ("payload-cpu", "CPU of a command", "µs of proxy CPU", True, (("at full load", "proxy_cpu_us", 1),)),
        (
            "payload-latency",
            "Latency at half load",
            "ms",
            True,
            (("p50", "half_p50_us", 1e-3), ("p99", "half_p99_us", 1e-3)),
        ),
    ),
    "events": (
        (
            "events-activation",
            "From the first command to its answer",
            "ms",
            True,
            (("replayed", "replayed_us", 1e-3), ("with a snapshot", "covered_us", 1e-3)),
        ),
    ),
}


def number(value: float) -> str:
    """Three digits that mean something."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def short(value: float) -> str:
    """For the ends of axes: 10k, 1M."""
    for factor, letter in ((1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:g}{letter}"
    return f"{value:g}"


def markdown(name: str, points: Mapping[str, Mapping[str, float]]) -> str:
    columns = COLUMNS[name]
    lines = ["| " + " | ".join(column.name for column in columns) + " |", "|" + "---:|" * len(columns)]
    for value, figures in points.items():
        lines.append("| " + " | ".join(cells(columns, value, figures)) + " |")
    return "\n".join(lines) + "\n"


def cells(columns: Sequence[Column], value: str, figures: Mapping[str, float]) -> list[str]:
    return [f"{int(value):,}" if column.first else column.text(figures) for column in columns]


def charts(name: str, points: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    """Drawings of one curve, by their names. Points at 0 have no place on the scale and are left out."""
    drawn = {}
    places = {float(value): figures for value, figures in points.items() if float(value) > 0}
    if not places:
        return {}
    across = logarithmic(COLUMNS[name][0].name, list(places), short)
    for chart, title, label, log, wanted in CHARTS[name]:
        lines = [
            Line(line, [(value, max(LEAST, figures[figure] * factor)) for value, figures in places.items()])
            for line, figure, factor in wanted
        ]
        heights = [height for line in lines for _, height in line.points]
        up: Callable[..., Any] = logarithmic if log else linear
        drawn[chart] = line_chart(title, lines, across, up(label, heights, short))
    return drawn


def about(result: Mapping[str, Any]) -> str:
    """One line: when and where."""
    machine, when = result["machine"], result["begun"][:16].replace("T", " ")
    gigabytes = machine["memory_mb"] / 1000
    quick = " A quick run, for a first look." if result["quick"] else ""
    noise = f" The machine was not quiet: {'; '.join(result['noise'])}." if result["noise"] else ""
    return (
        f"Measured {when} UTC on {machine['cores']} cores of {machine['cpu_model']}, "
        f"{gigabytes:.0f} GB, {machine['system']}, Python {machine['python']}, "
        f"commit {machine['commit'] or 'unknown'}; load generator, proxy and user function all on them.{noise}{quick}"
    )


def page(result: Mapping[str, Any]) -> str:
    """scale.html: one file without anything from elsewhere."""
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8"><title>Stateside: scale curves</title>',
        f"<style>{DRAWING_STYLE}{PAGE_STYLE}</style></head><body><h1>Scale curves</h1><p>{escape(about(result))}</p>",
        *(f'<p class="remark">Not measured: {escape(problem)}</p>' for problem in result["problems"]),
    ]
    for name, points in result["curves"].items():
        parts.append(f"<h2>{escape(name.capitalize())}</h2>")
        parts += [f"<figure>{drawn}</figure>" for drawn in charts(name, points).values()]
        parts.append(html_table(COLUMNS[name], points))
    return "\n".join([*parts, "</body></html>"]) + "\n"


def html_table(columns: Sequence[Column], points: Mapping[str, Mapping[str, float]]) -> str:
    head = "".join(f"<th>{escape(column.name)}</th>" for column in columns)
    rows = [
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells(columns, value, figures)) + "</tr>"
        for value, figures in points.items()
    ]
    return f"<table><tr>{head}</tr>{''.join(rows)}</table>"


def publish(result: Mapping[str, Any], folder: Path, text: Path) -> None:
    """Write the result and its charts into `folder`, and its tables into the places of the page `text`. Curves that the
    result does not have stay as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scale.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    tables = {"machine": about(result) + "\n"}
    for name, points in result["curves"].items():
        tables[name] = markdown(name, points)
        for chart, drawn in charts(name, points).items():
            (folder / f"{chart}.svg").write_text(standing_alone(drawn))
    text.write_text(filled(text.read_text(), tables))


def filled(text: str, tables: Mapping[str, str]) -> str:
    """The page with what is between `<!-- figures: NAME -->` and `<!-- end of figures -->` replaced, for each NAME that
    there is a table for."""

    def replaced(place: re.Match[str]) -> str:
        return place[1] + "\n" + tables.get(place["name"], place["body"].strip("\n") + "\n") + "\n" + place[4]

    return PLACE.sub(replaced, text)


def standing_alone(drawn: str) -> str:
    """An SVG file that can be shown without a page around it."""
    end = drawn.index(">") + 1
    return f"{drawn[:end]}\n<style>{DRAWING_STYLE}</style>{drawn[end:]}\n"
