"""Statements that differ between the databases: batches, times, locks, notifications."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Self

from sqlalchemy import (
    JSON,
    BigInteger,
    ColumnElement,
    Integer,
    Subquery,
    Table,
    Text,
    bindparam,
    cast,
    column,
    func,
    literal_column,
    null,
    select,
    text,
    type_coerce,
    union_all,
)
from sqlalchemy.dialects.sqlite import Insert
from sqlalchemy.dialects.sqlite.dml import OnConflictDoNothing, OnConflictDoUpdate
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.visitors import InternalTraversal
from sqlalchemy.types import NullType, to_instance

from flowhooks.ledger.database.driver_statements import DriverStatement, ListedInsert
from flowhooks.ledger.database.engines import POSTGRESQL, STATEMENT_TIMEOUT, open_engine

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from sqlalchemy import Connection, Select

_CHANNEL: Final = "flowhooks"
_LOCK_NOT_AVAILABLE: Final = "55P03"
"""PostgreSQL's SQLSTATE for a lock that was not granted in time."""
_SET_LOCK_TIMEOUT: Final = select(func.set_config("lock_timeout", bindparam("lock_timeout"), True))
"""Sets the lock timeout for the present transaction only."""


class _JsonRows(FunctionElement[Any]):
    """The elements of a JSON array in text form, as rows with the column `value`."""

    name = "items"
    inherit_cache = True


class _JsonStrings(_JsonRows):
    """The elements of a JSON array of strings, as rows of text."""

    inherit_cache = True


@compiles(_JsonRows)
def _json_each(element: _JsonRows, compiler: Any, **options: Any) -> str:
    return f"json_each({compiler.process(element.clauses, **options)})"


@compiles(_JsonRows, POSTGRESQL)
def _json_array_elements(element: _JsonRows, compiler: Any, **options: Any) -> str:
    return f"json_array_elements(CAST({compiler.process(element.clauses, **options)} AS json))"


@compiles(_JsonStrings, POSTGRESQL)
def _json_array_elements_text(element: _JsonRows, compiler: Any, **options: Any) -> str:
    return f"json_array_elements_text(CAST({compiler.process(element.clauses, **options)} AS json))"


class Now(FunctionElement[int]):
    """The time of the database's clock in microseconds since 1970, the same for all processes that share it."""

    type = BigInteger()
    inherit_cache = True


@compiles(Now)
def _sqlite_now(_element: Now, _compiler: Any, **_options: Any) -> str:
    return "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)"


@compiles(Now, POSTGRESQL)
def _postgresql_now(_element: Now, _compiler: Any, **_options: Any) -> str:
    return "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)"


def database_time(connection: Connection) -> int:
    """Return the time of the database's clock, in microseconds since 1970."""
    return int(connection.execute(select(Now())).scalar_one())


class _JsonPath(ColumnElement[Any]):
    """One element of a JSON array, as a value of the database's type."""

    inherit_cache = True
    _traverse_internals = [  # noqa: RUF012 (SQLAlchemy's declaration of which elements are equal)
        ("array", InternalTraversal.dp_clauseelement),
        ("index", InternalTraversal.dp_plain_obj),
        ("type", InternalTraversal.dp_type),
    ]

    def __init__(self, array: ColumnElement[Any], index: int, kind: Any) -> None:
        self.array, self.index, self.type = array, index, to_instance(kind)

    @property
    def _from_objects(self) -> Any:
        return self.array._from_objects  # noqa: SLF001 (SQLAlchemy requires it of every composed element)


@compiles(_JsonPath)
def _json_extract(element: _JsonPath, compiler: Any, **options: Any) -> str:
    return f"json_extract({compiler.process(element.array, **options)}, '$[{element.index}]')"


@compiles(_JsonPath, POSTGRESQL)
def _cast(element: _JsonPath, compiler: Any, **options: Any) -> str:
    kind = compiler.dialect.type_compiler_instance.process(element.type)
    return f"CAST({compiler.process(element.array, **options)} ->> {element.index} AS {kind})"


