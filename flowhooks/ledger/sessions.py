"""Login sessions of operators, shared by all processes of the ledger."""

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

# A session lasts a working day, but not until the next morning.
IDLE_TIMEOUT: Final = 12 * 3600 * SECOND
"""Microseconds without a request after which a session expires: 12 hours."""
MAX_AGE: Final = 7 * 86400 * SECOND
"""Microseconds after which a session expires even if it is used: 7 days."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """The session of an operator who has logged in.

    Attributes:
        digest: the SHA-256 digest of the session's secret.
        operator: the operator's name.
        created_at: when the operator logged in, in microseconds since 1970.
        used_at: when it was last used, in microseconds since 1970, accurate to about a minute.
    """

    digest: str
    operator: str
    created_at: int
    used_at: int


def create(transaction: WriteTransaction, session: Session) -> None:
    """Store a session, and delete the expired ones."""
    now = session.created_at
    over = or_(sessions.c.used_at <= now - IDLE_TIMEOUT, sessions.c.created_at <= now - MAX_AGE)
    transaction.connection.execute(delete(sessions).where(over))
    transaction.connection.execute(insert(sessions).values(asdict(session)))


def find(connection: Connection, digests: Collection[str], now: int) -> Session | None:
    """Return the session with one of these digests; None if there is none, or it has expired."""
    query = select(sessions).where(
        sessions.c.digest.in_(digests), sessions.c.used_at > now - IDLE_TIMEOUT, sessions.c.created_at > now - MAX_AGE
    )
    row = connection.execute(query).mappings().first()
    return Session(**row) if row else None


def touch(transaction: WriteTransaction, digest: str, now: int) -> None:
    """Record that a session was used."""
    transaction.connection.execute(update(sessions).where(sessions.c.digest == digest).values(used_at=now))


def remove(transaction: WriteTransaction, digests: Collection[str]) -> None:
    """Delete sessions."""
    transaction.connection.execute(delete(sessions).where(sessions.c.digest.in_(digests)))
