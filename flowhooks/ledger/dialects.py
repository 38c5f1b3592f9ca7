"""What differs from one database to the other, and the only place that asks which one it is.

It must not know what the tables mean.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    ColumnElement,
    Engine,
    Integer,
    Subquery,
    Table,
    Text,
    bindparam,
    cast,
    column,
    create_engine,
    event,
    func,
    select,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.pool import QueuePool
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.visitors import InternalTraversal
from sqlalchemy.types import to_instance

from flowhooks.errors import LedgerUnusable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path
    from types import ModuleType

    from sqlalchemy import CompoundSelect, Connection, Select
    from sqlalchemy.exc import SQLAlchemyError

CACHE_KIB: Final = 8192
"""Page cache of the writing connection. With 1,000,000 events stored, 64 MiB were no faster than this under the load of
`make bench`: the system's own cache holds the rest."""
WAL_LIMIT_BYTES: Final = 64 * 1024 * 1024
CHECKPOINT_PAGES: Final = 4000
"""Pages in the log after which it is copied into the file, 16 MB: the hot ends of the indexes are copied once for many
call-backs. SQLite's own 1,000 copies them every few hundred."""
BUSY_SECONDS: Final = 5.0
_POSTGRESQL: Final = "postgresql"
_CHANNEL: Final = "flowhooks"
ANSWERS_WITHIN: Final = 10.0
"""Seconds in which PostgreSQL must answer a question of a process that is at work. It waits `BUSY_SECONDS` for a lock,
and nothing else that is asked then takes a second: whoever is silent for longer does not answer at all."""
IDLE_SECONDS: Final = 15
"""After which PostgreSQL ends a transaction in which nothing happens, whose process was stopped or is out of reach: its
locks keep others from seeing to what it ran."""
LENT_IDLE_SECONDS: Final = 60
"""The same for a transaction that was lent to a handler, which may do other things within it."""


def open_engine(
    url: str,
    *,
    writing: bool,
    lent: int = 0,
    answers_within: float | None = None,
) -> Engine:
    """An engine for the ledger's database.

    Args:
        url: `sqlite:///…` or `postgresql://…`.
        writing: connections whose transactions write at once and are durable when they have committed
            (`synchronous=FULL`, `synchronous_commit=on`: a power cut loses nothing that was acknowledged); else
            several that can only read, each of whose transactions sees one moment.
        lent: how many are lent to handlers at once, to write what they like; default: it is the one that flowhooks
            itself writes with.
        answers_within: seconds after which a connection is given up on which a question is not answered; default:
            never. SQLite has no say in it.

    Returns:
        The engine. Nothing is opened yet.
    """
    parsed = make_url(url)
    pool: dict[str, Any] = {"poolclass": QueuePool, "pool_timeout": BUSY_SECONDS}
    pool |= {"pool_size": lent or 1, "max_overflow": 0} if writing else {"pool_size": 4, "max_overflow": 4}
    if parsed.get_backend_name() == _POSTGRESQL:
        return _open_postgresql(parsed, pool, writing=writing, answers_within=answers_within, lent=bool(lent))
    return _open_sqlite(url, pool, writing=writing)


def _open_postgresql(
    url: URL, pool: dict[str, Any], *, writing: bool, answers_within: float | None, lent: bool
) -> Engine:
    lines = _lines()
    # Ours last, so that they count; before them what the URL asks for, such as a schema.
    asked = url.query.get("options", ())
    options = " ".join([asked] if isinstance(asked, str) else asked)
    options += f" -c synchronous_commit=on -c timezone=UTC -c client_encoding=UTF8 {lines.SERVER_NOTICES}"
    if writing:
        # Whoever waits for a row that another process holds gives up in time to be answered 503.
        options += f" -c lock_timeout={int(BUSY_SECONDS * 1000)}"
        options += f" -c idle_in_transaction_session_timeout={LENT_IDLE_SECONDS if lent else IDLE_SECONDS}s"
        if not lent:
            # All that it writes is found by keys. Tables that have grown since they were last looked at (in the first
            # minute, all have) would be read as a whole for each batch: that took two thirds of the database's time.
            options += " -c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off"
    else:
        options += " -c default_transaction_read_only=on"
    kept_alive = lines.kept_alive(url.set(drivername=_POSTGRESQL).render_as_string(hide_password=False))
    engine = create_engine(
        url.set(drivername="postgresql+psycopg"),
        isolation_level="READ COMMITTED" if writing else "REPEATABLE READ",
        pool_pre_ping=not writing,
        hide_parameters=True,  # in what a handler raises, too, which the engine reads
        connect_args=kept_alive
        | {"connect_timeout": int(BUSY_SECONDS), "options": options, "application_name": "flowhooks"},
        **pool,
    )
    lines.install(engine, answers_within=answers_within, ping_within=BUSY_SECONDS)
    return engine


