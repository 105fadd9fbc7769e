"""Replicas of CRDT entities are kept under ids of the proxy's own, and move with the entity that they belong to."""

from __future__ import annotations

from stateside.journal.limits import CRDT_PREFIX, NODE_ENTITY
from stateside.journal.offsets import PREFIX as OFFSETS
from stateside.journal.sharding import EntityShards


def test_a_replica_is_in_the_shard_of_its_entity() -> None:
    shards = EntityShards(1024)
    for entity in ("counters|a", "counters|", "counters|a|b", "räume|küche"):
        assert shards.shard(CRDT_PREFIX + entity) == shards.shard(entity)


def test_offsets_and_the_record_of_the_node_are_in_no_shard() -> None:
    shards = EntityShards(1024)
    assert shards.shard(NODE_ENTITY) is None
    assert shards.shard(OFFSETS + "group|log") is None
