"""The table of the TCK's scenarios in docs/compatibility.md is whole, and the tests that it names are there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "compatibility.md").read_text()
SCENARIOS = {
    "Proxy": ["discovery", "reflection"],
    "Actions": ["discovery", *map(str, range(1, 43))],
    "Event sourced": [*map(str, range(1, 26))],
    "Value entities": [*map(str, range(1, 24))],
    "Event logs": [*map(str, range(1, 4))],
    "CRDTs": [
        f"{letter}{number}"
        for letter, count in zip("ZGNUOWFVMXECTY", (2, 8, 8, 8, 8, 9, 8, 8, 8, 7, 2, 1, 5, 6), strict=True)
        for number in range(1, count + 1)
    ],
}
ROW = re.compile(r"^\| ([A-Z][A-Za-z ]+?):? (\d+-\d+|[A-Z]?\d+|[a-z]+) \| (.*) \|$", re.M)
TEST = re.compile(r"`([^`:]+)::(\w+)`")


def section(heading: str) -> str:
    _, found, rest = PAGE.partition(f"\n## {heading}\n")
    assert found, f"docs/compatibility.md has no section {heading!r}"
    return rest.partition("\n## ")[0]


TABLE = [(kind, which, tests) for kind, which, tests in ROW.findall(section("The scenarios of the TCK"))]
ROWS = pytest.mark.parametrize(("kind", "which", "tests"), TABLE, ids=[f"{kind} {which}" for kind, which, _ in TABLE])


def expanded(which: str) -> list[str]:
    """`3-5` are three scenarios."""
    first, dash, last = which.partition("-")
    return [str(number) for number in range(int(first), int(last) + 1)] if dash else [which]


@cache
def names_in(path: Path) -> set[str]:
    return {
        each.name
        for each in ast.parse(path.read_text()).body
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) and each.name.startswith("test_")
    }


def test_every_scenario_stands_in_the_table_once_and_in_order() -> None:
    listed: dict[str, list[str]] = {}
    for kind, which, _ in TABLE:
        listed.setdefault(kind, []).extend(expanded(which))
    assert listed == SCENARIOS


def test_no_line_of_the_table_is_overlooked() -> None:
    lines = [line for line in section("The scenarios of the TCK").splitlines() if line.startswith("|")]
    assert len(TABLE) == len(lines) - 2  # heading and rule


@ROWS
def test_the_tests_of_a_scenario_exist(kind: str, which: str, tests: str) -> None:
    named = TEST.findall(tests)
    assert named
    for file, name in named:
        assert name in names_in(ROOT / file), f"{file} has no test {name}"
