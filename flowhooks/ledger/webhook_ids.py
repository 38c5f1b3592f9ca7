"""Ids of signed call-backs: one is used for one path and the same data.

Standard Webhooks signs an id, a time and a body, and not the path, which here says what has completed. So whoever has
got hold of a signed call-back could have it taken for another flow, were its id not kept.
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
    """The SHA-256 (hexadecimal) of what an id is used for: the path, as it is understood, and the data.

    The data as two call-backs are compared by it, and not the bytes: to call again with the same is always safe, also
    for an engine that makes its JSON anew, and be it with a time in it that `identity.ignore_pointers` names.
    """
    used_for = json.dumps([new.event.kind, new.event.flow_instance_id, new.digest])
    return hashlib.sha256(used_for.encode()).hexdigest()


def record_ids(transaction: WriteTransaction, items: Sequence[NewEvent]) -> list[bool]:
    """Keep the ids of those items that are signed; whether each was used before for something else.

    Of several that come at once with the same id the first one counts, also among processes: whoever comes second
    waits until the first has ended.
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
    # Sorted, so that no two processes wait for each other; and before any event, for the same reason.
    rows = _UPSERT.insert_returning(transaction.connection, [first[key] for key in sorted(first)])
    stored_digests = {(row.source, row.webhook_id): row.digest for row in rows}
    return [
        digest is not None and stored_digests[item.event.source, item.webhook_id or ""] != digest
        for item, digest in zip(items, digests, strict=True)
    ]


def expire(transaction: WriteTransaction, cutoff: int, *, limit: int) -> int:
    """Delete ids that were last used before a moment, `limit` of them at the most; how many went."""
    old = (
        select(webhook_ids.c.source, webhook_ids.c.webhook_id)
        .where(webhook_ids.c.seen_at < cutoff)
        .order_by(webhook_ids.c.seen_at)
        .limit(limit)
    )
    key = tuple_(webhook_ids.c.source, webhook_ids.c.webhook_id)
    return int(transaction.connection.execute(delete(webhook_ids).where(key.in_(old))).rowcount)
