"""`make demo-chat`: three nodes, a kill -9 of one, and the whole chat on all of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_chat_survives_a_kill_9_of_one_of_three_nodes(tmp_path: Path, workers: str) -> None:
    program = [sys.executable, "-m", "examples.chat.demo"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "STATESIDE_WORKERS": workers}
    done = subprocess.run(program, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert [f"node {number} has the whole chat: 7 messages, 3 people" in lines for number in (1, 2, 3)] == [True] * 3
    assert lines.index("kill -9 of the proxy of node 3") < lines.index(
        "node 3 is back, and carol was told what she had missed"
    )
    assert lines[-1] == "the chat is whole on all three"


def test_make_knows_the_demo() -> None:
    assert subprocess.run(["make", "-n", "demo-chat"], cwd=ROOT, capture_output=True, timeout=60).returncode == 0
