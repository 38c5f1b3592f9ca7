"""Corrections: conflicting bodies of events that an operator accepts as events of their own.

A correction is known by the event that it corrects and by the digest of its body. So the engine's repeat of that body
is a repeat of the correction, and the repeat of the first body is one of the corrected event, also after a purge.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import insert, select, update

from flowhooks.errors import InvalidTransition, NotFound
from flowhooks.failpoints import hit
from flowhooks.ledger import event_fields, identities
from flowhooks.ledger.conclusions import UnknownConclusions
from flowhooks.ledger.counters import increment
from flowhooks.ledger.damaged_rows import repair
from flowhooks.ledger.late_callbacks import lock_event
from flowhooks.ledger.new_event import event_row
from flowhooks.ledger.route_changes import add_deliveries
from flowhooks.ledger.tables import conflicts, events

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import Connection

    from flowhooks.ledger.delivery_queue import DeliveryQueue
    from flowhooks.ledger.identities import Existing
    from flowhooks.ledger.new_event import NewEvent
    from flowhooks.ledger.transaction import WriteTransaction


class Conflict(NamedTuple):
    """A conflicting body of an event.

    Attributes:
        received_at: when it was first received, in microseconds since 1970.
        digest: the digest of its JSON values, by which it is named.
        body: the body; if its row is damaged, what is damaged.
        kind: the kind of its callback.
        corrected_by: the id of the event of this body, which an operator has accepted; None: not accepted.
        damage: what is damaged; `""` if nothing is.
    """

    received_at: int
    digest: str
    body: str
    kind: str
    corrected_by: str | None
    damage: str


def conflicts_of(connection: Connection, event_id: str) -> list[Conflict]:
    """Return the conflicting bodies of an event, oldest first."""
    rows = connection.execute(
        select(conflicts).where(conflicts.c.event_id == event_id).order_by(conflicts.c.received_at, conflicts.c.digest)
    )
    return [
        Conflict(row.received_at, row.digest, damage or row.body, row.kind, row.corrected_by, damage)
        for row, damage in (repair(row, list(conflicts.c)) for row in rows)
    ]


def find(connection: Connection, keys: Collection[str]) -> dict[str, Existing]:
    """Return the corrections with these keys, as `checksums.correction_sha256` makes them, by key.

    The stored ones are locked against a purge. In this order, because one may be purged until it is locked.
    """
    stored = identities.find(connection, keys, lock=True)
    return identities.find_purged(connection, keys) | stored


def accept(
    transaction: WriteTransaction,
    item: NewEvent,
    *,
    runner: DeliveryQueue,
    process: str,
) -> bool:
    """Store a correction with its deliveries, and record it with the conflicting body.

    Args:
        transaction: the open transaction.
        item: the correction. Its digest is that of the conflicting body.
        runner: receives, within the transaction, the deliveries that may run.
        process: the process whose counter is incremented.

    Returns:
        Whether it was stored now, and not by an earlier try of the same call.

    Raises:
        NotFound: the corrected event or the conflicting body is no longer stored.
        InvalidTransition: the body was accepted before.
    """
    connection, original = transaction.connection, str(item.event.corrects)
    # Each transaction that stores a conflict or finds a correction locks the corrected event as well.
    if lock_event(connection, original) is None:
        raise NotFound(f"event {original} has been purged meanwhile")
    its_conflict = (conflicts.c.event_id == original) & (conflicts.c.digest == item.digest)
    row = connection.execute(select(conflicts.c.corrected_by).where(its_conflict)).one_or_none()
    if row is None:
        raise NotFound(f"event {original} has no conflicting body {item.digest}")
    if row.corrected_by == item.event.id:
        return False  # the reply to an earlier COMMIT of this call was lost
    if accepted := row.corrected_by or _accepted_before(connection, item):
        raise already_accepted(item.digest, accepted)
    connection.execute(insert(events).values(event_row(item)))
    event_fields.store(transaction, [(item.event.id, item.indexed_values)])
    increment(transaction, "accepted", process, 1)
    add_deliveries(
        transaction,
        item.event.id,
        item.deliveries,
        order_keys=item.order_keys,
        runner=runner,
        missing_handlers=item.missing_handlers,
        now=item.now,
    )
    if item.unknown_conclusion:
        UnknownConclusions().record(transaction, [item.event], item.now)
    connection.execute(update(conflicts).where(its_conflict).values(corrected_by=item.event.id))
    hit("correction.written")
    return True


def _accepted_before(connection: Connection, item: NewEvent) -> str:
    """Return the id of a correction with this body that the conflict does not name; `""` if there is none."""
    found = find(connection, {item.identity_sha256})
    return found[item.identity_sha256][0] if found else ""


def already_accepted(digest: str, event_id: str) -> InvalidTransition:
    """Return the error of a body that was accepted before."""
    return InvalidTransition(f"the body {digest[:12]} was accepted before, as event {event_id}")
