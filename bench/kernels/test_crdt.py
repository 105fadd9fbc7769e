"""The CRDT kernels beside the plain model of the tests, a quick set in plain Python, and other CRDT libraries.

Everything that is compared is measured in the same run with the same trace; the table at its end has the ratios.
"""

import json
import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from stateside._speedups import crdt as kernel
from stateside.bench.kernels.crdt_rivals import drive, kernel_set, rivals
from stateside.bench.kernels.crdt_traces import (
    VALUE_BYTES,
    any_of,
    delta_batch,
    map_pair,
    set_pair,
    spelled,
    text_of,
    trace,
)
from stateside.bench.kernels.figures import FIGURES, KERNEL, Goal
from tests.models import crdt as model

BOTH = {KERNEL: kernel, "model": model}
SET_ELEMENTS, MAP_KEYS = 10_000, 3_000
DELTAS, CHANGES = 50, 20
OPERATIONS, POOL, REPLICAS, BATCH = 30_000, 10_000, 3, 100
SINGLE = 1000
ROUNDS = {KERNEL: 30, "model": 6}
MILLION, THOUSAND = 1_000_000, 1_000

PARTS = (0.0, 0.01, 0.5)
MERGES: dict[str, tuple[Any, int, float]]
MERGES = {f"merge ORSet of {SET_ELEMENTS:,}, {part:.0%} different": (set_pair, SET_ELEMENTS, part) for part in PARTS}
MERGES |= {f"merge ORMap of {MAP_KEYS:,}, {part:.0%} different": (map_pair, MAP_KEYS, part) for part in PARTS}
BATCHES = f"merge {DELTAS} deltas of {CHANGES} into ORSet of {SET_ELEMENTS:,}"
TRACE = f"add/remove of {POOL:,} strings, {REPLICAS} replicas, merge every {BATCH}"
DELTA_SIZE = f"delta of {BATCH} additions / payload"
STATE_SIZE = f"state of {SET_ELEMENTS:,} elements / payload"
WEIGHT = f"memory of ORSet of {MILLION:,}, per element beyond its payload"
ONE_DELTA = f"delta of one addition to {MILLION:,} elements"
ONE_TIME = f"one addition with its delta: {MILLION:,} elements / {THOUSAND:,}"


