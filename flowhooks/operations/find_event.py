"""Finding: one event by whatever id somebody has in hand; it must not change anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowhooks.errors import NotFound

if TYPE_CHECKING:
    from flowhooks.ledger.queries import StoredEvent
    from flowhooks.ledger.reader import Reader


def find_event(reader: Reader, name: str) -> StoredEvent:
    """The event of this id, or of the delivery of this id.

    Raises:
        NotFound: there is none.
        LedgerUnusable: the ledger cannot be read.
    """
    if not name.isascii() or not name.isprintable():
        raise NotFound("no id is like that")
    try:
        return reader.event(name)
    except NotFound:
        if (delivery := reader.delivery(name)) is None:
            raise
        return reader.event(delivery[0].id)
