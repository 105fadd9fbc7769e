"""The digests of all keys of this node, and sums of them by which two nodes find what differs without telling all.

A key falls into one of 256 buckets. The sum of a bucket is the exclusive or of a hash of each key with its digest, so a
change costs two hashes, whatever the number of keys, and two nodes with equal sums have equal keys. All of it is in
memory: about 250 bytes a key, and its name.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from xxhash import xxh3_64_intdigest, xxh3_128_intdigest

BUCKETS = 256
SUM_BYTES = 16
DIGEST_BYTES = 16
TOMBSTONE_DIGEST = b"\xff" * DIGEST_BYTES


class KeyIndex:
    """Key -> digest of its state, TOMBSTONE_DIGEST where it is deleted."""

    def __init__(self) -> None:
        self._buckets: list[dict[str, bytes]] = [{} for _ in range(BUCKETS)]
        self._sums = [0] * BUCKETS
        self.count = 0
        self._young: set[str] = set()  # changed lately, in two generations
        self._old: set[str] = set()

    def set(self, key: str, digest: bytes) -> None:
        name = key.encode()
        number = xxh3_64_intdigest(name) % BUCKETS
        bucket = self._buckets[number]
        before = bucket.get(key)
        if before == digest:
            return
        if before is None:
            self.count += 1
        else:
            self._sums[number] ^= xxh3_128_intdigest(before + name)
        self._sums[number] ^= xxh3_128_intdigest(digest + name)
        bucket[key] = digest
        self._young.add(key)

    def grow_older(self) -> None:
        """To be called from time to time: what changed before the last call is no longer recent."""
        self._young, self._old = set(), self._young

    def is_recent(self, key: str) -> bool:
        """It changed a moment ago: what another node does not have of it yet is most likely on its way."""
        return key in self._young or key in self._old

    def discard(self, key: str) -> None:
        name = key.encode()
        number = xxh3_64_intdigest(name) % BUCKETS
        before = self._buckets[number].pop(key, None)
        if before is not None:
            self.count -= 1
            self._sums[number] ^= xxh3_128_intdigest(before + name)

    def get(self, key: str) -> bytes | None:
        return self._bucket(key).get(key)

    def keys(self) -> Iterator[str]:
        return chain.from_iterable(self._buckets)

    def sums(self) -> bytes:
        """Of all buckets, one behind the other."""
        return b"".join(value.to_bytes(SUM_BYTES, "big") for value in self._sums)

    def differing(self, sums: bytes) -> list[int]:
        """Numbers of the buckets whose sum is another one in `sums`."""
        own = self.sums()
        starts = range(0, BUCKETS * SUM_BYTES, SUM_BYTES)
        return [number for number, at in enumerate(starts) if own[at : at + SUM_BYTES] != sums[at : at + SUM_BYTES]]

    def digests(self, bucket: int) -> list[tuple[str, bytes]]:
        """What is in this bucket."""
        return list(self._buckets[bucket].items())

    def _bucket(self, key: str) -> dict[str, bytes]:
        return self._buckets[xxh3_64_intdigest(key.encode()) % BUCKETS]
