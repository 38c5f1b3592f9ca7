"""Numbers of the plan of a bulk operation, by handler, state and error. Nothing is changed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import func, select

from flowhooks.ledger import database
from flowhooks.ledger.bulk_plans import Plan, candidate_pages, check_states
from flowhooks.ledger.damaged_rows import shown_time
from flowhooks.ledger.tables import IS_LAST_ATTEMPT, attempts, deliveries, error_groups, events, operation_items

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from flowhooks.ledger.queries import EventFilter
    from flowhooks.ledger.reader import Reader
    from flowhooks.model.bulk_operation import BulkAction

MAX_GROUPS: Final = 50
"""Maximum number of handlers, and of errors, that a summary lists, the largest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanGroup:
    """Deliveries of a plan that have something in common.

    Attributes:
        name: what they have in common: a handler's id, a state, or the fingerprint of an error.
        deliveries: their number.
        text: the error, in one line; `""` for a handler or a state.
    """

    name: str
    deliveries: int
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSummary:
    """The numbers of a plan.

    Attributes:
        oldest_at: when the first event of its deliveries was received, in microseconds since 1970; None: it has none.
        newest_at: when the last one was received; None: it has none.
        handlers: its deliveries by handler, the largest group first.
        states: its deliveries by the state that they had when they were planned.
        errors: its deliveries by the error of their last attempt, the largest group first.
    """

    oldest_at: int | None
    newest_at: int | None
    handlers: tuple[PlanGroup, ...]
    states: tuple[PlanGroup, ...]
    errors: tuple[PlanGroup, ...]


_ITEMS: Final = operation_items.join(deliveries, deliveries.c.id == operation_items.c.delivery_id)
_COUNT: Final = func.count().label("deliveries")


def plan_summary(connection: Connection, operation_id: str) -> PlanSummary:
    """Return the numbers of an operation's plan. Purged deliveries are left out.

    Args:
        connection: any connection.
        operation_id: the operation.
    """
    is_item = operation_items.c.operation_id == operation_id
    # Ids start with their time, so the first and the last id are those of the oldest and the newest event.
    rows = connection.execute(
        select(
            deliveries.c.handler,
            operation_items.c.planned_state,
            _COUNT,
            func.min(deliveries.c.event_id).label("oldest"),
            func.max(deliveries.c.event_id).label("newest"),
        )
        .select_from(_ITEMS)
        .where(is_item)
        .group_by(deliveries.c.handler, operation_items.c.planned_state)
    ).all()
    by_handler: dict[str, int] = {}
    by_state: dict[str, int] = {}
    for row in rows:
        by_handler[row.handler] = by_handler.get(row.handler, 0) + row.deliveries
        by_state[row.planned_state] = by_state.get(row.planned_state, 0) + row.deliveries
    by_error = connection.execute(
        select(attempts.c.error_group, error_groups.c.error_type, error_groups.c.message, _COUNT)
        .select_from(
            _ITEMS.join(attempts, IS_LAST_ATTEMPT).join(
                error_groups, error_groups.c.fingerprint == attempts.c.error_group
            )
        )
        .where(is_item)
        .group_by(attempts.c.error_group, error_groups.c.error_type, error_groups.c.message)
        .order_by(_COUNT.desc(), attempts.c.error_group)
        .limit(MAX_GROUPS)
    ).all()
    return PlanSummary(
        oldest_at=_received_at(connection, min((row.oldest for row in rows), default="")),
        newest_at=_received_at(connection, max((row.newest for row in rows), default="")),
        handlers=_largest_first(by_handler)[:MAX_GROUPS],
        states=_largest_first(by_state),
        errors=tuple(
            PlanGroup(
                name=row.error_group,
                deliveries=row.deliveries,
                text=f"{row.error_type}: {row.message}" if row.message else row.error_type,
            )
            for row in by_error
        ),
    )


def planned_handlers(connection: Connection, operation_id: str) -> frozenset[str]:
    """Return the ids of the handlers of an operation's plan. Purged deliveries are left out."""
    rows = select(deliveries.c.handler).distinct().select_from(_ITEMS)
    return frozenset(connection.execute(rows.where(operation_items.c.operation_id == operation_id)).scalars())


def preview_plan(reader: Reader, action: BulkAction, event_filter: EventFilter, now: int) -> PlanSummary:
    """Return the numbers that a plan would have, without its errors. Nothing is stored.

    Args:
        reader: the ledger.
        action: what would be done with each delivery.
        event_filter: which deliveries.
        now: microseconds since 1970.

    Raises:
        InvalidTransition: the action changes no delivery in the filter's state.
    """
    check_states(action, event_filter)
    by_handler: dict[str, int] = {}
    by_state: dict[str, int] = {}
    oldest = newest = ""
    for page in candidate_pages(reader.connection, Plan("", action, event_filter, now)):
        with reader.connection() as connection:
            rows = connection.execute(_PAGE, {"page": json.dumps(list(page))}).all()
        for row in rows:
            by_handler[row.handler] = by_handler.get(row.handler, 0) + row.deliveries
            by_state[row.state] = by_state.get(row.state, 0) + row.deliveries
            oldest = min(oldest or row.oldest, row.oldest)
            newest = max(newest, row.newest)
    with reader.connection() as connection:
        oldest_at, newest_at = _received_at(connection, oldest), _received_at(connection, newest)
    return PlanSummary(
        oldest_at=oldest_at,
        newest_at=newest_at,
        handlers=_largest_first(by_handler)[:MAX_GROUPS],
        states=_largest_first(by_state),
        errors=(),
    )


_PAGE: Final = (
    select(
        deliveries.c.handler,
        deliveries.c.state,
        _COUNT,
        func.min(deliveries.c.event_id).label("oldest"),
        func.max(deliveries.c.event_id).label("newest"),
    )
    .where(deliveries.c.id.in_(database.string_array("page")))
    .group_by(deliveries.c.handler, deliveries.c.state)
)


def _largest_first(counts: dict[str, int]) -> tuple[PlanGroup, ...]:
    return tuple(
        PlanGroup(name=name, deliveries=count)
        for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    )


def _received_at(connection: Connection, event_id: str) -> int | None:
    row = connection.execute(select(events.c.received_at).where(events.c.id == event_id)).one_or_none()
    return None if row is None else shown_time(row.received_at)
