"""Statements that SQLAlchemy compiles once, and that the driver then executes alone.

`Connection.execute` takes about four times as long as SQLite for a small statement: it computes the key of its cache of
compiled statements, prepares each parameter, and describes the result. The statements of each callback avoid that. They
are still written in SQLAlchemy's language, for both databases, and fail with SQLAlchemy's errors.
"""

from __future__ import annotations

from collections import namedtuple
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy.exc import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from sqlalchemy import Connection, Delete, Dialect, Insert, Select, Update

MAX_PARAMETERS: Final = 32_000
"""Maximum number of parameters of one statement. SQLite's own limit is 32,766."""


class _Compiled(NamedTuple):
    """A statement for one database.

    Attributes:
        sql: its text.
        names: the names of its parameters in their order, if the driver takes them by position; otherwise None.
        defaults: the values that the statement itself has for its parameters, by name.
        to_row: makes a row of the values that the driver returns.
    """

    sql: str
    names: Sequence[str] | None
    defaults: Mapping[str, Any]
    to_row: Callable[[Iterable[Any]], Any]


class DriverStatement:
    """A statement that the driver executes alone.

    Args:
        statement: the statement. Its parameters and columns must have types that need no conversion, such as text and
            whole numbers, and it must have no list of parameters for `IN`: see `string_array`.
        columns: the columns of an INSERT that states none.
    """

    def __init__(self, statement: Select[Any] | Insert | Update | Delete, *, columns: Sequence[str] = ()) -> None:
        self._statement = statement
        self._columns = columns
        self._compiled: dict[str, _Compiled] = {}

    def __call__(self, connection: Connection, parameters: Mapping[str, Any]) -> list[Any]:
        """Execute the statement; return its rows, whose values have the names of the columns.

        Args:
            connection: a connection with an open transaction.
            parameters: the values of the parameters by name.
        """
        dialect = connection.dialect
        compiled = self._compiled.get(dialect.name)
        if compiled is None:
            compiled = self._compiled[dialect.name] = _compile(self._statement, dialect, self._columns)
        values = {**compiled.defaults, **parameters}
        rows = execute(
            connection, compiled.sql, values if compiled.names is None else [values[name] for name in compiled.names]
        )
        return list(map(compiled.to_row, rows))


class ListedInsert:
    """An INSERT that lists its rows, for drivers that take parameters by position.

    Args:
        statement: the INSERT, without values.
    """

    def __init__(self, statement: Insert) -> None:
        self._statement = statement
        self._compiled: dict[tuple[str, ...], _Compiled] = {}

    def __call__(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Insert rows; return those of RETURNING.

        Args:
            connection: a connection with an open transaction.
            rows: the rows. All have the same columns.
        """
        if not rows:
            return []
        columns = tuple(rows[0])
        compiled = self._compiled.get(columns)
        if compiled is None:
            compiled = self._compiled[columns] = _compile(self._statement, connection.dialect, columns)
        names = compiled.names or ()
        row_sql = f"({', '.join('?' * len(names))})"
        head, _, tail = compiled.sql.partition(row_sql)
        n_rows = MAX_PARAMETERS // len(names)
        returned: list[Any] = []
        for start in range(0, len(rows), n_rows):
            part = rows[start : start + n_rows]
            sql = f"{head}{', '.join([row_sql] * len(part))}{tail}"
            returned += execute(connection, sql, [row[name] for row in part for name in names])
        return list(map(compiled.to_row, returned))


def execute(connection: Connection, sql: str, parameters: Sequence[Any] | Mapping[str, Any]) -> Sequence[Sequence[Any]]:
    """Execute SQL in the form that the driver expects; return the rows.

    Raises:
        SQLAlchemyError: as `Connection.execute` does.
    """
    if not connection.in_transaction():  # otherwise SQLite would commit the statement by itself
        raise InvalidRequestError("the connection has no open transaction")
    if connection.dispatch.before_cursor_execute:  # such as of a handler's session
        result = connection.exec_driver_sql(sql, _as_driver_sql_takes_them(parameters))
        return result.all() if result.returns_rows else ()
    cursor = connection.connection.cursor()
    try:
        cursor.execute(sql, parameters)
        rows: Sequence[Sequence[Any]] = cursor.fetchall() if cursor.description else ()
    except connection.dialect.loaded_dbapi.Error as error:
        # Makes SQLAlchemy's error of it, closes the cursor, and invalidates a connection that was lost.
        connection._handle_dbapi_exception(error, sql, parameters, cursor, None)  # noqa: SLF001 (SQLAlchemy offers no other way)
    cursor.close()
    return rows


def _as_driver_sql_takes_them(parameters: Sequence[Any] | Mapping[str, Any]) -> Any:
    return tuple(parameters) if isinstance(parameters, list) else parameters  # a list would be many sets of parameters


def _compile(statement: Any, dialect: Dialect, columns: Sequence[str]) -> _Compiled:
    compiled: Any = statement.compile(dialect=dialect, column_keys=list(columns) or None)
    exported = list(statement.exported_columns)
    conversions = [
        *(bind.type.dialect_impl(dialect).bind_processor(dialect) for bind in compiled.binds.values()),
        *(column.type.dialect_impl(dialect).result_processor(dialect, None) for column in exported),
    ]
    if any(conversion is not None for conversion in conversions):
        raise TypeError(f"the driver alone cannot execute a statement whose values are converted: {compiled}")
    row = namedtuple("row", [column.key for column in exported], rename=True)  # type: ignore[misc]  # its columns  # noqa: PYI024
    return _Compiled(
        sql=str(compiled),
        names=tuple(compiled.positiontup) if compiled.positional else None,
        defaults={name: value for name, value in compiled.params.items() if value is not None},
        to_row=row._make,
    )
