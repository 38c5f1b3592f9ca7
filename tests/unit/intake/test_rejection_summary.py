"""The log of rejected requests: the first of a status and source at once, the others once a minute."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from flowhooks.intake.rejection_summary import LOG_INTERVAL, RejectionSummary


class Times:
    """A summary with a clock that is moved by hand, and the records that it has logged."""

    def __init__(self):
        self.now = 0.0
        self.summary = RejectionSummary(monotonic=lambda: self.now)

    def add(self, status, source="", **details):
        """Reject a request."""
        return self.summary.add(status, source, details)


@pytest.fixture
def times():
    """A summary at time 0."""
    return Times()


def test_a_flood_is_logged_once_a_minute_for_each_status_and_source(times):
    """The first is logged at once; a minute later one record has the number of the others and the newest of them."""
    with capture_logs() as logs:
        for number in range(100):
            times.add(401, path=f"/flow/{number}")
            times.add(429, "oa", path=f"/flow/{number}")
        assert [(record["status"], record["source"], record["count"], record["path"]) for record in logs] == [
            (401, "", 1, "/flow/0"),
            (429, "oa", 1, "/flow/0"),
        ]
        assert times.summary.seconds_until_due() == LOG_INTERVAL
        times.summary.log_due()
        assert len(logs) == 2
        times.now += LOG_INTERVAL
        assert times.summary.seconds_until_due() == 0
        times.summary.log_due()
    assert [(record["status"], record["count"], record["path"]) for record in logs[2:]] == [
        (401, 99, "/flow/99"),
        (429, 99, "/flow/99"),
    ]
    assert {(record["event"], record["log_level"]) for record in logs} == {("requests_rejected", "warning")}
    assert times.summary.seconds_until_due() is None


def test_a_rejection_after_a_quiet_minute_is_logged_at_once(times):
    """A summary starts another minute; after a minute without rejections the next one is a first one again."""
    with capture_logs() as logs:
        assert not times.add(401)
        assert times.add(401)
        times.now += LOG_INTERVAL
        times.summary.log_due()
        times.now += 1
        assert times.add(401)
        times.now += LOG_INTERVAL
        times.summary.log_due()
        times.now += LOG_INTERVAL
        assert not times.add(401)
    assert [record["count"] for record in logs] == [1, 1, 1, 1]


def test_remaining_counts_are_logged_at_shutdown(times):
    """Before the process ends everything that was counted is logged."""
    with capture_logs() as logs:
        for _ in range(3):
            times.add(408)
        times.summary.log_due(everything=True)
        times.summary.log_due(everything=True)
    assert [record["count"] for record in logs] == [1, 2]


def test_groups_without_a_recent_rejection_are_discarded(times):
    """A status and source without a rejection for a minute is forgotten, however many there were."""
    for number in range(1000):
        times.add(401, f"s{number}")
    times.now += LOG_INTERVAL
    times.summary.log_due()
    assert not times.summary._groups
