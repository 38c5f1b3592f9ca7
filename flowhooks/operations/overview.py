"""Numbers for the overview page: arrivals, performance of handlers, oldest deliveries.

All reads are bounded, however much is stored: open deliveries are counted up to a limit, and rates and shares are
computed from the newest events and deliveries.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from flowhooks.clock import SECOND
from flowhooks.ledger import alert_queries, alert_resolutions, stats
from flowhooks.model.delivery import OutcomeKind, State
from flowhooks.operations.failing_now import failing_now

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from flowhooks.ledger.alert_queries import HandlerIssue
    from flowhooks.ledger.alert_resolutions import FailedNotifications
    from flowhooks.ledger.reader import Reader
    from flowhooks.ledger.stats import RecentDelivery, WaitingCounts
    from flowhooks.operations.failing_now import FailingNow

MAX_ARRIVALS: Final = 10_000
MAX_RECENT_DELIVERIES: Final = 2_000
"""Number of newest deliveries from which success rates and latencies are computed."""
PERIODS: Final = (3600, 900, 300, 60, 10, 1)
"""Possible periods of the chart of arrivals, in seconds. The longest one whose events were all read is used."""
BUCKETS: Final = 60
SERIES_POINTS: Final = 30
"""Number of points in the charts of a handler."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrivals:
    """Number of events received lately.

    Attributes:
        period_seconds: length of the period that ends now, in seconds.
        buckets: number of events in each part of the period, oldest first.
        total: number of events in the whole period.
    """

    period_seconds: int
    buckets: tuple[int, ...]
    total: int

    @property
    def per_minute(self) -> float:
        """Events per minute."""
        return 60 * self.total / self.period_seconds


class Oldest(NamedTuple):
    """The oldest delivery or event of a state.

    Attributes:
        started_at: time when the delivery or event entered the state, in microseconds since 1970.
        event_id: id of the event.
        handler: id of the handler; `""` for a parked event.
    """

    started_at: int
    event_id: str
    handler: str = ""


class Point(NamedTuple):
    """One part of the time span of a handler's charts.

    Attributes:
        succeeded: number of attempts that succeeded.
        failed: number of attempts that did not succeed.
        slowest: longest duration of an attempt that was not lost, in microseconds; 0 if there was none.
    """

    succeeded: int
    failed: int
    slowest: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Performance:
    """Recent performance of a handler, from the last attempts of its newest deliveries.

    Attributes:
        handler: id of the handler.
        deliveries: number of its deliveries in the sample.
        succeeded: number of last attempts that succeeded.
        failed: number of last attempts that did not succeed.
        median: median duration of the attempts that were not lost, in microseconds; None if there is none.
        p95: 95th percentile of these durations in microseconds; None if there is none.
        points: the same over time, oldest first.
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
        """Share of attempts that succeeded, from 0 to 1; None if none has ended."""
        ended = self.succeeded + self.failed
        return self.succeeded / ended if ended else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """Numbers of the overview page.

    Attributes:
        generated_at: time of the reads, in microseconds since 1970.
        counts: number of deliveries that are waiting, running, unknown, dead and `handler_missing` (waiting for a
            missing handler), and number of parked events; each is `MAX_COUNTED + 1` if there are more.
        oldest: oldest delivery or event of each of these states; states without any are left out.
        arrivals: number of events received lately.
        performance: recent performance of the handlers, those with failures first, then the busiest.
        sampled_deliveries: number of deliveries from which `performance` was computed.
        oldest_sampled_at: creation time of the oldest of those, in microseconds since 1970; None if there is none.
        alerts: number of open alerts that are not acknowledged.
        failed_notifications: the plugins that could not pass on alerts.
        waiting: the waiting deliveries by the reason why they wait.
        failing: open circuits, paused handlers, growing error groups and the newest alerts.
        started_at: when the process that reads them started, in microseconds since 1970; None if it is not a server.
    """

    generated_at: int
    counts: dict[str, int]
    oldest: dict[str, Oldest]
    arrivals: Arrivals
    performance: tuple[Performance, ...]
    sampled_deliveries: int
    oldest_sampled_at: int | None
    alerts: int
    failed_notifications: tuple[FailedNotifications, ...]
    waiting: WaitingCounts
    failing: FailingNow
    started_at: int | None


def overview(reader: Reader, now: int, *, process: str = "") -> Overview:
    """Read the numbers of the overview page.

    Args:
        reader: the ledger.
        now: current time in microseconds since 1970.
        process: id of this process; `""` if it is not a server.

    Raises:
        LedgerUnusable: the ledger cannot be read.
    """
    with reader.connection() as connection:
        newest = stats.recent_deliveries(connection, limit=MAX_RECENT_DELIVERIES)
        open_alerts = alert_queries.open_alerts(connection)
        return Overview(
            generated_at=now,
            counts=stats.count_by_state(connection, limit=stats.MAX_COUNTED),
            oldest=_oldest(connection, now),
            arrivals=_arrivals(stats.arrival_times(connection, now - PERIODS[0] * SECOND, limit=MAX_ARRIVALS), now),
            performance=_performance(newest, now),
            sampled_deliveries=len(newest),
            oldest_sampled_at=newest[-1].created_at if newest else None,
            alerts=sum(alert.acknowledged_at is None for alert in open_alerts),
            failed_notifications=tuple(alert_resolutions.failed_notifications(connection, open_alerts)),
            waiting=stats.count_waiting(connection, now),
            failing=failing_now(connection, open_alerts, now),
            started_at=stats.started_at(connection, process),
        )


def _oldest(connection: Connection, now: int) -> dict[str, Oldest]:
    oldest_by_state: dict[str, Oldest] = {}
    for name, issues in (
        ("waiting", alert_queries.overdue(connection, now)),
        ("handler_missing", alert_queries.missing_handlers(connection, now, deliberate=True)),
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
    """Count the arrivals of the longest period whose events were all read."""
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
        index = (delivery.finished_at - start) * SERIES_POINTS // max(1, now + 1 - start)
        point = points[min(SERIES_POINTS - 1, max(0, index))]
        point[0 if has_succeeded else 1] += 1
        if delivery.outcome is OutcomeKind.LOST:
            continue  # only the time when it was found is known
        length = max(0, delivery.finished_at - delivery.started_at)
        lengths.append(length)
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
