"""Attempts: the durable mark before one begins, how it ended, and what a killed process left running.

It must not know how a handler is run.
"""

from __future__ import annotations

import json
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import BigInteger, Integer, Text, bindparam, exists, literal, select, update

from flowhooks.clock import SECOND
from flowhooks.failpoints import reached
from flowhooks.ledger import database
from flowhooks.ledger.deliveries import BEGIN, Beginnings, Move, made
from flowhooks.ledger.handlers import retry_from_json
from flowhooks.ledger.ordering import admitted
from flowhooks.ledger.queries import to_event
from flowhooks.ledger.tables import NOT_AT_REST, attempts, deliveries, events, handlers, processes
from flowhooks.model.delivery import Claimed, NoRoom, OutcomeKind, Queued, State

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from flowhooks.ledger.group_commit import Transaction
    from flowhooks.model.delivery import Runner
    from flowhooks.model.retry import Retry


class Claim(NamedTuple):
    """A wish to begin an attempt.

    Attributes:
        queued: the delivery, as its runner knew it.
        now: microseconds since 1970.
        limit: how many of its handler's deliveries may run at once; None: any number.
    """

    queued: Queued
    now: int
    limit: int | None = None


class Settlement(NamedTuple):
    """How an attempt ended, and where that leaves its delivery.

    Attributes:
        delivery_id: the delivery.
        handler: its handler's id.
        attempt: the attempt's number: a stale one settles nothing.
        outcome: how it ended.
        error: one line.
        traceback: for operators.
        result: what the handler returned, as JSON text, or None.
        target: the state that follows.
        due_at: from when the next attempt may run, when `target` is *waiting*.
        now: microseconds since 1970.
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


_BEGIN: Final = database.Insertion(attempts)
_CLAIMED: Final = (
    select(events, deliveries.c.id.label("delivery_id"), deliveries.c.attempt, deliveries.c.retries_from)
    .join(deliveries, deliveries.c.event_id == events.c.id)
    .where(deliveries.c.id.in_(database.keys("delivery_ids")))
)
_ENDED = database.rows(
    "ended",
    delivery_id=Text,
    number=Integer,
    finished_at=BigInteger,
    outcome=Text,
    error=Text,
    traceback=Text,
    result=Text,
)
_END: Final = (
    update(attempts)
    .where(attempts.c.delivery_id == _ENDED.c.delivery_id, attempts.c.number == _ENDED.c.number)
    .values(
        finished_at=_ENDED.c.finished_at,
        outcome=_ENDED.c.outcome,
        error=_ENDED.c.error,
        traceback=_ENDED.c.traceback,
        result=_ENDED.c.result,
    )
)
_ATTEMPTS: Final = select(attempts.c.delivery_id, attempts.c.number, attempts.c.outcome, attempts.c.finished_at).where(
    attempts.c.delivery_id.in_(database.keys("delivery_ids"))
)
_RUNS: Final = (
    select(
        deliveries.c.id,
        deliveries.c.handler,
        deliveries.c.attempt,
        deliveries.c.retries_from,
        handlers.c.retry,
        handlers.c.probes,
    )
    .join(attempts, (attempts.c.delivery_id == deliveries.c.id) & (attempts.c.number == deliveries.c.attempt))
    .outerjoin(handlers, handlers.c.id == deliveries.c.handler)
    .where(NOT_AT_REST, deliveries.c.state == State.RUNNING.value)
    .order_by(deliveries.c.id)
)
_LIVES: Final = exists(
    select(literal(1))
    .select_from(processes)
    .where(processes.c.id == attempts.c.process, processes.c.stopped_at.is_(None))
)
_LEFT: Final = _RUNS.where(~_LIVES)
"""Read together with who lives: whoever has signed on since that was read would be taken for dead."""
_RUNNING_HERE: Final = _RUNS.where(attempts.c.process == bindparam("process"))


_SETTLED: Final = partial(reached, "settle.committed")


class Hands:
    """The attempts that this process has begun and not yet come to the end of. Touched by the writer's thread only.

    A COMMIT whose answer is lost may have marked attempts as running of which the process knows nothing. They are told
    from those that it does run by not being in here.
    """

    def __init__(self) -> None:
        self._attempts: set[tuple[str, int]] = set()

    def take(self, attempts: Iterable[tuple[str, int]]) -> None:
        """Attempts begin."""
        self._attempts.update(attempts)

    def put_down(self, attempts: Iterable[tuple[str, int]]) -> None:
        """It is durable how attempts have ended; or not known that they have begun, and so they will not."""
        self._attempts.difference_update(attempts)

    def __contains__(self, attempt: tuple[str, int]) -> bool:
        return attempt in self._attempts


def claim(
    transaction: Transaction, items: list[Claim], hands: Hands, *, process: str, by: Beginnings = BEGIN
) -> list[Claimed | NoRoom | None]:
    """Mark deliveries as running; None for one that is no longer as its runner knew it, or whose turn it is not.

    After this has been committed, and only then, the function may be entered.

    Args:
        transaction: the open transaction.
        items: which deliveries.
        hands: learns what has begun.
        process: whose attempts they will be.
        by: the statements that mark them.
    """
    # Of two claims of one delivery in one batch only the last is made: it alone gets the event.
    wanted = {item.queued.delivery_id: item for item in items}
    asking = [one for one in wanted.values() if one.queued.ordered or one.limit is not None]
    moved, full = set[str](), set[str]()
    if len(asking) < len(wanted):
        free = [_begun(one) for one in wanted.values() if not one.queued.ordered and one.limit is None]
        moved = {row.id for row in made(transaction, free, by.freely)}
    if asking:
        may, full = admitted(transaction, asking)
        moves = [_begun(one) for one in asking if one.queued.delivery_id in may]
        moved |= {row.id for row in made(transaction, moves, by.in_turn)}
    begun = {one: wanted[one] for one in wanted if one in moved}
    found: dict[str, Claimed] = {}
    if begun:
        begin(transaction, begun.values(), hands, process=process)
        reached("claim.written")
        rows = transaction.connection.execute(_CLAIMED, {"delivery_ids": json.dumps(list(begun))})
        found = {
            row.delivery_id: Claimed(event=to_event(row), attempt=row.attempt, retries_from=row.retries_from)
            for row in rows
        }
    return [_answer(item, wanted, found, full) for item in items]


def _begun(one: Claim) -> Move:
    queued = one.queued
    return Move(queued.delivery_id, State.WAITING, State.RUNNING, queued.attempt, one.now, begun=queued.attempt + 1)


def _answer(
    item: Claim, wanted: Mapping[str, Claim], found: Mapping[str, Claimed], full: Collection[str]
) -> Claimed | NoRoom | None:
    delivery_id = item.queued.delivery_id
    if delivery_id in full:
        return NoRoom()
    return found.get(delivery_id) if wanted[delivery_id] is item else None


def begin(transaction: Transaction, claims: Collection[Claim], hands: Hands, *, process: str) -> None:
    """Write down that attempts begin; their deliveries are marked as running in the same transaction."""
    keys = [(claim.queued.delivery_id, claim.queued.attempt + 1) for claim in claims]
    # At once, for it may be looked for within the same transaction.
    hands.take(keys)
    transaction.after_rollback(lambda: hands.put_down(keys))
    _BEGIN(
        transaction.connection,
        [
            {
                "delivery_id": claim.queued.delivery_id,
                "number": claim.queued.attempt + 1,
                "process": process,
                "started_at": claim.now,
                "error": "",
                "traceback": "",
            }
            for claim in claims
        ],
    )


class Settling:
    """The batch work of recording how attempts ended.

    Args:
        runner: is told, within the transaction, what may run again.
        hands: learns what has ended.
        limits: how many deliveries of a handler run at once, for those that are limited.
    """

    def __init__(self, *, runner: Runner, hands: Hands, limits: Mapping[str, int] = MappingProxyType({})) -> None:
        self._runner = runner
        self._hands = hands
        self._limits = limits

    def __call__(self, transaction: Transaction, items: list[Settlement]) -> list[bool]:
        """Record each; False for one whose attempt is no longer the current one, which then changes nothing.

        One that is recorded already, word for word, is recorded: the answer to a COMMIT may have been lost.
        """
        current: dict[str, Settlement] = {}
        for item in items:
            # Attempts are numbered upwards, so of several of one delivery only the highest can be the current one.
            if item.delivery_id not in current or item.attempt > current[item.delivery_id].attempt:
                current[item.delivery_id] = item
        moves = [
            Move(item.delivery_id, State.RUNNING, item.target, item.attempt, item.now, due_at=item.due_at)
            for item in current.values()
        ]
        moved = {row.id: row for row in made(transaction, moves)}
        settled = [item for item in current.values() if item.delivery_id in moved]
        if settled:
            transaction.connection.execute(
                _END,
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
                            ]
                            for item in settled
                        ]
                    )
                },
            )
        for item in settled:
            if item.target is State.WAITING and item.due_at is not None:
                ordered = moved[item.delivery_id].lane is not None
                again = Queued(item.delivery_id, item.handler, item.attempt, ordered=ordered)
                self._runner.enqueue(transaction, [again], item.due_at)
        if self._limits:
            transaction.ended_of.update(item.handler for item in settled if item.handler in self._limits)
        if settled:
            reached("settle.written")
            transaction.after_commit(_SETTLED)
        keys = [(item.delivery_id, item.attempt) for item in items]
        transaction.after_commit(lambda: self._hands.put_down(keys))
        if len(settled) == len(items):
            return [True] * len(items)
        before = _recorded(transaction, [item for item in items if item.delivery_id not in moved])
        return [
            (item.delivery_id in moved and current[item.delivery_id] is item)
            or before.get((item.delivery_id, item.attempt)) == (item.outcome.value, item.now)
            for item in items
        ]


def _recorded(
    transaction: Transaction, items: list[Settlement]
) -> dict[tuple[str, int], tuple[str | None, int | None]]:
    """The outcome that stands for each of these attempts, and since when."""
    if not items:
        return {}
    found = transaction.connection.execute(_ATTEMPTS, {"delivery_ids": json.dumps([one.delivery_id for one in items])})
    return {(row.delivery_id, row.number): (row.outcome, row.finished_at) for row in found}


def after_loss(
    retry: Retry | None, *, made: int, probes: bool, now: int, chance: Callable[[], float]
) -> tuple[State, int | None]:
    """The state that follows the loss of an attempt, and from when it may run again or be probed.

    Args:
        retry: what its handler declares; None: it may or may not have done its work, and is not to do it twice.
        made: attempts made in the present retry schedule.
        probes: whether its handler can tell.
        now: microseconds since 1970.
        chance: draws a random number from 0 up to 1, for the jitter.
    """
    if retry is None:
        return State.UNKNOWN, now if probes else None
    delay = retry.delay(made, chance())
    return (State.DEAD, None) if delay is None else (State.WAITING, now + int(delay * SECOND))


def recover(
    transaction: Transaction,
    settling: Settling,
    now: int,
    *,
    chance: Callable[[], float],
    shared: bool = False,
    absent: Collection[str] = (),
) -> dict[State, int]:
    """Settle as lost whatever is marked as running by a process that does not live.

    Args:
        transaction: the open transaction.
        settling: records it.
        now: microseconds since 1970.
        chance: draws a random number from 0 up to 1, for the jitter.
        shared: whether others may live, and say so; else nobody does, but for this process, which has begun nothing.
        absent: ids of handlers that are not loaded: their deliveries wait for them.

    Returns:
        How many deliveries went where: *waiting* where the handler declared `retry=` with attempts
        left, *dead* where none is left, *unknown* where it did not declare it.
    """
    settlements = []
    for row in transaction.connection.execute(_LEFT if shared else _RUNS).all():
        retry = retry_from_json(row.retry)
        error = "the process was killed while this attempt ran: it may or may not have done its work"
        made = row.attempt - row.retries_from
        target, due_at = after_loss(retry, made=made, probes=row.probes, now=now, chance=chance)
        if row.handler in absent:
            due_at = None
        settlements.append(
            Settlement(row.id, row.handler, row.attempt, OutcomeKind.LOST, error, "", None, target, due_at, now)
        )
    if settlements:
        settling(transaction, settlements)
        reached("recover.written")
    return {
        state: sum(one.target is state for one in settlements) for state in (State.WAITING, State.DEAD, State.UNKNOWN)
    }


def take_back(
    transaction: Transaction, settling: Settling, hands: Hands, now: int, *, process: str, absent: Collection[str] = ()
) -> int:
    """Let run again what is marked as running here though it was never begun: the COMMIT's answer was lost.

    Args:
        transaction: the open transaction, in the writer's thread: whatever was begun is in `hands`.
        settling: records it.
        hands: what this process does run.
        now: microseconds since 1970.
        process: this process's id.
        absent: ids of handlers that are not loaded: their deliveries wait for them.

    Returns:
        How many there were.
    """
    marked = transaction.connection.execute(_RUNNING_HERE, {"process": process}).all()
    error = "the database's answer was lost when this attempt was to begin; its function was not entered"
    settlements = [
        Settlement(
            row.id,
            row.handler,
            row.attempt,
            OutcomeKind.FAILED,
            error,
            "",
            None,
            State.WAITING,
            None if row.handler in absent else now,
            now,
        )
        for row in marked
        if (row.id, row.attempt) not in hands
    ]
    if settlements:
        settling(transaction, settlements)
    return len(settlements)
