"""What differs from one database to the other, and the only place that asks which one it is.

It must not know what the tables mean.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    ColumnElement,
    Engine,
    Integer,
    Subquery,
    Table,
    Text,
    bindparam,
    column,
    create_engine,
    event,
    func,
    literal_column,
    select,
    type_coerce,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.pool import QueuePool

from flowhooks.errors import LedgerUnusable

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.exc import SQLAlchemyError

CACHE_KIB: Final = 8192
"""Page cache of the writing connection. With 1,000,000 events stored, 64 MiB were no faster than this under the load of
`make bench`: the system's own cache holds the rest."""
WAL_LIMIT_BYTES: Final = 64 * 1024 * 1024
CHECKPOINT_PAGES: Final = 4000
"""Pages in the log after which it is copied into the file, 16 MB: the hot ends of the indexes are copied once for many
call-backs. SQLite's own 1,000 copies them every few hundred."""
BUSY_SECONDS: Final = 5.0


def open_engine(url: str, *, writing: bool) -> Engine:
    """An engine for the ledger's database.

    Args:
        url: `sqlite:///…`.
        writing: one connection whose transactions write at once and are durable when they have committed
            (`synchronous=FULL`: a power cut loses nothing that was acknowledged); else several that can
            only read.

    Returns:
        The engine. Nothing is opened yet.
    """
    readers = {"pool_size": 4, "max_overflow": 4, "pool_timeout": BUSY_SECONDS}
    engine = create_engine(
        url,
        poolclass=QueuePool,
        connect_args={"check_same_thread": False, "timeout": BUSY_SECONDS, "isolation_level": None},
        **({"pool_size": 1, "max_overflow": 0, "pool_timeout": BUSY_SECONDS} if writing else readers),
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


def write_ahead(engine: Engine) -> None:
    """Have a database write to a log ahead of its file, so that readers and the writer do not wait for each other.

    Not done on opening, for it changes the file, which may turn out to be none of ours. The file remembers it.

    Raises:
        LedgerUnusable: the folder's file system does not allow that.
    """
    with engine.connect() as connection:
        driver: Any = connection.connection.dbapi_connection
        try:
            (mode,) = driver.execute("PRAGMA journal_mode=WAL").fetchone()
        except sqlite3.Error as error:
            raise LedgerUnusable(str(error)) from None
    if mode != "wal":
        raise LedgerUnusable(f"its folder does not let SQLite write ahead to a log (the journal mode stays {mode!r})")


def database_file(url: str) -> Path | None:
    """The file that an URL names, or None for a database that is no file."""
    from pathlib import Path  # noqa: PLC0415 (keeps start-up light where it is not asked)

    name = make_url(url).database
    return Path(name) if name else None


def rows(name: str, **columns: Any) -> Subquery:
    """A batch of rows as a table inside a statement, so that any number of them costs one execution.

    The statement's parameter `name` then takes a JSON array of arrays, one for each row.

    Args:
        name: of the parameter and of the table.
        **columns: each column's SQLAlchemy type, in the order of the inner arrays.
    """
    array = func.json_each(bindparam(name, type_=Text)).table_valued("key", "value", name=f"{name}_json")
    # The LIMIT keeps SQLite from flattening the query, which would render each row once for each column.
    values = select(array.c.value).limit(-1).subquery(f"{name}_values")
    picked: list[ColumnElement[Any]] = [
        type_coerce(func.json_extract(values.c.value, literal_column(f"'$[{place}]'")), kind).label(called)
        for place, (called, kind) in enumerate(columns.items())
    ]
    return select(*picked).subquery(name)


def keys(name: str, kind: Any = Text) -> Any:
    """A batch of single values inside a statement, for `IN`: the parameter `name` takes a JSON array."""
    array = func.json_each(bindparam(name, type_=Text)).table_valued(column("value", kind), name=f"{name}_json")
    return select(array.c.value)


def insert(table: Table) -> sqlite.Insert:
    """An INSERT that can say what to do about rows that are there already."""
    return sqlite.insert(table)


def library_version() -> str:
    """The version of the database library that this Python carries."""
    return sqlite3.sqlite_version


def plain(error: SQLAlchemyError) -> str:
    """What a database error says, in one line and without the statement."""
    return " ".join(str(getattr(error, "orig", None) or type(error).__name__).split())


def quick_check(engine: Engine) -> str | None:
    """What the database says is wrong with its own file, in one line, or None."""
    with engine.connect() as connection:
        answer = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
    return None if answer == "ok" else " ".join(str(answer).split())


__all__ = [
    "Integer",
    "database_file",
    "insert",
    "keys",
    "library_version",
    "open_engine",
    "plain",
    "quick_check",
    "rows",
    "write_ahead",
]
