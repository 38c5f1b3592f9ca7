"""apsw as a DB-API driver, as far as SQLAlchemy's dialect of SQLite needs.

Unlike `sqlite3`, apsw lets Python replace the file system. For that purpose it contains its own SQLite.
"""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import apsw

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_ERRORS = {
    apsw.ConstraintError: sqlite3.IntegrityError,
    apsw.BusyError: sqlite3.OperationalError,
    apsw.FullError: sqlite3.OperationalError,
    apsw.IOError: sqlite3.OperationalError,
}


@contextmanager
def _sqlite3_errors() -> Iterator[None]:
    """Raise errors of apsw as errors of `sqlite3`."""
    try:
        yield
    except apsw.Error as error:
        raise _ERRORS.get(type(error), sqlite3.DatabaseError)(str(error)) from error


class Cursor:
    """A statement and all its rows."""

    arraysize = 1

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.description: list[tuple[Any, ...]] | None = None
        self.rowcount = -1
        self.lastrowid = 0
        self._rows: Iterator[tuple[Any, ...]] = iter(())

    def execute(self, sql: str, values: Sequence[Any] = ()) -> Cursor:
        """Execute a statement to its end."""
        driver, self.description = self._connection.driver, None
        cursor = driver.cursor()

        def set_description(cursor: apsw.Cursor, *_: Any) -> bool:
            columns = cursor.get_description()
            self.description = [(name, *[None] * 6) for name, _type in columns] or None
            return True

        cursor.exec_trace = set_description
        before = driver.total_changes()
        with _sqlite3_errors():
            self._rows = iter(cursor.execute(self._connection.sql(sql), values).fetchall())
        self.rowcount = driver.changes() if driver.total_changes() > before else -1 if self.description else 0
        self.lastrowid = driver.last_insert_rowid()
        return self

    def executemany(self, sql: str, value_rows: Sequence[Sequence[Any]]) -> Cursor:
        """Execute a statement with each row of values."""
        self.rowcount = sum(Cursor(self._connection).execute(sql, values).rowcount for values in value_rows)
        return self

    def fetchone(self) -> tuple[Any, ...] | None:
        """The next row."""
        return next(self._rows, None)

    def fetchmany(self, size: int = 1) -> list[tuple[Any, ...]]:
        """The next `size` rows."""
        return [row for row, _ in zip(self._rows, range(size), strict=False)]

    def fetchall(self) -> list[tuple[Any, ...]]:
        """All remaining rows."""
        return list(self._rows)

    def close(self) -> None:
        """Do nothing, because nothing is open."""


class Connection:
    """A connection on which a statement begins every transaction, as flowhooks requires of `sqlite3`, too."""

    isolation_level = None

    def __init__(self, driver: apsw.Connection, sql: Callable[[str], str]) -> None:
        self.driver = driver
        self.sql = sql

    def cursor(self) -> Cursor:
        """A new cursor."""
        return Cursor(self)

    def execute(self, sql: str, values: Sequence[Any] = ()) -> Cursor:
        """Execute a statement."""
        return self.cursor().execute(sql, values)

    def commit(self) -> None:
        """Commit the open transaction, if any."""
        self._end("COMMIT")

    def rollback(self) -> None:
        """Roll back the open transaction, if any."""
        self._end("ROLLBACK")

    def _end(self, statement: str) -> None:
        if not self.driver.get_autocommit():
            self.execute(statement)

    def create_function(self, name: str, parameters: int, function: Any, *, deterministic: bool = False) -> None:
        """Register a function for statements."""
        self.driver.create_scalar_function(name, function, parameters, deterministic=deterministic)

    def close(self) -> None:
        """Close the connection."""
        self.driver.close(force=True)


def module(vfs: str, sql: Callable[[str], str] = lambda sql: sql) -> Any:
    """A DB-API module for `create_engine(module=)`.

    Args:
        vfs: the name of the file system that its connections use.
        sql: may change a statement before it is executed.
    """

    def connect(database: str, *, timeout: float = 5.0, uri: bool = False, **_: Any) -> Connection:
        flags = apsw.SQLITE_OPEN_READWRITE | (0 if uri else apsw.SQLITE_OPEN_CREATE)
        with _sqlite3_errors():
            driver = apsw.Connection(url2pathname(urlsplit(database).path) if uri else database, flags, vfs)
            driver.set_busy_timeout(int(timeout * 1000))
        return Connection(driver, sql)

    names = [name for name in dir(sqlite3) if name.endswith("Error") or name in {"Warning", "Binary", "paramstyle"}]
    version = tuple(map(int, apsw.sqlite_lib_version().split(".")))
    return SimpleNamespace(
        connect=connect, sqlite_version_info=version, **{name: getattr(sqlite3, name) for name in names}
    )
