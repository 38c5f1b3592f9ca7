"""Purge of old events, whose identities are kept.

Events are examined in pages, in the order of their ids, which is the order of time (see `Clock.new_id`). The events to
purge are selected without locks, and checked again in the transaction that deletes them.
"""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from sqlalchemy import Text, bindparam, delete, func, select, union_all

from flowhooks.clock import SECOND, id_lower_bound, id_time
from flowhooks.failpoints import hit
from flowhooks.ledger import checksums, database, webhook_ids
from flowhooks.ledger.bulk_operations import counted_failures, record_purged
from flowhooks.ledger.counters import increment
from flowhooks.ledger.damaged_rows import shown_time
from flowhooks.ledger.error_groups import remove_attempts
from flowhooks.ledger.tables import (
    alerts,
    attempts,
    audit_log,
    conflicts,
    deliveries,
    event_fields,
    events,
    late_callbacks,
    purged_identities,
)
from flowhooks.model.delivery import State
from flowhooks.model.event import EventState

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from sqlalchemy import Connection

    from flowhooks.ledger.queries import EventFilter
    from flowhooks.ledger.transaction import WriteTransaction

Cutoffs: TypeAlias = "Mapping[str, int]"
"""For each state in which events are purged, the time before which their last change must be, in microseconds since
1970."""

PURGED_BY_DEFAULT: Final = ("succeeded", "closed", "dismissed")
"""States in which events are purged by default."""
PURGED_ON_REQUEST: Final = ("dead", "parked")
"""States in which events are purged only on request. Events with a waiting, running or *unknown* delivery are never
purged."""
_EXACT: Final = {
    "flow_instance_id": "flow_instance_id",
    "business_key": "business_key",
    "callback_class": "callback_class",
    "process_key": "process_definition_key",
    "conclusion": "conclusion",
    "dismissed_by": "dismissed_by",
    "origin": "origin",
}
"""The fields of a filter that an event's column must equal, each with the column."""
EVALUATED: Final = frozenset({*_EXACT, "ids", "handler", "state", "since", "until"})
"""The fields of a filter by which a purge selects events. It is refused with any other."""
PURGED: Final = "purged"
"""State of an event of which only the identity is left."""
_AT_REST: Final = frozenset({State.SUCCEEDED.value, State.CLOSED.value, State.DEAD.value})
# An id is made a moment after that time.
_ID_CLOCK_MARGIN: Final = SECOND
"""Microseconds by which the time in an id may differ from the time when the event was received."""


class PurgePage(NamedTuple):
    """A page of the oldest events.

    Attributes:
        examined: number of examined events.
        ids: ids of the events that may be purged.
        deliveries: number of their deliveries.
        next: the id after which to continue; `""` if there are no more events.
    """

    examined: int
    ids: tuple[str, ...]
    deliveries: int
    next: str


class PurgeCounts(NamedTuple):
    """The numbers of deleted rows.

    Attributes:
        events: number of events.
        deliveries: number of deliveries.
    """

    events: int
    deliveries: int

    def __bool__(self) -> bool:
        return self.events > 0


class PurgedIdentity(NamedTuple):
    """The identity of a purged event.

    Attributes:
        event_id: its id.
        digest: the digest of its body.
        received_at: when it was received, in microseconds since 1970.
    """

    event_id: str
    digest: str
    received_at: int


