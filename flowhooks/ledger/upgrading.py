"""A database's tables brought up to this version by whoever has it to himself; it must not know how."""

from __future__ import annotations

from flowhooks.ledger import dialects, migrating
from flowhooks.ledger.reader import naming


def upgrade(url: str) -> tuple[str | None, str]:
    """Bring a database's tables up to this version; one that is not there is made. The caller holds the lock.

    Args:
        url: the database.

    Returns:
        The migrations before, None for a new database, and after.

    Raises:
        LedgerUnusable: it cannot be opened or written, is no ledger, or is of a newer version.
    """
    engine = dialects.open_engine(url, writing=True)
    try:
        with naming(url):
            return migrating.upgrade(engine)
    finally:
        engine.dispose()
