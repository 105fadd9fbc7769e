"""`python -m stateside.bench`: the end-to-end figures, as a table and as bench/out/latest.json.

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
from pathlib import Path
from time import monotonic

from rich.console import Console

from stateside.bench import http, works
from stateside.bench.processes import ProcessFailed, Stage
from stateside.bench.report import Rounds, as_json, noise, print_table, rows, shown
from stateside.bench.works import Figures, Measurement, MeasurementFailed, Setting

WORKS = works.WORKS | http.WORKS
OUT = Path(__file__).resolve().parent / "out"
TIME_LIMIT = 120.0
BUSY_LOAD = 0.7


def main() -> int:
    options = arguments()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 180)
    setting = Setting(
        folder=options.data / f"data-{os.getpid()}",
        seconds=options.seconds or (1.5 if options.quick else 4.0),
        warmup=0.5 if options.quick else 1.0,
        file_requests=60_000 if options.quick else 250_000,
    )
    if (busy := os.getloadavg()[0]) > BUSY_LOAD:
        console.print(f"[yellow]Others are at work on this machine (load {busy:.1f}): the figures will be rough.[/]")
    try:
        rounds, problems = asyncio.run(measure_all(options, setting, console))
    finally:
        shutil.rmtree(setting.folder, ignore_errors=True)
    table = rows(rounds)
    OUT.mkdir(exist_ok=True)
    (OUT / "latest.json").write_text(json.dumps(as_json(table), indent=1, ensure_ascii=False) + "\n")
    print_table(console, table)
    for remark in noise(rounds):
        console.print(f"[yellow]The machine was too noisy for exact figures: {remark}.[/]")
    for problem in problems:
        console.print(f"[red]Not measured: {problem}[/]", soft_wrap=True)
    return 1 if problems else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="stateside.bench", description="End-to-end figures of the proxy and their anchors."
    )
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is measured (default 3)")
    parser.add_argument("--quick", action="store_true", help="one short round: does it work, roughly how fast")
    parser.add_argument("--seconds", type=float, help="how long to count in each measurement (default 4)")
    parser.add_argument("--only", action="append", choices=sorted(WORKS), metavar="WORK", help=", ".join(WORKS))
    parser.add_argument(
        "--data", type=Path, default=OUT, help="folder for journals, on the disk in question (default bench/out)"
    )
    options = parser.parse_args()
    if options.rounds < 1 or (options.seconds is not None and not 0.1 <= options.seconds <= 60):
        parser.error("--rounds is at least 1, --seconds between 0.1 and 60")
    if options.quick:
        options.rounds = 1
    options.data = options.data.resolve()
    return options


async def measure_all(options: argparse.Namespace, setting: Setting, console: Console) -> tuple[Rounds, list[str]]:
    """Figures of every measurement, round by round, and what could not be measured. What failed is not tried again."""
    chosen = {name: each for work in options.only or WORKS for name, each in WORKS[work].items()}
    rounds: Rounds = {name: [] for name in chosen}
    problems: dict[str, str] = {}
    for turn in range(options.rounds):
        for name, measurement in chosen.items():
            if name in problems:
                continue
            begun = monotonic()
            try:
                figures = await measure(name, measurement, setting)
            except (MeasurementFailed, ProcessFailed, OSError, TimeoutError) as error:
                problems[name] = f"{name}: {error or 'took too long'}"
                console.print(f"round {turn + 1}  {name:<18} failed", style="red")
                continue
            rounds[name].append(figures)
            said = "  ".join(f"{key} {value:,.5g}" for key, value in shown(name, figures).items())
            console.print(f"round {turn + 1}  {name:<18} {monotonic() - begun:5.1f} s  {said}", soft_wrap=True)
    return rounds, list(problems.values())


async def measure(name: str, measurement: Measurement, setting: Setting) -> Figures:
    async with Stage(setting.folder / name) as stage, asyncio.timeout(TIME_LIMIT):
        return await measurement(setting, stage)


if __name__ == "__main__":
    sys.exit(main())