_CANDIDATES: Final = (
    select(
        events.c.id,
        events.c.state,
        events.c.received_at,
        events.c.rerouted_at,
        events.c.route_size,
        events.c.source,
        events.c.kind,
        events.c.flow_instance_id,
        events.c.callback_class,
        events.c.business_key,
        events.c.process_definition_key,
        events.c.conclusion,
        events.c.dismissed_by,
        events.c.origin,
    )
    .where(events.c.id > bindparam("after"), events.c.id < bindparam("until"))
    .order_by(events.c.id)
    .limit(bindparam("most"))
)
_COUNT_CANDIDATES: Final = (
    select(func.count()).select_from(events).where(events.c.id > bindparam("after"), events.c.id < bindparam("until"))
)
_DELIVERIES_OF: Final = select(
    deliveries.c.id, deliveries.c.event_id, deliveries.c.handler, deliveries.c.state, deliveries.c.changed_at
).where(deliveries.c.event_id.in_(database.string_array("event_ids")))
# SKIP LOCKED: a row that another transaction has locked is in use. It is not purged, and this transaction does not wait
# for it.
_EVENTS: Final = (
    select(
        events.c.id,
        events.c.state,
        events.c.received_at,
        events.c.rerouted_at,
        events.c.route_size,
        events.c.digest,
        events.c.identity_sha256,
        events.c.source,
        events.c.flow_instance_id,
        events.c.origin,
    )
    .where(events.c.id.in_(database.string_array("event_ids")))
    .with_for_update(skip_locked=True)
)
_DELIVERIES: Final = _DELIVERIES_OF.with_for_update(skip_locked=True)
_EVENT_IDS: Final = database.string_array("event_ids")
_BODIES_BESIDE: Final = union_all(
    *(
        select(bodies.c.event_id, bodies.c.received_at).where(bodies.c.event_id.in_(_EVENT_IDS))
        for bodies in (conflicts, late_callbacks)
    )
)
_DELETIONS: Final = (
    delete(attempts).where(attempts.c.delivery_id.in_(database.string_array("delivery_ids"))),
    delete(deliveries).where(deliveries.c.id.in_(database.string_array("delivery_ids"))),
    delete(conflicts).where(conflicts.c.event_id.in_(_EVENT_IDS)),
    delete(late_callbacks).where(late_callbacks.c.event_id.in_(_EVENT_IDS)),
    delete(event_fields).where(event_fields.c.event_id.in_(_EVENT_IDS)),
    delete(events).where(events.c.id.in_(_EVENT_IDS)),
)
"""The deletions, each table before those that it refers to."""
_KEEP_IDENTITIES: Final = database.BulkInsert(purged_identities, ignore_conflicts=True)
_IDENTITY_DIGESTS = database.row_array("digests", identity_sha256=Text)
_FIND: Final = select(
    purged_identities.c.identity_sha256,
    purged_identities.c.event_id,
    purged_identities.c.digest,
    purged_identities.c.received_at,
).join(_IDENTITY_DIGESTS, purged_identities.c.identity_sha256 == _IDENTITY_DIGESTS.c.identity_sha256)


def find_purgeable(
    connection: Connection, cutoffs: Cutoffs, *, event_filter: EventFilter, after: str, limit: int
) -> PurgePage:
    """Return a page of the oldest events, with those that may be purged.

    Args:
        connection: any connection.
        cutoffs: the states and their times.
        event_filter: the events to purge; its `until` is ignored, and its `state` only limits its `handler`.
        after: the id after which to continue; `""`: start with the oldest.
        limit: number of events to examine.
    """
    if not cutoffs:
        return PurgePage(0, (), 0, "")
    first = id_lower_bound(event_filter.since) if event_filter.since is not None else ""
    rows = connection.execute(
        _CANDIDATES,
        {"after": max(after, first), "until": id_lower_bound(max(cutoffs.values()) + _ID_CLOCK_MARGIN), "most": limit},
    ).all()
    deliveries_of = defaultdict(list)
    parameters = {"event_ids": json.dumps([row.id for row in rows])}
    for delivery in connection.execute(_DELIVERIES_OF, parameters):
        deliveries_of[delivery.event_id].append(delivery)
    received = _received_beside(connection, parameters)
    purgeable = [
        row
        for row in rows
        if _matches(row, deliveries_of[row.id], event_filter)
        and _is_purgeable(row, deliveries_of[row.id], cutoffs, received_beside=received[row.id])
    ]
    ids = tuple(row.id for row in _without_counted_failures(connection, purgeable, deliveries_of))
    n_deliveries = sum(len(deliveries_of[event_id]) for event_id in ids)
    return PurgePage(len(rows), ids, n_deliveries, rows[-1].id if len(rows) == limit else "")


def count_candidates(connection: Connection, cutoffs: Cutoffs, *, since: int | None = None) -> int:
    """Return the number of events that `find_purgeable` examines in total."""
    if not cutoffs:
        return 0
    until = id_lower_bound(max(cutoffs.values()) + _ID_CLOCK_MARGIN)
    first = id_lower_bound(since) if since is not None else ""
    return int(connection.execute(_COUNT_CANDIDATES, {"after": first, "until": until}).scalar_one())


