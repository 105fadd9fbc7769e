"""How the text of a setting becomes a value: whole numbers, durations, sizes, choices.

Every kind parses what a person may write in stateside.toml, in the environment or on the command line, refuses what is
impossible with a `ValueError` whose text says what is allowed, and shows a value the way it could have been written.
`config.py` holds the table of settings that uses these kinds.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

_NUMBER = r"(?P<number>\d+(?:\.\d+)?)"
_DURATION = re.compile(_NUMBER + r"\s*(?P<unit>ms|s|m|h|d)?")
_SIZE = re.compile(_NUMBER + r"\s*(?P<unit>[kmgt])?(?:i?b)?", re.IGNORECASE)

_MAX_NAMES = 256

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}

TRUE_TEXTS = ("true", "yes", "on", "1")
FALSE_TEXTS = ("false", "no", "off", "0")


class Kind(Protocol):
    """One sort of value."""

    def parse(self, raw: object) -> Any:
        """The value of what was written (text, or a number or boolean of TOML). Raises ValueError: what is allowed."""

    def show(self, value: Any) -> str:
        """The value as one would write it."""

    def allowed(self) -> str:
        """What is allowed, as the end of the sentence "must be ..."."""


@dataclass(frozen=True)
class Text:
    """Any text on one line; `empty` tells whether it may be left empty."""

    empty: bool = False
    pattern: str = ""
    meaning: str = "a text"

    def parse(self, raw: object) -> str:
        if not isinstance(raw, str) or "\n" in raw or (not raw and not self.empty):
            raise ValueError(self.allowed())
        if raw and self.pattern and not re.fullmatch(self.pattern, raw):
            raise ValueError(self.allowed())
        return raw

    def show(self, value: str) -> str:
        return value

    def allowed(self) -> str:
        return self.meaning + (" or empty" if self.empty else "")


@dataclass(frozen=True)
class Names:
    """A list of words, with commas between them or as an array of TOML; it may be empty. Each once, in order."""

    pattern: str
    meaning: str
    lower: bool = False  # case does not matter

    def parse(self, raw: object) -> tuple[str, ...]:
        words = [word.strip() for word in raw.split(",") if word.strip()] if isinstance(raw, str) else raw
        if not isinstance(words, list) or len(words) > _MAX_NAMES or not all(map(self.fits, words)):
            raise ValueError(self.allowed())
        return tuple(dict.fromkeys(word.lower() if self.lower else word for word in words))

    def fits(self, word: object) -> bool:
        """Whether it may be in the list."""
        return isinstance(word, str) and re.fullmatch(self.pattern, word) is not None

    def show(self, value: tuple[str, ...]) -> str:
        return ",".join(value)

    def allowed(self) -> str:
        return f"a list, with commas, of {self.meaning}"


@dataclass(frozen=True)
class Addresses(Names):
    """A list of host:port."""

    pattern: str = r"(?:[^\s/:\[\],]+|\[[0-9a-fA-F:.]+\]):(\d{1,5})"
    meaning: str = "addresses host:port"

    def fits(self, word: object) -> bool:
        return Names.fits(self, word) and len(str(word)) <= 255 and 1 <= int(str(word).rpartition(":")[2]) <= 65535


@dataclass(frozen=True)
class Choice:
    """One of a few words."""

    words: tuple[str, ...]

    def parse(self, raw: object) -> str:
        if not isinstance(raw, str) or raw.lower() not in self.words:
            raise ValueError(self.allowed())
        return raw.lower()

    def show(self, value: str) -> str:
        return value

    def allowed(self) -> str:
        return "one of " + ", ".join(self.words)


@dataclass(frozen=True)
class Flag:
    """True or false."""

    def parse(self, raw: object) -> bool:
        if isinstance(raw, bool):
            return raw
        if isinstance(raw, str) and raw.lower() in TRUE_TEXTS + FALSE_TEXTS:
            return raw.lower() in TRUE_TEXTS
        raise ValueError(self.allowed())

    def show(self, value: bool) -> str:
        return "true" if value else "false"

    def allowed(self) -> str:
        return "true or false"


@dataclass(frozen=True)
class Whole:
    """A whole number within a range."""

    low: int
    high: int

    def parse(self, raw: object) -> int:
        if isinstance(raw, str) and re.fullmatch(r"\d{1,18}", raw.replace("_", "")):
            raw = int(raw)
        if not isinstance(raw, int) or isinstance(raw, bool) or not self.low <= raw <= self.high:
            raise ValueError(self.allowed())
        return raw

    def show(self, value: int) -> str:
        return str(value)

    def allowed(self) -> str:
        return f"a whole number from {self.low} to {self.high}"


@dataclass(frozen=True)
class Fraction:
    """A number with a fraction, within a range."""

    low: float
    high: float

    def parse(self, raw: object) -> float:
        value = _as_float(raw)
        if value is None or not self.low <= value <= self.high:
            raise ValueError(self.allowed())
        return value

    def show(self, value: float) -> str:
        return f"{value:g}"

    def allowed(self) -> str:
        return f"a number from {self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Duration:
    """A span of time in seconds; `zero` says what 0 means, empty if 0 is not allowed."""

    low: float
    high: float
    zero: str = ""

    def parse(self, raw: object) -> float:
        value = _scaled(raw, _DURATION, _SECONDS)
        if value is None or not (self.low <= value <= self.high or (value == 0 and self.zero)):
            raise ValueError(self.allowed())
        return value

    def show(self, value: float) -> str:
        return show_duration(value)

    def allowed(self) -> str:
        span = f"a duration from {show_duration(self.low)} to {show_duration(self.high)} such as 30s, 100ms or 1m"
        return span + (f", or 0 ({self.zero})" if self.zero else "")


@dataclass(frozen=True)
class Size:
    """A number of bytes, with units of 1024."""

    low: int
    high: int

    def parse(self, raw: object) -> int:
        value = _scaled(raw, _SIZE, _BYTES)
        if value is None or value != int(value) or not self.low <= value <= self.high:
            raise ValueError(self.allowed())
        return int(value)

    def show(self, value: int) -> str:
        return show_size(value)

    def allowed(self) -> str:
        return f"a size from {show_size(self.low)} to {show_size(self.high)} such as 512K, 12M or 1G"


def show_duration(seconds: float) -> str:
    """30.0 -> "30s", 0.1 -> "100ms"; the largest unit that leaves a whole number."""
    for unit, scale in reversed(_SECONDS.items()):
        count = seconds / scale
        if count >= 1 and math.isclose(count, round(count), rel_tol=1e-9):
            return f"{round(count)}{unit}"
    return f"{seconds:g}s"


def show_size(size_bytes: int) -> str:
    """12582912 -> "12M"; the largest unit that leaves a whole number."""
    for unit, scale in reversed(_BYTES.items()):
        if size_bytes >= scale and size_bytes % scale == 0:
            return f"{size_bytes // scale}{unit.upper()}"
    return str(size_bytes)


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint for a word nobody knows: "; did you mean x?" or nothing."""
    from difflib import get_close_matches  # only needed for an error text

    found = get_close_matches(word, list(known), n=1, cutoff=0.7)
    return f"; did you mean {found[0]}?" if found else ""


def _as_float(raw: object) -> float | None:
    if isinstance(raw, str):
        raw = float(raw) if re.fullmatch(_NUMBER, raw) else None
    if isinstance(raw, bool) or not isinstance(raw, int | float) or not math.isfinite(raw):
        return None
    return float(raw)


def _scaled(raw: object, pattern: re.Pattern[str], units: dict[str, Any]) -> float | None:
    """A plain number, or a number with a unit."""
    if not isinstance(raw, str):
        return _as_float(raw)
    match = pattern.fullmatch(raw.strip())
    if match is None:
        return None
    unit = match["unit"]
    return float(match["number"]) * (units[unit.lower()] if unit else 1)
