"""The part of all CRDT keys that a process replicates, where its node runs several workers; also of the consumers of a
shared log, by their names.

    node a   worker-0 (peer_port) ─────── worker-0   node b
             worker-1 (peer_port + 1) ─── worker-1            each pair with its own keys, its own queues and digests

A key is on the worker that owns the shard of its entity, on every node alike, for nodes that have the same number of
workers and of shards. So a worker has one counterpart on each other node, and what holds for nodes of one process
holds for each of these planes by itself: members, quorums, votes, digests.
"""

from __future__ import annotations

from stateside.journal.sharding import EntityShards, owners_among
from stateside.proxy.peer_messages import Hello, PeerError


class Part:
    """Of the worker `index` of `workers`."""

    def __init__(self, index: int, workers: int, number_of_shards: int) -> None:
        self.index = index
        self.workers = workers
        self.number_of_shards = number_of_shards
        self._shards = EntityShards(number_of_shards)
        self._owners = owners_among(workers, number_of_shards) if workers > 1 else ()

    def has(self, key: str) -> bool:
        """key: the id of the entity, as in `Replicas.open`, or the name of a consumer."""
        return not self._owners or self.owner(key) == self.index

    def owner(self, key: str) -> int:
        """The index of the worker that has the key. Ids in no shard belong to the first."""
        shard = self._shards.shard(key)
        return 0 if shard is None or not self._owners else self._owners[shard]

    def check(self, hello: Hello, name: str) -> None:
        """Raise PeerError unless whoever sent the hello has the same keys. name: of this node."""
        if hello.workers != self.workers or (self.workers > 1 and hello.shards != self.number_of_shards):
            theirs, ours = said(hello.workers, hello.shards), said(self.workers, self.number_of_shards)
            raise PeerError(
                f"{hello.name} has {theirs}, {name} has {ours}: set `workers` and `number_of_shards` alike on all "
                "nodes that replicate to each other, and start them again"
            )
        if hello.worker != self.index:
            raise PeerError(
                f"worker-{hello.worker} of {hello.name} and worker-{self.index} of {name} have met, and have no key in "
                "common: `peers` names each node once, by its peer_port, which is that of its first worker"
            )


def said(workers: int, shards: int) -> str:
    return f"{workers} worker{'s' if workers != 1 else ''} and {shards} shards"
