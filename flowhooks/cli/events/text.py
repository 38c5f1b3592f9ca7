"""Describe results of operations in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from flowhooks.cli.output import pluralize

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowhooks.ledger.queries import StoredEvent
    from flowhooks.ledger.search import EventSummary
    from flowhooks.model.delivery import Attempt


CANNOT_BE_UNDONE: Final = "The effects of a handler cannot be undone."
RESOLUTION_WARNINGS: Final = {
    "did": "This cannot be undone: only `events replay --again` runs it again.",
    "did-not": f"The delivery then runs again. {CANNOT_BE_UNDONE}",
    "close": "This is final: a closed delivery does not run again.",
}
"""Warning before each verdict, which says whether it can be undone."""

SHORT_DIGEST: Final = 12
"""Number of characters of a digest in texts for people."""

PARKED_REASONS: Final = {
    "handler": "no matching handler",
    "condition": "a condition cannot be decided",
    "name": "neither class nor key",
    "end_state": "the engine's history does not tell how it ended",
    "reused_id": "another event of the same day has its process instance id",
}
"""Reasons why an event is parked."""
PARKED_STEPS: Final = {
    "condition": "Correct what the engine sends, or the handler; once the handler is changed",
    "end_state": "Find out in the engine how the instance ended; if it completed",
    "reused_id": "Compare both events with the engine; if this is another instance",
}
"""What to do before a reroute of a parked event whose class or key handlers may match."""
DISMISSED_REASONS: Final = {
    "condition": "conditions are false",
    "kind": "no handler listens to its kind",
    "setting": "routing.ignore_process_keys",
    "operator": "by an operator",
}
"""Reasons why an event is dismissed."""


def event_state_text(event: StoredEvent | EventSummary) -> str:
    """Return an event's state with the reason, such as `parked: no handler`."""
    why = PARKED_REASONS.get(event.parked_by or "") or DISMISSED_REASONS.get(event.dismissed_by or "")
    state = f"{event.state}: {why}" if why else event.state
    return f"{state}; {event.damage}" if event.damage else state


def deliveries_text(count: int) -> str:
    """Return a number of deliveries, such as `1 delivery` or `2 deliveries`."""
    return pluralize(count, "delivery", "deliveries")


def _changed_text(done: Mapping[str, Any]) -> str:
    changed = done["changed_meanwhile"]
    return (
        (f" {changed:,} had changed meanwhile and {'was' if changed == 1 else 'were'} left unchanged.")
        if changed
        else ""
    )


def resolve_text(done: Mapping[str, Any]) -> str:
    """Describe the result of a resolution or of its dry run."""
    verb = "would change" if done["dry_run"] else "changed"
    return f"Delivery {done['delivery_id']} for {done['handler']} {verb} from {done['before']} to {done['after']}."


def correction_text(done: Mapping[str, Any]) -> str:
    """Describe an accepted correction, or its dry run."""
    digest, handlers = done["digest"][:12], done["handlers"]
    if done["dry_run"]:
        text = f"The body {digest} would become an event of its own ({done['state']})"
    else:
        text = f"The body {digest} is event {done['event_id']} ({done['state']})"
    text += f", for {', '.join(handlers)}." if handlers else "; no handler takes it now."
    if ran := done["ran"]:
        text += f" {', '.join(ran)} {'has' if len(ran) == 1 else 'have'} run with the first body already."
    if unfinished := done["unfinished"]:
        deliveries = deliveries_text(len(unfinished))
        text += (
            f" {deliveries} of the first body {'is' if len(unfinished) == 1 else 'are'} not finished and still "
            f"{'runs' if len(unfinished) == 1 else 'run'} with that body: {', '.join(unfinished)}."
        )
    return text


