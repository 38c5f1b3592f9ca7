"""Recover attempts that were lost with their process, or were marked as running and never started."""

from __future__ import annotations

from itertools import compress
from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, exists, literal, select

from flowhooks.clock import SECOND
from flowhooks.errors import DamagedRow
from flowhooks.failpoints import hit
from flowhooks.ledger import trends
from flowhooks.ledger.attempts import AttemptResult
from flowhooks.ledger.handlers import retry_from_json
from flowhooks.ledger.tables import (
    IS_LAST_ATTEMPT,
    IS_RUNNING_OR_FAILED,
    attempts,
    deliveries,
    handlers,
    processes,
)
from flowhooks.model.delivery import OutcomeKind, State
from flowhooks.model.retry import attempts_made

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from flowhooks.ledger.attempt_starts import InFlightAttempts
    from flowhooks.ledger.attempts import ResultRecorder
    from flowhooks.ledger.transaction import WriteTransaction
    from flowhooks.model.retry import Retry

_RUNNING: Final = (
    select(
        deliveries.c.id,
        deliveries.c.handler,
        deliveries.c.attempt,
        deliveries.c.retry_base,
        handlers.c.retry,
        handlers.c.has_probe,
    )
    .join(attempts, IS_LAST_ATTEMPT)
    .outerjoin(handlers, handlers.c.id == deliveries.c.handler)
    .where(IS_RUNNING_OR_FAILED, deliveries.c.state == State.RUNNING.value)
    .order_by(deliveries.c.id)
)
_OWNER_ALIVE: Final = exists(
    select(literal(1))
    .select_from(processes)
    .where(processes.c.id == attempts.c.process, processes.c.stopped_at.is_(None))
)
# One statement reads the deliveries and the processes: with two, a process that registered in between would count as
# stopped.
_ORPHANED: Final = _RUNNING.where(~_OWNER_ALIVE)
"""Running deliveries whose process has stopped."""
_RUNNING_IN_PROCESS: Final = _RUNNING.where(attempts.c.process == bindparam("process"))


def state_after_loss(
    retry: Retry | None, *, attempts_made: int, has_probe: bool, now: int, random: Callable[[], float]
) -> tuple[State, int | None]:
    """Return the state that follows a lost attempt, and from when the delivery may run again or be probed.

    Args:
        retry: the handler's `retry=`; None: the attempt may have done its work, and must not be repeated.
        attempts_made: number of attempts made in the present retry schedule.
        has_probe: whether the handler has a probe.
        now: microseconds since 1970.
        random: returns a random number from 0 up to 1, for the jitter.
    """
    if retry is None:
        return State.UNKNOWN, now if has_probe else None
    delay = retry.delay(attempts_made, random())
    return (State.DEAD, None) if delay is None else (State.WAITING, now + int(delay * SECOND))


def recover_lost(
    transaction: WriteTransaction,
    recorder: ResultRecorder,
    now: int,
    *,
    random: Callable[[], float],
    shared: bool = False,
    missing_handlers: Collection[str] = (),
) -> dict[State, int]:
    """Record as lost every running attempt whose process is not alive.

    Args:
        transaction: the open transaction.
        recorder: records the results.
        now: microseconds since 1970.
        random: returns a random number from 0 up to 1, for the jitter.
        shared: whether other processes may be alive; otherwise every running attempt is lost, because this process has
            started none.
        missing_handlers: ids of handlers that are not loaded: their deliveries are suspended.

    Returns:
        Number of deliveries by their new state: *waiting* if the handler declared `retry=` and has attempts left,
        *dead* if none is left, *unknown* without `retry=`.
    """
    results = []
    for row in transaction.connection.execute(_ORPHANED if shared else _RUNNING).all():
        retry = _read_retry(row.retry)
        error = "the process was killed while this attempt ran: its work may or may not be done"
        made = attempts_made(row.attempt, row.retry_base)
        target, due_at = state_after_loss(retry, attempts_made=made, has_probe=row.has_probe, now=now, random=random)
        if row.handler in missing_handlers:
            due_at = None
        results.append(
            AttemptResult(row.id, row.handler, row.attempt, OutcomeKind.LOST, error, "", None, target, due_at, now)
        )
    if results:
        recorded = recorder(transaction, results)
        trends.add_lost(transaction, list(compress(results, recorded)))
        hit("recover.written")
    return {
        state: sum(result.target is state for result in results) for state in (State.WAITING, State.DEAD, State.UNKNOWN)
    }


def _read_retry(text: str | None) -> Retry | None:
    try:
        return retry_from_json(text)
    except DamagedRow:  # it may have declared none, so its function must not be repeated
        return None


def recover_unstarted(
    transaction: WriteTransaction,
    recorder: ResultRecorder,
    in_flight: InFlightAttempts,
    now: int,
    *,
    process: str,
    missing_handlers: Collection[str] = (),
) -> int:
    """Make deliveries wait again that this process marked as running and never started.

    This happens if the reply to a COMMIT is lost.

    Args:
        transaction: the open transaction, in the writer's thread: every started attempt is in `in_flight`.
        recorder: records the results.
        in_flight: the attempts that this process runs.
        now: microseconds since 1970.
        process: this process's id.
        missing_handlers: ids of handlers that are not loaded: their deliveries are suspended.

    Returns:
        Number of these deliveries.
    """
    marked = transaction.connection.execute(_RUNNING_IN_PROCESS, {"process": process}).all()
    error = "the database's answer was lost when this attempt was to start; its function was not entered"
    results = [
        AttemptResult(
            row.id,
            row.handler,
            row.attempt,
            OutcomeKind.FAILED,
            error,
            "",
            None,
            State.WAITING,
            None if row.handler in missing_handlers else now,
            now,
        )
        for row in marked
        if (row.id, row.attempt) not in in_flight
    ]
    if results:
        recorder(transaction, results)
    return len(results)
