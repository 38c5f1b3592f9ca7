"""Handlers that are held: paused by flowhooks itself, and tried again now and then; it must not know why one is.

To be held is to be paused, with a reason. So whatever goes for pauses goes for holds: nothing begins, nobody waits, an
operator's `resume` ends it. What is added is the trial: one delivery that begins all the same, chosen and begun in the
transaction that says when the next one may.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog
from sqlalchemy import bindparam, or_, select, update

from flowhooks.clock import SECOND
from flowhooks.ledger.attempts import Claim, claim
from flowhooks.ledger.deliveries import TRY_OUT
from flowhooks.ledger.pauses import IS_PAUSED, Held, lift
from flowhooks.ledger.tables import HAS_TIME, NOT_AT_REST, deliveries, handlers
from flowhooks.model.delivery import Claimed, Queued, State

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from sqlalchemy import ColumnElement, Connection

    from flowhooks.ledger.attempts import Hands
    from flowhooks.ledger.group_commit import Transaction
    from flowhooks.ledger.pauses import Pauses

log = structlog.get_logger(__name__)

IS_HELD: Final = IS_PAUSED & handlers.c.held_at.is_not(None)


MAX_AHEAD: Final = 86_400 * SECOND
"""Microseconds by which a trial may be later than the next one would be: other processes' clocks differ by less."""

_RUNS: Final = (
    select(deliveries.c.id)
    .where(NOT_AT_REST, deliveries.c.state == State.RUNNING.value, deliveries.c.handler == bindparam("handler"))
    .limit(1)
)


class Hold(NamedTuple):
    """The wish to hold a handler.

    Attributes:
        handler: its id.
        why: the error of its last failure.
        release: which release of its plugin failed: another one is let run.
        trial_at: when it is tried first, in microseconds since 1970.
    """

    handler: str
    why: str
    release: str
    trial_at: int


class Trial(NamedTuple):
    """The wish to try a handler that is held.

    Attributes:
        handler: its id.
        again_at: when the next one may be tried, in microseconds since 1970.
        limit: how many of its deliveries may run at once; None: any number.
    """

    handler: str
    again_at: int
    limit: int | None = None


def held(connection: Connection) -> dict[str, Held]:
    """The handlers that are held, by their ids."""
    columns = (handlers.c.id, handlers.c.held_at, handlers.c.held_why, handlers.c.trial_at)
    found = connection.execute(select(*columns).where(IS_HELD).order_by(handlers.c.id))
    return {row.id: Held(row.held_at, row.held_why, row.trial_at or 0) for row in found}


def hold(transaction: Transaction, wish: Hold, now: int, pauses: Pauses) -> bool:
    """Have no delivery of a handler begin any more, but for trials; False if it is paused already, or retired.

    What is just about to begin in another process may do so.
    """
    change = (
        update(handlers)
        .where(handlers.c.id == wish.handler, handlers.c.paused_at.is_(None), handlers.c.retired_at.is_(None))
        .values(paused_at=now, held_at=now, held_why=wish.why, held_release=wish.release, trial_at=wish.trial_at)
    )
    done = bool(transaction.connection.execute(change).rowcount)
    if done:
        transaction.news.handlers = True
        transaction.after_commit(partial(pauses.add, [wish.handler]))
    return done


def release(transaction: Transaction, ids: Collection[str], now: int, pauses: Pauses) -> frozenset[str]:
    """Have deliveries of these handlers run again where they are held; the ids of those that were."""
    return lift(transaction, IS_HELD, ids, now, pauses)


def renewed(transaction: Transaction, releases: Mapping[str, str], now: int, pauses: Pauses) -> frozenset[str]:
    """Let handlers run that were held for what another release of their plugins did; their ids.

    Args:
        transaction: the open transaction.
        releases: which release of its plugin each loaded handler is of, by its id.
        now: microseconds since 1970.
        pauses: learns of it once it is durable.
    """
    found = transaction.connection.execute(select(handlers.c.id, handlers.c.held_release).where(IS_HELD)).all()
    mended = [row.id for row in found if releases.get(row.id, row.held_release) != row.held_release]
    if not mended:
        return frozenset()
    log.info("handler_released", handlers=sorted(mended), why="it is of another release by now")
    return release(transaction, mended, now, pauses)


def _is_time(again_at: int, now: int) -> ColumnElement[bool]:
    """Whether a handler is to be tried; also if it is to be tried later than ever, as a clock that was ahead said."""
    return or_(handlers.c.trial_at <= now, handlers.c.trial_at > again_at + MAX_AHEAD)


def try_out(
    transaction: Transaction, trial: Trial, hands: Hands, process: str, now: int
) -> tuple[Queued, Claimed] | None:
    """Begin one delivery of a handler that is held, of all processes in this one, if it is time for that.

    Of those that could run it takes one with the fewest attempts, so that trials do not use up the attempts of one.

    Args:
        transaction: the open transaction.
        trial: what is to be tried.
        hands: learns what has begun.
        process: whose attempt it is.
        now: microseconds since 1970.

    Returns:
        The delivery and its attempt; None if it is not time, one runs already, or none could run.
    """
    connection, handler = transaction.connection, trial.handler
    if connection.execute(_RUNS, {"handler": handler}).first():
        return None
    due = (IS_HELD, handlers.c.id == handler, _is_time(trial.again_at, now))
    candidate = connection.execute(
        select(deliveries.c.id, deliveries.c.attempt, deliveries.c.lane)
        .join(handlers, handlers.c.id == deliveries.c.handler)
        .where(HAS_TIME, deliveries.c.handler == handler, deliveries.c.due_at <= now, *due)
        .where(deliveries.c.state == State.WAITING.value)
        .order_by(deliveries.c.attempt - deliveries.c.retries_from, deliveries.c.due_at, deliveries.c.id)
        .limit(1)
    ).one_or_none()
    if candidate is None:
        return None
    # Of several processes that come here at once, all but one find that it is not time any more.
    turn = update(handlers).where(*due).values(trial_at=trial.again_at)
    if connection.execute(turn).rowcount == 0:
        return None
    queued = Queued(candidate.id, handler, candidate.attempt, ordered=candidate.lane is not None)
    (begun,) = claim(transaction, [Claim(queued, now, trial.limit)], hands, process=process, by=TRY_OUT)
    return (queued, begun) if isinstance(begun, Claimed) else None
