"""The events of process instances, for sources whose engine flowhooks asks.

Call these functions while the instances are locked: see `engine_locks`.
"""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import BigInteger, Integer, Text, and_, bindparam, case, func, literal, or_, select, update

from flowhooks.clock import DAY, SECOND
from flowhooks.ledger import checksums, database
from flowhooks.ledger.tables import (
    MAX_INDEXED_CHARS,
    engine_instances,
    engine_positions,
    events,
    indexed,
    purged_identities,
)
from flowhooks.model.engine import KIND_OF_END
from flowhooks.model.event import Origin

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy import Connection

    from flowhooks.ledger.new_event import NewEvent

REUSE_TOLERANCE: Final = 60 * SECOND
"""Microseconds by which an event may have been received before its instance started, because clocks differ."""


CLOCK_TOLERANCE: Final = DAY
"""Microseconds by which a clock can have been wrong when an event was received, such as one with a wrong time zone."""
END_KINDS: Final = frozenset(KIND_OF_END.values())
"""The kinds of callback that report an end, whenever they come. Others can come while the instance runs."""


class InstanceEvent(NamedTuple):
    """The newest event of a process instance.

    Attributes:
        event_id: its id.
        kind: its kind; None if only its identity is left.
        received_at: when it was received, in microseconds since 1970.
        state: its state; None if only its identity is left.
        has_reused_id: whether an earlier instance with the same id has an event.
    """

    event_id: str
    kind: str | None
    received_at: int
    state: str | None
    has_reused_id: bool


_INSTANCES = database.row_array("instances", source=Text, flow_instance_id=Text)
_rest = literal(MAX_INDEXED_CHARS + 1, Integer, literal_execute=True)
_OF_INSTANCE: Final = and_(
    indexed(events.c.flow_instance_id) == indexed(_INSTANCES.c.flow_instance_id),
    func.substr(events.c.flow_instance_id, _rest) == func.substr(_INSTANCES.c.flow_instance_id, _rest),
    events.c.source == _INSTANCES.c.source,
)
_FIND: Final = (
    select(
        events.c.id,
        events.c.kind,
        events.c.source,
        events.c.flow_instance_id,
        events.c.received_at,
        events.c.state,
        events.c.instance_started_at,
    )
    .join(_INSTANCES, _OF_INSTANCE)
    # A correction was accepted at any time later, so its time says nothing about the instance.
    .where(events.c.origin != Origin.CORRECTION.value)
    .order_by(events.c.received_at, events.c.id)
)
_FIND_RECONCILED: Final = _FIND.where(events.c.origin == Origin.RECONCILED.value)
_DIGESTS: Final = database.string_array("digests")
_FIND_PURGED: Final = (
    select(
        purged_identities.c.instance_sha256,
        purged_identities.c.event_id,
        purged_identities.c.received_at,
    )
    .where(purged_identities.c.instance_sha256.in_(_DIGESTS), purged_identities.c.origin != Origin.CORRECTION.value)
    .order_by(purged_identities.c.received_at, purged_identities.c.event_id)
)
_FIND_PURGED_RECONCILED: Final = _FIND_PURGED.where(purged_identities.c.origin == Origin.RECONCILED.value)
_LINKS = database.row_array("links", source=Text, flow_instance_id=Text, event_id=Text, certainty=Integer)
_FOUND, _NEW, _TAKEN_IN = range(3)
"""Certainty that an event belongs to the instance in the book: not certain, certain, and it replaces another event."""
_SKEW: Final = (
    select(case((engine_positions.c.skew > 0, engine_positions.c.skew), else_=0))
    .where(engine_positions.c.source == engine_instances.c.source)
    .correlate(engine_instances)
    .scalar_subquery()
)
_LINK: Final = (
    update(engine_instances)
    .where(
        engine_instances.c.source == _LINKS.c.source,
        engine_instances.c.flow_instance_id == _LINKS.c.flow_instance_id,
        events.c.id == _LINKS.c.event_id,
        events.c.origin != Origin.CORRECTION.value,
        or_(_LINKS.c.certainty == _TAKEN_IN, engine_instances.c.disposition != "has_event"),
        # The event of an earlier instance with the same id is not the event of this one.
        or_(
            _LINKS.c.certainty != _FOUND,
            engine_instances.c.started_at.is_(None),
            events.c.received_at >= engine_instances.c.started_at - func.coalesce(_SKEW, 0) - REUSE_TOLERANCE,
        ),
        # As in `precedes_end`.
        or_(
            _LINKS.c.certainty != _FOUND,
            *(events.c.kind == kind for kind in sorted(END_KINDS)),
            events.c.received_at >= engine_instances.c.ended_at - func.coalesce(_SKEW, 0) - REUSE_TOLERANCE,
        ),
    )
    .values(
        disposition="has_event",
        rule="",
        event_id=_LINKS.c.event_id,
        body=None,
        changed_at=bindparam("now", type_=BigInteger),
    )
)


