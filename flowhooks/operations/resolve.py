"""Resolve: an operator says of one delivery what the machine cannot know; it must not know who asks."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from flowhooks.errors import InvalidTransition, NotFound
from flowhooks.failpoints import hit
from flowhooks.ledger.deliveries import StateChange, apply_changes
from flowhooks.model.delivery import State
from flowhooks.operations.context import Deed

if TYPE_CHECKING:
    from flowhooks.ledger.group_commit import WriteTransaction
    from flowhooks.ledger.queries import DeliveryStatus
    from flowhooks.operations.context import Desk


class Verdict(StrEnum):
    """What an operator says of a delivery."""

    DID = "did"
    DID_NOT = "did-not"
    CLOSE = "close"


TARGET: Final = {Verdict.DID: State.SUCCEEDED, Verdict.DID_NOT: State.WAITING, Verdict.CLOSE: State.CLOSED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """What was changed, or would be.

    Attributes:
        delivery_id: the delivery.
        handler: its handler.
        before: the state that it was in.
        after: the state that it is in now.
        dry_run: whether nothing was changed.
    """

    delivery_id: str
    handler: str
    before: State
    after: State
    dry_run: bool


def resolve(desk: Desk, delivery_id: str, verdict: Verdict, *, note: str = "", dry_run: bool = False) -> Resolved:
    """Say that an *unknown* delivery did its work, or did not (it then runs again); or close one for good.

    Args:
        desk: what operations work with.
        delivery_id: the delivery.
        verdict: `did`, `did-not`, or `close` (an *unknown*, *dead* or *waiting* one of which no more is needed).
        note: why, for those who look later.
        dry_run: only say what would change.

    Raises:
        NotFound: there is no such delivery.
        IllegalMove: it is in a state of which this cannot be said, or has just moved on.
    """
    found = desk.ledger.delivery(delivery_id)
    if found is None:
        raise NotFound(f"there is no delivery {delivery_id}")
    event, standing = found
    target = TARGET[verdict]
    if verdict is not Verdict.CLOSE and standing.state is not State.UNKNOWN:
        raise InvalidTransition(
            f"delivery {delivery_id} is {standing.state}: only of an unknown one can it be said whether it did its work"
        )
    if verdict is Verdict.CLOSE and standing.state not in {State.UNKNOWN, State.DEAD, State.WAITING}:
        raise InvalidTransition(f"delivery {delivery_id} is {standing.state}: it cannot be closed")
    if not dry_run:
        said = note or f"an operator said: {verdict}"
        detail = {"delivery": delivery_id, "handler": standing.handler, "verdict": verdict.value, "note": note}
        moved = desk.change(
            lambda transaction: _said(desk, transaction, standing, target, said),
            lambda _moved: Deed("resolve", event.id, detail),
        )
        hit("resolve.committed")
        if not moved:
            raise InvalidTransition(f"delivery {delivery_id} has just moved on; look at it again")
    return Resolved(
        delivery_id=delivery_id, handler=standing.handler, before=standing.state, after=target, dry_run=dry_run
    )


def _said(desk: Desk, transaction: WriteTransaction, standing: DeliveryStatus, target: State, note: str) -> set[str]:
    if target is State.WAITING:
        moved = desk.ledger.requeue(
            transaction, [standing], missing_handlers=desk.absent, reset_retries=True, note=note
        )
    else:
        change = StateChange(
            standing.delivery_id, standing.state, target, standing.attempt, desk.clock.now(), note=note
        )
        moved = apply_changes(transaction, [change])
    hit("resolve.written")
    return moved
