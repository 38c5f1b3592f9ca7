"""A rate limits how many attempts start in any time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowhooks.clock import DAY, SECOND
from flowhooks.model.rate import MAX_AHEAD, MAX_INTERVAL, MAX_PER_SECOND, Rate

RATES = st.one_of(
    st.integers(1, MAX_PER_SECOND).map("{}/s".format),
    st.integers(1, 5_000).map("{}/m".format),
    st.integers(1, 5_000).map("{}/h".format),
    st.decimals("0.01", "50", places=2).map("{}/s".format),
).map(Rate.parse)
PAUSES = st.lists(st.one_of(st.integers(0, 3 * SECOND), st.just(0), st.integers(0, DAY)), min_size=1, max_size=60)
START = 1_767_225_600 * SECOND


@pytest.mark.parametrize(
    ("text", "interval", "burst"),
    [
        ("10/s", 100_000, 10),
        ("3/s", 333_334, 3),
        ("2.5/s", 400_000, 2),
        ("1000/s", 1_000, 1_000),
        ("1/s", SECOND, 1),
        ("90/m", 666_667, 1),
        ("0.5/m", 120 * SECOND, 1),
        ("100/h", 36 * SECOND, 1),
        ("0.042/h", 85_714_285_715, 1),
    ],
)
def test_a_rate_is_an_interval_and_a_burst(text, interval, burst):
    """The interval is rounded up; a burst is what starts in a second, but at least one attempt."""
    assert Rate.parse(text) == Rate(text, interval, burst)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10",
        "10/d",
        "10 / s",
        "/s",
        "0/s",
        "-1/s",
        "1e3/s",
        "1./s",
        ".5/s",
        "1001/s",
        "0.04/h",
        "\u0661/s",
        10,
        None,
        True,
    ],
)
def test_an_invalid_rate_is_rejected(text):
    """The error shows the form, the range and the value."""
    with pytest.raises(ValueError, match=r"from one a day to 1000/s, not ") as error:
        Rate.parse(text)
    assert repr(text) in str(error.value)


@given(rate=RATES, pauses=PAUSES, wanted=st.integers(1, 30))
def test_no_window_has_more_starts_than_rate_and_burst(rate, pauses, wanted):
    """Whenever attempts are asked for, in any window of T at most T / interval + burst start."""
    now, stored, starts = START, None, []
    for pause in pauses:
        now += pause
        count = min(wanted, rate.count(stored, now))
        stored = rate.after(stored, now, count)
        starts += [now] * count
    for first, begin in enumerate(starts):
        for last in range(first, len(starts)):
            assert last - first + 1 <= (starts[last] - begin) / rate.interval + rate.burst


@given(rate=RATES, pauses=st.lists(st.floats(0, 0.999), min_size=1, max_size=50))
def test_a_backlog_starts_at_the_full_rate(rate, pauses):
    """A process that looks at each start, or later by less than a burst, loses no start."""
    stored, begin = rate.after(None, START, rate.burst), START
    count, now = rate.burst, START
    for pause in pauses:
        now = rate.next_start(stored, now) + int(pause * (rate.burst - 1) * rate.interval)
        allowed = rate.count(stored, now)
        assert allowed >= 1
        stored, count = rate.after(stored, now, allowed), count + allowed
    assert count == (now - begin) // rate.interval + rate.burst


@given(rate=RATES, ahead=st.integers(1, 400 * DAY))
def test_a_time_in_the_future_delays_by_at_most_one_interval(rate, ahead):
    """After a clock was ahead, the next attempt starts after one interval and a minute at the latest."""
    assert rate.interval <= MAX_INTERVAL
    is_impossible = ahead > rate.interval + MAX_AHEAD
    assert rate.count(START + ahead, START if is_impossible else START + ahead) >= 1
    if is_impossible:
        assert rate.count(rate.after(START + ahead, START, 1), START) == 0
