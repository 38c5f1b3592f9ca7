"""The SQL conditions of a filter for events."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Select, exists, func, literal, select

from flowhooks.ledger import database, event_fields, name_search
from flowhooks.ledger.attempt_filters import attempt_conditions, has_attempt_criteria
from flowhooks.ledger.queries import SUSPENDED
from flowhooks.ledger.tables import (
    HAS_ERROR_GROUP,
    IS_LAST_ATTEMPT,
    IS_RUNNING_OR_FAILED,
    IS_SUSPENDED,
    attempts,
    deliveries,
    equals_indexed,
    events,
)
from flowhooks.model.delivery import State

if TYPE_CHECKING:
    from flowhooks.ledger.queries import EventFilter


def apply_filter(query: Select[Any], event_filter: EventFilter, *, with_deliveries: bool = True) -> Select[Any]:
    """Return a query for events with all conditions of a filter, or only with those on the event itself."""
    query = query.where(*_name_conditions(event_filter), *event_fields.have_values(event_filter.fields))
    if event_filter.ids:
        query = query.where(events.c.id.in_(database.string_array("ids"))).params(ids=json.dumps(event_filter.ids))
    if event_filter.since is not None:
        query = query.where(events.c.received_at >= event_filter.since)
    if event_filter.until is not None:
        query = query.where(events.c.received_at < event_filter.until)
    if event_filter.state in {"parked", "dismissed"}:
        query = query.where(events.c.state == event_filter.state)
    if not with_deliveries:
        return query
    of_delivery = delivery_conditions(replace(event_filter, error_group=None))
    if of_delivery and event_filter.state in {State.RUNNING, State.DEAD, State.UNKNOWN}:
        of_delivery.append(IS_RUNNING_OR_FAILED)
    if of_delivery and event_filter.error_group is None:
        query = query.where(_has_delivery(of_delivery, by_event=has_attempt_criteria(event_filter)))
    if event_filter.error_group is not None:
        last = select(deliveries.c.event_id).join(attempts, IS_LAST_ATTEMPT)
        query = query.where(events.c.id.in_(last.where(*in_error_group(event_filter.error_group), *of_delivery)))
    return query


def _has_delivery(conditions: list[ColumnElement[bool]], *, by_event: bool) -> ColumnElement[bool]:
    # For a condition on attempts no index exists. The deliveries are then read event by event, until there are enough
    # events, unless an index finds few deliveries.
    if by_event and IS_RUNNING_OR_FAILED not in conditions:
        return select(deliveries.c.id).where(deliveries.c.event_id == events.c.id, *conditions).exists()
    return events.c.id.in_(select(deliveries.c.event_id).where(*conditions))


def _name_conditions(event_filter: EventFilter) -> list[ColumnElement[bool]]:
    exact = {
        events.c.callback_class: event_filter.callback_class,
        events.c.process_definition_key: event_filter.process_key,
        events.c.conclusion: event_filter.conclusion,
        events.c.dismissed_by: event_filter.dismissed_by,
        events.c.origin: event_filter.origin,
    }
    conditions: list[ColumnElement[bool]] = [column == value for column, value in exact.items() if value is not None]
    if event_filter.trace_id is not None:
        conditions.append(func.substr(events.c.traceparent, 4, 32) == event_filter.trace_id)
    if event_filter.query is not None:
        conditions.append(name_search.has_name(event_filter.query, event_filter.handler_plugins))
    if event_filter.flow_instance_id is not None:
        conditions.append(equals_indexed(events.c.flow_instance_id, event_filter.flow_instance_id))
    if event_filter.business_key is not None:
        conditions.append(name_search.has_business_key(event_filter.business_key))
    return conditions


def delivery_conditions(event_filter: EventFilter) -> list[ColumnElement[bool]]:
    """Return the conditions of a filter that one delivery of an event has to meet together."""
    conditions: list[ColumnElement[bool]] = []
    if event_filter.state in set(State):
        conditions.append(deliveries.c.state == event_filter.state)
    if event_filter.state == SUSPENDED:
        conditions.append(IS_SUSPENDED)
    if event_filter.handler is not None:
        conditions.append(deliveries.c.handler == event_filter.handler)
    if event_filter.delivery_ids:
        conditions.append(deliveries.c.id.in_(database.string_array("delivery_ids", event_filter.delivery_ids)))
    if event_filter.error_group is not None:
        last = select(literal(1)).where(IS_LAST_ATTEMPT, *in_error_group(event_filter.error_group))
        conditions.append(exists(last.correlate(deliveries)))
    return conditions + attempt_conditions(event_filter)


def in_error_group(fingerprint: str) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions that an attempt has an error of a group."""
    return (HAS_ERROR_GROUP, attempts.c.error_group == fingerprint)