def single_operations(module: ModuleType) -> dict[str, tuple[Any, list[tuple[Any, ...]]]]:
    """Operation -> (function, arguments of each call)."""
    elements = [any_of(number) for number in range(SINGLE)]
    held = module.State(module.ORSET, 1)
    for element in elements:
        held.add(element)
    return {
        "ORSet.add": (module.State(module.ORSET, 1).add, [(element,) for element in elements]),
        "ORSet.contains": (held.contains, [(element,) for element in elements]),
        "GCounter.increment": (module.State(module.GCOUNTER, 1).increment, [(1,)] * SINGLE),
        "PNCounter.increment": (module.State(module.PNCOUNTER, 1).increment, [(-1,)] * SINGLE),
        "LWWRegister.set": (module.State(module.LWWREGISTER, 1).set, [(element, 1) for element in elements]),
        "Flag.enable": (module.State(module.FLAG, 1).enable, [()] * SINGLE),
        "Vote.vote": (module.State(module.VOTE, 1).vote, [(True,), (False,)] * (SINGLE // 2)),
    }


SINGLES = tuple(single_operations(model))

FIGURES.goals += [
    *((Goal(work, "s", 30), "model") for work in (*MERGES, BATCHES)),
    *((Goal(work, "s", 5), "model") for work in SINGLES),
    (Goal(TRACE, "s", 3), "plain delta log"),
    (Goal(TRACE, "s", 8), "loro"),
    (Goal(TRACE, "s", 8), "pycrdt"),
    (Goal(DELTA_SIZE, "", 1.3, at_least=False), ""),
    (Goal(STATE_SIZE, "", 1.5, at_least=False), ""),
    (Goal(WEIGHT, "bytes", 24, at_least=False), ""),
    (Goal(ONE_DELTA, "bytes", 4 * VALUE_BYTES, at_least=False), ""),
    (Goal(ONE_TIME, "", 3, at_least=False), ""),
]


@pytest.mark.parametrize("who", BOTH)
@pytest.mark.parametrize("work", MERGES)
def test_merge_of_full_states(benchmark: BenchmarkFixture, work: str, who: str) -> None:
    pair, size, part = MERGES[work]
    benchmark.group = work
    mine, theirs = pair(BOTH[who], size, part)

    def setup() -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (BOTH[who].State.decode(mine, 9),), {}

    changed = benchmark.pedantic(lambda state: state.merge(theirs), setup=setup, rounds=ROUNDS[who], warmup_rounds=1)  # type: ignore[no-untyped-call]
    assert changed == (part > 0)
    FIGURES.time(work, who, benchmark, 1)


@pytest.mark.benchmark(group=BATCHES)
@pytest.mark.parametrize("who", BOTH)
def test_merge_of_deltas(benchmark: BenchmarkFixture, who: str) -> None:
    mine, deltas = delta_batch(BOTH[who], SET_ELEMENTS, DELTAS, CHANGES)

    def setup() -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (BOTH[who].State.decode(mine, 9),), {}

    def merge(state: Any) -> bool:
        return all([state.merge(delta) for delta in deltas])

    assert benchmark.pedantic(merge, setup=setup, rounds=ROUNDS[who] // 2, warmup_rounds=1)  # type: ignore[no-untyped-call]
    FIGURES.time(BATCHES, who, benchmark, DELTAS)


@pytest.mark.parametrize("who", BOTH)
@pytest.mark.parametrize("work", SINGLES)
def test_single_operation(benchmark: BenchmarkFixture, work: str, who: str) -> None:
    benchmark.group = f"{SINGLE} times {work}"

    def setup() -> tuple[tuple[Any, ...], dict[str, Any]]:
        return single_operations(BOTH[who])[work], {}

    def repeat(operation: Any, calls: list[tuple[Any, ...]]) -> Any:
        for arguments in calls:
            last = operation(*arguments)
        return last

    benchmark.pedantic(repeat, setup=setup, rounds=20, warmup_rounds=2)  # type: ignore[no-untyped-call]
    FIGURES.time(work, who, benchmark, SINGLE)


@pytest.mark.benchmark(group=TRACE)
@pytest.mark.parametrize("who", [KERNEL, *rivals()])
def test_trace(benchmark: BenchmarkFixture, who: str) -> None:
    rounds = spelled(trace(OPERATIONS, POOL, REPLICAS, BATCH), any_of if who == KERNEL else text_of)
    maker = kernel_set() if who == KERNEL else rivals()[who]

    def setup() -> tuple[tuple[Any, ...], dict[str, Any]]:
        replicas = [maker(number) for number in range(1, REPLICAS + 1)]
        return (replicas, rounds), {}

    made: list[Any] = []

    def run(replicas: list[Any], rounds: list[Any]) -> None:
        made[:] = [replicas, drive(replicas, rounds)]

    benchmark.pedantic(run, setup=setup, rounds=5, warmup_rounds=1)  # type: ignore[no-untyped-call]
    replicas, sizes = made
    assert replicas[0].members() == replicas[1].members() == replicas[2].members() == expected(rounds)
    benchmark.extra_info["delta bytes"] = sorted(sizes)[len(sizes) // 2]
    benchmark.extra_info["full bytes"] = len(replicas[0].whole())
    FIGURES.time(TRACE, who, benchmark, OPERATIONS)


def expected(rounds: list[Any]) -> set[Any]:
    """Members after rounds of which none is concurrent with another."""
    members: set[Any] = set()
    for _, operations in rounds:
        for adding, element in operations:
            (members.add if adding else members.discard)(element)
    return members


def test_sizes(benchmark: BenchmarkFixture) -> None:
    state = kernel.State(kernel.ORSET, 1)
    for number in range(BATCH):
        state.add(any_of(number))
    delta = state.take_delta()
    for number in range(BATCH, SET_ELEMENTS):
        state.add(any_of(number))
    encoded = benchmark(state.encode)
    FIGURES.size(DELTA_SIZE, len(delta) / (BATCH * VALUE_BYTES))
    FIGURES.size(STATE_SIZE, len(encoded) / (SET_ELEMENTS * VALUE_BYTES))
    assert len(delta) <= 1.3 * BATCH * VALUE_BYTES
    assert len(encoded) <= 1.5 * SET_ELEMENTS * VALUE_BYTES


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_million_elements(benchmark: BenchmarkFixture) -> None:
    large = benchmark.pedantic(in_own_process, (MILLION,), rounds=1)  # type: ignore[no-untyped-call]
    small = in_own_process(THOUSAND)
    FIGURES.size(WEIGHT, large["weight"] - VALUE_BYTES)
    FIGURES.size(ONE_DELTA, large["delta_bytes"])
    FIGURES.size(ONE_TIME, large["seconds"] / small["seconds"])
    assert large["delta_bytes"] <= small["delta_bytes"] + 8


def in_own_process(elements: int) -> dict[str, float]:
    command = [sys.executable, "-m", "stateside.bench.kernels.crdt_million", str(elements)]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return found
