"""Who has done what, and when."""

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
    """One thing that somebody has done.

    Attributes:
        id: its id.
        at: when, in microseconds since 1970.
        actor: the operator's name.
        interface: by which they did it: `"console"`, `"api"` or `"cli"`.
        action: the operation's name.
        target: the id of the event, handler or alert that it is about; `""` if it is about several.
        detail: what was asked for, and what that changed, as JSON has it.
    """

    id: str
    at: int
    actor: str
    interface: str
    action: str
    target: str
    detail: Mapping[str, Any]


def record(transaction: WriteTransaction, entry: AuditEntry) -> None:
    """Write down what is done in this very transaction: it is done and written down, or neither."""
    detail = json.dumps(entry.detail, ensure_ascii=False)
    transaction.connection.execute(insert(audit_log).values(asdict(entry) | {"detail": detail}))


def entries(connection: Connection, *, limit: int, before: str = "", target: str | None = None) -> list[AuditEntry]:
    """What was done, the newest first.

    Args:
        connection: any connection.
        limit: how many at the most.
        before: the id after which to go on; `""`: from the newest.
        target: only what is about this event, handler or alert; None: everything.
    """
    query = select(audit_log).order_by(audit_log.c.id.desc()).limit(limit)
    if before:
        query = query.where(audit_log.c.id < before)
    if target is not None:
        query = query.where(audit_log.c.target == target)
    rows = connection.execute(query).mappings()
    return [AuditEntry(**{**row, "detail": json.loads(row["detail"])}) for row in rows]
