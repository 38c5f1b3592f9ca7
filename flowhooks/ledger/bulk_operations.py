"""Bulk operations: their rows, states and progress. They are planned in `bulk_plans` and released in `bulk_release`."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import ColumnElement, and_, case, func, insert, or_, select, tuple_, update

from flowhooks.clock import SECOND
from flowhooks.ledger import database
from flowhooks.ledger.damaged_rows import repair
from flowhooks.ledger.tables import IS_OPEN_OPERATION, deliveries, operations
from flowhooks.ledger.tables import operation_items as items
from flowhooks.model.bulk_operation import BulkAction, ItemResult, ItemStatus, Operation, OperationItem, OperationState
from flowhooks.model.delivery import State

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from sqlalchemy import Connection

    from flowhooks.ledger.transaction import WriteTransaction

ACTIVE_STATES: Final = frozenset({OperationState.PLANNING, OperationState.RUNNING, OperationState.PAUSED})
"""The states of operations that are not at rest."""
DONE_AT_ONCE: Final = frozenset({BulkAction.MARK_DONE, BulkAction.CLOSE})
"""Actions after which a delivery needs no attempt: it is executed when it is released."""
PURGED: Final = "purged"
"""State that is shown for a delivery whose event was purged."""
_SIGNIFICANT_DIGITS: Final = 5
_IS_KNOWN: Final = and_(
    operations.c.action.in_([action.value for action in BulkAction]),
    operations.c.state.in_([state.value for state in OperationState]),
)
"""Operations that can be shown. A damaged one, and one that a newer flowhooks has started, may have other words."""
_IS_KNOWN_ITEM: Final = items.c.status.in_([status.value for status in ItemStatus])

# `run-now` asks for one attempt. After it, the delivery waits for its schedule, which may take days.
_ASKED_ATTEMPT_HAS_ENDED: Final = or_(
    and_(deliveries.c.state == State.WAITING.value, deliveries.c.attempt > items.c.attempt),
    and_(deliveries.c.state == State.RUNNING.value, deliveries.c.attempt > items.c.attempt + 1),
)
IS_EXECUTING: Final = and_(
    deliveries.c.state.in_((State.WAITING.value, State.RUNNING.value)),
    or_(operations.c.action != BulkAction.RUN_NOW.value, ~_ASKED_ATTEMPT_HAS_ENDED),
)
"""Released deliveries that have no result yet, of a query that joins operations, items and deliveries."""
_IS_DONE_AT_ONCE: Final = operations.c.action.in_([action.value for action in DONE_AT_ONCE])
# The items that `Operation.remaining` counts. A delivery that runs again after the results of the operation were stored
# is no longer executed for it.
_REMAINS: Final = or_(
    items.c.status == ItemStatus.PLANNED.value,
    and_(
        items.c.status == ItemStatus.RELEASED.value,
        operations.c.succeeded.is_(None),
        ~_IS_DONE_AT_ONCE,
        IS_EXECUTING,
    ),
)
# A purged event has no delivery any more. Of an operation that has not ended, it had succeeded: see `counted_failures`.
_WITH_DELIVERIES: Final = items.join(operations, operations.c.id == items.c.operation_id).outerjoin(
    deliveries, deliveries.c.id == items.c.delivery_id
)
_RELEASED: Final = (
    select(items.c.operation_id, deliveries.c.state, case((IS_EXECUTING, 1), else_=0).label("executing"))
    .select_from(_WITH_DELIVERIES)
    .where(
        items.c.operation_id.in_(database.string_array("operation_ids")),
        items.c.status == ItemStatus.RELEASED.value,
    )
    .subquery("released_items")
)
_RESULTS: Final = select(*_RELEASED.c, func.count().label("number")).group_by(*_RELEASED.c)
_OPERATIONS_OF: Final = (
    select(items.c.delivery_id, items.c.operation_id)
    .where(
        items.c.delivery_id.in_(database.string_array("delivery_ids")),
        items.c.status == ItemStatus.RELEASED.value,
    )
    .order_by(items.c.delivery_id, items.c.operation_id.desc())
)
_COUNTED_FAILURES: Final = (
    select(items.c.delivery_id)
    .join(operations, operations.c.id == items.c.operation_id)
    .where(
        items.c.delivery_id.in_(database.string_array("delivery_ids")),
        items.c.status == ItemStatus.RELEASED.value,
        IS_OPEN_OPERATION,
        ~_IS_DONE_AT_ONCE,
    )
)
_KEY: Final = (items.c.operation_id, items.c.delivery_id)
# SKIP LOCKED: another transaction deletes the item, which then needs no result.
_RECORD_PURGED: Final = (
    update(items)
    .where(
        tuple_(*_KEY).in_(
            select(*_KEY)
            .where(
                items.c.delivery_id.in_(database.string_array("delivery_ids")),
                items.c.status == ItemStatus.RELEASED.value,
            )
            .with_for_update(skip_locked=True)
        )
    )
    .values(
        purged_state=select(deliveries.c.state).where(deliveries.c.id == items.c.delivery_id).scalar_subquery(),
    )
)


def insert_operation(transaction: WriteTransaction, operation: Operation) -> None:
    """Store an operation that is about to be planned."""
    transaction.connection.execute(
        insert(operations).values(
            id=operation.id,
            action=operation.action.value,
            event_filter=json.dumps(dict(operation.event_filter), ensure_ascii=False),
            note=operation.note,
            release_interval=to_interval(operation.rate),
            state=operation.state.value,
            actor=operation.actor,
            interface=operation.interface,
            created_at=operation.created_at,
            changed_at=operation.changed_at,
            planned=0,
            released=0,
            changed=0,
        )
    )


def change_state(
    transaction: WriteTransaction,
    operation_id: str,
    before: Collection[OperationState],
    after: OperationState,
    now: int,
    **values: Any,
) -> bool:
    """Change the state of an operation; False if it is in none of the states `before`.

    Args:
        transaction: the open transaction.
        operation_id: the operation.
        before: the states from which it may change.
        after: the new state.
        now: microseconds since 1970.
        **values: values of other columns.
    """
    changed = update(operations).where(
        operations.c.id == operation_id, operations.c.state.in_([state.value for state in before])
    )
    values = {"state": after.value, "changed_at": now, **values}
    transaction.notice.operations = True
    return bool(transaction.connection.execute(changed.values(values)).rowcount)


def set_interval(
    transaction: WriteTransaction, operation_id: str, interval: int | None, states: Collection[OperationState]
) -> bool:
    """Change the time between two deliveries of an operation; False if it is in none of the given states."""
    changed = update(operations).where(
        operations.c.id == operation_id, operations.c.state.in_([state.value for state in states])
    )
    # Deliveries that were released at the former rate do not delay the next one.
    values = {"release_interval": interval, "released_at": 0}
    transaction.notice.operations = True
    return bool(transaction.connection.execute(changed.values(values)).rowcount)


def to_interval(rate: float | None) -> int | None:
    """Return the microseconds between two deliveries at a rate per second."""
    return None if rate is None else max(1, round(SECOND / rate))


def to_rate(interval: int | None) -> float | None:
    """Return the rate per second of a time between two deliveries, without digits that rounding has caused."""
    return None if interval is None else float(f"{SECOND / max(1, interval):.{_SIGNIFICANT_DIGITS}g}")


def list_operations(
    connection: Connection, *, limit: int, before: str = "", active_only: bool = False
) -> tuple[Operation, ...]:
    """Return operations, newest first. Plans without deliveries are left out: they cannot do anything.

    Those with an action or a state that this version does not know are left out, too.

    Args:
        connection: any connection.
        limit: maximum number of operations.
        before: the id after which to continue; `""`: start with the newest.
        active_only: leave out operations that are planned and not started, cancelled or finished.
    """
    is_empty_plan = (operations.c.state == OperationState.PLANNED.value) & (operations.c.planned == 0)
    query = select(operations).where(_IS_KNOWN, ~is_empty_plan).order_by(operations.c.id.desc()).limit(limit)
    if before:
        query = query.where(operations.c.id < before)
    if active_only:
        query = query.where(IS_OPEN_OPERATION, operations.c.state.in_([state.value for state in ACTIVE_STATES]))
    return _to_operations(connection, connection.execute(query).all())


def read_operation(connection: Connection, operation_id: str) -> Operation | None:
    """Return an operation with its progress; None if there is none with this id that this version knows."""
    rows = connection.execute(select(operations).where(operations.c.id == operation_id, _IS_KNOWN)).all()
    return next(iter(_to_operations(connection, rows)), None)


def operation_items(
    connection: Connection,
    operation_id: str,
    *,
    status: ItemStatus | ItemResult | None = None,
    after: str = "",
    limit: int,
) -> tuple[OperationItem, ...]:
    """Return deliveries of an operation's plan, in the order in which they are released.

    Args:
        connection: any connection.
        operation_id: the operation.
        status: only items with this status, or with this result at present; None: all.
        after: the id of the delivery after which to continue; `""`: start with the first.
        limit: maximum number of items.
    """
    query = (
        select(items, deliveries.c.event_id, deliveries.c.handler, deliveries.c.state)
        .select_from(_WITH_DELIVERIES)
        .where(items.c.operation_id == operation_id, items.c.delivery_id > after, _IS_KNOWN_ITEM)
        .order_by(items.c.delivery_id)
        .limit(limit)
    )
    if status is ItemResult.REMAINING:
        query = query.where(_REMAINS)
    elif isinstance(status, ItemResult):
        query = query.where(items.c.status == ItemStatus.RELEASED.value, _has_result(status))
    elif status is not None:
        query = query.where(items.c.status == status.value)
    return tuple(_to_item(row) for row in connection.execute(query))


def _has_result(result: ItemResult) -> ColumnElement[bool]:
    """Return the condition that a released delivery has a result, as `count_results` counts it."""
    state = deliveries.c.state
    has_failed = items.c.purged_state.is_not(None)
    if result is ItemResult.SUCCEEDED:
        return or_(_IS_DONE_AT_ONCE, and_(state.is_(None), ~has_failed), state == State.SUCCEEDED.value)
    return and_(~_IS_DONE_AT_ONCE, or_(has_failed, and_(state != State.SUCCEEDED.value, ~IS_EXECUTING)))


def operations_of(connection: Connection, delivery_ids: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
    """Return the ids of the operations that acted on a delivery, newest first, by the delivery's id."""
    found: dict[str, list[str]] = defaultdict(list)
    for row in connection.execute(_OPERATIONS_OF, {"delivery_ids": json.dumps(list(delivery_ids))}):
        found[row.delivery_id].append(row.operation_id)
    return {delivery_id: tuple(operation_ids) for delivery_id, operation_ids in found.items()}


