"""Deliveries that may run and attempts that have started, as ledger and execution pass them to each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowhooks.model.event import Event


class ReadyDelivery(NamedTuple):
    """A delivery that may run, as runners queue it.

    Attributes:
        delivery_id: the delivery's id.
        handler: the handler's id; runners may queue by it.
        attempt: number of attempts made so far. The claim succeeds only if the ledger still has this number.
        probe: whether the delivery is *unknown*, so that the handler's `probe=` is called instead of its function.
        ordered: whether the delivery has an order key.
        load_event: returns a new copy of the event while the delivery is being stored; None otherwise. Runners must
            not keep it, because it references the body.
    """

    delivery_id: str
    handler: str
    attempt: int
    probe: bool = False
    ordered: bool = False
    load_event: Callable[[], Event] | None = None

    def to_claimed_attempt(self) -> ClaimedAttempt | None:
        """Return the first attempt of a delivery that is being stored as running; None without `load_event`."""
        return None if self.load_event is None else ClaimedAttempt(event=self.load_event(), attempt=1, retry_base=0)


class ClaimedAttempt(NamedTuple):
    """An attempt whose delivery is durably marked as running.

    Attributes:
        event: a copy of the event that no other attempt shares.
        attempt: the attempt's number, from 1.
        retry_base: number of attempts made before the current retry schedule started.
    """

    event: Event
    attempt: int
    retry_base: int


class LimitReached:
    """Returned instead of an attempt if the handler's concurrency limit or its rate, over all processes, is reached."""

    __slots__ = ()
