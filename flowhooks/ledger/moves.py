"""The only place where a delivery gets or changes its state; it must not know why it does."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import BigInteger, Integer, Text, func, update

from flowhooks.delivery import ALLOWED, State
from flowhooks.errors import IllegalMove
from flowhooks.ledger import dialects
from flowhooks.ledger.tables import deliveries

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flowhooks.ledger.writer import Transaction


class Move(NamedTuple):
    """One change of state, made only if the delivery is still as the mover last saw it.

    Attributes:
        delivery_id: which delivery.
        source: the state it must be in.
        target: the state it goes to.
        attempt: the number of attempts it must have begun: a stale mover changes nothing.
        now: microseconds since 1970.
        due_at: from when it may run or be probed; None: not of itself.
        begun: the number of attempts begun afterwards; default unchanged.
        retries_from: where a fresh retry schedule starts; default unchanged.
        note: what an operator said; default unchanged.
    """

    delivery_id: str
    source: State
    target: State
    attempt: int
    now: int
    due_at: int | None = None
    begun: int | None = None
    retries_from: int | None = None
    note: str | None = None


class NewDelivery(NamedTuple):
    """A delivery that is to be stored.

    Attributes:
        delivery_id: its id.
        event_id: whose it is.
        handler: its handler's id.
        now: microseconds since 1970.
        absent: whether its handler is not loaded: it then waits without a time from which it may run.
        begun: whether its first attempt begins with the commit: it is then stored as running.
    """

    delivery_id: str
    event_id: str
    handler: str
    now: int
    absent: bool = False
    begun: bool = False


_INSERT: Final = dialects.Insertion(deliveries)
_ROWS = dialects.rows(
    "moves",
    delivery_id=Text,
    source=Text,
    target=Text,
    attempt=Integer,
    now=BigInteger,
    due_at=BigInteger,
    begun=Integer,
    retries_from=Integer,
    note=Text,
)
_MOVE: Final = (
    update(deliveries)
    .where(
        deliveries.c.id == _ROWS.c.delivery_id,
        deliveries.c.state == _ROWS.c.source,
        deliveries.c.attempt == _ROWS.c.attempt,
    )
    .values(
        state=_ROWS.c.target,
        due_at=_ROWS.c.due_at,
        changed_at=_ROWS.c.now,
        attempt=func.coalesce(_ROWS.c.begun, deliveries.c.attempt),
        retries_from=func.coalesce(_ROWS.c.retries_from, deliveries.c.retries_from),
        note=func.coalesce(_ROWS.c.note, deliveries.c.note),
    )
    .returning(deliveries.c.id, deliveries.c.event_id, deliveries.c.state)
)


def store(transaction: Transaction, new: Sequence[NewDelivery]) -> None:
    """Store deliveries, one statement for all: as waiting, or, claimed in the same breath, as running."""
    if new:
        _INSERT(
            transaction.connection,
            [
                {
                    "id": one.delivery_id,
                    "event_id": one.event_id,
                    "handler": one.handler,
                    "state": (State.RUNNING if one.begun else State.WAITING).value,
                    "attempt": int(one.begun),
                    "retries_from": 0,
                    "due_at": None if one.absent or one.begun else one.now,
                    "note": "",
                    "created_at": one.now,
                    "changed_at": one.now,
                }
                for one in new
            ],
        )


def move(transaction: Transaction, moves: Sequence[Move]) -> set[str]:
    """Change states, one statement for all.

    Args:
        transaction: the open transaction.
        moves: at most one for each delivery.

    Returns:
        The ids of the deliveries that were as their movers saw them, and so have moved.

    Raises:
        IllegalMove: the table of states lacks one of the moves; nothing is changed.
    """
    for one in moves:
        if (one.source, one.target) not in ALLOWED:
            raise IllegalMove(f"a delivery cannot go from {one.source} to {one.target}")
    if not moves:
        return set()
    # In one order, whoever moves them: two processes that hold each other's next row would wait in vain.
    moved = transaction.connection.execute(_MOVE, {"moves": json.dumps(sorted(moves))}).all()
    # Nobody waits for an attempt to begin.
    transaction.news.events.update(row.event_id for row in moved if row.state != State.RUNNING.value)
    return {row.id for row in moved}


def postpone(transaction: Transaction, delivery_id: str, due_at: int) -> None:
    """Ask the probe of an *unknown* delivery again at `due_at` (microseconds since 1970); changes no state."""
    unknown = (deliveries.c.id == delivery_id) & (deliveries.c.state == State.UNKNOWN.value)
    transaction.connection.execute(update(deliveries).where(unknown).values(due_at=due_at))
