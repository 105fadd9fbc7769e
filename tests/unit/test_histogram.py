"""The compiled histogram counts as one in Python would."""

import math
from bisect import bisect_left

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stateside._speedups.histogram import Histogram as Compiled
from stateside.proxy.observations import ALL_SECONDS, BUCKETS_SECONDS, FINE_SECONDS, Histogram, cumulative

BOUNDS = st.lists(st.floats(allow_nan=False, width=32), min_size=1, max_size=32, unique=True).map(sorted)


@given(BOUNDS, st.lists(st.floats()))
def test_it_counts_as_bisect_does(bounds: list[float], observed: list[float]) -> None:
    expected = [0] * (len(bounds) + 1)
    histogram = Compiled(bounds)
    for value in observed:
        expected[bisect_left(bounds, value)] += 1
        histogram.observe(value)
    assert histogram.counts == expected
    assert histogram.count == len(observed)
    total = 0.0
    for value in observed:
        total += value
    assert histogram.sum == total or (math.isnan(histogram.sum) and math.isnan(total))


@given(st.lists(st.floats(0, 20)))
def test_one_histogram_serves_the_reference_s_buckets_and_ours(observed: list[float]) -> None:
    histogram = Histogram()
    for value in observed:
        histogram.observe(value)
    for bounds in (BUCKETS_SECONDS, FINE_SECONDS, ALL_SECONDS):
        alone = Histogram(bounds)
        for value in observed:
            alone.observe(value)
        assert histogram.cumulative(bounds) == cumulative(bounds, alone.counts)


@pytest.mark.parametrize("bounds", [(), range(33), (1.0, 1.0), (2.0, 1.0)], ids=["none", "too many", "twice", "down"])
def test_impossible_bounds_are_refused(bounds: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="bounds"):
        Compiled(bounds)


def test_only_numbers_are_observed() -> None:
    with pytest.raises(TypeError):
        Compiled((1.0,)).observe("1")  # type: ignore[arg-type]
