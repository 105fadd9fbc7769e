"""Figures of the kernels beside those of what they are compared with, and the table of them at the end of the run.

A *work* is what several *contenders* do alike: ours, called `KERNEL`, and others. Each is one benchmark; its
`extra_info` in pytest-benchmark's report names the work, who did it, and with whom it has to be compared, so that
`baselines` can make ratios of a report.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pytest_benchmark.fixture import BenchmarkFixture
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Goal:
    """A row of the table. at_least: of the ratio competitor / kernel for times; else the figure is bounded above."""

    work: str
    unit: str  # of the figure
    bound: float
    at_least: bool = True
    remark: str = ""


@dataclass
class Figures:
    """Of one run: per work what the kernel took, and what others took."""

    goals: list[tuple[Goal, str]] = field(default_factory=list)  # with the competitor's name
    seen: dict[tuple[str, str], float] = field(default_factory=dict)

    def run(self, work: str, who: str, benchmark: BenchmarkFixture, function: Callable[..., Any], *given: Any) -> Any:
        """Measure `function(*given)` as a contender's way to do the work; what it returns."""
        benchmark.group = work
        result = benchmark(function, *given)
        self.time(work, who, benchmark)
        return result

    def time(
        self, work: str, who: str, benchmark: BenchmarkFixture, operations: int = 1, *, steady: bool = True
    ) -> None:
        """Seconds of one operation: the median of the rounds just measured. Not `steady`: the ratio depends on the
        machine, above all on its disk, so it is shown and never held against a stored one."""
        partner = "all others of this work" if who == KERNEL else KERNEL
        benchmark.extra_info |= {
            "work": work,
            "who": who,
            "partner": partner,
            "operations": operations,
            "steady": steady,
        }
        if benchmark.stats is not None:  # there is none with --benchmark-disable
            self.seen[work, who] = benchmark.stats["median"] / operations

    def size(self, work: str, figure: float) -> None:
        self.seen[work, KERNEL] = figure

    def rows(self) -> list[tuple[str, str, str, str, str, str]]:
        return [row for goal, rival in self.goals if (row := self._row(goal, rival))]

    def _row(self, goal: Goal, rival: str) -> tuple[str, str, str, str, str, str] | None:
        figure, other = self.seen.get((goal.work, KERNEL)), self.seen.get((goal.work, rival))
        if figure is None or (goal.at_least and other is None):
            return None
        if not goal.at_least:
            met = figure <= goal.bound
            return goal.work, f"{figure:,.4g} {goal.unit}", rival, "", f"<= {goal.bound:g}", "yes" if met else "NO"
        assert other is not None
        ratio = other / figure
        shown = f"{figure * 1e6:,.3g} µs", f"{rival}: {other * 1e6:,.3g} µs"
        return goal.work, *shown, f"{ratio:,.1f}x", f">= {goal.bound:g}x", "yes" if ratio >= goal.bound else "NO"


KERNEL = "kernel"
FIGURES = Figures()


def print_table(figures: Figures, remarks: list[str]) -> None:
    table = Table(title="CRDT kernels, medians of this run")
    for heading in ("work", "kernel", "compared with", "ratio", "target", "met"):
        table.add_column(heading)
    for row in figures.rows():
        table.add_row(*row)
    console = Console(width=150)
    console.print(table)
    for remark in remarks:
        console.print(remark, style="dim")
