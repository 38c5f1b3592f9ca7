"""The audit log: the actions of operators."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import insert, select, update

from flowhooks.clock import SECOND, id_lower_bound
from flowhooks.ledger.damaged_rows import repair
from flowhooks.ledger.tables import audit_log

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection, Row

    from flowhooks.ledger.transaction import WriteTransaction

CONTINUED_WITHIN: Final = 24 * 3600 * SECOND
"""Microseconds within which an operation that stopped can be continued in the same entry."""
MAX_COMPARED: Final = 20
"""Maximum number of entries among which the previous pages of an operation are searched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One action of an operator.

    Attributes:
        id: its id.
        at: when it was done, in microseconds since 1970.
        actor: the operator's name.
        interface: the interface that was used: `"console"`, `"api"` or `"cli"`.
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


def entries(connection: Connection, *, limit: int, before: str = "", target: str | None = None) -> list[AuditEntry]:
    """Return entries of the audit log, newest first.

    Args:
        connection: any connection.
        limit: maximum number of entries.
        before: the id after which to continue; `""`: start with the newest.
        target: only entries about this event, handler or alert; None: all entries.
    """
    query = select(audit_log).order_by(audit_log.c.id.desc()).limit(limit)
    if before:
        query = query.where(audit_log.c.id < before)
    if target is not None:
        query = query.where(audit_log.c.target == target)
    return [_to_entry(row) for row in connection.execute(query)]


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
