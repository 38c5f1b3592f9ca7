"""Deletion of the rows of processes that ended long ago, and that nothing in the ledger refers to any more."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, delete, exists, func, select

from flowhooks.clock import id_lower_bound
from flowhooks.ledger import database
from flowhooks.ledger.counters import increment
from flowhooks.ledger.tables import (
    IS_SUSPENDED,
    attempts,
    counters,
    deliveries,
    engine_positions,
    handlers,
    operations,
    processes,
)

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import Connection

    from flowhooks.ledger.transaction import WriteTransaction

_LATER: Final = processes.alias("later")
_FIRST_START_WITHOUT: Final = (
    select(func.min(_LATER.c.started_at)).where(_LATER.c.started_at > handlers.c.last_seen_at).correlate(handlers)
)
# Alerts name the start since which a handler has been missing. Without such a start it must not be null, because no
# value is known to be absent from a list with a null.
_NAMED_BY_ALERTS: Final = select(func.coalesce(_FIRST_START_WITHOUT.scalar_subquery(), -1)).where(
    exists().where(IS_SUSPENDED, deliveries.c.handler == handlers.c.id)
)
_FIRST: Final[Any] = select(func.min(_LATER.c.id)).scalar_subquery()
_IS_UNUSED: Final = (
    # It tells the age of the ledger, and has the counters of the deleted ones.
    processes.c.id != _FIRST,
    processes.c.id.not_in(select(operations.c.process)),
    processes.c.id.not_in(select(engine_positions.c.process)),
    processes.c.started_at.not_in(_NAMED_BY_ALERTS),
)
_IDS: Final = database.string_array("process_ids")
_DELETE: Final = delete(processes).where(processes.c.id.in_(_IDS), *_IS_UNUSED).returning(processes.c.id)
_COUNTERS: Final = (
    select(counters.c.name, func.sum(counters.c.value).label("total"))
    .where(counters.c.process.in_(_IDS))
    .group_by(counters.c.name)
)
_DELETE_COUNTERS: Final = delete(counters).where(counters.c.process.in_(_IDS))
_ATTEMPTS: Final = (
    select(attempts.c.delivery_id, attempts.c.process)
    .where(attempts.c.delivery_id > bindparam("after"))
    .order_by(attempts.c.delivery_id)
    .limit(bindparam("most"))
)


def ended_processes(connection: Connection, *, before: int, limit: int) -> set[str]:
    """Return the ids of processes that ended before a time, in microseconds since 1970; the oldest ones."""
    ended = select(processes.c.id).where(
        # A process starts before it ends, so the primary key bounds the search.
        processes.c.id < id_lower_bound(before),
        processes.c.stopped_at < before,
        *_IS_UNUSED,
    )
    return set(connection.execute(ended.order_by(processes.c.id).limit(limit)).scalars())


def attempt_processes(connection: Connection, *, after: str, limit: int) -> tuple[set[str], str]:
    """Return the ids of the processes of some attempts, and where the next ones start; `""` after the last ones.

    Args:
        connection: any connection.
        after: the delivery after whose attempts to continue; `""`: start with the first.
        limit: number of attempts that are read, at least. The attempts of one delivery are read together.
    """
    rows = connection.execute(_ATTEMPTS, {"after": after, "most": limit}).all()
    found = {row.process for row in rows}
    if len(rows) < limit:
        return found, ""
    last = rows[-1].delivery_id
    of_last = select(attempts.c.process).where(attempts.c.delivery_id == last)
    return found | set(connection.execute(of_last).scalars()), last


def delete_processes(transaction: WriteTransaction, process_ids: Collection[str]) -> int:
    """Delete those of these processes that no operation, lease or alert needs; return their number.

    Their counters are added to those of the first process, which is kept.

    Args:
        transaction: the open transaction.
        process_ids: processes that ended, and of which no attempt is stored.
    """
    connection = transaction.connection
    asked = {"process_ids": json.dumps(sorted(process_ids))}
    deleted = sorted(connection.execute(_DELETE, asked).scalars())
    if deleted:
        first = connection.execute(select(func.min(processes.c.id))).scalar_one()
        gone = {"process_ids": json.dumps(deleted)}
        for row in connection.execute(_COUNTERS, gone).all():
            increment(transaction, row.name, first, row.total)
        connection.execute(_DELETE_COUNTERS, gone)
    return len(deleted)
