"""Who owns an entity, and who owns each shard, beside the plain model of the tests and a hash ring of others.

uhashring answers the first question with a binary search in a ring of points; it knows no bounds of loads, so that its
nodes own unlike parts.
"""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from stateside._speedups.ring import ShardHash, assign
from stateside.bench.kernels.figures import FIGURES, KERNEL
from tests.models import ring as model

MODEL, UHASHRING = "model in plain Python", "uhashring"
EVERYBODY = [KERNEL, MODEL, *([UHASHRING] if find_spec(UHASHRING) else [])]
SHARDS = 1024
WORKERS = [f"worker-{number}" for number in range(8)]
KEYS = [f"user-{number:06}" for number in range(200)]
LOOKUP = f"owner of each of {len(KEYS)} keys"
ASSIGNMENT = f"owners of {SHARDS} shards among {len(WORKERS)} members"


def ring_of(members: list[str]) -> Any:
    return import_module(UHASHRING).HashRing(nodes=members)


def owner_of(who: str) -> Callable[[str], Any]:
    if who == UHASHRING:
        return ring_of(WORKERS).get_node  # type: ignore[no-any-return]
    owners = [WORKERS[position] for position in assign(WORKERS, SHARDS)]
    if who == MODEL:
        return lambda key: owners[model.shard("cart", key, SHARDS)]
    shard = ShardHash("cart", SHARDS).shard
    return lambda key: owners[shard(key)]


@pytest.mark.parametrize("who", EVERYBODY)
def test_lookup(benchmark: BenchmarkFixture, who: str) -> None:
    owner = owner_of(who)
    found = FIGURES.run(LOOKUP, who, benchmark, lambda: [owner(key) for key in KEYS])
    assert set(found) == set(WORKERS)


@pytest.mark.parametrize("who", EVERYBODY)
def test_assignment(benchmark: BenchmarkFixture, who: str) -> None:
    def by_ring() -> list[Any]:
        ring = ring_of(WORKERS)
        return [ring.get_node(f"shard-{number}") for number in range(SHARDS)]

    assignments: dict[str, Callable[[], Any]] = {
        KERNEL: lambda: assign(WORKERS, SHARDS),
        MODEL: lambda: model.assign(WORKERS, SHARDS),
        UHASHRING: by_ring,
    }
    owners = FIGURES.run(ASSIGNMENT, who, benchmark, assignments[who])
    assert len(owners) == SHARDS and len(set(owners)) == len(WORKERS)
