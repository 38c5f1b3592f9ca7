"""Attempts: claims before an attempt starts, and results after it."""

from __future__ import annotations

import json
from functools import partial
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from sqlalchemy import BigInteger, Integer, Text, select, update

from flowhooks.errors import DamagedRow
from flowhooks.failpoints import hit
from flowhooks.ledger import database
from flowhooks.ledger.attempt_starts import start_attempts, to_start
from flowhooks.ledger.damaged_rows import repair
from flowhooks.ledger.deliveries import CLAIM, ClaimRequest, ClaimStatements, StateChange, apply_changes_returning
from flowhooks.ledger.due_deliveries import next_due, to_ready_delivery
from flowhooks.ledger.error_groups import ErrorGroups
from flowhooks.ledger.ordering import admissible, lock_handlers
from flowhooks.ledger.queries import to_event
from flowhooks.ledger.tables import (
    attempts,
    deliveries,
    events,
)
from flowhooks.model.delivery import Attempt, OutcomeKind, State, Trigger
from flowhooks.model.error_group import FAILED, LOST, identify
from flowhooks.model.ready_delivery import ClaimedAttempt, LimitReached, ReadyDelivery

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from sqlalchemy import Connection

    from flowhooks.ledger.attempt_starts import InFlightAttempts
    from flowhooks.ledger.delivery_queue import DeliveryQueue
    from flowhooks.ledger.start_limits import StartLimits
    from flowhooks.ledger.transaction import WriteTransaction
    from flowhooks.model.error_group import ErrorIdentity
    from flowhooks.model.event import Event


class AttemptResult(NamedTuple):
    """The result of an attempt, and the next state of its delivery.

    Attributes:
        delivery_id: the delivery.
        handler: its handler's id.
        attempt: the attempt's number; if it is no longer the current one, the result changes nothing.
        outcome: how it ended.
        error: the error, in one line.
        traceback: the traceback, for operators.
        result: the handler's return value as JSON text, or None.
        target: the next state of the delivery.
        due_at: from when the delivery may run or be probed, in microseconds since 1970; None: it is not scheduled.
        now: when the attempt ended, in microseconds since 1970.
        result_dropped: why the handler's return value could not be stored; None if it was, or there was none.
        error_identity: what the error has in common with others; None: only the text of `error` is known.
        log: the last log records of the handler, one line each; None if there are none.
    """

    delivery_id: str
    handler: str
    attempt: int
    outcome: OutcomeKind
    error: str
    traceback: str
    result: str | None
    target: State
    due_at: int | None
    now: int
    result_dropped: str | None = None
    error_identity: ErrorIdentity | None = None
    log: str | None = None


_CLAIMED: Final = database.DriverStatement(
    select(events, deliveries.c.id.label("delivery_id"), deliveries.c.attempt, deliveries.c.retry_base)
    .join(deliveries, deliveries.c.event_id == events.c.id)
    .where(deliveries.c.id.in_(database.string_array("delivery_ids")))
)
_RESULTS = database.row_array(
    "ended",
    delivery_id=Text,
    number=Integer,
    finished_at=BigInteger,
    outcome=Text,
    error=Text,
    traceback=Text,
    result=Text,
    result_dropped=Text,
    error_group=Text,
    log=Text,
)
_RECORD: Final = database.DriverStatement(
    update(attempts)
    .where(attempts.c.delivery_id == _RESULTS.c.delivery_id, attempts.c.number == _RESULTS.c.number)
    .values(
        finished_at=_RESULTS.c.finished_at,
        outcome=_RESULTS.c.outcome,
        error=_RESULTS.c.error,
        traceback=_RESULTS.c.traceback,
        result=_RESULTS.c.result,
        result_dropped=_RESULTS.c.result_dropped,
        error_group=_RESULTS.c.error_group,
        log=_RESULTS.c.log,
    )
)
_ATTEMPTS: Final = select(attempts.c.delivery_id, attempts.c.number, attempts.c.outcome, attempts.c.finished_at).where(
    attempts.c.delivery_id.in_(database.string_array("delivery_ids"))
)
_RECORDED: Final = partial(hit, "settle.committed")


