"""Trends: the steps and totals of a time range, and the same time yesterday and last week."""

from __future__ import annotations

import pytest

from flowhooks.clock import DAY, SECOND
from flowhooks.model.trend import TrendKind
from flowhooks.operations.trends import MAX_STEPS, TimeRange, load_trend
from support import trend_rows
from support.trend_rows import MINUTE

HOUR = 60 * MINUTE


@pytest.fixture
def flow(harness, clock):
    """A ledger in the afternoon of a day, with a clock that stands still."""
    clock.advance(days=300, hours=14, seconds=30)
    return harness.open(start=False)


def trend_of(flow, subject="p:h", *, kind=TrendKind.HANDLER, length=6 * HOUR, until=0, kept=8 * DAY, **options):
    """The trend of a time range that ends `until` before now."""
    now = flow.clock.now()
    time_range = TimeRange.of(now - until - length, now - until, now=now)
    with flow.app.ledger.connection() as connection:
        return load_trend(connection, kind, subject, time_range, minutes_since=now - kept, **options)


def test_a_range_slower_than_yesterday(flow):
    """The p95, the share of successes and the throughput are beside those of yesterday and last week."""
    now = flow.clock.now()
    trend_rows.store(flow, trend_rows.slow_today("handler", "p:h", now))
    trend = trend_of(flow)
    assert (trend.slowdown.earlier, trend.slowdown.is_slower) == ("yesterday", True)
    assert 2_000 < trend.slowdown.p95_ms <= 5_000
    assert 200 < trend.slowdown.earlier_ms <= 500
    assert trend.slowdown.factor == trend.slowdown.p95_ms / trend.slowdown.earlier_ms
    totals = trend.current.totals
    assert dict(totals.outcomes) == {"failed": 60, "succeeded": 1620}
    assert totals.success_share == 1620 / 1680
    assert 200 < totals.p50_ms <= 500
    for earlier in (trend.yesterday, trend.last_week):
        assert (earlier.totals.count, earlier.totals.success_share) == (1440, 1.0)
        assert earlier.per_minute == pytest.approx(4, rel=0.01)
    assert trend.yesterday.since == trend.current.since - DAY
    assert trend.last_week.until == trend.current.until - 7 * DAY


def test_steps_cover_the_range(flow):
    """Steps are whole minutes, at most 200, also those without data, and the first ones of all ranges correspond."""
    now = flow.clock.now()
    trend_rows.store(flow, trend_rows.rows("handler", "p:h", now - 30 * MINUTE, minutes=10, seconds=0.004))
    trend = trend_of(flow)
    current = trend.current
    assert current.step == 120
    assert len(current.steps) <= MAX_STEPS
    assert current.since % (120 * SECOND) == 0
    assert [step.started_at for step in current.steps] == list(range(current.since, current.until, 120 * SECOND))
    assert len(trend.yesterday.steps) == len(current.steps)
    assert sum(step.count for step in current.steps) == current.totals.count == 40
    empty = current.steps[0]
    assert (empty.count, empty.success_share, empty.p50_ms, empty.p95_ms) == (0, None, None, None)
    assert trend.slowdown is None


@pytest.mark.parametrize(
    ("length", "step"),
    [
        (MINUTE, 60),
        (HOUR, 60),
        (3 * HOUR, 60),
        (6 * HOUR, 120),
        (DAY, 600),
        (7 * DAY, 3600),
        (30 * DAY, 6 * 3600),
        (400 * DAY, 96 * 3600),
    ],
)
def test_the_step_follows_the_length(flow, length, step):
    """The step is the shortest with which a range has at most 200 steps."""
    trend = trend_of(flow, length=length)
    assert trend.current.step == step
    assert len(trend.current.steps) <= MAX_STEPS
    assert (trend.yesterday is None, trend.last_week is None) == (length > DAY, length > 7 * DAY)
    assert trend.is_empty


def test_a_command_requests_fewer_steps(flow):
    """A command asks for fewer steps."""
    assert len(trend_of(flow, max_steps=24).current.steps) <= 24


def test_counts_stored_by_the_hour_have_hourly_steps(flow):
    """If counts of a time are stored by the hour, so are its steps; the totals are the same."""
    now = flow.clock.now()
    for days in (0, 1):
        found = trend_rows.rows(
            "handler", "p:h", now - days * DAY - 6 * HOUR, minutes=300, seconds=0.1, resolution=3600 if days else 60
        )
        trend_rows.store(flow, found)
    trend = trend_of(flow, kept=DAY)
    assert (trend.current.step, trend.yesterday.step, trend.last_week.step) == (120, 3600, 3600)
    assert trend.yesterday.totals.count > 0
    older = trend_of(flow, kept=DAY, until=2 * DAY)
    assert older.current.step == 3600


def test_an_earlier_hourly_range_starts_on_the_hour(flow):
    """A range that starts within an hour has all of that hour beside it, because its counts are at its start."""
    week_ago = flow.clock.now() - 7 * DAY
    start = week_ago - 6 * HOUR - (week_ago - 6 * HOUR) % HOUR
    trend_rows.store(flow, trend_rows.rows("handler", "p:h", start, minutes=60, seconds=0.1, resolution=3600))
    trend = trend_of(flow, length=6 * HOUR - 20 * MINUTE, kept=DAY)
    assert trend.last_week.since == start
    assert trend.last_week.totals.count > 0


def test_a_source_counts_statuses(flow):
    """Of a source, statuses from 200 to 299 are successes; another source does not count."""
    now = flow.clock.now()
    found = trend_rows.slow_today("source", "oa", now, good="202", bad="503")
    trend_rows.store(flow, found + trend_rows.rows("source", "erp", now - HOUR, minutes=60, seconds=9))
    totals = trend_of(flow, "oa", kind=TrendKind.SOURCE).current.totals
    assert dict(totals.outcomes) == {"202": 1620, "503": 60}
    assert totals.success_share == 1620 / 1680


def test_last_week_is_compared_without_data_of_yesterday(flow):
    """Without data of yesterday, the p95 is compared with last week; a few attempts prove no slowdown."""
    now = flow.clock.now()
    trend_rows.store(flow, trend_rows.rows("handler", "p:h", now - 7 * DAY - HOUR, minutes=60, seconds=0.01))
    trend_rows.store(flow, trend_rows.rows("handler", "p:h", now - 5 * MINUTE, minutes=3, seconds=9))
    slowdown = trend_of(flow).slowdown
    assert (slowdown.earlier, slowdown.is_slower) == ("last_week", False)
    assert slowdown.factor > 100


def test_a_difference_within_the_bucket_error_is_not_slower(flow):
    """A p95 that differs by less than half is not called slower."""
    now = flow.clock.now()
    for days, per_minute in ((0, 8), (1, 4)):
        found = trend_rows.rows(
            "handler", "p:h", now - days * DAY - HOUR, minutes=59, seconds=0.3, per_minute=per_minute
        )
        trend_rows.store(flow, found)
    slowdown = trend_of(flow).slowdown
    assert (slowdown.factor, slowdown.is_slower) == (1.0, False)


def test_a_process_start_is_a_mark_of_its_range(harness, clock):
    """The start of a process is a mark of the range in which it is, and of no other."""
    clock.advance(days=300, hours=14)
    flow = harness.open()
    started = clock.now()
    clock.advance(3600)
    trend = trend_of(flow)
    assert started in {mark.at for mark in trend.marks}
    assert trend_of(flow, length=HOUR // 2).marks == ()
