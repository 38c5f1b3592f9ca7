"""The connections to PostgreSQL through which the runner `procrastinate` takes jobs."""

from __future__ import annotations

from typing import Any, Final

import procrastinate
import psycopg_pool
from psycopg.conninfo import conninfo_to_dict

from flowhooks.ledger.database import postgresql_timeouts
from flowhooks.ledger.database.engines import IDLE_SECONDS

# The pool's own default is 30 s, of which up to 8 s pass between two tries.
POOL_OPEN_TIMEOUT: Final = 6.0
"""Seconds in which the pool must open its first connection."""


class _ConnectionPool(psycopg_pool.AsyncConnectionPool[Any]):
    """A connection pool whose `open` waits at most `POOL_OPEN_TIMEOUT`, and whose check sends nothing."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options | {"check": _check})

    async def open(self, wait: bool = False, timeout: float = POOL_OPEN_TIMEOUT) -> None:  # noqa: ASYNC109 (as the pool's own)
        """Open the pool; wait at most `POOL_OPEN_TIMEOUT`, because the caller retries."""
        await super().open(wait, min(timeout, POOL_OPEN_TIMEOUT))


async def _check(connection: Any) -> None:
    """Raise OperationalError if the server has closed a connection.

    The pool's own check waits for the server, and is a transaction of its own.
    """
    connection.pgconn.consume_input()


def connector(url: str) -> procrastinate.PsycopgConnector:
    """Return Procrastinate's access to a database; nothing is opened yet."""
    return procrastinate.PsycopgConnector(
        conninfo=url,
        min_size=1,
        max_size=4,
        timeout=5.0,
        connection_class=postgresql_timeouts.connection_group(),
        pool_factory=_ConnectionPool,
        kwargs={
            "application_name": "flowhooks",
            "connect_timeout": 5,
            "options": options(url),
            **postgresql_timeouts.keepalive_options(url),
        },
    )


def options(url: str) -> str:
    """Return the options of connections that take jobs.

    A power failure may bring taken jobs back, which is harmless. The timeouts end the transaction of a worker that
    stopped responding: behind a proxy the database would never notice.
    """
    url_options = str(conninfo_to_dict(url).get("options") or "")
    own_options = f"-c synchronous_commit=off -c idle_in_transaction_session_timeout={IDLE_SECONDS}s"
    return f"{url_options} {own_options} {postgresql_timeouts.SERVER_KEEPALIVE_OPTIONS}".strip()
