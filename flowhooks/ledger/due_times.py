"""Correction of due times that are later than any schedule allows, because a clock was ahead."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from sqlalchemy import BigInteger, bindparam, func, select, update

from flowhooks.clock import SECOND
from flowhooks.errors import MAX_DELAY_SECONDS
from flowhooks.ledger import database
from flowhooks.ledger.due_deliveries import READY_COLUMNS, WITH_WORK, to_ready_delivery
from flowhooks.ledger.tables import IS_SCHEDULED, audit_log, deliveries, events, processes

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from flowhooks.ledger.delivery_queue import DeliveryQueue
    from flowhooks.ledger.transaction import WriteTransaction

MAX_DELAY: Final = 2 * MAX_DELAY_SECONDS * SECOND
"""The longest possible delay in microseconds: a retry of 30 days with the largest jitter."""
BATCH_SIZE: Final = 500
"""Maximum number of deliveries of each handler that one transaction corrects."""

# Reads the far end of the index that polling uses, which normally is empty.
_FAR: Final = (
    select(deliveries.c.id)
    .where(IS_SCHEDULED, deliveries.c.handler == bindparam("handler"), deliveries.c.due_at > bindparam("latest"))
    .limit(bindparam("most"))
)
_CORRECT: Final = (
    update(deliveries)
    .where(deliveries.c.id.in_(database.string_array("ids")), IS_SCHEDULED, deliveries.c.due_at > bindparam("latest"))
    .values(due_at=bindparam("now", type_=BigInteger))
    .returning(*READY_COLUMNS)
)
_NEWEST: Final = (
    select(events.c.received_at).order_by(events.c.id.desc()).limit(1),
    select(audit_log.c.at).order_by(audit_log.c.id.desc()).limit(1),
    select(func.max(processes.c.started_at)),
    select(func.max(processes.c.stopped_at)),
)


def correct_due_times(transaction: WriteTransaction, now: int, *, runner: DeliveryQueue) -> int:
    """Make deliveries due now that are due later than any schedule allows; return the number of corrected ones.

    At most `BATCH_SIZE` of each handler are corrected.

    Args:
        transaction: the open transaction.
        now: microseconds since 1970.
        runner: receives, within the transaction, the deliveries that may run.
    """
    connection, latest, corrected = transaction.connection, now + MAX_DELAY, 0
    for handler in connection.execute(WITH_WORK).scalars().all():
        ids = connection.execute(_FAR, {"handler": handler, "latest": latest, "most": BATCH_SIZE}).scalars().all()
        if not ids:
            continue
        rows = connection.execute(_CORRECT, {"ids": json.dumps(list(ids)), "latest": latest, "now": now}).all()
        if rows:
            runner.enqueue(transaction, [to_ready_delivery(row) for row in rows], now)
        corrected += len(rows)
    return corrected


def newest(connection: Connection) -> int | None:
    """Return the newest stored time, in microseconds since 1970, found by indexes; None if nothing is stored."""
    times = [connection.execute(query).scalar() for query in _NEWEST]
    return max((time for time in times if type(time) is int), default=None)  # a damaged time may be a text
