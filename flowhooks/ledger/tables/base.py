"""Metadata of all tables, and the expressions that an index of a long text stores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    ColumnElement,
    Double,
    MetaData,
    Text,
    event,
    func,
    literal_column,
)

from flowhooks.ledger.database import bytewise_order

if TYPE_CHECKING:
    from sqlalchemy import Connection, Dialect

metadata: Final = MetaData()


class Number(Double[float]):
    """A number as a double, which the driver takes as it is: SQLAlchemy's type converts each one to a float."""

    cache_ok = True

    def bind_processor(self, dialect: Dialect) -> None:
        """Return no function that converts a value."""


def set_index_conditions(dialect: str) -> None:
    """Turn the `where` of partial indexes, in their `info`, into the option of the database that is used.

    Args:
        dialect: the name of the database's dialect.
    """
    # `postgresql_where=` would import the dialect of PostgreSQL with all its drivers in each process that uses SQLite.
    for table in metadata.tables.values():
        for index in table.indexes:
            if "where" in index.info:
                index.dialect_options[dialect]["where"] = index.info["where"]


@event.listens_for(metadata, "before_create")
def _before_create(_metadata: MetaData, connection: Connection, **_options: Any) -> None:
    set_index_conditions(connection.dialect.name)


# PostgreSQL rejects index rows of more than about 2,700 bytes, and a schema may allow texts of any length. Two texts of
# this length, of 4 bytes a character, still fit.
MAX_INDEXED_CHARS: Final = 256
"""Maximum number of characters that an index stores of a text from a callback."""


def indexed(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return the prefix of a text column that an index stores.

    Only a query with exactly this expression uses the index.
    """
    # Literals: with parameters instead, neither database recognizes the expression of the index.
    return func.substr(column, literal_column("1"), literal_column(str(MAX_INDEXED_CHARS)), type_=Text)


def indexed_bytewise(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return the same prefix in byte order, by which an index finds all texts with one beginning.

    PostgreSQL orders other texts by the locale of its database, which a search for a beginning cannot use.
    """
    return bytewise_order(indexed(column))


def equals_indexed(column: ColumnElement[Any], text: str) -> ColumnElement[bool]:
    """Return the condition that the whole of an indexed text equals `text`."""
    # No `column = text` in addition: SQLite would then put the text into the indexed expression as well, and not use
    # the index.
    remainder = func.substr(column, literal_column(str(MAX_INDEXED_CHARS + 1)), type_=Text)
    return (indexed(column) == text[:MAX_INDEXED_CHARS]) & (remainder == text[MAX_INDEXED_CHARS:])
