"""Checks of tables. Only the tables that have rows are read, with one statement for each table."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Integer, Join, Select, Table, exists, literal_column, select, union_all

from flowhooks.ledger.tables import metadata

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from sqlalchemy import CompoundSelect, Connection

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


def failed_checks(
    connection: Connection,
    checks: tuple[tuple[Select[str], str], ...],
    filled: Collection[str],
    limit: int,
    newest: int = 0,
) -> Iterator[tuple[str, list[str]]]:
    """Yield the sentence of each check whose query returns keys, and these keys, in the order of the checks.

    Args:
        connection: any connection.
        checks: queries for keys, each with its sentence.
        filled: the names of the tables that have rows.
        limit: maximum number of keys of each check.
        newest: the parameter `newest` of the queries.
    """
    found: dict[int, list[str]] = {}
    for table, statement in _statements(checks, limit).items():
        if table in filled:
            for index, key in connection.execute(statement, {"newest": newest}):
                found.setdefault(index, []).append(key)
    for index, keys in sorted(found.items()):
        yield checks[index][1], keys


@cache
def _statements(checks: tuple[tuple[Select[str], str], ...], limit: int) -> dict[str, CompoundSelect[int, str]]:
    # One statement for each table: for a few rows, a statement takes longer than its query. It returns the index of the
    # check with each key. A statement that is kept is also kept compiled.
    by_table: dict[str, list[Select[int, str]]] = {}
    for index, (query, _) in enumerate(checks):
        limited = query.limit(limit).subquery()
        numbered = select(literal_column(str(index), Integer), limited.c[0]).select_from(limited)
        by_table.setdefault(leading_table(query), []).append(numbered)
    return {table: union_all(*queries) for table, queries in by_table.items()}