class _NoLimit(ColumnElement[int]):
    """A LIMIT without a limit, which keeps SQLite from flattening the query."""

    inherit_cache = True
    _traverse_internals = ()  # type: ignore[assignment]  # all instances are equal
    type = Integer()


@compiles(_NoLimit)
def _all_rows(_element: _NoLimit, _compiler: Any, **_options: Any) -> str:
    return "-1"


@compiles(_NoLimit, POSTGRESQL)
def _null(_element: _NoLimit, _compiler: Any, **_options: Any) -> str:
    return "NULL"


class _BytewiseOrder(FunctionElement[str]):
    type = Text()
    inherit_cache = True


@compiles(_BytewiseOrder)
def _as_it_is(element: _BytewiseOrder, compiler: Any, **options: Any) -> str:
    return str(compiler.process(element.clauses, **options))


@compiles(_BytewiseOrder, POSTGRESQL)
def _collated(element: _BytewiseOrder, compiler: Any, **options: Any) -> str:
    return f'{compiler.process(element.clauses, **options)} COLLATE "C"'


def bytewise_order(key: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return a column to order or compare by, with the same order on every database.

    PostgreSQL otherwise orders text by the locale of its database.
    """
    return _BytewiseOrder(key) if isinstance(key.type, Text) else key


def row_array(name: str, /, **columns: Any) -> Subquery:
    """Return a batch of rows as a table inside a statement, so that any number of rows needs one execution.

    The statement's parameter `name` takes a JSON array of arrays, one for each row.

    Args:
        name: the name of the parameter and of the table.
        **columns: each column's SQLAlchemy type, in the order of the inner arrays.
    """
    array = _JsonRows(bindparam(name, type_=Text)).table_valued("value", name=f"{name}_json")
    # If SQLite flattened this query, it would produce each row once for each column.
    values = select(array.c.value).limit(_NoLimit()).subquery(f"{name}_values")
    picked: list[ColumnElement[Any]] = [
        _JsonPath(values.c.value, index, kind).label(label) for index, (label, kind) in enumerate(columns.items())
    ]
    return select(*picked).subquery(name)


def string_array(name: str, values: Sequence[str] | None = None) -> Any:
    """Return a batch of strings inside a statement, for `IN`: the parameter `name` takes a JSON array.

    With `values`, the parameter has them already.
    """
    given = bindparam(name, type_=Text) if values is None else bindparam(name, json.dumps(list(values)), type_=Text)
    array = _JsonStrings(given).table_valued(column("value", Text), name=f"{name}_json")
    return select(array.c.value)


_TABLES: Final = {
    "sqlite": "SELECT name FROM sqlite_master WHERE type = 'table' AND name IN ('{}')",
    POSTGRESQL: "SELECT name FROM unnest(ARRAY['{}']) AS name JOIN pg_class ON oid = to_regclass(name) "
    "WHERE relkind IN ('r', 'p')",
}


def existing_tables(connection: Connection, names: Collection[str]) -> set[str]:
    """Return which of these tables exist. The inspection of all tables by SQLAlchemy takes several times as long.

    Args:
        connection: the connection.
        names: names of tables in lower case, without quotes.
    """
    statement = _TABLES[connection.dialect.name].format("', '".join(sorted(names)))
    return set(connection.exec_driver_sql(statement).scalars())


def lock_statement(*kinds: Select[Any]) -> Select[Any]:
    """Return a statement for `lock`.

    Args:
        *kinds: each selects, in its one column, names to lock. All names of one kind are locked before those of the
            next kind, and the names of a kind in one order, so that two transactions do not deadlock.
    """
    keys = union_all(*[_keys(names, rank) for rank, names in enumerate(kinds)])
    ordered = keys.order_by("rank", "key").subquery("ordered")
    return select(func.pg_advisory_xact_lock(ordered.c.key))


def _keys(names: Select[Any], rank: int) -> Select[Any]:
    (name,) = names.subquery(f"names_{rank}").c
    return select(literal_column(str(rank)).label("rank"), func.hashtextextended(name, 0).label("key")).distinct()


def lock(connection: Connection, statement: Select[Any], parameters: Mapping[str, Any]) -> None:
    """Lock the names that the statement selects until the transaction ends; wait for others that hold them.

    A statement that is executed afterwards sees what those transactions committed. On SQLite this does nothing, because
    a writing transaction has the whole database to itself.
    """
    if connection.dialect.name == POSTGRESQL:
        connection.execute(statement, parameters).all()


# Less than the time after which PostgreSQL looks for deadlocks.
EXCLUDE_READERS_TIMEOUT_MS: Final = 500
"""Milliseconds that `exclude_readers` waits."""


def exclude_readers(connection: Connection, table: Table) -> None:
    """Wait for the open transactions that have read a table, and block new readers until this transaction ends.

    So a transaction that acts on what it read there has ended before the change, or reads the table after it; this
    costs those transactions nothing. If the wait would be long, as during a dump, it is given up, and some transactions
    may still act on the old state. On SQLite this does nothing, because no other transaction writes.
    """
    if connection.dialect.name != POSTGRESQL:
        return
    lock_timeout = select(func.current_setting("lock_timeout"))
    before = connection.execute(lock_timeout).scalar_one()
    try:
        with connection.begin_nested():
            connection.execute(_SET_LOCK_TIMEOUT, {"lock_timeout": str(EXCLUDE_READERS_TIMEOUT_MS)})
            connection.execute(text(f"LOCK TABLE {table.name} IN ACCESS EXCLUSIVE MODE"))
    except OperationalError as error:
        if connection.invalidated or getattr(error.orig, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
            raise
    else:
        connection.execute(_SET_LOCK_TIMEOUT, {"lock_timeout": before})


_MESSAGES = _JsonStrings(bindparam("messages", type_=Text)).table_valued(column("value", Text), name="messages_json")
_NOTIFY: Final = DriverStatement(select(func.pg_notify(_CHANNEL, _MESSAGES.c.value)))


def notify(connection: Connection, messages: Sequence[str]) -> None:
    """Notify all listening processes of a PostgreSQL database once this transaction is committed."""
    _NOTIFY(connection, {"messages": json.dumps(list(messages))})


@contextmanager
def listen(url: str, on_message: Callable[[str], None]) -> Iterator[tuple[int, Callable[[], None]]]:
    """Open a connection of its own that listens to `notify`.

    Args:
        url: the database, which must be a shared one.
        on_message: called with each message, by the yielded function.

    Yields:
        The file descriptor that is readable when messages have arrived, and a function that receives them. The function
        raises `SQLAlchemyError` if the connection is lost.
    """
    engine = open_engine(url, writing=False, statement_timeout=STATEMENT_TIMEOUT)
    try:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            driver: Any = connection.connection.driver_connection
            driver.add_notify_handler(lambda notice: on_message(notice.payload))
            connection.exec_driver_sql(f"LISTEN {_CHANNEL}")
            # The driver delivers notifications while it executes a statement, which also detects a lost connection.
            yield driver.fileno(), lambda: connection.exec_driver_sql("SELECT 1").close()
    finally:
        engine.dispose()


@contextmanager
def in_index_order(connection: Connection) -> Iterator[None]:
    """Let PostgreSQL read rows in the order of an index within the block, so that a LIMIT ends the reading.

    While a table has no statistics, PostgreSQL expects few rows. So it collects all rows with a bitmap, and sorts them.

    Args:
        connection: a connection with an open transaction.
    """
    if connection.dialect.name != POSTGRESQL:
        yield
        return
    connection.exec_driver_sql("SET LOCAL enable_bitmapscan = off").close()
    yield
    # Not after an error: the transaction then accepts no statement, and its end restores the setting.
    connection.exec_driver_sql("SET LOCAL enable_bitmapscan = on").close()


class _DoNothing(OnConflictDoNothing):
    inherit_cache = True
    constraint_target = None  # for PostgreSQL's compiler


class _DoUpdate(OnConflictDoUpdate):
    inherit_cache = True
    constraint_target = None  # for PostgreSQL's compiler


class _Insert(Insert):
    inherit_cache = True

    def on_conflict_do_nothing(self, *target: Any, **options: Any) -> Self:
        return self.ext(_DoNothing(*target, **options))

    def on_conflict_do_update(self, *target: Any, **options: Any) -> Self:
        return self.ext(_DoUpdate(*target, **options))


def insert(table: Table) -> Insert:
    """Return an INSERT that supports ON CONFLICT. Its syntax is the same on both databases."""
    # SQLite's, because PostgreSQL's would import its dialect with all drivers in each process that uses SQLite.
    return _Insert(table)


class BulkInsert:
    """An INSERT of any number of rows in one execution.

    On PostgreSQL the rows are passed as one JSON text, so the statement is the same for any number of rows and is
    prepared once. Otherwise each batch size would be another statement to build, parse and plan.

    Args:
        table: the table.
        ignore_conflicts: skip rows that exist.
        update_columns: columns that are updated if the row exists; its other columns do not change.
        also_read: one value that `insert_and_read` reads in the same execution, as the driver returns it.
    """

    def __init__(
        self,
        table: Table,
        *,
        ignore_conflicts: bool = False,
        update_columns: Sequence[str] = (),
        also_read: ColumnElement[Any] | None = None,
    ) -> None:
        (key, *_) = table.primary_key.columns
        names = [field.name for field in table.columns]
        records_json = func.json_to_recordset(cast(bindparam("rows", type_=Text), JSON))
        typed = records_json.table_valued(*(column(field.name, field.type) for field in table.columns))
        records = typed.render_derived(name="given", with_types=True)
        listed, selected = insert(table), insert(table).from_select(names, select(*records.c))
        if ignore_conflicts:
            listed, selected = listed.on_conflict_do_nothing(), selected.on_conflict_do_nothing()
        if update_columns:
            listed, selected = (
                statement.on_conflict_do_update(
                    index_elements=list(table.primary_key.columns),
                    set_={name: statement.excluded[name] for name in update_columns},
                )
                for statement in (listed, selected)
            )
        # RETURNING takes a third of the time of an INSERT on SQLite: only statements whose rows are read have it.
        self._listed, self._selected = ListedInsert(listed), DriverStatement(selected)
        self._listed_rows = ListedInsert(listed.returning(*table.columns))
        self._selected_rows = DriverStatement(selected.returning(*table.columns))
        read = null() if also_read is None else type_coerce(also_read, NullType)
        self._listed_keys = ListedInsert(listed.returning(key))
        self._selected_and_read = DriverStatement(selected.returning(key, read.label("beside")))

    def __call__(self, connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
        """Insert rows. Columns that a row lacks are null."""
        if connection.dialect.name == POSTGRESQL:
            self._selected(connection, {"rows": json.dumps(rows, ensure_ascii=False)})
        else:
            self._listed(connection, rows)

    def insert_returning(self, connection: Connection, rows: Sequence[dict[str, Any]]) -> Sequence[Any]:
        """Insert rows; return each row that was inserted or updated, with its present values."""
        if connection.dialect.name == POSTGRESQL:
            return self._selected_rows(connection, {"rows": json.dumps(rows, ensure_ascii=False)})
        return self._listed_rows(connection, rows)

    def insert_and_read(
        self, connection: Connection, rows: Sequence[dict[str, Any]], **parameters: str
    ) -> tuple[list[Any], Any]:
        """Insert rows; return the first primary key column of each stored row, and the value of `also_read`.

        The value is None if no row was stored, and on SQLite, where the only process knows it. `parameters` are those
        of `also_read`.
        """
        if connection.dialect.name != POSTGRESQL:
            return [row[0] for row in self._listed_keys(connection, rows)], None
        inserted = self._selected_and_read(connection, {"rows": json.dumps(rows, ensure_ascii=False), **parameters})
        return [row[0] for row in inserted], inserted[0].beside if inserted else None