def _matches(row: Any, its_deliveries: Sequence[Any], event_filter: EventFilter) -> bool:
    criteria = {column: getattr(event_filter, field) for field, column in _EXACT.items()}
    return (
        all(value is None or getattr(row, name) == value for name, value in criteria.items())
        and (event_filter.handler is None or _has_handler(its_deliveries, event_filter.handler, event_filter.state))
        and (not event_filter.ids or row.id in event_filter.ids)
        and (event_filter.since is None or shown_time(row.received_at) >= event_filter.since)
    )


def _has_handler(its_deliveries: Sequence[Any], handler: str, state: str | None) -> bool:
    """Return whether an event has a delivery of a handler, in a state if it is one of deliveries."""
    handlers = {delivery.handler for delivery in its_deliveries if state not in set(State) or delivery.state == state}
    # A purge cannot be undone, so it gives up no dead delivery of a handler that was not named.
    return handlers == {handler} if state == State.DEAD else handler in handlers


def deciding_states(state: str, of_deliveries: Collection[str]) -> set[str]:
    """Return the states that decide whether an event may be purged; empty if it never may.

    If *dead* deliveries or a *parked* state are among them, only these decide.

    Args:
        state: the state of the event.
        of_deliveries: the states of its deliveries.
    """
    if not _AT_REST.issuperset(of_deliveries) or state not in set(EventState):
        return set()
    grave = {State.DEAD.value} & set(of_deliveries) | {"parked"} & {state}
    if grave:
        return grave
    if state == "dismissed":
        return {state}
    if not of_deliveries:
        return set()  # an impossible state, which `verify` reports
    return {State.CLOSED.value if State.CLOSED.value in of_deliveries else State.SUCCEEDED.value}


def _received_beside(connection: Connection, event_ids: Mapping[str, str]) -> defaultdict[str, list[int]]:
    """Return when the conflicting bodies and the late callbacks beside each event were received."""
    received = defaultdict(list)
    for body in connection.execute(_BODIES_BESIDE, event_ids):
        received[body.event_id].append(body.received_at)
    return received


def _is_purgeable(
    event: Any, its_deliveries: Sequence[Any], cutoffs: Cutoffs, *, received_beside: Sequence[int]
) -> bool:
    if len(its_deliveries) != event.route_size:
        return False  # another transaction has locked a delivery, or the ledger is inconsistent
    states = deciding_states(event.state, {delivery.state for delivery in its_deliveries})
    # Age counts from the last change: an event that was dismissed or replayed yesterday is one day old. So is one with
    # a conflicting body of yesterday, because an operator may have to decide on that body.
    times = [event.received_at, *received_beside, *(delivery.changed_at for delivery in its_deliveries)]
    times += [] if event.rerouted_at is None else [event.rerouted_at]
    if not all(type(time) is int for time in times):
        return False  # damaged: `verify` reports it
    last = max(times)
    return bool(states) and all(state in cutoffs and last < cutoffs[state] for state in states)


def _without_counted_failures(
    connection: Connection, rows: Sequence[Any], deliveries_of: Mapping[str, Sequence[Any]]
) -> list[Any]:
    """Return the events without those of which an operation that has not ended counts a delivery as failed."""
    unsuccessful = {
        delivery.id: row.id for row in rows for delivery in deliveries_of[row.id] if delivery.state != State.SUCCEEDED
    }
    kept = {unsuccessful[delivery_id] for delivery_id in counted_failures(connection, list(unsuccessful))}
    return [row for row in rows if row.id not in kept]


