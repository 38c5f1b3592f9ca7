"""The limits of handlers: how many of their deliveries run at once, and how many attempts start in a time.

Theory of operation
-------------------
The column `handlers.rate_next_at` says from when the next attempt of a handler may start. Only the transaction that
starts attempts decides, while it has the handler's lock (`ordering.py`): `StartBudget` reads the column, and moves it
by as many intervals as attempts start. A delivery that the rate refuses is not changed: it stays due.

`StartLimits` keeps a copy of the time in each process. The copy is a hint: until then, the process neither reads nor
claims deliveries of the handler, and at that time it looks for them. A wrong hint costs a claim that is refused, or
delays a delivery by at most one interval.
"""

from __future__ import annotations

import json
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Final

from sqlalchemy import BigInteger, bindparam, select, update

from flowhooks.ledger import database
from flowhooks.ledger.tables import handlers
from flowhooks.model.rate import Rate

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy import Connection

    from flowhooks.ledger.transaction import WriteTransaction
    from flowhooks.model.handler import Handler

_READ: Final = select(handlers.c.id, handlers.c.rate_next_at).where(
    handlers.c.id.in_(database.string_array("handlers"))
)
_MOVE: Final = (
    update(handlers)
    .where(handlers.c.id == bindparam("handler"))
    .values(rate_next_at=bindparam("next_at", type_=BigInteger))
)


class StartLimits:
    """The limits of one handler, and when its rate allows the next attempt, as far as this process knows.

    Args:
        concurrency: maximum number of deliveries that run at the same time; None: no limit.
        rate: how many attempts may start in a time; None: no limit.

    Attributes:
        concurrency: as given.
        rate: as given.
    """

    __slots__ = ("_hint", "concurrency", "rate")

    def __init__(self, concurrency: int | None = None, rate: Rate | None = None) -> None:
        self.concurrency = concurrency
        self.rate = rate
        self._hint = (0, 0)

    def note_next_start(self, next_at: int, now: int) -> None:
        """Remember from when the rate allows the next attempt."""
        self._hint = (now, next_at)

    def next_start(self, now: int) -> int | None:
        """Return when the rate allows the next attempt; None: it is not known to forbid one now."""
        noted_at, next_at = self._hint
        # A clock that was set back makes the hint worthless.
        return next_at if noted_at <= now < next_at else None


def limits_of(loaded: Iterable[Handler]) -> dict[str, StartLimits]:
    """Return the limits of the handlers that have any, by id."""
    return {
        handler.id: StartLimits(handler.concurrency, None if handler.rate is None else Rate.parse(handler.rate))
        for handler in loaded
        if handler.concurrency is not None or handler.rate is not None
    }


class StartBudget:
    """How many attempts of handlers with a rate may start in one transaction, which has locked these handlers.

    Args:
        connection: the transaction's connection.
        limits: the limits of the handlers, by id; those without a rate are left out.
        now: microseconds since 1970.
    """

    def __init__(self, connection: Connection, limits: Mapping[str, StartLimits], now: int) -> None:
        self._limits = {handler: limit for handler, limit in limits.items() if limit.rate is not None}
        self._now = now
        self._stored = _read(connection, self._limits) if self._limits else {}
        self._left = {
            handler: limit.rate.count(self._stored.get(handler), now)
            for handler, limit in self._limits.items()
            if limit.rate is not None
        }

    def take(self, handler: str) -> bool:
        """Return whether one more attempt of a handler may start; a handler without a rate may always."""
        left = self._left.get(handler)
        if left is None:
            return True
        self._left[handler] = max(0, left - 1)
        return left > 0

    def use(self, transaction: WriteTransaction, started: Iterable[str]) -> None:
        """Store what attempts of these handlers have started, once for each attempt."""
        counts = Counter(handler for handler in started if handler in self._limits)
        # In the order of the ids, as all who change several of these rows, so that none of them deadlock.
        for handler in sorted(self._limits):
            limits, stored = self._limits[handler], self._stored.get(handler)
            if limits.rate is None:
                continue
            next_at = limits.rate.after(stored, self._now, counts[handler])
            note = partial(limits.note_next_start, next_at, self._now)
            if counts[handler]:
                transaction.connection.execute(_MOVE, {"handler": handler, "next_at": next_at})
                transaction.after_commit(note)
            else:
                note()


def count_startable(connection: Connection, limits: Mapping[str, StartLimits], now: int) -> dict[str, int]:
    """Return how many attempts of each of these handlers, which have a rate, may start now."""
    stored = _read(connection, limits) if limits else {}
    counts = {}
    for handler, limit in limits.items():
        if limit.rate is not None:
            counts[handler] = limit.rate.count(stored.get(handler), now)
            limit.note_next_start(limit.rate.next_start(stored.get(handler), now), now)
    return counts


def _read(connection: Connection, handler_ids: Iterable[str]) -> dict[str, int | None]:
    rows = connection.execute(_READ, {"handlers": json.dumps(sorted(handler_ids))})
    # SQLite keeps values of any type. After damage the rate counts from the next attempt.
    return {row.id: row.rate_next_at if type(row.rate_next_at) is int else None for row in rows}
