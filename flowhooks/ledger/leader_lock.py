"""The lock of the process that does work for all that share a ledger on PostgreSQL.

It is an advisory lock of a session: PostgreSQL releases it when the process ends, also after `kill -9`. It ends the
session, too, if the process was silent for `IDLE_SESSION_TIMEOUT`: then it was stopped or is unreachable.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, TypeVar

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from flowhooks.errors import LedgerUnusable
from flowhooks.ledger import database

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

T = TypeVar("T")

# More than the interval of the work for which the lock is held.
IDLE_SESSION_TIMEOUT: Final = 2.5
"""Seconds without a statement after which PostgreSQL takes the lock from a process."""
_CLASS: Final = 702_184
"""The first half of the number of the lock, which is of flowhooks. The second half is of the ledger."""
# Ledgers in different schemas of one database have different tables, and so different locks.
_KEY: Final = "CAST(to_regclass('processes') AS oid)"
_IS_FREE: Final = text(f"""
SELECT NOT EXISTS (
    SELECT FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database AND datname = current_database()
    WHERE locktype = 'advisory' AND classid = {_CLASS} AND objid = {_KEY} AND objsubid = 2 AND granted
)
""")  # noqa: S608 (of constants)
_TAKE: Final = text(f"SELECT pg_try_advisory_lock({_CLASS}, CAST({_KEY} AS int))")
# Before version 14, PostgreSQL does not have this setting.
_SET_TIMEOUT: Final = text(
    "SELECT set_config(name, CAST(:milliseconds AS text), false) FROM pg_settings WHERE name = 'idle_session_timeout'"
)


class LeaderLock:
    """A lock that at most one process holds, with a connection of its own while it is held.

    Args:
        url: the database, which must be on PostgreSQL.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._session: Connection | None = None
        self._on_release = ExitStack()

    @property
    def is_held(self) -> bool:
        """Whether this process has the lock, as far as it knows."""
        return self._session is not None

    @staticmethod
    def is_free(connection: Connection) -> bool:
        """Return whether no process has the lock, as seen over any connection."""
        return bool(connection.execute(_IS_FREE).scalar_one())

    def take(self) -> bool:
        """Take the lock; return whether no other process was faster.

        Raises:
            LedgerUnusable: no connection could be opened.
        """
        engine = database.open_engine(self._url, writing=False, statement_timeout=database.STATEMENT_TIMEOUT)
        with ExitStack() as on_error:
            on_error.callback(database.dispose, engine)
            try:
                session = on_error.enter_context(engine.connect()).execution_options(isolation_level="AUTOCOMMIT")
                if not session.execute(_TAKE).scalar_one():
                    return False
                session.execute(_SET_TIMEOUT, {"milliseconds": str(int(IDLE_SESSION_TIMEOUT * 1000))})
            except SQLAlchemyError as error:
                raise LedgerUnusable(f"the database cannot be read: {database.error_text(error)}") from error
            self._session, self._on_release = session, on_error.pop_all()
        return True

    def read(self, query: Callable[[Connection], T]) -> T | None:
        """Return the result of a query over the lock's connection; None if the lock is not held, or was lost."""
        if self._session is None:
            return None
        try:
            return query(self._session)
        except SQLAlchemyError:
            self.release()
            return None

    def release(self) -> None:
        """Release the lock, if it is held."""
        self._session = None
        self._on_release.close()
