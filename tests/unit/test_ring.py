"""Shards of keys and owners of shards: the kernel answers as its model does, spreads evenly and moves little."""

from collections import Counter
from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stateside._speedups.ring import MAX_MEMBERS, MAX_SHARDS, ShardHash, assign
from tests.models import ring as model

NAMES = st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=12, unique=True)
SHARDS = 4096


def names(count: int) -> list[str]:
    return [f"10.0.{number >> 8}.{number & 255}:9001/{number}" for number in range(count)]


@given(st.text(max_size=40), st.text(max_size=40), st.integers(1, MAX_SHARDS))
def test_a_key_is_in_the_shard_that_the_model_says(persistence_id: str, key: str, shards: int) -> None:
    assert ShardHash(persistence_id, shards).shard(key) == model.shard(persistence_id, key, shards) < shards


@settings(max_examples=100, deadline=None)
@given(NAMES, st.integers(1, 200), st.floats(1.0, 3.0))
def test_owners_are_those_of_the_model(members: list[str], shards: int, load: float) -> None:
    assert list(assign(members, shards, load)) == model.assign(members, shards, load)


@given(NAMES, st.integers(1, 300), st.randoms())
def test_owners_do_not_depend_on_the_order_of_the_members(members: list[str], shards: int, random) -> None:
    shuffled = random.sample(members, len(members))
    owners = [members[owner] for owner in assign(members, shards)]
    assert owners == [shuffled[owner] for owner in assign(shuffled, shards)]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 13, 16, 32, 64])
def test_nobody_holds_more_than_a_quarter_above_the_mean(count: int) -> None:
    held = Counter(assign(names(count), SHARDS))
    assert len(held) == count
    assert max(held.values()) <= ceil(1.25 * SHARDS / count)


@pytest.mark.parametrize("count", range(2, 65))
def test_the_nth_member_moves_little_more_than_its_part(count: int) -> None:
    members = names(count)
    before, after = assign(members[:-1], SHARDS), assign(members, SHARDS)
    assert sum(one != other for one, other in zip(before, after, strict=True)) <= 1.3 / count * SHARDS


@pytest.mark.parametrize("count", [3, 5, 9, 17, 33, 65])
def test_a_member_that_leaves_moves_little_more_than_its_part(count: int) -> None:
    members = names(count)
    for gone in range(0, count, max(1, count // 5)):
        rest = members[:gone] + members[gone + 1 :]
        before = [members[owner] for owner in assign(members, SHARDS)]
        after = [rest[owner] for owner in assign(rest, SHARDS)]
        assert sum(one != other for one, other in zip(before, after, strict=True)) <= 1.3 / (count - 1) * SHARDS


def test_keys_spread_evenly_over_shards() -> None:
    hasher = ShardHash("shopping-cart", 64)
    held = Counter(hasher.shard(f"user-{number}") for number in range(64_000))
    assert len(held) == 64
    assert 850 < min(held.values()) <= max(held.values()) < 1150


def test_a_capacity_that_leaves_no_slack_is_filled_to_the_last_place() -> None:
    assert sorted(Counter(assign(names(7), 700, 1.0)).values()) == [100] * 7


@pytest.mark.parametrize(
    ("members", "shards", "load", "problem"),
    [
        ([], 10, 1.25, "0 members"),
        (["a", "a"], 10, 1.25, "same name"),
        (["a"], 0, 1.25, "number of shards = 0"),
        (["a"], MAX_SHARDS + 1, 1.25, "number of shards"),
        (["a"], 10, 0.9, "load = 0.9"),
        (["a"], 10, float("nan"), "load = nan"),
        ([str(number) for number in range(MAX_MEMBERS + 1)], 10, 1.25, "4097 members"),
    ],
)
def test_what_cannot_be_assigned_is_refused(members: list[str], shards: int, load: float, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        assign(members, shards, load)


def test_a_hash_needs_shards() -> None:
    with pytest.raises(ValueError, match="number of shards = 0"):
        ShardHash("cart", 0)
