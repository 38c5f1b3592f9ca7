"""The audit log: the actions of operators, and starts and reloads of servers."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import insert, select, update

from flowhooks.clock import SECOND, id_lower_bound
from flowhooks.ledger.damaged_rows import repair
from flowhooks.ledger.tables import audit_log, deliveries, operation_items
from flowhooks.model.bulk_operation import ItemStatus

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from sqlalchemy import Connection, Row

    from flowhooks.ledger.transaction import WriteTransaction

CONTINUED_WITHIN: Final = 24 * 3600 * SECOND
"""Microseconds within which an operation that stopped can be continued in the same entry."""
MAX_COMPARED: Final = 20
"""Maximum number of entries among which the previous pages of an operation are searched."""
MAX_OPERATIONS: Final = 100
"""Maximum number of bulk operations on one event whose entries are found, the newest ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One action of an operator, or one start or reload of a server.

    Attributes:
        id: its id.
        at: when it was done, in microseconds since 1970.
        actor: the operator's name; `"flowhooks"` for starts and reloads.
        interface: the interface that was used: `"console"`, `"api"` or `"cli"`; `"server"` for starts and reloads.
        action: the operation's name.
        target: the id of the event, handler or alert; `""` if the action is about several.
        detail: the request and its effects, as JSON values.
    """

    id: str
    at: int
    actor: str
    interface: str
    action: str
    target: str
    detail: Mapping[str, Any]


def record(transaction: WriteTransaction, entry: AuditEntry, *, after: str = "", next_page: str = "") -> None:
    """Store an entry in the transaction of the action, so that either both or neither are stored.

    An operation on many events changes one page of them per transaction. All its pages share one entry: its numbers are
    the sums, and its `after` is where the next page starts.

    Args:
        transaction: the open transaction.
        entry: the entry.
        after: where the page starts; `""` for the first page.
        next_page: where the next page starts; `""` for the last page.
    """
    detail = {**entry.detail, **({"after": next_page} if next_page else {})}
    if after and (previous := _previous_pages(transaction, entry, after)) is not None:
        sums = {name: previous.detail[name] + value for name, value in entry.detail.items() if type(value) is int}
        target = entry.target if entry.target == previous.target else ""
        transaction.connection.execute(
            update(audit_log)
            .where(audit_log.c.id == previous.id)
            .values(target=target, detail=json.dumps(detail | sums, ensure_ascii=False))
        )
        return
    values = asdict(entry) | {"detail": json.dumps(detail, ensure_ascii=False)}
    transaction.connection.execute(insert(audit_log).values(values))


def update_detail(transaction: WriteTransaction, entry: AuditEntry) -> None:
    """Replace the detail of a stored entry, such as by the result of an action that has ended."""
    transaction.connection.execute(
        update(audit_log).where(audit_log.c.id == entry.id).values(detail=json.dumps(entry.detail, ensure_ascii=False))
    )


def record_collapsed(
    transaction: WriteTransaction, entry: AuditEntry, *, within: int, ignored: Collection[str]
) -> None:
    """Store an entry, or count it in the newest entry of the same kind if that is recent.

    So a client that repeats an action, such as a refused login, cannot fill the audit log. The detail of the entry gets
    the number as `count`, and the time of the last one as `last_at`.

    Args:
        transaction: the open transaction.
        entry: the entry.
        within: microseconds since the stored entry within which the new one is counted there.
        ignored: members of the detail that may differ; the newest value is kept.
    """
    query = (
        select(audit_log)
        .where(
            audit_log.c.id >= id_lower_bound(entry.at - within),
            audit_log.c.actor == entry.actor,
            audit_log.c.action == entry.action,
            audit_log.c.target == entry.target,
        )
        .order_by(audit_log.c.id.desc())
        .limit(1)
    )
    row = transaction.connection.execute(query).one_or_none()
    skipped = {*ignored, "count", "last_at"}
    stored = None if row is None else _to_entry(row)
    if stored is None or _without(stored.detail, skipped) != _without(entry.detail, skipped):
        record(transaction, entry)
        return
    count = stored.detail.get("count", 1)
    detail = {**entry.detail, "count": (count if type(count) is int else 1) + 1, "last_at": entry.at}
    transaction.connection.execute(
        update(audit_log).where(audit_log.c.id == stored.id).values(detail=json.dumps(detail, ensure_ascii=False))
    )


def _without(detail: Mapping[str, Any], skipped: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in detail.items() if name not in skipped}


def _previous_pages(transaction: WriteTransaction, entry: AuditEntry, after: str) -> AuditEntry | None:
    """Return the entry of the previous pages: the same operator asked for the same, and it has not come further."""
    query = (
        select(audit_log)
        .where(
            audit_log.c.id >= id_lower_bound(entry.at - CONTINUED_WITHIN),
            audit_log.c.actor == entry.actor,
            audit_log.c.interface == entry.interface,
            audit_log.c.action == entry.action,
        )
        .order_by(audit_log.c.id.desc())
        .limit(MAX_COMPARED)
    )
    for stored in map(_to_entry, transaction.connection.execute(query)):
        if _arguments(stored) == _arguments(entry) and "" < stored.detail.get("after", "") <= after:
            return stored
    return None


def _arguments(entry: AuditEntry) -> dict[str, Any]:
    return {name: value for name, value in entry.detail.items() if type(value) is not int and name != "after"}


def entries(
    connection: Connection,
    *,
    limit: int,
    before: str = "",
    target: str | None = None,
    actor: str | None = None,
    action: str | None = None,
    since: int | None = None,
) -> list[AuditEntry]:
    """Return entries of the audit log, newest first.

    Args:
        connection: any connection.
        limit: maximum number of entries.
        before: the id after which to continue; `""`: start with the newest.
        target: only entries about this event, handler or alert, and about bulk operations that acted on this event;
            None: all entries.
        actor: only actions of this operator; None: all.
        action: only actions of this name; None: all.
        since: only actions at or after this time, in microseconds since 1970; None: all.
    """
    query = select(audit_log).order_by(audit_log.c.id.desc()).limit(limit)
    if before:
        query = query.where(audit_log.c.id < before)
    if target is not None:
        query = query.where(audit_log.c.target.in_([target, *_operations_on(connection, target)]))
    if actor is not None:
        query = query.where(audit_log.c.actor == actor)
    if action is not None:
        query = query.where(audit_log.c.action == action)
    if since is not None:
        query = query.where(audit_log.c.id >= id_lower_bound(since))
    return [_to_entry(row) for row in connection.execute(query)]


def _operations_on(connection: Connection, event_id: str) -> list[str]:
    """Return the ids of the newest bulk operations that acted on deliveries of an event."""
    of_event = select(deliveries.c.id).where(deliveries.c.event_id == event_id)
    query = (
        select(operation_items.c.operation_id)
        .where(operation_items.c.delivery_id.in_(of_event), operation_items.c.status == ItemStatus.RELEASED.value)
        .distinct()
        .order_by(operation_items.c.operation_id.desc())
        .limit(MAX_OPERATIONS)
    )
    return list(connection.execute(query).scalars())


def _to_entry(row: Row[Any]) -> AuditEntry:
    values, damage = repair(row, list(audit_log.c))
    return AuditEntry(
        id=values.id,
        at=values.at,
        actor=values.actor,
        interface=values.interface,
        action=values.action,
        target=values.target,
        detail=json.loads(values.detail) | ({"damaged": damage} if damage else {}),
    )
