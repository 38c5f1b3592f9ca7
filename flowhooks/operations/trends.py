"""A handler, source or error group over time, beside the same time yesterday and last week."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from flowhooks.clock import DAY, SECOND
from flowhooks.ledger.trend_queries import read_trend, trend_marks
from flowhooks.model.delivery import OutcomeKind
from flowhooks.model.trend import HOUR, MINUTE, NO_DURATION, TrendKind, percentile

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy import Connection

    from flowhooks.model.trend import TrendMark, TrendPoint
    from flowhooks.settings import Settings

MAX_STEPS: Final = 200
DEFAULT_LENGTH: Final = 6 * HOUR * SECOND
"""Length of a time range of which only the end is given, in microseconds."""
MAX_LENGTH: Final = 400 * DAY
"""Maximum length of a time range in microseconds. It bounds the rows that are read."""
TOLERANCE: Final = MINUTE * SECOND
"""Microseconds by which a range may be too long: options such as `--from 7d` are read a moment before now is."""
SLOWER_FACTOR: Final = 1.5
"""The p95 counts as slower from this factor on. Less is within the error of a percentile of wide buckets."""
MIN_COMPARED: Final = 20
"""Minimum number of durations in each of the compared ranges: a p95 of fewer is one of the two longest durations."""
_STEPS: Final = tuple(MINUTE * minutes for minutes in (1, 2, 5, 10, 15, 30)) + tuple(
    HOUR * hours for hours in (1, 2, 3, 6, 12, 24, 48, 96, 168, 672)
)
"""Lengths of a step in seconds. Each up to a day divides it, so that the range a day before has the same steps."""


class InvalidRange(ValueError):
    """A time range that cannot be shown.

    Attributes:
        reason: `"order"`: it does not end after its start and after 1970; `"future"`: it starts after now; `"long"`: it
            is longer than `MAX_LENGTH`.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(
            {
                "order": "the start must be before the end",
                "future": "the start is in the future",
                "long": f"the start must be at most {MAX_LENGTH // DAY} days before the end",
            }[reason]
        )
        self.reason = reason


class TimeRange(NamedTuple):
    """A time range.

    Attributes:
        since: its start, in microseconds since 1970.
        until: its end, which is not included; in microseconds since 1970.
    """

    since: int
    until: int

    @classmethod
    def of(cls, since: int | None, until: int | None, *, now: int) -> Self:
        """Return the range from `since` to `until`; by default it ends now and has the length `DEFAULT_LENGTH`.

        Raises:
            InvalidRange: the range cannot be shown.
        """
        if since is not None and until is not None and since >= until:
            raise InvalidRange("order")
        end = now if until is None else max(0, min(until, now))
        start = max(0, end - DEFAULT_LENGTH if since is None else since)
        if start >= end:
            raise InvalidRange("future" if start >= now else "order")
        if end - start > MAX_LENGTH + TOLERANCE:
            raise InvalidRange("long")
        return cls(start, end)


