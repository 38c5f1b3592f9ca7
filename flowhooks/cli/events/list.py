"""`flowhooks events list`: print events as a table or as JSON."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING, Final

import click

from flowhooks.cli import output
from flowhooks.cli.events import text
from flowhooks.cli.filters import filter_options, note_unknown_handler, text_argument
from flowhooks.cli.options import json_option, page_options, settings_options
from flowhooks.ledger.reader import Reader
from flowhooks.model.delivery import COMPLETED_STATES
from flowhooks.operations.error_groups import complete_filter
from flowhooks.operations.json.events import event_to_json
from flowhooks.settings import database_url
from flowhooks.text import truncate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flowhooks.ledger.queries import DeliveryStatus, EventFilter
    from flowhooks.ledger.search import EventSummary
    from flowhooks.settings import Settings

MAX_NAMED_DELIVERIES: Final = 3
"""Maximum number of deliveries of an event that the table lists. For more, it shows counts by state."""

MAX_ERROR_CHARS: Final = 60
"""Maximum number of characters of an error in the table."""


@click.command("list", short_help="List events with their deliveries, newest first.")
@page_options("events", "event")
@filter_options
@text_argument
@json_option
@settings_options
def list_command(settings: Settings, *, event_filter: EventFilter, limit: int, after: str, as_json: bool) -> None:
    r"""List events with their deliveries, newest first.

    TEXT is the same as --query TEXT: a process instance id, an event id, a delivery id, or a business key or its
    beginning.

    Times are UTC. --json prints every field except the body. Its "next" is the value for --after; it is "" at the end.

    \b
    Examples:
      flowhooks events list PO-2026-001
      flowhooks events list --field '/amount>=1000' --field /vendor=ACME
      flowhooks events list --handler contracts:archive_contract --state dead --since 2h
      flowhooks events list --error-group 3f6f1e0c9a11 --json

    Exit codes: 0 done, 1 the database cannot be read, 2 wrong usage.
    """
    with closing(Reader(database_url(settings))) as reader:
        event_filter = complete_filter(reader, event_filter, settings.search.fields)
        events = reader.find_summaries(event_filter, limit=limit + 1, after=after)
        if not events:
            note_unknown_handler(reader, event_filter)
    next_id = events[limit - 1].id if len(events) > limit else ""
    del events[limit:]
    if as_json:
        output.print_json({"events": [event_to_json(event) for event in events], "next": next_id})
        return
    if not events:
        output.print_line(
            "No matching events." if event_filter.has_criteria or after else ("No event has been received yet.")
        )
        return
    print_events(events)
    if next_id:
        output.print_line()
        output.print_line(f"There are more events: add --after {next_id}")


def print_events(events: Sequence[EventSummary]) -> None:
    """Print events as a table with at least two lines each, so that whole ids fit a terminal of 80 columns."""
    output.print_table(
        ("event, received (UTC)", "flow, key or class, conclusion", "state, deliveries"),
        [(_event_cell(event), _flow_cell(event), _deliveries_cell(event)) for event in events],
        free_text=("state, deliveries",),
    )


def _event_cell(event: EventSummary) -> str:
    return f"{event.id}\n  {output.format_time(event.received_at)}"


def _flow_cell(event: EventSummary) -> str:
    names = [name for name in (event.process_key, event.callback_class) if name]
    lines = [output.escape_newlines(event.flow_instance_id), f"  {output.escape_newlines(' '.join(names)) or '-'}"]
    if event.conclusion:
        lines.append(f"  {output.escape_newlines(event.conclusion)}")
    return "\n".join(lines)


def _delivery_text(status: DeliveryStatus) -> str:
    lines = [f"{status.state} {status.handler}"]
    if status.error_group is not None and status.state not in COMPLETED_STATES:
        lines.append(f"  {truncate(output.escape_newlines(status.error), MAX_ERROR_CHARS)}")
    if status.blocked_by is not None:
        lines.append(f"  blocked by {status.blocked_by}")
    return "\n".join(lines)


def _deliveries_cell(event: EventSummary) -> str:
    lines = [] if event.state == "routed" and not event.damage else [text.event_state_text(event)]
    if len(event.delivery_statuses) > MAX_NAMED_DELIVERIES:
        states = Counter(status.state for status in event.delivery_statuses)
        lines += [f"{count} {state}" for state, count in states.items()]
    else:
        # Unfinished deliveries come first.
        lines += [
            _delivery_text(status)
            for status in sorted(event.delivery_statuses, key=lambda status: status.state in COMPLETED_STATES)
        ]
    return "\n".join(lines)
