"""Circuit breaker: flowhooks pauses handlers that fail repeatedly, and tries them periodically.

An open circuit is a pause with a reason, so all rules for pauses apply: no delivery starts, no client waits, and an
operator's `resume` ends it. The exception is the trial: one delivery starts despite the pause. The transaction that
starts a trial also stores from when the next one may start.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import bindparam, or_, select, update
from sqlalchemy.exc import DBAPIError

from flowhooks.clock import SECOND
from flowhooks.errors import DamagedRow
from flowhooks.ledger import database
from flowhooks.ledger.attempts import claim
from flowhooks.ledger.deliveries import CLAIM_TRIAL, ClaimRequest
from flowhooks.ledger.ordering import IS_FIRST, lock_handlers
from flowhooks.ledger.pauses import IS_PAUSED, CircuitState, clear_pauses, to_circuit
from flowhooks.ledger.tables import IS_RUNNING_OR_FAILED, IS_SCHEDULED, deliveries, handlers
from flowhooks.logger import get_logger
from flowhooks.model.delivery import State
from flowhooks.model.ready_delivery import ClaimedAttempt, ReadyDelivery

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from sqlalchemy import ColumnElement, Connection, Row, Select

    from flowhooks.ledger.attempt_starts import InFlightAttempts
    from flowhooks.ledger.pauses import PausedHandlers
    from flowhooks.ledger.start_limits import StartLimits
    from flowhooks.ledger.transaction import WriteTransaction
    from flowhooks.model.plugin_version import PluginVersion

log = get_logger(__name__)

IS_OPEN: Final = IS_PAUSED & handlers.c.circuit_opened_at.is_not(None)


# Clocks of other processes differ by less.
MAX_TRIAL_AHEAD: Final = 86_400 * SECOND
"""Microseconds by which a stored trial time may be later than the time of the next trial. If it is later, the trial is
due at once."""

MAX_TRIAL_CANDIDATES: Final = 1_000
"""Maximum number of due deliveries, oldest first, among which a trial chooses the one with the fewest attempts. A
handler may have a million of them, and its trials run in the thread that stores callbacks."""

_RUNNING: Final = (
    select(deliveries.c.id)
    .where(
        IS_RUNNING_OR_FAILED, deliveries.c.state == State.RUNNING.value, deliveries.c.handler == bindparam("handler")
    )
    .limit(1)
)


class OpenCircuit(NamedTuple):
    """A request to open the circuit of a handler.

    Attributes:
        handler: the handler's id.
        reason: the error of its last failure.
        plugin_version: the version of its plugin that failed; another version closes the circuit.
        retry_at: from when the first trial may start, in microseconds since 1970.
    """

    handler: str
    reason: str
    plugin_version: str
    retry_at: int


class TrialDelivery(NamedTuple):
    """A request to start a trial of a handler whose circuit is open.

    Attributes:
        handler: the handler's id.
        next_retry_at: from when the trial after this one may start, in microseconds since 1970.
        skipped: ids of deliveries that are left out.
        limits: the limits of the handler; None: it has none.
    """

    handler: str
    next_retry_at: int
    skipped: Sequence[str] = ()
    limits: StartLimits | None = None


class DamagedTrial(DamagedRow):
    """The event of the delivery that a trial would run cannot be read, so no trial was started.

    Args:
        delivery_id: the delivery.
        why: the row, and what is wrong with it.

    Attributes:
        delivery_id: as given.
    """

    def __init__(self, delivery_id: str, why: str) -> None:
        super().__init__(why)
        self.delivery_id = delivery_id


def open_circuits(connection: Connection) -> dict[str, CircuitState]:
    """Return the open circuits by handler id."""
    columns = (handlers.c.id, handlers.c.circuit_opened_at, handlers.c.circuit_reason, handlers.c.circuit_retry_at)
    rows = connection.execute(select(*columns).where(IS_OPEN).order_by(handlers.c.id))
    return {row.id: to_circuit(row) for row in rows}


def open_circuit(transaction: WriteTransaction, circuit: OpenCircuit, now: int, pauses: PausedHandlers) -> bool:
    """Open a circuit: after the commit, only trials of the handler start. False if it is paused or retired.

    Another process may still start a delivery whose claim is under way.
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
    """Close the open circuits of these handlers; return the ids of the handlers whose circuit was open."""
    return clear_pauses(transaction, IS_OPEN, ids, now, pauses)


