"""Release of the deliveries of bulk operations: each item and its delivery change in one transaction.

Theory of operation
-------------------
One process of those that share the ledger has the *lease* of an operation, by the database's clock. The transaction
that releases deliveries takes or renews the lease first, which locks the operation's row until its end. So no two
processes release items of one operation at once, also if both believe that they have the lease, and a pause takes
effect before or after a whole transaction.

An item is acted on once, because its status changes in the same transaction as its delivery. It is acted on only if
the delivery is in the state, and has the number of attempts, that it had when it was planned: the UPDATE of the
delivery has these conditions, and an attempt's number never returns. Otherwise the item counts as *changed*.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import BigInteger, bindparam, exists, or_, select, update

from flowhooks.clock import SECOND
from flowhooks.failpoints import hit
from flowhooks.ledger import database
from flowhooks.ledger.bulk_operations import DONE_AT_ONCE, IS_EXECUTING
from flowhooks.ledger.deliveries import IF_SUSPENDED, StateChange, apply_changes, apply_changes_returning
from flowhooks.ledger.queries import SUSPENDED, DeliveryStatus
from flowhooks.ledger.requeue import RequeueOptions, requeue, run_now
from flowhooks.ledger.tables import (
    IS_OPEN_OPERATION,
    IS_PLANNED_ITEM,
    deliveries,
    operation_items,
    operations,
    processes,
)
from flowhooks.model.bulk_operation import BulkAction, ItemStatus, OperationState
from flowhooks.model.delivery import State, Trigger

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy import Connection

    from flowhooks.ledger.delivery_queue import DeliveryQueue
    from flowhooks.ledger.transaction import WriteTransaction

MAX_RELEASED: Final = 100
"""Maximum number of deliveries that one transaction releases."""
LEASE_SECONDS: Final = 15.0
"""Seconds after which another process may take the lease of an operation that was not renewed."""
RELEASE_INTERVAL: Final = SECOND // 10
"""Microseconds between two releases of an operation with a rate: with a high rate, one transaction releases several
deliveries. Each transaction delays the callbacks that wait to be stored."""
CATCH_UP: Final = SECOND // 4
"""Microseconds of its rate that an operation may make up for after a delay, such as a busy database."""
_COMMENTS: Final = {
    BulkAction.MARK_DONE: "resolved by an operator: did",
    BulkAction.MARK_NOT_DONE: "resolved by an operator: did-not",
    BulkAction.CLOSE: "closed by an operator",
}
"""Comments of deliveries, unless the operation has a note."""
_REQUEUED: Final = {
    BulkAction.REPLAY: Trigger.REPLAY,
    BulkAction.RERUN: Trigger.REPLAY,
    BulkAction.MARK_NOT_DONE: Trigger.RESOLVED,
}
"""Actions after which a delivery waits again, and why its next attempt then starts."""

_IS_ALIVE: Final = exists().where(processes.c.id == operations.c.process, processes.c.stopped_at.is_(None))
_OPEN: Final = (
    select(
        operations.c.id,
        operations.c.action,
        operations.c.state,
        operations.c.planned,
        operations.c.released,
        operations.c.changed,
    )
    .where(IS_OPEN_OPERATION, operations.c.state.in_((OperationState.RUNNING.value, OperationState.CANCELLED.value)))
    .order_by(operations.c.id)
)
_TAKE_LEASE: Final = database.DriverStatement(
    update(operations)
    .where(
        operations.c.id == bindparam("operation_id"),
        operations.c.state == OperationState.RUNNING.value,
        or_(
            operations.c.process.in_(("", bindparam("whose"))),
            operations.c.process_until < database.Now(),
            ~_IS_ALIVE,
        ),
    )
    .values(process=bindparam("whose"), process_until=database.Now() + int(LEASE_SECONDS * SECOND))
    .returning(operations)
)
_NEXT_ITEMS: Final = (
    select(
        operation_items.c.delivery_id,
        operation_items.c.planned_state,
        operation_items.c.attempt.label("planned_attempt"),
        deliveries.c.state,
        deliveries.c.attempt,
        deliveries.c.handler,
        deliveries.c.due_at,
        deliveries.c.order_key,
    )
    .select_from(operation_items.outerjoin(deliveries, deliveries.c.id == operation_items.c.delivery_id))
    .where(operation_items.c.operation_id == bindparam("operation_id"), IS_PLANNED_ITEM)
    .order_by(operation_items.c.delivery_id)
    .limit(bindparam("most"))
)
_SET_STATUS: Final = database.DriverStatement(
    update(operation_items)
    .where(
        operation_items.c.operation_id == bindparam("whose"),
        operation_items.c.delivery_id.in_(database.string_array("delivery_ids")),
    )
    .values(status=bindparam("reached"), released_at=bindparam("at", type_=BigInteger))
)
_COUNT: Final = database.DriverStatement(
    update(operations)
    .where(operations.c.id == bindparam("operation_id"))
    .values(
        released=operations.c.released + bindparam("more_released"),
        changed=operations.c.changed + bindparam("more_changed"),
        released_at=bindparam("used_until"),
    )
)
_IS_EXECUTING: Final = (
    select(operation_items.c.delivery_id)
    .join(operations, operations.c.id == operation_items.c.operation_id)
    .join(deliveries, deliveries.c.id == operation_items.c.delivery_id)
    .where(
        operation_items.c.operation_id == bindparam("operation_id"),
        operation_items.c.status == ItemStatus.RELEASED.value,
        IS_EXECUTING,
    )
    .limit(1)
)


class Release(NamedTuple):
    """A request to release the next deliveries of an operation.

    Attributes:
        operation_id: the operation.
        process: id of the process that asks for its lease.
        now: microseconds since 1970.
        missing_handlers: ids of handlers that are not loaded: their deliveries are suspended.
    """

    operation_id: str
    process: str
    now: int
    missing_handlers: Collection[str] = ()


class Released(NamedTuple):
    """The result of a release.

    Attributes:
        released: number of deliveries that were acted on.
        changed: number of deliveries that were left alone, because they had changed since the plan.
        next_at: from when the next ones may be released, in microseconds since 1970.
        is_last: whether no planned delivery is left.
    """

    released: int
    changed: int
    next_at: int
    is_last: bool


class OpenOperation(NamedTuple):
    """An operation that releases deliveries, or of which released ones may not have been executed yet.

    Attributes:
        id: its id.
        action: what it does with each delivery: a `BulkAction`, unless a newer version of flowhooks has started it.
        state: `running` or `cancelled`.
        planned: number of deliveries of its plan.
        released: number of deliveries that it has acted on.
        changed: number of deliveries that had changed since the plan.
    """

    id: str
    action: str
    state: OperationState
    planned: int
    released: int
    changed: int

    @property
    def is_released(self) -> bool:
        """Whether it releases no further delivery."""
        return self.state is OperationState.CANCELLED or self.released + self.changed >= self.planned


def open_operations(connection: Connection) -> list[OpenOperation]:
    """Return the operations that have work to do, oldest first."""
    return [
        OpenOperation(row.id, row.action, OperationState(row.state), row.planned, row.released, row.changed)
        for row in connection.execute(_OPEN)
    ]


def release(transaction: WriteTransaction, request: Release, *, runner: DeliveryQueue) -> Released | None:
    """Act on the next deliveries of an operation, as many as its rate allows.

    Args:
        transaction: the open transaction.
        request: the request.
        runner: receives, within the transaction, the deliveries that may run.

    Returns:
        The numbers. None if the operation does not run, or another live process has its lease.
    """
    connection, now = transaction.connection, request.now
    of_operation = {"operation_id": request.operation_id}
    operation = next(iter(_TAKE_LEASE(connection, of_operation | {"whose": request.process})), None)
    if operation is None:
        return None
    number, used_until = allowed(operation.release_interval, operation.released_at, now)
    if number == 0:
        return Released(0, 0, used_until, is_last=False)
    rows = connection.execute(_NEXT_ITEMS, of_operation | {"most": number}).all()
    as_planned = [row for row in rows if (row.state, row.attempt) == (row.planned_state, row.planned_attempt)]
    acted = _act(transaction, operation, as_planned, request, runner) if as_planned else set()
    others = {row.delivery_id for row in rows} - acted
    for delivery_ids, reached, at in ((acted, ItemStatus.RELEASED, now), (others, ItemStatus.CHANGED, None)):
        if delivery_ids:
            values = {"whose": operation.id, "delivery_ids": json.dumps(sorted(delivery_ids))}
            _SET_STATUS(connection, values | {"reached": reached.value, "at": at})
    next_at = 0
    if operation.release_interval is not None:
        # A delivery that was left alone does not count.
        used_until -= (number - len(acted)) * operation.release_interval
        next_at = used_until if number == MAX_RELEASED else max(used_until, now + RELEASE_INTERVAL)
    if rows:
        counts = {"more_released": len(acted), "more_changed": len(others), "used_until": max(0, used_until)}
        _COUNT(connection, of_operation | counts)
        hit("operation.release_written")
    return Released(len(acted), len(others), next_at, is_last=len(rows) < number)


def allowed(interval: int | None, used_until: int, now: int) -> tuple[int, int]:
    """Return how many deliveries may be released now, and until when the rate is used up by them.

    Args:
        interval: microseconds between two deliveries; None: no limit.
        used_until: until when the rate was used up before, in microseconds since 1970.
        now: microseconds since 1970.
    """
    if interval is None:
        return MAX_RELEASED, 0
    # After a jump of the clock to the past, the operation does not wait until the former time.
    used_until = min(used_until, now + MAX_RELEASED * interval)
    if used_until > now:
        return 0, used_until
    start = max(used_until, now - CATCH_UP)
    number = min(MAX_RELEASED, 1 + (now - start) // interval)
    return number, start + number * interval


def _act(
    transaction: WriteTransaction, operation: Any, rows: Sequence[Any], request: Release, runner: DeliveryQueue
) -> set[str]:
    """Act on deliveries; return the ids of the ones that were still as planned."""
    action, now = BulkAction(operation.action), request.now
    comment = operation.note or _COMMENTS.get(action)
    if action is BulkAction.RUN_NOW:
        found = [(row.delivery_id, row.attempt) for row in rows]
        options = RequeueOptions(now, Trigger.RUN_NOW, operation.actor, operation.id)
        return run_now(transaction, found, options, runner=runner)
    if action in _REQUEUED:
        options = RequeueOptions(
            now,
            _REQUEUED[action],
            operation.actor,
            operation.id,
            missing_handlers=request.missing_handlers,
            reset_retries=True,
            comment=comment,
        )
        return requeue(transaction, [_to_status(row) for row in rows], options, runner=runner)
    target = State.CLOSED if action is BulkAction.CLOSE else State.SUCCEEDED
    changes = [
        StateChange(row.delivery_id, State(row.state), target, row.attempt, now, comment=comment) for row in rows
    ]
    if json.loads(operation.event_filter).get("state") == SUSPENDED:
        return {row.id for row in apply_changes_returning(transaction, changes, IF_SUSPENDED)}
    return apply_changes(transaction, changes)


def _to_status(row: Any) -> DeliveryStatus:
    return DeliveryStatus(
        delivery_id=row.delivery_id,
        handler=row.handler,
        state=State(row.state),
        attempt=row.attempt,
        due_at=row.due_at,
        ordered=row.order_key is not None,
    )


def is_executing(connection: Connection, operation: OpenOperation) -> bool:
    """Return whether a released delivery of an operation has no result yet: it waits or runs."""
    if operation.action in DONE_AT_ONCE:
        return False
    return connection.execute(_IS_EXECUTING, {"operation_id": operation.id}).first() is not None


def finish(transaction: WriteTransaction, operation: OpenOperation, results: tuple[int, int], now: int) -> bool:
    """Store the results of an operation whose released deliveries were all executed; False if they are stored.

    Args:
        transaction: the open transaction.
        operation: the operation.
        results: how many of its deliveries have succeeded, and how many have failed.
        now: microseconds since 1970.
    """
    succeeded, failed = results
    values: dict[str, Any] = {"succeeded": succeeded, "failed": failed, "process": "", "process_until": 0}
    if operation.state is OperationState.RUNNING:
        values |= {"state": OperationState.FINISHED.value, "changed_at": now, "finished_at": now}
    finished = update(operations).where(
        operations.c.id == operation.id,
        operations.c.state == operation.state.value,
        operations.c.released == operation.released,
        operations.c.changed == operation.changed,
        operations.c.succeeded.is_(None),
    )
    stored = bool(transaction.connection.execute(finished.values(values)).rowcount)
    hit("operation.finish_written")
    return stored


def give_up_leases(transaction: WriteTransaction, process: str) -> None:
    """Let other processes continue at once with the operations of this process, which stops."""
    owned = update(operations).where(IS_OPEN_OPERATION, operations.c.process == process)
    transaction.connection.execute(owned.values(process="", process_until=0))
