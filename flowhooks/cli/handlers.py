"""`flowhooks handlers`: list, show, pause and resume handlers."""

from __future__ import annotations

import sys
from contextlib import closing
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final

import click

from flowhooks.cli import operations_client, output
from flowhooks.cli.options import json_option, settings_options, utf8
from flowhooks.cli.plugins import text
from flowhooks.cli.plugins.inspection import inspect_plugins
from flowhooks.cli.trend_text import print_trend, range_options, read_trend, to_range
from flowhooks.clock import Clock
from flowhooks.errors import NotFound
from flowhooks.ledger.reader import Reader
from flowhooks.model.trend import TrendKind
from flowhooks.operations.error_groups import SHORT_ID_CHARS, list_error_groups
from flowhooks.operations.json.errors import error_group_to_json
from flowhooks.operations.json.plugins import handler_to_json
from flowhooks.operations.json.trends import trend_to_json
from flowhooks.operations.plugin_status import find_handler
from flowhooks.settings import database_url
from flowhooks.settings.types import did_you_mean
from flowhooks.text import escape_control

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flowhooks.operations.error_groups import ErrorGroupStatus
    from flowhooks.operations.json.plugins import HandlerJson
    from flowhooks.operations.plugin_status import HandlerStatus, PluginStatus
    from flowhooks.settings import Settings

MAX_ERRORS: Final = 5
"""Maximum number of error groups that are shown of a handler, the ones seen last."""

_ids = click.argument("handlers", type=utf8, nargs=-1, required=True, metavar="ID...")
_dry_run = click.option("--dry-run", is_flag=True, help="Show what would be done, and change nothing.")
_yes = click.option("--yes", is_flag=True, help="Skip the confirmation; required without a terminal.")


@click.command("list", short_help="List handlers with their waiting deliveries, pauses and circuits.")
@json_option
@settings_options
def list_command(settings: Settings, *, as_json: bool) -> None:
    r"""List the handlers that a server would load now, and handlers that are registered but not loaded.

    When the last attempts of a handler failed, its circuit opens: flowhooks pauses the handler and tries a single
    delivery periodically. All deliveries run once such a try succeeds or an operator resumes the handler. Plugins are
    loaded for the list as in a server. --json prints all data of each handler.

    \b
    Examples:
      flowhooks handlers list
      flowhooks handlers list --json | jq -r '.handlers[] | select(.paused_at) | .id'

    Exit codes: 0 done, 2 wrong usage.
    """
    inspection = inspect_plugins(settings)
    handlers = [handler for plugin in inspection.statuses for handler in plugin.handlers]
    handlers_json = [handler_to_json(handler) for handler in handlers]
    if as_json:
        output.print_json({"handlers": handlers_json, "ledger": inspection.ledger})
        return
    if handlers:
        output.print_table(
            ("handler", "state", "stored", "listens to"),
            [
                (
                    handler.id,
                    _state_text(handler, handler_json),
                    text.backlog_text(handler_json["backlog"]).replace(", ", "\n") or "-",
                    text.selectors_text(handler_json["selectors"]),
                )
                for handler, handler_json in zip(handlers, handlers_json, strict=True)
            ],
            free_text=("state", "listens to"),
            optional=("stored",),
        )
        output.print_line()
    paused = sum(handler.paused_at is not None for handler in handlers)
    n_open = sum(handler.circuit is not None for handler in handlers)
    open_text = f" ({n_open:,} with an open circuit)" if n_open else ""
    output.print_line(f"{output.pluralize(len(handlers), 'handler')}, {paused:,} paused{open_text}.")
    if why := inspection.ledger["why"]:
        output.print_line(f"Without the registered handlers: {why}", err=True)


def _state_text(handler: HandlerStatus, handler_json: HandlerJson) -> str:
    isolation = handler_json["isolation"]
    lines = [f"{handler.availability}, in a {isolation}" if isolation else handler.availability]
    if limits := text.ordering_text(None, handler_json["concurrency"], handler_json["rate"]):
        lines.append(limits)
    if handler.damage:
        lines.append(handler.damage)
    if handler.paused_at is not None:
        lines.append(f"paused {output.format_time(handler.paused_at)}{text.pause_text(handler_json)}")
    if handler.circuit is not None:
        why = escape_control(handler.circuit.reason, 60)
        lines += [f"circuit open: {why}", f"next try {output.format_time(handler.circuit.retry_at)}"]
    return "\n".join(lines)