def count_results(connection: Connection, operation_ids: Sequence[str]) -> Mapping[str, tuple[int, int]]:
    """Return how many released deliveries of operations have succeeded and how many have failed, by operation id.

    A delivery that waits or runs is neither. For `run-now`, only the attempt that the operation asked for counts.
    """
    succeeded: dict[str, int] = defaultdict(int)
    failed: dict[str, int] = defaultdict(int)
    for row in connection.execute(_RESULTS, {"operation_ids": json.dumps(list(operation_ids))}):
        if row.state in {None, State.SUCCEEDED}:
            succeeded[row.operation_id] += row.number
        elif not row.executing:
            failed[row.operation_id] += row.number
    return {operation_id: (succeeded[operation_id], failed[operation_id]) for operation_id in operation_ids}


def counted_failures(connection: Connection, delivery_ids: Sequence[str]) -> set[str]:
    """Return which of these deliveries, all dead or closed, an operation that has not ended counts as failed."""
    if not delivery_ids:
        return set()
    return set(connection.execute(_COUNTED_FAILURES, {"delivery_ids": json.dumps(list(delivery_ids))}).scalars())


def record_purged(connection: Connection, delivery_ids: Sequence[str]) -> None:
    """Store the states of deliveries that have not succeeded and are about to be purged, for the lists of operations.

    Args:
        connection: a writing connection, whose transaction has locked the deliveries.
        delivery_ids: their ids.
    """
    if delivery_ids:
        connection.execute(_RECORD_PURGED, {"delivery_ids": json.dumps(list(delivery_ids))})


