"""Tables for people at a terminal: the rows with their targets, what each work costs, and what changed."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from stateside.bench.report import Change, Rounds, Row, medians, number, short, time_text
from stateside.bench.targets import label

PROCESSES = {"proxy": "proxy", "user_function": "user function", "load": "load generator"}
QUANTILES = {"p50_us": "p50", "p90_us": "p90", "p99_us": "p99", "p999_us": "p99.9"}
RATES = ("calls_per_s", "messages_per_s", "events_per_s", "commits_per_s")


def print_rows(console: Console, table: Sequence[Row]) -> None:
    drawn = new_table("work", "figure>", "unit", "anchor", "anchor figure>", "ratio>", "target", "met")
    before = ""
    for each in table:
        verdict = {True: "[green]yes[/]", False: "[red]no[/]", None: ""}[each.met]
        figures = (number(each.figure), each.unit, each.anchor, number(each.anchor_figure), number(each.ratio))
        drawn.add_row(each.work if each.work != before else "", *figures, each.target, verdict)
        before = each.work
    console.print(drawn)


def print_details(console: Console, rounds: Rounds) -> None:
    """Throughput, CPU by process, latencies and memory of each work."""
    drawn = new_table(
        "measurement",
        "per s>",
        *(f"{name} µs>" for name in PROCESSES.values()),
        *(f"{name}>" for name in QUANTILES.values()),
        "proxy MB>",
    )
    for cells in details(rounds):
        drawn.add_row(*cells)
    console.print(drawn)


def details(rounds: Rounds) -> list[list[str]]:
    """A line for each measurement of calls; also for the page."""
    found = []
    for name in rounds:
        figures = medians(rounds, name)
        rate = next((figures[each] for each in RATES if each in figures), None)
        if rate is None:
            continue
        cpu = [number(figures.get(f"{process}_cpu_us")) for process in PROCESSES]
        times = [time_text(figures[each]) if figures.get(each) else "" for each in QUANTILES]
        found.append([label(name), short(rate), *cpu, *times, number(figures.get("proxy_mb"))])
    return found


def print_changes(console: Console, changes: Sequence[Change]) -> None:
    drawn = new_table("work", "unit", "before>", "now>", "now / before>", "anchor", "of the ratios>")
    for each in changes:
        figures = (number(each.before), number(each.now), f"{each.ratio:.2f}")
        anchored = "" if each.anchored is None else f"{each.anchored:.2f}"
        drawn.add_row(each.work, each.unit, *figures, each.anchor, anchored)
    console.print(drawn)


def new_table(*headings: str) -> Table:
    """`>` at the end of a heading: its column is set flush right."""
    table = Table()
    for heading in headings:
        table.add_column(heading.rstrip(">"), justify="right" if heading.endswith(">") else "left")
    return table


def markdown(table: Sequence[Row], run: str) -> str:
    """README's table: a line for each work with all its figures, then one for each anchor it is held against."""
    lines = [run, "", "| work | figure | against, in the same run | ratio |", "|---|---|---|---|"]
    works = list(dict.fromkeys(each.work for each in table))
    for work in works:
        own = [each for each in table if each.work == work]
        figures = dict.fromkeys(with_unit(each.figure, each.unit) for each in own)
        anchors: dict[str, Row] = {}
        for each in own:
            if each.anchor and each.ratio is not None:
                anchors.setdefault(each.anchor, each)
        cells = [against(each) for each in anchors.values()] or ["| | |"]
        lines.append(f"| {work} | {', '.join(figures)} {cells[0]}")
        lines += [f"| | {cell}" for cell in cells[1:]]
    return "\n".join(lines)


def against(row: Row) -> str:
    assert row.anchor_figure is not None
    return f"| {row.anchor}, {with_unit(row.anchor_figure, row.unit)} | {number(row.ratio)} x |"


def with_unit(value: float, unit: str) -> str:
    """`8.8 µs proxy CPU`, `p99 1.9 ms`, `111 k commands/s`."""
    if unit.startswith("µs "):
        rest = unit.removeprefix("µs ")
        return (
            f"{rest} {time_text(value)}"
            if rest.startswith("p") and rest[1:].isdigit()
            else f"{time_text(value)} {rest}"
        )
    return f"{short(value)} {unit}"
