"""Rows of the table `trends`, as hours of a handler or a source leave them. No tests."""

from __future__ import annotations

from sqlalchemy import insert

from flowhooks.clock import DAY, SECOND
from flowhooks.ledger.tables import trends
from flowhooks.model.trend import NO_DURATION, bucket_of

MINUTE = 60 * SECOND


def rows(kind, subject, start, *, minutes, seconds, per_minute=4, outcome="succeeded", resolution=60):
    """A row for each minute (or hour) from `start` on, with attempts or requests that each took `seconds`.

    With `seconds=None` they have no duration, as those of error groups.
    """
    first = start - start % (resolution * SECOND)
    return [
        {
            "kind": kind,
            "subject": subject,
            "resolution": resolution,
            "started_at": first + number * resolution * SECOND,
            "outcome": outcome,
            "bucket": NO_DURATION if seconds is None else bucket_of(seconds),
            "count": per_minute * resolution // 60,
        }
        for number in range(minutes * 60 // resolution)
    ]


def store(flow, found):
    """Store rows in the ledger of a running app."""
    flow.app.ledger.write(lambda transaction: transaction.connection.execute(insert(trends), found))


def slow_today(kind, subject, now, *, good="succeeded", bad="failed"):
    """The six hours before `now` in which the durations rise from 0.4 s to 3.2 s, and the same time of two days before.

    In the slow last hour one of eight fails. A day before and a week before, all succeed in at most 0.4 s.
    """
    found = []
    for days, slow in ((0, True), (1, False), (7, False)):
        end = now - days * DAY
        calm = 300 if slow else 360
        found += rows(kind, subject, end - 360 * MINUTE, minutes=calm, seconds=0.4, outcome=good)
        if slow:
            found += rows(kind, subject, end - 60 * MINUTE, minutes=60, seconds=3.2, per_minute=7, outcome=good)
            found += rows(kind, subject, end - 60 * MINUTE, minutes=60, seconds=3.2, per_minute=1, outcome=bad)
    return found
