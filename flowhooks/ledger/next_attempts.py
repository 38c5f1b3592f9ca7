"""Which attempt of a delivery comes next, and how many there can be."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import select

from flowhooks.errors import DamagedRow
from flowhooks.ledger import database
from flowhooks.ledger.handlers import retry_from_json
from flowhooks.ledger.tables import deliveries, handlers
from flowhooks.model.delivery import State
from flowhooks.model.retry import Retry, attempts_made

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from flowhooks.ledger.queries import DeliveryStatus

_SCHEDULES: Final = (
    select(deliveries.c.id, deliveries.c.retry_base, handlers.c.retry)
    .outerjoin(handlers, handlers.c.id == deliveries.c.handler)
    .where(deliveries.c.id.in_(database.string_array("delivery_ids")))
)


class NextAttempt(NamedTuple):
    """The attempt of a delivery that runs now or is the next one.

    Attributes:
        number: its number in the current retry schedule, from 1.
        total: number of attempts that there will be if all fail; None: not known.
        left: microseconds until it is due; 0: it is due, or it runs; None: it is not scheduled.
    """

    number: int
    total: int | None
    left: int | None


def next_attempts(connection: Connection, statuses: Sequence[DeliveryStatus], now: int) -> Mapping[str, NextAttempt]:
    """Return the running or next attempt of each delivery that runs or waits, by delivery id.

    Args:
        connection: any connection.
        statuses: the deliveries.
        now: microseconds since 1970.
    """
    open_ones = {status.delivery_id: status for status in statuses if status.state in {State.WAITING, State.RUNNING}}
    if not open_ones:
        return {}
    rows = connection.execute(_SCHEDULES, {"delivery_ids": json.dumps(list(open_ones))})
    return {row.id: _next_attempt(open_ones[row.id], row.retry_base, row.retry, now) for row in rows}


def _next_attempt(status: DeliveryStatus, retry_base: int, retry: str | None, now: int) -> NextAttempt:
    number = attempts_made(status.attempt, retry_base) + (status.state is State.WAITING)
    if status.state is State.RUNNING:
        left: int | None = 0
    else:
        left = None if status.due_at is None else max(0, status.due_at - now)
    return NextAttempt(number, _total(number, retry), left)


def _total(number: int, text: str | None) -> int | None:
    try:
        retry = retry_from_json(text)
    except DamagedRow:
        return None
    if retry is None:
        # Without `retry=` only some failures are retried, by the default schedule: see `execution.next_state`.
        return None if number == 1 else Retry().attempts
    return retry.attempts if number <= retry.attempts else None
