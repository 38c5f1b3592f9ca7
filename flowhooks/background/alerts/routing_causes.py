"""Find causes in routing: undecided conditions, unknown conclusions, conflicting callbacks, events without a name."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from flowhooks.background.alerts.cause import Cause, MessageTemplate
from flowhooks.clock import SECOND, to_datetime
from flowhooks.ledger import alert_queries, routing_issues
from flowhooks.ledger.conclusions import unknown_conclusions
from flowhooks.ledger.tables import MAX_INDEXED_CHARS
from flowhooks.model.alert import AlertCause
from flowhooks.model.event import Event
from flowhooks.text import printable_line

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from sqlalchemy import Connection

    from flowhooks.ledger.alert_queries import HandlerIssue
    from flowhooks.ledger.conclusions import UnknownConclusion
    from flowhooks.ledger.routing_issues import Conflicts, Undecided
    from flowhooks.routing.router import Router

RECENT_PERIOD: Final = 24 * 3600 * SECOND
"""Microseconds for which a conflict, or an event that was routed despite an undecided condition, keeps its alert open.
"""

UNDECIDED_EVENTS: Final = MessageTemplate(
    "{many} for {subject} {have} an undecided condition, the first since {since}: {why}. Let the engine send the "
    "member, then decide on the parked events: `flowhooks events list --state parked`.",
    ("event", "events"),
)
UNDECIDED_DELIVERIES: Final = MessageTemplate(
    "{many} of handler {subject} {have} not run because its condition is undecided, the first since {since}: "
    "{why}. Correct the handler and restart the server, or close the deliveries: `flowhooks events resolve`."
)
CONCLUSION: Final = MessageTemplate(
    "No handler takes {subject}, which was first received at {since}. Such events are dismissed{why}. Add the "
    "conclusion to a handler, map the engine's word in [sources.NAME.conclusion], or add it to "
    "routing.ignore_conclusions."
)
CONFLICT: Final = MessageTemplate(
    "{many} of source {subject} {have} the identity of an earlier event, but other data, the first since {since}. Each "
    "is kept and runs no handler. `flowhooks events show {why}` compares them. Find out whether the engine reuses "
    "instance ids or has changed a decision.",
    ("callback", "callbacks"),
)
NO_NAME: Final = MessageTemplate(
    "{many} {have} neither callBackProcessClass nor processDefinitionKey, the first since {since}, so no handler "
    "matches. Let the engine send one of them, then run `flowhooks events dismiss` for the parked events.",
    ("event", "events"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingCauseFinder:
    """Finds causes in routing.

    Args:
        router: returns the current router.
        ignored: returns the conclusions for which no alert is raised.
        loaded: ids of the handlers that this process has loaded.
    """

    router: Callable[[], Router]
    ignored: Callable[[], Collection[str]]
    loaded: Collection[str]

    def find(self, connection: Connection, now: int) -> Iterator[Cause]:
        """Yield every cause in routing.

        Args:
            connection: reads a consistent snapshot.
            now: microseconds since 1970.
        """
        since = now - RECENT_PERIOD
        for undecided in routing_issues.undecided(connection, since=since):
            yield _undecided_events(undecided)
        for delivery in alert_queries.missing_handlers(connection, now):
            if delivery.handler in self.loaded:
                yield _undecided_deliveries(delivery)
        for unknown in unknown_conclusions(connection):
            if (cause := self._conclusion(unknown)) is not None:
                yield cause
        for conflicts in routing_issues.conflicts(connection, since=since):
            yield _conflict(conflicts)
        if (nameless := alert_queries.oldest_without_name(connection)) is not None:
            yield _no_name(nameless.event_id, nameless.since, now)

    def _conclusion(self, unknown: UnknownConclusion) -> Cause | None:
        event = _event_of(unknown)
        if unknown.conclusion in self.ignored() or not self.router().is_unknown_conclusion(event):
            return None
        hints = self.router().similar_conclusions(event)
        return Cause(
            cause=AlertCause.CONCLUSION,
            subject=f"conclusion {_shorten(unknown.conclusion)!r} of "
            f"{describe_names(unknown.callback_class, unknown.process_key or None)}",
            since=unknown.seen_at,
            count=lambda _: 1,
            event_id=unknown.event_id,
            template=CONCLUSION,
            why=f" ({printable_line('; '.join(hints))})" if hints else "",
        )


def describe_names(callback_class: str, process_key: str | None) -> str:
    """Return an event's class and key on one line, with unprintable characters replaced."""
    names = [f"class {_shorten(callback_class)}"] if callback_class else []
    names += [f"key {_shorten(process_key)}"] if process_key else []
    return " and ".join(names) or "neither class nor key"


def _shorten(text: str) -> str:
    # The subject is a column of an index in the ledger, and index rows have a maximum size.
    return printable_line(text if len(text) <= MAX_INDEXED_CHARS else text[: MAX_INDEXED_CHARS - 1] + "…")


def _event_of(unknown: UnknownConclusion) -> Event:
    return Event(
        id=unknown.event_id,
        flow_instance_id="",
        callback_class=unknown.callback_class or None,
        process_definition_key=unknown.process_key or None,
        conclusion=unknown.conclusion,
        data={},
        received_at=to_datetime(unknown.seen_at),
    )


def _undecided_events(undecided: Undecided) -> Cause:
    return Cause(
        cause=AlertCause.CONDITION,
        subject=describe_names(undecided.callback_class, undecided.process_key),
        since=undecided.since,
        count=lambda _: undecided.events,
        event_id=undecided.event_id,
        template=UNDECIDED_EVENTS,
        why=printable_line(undecided.why),
    )


def _undecided_deliveries(delivery: HandlerIssue) -> Cause:
    return Cause(
        cause=AlertCause.CONDITION,
        subject=delivery.handler,
        since=delivery.since,
        count=partial(alert_queries.count_missing_handler, handler=delivery.handler),
        event_id=delivery.event_id,
        template=UNDECIDED_DELIVERIES,
        why=f"`flowhooks events show {delivery.event_id}` shows why",
    )


def _conflict(conflicts: Conflicts) -> Cause:
    return Cause(
        cause=AlertCause.CONFLICT,
        subject=printable_line(conflicts.source),
        since=conflicts.since,
        count=lambda _: conflicts.callbacks,
        event_id=conflicts.event_id,
        template=CONFLICT,
        why=conflicts.event_id,
    )


def _no_name(event_id: str, since: int, now: int) -> Cause:
    return Cause(
        cause=AlertCause.PARKED,
        subject=describe_names("", None),
        since=since,
        count=partial(alert_queries.count_parked, before=now, callback_class="", process_key=None),
        latest=partial(alert_queries.latest_parked, before=now, callback_class="", process_key=None),
        event_id=event_id,
        template=NO_NAME,
    )
