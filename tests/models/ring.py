"""The plain model of `_speedups/ring`: what the kernel has to answer, in the simplest words."""

from collections.abc import Sequence
from itertools import product
from math import ceil

from xxhash import xxh3_64_intdigest

MASK = (1 << 64) - 1


def shard(persistence_id: str, key: str, shards: int) -> int:
    seed = xxh3_64_intdigest(persistence_id.encode(), seed=0)
    return xxh3_64_intdigest(key.encode(), seed=seed) * shards >> 64


def assign(members: Sequence[str], shards: int, load: float = 1.25) -> list[int]:
    """All pairs, best first: each shard once, no member beyond its capacity."""
    room = dict.fromkeys(members, min(ceil(load * shards / len(members)), shards))
    hashes = {name: xxh3_64_intdigest(name.encode(), seed=0) for name in members}
    pairs = sorted(product(members, range(shards)), key=lambda pair: (-score(hashes[pair[0]], pair[1]), pair[1]))
    owners: dict[int, str] = {}
    for name, number in pairs:
        if number not in owners and room[name]:
            owners[number] = name
            room[name] -= 1
    return [members.index(owners[number]) for number in range(shards)]


def score(name: int, shard: int) -> int:
    x = (name + 0x9E3779B97F4A7C15 * (shard + 1)) & MASK
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ x >> 27) * 0x94D049BB133111EB & MASK
    return (x ^ x >> 31) or 1