@click.command("show", short_help="Show a handler over time, beside yesterday and last week.")
@click.argument("handler_id", type=utf8, metavar="HANDLER")
@range_options
@json_option
@settings_options
def show_command(settings: Settings, *, handler_id: str, since: int | None, until: int | None, as_json: bool) -> None:
    r"""Show a handler: its state, its attempts over time, and its last errors.

    The attempts of a time are compared with those of the same time yesterday and last week: their number, the share
    that succeeded, and the median (p50) and the 95th percentile (p95) of their durations. Each line is a step of the
    time with a bar for the number of attempts and a bar for p95. Starts of servers and new versions of plugins follow.
    Percentiles are estimated from buckets of durations, whose limits differ by a factor of 2 to 2.5. Times are UTC.

    \b
    Examples:
      flowhooks handlers show payments:book_payment
      flowhooks handlers show payments:book_payment --from 24h
      flowhooks handlers show payments:book_payment --from 2026-11-24T08:00 --to 2026-11-24T12:00
      flowhooks handlers show payments:book_payment --json | jq .trend.slowdown

    Exit codes: 0 shown, 1 there is no such handler, or the database cannot be read, 2 wrong usage.
    """
    now = Clock().now()
    time_range = to_range(since, until, now)
    with closing(Reader(database_url(settings))) as reader:
        trend = read_trend(reader, settings, TrendKind.HANDLER, handler_id, time_range, now=now, as_json=as_json)
        errors = list_error_groups(reader, now=now, handler=handler_id, limit=MAX_ERRORS).groups
    inspection = inspect_plugins(settings)
    plugin, status = find_handler(inspection.statuses, handler_id)
    if status is None and trend.is_empty:
        known = [handler.id for found in inspection.statuses for handler in found.handlers]
        suggestion = did_you_mean(handler_id, known) or "; `flowhooks handlers list` lists the handlers"
        raise NotFound(f"there is no handler {handler_id}{suggestion}")
    if as_json:
        output.print_json(
            {
                "id": handler_id,
                "plugin_version": plugin.info.version if plugin and plugin.info else "",
                "handler": None if status is None else handler_to_json(status),
                "trend": trend_to_json(trend),
                "errors": [error_group_to_json(error) for error in errors],
            }
        )
        return
    _print_handler(handler_id, plugin, status)
    output.print_line()
    print_trend(trend, "attempts")
    _print_errors(errors)


def _print_handler(handler_id: str, plugin: PluginStatus | None, status: HandlerStatus | None) -> None:
    output.print_line(f"handler {handler_id}")
    facts: list[tuple[str, str]] = []
    if status is None:
        facts.append(("state", "neither loaded nor registered"))
    else:
        handler_json = handler_to_json(status)
        state, *more = _state_text(status, handler_json).split("\n")
        facts.append(("state", state))
        facts += [("", line) for line in more]
        facts += [("listens to", line) for line in text.selectors_text(handler_json["selectors"]).split("\n")][:20]
        ordering = text.ordering_text(handler_json["order_by"], handler_json["concurrency"], handler_json["rate"])
        facts += [("runs", ordering)] if ordering else []
        facts.append(("stored", text.backlog_text(handler_json["backlog"]) or "-"))
    if plugin is not None and plugin.info is not None and plugin.info.version:
        facts.append(("version", plugin.info.version))
    previous = None
    for name, value in facts:
        output.print_line(f"  {'' if name == previous else name:<14} {value}".rstrip())
        previous = name


def _print_errors(errors: Sequence[ErrorGroupStatus]) -> None:
    if not errors:
        return
    output.print_line()
    output.print_line("Last errors:")
    for group, _ in errors:
        what = output.escape_newlines(f"{group.error_type}: {group.message}" if group.message else group.error_type)
        attempts = output.pluralize(group.count, "attempt")
        last = output.format_time(group.last_seen_at)
        output.print_line(f"  {group.fingerprint[:SHORT_ID_CHARS]}  {attempts}, last {last}: {what}")


@click.command("pause", short_help="Pause handlers: store new deliveries without running them.")
@_ids
@click.option("--note", type=utf8, default="", metavar="TEXT", help="Reason, kept in the audit log.")
@_dry_run
@_yes
@json_option
@settings_options
def pause_command(
    settings: Settings, *, handlers: tuple[str, ...], note: str, dry_run: bool, yes: bool, as_json: bool
) -> None:
    r"""Pause handlers in every process that shares the ledger, until they are resumed.

    Callbacks are accepted and stored as usual. Running attempts finish; no attempt, retry or probe starts. A pause
    stays in force after a restart. ID may be a pattern. The command asks for confirmation unless --yes is given.

    \b
    Examples:
      flowhooks handlers pause contracts:archive_contract --note "the archive is being moved"
      flowhooks handlers pause 'contracts:*' --dry-run
      flowhooks handlers pause 'contracts:*' leave:grant_leave --yes

    Exit codes: 0 done (or paused already), 1 there is no such handler, or another error, 2 wrong usage.
    """
    arguments = {"handlers": handlers, **({"note": note} if note else {})}
    _change_pauses(settings, "pause", arguments, dry_run=dry_run, yes=yes, as_json=as_json)


