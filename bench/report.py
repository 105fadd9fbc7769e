"""From the figures of all rounds to rows: medians, ratios to the anchor, and whether the target was met."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

# A measurement's figures, round by round.
Rounds = dict[str, list[dict[str, float]]]

NOISY_SPREAD = 0.3


@dataclass(frozen=True, slots=True)
class Target:
    """One row to be filled: which figure of which measurement, against which anchor and which bound.

    `bound` is of the ratio if `relative`, else of the figure; None = for information only.
    """

    work: str
    figure: tuple[str, str]
    unit: str
    bound: float | None = None
    at_least: bool = True
    relative: bool = False
    anchor: str = ""
    anchor_figure: tuple[str, str] | None = None

    def text(self) -> str:
        if self.bound is None:
            return ""
        return f"{'>=' if self.at_least else '<='} {self.bound:,g}" + (" x anchor" if self.relative else "")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table and of latest.json."""

    work: str
    figure: float
    unit: str
    anchor: str
    anchor_figure: float | None
    ratio: float | None
    target: str
    met: bool | None


READ = "read-only command, 64 entity streams, 128 in flight"
WRITE = "durable write of a 100 B event, 1000 in flight, 1000 entities"
SLOW_WRITE = "the same where every flush takes 1 ms longer"
VALUE = "durable update of a 100 B value, 1000 in flight, 1000 entities"
COUNTER = "durable increment of one hot CRDT counter, 128 in flight"
FORWARD = "the read-only command, answered by a forward to another"
ACTION = "unary action, 128 in flight"
ENDLESS = "streamed-out action, 2 streams, 100 B messages"
REPLAY = "replay of a 100 k event entity, from command to answer"
CART = "shopping cart through the Python support library"
MANY = "50 k active entities, 100 streams a connection"
IDLE = "idle proxy"
START = "ready"

GRPC_AIO = "grpc.aio relay"
NGHTTPX = "nghttpx -> nghttpd"
COMMIT = "one LMDB commit an event"
EVENT_WRITE = "durable write of an event"
READ_ONLY = "read-only command"

