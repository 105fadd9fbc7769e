"""`make bench-kernels`: the suites of this folder by pytest-benchmark, then every ratio beside the stored one.

What seems worse is measured twice more, alone, and the median of the three counts; if that is worse still, the run
fails. `--update-baselines` measures everything three times and stores the medians. Other arguments are pytest's.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from stateside.bench.kernels.baselines import (
    TOLERANCE,
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

ROOT = Path(__file__).resolve().parent.parent.parent
SUITES = "bench/kernels"
RUNS = 3  # of what seems worse, and of what is to be stored
UPDATE = "--update-baselines"
COLOURS = {Verdict.WORSE: "red", Verdict.BETTER: "green", Verdict.NEW: "yellow", Verdict.MISSING: "yellow"}
PYTEST = (
    *(sys.executable, "-m", "pytest", "-m", ""),  # with the slow ones
    *("--benchmark-max-time=0.3", "--benchmark-warmup=on", "--benchmark-warmup-iterations=100"),
    *("--benchmark-columns=min,median,iqr,ops", "--benchmark-group-by=group"),
)


class SuiteFailed(Exception):
    """A benchmark could not be run or did its work wrongly."""


def main(arguments: list[str]) -> int:
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    mine = [each for each in arguments if each != UPDATE]
    try:
        stored = read()
        runs = [measured([SUITES, *mine])]
        if UPDATE in arguments:
            runs += [measured([SUITES, *mine], quiet=True) for _ in range(RUNS - 1)]
            write(stored | to_store(runs))
            stored = read()
        lines = settled(runs, stored, console)
    except (SuiteFailed, BaselineError) as error:
        console.print(f"[red]{error}[/]", soft_wrap=True)
        return 2
    show(console, lines, runs[0])
    return 1 if any(line.verdict is Verdict.WORSE for line in lines) else 0


def settled(runs: list[list[Ratio]], stored: dict[str, dict[str, float]], console: Console) -> list[Line]:
    """The comparison, after what seems worse was measured again."""
    lines = compare(runs, stored)
    again = nodes_of_worse(lines, runs[0])
    if again and len(runs) < RUNS:
        console.print(f"{len(again)} benchmarks seem worse and are measured again ...")
        runs = runs + [measured(again, quiet=True) for _ in range(RUNS - len(runs))]
        lines = compare(runs, stored)
    return lines


def measured(arguments: Sequence[str], *, quiet: bool = False) -> list[Ratio]:
    """The ratios of one run of pytest. Raises SuiteFailed."""
    with TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [*PYTEST, f"--benchmark-json={report}", *arguments]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL if quiet else None)
        if done.returncode != 0 or not report.exists() or not report.stat().st_size:
            raise SuiteFailed(f"pytest ended with exit code {done.returncode}; no ratios without all benchmarks")
        return ratios(json.loads(report.read_text()))


def show(console: Console, lines: Sequence[Line], run: Sequence[Ratio]) -> None:
    times = {(each.work, each.rival): each for each in run}
    table = Table(title="How many times as long as ours the others take", box=None, pad_edge=False)
    for title in ("work", "beside", "ours", "theirs", "ratio", "stored", "change", ""):
        table.add_column(title, justify="right" if title in ("ours", "theirs", "ratio", "stored", "change") else "left")
    before = ""
    for line in lines:
        each = times.get((line.work, line.rival))
        seconds = (micro(each.ours), micro(each.theirs)) if each is not None else ("", "")
        colour = COLOURS.get(line.verdict, "dim")
        figures = (number(line.now), number(line.stored), "" if line.change is None else f"{line.change:+.0%}")
        work = line.work if line.work != before else ""
        table.add_row(work, line.rival, *seconds, *figures, f"[{colour}]{line.verdict.value}[/]")
        before = line.work
    console.print(table)
    if worse := sum(line.verdict is Verdict.WORSE for line in lines):
        console.print(f"[red]{worse} ratios are more than {TOLERANCE:.0%} worse than those in bench/baselines.[/]")


def number(ratio: float | None) -> str:
    if ratio is None:
        return ""
    return f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.3g}"


def micro(seconds: float) -> str:
    return f"{seconds * 1e6:,.0f} µs" if seconds >= 1e-4 else f"{seconds * 1e6:.3g} µs"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
