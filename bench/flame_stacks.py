"""Samples folded into stacks: what perf and py-spy say, in one shape, with names that can be read.

A stack is a tuple of frames from the root to where the processor was; folding counts equal ones. A frame is written
`name|place`, place being the part of the program that it belongs to.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import PurePath

Stack = tuple[str, ...]
Stacks = Counter[Stack]

_FRAME = re.compile(r"\s+[0-9a-f]+ (?P<symbol>.*) \((?P<dso>[^()]*|\[[^\]]*\].*)\)$")
_MANGLED = re.compile(r"__pyx_[a-z]+_")
_PART = re.compile(r"(\d+)")
_OFFSET = re.compile(r"\+0x[0-9a-f]+$")

# Part of the program by what is in the name of the file that a function is in, the first that fits.
PLACES = (
    ("kernel", "the kernel: sockets, wake-ups"),
    ("nghttp2", "nghttp2: frames, header compression"),
    ("uvloop", "uvloop"),
    ("/h2.", "transport (compiled)"),
    ("/wire.", "protobuf scanning (compiled)"),
    ("/log", "journal (compiled)"),
    ("lmdb", "journal (compiled)"),
    ("_speedups", "other compiled parts"),
    ("python", "Python"),
    ("libc", "the C library: memory, locks"),
    ("vdso", "the C library: memory, locks"),
    ("ld-linux", "the C library: memory, locks"),
)
OTHER = "other"
UNKNOWN = "[unknown]"
LOOP = ("uv_run", "uv__io_poll")  # what is below them is how the program came to its event loop
INTERPRETER = "Python functions|Python"


def fold_perf(lines: Iterable[str]) -> Stacks:
    """Of `perf script -F comm,ip,sym,dso`: a line for the thread, then its frames from the innermost, then an empty
    line."""
    stacks: Stacks = Counter()
    frames: list[str] = []
    thread = ""
    for line in lines:
        line = line.rstrip("\n")
        if not line.strip():
            if thread and frames:
                stacks[(thread, *simplified(frames[::-1]))] += 1
            thread, frames = "", []
        elif line[0].isspace():
            frames.append(_frame(line))
        else:
            thread = f"{line.strip()}|thread"
    if thread and frames:
        stacks[(thread, *simplified(frames[::-1]))] += 1
    return stacks


def _frame(line: str) -> str:
    found = _FRAME.match(line)
    if found is None:
        return f"{UNKNOWN}|{OTHER}"
    symbol = _OFFSET.sub("", found["symbol"])
    return f"{readable(symbol)}|{place_of(found['dso'])}"


def simplified(frames: list[str]) -> list[str]:
    """From the event loop on, each run of the interpreter's own functions as one frame. Functions in Python have no
    names for perf; the interpreter's say nothing but that it calls itself, except for the innermost."""
    names = [frame.rpartition("|")[0] for frame in frames]
    begun = max((place for place, name in enumerate(names) if name in LOOP), default=-1) + 1
    kept: list[str] = []
    for frame in frames[begun:]:
        is_interpreter = frame.endswith("|Python")
        if not is_interpreter or not kept or kept[-1] != INTERPRETER:
            kept.append(INTERPRETER if is_interpreter else frame)
    return [*kept, frames[-1]] if kept and kept[-1] == INTERPRETER else kept or frames[-1:]


def fold_raw(lines: Iterable[str]) -> Stacks:
    """Of py-spy's raw format: frames from the root, semicolons between them, then how often."""
    stacks: Stacks = Counter()
    for line in lines:
        stack, _, count = line.rpartition(" ")
        if stack:
            stacks[tuple(_spied(frame) for frame in stack.split(";"))] += int(count)
    return stacks


def _spied(frame: str) -> str:
    name, _, where = frame.partition(" (")
    return f"{readable(name)}|{place_of(where or 'python')}"


def place_of(file: str) -> str:
    """Folders matter only near the file: others may be called anything."""
    near = "/".join(["", *PurePath(file.strip("()")).parts[-2:]])
    return next((place for part, place in PLACES if part in near), OTHER)


def readable(symbol: str) -> str:
    """A function of Cython by its own name: module, class, function. Its names are written behind their lengths, and
    digits before the last one only number it."""
    found = _MANGLED.match(symbol)
    if found is None:
        return symbol
    rest, parts = symbol[found.end() :], []
    while (size := _PART.match(rest)) is not None and size.end() + int(size[1]) < len(rest):
        start, end = size.end(), size.end() + int(size[1])
        if rest[end] != "_":
            break
        parts.append(rest[start:end])
        rest = rest[end + 1 :]
    rest = rest.lstrip("0123456789")
    known = [part for part in parts if part not in ("stateside", "_speedups")]
    return ".".join([*known, rest]) or symbol


def split(stacks: Stacks) -> dict[str, float]:
    """Share of each part of the program, by where the processor was, the largest first."""
    whole = sum(stacks.values())
    parts: Counter[str] = Counter()
    for stack, count in stacks.items():
        parts[stack[-1].rpartition("|")[2]] += count
    return {name: count / whole for name, count in parts.most_common()}
