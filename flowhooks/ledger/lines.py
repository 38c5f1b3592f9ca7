"""Connections to PostgreSQL that come to an end when nobody answers; it must not know what is asked.

A network, a proxy or a server that hangs keeps connections open and says nothing. The system gives one up only if its
packets are not even received (`kept_alive`), so that here each question has a time in which it must be answered.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, ClassVar, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict

if TYPE_CHECKING:
    from collections.abc import Generator

    from sqlalchemy import Engine

_KEPT_ALIVE: Final = {
    "keepalives_idle": "5",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
}
"""Seconds, and milliseconds: else a connection whose other end has vanished without a word lasts for hours."""
SERVER_NOTICES: Final = (
    "-c tcp_keepalives_idle=5 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3 -c tcp_user_timeout=15000"
)
"""The same for the server, which else keeps a place, and maybe locks, for a process that is out of reach."""


class Line(psycopg.Connection[Any]):
    """A connection that is closed when a question is not answered in time.

    Attributes:
        answers_within: seconds; None waits for ever.
    """

    answers_within: float | None = None

    def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
        """Wait for an answer.

        Raises:
            psycopg.OperationalError: it did not come in time; the connection is closed.
        """
        if self.answers_within is not None:
            gen = _bounded(gen, self, self.answers_within)
        return super().wait(gen, *args, **kwargs)


class AsyncLine(psycopg.AsyncConnection[Any]):
    """The same for those who do not block a thread."""

    answers_within: ClassVar[float] = 10.0

    async def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
        """Wait for an answer.

        Raises:
            psycopg.OperationalError: it did not come in time; the connection is closed.
        """
        return await super().wait(_bounded(gen, self, self.answers_within), *args, **kwargs)


def install(engine: Engine, *, answers_within: float | None, ping_within: float) -> None:
    """Have an engine make such connections.

    Args:
        engine: one of PostgreSQL, by psycopg.
        answers_within: seconds for each question; None: as long as it takes.
        ping_within: seconds until who is given a connection out of the pool knows whether it is one.
    """
    ping = engine.dialect.do_ping

    def connect(*args: Any, **kwargs: Any) -> Any:
        line = Line.connect(*args, **kwargs)
        line.answers_within = answers_within
        return line

    def quick_ping(line: Any) -> bool:
        line.answers_within = ping_within
        try:
            return ping(line)
        finally:
            line.answers_within = answers_within

    # Said by the dialect, for listeners cost time at every statement (see `dialects`).
    engine.dialect.connect = connect  # type: ignore[method-assign]  # as above
    engine.dialect.do_ping = quick_ping  # type: ignore[assignment]  # as above


def kept_alive(url: str) -> dict[str, str]:
    """How long the system keeps a connection whose packets are not received, unless the URL says so itself."""
    said = conninfo_to_dict(url)
    return {name: value for name, value in _KEPT_ALIVE.items() if name not in said}


def _bounded(
    steps: Generator[Any, Any, Any], line: psycopg.Connection[Any] | psycopg.AsyncConnection[Any], seconds: float
) -> Generator[Any, Any, Any]:
    """Do as psycopg's own `steps` do, which are resumed when there is something to read, and ten times a second."""
    until = time.monotonic() + seconds
    try:
        wanted = next(steps)
        while True:
            ready = yield wanted
            if not ready and time.monotonic() > until:
                line.pgconn.finish()
                raise psycopg.OperationalError(f"the server has not answered for {seconds:g} seconds")
            wanted = steps.send(ready)
    except StopIteration as end:
        return end.value
