"""Resolve: an operator decides the state of one delivery, which flowhooks cannot know."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from flowhooks.errors import InvalidTransition, NotFound
from flowhooks.failpoints import hit
from flowhooks.ledger.deliveries import StateChange, apply_changes
from flowhooks.model.delivery import State, Trigger
from flowhooks.operations.context import AuditRecord

if TYPE_CHECKING:
    from flowhooks.ledger.queries import DeliveryStatus
    from flowhooks.ledger.transaction import WriteTransaction
    from flowhooks.operations.context import OperationContext


class Resolution(StrEnum):
    """An operator's decision about a delivery."""

    DID = "did"
    DID_NOT = "did-not"
    CLOSE = "close"


TARGET_STATES: Final = {
    Resolution.DID: State.SUCCEEDED,
    Resolution.DID_NOT: State.WAITING,
    Resolution.CLOSE: State.CLOSED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolveResult:
    """Result of a resolution, or of its dry run.

    Attributes:
        delivery_id: id of the delivery.
        handler: id of the handler.
        before: state before the resolution.
        after: state after the resolution.
        dry_run: whether nothing was changed.
    """

    delivery_id: str
    handler: str
    before: State
    after: State
    dry_run: bool


def resolve(
    context: OperationContext, delivery_id: str, verdict: Resolution, *, note: str = "", dry_run: bool = False
) -> ResolveResult:
    """Record whether an *unknown* delivery did its work, or close a delivery.

    Args:
        context: what operations work with.
        delivery_id: id of the delivery.
        verdict: `did` (it succeeded), `did-not` (it runs again), or `close` (nothing more is needed of an *unknown*,
            *dead* or *waiting* delivery).
        note: reason, stored with the delivery and in the audit log.
        dry_run: only report what would change.

    Raises:
        NotFound: there is no such delivery.
        InvalidTransition: the verdict does not apply to the delivery's state, or the state has just changed, or the row
            of the delivery is damaged.
    """
    stored = context.reader.shown_delivery(delivery_id)
    if stored is None:
        raise NotFound(f"there is no delivery {delivery_id}")
    event_id, status, damage = stored
    if damage:
        raise InvalidTransition(f"delivery {delivery_id} cannot be resolved because its row is {damage}")
    target_state = TARGET_STATES[verdict]
    if verdict is not Resolution.CLOSE and status.state is not State.UNKNOWN:
        raise InvalidTransition(
            f"delivery {delivery_id} is {status.state}: only an unknown delivery can be marked as done or not done"
        )
    if verdict is Resolution.CLOSE and status.state not in {State.UNKNOWN, State.DEAD, State.WAITING}:
        raise InvalidTransition(f"delivery {delivery_id} is {status.state}: it cannot be closed")
    if not dry_run:
        comment = note or f"resolved by an operator: {verdict}"
        detail = {"delivery": delivery_id, "handler": status.handler, "verdict": verdict.value, "note": note}
        changed = context.change(
            lambda transaction: _write(context, transaction, status, target_state, comment),
            lambda _moved: AuditRecord("resolve", event_id, detail),
        )
        hit("resolve.committed")
        if not changed:
            raise InvalidTransition(f"delivery {delivery_id} has changed meanwhile; check its state again")
    return ResolveResult(
        delivery_id=delivery_id, handler=status.handler, before=status.state, after=target_state, dry_run=dry_run
    )


def _write(
    context: OperationContext, transaction: WriteTransaction, status: DeliveryStatus, target: State, note: str
) -> set[str]:
    if target is State.WAITING:
        moved = context.ledger.requeue(
            transaction,
            [status],
            trigger=Trigger.RESOLVED,
            actor=context.actor,
            missing_handlers=context.missing_handlers,
            reset_retries=True,
            comment=note,
        )
    else:
        change = StateChange(
            status.delivery_id, status.state, target, status.attempt, context.clock.now(), comment=note
        )
        moved = apply_changes(transaction, [change])
    hit("resolve.written")
    return moved
