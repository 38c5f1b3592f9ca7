"""Which tables have rows, so that checks need not read the others."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Join, Select, Table, exists, literal_column, select

from flowhooks.ledger.tables import metadata

if TYPE_CHECKING:
    from sqlalchemy import Connection

_HAS_ROWS: Final = select(
    *(exists(select(literal_column("1")).select_from(table)).label(table.name) for table in metadata.sorted_tables)
)


def filled_tables(connection: Connection) -> frozenset[str]:
    """Return the names of the tables that have rows."""
    row = connection.execute(_HAS_ROWS).one()
    return frozenset(name for name, has_rows in row._mapping.items() if has_rows)  # noqa: SLF001 (public, despite its name)


@cache
def leading_table(query: Select[Any]) -> str:
    """Return the name of the first table of a query, without whose rows the query returns none."""
    source: Any = query
    while not isinstance(source, Table):
        if isinstance(source, Join):
            source = source.left
        elif isinstance(source, Select):
            source = source.get_final_froms()[0]
        else:  # a subquery or another name of a table
            source = source.element
    return source.name
