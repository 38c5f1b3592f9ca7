"""Plan an operation, show the plan, ask for confirmation, start it and follow it: the same for every bulk command."""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import click

from flowhooks.cli import operations_client, output
from flowhooks.cli.filters import note_unknown_handler
from flowhooks.cli.operations import text
from flowhooks.cli.operations.follow import Interrupted, find_operation, follow, print_commands, print_progress
from flowhooks.cli.operations.stopped_handlers import handler_states, print_stopped
from flowhooks.cli.options import utf8
from flowhooks.clock import Clock, to_text
from flowhooks.ledger.operation_summary import MAX_GROUPS, plan_summary, preview_plan
from flowhooks.ledger.reader import Reader
from flowhooks.model.bulk_operation import OperationState
from flowhooks.operations.bulk import MAX_RATE, MIN_RATE
from flowhooks.operations.error_groups import complete_filter
from flowhooks.settings import database_url

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowhooks.ledger.operation_summary import PlanSummary
    from flowhooks.ledger.queries import EventFilter
    from flowhooks.model.bulk_operation import BulkAction
    from flowhooks.settings import Settings

_RATE: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(?:/(s|min|h))?", re.ASCII)
_SECONDS: Final = {"s": 1, "min": 60, "h": 3600}


def to_rate(value: str) -> float:
    """Parse a rate, such as `5/s`, `30/min`, `100/h` or `0.5`, into deliveries per second."""
    match = _RATE.fullmatch(value)
    if match is None or not float(match[1]):
        raise click.BadParameter(f"{value!r} is not a rate, such as 5/s, 30/min or 100/h")
    rate = float(match[1]) / _SECONDS[match[2] or "s"]
    if not MIN_RATE <= rate <= MAX_RATE:
        raise click.BadParameter(f"a rate must be from {MIN_RATE} to {MAX_RATE:,} per second, not {value}")
    return rate


