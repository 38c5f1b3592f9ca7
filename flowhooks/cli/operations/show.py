"""`flowhooks operations list`, `show` and `items`: what was planned, and how far it is."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import click

from flowhooks.cli import output
from flowhooks.cli.audit_text import INTERFACE_TEXTS, filter_text
from flowhooks.cli.operations import text
from flowhooks.cli.operations.follow import find_operation, follow, print_progress
from flowhooks.cli.operations.stopped_handlers import print_stopped
from flowhooks.cli.options import json_option, limit_option, page_options, settings_options, utf8
from flowhooks.ledger.bulk_operations import list_operations, operation_items
from flowhooks.ledger.reader import Reader
from flowhooks.model.bulk_operation import ITEM_CHOICES, OperationState, parse_item_choice
from flowhooks.operations.json.bulk_operations import operation_item_to_json, operation_to_json
from flowhooks.settings import database_url

if TYPE_CHECKING:
    from flowhooks.model.bulk_operation import Operation
    from flowhooks.settings import Settings


@click.command("list", short_help="List operations, newest first.")
@click.option("--active", is_flag=True, help="List only operations that are running or paused.")
@page_options("operations", "operation")
@json_option
@settings_options
def list_command(settings: Settings, *, active: bool, limit: int, after: str, as_json: bool) -> None:
    r"""List operations with their progress, newest first. Times are UTC.

    With --json, "next" is the value for --after; it is "" at the end.

    \b
    Examples:
      flowhooks operations list
      flowhooks operations list --active --json

    Exit codes: 0 done, 1 the database cannot be read, 2 wrong usage.
    """
    with closing(Reader(database_url(settings))) as reader, reader.connection() as connection:
        operations = list_operations(connection, limit=limit + 1, before=after, active_only=active)
    next_id = operations[limit - 1].id if len(operations) > limit else ""
    operations = operations[:limit]
    if as_json:
        output.print_json({"operations": [operation_to_json(operation) for operation in operations], "next": next_id})
        return
    if not operations:
        output.print_line("No matching operations." if active or after else "No operation has been planned yet.")
        return
    output.print_table(
        ("operation, planned (UTC)", "action, state", "deliveries", "who, note"),
        [
            (
                f"{operation.id}\n  {output.format_time(operation.created_at)}",
                f"{operation.action}\n  {operation.state}",
                _counts_text(operation),
                _actor_text(operation),
            )
            for operation in operations
        ],
        free_text=("who, note",),
    )
    if next_id:
        output.print_line()
        output.print_line(f"There are more operations: add --after {next_id}")


@click.command("show", short_help="Show one operation and its progress.")
@click.argument("operation_id", type=utf8, metavar="ID")
@click.option("--follow", "following", is_flag=True, help="Follow it until its deliveries have been executed.")
@json_option
@settings_options
def show_command(settings: Settings, *, operation_id: str, following: bool, as_json: bool) -> None:
    r"""Show one operation: its plan, its rate and its progress.

    Ctrl-C ends --follow, and the operation continues.

    \b
    Examples:
      flowhooks operations show 019ab2c4-5d21-7000-8000-1b2c3d4e5f60
      flowhooks operations show 019ab2c4-5d21-7000-8000-1b2c3d4e5f60 --follow

    Exit codes: 0 done, 1 there is no such operation, 2 wrong usage, 130 stopped by Ctrl-C.
    """
    if following:
        follow(settings, operation_id)
    with closing(Reader(database_url(settings))) as reader:
        operation = find_operation(reader, operation_id)
        if as_json:
            output.print_json(operation_to_json(operation))
            return
        print_progress(operation)
        print_stopped(settings, reader, operation)
    for name, value in (
        ("action", operation.action.value),
        ("selection", filter_text(operation.event_filter)),
        ("planned", f"{text.deliveries_text(operation.planned)}, {output.format_time(operation.created_at)} (UTC)"),
        ("by", f"{operation.actor} {INTERFACE_TEXTS.get(operation.interface, operation.interface)}"),
        ("note", operation.note or "-"),
        ("rate", text.rate_text(operation.rate)),
        ("started", output.format_time(operation.started_at)),
        ("finished", output.format_time(operation.finished_at)),
    ):
        output.print_line(f"{name:<14} {output.escape_newlines(value)}")
    if operation.state is OperationState.PLANNED:
        output.print_line(f"To start it: flowhooks operations start {operation.id}")


@click.command("items", short_help="List the deliveries of an operation.")
@click.argument("operation_id", type=utf8, metavar="ID")
@click.option(
    "--status",
    type=click.Choice(ITEM_CHOICES),
    metavar="STATUS",
    help="List only deliveries that are not released yet (planned), released, or left alone because they had changed "
    "since the plan (changed); released ones that have succeeded now, or failed again (failed); or those that are not "
    "released or not executed yet (remaining).",
)
@limit_option("deliveries")
@click.option("--after", type=utf8, default="", metavar="ID", help="Continue after this delivery.")
@json_option
@settings_options
def items_command(
    settings: Settings, *, operation_id: str, status: str | None, limit: int, after: str, as_json: bool
) -> None:
    r"""List the deliveries of an operation's plan, with what it has done to each and its present state.

    With --json, "next" is the value for --after; it is "" at the end.

    \b
    Examples:
      flowhooks operations items 019ab2c4-5d21-7000-8000-1b2c3d4e5f60 --status changed
      flowhooks operations items 019ab2c4-5d21-7000-8000-1b2c3d4e5f60 --status failed
      flowhooks operations items 019ab2c4-5d21-7000-8000-1b2c3d4e5f60 --json

    Exit codes: 0 done, 1 there is no such operation, 2 wrong usage.
    """
    with closing(Reader(database_url(settings))) as reader:
        find_operation(reader, operation_id)
        with reader.connection() as connection:
            items = operation_items(
                connection,
                operation_id,
                status=parse_item_choice(status) if status else None,
                after=after,
                limit=limit + 1,
            )
    next_id = items[limit - 1].delivery_id if len(items) > limit else ""
    items = items[:limit]
    if as_json:
        output.print_json({"items": [operation_item_to_json(item) for item in items], "next": next_id})
        return
    if not items:
        output.print_line("No matching deliveries.")
        return
    output.print_table(
        ("delivery, event", "handler", "status, state"),
        [
            (
                f"{item.delivery_id}\n  {item.event_id or '-'}",
                output.escape_newlines(item.handler) or "-",
                f"{item.status}\n  {item.state}",
            )
            for item in items
        ],
    )
    if next_id:
        output.print_line()
        output.print_line(f"There are more deliveries: add --after {next_id}")


def _counts_text(operation: Operation) -> str:
    lines = [f"{operation.planned:,} planned", f"{operation.succeeded:,} succeeded"]
    lines += [f"{operation.failed:,} failed again"] if operation.failed else []
    lines += [f"{operation.remaining:,} remaining"] if operation.remaining else []
    lines += [f"{operation.changed:,} changed"] if operation.changed else []
    return "\n".join(lines)


def _actor_text(operation: Operation) -> str:
    who = f"{operation.actor} {INTERFACE_TEXTS.get(operation.interface, operation.interface)}"
    note = f"\n{output.escape_newlines(operation.note)}" if operation.note else ""
    return f"{output.escape_newlines(who)}{note}"
