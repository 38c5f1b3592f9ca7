"""Group parked events, with the handlers that accept them now and hints at possible misspellings."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from flowhooks.clock import to_datetime
from flowhooks.ledger.queries import EventFilter
from flowhooks.ledger.route_changes import oldest_parked_groups
from flowhooks.model.event import Event, ParkedBy

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flowhooks.ledger.reader import Reader
    from flowhooks.ledger.route_changes import ParkedGroup
    from flowhooks.operations.context import OperationContext
    from flowhooks.routing.index import Route
    from flowhooks.routing.router import Router

MAX_HINTED_GROUPS: Final = 10
"""Maximum number of groups for which hints and the missing member of the oldest event are determined."""
MAX_COMPARED_HANDLERS: Final = 500
"""Maximum number of handlers for hints. Each pair is compared, so with more handlers there are no hints."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkedGroupStatus:
    """Parked events with the same routing fields.

    Attributes:
        facts: their common fields and their number.
        event_id: id of the oldest event.
        oldest_received_at: time when the oldest event was received, in microseconds since 1970.
        deliverable: whether a reroute would deliver the events, or may deliver some because a condition reads the data
            of each.
        by_data: whether a condition reads the data, so that each event is routed by its own body.
        undecided: member that a handler's condition needs and the events lack, `"conclusion"` or a JSON Pointer; with
            `by_data`, the member that the oldest event lacks; `""` if there is none, or it was not determined.
        hints: hints at what the sender may have meant.
    """

    facts: ParkedGroup
    event_id: str
    oldest_received_at: int
    deliverable: bool
    by_data: bool
    undecided: str
    hints: tuple[str, ...]


def list_parked_groups(reader: Reader, router: Router, *, max_events: int, n_handlers: int) -> list[ParkedGroupStatus]:
    """List the groups of parked events, the largest first.

    Args:
        reader: the ledger.
        router: the current look-up.
        max_events: maximum number of events examined, oldest first.
        n_handlers: number of loaded handlers.

    Raises:
        LedgerUnusable: the ledger cannot be read.
        NewerSelectorsError: handlers are registered whose selectors this version cannot read.
    """
    with reader.connection() as connection:
        groups = oldest_parked_groups(connection, limit=max_events)
    by_data = [router.reads_data(representative_event(group)) for group, *_ in groups]
    undecided_ids = [
        event_id
        for (_, event_id, _), reads_data in zip(groups[:MAX_HINTED_GROUPS], by_data[:MAX_HINTED_GROUPS], strict=True)
        if reads_data
    ]
    lacking = _undecided(reader, router, undecided_ids) if undecided_ids else {}
    return [
        ParkedGroupStatus(
            facts=group,
            event_id=event_id,
            oldest_received_at=received_at,
            deliverable=is_deliverable(router, group),
            by_data=by_data[index],
            undecided=lacking.get(event_id, "")
            if by_data[index]
            else _missing_member(router.route(representative_event(group))),
            hints=_hints(router, group) if index < MAX_HINTED_GROUPS and n_handlers <= MAX_COMPARED_HANDLERS else (),
        )
        for index, (group, event_id, received_at) in enumerate(groups)
    ]


def count_deliverable(context: OperationContext) -> int:
    """Count the parked events that a reroute may deliver; if a condition reads the data, the whole group counts."""
    return sum(group.events for group in context.reader.parked() if is_deliverable(context.router, group))


def is_deliverable(router: Router, group: ParkedGroup) -> bool:
    """Tell whether a reroute would deliver a group of parked events, or must route each by its own data."""
    if group.end_undecided:
        return False
    event = representative_event(group)
    return not router.route(event).parked or router.reads_data(event)


def count_parked_by_handler(router: Router, groups: Iterable[ParkedGroup]) -> dict[str, int]:
    """Count the parked events that each handler would accept now by class or key; handlers without any are left out."""
    counts: Counter[str] = Counter()
    for group in groups:
        route = router.route(representative_event(group))
        if not route.parked and not group.end_undecided:
            # An `every` handler got its delivery when the event was received, or was not installed then.
            counts.update(
                {handler: group.events for handler, reason in route.handlers.items() if not reason.startswith("every")}
            )
    return dict(counts)


def representative_event(group: ParkedGroup) -> Event:
    """Return an event that any router treats like those of the group."""
    return Event(
        id="",
        source=group.source,
        kind=group.kind,
        flow_instance_id="",
        callback_class=group.callback_class or None,
        process_definition_key=group.process_key,
        process_definition_version=group.process_version,
        conclusion=group.conclusion,
        data={},
        received_at=to_datetime(0),
    )


def _undecided(reader: Reader, router: Router, event_ids: list[str]) -> dict[str, str]:
    """Map events to the member that a handler's condition needs and they lack."""
    stored = reader.page(EventFilter(ids=tuple(event_ids)), limit=len(event_ids))
    return {event.event.id: _missing_member(router.route(event.event)) for event in stored}


def _missing_member(route: Route) -> str:
    """Return the member that a parked event lacks; `""` if it is parked for another reason."""
    return route.undecided if route.parked_by is ParkedBy.CONDITION else ""


def _hints(router: Router, group: ParkedGroup) -> tuple[str, ...]:
    return router.explain(
        callback_class=group.callback_class,
        process_key=group.process_key,
        version=group.process_version,
        source=group.source,
        kind=group.kind,
        conclusion=group.conclusion,
    ).hints
