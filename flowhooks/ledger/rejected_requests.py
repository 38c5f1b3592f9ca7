"""The requests that were rejected last, and why."""

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
"""Rejected requests that a ledger keeps, over all processes: the newest ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedRequest:
    """A request to the call-back listener that was answered with an error. Its body is not stored.

    Attributes:
        id: of this rejection.
        rejected_at: when, in microseconds since 1970.
        path: what was asked for, without what cannot be seen.
        address: who asked, as far as the server knows; `""` if it does not.
        status: the HTTP status that it was answered.
        reason_en: the answer's sentence in English.
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
    """The newest rejected requests, the newest first, going on after the id `before`."""
    query = select(rejected_requests).order_by(rejected_requests.c.id.desc()).limit(limit)
    if before:
        query = query.where(rejected_requests.c.id < before)
    return [RejectedRequest(**row) for row in connection.execute(query).mappings()]
