"""The queue that receives deliveries within the transactions of the ledger, which a runner provides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flowhooks.ledger.transaction import WriteTransaction
    from flowhooks.model.ready_delivery import ReadyDelivery


class DeliveryQueue(Protocol):
    """Receives the deliveries that may run.

    The ledger alone decides which attempt is made, so a missing or duplicate delivery in the queue is harmless.
    """

    def reserve(self, transaction: WriteTransaction, deliveries: Sequence[ReadyDelivery]) -> Sequence[ReadyDelivery]:
        """Return those of `deliveries`, which are about to be stored, that run as soon as `transaction` is durable.

        They are stored as *running* at once, which saves the claim. A queue of other processes returns none.
        """

    def enqueue(self, transaction: WriteTransaction, deliveries: Sequence[ReadyDelivery], not_before: int) -> None:
        """Queue, within `transaction`, deliveries that may run from `not_before` (microseconds since 1970)."""
