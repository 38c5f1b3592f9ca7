"""`flowhooks errors`: list groups of failed attempts with the same error, and show one of them."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Final

import click

from flowhooks.cli import output
from flowhooks.cli.filters import timestamp
from flowhooks.cli.options import json_option, limit_option, settings_options, utf8
from flowhooks.cli.trend_text import print_trend, range_options, read_trend, to_range
from flowhooks.clock import Clock
from flowhooks.ledger.reader import Reader
from flowhooks.model.traceback_text import CAUSE
from flowhooks.model.trend import TrendKind
from flowhooks.operations.error_groups import (
    SHORT_ID_CHARS,
    brief_versions,
    find_error_group,
    list_error_groups,
    newest_sample,
)
from flowhooks.operations.json.errors import error_groups_to_json, whole_error_group_to_json
from flowhooks.operations.json.trends import trend_to_json
from flowhooks.settings import database_url
from flowhooks.text import command_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from flowhooks.ledger.error_group_queries import ErrorGroup, GroupActivity
    from flowhooks.model.traceback_text import ChainedException
    from flowhooks.operations.error_groups import ErrorGroupStatus, SampleAttempt
    from flowhooks.settings import Settings

_BARS: Final = "▁▂▃▄▅▆▇█"


@click.group("errors", short_help="List failed attempts by their error.")
def command() -> None:
    """List failed attempts by their error, and show one error with its traceback.

    Failed attempts of a handler are one group if their exceptions have the same type, message and place in the plugin.
    Ids, numbers, times and quoted values in messages do not matter. `flowhooks events list` and `flowhooks events
    replay` select the events of a group with --error-group ID.
    """


@command.command("list", short_help="List groups of failed attempts, the latest first.")
@click.option("--handler", type=utf8, metavar="PLUGIN:NAME", help="List only errors of this handler.")
@click.option("--since", type=timestamp, metavar="TIME", help="List only errors that occurred at or after TIME.")
@limit_option("groups")
@click.option(
    "--after", type=click.IntRange(0, 10**9), default=0, metavar="N", help="Continue after the first N groups."
)
@json_option
@settings_options
def list_command(
    settings: Settings, *, handler: str | None, since: int | None, limit: int, after: int, as_json: bool
) -> None:
    r"""List groups of failed attempts with the same error, the one seen last first.

    "attempts" is the number of stored attempts. "open" is the number of deliveries whose last attempt has the error and
    that are dead, waiting or unknown. "versions" are those of the plugin with which the error was seen. Of more than
    three, the first and the last one are listed with their number. The last column is the number of attempts in each of
    the last 24 hours. Times are UTC.

    \b
    Examples:
      flowhooks errors list
      flowhooks errors list --handler contracts:archive_contract --since 1d
      flowhooks errors list --json

    Exit codes: 0 done, 1 the database cannot be read, 2 wrong usage.
    """
    with closing(Reader(database_url(settings))) as reader:
        page = list_error_groups(reader, now=Clock().now(), handler=handler, since=since, limit=limit, skip=after)
    if as_json:
        output.print_json(error_groups_to_json(page, after))
        return
    if not page.groups:
        output.print_line(
            "No failed attempt matches." if handler or since is not None or after else "No attempt failed."
        )
        return
    output.print_table(
        ("error, first and last seen (UTC)", "handler, error, versions", "attempts, open", "24 hours"),
        [
            (
                "\n  ".join((group.fingerprint[:SHORT_ID_CHARS], *_seen_at(group))),
                "\n".join((output.escape_newlines(group.handler), *_error_lines(group))),
                f"{group.count:,}\n  {_open_text(activity)}",
                _sparkline(activity.hours),
            )
            for group, activity in page.groups
        ],
        free_text=("handler, error, versions",),
    )
    if page.has_more:
        output.print_line()
        output.print_line(f"There are more groups: add --after {after + len(page.groups)}")


@command.command("show", short_help="Show one error over time, with its traceback.")
@click.argument("error_id", type=utf8, metavar="ID")
@range_options
@click.option("--full", is_flag=True, help="Print the frames of flowhooks and pluggy, too.")
@json_option
@settings_options
def show_command(
    settings: Settings, *, error_id: str, since: int | None, until: int | None, full: bool, as_json: bool
) -> None:
    r"""Show a group of failed attempts: its attempts over time, and the traceback of its newest attempt.

    ID is the id of the group, or its first characters, at least eight. The number of attempts of a time is compared
    with that of the same time yesterday and last week. Each line is a step of the time. Starts of servers and new
    versions of plugins follow. Times are UTC.

    \b
    Examples:
      flowhooks errors show 3f6f1e0c9a11
      flowhooks errors show 3f6f1e0c9a11 --from 7d
      flowhooks errors show 3f6f1e0c9a11 --json

    Exit codes: 0 done, 1 there is no such group, 2 wrong usage.
    """
    now = Clock().now()
    time_range = to_range(since, until, now)
    with closing(Reader(database_url(settings))) as reader:
        status = find_error_group(reader, error_id, now=now)
        newest = newest_sample(reader, status.group)
        error_id = status.group.fingerprint
        trend = read_trend(reader, settings, TrendKind.ERROR_GROUP, error_id, time_range, now=now, as_json=as_json)
    if as_json:
        output.print_json({**whole_error_group_to_json(status, newest), "trend": trend_to_json(trend)})
        return
    _print_group(status)
    output.print_line()
    print_trend(trend, "attempts")
    if newest is not None:
        _print_newest(newest, full=full)
    if status.activity.dead:
        short = status.group.fingerprint[:SHORT_ID_CHARS]
        output.print_line()
        output.print_line(
            f"`{command_line('events', 'replay', f'--error-group={short}')}` runs its dead deliveries again."
        )


def _print_group(status: ErrorGroupStatus) -> None:
    group, activity = status
    for name, value in (
        ("error", group.fingerprint),
        ("handler", group.handler),
        ("type", group.error_type),
        ("message", group.message or "-"),
        ("frame", group.frame or "-"),
        ("versions", ", ".join(group.versions) or "-"),
        ("first seen", output.format_time(group.first_seen_at)),
        ("last seen", output.format_time(group.last_seen_at)),
        ("attempts", f"{group.count:,}"),
        ("open", _open_text(activity)),
        ("24 hours", _sparkline(activity.hours)),
        ("damaged", group.damage),
    ):
        if value:
            output.print_line(f"{name:<12}{value}")


def _print_newest(newest: SampleAttempt, *, full: bool) -> None:
    output.print_line()
    output.print_line(
        f"Newest attempt: number {newest.attempt.number} of delivery {newest.delivery_id}, event {newest.event_id}"
    )
    output.print_line(f"  {newest.attempt.error}")
    if len(newest.chain) > 1:
        output.print_line("Chain of causes:")
        for number, exception in enumerate(newest.chain):
            output.print_line(
                f"  {_relation_text(exception)}{exception.error or '-'}" if number else f"  {exception.error}"
            )
    for exception in newest.chain:
        output.print_line()
        if exception.relation:
            output.print_line(_relation_text(exception).strip())
        for part in exception.parts:
            if part.folded and not full:
                output.print_line(f"  … {output.pluralize(part.frames, 'frame')} of {part.folded}")
            else:
                output.print_lines(part.text)


def _relation_text(exception: ChainedException) -> str:
    return "then, caused by it: " if exception.relation == CAUSE else "then, while it was handled: "


def _seen_at(group: ErrorGroup) -> tuple[str, str]:
    return output.format_time(group.first_seen_at), output.format_time(group.last_seen_at)


def _error_lines(group: ErrorGroup) -> Iterator[str]:
    yield output.escape_newlines(f"{group.error_type}: {group.message}" if group.message else group.error_type)
    if group.versions:
        yield f"versions {output.escape_newlines(brief_versions(group.versions))}"


def _open_text(activity: GroupActivity) -> str:
    counts = ((activity.dead, "dead"), (activity.waiting, "waiting"), (activity.unknown, "unknown"))
    text = ", ".join(f"{count:,} {state}" for count, state in counts if count) or "0"
    return text if activity.is_complete else f"at least {text}"


def _sparkline(hours: Sequence[int]) -> str:
    most = max(hours, default=0)
    return "".join(" " if not count else _BARS[max(0, -(-count * len(_BARS) // most) - 1)] for count in hours).rstrip()
