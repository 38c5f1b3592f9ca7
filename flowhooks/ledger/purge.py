"""Events that may go, and what is kept of them: who they were; it must not know who wants them gone, or when.

They are gone through in the order of their ids, which is that of the time (see `Clock.new_id`), a page at a time. What
may go is seen without holding anybody up, and decided again in the transaction that deletes it.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from sqlalchemy import Text, bindparam, delete, func, select

from flowhooks.clock import SECOND
from flowhooks.failpoints import reached
from flowhooks.ledger import database, webhook_ids
from flowhooks.ledger.counters import count
from flowhooks.ledger.tables import alerts, attempts, audit, conflicts, deliveries, events, purged
from flowhooks.model.delivery import State

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from sqlalchemy import Connection

    from flowhooks.ledger.group_commit import Transaction
    from flowhooks.ledger.queries import EventFilter

Identity: TypeAlias = tuple[str, str, str, str]
Before: TypeAlias = "Mapping[str, int]"
"""Of each state in which events may go, before when all must have happened to them (microseconds since 1970)."""

DONE: Final = ("succeeded", "closed", "dismissed")
"""States in which events go unless somebody says otherwise."""
ON_DEMAND: Final = ("dead", "parked")
"""States in which they go only if somebody says so. What is waiting, running or *unknown* never goes."""
PURGED: Final = "purged"
"""The state of an event of which only the identity is left."""
_AT_REST: Final = frozenset({State.SUCCEEDED.value, State.CLOSED.value, State.DEAD.value})
_SLACK: Final = SECOND
"""An id is made a moment after the time that its event bears."""


class Page(NamedTuple):
    """Some of the oldest events.

    Attributes:
        looked: how many were looked at.
        ids: which of them may go.
        deliveries: how many deliveries those have.
        next: the id after which to go on; `""` when there are no more.
    """

    looked: int
    ids: tuple[str, ...]
    deliveries: int
    next: str


class Gone(NamedTuple):
    """What was deleted.

    Attributes:
        events: how many events.
        deliveries: how many deliveries.
    """

    events: int
    deliveries: int

    def __bool__(self) -> bool:
        return self.events > 0


class Known(NamedTuple):
    """An event of which only the identity is left.

    Attributes:
        event_id: its id.
        digest: its body's digest.
        received_at: when it was received, in microseconds since 1970.
    """

    event_id: str
    digest: str
    received_at: int


def id_at(moment: int) -> str:
    """The lowest id that can be made at a moment, in microseconds since 1970."""
    digits = f"{max(0, moment) // 1000:012x}"
    return f"{digits[:8]}-{digits[8:]}-0000-0000-000000000000"


_OLD: Final = (
    select(
        events.c.id,
        events.c.state,
        events.c.received_at,
        events.c.route_size,
        events.c.source,
        events.c.kind,
        events.c.flow_instance_id,
        events.c.callback_class,
        events.c.business_key,
        events.c.process_definition_key,
    )
    .where(events.c.id > bindparam("after"), events.c.id < bindparam("until"))
    .order_by(events.c.id)
    .limit(bindparam("most"))
)
_HOW_MANY: Final = (
    select(func.count()).select_from(events).where(events.c.id > bindparam("after"), events.c.id < bindparam("until"))
)
_THEIRS: Final = select(
    deliveries.c.id, deliveries.c.event_id, deliveries.c.handler, deliveries.c.state, deliveries.c.changed_at
).where(deliveries.c.event_id.in_(database.keys("event_ids")))
# Whoever holds one of them just now does something with it: it does not go, and nobody waits for anybody.
_EVENTS: Final = (
    select(
        events.c.id,
        events.c.state,
        events.c.received_at,
        events.c.route_size,
        events.c.digest,
        events.c.source,
        events.c.kind,
        events.c.flow_instance_id,
        events.c.callback_class,
    )
    .where(events.c.id.in_(database.keys("event_ids")))
    .with_for_update(skip_locked=True)
)
_DELIVERIES: Final = _THEIRS.with_for_update(skip_locked=True)
_EVENT_IDS: Final = database.keys("event_ids")
_DELETIONS: Final = (
    delete(attempts).where(attempts.c.delivery_id.in_(database.keys("delivery_ids"))),
    delete(deliveries).where(deliveries.c.id.in_(database.keys("delivery_ids"))),
    delete(conflicts).where(conflicts.c.event_id.in_(_EVENT_IDS)),
    delete(events).where(events.c.id.in_(_EVENT_IDS)),
)
"""Each table before those that it refers to."""
_KEEP: Final = database.Insertion(purged, ignore=True)
_WANTED = database.rows("digests", identity=Text)
_FIND: Final = select(purged.c.identity, purged.c.event_id, purged.c.digest, purged.c.received_at).join(
    _WANTED, purged.c.identity == _WANTED.c.identity
)


def page(connection: Connection, before: Before, *, wanted: EventFilter, after: str, most: int) -> Page:
    """The oldest events, and which of them may go.

    Args:
        connection: any connection.
        before: in which states, and how old.
        wanted: which events are meant; its `state` and `until` do not count here.
        after: the id after which to go on; `""`: from the oldest.
        most: how many are looked at.
    """
    if not before:
        return Page(0, (), 0, "")
    first = id_at(wanted.since) if wanted.since is not None else ""
    found = connection.execute(
        _OLD, {"after": max(after, first), "until": id_at(max(before.values()) + _SLACK), "most": most}
    ).all()
    theirs = defaultdict(list)
    for one in connection.execute(_THEIRS, {"event_ids": json.dumps([row.id for row in found])}):
        theirs[one.event_id].append(one)
    ids = tuple(
        row.id
        for row in found
        if _is_meant(row, {one.handler for one in theirs[row.id]}, wanted) and _may_go(row, theirs[row.id], before)
    )
    going = sum(len(theirs[one]) for one in ids)
    return Page(len(found), ids, going, found[-1].id if len(found) == most else "")


def how_many(connection: Connection, before: Before, *, since: int | None = None) -> int:
    """How many events `page` looks at in all."""
    if not before:
        return 0
    until = id_at(max(before.values()) + _SLACK)
    first = id_at(since) if since is not None else ""
    return int(connection.execute(_HOW_MANY, {"after": first, "until": until}).scalar_one())


def _is_meant(row: Any, handlers: Collection[str], wanted: EventFilter) -> bool:
    asked = {
        "flow_instance_id": wanted.flow_instance_id,
        "business_key": wanted.business_key,
        "callback_class": wanted.callback_class,
        "process_definition_key": wanted.process_key,
    }
    return (
        all(value is None or getattr(row, name) == value for name, value in asked.items())
        and (wanted.handler is None or wanted.handler in handlers)
        and (not wanted.ids or row.id in wanted.ids)
        and (wanted.since is None or row.received_at >= wanted.since)
    )


def deciding(state: str, of_deliveries: Collection[str]) -> set[str]:
    """The states by which it is decided whether an event may go: the gravest; empty if it may not, whatever is asked.

    Args:
        state: the event's own.
        of_deliveries: those of its deliveries.
    """
    if not _AT_REST.issuperset(of_deliveries):
        return set()
    grave = {State.DEAD.value} & set(of_deliveries) | {"parked"} & {state}
    if grave:
        return grave
    if state == "dismissed":
        return {state}
    if not of_deliveries:
        return set()  # no state that there is: the books say so
    return {State.CLOSED.value if State.CLOSED.value in of_deliveries else State.SUCCEEDED.value}


def _may_go(event: Any, theirs: Sequence[Any], before: Before) -> bool:
    if len(theirs) != event.route_size:
        return False  # somebody holds one of them, or the books do not balance
    states = deciding(event.state, {one.state for one in theirs})
    # Old is what nothing has happened to: what was replayed yesterday is of yesterday.
    last = max([event.received_at, *(one.changed_at for one in theirs)])
    return bool(states) and all(one in before and last < before[one] for one in states)


def purge(transaction: Transaction, ids: Sequence[str], before: Before, *, kept_from: int, process: str) -> Gone:
    """Delete those of some events that may still go, and keep who they were.

    Args:
        transaction: the open transaction.
        ids: what `page` has found.
        before: as given to `page`.
        kept_from: identities of events that were received before this are not kept any more.
        process: under which it is counted.
    """
    connection = transaction.connection
    asked = {"event_ids": json.dumps(list(ids))}
    rows = connection.execute(_EVENTS, asked).all()
    theirs = defaultdict(list)
    for one in connection.execute(_DELIVERIES, asked):
        theirs[one.event_id].append(one)
    going = [row for row in rows if _may_go(row, theirs[row.id], before)]
    if not going:
        return Gone(0, 0)
    delivery_ids = [one.id for row in going for one in theirs[row.id]]
    gone = {"event_ids": json.dumps([row.id for row in going]), "delivery_ids": json.dumps(delivery_ids)}
    for deletion in _DELETIONS:
        connection.execute(deletion, gone)
    kept = [
        {
            "identity": digest_of((row.source, row.kind, row.flow_instance_id, row.callback_class)),
            "event_id": row.id,
            "digest": row.digest,
            "received_at": row.received_at,
        }
        for row in going
        if row.received_at >= kept_from
    ]
    if kept:
        _KEEP(connection, kept)
    count(transaction, "purged", process, len(going))
    reached("purge.written")
    return Gone(len(going), len(delivery_ids))


def digest_of(identity: Identity) -> str:
    """The SHA-256 (hexadecimal) of an event's identity."""
    return hashlib.sha256(json.dumps(identity, ensure_ascii=False).encode()).hexdigest()


