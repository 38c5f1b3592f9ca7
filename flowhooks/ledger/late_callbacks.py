"""Late callbacks: callbacks for an instance that reconciliation has taken in before.

A late callback is kept beside the event of its instance, whatever class it has. One of another kind is a conflict,
unless it decides an end that the history does not tell. An event that is parked or dismissed takes over the body of its
late callback, and gets the deliveries of that body. A routed event stays as it is.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import select, update

from flowhooks.failpoints import hit
from flowhooks.ledger import checksums, database, event_fields
from flowhooks.ledger.damaged_rows import repair
from flowhooks.ledger.instance_events import END_KINDS
from flowhooks.ledger.route_changes import add_deliveries
from flowhooks.ledger.tables import events, late_callbacks
from flowhooks.model.event import UNDECIDED, EventState, ParkedBy

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import Connection

    from flowhooks.ledger.delivery_queue import DeliveryQueue
    from flowhooks.ledger.new_event import NewEvent
    from flowhooks.ledger.transaction import WriteTransaction

MAX_LATE_CALLBACKS: Final = 10
"""Maximum number of bodies stored beside one event."""
COMPARED: Final = (
    "business_key",
    "callback_class",
    "conclusion",
    "process_definition_key",
    "process_definition_version",
    "kind",
)
"""Columns of `events` that a late callback must not contradict."""
_EVENT: Final = select(events)
_REPEAT: Final = update(events).values(repeats=events.c.repeats + 1)
_INSERT: Final = database.insert(late_callbacks)
_COUNT_REPEAT: Final = _INSERT.on_conflict_do_update(
    index_elements=list(late_callbacks.primary_key), set_={"repeats": late_callbacks.c.repeats + 1}
)
_JSON: Final = json.JSONEncoder(ensure_ascii=False)


class LateCallback(NamedTuple):
    """A body beside that of an event which reconciliation took in.

    Attributes:
        received_at: when it was received, in microseconds since 1970.
        body: the body.
        repeats: number of repeats of the same callback.
    """

    received_at: int
    body: str
    repeats: int


def bodies_beside(connection: Connection, event_id: str) -> list[LateCallback]:
    """Return the bodies beside that of an event which reconciliation took in, oldest first."""
    rows = connection.execute(
        select(late_callbacks)
        .where(late_callbacks.c.event_id == event_id)
        .order_by(late_callbacks.c.received_at, late_callbacks.c.digest)
    )
    repaired = (repair(row, list(late_callbacks.c))[0] for row in rows)
    return [LateCallback(row.received_at, row.body, row.repeats) for row in repaired]


def lock_event(connection: Connection, event_id: str) -> Any:
    """Return the row of an event, locked against changes by others; None if it was purged."""
    return connection.execute(_EVENT.where(events.c.id == event_id).with_for_update()).one_or_none()


def contradicts(row: Any, item: NewEvent) -> bool:
    """Return whether the event and its late callback both have a named value, and the two differ."""
    # Nobody knows the kind of an end that is undecided. A kind that reports no end does not decide it.
    decides = row.parked_by == ParkedBy.END_STATE and item.event.kind in END_KINDS
    compared = [name for name in COMPARED if name != "kind" or not decides]
    pairs = [(getattr(row, name), getattr(item.event, name)) for name in compared]
    return any(stored != sent for stored, sent in pairs if stored not in (None, "") and sent not in (None, ""))


def add(transaction: WriteTransaction, row: Any, item: NewEvent, *, may_replace: bool, runner: DeliveryQueue) -> bool:
    """Add a late callback that does not contradict its event; return whether the event took over its body.

    Args:
        transaction: the open transaction.
        row: the event, as `lock_event` returned it.
        item: the late callback.
        may_replace: whether no other event has the identity that the event would get.
        runner: receives, within the transaction, the deliveries that may run.
    """
    connection = transaction.connection
    is_undecided = row.parked_by in UNDECIDED
    if row.digest == item.digest and not is_undecided:
        connection.execute(_REPEAT.where(events.c.id == row.id))
        return False
    digests = _stored_digests(connection, row.id)
    has_room = len(digests) < MAX_LATE_CALLBACKS
    is_repeat = item.digest in digests  # an earlier body of the event, perhaps: a later one has replaced it
    is_open = row.state in {EventState.PARKED, EventState.DISMISSED}
    if is_open and may_replace and has_room and not is_repeat:
        if row.digest != item.digest:
            _store(connection, row.id, row.digest, row.body, row.received_at)
        _replace(transaction, row, item, runner)
        hit("late_callback.written")
        return True
    if has_room or is_repeat:
        _store(connection, row.id, item.digest, item.body, item.now)
    hit("late_callback.written")
    return False


def _stored_digests(connection: Connection, event_id: str) -> Collection[str]:
    """Return the digests of the bodies beside that of an event."""
    return (
        connection.execute(select(late_callbacks.c.digest).where(late_callbacks.c.event_id == event_id)).scalars().all()
    )


def _store(connection: Connection, event_id: str, digest: str, body: str, received_at: int) -> None:
    body_sha256 = checksums.body_sha256(body)
    values = {
        "event_id": event_id,
        "digest": digest,
        "body": body,
        "received_at": received_at,
        "repeats": 0,
        "body_sha256": body_sha256,
        "row_sha256": checksums.row_sha256((event_id, digest, body_sha256, received_at)),
    }
    connection.execute(_COUNT_REPEAT, values)


def _replace(transaction: WriteTransaction, row: Any, item: NewEvent, runner: DeliveryQueue) -> None:
    """Give an event the body of its late callback, with the route and the deliveries of that body."""
    old_route = json.loads(row.route)
    added = [(delivery_id, handler) for delivery_id, handler in item.deliveries if handler not in old_route]
    route = {**old_route, **{handler: item.route[handler] for _, handler in added}}
    event = item.event
    values: dict[str, Any] = {
        "kind": event.kind,
        "callback_class": event.callback_class or "",
        "business_key": event.business_key,
        "process_definition_id": event.process_definition_id,
        "process_definition_key": event.process_definition_key,
        "process_definition_version": event.process_definition_version,
        "conclusion": event.conclusion,
        "body": item.body,
        "raw_body": item.raw_body,
        "media_type": item.media_type,
        "traceparent": event.traceparent,
        "digest": item.digest,
        "body_sha256": item.body_sha256,
        "identity_sha256": checksums.identity_sha256(replaced_identity(row, item), row.instance_started_at),
        "state": item.state,
        "route": _JSON.encode(route),
        "route_size": len(route),
        "parked_by": item.parked_by,
        "dismissed_by": item.dismissed_by,
        "no_match": item.no_match,
        "rerouted_at": item.now,
    }
    columns = {**row._mapping, **values}  # noqa: SLF001 (public, by SQLAlchemy's naming)
    values["row_sha256"] = checksums.row_sha256(columns[name] for name in checksums.EVENT_COLUMNS)
    transaction.connection.execute(update(events).where(events.c.id == row.id).values(values))
    event_fields.replace(transaction, row.id, item.indexed_values)
    hit("late_callback.body_replaced")
    add_deliveries(
        transaction,
        row.id,
        added,
        order_keys=item.order_keys,
        runner=runner,
        missing_handlers=item.missing_handlers,
        now=item.now,
    )


def replaced_identity(row: Any, item: NewEvent) -> tuple[str, str, str, str]:
    """Return the identity of an event with the body of its late callback. The source keeps its name of that time."""
    return row.source, item.event.kind, row.flow_instance_id, item.event.callback_class or ""
