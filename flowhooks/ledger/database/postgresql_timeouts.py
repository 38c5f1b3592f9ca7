"""PostgreSQL connections that are closed if a statement is not answered in time.

A network, proxy or server that hangs keeps connections open and sends nothing. The operating system closes a connection
only if its packets are not even acknowledged (`keepalive_options`). So each statement has a timeout here.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any, ClassVar, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from sqlalchemy import Engine

# Without keepalives a connection whose peer disappeared would stay open for hours.
_KEEPALIVE_OPTIONS: Final = {
    "keepalives_idle": "5",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
}
"""Keepalive options of the client: seconds, the last one milliseconds."""
# Without them the server would keep a connection, and perhaps locks, for an unreachable process.
SERVER_KEEPALIVE_OPTIONS: Final = (
    "-c tcp_keepalives_idle=5 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3 -c tcp_user_timeout=15000"
)
"""The same options for the server."""

SUSPECT_TIMEOUT: Final = 1.0
"""Statement timeout, in seconds, for connections that were opened before another one of their group timed out."""


class TimedConnection(psycopg.Connection[Any]):
    """A connection that is closed if a statement is not answered in time, or if it breaks.

    Attributes:
        statement_timeout: seconds; None: no timeout.
    """

    statement_timeout: float | None = None

    def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
        """Wait for an answer.

        Raises:
            psycopg.OperationalError: no answer came in time, or the connection broke; the connection is closed.
        """
        if self.statement_timeout is not None:
            timeout = self.statement_timeout
            gen = _with_timeout(gen, self, lambda: timeout)
        try:
            return super().wait(gen, *args, **kwargs)
        except psycopg.OperationalError:
            # psycopg may leave a connection open whose socket is closed. The rollback that follows would then fail.
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                self.pgconn.finish()
            raise


class AsyncTimedConnection(psycopg.AsyncConnection[Any]):
    """The same for asyncio. The connections of a `connection_group` share when one of them timed out.

    A connection that breaks during the wait is left to its pool.
    """

    statement_timeout: ClassVar[float] = 10.0
    timed_out_at: ClassVar[float] = -math.inf
    """When a connection of the group last timed out, by the monotonic clock, in seconds."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._opened_at = time.monotonic()

    async def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
        """Wait for an answer.

        Raises:
            psycopg.OperationalError: no answer came in time; the connection is closed.
        """
        return await super().wait(_with_timeout(gen, self, self._timeout, self._on_timeout), *args, **kwargs)

    def _timeout(self) -> float:
        return (
            self.statement_timeout
            if self._opened_at > self.timed_out_at
            else min(SUSPECT_TIMEOUT, self.statement_timeout)
        )

    def _on_timeout(self) -> None:
        type(self).timed_out_at = time.monotonic()


def connection_group() -> type[AsyncTimedConnection]:
    """Return a class of connections to one server: after one timed out, older ones have a short timeout.

    Otherwise a caller that tries the connections in turn would wait the full timeout for each.
    """
    return type("AsyncTimedConnection", (AsyncTimedConnection,), {})


def install(engine: Engine, *, statement_timeout: float | None, ping_timeout: float) -> None:
    """Make an engine open `TimedConnection`s.

    Args:
        engine: an engine of PostgreSQL with psycopg.
        statement_timeout: seconds for each statement; None: no timeout.
        ping_timeout: seconds for the test of a pooled connection before it is used.
    """

    def connect(*args: Any, **kwargs: Any) -> Any:
        connection = TimedConnection.connect(*args, **kwargs)
        connection.server_cursor_factory = _ServerCursor
        connection.statement_timeout = statement_timeout
        return connection

    def quick_ping(connection: Any) -> bool:
        connection.statement_timeout = ping_timeout
        try:
            # The statement begins the transaction of its caller. SQLAlchemy's own one would be another transaction.
            connection.execute("")
        finally:
            connection.statement_timeout = statement_timeout
        return True

    # Set in the dialect, because listeners cost time at every statement (see `database/engines.py`).
    engine.dialect.connect = connect  # type: ignore[method-assign]  # as above
    engine.dialect.do_ping = quick_ping  # type: ignore[assignment]  # as above


def drop_read_only_sessions(engine: Engine) -> None:
    """Make an engine that writes close its connections once a statement is refused because the session is read-only.

    After a failover the server may be a standby now, or may have been one when the session began. Without this the pool
    would use the same session for the next transaction.
    """
    is_lost = engine.dialect.is_disconnect

    def is_disconnect(error: Any, connection: Any, cursor: Any) -> bool:
        return isinstance(error, psycopg.errors.ReadOnlySqlTransaction) or is_lost(error, connection, cursor)

    engine.dialect.is_disconnect = is_disconnect  # type: ignore[assignment,method-assign]  # SQLAlchemy has no setting


def keepalive_options(url: str) -> dict[str, str]:
    """Return the keepalive options of a connection, except those that the URL sets itself.

    Raises:
        ValueError: the URL has an option that the driver does not know.
    """
    try:
        url_options = conninfo_to_dict(url)
    except psycopg.ProgrammingError as error:
        # Other messages of libpq may repeat a part of the URL with the password.
        text = str(error)
        raise ValueError(text if text.startswith("invalid URI query parameter") else "PostgreSQL refuses it") from None
    return {name: value for name, value in _KEEPALIVE_OPTIONS.items() if name not in url_options}


class _ServerCursor(psycopg.ServerCursor[Any]):
    """A cursor of which SQLAlchemy reads a batch at a time."""

    def __del__(self, *args: Any) -> None:
        # SQLAlchemy closes no cursor of a connection that broke: with the connection, the server has released it.
        if not self.connection.closed:
            super().__del__(*args)


def _with_timeout(
    steps: Generator[Any, Any, Any],
    connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any],
    get_timeout: Callable[[], float],
    on_timeout: Callable[[], None] | None = None,
) -> Generator[Any, Any, Any]:
    """Run psycopg's generator `steps`, and check the timeout ten times a second."""
    began = time.monotonic()
    try:
        awaited = next(steps)
        while True:
            ready = yield awaited
            # A connection that only listens waits for no answer.
            is_active = connection.pgconn.transaction_status != TransactionStatus.IDLE
            if is_active and not ready and time.monotonic() > began + (timeout := get_timeout()):
                connection.pgconn.finish()
                if on_timeout is not None:
                    on_timeout()
                raise psycopg.OperationalError(f"the server has not answered for {timeout:g} seconds")
            awaited = steps.send(ready)
    except StopIteration as end:
        return end.value
