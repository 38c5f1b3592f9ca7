"""Open circuits: handlers that flowhooks itself has paused, and tries periodically.

An open circuit is a pause with a reason. So all rules for pauses apply: nothing begins, nobody waits, an operator's
`resume` ends it. What is added is the trial: one delivery that begins all the same, chosen and begun in the
transaction that says when the next one may.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog
from sqlalchemy import bindparam, or_, select, update

from flowhooks.clock import SECOND
from flowhooks.ledger.attempts import claim
from flowhooks.ledger.deliveries import CLAIM_TRIAL, ClaimRequest
from flowhooks.ledger.pauses import IS_PAUSED, CircuitState, clear_pauses
from flowhooks.ledger.tables import IS_RUNNING_OR_FAILED, IS_SCHEDULED, deliveries, handlers
from flowhooks.model.delivery import ClaimedAttempt, ReadyDelivery, State

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from sqlalchemy import ColumnElement, Connection

    from flowhooks.ledger.attempts import InFlightAttempts
    from flowhooks.ledger.pauses import PausedHandlers
    from flowhooks.ledger.transaction import WriteTransaction

log = structlog.get_logger(__name__)

IS_OPEN: Final = IS_PAUSED & handlers.c.circuit_opened_at.is_not(None)


MAX_TRIAL_AHEAD: Final = 86_400 * SECOND
"""Microseconds by which a trial may be later than the next one would be: other processes' clocks differ by less."""

_RUNNING: Final = (
    select(deliveries.c.id)
    .where(
        IS_RUNNING_OR_FAILED, deliveries.c.state == State.RUNNING.value, deliveries.c.handler == bindparam("handler")
    )
    .limit(1)
)


class OpenCircuit(NamedTuple):
    """The wish to open the circuit of a handler.

    Attributes:
        handler: its id.
        reason: the error of its last failure.
        plugin_version: which release of its plugin failed: another one is let run.
        retry_at: when it is tried first, in microseconds since 1970.
    """

    handler: str
    reason: str
    plugin_version: str
    retry_at: int


class TrialDelivery(NamedTuple):
    """The wish to try a handler whose circuit is open.

    Attributes:
        handler: its id.
        next_retry_at: when the next one may be tried, in microseconds since 1970.
        limit: how many of its deliveries may run at once; None: any number.
    """

    handler: str
    next_retry_at: int
    limit: int | None = None


def open_circuits(connection: Connection) -> dict[str, CircuitState]:
    """The open circuits, by the ids of their handlers."""
    columns = (handlers.c.id, handlers.c.circuit_opened_at, handlers.c.circuit_reason, handlers.c.circuit_retry_at)
    rows = connection.execute(select(*columns).where(IS_OPEN).order_by(handlers.c.id))
    return {row.id: CircuitState(row.circuit_opened_at, row.circuit_reason, row.circuit_retry_at or 0) for row in rows}


def open_circuit(transaction: WriteTransaction, circuit: OpenCircuit, now: int, pauses: PausedHandlers) -> bool:
    """Have no delivery of a handler begin any more, but for trials; False if it is paused already, or retired.

    What is just about to begin in another process may do so.
    """
    change = (
        update(handlers)
        .where(handlers.c.id == circuit.handler, handlers.c.paused_at.is_(None), handlers.c.retired_at.is_(None))
        .values(
            paused_at=now,
            circuit_opened_at=now,
            circuit_reason=circuit.reason,
            circuit_plugin_version=circuit.plugin_version,
            circuit_retry_at=circuit.retry_at,
        )
    )
    opened = bool(transaction.connection.execute(change).rowcount)
    if opened:
        transaction.notice.handlers = True
        transaction.after_commit(partial(pauses.add, [circuit.handler]))
    return opened


def close_circuits(
    transaction: WriteTransaction, ids: Collection[str], now: int, pauses: PausedHandlers
) -> frozenset[str]:
    """Close the circuits of these handlers where they are open; the ids of those that were."""
    return clear_pauses(transaction, IS_OPEN, ids, now, pauses)


def reset_for_new_version(
    transaction: WriteTransaction, plugin_versions: Mapping[str, str], now: int, pauses: PausedHandlers
) -> frozenset[str]:
    """Close circuits that another release of the handler's plugin opened; the handlers' ids.

    Args:
        transaction: the open transaction.
        plugin_versions: which release of its plugin each loaded handler is of, by its id.
        now: microseconds since 1970.
        pauses: learns of it once it is durable.
    """
    rows = transaction.connection.execute(select(handlers.c.id, handlers.c.circuit_plugin_version).where(IS_OPEN)).all()
    replaced = [
        row.id for row in rows if plugin_versions.get(row.id, row.circuit_plugin_version) != row.circuit_plugin_version
    ]
    if not replaced:
        return frozenset()
    log.info("circuit_closed", handlers=sorted(replaced), why="it is of another release by now")
    return close_circuits(transaction, replaced, now, pauses)


def _is_trial_due(next_retry_at: int, now: int) -> ColumnElement[bool]:
    # A due time beyond any schedule was written by a clock that was ahead.
    return or_(handlers.c.circuit_retry_at <= now, handlers.c.circuit_retry_at > next_retry_at + MAX_TRIAL_AHEAD)


def claim_trial_delivery(
    transaction: WriteTransaction, trial: TrialDelivery, in_flight: InFlightAttempts, process: str, now: int
) -> tuple[ReadyDelivery, ClaimedAttempt] | None:
    """Begin one delivery of a handler whose circuit is open, of all processes in this one, if it is time for that.

    Of those that could run it takes one with the fewest attempts, so that trials do not use up the attempts of one.

    Args:
        transaction: the open transaction.
        trial: what is to be tried.
        in_flight: learns what has begun.
        process: whose attempt it is.
        now: microseconds since 1970.

    Returns:
        The delivery and its attempt; None if it is not time, one runs already, or none could run.
    """
    connection, handler = transaction.connection, trial.handler
    if connection.execute(_RUNNING, {"handler": handler}).first():
        return None
    due = (IS_OPEN, handlers.c.id == handler, _is_trial_due(trial.next_retry_at, now))
    candidate = connection.execute(
        select(deliveries.c.id, deliveries.c.attempt, deliveries.c.order_key)
        .join(handlers, handlers.c.id == deliveries.c.handler)
        .where(IS_SCHEDULED, deliveries.c.handler == handler, deliveries.c.due_at <= now, *due)
        .where(deliveries.c.state == State.WAITING.value)
        .order_by(deliveries.c.attempt - deliveries.c.retry_base, deliveries.c.due_at, deliveries.c.id)
        .limit(1)
    ).one_or_none()
    if candidate is None:
        return None
    # Of several processes that come here at once, all but one find that it is not time any more.
    postpone = update(handlers).where(*due).values(circuit_retry_at=trial.next_retry_at)
    if connection.execute(postpone).rowcount == 0:
        return None
    queued = ReadyDelivery(candidate.id, handler, candidate.attempt, ordered=candidate.order_key is not None)
    (claimed,) = claim(
        transaction, [ClaimRequest(queued, now, trial.limit)], in_flight, process=process, statements=CLAIM_TRIAL
    )
    return (queued, claimed) if isinstance(claimed, ClaimedAttempt) else None
