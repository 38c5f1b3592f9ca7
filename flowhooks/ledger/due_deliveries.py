"""Find the deliveries that may run or be probed, by an index lookup for each handler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import CTE, ColumnElement, bindparam, exists, func, literal, select

from flowhooks.ledger import database, processes
from flowhooks.ledger.ordering import IS_FIRST
from flowhooks.ledger.tables import IS_SCHEDULED, deliveries, events
from flowhooks.model.delivery import State
from flowhooks.model.ready_delivery import ReadyDelivery

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection

READY_COLUMNS: Final = (
    deliveries.c.id,
    deliveries.c.handler,
    deliveries.c.attempt,
    deliveries.c.state,
    deliveries.c.order_key,
)
"""The columns that `to_ready_delivery` needs."""
_DUE: Final = (
    select(*READY_COLUMNS)
    .where(
        IS_SCHEDULED, deliveries.c.handler == bindparam("handler"), deliveries.c.due_at <= bindparam("now"), IS_FIRST
    )
    .order_by(deliveries.c.due_at)
    .limit(bindparam("most"))
)
_NEXT: Final = (
    select(
        *(column for column in events.c if column is not events.c.state),
        *(column for column in READY_COLUMNS if column is not deliveries.c.id),
        deliveries.c.id.label("delivery_id"),
        deliveries.c.retry_base,
    )
    .join(deliveries, deliveries.c.event_id == events.c.id)
    .where(
        IS_SCHEDULED, deliveries.c.handler == bindparam("handler"), deliveries.c.due_at <= bindparam("now"), IS_FIRST
    )
    .order_by(deliveries.c.due_at)
    .limit(bindparam("most"))
)
_LOCK_NEXT: Final = _NEXT.with_for_update(of=deliveries, skip_locked=True)


def each_handler(*where: ColumnElement[bool]) -> CTE:
    """Return the handlers of the deliveries that match `where`, and a last row of null.

    It takes one index lookup for each handler, however many deliveries the handler has. The index must be partial on
    `where`, and have the handler first after the columns that `where` fixes.
    """
    first = select(func.min(deliveries.c.handler).label("handler")).where(*where).cte("each", recursive=True)
    following = select(func.min(deliveries.c.handler)).where(*where, deliveries.c.handler > first.c.handler)
    return first.union_all(select(following.scalar_subquery()).where(first.c.handler.is_not(None)))


WITH_WORK: Final = select(each_handler(IS_SCHEDULED).c.handler)
"""The ids of the handlers that have scheduled deliveries, and a last row of null."""
_EACH: Final = each_handler(IS_SCHEDULED)
_DUE_HANDLERS: Final = select(_EACH.c.handler).where(
    exists(
        select(literal(1)).where(
            IS_SCHEDULED, deliveries.c.handler == _EACH.c.handler, deliveries.c.due_at <= bindparam("now")
        )
    )
)


def due_deliveries(connection: Connection, now: int, limit_for: Callable[[str], int]) -> list[ReadyDelivery]:
    """Return the deliveries that may run or be probed by `now`, earliest due time first within each handler.

    Args:
        connection: any connection.
        now: microseconds since 1970.
        limit_for: returns the maximum number of deliveries of a handler; 0 skips the handler.
    """
    ready: list[ReadyDelivery] = []
    for handler in connection.execute(WITH_WORK).scalars().all():
        if handler is not None and (limit := limit_for(handler)) > 0:
            ready.extend(due_deliveries_of(connection, now, handler, limit))
    return ready


def due_deliveries_of(connection: Connection, now: int, handler: str, limit: int) -> list[ReadyDelivery]:
    """Return at most `limit` deliveries of a handler that may run or be probed by `now`, earliest due time first."""
    rows = connection.execute(_DUE, {"handler": handler, "now": now, "most": limit})
    return [to_ready_delivery(row) for row in rows]


def next_due(connection: Connection, now: int, handler: str, limit: int, *, lock: bool) -> Sequence[Any]:
    """Return the rows of at most `limit` deliveries as `due_deliveries_of` does, with the columns of their events.

    Args:
        connection: a connection that writes.
        now: microseconds since 1970.
        handler: the handler's id.
        limit: maximum number of deliveries.
        lock: whether to lock the rows, and to leave out those that another process has locked.
    """
    parameters = {"handler": handler, "now": now, "most": limit}
    with database.in_index_order(connection):
        return connection.execute(_LOCK_NEXT if lock else _NEXT, parameters).all()


def due_handlers(connection: Connection, now: int) -> list[str]:
    """Return the ids of the handlers that have a delivery which may run or be probed by `now`."""
    return list(connection.execute(_DUE_HANDLERS, {"now": now}).scalars())


def to_ready_delivery(row: Any) -> ReadyDelivery:
    """Return the delivery for a runner, from a row with `READY_COLUMNS`; its id may be named `delivery_id`."""
    delivery_id = row.delivery_id if hasattr(row, "delivery_id") else row.id
    return ReadyDelivery(delivery_id, row.handler, row.attempt, row.state == State.UNKNOWN, row.order_key is not None)


def due_handlers_of_all(connection: Connection, now: int, heartbeat_timeout: float) -> list[str]:
    """Return the same without handlers that no live process runs.

    Args:
        connection: any connection.
        now: microseconds since 1970.
        heartbeat_timeout: seconds without a heartbeat after which a process is not alive.
    """
    due = due_handlers(connection, now)
    if not due:
        return []
    run_somewhere = processes.handlers_run_by(processes.live_processes(connection, heartbeat_timeout=heartbeat_timeout))
    return [handler for handler in due if handler in run_somewhere]
