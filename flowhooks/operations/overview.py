"""Overview: how much comes, how it goes, and what has waited longest; it must not change anything, or be shown.

All of it is found by reads that are bounded, whatever is stored: what is not at rest is counted up to a limit, and
rates and shares are those of the newest events and deliveries.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from flowhooks.clock import SECOND
from flowhooks.ledger import alert_queries, stats
from flowhooks.model.delivery import OutcomeKind, State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from flowhooks.ledger.alert_queries import HandlerIssue
    from flowhooks.ledger.reader import Reader
    from flowhooks.ledger.stats import RecentDelivery

MAX_ARRIVALS: Final = 10_000
MAX_RECENT_DELIVERIES: Final = 2_000
"""The newest deliveries out of which rates of success and latencies are made."""
PERIODS: Final = (3600, 900, 300, 60, 10, 1)
"""Seconds that the chart of arrivals may span: the longest in which no more came than are read."""
BUCKETS: Final = 60
SERIES_POINTS: Final = 30
"""Parts of time that the charts of a handler have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrivals:
    """How many events came lately.

    Attributes:
        period_seconds: how long the period is that ends now.
        buckets: how many came in each part of it, the oldest first.
        total: how many that is.
    """

    period_seconds: int
    buckets: tuple[int, ...]
    total: int

    @property
    def per_minute(self) -> float:
        """How many a minute."""
        return 60 * self.total / self.period_seconds


class Oldest(NamedTuple):
    """The oldest delivery or event of a state.

    Attributes:
        started_at: when it entered the state, in microseconds since 1970.
        event_id: its event.
        handler: its handler's id; `""` for a parked event.
    """

    started_at: int
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
        p95: the 95th percentile of them, in microseconds; None where none has ended.
        points: the same over time, the oldest first.
    """

    handler: str
    deliveries: int
    succeeded: int
    failed: int
    median: int | None
    p95: int | None
    points: tuple[Point, ...]

    @property
    def success_rate(self) -> float | None:
        """The share of the attempts that succeeded, from 0 to 1; None where none has ended."""
        ended = self.succeeded + self.failed
        return self.succeeded / ended if ended else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """How it goes.

    Attributes:
        generated_at: when this was read, in microseconds since 1970.
        counts: how many deliveries are waiting, running, unknown, dead, and `handler_missing` (waiting for a
            missing handler), and how many events are parked; each `MAX_COUNTED + 1` where there are more.
        oldest: of each of these, what has been so longest; those left out of which there is nothing.
        arrivals: how many events came.
        performance: how handlers have done, those with failures first, then the busiest.
        sampled_deliveries: of how many deliveries that is.
        oldest_sampled_at: when the oldest of those was made, in microseconds since 1970; None where there is none.
        alerts: how many alerts are open that nobody has acknowledged.
    """

    generated_at: int
    counts: dict[str, int]
    oldest: dict[str, Oldest]
    arrivals: Arrivals
    performance: tuple[Performance, ...]
    sampled_deliveries: int
    oldest_sampled_at: int | None
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
        newest = stats.recent_deliveries(connection, limit=MAX_RECENT_DELIVERIES)
        return Overview(
            generated_at=now,
            counts=stats.count_by_state(connection, limit=stats.MAX_COUNTED),
            oldest=_oldest(connection, now),
            arrivals=_arrivals(stats.arrival_times(connection, now - PERIODS[0] * SECOND, limit=MAX_ARRIVALS), now),
            performance=_performance(newest, now),
            sampled_deliveries=len(newest),
            oldest_sampled_at=newest[-1].created_at if newest else None,
            alerts=sum(alert.acknowledged_at is None for alert in alert_queries.open_alerts(connection)),
        )


def _oldest(connection: Connection, now: int) -> dict[str, Oldest]:
    oldest_by_state: dict[str, Oldest] = {}
    for name, issues in (
        ("waiting", alert_queries.overdue(connection, now)),
        ("handler_missing", alert_queries.missing_handlers(connection, now)),
    ):
        if issues:
            oldest_by_state[name] = min(map(_to_oldest, issues))
    for state in (State.RUNNING, State.DEAD, State.UNKNOWN):
        if (oldest := stats.oldest_in_state(connection, state)) is not None:
            event_id, handler, since = oldest
            oldest_by_state[state.value] = Oldest(since, event_id, handler)
    if (parked := stats.oldest_parked_event(connection)) is not None:
        oldest_by_state["parked"] = Oldest(parked[1], parked[0])
    return oldest_by_state


def _to_oldest(issue: HandlerIssue) -> Oldest:
    return Oldest(issue.since, issue.event_id, issue.handler)


def _arrivals(arrival_times: Sequence[int], now: int) -> Arrivals:
    """Return the longest period of which every event was read."""
    ages = [max(0.0, now / 1000 - arrival) / 1000 for arrival in arrival_times]  # in seconds, the youngest first
    is_complete = len(ages) < MAX_ARRIVALS
    period_seconds = next((period for period in PERIODS if is_complete or ages[-1] >= period), PERIODS[-1])
    buckets = [0] * BUCKETS
    for age in ages:
        if age < period_seconds:
            buckets[BUCKETS - 1 - int(age * BUCKETS / period_seconds)] += 1
    return Arrivals(period_seconds=period_seconds, buckets=tuple(buckets), total=sum(buckets))


def _performance(newest: Sequence[RecentDelivery], now: int) -> tuple[Performance, ...]:
    if not newest:
        return ()
    by_handler: dict[str, list[RecentDelivery]] = defaultdict(list)
    for delivery in newest:
        by_handler[delivery.handler].append(delivery)
    start = min(delivery.created_at for delivery in newest)
    performances = [_handler_performance(handler, deliveries, start, now) for handler, deliveries in by_handler.items()]
    return tuple(
        sorted(
            performances, key=lambda performance: (not performance.failed, -performance.deliveries, performance.handler)
        )
    )


def _handler_performance(handler: str, recent: Sequence[RecentDelivery], start: int, now: int) -> Performance:
    points = [[0, 0, 0] for _ in range(SERIES_POINTS)]
    lengths = []
    succeeded = failed = 0
    for delivery in recent:
        if delivery.started_at is None or delivery.finished_at is None:
            continue
        has_succeeded = delivery.outcome is OutcomeKind.SUCCEEDED
        succeeded, failed = succeeded + has_succeeded, failed + (not has_succeeded)
        length = max(0, delivery.finished_at - delivery.started_at)
        lengths.append(length)
        index = (delivery.finished_at - start) * SERIES_POINTS // max(1, now + 1 - start)
        point = points[min(SERIES_POINTS - 1, max(0, index))]
        point[0 if has_succeeded else 1] += 1
        point[2] = max(point[2], length)
    lengths.sort()
    return Performance(
        handler=handler,
        deliveries=len(recent),
        succeeded=succeeded,
        failed=failed,
        median=lengths[len(lengths) // 2] if lengths else None,
        p95=lengths[min(len(lengths) - 1, len(lengths) * 19 // 20)] if lengths else None,
        points=tuple(Point(*values) for values in points),
    )
