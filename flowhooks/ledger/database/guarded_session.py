"""PostgreSQL sessions for handlers: opened, guarded, and reset.

A handler may execute any statement except those that end its transaction: such statements and calls are rejected before
they are sent. Before a session returns to the pool its settings are reset, so that the next user finds none of them.
"""

from __future__ import annotations

import re
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from flowhooks.errors import TransactionError
from flowhooks.ledger import database
from flowhooks.text import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine
    from sqlalchemy.pool import PoolResetState

_MARKER_SETTING: Final = "flowhooks.lent"
"""A setting that lasts until the transaction ends, and so shows whether it is still the same transaction."""
_ENDS_TRANSACTION: Final = re.compile(
    r"(?>\s+|--[^\n]*(?:\n|\Z)|/\*.*?\*/)*"
    r"(?:COMMIT|END|ABORT|ROLLBACK(?!\s+(?:WORK\s+|TRANSACTION\s+)?TO\b)|BEGIN|START\s+TRANSACTION|PREPARE\s+TRANSACTION)\b",
    re.IGNORECASE | re.DOTALL,
)
"""Statements that begin or end a transaction. ROLLBACK TO a savepoint does neither. The first group is atomic: without
that, each comment before an ordinary statement would at least double the time of the match."""
_RESET_STATE: Final = (
    f"SELECT current_setting('{_MARKER_SETTING}', true); SET CONSTRAINTS ALL IMMEDIATE;"
    " RESET ROLE; RESET SESSION AUTHORIZATION; RESET ALL"
)
"""Resets the session before the ledger's own statements, which need its schema and rights. Deferred constraints are
checked first."""
_DISCARD: Final = (
    "CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; UNLISTEN *; SELECT pg_advisory_unlock_all();"
    " DISCARD TEMP; DISCARD SEQUENCES"
)
"""DISCARD ALL without the prepared statements, because the driver keeps track of them."""
# Other transactions that wait for the delivery's row give up after five seconds.
_IDLE_MILLISECONDS: Final = 4_000
"""Milliseconds that a transaction may be idle while the result of its attempt is recorded."""


class SessionPool:
    """The pool of the handlers' sessions, apart from the writer's connection.

    It opens no session before one is requested.

    Args:
        url: the ledger's database.
        limit: maximum number of sessions in use at the same time.

    Attributes:
        closed: whether the pool was closed, so that nothing more is committed.
    """

    def __init__(self, url: str, limit: int) -> None:
        self._engine: Engine | None = None
        self.closed = False
        if database.is_shared(url):
            self._engine = database.open_engine(url, writing=True, handler_sessions=limit)
            event.listen(self._engine.pool, "reset", _discard_state)

    def engine(self) -> Engine:
        """Return the engine for a `GuardedSession`.

        Raises:
            TransactionError: the ledger is not on PostgreSQL.
        """
        if self._engine is None:
            raise TransactionError(
                "delivery.transaction() needs a ledger on PostgreSQL, but this ledger is on SQLite: copy it to "
                "PostgreSQL (`flowhooks db copy`), or use delivery.id as an idempotency key instead"
            )
        return self._engine

    def close(self) -> None:
        """Close the pool. Transactions that are still open are rolled back."""
        self.closed = True
        if self._engine is not None:
            database.dispose(self._engine)


def _discard_state(driver: Any, _record: Any, state: PoolResetState) -> None:
    if state.terminate_only:
        return
    driver.rollback()
    driver.autocommit = True
    driver.execute(_DISCARD)
    driver.autocommit = False


def _begin(engine: Engine) -> Connection:
    """Begin a transaction; replace a pooled connection that was lost while idle."""
    for may_retry in (True, False):
        connection = engine.connect()
        try:
            connection.begin()
            connection.exec_driver_sql(f"SELECT set_config('{_MARKER_SETTING}', 'yes', true)")
        except DBAPIError as error:
            connection.close()
            if not (may_retry and error.connection_invalidated):
                raise
        except BaseException:
            connection.close()
            raise
        else:
            return connection
    raise AssertionError  # the second try returns or raises


