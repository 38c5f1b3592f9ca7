"""Parked: what nobody wants yet, by what it waits for, and what may have been meant; it must not change anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from flowhooks.ledger.queries import EventFilter
from flowhooks.ledger.reroute import oldest_parked_groups
from flowhooks.model.event import ParkedBy
from flowhooks.operations.reroute_parked import is_deliverable, representative_event

if TYPE_CHECKING:
    from flowhooks.ledger.reader import Reader
    from flowhooks.ledger.reroute import ParkedGroup
    from flowhooks.routing.index import Route
    from flowhooks.routing.router import Router

MAX_HINTED_GROUPS: Final = 10
"""Groups for which it is looked up what may have been meant, and which member the oldest event lacks."""
MAX_COMPARED_HANDLERS: Final = 500
"""With more handlers than this nothing is looked up, for each is compared with each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkedGroupStatus:
    """Parked events that wait for the same.

    Attributes:
        facts: what they have in common, and how many they are.
        event_id: the oldest of them.
        oldest_received_at: when that was received, in microseconds since 1970.
        deliverable: whether a reroute would deliver them, or may deliver some, because a condition reads the data of
            each.
        by_data: whether a condition reads their data, so that each of them is routed by its own body.
        undecided: the member that a handler's condition needs and that they lack, `"conclusion"` or a JSON Pointer;
            with `by_data`, the member that the oldest one lacks; `""` if there is none, or it was not looked up.
        hints: what may have been meant.
    """

    facts: ParkedGroup
    event_id: str
    oldest_received_at: int
    deliverable: bool
    by_data: bool
    undecided: str
    hints: tuple[str, ...]


def list_parked_groups(reader: Reader, router: Router, *, max_events: int, n_handlers: int) -> list[ParkedGroupStatus]:
    """What is parked, the largest group first.

    Args:
        reader: the ledger.
        router: the present look-up.
        max_events: how many events are gone through, the oldest ones.
        n_handlers: how many handlers are loaded.

    Raises:
        LedgerUnusable: the ledger cannot be read.
        NewerSelectorsError: handlers are registered that this version cannot route for.
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


def _undecided(reader: Reader, router: Router, event_ids: list[str]) -> dict[str, str]:
    """The member that a handler's condition needs, by the id of each of these events that lacks one."""
    stored = reader.page(EventFilter(ids=tuple(event_ids)), limit=len(event_ids))
    return {event.event.id: _missing_member(router.route(event.event)) for event in stored}


def _missing_member(route: Route) -> str:
    """The member that an event lacks, where it is parked because of that; `""` if it is not parked for that."""
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
