"""Creation and state changes of deliveries. No other module writes the state of a delivery."""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import BigInteger, Integer, Text, bindparam, case, func, null, update

from flowhooks.errors import InvalidTransition
from flowhooks.ledger import database
from flowhooks.ledger.pauses import NOT_PAUSED
from flowhooks.ledger.tables import deliveries
from flowhooks.ledger.transaction import OrderGroup
from flowhooks.model.delivery import ALLOWED_TRANSITIONS, State, Trigger

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Row

    from flowhooks.ledger.start_limits import StartLimits
    from flowhooks.ledger.transaction import WriteTransaction
    from flowhooks.model.ready_delivery import ReadyDelivery


class ClaimRequest(NamedTuple):
    """A request to start an attempt.

    Attributes:
        queued: the delivery, as its runner last saw it.
        now: microseconds since 1970.
        limits: the limits of its handler; None: it has none.
    """

    queued: ReadyDelivery
    now: int
    limits: StartLimits | None = None


class StateChange(NamedTuple):
    """A change of state that is applied only if the delivery is still as the caller last saw it.

    Attributes:
        delivery_id: the delivery.
        source: the expected state.
        target: the new state.
        attempt: the expected number of started attempts; if it differs, nothing is changed.
        now: microseconds since 1970.
        due_at: from when the delivery may run or be probed, in microseconds since 1970; None: it is not scheduled.
        attempt_after: the number of started attempts after the change; default: unchanged.
        retry_base: the number of attempts made before a new retry schedule starts; default: unchanged.
        comment: the new comment, such as an operator's; default: unchanged.
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
    """A delivery to be stored.

    Attributes:
        delivery_id: its id.
        event_id: the id of its event.
        handler: its handler's id.
        now: microseconds since 1970.
        handler_missing: whether its handler is not loaded: it is then stored without a due time.
        started: whether its first attempt starts with the commit: it is then stored as *running*.
        position: its position in its order group; None if it is unordered.
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
        group: the order group.
        number: the delivery with the lowest number starts next; of equal numbers, the older delivery.
    """

    group: OrderGroup
    number: int


STARTED: Final = -1
"""Order position of a delivery whose first attempt has started. It stays first until it leaves its order group, also
while it waits for a retry."""
NEXT: Final = 0
"""Order position of a delivery that may start: none was before it when the position was written. Blocked deliveries
have higher positions."""
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
# The next change clears an operator's request. The claim does not: it copies the request into the attempt, and no
# database returns the values from before an UPDATE. So the request is cleared when the attempt ends.
_APPLY_AND_CLEAR: Final = _APPLY.values(next_trigger=null(), next_actor=null(), operation_id=null())
_APPLY_ALONE: Final = database.DriverStatement(_APPLY_AND_CLEAR)
IF_SUSPENDED: Final = database.DriverStatement(_APPLY_AND_CLEAR.where(deliveries.c.due_at.is_(None)))
"""Changes only deliveries that have no due time. The start of a server with their handler gives them one."""
REQUEUE: Final = database.DriverStatement(
    _APPLY.values(
        next_trigger=bindparam("next_trigger", type_=Text),
        next_actor=bindparam("next_actor", type_=Text),
        operation_id=bindparam("operation", type_=Text),
    )
)
"""Also stores why the next attempts start; the parameters are `next_trigger`, `next_actor` and `operation`."""


class ClaimStatements(NamedTuple):
    """The statements that start attempts.

    Attributes:
        unordered: starts only deliveries that are unordered in the database, even if the runner took another one for
            unordered.
        ordered: starts deliveries that were found to be first of their order group, or unordered.
        trigger: why the attempts start, unless an operator asked for them; None: they are first attempts and retries.
    """

    unordered: database.DriverStatement
    ordered: database.DriverStatement
    trigger: Trigger | None = None


_CLAIM: Final = _APPLY.returning(deliveries.c.next_trigger, deliveries.c.next_actor, deliveries.c.operation_id)
_UNORDERED: Final = _CLAIM.where(deliveries.c.order_key.is_(None))
_ORDERED: Final = _CLAIM.values(
    order_position=case((deliveries.c.order_key.is_(None), deliveries.c.order_position), else_=STARTED)
)
CLAIM: Final = ClaimStatements(
    unordered=database.DriverStatement(_UNORDERED.where(NOT_PAUSED)),
    ordered=database.DriverStatement(_ORDERED.where(NOT_PAUSED)),
)
"""Statements for handlers that are not paused."""
CLAIM_TRIAL: Final = ClaimStatements(
    unordered=database.DriverStatement(_UNORDERED),
    ordered=database.DriverStatement(_ORDERED),
    trigger=Trigger.TRIAL,
)
"""Statements for a trial of a handler that is paused by its open circuit."""


def store(transaction: WriteTransaction, new: Sequence[NewDelivery]) -> None:
    """Store deliveries with one statement: as *waiting*, or as *running* if they are claimed at once."""
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
    """Change states with one statement; return the ids of the changed deliveries."""
    return {row.id for row in apply_changes_returning(transaction, changes)}


def apply_changes_returning(
    transaction: WriteTransaction,
    changes: Sequence[StateChange],
    statement: database.DriverStatement = _APPLY_ALONE,
    parameters: Mapping[str, Any] = MappingProxyType({}),
) -> Sequence[Row[Any]]:
    """Change states with one statement.

    Args:
        transaction: the open transaction.
        changes: at most one for each delivery.
        statement: the UPDATE: to start attempts, one of a `ClaimStatements`; or `IF_SUSPENDED`, or `REQUEUE`.
        parameters: further parameters of the statement.

    Returns:
        The rows of the changed deliveries: `id`, `event_id`, `state`, `handler`, `order_key`. Those of started attempts
        also have `next_trigger`, `next_actor` and `operation_id`.

    Raises:
        InvalidTransition: one of the changes is not in `ALLOWED_TRANSITIONS`; nothing is changed.
    """
    for change in changes:
        if (change.source, change.target) not in ALLOWED_TRANSITIONS:
            raise InvalidTransition(f"a delivery cannot change from {change.source} to {change.target}")
    if not changes:
        return ()
    # Sorted, so that two processes lock the same rows in the same order and do not deadlock.
    applied: Sequence[Row[Any]] = statement(
        transaction.connection, {"moves": json.dumps(sorted(changes)), **parameters}
    )
    for row in applied:
        if row.state != State.RUNNING:  # no client waits for an attempt to start
            transaction.notice.events.add(row.event_id)
        if row.order_key is not None and row.state in _LEFT_GROUP:
            transaction.freed_groups.add(OrderGroup(row.handler, row.order_key))
    return applied


def defer_probe(transaction: WriteTransaction, delivery_id: str, *, now: int, until: int) -> bool:
    """Postpone the probe of an *unknown* delivery if it is due and its handler is not paused; changes no state.

    Args:
        transaction: the open transaction.
        delivery_id: the delivery.
        now: microseconds since 1970.
        until: when the probe is due again, in microseconds since 1970.

    Returns:
        Whether the probe was postponed. Of several callers at once, only the one that gets True may run the probe.
    """
    due = (deliveries.c.id == delivery_id) & (deliveries.c.state == State.UNKNOWN.value) & (deliveries.c.due_at <= now)
    put_off = update(deliveries).where(due, NOT_PAUSED).values(due_at=until).returning(deliveries.c.id)
    return transaction.connection.execute(put_off).first() is not None


def suspend(transaction: WriteTransaction, delivery_id: str, attempt: int, *, comment: str, now: int) -> bool:
    """Suspend a waiting delivery: clear its due time, so that no runner gets it. Its state does not change.

    Args:
        transaction: the open transaction.
        delivery_id: the delivery.
        attempt: the expected number of started attempts.
        comment: the reason.
        now: microseconds since 1970.

    Returns:
        Whether the delivery was suspended; False if it has changed since it was read, or had no due time.
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
