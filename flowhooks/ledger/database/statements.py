"""Statements that each database says in its own way: batches, times, locks, notices; it must not know the tables."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

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
    select,
    text,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.visitors import InternalTraversal
from sqlalchemy.types import to_instance

from flowhooks.ledger.database.engines import ANSWERS_WITHIN, POSTGRESQL, open_engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from sqlalchemy import CompoundSelect, Connection, Select

_CHANNEL: Final = "flowhooks"
_NOT_HAD: Final = "55P03"
"""How PostgreSQL says that a lock was not to be had in time."""
_SET_PATIENCE: Final = select(func.set_config("lock_timeout", bindparam("patience"), True))
"""For the present transaction only."""


class _Items(FunctionElement[Any]):
    """The elements of a JSON array, given as text, as rows with the one column `value`."""

    name = "items"
    inherit_cache = True


class _Scalars(_Items):
    """The same of an array of strings, which are then no JSON any more."""

    inherit_cache = True


@compiles(_Items)
def _json_each(element: _Items, compiler: Any, **options: Any) -> str:
    return f"json_each({compiler.process(element.clauses, **options)})"


@compiles(_Items, POSTGRESQL)
def _json_array_elements(element: _Items, compiler: Any, **options: Any) -> str:
    return f"json_array_elements(CAST({compiler.process(element.clauses, **options)} AS json))"


@compiles(_Scalars, POSTGRESQL)
def _json_array_elements_text(element: _Items, compiler: Any, **options: Any) -> str:
    return f"json_array_elements_text(CAST({compiler.process(element.clauses, **options)} AS json))"


class Now(FunctionElement[int]):
    """The database's own time, in microseconds since 1970: the same for all who share it, whatever their clocks say."""

    type = BigInteger()
    inherit_cache = True


@compiles(Now)
def _sqlite_now(_element: Now, _compiler: Any, **_options: Any) -> str:
    return "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)"


@compiles(Now, POSTGRESQL)
def _postgresql_now(_element: Now, _compiler: Any, **_options: Any) -> str:
    return "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)"


def time_of(connection: Connection) -> int:
    """What the database's clock says, in microseconds since 1970."""
    return int(connection.execute(select(Now())).scalar_one())


class _Place(ColumnElement[Any]):
    """One element of a JSON array, as a value of the database's own."""

    inherit_cache = True
    _traverse_internals = [  # noqa: RUF012 (SQLAlchemy's own way of saying what makes two of them the same)
        ("array", InternalTraversal.dp_clauseelement),
        ("place", InternalTraversal.dp_plain_obj),
        ("type", InternalTraversal.dp_type),
    ]

    def __init__(self, array: ColumnElement[Any], place: int, kind: Any) -> None:
        self.array, self.place, self.type = array, place, to_instance(kind)

    @property
    def _from_objects(self) -> Any:
        return self.array._from_objects  # noqa: SLF001 (SQLAlchemy asks this of every element made of others)


@compiles(_Place)
def _json_extract(element: _Place, compiler: Any, **options: Any) -> str:
    return f"json_extract({compiler.process(element.array, **options)}, '$[{element.place}]')"


@compiles(_Place, POSTGRESQL)
def _cast(element: _Place, compiler: Any, **options: Any) -> str:
    kind = compiler.dialect.type_compiler_instance.process(element.type)
    return f"CAST({compiler.process(element.array, **options)} ->> {element.place} AS {kind})"


class _Unlimited(ColumnElement[int]):
    """A LIMIT that limits nothing, but keeps SQLite from flattening the query."""

    inherit_cache = True
    _traverse_internals = ()  # type: ignore[assignment]  # nothing makes two of them differ
    type = Integer()


@compiles(_Unlimited)
def _all_rows(_element: _Unlimited, _compiler: Any, **_options: Any) -> str:
    return "-1"


@compiles(_Unlimited, POSTGRESQL)
def _null(_element: _Unlimited, _compiler: Any, **_options: Any) -> str:
    return "NULL"


class _ByBytes(FunctionElement[Any]):
    """A value to order by."""

    inherit_cache = True


@compiles(_ByBytes)
def _as_it_is(element: _ByBytes, compiler: Any, **options: Any) -> str:
    return str(compiler.process(element.clauses, **options))


