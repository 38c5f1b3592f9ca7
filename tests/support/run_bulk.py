"""A bulk operation from its plan to its end, in one call: for tests that need deliveries to run again or to be closed.

It has no tests of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowhooks.ledger.queries import EventFilter
from flowhooks.model.bulk_operation import BulkAction
from flowhooks.operations.bulk import plan_operation, release_all, start_operation

if TYPE_CHECKING:
    from flowhooks.model.bulk_operation import Operation
    from flowhooks.operations.context import OperationContext


def run_bulk(
    context: OperationContext, action: BulkAction, event_filter: EventFilter | None = None, **options: Any
) -> Operation:
    """Plan and start an operation, and release all its deliveries. Deliveries that run again may not have run yet."""
    planned = plan_operation(context, action, event_filter or EventFilter(), **options)
    start_operation(context, planned.id)
    return release_all(context, planned.id)


def replay(context: OperationContext, event_filter: EventFilter | None = None) -> Operation:
    """Run dead deliveries again; all of them without a filter."""
    return run_bulk(context, BulkAction.REPLAY, event_filter)
