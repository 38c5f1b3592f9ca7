"""Pages of events for a person who browses them, each found in bounded time.

A filter that an index answers is fast, however old the events are. Any other filter is searched window by window along
the ids. A page that could not be filled in time reports how far the search came.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import exists, select

from flowhooks.clock import SECOND, id_lower_bound
from flowhooks.ledger import attempt_filters, database, event_fields, name_search
from flowhooks.ledger.damaged_rows import repair
from flowhooks.ledger.few_matches import MAX_CANDIDATES, narrow
from flowhooks.ledger.filter_conditions import apply_filter, delivery_conditions, in_error_group
from flowhooks.ledger.queries import OPEN_STATES, EventFilter, shown_delivery_statuses
from flowhooks.ledger.tables import (
    IS_LAST_ATTEMPT,
    IS_PARKED,
    IS_RECONCILED,
    attempts,
    deliveries,
    error_groups,
    events,
)
from flowhooks.ledger.tables import event_fields as field_rows
from flowhooks.model.event import Origin

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy import ColumnElement, Connection

    from flowhooks.ledger.queries import DeliveryStatus, StoredEvent

WINDOW: Final = 4_000
"""Number of events that one statement searches."""
TIME_BUDGET: Final = 0.1
"""Seconds after which no further window is started."""
MAX_GROUP_CANDIDATES: Final = 10_000
"""Maximum number of attempts of an error group whose events are searched one by one."""
_ID_CLOCK_MARGIN: Final = 60 * SECOND
"""Microseconds by which the time in an event's id may differ from the time when it was received."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventSummary:
    """An event in a listing: everything but its body.

    Attributes:
        id: its id.
        received_at: when it was received, in microseconds since 1970.
        source: the engine that sent it.
        kind: its kind of callback.
        flow_instance_id: the engine's process instance id.
        business_key: its business key, or None.
        callback_class: its callback class, or None.
        process_key: its process definition key, or None.
        process_version: its process definition version, or None.
        process_definition_id: the engine's id of the process definition, or None.
        conclusion: the result of the process in business terms, or None.
        parked_by: why it is parked; None if it is not.
        dismissed_by: why it is dismissed; None if it is not.
        route: handler id to the reason why.
        state: `"routed"`, `"parked"` or `"dismissed"`.
        repeats: number of repeated callbacks.
        delivery_statuses: its deliveries.
        damage: as of `StoredEvent`.
        origin: as of `Event`.
        corrects: as of `Event`.
    """

    id: str
    received_at: int
    source: str
    kind: str
    flow_instance_id: str
    business_key: str | None
    callback_class: str | None
    process_key: str | None
    process_version: int | None
    process_definition_id: str | None
    conclusion: str | None
    parked_by: str | None
    dismissed_by: str | None
    route: Mapping[str, str]
    state: str
    repeats: int
    delivery_statuses: tuple[DeliveryStatus, ...] = ()
    damage: str = ""
    origin: str = Origin.CALLBACK.value
    corrects: str | None = None