@compiles(_ByBytes, POSTGRESQL)
def _collated(element: _ByBytes, compiler: Any, **options: Any) -> str:
    return f'{compiler.process(element.clauses, **options)} COLLATE "C"'


def by_bytes(given: ColumnElement[Any]) -> ColumnElement[Any]:
    """A column to order by that comes out alike everywhere: PostgreSQL's text goes by the language of its database."""
    return _ByBytes(given) if isinstance(given.type, Text) else given


def rows(name: str, /, **columns: Any) -> Subquery:
    """A batch of rows as a table inside a statement, so that any number of them costs one execution.

    The statement's parameter `name` then takes a JSON array of arrays, one for each row.

    Args:
        name: of the parameter and of the table.
        **columns: each column's SQLAlchemy type, in the order of the inner arrays.
    """
    array = _Items(bindparam(name, type_=Text)).table_valued("value", name=f"{name}_json")
    # Flattened, SQLite would render each row once for each column.
    values = select(array.c.value).limit(_Unlimited()).subquery(f"{name}_values")
    picked: list[ColumnElement[Any]] = [
        _Place(values.c.value, place, kind).label(called) for place, (called, kind) in enumerate(columns.items())
    ]
    return select(*picked).subquery(name)


def keys(name: str) -> Any:
    """A batch of strings inside a statement, for `IN`: the parameter `name` takes a JSON array."""
    array = _Scalars(bindparam(name, type_=Text)).table_valued(column("value", Text), name=f"{name}_json")
    return select(array.c.value)


def locking(names: Select[Any] | CompoundSelect[Any]) -> Select[Any]:
    """A statement for `lock`.

    Args:
        names: gives, in its one column, a name for each thing that one transaction at a time is to have. They are
            locked in one order, so that no two transactions wait for each other.
    """
    each = names.subquery("names")
    name = next(iter(each.c))
    ordered = select(func.hashtextextended(name, 0).label("key")).distinct().order_by("key").subquery("ordered")
    return select(func.pg_advisory_xact_lock(ordered.c.key))


def lock(connection: Connection, statement: Select[Any], parameters: Mapping[str, Any]) -> None:
    """Wait until no other transaction has what the statement names, and keep it until the end of this one.

    What is read afterwards, by another statement, is what those have left. On SQLite every transaction that writes
    has everything.
    """
    if connection.dialect.name == POSTGRESQL:
        connection.execute(statement, parameters).all()


QUIET_WITHIN: Final = 500
"""Milliseconds that `quiet` waits; less than it takes PostgreSQL to look for transactions that wait in a circle."""


def quiet(connection: Connection, table: Table) -> None:
    """Wait for the transactions that have read a table and are not at their end, and let no other read it till ours is.

    So whoever goes by what they read there is done before it changes, or reads it after that; and that costs them
    nothing. It is given up where it would take long, as while a dump is made: then some may still go by what was. On
    SQLite no other transaction writes.
    """
    if connection.dialect.name != POSTGRESQL:
        return
    patience = select(func.current_setting("lock_timeout"))
    before = connection.execute(patience).scalar_one()
    try:
        with connection.begin_nested():
            connection.execute(_SET_PATIENCE, {"patience": str(QUIET_WITHIN)})
            connection.execute(text(f"LOCK TABLE {table.name} IN ACCESS EXCLUSIVE MODE"))
    except OperationalError as error:
        if connection.invalidated or getattr(error.orig, "sqlstate", None) != _NOT_HAD:
            raise
    else:
        connection.execute(_SET_PATIENCE, {"patience": before})


_MESSAGES = _Scalars(bindparam("messages", type_=Text)).table_valued(column("value", Text), name="messages_json")
_NOTIFY: Final = select(func.pg_notify(_CHANNEL, _MESSAGES.c.value))


def notify(connection: Connection, messages: Sequence[str]) -> None:
    """Tell all who listen, whatever process they are, once this transaction is durable. On SQLite there is nobody."""
    if connection.dialect.name == POSTGRESQL:
        connection.execute(_NOTIFY, {"messages": json.dumps(list(messages))}).all()


