"""`flowhooks events show`: print an event with everything stored about it, as text or JSON."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Final

import click

from flowhooks.cli import audit_text, output
from flowhooks.cli.events import conflict_text, text
from flowhooks.cli.events.list import print_events
from flowhooks.cli.options import json_option, settings_options, utf8
from flowhooks.clock import Clock, to_text
from flowhooks.errors import EventPurged, NotFound
from flowhooks.execution.condition_recheck import UNDECIDED_NOTE
from flowhooks.ledger import audit
from flowhooks.ledger.next_attempts import next_attempts
from flowhooks.ledger.queries import EventFilter
from flowhooks.ledger.reader import Reader
from flowhooks.ledger.search import summarize
from flowhooks.model.delivery import State
from flowhooks.model.event import DismissedBy, Origin
from flowhooks.operations import suggestions
from flowhooks.operations.json.events import whole_event_to_json
from flowhooks.settings import database_url
from flowhooks.text import command_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flowhooks.ledger.audit import AuditEntry
    from flowhooks.ledger.next_attempts import NextAttempt
    from flowhooks.ledger.pauses import CircuitState
    from flowhooks.ledger.queries import DeliveryStatus, StoredEvent
    from flowhooks.model.delivery import Attempt
    from flowhooks.settings import Settings

MAX_EVENTS: Final = 100
"""Maximum number of events of one flow instance. It has one event for each kind, class and source."""
MAX_AUDIT_ENTRIES: Final = 100
"""Maximum number of audit entries of one event, newest first. `flowhooks audit` lists all."""
_RECEIVED: Final = {
    Origin.CALLBACK: "received",
    Origin.INGRESS: "received",
    Origin.RECONCILED: "taken in",
    Origin.CORRECTION: "accepted",
}
MAX_ATTEMPTS: Final = 20
"""Maximum number of attempts of one delivery shown as text, the latest ones."""


@click.command("show", short_help="Show an event with its deliveries and attempts.")
@click.argument("name", type=utf8, metavar="ID_OR_FLOW")
@click.option("--traceback", is_flag=True, help="Also print the tracebacks of failed attempts.")
@click.option("--log", is_flag=True, help="Also print the last log records of each attempt.")
@json_option
@settings_options
def show_command(settings: Settings, *, name: str, traceback: bool, log: bool, as_json: bool) -> None:
    r"""Show all data of an event: fields, body, route, deliveries, attempts, and what operators did.

    For a parked or dismissed event the command shows why, and why each handler of its class or key does not match.

    ID_OR_FLOW is the id of an event (the header Flowhooks-Event of the answer), of a delivery, or of a process
    instance. If a process instance has more than one event, the events are listed; --json always prints all of them in
    full.

    \b
    Examples:
      flowhooks events show 4711
      flowhooks events show 019ab2c4-5d1e-7a00-8000-3f6f1e0c9a11 --traceback
      flowhooks events show 4711 --log
      flowhooks events show 4711 --json | jq -r '.events[].body'

    Exit codes: 0 done, 1 there is no such event, 2 wrong usage.
    """
    with closing(Reader(database_url(settings))) as reader:
        events = _find_events(reader, name)
        if as_json:
            output.print_json({"events": [whole_event_to_json(reader, stored) for stored in events]})
        elif len(events) == 1:
            _print_event(reader, events[0], traceback=traceback, log=log)
        else:
            print_events([summarize(stored) for stored in events])
            output.print_line()
            output.print_line(
                f"{output.pluralize(len(events), 'event')} of this flow instance. To show an event, give its id."
            )


def _find_events(reader: Reader, name: str) -> list[StoredEvent]:
    """Find events by event id, delivery id or flow instance id, in this order."""
    if events := reader.find(EventFilter(ids=(name,)), limit=1):
        return events
    if delivery := reader.shown_delivery(name):
        return [reader.event(delivery[0])]
    if events := reader.find(EventFilter(flow_instance_id=name), limit=MAX_EVENTS):
        return events
    if purged_at := reader.purged_event_received_at(name):
        raise EventPurged(name, to_text(purged_at))
    raise NotFound(f"there is no event, delivery or flow instance {name}")


def _audit_entries(reader: Reader, event_id: str) -> list[AuditEntry]:
    with reader.connection() as connection:
        return audit.entries(connection, limit=MAX_AUDIT_ENTRIES, target=event_id)


def _print_event(reader: Reader, stored: StoredEvent, *, traceback: bool, log: bool) -> None:
    event = stored.event
    version = event.process_definition_version
    output.print_line(f"event {event.id}: {text.event_state_text(stored)}")
    for word, value in (
        (
            _RECEIVED[Origin(event.origin)],
            f"{event.received_at:%Y-%m-%d %H:%M:%S} UTC from {event.source}, kind {event.kind}",
        ),
        ("fixed URL", f"/in/{event.source}" if event.origin == Origin.INGRESS else None),
        ("flow instance", event.flow_instance_id),
        ("business key", event.business_key),
        ("class", event.callback_class),
        ("key", event.process_definition_key),
        ("version", None if version is None else str(version)),
        ("definition", event.process_definition_id),
        ("conclusion", event.conclusion),
        ("corrects event", event.corrects),
        ("traceparent", event.traceparent),
        ("received again", output.pluralize(stored.repeats, "time") if stored.repeats else None),
    ):
        if value is not None:
            output.print_line(f"  {word:<14} {value}")
    _print_no_match(stored)
    output.print_line("  body")
    output.print_lines(output.format_body(stored.body), indent="    ")
    if stored.raw_body is not None:
        output.print_line(f"  request as received, Content-Type {stored.media_type or 'not stated'}")
        output.print_lines(stored.raw_body, indent="    ")
    for conflict in reader.conflicts(event.id):
        conflict_text.print_conflict(stored, conflict)
    for late in reader.late_callbacks(event.id):
        repeated = f", and received again {output.pluralize(late.repeats, 'time')}" if late.repeats else ""
        output.print_line(f"  another body of this instance is from {output.format_time(late.received_at)}{repeated}")
        output.print_lines(output.format_body(late.body), indent="    ")
    paused, open_circuits = reader.paused(), reader.open_circuits()
    with reader.connection() as connection:
        coming = next_attempts(connection, stored.delivery_statuses, Clock().now())
    for status in stored.delivery_statuses:
        output.print_line()
        attempts = reader.attempts(status.delivery_id)
        _print_delivery(
            stored,
            status,
            attempts,
            paused=paused.get(status.handler),
            circuit=open_circuits.get(status.handler),
            coming=coming.get(status.delivery_id),
            traceback=traceback,
            log=log,
        )
    if entries := _audit_entries(reader, event.id):
        output.print_line()
        output.print_line("operations")
        for entry in reversed(entries):
            output.print_line(
                f"  {output.format_time(entry.at)} UTC, {audit_text.actor_text(entry)}: {audit_text.describe(entry)}"
            )


def _print_no_match(stored: StoredEvent) -> None:
    event, no_match = stored.event, stored.no_match
    if stored.state == "routed":
        return
    if no_match is not None:
        output.print_line("  handlers that do not match")
        for handler, why in no_match.reasons.items():
            output.print_line(f"    {handler}: {why}")
        if more := no_match.total - len(no_match.reasons):
            output.print_line(f"    and {more:,} more")
    reroute = command_line("events", "reroute", event.id)
    if stored.dismissed_by in {DismissedBy.CONDITION, DismissedBy.KIND}:
        output.print_line(f"  A reroute delivers it only after a handler has changed: {reroute}")
        return
    if stored.state == "dismissed":
        output.print_line(f"  To deliver it after all: {reroute}")
        return
    if step := text.PARKED_STEPS.get(stored.parked_by or ""):
        output.print_line(f"  {step}: {reroute}")
    elif explain := suggestions.explain_command(event):
        output.print_line(f"  No class or key handler matches; `{explain}` explains why.")
    else:
        output.print_line("  It has neither class nor key, so only a handler for every event can match.")
    output.print_line(f"  If it needs no handler: {command_line('events', 'dismiss', event.id)}")


def _print_attempt(handler: str, attempt: Attempt, *, traceback: bool, log: bool) -> None:
    ended = "" if attempt.run_time is None else f" after {output.format_duration(attempt.run_time)}"
    output.print_line(
        f"  {f'attempt {attempt.number}':<14} {output.format_time(attempt.started_at)} UTC: "
        f"{attempt.outcome or 'running'}{ended}"
    )
    if attempt.error:
        output.print_line(f"    {attempt.error}")
    if attempt.result is not None:
        output.print_line(f"    returned {attempt.result}")
    if attempt.result_dropped:
        output.print_line(f"    result not stored: {attempt.result_dropped}")
    if attempt.trigger:
        output.print_line(f"    {text.provenance_text(handler, attempt)}")
    if traceback and attempt.traceback:
        output.print_lines(attempt.traceback.rstrip("\n"), indent="      ")
    if attempt.log and log:
        output.print_line("    log")
        output.print_lines(attempt.log, indent="      ")
    elif attempt.log:
        records = output.pluralize(len(attempt.log.split("\n")), "line")
        output.print_line(f"    log: {records}; --log prints them")


def _print_delivery(
    stored: StoredEvent,
    status: DeliveryStatus,
    attempts: Sequence[Attempt],
    *,
    paused: int | None,
    circuit: CircuitState | None,
    coming: NextAttempt | None,
    traceback: bool,
    log: bool,
) -> None:
    output.print_line(f"delivery {status.delivery_id}: {status.state}", style=_STYLES.get(status.state))
    output.print_line(f"  {'handler':<14} {status.handler}")
    output.print_line(f"  {'why':<14} {stored.route.get(status.handler, '-')}")
    if status.damage:
        output.print_line(f"  {status.damage}", style="red")
    if status.comment:
        output.print_line(f"  {'note':<14} {status.comment}")
    if status.state is State.WAITING:
        output.print_line(f"  {'runs':<14} {_due_text(status, paused, circuit, coming)}")
    if len(attempts) > MAX_ATTEMPTS:
        output.print_line(f"  {len(attempts) - MAX_ATTEMPTS:,} earlier attempts are not shown; --json lists them")
    for attempt in attempts[-MAX_ATTEMPTS:]:
        _print_attempt(status.handler, attempt, traceback=traceback, log=log)
    if status.state is State.UNKNOWN:
        command = suggestions.resolve_command(status.delivery_id)
        output.print_line(f"  Record what it did: {command}, with --did, --did-not or --close")
    elif status.state is State.DEAD:
        output.print_line(f"  Run it again: {suggestions.replay_command(stored.event.id, status.handler)}")


def _due_text(
    status: DeliveryStatus, paused: int | None, circuit: CircuitState | None, coming: NextAttempt | None
) -> str:
    if circuit is not None:
        return (
            f"when its handler works again: its circuit is open since {output.format_time(circuit.opened_at)} UTC "
            f"because its last attempts failed ({circuit.reason}); next try at "
            f"{output.format_time(circuit.retry_at)} UTC. To resume it now: "
            f"{suggestions.resume_command(status.handler)}"
        )
    if paused is not None:
        return (
            f"when its handler is resumed (paused since {output.format_time(paused)} UTC): "
            f"{suggestions.resume_command(status.handler)}"
        )
    if status.due_at is None and status.comment.startswith(UNDECIDED_NOTE):
        close = command_line("events", "resolve", status.delivery_id, "--close")
        return f"when a process starts whose handler can decide its condition (see the note). To close it: {close}"
    if status.due_at is None:
        return "when its handler is loaded"
    if status.blocked_by is not None:
        return f"after event {status.blocked_by}, which blocks it"
    due = f"at {output.format_time(status.due_at)} UTC"
    return due if coming is None else f"{_attempt_text(coming)}, {due}"


def _attempt_text(coming: NextAttempt) -> str:
    number = f"attempt {coming.number} of {coming.total}" if coming.total else f"attempt {coming.number}"
    return f"{number}, in {output.format_duration(coming.left)}" if coming.left else f"{number}, due now"


_STYLES: Final = {State.SUCCEEDED: "green", State.DEAD: "red", State.UNKNOWN: "red", State.WAITING: "yellow"}