def claim(
    transaction: WriteTransaction,
    requests: list[ClaimRequest],
    in_flight: InFlightAttempts,
    *,
    process: str,
    now: int | None = None,
    statements: ClaimStatements = CLAIM,
) -> list[ClaimedAttempt | LimitReached | None]:
    """Mark deliveries as running and return their attempts, in the order of the requests.

    The handler may be called only after the transaction has been committed.

    Args:
        transaction: the open transaction.
        requests: the deliveries.
        in_flight: gets the started attempts.
        process: id of the process that runs the attempts.
        now: microseconds since 1970, because requests may have waited; default: the time of the latest request.
        statements: the statements that mark the deliveries.

    Returns:
        For each request its attempt; None if the delivery has changed since it was read, is being changed, or is not
        first of its order group; `LimitReached` if the handler is at its concurrency limit or at its rate.
    """
    # Of several claims of one delivery in a batch only the last one is made, and only its caller gets the event.
    latest = {request.queued.delivery_id: request for request in requests}
    now = max(request.now for request in requests) if now is None else now
    started, at_limit, at_rate = _mark(transaction, latest.values(), statements, now)
    claimed: dict[str, ClaimedAttempt] = {}
    if started:
        rows = _CLAIMED(transaction.connection, {"delivery_ids": json.dumps(list(started))})
        origins = {row.delivery_id: row.origin for row in rows}
        start_attempts(
            transaction,
            [to_start(latest[row.id], row, origins.get(row.id), statements.trigger) for row in started.values()],
            in_flight,
            process=process,
        )
        hit("claim.written")
        claimed = {
            row.delivery_id: ClaimedAttempt(event=to_event(row), attempt=row.attempt, retry_base=row.retry_base)
            for row in rows
        }
    return [_to_result(request, latest, claimed, at_limit | at_rate) for request in requests]


def claim_batch(
    transaction: WriteTransaction,
    batches: Sequence[list[ClaimRequest]],
    in_flight: InFlightAttempts,
    *,
    process: str,
    now: int,
) -> list[list[ClaimedAttempt | LimitReached | None]]:
    """Claim the deliveries of several callers with `claim`; return the results for each of them."""
    requests = [request for batch in batches for request in batch]
    results = iter(claim(transaction, requests, in_flight, process=process, now=now))
    return [list(islice(results, len(batch))) for batch in batches]


def _mark(
    transaction: WriteTransaction, requests: Collection[ClaimRequest], statements: ClaimStatements, now: int
) -> tuple[dict[str, Any], set[str], set[str]]:
    """Mark deliveries as running.

    Returns:
        The rows of the marked deliveries by id, and the ids of those whose handler is at its concurrency limit, and of
        those whose handler is at its rate.
    """
    constrained = [request for request in requests if request.queued.ordered or request.limits is not None]
    marked, at_limit, at_rate = dict[str, Any](), set[str](), set[str]()
    if len(constrained) < len(requests):
        changes = [_to_change(request) for request in requests if not request.queued.ordered and request.limits is None]
        marked = {row.id: row for row in apply_changes_returning(transaction, changes, statements.unordered)}
    if constrained:
        allowed, at_limit, at_rate, budget = admissible(transaction, constrained, now)
        constrained_changes = [_to_change(request) for request in constrained if request.queued.delivery_id in allowed]
        rows = apply_changes_returning(transaction, constrained_changes, statements.ordered)
        marked |= {row.id: row for row in rows}
        budget.use(
            transaction, [request.queued.handler for request in constrained if request.queued.delivery_id in marked]
        )
    return marked, at_limit, at_rate


class SlotRequest(Protocol):
    """A runner's request to start the next due deliveries of a handler, one in each of its free slots.

    Attributes:
        handler: the handler's id.
        skipped: ids of due deliveries that are left out, because they could not be run just now.
        probing: ids of *unknown* deliveries that are left out, because this process calls or called their probe. They
            are not left out once they wait for another attempt.
        with_probes: whether *unknown* deliveries are included, whose probe is called.
    """

    handler: str
    skipped: Collection[str]
    probing: Collection[str]
    with_probes: bool

    def take(self, transaction: WriteTransaction) -> int:
        """Return the number of free slots, which are taken until the transaction ends."""

    def passes(self, event: Event) -> bool:
        """Return whether the handler's conditions hold for an event."""

    def on_claimed(
        self,
        transaction: WriteTransaction,
        started: Sequence[StartedDelivery],
        *,
        has_more: bool,
        waits_for_rate: bool = False,
        passed_over: Collection[str] = (),
    ) -> None:
        """Receive, within the transaction, the deliveries that start after the commit.

        `has_more` says whether further deliveries of the handler are due that could start; `waits_for_rate` whether
        some of them cannot, because the handler is at its rate. If slots are left although further deliveries are due,
        `passed_over` has the ids of the deliveries that these slots were for: others start or change them.
        """


class StartedDelivery(NamedTuple):
    """A delivery for a free slot.

    Attributes:
        queued: the delivery.
        claimed: its attempt. None: it is not marked as running. Its handler's probe is called, its condition does not
            hold, or its event is damaged.
    """

    queued: ReadyDelivery
    claimed: ClaimedAttempt | None


