"""Find an event by its id or by the id of one of its deliveries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowhooks.errors import NotFound

if TYPE_CHECKING:
    from flowhooks.ledger.queries import StoredEvent
    from flowhooks.ledger.reader import Reader


def find_event(reader: Reader, name: str) -> StoredEvent:
    """Return the event with this id, or with the delivery of this id.

    Raises:
        NotFound: there is no such event or delivery.
        LedgerUnusable: the ledger cannot be read.
    """
    if not name.isascii() or not name.isprintable():
        raise NotFound("there is no event or delivery with this id")
    try:
        return reader.event(name)
    except NotFound:
        if (delivery := reader.shown_delivery(name)) is None:
            raise
        return reader.event(delivery[0])