TARGETS = [
    Target(READ, ("relay", "calls_per_s"), "commands/s", 15, True, True, GRPC_AIO, ("relay_grpc_aio", "calls_per_s")),
    Target(READ, ("relay", "calls_per_s"), "commands/s", 0.7, True, True, NGHTTPX, ("relay_nghttpx", "calls_per_s")),
    Target(
        READ,
        ("relay", "proxy_cpu_us"),
        "µs proxy CPU",
        16,
        at_least=False,
        anchor=GRPC_AIO,
        anchor_figure=("relay_grpc_aio", "proxy_cpu_us"),
    ),
    Target(READ, ("relay", "p50_us"), "µs p50", anchor=GRPC_AIO, anchor_figure=("relay_grpc_aio", "p50_us")),
    Target(READ, ("relay", "p99_us"), "µs p99", anchor=GRPC_AIO, anchor_figure=("relay_grpc_aio", "p99_us")),
    Target(WRITE, ("durable", "calls_per_s"), "commands/s", 20_000),
    Target(
        WRITE, ("durable", "calls_per_s"), "commands/s", 25, True, True, COMMIT, ("commit_per_event", "commits_per_s")
    ),
    Target(
        SLOW_WRITE,
        ("durable_slow_disk", "calls_per_s"),
        "commands/s",
        25,
        True,
        True,
        COMMIT,
        ("commit_per_event_slow_disk", "commits_per_s"),
    ),
    Target(WRITE, ("durable", "proxy_cpu_us"), "µs proxy CPU"),
    Target(WRITE, ("durable", "p50_us"), "µs p50"),
    Target(WRITE, ("durable", "p99_us"), "µs p99"),
    Target(VALUE, ("value", "calls_per_s"), "commands/s", 0.85, True, True, EVENT_WRITE, ("durable", "calls_per_s")),
    Target(
        VALUE, ("value", "proxy_cpu_us"), "µs proxy CPU", anchor=EVENT_WRITE, anchor_figure=("durable", "proxy_cpu_us")
    ),
    Target(COUNTER, ("crdt", "calls_per_s"), "increments/s", 20_000),
    Target(COUNTER, ("crdt", "proxy_cpu_us"), "µs proxy CPU"),
    Target(COUNTER, ("crdt", "p99_us"), "µs p99"),
    # A forwarded command is two commands, and the second may cost a fifth more than the first.
    Target(
        FORWARD, ("forward", "proxy_cpu_us"), "µs proxy CPU", 2.2, False, True, READ_ONLY, ("relay", "proxy_cpu_us")
    ),
    Target(FORWARD, ("forward", "calls_per_s"), "commands/s", anchor=READ_ONLY, anchor_figure=("relay", "calls_per_s")),
    Target(ACTION, ("action", "calls_per_s"), "calls/s", 0.8, True, True, READ_ONLY, ("relay", "calls_per_s")),
    Target(
        ACTION, ("action", "proxy_cpu_us"), "µs proxy CPU", anchor=READ_ONLY, anchor_figure=("relay", "proxy_cpu_us")
    ),
    Target(ENDLESS, ("endless", "messages_per_s"), "messages/s", 300_000),
    Target(ENDLESS, ("endless", "proxy_cpu_us"), "µs proxy CPU"),
    Target(ENDLESS, ("endless", "grown_mb"), "MB grown", 8, at_least=False),
    Target(REPLAY, ("replay", "events_per_s"), "events/s", 300_000),
    Target(CART, ("cart", "calls_per_core"), "commands/s a core", 10_000),
    Target(CART, ("cart", "calls_per_s"), "commands/s"),
    Target(MANY, ("entities", "active"), "entities", 50_000),
    Target(MANY, ("entities", "kept_active"), "served a 2nd command", 50_000),
    Target(MANY, ("entities", "bytes_each"), "B proxy memory each", 6_000, at_least=False),
    Target(MANY, ("entities", "activations_per_s"), "activations/s"),
    Target(IDLE, ("idle", "resident_mb"), "MB resident", 60, at_least=False),
    Target(START, ("idle", "ready_after_discovery_ms"), "ms after discovery", 500, at_least=False),
    Target(START, ("idle", "ready_after_start_ms"), "ms after start"),
]


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
    return Row(
        target.work, figure, target.unit, target.anchor, anchor, ratio, target.text(), met(target, figure, ratio)
    )


def met(target: Target, figure: float, ratio: float | None) -> bool | None:
    """None: no target, or no anchor to hold it against."""
    value = ratio if target.relative else figure
    if target.bound is None or value is None:
        return None
    return value >= target.bound if target.at_least else value <= target.bound


def middle(rounds: Rounds, figure: tuple[str, str] | None) -> float | None:
    """Median over the rounds."""
    if figure is None or not rounds.get(figure[0]):
        return None
    return median(each[figure[1]] for each in rounds[figure[0]])


def noise(rounds: Rounds) -> list[str]:
    """What of the machine's own unrest the anchors show: spread between rounds, if it is large."""
    found = []
    for measurement, name in {target.anchor_figure for target in TARGETS if target.relative and target.anchor_figure}:
        values = [each[name] for each in rounds.get(measurement, ())]
        spread = (max(values) - min(values)) / median(values) if len(values) > 1 else 0.0
        if spread > NOISY_SPREAD:
            found.append(f"{measurement} varied by {spread:.0%} between rounds")
    return sorted(found)


def as_json(table: list[Row]) -> list[dict[str, Any]]:
    return [asdict(each) for each in table]


def print_table(console: Console, table: list[Row]) -> None:
    drawn = Table()
    for heading in ("work", "figure", "unit", "anchor", "anchor figure", "ratio", "target", "met"):
        right = heading in ("figure", "anchor figure", "ratio")
        drawn.add_column(heading, justify="right" if right else "left")
    before = ""
    for each in table:
        verdict = {True: "[green]yes[/]", False: "[red]no[/]", None: ""}[each.met]
        figures = (number(each.figure), each.unit, each.anchor, number(each.anchor_figure), number(each.ratio))
        drawn.add_row(each.work if each.work != before else "", *figures, each.target, verdict)
        before = each.work
    console.print(drawn)


def number(value: float | None) -> str:
    """Three or four digits that mean something."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
