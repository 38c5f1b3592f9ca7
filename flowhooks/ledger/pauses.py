"""Paused handlers: stored in the database, checked when an attempt starts, and cached in each process.

Only the database decides: the transaction that starts an attempt reads it. The copy in a process is a hint, so that it
does not poll deliveries of paused handlers and no client waits for them.
"""

from __future__ import annotations

import json
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import func, select, update

from flowhooks.ledger import database
from flowhooks.ledger.damaged_rows import repair, shown_time
from flowhooks.ledger.tables import deliveries, handlers

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from sqlalchemy import ColumnElement, Connection, Select

    from flowhooks.ledger.transaction import WriteTransaction

# There may be ten thousand handlers, of which hardly one is paused.
IS_PAUSED: Final = handlers.c.paused_at.is_not(None)
"""Paused handlers. Only a query with exactly this condition uses the index of the paused handlers."""
NOT_PAUSED: Final = (
    # One lookup by primary key for each row, however many handlers there are.
    select(handlers.c.paused_at)
    .where(handlers.c.id == deliveries.c.handler)
    .correlate(deliveries)
    .scalar_subquery()
    .is_(None)
)
"""The handler of a delivery is not paused, or is not registered."""
ALL_PAUSED: Final[ColumnElement[Any]] = select(func.array_agg(handlers.c.id)).where(IS_PAUSED).scalar_subquery()
"""Ids of the paused handlers in one value, to be read together with another result; null if there are none. PostgreSQL
only."""

_CIRCUIT_CLOSED: Final[dict[str, int | str | None]] = {
    "circuit_opened_at": None,
    "circuit_reason": "",
    "circuit_plugin_version": "",
    "circuit_retry_at": None,
}


class CircuitState(NamedTuple):
    """The state of a handler's open circuit.

    Attributes:
        opened_at: when the circuit was opened, in microseconds since 1970.
        reason: the error of the last failure before it was opened.
        retry_at: from when the next trial may start, in microseconds since 1970.
    """

    opened_at: int
    reason: str
    retry_at: int


def to_circuit(row: Any) -> CircuitState:
    """Return the state of an open circuit from a row with its columns, which may be damaged."""
    columns = (handlers.c.circuit_opened_at, handlers.c.circuit_reason, handlers.c.circuit_retry_at)
    repaired, _ = repair(row, columns)
    return CircuitState(repaired.circuit_opened_at or 0, repaired.circuit_reason, repaired.circuit_retry_at or 0)


class PausedHandlers:
    """The paused handlers, as far as this process knows.

    Attributes:
        handlers: the ids of the paused handlers.
    """

    def __init__(self) -> None:
        self.handlers: frozenset[str] = frozenset()
        self._changing = threading.Lock()
        self._on_change: Callable[[], None] = lambda: None

    def subscribe(self, on_change: Callable[[], None]) -> None:
        """Set the function that is called after each change of the paused handlers. It must return quickly."""
        self._on_change = on_change

    def get(self) -> frozenset[str]:
        """Return the ids of the paused handlers."""
        return self.handlers

    def replace(self, handlers: Collection[str]) -> None:
        """Replace the ids of the paused handlers."""
        self._update(lambda _before: frozenset(handlers))

    def add(self, handlers: Collection[str]) -> None:
        """Add handlers that are paused now."""
        self._update(lambda before: before.union(handlers))

    def remove(self, handlers: Collection[str]) -> None:
        """Remove handlers that are no longer paused."""
        self._update(lambda before: before.difference(handlers))

    def _update(self, after: Callable[[frozenset[str]], frozenset[str]]) -> None:
        with self._changing:
            before, self.handlers = self.handlers, after(self.handlers)
            if before == self.handlers:
                return
        self._on_change()


def paused(connection: Connection) -> dict[str, int]:
    """Return when each paused handler was paused, by its id, in microseconds since 1970."""
    rows = connection.execute(select(handlers.c.id, handlers.c.paused_at).where(IS_PAUSED).order_by(handlers.c.id))
    return {row.id: shown_time(row.paused_at) for row in rows}


def pause(transaction: WriteTransaction, ids: Iterable[str], now: int, pauses: PausedHandlers) -> frozenset[str]:
    """Pause handlers: after the commit, no process starts their deliveries.

    Args:
        transaction: the open transaction.
        ids: the ids of the handlers.
        now: microseconds since 1970.
        pauses: updated after the commit.

    Returns:
        The ids of the registered handlers that were not paused, or only by an open circuit.
    """
    # Attempts that are about to start elsewhere commit first, so that they are visible as running.
    database.exclude_readers(transaction.connection, handlers)
    # An open circuit becomes an ordinary pause, without trials.
    others = (handlers.c.paused_at.is_(None) | handlers.c.circuit_opened_at.is_not(None)) & handlers.c.retired_at.is_(
        None
    )
    changed = _write(transaction, others, ids, {"paused_at": now, **_CIRCUIT_CLOSED})
    transaction.after_commit(partial(pauses.add, changed))
    return changed


def resume(transaction: WriteTransaction, ids: Iterable[str], now: int, pauses: PausedHandlers) -> frozenset[str]:
    """Resume handlers. Arguments as for `pause`; return the ids of the handlers that were paused."""
    return clear_pauses(transaction, IS_PAUSED & handlers.c.retired_at.is_(None), ids, now, pauses)


def clear_pauses(
    transaction: WriteTransaction, condition: ColumnElement[bool], ids: Iterable[str], now: int, pauses: PausedHandlers
) -> frozenset[str]:
    """Resume the handlers for which `condition` is true, whether an operator or the circuit breaker paused them.

    Returns:
        Their ids.
    """
    changed = _write(transaction, condition, ids, {"paused_at": None, "resumed_at": now, **_CIRCUIT_CLOSED})
    transaction.notice.work |= bool(changed)
    transaction.after_commit(partial(pauses.remove, changed))
    return changed


def lock_in_order(*conditions: ColumnElement[bool]) -> Select[str]:
    """Return a query for the ids of handlers, which locks their rows in one order, as claims do (`StartBudget.use`)."""
    ordered = select(handlers.c.id).where(*conditions).order_by(database.bytewise_order(handlers.c.id))
    return ordered.with_for_update(key_share=True)


def _write(
    transaction: WriteTransaction,
    condition: ColumnElement[bool],
    ids: Iterable[str],
    values: dict[str, int | str | None],
) -> frozenset[str]:
    selected = lock_in_order(condition, handlers.c.id.in_(database.string_array("ids")))
    change = update(handlers).where(condition, handlers.c.id.in_(selected)).values(values)
    rows = transaction.connection.execute(change.returning(handlers.c.id), {"ids": json.dumps(sorted(ids))})
    changed = frozenset(rows.scalars())
    transaction.notice.handlers |= bool(changed)
    return changed
