"""Counters of the ledger. Each process adds to a row of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import func, select

from flowhooks.ledger import database
from flowhooks.ledger.tables import counters

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from flowhooks.ledger.transaction import WriteTransaction

_INSERT = database.insert(counters)
INCREMENT: Final = _INSERT.on_conflict_do_update(
    index_elements=["name", "process"], set_={"value": counters.c.value + _INSERT.excluded.value}
)
"""Adds `value` to the counter `name` of `process`."""


def counter_sums(connection: Connection) -> dict[str, int]:
    """Return the sum of each counter over all processes, by its name."""
    query = select(counters.c.name, func.sum(counters.c.value).label("total")).group_by(counters.c.name)
    return {row.name: int(row.total) for row in connection.execute(query)}


def increment(transaction: WriteTransaction, name: str, process: str, by: int) -> None:
    """Add to a counter of the ledger, in the row of this process."""
    transaction.connection.execute(INCREMENT, {"name": name, "process": process, "value": by})
