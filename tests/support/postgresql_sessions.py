"""Sessions on the tests' PostgreSQL server that are used again.

A new session costs the server about 10 ms of processor time: it forks a process, which reads the catalog again. A test
opens about eight of them, and most tests do not notice whether a session is new.
"""

from __future__ import annotations

import select
from collections import defaultdict
from typing import TYPE_CHECKING, Any, ClassVar

from psycopg import pq
from psycopg.conninfo import conninfo_to_dict

from flowhooks.ledger.database import postgresql_timeouts
from flowhooks.ledger.database.postgresql_timeouts import TimedConnection

if TYPE_CHECKING:
    from collections.abc import Generator

    from support.postgresql import Server

MAX_FREE = 8
"""The maximum number of free sessions with the same options."""
_RESET = (b"ROLLBACK", b"DISCARD ALL")
"""Statements after which a session is as new: no transaction, lock, prepared statement, channel, or changed setting."""

_free: dict[str, list[pq.PGconn]] = defaultdict(list)
"""The free sessions, by the options that they were opened with."""
_finished = pq.PGconn.connect(b"host=/nowhere")
"""The session of closed connections."""
_finished.finish()


def share(server: Server) -> None:
    """Let connections of flowhooks to this server use free sessions from now on."""
    ReusedConnection.servers.add(_address(server.dsn))
    postgresql_timeouts.TimedConnection = ReusedConnection  # type: ignore[misc]  # mypy lets no class be replaced; this one is a subclass of it


def close_free() -> None:
    """Close all free sessions."""
    while _free:
        for session in _free.popitem()[1]:
            session.finish()


class ReusedConnection(TimedConnection):
    """A connection that takes a free session instead of a new one, and leaves it to others when it is closed."""

    servers: ClassVar[set[tuple[str, str]]] = set()
    """Host and port of the servers whose sessions are used again."""
    _options = ""

    @classmethod
    def _connect_gen(cls, conninfo: str = "") -> Generator[Any, Any, Any]:
        session = _take(conninfo)
        connection = cls(session) if session else (yield from super()._connect_gen(conninfo))
        connection._options = conninfo
        return connection

    def close(self) -> None:
        """Close the connection. If its session can be reset, it becomes free."""
        session, self.pgconn = self.pgconn, _finished
        self._closed = True
        session.notice_handler = session.notify_handler = None
        free = _free[self._options]
        if _address(self._options) in self.servers and len(free) < MAX_FREE and _reset(session):
            free.append(session)
        else:
            session.finish()


def _address(options: str) -> tuple[str, str]:
    parts = conninfo_to_dict(options)
    return str(parts.get("host", "")), str(parts.get("port", "5432"))


def _take(options: str) -> pq.PGconn | None:
    """A free session with these options that is still open; None if there is none."""
    while free := _free[options]:
        try:
            session = free.pop()
        except IndexError:  # another thread took the last one
            return None
        if not _is_readable(session.socket):  # it would be readable if the server had ended it
            return session
        session.finish()
    return None


def _is_readable(socket: int) -> bool:
    poll = select.poll()  # `select.select` takes no file number above 1,023
    poll.register(socket, select.POLLIN)
    return bool(poll.poll(0))


def _reset(session: pq.PGconn) -> bool:
    """Make a session as new. False if that is impossible."""
    if session.status != pq.ConnStatus.OK or session.pipeline_status != pq.PipelineStatus.OFF:
        return False
    if session.transaction_status == pq.TransactionStatus.ACTIVE:
        return False
    is_idle = session.transaction_status == pq.TransactionStatus.IDLE
    for statement in _RESET[is_idle:]:
        if session.exec_(statement).status != pq.ExecStatus.COMMAND_OK:
            return False
    while session.notifies():
        pass
    return True
