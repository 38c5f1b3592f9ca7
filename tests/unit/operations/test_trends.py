"""Time ranges of trends: defaults, limits and what counts as a success."""

from __future__ import annotations

import pytest

from flowhooks.clock import DAY, SECOND
from flowhooks.model.trend import TrendKind
from flowhooks.operations.trends import DEFAULT_LENGTH, MAX_LENGTH, TOLERANCE, InvalidRange, TimeRange, is_success

NOW = 20_000 * DAY + 3 * 3600 * SECOND


def test_default_time_range():
    """A range ends now, has six hours, and does not reach into the future."""
    assert TimeRange.of(None, None, now=NOW) == (NOW - DEFAULT_LENGTH, NOW)
    assert TimeRange.of(NOW - DAY, None, now=NOW) == (NOW - DAY, NOW)
    assert TimeRange.of(None, NOW - DAY, now=NOW) == (NOW - DAY - DEFAULT_LENGTH, NOW - DAY)
    assert TimeRange.of(NOW - DAY, NOW + DAY, now=NOW) == (NOW - DAY, NOW)


def test_longest_time_range():
    """A range of exactly the maximum length is shown."""
    assert TimeRange.of(NOW - MAX_LENGTH, None, now=NOW) == (NOW - MAX_LENGTH, NOW)


@pytest.mark.parametrize(
    ("since", "until", "reason"),
    [
        (NOW - DAY, NOW - DAY, "order"),
        (NOW - DAY, NOW - 2 * DAY, "order"),
        (NOW, None, "future"),
        (NOW + DAY, NOW + 2 * DAY, "future"),
        (NOW - MAX_LENGTH - TOLERANCE - 1, None, "long"),
        (-(10**15), None, "long"),
        (None, -(10**15), "order"),
    ],
)
def test_invalid_time_ranges(since, until, reason):
    """Each invalid range has its reason, also before 1970."""
    with pytest.raises(InvalidRange) as caught:
        TimeRange.of(since, until, now=NOW)
    assert caught.value.reason == reason


def test_statuses_and_outcomes_that_count_as_success():
    """An attempt has succeeded by its outcome; a request by a status from 200 to 299."""
    assert [is_success(TrendKind.HANDLER, outcome) for outcome in ("succeeded", "failed", "rejected", "lost")] == [
        True,
        False,
        False,
        False,
    ]
    assert [is_success(TrendKind.SOURCE, status) for status in ("200", "202", "409", "503")] == [
        True,
        True,
        False,
        False,
    ]
