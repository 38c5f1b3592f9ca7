"""How each database is opened, named, let go of, and what it says of itself."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import QueuePool

from flowhooks.errors import LedgerUnusable
from flowhooks.text import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import ModuleType

    from sqlalchemy import Connection

POSTGRESQL: Final = "postgresql"
CACHE_KIB: Final = 8192
"""Page cache of the writing connection. With 1,000,000 events stored, 64 MiB were no faster than this under the load of
`make bench`: the system's own cache holds the rest."""
WAL_LIMIT_BYTES: Final = 64 * 1024 * 1024
CHECKPOINT_PAGES: Final = 4000
"""Pages in the log after which it is copied into the file, 16 MB: the hot ends of the indexes are copied once for many
call-backs. SQLite's own 1,000 copies them every few hundred."""
BUSY_SECONDS: Final = 5.0
STATEMENT_TIMEOUT: Final = 10.0
"""Seconds in which PostgreSQL must answer a question of a process that is at work. It waits `BUSY_SECONDS` for a lock,
and nothing else that is asked then takes a second: whoever is silent for longer does not answer at all."""
IDLE_SECONDS: Final = 15
"""After which PostgreSQL ends a transaction in which nothing happens, whose process was stopped or is out of reach: its
locks keep others from seeing to what it ran."""
LONG_IDLE_SECONDS: Final = 60
"""The same for a transaction that was lent to a handler, which may do other things within it; and for who reads while
at work, which keeps tables from being changed, and what has changed since from being cleared away."""


def open_engine(
    url: str,
    *,
    writing: bool,
    handler_sessions: int = 0,
    statement_timeout: float | None = None,
) -> Engine:
    """An engine for the ledger's database.

    Args:
        url: `sqlite:///…` or `postgresql://…`.
        writing: connections whose transactions write at once and are durable when they have committed
            (`synchronous=FULL`, `synchronous_commit=on`: a power cut loses nothing that was acknowledged); else
            several that can only read, each of whose transactions sees one moment.
        handler_sessions: how many sessions are lent to handlers at once; default: it is the one that flowhooks
            itself writes with.
        statement_timeout: seconds after which a connection is given up on which a question is not answered; default:
            never. SQLite has no say in it.

    Returns:
        The engine. Nothing is opened yet.
    """
    parsed = make_url(url)
    pool: dict[str, Any] = {"poolclass": QueuePool, "pool_timeout": BUSY_SECONDS}
    pool |= {"pool_size": handler_sessions or 1, "max_overflow": 0} if writing else {"pool_size": 4, "max_overflow": 4}
    if parsed.get_backend_name() == POSTGRESQL:
        return _open_postgresql(
            parsed, pool, writing=writing, statement_timeout=statement_timeout, for_handlers=bool(handler_sessions)
        )
    return _open_sqlite(url, pool, writing=writing)


def _open_postgresql(
    url: URL, pool: dict[str, Any], *, writing: bool, statement_timeout: float | None, for_handlers: bool
) -> Engine:
    timeouts = _postgresql_timeouts()
    # Ours last, so that they count; before them what the URL asks for, such as a schema.
    url_options = url.query.get("options", ())
    options = " ".join([url_options] if isinstance(url_options, str) else url_options)
    options += f" -c synchronous_commit=on -c timezone=UTC -c client_encoding=UTF8 {timeouts.SERVER_KEEPALIVE_OPTIONS}"
    if writing or statement_timeout is not None:  # a command that only reads may take its time
        idle = LONG_IDLE_SECONDS if for_handlers or not writing else IDLE_SECONDS
        options += f" -c idle_in_transaction_session_timeout={idle}s"
    if writing:
        # Whoever waits for a row that another process holds gives up in time to be answered 503.
        options += f" -c lock_timeout={int(BUSY_SECONDS * 1000)}"
        if not for_handlers:
            # All that it writes is found by keys. Tables that have grown since they were last looked at (in the first
            # minute, all have) would be read as a whole for each batch: that took two thirds of the database's time.
            options += " -c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off"
    else:
        options += " -c default_transaction_read_only=on"
    keepalive = timeouts.keepalive_options(url.set(drivername=POSTGRESQL).render_as_string(hide_password=False))
    engine = create_engine(
        url.set(drivername="postgresql+psycopg"),
        isolation_level="READ COMMITTED" if writing else "REPEATABLE READ",
        pool_pre_ping=not writing,
        hide_parameters=True,  # in what a handler raises, too, which the engine reads
        connect_args=keepalive
        | {"connect_timeout": int(BUSY_SECONDS), "options": options, "application_name": "flowhooks"},
        **pool,
    )
    timeouts.install(engine, statement_timeout=statement_timeout, ping_timeout=BUSY_SECONDS)
    return engine


