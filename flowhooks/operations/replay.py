"""Replay: new attempts on existing deliveries, history kept; it never routes again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from flowhooks.delivery import State

if TYPE_CHECKING:
    from flowhooks.ledger.reading import EventFilter, Standing
    from flowhooks.operations import Desk

AT_ONCE: Final = 200
"""Deliveries moved in one transaction, so that accepting goes on meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What a replay did, or would do.

    Attributes:
        events: how many events the filter meant.
        deliveries: how many of their deliveries run again.
        passed_over: how many were in a state from which they are not replayed.
        moved_on: how many had changed when their turn came, and were left alone.
        dry_run: whether nothing was changed.
    """

    events: int
    deliveries: int
    passed_over: int
    moved_on: int
    dry_run: bool


def replay(desk: Desk, wanted: EventFilter, *, again: bool = False, dry_run: bool = False) -> Replayed:
    """Run dead deliveries again, with a fresh retry schedule.

    Args:
        desk: what operations work with.
        wanted: which events; its `handler` also says which of their deliveries.
        again: also those that succeeded: their handlers do their work a second time.
        dry_run: only count.

    Raises:
        Unavailable: the ledger could not be written; what was moved before stays moved, and calling again goes on.
    """
    states = {State.DEAD, State.SUCCEEDED} if again else {State.DEAD}
    events = deliveries = passed_over = moved_on = 0
    batch: list[Standing] = []

    def flush() -> None:
        nonlocal deliveries, moved_on
        moved = desk.ledger.write(
            lambda transaction: desk.ledger.requeue(transaction, batch, absent=desk.absent, fresh=True)
        )
        deliveries += len(moved)
        moved_on += len(batch) - len(moved)
        batch.clear()

    for stored in desk.ledger.each(wanted):
        events += 1
        for standing in stored.standings:
            if wanted.handler is not None and standing.handler != wanted.handler:
                continue
            if standing.state not in states:
                passed_over += 1
            elif dry_run:
                deliveries += 1
            else:
                batch.append(standing)
        if len(batch) >= AT_ONCE:
            flush()
        desk.told(events)
    if batch:
        flush()
    return Replayed(
        events=events, deliveries=deliveries, passed_over=passed_over, moved_on=moved_on, dry_run=dry_run
    )
