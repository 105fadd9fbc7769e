"""`make scale`: the scale curves, as bench/out/scale.json and bench/out/scale.html, within ten minutes.

`--publish docs/figures` also writes the result and its charts there, and the tables into the page of the docs that has
places for them, so that no figure of that page is written by hand.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

from rich.console import Console

from stateside.bench.machine import WeatherWatch, as_json, facts, unrest
from stateside.bench.processes import ROOT, ProcessFailed, Stage
from stateside.bench.scale_curves import CURVES, Curve
from stateside.bench.scale_page import COLUMNS, page, publish
from stateside.bench.works import Figures, MeasurementFailed, Setting

OUT = ROOT / "bench" / "out"
RESULT = OUT / "scale.json"
TEXT = ROOT / "docs" / "performance.md"
POINT_TIME_LIMIT = 330.0
TIME_LIMIT = 560.0  # of a run; no point begins after it, and one that has begun has LAST_POINT more
LAST_POINT = 30.0
QUICK_SECONDS, FULL_SECONDS = 0.7, 2.5


def main() -> int:
    options = arguments()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    OUT.mkdir(exist_ok=True)
    allow_files()
    if options.result is None:
        result = asyncio.run(measured(options, console))
        RESULT.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    else:
        result = json.loads(options.result.read_text())
    (OUT / "scale.html").write_text(page(result))
    if options.publish is not None:
        publish(result, options.publish, TEXT)
    for remark in (*result["noise"], *result["problems"]):
        console.print(f"[yellow]{remark}[/]", soft_wrap=True)
    console.print(f"{RESULT.relative_to(ROOT)}, {(OUT / 'scale.html').relative_to(ROOT)}")
    return 1 if result["problems"] else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make scale ARGS=", description=(__doc__ or "").splitlines()[0])
    names = [curve.name for curve in CURVES]
    parser.add_argument("--quick", action="store_true", help="few and small points, about a minute")
    parser.add_argument("--only", action="append", choices=names, metavar="CURVE", help=", ".join(names))
    parser.add_argument("--publish", type=Path, metavar="FOLDER", help="write the figures of docs/performance.md")
    parser.add_argument("--from", dest="result", type=Path, metavar="FILE", help="measure nothing, take this result")
    parser.add_argument("--data", type=Path, default=OUT, help="folder for journals (default bench/out)")
    return parser.parse_args()


def allow_files() -> None:
    """As many open files as there may be, for what is started here too: each connection is one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def measured(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """What scale.json holds. Curves that were not asked for are left out; so are points that failed, with a remark."""
    seconds = QUICK_SECONDS if options.quick else FULL_SECONDS
    folder = options.data.resolve() / f"scale-{os.getpid()}"
    setting = Setting(folder=folder, seconds=seconds, warmup=seconds / 4, file_requests=0)
    begun, weather = datetime.now(UTC), WeatherWatch()
    curves: dict[str, dict[str, Figures]] = {}
    problems: list[str] = []
    end = monotonic() + TIME_LIMIT
    try:
        for curve in CURVES:
            if not options.only or curve.name in options.only:
                values = curve.quick_values if options.quick else curve.values
                curves[curve.name] = await points(curve, values, setting, end, console, problems)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    weathered = weather.end()
    return {
        "begun": begun.isoformat(),
        "quick": options.quick,
        "machine": facts(),
        "weather": as_json(weathered),
        "noise": unrest([weathered]),
        "problems": problems,
        "curves": curves,
    }


async def points(
    curve: Curve, values: tuple[int, ...], setting: Setting, end: float, console: Console, problems: list[str]
) -> dict[str, Figures]:
    """Figures by value, as text, because that is what JSON's names are. No point begins after `end`."""
    found: dict[str, Figures] = {}
    for value in values:
        if (begun := monotonic()) >= end:
            problems.append(f"{curve.name} {value:,}: {TIME_LIMIT:.0f} s had passed before its turn")
            continue
        try:
            limit = min(POINT_TIME_LIMIT, end + LAST_POINT - begun)
            async with Stage(setting.folder / f"{curve.name}-{value}") as stage, asyncio.timeout(limit):
                figures = await curve.measure(setting, stage, value)
        except (MeasurementFailed, ProcessFailed, OSError, TimeoutError) as error:
            problems.append(f"{curve.name} {value:,}: {error or 'took too long'}")
            console.print(f"{curve.name:<12} {value:>9,}  [red]failed[/]")
            continue
        found[str(value)] = {name: float(figure) for name, figure in figures.items()}
        shown = "  ".join(f"{column.name} {column.text(figures)}" for column in COLUMNS[curve.name] if not column.first)
        console.print(f"{curve.name:<12} {value:>9,}  {monotonic() - begun:5.1f} s  {shown}", soft_wrap=True)
    return found


if __name__ == "__main__":
    sys.exit(main())
