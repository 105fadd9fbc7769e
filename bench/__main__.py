"""`python -m stateside.bench`: the end-to-end figures, as tables, bench/out/latest.json and bench/out/report.html.

Works and anchors are measured in turn, A B C A B C, because the same machine is up to twice as fast from one minute to
the next; what counts is the median over the rounds, and the ratio to the anchor of the same rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

from rich.console import Console

from stateside.bench import machine, terminal
from stateside.bench.machine import Weather, WeatherWatch
from stateside.bench.page import page
from stateside.bench.processes import ProcessFailed, Stage
from stateside.bench.progress import Progress
from stateside.bench.report import (
    FORMAT,
    Change,
    ReportError,
    Rounds,
    Row,
    compare,
    missed,
    noise,
    read_report,
    rows,
    rows_as_json,
    shown,
)
from stateside.bench.suite.catalogue import GROUPS, ONCE, chosen
from stateside.bench.works import Figures, Measurement, MeasurementFailed, Setting

OUT = Path(__file__).resolve().parent / "out"
TIME_LIMIT = 120.0
BUSY_LOAD = 0.7
WIDTH = 190
EXIT_NOT_MEASURED = 1
EXIT_USAGE = 2
EXIT_MISSED = 3
EXIT_INTERRUPTED = 130


@dataclass(slots=True)
class Run:
    """What has been measured so far."""

    figures: Rounds
    problems: dict[str, str] = field(default_factory=dict)
    weather: list[tuple[int, str, Weather]] = field(default_factory=list)
    begun: str = field(default_factory=lambda: timestamp())
    load_average_begun: float = field(default_factory=lambda: os.getloadavg()[0])


def main() -> int:
    options = arguments()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    try:
        earlier = read_report(options.compare) if options.compare else None
        if options.readme or options.redraw:
            return from_file(options)
    except ReportError as error:
        print(f"stateside.bench: {error}", file=sys.stderr)
        return EXIT_USAGE
    setting = Setting(
        folder=options.data / f"data-{os.getpid()}",
        seconds=options.seconds or (0.8 if options.quick else 1.8),
        warmup=0.3 if options.quick else 0.4,
        file_requests=40_000 if options.quick else 160_000,
    )
    if (busy := os.getloadavg()[0]) > BUSY_LOAD:
        console.print(f"[yellow]Others are at work on this machine (load {busy:.1f}): the figures will be rough.[/]")
    measurements = chosen(options.only)
    run = Run({name: [] for name in measurements})
    try:
        asyncio.run(measure_all(run, measurements, options.rounds, setting, console))
    except KeyboardInterrupt:
        console.print("[red]Interrupted; nothing was written.[/]")
        return EXIT_INTERRUPTED
    finally:
        shutil.rmtree(setting.folder, ignore_errors=True)
    return finish(run, options, earlier, console)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="stateside.bench", description="End-to-end figures of the proxy and their anchors."
    )
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is measured (default 3)")
    parser.add_argument("--quick", action="store_true", help="one short round: does it work, roughly how fast")
    parser.add_argument("--seconds", type=float, help="how long to count in each measurement (default 1.8)")
    parser.add_argument("--only", action="append", choices=sorted(GROUPS), metavar="WORK", help=", ".join(GROUPS))
    parser.add_argument("--compare", type=Path, metavar="FILE", help="show ratios to the latest.json of an earlier run")
    parser.add_argument("--strict", action="store_true", help=f"end with status {EXIT_MISSED} when a target is missed")
    parser.add_argument("--out", type=Path, default=OUT, help="folder for the report (default bench/out)")
    parser.add_argument(
        "--data", type=Path, help="folder for journals, on the disk in question (default the folder of --out)"
    )
    parser.add_argument("--readme", action="store_true", help="measure nothing; print latest.json as README's table")
    parser.add_argument("--redraw", action="store_true", help="measure nothing; draw report.html from latest.json")
    options = parser.parse_args()
    if options.rounds < 1 or (options.seconds is not None and not 0.1 <= options.seconds <= 60):
        parser.error("--rounds is at least 1, --seconds between 0.1 and 60")
    if options.quick:
        options.rounds = 1
    options.out = options.out.resolve()
    options.data = (options.data or options.out).resolve()
    return options


async def measure_all(
    run: Run, measurements: dict[str, Measurement], rounds: int, setting: Setting, console: Console
) -> None:
    """Round by round. What failed is not tried again."""
    plan = [(turn, name) for turn in range(rounds) for name in measurements if turn == 0 or name not in ONCE]
    progress = Progress([name for _, name in plan], setting.seconds + setting.warmup)
    for turn, name in plan:
        if name in run.problems:
            continue
        begun, watch = monotonic(), WeatherWatch()
        try:
            figures = await measure(name, measurements[name], setting)
        except TimeoutError:
            run.problems[name] = f"{name}: took too long"
        except Exception as error:  # whatever it is, minutes of other figures must not be lost for it
            expected = isinstance(error, MeasurementFailed | ProcessFailed | OSError)
            run.problems[name] = f"{name}: {error if expected else repr(error)}"
        if name in run.problems:
            progress.give_up(name)
            console.print(f"{progress.text():>18}  round {turn + 1}  {name:<18} failed", style="red")
            continue
        seconds = monotonic() - begun
        run.figures[name].append(figures)
        run.weather.append((turn + 1, name, watch.end()))
        progress.done(name, seconds)
        said = "  ".join(f"{key} {value:,.5g}" for key, value in shown(name, figures).items())
        head = f"{progress.text():>18}  round {turn + 1}  {name:<18} {seconds:5.1f} s"
        console.print(f"{head}  {said}", soft_wrap=True)


async def measure(name: str, measurement: Measurement, setting: Setting) -> Figures:
    async with Stage(setting.folder / name) as stage, asyncio.timeout(TIME_LIMIT):
        return await measurement(setting, stage)


def finish(run: Run, options: argparse.Namespace, earlier: dict[str, Any] | None, console: Console) -> int:
    """Show and write everything; the exit code."""
    table = rows(run.figures)
    report = as_json(run, options, table)
    changes = changes_since(earlier, table)
    if changes:
        report["run"]["compared_with"] = f"{options.compare} of {earlier['run']['begun'][:16]}" if earlier else ""
    write(options.out, report, table, changes)
    terminal.print_details(console, run.figures)
    terminal.print_rows(console, table)
    if changes:
        terminal.print_changes(console, changes)
    for remark in report["noise"]:
        console.print(f"[yellow]The machine was too noisy for exact figures: {remark}.[/]")
    for problem in report["problems"]:
        console.print(f"[red]Not measured: {problem}[/]", soft_wrap=True)
    misses = missed(table)
    if misses:
        console.print(f"[red]{len(misses)} targets were missed.[/]")
    console.print(f"{options.out / 'latest.json'}\n{options.out / 'report.html'}", soft_wrap=True)
    return EXIT_NOT_MEASURED if run.problems else EXIT_MISSED if misses and options.strict else 0


def changes_since(earlier: dict[str, Any] | None, table: Sequence[Row]) -> list[Change]:
    return compare(table, rows(earlier["figures"])) if earlier else []


def as_json(run: Run, options: argparse.Namespace, table: Sequence[Row]) -> dict[str, Any]:
    """latest.json: all figures of all rounds, and what they were measured on."""
    return {
        "format": FORMAT,
        "run": {
            "begun": run.begun,
            "ended": timestamp(),
            "rounds": options.rounds,
            "quick": options.quick,
            "only": options.only or [],
            "load_average_begun": run.load_average_begun,
            "load_average_ended": os.getloadavg()[0],
        },
        "machine": machine.facts(),
        "noise": noise(run.figures) + machine.unrest([weather for *_, weather in run.weather]),
        "problems": list(run.problems.values()),
        "rows": rows_as_json(table),
        "figures": run.figures,
        "weather": [
            {"round": turn, "measurement": name} | machine.as_json(weather) for turn, name, weather in run.weather
        ],
    }


def write(out: Path, report: dict[str, Any], table: Sequence[Row], changes: Sequence[Change]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "latest.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    (out / "report.html").write_text(page(report, table, changes))


def from_file(options: argparse.Namespace) -> int:
    """`--readme` and `--redraw`: from the last run's file."""
    report = read_report(options.out / "latest.json")
    table = rows(report["figures"])
    if options.readme:
        print(terminal.markdown(table, readme_head(report)))
    else:
        earlier = read_report(options.compare) if options.compare else None
        (options.out / "report.html").write_text(page(report, table, changes_since(earlier, table)))
    return 0


def readme_head(report: dict[str, Any]) -> str:
    run, facts = report["run"], report["machine"]
    return (
        f"Medians of {run['rounds']} rotated rounds on {facts['cores']} cores ({facts['cpu_model']}, "
        f"{facts['system']}, CPython {facts['python']}), load generator, proxy and user function all on them:"
    )


def timestamp() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


if __name__ == "__main__":
    sys.exit(main())
