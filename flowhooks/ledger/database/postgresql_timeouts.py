"""Connections to PostgreSQL that come to an end when nobody answers.

A network, a proxy or a server that hangs keeps connections open and says nothing. The system gives one up only if its
packets are not even received (`keepalive_options`), so that here each question has a time in which it must be answered.
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

_KEEPALIVE_OPTIONS: Final = {
    "keepalives_idle": "5",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
}
"""Seconds, and milliseconds: else a connection whose other end has vanished without a word lasts for hours."""
SERVER_KEEPALIVE_OPTIONS: Final = (
    "-c tcp_keepalives_idle=5 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3 -c tcp_user_timeout=15000"
)
"""The same for the server, which else keeps a place, and maybe locks, for a process that is out of reach."""

SUSPECT_TIMEOUT: Final = 1.0
"""Seconds in which a connection must answer that was made before another one, on the same way, was given up."""


class TimedConnection(psycopg.Connection[Any]):
    """A connection that is closed when a question is not answered, in time or at all.

    Attributes:
        statement_timeout: seconds; None waits for ever.
    """

    statement_timeout: float | None = None

    def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
        """Wait for an answer.

        Raises:
            psycopg.OperationalError: it did not come in time, or cannot come any more; the connection is closed.
        """
        if self.statement_timeout is not None:
            timeout = self.statement_timeout
            gen = _with_timeout(gen, self, lambda: timeout)
        try:
            return super().wait(gen, *args, **kwargs)
        except psycopg.OperationalError:
            # psycopg may leave a connection open whose socket is gone, which then is asked to roll back, and cannot.
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                self.pgconn.finish()
            raise


class AsyncTimedConnection(psycopg.AsyncConnection[Any]):
    """The same for those who do not block a thread, and who share what they learn: see `company`.

    One that breaks while an answer is waited for is left to their pool.
    """

    statement_timeout: ClassVar[float] = 10.0
    timed_out_at: ClassVar[float] = -math.inf
    """When one of the company was last given up."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._opened_at = time.monotonic()

    async def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
        """Wait for an answer.

        Raises:
            psycopg.OperationalError: it did not come in time; the connection is closed.
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
    """A kind of connections that go the same way: once one is given up, those that were made before are soon, too.

    Else whoever asks on each of them in turn waits for each of them.
    """
    return type("AsyncTimedConnection", (AsyncTimedConnection,), {})


def install(engine: Engine, *, statement_timeout: float | None, ping_timeout: float) -> None:
    """Have an engine make such connections.

    Args:
        engine: one of PostgreSQL, by psycopg.
        statement_timeout: seconds for each question; None: as long as it takes.
        ping_timeout: seconds until who is given a connection out of the pool knows whether it is one.
    """
    ping = engine.dialect.do_ping

    def connect(*args: Any, **kwargs: Any) -> Any:
        connection = TimedConnection.connect(*args, **kwargs)
        connection.statement_timeout = statement_timeout
        return connection

    def quick_ping(connection: Any) -> bool:
        connection.statement_timeout = ping_timeout
        try:
            return ping(connection)
        finally:
            connection.statement_timeout = statement_timeout

    # Said by the dialect, for listeners cost time at every statement (see `database/engines.py`).
    engine.dialect.connect = connect  # type: ignore[method-assign]  # as above
    engine.dialect.do_ping = quick_ping  # type: ignore[assignment]  # as above


def keepalive_options(url: str) -> dict[str, str]:
    """How long the system keeps a connection whose packets are not received, unless the URL says so itself."""
    url_options = conninfo_to_dict(url)
    return {name: value for name, value in _KEEPALIVE_OPTIONS.items() if name not in url_options}


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
            # Who only listens has asked nothing.
            is_active = connection.pgconn.transaction_status != TransactionStatus.IDLE
            if is_active and not ready and time.monotonic() > began + (timeout := get_timeout()):
                connection.pgconn.finish()
                if on_timeout is not None:
                    on_timeout()
                raise psycopg.OperationalError(f"the server has not answered for {timeout:g} seconds")
            awaited = steps.send(ready)
    except StopIteration as end:
        return end.value
