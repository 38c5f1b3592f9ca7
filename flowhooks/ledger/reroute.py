"""Events that are routed again, parked ones above all; it must not know how a route is found, or who asks."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import func, select, update

from flowhooks.ledger.deliveries import NEXT, Lane, NewDelivery, store
from flowhooks.ledger.ordering import line_up
from flowhooks.ledger.tables import events
from flowhooks.model.delivery import Queued
from flowhooks.model.event import EventState

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from sqlalchemy import Connection

    from flowhooks.ledger.group_commit import Transaction
    from flowhooks.model.delivery import Runner


class ParkedGroup(NamedTuple):
    """Parked events that any router would treat alike.

    Attributes:
        kind: their kind of call-back.
        source: their engine.
        callback_class: their class; `""` where they named none.
        process_key: their process definition key, or None.
        process_version: their process definition version, or None.
        conclusion: their conclusion, or None.
        events: how many there are.
    """

    kind: str
    source: str
    callback_class: str
    process_key: str | None
    process_version: int | None
    conclusion: str | None
    events: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rerouted:
    """An event that goes elsewhere by now, or nowhere any more.

    Attributes:
        event_id: the event.
        state: routed, parked or dismissed.
        parked_by: why it is parked; None if it is not.
        dismissed_by: why it is dismissed; None if it is not.
        no_match: why handlers that share its class or key do not get it, as JSON; None: nothing is kept of that.
        route: its whole route, with what it had before: a route only grows.
        deliveries: (delivery id, handler id) for each handler that is new to it.
        order_keys: the event's order key, for each of those that is ordered.
        seen: the state in which the event was read.
    """

    event_id: str
    state: str
    parked_by: str | None = None
    dismissed_by: str | None = None
    no_match: str | None = None
    route: Mapping[str, str]
    deliveries: tuple[tuple[str, str], ...]
    order_keys: Mapping[str, str] = field(default_factory=dict)
    seen: str = EventState.PARKED.value

    @property
    def seen_size(self) -> int:
        """How many deliveries the route that was read asked for."""
        return len(self.route) - len(self.deliveries)


_ALIKE: Final = (
    events.c.kind,
    events.c.source,
    events.c.callback_class,
    events.c.process_definition_key,
    events.c.process_definition_version,
    events.c.conclusion,
)


def parked_groups(connection: Connection) -> list[ParkedGroup]:
    """What is parked, by what a router looks at; the largest group first."""
    query = select(*_ALIKE, func.count()).where(events.c.state == "parked").group_by(*_ALIKE)
    return [ParkedGroup(*row) for row in connection.execute(query.order_by(func.count().desc()))]


def parked_reasons(connection: Connection) -> list[tuple[ParkedGroup, str | None]]:
    """What is parked, by what a router looks at and by the stored reason, each group with that reason."""
    alike = (*_ALIKE, events.c.parked_by)
    query = select(*alike, func.count()).where(events.c.state == "parked").group_by(*alike)
    return [(ParkedGroup._make((*row[:-2], row[-1])), row[-2]) for row in connection.execute(query)]


def oldest_parked(connection: Connection, *, most: int) -> list[tuple[ParkedGroup, str, int]]:
    """What has been parked longest, by what a router looks at, the largest group first.

    Args:
        connection: any connection.
        most: how many events are gone through, the oldest ones.

    Returns:
        Each group, of which `events` counts those that were gone through; the oldest of its events; and when that
        came, in microseconds since 1970.
    """
    parked = select(*_ALIKE, events.c.id, events.c.received_at).where(events.c.state == "parked")
    each = parked.order_by(events.c.id).limit(most).subquery("each")
    alike = [each.c[column.name] for column in _ALIKE]
    query = select(*alike, func.count(), func.min(each.c.id), func.min(each.c.received_at)).group_by(*alike)
    found = connection.execute(query.order_by(func.count().desc(), func.min(each.c.id)))
    return [(ParkedGroup(*row[:-2]), row[-2], row[-1]) for row in found]


def reroute(
    transaction: Transaction, items: list[Rerouted], *, runner: Runner, absent: Collection[str], now: int
) -> set[str]:
    """Give events their new states and deliveries, each if it still is as it was read.

    Args:
        transaction: the open transaction.
        items: the events, in the order of their ids: two that change the same ones do not wait for each other.
        runner: is told, within the transaction, what may run.
        absent: ids of handlers that are not loaded: their deliveries wait for them.
        now: microseconds since 1970.

    Returns:
        The ids of those that were, and so were changed.
    """
    done: set[str] = set()
    for item in items:
        changed = transaction.connection.execute(
            update(events)
            .where(
                events.c.id == item.event_id,
                events.c.state == item.seen,
                events.c.route_size == item.seen_size,  # a route only grows: of this size it is the one that was read
            )
            .values(
                state=item.state,
                parked_by=item.parked_by,
                dismissed_by=item.dismissed_by,
                no_match=item.no_match,
                route=json.dumps(item.route, ensure_ascii=False),
                route_size=len(item.route),
            )
        ).rowcount
        if not changed:
            continue
        done.add(item.event_id)
        keys = item.order_keys
        ordered = [(one, Lane(handler, keys[handler])) for one, handler in item.deliveries if handler in keys]
        places = line_up(transaction, ordered) if ordered else {}
        store(
            transaction,
            [
                NewDelivery(one, item.event_id, handler, now, absent=handler in absent, place=places.get(one))
                for one, handler in item.deliveries
            ],
        )
        queued = [
            Queued(one, handler, 0, ordered=one in places)
            for one, handler in item.deliveries
            if handler not in absent and (one not in places or places[one].turn == NEXT)
        ]
        if queued:
            runner.enqueue(transaction, queued, now)
    return done