def results_of(connection: Connection, operation_id: str, action: str, released: int) -> tuple[int, int]:
    """Return how many released deliveries of one operation have succeeded, and how many have failed."""
    if action in DONE_AT_ONCE:
        return released, 0
    return count_results(connection, [operation_id])[operation_id]


def _to_operations(connection: Connection, rows: Sequence[Any]) -> tuple[Operation, ...]:
    repaired = [repair(row, list(operations.c))[0] for row in rows]
    counted = count_results(connection, [row.id for row in repaired if row.succeeded is None and _runs(row)])
    return tuple(_to_operation(row, counted) for row in repaired)


def _runs(row: Any) -> bool:
    """Tell whether the results of an operation must be counted: its deliveries run, and some were released."""
    return row.action not in DONE_AT_ONCE and row.released > 0


def _to_operation(row: Any, counted: Mapping[str, tuple[int, int]]) -> Operation:
    if row.succeeded is not None:
        succeeded, failed = row.succeeded, row.failed or 0
    elif row.action in DONE_AT_ONCE:
        succeeded, failed = row.released, 0
    else:
        succeeded, failed = counted.get(row.id, (0, 0))
    return Operation(
        id=row.id,
        action=BulkAction(row.action),
        event_filter=json.loads(row.event_filter),
        note=row.note,
        rate=to_rate(row.release_interval),
        state=OperationState(row.state),
        actor=row.actor,
        interface=row.interface,
        created_at=row.created_at,
        started_at=row.started_at,
        changed_at=row.changed_at,
        finished_at=row.finished_at,
        planned=row.planned,
        released=row.released,
        changed=row.changed,
        succeeded=succeeded,
        failed=failed,
        remaining=max(0, row.planned - row.changed - succeeded - failed),
    )


def _to_item(row: Any) -> OperationItem:
    return OperationItem(
        operation_id=row.operation_id,
        delivery_id=row.delivery_id,
        event_id=row.event_id or "",
        handler=row.handler or "",
        status=ItemStatus(row.status),
        state=row.state or PURGED,
        released_at=row.released_at,
    )
