"""nghttp2's load generator, for what is no gRPC: plain HTTP/2 and HTTP/1.1."""

from __future__ import annotations

import re
import resource
import shutil
from collections.abc import Sequence

from stateside.bench.processes import Process, ProcessFailed, Stage
from stateside.bench.usage import cpu_of_tree, memory_of_tree
from stateside.bench.works import MANY_TIMEOUT, Figures, MeasurementFailed

RATE = re.compile(r"finished in [\d.]+\w+, ([\d.]+) req/s")
TAIL_CHARS = 500


async def h2load(stage: Stage, arguments: Sequence[object], count: int, **watched: Process) -> Figures:
    """So many requests, each answered with 2xx, or MeasurementFailed. The figures are named as those of works.load."""
    program = installed("h2load")
    before = {name: cpu_of_tree(process.pid) for name, process in watched.items()}
    own = children_cpu_seconds()
    command = [program, "-n", str(count), "-t", "1", *map(str, arguments)]
    said = "\n".join(await output(await stage.start("h2load", command)))
    rate = RATE.search(said)
    if rate is None or f"{count} succeeded" not in said or f"{count} 2xx" not in said:
        raise MeasurementFailed(f"h2load did not get {count} answers: {said[-TAIL_CHARS:]}")
    result = {
        "calls": count,
        "calls_per_s": float(rate[1]),
        "load_cpu_us": (children_cpu_seconds() - own) / count * 1e6,
    }
    for name, process in watched.items():
        result[f"{name}_cpu_us"] = (cpu_of_tree(process.pid) - before[name]) / count * 1e6
        result[f"{name}_mb"] = memory_of_tree(process.pid) / 1e6
    return result


def installed(program: str) -> str:
    """Its path, or MeasurementFailed."""
    path = shutil.which(program, path=None) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")
    if path is None:
        raise MeasurementFailed(f"{program} is missing; scripts/setup-bench installs it")
    return path


def children_cpu_seconds() -> float:
    """Of all processes that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


async def output(process: Process) -> list[str]:
    """Everything that a process says until it ends by itself."""
    lines = []
    while True:
        try:
            lines.append(await process.line(MANY_TIMEOUT))
        except ProcessFailed:
            return lines
