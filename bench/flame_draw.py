"""A flame graph: each function as wide as its share of all samples, above the one that called it.

The drawing needs nothing from elsewhere: a browser shows the whole of a name when the pointer rests on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape

from stateside.bench.flame_stacks import Stacks

WIDTH, ROW, HEAD, FOOT = 1200, 17, 40, 34
LEAST_WIDTH = 1.0  # of a drawn frame
LETTER = 6.6
COLOURS = ("#f2b279", "#8fc1e8", "#9ad6b5", "#e3a7cf", "#e6d27a", "#b9aef0", "#f09c91", "#c3cad2", "#a8dbe0", "#d9c3a5")


@dataclass(slots=True)
class Frame:
    """A function in one place of the tree. `count`: samples in it or in what it called."""

    name: str
    place: str
    count: int = 0
    called: dict[str, Frame] = field(default_factory=dict)


def flame_graph(title: str, stacks: Stacks) -> str:
    root = tree(stacks)
    drawn = list(boxes(root, 0, 0.0, WIDTH / max(1, root.count)))
    depth = max((level for level, *_ in drawn), default=0)
    places = list(dict.fromkeys(frame.place for _, _, _, frame in drawn))
    colours = {place: COLOURS[number % len(COLOURS)] for number, place in enumerate(places)}
    height = HEAD + (depth + 1) * ROW + FOOT
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">\n'
        f"<title>{escape(title)}</title>\n<style>svg {{ background: #ffffff; }} text {{ fill: #1c2430; "
        "font: 11px monospace; } .head { font: 600 14px sans-serif; } .key { font: 12px sans-serif; }</style>\n"
        f'<text class="head" x="8" y="22">{escape(title)}</text>'
    )
    parts = [box(level, x, width, frame, colours, root.count, height) for level, x, width, frame in drawn]
    return "\n".join([head, *parts, *legend(colours, height), "</svg>"]) + "\n"


def tree(stacks: Stacks) -> Frame:
    root = Frame("all", "all")
    for stack, count in stacks.items():
        frame = root
        frame.count += count
        for text in stack:
            if text not in frame.called:
                name, _, place = text.rpartition("|")
                frame.called[text] = Frame(name, place)
            frame = frame.called[text]
            frame.count += count
    return root


def boxes(frame: Frame, level: int, x: float, scale: float) -> Iterator[tuple[int, float, float, Frame]]:
    """Level, left end and width of each frame that is wide enough to be seen."""
    waiting = [(frame, level, x)]
    while waiting:
        frame, level, x = waiting.pop()
        if frame.count * scale < LEAST_WIDTH:
            continue
        yield level, x, frame.count * scale, frame
        for each in sorted(frame.called.values(), key=lambda called: called.name):
            waiting.append((each, level + 1, x))
            x += each.count * scale


def box(level: int, x: float, width: float, frame: Frame, colours: dict[str, str], whole: int, height: float) -> str:
    y = height - FOOT - (level + 1) * ROW
    share = f"{frame.name} ({frame.place}): {frame.count / whole:.1%}"
    letters = int((width - 4) / LETTER)
    text = frame.name if len(frame.name) <= letters else frame.name[: max(0, letters - 1)] + "…"
    shown = f'<text x="{x + 3:.1f}" y="{y + 12}">{escape(text)}</text>' if letters > 3 else ""
    return (
        f'<g><title>{escape(share)}</title><rect x="{x:.1f}" y="{y}" width="{max(0.5, width - 0.5):.1f}" '
        f'height="{ROW - 1}" fill="{colours[frame.place]}"/>{shown}</g>'
    )


def legend(colours: dict[str, str], height: float) -> list[str]:
    parts, x = [], 8.0
    for place, colour in colours.items():
        if place in ("all", "thread"):
            continue
        parts.append(f'<rect x="{x:.0f}" y="{height - 22}" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text class="key" x="{x + 16:.0f}" y="{height - 12}">{escape(place)}</text>')
        x += 28 + len(place) * LETTER
    return parts
