"""Ends the run with the table of what the CRDT kernels took beside others."""

import pytest

from stateside.bench.kernels.crdt_rivals import rivals
from stateside.bench.kernels.figures import FIGURES, print_table

REMARKS = [
    "model: tests/models/crdt.py, written to be read; each of its joins looks at every entry, also for a small delta.",
    "plain delta log: an observed-remove set in plain Python that needs each sender's deltas in order, none lost.",
    "loro, pycrdt: maps in which the last writer wins, with history; no observed-remove sets.",
]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if FIGURES.rows():
        missing = [name for name in ("loro", "pycrdt") if name not in rivals()]
        print_table(FIGURES, REMARKS + [f"{name}: not installed, left out" for name in missing])