@contextmanager
def listening(url: str, heard: Callable[[str], None]) -> Iterator[tuple[int, Callable[[], None]]]:
    """A connection of its own that listens to `notify`.

    Args:
        url: the database; it must be a shared one.
        heard: called with each message, by the function that is given.

    Yields:
        The file descriptor that can be read when there is something new, and a function that takes it in. The
        function raises `SQLAlchemyError` where the connection is lost.
    """
    engine = open_engine(url, writing=False, answers_within=ANSWERS_WITHIN)
    try:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            driver: Any = connection.connection.driver_connection
            driver.add_notify_handler(lambda notice: heard(notice.payload))
            connection.exec_driver_sql(f"LISTEN {_CHANNEL}")
            # Whatever has come in is handed over while a statement is under way; and it shows a lost connection.
            yield driver.fileno(), lambda: connection.exec_driver_sql("SELECT 1").close()
    finally:
        engine.dispose()


def insert(table: Table) -> postgresql.Insert:
    """An INSERT that can say what to do about rows that are there already; both databases say it alike."""
    return postgresql.insert(table)


class Insertion:
    """An INSERT of any number of rows in one execution.

    On PostgreSQL the rows are handed over as one JSON text, so that the statement is the same however many they are:
    it is then prepared once, where otherwise each size of batch would be a statement to make, read and plan anew.

    Args:
        table: where they go.
        ignore: pass over rows that are there already.
        refreshing: columns that get the new value where the row is there already; what else it has stays.
        beside: one value that `reading` reads in the same breath, so that it costs no execution of its own.
    """

    def __init__(
        self,
        table: Table,
        *,
        ignore: bool = False,
        refreshing: Sequence[str] = (),
        beside: ColumnElement[Any] | None = None,
    ) -> None:
        (key, *_) = table.primary_key.columns
        names = [one.name for one in table.columns]
        given = func.json_to_recordset(cast(bindparam("rows", type_=Text), JSON))
        typed = given.table_valued(*(column(one.name, one.type) for one in table.columns))
        records = typed.render_derived(name="given", with_types=True)
        listed, selected = insert(table), insert(table).from_select(names, select(*records.c))
        if ignore:
            listed, selected = listed.on_conflict_do_nothing(), selected.on_conflict_do_nothing()
        if refreshing:
            listed, selected = (
                one.on_conflict_do_update(
                    index_elements=list(table.primary_key.columns),
                    set_={name: one.excluded[name] for name in refreshing},
                )
                for one in (listed, selected)
            )
        self._listed_rows, self._selected_rows = listed.returning(*table.columns), selected.returning(*table.columns)
        # RETURNING is for its effect, too: without it SQLAlchemy would execute the listed rows one by one.
        self._listed, self._selected = listed.returning(key), selected.returning(key)
        self._beside = self._selected if beside is None else selected.returning(key, beside.label("beside"))

    def __call__(self, connection: Connection, rows: Sequence[dict[str, Any]]) -> list[Any]:
        """Insert rows; the first column of the primary key of each that was stored. What a row lacks is null."""
        if connection.dialect.name == POSTGRESQL:
            given = {"rows": json.dumps(rows, ensure_ascii=False)}
            return list(connection.execute(self._selected, given).scalars())
        return list(connection.execute(self._listed, list(rows)).scalars())

    def rows(self, connection: Connection, rows: Sequence[dict[str, Any]]) -> Sequence[Any]:
        """Insert rows as by a call; each that was stored or refreshed, as it is now."""
        if connection.dialect.name == POSTGRESQL:
            given = {"rows": json.dumps(rows, ensure_ascii=False)}
            return connection.execute(self._selected_rows, given).all()
        return connection.execute(self._listed_rows, list(rows)).all()

    def reading(self, connection: Connection, rows: Sequence[dict[str, Any]]) -> tuple[list[Any], Any]:
        """Insert rows as by a call; and what is to be read beside. None on SQLite, where one process knows it all."""
        if connection.dialect.name != POSTGRESQL:
            return self(connection, rows), None
        found = connection.execute(self._beside, {"rows": json.dumps(rows, ensure_ascii=False)}).all()
        return [row[0] for row in found], found[0].beside if found else None
