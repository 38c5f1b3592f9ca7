"""Check a handler's conditions again before an attempt, because they may have changed since the event was routed.

A false condition closes the delivery. An undecided condition suspends it: it waits without a due time, with the reason
as its comment, until a process that has loaded the handler starts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from flowhooks.errors import LedgerUnusable, Unavailable
from flowhooks.execution.recorder import EndedAttempt
from flowhooks.ledger.attempts import AttemptResult
from flowhooks.ledger.deliveries import StateChange, apply_changes, suspend
from flowhooks.ledger.delivery_settled import DeliverySettled
from flowhooks.model.delivery import Delivery, OutcomeKind, State
from flowhooks.model.log_fields import event_log_fields

if TYPE_CHECKING:
    from flowhooks.clock import Clock
    from flowhooks.execution.recorder import OutcomeRecorder
    from flowhooks.ledger.ledger import Ledger
    from flowhooks.ledger.queries import DeliveryStatus
    from flowhooks.model.event import Event
    from flowhooks.model.handler import Handler
    from flowhooks.model.ready_delivery import ClaimedAttempt, ReadyDelivery

FALSE_NOTE: Final = "not run: the handler's condition is false"
UNDECIDED_NOTE: Final = "not run: the handler's condition cannot be decided"

log = structlog.get_logger(__name__)


class ConditionCheck:
    """Decides whether a delivery may still run, and settles it if it may not.

    Args:
        ledger: reads and changes deliveries.
        recorder: records attempts that have ended without a call, and publishes changes.
        clock: current time.
    """

    def __init__(self, ledger: Ledger, recorder: OutcomeRecorder, clock: Clock) -> None:
        self._ledger = ledger
        self._recorder = recorder
        self._clock = clock

    def passes(self, handler: Handler, queued: ReadyDelivery, claimed: ClaimedAttempt | None) -> bool:
        """Return whether the handler's conditions hold for a delivery's event; otherwise close or suspend the delivery.

        Args:
            handler: the delivery's handler, as this process has loaded it. It has conditions.
            queued: the delivery.
            claimed: its attempt, if the runner has claimed it already.

        Raises:
            Unavailable: the ledger could not be read or written; nothing is changed.
        """
        if claimed is not None:
            if handler.selectors.decide(claimed.event):
                return True
            self._end_attempt(handler, queued, claimed)
            return False
        try:
            stored = self._ledger.delivery(queued.delivery_id)
        except LedgerUnusable as error:
            raise Unavailable("ledger_down") from error
        if stored is None or handler.selectors.decide(stored[0]):
            return True
        self._close_or_suspend(handler, *stored, queued.attempt)
        return False

    def _close_or_suspend(self, handler: Handler, event: Event, status: DeliveryStatus, attempt: int) -> None:
        """Close or suspend a waiting delivery if it is unchanged since the runner read it."""
        target, note = _next_state(handler, event)
        now = self._clock.now()
        if target is State.CLOSED:
            change = StateChange(status.delivery_id, State.WAITING, State.CLOSED, attempt, now, comment=note)
            changed = bool(self._ledger.write(lambda transaction: apply_changes(transaction, [change])))
        else:
            changed = self._ledger.write(
                lambda transaction: suspend(transaction, status.delivery_id, attempt, comment=note, now=now)
            )
        if changed:
            self._log(status.delivery_id, status.handler, event, target, note)
            delivery = Delivery(id=status.delivery_id, event_id=event.id, handler=handler.id, attempt=attempt)
            settled = status._replace(state=target, due_at=None, comment=note)
            self._recorder.publish(DeliverySettled(event, delivery, settled))

    def _end_attempt(self, handler: Handler, queued: ReadyDelivery, claimed: ClaimedAttempt) -> None:
        """End an attempt whose function was not entered."""
        event = claimed.event
        target, note = _next_state(handler, event)
        delivery = Delivery(id=queued.delivery_id, event_id=event.id, handler=queued.handler, attempt=claimed.attempt)
        result = AttemptResult(
            delivery.id,
            delivery.handler,
            delivery.attempt,
            OutcomeKind.FAILED,
            note,
            "",
            None,
            target,
            None,
            self._clock.now(),
        )
        self._log(delivery.id, delivery.handler, event, target, note)
        self._recorder.record(EndedAttempt(event, delivery, result))

    @staticmethod
    def _log(delivery_id: str, handler_id: str, event: Event, target: State, note: str) -> None:
        log.warning(
            "condition_not_met",
            handler=handler_id,
            delivery=delivery_id,
            **event_log_fields(event),
            state=target.value,
            why=note,
            next=f"`flowhooks events show {delivery_id}` shows the event and the delivery",
        )


def _next_state(handler: Handler, event: Event) -> tuple[State, str]:
    why = handler.selectors.why_not(event)
    if handler.selectors.decide(event) is False:
        return State.CLOSED, f"{FALSE_NOTE}: {why}"
    return State.WAITING, f"{UNDECIDED_NOTE}: {why}"
