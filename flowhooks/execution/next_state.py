"""Decide the state of a delivery after an attempt: succeeded, dead, unknown, or waiting for a retry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowhooks.clock import SECOND
from flowhooks.ledger.recovery import state_after_loss
from flowhooks.model.delivery import OutcomeKind, State
from flowhooks.model.retry import Retry, attempts_made

if TYPE_CHECKING:
    from flowhooks.clock import Clock
    from flowhooks.model.delivery import Outcome
    from flowhooks.model.handler import Handler
    from flowhooks.model.ready_delivery import ClaimedAttempt


def next_state(
    handler: Handler, outcome: Outcome, claimed: ClaimedAttempt, *, now: int, clock: Clock
) -> tuple[State, int | None]:
    """Return the state of a delivery after an attempt, and when its next attempt is due.

    Args:
        handler: the delivery's handler.
        outcome: how the attempt ended.
        claimed: the attempt.
        now: when it ended, in microseconds since 1970.
        clock: random numbers for the jitter.
    """
    if outcome.succeeded:
        return State.SUCCEEDED, None
    if outcome.kind is OutcomeKind.REJECTED:
        return State.DEAD, None
    made = attempts_made(claimed.attempt, claimed.retry_base)
    if outcome.kind is OutcomeKind.LOST:
        return state_after_loss(
            handler.retry,
            attempts_made=made,
            has_probe=handler.probe is not None,
            now=now,
            random=clock.random,
        )
    # Without `retry=` a failure is final, unless the function raised RetryAfter. If the function was not entered,
    # retrying is safe even without `retry=` or after the last attempt.
    schedules = [handler.retry] if handler.retry else []
    if not outcome.entered or (handler.retry is None and outcome.retry_after is not None):
        schedules.append(Retry())
    random = clock.random()
    delays = [delay for schedule in schedules if (delay := schedule.delay(made, random)) is not None]
    if not delays:
        return State.DEAD, None
    delay = delays[0] if outcome.retry_after is None else outcome.retry_after
    return State.WAITING, now + int(delay * SECOND)
