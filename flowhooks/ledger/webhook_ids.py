"""Ids of signed callbacks: each id is valid for one path and the same data.

Standard Webhooks signs an id, a time and a body, but not the path, which names the completed process instance here.
Without stored ids, a captured callback could be sent again for another process instance.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Final

from sqlalchemy import delete, select, tuple_

from flowhooks.ledger import database
from flowhooks.ledger.tables import webhook_ids

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flowhooks.ledger.new_event import NewEvent
    from flowhooks.ledger.transaction import WriteTransaction

_UPSERT: Final = database.BulkInsert(webhook_ids, update_columns=("seen_at",))


def request_digest(new: NewEvent) -> str:
    """Return the SHA-256 (hexadecimal) of the path, as it was parsed, and of the data.

    The data are digested as callbacks are compared, not as bytes. So a repeated callback is always accepted, also if
    the engine serializes its JSON again, or if it has a time in it that `identity.ignore_pointers` names. The body of a
    request to a fixed URL names the instance itself, so there the digest is of that body.
    """
    if new.webhook_digest is not None:
        return new.webhook_digest
    used_for = json.dumps([new.event.kind, new.event.flow_instance_id, new.digest])
    return hashlib.sha256(used_for.encode()).hexdigest()


def record_ids(transaction: WriteTransaction, items: Sequence[NewEvent]) -> list[bool]:
    """Store the ids of the signed items; for each item, return whether its id was used before for something else.

    Of several requests with the same id at once, the first one counts. This holds between processes, too: the second
    one waits until the first one's transaction has ended.
    """
    first: dict[tuple[str, str], dict[str, object]] = {}
    digests: list[str | None] = []
    for item in items:
        digests.append(None if item.webhook_id is None else request_digest(item))
        if item.webhook_id is not None:
            row: dict[str, object] = {
                "source": item.event.source,
                "webhook_id": item.webhook_id,
                "digest": digests[-1],
                "seen_at": item.now,
            }
            first.setdefault((item.event.source, item.webhook_id), row)
    # Sorted, and before any event is stored, so that two processes do not deadlock.
    rows = _UPSERT.insert_returning(transaction.connection, [first[key] for key in sorted(first)])
    stored_digests = {(row.source, row.webhook_id): row.digest for row in rows}
    return [
        digest is not None and stored_digests[item.event.source, item.webhook_id or ""] != digest
        for item, digest in zip(items, digests, strict=True)
    ]


def expire(transaction: WriteTransaction, cutoff: int, *, limit: int) -> int:
    """Delete at most `limit` ids that were last used before a time; return their number."""
    old = (
        select(webhook_ids.c.source, webhook_ids.c.webhook_id)
        .where(webhook_ids.c.seen_at < cutoff)
        .order_by(webhook_ids.c.seen_at)
        .limit(limit)
    )
    key = tuple_(webhook_ids.c.source, webhook_ids.c.webhook_id)
    return int(transaction.connection.execute(delete(webhook_ids).where(key.in_(old))).rowcount)
