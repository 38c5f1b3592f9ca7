"""New routes for stored events, mainly for parked ones."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import case, func, literal_column, select, update

from flowhooks.ledger.damaged_rows import repair, shown_time
from flowhooks.ledger.deliveries import NEXT, NewDelivery, store
from flowhooks.ledger.ordering import assign_positions
from flowhooks.ledger.tables import IS_PARKED, events
from flowhooks.ledger.transaction import OrderGroup
from flowhooks.model.event import EventState
from flowhooks.model.ready_delivery import ReadyDelivery

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from sqlalchemy import Connection

    from flowhooks.ledger.delivery_queue import DeliveryQueue
    from flowhooks.ledger.transaction import WriteTransaction


class ParkedGroup(NamedTuple):
    """Parked events that a router treats alike.

    Attributes:
        kind: their kind of callback.
        source: the engine that sent them.
        callback_class: their class; `""` if they have none.
        process_key: their process definition key, or None.
        process_version: their process definition version, or None.
        conclusion: their conclusion, or None.
        events: number of events.
        end_undecided: whether the engine's history does not tell how their instances ended, or their instance ids are
            used again. Only an operator or a late callback routes them.
    """

    kind: str
    source: str
    callback_class: str
    process_key: str | None
    process_version: int | None
    conclusion: str | None
    events: int
    end_undecided: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteChange:
    """A new route of an event, or its dismissal.

    Attributes:
        event_id: the event's id.
        state: routed, parked or dismissed.
        parked_by: why it is parked; None if it is not.
        dismissed_by: why it is dismissed; None if it is not.
        no_match: why handlers that share its class or key do not get it, as JSON; None: not stored.
        route: its whole route: a route only grows, so the previous one is included.
        deliveries: (delivery id, handler id) for each handler that is added.
        order_keys: the order key of the event for each added handler that is ordered.
        expected_state: the state of the event when it was read.
        expected_body: the body of the event when it was read, if a late callback may replace it; None: it cannot
            change.
    """

    event_id: str
    state: str
    parked_by: str | None = None
    dismissed_by: str | None = None
    no_match: str | None = None
    route: Mapping[str, str]
    deliveries: tuple[tuple[str, str], ...]
    order_keys: Mapping[str, str] = field(default_factory=dict)
    expected_state: str = EventState.PARKED.value
    expected_body: str | None = None

    @property
    def expected_size(self) -> int:
        """Number of handlers in the route when it was read."""
        return len(self.route) - len(self.deliveries)


_GROUP_COLUMNS: Final = (
    events.c.kind,
    events.c.source,
    events.c.callback_class,
    events.c.process_definition_key,
    events.c.process_definition_version,
    events.c.conclusion,
)
_END_UNDECIDED: Final = case(
    (events.c.parked_by.in_([literal_column("'end_state'"), literal_column("'reused_id'")]), literal_column("1")),
    else_=0,
).label("end_undecided")
_GROUP_BY: Final = (*_GROUP_COLUMNS, _END_UNDECIDED)


def parked_groups(connection: Connection) -> list[ParkedGroup]:
    """Return the parked events, grouped by the properties that a router uses, largest group first."""
    query = select(*_GROUP_BY, func.count()).where(IS_PARKED).group_by(*_GROUP_BY)
    return [_to_group(row, row[-1]) for row in connection.execute(query.order_by(func.count().desc()))]


class ParkedWindow(NamedTuple):
    """Parked events that follow each other.

    Attributes:
        groups: their groups, divided further by the stored reason, each with that reason.
        next: the id of the last of them; `""` if no parked event follows.
    """

    groups: list[tuple[ParkedGroup, str | None]]
    next: str


def parked_window(connection: Connection, *, after: str, limit: int) -> ParkedWindow:
    """Return the groups of parked events after an event id, oldest first, at most `limit` events."""
    parked = select(*_GROUP_BY, events.c.parked_by, events.c.id).where(IS_PARKED, events.c.id > after)
    each = parked.order_by(events.c.id).limit(limit).subquery("each")
    columns = [each.c[column.name] for column in (*_GROUP_BY, events.c.parked_by)]
    rows = connection.execute(select(*columns, func.count(), func.max(each.c.id)).group_by(*columns)).all()
    groups = [(_to_group(row, row[-2]), row[-3]) for row in rows]
    is_full = sum(group.events for group, _ in groups) == limit
    return ParkedWindow(groups, max(row[-1] for row in rows) if is_full else "")


def oldest_parked_groups(connection: Connection, *, limit: int) -> list[tuple[ParkedGroup, str, int]]:
    """Return the oldest parked events, grouped by the properties that a router uses, largest group first.

    Args:
        connection: any connection.
        limit: number of events that are read, the oldest ones.

    Returns:
        Each group, whose `events` counts only the events that were read; the id of its oldest event; and when that
        event was received, in microseconds since 1970.
    """
    parked = select(*_GROUP_BY, events.c.id, events.c.received_at).where(IS_PARKED)
    each = parked.order_by(events.c.id).limit(limit).subquery("each")
    columns = [each.c[column.name] for column in _GROUP_BY]
    query = select(*columns, func.count(), func.min(each.c.id), func.min(each.c.received_at)).group_by(*columns)
    rows = connection.execute(query.order_by(func.count().desc(), func.min(each.c.id)))
    return [(_to_group(row, row[-3]), row[-2], shown_time(row[-1])) for row in rows]


def _to_group(row: Any, n_events: int) -> ParkedGroup:
    repaired, _ = repair(row, _GROUP_COLUMNS)
    columns = (getattr(repaired, column.name) for column in _GROUP_COLUMNS)
    return ParkedGroup._make((*columns, n_events, bool(row.end_undecided)))


def reroute(
    transaction: WriteTransaction,
    items: list[RouteChange],
    *,
    runner: DeliveryQueue,
    missing_handlers: Collection[str],
    now: int,
) -> set[str]:
    """Store new states, routes and deliveries of events, if the events are still as they were read.

    Args:
        transaction: the open transaction.
        items: the changes, sorted by event id, so that two processes do not deadlock.
        runner: receives, within the transaction, the deliveries that may run.
        missing_handlers: ids of handlers that are not loaded: their deliveries are suspended.
        now: microseconds since 1970.

    Returns:
        The ids of the changed events.
    """
    rerouted: set[str] = set()
    for item in items:
        changed = transaction.connection.execute(
            update(events)
            .where(
                events.c.id == item.event_id,
                events.c.state == item.expected_state,
                events.c.route_size == item.expected_size,  # a route only grows, so the same size means the same route
                *([] if item.expected_body is None else [events.c.body == item.expected_body]),
            )
            .values(
                state=item.state,
                parked_by=item.parked_by,
                dismissed_by=item.dismissed_by,
                no_match=item.no_match,
                route=json.dumps(item.route, ensure_ascii=False),
                route_size=len(item.route),
                rerouted_at=now,
            )
        ).rowcount
        if not changed:
            continue
        rerouted.add(item.event_id)
        add_deliveries(
            transaction,
            item.event_id,
            item.deliveries,
            order_keys=item.order_keys,
            runner=runner,
            missing_handlers=missing_handlers,
            now=now,
        )
    return rerouted


def add_deliveries(
    transaction: WriteTransaction,
    event_id: str,
    added: Sequence[tuple[str, str]],
    *,
    order_keys: Mapping[str, str],
    runner: DeliveryQueue,
    missing_handlers: Collection[str],
    now: int,
) -> None:
    """Store further deliveries of a stored event as *waiting*.

    Args:
        transaction: the open transaction.
        event_id: the event's id.
        added: (delivery id, handler id) for each delivery.
        order_keys: the order key of the event for each of the handlers that is ordered.
        runner: receives, within the transaction, the deliveries that may run.
        missing_handlers: ids of handlers that are not loaded: their deliveries are suspended.
        now: microseconds since 1970.
    """
    ordered = [
        (delivery_id, OrderGroup(handler, order_keys[handler]))
        for delivery_id, handler in added
        if handler in order_keys
    ]
    positions = assign_positions(transaction, ordered) if ordered else {}
    store(
        transaction,
        [
            NewDelivery(
                delivery_id,
                event_id,
                handler,
                now,
                handler_missing=handler in missing_handlers,
                position=positions.get(delivery_id),
            )
            for delivery_id, handler in added
        ],
    )
    queued = [
        ReadyDelivery(delivery_id, handler, 0, ordered=delivery_id in positions)
        for delivery_id, handler in added
        if handler not in missing_handlers and (delivery_id not in positions or positions[delivery_id].number == NEXT)
    ]
    if queued:
        runner.enqueue(transaction, queued, now)
