"""The index of digests: sums follow every change, and differ exactly where keys do."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stateside.proxy.replica_index import BUCKETS, KeyIndex

KEYS = st.text("abcé|", min_size=1, max_size=3)
DIGESTS = st.binary(min_size=16, max_size=16)


def index_of(items: dict[str, bytes]) -> KeyIndex:
    index = KeyIndex()
    for key, digest in items.items():
        index.set(key, digest)
    return index


@given(steps=st.lists(st.tuples(KEYS, st.none() | DIGESTS)))
def test_sums_depend_on_what_is_there_and_not_on_how_it_came(steps: list[tuple[str, bytes | None]]) -> None:
    index, items = KeyIndex(), dict[str, bytes]()
    for key, digest in steps:
        if digest is None:
            index.discard(key)
            items.pop(key, None)
        else:
            index.set(key, digest)
            items[key] = digest
    assert index.sums() == index_of(items).sums()
    assert index.count == len(items)
    assert set(index.keys()) == items.keys()
    assert all(index.get(key) == digest for key, digest in items.items())


@given(one=st.dictionaries(KEYS, DIGESTS), other=st.dictionaries(KEYS, DIGESTS))
def test_buckets_differ_where_keys_do(one: dict[str, bytes], other: dict[str, bytes]) -> None:
    index = index_of(one)
    differing = index.differing(index_of(other).sums())
    found = {key for number in differing for key, _ in index.digests(number)}
    different = {key for key, digest in one.items() if other.get(key) != digest}
    assert different <= found
    assert bool(differing) == (one != other)
    assert all(0 <= number < BUCKETS for number in differing)


def test_a_key_is_recent_until_it_grew_older_twice() -> None:
    index = index_of({"a": bytes(16)})
    assert index.is_recent("a")
    index.grow_older()
    assert index.is_recent("a")
    index.set("a", bytes(16))  # nothing new
    index.grow_older()
    assert not index.is_recent("a")
