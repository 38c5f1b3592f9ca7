"""Buckets of durations, and the percentiles that follow from them."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from flowhooks.model.trend import BUCKETS, NO_DURATION, NO_LIMIT, TrendPoint, bucket_of, percentile


@pytest.mark.parametrize(
    ("seconds", "bucket"),
    [
        (0.0, 1),
        (0.001, 1),
        (0.0011, 2),
        (0.4, 500),
        (0.5, 500),
        (3.2, 5_000),
        (2_000.0, 2_000_000),
        (2_000.1, NO_LIMIT),
    ],
)
def test_a_duration_is_counted_in_the_first_bucket_that_fits(seconds, bucket):
    """A bucket's limit is in the bucket; durations above all limits have a bucket of their own."""
    assert bucket_of(seconds) == bucket


def test_bucket_limits_rise_by_a_factor_of_at_most_two_and_a_half():
    """The limits rise, so that a percentile is off by less than that factor."""
    assert list(BUCKETS) == sorted(set(BUCKETS))
    assert max(high / low for low, high in pairwise(BUCKETS)) <= 2.5


@pytest.mark.parametrize(
    ("counts", "share", "milliseconds"),
    [
        ({10: 10}, 0.5, 7.5),
        ({10: 10}, 0.0, 5.0),
        ({10: 10}, 1.0, 10.0),
        ({1: 1}, 0.5, 0.5),
        ({1: 50, 500: 50}, 0.5, 1.0),
        ({1: 50, 500: 50}, 0.75, 350.0),
        ({1: 90, NO_LIMIT: 10}, 0.95, 2_000_000.0),
        ({1: 1, 3: 99, 500: -4}, 0.5, 0.5),
    ],
)
def test_a_percentile_is_interpolated_within_its_bucket(counts, share, milliseconds):
    """The durations of a bucket count as evenly spread; unknown buckets and impossible counts do not count."""
    assert percentile(counts, share) == pytest.approx(milliseconds)


@pytest.mark.parametrize("counts", [{}, {NO_DURATION: 7}, {10: 0}])
def test_no_percentile_without_durations(counts):
    """Nothing, and counts without a duration, have no percentile."""
    assert percentile(counts, 0.5) is None


@pytest.mark.parametrize("share", [-0.1, 1.1, 95])
def test_a_share_is_between_0_and_1(share):
    """A percentage is refused instead of being taken for a share."""
    with pytest.raises(ValueError, match="from 0 to 1"):
        percentile({10: 1}, share)


@pytest.mark.parametrize("share", [0.5, 0.95, 0.99])
def test_a_percentile_is_near_that_of_the_durations(share):
    """The percentile of the counts is in the bucket of the percentile of the durations that were counted."""
    drawn = random.Random(7)
    durations = sorted(drawn.lognormvariate(-1.0, 1.5) for _ in range(5_000))
    counts = {}
    for duration in durations:
        counts[bucket_of(duration)] = counts.get(bucket_of(duration), 0) + 1
    exact = durations[int(share * len(durations))]
    assert bucket_of(percentile(counts, share) / 1_000) == bucket_of(exact)


def test_the_sums_of_a_point():
    """A point has its number by outcome, and by bucket whatever the outcome."""
    point = TrendPoint(0, {("succeeded", 5): 3, ("succeeded", 10): 2, ("failed", 5): 1})
    assert point.count == 6
    assert point.by_outcome() == {"succeeded": 5, "failed": 1}
    assert point.by_bucket() == {5: 4, 10: 2}
