"""What `stateside load` shows: a line while it runs, a table at the end; the same as JSON and as a percentile file."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from stateside.bench.generator import Generator, Latencies
from stateside.proto.status import Status

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}
STEP = 1.0  # seconds


class Progress:
    """A line that is renewed every second; on what is no terminal, a line for every second."""

    def __init__(self, console: Console, *, silent: bool = False) -> None:
        self._console = console
        self._silent = silent

    async def follow(self, generator: Generator, duration: float, wait: Callable[[float], Awaitable[bool]]) -> None:
        """Until `duration` seconds have passed or `wait` answers that the run has ended."""
        end = monotonic() + duration
        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            before, then = generator.completed, monotonic()
            while (left := end - monotonic()) > 0:
                if await wait(min(STEP, left)):
                    return
                now = monotonic()
                self._show(live, generator, (generator.completed - before) / (now - then), max(0.0, end - now))
                before, then = generator.completed, now
                generator.window.clear()

    def _show(self, live: Live, generator: Generator, rate: float, left: float) -> None:
        if self._silent:
            return
        window = generator.window
        line = (
            f"{left:5.0f} s left  {rate:10,.0f} calls/s  p50 {show_ns(window.quantile_ns(0.5))}  p99 "
            f"{show_ns(window.quantile_ns(0.99))}  in flight {generator.in_flight}  failed {generator.failed}"
        )
        if self._console.is_terminal:
            live.update(line, refresh=True)
        else:
            self._console.print(line, soft_wrap=True)


def print_result(console: Console, generator: Generator, seconds: float) -> None:
    table = Table(box=None, pad_edge=False)
    for title in ("command", "calls", "calls/s", "failed", "mean", *QUANTILES, "max"):
        table.add_column(title, justify="left" if title == "command" else "right", no_wrap=title != "command")
    for name, completed, failed, latencies in _rows(generator):
        mean = latencies.total_ns // max(1, latencies.count)
        times = [mean, *(latencies.quantile_ns(share) for share in QUANTILES.values()), latencies.max_ns]
        table.add_row(name, f"{completed:,}", f"{completed / seconds:,.0f}", f"{failed:,}", *map(show_ns, times))
    console.print(table, soft_wrap=True)
    if generator.late:
        console.print(
            f"{generator.late:,} calls began late, because as many as allowed were in flight or this machine was busy."
        )
    for problem in generator.problems:
        console.print(f"[red]{problem}[/]", soft_wrap=True)


def as_json(generator: Generator, seconds: float) -> dict[str, Any]:
    """Times in microseconds."""
    return {
        "seconds": seconds,
        "late": generator.late,
        "problems": generator.problems,
        "commands": [
            {
                "name": name,
                "completed": completed,
                "failed": failed,
                "calls_per_s": completed / seconds,
                "mean_us": latencies.total_ns / max(1, latencies.count) / 1000,
                **{f"{title}_us": latencies.quantile_ns(share) / 1000 for title, share in QUANTILES.items()},
                "max_us": latencies.max_ns / 1000,
            }
            for name, completed, failed, latencies in _rows(generator)
        ],
        "statuses": {
            command.name: {Status(status).name: count for status, count in command.statuses.items()}
            for command in generator.commands
        },
    }


def hgrm(generator: Generator) -> str:
    """All latencies as a percentile distribution in HdrHistogram's text format, in milliseconds."""
    whole = total(generator)
    lines = [f"{'Value':>12} {'Percentile':>14} {'TotalCount':>10} {'1/(1-Percentile)':>14}", ""]
    seen = 0
    for ns, count in whole.distribution():
        seen += count
        share = seen / whole.count
        rest = f"{1 / (1 - share):14.2f}" if seen < whole.count else ""
        lines.append(f"{min(ns, whole.max_ns) / 1e6:12.3f} {share:.12f} {seen:10d} {rest}".rstrip())
    mean = whole.total_ns / max(1, whole.count) / 1e6
    lines.append(f"#[Mean    = {mean:12.3f}, StdDeviation   = {_deviation(whole) / 1e6:12.3f}]")
    lines.append(f"#[Max     = {whole.max_ns / 1e6:12.3f}, Total count    = {whole.count:12d}]")
    return "\n".join(lines) + "\n"


def total(generator: Generator) -> Latencies:
    whole = Latencies()
    for command in generator.commands:
        whole.merge(command.latencies)
    return whole


def show_ns(ns: int) -> str:
    if ns < 1_000_000:
        return f"{ns / 1e3:.0f} µs"
    return f"{ns / 1e6:.3g} ms" if ns < 1_000_000_000 else f"{ns / 1e9:.3g} s"


def _rows(generator: Generator) -> list[tuple[str, int, int, Latencies]]:
    """Name, completed, failed, times of each command, and of all together."""
    found = [(each.name, each.completed, each.failed, each.latencies) for each in generator.commands]
    if len(found) > 1:
        found.append(("all", generator.completed, generator.failed, total(generator)))
    return found


def _deviation(latencies: Latencies) -> float:
    mean = latencies.total_ns / max(1, latencies.count)
    square = sum(count * (ns - mean) ** 2 for ns, count in latencies.distribution())
    return float((square / max(1, latencies.count)) ** 0.5)
