"""The signal that a delivery has settled, for the parts of the process that act on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from flowhooks.ledger.queries import DeliveryStatus
    from flowhooks.model.delivery import Delivery, Outcome
    from flowhooks.model.error_group import ErrorIdentity
    from flowhooks.model.event import Event


class DeliverySettled(NamedTuple):
    """A delivery got another state, and the change is durable.

    Subscribers must return quickly, because they are called in the ledger's writer thread, or in the thread that made
    the attempt.

    Attributes:
        event: the event.
        delivery: the delivery, as its handler saw it.
        status: the delivery's new status.
        outcome: how its attempt ended; None if its handler was not called.
        seconds: the run time of the handler; 0 if it was not called.
        error_identity: what the error of its attempt has in common with others; None if it has no error.
    """

    event: Event
    delivery: Delivery
    status: DeliveryStatus
    outcome: Outcome | None = None
    seconds: float = 0.0
    error_identity: ErrorIdentity | None = None