def find(connection: Connection, items: Sequence[NewEvent], *, reconciled: bool) -> dict[str, InstanceEvent]:
    """Return the newest event of the instance of each item, by the item's event id; purged events included.

    Corrections are left out: they belong to the event that they correct. So are callbacks that were sent while the
    instance ran, if the item has its end.

    A stored event comes before a purged one that was received later.

    Args:
        connection: any connection.
        items: the items, each with the former names of its source.
        reconciled: whether only events that reconciliation took in are returned.
    """
    instances = sorted({instance for item in items for instance in instances_of(item)})
    query, purged_query = (_FIND_RECONCILED, _FIND_PURGED_RECONCILED) if reconciled else (_FIND, _FIND_PURGED)
    stored: dict[tuple[str, str], list[InstanceEvent]] = defaultdict(list)
    for row in connection.execute(query, {"instances": json.dumps(instances)}):
        stored[row.source, row.flow_instance_id].append(
            InstanceEvent(row.id, row.kind, row.received_at, row.state, row.instance_started_at is not None)
        )
    digests = {checksums.instance_sha256(*instance): instance for instance in instances}
    purged: dict[tuple[str, str], list[InstanceEvent]] = defaultdict(list)
    for digest, event_id, received_at in connection.execute(purged_query, {"digests": json.dumps(sorted(digests))}):
        purged[digests[digest]].append(InstanceEvent(event_id, None, received_at, None, has_reused_id=False))
    newest = {}
    for item in items:
        of_item = [_newest(item, found) for found in (stored, purged)]
        if (event := next((event for event in of_item if event is not None), None)) is not None:
            newest[item.event.id] = event
    return newest


def _newest(item: NewEvent, found: Mapping[tuple[str, str], Sequence[InstanceEvent]]) -> InstanceEvent | None:
    events_of_item = (event for instance in instances_of(item) for event in found.get(instance, ()))
    return max((event for event in events_of_item if not _is_of_running(item, event)), key=_age, default=None)


def _is_of_running(item: NewEvent, event: InstanceEvent) -> bool:
    """Return whether an event is a callback that was sent while the instance of an item ran."""
    if item.ended_at is None or event.kind is None or is_older(item, event):
        return False
    return precedes_end(event.kind, event.received_at, item.ended_at)


def _age(event: InstanceEvent) -> tuple[int, str]:
    return event.received_at, event.event_id


def instances_of(item: NewEvent) -> list[tuple[str, str]]:
    """Return the source, and each former name of it, with the process instance id."""
    return [(source, item.event.flow_instance_id) for source in (item.event.source, *item.former_names)]


def is_taken_in(connection: Connection, source: str, flow_instance_id: str) -> bool:
    """Return whether reconciliation has stored an event of a process instance."""
    parameters = {"instances": json.dumps([[source, flow_instance_id]])}
    return connection.execute(_FIND_RECONCILED.limit(1), parameters).first() is not None


def is_older(item: NewEvent, event: InstanceEvent) -> bool:
    """Return whether an event is older than the instance of an item, so that it belongs to an earlier instance."""
    return item.started_at is not None and event.received_at < item.started_at - REUSE_TOLERANCE


def precedes_end(kind: str, received_at: int, ended_at: int) -> bool:
    """Return whether a callback of this kind can have been sent while its instance ran, so that it reports no end.

    Args:
        kind: its kind.
        received_at: when it was received, in microseconds since 1970.
        ended_at: when the instance ended, by the same clock.
    """
    return kind not in END_KINDS and received_at < ended_at - REUSE_TOLERANCE


def is_certainly_older(item: NewEvent, event: InstanceEvent) -> bool:
    """Return whether an event is older than the instance of an item, even if a clock was wrong."""
    return item.started_at is not None and event.received_at < item.started_at - CLOCK_TOLERANCE


def link(connection: Connection, items: Iterable[tuple[NewEvent, str]], now: int) -> None:
    """Record in `engine_instances` that these items have an event; an instance that is not recorded stays so.

    An event that was stored before is recorded only if it was not received before the instance started, nor sent while
    it ran.

    Args:
        connection: a writing connection.
        items: the items, each with the id of its event.
        now: microseconds since 1970.
    """
    links: dict[tuple[str, str], tuple[int, str]] = {}
    for item, event_id in items:
        instance = item.event.source, item.event.flow_instance_id
        certainty = _NEW if event_id == item.event.id else _FOUND
        if item.event.origin == Origin.RECONCILED:
            certainty = _TAKEN_IN
        links[instance] = max((certainty, event_id), links.get(instance, (_FOUND, "")))  # the newest of equal ones
    rows = [[*instance, event_id, certainty] for instance, (certainty, event_id) in sorted(links.items())]
    if rows:
        connection.execute(_LINK, {"links": json.dumps(rows), "now": now})
