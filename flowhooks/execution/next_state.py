"""Decide the state of a delivery after an attempt: succeeded, dead, unknown, or waiting for a retry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowhooks.clock import SECOND
from flowhooks.ledger.recovery import state_after_loss
from flowhooks.model.delivery import OutcomeKind, State
from flowhooks.model.retry import Retry

if TYPE_CHECKING:
    from flowhooks.clock import Clock
    from flowhooks.model.delivery import Outcome
    from flowhooks.model.handler import Handler


def next_state(
    handler: Handler, outcome: Outcome, *, attempts_made: int, now: int, clock: Clock
) -> tuple[State, int | None]:
    """Return the state of a delivery after an attempt, and when its next attempt is due.

    Args:
        handler: the delivery's handler.
        outcome: how the attempt ended.
        attempts_made: number of attempts of the current retry schedule, this one included.
        now: when it ended, in microseconds since 1970.
        clock: random numbers for the jitter.
    """
    if outcome.succeeded:
        return State.SUCCEEDED, None
    if outcome.kind is OutcomeKind.REJECTED:
        return State.DEAD, None
    if outcome.kind is OutcomeKind.LOST:
        return state_after_loss(
            handler.retry,
            attempts_made=attempts_made,
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
    delays = [delay for schedule in schedules if (delay := schedule.delay(attempts_made, random)) is not None]
    if not delays:
        return State.DEAD, None
    delay = delays[0] if outcome.retry_after is None else outcome.retry_after
    return State.WAITING, now + int(delay * SECOND)
