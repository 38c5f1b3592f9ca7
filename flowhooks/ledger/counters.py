"""The ledger's counters, each process's part in a row of its own; it must not know what is counted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from flowhooks.ledger import database
from flowhooks.ledger.tables import counters

if TYPE_CHECKING:
    from flowhooks.ledger.group_commit import Transaction

_ADDED = database.insert(counters)
COUNT: Final = _ADDED.on_conflict_do_update(
    index_elements=["name", "process"], set_={"value": counters.c.value + _ADDED.excluded.value}
)
"""Adds `value` to the counter `name` of `process`."""


def count(transaction: Transaction, name: str, process: str, by: int) -> None:
    """Add to one of the ledger's counters, in this process's own row of it."""
    transaction.connection.execute(COUNT, {"name": name, "process": process, "value": by})
