"""Kinds of credentials that processes on this ledger must require."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import delete, select

from flowhooks.ledger import database
from flowhooks.ledger.tables import required_credentials

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import Connection

    from flowhooks.ledger.transaction import WriteTransaction

_REQUIRE: Final = database.BulkInsert(required_credentials, ignore_conflicts=True)


def required(connection: Connection) -> dict[str, int]:
    """Return since when each kind is required, in microseconds since 1970."""
    columns = required_credentials.c
    return {row.kind: row.since for row in connection.execute(select(columns.kind, columns.since))}


def require(transaction: WriteTransaction, kinds: Collection[str], now: int) -> None:
    """Require these kinds of credentials from now on."""
    _REQUIRE(transaction.connection, [{"kind": kind, "since": now} for kind in sorted(kinds)])


def stop_requiring(transaction: WriteTransaction, kinds: Collection[str]) -> None:
    """Stop requiring these kinds of credentials."""
    transaction.connection.execute(delete(required_credentials).where(required_credentials.c.kind.in_(sorted(kinds))))
