"""The part of a page that shows a handler or a source over time, and the form that selects the time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote, urlencode

from flowhooks.clock import DAY, SECOND
from flowhooks.model.trend import HOUR, MINUTE, TrendKind
from flowhooks.operations.trends import MAX_LENGTH, InvalidRange, TimeRange, is_success, load_trend, minutes_since
from flowhooks.web.admin.console import charts
from flowhooks.web.admin.console.entered_times import EnteredTimes, input_values, parse_times
from flowhooks.web.admin.console.filters import query_text
from flowhooks.web.admin.operators import operator_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import falcon

    from flowhooks.app import App
    from flowhooks.operations.trends import Trend, TrendStep

PRESETS: Final = ("1h", "6h", "24h", "7d", "30d")
"""Periods offered as links, which end now."""
DEFAULT_PRESET: Final = "6h"
FIELDS: Final = ("from", "to")
WIDTH: Final = 600
HEIGHT: Final = 96
ERROR_GROUP_DAYS: Final = 7
"""Length of the chart of an error group."""
_RANGE_PROBLEMS: Final = {"order": "trend.order", "future": "trend.future", "long": "trend.long"}


class ParsedRange(NamedTuple):
    """A time range as entered and as parsed.

    Attributes:
        entered: the times.
        time_range: the time range; None if a value is invalid.
        problems: the keys of the texts about invalid values, by parameter name.
    """

    entered: EnteredTimes
    time_range: TimeRange | None
    problems: Mapping[str, str]

    @property
    def preset(self) -> str:
        """The preset that was chosen; `""` if none was."""
        given = self.entered.given
        if not given:
            return DEFAULT_PRESET
        start = given.get("from", "")
        return start if "to" not in given and start in PRESETS else ""


def trend_values(app: App, request: falcon.Request, kind: TrendKind, subject: str) -> dict[str, Any]:
    """Return the values of the template `_trend.html`.

    Args:
        app: the app.
        request: the request, whose query has the time range.
        kind: what the subject is.
        subject: id of the handler, or name of the source.
    """
    now = app.clock.now()
    parsed, path = parse_range(request, now), quote(request.path.encode("utf-8", "replace"))
    values = {
        "look": parsed,
        "times": {name: input_values(parsed.entered, name, is_invalid=name in parsed.problems) for name in FIELDS},
        "presets": {
            preset: (f"{path}?{urlencode({'from': preset})}#trend", preset == parsed.preset) for preset in PRESETS
        },
        "most_days": MAX_LENGTH // DAY,
        "trend": None,
    }
    if parsed.time_range is None:
        return values
    with app.ledger.connection() as connection:
        trend = load_trend(connection, kind, subject, parsed.time_range, minutes_since=minutes_since(app.settings, now))
    return values | _drawn(operator_of(request).access.trend(trend))


def error_group_chart(app: App, fingerprint: str) -> dict[str, Any]:
    """Return a chart of the attempts of an error group in the last days, and their number."""
    now = app.clock.now()
    time_range = TimeRange.of(now - ERROR_GROUP_DAYS * DAY, None, now=now)
    with app.ledger.connection() as connection:
        trend = load_trend(
            connection,
            TrendKind.ERROR_GROUP,
            fingerprint,
            time_range,
            minutes_since=minutes_since(app.settings, now),
            max_steps=ERROR_GROUP_DAYS * 24 // 3 + 1,
        )
    columns = [(step.count,) for step in trend.current.steps]
    return {
        "days": ERROR_GROUP_DAYS,
        "count": trend.current.totals.count,
        "chart": charts.bar_chart(columns, ("bad",), width=240, height=24),
    }


def parse_range(request: falcon.Request, now: int) -> ParsedRange:
    """Return the time range in the query of a request; times without an offset are in the zone that the query names.

    Args:
        request: the request.
        now: current time, in microseconds since 1970.
    """
    given = {name: value for name in FIELDS if (value := query_text(request, name))}
    entered = parse_times(given, query_text(request, "zone"), ends=("to",), now=now)
    problems, time_range = dict(entered.problems), None
    if not problems:
        try:
            time_range = TimeRange.of(entered.times.get("from"), entered.times.get("to"), now=now)
        except InvalidRange as error:
            problems["from"] = _RANGE_PROBLEMS[error.reason]
    return ParsedRange(entered, time_range, problems)


def outcome_class(kind: TrendKind, outcome: str) -> str:
    """Return the CSS class of an outcome."""
    if is_success(kind, outcome):
        return "good"
    if kind is TrendKind.SOURCE:
        return {"4": "slow", "5": "bad"}.get(outcome[:1], "other")
    return {"failed": "bad", "rejected": "slow"}.get(outcome, "other")


def _drawn(trend: Trend) -> dict[str, Any]:
    current, kind = trend.current, trend.kind
    length = len(current.steps) * current.step * SECOND
    earlier = [
        (name, period)
        for name, period in (("last_week", trend.last_week), ("yesterday", trend.yesterday))
        if period is not None
    ]
    outcomes = sorted(current.totals.outcomes, key=lambda outcome: (not is_success(kind, outcome), outcome))
    marks = [(mark.at - current.since) / length for mark in trend.marks]

    def lines(value: Callable[[TrendStep], float | None]) -> list[charts.LineSeries]:
        periods = [*earlier, ("now", current)]
        return [
            charts.LineSeries(name, [value(step) for step in period.steps], period.step * SECOND / length)
            for name, period in periods
        ]

    counts = [
        charts.LineSeries(
            name,
            [step.count * current.step / period.step for step in period.steps],
            period.step * SECOND / length,
        )
        for name, period in earlier
    ]
    throughput = charts.time_chart(
        counts,
        columns=[[step.outcomes.get(outcome, 0) for outcome in outcomes] for step in current.steps],
        kinds=[outcome_class(kind, outcome) for outcome in outcomes],
        marks=marks,
        width=WIDTH,
        height=HEIGHT,
    )
    shares = lines(lambda step: step.success_share)
    known = [value for line in shares for value in line.values if value is not None]
    # From the next lower tenth, so that a success share of 98 % does not look like one of 100 %.
    low = max(0, int(min(known, default=1.0) * 10 - 0.001)) / 10
    return {
        "trend": trend,
        "outcomes": [(outcome, outcome_class(kind, outcome)) for outcome in outcomes],
        "periods": [("now", current), *reversed(earlier)],
        "throughput": throughput,
        "most_per_minute": throughput.most * MINUTE / current.step,
        "success": charts.time_chart(shares, marks=marks, low=low, most=1.0, width=WIDTH, height=HEIGHT),
        "durations": [
            ("p50", charts.time_chart(lines(lambda step: step.p50_ms), marks=marks, width=WIDTH, height=HEIGHT)),
            ("p95", charts.time_chart(lines(lambda step: step.p95_ms), marks=marks, width=WIDTH, height=HEIGHT)),
        ],
        "ends_at": current.since + length,
        "with_date": length >= 24 * HOUR * SECOND,
    }
