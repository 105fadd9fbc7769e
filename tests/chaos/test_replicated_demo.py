"""`make replicated`: every acknowledged command is there once after the machine with the journal is gone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from examples.shopping_cart.ledger import Ledger

ROOT = Path(__file__).parents[2]


def play(folder: Path, *arguments: str) -> list[str]:
    program = [sys.executable, "-m", "examples.shopping_cart.replicated", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        program, cwd=folder, env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    log = folder / "data" / "replicated" / "proxy.log"
    assert done.returncode == 0, done.stdout + done.stderr + (log.read_text()[-5000:] if log.exists() else "")
    return [line.split(" s  ", 1)[-1] for line in done.stdout.splitlines()]


def test_a_proxy_starts_from_postgres_with_every_acknowledged_command(tmp_path: Path) -> None:
    lines = play(tmp_path, "--mode", "sync", "--seconds", "0.3")
    order = [
        "kill -9 of worker-1; the supervisor starts another one",
        "kill -9 of Postgres",
        "Postgres is back",
        "kill -9 of everything, rm -r ./data/replicated/sync",
        "a proxy starts from Postgres",
    ]
    assert [line for line in lines if line in order] == order
    assert lines[-1] == "every acknowledged command was there once"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_both_modes_in_full_length(tmp_path: Path) -> None:
    lines = play(tmp_path)
    assert sum(line.endswith("each is there once") for line in lines) == 2


def test_the_ledger_finds_what_is_lost_doubled_or_foreign() -> None:
    ledger = Ledger(sent={"a", "b", "c", "unknown"}, acknowledged={"a", "b", "c"})
    assert ledger.problems(Counter(a=1, b=1, c=1)) == []
    assert ledger.problems(Counter(a=1, b=1, c=1, unknown=1)) == []
    assert ledger.problems(Counter(a=1, b=2, unknown=2, z=1)) == [
        "acknowledged and lost: c",
        "done 2 times: b",
        "done 2 times: unknown",
        "nobody sent it: z",
    ]


def test_make_knows_the_demo() -> None:
    assert subprocess.run(["make", "-n", "replicated"], cwd=ROOT, capture_output=True, timeout=60).returncode == 0
