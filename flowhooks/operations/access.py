"""The part of the ledger that an operator may see and change, by the plugins and the hidden values of their role.

`FULL` restricts nothing. Everything else is decided here, and each function raises or hides in case of doubt.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from flowhooks.errors import EventPurged, Forbidden, NotFound
from flowhooks.model.alert import HANDLER_CAUSES, AlertCause
from flowhooks.operations import masks
from flowhooks.operations.find_event import find_event
from flowhooks.operations.masks import MASK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from flowhooks.ledger.alert_queries import OpenAlert
    from flowhooks.ledger.audit import AuditEntry
    from flowhooks.ledger.corrections import Conflict
    from flowhooks.ledger.engine_queries import EnginePosition, HistoryGap
    from flowhooks.ledger.late_callbacks import LateCallback
    from flowhooks.ledger.queries import DeliveryStatus, EventFilter, StoredEvent
    from flowhooks.ledger.reader import Reader
    from flowhooks.ledger.search import EventSummary
    from flowhooks.model.bulk_operation import Operation
    from flowhooks.model.delivery import Attempt
    from flowhooks.operations.trends import Trend

_ABOUT_HANDLERS: Final = HANDLER_CAUSES | {AlertCause.QUARANTINED}
"""Causes of alerts whose subject is a handler or a plugin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """The part of the ledger that an operator may see and change.

    Attributes:
        plugins: the plugins whose handlers the operator sees; None: all, and everything that belongs to no handler.
        masked: JSON Pointers to members of bodies that are hidden; None: nothing is hidden. Even if it is empty,
            results, errors, logs and tracebacks are hidden.
    """

    plugins: frozenset[str] | None = None
    masked: tuple[str, ...] | None = None

    @property
    def is_limited(self) -> bool:
        """Whether the operator sees some plugins only."""
        return self.plugins is not None

    @property
    def is_masked(self) -> bool:
        """Whether values are hidden from the operator."""
        return self.masked is not None

    @property
    def is_full(self) -> bool:
        """Whether the operator sees everything."""
        return self.plugins is None and self.masked is None

    def sees(self, handler: str) -> bool:
        """Return whether the operator sees a handler, by its id, or a plugin, by its name."""
        return self.plugins is None or handler.partition(":")[0] in self.plugins

    def restrict(self, event_filter: EventFilter) -> EventFilter:
        """Return a filter with the restriction to events of the operator's plugins.

        Raises:
            Forbidden: the filter would reveal the value of a hidden member.
        """
        self.check_filter(event_filter)
        if self.plugins is None:
            return event_filter
        chosen = set(event_filter.handler_plugins or self.plugins) & self.plugins
        if not chosen:
            raise Forbidden("operator_scope")
        return replace(event_filter, handler_plugins=tuple(sorted(chosen)))

    def check_filter(self, event_filter: EventFilter) -> None:
        """Refuse a filter whose answer, also that there is no such error group, would reveal a hidden value.

        Raises:
            Forbidden: the filter would reveal a hidden value.
        """
        if self.masked is not None and masks.filters_hidden(event_filter, self.masked):
            raise Forbidden("operator_masked")

    def find_event(self, reader: Reader, name: str) -> StoredEvent:
        """Return an event by its id or that of a delivery, as the operator sees it.

        Raises:
            NotFound: there is no such event or delivery, or the operator does not see it.
            EventPurged: the event was purged, and the operator sees all events.
            LedgerUnusable: the ledger cannot be read.
        """
        try:
            stored = find_event(reader, name)
        except EventPurged:
            if self.is_limited:
                raise NotFound("there is no event or delivery with this id") from None
            raise
        stored = self.stored_event(stored)
        if self.is_limited and name not in {
            stored.event.id,
            *(status.delivery_id for status in stored.delivery_statuses),
        }:
            raise NotFound("there is no event or delivery with this id")
        return stored

    def stored_event(self, stored: StoredEvent) -> StoredEvent:
        """Return an event as the operator sees it.

        Raises:
            NotFound: the operator sees none of its deliveries.
        """
        if self.is_full:
            return stored
        statuses = self.statuses(stored.delivery_statuses)
        if self.is_limited and not statuses:
            raise NotFound("there is no event or delivery with this id")
        stored = replace(stored, delivery_statuses=statuses, route=self._route(stored.route), no_match=None)
        if self.masked is None:
            return stored
        return replace(
            stored,
            event=masks.mask_event(stored.event, self.masked),
            body=masks.mask_body(stored.body, self.masked),
            raw_body=None if stored.raw_body is None else MASK,
            damage=self.reason(stored.damage),
        )

    def summary(self, event: EventSummary) -> EventSummary:
        """Return an event of a list as the operator sees it."""
        if self.is_full:
            return event
        event = replace(event, delivery_statuses=self.statuses(event.delivery_statuses), route=self._route(event.route))
        return event if self.masked is None else masks.mask_summary(event, self.masked)

    def statuses(self, statuses: Iterable[DeliveryStatus]) -> tuple[DeliveryStatus, ...]:
        """Return the deliveries that the operator sees."""
        seen = tuple(status for status in statuses if self.sees(status.handler))
        return seen if self.masked is None else tuple(masks.mask_status(status) for status in seen)

    def attempts(self, attempts: Iterable[Attempt]) -> list[Attempt]:
        """Return attempts as the operator sees them."""
        return list(attempts) if self.masked is None else [masks.mask_attempt(attempt) for attempt in attempts]

    def conflicts(self, conflicts: Iterable[Conflict]) -> list[Conflict]:
        """Return conflicting bodies as the operator sees them.

        A hidden value could be found by trying from the digest of its body.
        """
        if self.masked is None:
            return list(conflicts)
        return [
            found._replace(body=masks.mask_body(found.body, self.masked), digest=MASK, damage=found.damage and MASK)
            for found in conflicts
        ]

    def late_callbacks(self, found: Iterable[LateCallback]) -> list[LateCallback]:
        """Return bodies beside that of an event as the operator sees them."""
        if self.masked is None:
            return list(found)
        return [late._replace(body=masks.mask_body(late.body, self.masked)) for late in found]

    def reason(self, text: str) -> str:
        """Return an error or a reason, or the mask for it."""
        return MASK if self.is_masked and text else text

    def engine_position(self, position: EnginePosition) -> EnginePosition:
        """Return how far an engine's history was read, as the operator sees it: an error may quote a response."""
        return replace(position, error=self.reason(position.error))

    def history_gaps(self, gaps: Iterable[HistoryGap]) -> list[HistoryGap]:
        """Return gaps in an engine's history as the operator sees them: details are errors of the engine, too."""
        return [gap._replace(detail=self.reason(gap.detail)) for gap in gaps]

    def sees_alert(self, alert: OpenAlert) -> bool:
        """Return whether the operator sees an alert: a restricted one sees those about handlers."""
        return self.is_full or (alert.cause in _ABOUT_HANDLERS and self.sees(alert.subject))

    def alert(self, alert: OpenAlert) -> OpenAlert:
        """Return an alert as the operator sees it."""
        if self.is_limited:
            alert = replace(alert, notified_plugins=(), accepted_plugins=(), notification_errors={})
        if self.is_masked:
            errors = dict.fromkeys(alert.notification_errors, MASK)
            alert = replace(alert, message=MASK, last_error=self.reason(alert.last_error), notification_errors=errors)
        return alert

    def trend(self, trend: Trend) -> Trend:
        """Return a trend with the marks that the operator sees: a limited one sees the versions of their plugins."""
        marks = tuple(mark for mark in trend.marks if mark.kind != "plugin" or self.sees(mark.text.partition(" ")[0]))
        return replace(trend, marks=marks)

    def sees_filter(self, event_filter: Mapping[str, Any]) -> bool:
        """Return whether the operator sees an operation with a filter, given as JSON values."""
        if self.plugins is None:
            return True
        handler, plugins = event_filter.get("handler"), event_filter.get("handler_plugins")
        return (isinstance(handler, str) and self.sees(handler)) or (
            isinstance(plugins, list | tuple) and bool(plugins) and self.plugins.issuperset(plugins)
        )

    def operation(self, operation: Operation) -> Operation:
        """Return an operation as the operator sees it."""
        if self.masked is None:
            return operation
        shown = masks.mask_filter(operation.event_filter, self.masked)
        return replace(operation, event_filter=shown, note=self.reason(operation.note))

    def sees_entry(self, entry: AuditEntry) -> bool:
        """Return whether the operator sees an audit entry: a limited one sees those that name only their handlers."""
        if self.plugins is None:
            return True
        named = _handlers_of(entry)
        if entry.action in {"operation", "export"}:
            event_filter = entry.detail.get("event_filter")
            return isinstance(event_filter, dict) and self.sees_filter(event_filter)
        return bool(named) and all(self.sees(handler) for handler in named)

    def entry(self, entry: AuditEntry) -> AuditEntry:
        """Return an audit entry as the operator sees it: details and notes may contain hidden values."""
        return replace(entry, detail={}) if self.is_masked else entry

    def _route(self, route: Mapping[str, str]) -> dict[str, str]:
        return {handler: self.reason(why) for handler, why in route.items() if self.sees(handler)}


FULL: Final = Access()
"""The access of operators whose role has no restriction, and of commands."""


def sees_operation(access: Access) -> Callable[[Operation], bool]:
    """Return a function that returns whether an operator sees an operation."""
    return lambda operation: access.sees_filter(operation.event_filter)


def _handlers_of(entry: AuditEntry) -> list[str]:
    """Return the ids of the handlers that an entry names; empty if it may be about more than handlers."""
    handlers = entry.detail.get("handlers", entry.detail.get("handler"))
    named = [handlers] if isinstance(handlers, str) else handlers
    if not isinstance(named, list) or not all(isinstance(handler, str) for handler in named):
        return []
    return named
