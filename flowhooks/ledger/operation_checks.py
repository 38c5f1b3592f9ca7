"""Consistency checks of bulk operations: whether their numbers agree with their items."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Select, and_, func, or_, select

from flowhooks.ledger.tables import operation_items, operations
from flowhooks.model.bulk_operation import ItemStatus, OperationState


def _items_with(*statuses: ItemStatus) -> Select[int]:
    return select(func.count()).where(
        operation_items.c.operation_id == operations.c.id,
        operation_items.c.status.in_([status.value for status in statuses]),
    )


_ITEMS: Final = _items_with(*ItemStatus).scalar_subquery()
_RELEASED: Final = _items_with(ItemStatus.RELEASED).scalar_subquery()
_CHANGED: Final = _items_with(ItemStatus.CHANGED).scalar_subquery()
_HAS_ENDED: Final = operations.c.state.in_((OperationState.CANCELLED.value, OperationState.FINISHED.value))
_IS_PLANNING: Final = operations.c.state == OperationState.PLANNING.value
_IS_RELEASED: Final = operation_items.c.status == ItemStatus.RELEASED.value

OPERATION_CHECKS: Final[tuple[tuple[Select[str], str], ...]] = (
    (
        # An operation that nobody started is deleted in several transactions, items first.
        select(operations.c.id).where(
            operations.c.state.in_((OperationState.RUNNING.value, OperationState.PAUSED.value)),
            or_(
                operations.c.planned != _ITEMS,
                operations.c.released != _RELEASED,
                operations.c.changed != _CHANGED,
            ),
        ),
        "running or paused operation {} has other items than it counts",
    ),
    (
        # The items of an operation that has ended are deleted before it.
        select(operations.c.id).where(
            ~_IS_PLANNING,
            or_(operations.c.planned < _ITEMS, operations.c.released < _RELEASED, operations.c.changed < _CHANGED),
        ),
        "operation {} has more items than it counts",
    ),
    (
        select(operations.c.id).where(
            or_(
                operations.c.released + operations.c.changed > operations.c.planned,
                operations.c.succeeded + operations.c.failed != operations.c.released,
                operations.c.succeeded.is_(None) != operations.c.failed.is_(None),
                and_(
                    operations.c.state == OperationState.FINISHED.value,
                    operations.c.released + operations.c.changed != operations.c.planned,
                ),
            )
        ),
        "operation {} has numbers that contradict each other",
    ),
    (
        select(operations.c.id).where(
            or_(
                operations.c.finished_at.is_not(None) != _HAS_ENDED,
                and_(
                    operations.c.state.in_(
                        (OperationState.RUNNING.value, OperationState.PAUSED.value, OperationState.FINISHED.value)
                    ),
                    operations.c.started_at.is_(None),
                ),
                and_(operations.c.succeeded.is_not(None), ~_HAS_ENDED),
            )
        ),
        "operation {} has times or results that contradict its state",
    ),
    (
        select(operation_items.c.delivery_id).where(operation_items.c.released_at.is_not(None) != _IS_RELEASED),
        "delivery {} has an item of an operation whose time of release contradicts its status",
    ),
)
"""Each query with the sentence that is reported for each id that it returns."""