def claim_next(
    transaction: WriteTransaction,
    requests: Sequence[SlotRequest],
    in_flight: InFlightAttempts,
    *,
    process: str,
    now: int,
    limits: Mapping[str, StartLimits],
    ordered: Collection[str] = (),
) -> None:
    """Mark the next due deliveries of handlers as running: a query for each handler, and two statements for all.

    Args:
        transaction: the open transaction.
        requests: the free slots, at most one request for each handler.
        in_flight: gets the started attempts.
        process: id of the process that runs the attempts.
        now: microseconds since 1970.
        limits: the limits of each limited handler, by its id.
        ordered: ids of the ordered handlers.
    """
    limited = [request.handler for request in requests if request.handler in limits]
    if limited:
        # Before their deliveries are read, because another process may be about to start the same ones.
        lock_handlers(transaction, limited)
    found: list[tuple[SlotRequest, int, list[StartedDelivery], bool]] = []
    claims: dict[str, ClaimRequest] = {}
    origins: dict[str, str] = {}
    for request in requests:
        slots = request.take(transaction)
        # Locked rows of other processes are skipped. Where `_mark` waits for other locks, it must not hold these.
        is_constrained = request.handler in limits or request.handler in ordered
        limit = slots + 1 + len(request.skipped) + len(request.probing)
        rows = [
            row
            for row in next_due(transaction.connection, now, request.handler, limit, lock=not is_constrained)
            if row.delivery_id not in request.skipped
            and (row.state != State.UNKNOWN or (request.with_probes and row.delivery_id not in request.probing))
        ][: slots + 1]
        candidates = [_to_started(row, request) for row in rows[:slots]]
        claims |= {
            candidate.queued.delivery_id: ClaimRequest(candidate.queued, now, limits.get(request.handler))
            for candidate in candidates
            if candidate.claimed is not None
        }
        origins |= {row.delivery_id: row.origin for row in rows}
        found.append((request, slots, candidates, len(rows) > slots))
    marked, at_limit, at_rate = dict[str, Any](), set[str](), set[str]()
    if claims:
        marked, at_limit, at_rate = _mark(transaction, claims.values(), CLAIM, now)
    if marked:
        starts = [to_start(claims[row.id], row, origins[row.id], CLAIM.trigger) for row in marked.values()]
        start_attempts(transaction, starts, in_flight, process=process)
        hit("claim.written")
    passed_over = claims.keys() - marked.keys() - at_limit - at_rate
    for request, slots, candidates, is_more_due in found:
        started = [
            candidate for candidate in candidates if candidate.claimed is None or candidate.queued.delivery_id in marked
        ]
        # If fewer were started, the handler is paused or at a limit, or others start or change its deliveries.
        request.on_claimed(
            transaction,
            started,
            has_more=is_more_due and len(started) == slots,
            waits_for_rate=any(candidate.queued.delivery_id in at_rate for candidate in candidates),
            passed_over=passed_over.intersection(candidate.queued.delivery_id for candidate in candidates)
            if is_more_due
            else (),
        )


def _to_started(row: Any, request: SlotRequest) -> StartedDelivery:
    queued = to_ready_delivery(row)
    if queued.probe:
        return StartedDelivery(queued, None)
    try:
        event = to_event(row)
    except DamagedRow:
        return StartedDelivery(queued, None)
    if not request.passes(event):
        return StartedDelivery(queued, None)
    return StartedDelivery(queued, ClaimedAttempt(event=event, attempt=row.attempt + 1, retry_base=row.retry_base))


def _to_change(request: ClaimRequest) -> StateChange:
    queued = request.queued
    if type(queued.attempt) is not int:
        raise DamagedRow(f"delivery {queued.delivery_id} cannot be read: its number of attempts is no number")
    return StateChange(
        queued.delivery_id, State.WAITING, State.RUNNING, queued.attempt, request.now, attempt_after=queued.attempt + 1
    )


def _to_result(
    request: ClaimRequest,
    latest: Mapping[str, ClaimRequest],
    claimed: Mapping[str, ClaimedAttempt],
    at_limit: Collection[str],
) -> ClaimedAttempt | LimitReached | None:
    delivery_id = request.queued.delivery_id
    if delivery_id in at_limit:
        return LimitReached()
    return claimed.get(delivery_id) if latest[delivery_id] is request else None