@dataclass(frozen=True, slots=True)
class TrendStep:
    """The counts of one step, or of a whole range.

    Attributes:
        started_at: start of the step, in microseconds since 1970.
        outcomes: number of attempts or requests by outcome; of a source the outcomes are HTTP statuses.
        success_share: the share that succeeded, from 0 to 1; None without any.
        p50_ms: the median of the durations, in milliseconds; None without any.
        p95_ms: the 95th percentile of the durations, in milliseconds; None without any.
        durations: number of attempts or requests whose duration is known.
    """

    started_at: int
    outcomes: Mapping[str, int]
    success_share: float | None
    p50_ms: float | None
    p95_ms: float | None
    durations: int

    @property
    def count(self) -> int:
        """Number of all attempts or requests."""
        return sum(self.outcomes.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class TrendPeriod:
    """The counts of one time range.

    Attributes:
        since: its start, in microseconds since 1970.
        until: its end, which is not included; in microseconds since 1970.
        step: length of a step in seconds. It is at least an hour if counts of the range are stored by the hour.
        steps: all steps, also those without any attempt or request, the oldest first.
        totals: the counts of the whole range.
    """

    since: int
    until: int
    step: int
    steps: tuple[TrendStep, ...]
    totals: TrendStep

    @property
    def per_minute(self) -> float:
        """Attempts or requests per minute."""
        return self.totals.count * MINUTE * SECOND / (self.until - self.since)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slowdown:
    """The p95 beside an earlier one.

    Attributes:
        p95_ms: the 95th percentile of the durations, in milliseconds.
        earlier_ms: the same at the same time before.
        earlier: when that was: `"yesterday"` or `"last_week"`.
        factor: how many times as long the p95 is now.
        is_slower: whether it is longer by more than chance: by at least `SLOWER_FACTOR`, and computed from at least
            `MIN_COMPARED` durations each.
    """

    p95_ms: float
    earlier_ms: float
    earlier: str
    factor: float
    is_slower: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """A subject over time.

    Attributes:
        kind: what the subject is.
        subject: id of the handler, name of the source, or fingerprint of the error group.
        current: the requested time range. Its start is rounded down to a whole step.
        yesterday: the same time a day before; None if the range is longer than a day.
        last_week: the same time a week before; None if the range is longer than a week.
        marks: starts of processes and new versions of plugins in the range, the oldest first.
    """

    kind: TrendKind
    subject: str
    current: TrendPeriod
    yesterday: TrendPeriod | None
    last_week: TrendPeriod | None
    marks: tuple[TrendMark, ...]

    @property
    def is_empty(self) -> bool:
        """Whether nothing is recorded in any of the time ranges."""
        return not any(period.totals.count for period in (self.current, self.yesterday, self.last_week) if period)

    @property
    def slowdown(self) -> Slowdown | None:
        """The p95 beside that of yesterday, or else of last week; None if one of them is missing."""
        now = self.current.totals
        for name, period in (("yesterday", self.yesterday), ("last_week", self.last_week)):
            if now.p95_ms is not None and period is not None and period.totals.p95_ms is not None:
                earlier = period.totals
                factor = now.p95_ms / period.totals.p95_ms
                return Slowdown(
                    p95_ms=now.p95_ms,
                    earlier_ms=period.totals.p95_ms,
                    earlier=name,
                    factor=factor,
                    is_slower=factor >= SLOWER_FACTOR and min(now.durations, earlier.durations) >= MIN_COMPARED,
                )
        return None


def load_trend(
    connection: Connection,
    kind: TrendKind,
    subject: str,
    time_range: TimeRange,
    *,
    minutes_since: int,
    max_steps: int = MAX_STEPS,
) -> Trend:
    """Return a subject over time, with the same time yesterday and last week.

    Args:
        connection: any connection.
        kind: what the subject is.
        subject: id of the handler, name of the source, or fingerprint of the error group.
        time_range: the time range.
        minutes_since: time from which counts are stored by the minute, in microseconds since 1970; older ones may be
            stored by the hour.
        max_steps: maximum number of steps.
    """
    step = _choose_step(time_range, max_steps, minutes_since)
    since, until = time_range.since - time_range.since % (step * SECOND), time_range.until
    length = until - time_range.since

    def shifted(shift: int) -> TrendPeriod | None:
        if length > shift + TOLERANCE:  # the two ranges would overlap
            return None
        start, earlier_step = since - shift, step
        if start < minutes_since and step < HOUR:
            # The counts of an hour are at its start.
            earlier_step = HOUR
            start -= start % (HOUR * SECOND)
        return _load_period(connection, kind, subject, TimeRange(start, until - shift), earlier_step)

    return Trend(
        kind=kind,
        subject=subject,
        current=_load_period(connection, kind, subject, TimeRange(since, until), step),
        yesterday=shifted(DAY),
        last_week=shifted(7 * DAY),
        marks=tuple(trend_marks(connection, since=since, until=until)),
    )


def minutes_since(settings: Settings, now: int) -> int:
    """Return the time from which counts are stored by the minute, in microseconds since 1970."""
    days = settings.retention.trend_minutes
    return now - days * DAY if days else 0


def is_success(kind: TrendKind, outcome: str) -> bool:
    """Tell whether an outcome is a success: of a source a status from 200 to 299."""
    return outcome.startswith("2") if kind is TrendKind.SOURCE else outcome == OutcomeKind.SUCCEEDED


def _choose_step(time_range: TimeRange, max_steps: int, minutes_since: int) -> int:
    """Return the length of a step in seconds."""
    least = HOUR if time_range.since < minutes_since else MINUTE
    for step in _STEPS:
        first, last = time_range.since // (step * SECOND), (time_range.until - 1) // (step * SECOND)
        if step >= least and last - first < max_steps:
            return step
    return _STEPS[-1]


def _load_period(
    connection: Connection, kind: TrendKind, subject: str, time_range: TimeRange, step: int
) -> TrendPeriod:
    since, until = time_range
    points = read_trend(connection, kind, subject, since=since, until=until, step=step)
    by_start = {point.started_at: point for point in points}
    # Of a range that does not begin with a whole minute, the ledger rounds the start.
    first = since - since % (MINUTE * SECOND)
    return TrendPeriod(
        since=since,
        until=until,
        step=step,
        steps=tuple(
            _to_step(kind, start, [by_start[start]] if start in by_start else [])
            for start in range(first, until, step * SECOND)
        ),
        totals=_to_step(kind, since, points),
    )


def _to_step(kind: TrendKind, started_at: int, points: Iterable[TrendPoint]) -> TrendStep:
    outcomes: Counter[str] = Counter()
    buckets: Counter[int] = Counter()
    for point in points:
        outcomes.update(point.by_outcome())
        buckets.update(point.by_bucket())
    count = sum(outcomes.values())
    succeeded = sum(number for outcome, number in outcomes.items() if is_success(kind, outcome))
    return TrendStep(
        started_at=started_at,
        outcomes=dict(sorted(outcomes.items())),
        success_share=succeeded / count if count else None,
        p50_ms=percentile(buckets, 0.5),
        p95_ms=percentile(buckets, 0.95),
        durations=buckets.total() - buckets[NO_DURATION],
    )
