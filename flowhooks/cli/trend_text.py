"""Print a handler, a source or an error group over time, and the options that select the time."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any, Final

import click

from flowhooks.cli import output
from flowhooks.cli.filters import TIME_EXAMPLES, timestamp
from flowhooks.model.trend import TrendKind
from flowhooks.operations.trends import InvalidRange, TimeRange, load_trend, minutes_since

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowhooks.ledger.reader import Reader
    from flowhooks.operations.trends import Trend, TrendStep
    from flowhooks.settings import Settings

MAX_LINES: Final = 25
"""Maximum number of steps that are printed as text. `--json` prints up to 200."""
BAR_WIDTH: Final = 16
_EIGHTHS: Final = " ▏▎▍▌▋▊▉█"
_EARLIER: Final = {"yesterday": "yesterday at this time", "last_week": "a week ago at this time"}


def range_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--from` and `--to` to a command, which receives them as `since` and `until`."""

    @click.option(
        "--from",
        "since",
        type=timestamp,
        metavar="TIME",
        help=f"Show the time from TIME on, {TIME_EXAMPLES} [default: 6 hours before --to].",
    )
    @click.option("--to", "until", type=timestamp, metavar="TIME", help="Show the time before TIME [default: now].")
    @wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapped


def to_range(since: int | None, until: int | None, now: int) -> TimeRange:
    """Return the time range of the options.

    Raises:
        click.UsageError: the range cannot be shown.
    """
    try:
        return TimeRange.of(since, until, now=now)
    except InvalidRange as error:
        raise click.UsageError(f"--from and --to: {error}.") from None


def read_trend(
    reader: Reader, settings: Settings, kind: TrendKind, subject: str, time_range: TimeRange, *, now: int, as_json: bool
) -> Trend:
    """Return a subject over time, with as many steps as the output shows."""
    with reader.connection() as connection:
        return load_trend(
            connection,
            kind,
            subject,
            time_range,
            minutes_since=minutes_since(settings, now),
            **({} if as_json else {"max_steps": MAX_LINES}),
        )


def print_trend(trend: Trend, noun: str) -> None:
    """Print the totals beside those of yesterday and last week, a line for each step, and the marks.

    Args:
        trend: the subject over time.
        noun: what is counted, such as `"attempts"`.
    """
    current = trend.current
    output.print_line(f"From {output.format_time(current.since)} to {output.format_time(current.until)} UTC")
    if trend.is_empty:
        output.print_line(f"  No {noun} are recorded in this time, or at the same time yesterday or last week.")
        output.print_line("  A server records them every 10 seconds.")
        return
    if trend.slowdown is not None:
        output.print_line(f"  {_slowdown_text(trend)}", style="red" if trend.slowdown.is_slower else None)
    output.print_line()
    _print_totals(trend, noun)
    if current.totals.count:
        output.print_line()
        _print_steps(trend, noun)
    for mark in trend.marks:
        what = f"{mark.text} started" if mark.kind == "start" else f"first start with {mark.text}"
        output.print_line(f"  {output.format_time(mark.at)} {what}")


def _slowdown_text(trend: Trend) -> str:
    slowdown = trend.slowdown
    assert slowdown is not None  # noqa: S101 (for the type checker)
    text = f"p95 is {_duration(slowdown.p95_ms)}, {_EARLIER[slowdown.earlier]} {_duration(slowdown.earlier_ms)}"
    return f"{text}: {slowdown.factor:.1f} times as long." if slowdown.is_slower else f"{text}."


def _print_totals(trend: Trend, noun: str) -> None:
    periods = [("now", trend.current), ("yesterday", trend.yesterday), ("last week", trend.last_week)]
    shown = [(name, period) for name, period in periods if period is not None]
    outcomes = sorted({outcome for _, period in shown for outcome in period.totals.outcomes})
    rows = [
        (noun, *(f"{period.totals.count:,}" for _, period in shown)),
        ("per minute", *(f"{period.per_minute:,.1f}" for _, period in shown)),
    ]
    if trend.kind is not TrendKind.ERROR_GROUP:
        rows += [
            ("success", *(_percent(period.totals.success_share) for _, period in shown)),
            ("p50", *(_duration(period.totals.p50_ms) for _, period in shown)),
            ("p95", *(_duration(period.totals.p95_ms) for _, period in shown)),
        ]
    rows += [(outcome, *(f"{period.totals.outcomes.get(outcome, 0):,}" for _, period in shown)) for outcome in outcomes]
    output.print_table(("", *(name for name, _ in shown)), rows)


def _print_steps(trend: Trend, noun: str) -> None:
    period = trend.current
    most = max(step.count for step in period.steps)
    longest = max((step.p95_ms or 0.0 for step in period.steps), default=0.0)
    header = (f"each {_step_text(period.step)} (UTC)", noun, "", "success", "p50", "p95", " ")
    # All attempts of an error group have failed, and only their number is stored.
    columns = 3 if trend.kind is TrendKind.ERROR_GROUP else len(header)
    output.print_table(header[:columns], [_step_row(step, most, longest)[:columns] for step in period.steps])


def _step_text(seconds: int) -> str:
    """Return the length of a step in its largest whole unit."""
    days, hours, minutes = seconds // 86_400, seconds // 3_600, seconds // 60
    return output.pluralize(days, "day") if days else f"{hours} h" if hours else f"{minutes} min"


def _step_row(step: TrendStep, most: int, longest: float) -> tuple[str, ...]:
    return (
        output.format_time(step.started_at),
        f"{step.count:,}" if step.count else "-",
        _bar(step.count, most),
        _percent(step.success_share),
        _duration(step.p50_ms),
        _duration(step.p95_ms),
        _bar(step.p95_ms or 0.0, longest),
    )


def _bar(value: float, most: float) -> str:
    """Return a bar whose length is proportional to a value; at least an eighth of a character if there is any."""
    if value <= 0 or most <= 0:
        return ""
    whole, eighths = divmod(max(1, round(value / most * BAR_WIDTH * 8)), 8)
    return _EIGHTHS[-1] * whole + (_EIGHTHS[eighths] if eighths else "")


def _percent(share: float | None) -> str:
    if share is None:
        return "-"
    text = f"{100 * share:.1f}"
    return "99.9 %" if text == "100.0" and share < 1 else f"{text} %"


def _duration(milliseconds: float | None) -> str:
    return "-" if milliseconds is None else output.format_duration(round(milliseconds * 1000))
