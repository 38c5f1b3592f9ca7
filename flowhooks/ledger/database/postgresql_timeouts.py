"""Connections to PostgreSQL that come to an end when nobody answers; it must not know what is asked.

A network, a proxy or a server that hangs keeps connections open and says nothing. The system gives one up only if its
packets are not even received (`kept_alive`), so that here each question has a time in which it must be answered.
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

SUSPECTED: Final = 1.0
"""Seconds in which a connection must answer that was made before another one, on the same way, was given up."""


class Line(psycopg.Connection[Any]):
    """A connection that is closed when a question is not answered, in time or at all.

    Attributes:
        answers_within: seconds; None waits for ever.
    """

    answers_within: float | None = None

    def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
        """Wait for an answer.

        Raises:
            psycopg.OperationalError: it did not come in time, or cannot come any more; the connection is closed.
        """
        if self.answers_within is not None:
            within = self.answers_within
            gen = _bounded(gen, self, lambda: within)
        try:
            return super().wait(gen, *args, **kwargs)
        except psycopg.OperationalError:
            # psycopg may leave a connection open whose socket is gone, which then is asked to roll back, and cannot.
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                self.pgconn.finish()
            raise


class AsyncLine(psycopg.AsyncConnection[Any]):
    """The same for those who do not block a thread, and who share what they learn: see `company`.

    One that breaks while an answer is waited for is left to their pool.
    """

    answers_within: ClassVar[float] = 10.0
    silent_at: ClassVar[float] = -math.inf
    """When one of the company was last given up."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._since = time.monotonic()

    async def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
        """Wait for an answer.

        Raises:
            psycopg.OperationalError: it did not come in time; the connection is closed.
        """
        return await super().wait(_bounded(gen, self, self._seconds, self._fell_silent), *args, **kwargs)

    def _seconds(self) -> float:
        """In how many seconds a question must be answered."""
        return self.answers_within if self._since > self.silent_at else min(SUSPECTED, self.answers_within)

    def _fell_silent(self) -> None:
        type(self).silent_at = time.monotonic()


def company() -> type[AsyncLine]:
    """A kind of connections that go the same way: once one is given up, those that were made before are soon, too.

    Else whoever asks on each of them in turn waits for each of them.
    """
    return type("AsyncLine", (AsyncLine,), {})


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

    # Said by the dialect, for listeners cost time at every statement (see `database/engines.py`).
    engine.dialect.connect = connect  # type: ignore[method-assign]  # as above
    engine.dialect.do_ping = quick_ping  # type: ignore[assignment]  # as above


def kept_alive(url: str) -> dict[str, str]:
    """How long the system keeps a connection whose packets are not received, unless the URL says so itself."""
    said = conninfo_to_dict(url)
    return {name: value for name, value in _KEPT_ALIVE.items() if name not in said}


def _bounded(
    steps: Generator[Any, Any, Any],
    line: psycopg.Connection[Any] | psycopg.AsyncConnection[Any],
    seconds: Callable[[], float],
    fell_silent: Callable[[], None] | None = None,
) -> Generator[Any, Any, Any]:
    """Do as psycopg's own `steps` do, which are resumed when there is something to read, and ten times a second."""
    began = time.monotonic()
    try:
        wanted = next(steps)
        while True:
            ready = yield wanted
            # Who only listens has asked nothing.
            asked = line.pgconn.transaction_status != TransactionStatus.IDLE
            if asked and not ready and time.monotonic() > began + (within := seconds()):
                line.pgconn.finish()
                if fell_silent is not None:
                    fell_silent()
                raise psycopg.OperationalError(f"the server has not answered for {within:g} seconds")
            wanted = steps.send(ready)
    except StopIteration as end:
        return end.value