note_option: Final = click.option(
    "--note", type=utf8, default="", metavar="TEXT", help="Reason, kept with the operation and in the audit log."
)
rate_option: Final = click.option(
    "--rate", type=to_rate, metavar="RATE", help="Release at most so many deliveries, such as 5/s, 30/min or 100/h."
)
detach_option: Final = click.option(
    "--detach", is_flag=True, help="Return once the operation is started, without following it."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedCommand:
    """The selection and the options of a command that plans an operation.

    Attributes:
        settings: settings with the ledger's database.
        event_filter: which deliveries.
        note: the operator's reason.
        rate: maximum number of deliveries released per second; None: no limit.
        dry_run: whether only to show the plan.
        yes: whether to proceed without confirmation.
        detach: whether not to follow the operation.
        as_json: whether to print JSON.
    """

    settings: Settings
    event_filter: EventFilter
    note: str
    rate: float | None
    dry_run: bool
    yes: bool
    detach: bool
    as_json: bool


def run_planned(asked: PlannedCommand, action: BulkAction) -> None:
    """Plan an operation, show the plan, ask for confirmation unless `--yes` is given, start it and follow it."""
    if asked.dry_run:
        _show_preview(asked, action)
        return
    # The plan has the note and the rate, so `operations start` uses them as well.
    arguments: dict[str, Any] = {"action": action.value, "event_filter": asked.event_filter.to_json()}
    arguments |= _given(asked.note, asked.rate)
    planned = operations_client.run_step(asked.settings, "plan_operation", arguments, "nothing was started")
    operation_id = str(planned["id"])
    with closing(Reader(database_url(asked.settings))) as reader:
        operation = find_operation(reader, operation_id)
        with reader.connection() as connection:
            summary = plan_summary(connection, operation_id)
            states = handler_states(asked.settings, connection, [group.name for group in summary.handlers])
        if not operation.planned:
            note_unknown_handler(reader, asked.event_filter)
    if not operation.planned:
        if asked.as_json:
            print_progress(operation, as_json=True, server=bool(planned["server"]))
        else:
            output.print_line(text.NOTHING_TEXTS[action])
        return
    if not (asked.as_json and asked.yes):
        # The operator sees the plan before the question; with --json, standard output has only the document.
        _print_plan(action, operation.planned, summary, states, err=asked.as_json)
    if not asked.yes:
        try:
            output.confirm(f"{text.WARNINGS[action]} Start it?")
        except click.Abort:
            output.print_line(f"Not started. To start it: flowhooks operations start {operation_id}", err=True)
            raise
    run_to_the_end(asked.settings, operation_id, detach=asked.detach, as_json=asked.as_json)


def run_to_the_end(
    settings: Settings, operation_id: str, *, note: str = "", rate: float | None = None, detach: bool, as_json: bool
) -> None:
    """Start an operation and follow it. Without a server, release its deliveries here.

    Args:
        settings: settings with the ledger's database.
        operation_id: the operation.
        note: the operator's reason; `""`: the one of the plan.
        rate: maximum number of deliveries released per second; None: the rate of the plan.
        detach: whether not to follow the operation.
        as_json: whether to print JSON.
    """
    started = operations_client.run_step(
        settings,
        "start_operation",
        {"operation_id": operation_id} | _given(note, rate),
        f"`flowhooks operations show {operation_id}` tells whether the operation was started",
    )
    server, is_complete = bool(started["server"]), True
    if server and not detach:
        is_complete = follow(settings, operation_id).state is OperationState.FINISHED
    elif not server:
        release_here(settings, operation_id)
    print_after_change(settings, operation_id, server=server, as_json=as_json)
    if not is_complete:  # it was paused or cancelled meanwhile, or no server runs any more
        raise click.exceptions.Exit(1)


def release_here(settings: Settings, operation_id: str) -> None:
    """Release the deliveries of an operation in this process; Ctrl-C leaves the rest to a server.

    Raises:
        Interrupted: Ctrl-C was pressed.
    """
    with closing(Reader(database_url(settings))) as reader:
        planned = find_operation(reader, operation_id).planned
    try:
        with output.progress_bar("release", lambda: planned) as advance:
            operations_client.release_operation(settings, operation_id, advance)
    except KeyboardInterrupt:
        output.print_line(f"Operation {operation_id} continues once a server starts.", err=True)
        print_commands(operation_id)
        raise Interrupted from None


def print_after_change(settings: Settings, operation_id: str, *, server: bool, as_json: bool) -> None:
    """Print an operation as it is now, with the hint that no server runs its deliveries."""
    with closing(Reader(database_url(settings))) as reader:
        operation = find_operation(reader, operation_id)
        print_progress(operation, as_json=as_json, server=server)
        if as_json:
            return
        print_stopped(settings, reader, operation)
    if not server and operation.remaining and operation.state is OperationState.RUNNING:
        output.print_line("No server is running: the deliveries run once a server starts.")
    elif operation.state is OperationState.RUNNING:
        print_commands(operation_id)


def _given(note: str, rate: float | None) -> dict[str, Any]:
    """Return the arguments of an operation for the options that were given."""
    return ({"note": note} if note else {}) | ({} if rate is None else {"rate": rate})


def _show_preview(asked: PlannedCommand, action: BulkAction) -> None:
    with closing(Reader(database_url(asked.settings))) as reader:
        event_filter = complete_filter(reader, asked.event_filter, asked.settings.search.fields)
        summary = preview_plan(reader, action, event_filter, Clock().now())
        with reader.connection() as connection:
            states = handler_states(asked.settings, connection, [group.name for group in summary.handlers])
        planned = sum(group.deliveries for group in summary.states)
        if not planned:
            note_unknown_handler(reader, event_filter)
    if asked.as_json:
        output.print_json(
            {
                "action": action.value,
                "event_filter": event_filter.to_json(),
                "planned": planned,
                "oldest_at": to_text(summary.oldest_at),
                "newest_at": to_text(summary.newest_at),
                "handlers": {group.name: group.deliveries for group in summary.handlers},
                "states": {group.name: group.deliveries for group in summary.states},
                "dry_run": True,
            }
        )
    elif planned:
        _print_plan(action, planned, summary, states)
        output.print_line("Nothing was changed: leave out --dry-run to plan the operation and start it.")
    else:
        output.print_line(text.NOTHING_TEXTS[action])


def _print_plan(
    action: BulkAction, planned: int, summary: PlanSummary, states: Mapping[str, str], *, err: bool = False
) -> None:
    output.print_line(text.plan_text(action, planned, summary), err=err)
    output.print_table(
        ("handler", "deliveries", "now"),
        [
            (output.escape_newlines(group.name), f"{group.deliveries:,}", states.get(group.name, "-"))
            for group in summary.handlers
        ],
        optional=("now",),
        err=err,
    )
    if len(summary.handlers) == MAX_GROUPS:
        output.print_line(f"Only the {MAX_GROUPS} largest handlers are listed.", err=err)
    if summary.errors:
        output.print_table(
            ("last error", "deliveries"),
            [(output.escape_newlines(group.text), f"{group.deliveries:,}") for group in summary.errors],
            free_text=("last error",),
            err=err,
        )
