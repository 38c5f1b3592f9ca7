"""Who has done what, and when."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, select

from flowhooks.ledger.tables import audit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

    from flowhooks.ledger.transaction import WriteTransaction


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One thing that somebody has done.

    Attributes:
        id: its id.
        done_at: when, in microseconds since 1970.
        who: the operator's name.
        face: by which they did it: `"console"`, `"api"` or `"command"`.
        action: the operation's name.
        subject: the id of the event, handler or alert that it is about; `""` if it is about several.
        detail: what was asked for, and what that changed, as JSON has it.
    """

    id: str
    done_at: int
    who: str
    face: str
    action: str
    subject: str
    detail: Mapping[str, Any]


def record(transaction: WriteTransaction, entry: AuditEntry) -> None:
    """Write down what is done in this very transaction: it is done and written down, or neither."""
    detail = json.dumps(entry.detail, ensure_ascii=False)
    transaction.connection.execute(insert(audit).values(asdict(entry) | {"detail": detail}))


def entries(connection: Connection, *, limit: int, before: str = "", subject: str | None = None) -> list[AuditEntry]:
    """What was done, the newest first.

    Args:
        connection: any connection.
        limit: how many at the most.
        before: the id after which to go on; `""`: from the newest.
        subject: only what is about this event, handler or alert; None: everything.
    """
    query = select(audit).order_by(audit.c.id.desc()).limit(limit)
    if before:
        query = query.where(audit.c.id < before)
    if subject is not None:
        query = query.where(audit.c.subject == subject)
    rows = connection.execute(query).mappings()
    return [AuditEntry(**{**row, "detail": json.loads(row["detail"])}) for row in rows]
