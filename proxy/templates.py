"""Path templates of google.api.http, as regular expressions.

    Template = "/" Segments [ ":" Literal ]        Segment  = "**" | "*" | Variable | Literal
    Segments = Segment { "/" Segment }             Variable = "{" FieldPath [ "=" Segments ] "}"

What matches is the reference proxy's (spec http 4): a literal is a whole segment and may be empty, `*` takes what has
neither slash nor colon, `**` takes the rest and stands last. Templates come from the user function, so whatever is
wrong with one is told with its place. Paths are compared as they came, in one canonical spelling (`canonical`), and
captured values are decoded afterwards: an encoded slash or colon is data.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes

UNRESERVED = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~"
PATH_CHARACTERS = "/!$&'()*+,;=:@%"  # beside the unreserved ones; an escape stays one
SINGLE = "[^/:]*"
MULTI = ".*"

_LITERAL = re.compile(r"[^*{}/:\n]*")
_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_PLAIN = re.compile(rb"[A-Za-z0-9/._~-]*")  # canonical as it is
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")


class TemplateError(ValueError):
    """The template is wrong; the text says where, in the reference proxy's words."""


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template. `fields` are the field paths of its variables, in order of their captures."""

    text: str
    pattern: re.Pattern[str]
    fields: tuple[str, ...]
    literal: str | None  # the only path that matches, if there is but one

    def match(self, path: str) -> tuple[str, ...] | None:
        """What the variables capture from a canonical path, not decoded; None when it does not match."""
        found = self.pattern.fullmatch(path)
        return found.groups() if found is not None else None


def canonical(path: bytes) -> str:
    """The spelling in which paths are compared: unreserved characters plain, escapes in capitals. ValueError when it
    has a malformed escape or is not ASCII."""
    if _PLAIN.fullmatch(path):
        return path.decode("ascii")
    if _BAD_ESCAPE.search(path) or not path.isascii():
        raise ValueError("the path has a malformed percent-encoding")
    return _ESCAPE.sub(_canonical_escape, path).decode("ascii")


def _canonical_escape(escape: re.Match[bytes]) -> bytes:
    byte = bytes((int(escape[1], 16),))
    return byte if byte in UNRESERVED else escape[0].upper()


def decode(captured: str) -> str:
    """The value of a variable; a plus is a plus. ValueError when it is not UTF-8."""
    return unquote_to_bytes(captured).decode() if "%" in captured else captured


def parse(text: str) -> Template:
    """Raises TemplateError."""
    return _Parser(text).template()


class _Parser:
    """Reads a template from left to right, without ever going back."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.fields: list[tuple[str, int]] = []  # with the column of the opening brace
        self.multi: list[int] = []  # columns of `**`
        self.segments: list[int] = []  # columns of all segments that match something
        self.plain = True

    def template(self) -> Template:
        if not self.text.startswith("/"):
            raise self.error("Template must start with a slash")
        pattern = "".join("/" + segment for segment in self.separated(in_variable=False))
        if self.peek() == ":":
            self.at += 1
            pattern += ":" + self.literal()
        if self.at < len(self.text):
            raise self.error("Expected '/', ':', path literal character, or end of input")
        self.check_multi()
        self.check_unique()
        names = tuple(name for name, _ in self.fields)
        literal = _spelled(self.text) if self.plain else None
        return Template(self.text, re.compile(pattern, re.DOTALL), names, literal)

    def separated(self, in_variable: bool) -> list[str]:
        """Segments up to whatever is no slash. At the top each has its slash before it, in a variable between."""
        found = [self.segment(in_variable)] if in_variable else []
        while self.peek() == "/":
            self.at += 1
            found.append(self.segment(in_variable))
        return found

    def segment(self, in_variable: bool) -> str:
        start = self.at + 1
        if self.peek() == "{":
            if in_variable:
                raise self.error("Variable segments may not be nested")
            return self.variable()
        self.segments.append(start)
        if self.peek() != "*":
            return self.literal()
        self.plain = False
        if self.text.startswith("**", self.at):
            self.multi.append(start)
            self.at += 2
            return MULTI
        self.at += 1
        return SINGLE

    def variable(self) -> str:
        column = self.at + 1
        self.plain = False
        self.at += 1
        names = [self.identifier()]
        while self.peek() == ".":
            self.at += 1
            names.append(self.identifier())
        self.fields.append((".".join(names), column))
        if self.peek() == "=":
            self.at += 1
            pattern = "/".join(self.separated(in_variable=True))
        else:
            self.segments.append(column)
            pattern = SINGLE
        if self.peek() != "}":
            raise self.error("Unclosed variable or unexpected character")
        self.at += 1
        return f"({pattern})"

    def identifier(self) -> str:
        found = _IDENTIFIER.match(self.text, self.at)
        if found is None:
            raise self.error(f"Expected identifier first letter, but got '{self.peek()}'")
        self.at = found.end()
        return found[0]

    def literal(self) -> str:
        found = _LITERAL.match(self.text, self.at)
        assert found is not None  # it may be empty
        self.at = found.end()
        return re.escape(_spelled(found[0]))

    def check_multi(self) -> None:
        for column in self.multi:
            if column != self.segments[-1]:
                text = "Multi segment matchers (**) may only be in the last position of the template"
                raise self.error(text, column)

    def check_unique(self) -> None:
        names: set[str] = set()
        for name, column in self.fields:
            if name in names:
                raise self.error("Duplicate path in template", column + 1)
            names.add(name)

    def peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def error(self, problem: str, column: int = 0) -> TemplateError:
        column = column or self.at + 1
        place = "end of input" if column >= len(self.text) > 0 else f"character {column}"
        return TemplateError(f"{problem} at {place} of '{self.text}'")


def _spelled(literal: str) -> str:
    """A literal in the spelling of `canonical`; a percent sign that starts no escape stands for itself."""
    escaped = re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", literal)
    return canonical(quote(escaped, safe=PATH_CHARACTERS).encode())
