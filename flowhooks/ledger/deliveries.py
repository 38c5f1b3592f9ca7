"""The only place where a delivery gets or changes its state."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import BigInteger, Integer, Text, case, func, update

from flowhooks.errors import InvalidTransition
from flowhooks.ledger import database
from flowhooks.ledger.pauses import NOT_PAUSED
from flowhooks.ledger.tables import deliveries
from flowhooks.ledger.transaction import OrderGroup
from flowhooks.model.delivery import ALLOWED_TRANSITIONS, ReadyDelivery, State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Row
    from sqlalchemy.sql.dml import ReturningUpdate

    from flowhooks.ledger.transaction import WriteTransaction


class ClaimRequest(NamedTuple):
    """A wish to begin an attempt.

    Attributes:
        queued: the delivery, as its runner knew it.
        now: microseconds since 1970.
        limit: how many of its handler's deliveries may run at once; None: any number.
    """

    queued: ReadyDelivery
    now: int
    limit: int | None = None


class StateChange(NamedTuple):
    """One change of state, made only if the delivery is still as the mover last saw it.

    Attributes:
        delivery_id: which delivery.
        source: the state it must be in.
        target: the state it goes to.
        attempt: the number of attempts it must have begun: a stale mover changes nothing.
        now: microseconds since 1970.
        due_at: from when it may run or be probed; None: not of itself.
        attempt_after: the number of attempts begun afterwards; default unchanged.
        retry_base: where a fresh retry schedule starts; default unchanged.
        comment: what an operator said; default unchanged.
    """

    delivery_id: str
    source: State
    target: State
    attempt: int
    now: int
    due_at: int | None = None
    attempt_after: int | None = None
    retry_base: int | None = None
    comment: str | None = None


class NewDelivery(NamedTuple):
    """A delivery that is to be stored.

    Attributes:
        delivery_id: its id.
        event_id: whose it is.
        handler: its handler's id.
        now: microseconds since 1970.
        handler_missing: whether its handler is not loaded: it then waits without a time from which it may run.
        started: whether its first attempt begins with the commit: it is then stored as running.
        position: its position in its order group; None: it is unordered.
    """

    delivery_id: str
    event_id: str
    handler: str
    now: int
    handler_missing: bool = False
    started: bool = False
    position: Position | None = None


class Position(NamedTuple):
    """A delivery's position in its order group.

    Attributes:
        group: which one.
        number: the lowest is the next to begin; of equal ones the older delivery.
    """

    group: OrderGroup
    number: int


STARTED: Final = -1
"""The order position of one that has begun: until it has left its order group, none comes before it, not even while it
waits for its retry."""
NEXT: Final = 0
"""The order position of one that may begin: none was before it when that was written. Blocked ones have higher ones."""
_LEFT_GROUP: Final = frozenset({State.SUCCEEDED.value, State.DEAD.value, State.CLOSED.value})
"""The states in which a delivery has left its order group."""

_INSERT: Final = database.BulkInsert(deliveries)
_CHANGES = database.row_array(
    "moves",
    delivery_id=Text,
    source=Text,
    target=Text,
    attempt=Integer,
    now=BigInteger,
    due_at=BigInteger,
    begun=Integer,
    retry_base=Integer,
    comment=Text,
)
_APPLY: Final = (
    update(deliveries)
    .where(
        deliveries.c.id == _CHANGES.c.delivery_id,
        deliveries.c.state == _CHANGES.c.source,
        deliveries.c.attempt == _CHANGES.c.attempt,
    )
    .values(
        state=_CHANGES.c.target,
        due_at=_CHANGES.c.due_at,
        changed_at=_CHANGES.c.now,
        attempt=func.coalesce(_CHANGES.c.begun, deliveries.c.attempt),
        retry_base=func.coalesce(_CHANGES.c.retry_base, deliveries.c.retry_base),
        comment=func.coalesce(_CHANGES.c.comment, deliveries.c.comment),
    )
    .returning(deliveries.c.id, deliveries.c.event_id, deliveries.c.state, deliveries.c.handler, deliveries.c.order_key)
)


class ClaimStatements(NamedTuple):
    """The statements by which attempts begin.

    Attributes:
        unordered: begins what is unordered, and nothing else, whatever its runner takes it for.
        ordered: begins what has been found to be the first of its order group, or unordered.
    """

    unordered: ReturningUpdate[Any]
    ordered: ReturningUpdate[Any]


_UNORDERED: Final = _APPLY.where(deliveries.c.order_key.is_(None))
_ORDERED: Final = _APPLY.values(
    order_position=case((deliveries.c.order_key.is_(None), deliveries.c.order_position), else_=STARTED)
)
CLAIM: Final = ClaimStatements(unordered=_UNORDERED.where(NOT_PAUSED), ordered=_ORDERED.where(NOT_PAUSED))
"""Of handlers that are not paused."""
CLAIM_TRIAL: Final = ClaimStatements(unordered=_UNORDERED, ordered=_ORDERED)
"""Of one that is paused for having failed, and is tried."""


def store(transaction: WriteTransaction, new: Sequence[NewDelivery]) -> None:
    """Store deliveries, one statement for all: as waiting, or, claimed in the same breath, as running."""
    if new:
        _INSERT(transaction.connection, [_row(delivery) for delivery in new])


def _row(delivery: NewDelivery) -> dict[str, object]:
    position = delivery.position
    return {
        "id": delivery.delivery_id,
        "event_id": delivery.event_id,
        "handler": delivery.handler,
        "state": (State.RUNNING if delivery.started else State.WAITING).value,
        "attempt": int(delivery.started),
        "retry_base": 0,
        "due_at": None if delivery.handler_missing or delivery.started else delivery.now,
        "comment": "",
        "created_at": delivery.now,
        "changed_at": delivery.now,
        "order_key": None if position is None else position.group.key,
        "order_position": NEXT if position is None else STARTED if delivery.started else position.number,
    }


def apply_changes(transaction: WriteTransaction, changes: Sequence[StateChange]) -> set[str]:
    """Change states, one statement for all; the ids of the deliveries that have moved. See `made`."""
    return {row.id for row in apply_changes_returning(transaction, changes)}


def apply_changes_returning(
    transaction: WriteTransaction, changes: Sequence[StateChange], statement: ReturningUpdate[Any] = _APPLY
) -> Sequence[Row[Any]]:
    """Change states, one statement for all.

    Args:
        transaction: the open transaction.
        changes: at most one for each delivery.
        statement: the statement: for attempts that begin, one of those above.

    Returns:
        The deliveries that were as their movers saw them, and so have moved: `id`, `handler`, `order_key`.

    Raises:
        InvalidTransition: the table of states lacks one of the moves; nothing is changed.
    """
    for change in changes:
        if (change.source, change.target) not in ALLOWED_TRANSITIONS:
            raise InvalidTransition(f"a delivery cannot go from {change.source} to {change.target}")
    if not changes:
        return ()
    # In one order, whoever moves them: two processes that hold each other's next row would wait in vain.
    applied: Sequence[Row[Any]] = transaction.connection.execute(
        statement, {"moves": json.dumps(sorted(changes))}
    ).all()
    # Nobody waits for an attempt to begin.
    transaction.notice.events.update(row.event_id for row in applied if row.state != State.RUNNING.value)
    transaction.freed_groups.update(
        OrderGroup(row.handler, row.order_key)
        for row in applied
        if row.order_key is not None and row.state in _LEFT_GROUP
    )
    return applied


def defer_probe(transaction: WriteTransaction, delivery_id: str, *, now: int, until: int) -> bool:
    """Put off the probe of an *unknown* delivery, if it is due and its handler not paused; changes no state.

    Args:
        transaction: the open transaction.
        delivery_id: the delivery.
        now: microseconds since 1970.
        until: when it will be due again.

    Returns:
        Whether that is so: of several who would ask the probe, who was told so may.
    """
    due = (deliveries.c.id == delivery_id) & (deliveries.c.state == State.UNKNOWN.value) & (deliveries.c.due_at <= now)
    put_off = update(deliveries).where(due, NOT_PAUSED).values(due_at=until).returning(deliveries.c.id)
    return transaction.connection.execute(put_off).first() is not None


def suspend(transaction: WriteTransaction, delivery_id: str, attempt: int, *, comment: str, now: int) -> bool:
    """Leave a waiting delivery without a time, so that it is not offered to runners; changes no state.

    Args:
        transaction: the open transaction.
        delivery_id: the delivery.
        attempt: how many attempts it must have begun.
        comment: why.
        now: microseconds since 1970.

    Returns:
        Whether it was still waiting, as it was last seen.
    """
    suspended = (
        update(deliveries)
        .where(
            deliveries.c.id == delivery_id,
            deliveries.c.state == State.WAITING.value,
            deliveries.c.attempt == attempt,
            deliveries.c.due_at.is_not(None),
        )
        .values(due_at=None, comment=comment, changed_at=now)
        .returning(deliveries.c.event_id)
    )
    event_id = transaction.connection.execute(suspended).scalar()
    if event_id is not None:
        transaction.notice.events.add(event_id)
    return event_id is not None
