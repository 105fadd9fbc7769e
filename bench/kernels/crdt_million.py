"""A set of so many elements in a process of its own: what it weighs, and what one more addition takes.

Prints JSON: bytes of memory per element, bytes of a delta of one addition, and seconds of an addition with its delta.
"""

import gc
import json
import sys
import time
from pathlib import Path

from stateside._speedups import crdt
from stateside.bench.kernels.crdt_traces import any_of

ADDITIONS = 200


def resident() -> int:
    """Bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise OSError("no VmRSS in /proc/self/status")


def main(elements: int) -> None:
    gc.collect()
    before = resident()
    state = crdt.State(crdt.ORSET, 1)
    for number in range(elements):
        state.add(any_of(number))
        if not number % 1000:
            state.take_delta()
    state.take_delta()
    gc.collect()
    weight = (resident() - before) / elements
    sizes, times = [], []
    for number in range(elements, elements + ADDITIONS):
        element = any_of(number)
        start = time.perf_counter()
        state.add(element)
        delta = state.take_delta()
        times.append(time.perf_counter() - start)
        sizes.append(len(delta))
    print(json.dumps({"weight": weight, "delta_bytes": max(sizes), "seconds": sorted(times)[ADDITIONS // 2]}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
