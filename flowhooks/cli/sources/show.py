"""`flowhooks sources show`: a source with its requests over time, rejected and ignored ones, and its settings."""

from __future__ import annotations

import sys
from contextlib import closing
from typing import TYPE_CHECKING, Final

import click

from flowhooks.cli import output
from flowhooks.cli.options import json_option, settings_options, utf8
from flowhooks.cli.sources.toml import source_name
from flowhooks.cli.trend_text import print_trend, range_options, read_trend, to_range
from flowhooks.clock import Clock
from flowhooks.errors import NotFound, SettingsError
from flowhooks.ledger.reader import Reader
from flowhooks.model.trend import TrendKind
from flowhooks.operations.json.engines import engines_to_json
from flowhooks.operations.json.sources import source_to_json
from flowhooks.operations.json.trends import trend_to_json
from flowhooks.operations.sources import source_names, source_statuses
from flowhooks.settings import database_url
from flowhooks.text import command_line

if TYPE_CHECKING:
    from flowhooks.ledger.ignored_requests import IgnoredRule
    from flowhooks.operations.sources import SourceStatus
    from flowhooks.operations.trends import Trend
    from flowhooks.settings import Settings

MAX_BODY_CHARS: Final = 1000
"""Maximum length of the body of an ignored request that is printed as text. `--json` and `--body` print all of it."""


@click.command("show", short_help="Show a source with its rejected and ignored requests.")
@click.argument("name", callback=source_name)
@click.option(
    "--body", "rule", type=utf8, metavar="RULE", help="Print only the body of the last request that RULE ignored."
)
@range_options
@json_option
@settings_options
def show_command(
    settings: Settings, *, name: str, rule: str | None, since: int | None, until: int | None, as_json: bool
) -> None:
    r"""Show a source: its requests over time, those that were rejected or ignored, and its settings.

    The requests of a time are compared with those of the same time yesterday and last week. A request succeeded if its
    status is from 200 to 299. The median (p50) and the 95th percentile (p95) are of the time until the response.
    Percentiles are estimated from buckets of durations, whose limits differ by a factor of 2 to 2.5.

    A request to the fixed URL /in/NAME is ignored if the table `kind` of [sources.NAME.ingress] says so, or if the
    receiver makes no callback of it. The sender is answered with a success, nothing is stored, and the request is
    counted under its rule, with the body of the last one. If a rule ignores too much, change the settings, and try
    them with that body. Times are UTC. At most 64 KiB of a body are stored.

    \b
    Examples:
      flowhooks sources show yudao
      flowhooks sources show yudao --from 2026-11-24T08:00 --to 2026-11-24T12:00
      flowhooks sources show yudao --body '/status = 1' | flowhooks sources test yudao --data -
      flowhooks sources show yudao --json | jq '.ignored[] | {rule, requests}'

    Exit codes: 0 shown, 1 no request was ignored by RULE, 2 wrong usage, or no such source.
    """
    if as_json and rule is not None:
        raise click.UsageError("--json and --body exclude each other.")
    if name not in source_names(settings):
        raise SettingsError(f"there is no source {name} in the settings; `flowhooks sources list` lists the sources")
    now = Clock().now()
    time_range = to_range(since, until, now)
    with closing(Reader(database_url(settings))) as reader:
        (status,) = source_statuses(reader, settings, now, [name])
        with reader.connection() as connection:
            engines = {engine["source"]: engine for engine in engines_to_json(connection, settings, now)}
        trend = read_trend(reader, settings, TrendKind.SOURCE, name, time_range, now=now, as_json=as_json)
    if rule is not None:
        _print_body(status, rule)
    elif as_json:
        source = source_to_json(status, engines, max_body_chars=sys.maxsize)
        output.print_json({**source, "trend": trend_to_json(trend)})
    else:
        _print_status(status, trend)


def _print_body(status: SourceStatus, name: str) -> None:
    rule = next((rule for rule in status.ignored if rule.rule == name), None)
    if rule is None:
        raise NotFound(f"no request of {status.name} was ignored by the rule {name}")
    if sys.stdout.isatty():
        output.print_lines(rule.body)
    else:
        sys.stdout.buffer.write(rule.body.encode())


def _print_status(status: SourceStatus, trend: Trend) -> None:
    output.print_line(f"source {status.name}")
    rate, more = status.rate, "at least " if status.rate.truncated else ""
    for word, value in (
        ("fixed URL", status.fixed_url or None),
        ("format", status.ingress.format if status.ingress else None),
        ("receiver", f"the plugin {status.ingress.receiver}" if status.ingress and status.ingress.receiver else None),
        ("calls", "never: it has no credential" if status.pull_only else None),
        ("last callback", "none found" if rate.last_at is None else f"{output.format_time(rate.last_at)} UTC"),
        ("callbacks", f"{more}{rate.last_hour:,} in 1 h, {more}{rate.last_day:,} in 24 h"),
        ("ignored", output.pluralize(status.ignored_requests, "request") if status.ignored else None),
        ("engine", f"asked, {status.engine_state.replace('_', ' ')}" if status.has_engine else None),
    ):
        if value is not None:
            output.print_line(f"  {word:<14} {value}")
    output.print_line()
    print_trend(trend, "requests")
    if status.rejections:
        output.print_line()
        output.print_table(
            ("rejected with", "requests", "last", "reason"),
            [
                (str(entry.status), f"{entry.requests:,}", output.format_time(entry.last_at), entry.reason_en)
                for entry in status.rejections
            ],
            free_text=("reason",),
        )
    for rule in status.ignored:
        _print_rule(rule)
    if settings := {name: value for name, value in status.settings.items() if value}:
        output.print_line()
        output.print_table(("setting", "value"), list(settings.items()), free_text=("value",))


def _print_rule(rule: IgnoredRule) -> None:
    output.print_line()
    output.print_line(
        f"ignored by {rule.rule}: {output.pluralize(rule.count, 'request')}, the first at "
        f"{output.format_time(rule.first_at)}, the last at {output.format_time(rule.last_at)} UTC"
    )
    if rule.media_type:
        output.print_line(f"  {'Content-Type':<14} {rule.media_type}")
    body = rule.body[:MAX_BODY_CHARS]
    output.print_lines(output.format_body(body) if len(body) == len(rule.body) else body, indent="    ")
    if left := len(rule.body) - len(body):
        command = command_line("sources", "show", rule.source, "--body", rule.rule)
        output.print_line(f"    … and {output.pluralize(left, 'character')}: {command}")