def reset_for_new_version(
    transaction: WriteTransaction, plugin_versions: Mapping[str, PluginVersion], now: int, pauses: PausedHandlers
) -> frozenset[str]:
    """Close circuits that another version of the handler's plugin opened; return the ids of their handlers.

    Args:
        transaction: the open transaction.
        plugin_versions: the version of the plugin of each loaded handler, by handler id.
        now: microseconds since 1970.
        pauses: updated after the commit.
    """
    rows = transaction.connection.execute(select(handlers.c.id, handlers.c.circuit_plugin_version).where(IS_OPEN)).all()
    replaced = [
        row.id
        for row in rows
        if str(plugin_versions.get(row.id, row.circuit_plugin_version)) != row.circuit_plugin_version
    ]
    if not replaced:
        return frozenset()
    log.info("circuit_closed", handlers=sorted(replaced), why="the handler has another release now")
    return close_circuits(transaction, replaced, now, pauses)


def _is_trial_due(next_retry_at: int, now: int) -> ColumnElement[bool]:
    # A due time beyond any schedule was written by a clock that was ahead.
    return or_(handlers.c.circuit_retry_at <= now, handlers.c.circuit_retry_at > next_retry_at + MAX_TRIAL_AHEAD)


def _choose_candidate(connection: Connection, trial: TrialDelivery, due: Select[str], now: int) -> Row[Any] | None:
    """Return the delivery that a trial would run; None if `due` finds no handler, or no delivery could run."""
    oldest = (
        select(
            deliveries.c.id,
            deliveries.c.attempt,
            deliveries.c.order_key,
            deliveries.c.due_at,
            (deliveries.c.attempt - deliveries.c.retry_base).label("made"),
        )
        .where(IS_SCHEDULED, deliveries.c.handler == trial.handler, deliveries.c.due_at <= now, IS_FIRST)
        .where(deliveries.c.state == State.WAITING.value)
        .where(deliveries.c.id.not_in(database.string_array("skipped", trial.skipped)))
        .order_by(deliveries.c.due_at)
        .limit(MAX_TRIAL_CANDIDATES)
        .subquery("oldest")
    )
    # The delivery with the fewest attempts, so that trials do not use up all attempts of one delivery.
    fewest = select(oldest).where(due.exists()).order_by(oldest.c.made, oldest.c.due_at, oldest.c.id).limit(1)
    with database.in_index_order(connection):
        return connection.execute(fewest).one_or_none()


def claim_trial_delivery(
    transaction: WriteTransaction, trial: TrialDelivery, in_flight: InFlightAttempts, process: str, now: int
) -> tuple[ReadyDelivery, ClaimedAttempt] | None:
    """Start one trial of a handler whose circuit is open, if a trial is due and no other process has started it.

    The time of the next trial changes only if this one starts.

    Args:
        transaction: the open transaction.
        trial: the trial.
        in_flight: gets the started attempt.
        process: id of the process that runs the attempt.
        now: microseconds since 1970.

    Returns:
        The delivery and its attempt; None if no trial is due, a delivery of the handler is running, or none could run.

    Raises:
        DamagedTrial: the delivery cannot be read.
    """
    connection, handler = transaction.connection, trial.handler
    if trial.limits is not None and trial.limits.next_start(now) is not None:
        return None  # its rate forbids an attempt, so no candidate is searched
    if connection.execute(_RUNNING, {"handler": handler}).first():
        return None
    due = select(handlers.c.id).where(IS_OPEN, handlers.c.id == handler, _is_trial_due(trial.next_retry_at, now))
    if (candidate := _choose_candidate(connection, trial, due, now)) is None:
        return None
    if trial.limits is not None:
        # Before the handler's row, which a claim with this lock may change.
        lock_handlers(transaction, [handler])
    # Of several processes at this point, each waits for the one before it, and finds that the trial is no longer due.
    if connection.execute(due.with_for_update(key_share=True)).first() is None:
        return None
    queued = ReadyDelivery(candidate.id, handler, candidate.attempt, ordered=candidate.order_key is not None)
    request = ClaimRequest(queued, now, trial.limits)
    try:
        (claimed,) = claim(transaction, [request], in_flight, process=process, now=now, statements=CLAIM_TRIAL)
    except DamagedRow as error:
        raise DamagedTrial(queued.delivery_id, error.why) from error
    except DBAPIError as error:
        if not database.is_undecodable(error):
            raise
        raise DamagedTrial(queued.delivery_id, database.error_text(error)) from error
    if not isinstance(claimed, ClaimedAttempt):
        return None
    connection.execute(update(handlers).where(handlers.c.id == handler).values(circuit_retry_at=trial.next_retry_at))
    return queued, claimed
