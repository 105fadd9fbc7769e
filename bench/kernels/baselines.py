"""Ratios of a run beside those that are stored: what `make bench-kernels` ends with, and what makes it fail.

Times mean nothing on another machine, so what is stored is how many times quicker ours is than each alternative of the
same run. Of each benchmark its quickest round counts: whatever else the machine does can only make a round slower. A
ratio that became worse by more than TOLERANCE is a regression.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from statistics import median
from typing import Any

from stateside.bench.kernels.figures import KERNEL

STORED = Path(__file__).resolve().parent.parent / "baselines" / "kernels.json"
TOLERANCE = 0.15

# work -> alternative -> how many times as long as ours it takes
Stored = dict[str, dict[str, float]]


class Verdict(StrEnum):
    KEPT = "kept"
    BETTER = "better"
    WORSE = "WORSE"
    NEW = "new: no stored ratio"
    MISSING = "not measured"
    SHOWN = "depends on the machine"


@dataclass(frozen=True, slots=True)
class Ratio:
    """Ours beside one alternative, of one run. Seconds of one operation; `nodes`: pytest's names of both benchmarks."""

    work: str
    rival: str
    ours: float
    theirs: float
    steady: bool
    nodes: tuple[str, str]

    @property
    def value(self) -> float:
        return self.theirs / self.ours


@dataclass(frozen=True, slots=True)
class Line:
    """A ratio beside the stored one."""

    work: str
    rival: str
    now: float | None
    stored: float | None
    verdict: Verdict

    @property
    def change(self) -> float | None:
        """-0.2: ours lost a fifth of its advantage."""
        return self.now / self.stored - 1 if self.now is not None and self.stored else None


class BaselineError(Exception):
    """The stored ratios cannot be used. The text says why."""


def ratios(report: Mapping[str, Any]) -> list[Ratio]:
    """Of a report of pytest-benchmark: every work's kernel beside each other contender. What has none is left out."""
    works: dict[str, dict[str, Mapping[str, Any]]] = {}
    for each in report["benchmarks"]:
        if "work" in each["extra_info"]:
            works.setdefault(each["extra_info"]["work"], {})[each["extra_info"]["who"]] = each
    return [
        Ratio(
            work,
            who,
            _seconds(contenders[KERNEL]),
            _seconds(rival),
            bool(contenders[KERNEL]["extra_info"]["steady"]),
            (contenders[KERNEL]["fullname"], rival["fullname"]),
        )
        for work, contenders in works.items()
        if KERNEL in contenders
        for who, rival in contenders.items()
        if who != KERNEL
    ]


def _seconds(measured: Mapping[str, Any]) -> float:
    return float(measured["stats"]["min"]) / int(measured["extra_info"]["operations"])


def middle(runs: Iterable[Sequence[Ratio]]) -> dict[tuple[str, str], float]:
    """The median of each ratio over the runs that measured it."""
    seen: dict[tuple[str, str], list[float]] = {}
    for run in runs:
        for each in run:
            seen.setdefault((each.work, each.rival), []).append(each.value)
    return {key: median(values) for key, values in seen.items()}


def compare(runs: Sequence[Sequence[Ratio]], stored: Stored) -> list[Line]:
    """A line for each ratio that was measured in the first run or is stored. Later runs may be of some only."""
    now, lines = middle(runs), []
    for each in runs[0]:
        value, before = now[each.work, each.rival], stored.get(each.work, {}).get(each.rival)
        lines.append(Line(each.work, each.rival, value, before, _verdict(value, before, each.steady)))
    for work, rivals in stored.items():
        for rival, before in rivals.items():
            if (work, rival) not in now:
                lines.append(Line(work, rival, None, before, Verdict.MISSING))
    return lines


def _verdict(now: float, stored: float | None, steady: bool) -> Verdict:
    if not steady:
        return Verdict.SHOWN
    if stored is None:
        return Verdict.NEW
    if now < stored * (1 - TOLERANCE):
        return Verdict.WORSE
    return Verdict.BETTER if now > stored * (1 + TOLERANCE) else Verdict.KEPT


def nodes_of_worse(lines: Iterable[Line], run: Iterable[Ratio]) -> list[str]:
    """Pytest's names of the benchmarks to measure again."""
    worse = {(line.work, line.rival) for line in lines if line.verdict is Verdict.WORSE}
    return sorted({node for each in run if (each.work, each.rival) in worse for node in each.nodes})


def to_store(runs: Sequence[Sequence[Ratio]]) -> Stored:
    steady = {(each.work, each.rival) for each in runs[0] if each.steady}
    found: Stored = {}
    for (work, rival), value in middle(runs).items():
        if (work, rival) in steady:
            found.setdefault(work, {})[rival] = float(f"{value:.4g}")
    return found


def read(path: Path = STORED) -> Stored:
    """Nothing if there is no file. Raises BaselineError."""
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text())
        return {work: {rival: float(value) for rival, value in rivals.items()} for work, rivals in found.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise BaselineError(f"{path}: must hold numbers by work and alternative: {error}") from error


def write(stored: Stored, path: Path = STORED) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(stored, indent=1, ensure_ascii=False, sort_keys=True) + "\n")
