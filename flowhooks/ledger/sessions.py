"""Who is logged in, in every process that shares the ledger."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import delete, insert, or_, select, update

from flowhooks.clock import SECOND
from flowhooks.ledger.tables import sessions

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import Connection

    from flowhooks.ledger.transaction import WriteTransaction

IDLE_TIMEOUT: Final = 12 * 3600 * SECOND
"""Microseconds without a request after which a session is over: a working day, and not the next morning."""
MAX_AGE: Final = 7 * 86400 * SECOND
"""Microseconds after which a session is over, however busy it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """Somebody who has logged in.

    Attributes:
        digest: what is kept of the secret that they were given.
        operator: the operator's name.
        created_at: when they logged in, in microseconds since 1970.
        used_at: when they were here last, give or take a minute.
    """

    digest: str
    operator: str
    created_at: int
    used_at: int


def create(transaction: WriteTransaction, session: Session) -> None:
    """Keep a session, and delete those that are over."""
    now = session.created_at
    over = or_(sessions.c.used_at <= now - IDLE_TIMEOUT, sessions.c.created_at <= now - MAX_AGE)
    transaction.connection.execute(delete(sessions).where(over))
    transaction.connection.execute(insert(sessions).values(asdict(session)))


def find(connection: Connection, digests: Collection[str], now: int) -> Session | None:
    """The session that has one of these digests and is not over; None if there is none."""
    query = select(sessions).where(
        sessions.c.digest.in_(digests), sessions.c.used_at > now - IDLE_TIMEOUT, sessions.c.created_at > now - MAX_AGE
    )
    row = connection.execute(query).mappings().first()
    return Session(**row) if row else None


def touch(transaction: WriteTransaction, digest: str, now: int) -> None:
    """Write down that somebody is still here."""
    transaction.connection.execute(update(sessions).where(sessions.c.digest == digest).values(used_at=now))


def remove(transaction: WriteTransaction, digests: Collection[str]) -> None:
    """Forget sessions for good."""
    transaction.connection.execute(delete(sessions).where(sessions.c.digest.in_(digests)))