def summarize(stored: StoredEvent) -> EventSummary:
    """Return the summary of a stored event."""
    event = stored.event
    return EventSummary(
        id=event.id,
        received_at=round(event.received_at.timestamp() * SECOND),
        source=event.source,
        kind=event.kind,
        flow_instance_id=event.flow_instance_id,
        business_key=event.business_key,
        callback_class=event.callback_class,
        process_key=event.process_definition_key,
        process_version=event.process_definition_version,
        process_definition_id=event.process_definition_id,
        conclusion=event.conclusion,
        parked_by=stored.parked_by,
        dismissed_by=stored.dismissed_by,
        route=stored.route,
        state=stored.state,
        repeats=stored.repeats,
        delivery_statuses=stored.delivery_statuses,
        damage=stored.damage,
        origin=event.origin,
        corrects=event.corrects,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchPage:
    """A page of events, newest first, with the cursors of its neighbors.

    Attributes:
        events: the events.
        older: the `before` of the page with older events; `""` if there are none.
        newer: the `after` of the page with newer events; `""` if there are none.
        searched_until: None if the page is complete; otherwise the time that the search had reached when its time
            budget was used up, in microseconds since 1970.
    """

    events: tuple[EventSummary, ...]
    older: str
    newer: str
    searched_until: int | None = None


def search_events(
    connection: Connection,
    event_filter: EventFilter,
    *,
    limit: int,
    before: str = "",
    after: str = "",
    window: int = WINDOW,
    time_budget: float = TIME_BUDGET,
) -> SearchPage:
    """Return one page of the events that match a filter.

    Args:
        connection: any connection.
        event_filter: the filter.
        limit: maximum number of events.
        before: the id before which to search, for older events.
        after: the id after which to search, for newer events; give at most one of `before` and `after`.
        window: number of events that one statement searches if no index helps.
        time_budget: seconds after which no further window is started.
    """
    search = _Search(connection, event_filter, before=before, after=after)
    if search.is_indexed:
        rows, reached = search.rows(limit + 1), ""
    else:
        rows, reached = search.rows_by_window(limit + 1, window, time_budget)
    more = len(rows) > limit
    rows = rows[:limit]
    onwards = rows[-1].id if more else reached
    if after:
        rows.reverse()
        # Events newer than `after` may have been purged by now, but `after` itself was shown before.
        older, newer = (rows[-1].id if rows else after), onwards
    else:
        older, newer = onwards, ((rows[0].id if rows else before) if before else "")
    statuses = shown_delivery_statuses(connection, [row.id for row in rows])
    return SearchPage(
        events=tuple(to_summary(row, statuses.get(row.id, ())) for row in rows),
        older=older,
        newer=newer,
        searched_until=None if more or not reached else _received_at(connection, reached),
    )


SUMMARY_COLUMNS: Final = (
    events.c.id,
    events.c.received_at,
    events.c.source,
    events.c.kind,
    events.c.flow_instance_id,
    events.c.business_key,
    events.c.callback_class,
    events.c.process_definition_key,
    events.c.process_definition_version,
    events.c.process_definition_id,
    events.c.conclusion,
    events.c.parked_by,
    events.c.dismissed_by,
    events.c.route,
    events.c.state,
    events.c.repeats,
    events.c.origin,
    events.c.corrects,
)
"""The columns of `to_summary`."""
_ALL_PARKED: Final = EventFilter(state="parked")


class _Search:
    """One search for events: its conditions and its direction."""

    def __init__(self, connection: Connection, event_filter: EventFilter, *, before: str, after: str) -> None:
        self._connection = connection
        self._filter = narrow(connection, event_filter)
        self._ascending = bool(after)
        self._cursor = after or before
        self._ids = self._candidates()
        event_filter = self._filter
        is_exact = self._ids is not None and not attempt_filters.has_attempt_criteria(event_filter)
        self._delivery_conditions = [] if is_exact else delivery_conditions(event_filter)
        # `apply_filter` gets no condition on a delivery, because it would search all deliveries for it.
        state = event_filter.state if event_filter.state in {"parked", "dismissed"} else None
        of_event = replace(
            event_filter, handler=None, state=state, error_group=None, query=None, fields=(), **attempt_filters.WITHOUT
        )
        self._query = apply_filter(select(*SUMMARY_COLUMNS), of_event).where(*_bounds(events.c.id, event_filter))
        if event_filter.query is not None:
            self._query = self._query.where(name_search.row_has_name(event_filter.query, event_filter.handler_plugins))
        if self._ids is not None:
            self._query = self._query.where(events.c.id.in_(database.string_array("candidates"))).params(
                candidates=json.dumps(self._ids)
            )
        self._value = None if self.is_indexed else event_fields.find_value_condition(event_filter.fields)

    @property
    def is_indexed(self) -> bool:
        """Whether an index finds all matches, or the filter excludes no event within its times."""
        event_filter = self._filter
        return (
            self._ids is not None
            or bool(event_filter.ids)
            or bool(event_filter.delivery_ids)
            or event_filter.flow_instance_id is not None
            or event_filter.business_key is not None
            or not replace(event_filter, since=None, until=None).has_criteria
            or replace(event_filter, since=None, until=None) == _ALL_PARKED
        )

    def rows(self, limit: int, *, start: str = "", end: str = "") -> list[Any]:
        """Return the first events in the search direction, after `start` and up to and including `end`."""
        column = events.c.id
        query = self._query.where(*self._between(column, start or self._cursor, end))
        if self._delivery_conditions:
            # The same bounds on the deliveries: otherwise PostgreSQL reads all of them to find those of a few events.
            its_event = deliveries.c.event_id
            bounds = self._between(its_event, start or self._cursor, end)
            query = query.where(
                exists(select(deliveries.c.id).where(its_event == column, *bounds, *self._delivery_conditions))
            )
        if self._filter.fields:
            bounds = self._between(field_rows.c.event_id, start or self._cursor, end)
            query = query.where(*event_fields.row_has_values(self._filter.fields, bounds))
            if self._value is not None:
                found = self._connection.execute(select(field_rows.c.event_id).where(self._value, *bounds))
                query = query.where(column.in_(database.string_array("with_value", found.scalars().all())))
        query = query.order_by(column if self._ascending else column.desc()).limit(limit)
        return list(self._connection.execute(query))

    def rows_by_window(self, limit: int, window: int, time_budget: float) -> tuple[list[Any], str]:
        """Return the same, window by window, and the id up to which it searched, `""` if to the end."""
        deadline = time.monotonic() + time_budget
        rows: list[Any] = []
        start = self._cursor
        for end in self._windows(window):
            rows += self.rows(limit - len(rows), start=start, end=end)
            start = end
            if not end or len(rows) >= limit or time.monotonic() > deadline:
                break
        return rows, start

    def _windows(self, window: int) -> Iterator[str]:
        """Yield the last id of each window; `""` for the last window."""
        # The index of a value has the ids in their order, so a window contains only events with the value.
        column = events.c.id if self._value is None else field_rows.c.event_id
        conditions = [] if self._value is None else [self._value]
        order = column if self._ascending else column.desc()
        # Only the ids: a condition on `received_at` would read all rows of the events.
        ids = select(column).where(*conditions, *_bounds(column, self._filter))
        ids = ids.order_by(order).limit(1).offset(window - 1)
        start = self._cursor
        while True:
            query = ids
            if start:
                query = query.where(column > start if self._ascending else column < start)
            start = self._connection.execute(query).scalar() or ""
            yield start

    def _between(self, column: ColumnElement[str], start: str, end: str) -> list[ColumnElement[bool]]:
        """Return the condition for ids after `start` up to and including `end`; `""` is unbounded."""
        bounds = []
        if start:
            bounds.append(column > start if self._ascending else column < start)
        if end:
            bounds.append(column <= end if self._ascending else column >= end)
        return bounds

    def _candidates(self) -> Sequence[str] | None:
        """Return the ids of the events if an index shows that few can match; otherwise None."""
        event_filter = self._filter
        if event_filter.error_group is not None:
            return self._candidates_of_error_group(event_filter.error_group)
        if event_filter.trigger is not None:
            requested = attempt_filters.requested_events(self._connection, event_filter.trigger, MAX_CANDIDATES)
            if requested is not None:
                return requested
        return self._candidates_by_state()

    def _candidates_by_state(self) -> Sequence[str] | None:
        event_filter = self._filter
        event_ids: set[str] = set()
        if event_filter.state == "parked" and event_filter.handler is None:
            event_ids.update(
                self._connection.execute(select(events.c.id).where(IS_PARKED).limit(MAX_CANDIDATES + 1)).scalars()
            )
            return sorted(event_ids) if len(event_ids) <= MAX_CANDIDATES else None
        if event_filter.origin == Origin.RECONCILED and not (event_filter.state or event_filter.handler):
            query = select(events.c.id).where(IS_RECONCILED).limit(MAX_CANDIDATES + 1)
            event_ids.update(self._connection.execute(query).scalars())
            return sorted(event_ids) if len(event_ids) <= MAX_CANDIDATES else None
        if event_filter.state not in OPEN_STATES:
            return None
        for condition in OPEN_STATES[event_filter.state]:
            query = select(deliveries.c.event_id, deliveries.c.handler).where(condition).limit(MAX_CANDIDATES + 1)
            rows = self._connection.execute(query).all()
            if len(rows) > MAX_CANDIDATES:
                return None
            event_ids.update(row.event_id for row in rows if event_filter.handler in {None, row.handler})
        return sorted(event_ids)

    def _candidates_of_error_group(self, fingerprint: str) -> Sequence[str] | None:
        group = self._connection.execute(
            select(error_groups.c.count.label("attempts"), error_groups.c.last_seen_at).where(
                error_groups.c.fingerprint == fingerprint
            )
        ).first()
        if group is None:
            return []
        if group.attempts > MAX_GROUP_CANDIDATES:
            # No event of the group was received after its last attempt.
            until = group.last_seen_at + 1
            self._filter = replace(self._filter, until=min(until, self._filter.until or until))
            return None
        query = select(deliveries.c.event_id).join(attempts, IS_LAST_ATTEMPT).where(*in_error_group(fingerprint))
        conditions = delivery_conditions(replace(self._filter, error_group=None))
        return sorted(set(self._connection.execute(query.where(*conditions)).scalars()))


def _bounds(column: ColumnElement[str], event_filter: EventFilter) -> list[ColumnElement[bool]]:
    # Ids start with their time, and the primary key is an index.
    bounds = []
    if event_filter.since is not None:
        bounds.append(column >= id_lower_bound(event_filter.since - _ID_CLOCK_MARGIN))
    if event_filter.until is not None:
        bounds.append(column < id_lower_bound(event_filter.until + _ID_CLOCK_MARGIN))
    return bounds


def _received_at(connection: Connection, event_id: str) -> int | None:
    return connection.execute(select(events.c.received_at).where(events.c.id == event_id)).scalar()


def to_summary(row: Any, statuses: tuple[DeliveryStatus, ...]) -> EventSummary:
    """Return the summary of a row; values of a damaged row are replaced."""
    row, damage = repair(row, SUMMARY_COLUMNS)
    return EventSummary(
        id=row.id,
        received_at=row.received_at,
        source=row.source,
        kind=row.kind,
        flow_instance_id=row.flow_instance_id,
        business_key=row.business_key,
        callback_class=row.callback_class or None,
        process_key=row.process_definition_key,
        process_version=row.process_definition_version,
        process_definition_id=row.process_definition_id,
        conclusion=row.conclusion,
        parked_by=row.parked_by,
        dismissed_by=row.dismissed_by,
        route=json.loads(row.route),
        state=row.state,
        repeats=row.repeats,
        delivery_statuses=statuses,
        damage=damage,
        origin=row.origin,
        corrects=row.corrects,
    )