def reroute_parked_text(done: Mapping[str, Any]) -> str:
    """Describe the result of a reroute of all parked events or of its dry run."""
    if not done["events"]:
        return "No parked event matches a handler now."
    would = "would be " if done["dry_run"] else ""
    still_parked = done["events"] - done["delivered"] - done["dismissed"]
    text = (
        f"{pluralize(done['events'], 'parked event')} checked: {done['delivered']:,} {would}delivered "
        f"({deliveries_text(done['deliveries'])})"
    )
    if done["dismissed"]:
        text += f", {done['dismissed']:,} {would}dismissed because they need no handler"
    return f"{text}, {still_parked:,} still parked."


def reroute_question(planned: Mapping[str, Any]) -> str:
    """Return the confirmation question of a reroute; `""` if nothing would change."""
    parts = []
    if planned["delivered"]:
        gets = "gets" if planned["delivered"] == 1 else "get"
        parts.append(f"{pluralize(planned['delivered'], 'event')} {gets} {deliveries_text(planned['deliveries'])}")
    if parked := planned["parked"]:
        parts.append(f"{pluralize(parked, 'dismissed event')} {'is' if parked == 1 else 'are'} parked again")
    if dismissed := planned["dismissed"]:
        parts.append(f"{pluralize(dismissed, 'parked event')} {'is' if dismissed == 1 else 'are'} dismissed")
    if not parts:
        return ""
    return f"{', and '.join(parts)}. {f'{CANNOT_BE_UNDONE} ' if planned['deliveries'] else ''}Continue?"


def reroute_text(done: Mapping[str, Any]) -> str:
    """Describe the result of a reroute or of its dry run."""
    would = "would be " if done["dry_run"] else ""
    text = (
        f"{pluralize(done['events'], 'event')} checked: {done['delivered']:,} {would}delivered "
        f"({deliveries_text(done['deliveries'])})"
    )
    if done["parked"]:
        text += f", {done['parked']:,} {would}parked again"
    if done["dismissed"]:
        text += f", {done['dismissed']:,} {would}dismissed because they need no handler"
    if skipped := done["skipped"]:
        takes, decides = ("takes it", "decides it") if skipped == 1 else ("takes them", "decides them")
        text += f", {skipped:,} unchanged: no further handler {takes} now, or only an operator {decides}"
    return f"{text}.{_changed_text(done)}"


def dismiss_question(planned: Mapping[str, Any]) -> str:
    """Return the confirmation question of a dismissal; `""` if nothing would change."""
    if not planned["dismissed"]:
        return ""
    return f"{pluralize(planned['dismissed'], 'parked event')} will be dismissed; `events reroute` undoes it. Continue?"


def dismiss_text(done: Mapping[str, Any]) -> str:
    """Describe the result of a dismissal or of its dry run."""
    count = done["dismissed"]
    verb = "would be" if done["dry_run"] else "is" if count == 1 else "are"
    text = f"{pluralize(count, 'parked event')} {verb} dismissed; {pluralize(done['events'], 'event')} checked."
    if skipped := done["skipped"]:
        text += f" {skipped:,} skipped: not parked."
    return text + _changed_text(done)


def provenance_text(handler: str, attempt: Attempt) -> str:
    """Describe which plugin an attempt ran, why it was started, and who asked for it."""
    plugin = f"{handler.partition(':')[0]} {attempt.plugin_version}".rstrip()
    digest = f" ({attempt.plugin_digest[:SHORT_DIGEST]})" if attempt.plugin_digest else ""
    actor = f" by {attempt.actor}" if attempt.actor else ""
    operation = f", operation {attempt.operation_id}" if attempt.operation_id else ""
    return f"{plugin}{digest}, {attempt.trigger}{actor}{operation}"


def no_server_text(done: Mapping[str, Any]) -> str:
    """Return a hint that no server runs the deliveries; `""` if one does, or none are to be run."""
    runs = done.get("deliveries", 0) or done.get("after") == "waiting"
    if done["server"] or done["dry_run"] or not runs:
        return ""
    return "No server is running: the deliveries run once a server starts."
