"""Overview: how much comes, how it goes, and what has waited longest; it must not change anything, or be shown.

All of it is found by reads that are bounded, whatever is stored: what is not at rest is counted up to a limit, and
rates and shares are those of the newest events and deliveries.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from flowhooks.clock import SECOND
from flowhooks.ledger import alert_queries, recent_activity
from flowhooks.model.delivery import OutcomeKind, State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from flowhooks.ledger.alert_queries import HandlerIssue
    from flowhooks.ledger.reader import Reader
    from flowhooks.ledger.recent_activity import RecentDelivery

MOST_ARRIVALS: Final = 10_000
MOST_RECENT: Final = 2_000
"""The newest deliveries out of which rates of success and latencies are made."""
SPANS: Final = (3600, 900, 300, 60, 10, 1)
"""Seconds that the chart of arrivals may span: the longest in which no more came than are read."""
BARS: Final = 60
POINTS: Final = 30
"""Parts of time that the charts of a handler have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrivals:
    """How many events came lately.

    Attributes:
        span: seconds that were looked at, up to now.
        bars: how many came in each part of it, the oldest first.
        total: how many that is.
    """

    span: int
    bars: tuple[int, ...]
    total: int

    @property
    def per_minute(self) -> float:
        """How many a minute."""
        return 60 * self.total / self.span


class Oldest(NamedTuple):
    """What has been so longest.

    Attributes:
        since: from when, in microseconds since 1970.
        event_id: its event.
        handler: its handler's id; `""` for a parked event.
    """

    since: int
    event_id: str
    handler: str = ""


class Point(NamedTuple):
    """One part of the time that a handler's charts span.

    Attributes:
        succeeded: attempts that succeeded.
        failed: attempts that did not.
        slowest: the longest of them, in microseconds; 0 where there was none.
    """

    succeeded: int
    failed: int
    slowest: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Performance:
    """How a handler has done lately: the last attempts of its newest deliveries.

    Attributes:
        handler: its id.
        deliveries: how many of them there are.
        succeeded: how many of their last attempts succeeded.
        failed: how many did not.
        median: of the attempts' lengths, in microseconds; None where none has ended.
        most: nineteen of twenty were not longer than this, in microseconds; None where none has ended.
        points: the same over time, the oldest first.
    """

    handler: str
    deliveries: int
    succeeded: int
    failed: int
    median: int | None
    most: int | None
    points: tuple[Point, ...]

    @property
    def rate(self) -> float | None:
        """The share of the attempts that succeeded, from 0 to 1; None where none has ended."""
        ended = self.succeeded + self.failed
        return self.succeeded / ended if ended else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """How it goes.

    Attributes:
        now: when this was found out, in microseconds since 1970.
        counts: how many deliveries are waiting, running, unknown, dead, and *shelved* (waiting for a missing handler),
            and how many events are parked; each `MOST_COUNTED + 1` where there are more.
        oldest: of each of these, what has been so longest; those left out of which there is nothing.
        arrivals: how many events came.
        performance: how handlers have done, those with failures first, then the busiest.
        sampled: of how many deliveries that is.
        sampled_since: from when the oldest of those is, in microseconds since 1970; None where there is none.
        alerts: how many alerts are open that nobody has acknowledged.
    """

    now: int
    counts: dict[str, int]
    oldest: dict[str, Oldest]
    arrivals: Arrivals
    performance: tuple[Performance, ...]
    sampled: int
    sampled_since: int | None
    alerts: int


def overview(reader: Reader, now: int) -> Overview:
    """Look how it goes.

    Args:
        reader: the ledger.
        now: microseconds since 1970.

    Raises:
        LedgerUnusable: the ledger cannot be read.
    """
    with reader.connection() as connection:
        newest = recent_activity.recent_deliveries(connection, limit=MOST_RECENT)
        return Overview(
            now=now,
            counts=recent_activity.count_by_state_bounded(connection),
            oldest=_oldest(connection, now),
            arrivals=_arrivals(
                recent_activity.arrival_times(connection, now - SPANS[0] * SECOND, limit=MOST_ARRIVALS), now
            ),
            performance=_performance(newest, now),
            sampled=len(newest),
            sampled_since=newest[-1].created_at if newest else None,
            alerts=sum(one.acknowledged_at is None for one in alert_queries.open_alerts(connection)),
        )


def _oldest(connection: Connection, now: int) -> dict[str, Oldest]:
    found: dict[str, Oldest] = {}
    for name, troubled in (
        ("waiting", alert_queries.overdue(connection, now)),
        ("shelved", alert_queries.missing_handlers(connection, now)),
    ):
        if troubled:
            found[name] = min(map(_of, troubled))
    for state in (State.RUNNING, State.DEAD, State.UNKNOWN):
        if (oldest := recent_activity.oldest_in_state(connection, state)) is not None:
            event_id, handler, since = oldest
            found[state.value] = Oldest(since, event_id, handler)
    if (parked := recent_activity.oldest_parked_event(connection)) is not None:
        found["parked"] = Oldest(parked[1], parked[0])
    return found


def _of(one: HandlerIssue) -> Oldest:
    return Oldest(one.since, one.event_id, one.handler)


def _arrivals(came: Sequence[int], now: int) -> Arrivals:
    """The longest span of which every event was read."""
    ages = [max(0.0, now / 1000 - one) / 1000 for one in came]  # in seconds, the youngest first
    whole = len(ages) < MOST_ARRIVALS
    span = next((one for one in SPANS if whole or ages[-1] >= one), SPANS[-1])
    bars = [0] * BARS
    for age in ages:
        if age < span:
            bars[BARS - 1 - int(age * BARS / span)] += 1
    return Arrivals(span=span, bars=tuple(bars), total=sum(bars))


def _performance(newest: Sequence[RecentDelivery], now: int) -> tuple[Performance, ...]:
    if not newest:
        return ()
    each: dict[str, list[RecentDelivery]] = defaultdict(list)
    for one in newest:
        each[one.handler].append(one)
    start = min(one.created_at for one in newest)
    found = [_of_handler(handler, several, start, now) for handler, several in each.items()]
    return tuple(sorted(found, key=lambda one: (not one.failed, -one.deliveries, one.handler)))


def _of_handler(handler: str, several: Sequence[RecentDelivery], start: int, now: int) -> Performance:
    points = [[0, 0, 0] for _ in range(POINTS)]
    lengths = []
    succeeded = failed = 0
    for one in several:
        if one.started_at is None or one.finished_at is None:
            continue
        good = one.outcome is OutcomeKind.SUCCEEDED
        succeeded, failed = succeeded + good, failed + (not good)
        length = max(0, one.finished_at - one.started_at)
        lengths.append(length)
        place = (one.finished_at - start) * POINTS // max(1, now + 1 - start)
        point = points[min(POINTS - 1, max(0, place))]
        point[0 if good else 1] += 1
        point[2] = max(point[2], length)
    lengths.sort()
    return Performance(
        handler=handler,
        deliveries=len(several),
        succeeded=succeeded,
        failed=failed,
        median=lengths[len(lengths) // 2] if lengths else None,
        most=lengths[min(len(lengths) - 1, len(lengths) * 19 // 20)] if lengths else None,
        points=tuple(Point(*one) for one in points),
    )