def _postgresql_timeouts() -> ModuleType:
    """Import the module with PostgreSQL's connection classes.

    Raises:
        LedgerUnusable: the driver is not installed.
    """
    if find_spec("psycopg") is None:
        raise LedgerUnusable("PostgreSQL needs a driver: pip install 'flowhooks[postgresql]'")
    from flowhooks.ledger.database import postgresql_timeouts  # noqa: PLC0415 (the driver is an extra, which SQLite does without)

    return postgresql_timeouts


@contextmanager
def without_statement_timeout(connection: Connection) -> Iterator[None]:
    """Give the database all the time that it needs to answer what is asked meanwhile."""
    driver_connection: Any = connection.connection.dbapi_connection
    before = getattr(driver_connection, "statement_timeout", None)
    if before is None:
        yield
        return
    driver_connection.statement_timeout = None
    try:
        yield
    finally:
        driver_connection.statement_timeout = before


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
    return make_url(url).get_backend_name() == POSTGRESQL


def enable_wal(engine: Engine) -> None:
    """Have a database write to a log ahead of its file, so that readers and the writer do not wait for each other.

    Not done on opening, for it changes the file, which may turn out to be none of ours. The file remembers it.
    PostgreSQL always does.

    Raises:
        LedgerUnusable: the folder's file system does not allow that.
    """
    if engine.dialect.name == POSTGRESQL:
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
    return Path(parsed.database) if parsed.database and parsed.get_backend_name() != POSTGRESQL else None


def free_disk_bytes(url: str) -> int | None:
    """How many bytes are left on the disk of a database that is a file; None for any other, or if nobody can tell."""
    file = database_file(url)
    try:
        return None if file is None else shutil.disk_usage(file.absolute().parent).free
    except OSError:
        return None


def dispose(engine: Engine) -> None:
    """Close an engine's connections: those that are in use as soon as they are given back."""
    event.listen(engine.pool, "checkin", _close)
    engine.dispose()


def _close(driver: Any, _record: Any) -> None:
    if driver is not None:
        driver.close()


def is_readable(url: str) -> bool:
    """Whether an URL can be taken to pieces; what is wrong with one is not said, as it may hold a password."""
    try:
        display_name(url)
    except (ArgumentError, ValueError):
        return False
    return True


def is_same_database(url: str, other: str) -> bool:
    """Whether two URLs name the same database, whoever it is opened as."""
    return _database_key(url) == _database_key(other)


def _database_key(url: str) -> tuple[Any, ...]:
    if file := database_file(url):
        return (file.resolve(),)
    parsed = make_url(url)
    where = (parsed.host or parsed.query.get("host"), str(parsed.port or parsed.query.get("port") or 5432))
    return (*where, parsed.database or parsed.username)


def display_name(url: str) -> str:
    """What to call a database in a sentence: its file, or its server and name without user and password."""
    if file := database_file(url):
        return str(file)
    parsed = make_url(url)
    host = parsed.host or parsed.query.get("host", "")
    return f"{parsed.database} on {host or 'this machine'}"


def library_version() -> str:
    """The version of the database library that this Python carries."""
    return sqlite3.sqlite_version


def error_text(error: SQLAlchemyError) -> str:
    """What a database error says, in one line and without the statement."""
    if isinstance(error, PoolTimeout):
        return f"no connection to it was free within {BUSY_SECONDS:g} seconds"
    return one_line(str(getattr(error, "orig", None) or type(error).__name__))


def remedy(error: str) -> str:
    """What to do about what `plain` says, where that can be told: the beginning of a sentence; `""` where it cannot."""
    return "make room on the disk of the database; " if "disk is full" in error or "No space left" in error else ""


def is_damage(error: BaseException | None) -> bool:
    """Whether an error says that the database file itself is damaged."""
    code = getattr(getattr(error, "orig", None), "sqlite_errorcode", 0) & 0xFF  # the rest says where it was found
    return code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def check_file(url: str) -> str | None:
    """What SQLite reports as wrong with a database file, in one line, or None.

    Over a connection of its own: one that is in use may have the pages in its cache that the file has lost.
    """
    engine = open_engine(url, writing=False)
    try:
        return quick_check(engine)
    except SQLAlchemyError as error:
        return error_text(error)
    finally:
        dispose(engine)


def quick_check(engine: Engine) -> str | None:
    """What the database says is wrong with its own file, in one line, or None."""
    if engine.dialect.name == POSTGRESQL:
        return None
    with engine.connect() as connection:
        answer = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
    return None if answer == "ok" else one_line(str(answer))
