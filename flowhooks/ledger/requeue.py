"""Deliveries that are to run again, because an operator or a call-back that came again says so.

It must not know who says so, or why.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from flowhooks.ledger.deliveries import NEXT, Move, made
from flowhooks.ledger.ordering import come_back
from flowhooks.model.delivery import Queued, State

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from flowhooks.ledger.group_commit import Transaction
    from flowhooks.ledger.queries import Standing
    from flowhooks.model.delivery import Runner

OUT_OF_ORDER: Final = "run again out of its order: after what waited for the same key by then"
"""What is noted of an ordered delivery that had ended and runs again, unless an operator has said something."""


class Again(NamedTuple):
    """How deliveries are to run again.

    Attributes:
        now: microseconds since 1970.
        absent: ids of handlers that are not loaded: their deliveries wait for them.
        fresh: whether their retry schedules start anew; else this is one attempt more.
        note: what an operator said.
    """

    now: int
    absent: Collection[str] = ()
    fresh: bool = False
    note: str | None = None


def requeue(transaction: Transaction, standings: Sequence[Standing], again: Again, *, runner: Runner) -> set[str]:
    """Have deliveries run again, if they are still as they were seen.

    One that is ordered and had ended comes after all that waits for its key by now.

    Args:
        transaction: the open transaction.
        standings: the deliveries, as last seen.
        again: how.
        runner: is told, within the transaction, what may run.

    Returns:
        The ids of those that now wait.

    Raises:
        IllegalMove: one is in a state from which it cannot run again.
    """
    places = come_back(transaction, [one.delivery_id for one in standings if one.ordered])
    rows = made(
        transaction,
        [
            Move(
                one.delivery_id,
                one.state,
                State.WAITING,
                one.attempt,
                again.now,
                due_at=None if one.handler in again.absent else again.now,
                retries_from=one.attempt if again.fresh else None,
                note=again.note or (OUT_OF_ORDER if one.delivery_id in places else None),
            )
            for one in standings
        ],
    )
    moved = {row.id for row in rows}
    queued = [
        Queued(one.delivery_id, one.handler, one.attempt, ordered=one.ordered)
        for one in standings
        if one.delivery_id in moved
        and one.handler not in again.absent
        and (one.delivery_id not in places or places[one.delivery_id].turn == NEXT)
    ]
    if queued:
        runner.enqueue(transaction, queued, again.now)
    return moved
