"""Tables that Alembic creates by all migrations, which flowhooks does only for existing ledgers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowhooks.ledger.migrations import runner

if TYPE_CHECKING:
    from sqlalchemy import Connection


def create_tables(connection: Connection, version: str) -> None:
    """Create the tables of an empty database by migrations: the same as the function of `new_tables`."""
    from alembic import command

    command.upgrade(runner._config(connection), version)
