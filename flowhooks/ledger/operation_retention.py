"""Deletion of bulk operations that nobody started, and of the items of operations that ended long ago."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import and_, delete, exists, or_, select, tuple_, update

from flowhooks.clock import DAY
from flowhooks.ledger import database
from flowhooks.ledger.tables import operation_items, operations
from flowhooks.model.bulk_operation import OperationState

if TYPE_CHECKING:
    from flowhooks.ledger.transaction import WriteTransaction

KEPT_ITEMS: Final = 30 * DAY
"""Microseconds for which the items of an operation are kept after its end."""
KEPT_PLANS: Final = DAY
"""Microseconds for which an operation waits for its start."""


class Deleted(NamedTuple):
    """The numbers of deleted rows.

    Attributes:
        items: number of items.
        operations: number of operations.
    """

    items: int
    operations: int


def delete_expired(transaction: WriteTransaction, now: int, *, ended_before: int, limit: int) -> Deleted:
    """Delete at most `limit` expired items, and the operations that have none left.

    Args:
        transaction: the open transaction.
        now: microseconds since 1970.
        ended_before: operations that ended before this time are deleted themselves, in microseconds since 1970.
        limit: maximum number of rows of each kind.
    """
    connection, columns, keys = transaction.connection, operations.c, operation_items.c
    is_unstarted = and_(
        columns.state.in_((OperationState.PLANNING.value, OperationState.PLANNED.value)),
        columns.created_at < now - KEPT_PLANS,
    )
    # A plan of which a part is deleted cannot be started: it is as one that is still being made.
    connection.execute(update(operations).where(is_unstarted).values(state=OperationState.PLANNING.value))
    # The results of a cancelled operation are counted from its items, once its last released delivery is executed.
    has_results = columns.succeeded.is_not(None)
    # Items have no time. With the ids of the few operations, they are found by key.
    has_expired_items = or_(is_unstarted, and_(columns.finished_at < now - KEPT_ITEMS, has_results))
    operation_ids = connection.execute(select(columns.id).where(has_expired_items)).scalars().all()
    expired: Any = select(keys.operation_id, keys.delivery_id).limit(limit)
    expired = expired.where(keys.operation_id.in_(database.string_array("operation_ids", operation_ids)))
    items = connection.execute(
        delete(operation_items).where(tuple_(keys.operation_id, keys.delivery_id).in_(expired))
    ).rowcount
    if items == limit:
        return Deleted(items, 0)
    without_items = ~exists().where(keys.operation_id == columns.id)
    ended = select(columns.id).where(or_(is_unstarted, columns.finished_at < ended_before), without_items).limit(limit)
    return Deleted(items, connection.execute(delete(operations).where(columns.id.in_(ended))).rowcount)
