"""The only place where a delivery gets or changes its state; it must not know why it does."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import BigInteger, Integer, Text, case, func, update

from flowhooks.errors import IllegalMove
from flowhooks.ledger import database
from flowhooks.ledger.pauses import NOT_PAUSED
from flowhooks.ledger.tables import deliveries
from flowhooks.model.delivery import ALLOWED, State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Row
    from sqlalchemy.sql.dml import ReturningUpdate

    from flowhooks.ledger.group_commit import Transaction


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
        place: its place in its lane; None: it is unordered.
    """

    delivery_id: str
    event_id: str
    handler: str
    now: int
    absent: bool = False
    begun: bool = False
    place: Place | None = None


class Lane(NamedTuple):
    """The deliveries of one handler with one order key, which run one at a time.

    Attributes:
        handler: the handler's id.
        key: the order key.
    """

    handler: str
    key: str


class Place(NamedTuple):
    """A delivery's place in its lane.

    Attributes:
        lane: which one.
        turn: the lowest is the next to begin; of equal ones the older delivery.
    """

    lane: Lane
    turn: int


BEGUN: Final = -1
"""The turn of one that has begun: until it has left its lane, none comes before it, be it waiting for its retry."""
NEXT: Final = 0
"""The turn of one that may begin: none was before it when that was said. What is held back has higher ones."""
_GONE: Final = frozenset({State.SUCCEEDED.value, State.DEAD.value, State.CLOSED.value})
"""The states in which a delivery has left its lane."""

_INSERT: Final = database.Insertion(deliveries)
_ROWS = database.rows(
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
    .returning(deliveries.c.id, deliveries.c.event_id, deliveries.c.state, deliveries.c.handler, deliveries.c.lane)
)


class Beginnings(NamedTuple):
    """The statements by which attempts begin.

    Attributes:
        freely: begins what is unordered, and nothing else, whatever its runner takes it for.
        in_turn: begins what has been found to be the first of its lane, or unordered.
    """

    freely: ReturningUpdate[Any]
    in_turn: ReturningUpdate[Any]


_FREELY: Final = _MOVE.where(deliveries.c.lane.is_(None))
_IN_TURN: Final = _MOVE.values(turn=case((deliveries.c.lane.is_(None), deliveries.c.turn), else_=BEGUN))
BEGIN: Final = Beginnings(freely=_FREELY.where(NOT_PAUSED), in_turn=_IN_TURN.where(NOT_PAUSED))
"""Of handlers that are not paused."""
TRY_OUT: Final = Beginnings(freely=_FREELY, in_turn=_IN_TURN)
"""Of one that is paused for having failed, and is tried."""


def store(transaction: Transaction, new: Sequence[NewDelivery]) -> None:
    """Store deliveries, one statement for all: as waiting, or, claimed in the same breath, as running."""
    if new:
        _INSERT(transaction.connection, [_row(one) for one in new])


def _row(one: NewDelivery) -> dict[str, object]:
    place = one.place
    return {
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
        "lane": None if place is None else place.lane.key,
        "turn": NEXT if place is None else BEGUN if one.begun else place.turn,
    }


def move(transaction: Transaction, moves: Sequence[Move]) -> set[str]:
    """Change states, one statement for all; the ids of the deliveries that have moved. See `made`."""
    return {row.id for row in made(transaction, moves)}


def made(transaction: Transaction, moves: Sequence[Move], by: ReturningUpdate[Any] = _MOVE) -> Sequence[Row[Any]]:
    """Change states, one statement for all.

    Args:
        transaction: the open transaction.
        moves: at most one for each delivery.
        by: the statement: for attempts that begin, one of those above.

    Returns:
        The deliveries that were as their movers saw them, and so have moved: `id`, `handler`, `lane`.

    Raises:
        IllegalMove: the table of states lacks one of the moves; nothing is changed.
    """
    for one in moves:
        if (one.source, one.target) not in ALLOWED:
            raise IllegalMove(f"a delivery cannot go from {one.source} to {one.target}")
    if not moves:
        return ()
    # In one order, whoever moves them: two processes that hold each other's next row would wait in vain.
    moved: Sequence[Row[Any]] = transaction.connection.execute(by, {"moves": json.dumps(sorted(moves))}).all()
    # Nobody waits for an attempt to begin.
    transaction.news.events.update(row.event_id for row in moved if row.state != State.RUNNING.value)
    transaction.freed.update(
        Lane(row.handler, row.lane) for row in moved if row.lane is not None and row.state in _GONE
    )
    return moved


def postpone(transaction: Transaction, delivery_id: str, *, now: int, until: int) -> bool:
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


def suspend(transaction: Transaction, delivery_id: str, attempt: int, *, note: str, now: int) -> bool:
    """Leave a waiting delivery without a time, so that it is not offered to runners; changes no state.

    Args:
        transaction: the open transaction.
        delivery_id: the delivery.
        attempt: how many attempts it must have begun.
        note: why.
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
        .values(due_at=None, note=note, changed_at=now)
        .returning(deliveries.c.event_id)
    )
    event_id = transaction.connection.execute(suspended).scalar()
    if event_id is not None:
        transaction.news.events.add(event_id)
    return event_id is not None
