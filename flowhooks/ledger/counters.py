"""Counters of the ledger. Each process adds to a row of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from flowhooks.ledger import database
from flowhooks.ledger.tables import counters

if TYPE_CHECKING:
    from flowhooks.ledger.transaction import WriteTransaction

_INSERT = database.insert(counters)
INCREMENT: Final = _INSERT.on_conflict_do_update(
    index_elements=["name", "process"], set_={"value": counters.c.value + _INSERT.excluded.value}
)
"""Adds `value` to the counter `name` of `process`."""


def increment(transaction: WriteTransaction, name: str, process: str, by: int) -> None:
    """Add to a counter of the ledger, in the row of this process."""
    transaction.connection.execute(INCREMENT, {"name": name, "process": process, "value": by})
