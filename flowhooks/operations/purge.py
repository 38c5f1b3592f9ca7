"""Purge: old events go, with all that is theirs, and only who they were is kept."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

from flowhooks.errors import SettingsError
from flowhooks.failpoints import hit
from flowhooks.ledger.purge import PURGED_BY_DEFAULT, PURGED_ON_REQUEST
from flowhooks.operations.context import AuditRecord

if TYPE_CHECKING:
    from flowhooks.ledger.purge import Cutoffs
    from flowhooks.ledger.queries import EventFilter
    from flowhooks.operations.context import OperationContext

PAGE_SIZE: Final = 100
"""Events gone through by one call, and deleted by one transaction at the most: call-backs that come wait for it."""
MAX_DUTY_CYCLE: Final = 0.2
"""The part of the time that a purge may take: the rest is for call-backs."""

PURGE_FILTER_SCHEMA: Final[dict[str, Any]] = {
    "properties": {"until": {"type": "integer"}, "state": {"enum": [*PURGED_BY_DEFAULT, *PURGED_ON_REQUEST, None]}},
    "required": ["until"],
}
"""What a purge asks of a filter besides, as JSON Schema says it to those who ask over HTTP."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PurgeResult:
    """What one call of a purge did, or would do.

    Attributes:
        events: how many events it went through.
        purged: how many of them went.
        deliveries: how many deliveries went with them.
        next: where to go on, as the next call's `after`; `""` when all is done.
        dry_run: whether nothing was changed.
    """

    events: int
    purged: int
    deliveries: int
    next: str
    dry_run: bool


def purge(
    context: OperationContext,
    event_filter: Annotated[EventFilter, PURGE_FILTER_SCHEMA],
    *,
    dry_run: bool = False,
    after: str = "",
) -> PurgeResult:
    """Delete old events, a page for each call.

    Those that are done go: all of their deliveries succeeded or were closed, or they were dismissed. With a state only
    those in it, which may also be *dead* or *parked*: to purge such a one is to say that nothing more is needed.

    Args:
        context: what operations work with.
        event_filter: which events; `until` must be given, and nothing may have happened to them since.
        dry_run: only count.
        after: where the last call left off.

    Raises:
        SettingsError: there is no `until`, or the state is one in which no event goes.
        Unavailable: the ledger could not be written; the call changed nothing, and may be made again.
    """
    cutoffs, started_at = cutoffs_from_filter(event_filter), time.monotonic()
    page = context.ledger.purgeable(cutoffs, event_filter=event_filter, after=after, limit=PAGE_SIZE)
    purged, deliveries = len(page.ids), page.deliveries
    if page.ids and not dry_run:
        purged, deliveries = context.change(
            lambda transaction: context.ledger.purge(transaction, page.ids, cutoffs),
            lambda done: AuditRecord("purge", "", {"event_filter": event_filter.to_json(), "events": done.events}),
        )
        hit("purge.committed")
        if page.next:
            time.sleep((time.monotonic() - started_at) * (1 / MAX_DUTY_CYCLE - 1))
    return PurgeResult(events=page.examined, purged=purged, deliveries=deliveries, next=page.next, dry_run=dry_run)


def cutoffs_from_filter(event_filter: EventFilter) -> Cutoffs:
    """In which states events are meant to go, and how old.

    Raises:
        SettingsError: as `purge` has it.
    """
    if event_filter.until is None:
        raise SettingsError("a purge needs a time before which events are old enough: event_filter.until")
    if event_filter.state is None:
        return dict.fromkeys(PURGED_BY_DEFAULT, event_filter.until)
    if event_filter.state not in {*PURGED_BY_DEFAULT, *PURGED_ON_REQUEST}:
        states = ", ".join((*PURGED_BY_DEFAULT, *PURGED_ON_REQUEST))
        raise SettingsError(f"events that are {event_filter.state} are never purged; there are {states}")
    return {event_filter.state: event_filter.until}