class GuardedSession:
    """A session in one transaction, for the thread that opens it.

    Args:
        engine: the engine of a `SessionPool`.

    Raises:
        SQLAlchemyError: no session was free in time, or the database is unavailable.
    """

    def __init__(self, engine: Engine) -> None:
        self._thread = threading.get_ident()
        self._in_block = True
        self._internal = False
        self._violation = ""
        self.connection = _begin(engine)
        for name, guard in (
            ("before_cursor_execute", self._on_execute),
            ("commit", self._on_transaction_end),
            ("rollback", self._on_transaction_end),
        ):
            event.listen(self.connection, name, guard)

    def end_handler_block(self) -> None:
        """End the handler's part of the transaction. Later statements are the ledger's own.

        Raises:
            TransactionError: the transaction cannot be committed; the text gives the reason.
        """
        self._in_block = False
        if self._violation:
            raise TransactionError(f"{self._violation}; nothing was written")
        connection = self.connection
        if connection.closed or connection.invalidated or not connection.in_transaction():
            raise TransactionError("its connection was closed or lost within the block; nothing was written")
        status = connection.connection.driver_connection.info.transaction_status.name  # type: ignore[union-attr]  # psycopg's
        if status == "INERROR":
            raise TransactionError(
                "a statement failed in the block and its error was ignored, so PostgreSQL commits nothing; put "
                "statements that may fail into `with connection.begin_nested():`"
            )
        try:
            with self.internal():
                mark = connection.exec_driver_sql(_RESET_STATE).scalar()
        except SQLAlchemyError as error:
            raise TransactionError(
                f"the data of the block cannot be committed: {database.error_text(error)}"
            ) from error
        if mark != "yes":
            raise TransactionError(
                "the block ended its transaction itself, so its data may or may not be stored, and is not committed "
                "together with the outcome; let flowhooks end the transaction"
            )

    def limit_idle(self) -> None:
        """Shorten the idle timeout, because only the ledger's own statements follow, one right after the other."""
        self.connection.exec_driver_sql(f"SET LOCAL idle_in_transaction_session_timeout = {_IDLE_MILLISECONDS}")

    @contextmanager
    def internal(self) -> Iterator[None]:
        """Allow statements, and the end of the transaction, as the ledger's own within the block."""
        self._internal = True
        try:
            yield
        finally:
            self._internal = False

    def close(self, *, discard: bool = False) -> None:
        """Roll back uncommitted writes; return the session to the pool, or close it if `discard`. Raises nothing."""
        self._in_block = False
        with self.internal():
            try:
                if discard:
                    self.connection.invalidate()
                self.connection.close()
            except SQLAlchemyError:
                # The connection was lost, so PostgreSQL rolls the transaction back.
                self.connection.invalidate()
                self.connection.close()

    def _on_execute(self, _connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if self._internal:
            return
        if not self._in_block:
            raise TransactionError("the block of delivery.transaction() has ended, and its connection is closed")
        if threading.get_ident() != self._thread:
            raise TransactionError(
                "the connection of delivery.transaction() may be used only in the thread that opened it"
            )
        if _ENDS_TRANSACTION.match(statement):
            self._reject(f"the block executed {one_line(statement)[:40]!r}")

    def _on_transaction_end(self, _connection: Any) -> None:
        if not self._internal:
            self._reject("the block called commit(), rollback() or close() of its connection")

    def _reject(self, action: str) -> None:
        self._violation = (
            f"{action}, but only flowhooks may end its transaction: it commits after the handler has returned, and "
            "rolls back if an exception leaves the block"
        )
        raise TransactionError(f"{self._violation}. Use `with connection.begin_nested():` to undo parts of it")