@click.command("resume", short_help="Resume paused handlers and close open circuits.")
@_ids
@_dry_run
@_yes
@json_option
@settings_options
def resume_command(settings: Settings, *, handlers: tuple[str, ...], dry_run: bool, yes: bool, as_json: bool) -> None:
    r"""Run the deliveries of paused handlers again, oldest first. Open circuits are closed.

    Order keys and limits on concurrency still apply. ID may be a pattern. The command asks for confirmation unless
    --yes is given.

    \b
    Examples:
      flowhooks handlers resume contracts:archive_contract
      flowhooks handlers resume '*' --dry-run

    Exit codes: 0 done (or not paused), 1 there is no such handler, or another error, 2 wrong usage.
    """
    _change_pauses(settings, "resume", {"handlers": handlers}, dry_run=dry_run, yes=yes, as_json=as_json)


@click.group(
    "handlers",
    commands=[list_command, show_command, pause_command, resume_command],
    short_help="List, show, pause and resume handlers.",
)
def command() -> None:
    r"""List handlers, show one over time, and pause and resume them.

    The running server pauses and resumes handlers. If none runs, the command does it.

    \b
    Examples:
      flowhooks handlers list
      flowhooks handlers show contracts:archive_contract
      flowhooks handlers pause contracts:archive_contract
      flowhooks handlers resume contracts:archive_contract
    """


def _change_pauses(
    settings: Settings, name: str, arguments: Mapping[str, Any], *, dry_run: bool, yes: bool, as_json: bool
) -> None:
    if not (yes or dry_run or sys.stdin.isatty()):
        raise click.UsageError(
            "There is no terminal to ask for confirmation: give --yes, or --dry-run to see what would be done."
        )
    _check_patterns(settings, arguments["handlers"])
    arguments = {**arguments, "handlers": list(arguments["handlers"])}
    if not (yes or dry_run):
        planned = operations_client.run_step(settings, name, {**arguments, "dry_run": True}, "nothing was changed")
        if planned["handlers"]:
            output.confirm(f"{_result_text(name, planned)} Continue?")
    done = operations_client.run_operation(settings, name, {**arguments, "dry_run": dry_run})
    if as_json:
        output.print_json(done)
        return
    output.print_line(_result_text(name, done))
    if name == "resume" and done["waiting"] and not (done["server"] or dry_run):
        output.print_line("No server is running: the deliveries run once a server starts.")


def _check_patterns(settings: Settings, patterns: Sequence[str]) -> None:
    with closing(Reader(database_url(settings))) as reader:
        handler_ids = [handler.id for handler in reader.registered_handlers()]
    for pattern in patterns:
        if not any(handler_id == pattern or fnmatchcase(handler_id, pattern) for handler_id in handler_ids):
            suggestion = did_you_mean(pattern, handler_ids) or "; `flowhooks handlers list` lists the handlers"
            raise NotFound(f"no handler {pattern} is registered{suggestion}")


def _result_text(name: str, done: Mapping[str, Any]) -> str:
    already = {"pause": "is paused already", "resume": "is not paused"}[name]
    skipped = f" Skipped because it {already}: {', '.join(done['skipped'])}." if done["skipped"] else ""
    if not done["handlers"]:
        return f"Nothing to do.{skipped}"
    verb = {"pause": "Paused", "resume": "Resumed"}[name]
    verb = f"{'Would be p' if name == 'pause' else 'Would be r'}{verb[1:]}" if done["dry_run"] else verb
    waiting = output.pluralize(done["waiting"], "delivery waits", "deliveries wait")
    if name == "resume":
        waiting = output.pluralize(done["waiting"], "waiting delivery released", "waiting deliveries released")
        if later := done["due_later"]:
            waiting += f", {later:,} of them {'runs' if later == 1 else 'run'} when the next retry is due"
    text = f"{verb}: {', '.join(done['handlers'])}. {waiting}"
    if name == "pause" and (running := done["running"]):
        text += f", {running:,} {'runs and finishes' if running == 1 else 'run and finish'}"
    return f"{text}.{skipped}"