def _lines() -> ModuleType:
    """What connects to PostgreSQL.

    Raises:
        LedgerUnusable: its driver is not installed.
    """
    if find_spec("psycopg") is None:
        raise LedgerUnusable("PostgreSQL needs a driver: pip install 'flowhooks[postgresql]'")
    from flowhooks.ledger import lines  # noqa: PLC0415 (the driver is an extra, which SQLite does without)

    return lines


@contextmanager
def unhurried(connection: Connection) -> Iterator[None]:
    """Give the database all the time that it needs to answer what is asked meanwhile."""
    line: Any = connection.connection.dbapi_connection
    before = getattr(line, "answers_within", None)
    if before is None:
        yield
        return
    line.answers_within = None
    try:
        yield
    finally:
        line.answers_within = before


def _open_sqlite(url: str, pool: dict[str, Any], *, writing: bool) -> Engine:
    engine = create_engine(
        url,
        connect_args={"check_same_thread": False, "timeout": BUSY_SECONDS, "isolation_level": None},
        **pool,
    )

    @event.listens_for(engine, "connect")
    def _connected(connection: sqlite3.Connection, _record: Any) -> None:
        if writing:
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA foreign_keys=ON")
            connection.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
            connection.execute(f"PRAGMA journal_size_limit={WAL_LIMIT_BYTES}")
            connection.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
        else:
            connection.execute("PRAGMA query_only=ON")

    # IMMEDIATE takes the write lock before the first read, so that no transaction fails half-way. Said by the dialect
    # rather than by a listener: an engine that has one looks for more of them at every statement, for a third of its
    # time (SQLAlchemy 2.1).
    begin = "BEGIN IMMEDIATE" if writing else "BEGIN"
    engine.dialect.do_begin = lambda connection: connection.execute(begin)  # type: ignore[assignment]  # result unused
    return engine


def is_shared(url: str) -> bool:
    """Whether several processes, on any machines, may use this database at once."""
    return make_url(url).get_backend_name() == _POSTGRESQL


def write_ahead(engine: Engine) -> None:
    """Have a database write to a log ahead of its file, so that readers and the writer do not wait for each other.

    Not done on opening, for it changes the file, which may turn out to be none of ours. The file remembers it.
    PostgreSQL always does.

    Raises:
        LedgerUnusable: the folder's file system does not allow that.
    """
    if engine.dialect.name == _POSTGRESQL:
        return
    with engine.connect() as connection:
        driver: Any = connection.connection.dbapi_connection
        try:
            (mode,) = driver.execute("PRAGMA journal_mode=WAL").fetchone()
        except sqlite3.Error as error:
            raise LedgerUnusable(str(error)) from None
    if mode != "wal":
        raise LedgerUnusable(f"its folder does not let SQLite write ahead to a log (the journal mode stays {mode!r})")


def database_file(url: str) -> Path | None:
    """The file that an URL names; None for a database that is no file of ours."""
    from pathlib import Path  # noqa: PLC0415 (keeps start-up light where it is not asked)

    parsed = make_url(url)
    return Path(parsed.database) if parsed.database and parsed.get_backend_name() != _POSTGRESQL else None


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


@compiles(_Items, _POSTGRESQL)
def _json_array_elements(element: _Items, compiler: Any, **options: Any) -> str:
    return f"json_array_elements(CAST({compiler.process(element.clauses, **options)} AS json))"


@compiles(_Scalars, _POSTGRESQL)
def _json_array_elements_text(element: _Items, compiler: Any, **options: Any) -> str:
    return f"json_array_elements_text(CAST({compiler.process(element.clauses, **options)} AS json))"


class Now(FunctionElement[int]):
    """The database's own time, in microseconds since 1970: the same for all who share it, whatever their clocks say."""

    type = BigInteger()
    inherit_cache = True


@compiles(Now)
def _sqlite_now(_element: Now, _compiler: Any, **_options: Any) -> str:
    return "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)"


@compiles(Now, _POSTGRESQL)
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


@compiles(_Place, _POSTGRESQL)
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


@compiles(_Unlimited, _POSTGRESQL)
def _null(_element: _Unlimited, _compiler: Any, **_options: Any) -> str:
    return "NULL"


