"""The most recently rejected requests, with the reasons."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import delete, insert, select

from flowhooks.ledger.tables import rejected_requests

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from flowhooks.ledger.transaction import WriteTransaction

MAX_STORED: Final = 1_000
"""Maximum number of rejected requests that a ledger stores, for all processes: the newest ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedRequest:
    """A request to the callback listener that was answered with an error. Its body is not stored.

    Attributes:
        id: the id of this record.
        rejected_at: when it was rejected, in microseconds since 1970.
        path: the requested path, without invisible characters.
        address: the address of the client; `""` if unknown.
        status: the HTTP status of the answer.
        reason_en: the reason in the answer, in English.
        reason_zh: the same in Chinese.
    """

    id: str
    rejected_at: int
    path: str
    address: str
    status: int
    reason_en: str
    reason_zh: str


def store(transaction: WriteTransaction, requests: Sequence[RejectedRequest], *, limit: int = MAX_STORED) -> None:
    """Store rejected requests, and delete the oldest ones beyond `limit`."""
    transaction.connection.execute(insert(rejected_requests), [asdict(request) for request in requests])
    newest = select(rejected_requests.c.id).order_by(rejected_requests.c.id.desc()).limit(1).offset(limit - 1)
    transaction.connection.execute(delete(rejected_requests).where(rejected_requests.c.id < newest.scalar_subquery()))


def latest(connection: Connection, *, limit: int, before: str = "") -> list[RejectedRequest]:
    """Return the newest rejected requests, newest first, that are older than the id `before`, if one is given."""
    query = select(rejected_requests).order_by(rejected_requests.c.id.desc()).limit(limit)
    if before:
        query = query.where(rejected_requests.c.id < before)
    return [RejectedRequest(**row) for row in connection.execute(query).mappings()]
