"""Deliveries that run again on request of an operator or a repeated callback."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import BigInteger, Integer, Text, bindparam, update

from flowhooks.ledger import database
from flowhooks.ledger.deliveries import NEXT, REQUEUE, StateChange, apply_changes_returning
from flowhooks.ledger.due_deliveries import READY_COLUMNS, to_ready_delivery
from flowhooks.ledger.ordering import requeue_last
from flowhooks.ledger.tables import IS_SCHEDULED, IS_WAITING, deliveries
from flowhooks.model.delivery import State, Trigger
from flowhooks.model.ready_delivery import ReadyDelivery

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from flowhooks.ledger.delivery_queue import DeliveryQueue
    from flowhooks.ledger.queries import DeliveryStatus
    from flowhooks.ledger.transaction import WriteTransaction

OUT_OF_ORDER_NOTE: Final = "run again out of order: after the waiting deliveries with the same order key"
"""Comment of an ordered delivery that had left its order group and runs again, unless an operator gave another one."""

_SCHEDULED = database.row_array("scheduled", delivery_id=Text, attempt=Integer)
_NOW: Final = bindparam("now", type_=BigInteger)
_MAKE_DUE: Final = (
    update(deliveries)
    .where(
        deliveries.c.id == _SCHEDULED.c.delivery_id,
        deliveries.c.attempt == _SCHEDULED.c.attempt,
        IS_WAITING,
        IS_SCHEDULED,
        deliveries.c.due_at > _NOW,
    )
    .values(
        due_at=_NOW,
        changed_at=_NOW,
        next_trigger=Trigger.RUN_NOW.value,
        next_actor=bindparam("actor", type_=Text),
        operation_id=bindparam("operation", type_=Text),
    )
    .returning(*READY_COLUMNS)
)


class RequeueOptions(NamedTuple):
    """How deliveries are to run again.

    Attributes:
        now: microseconds since 1970.
        trigger: why their next attempts start.
        actor: the operator who asked for it; None: no operator did.
        operation_id: the bulk operation that asked for it; None: none did.
        missing_handlers: ids of handlers that are not loaded: their deliveries are suspended.
        reset_retries: whether their retry schedules start again; otherwise they get one more attempt.
        comment: the operator's comment.
    """

    now: int
    trigger: Trigger
    actor: str | None = None
    operation_id: str | None = None
    missing_handlers: Collection[str] = ()
    reset_retries: bool = False
    comment: str | None = None


def requeue(
    transaction: WriteTransaction,
    delivery_statuses: Sequence[DeliveryStatus],
    options: RequeueOptions,
    *,
    runner: DeliveryQueue,
) -> set[str]:
    """Make deliveries wait again, if they are still as they were read.

    An ordered delivery that had left its order group is put behind all deliveries of that group.

    Args:
        transaction: the open transaction.
        delivery_statuses: the deliveries, as last read.
        options: how they run again.
        runner: receives, within the transaction, the deliveries that may run.

    Returns:
        The ids of the deliveries that now wait.

    Raises:
        InvalidTransition: a delivery is in a state from which it cannot run again.
    """
    positions = requeue_last(transaction, [status.delivery_id for status in delivery_statuses if status.ordered])
    rows = apply_changes_returning(
        transaction,
        [
            StateChange(
                status.delivery_id,
                status.state,
                State.WAITING,
                status.attempt,
                options.now,
                due_at=None if status.handler in options.missing_handlers else options.now,
                retry_base=status.attempt if options.reset_retries else None,
                comment=options.comment or (OUT_OF_ORDER_NOTE if status.delivery_id in positions else None),
            )
            for status in delivery_statuses
        ],
        REQUEUE,
        {"next_trigger": options.trigger.value, "next_actor": options.actor, "operation": options.operation_id},
    )
    moved = {row.id for row in rows}
    queued = [
        ReadyDelivery(status.delivery_id, status.handler, status.attempt, ordered=status.ordered)
        for status in delivery_statuses
        if status.delivery_id in moved
        and status.handler not in options.missing_handlers
        and (status.delivery_id not in positions or positions[status.delivery_id].number == NEXT)
    ]
    if queued:
        runner.enqueue(transaction, queued, options.now)
    return moved


def run_now(
    transaction: WriteTransaction,
    delivery_attempts: Sequence[tuple[str, int]],
    options: RequeueOptions,
    *,
    runner: DeliveryQueue,
) -> set[str]:
    """Make waiting deliveries due now that are due later and not blocked; their state does not change.

    Args:
        transaction: the open transaction.
        delivery_attempts: ids of the deliveries, each with its number of started attempts, as last read.
        options: who asks for it.
        runner: receives, within the transaction, the deliveries.

    Returns:
        The ids of the deliveries that are due now; the others have changed since they were read.
    """
    parameters = {"now": options.now, "actor": options.actor, "operation": options.operation_id}
    scheduled = json.dumps(sorted(delivery_attempts))
    rows = transaction.connection.execute(_MAKE_DUE, parameters | {"scheduled": scheduled}).all()
    if rows:
        runner.enqueue(transaction, [to_ready_delivery(row) for row in rows], options.now)
    return {row.id for row in rows}
