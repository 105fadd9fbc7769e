"""From the figures of all rounds to rows: medians, ratios to the anchor, whether the target was met, how far rounds
differed, and how a run differs from an earlier one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from stateside.bench.targets import TARGETS, Figure, Target

# A measurement's figures, round by round.
Rounds = dict[str, list[dict[str, float]]]

FORMAT = 2  # of latest.json
NOISY_SPREAD = 0.3


class ReportError(Exception):
    """A file of figures cannot be used. The text names the file and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table and of latest.json. `spread`: largest minus smallest of the rounds, as a share of the
    figure."""

    work: str
    figure: float
    unit: str
    anchor: str
    anchor_figure: float | None
    ratio: float | None
    target: str
    met: bool | None
    spread: float = 0.0


@dataclass(frozen=True, slots=True)
class Change:
    """A row against the same of an earlier run. `anchored`: the same of their ratios to the anchor, which does not
    depend on the machine."""

    work: str
    unit: str
    anchor: str
    before: float
    now: float
    ratio: float
    anchored: float | None


def shown(measurement: str, figures: dict[str, float]) -> dict[str, float]:
    """Those of a measurement's figures that are in the table."""
    used = {each for target in TARGETS for each in (target.figure, target.anchor_figure)}
    return {name: value for name, value in figures.items() if (measurement, name) in used}


def rows(rounds: Rounds) -> list[Row]:
    """What can be said: a row for each target whose figure was measured."""
    return [row(target, rounds) for target in TARGETS if rounds.get(target.figure[0])]


def row(target: Target, rounds: Rounds) -> Row:
    figure = middle(rounds, target.figure)
    assert figure is not None
    anchor = middle(rounds, target.anchor_figure)
    ratio = figure / anchor if anchor else None
    verdict = met(target, figure, ratio)
    spread = spread_of(rounds, target.figure)
    return Row(target.work, figure, target.unit, target.anchor, anchor, ratio, target.text(), verdict, spread)


def met(target: Target, figure: float, ratio: float | None) -> bool | None:
    """None: no target, or no anchor to hold it against."""
    value = ratio if target.relative else figure
    if target.bound is None or value is None:
        return None
    return value >= target.bound if target.at_least else value <= target.bound


def missed(table: Sequence[Row]) -> list[Row]:
    return [each for each in table if each.met is False]


def middle(rounds: Rounds, figure: Figure | None) -> float | None:
    """Median over the rounds."""
    if figure is None or not rounds.get(figure[0]):
        return None
    return median(each[figure[1]] for each in rounds[figure[0]])


def medians(rounds: Rounds, measurement: str) -> dict[str, float]:
    """Of all figures of a measurement; empty if it was not made."""
    found = rounds.get(measurement, [])
    return {name: median(each[name] for each in found) for name in (found[0] if found else ())}


def spread_of(rounds: Rounds, figure: Figure) -> float:
    values = [each[figure[1]] for each in rounds.get(figure[0], ())]
    usual = median(values) if values else 0.0
    return (max(values) - min(values)) / abs(usual) if usual else 0.0


def noise(rounds: Rounds) -> list[str]:
    """What of the machine's own unrest the anchors show: spread between rounds, if it is large."""
    found = []
    for figure in {target.anchor_figure for target in TARGETS if target.relative and target.anchor_figure}:
        if (spread := spread_of(rounds, figure)) > NOISY_SPREAD:
            found.append(f"{figure[0]} varied by {spread:.0%} between rounds ({figure[1]})")
    return sorted(found)


# --- files and comparison --------------------------------------------------------------------------------------------


def read_report(path: Path) -> dict[str, Any]:
    """What __main__ wrote. Raises ReportError."""
    try:
        report = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ReportError(f"{path}: {error}") from error
    if not isinstance(report, dict) or report.get("format") != FORMAT:
        raise ReportError(f"{path} is not a file of figures of format {FORMAT}, as `make bench` writes it")
    return report


def rows_as_json(table: Sequence[Row]) -> list[dict[str, Any]]:
    return [asdict(each) for each in table]


def compare(now: Sequence[Row], before: Sequence[Row]) -> list[Change]:
    """The rows that both runs have."""
    old = {(each.work, each.unit, each.anchor): each for each in before}
    found = []
    for new in now:
        then = old.get((new.work, new.unit, new.anchor))
        if then is None or not then.figure:
            continue
        anchored = new.ratio / then.ratio if new.ratio and then.ratio else None
        ratio = new.figure / then.figure
        found.append(Change(new.work, new.unit, new.anchor, then.figure, new.figure, ratio, anchored))
    return found


def number(value: float | None) -> str:
    """Three or four digits that mean something."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def short(value: float) -> str:
    """With k or M."""
    for limit, suffix in ((1e6, " M"), (1e4, " k")):
        if abs(value) >= limit:
            scaled = value / (1e3 if suffix == " k" else 1e6)
            return f"{scaled:.0f}{suffix}" if scaled >= 100 else f"{scaled:.3g}{suffix}"
    return number(value)


def time_text(us: float) -> str:
    """Of microseconds."""
    if us < 1000:
        return f"{us:.3g} µs"
    return f"{us / 1e3:.3g} ms" if us < 1e6 else f"{us / 1e6:.3g} s"
