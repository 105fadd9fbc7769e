"""Which shard a key belongs to, and which member owns which shard.

A shard is a hash of persistence id and entity key; the shards are given to members by rendezvous hashing (Thaler and
Ravishankar 1998) with bounded loads (Mirrokni, Thorup, Zadimoghaddam 2018): every pair of member and shard has a
score,
and the pairs are taken best first, each shard once and no member beyond its capacity. The outcome depends on
nothing but
the names of the members and the number of shards: everybody who knows these knows every owner, and a member that
comes
or goes moves little more than its own part.
"""

from array import array
from collections.abc import Sequence

MAX_SHARDS: int  # 1 << 20
MAX_MEMBERS: int  # 4096

class ShardHash:
    """Shards of the entities of one persistence id.

    xxh3-64 of the key's UTF-8, seeded with the xxh3-64 of the persistence id, scaled to the number of shards.
    ValueError: `shards`
    is not between 1 and MAX_SHARDS.
    """
    def __init__(self, persistence_id: str, shards: int) -> None: ...
    def shard(self, key: str) -> int: ...

def assign(members: Sequence[str], shards: int, load: float = 1.25) -> array[int]:
    """The owner of each shard: array("H") of positions in `members`, whatever their order there.

    load: no member gets more than ceil(load * shards / members) shards. ValueError: no members, more than
    MAX_MEMBERS, two of one name, `shards`
    out of bounds, or a load below 1.
    """