def gone(connection: Connection, identities: Collection[Identity]) -> dict[Identity, Known]:
    """Those identities whose events were purged."""
    wanted = {digest_of(identity): identity for identity in identities}
    found = connection.execute(_FIND, {"digests": json.dumps([[one] for one in wanted])})
    return {wanted[row.identity]: Known(row.event_id, row.digest, row.received_at) for row in found}


def of_event(connection: Connection, event_id: str) -> Known | None:
    """What is left of an event that was purged, or None; found by the time that its id bears."""
    digits = event_id.replace("-", "")[:12]
    try:
        made_at = int(digits, 16) * 1000
    except ValueError:
        return None
    query = select(purged.c.event_id, purged.c.digest, purged.c.received_at).where(
        purged.c.received_at.between(made_at - _SLACK, made_at + _SLACK), purged.c.event_id == event_id
    )
    row = connection.execute(query).one_or_none()
    return None if row is None else Known(*row)


def forget(
    transaction: Transaction, *, identities: int, audits: int, closed_alerts: int, signatures: int, most: int
) -> dict[str, int]:
    """Delete what else grows old, `most` of each at the most; how many of each went.

    Args:
        transaction: the open transaction.
        identities: before when events that were purged had been received, in microseconds since 1970.
        audits: before when something was done.
        closed_alerts: before when alerts were over.
        signatures: before when the ids of signed call-backs were last used.
        most: of each.
    """
    old = {
        "identities": (purged, purged.c.identity, purged.c.received_at < identities, purged.c.received_at),
        "audit": (audit, audit.c.id, audit.c.id < id_at(audits), audit.c.id),
        # Over is what was opened before; so its id is lower.
        "alerts": (
            alerts,
            alerts.c.id,
            (alerts.c.id < id_at(closed_alerts)) & (alerts.c.closed_at < closed_alerts),
            alerts.c.id,
        ),
    }
    gone = {
        name: transaction.connection.execute(
            delete(table).where(key.in_(select(key).where(where).order_by(order).limit(most)))
        ).rowcount
        for name, (table, key, where, order) in old.items()
    }
    return gone | {"signatures": webhook_ids.forget(transaction, signatures, most=most)}
