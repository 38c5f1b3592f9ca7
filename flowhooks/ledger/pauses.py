"""Which handlers are paused: written down, read where an attempt begins, and known here.

What counts is in the database, and is read in the same transaction in which an attempt begins. What a process knows
is a hint: so that what may not begin is not looked at, and nobody waits for it.
"""

from __future__ import annotations

import json
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import func, select, update

from flowhooks.ledger import database
from flowhooks.ledger.tables import deliveries, handlers

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from sqlalchemy import ColumnElement, Connection

    from flowhooks.ledger.transaction import WriteTransaction

IS_PAUSED: Final = handlers.c.paused_at.is_not(None)
"""Said exactly so for the index of those: there may be ten thousand handlers, and hardly one of them is paused."""
NOT_PAUSED: Final = (
    # One look by the key for each row, however many handlers there are.
    select(handlers.c.paused_at)
    .where(handlers.c.id == deliveries.c.handler)
    .correlate(deliveries)
    .scalar_subquery()
    .is_(None)
)
"""Of a delivery: its handler is not paused, or not registered."""
ALL_PAUSED: Final[ColumnElement[Any]] = select(func.array_agg(handlers.c.id)).where(IS_PAUSED).scalar_subquery()
"""Their ids in one value, null where there is none, to be read beside something else; on PostgreSQL only."""

_CIRCUIT_CLOSED: Final[dict[str, int | str | None]] = {
    "circuit_opened_at": None,
    "circuit_reason": "",
    "circuit_plugin_version": "",
    "circuit_retry_at": None,
}


class CircuitState(NamedTuple):
    """The open circuit of a handler.

    Attributes:
        opened_at: when the circuit was opened, in microseconds since 1970.
        reason: the error of the last failure before that.
        retry_at: from when one of its deliveries may be tried, in microseconds since 1970.
    """

    opened_at: int
    reason: str
    retry_at: int


class PausedHandlers:
    """Which handlers are paused, as far as this process has heard.

    Attributes:
        handlers: their ids.
    """

    def __init__(self) -> None:
        self.handlers: frozenset[str] = frozenset()
        self._changing = threading.Lock()
        self._on_change: Callable[[], None] = lambda: None

    def subscribe(self, on_change: Callable[[], None]) -> None:
        """From now on have `on_change` called whenever others are paused than before; it must be quick."""
        self._on_change = on_change

    def get(self) -> frozenset[str]:
        """The ids of those that are paused."""
        return self.handlers

    def replace(self, handlers: Collection[str]) -> None:
        """Exactly these are paused."""
        self._update(lambda _before: frozenset(handlers))

    def add(self, handlers: Collection[str]) -> None:
        """These are paused, besides others."""
        self._update(lambda before: before.union(handlers))

    def remove(self, handlers: Collection[str]) -> None:
        """These are not paused any more."""
        self._update(lambda before: before.difference(handlers))

    def _update(self, after: Callable[[frozenset[str]], frozenset[str]]) -> None:
        with self._changing:
            before, self.handlers = self.handlers, after(self.handlers)
            if before == self.handlers:
                return
        self._on_change()


def paused(connection: Connection) -> dict[str, int]:
    """Since when each handler is paused that is, in microseconds since 1970, by its id."""
    rows = connection.execute(select(handlers.c.id, handlers.c.paused_at).where(IS_PAUSED).order_by(handlers.c.id))
    return {row.id: row.paused_at for row in rows}


def pause(transaction: WriteTransaction, ids: Iterable[str], now: int, pauses: PausedHandlers) -> frozenset[str]:
    """Have no delivery of these handlers begin once the transaction is durable, in no process.

    Args:
        transaction: the open transaction.
        ids: their ids.
        now: microseconds since 1970.
        pauses: learns of it once it is durable.

    Returns:
        The ids of those that were registered and not paused.
    """
    # What is just about to begin elsewhere comes to its commit first: then it runs, and can be seen to.
    database.exclude_readers(transaction.connection, handlers)
    # An open circuit becomes a pause: it is not tried any more.
    others = (handlers.c.paused_at.is_(None) | handlers.c.circuit_opened_at.is_not(None)) & handlers.c.retired_at.is_(
        None
    )
    changed = _write(transaction, others, ids, {"paused_at": now, **_CIRCUIT_CLOSED})
    transaction.after_commit(partial(pauses.add, changed))
    return changed


def resume(transaction: WriteTransaction, ids: Iterable[str], now: int, pauses: PausedHandlers) -> frozenset[str]:
    """Have deliveries of these handlers run again; the arguments and the answer are as those of `pause`."""
    return clear_pauses(transaction, IS_PAUSED & handlers.c.retired_at.is_(None), ids, now, pauses)


def clear_pauses(
    transaction: WriteTransaction, condition: ColumnElement[bool], ids: Iterable[str], now: int, pauses: PausedHandlers
) -> frozenset[str]:
    """Let run again those of some handlers of which `condition` is true, whoever has paused them; their ids."""
    changed = _write(transaction, condition, ids, {"paused_at": None, "resumed_at": now, **_CIRCUIT_CLOSED})
    transaction.notice.work |= bool(changed)
    transaction.after_commit(partial(pauses.remove, changed))
    return changed


def _write(
    transaction: WriteTransaction,
    condition: ColumnElement[bool],
    ids: Iterable[str],
    values: dict[str, int | str | None],
) -> frozenset[str]:
    change = update(handlers).where(condition, handlers.c.id.in_(database.string_array("ids"))).values(values)
    rows = transaction.connection.execute(change.returning(handlers.c.id), {"ids": json.dumps(sorted(ids))})
    changed = frozenset(rows.scalars())
    transaction.notice.handlers |= bool(changed)
    return changed
