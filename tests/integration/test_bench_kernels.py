"""The benchmarks of the kernels work: each does its work once, and checks it; nothing is timed here."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
# The CRDTs' plain model is slow and has tests of its own; a busy disk is nothing to wait for.
CHOSEN = "not model and not disk"


def test_each_benchmark_does_its_work() -> None:
    command = [sys.executable, "-m", "pytest", "bench/kernels", "--benchmark-disable", "-k", CHOSEN]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout
