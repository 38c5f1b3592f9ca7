"""The page of one event: its route, its body, its deliveries and their attempts."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from flowhooks.execution import condition_recheck
from flowhooks.ledger import circuit_state, pauses
from flowhooks.ledger.bulk_operations import operations_of
from flowhooks.ledger.next_attempts import next_attempts
from flowhooks.model.delivery import COMPLETED_STATES, State
from flowhooks.model.event import ParkedBy
from flowhooks.operations import suggestions
from flowhooks.operations.body_diff import diff_bodies, pretty
from flowhooks.web.admin.console import audit
from flowhooks.web.admin.console.filters import query_text
from flowhooks.web.admin.console.list_walk import next_in_list
from flowhooks.web.admin.console.page import Page, choose_language
from flowhooks.web.admin.console.rendering import HEADERS, MAX_TEXT_CHARS
from flowhooks.web.admin.operators import operator_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import falcon

    from flowhooks.ledger.corrections import Conflict
    from flowhooks.ledger.pauses import CircuitState
    from flowhooks.ledger.queries import DeliveryStatus, StoredEvent
    from flowhooks.operations.access import Access
    from flowhooks.routing.router import Explanation

MAX_DELIVERIES: Final = 100
MAX_ATTEMPTS: Final = 50
"""Maximum number of attempts shown for one delivery, the last ones."""
MAX_EXPLAINED: Final = 100
"""Maximum number of handlers whose routing a page explains."""
_UNFINISHED: Final = frozenset({State.WAITING, State.RUNNING})
_NOT_RUN_PREFIXES: Final = {
    State.WAITING: f"{condition_recheck.UNDECIDED_NOTE}: ",
    State.CLOSED: f"{condition_recheck.FALSE_NOTE}: ",
}
"""Prefix of the note of a delivery that its handler's conditions kept from running, by state."""


class EventPage(Page):
    """`GET /console/events/{event_id}`. The id of a delivery is accepted, too."""

    template = "event.html"
    place = "events"
    for_limited_roles = for_masked_roles = True

    def show(self, request: falcon.Request, path: Mapping[str, str], /) -> Mapping[str, Any]:
        """Return everything stored about the event."""
        access = operator_of(request).access
        stored = access.find_event(self.app.ledger, path["event_id"])
        conflicts = access.conflicts(self.app.ledger.conflicts(stored.event.id))
        now = self.app.clock.now()
        urgent_first = sorted(stored.delivery_statuses, key=lambda status: status.state in COMPLETED_STATES)
        shown = urgent_first[:MAX_DELIVERIES]
        with self.app.ledger.connection() as connection:
            acts = audit.entries_about(connection, stored.event.id, access)
            paused, open_circuits = pauses.paused(connection), circuit_state.open_circuits(connection)
            coming = next_attempts(connection, shown, now)
            walk = next_in_list(connection, request, stored.event.id)
            operations = (
                operations_of(connection, [status.delivery_id for status in shown]) if not access.is_limited else {}
            )
        return {
            "walk": walk,
            "rows": acts,
            "stored": stored,
            "event": stored.event,
            "received_at": round(stored.event.received_at.timestamp() * 1_000_000),
            "body": stored.body,
            "pretty": pretty(stored.body),
            "too_long": len(stored.body) > MAX_TEXT_CHARS,
            "raw_body": stored.raw_body,
            "raw_too_long": len(stored.raw_body or "") > MAX_TEXT_CHARS,
            "media_type": stored.media_type or "",
            "conflicts": [_conflict(stored, conflict) for conflict in conflicts],
            "states": Counter(status.state for status in urgent_first),
            "unfinished": sum(status.state in _UNFINISHED for status in urgent_first)
            if any(conflict.corrected_by for conflict in conflicts)
            else 0,
            "late_callbacks": access.late_callbacks(self.app.ledger.late_callbacks(stored.event.id)),
            "deliveries": [
                self._delivery(stored, status, access)
                | {
                    "paused_at": paused.get(status.handler),
                    "circuit": _circuit(open_circuits.get(status.handler), access),
                    "next": coming.get(status.delivery_id),
                    "operations": operations.get(status.delivery_id, ()),
                }
                for status in shown
            ],
            "left_out": max(0, len(urgent_first) - MAX_DELIVERIES),
            # The command reads no body, and explains only why no handler has the class or key.
            "explain": suggestions.explain_command(stored.event)
            if stored.parked_by in {None, ParkedBy.HANDLER} and not access.is_masked
            else "",
            "explanation": self._explanation(stored, request),
        }

    def _explanation(self, stored: StoredEvent, request: falcon.Request) -> Explanation | None:
        # It names handlers of all plugins, and the values that their conditions have read.
        if not query_text(request, "explain") or not operator_of(request).access.is_full:
            return None
        return self.app.router.explain_event(stored.event, max_candidates=MAX_EXPLAINED)

    def _delivery(self, stored: StoredEvent, status: DeliveryStatus, access: Access) -> dict[str, Any]:
        attempts = access.attempts(self.app.ledger.attempts(status.delivery_id, last=MAX_ATTEMPTS))
        return {
            "facts": status,
            "why": stored.route.get(status.handler, ""),
            "attempts": attempts,
            "earlier": max(0, status.attempt - len(attempts)),
            "command": _command(stored, status),
            "not_run": _why_not_run(status),
        }


class BodyFile(Page):
    """`GET /console/events/{event_id}/body`: the body, as a download and never as a page.

    With `?raw=1` it is the body of a request to a fixed URL, as received.
    """

    for_limited_roles = for_masked_roles = True

    def on_get(self, request: falcon.Request, response: falcon.Response, **path: str) -> None:
        """Return the body, or a page that explains the error."""

        def give() -> None:
            stored = operator_of(request).access.find_event(self.app.ledger, path["event_id"])
            raw = stored.raw_body if query_text(request, "raw") else None
            response.data = (stored.body if raw is None else raw).encode()
            response.set_headers(HEADERS)
            response.content_type = "application/octet-stream"
            name = f"{stored.event.id}.{'json' if raw is None else 'txt'}"
            response.set_header("Content-Disposition", f'attachment; filename="{name}"')

        self.respond_safely(request, response, choose_language(request, response), give)

    on_head = on_get


def _circuit(circuit: CircuitState | None, access: Access) -> CircuitState | None:
    return None if circuit is None else circuit._replace(reason=access.reason(circuit.reason))


def _conflict(stored: StoredEvent, conflict: Conflict) -> dict[str, Any]:
    return {
        "facts": conflict,
        "pretty": "" if conflict.damage else pretty(conflict.body),
        "diff": None if conflict.damage else diff_bodies(stored.body, conflict.body),
        "other_kind": conflict.kind if conflict.kind != stored.event.kind else "",
    }


def _why_not_run(delivery: DeliveryStatus) -> str:
    """Return why a handler's conditions kept it from running; `""` if they did not."""
    start = _NOT_RUN_PREFIXES.get(delivery.state)
    if start is None or (delivery.state is State.WAITING and delivery.due_at is not None):
        return ""
    # The reason is in the comment of a delivery that waits, or in the error of an attempt whose function was not
    # entered.
    reasons = (text.removeprefix(start) for text in (delivery.comment, delivery.error) if text.startswith(start))
    return next(reasons, "")


def _command(stored: StoredEvent, status: DeliveryStatus) -> str:
    """Return the command that applies to a delivery."""
    if status.state is State.DEAD:
        return suggestions.replay_command(stored.event.id, status.handler)
    if status.state is State.UNKNOWN:
        return suggestions.resolve_command(status.delivery_id)
    return ""