class ResultRecorder:
    """The batch work function that records the results of attempts.

    Args:
        runner: receives, within the transaction, the deliveries that may run again.
        in_flight: the ended attempts are removed from it.
        limits: the limits of each limited handler, by its id.
    """

    def __init__(
        self,
        *,
        runner: DeliveryQueue,
        in_flight: InFlightAttempts,
        limits: Mapping[str, StartLimits] = MappingProxyType({}),
    ) -> None:
        self._runner = runner
        self._in_flight = in_flight
        self._limits = limits
        self._error_groups = ErrorGroups()

    def __call__(self, transaction: WriteTransaction, items: list[AttemptResult]) -> list[bool]:
        """Record results; False for an attempt that is no longer the current one, whose result changes nothing.

        A result that is already recorded with the same outcome and time counts as recorded, because the reply to its
        COMMIT may have been lost.
        """
        current: dict[str, AttemptResult] = {}
        for item in items:
            # Attempt numbers increase, so of several results of one delivery only the highest number can be the current
            # one.
            if item.delivery_id not in current or item.attempt > current[item.delivery_id].attempt:
                current[item.delivery_id] = item
        changes = [
            StateChange(item.delivery_id, State.RUNNING, item.target, item.attempt, item.now, due_at=item.due_at)
            for item in current.values()
        ]
        moved = {row.id: row for row in apply_changes_returning(transaction, changes)}
        recorded = [item for item in current.values() if item.delivery_id in moved]
        if recorded:
            _RECORD(
                transaction.connection,
                {
                    "ended": json.dumps(
                        [
                            [
                                item.delivery_id,
                                item.attempt,
                                item.now,
                                item.outcome,
                                item.error,
                                item.traceback,
                                item.result,
                                item.result_dropped,
                                self._add_to_group(transaction, item),
                                item.log,
                            ]
                            for item in recorded
                        ]
                    )
                },
            )
        for item in recorded:
            if item.target is State.WAITING and item.due_at is not None:
                ordered = moved[item.delivery_id].order_key is not None
                retry = ReadyDelivery(item.delivery_id, item.handler, item.attempt, ordered=ordered)
                self._runner.enqueue(transaction, [retry], item.due_at)
        if self._limits:
            transaction.freed_handlers.update(item.handler for item in recorded if item.handler in self._limits)
        if recorded:
            hit("settle.written")
            transaction.after_commit(_RECORDED)
        keys = [(item.delivery_id, item.attempt) for item in items]
        transaction.after_commit(lambda: self._in_flight.discard(keys))
        if len(recorded) == len(items):
            return [True] * len(items)
        before = _read_recorded(transaction, [item for item in items if item.delivery_id not in moved])
        return [
            (item.delivery_id in moved and current[item.delivery_id] is item)
            or before.get((item.delivery_id, item.attempt)) == (item.outcome.value, item.now)
            for item in items
        ]

    def _add_to_group(self, transaction: WriteTransaction, item: AttemptResult) -> str | None:
        """Count an attempt in the group of its error; return the group's fingerprint, or None if it has no error."""
        # A delivery that its handler's condition closes has failed in nothing.
        if item.outcome is OutcomeKind.SUCCEEDED or item.target is State.CLOSED:
            return None
        error_type = LOST if item.outcome is OutcomeKind.LOST else FAILED
        identity = item.error_identity or identify(item.handler, error_type, item.error)
        attempt = (item.delivery_id, item.attempt)
        return self._error_groups.add(transaction, identity, attempt=attempt, now=item.now)


def _read_recorded(
    transaction: WriteTransaction, results: list[AttemptResult]
) -> dict[tuple[str, int], tuple[str | None, int | None]]:
    if not results:
        return {}
    rows = transaction.connection.execute(
        _ATTEMPTS, {"delivery_ids": json.dumps([result.delivery_id for result in results])}
    )
    return {(row.delivery_id, row.number): (row.outcome, row.finished_at) for row in rows}


def attempts_of(connection: Connection, delivery_id: str, *, last: int | None = None) -> tuple[Attempt, ...]:
    """Return the attempts of a delivery, first one first, or only the `last` ones."""
    query = select(attempts).where(attempts.c.delivery_id == delivery_id)
    rows = connection.execute(query.order_by(attempts.c.number.desc()).limit(last)).all()
    return tuple(_to_attempt(*repair(row, list(attempts.c))) for row in reversed(rows))


def _to_attempt(row: Any, damage: str) -> Attempt:
    return Attempt(
        number=row.number,
        started_at=row.started_at,
        finished_at=row.finished_at,
        outcome=OutcomeKind(row.outcome) if row.outcome else None,
        error=damage or row.error,
        traceback=row.traceback,
        result=row.result,
        process=row.process,
        result_dropped=row.result_dropped or "",
        plugin_version=row.plugin_version or "",
        plugin_digest=row.plugin_digest or "",
        trigger=Trigger(row.trigger) if row.trigger else None,
        actor=row.actor or "",
        operation_id=row.operation_id or "",
        error_group=row.error_group or "",
        log=row.log or "",
    )
