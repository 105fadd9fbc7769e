"""Charts as inline SVG: lines over scales that suit latencies and loads, and stacked bars.

Colours are classes `s0` to `s7` of the page around them (page.css), which has them for light, dark and paper. What a
chart says is there as text too: each point and each piece of a bar has a title.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

WIDTH, HEIGHT = 760, 380
LEFT, RIGHT, TOP, BOTTOM = 66, 176, 18, 52
COLOURS = 8
LEGEND_STEP = 22
BAR_HEIGHT, BAR_STEP, BAR_LEFT, BAR_RIGHT = 18, 27, 190, 70
DASHES = ("", "7 4", "2 3", "9 3 2 3")  # tells lines apart on paper
LEAST_WIDTH_OF_TEXT = 34

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Line:
    name: str
    points: Points


@dataclass(frozen=True, slots=True)
class Scale:
    """From values to places along an axis, and what is written there."""

    label: str
    place: Callable[[float], float]
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]

    def share(self, value: float) -> float:
        """0 at the low end, 1 at the high one."""
        low, high = self.place(self.low), self.place(self.high)
        return (self.place(value) - low) / (high - low)


# --- scales ----------------------------------------------------------------------------------------------------------


def linear(label: str, values: Sequence[float], show: Callable[[float], str]) -> Scale:
    """From 0 to a round number above all values."""
    top = max([*values, 1e-9])
    step = nice_step(top / 5)
    count = max(1, ceil(top / step - 1e-9))
    return Scale(label, lambda value: value, 0.0, step * count, [(step * i, show(step * i)) for i in range(count + 1)])


def nice_step(rough: float) -> float:
    """1, 2 or 5 times a power of ten, not below `rough`."""
    power = 10.0 ** floor(log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))


def logarithmic(label: str, values: Sequence[float], show: Callable[[float], str]) -> Scale:
    """Whole decades around all values, which have to be above 0."""
    low, high = floor(log10(min(values))), ceil(log10(max(values)))
    high = max(high, low + 1)
    return Scale(label, log10, 10.0**low, 10.0**high, [(10.0**i, show(10.0**i)) for i in range(low, high + 1)])


def percentiles(label: str = "percentile") -> Scale:
    """Each further nine takes the same room, as the tail is what matters. Values are shares from 0 to 0.9999."""
    ticks = [(0.0, "0"), (0.5, "50"), (0.9, "90"), (0.99, "99"), (0.999, "99.9"), (0.9999, "99.99")]
    return Scale(label, lambda share: -log10(1 - share), 0.0, 0.9999, ticks)


def levels(label: str, values: Sequence[float]) -> Scale:
    """Logarithmic, with a tick for each of the few values."""
    return Scale(label, log10, min(values), max(values), [(each, f"{each:g}") for each in sorted(set(values))])


# --- lines -----------------------------------------------------------------------------------------------------------


def line_chart(title: str, lines: Sequence[Line], across: Scale, up: Scale) -> str:
    """Each line with a mark and a title at each of its points, and its name beside the chart."""
    parts = [*_grid(across, up)]
    for number, line in enumerate(lines):
        parts += _line(number, line, across, up)
        parts += _legend(number, line.name)
    return _svg(title, HEIGHT, parts)


def _grid(across: Scale, up: Scale) -> list[str]:
    right, bottom, middle = WIDTH - RIGHT, HEIGHT - BOTTOM, (TOP + HEIGHT - BOTTOM) / 2
    parts = []
    for value, text in up.ticks:
        y = _y(up, value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{escape(text)}</text>')
    for value, text in across.ticks:
        x = _x(across, value)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{escape(text)}</text>')
    centre = (LEFT + right) / 2
    parts.append(
        f'<text class="axis" x="{centre}" y="{HEIGHT - 10}" text-anchor="middle">{escape(across.label)}</text>'
    )
    turned = f'transform="rotate(-90 14 {middle})"'
    parts.append(f'<text class="axis" x="14" y="{middle}" text-anchor="middle" {turned}>{escape(up.label)}</text>')
    return parts


def _line(number: int, line: Line, across: Scale, up: Scale) -> list[str]:
    places = [(_x(across, x), _y(up, y), x, y) for x, y in line.points]
    drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y, *_ in places)
    dash = DASHES[number // 2 % len(DASHES)]
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    parts = [f'<polyline class="line s{number % COLOURS}" points="{drawn}"{dashed}/>']
    for x, y, *_, value in places:
        title = escape(f"{line.name}: {value:,.4g}")
        place = f'cx="{x:.1f}" cy="{y:.1f}" r="3"'
        parts.append(f'<circle class="dot s{number % COLOURS}" {place}><title>{title}</title></circle>')
    return parts


def _legend(number: int, name: str) -> list[str]:
    x, y = WIDTH - RIGHT + 14, TOP + 10 + number * LEGEND_STEP
    dash = DASHES[number // 2 % len(DASHES)]
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return [
        f'<line class="line s{number % COLOURS}" x1="{x}" x2="{x + 24}" y1="{y}" y2="{y}"{dashed}/>',
        f'<text class="name" x="{x + 30}" y="{y + 4}">{escape(name)}</text>',
    ]


def _x(scale: Scale, value: float) -> float:
    return LEFT + scale.share(value) * (WIDTH - LEFT - RIGHT)


def _y(scale: Scale, value: float) -> float:
    return HEIGHT - BOTTOM - scale.share(value) * (HEIGHT - TOP - BOTTOM)


# --- bars ------------------------------------------------------------------------------------------------------------


def stacked_bars(title: str, bars: Mapping[str, Mapping[str, float]], unit: str) -> str:
    """A bar for each name, made of the same parts each; part without value: left out. Its sum stands at its end."""
    parts_named = list(dict.fromkeys(part for bar in bars.values() for part in bar))
    scale = linear(unit, [sum(bar.values()) for bar in bars.values()], lambda value: f"{value:g}")
    head = 34
    bottom = head + len(bars) * BAR_STEP
    drawn: list[str] = []
    for number, part in enumerate(parts_named):
        x = BAR_LEFT + number * 130
        drawn.append(f'<rect class="bar s{number}" x="{x}" y="8" width="14" height="12"/>')
        drawn.append(f'<text class="name" x="{x + 20}" y="18">{escape(part)}</text>')
    for value, text in scale.ticks:
        place = _bar_x(scale, value)
        drawn.append(f'<line class="grid" x1="{place:.1f}" x2="{place:.1f}" y1="{head}" y2="{bottom}"/>')
        drawn.append(f'<text class="tick" x="{place:.1f}" y="{bottom + 16}" text-anchor="middle">{escape(text)}</text>')
    for row, (name, bar) in enumerate(bars.items()):
        drawn += _bar(name, bar, parts_named, head + row * BAR_STEP + (BAR_STEP - BAR_HEIGHT) / 2, scale, unit)
    middle = (BAR_LEFT + WIDTH - BAR_RIGHT) / 2
    drawn.append(f'<text class="axis" x="{middle}" y="{bottom + 34}" text-anchor="middle">{escape(unit)}</text>')
    return _svg(title, bottom + 42, drawn)


def _bar(name: str, bar: Mapping[str, float], parts: Sequence[str], y: float, scale: Scale, unit: str) -> list[str]:
    drawn = [f'<text class="name" x="{BAR_LEFT - 8}" y="{y + 13:.1f}" text-anchor="end">{escape(name)}</text>']
    begun = 0.0
    for number, part in enumerate(parts):
        if not (value := bar.get(part, 0.0)):
            continue
        x, width = _bar_x(scale, begun), _bar_x(scale, begun + value) - _bar_x(scale, begun)
        title = f"{name}, {part}: {value:,.3g} {unit}"
        drawn.append(
            f'<rect class="bar s{number}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{BAR_HEIGHT}">'
            f"<title>{escape(title)}</title></rect>"
        )
        if width > LEAST_WIDTH_OF_TEXT:
            drawn.append(
                f'<text class="inside" x="{x + width / 2:.1f}" y="{y + 13:.1f}" text-anchor="middle">{value:.3g}</text>'
            )
        begun += value
    drawn.append(f'<text class="tick" x="{_bar_x(scale, begun) + 6:.1f}" y="{y + 13:.1f}">{begun:.3g}</text>')
    return drawn


def _bar_x(scale: Scale, value: float) -> float:
    return BAR_LEFT + scale.share(value) * (WIDTH - BAR_LEFT - BAR_RIGHT)


def _svg(title: str, height: float, parts: Sequence[str]) -> str:
    size = f'viewBox="0 0 {WIDTH} {height:g}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(title)}">'
    return "\n".join([head, *parts, "</svg>"])