def purge(
    transaction: WriteTransaction, ids: Sequence[str], cutoffs: Cutoffs, *, kept_from: int, process: str
) -> PurgeCounts:
    """Delete the given events that may still be purged, and keep their identities.

    Args:
        transaction: the open transaction.
        ids: ids that `find_purgeable` returned.
        cutoffs: as given to `find_purgeable`.
        kept_from: the identity of an event that was received before this time is not kept, in microseconds since 1970.
        process: the process whose counter is incremented.
    """
    connection = transaction.connection
    parameters = {"event_ids": json.dumps(list(ids))}
    rows = connection.execute(_EVENTS, parameters).all()
    deliveries_of = defaultdict(list)
    for delivery in connection.execute(_DELIVERIES, parameters):
        deliveries_of[delivery.event_id].append(delivery)
    received = _received_beside(connection, parameters)  # after the lock, so that no further body is stored
    purgeable = [
        row for row in rows if _is_purgeable(row, deliveries_of[row.id], cutoffs, received_beside=received[row.id])
    ]
    purgeable = _without_counted_failures(connection, purgeable, deliveries_of)
    if not purgeable:
        return PurgeCounts(0, 0)
    purged = [delivery for row in purgeable for delivery in deliveries_of[row.id]]
    delivery_ids = [delivery.id for delivery in purged]
    record_purged(connection, [delivery.id for delivery in purged if delivery.state != State.SUCCEEDED])
    deleted = {"event_ids": json.dumps([row.id for row in purgeable]), "delivery_ids": json.dumps(delivery_ids)}
    remove_attempts(transaction, delivery_ids)
    for deletion in _DELETIONS:
        connection.execute(deletion, deleted)
    identities = [
        {
            "identity_sha256": row.identity_sha256,
            "event_id": row.id,
            "digest": row.digest,
            "received_at": row.received_at,
            "instance_sha256": checksums.instance_sha256(row.source, row.flow_instance_id),
            "origin": row.origin,
        }
        for row in purgeable
        if row.received_at >= kept_from
    ]
    if identities:
        _KEEP_IDENTITIES(connection, identities)
    increment(transaction, "purged", process, len(purgeable))
    hit("purge.written")
    return PurgeCounts(len(purgeable), len(delivery_ids))


def find_purged(connection: Connection, digests: Iterable[str]) -> dict[str, PurgedIdentity]:
    """Return the purged events among those whose identities have these digests, by digest."""
    rows = connection.execute(_FIND, {"digests": json.dumps([[digest] for digest in digests])})
    return {row.identity_sha256: PurgedIdentity(row.event_id, row.digest, row.received_at) for row in rows}


def find_purged_event(connection: Connection, event_id: str) -> PurgedIdentity | None:
    """Return the identity of a purged event, or None. It is found by the time in its id."""
    made_at = id_time(event_id)
    if made_at is None:
        return None
    query = select(purged_identities.c.event_id, purged_identities.c.digest, purged_identities.c.received_at).where(
        purged_identities.c.received_at.between(made_at - _ID_CLOCK_MARGIN, made_at + _ID_CLOCK_MARGIN),
        purged_identities.c.event_id == event_id,
    )
    row = connection.execute(query).one_or_none()
    return None if row is None else PurgedIdentity(*row)


def delete_expired(
    transaction: WriteTransaction, *, identities: int, audits: int, closed_alerts: int, signatures: int, limit: int
) -> dict[str, int]:
    """Delete other expired data, at most `limit` rows of each kind; return the numbers of deleted rows.

    All times are in microseconds since 1970.

    Args:
        transaction: the open transaction.
        identities: identities of purged events that were received before this time.
        audits: entries of the audit log from before this time.
        closed_alerts: alerts that were closed before this time.
        signatures: ids of signed callbacks that were last used before this time.
        limit: maximum number of rows of each kind.
    """
    old = {
        "identities": (
            purged_identities,
            purged_identities.c.identity_sha256,
            purged_identities.c.received_at < identities,
            purged_identities.c.received_at,
        ),
        "audit": (audit_log, audit_log.c.id, audit_log.c.id < id_lower_bound(audits), audit_log.c.id),
        # An alert is closed after it was opened, so its id is lower as well, and the primary key bounds the search.
        "alerts": (
            alerts,
            alerts.c.id,
            (alerts.c.id < id_lower_bound(closed_alerts)) & (alerts.c.closed_at < closed_alerts),
            alerts.c.id,
        ),
    }
    deleted = {
        name: transaction.connection.execute(
            delete(table).where(key.in_(select(key).where(where).order_by(order).limit(limit)))
        ).rowcount
        for name, (table, key, where, order) in old.items()
    }
    return deleted | {"signatures": webhook_ids.expire(transaction, signatures, limit=limit)}
