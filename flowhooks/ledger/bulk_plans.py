"""Plans of bulk operations: the deliveries that an operation acts on, each with the state and attempt that it had.

The deliveries are searched outside the writer's transactions, because the search may take long. Each page of them is
stored in a short transaction of its own, which checks every delivery once more, so that callbacks go on being accepted.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import ColumnElement, bindparam, func, literal, null, or_, select

from flowhooks.errors import InvalidTransition
from flowhooks.failpoints import hit
from flowhooks.ledger import database
from flowhooks.ledger.attempt_filters import WITHOUT
from flowhooks.ledger.bulk_operations import change_state
from flowhooks.ledger.filter_conditions import apply_filter, delivery_conditions
from flowhooks.ledger.pauses import NOT_PAUSED
from flowhooks.ledger.queries import OPEN_STATES, SUSPENDED
from flowhooks.ledger.tables import IS_SCHEDULED, IS_WAITING, deliveries, events, operation_items
from flowhooks.model.bulk_operation import BulkAction, ItemStatus, OperationState
from flowhooks.model.delivery import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from sqlalchemy import Connection

    from flowhooks.ledger.queries import EventFilter
    from flowhooks.ledger.transaction import WriteTransaction

PAGE_SIZE: Final = 500
"""Maximum number of deliveries that one transaction stores while others write."""
MAX_PAGE_SIZE: Final = 4 * PAGE_SIZE
"""Maximum number of deliveries that one transaction stores while nobody else writes."""
# Each read on PostgreSQL may sort all deliveries of a state.
READ_SIZE: Final = 20 * PAGE_SIZE
"""Maximum number of deliveries that one search returns."""
STATES_OF_ACTION: Final[Mapping[BulkAction, tuple[str, ...]]] = {
    BulkAction.REPLAY: (State.DEAD,),
    BulkAction.RERUN: (State.SUCCEEDED, State.DEAD),
    BulkAction.MARK_DONE: (State.UNKNOWN,),
    BulkAction.MARK_NOT_DONE: (State.UNKNOWN,),
    BulkAction.CLOSE: (State.WAITING, State.DEAD, State.UNKNOWN),
    BulkAction.RUN_NOW: (State.WAITING,),
}
"""The states of the deliveries that each action may change."""


class Plan(NamedTuple):
    """The action of an operation, and the deliveries that it is planned for.

    Attributes:
        operation_id: the operation.
        action: what it does with each delivery.
        event_filter: which deliveries. Each of them meets all conditions itself.
        now: microseconds since 1970.
    """

    operation_id: str
    action: BulkAction
    event_filter: EventFilter
    now: int


_COLUMNS: Final = ("operation_id", "delivery_id", "planned_state", "attempt", "status", "released_at")
_COUNT: Final = select(func.count()).where(operation_items.c.operation_id == bindparam("operation_id"))


def states_of(action: BulkAction, event_filter: EventFilter) -> tuple[str, ...]:
    """Return the states of the deliveries that an action changes among those of a filter; empty if there are none."""
    states = STATES_OF_ACTION[action]
    if event_filter.state is None:
        return states
    if event_filter.state == SUSPENDED:
        return (SUSPENDED,) if action is BulkAction.CLOSE else ()
    return tuple(state for state in states if state == event_filter.state)


def check_states(action: BulkAction, event_filter: EventFilter) -> None:
    """Refuse a filter whose state the action never changes: an empty plan would not say why it is empty.

    Raises:
        InvalidTransition: the action changes no delivery in the filter's state.
    """
    if not states_of(action, event_filter):
        states = ", ".join(STATES_OF_ACTION[action])
        raise InvalidTransition(
            f"{action} acts on deliveries that are {states}; with the state {event_filter.state} there is none"
        )


def candidate_pages(
    connect: Callable[[], AbstractContextManager[Connection]],
    plan: Plan,
    page_size: Callable[[], int] = lambda: PAGE_SIZE,
) -> Iterator[Sequence[str]]:
    """Yield the ids of the deliveries that match, page by page.

    Args:
        connect: opens a connection that only reads. None is open while the caller stores a page.
        plan: what is planned.
        page_size: returns the maximum number of ids of the next page.
    """
    event_filter = plan.event_filter
    of_event = replace(event_filter, state=None, handler=None, delivery_ids=(), error_group=None, **WITHOUT)
    for condition in _state_conditions(plan):
        query = select(deliveries.c.id).where(condition, *delivery_conditions(event_filter))
        if of_event.has_criteria:
            query = query.join(events, events.c.id == deliveries.c.event_id)
            # The plugins also decide which ids of deliveries `query` may be.
            of_event = replace(of_event, handler_plugins=event_filter.handler_plugins)
            query = apply_filter(query, of_event, with_deliveries=False)
        query = query.where(deliveries.c.id > bindparam("after")).order_by(deliveries.c.id).limit(READ_SIZE)
        after = ""
        while True:
            with (
                connect() as connection,
                database.with_statement_timeout(connection, database.LONG_STATEMENT_TIMEOUT),
            ):
                found = connection.execute(query, {"after": after}).scalars().all()
            start = 0
            while start < len(found):
                page = found[start : start + page_size()]
                yield page
                start += len(page)
            if len(found) < READ_SIZE:
                break
            after = found[-1]


def insert_page(transaction: WriteTransaction, plan: Plan, delivery_ids: Sequence[str]) -> None:
    """Store a page of an operation's plan: those of the given deliveries that still match."""
    transaction.connection.execute(_page_statement(plan), {"page": json.dumps(list(delivery_ids))})
    hit("operation.plan_written")


@lru_cache(maxsize=8)
def _page_statement(plan: Plan) -> Any:
    """Return the statement that stores a page; it is made once for each plan."""
    found = select(
        literal(plan.operation_id),
        deliveries.c.id,
        deliveries.c.state,
        deliveries.c.attempt,
        literal(ItemStatus.PLANNED.value),
        null(),
    ).where(
        deliveries.c.id.in_(database.string_array("page")),
        or_(*_state_conditions(plan)),
        *delivery_conditions(plan.event_filter),
    )
    # A page is inserted again if the reply to its COMMIT was lost.
    return database.insert(operation_items).from_select(_COLUMNS, found).on_conflict_do_nothing()


def finish_plan(transaction: WriteTransaction, plan: Plan) -> bool:
    """Store the number of planned deliveries, so that the operation may be started; False if it was planned before."""
    planned = transaction.connection.execute(_COUNT, {"operation_id": plan.operation_id}).scalar_one()
    return change_state(
        transaction, plan.operation_id, {OperationState.PLANNING}, OperationState.PLANNED, plan.now, planned=planned
    )


def _state_conditions(plan: Plan) -> list[ColumnElement[bool]]:
    """Return the conditions on a delivery's state. An index finds each of them, except that of *succeeded*."""
    if plan.action is BulkAction.RUN_NOW:
        # A blocked delivery cannot run yet, nor can a delivery of a handler that is paused or missing.
        return [IS_WAITING & IS_SCHEDULED & (deliveries.c.due_at > plan.now) & NOT_PAUSED]
    conditions: list[Any] = []
    for state in states_of(plan.action, plan.event_filter):
        conditions += OPEN_STATES.get(state, (deliveries.c.state == state,))
    return conditions
