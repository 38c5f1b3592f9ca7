"""The most recently rejected requests, with the reasons.

Equal requests share a row, which counts them. Each status of each source has a limit of its own, so that an engine that
sends the same error at a high rate does not displace the errors of others. If the source is not known, each address has
a limit, too.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Final

from sqlalchemy import delete, func, select

from flowhooks.ledger import database
from flowhooks.ledger.tables import rejected_requests

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Connection

    from flowhooks.ledger.transaction import WriteTransaction

MAX_STORED: Final = 1_000
"""Maximum number of rows that a ledger stores, for all processes: the newest ones."""
MAX_STORED_PER_GROUP: Final = 100
"""Maximum number of these rows with the same status and source."""
MAX_STORED_PER_ADDRESS: Final = 20
"""Maximum number of these rows with the same address, if the source is not known."""
PATH_INDEPENDENT_STATUSES: Final = frozenset({401, 403, 429})
"""Statuses that depend on the sender and not on the path. Requests that differ only in their path count as equal. A 401
of a known source is an exception: its `webhook-id` was used before for another path."""

_INSERT: Final = database.insert(rejected_requests)
_UPSERT: Final = _INSERT.on_conflict_do_update(
    index_elements=[rejected_requests.c.fingerprint],
    set_={
        **{name: _INSERT.excluded[name] for name in ("id", "rejected_at", "path", "reason_zh")},
        "count": rejected_requests.c.count + _INSERT.excluded["count"],
    },
)
_RANKED: Final = (
    select(
        rejected_requests.c.id,
        func.row_number()
        .over(
            partition_by=(rejected_requests.c.status, rejected_requests.c.address),
            order_by=rejected_requests.c.id.desc(),
        )
        .label("rank"),
    )
    .where(rejected_requests.c.source == "", rejected_requests.c.address != "")
    .subquery()
)
_DELETE_OLDEST_OF_ADDRESSES: Final = delete(rejected_requests).where(
    rejected_requests.c.id.in_(select(_RANKED.c.id).where(_RANKED.c.rank > MAX_STORED_PER_ADDRESS))
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedRequest:
    """Equal requests to the callback listener that were answered with an error. Their bodies are not stored.

    Attributes:
        id: the id of this record. It changes with each further equal request.
        rejected_at: when the last of them was rejected, in microseconds since 1970.
        first_rejected_at: when the first of them was rejected, in microseconds since 1970.
        count: the number of these requests.
        source: the source that sent them; `""` if they were rejected before a valid credential was found.
        path: the path of the last one, without invisible characters. Requests with the status 403 or 429, and with 401
            if no source is known, are equal even if their paths differ.
        address: the address of the client; `""` if unknown.
        status: the HTTP status of the answer.
        reason_en: the reason in the answer, in English.
        reason_zh: the same in Chinese.
    """

    id: str
    rejected_at: int
    first_rejected_at: int
    count: int = 1
    source: str = ""
    path: str
    address: str
    status: int
    reason_en: str
    reason_zh: str

    @property
    def fingerprint(self) -> str:
        """A SHA-256 that is the same for equal requests."""
        is_reused_id = self.status == 401 and self.source  # noqa: PLR2004 (Unauthorized)
        path = "" if self.status in PATH_INDEPENDENT_STATUSES and not is_reused_id else self.path
        parts = (self.status, self.source, self.address, path, self.reason_en)
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @property
    def limited_by_address(self) -> bool:
        """Whether the records of its address are limited, because its source is not known."""
        return not self.source and bool(self.address)

    def after(self, earlier: RejectedRequest) -> RejectedRequest:
        """Return one record for this request and an equal earlier one."""
        return replace(self, count=self.count + earlier.count, first_rejected_at=earlier.first_rejected_at)


def store(transaction: WriteTransaction, requests: Sequence[RejectedRequest], *, limit: int = MAX_STORED) -> None:
    """Store rejected requests with different fingerprints, and delete the oldest ones beyond the limits."""
    # In a fixed order, so that two processes that store equal requests do not deadlock.
    rows = sorted(
        (asdict(request) | {"fingerprint": request.fingerprint} for request in requests),
        key=lambda row: str(row["fingerprint"]),
    )
    transaction.connection.execute(_UPSERT, rows)
    table = rejected_requests.c
    if any(request.limited_by_address for request in requests):
        transaction.connection.execute(_DELETE_OLDEST_OF_ADDRESSES)
    for status, source in sorted({(request.status, request.source) for request in requests}):
        _delete_oldest(transaction, MAX_STORED_PER_GROUP, table.status == status, table.source == source)
    _delete_oldest(transaction, limit)


def _delete_oldest(transaction: WriteTransaction, limit: int, *group: ColumnElement[bool]) -> None:
    """Delete the oldest rows of a group beyond a limit."""
    table = rejected_requests.c
    oldest = select(table.id).where(*group).order_by(table.id.desc()).limit(1).offset(limit - 1)
    transaction.connection.execute(delete(rejected_requests).where(*group, table.id < oldest.scalar_subquery()))


def latest(connection: Connection, *, limit: int, before: str = "") -> list[RejectedRequest]:
    """Return the newest rejected requests, newest first, that are older than the id `before`, if one is given."""
    fields = [column for column in rejected_requests.c if column.name != "fingerprint"]
    query = select(*fields).order_by(rejected_requests.c.id.desc()).limit(limit)
    if before:
        query = query.where(rejected_requests.c.id < before)
    return [RejectedRequest(**row) for row in connection.execute(query).mappings()]
