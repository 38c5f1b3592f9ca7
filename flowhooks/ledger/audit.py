"""The audit log: the actions of operators."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, select

from flowhooks.ledger.tables import audit_log

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

    from flowhooks.ledger.transaction import WriteTransaction


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


def record(transaction: WriteTransaction, entry: AuditEntry) -> None:
    """Store an entry in the transaction of the action, so that either both or neither are stored."""
    detail = json.dumps(entry.detail, ensure_ascii=False)
    transaction.connection.execute(insert(audit_log).values(asdict(entry) | {"detail": detail}))


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
    rows = connection.execute(query).mappings()
    return [AuditEntry(**{**row, "detail": json.loads(row["detail"])}) for row in rows]