class _ByBytes(FunctionElement[Any]):
    """A value to order by."""

    inherit_cache = True


@compiles(_ByBytes)
def _as_it_is(element: _ByBytes, compiler: Any, **options: Any) -> str:
    return str(compiler.process(element.clauses, **options))


@compiles(_ByBytes, _POSTGRESQL)
def _collated(element: _ByBytes, compiler: Any, **options: Any) -> str:
    return f'{compiler.process(element.clauses, **options)} COLLATE "C"'


def by_bytes(given: ColumnElement[Any]) -> ColumnElement[Any]:
    """A column to order by that comes out alike everywhere: PostgreSQL's text goes by the language of its database."""
    return _ByBytes(given) if isinstance(given.type, Text) else given


def is_readable(url: str) -> bool:
    """Whether an URL can be taken to pieces; what is wrong with one is not said, as it may hold a password."""
    try:
        shown(url)
    except (ArgumentError, ValueError):
        return False
    return True


def is_same(one: str, other: str) -> bool:
    """Whether two URLs name the same database, whoever it is opened as."""
    return _named(one) == _named(other)


def _named(url: str) -> tuple[Any, ...]:
    if file := database_file(url):
        return (file.resolve(),)
    parsed = make_url(url)
    where = (parsed.host or parsed.query.get("host"), str(parsed.port or parsed.query.get("port") or 5432))
    return (*where, parsed.database or parsed.username)


def shown(url: str) -> str:
    """What to call a database in a sentence: its file, or its server and name without user and password."""
    if file := database_file(url):
        return str(file)
    parsed = make_url(url)
    host = parsed.host or parsed.query.get("host", "")
    return f"{parsed.database} on {host or 'this machine'}"


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
    if connection.dialect.name == _POSTGRESQL:
        connection.execute(statement, parameters).all()


_MESSAGES = _Scalars(bindparam("messages", type_=Text)).table_valued(column("value", Text), name="messages_json")
_NOTIFY: Final = select(func.pg_notify(_CHANNEL, _MESSAGES.c.value))


def notify(connection: Connection, messages: Sequence[str]) -> None:
    """Tell all who listen, whatever process they are, once this transaction is durable. On SQLite there is nobody."""
    if connection.dialect.name == _POSTGRESQL:
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
    """

    def __init__(self, table: Table, *, ignore: bool = False) -> None:
        (key, *_) = table.primary_key.columns
        names = [one.name for one in table.columns]
        given = func.json_to_recordset(cast(bindparam("rows", type_=Text), JSON))
        typed = given.table_valued(*(column(one.name, one.type) for one in table.columns))
        records = typed.render_derived(name="given", with_types=True)
        listed, selected = insert(table), insert(table).from_select(names, select(*records.c))
        if ignore:
            listed, selected = listed.on_conflict_do_nothing(), selected.on_conflict_do_nothing()
        # RETURNING is for its effect, too: without it SQLAlchemy would execute the listed rows one by one.
        self._listed, self._selected = listed.returning(key), selected.returning(key)

    def __call__(self, connection: Connection, rows: Sequence[dict[str, Any]]) -> list[Any]:
        """Insert rows; the first column of the primary key of each that was stored. What a row lacks is null."""
        if connection.dialect.name == _POSTGRESQL:
            given = {"rows": json.dumps(rows, ensure_ascii=False)}
            return list(connection.execute(self._selected, given).scalars())
        return list(connection.execute(self._listed, list(rows)).scalars())


def library_version() -> str:
    """The version of the database library that this Python carries."""
    return sqlite3.sqlite_version


def plain(error: SQLAlchemyError) -> str:
    """What a database error says, in one line and without the statement."""
    return " ".join(str(getattr(error, "orig", None) or type(error).__name__).split())


def quick_check(engine: Engine) -> str | None:
    """What the database says is wrong with its own file, in one line, or None."""
    if engine.dialect.name == _POSTGRESQL:
        return None
    with engine.connect() as connection:
        answer = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
    return None if answer == "ok" else " ".join(str(answer).split())


__all__ = [
    "Insertion",
    "Integer",
    "Now",
    "by_bytes",
    "database_file",
    "insert",
    "is_readable",
    "is_same",
    "is_shared",
    "keys",
    "library_version",
    "listening",
    "lock",
    "locking",
    "notify",
    "open_engine",
    "plain",
    "quick_check",
    "rows",
    "shown",
    "time_of",
    "unhurried",
    "write_ahead",
]
