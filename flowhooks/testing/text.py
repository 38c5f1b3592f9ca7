"""The texts of failed tests: the expected state, the actual state and the next step."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from flowhooks.clock import SECOND, to_datetime
from flowhooks.execution.condition_recheck import UNDECIDED_NOTE
from flowhooks.model.delivery import COMPLETED_STATES, State
from flowhooks.model.event import DismissedBy, ParkedBy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowhooks.app import App
    from flowhooks.ledger.queries import StoredEvent
    from flowhooks.model.handler import Handler
    from flowhooks.testing.views import DeliveryView


_WHY: Final[Mapping[str, str]] = {
    ParkedBy.HANDLER: "no handler has its class or key, or none of these handlers accepts its version or source",
    ParkedBy.NAME: "it has neither callBackProcessClass nor processDefinitionKey",
    ParkedBy.END_STATE: "the engine's history does not tell how its instance ended",
    ParkedBy.REUSED_ID: "another event of the same day has the id of its instance",
    DismissedBy.KIND: "handlers have its class or key, but none of them listens to its kind",
    DismissedBy.SETTING: "the setting routing.ignore_process_keys lists its key",
    DismissedBy.OPERATOR: "an operator dismissed it",
}
"""Why an event is parked or dismissed, unless a condition is the reason."""
_CONDITION: Final = {
    "parked": "a handler's condition cannot be decided",
    "dismissed": "the conditions of each handler of its class or key are false",
}


def why_idle(delivery: DeliveryView, now: int) -> str | None:
    """Return the reason why a delivery does not proceed by itself, with the remedy; None if it does proceed.

    Args:
        delivery: the delivery.
        now: the time in microseconds since 1970.
    """
    if delivery.state is State.RUNNING:
        return None
    if delivery.state in COMPLETED_STATES or delivery.state is State.DEAD:
        return f"it is {delivery.state}, and does not change by itself"
    if delivery.due_at is None:
        if delivery.state is State.UNKNOWN:
            return "its handler has neither retry= nor probe=, so it waits for an operator"
        return delivery.note if delivery.note.startswith(UNDECIDED_NOTE) else "no loaded plugin has its handler"
    seconds_left = (delivery.due_at - to_datetime(now)) / timedelta(seconds=1)
    if seconds_left <= 0:
        return None
    again = (
        ("its probe returned no answer, and is called again") if delivery.state is State.UNKNOWN else "it is due again"
    )
    return f"{again} in {seconds_left:g} seconds, but the clock does not move by itself: call advance({seconds_left:g})"


def why_at_rate(delivery: DeliveryView, next_start: int, now: int) -> str | None:
    """Return the reason why a delivery that is due waits for the rate of its handler; None if it does not.

    Args:
        delivery: the delivery.
        next_start: from when the rate allows the next attempt, in microseconds since 1970.
        now: the time in microseconds since 1970.
    """
    if delivery.state is not State.WAITING or next_start <= now:
        return None
    seconds = (next_start - now) / SECOND
    return (
        f"the rate of its handler allows the next attempt in {seconds:g} seconds, but the clock does not move by "
        f"itself: call advance({seconds:g})"
    )


def why_blocked(in_front: DeliveryView, why: str | None) -> str | None:
    """Return the reason why a delivery is blocked, with the remedy; None if the delivery in front proceeds by itself.

    Args:
        in_front: the delivery that must end first.
        why: the reason why that one does not proceed by itself; None if it does.
    """
    return why and f"it is blocked by event {in_front.event_id}, which is {in_front.state}: {why}"


def wait_failure(delivery: DeliveryView, expected_state: State, attempt: int | None, why: str) -> str:
    """Return the message of a failed wait: expected and actual state, the reason, the error and the traceback."""
    after = "" if attempt is None else f" in attempt {attempt}"
    lines = [f"waited for the delivery of {delivery.handler} to be {str(expected_state)!r}{after}"]
    lines[0] += f", but it is {str(delivery.state)!r} in attempt {delivery.attempt}: {why}"
    if delivery.error:
        lines.append(f"its error: {delivery.error}")
    if delivery.note:
        lines.append(f"its note: {delivery.note}")
    if delivery.traceback:
        lines.append(delivery.traceback)
    return "\n".join(lines)


def no_delivery(app: App, stored: StoredEvent) -> str:
    """Return the message for an event without deliveries: the reason, and the selectors of each handler."""
    event = stored.event
    sent = {
        "callBackProcessClass": event.callback_class,
        "processDefinitionKey": event.process_definition_key,
        "processDefinitionVersion": event.process_definition_version,
        "conclusion": event.conclusion,
        "source": event.source,
        "kind": event.kind,
    }
    lines = [
        f"event {event.id} is {stored.state} because no handler matches it: "
        + ", ".join(f"{name} {value!r}" for name, value in sent.items())
    ]
    lines += [f"{name} listens to {selectors_text(handler)}" for name, handler in app.plugins.handlers.items()]
    if len(lines) == 1:
        lines.append("there is no handler")
    return "\n".join([*lines, *no_match_reasons(stored)])


def no_match_reasons(stored: StoredEvent) -> list[str]:
    """Return why an event is parked or dismissed, then why each handler of its class or key does not match."""
    by = stored.parked_by or stored.dismissed_by
    why = _CONDITION[stored.state] if by == "condition" else _WHY.get(by or "")
    lines = [f"it is {stored.state} because {why}"] if why else []
    if stored.no_match is not None:
        lines += [f"{handler} does not match: {reason}" for handler, reason in stored.no_match.reasons.items()]
        if more := stored.no_match.total - len(stored.no_match.reasons):
            lines.append(f"and {more} more")
    return lines


def selectors_text(handler: Handler) -> str:
    """Return the selectors that a handler has set, as text."""
    selectors = {name: value for name, value in handler.selectors.to_json().items() if value and name != "format"}
    return ", ".join(f"{name}={value!r}" for name, value in selectors.items())


def still_running(app: App, seconds: float) -> str:
    """Return the message for handlers that did not end in time."""
    return (
        f"{app.runner.running} run(s) of handlers did not end within {seconds:g} seconds (the handlers are "
        f"{', '.join(app.plugins.handlers)}). Nothing interrupts a handler: set a time limit for everything that it "
        "waits for, and release it at the end of the test"
    )
