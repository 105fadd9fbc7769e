"""bench/out/report.html: one file without anything from elsewhere, for light and dark screens and for paper."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from stateside.bench.charts import Line, levels, line_chart, linear, logarithmic, percentiles, stacked_bars
from stateside.bench.report import Change, Rounds, Row, medians, middle, number, short, time_text
from stateside.bench.targets import label
from stateside.bench.terminal import PROCESSES, QUANTILES, details

CLOSED_LOOPS = ("direct", "relay", "hot", "relay_nginx", "relay_envoy", "relay_grpc_aio", "durable", "mixed")
SWEEPS = ("sweep", "sweep_nghttpx", "sweep_grpc_aio", "sweep_direct")
NOT_COMPARED = (
    "relay_grpc_aio",
    "relay_envoy",
    "storm",
    "hot_write",
    "endless",
)  # in the bars of CPU: they would make all others tiny
TILES = (
    ("read-only commands a second", ("relay", "calls_per_s"), ""),
    ("of proxy CPU for each", ("relay", "proxy_cpu_us"), "µs"),
    ("added at half load, p50", ("half_load", "p50_added_us"), "µs"),
    ("durable writes a second", ("durable_2000", "calls_per_s"), ""),
    ("proxy memory an active entity", ("entities", "bytes_each"), "B"),
)
QUANTILE = re.compile(r"p(\d\d)(\d*)_us")

STYLE = (Path(__file__).parent / "page.css").read_text()
STYLE += "".join(
    f".line.s{i} {{ stroke: var(--s{i}); }} .dot.s{i}, .bar.s{i} {{ fill: var(--s{i}); }}\n" for i in range(8)
)


def page(report: Mapping[str, Any], table: Sequence[Row], changes: Sequence[Change] = ()) -> str:
    """The whole file. report: as latest.json has it."""
    rounds: Rounds = report["figures"]
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>Stateside: figures</title><style>{STYLE}</style></head><body>",
        "<h1>Stateside: figures</h1>",
        f'<p class="faint">{escape(about(report))}</p>',
        remarks(report),
        tiles(rounds),
        *section("Charts", '<div class="charts">' + "".join(charts(rounds)) + "</div>"),
        *section("Figures, anchors, targets", rows_table(table)),
        *(section("Against an earlier run", changes_table(report, changes)) if changes else ()),
        *section("Every measurement", details_table(rounds)),
        *section("Machine", machine(report)),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def section(title: str, body: str) -> tuple[str, str]:
    return f"<h2>{escape(title)}</h2>", body


def about(report: Mapping[str, Any]) -> str:
    """One line: when, where, how often."""
    run, machine = report["run"], report["machine"]
    partly = ", not all works" if run["only"] else ""
    return (
        f"{run['begun'][:16].replace('T', ' ')} UTC, commit {machine['commit'] or 'unknown'}; medians of "
        f"{run['rounds']} rotated round{'s' if run['rounds'] > 1 else ''}{partly} on {machine['cores']} cores of "
        f"{machine['cpu_model']}, {machine['system']}, Python {machine['python']}; load generator, proxy and user "
        f"function all on them."
    )


def remarks(report: Mapping[str, Any]) -> str:
    """What makes the figures doubtful, and what is missing."""
    said = []
    if report["noise"]:
        said.append(
            ("The machine was too noisy for exact figures; ratios are better than absolute ones.", report["noise"])
        )
    if report["problems"]:
        said.append(("Not measured:", report["problems"]))
    found = ""
    for head, items in said:
        listed = "".join(f"<li>{escape(each)}</li>" for each in items)
        found += f'<div class="noise"><b>{escape(head)}</b><ul>{listed}</ul></div>'
    return found


def tiles(rounds: Rounds) -> str:
    found = []
    for name, figure, unit in TILES:
        if (value := middle(rounds, figure)) is not None:
            shown = time_text(value) if unit == "µs" else f"{short(value)} {unit}".strip()
            found.append(f'<div class="tile"><b>{escape(shown)}</b><span>{escape(name)}</span></div>')
    return f'<div class="tiles">{"".join(found)}</div>' if found else ""


# --- charts ----------------------------------------------------------------------------------------------------------


def charts(rounds: Rounds) -> list[str]:
    """Those for which there is anything."""
    closed = [Line(label(name), quantiles(medians(rounds, name))) for name in CLOSED_LOOPS if rounds.get(name)]
    half = medians(rounds, "half_load")
    opened = (
        [Line("through the proxy", quantiles(half)), Line("direct call", quantiles(half, "direct_"))] if half else []
    )
    swept = [Line(label(name), by_level(medians(rounds, name))) for name in SWEEPS if rounds.get(name)]
    found = [
        latency_chart(
            "Latency at half load",
            opened,
            "An open loop at half of the highest rate of the same round; a call is timed from when it was due.",
        ),
        latency_chart(
            "Latency at full load",
            closed,
            "Closed loops, 128 calls in flight (durable 1000, mixed 512): what is waiting, not what a call costs.",
        ),
        sweep_chart(swept),
        cpu_chart(rounds),
    ]
    return [each for each in found if each]


def latency_chart(title: str, lines: list[Line], caption: str) -> str:
    times = [time for line in lines for _, time in line.points if time > 0]
    if not times:
        return ""
    up = logarithmic("latency", times, time_text)
    return figure(title, line_chart(title, lines, percentiles(), up), caption)


def quantiles(figures: Mapping[str, float], prefix: str = "") -> list[tuple[float, float]]:
    """(share, µs) of figures that are called like p999_us."""
    found = []
    for name, value in figures.items():
        match = QUANTILE.fullmatch(name.removeprefix(prefix)) if name.startswith(prefix) else None
        if match and value > 0:
            found.append((float(f"0.{match[1]}{match[2]}"), value))
    return sorted(found)


def sweep_chart(lines: list[Line]) -> str:
    rates = [rate for line in lines for _, rate in line.points]
    if not rates:
        return ""
    across = levels("calls in flight", [level for line in lines for level, _ in line.points])
    title = "Throughput against calls in flight"
    drawn = line_chart(title, lines, across, linear("calls a second", rates, short))
    return figure(
        title, drawn, "Closed loops over 1 to 8 connections. nghttpx gives a static file, measured by h2load."
    )


def by_level(figures: Mapping[str, float]) -> list[tuple[float, float]]:
    named = "calls_per_s_at_"
    return sorted((float(name.removeprefix(named)), rate) for name, rate in figures.items() if name.startswith(named))


def cpu_chart(rounds: Rounds) -> str:
    bars = {}
    for name in rounds:
        figures = medians(rounds, name)
        bar = {said: figures[f"{key}_cpu_us"] for key, said in PROCESSES.items() if f"{key}_cpu_us" in figures}
        if "user function" in bar and name not in NOT_COMPARED:
            bars[label(name)] = bar
    if not bars:
        return ""
    title = "CPU of a command, by process"
    return figure(
        title, stacked_bars(title, bars, "µs"), "User and system time, all threads. Slower rivals are in the table."
    )


def figure(title: str, drawn: str, caption: str) -> str:
    return f"<figure><h3>{escape(title)}</h3>{drawn}<figcaption>{escape(caption)}</figcaption></figure>"


# --- tables ----------------------------------------------------------------------------------------------------------


def rows_table(table: Sequence[Row]) -> str:
    cells = []
    before = ""
    for each in table:
        verdict = {True: "yes", False: "no", None: ""}[each.met]
        cells.append(
            [
                each.work if each.work != before else "",
                number(each.figure),
                each.unit,
                f"± {each.spread / 2:.0%}" if each.spread else "",
                each.anchor,
                number(each.anchor_figure),
                f"{number(each.ratio)} x" if each.ratio is not None else "",
                each.target,
                verdict,
            ]
        )
        before = each.work
    headings = ("work", "figure>", "", "rounds>", "anchor", "anchor figure>", "ratio>", "target", "met")
    return html_table(headings, cells)


def details_table(rounds: Rounds) -> str:
    times = [f"{each}>" for each in QUANTILES.values()]
    return html_table(
        ("measurement", "per s>", *(f"{each}, µs CPU>" for each in PROCESSES.values()), *times, "proxy MB>"),
        details(rounds),
    )


def changes_table(report: Mapping[str, Any], changes: Sequence[Change]) -> str:
    cells = [
        [
            each.work,
            each.unit,
            number(each.before),
            number(each.now),
            f"{each.ratio:.2f}",
            each.anchor,
            "" if each.anchored is None else f"{each.anchored:.2f}",
        ]
        for each in changes
    ]
    said = f'<p class="faint">{escape(report["run"].get("compared_with", ""))}</p>'
    headings = ("work", "", "before>", "now>", "now / before>", "anchor", "of the ratios>")
    return said + html_table(headings, cells)


def html_table(headings: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """`>` at the end of a heading: its column is set flush right."""
    kinds = ['class="n"' if each.endswith(">") else "" for each in headings]
    head = "".join(f"<th {kind}>{escape(each.rstrip('>'))}</th>" for kind, each in zip(kinds, headings, strict=True))
    body = []
    for row in cells:
        marks = [f'class="{text}"' if text in ("yes", "no") else kind for kind, text in zip(kinds, row, strict=True)]
        body.append("".join(f"<td {mark}>{escape(text)}</td>" for mark, text in zip(marks, row, strict=True)))
    lines = "\n".join(f"<tr>{each}</tr>" for each in body)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>\n{lines}\n</tbody></table></div>'


def machine(report: Mapping[str, Any]) -> str:
    """What it is, and what others did on it in each round."""
    said = {
        name.replace("_", " "): ", ".join(f"{k} {v}" for k, v in value.items())
        if isinstance(value, dict)
        else str(value)
        for name, value in report["machine"].items()
    }
    run = report["run"]
    said["begun"], said["ended"] = run["begun"], run["ended"]
    said["load average"] = " / ".join(f"{each:.2f}" for each in (run["load_average_begun"], run["load_average_ended"]))
    for turn in range(run["rounds"]):
        weather = [each for each in report["weather"] if each["round"] == turn + 1]
        if weather:
            steal, others = (sum(each[name] for each in weather) / len(weather) for name in ("steal", "others"))
            said[f"round {turn + 1}"] = f"stolen by the host {steal:.1%}, used by other processes {others:.1%}"
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in said.items())
    return f"<dl>{items}</dl>"
