"""Encode trends as JSON, the same for commands and the API."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from flowhooks.clock import to_text

if TYPE_CHECKING:
    from flowhooks.operations.json.encoding import TimestampJson
    from flowhooks.operations.trends import Slowdown, Trend, TrendPeriod, TrendStep


class TrendCountsJson(TypedDict):
    """The attempts of a handler or an error group, or the requests of a source, in a time.

    Attributes:
        count: number of all of them.
        outcomes: their number by outcome: of a source by HTTP status; otherwise succeeded, failed, rejected and lost.
        success_share: the share that succeeded, from 0 to 1; null if there are none.
        p50_ms: median of their durations, in milliseconds; null if there are none.
        p95_ms: 95th percentile of their durations, in milliseconds; null if there are none.
    """

    count: int
    outcomes: dict[str, int]
    success_share: float | None
    p50_ms: float | None
    p95_ms: float | None


class TrendStepJson(TrendCountsJson):
    """The attempts or requests of one step.

    Attributes:
        started_at: start of the step.
    """

    started_at: TimestampJson


class TrendPeriodJson(TypedDict):
    """A time range.

    Attributes:
        since: its start.
        until: its end, which is not included.
        step: length of a step in seconds.
        per_minute: attempts or requests per minute, on average.
        totals: the attempts or requests of the whole range.
        points: the same of each step, the oldest first, also of steps without any.
    """

    since: TimestampJson
    until: TimestampJson
    step: int
    per_minute: float
    totals: TrendCountsJson
    points: list[TrendStepJson]


class TrendMarkJson(TypedDict):
    """An event that can explain a change.

    Attributes:
        at: when it happened.
        kind: `start`: a server or worker started; `plugin`: a process started with another version of a plugin.
        text: `server` or `worker`; the plugin and its version.
    """

    at: TimestampJson
    kind: str
    text: str


class SlowdownJson(TypedDict):
    """The 95th percentile of the durations beside an earlier one.

    Attributes:
        p95_ms: the 95th percentile of the range, in milliseconds.
        earlier_ms: the same at the same time before.
        earlier: when that was: `yesterday` or `last_week`.
        factor: how many times as long it is now.
        is_slower: whether it is longer by more than chance.
    """

    p95_ms: float
    earlier_ms: float
    earlier: str
    factor: float
    is_slower: bool


class TrendJson(TypedDict):
    """A handler, source or error group over time.

    Attributes:
        kind: `handler`, `source` or `error_group`.
        subject: id of the handler, name of the source, or id of the error group.
        current: the requested time range; its start is rounded down to a whole step.
        yesterday: the same time a day before; null if the range is longer than a day.
        last_week: the same time a week before; null if the range is longer than a week.
        slowdown: the 95th percentile beside that of yesterday, or else of last week; null if one of them is missing.
        marks: starts of processes and new versions of plugins in the range, the oldest first, at most 100.
    """

    kind: str
    subject: str
    current: TrendPeriodJson
    yesterday: TrendPeriodJson | None
    last_week: TrendPeriodJson | None
    slowdown: SlowdownJson | None
    marks: list[TrendMarkJson]


def trend_to_json(trend: Trend) -> TrendJson:
    """Return a trend."""
    return {
        "kind": trend.kind.value,
        "subject": trend.subject,
        "current": _period(trend.current),
        "yesterday": None if trend.yesterday is None else _period(trend.yesterday),
        "last_week": None if trend.last_week is None else _period(trend.last_week),
        "slowdown": None if trend.slowdown is None else _slowdown(trend.slowdown),
        "marks": [{"at": to_text(mark.at), "kind": mark.kind, "text": mark.text} for mark in trend.marks],
    }


def _period(period: TrendPeriod) -> TrendPeriodJson:
    return {
        "since": to_text(period.since),
        "until": to_text(period.until),
        "step": period.step,
        "per_minute": round(period.per_minute, 3),
        "totals": _counts(period.totals),
        "points": [{"started_at": to_text(step.started_at), **_counts(step)} for step in period.steps],
    }


def _counts(step: TrendStep) -> TrendCountsJson:
    return {
        "count": step.count,
        "outcomes": dict(step.outcomes),
        "success_share": _rounded(step.success_share, 6),
        "p50_ms": _rounded(step.p50_ms, 3),
        "p95_ms": _rounded(step.p95_ms, 3),
    }


def _slowdown(slowdown: Slowdown) -> SlowdownJson:
    return {
        "p95_ms": round(slowdown.p95_ms, 3),
        "earlier_ms": round(slowdown.earlier_ms, 3),
        "earlier": slowdown.earlier,
        "factor": round(slowdown.factor, 2),
        "is_slower": slowdown.is_slower,
    }


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
