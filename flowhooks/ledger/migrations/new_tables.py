"""Create the tables of a new ledger as `ledger/tables/` defines them.

Alembic is loaded only to migrate existing tables, because its import and its migrations take ten times as long.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final

from sqlalchemy import URL, Column, DDLElement, MetaData, PrimaryKeyConstraint, String, Table, insert
from sqlalchemy.schema import CreateIndex, CreateTable

from flowhooks.ledger.tables import metadata
from flowhooks.ledger.tables.base import set_index_conditions

if TYPE_CHECKING:
    from sqlalchemy import Connection

VERSION_TABLE: Final = "alembic_version"
"""Alembic's table, with the number of the newest migration."""
_versions: Final = Table(
    VERSION_TABLE,
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)


def create_tables(connection: Connection, version: str) -> None:
    """Create all tables and indexes in an empty database, as if all migrations up to `version` had been applied."""
    for statement in _definitions(f"{connection.dialect.name}+{connection.dialect.driver}"):
        connection.exec_driver_sql(statement)
    connection.execute(insert(_versions).values(version_num=version))


@cache
def _definitions(driver: str) -> tuple[str, ...]:
    """Return the statements that create the tables. A process of tests creates many ledgers."""
    dialect = URL.create(driver).get_dialect()()
    set_index_conditions(dialect.name)
    tables = [*metadata.sorted_tables, _versions]
    indexes = [index for table in tables for index in sorted(table.indexes, key=lambda index: str(index.name))]
    created: list[DDLElement] = [*map(CreateTable, tables), *map(CreateIndex, indexes)]
    return tuple(str(statement.compile(dialect=dialect)) for statement in created)
