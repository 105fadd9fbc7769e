"""Which shard an entity belongs to, and which member of a set owns each shard.

An entity id is a persistence id, a bar and a key. The shard depends on these two and on the number of shards, which a
store keeps for life; the owner depends on the names of the members besides (`stateside._speedups.ring`). A replicated
state is in the shard of the entity whose state it is. What else a journal keeps for the proxy itself (ids that begin
with a bar) is in no shard: it stays with the store that has it.
"""

from __future__ import annotations

from collections.abc import Sequence

from stateside._speedups.ring import ShardHash, assign
from stateside.journal.limits import CRDT_PREFIX, INTERNAL


def worker_name(index: int) -> str:
    """The name of a worker process among the members that own shards."""
    return f"worker-{index}"


def owners_among(workers: int, number_of_shards: int) -> Sequence[int]:
    """The index of the worker that owns each shard."""
    return assign([worker_name(index) for index in range(workers)], number_of_shards)


class EntityShards:
    """Shards of entity ids of any persistence id."""

    def __init__(self, number_of_shards: int) -> None:
        self.number = number_of_shards
        self._hashes: dict[str, ShardHash] = {}

    def shard(self, entity: str) -> int | None:
        """None: the entity is the proxy's own."""
        if entity.startswith(INTERNAL):
            if not entity.startswith(CRDT_PREFIX):
                return None
            entity = entity[len(CRDT_PREFIX) :]
        persistence_id, _, key = entity.partition("|")
        known = self._hashes.get(persistence_id)
        if known is None:
            known = self._hashes[persistence_id] = ShardHash(persistence_id, self.number)
        return known.shard(key)
