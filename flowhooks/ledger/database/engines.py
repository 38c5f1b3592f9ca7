"""Engines of both databases: opening and closing them, their names, and the texts of their errors."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import QueuePool

from flowhooks.errors import DamagedRow, LedgerUnusable, SettingsError, Unavailable
from flowhooks.ledger.database.statement_cache import statement_cache
from flowhooks.text import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import ModuleType

    from sqlalchemy import Connection

POSTGRESQL: Final = "postgresql"
# With 1,000,000 events stored, 64 MiB were no faster under the load of `make bench`: the operating system's cache holds
# the rest.
CACHE_KIB: Final = 8192
"""Page cache of the writing connection, in KiB."""
WAL_LIMIT_BYTES: Final = 64 * 1024 * 1024
# Index pages that change often are copied once for many callbacks. With SQLite's default of 1,000 they are copied every
# few hundred callbacks.
CHECKPOINT_PAGES: Final = 4000
"""Pages in the write-ahead log (16 MB) after which SQLite copies them into the database file."""
# The pragma affects macOS only, where `fsync` does not flush the drive's cache. Connections that only read have it too:
# the last connection of a database that closes copies the write-ahead log into the file, and deletes the log.
SYNC_TO_DRIVE: Final = "PRAGMA fullfsync=ON"
"""Makes SQLite sync in a way that survives a power cut."""
BUSY_SECONDS: Final = 5.0
# PostgreSQL waits at most `BUSY_SECONDS` for a lock, and no other part of a statement takes a second. A server that is
# silent for longer does not answer at all.
STATEMENT_TIMEOUT: Final = 10.0
"""Seconds within which PostgreSQL must answer a statement of a server or worker."""
LONG_STATEMENT_TIMEOUT: Final = 300.0
"""Seconds for a statement that reads the deliveries of a whole operation. A lock of somebody else ends then, too."""
# The process was stopped or is unreachable, and its locks keep others from recovering its deliveries.
IDLE_SECONDS: Final = 15
"""Seconds after which PostgreSQL ends an idle transaction of the ledger's writer."""
# A handler may do other work within its transaction. An idle reader keeps tables from being changed and old rows from
# being vacuumed.
LONG_IDLE_SECONDS: Final = 60
"""Seconds after which PostgreSQL ends an idle transaction of a handler, or of a reader in a server or worker."""


def open_engine(
    url: str,
    *,
    writing: bool,
    handler_sessions: int = 0,
    statement_timeout: float | None = None,
) -> Engine:
    """Return an engine for the ledger's database. Nothing is opened yet.

    Args:
        url: `sqlite:///…` or `postgresql://…`.
        writing: whether its transactions write and are durable once committed (`synchronous=FULL`,
            `synchronous_commit=on`: a power cut loses nothing that was acknowledged); otherwise it has several
            read-only connections, and each transaction sees one snapshot.
        handler_sessions: maximum number of sessions of handlers at the same time; default 0: the engine is the one that
            flowhooks itself writes with.
        statement_timeout: seconds after which a connection is closed if a statement is not answered; default: never.
            SQLite ignores it.

    Raises:
        LedgerUnusable: the driver of PostgreSQL is not installed.
        SettingsError: the URL has an option that cannot be used.
    """
    parsed = make_url(url)
    options: dict[str, Any] = {"poolclass": QueuePool, "pool_timeout": BUSY_SECONDS}
    options |= (
        {"pool_size": handler_sessions or 1, "max_overflow": 0} if writing else {"pool_size": 4, "max_overflow": 4}
    )
    options["execution_options"] = {"compiled_cache": statement_cache(parsed.get_backend_name())}
    if parsed.get_backend_name() == POSTGRESQL:
        return _open_postgresql(
            parsed, options, writing=writing, statement_timeout=statement_timeout, for_handlers=bool(handler_sessions)
        )
    return _open_sqlite(url, options, writing=writing)


def _open_postgresql(
    url: URL, options: dict[str, Any], *, writing: bool, statement_timeout: float | None, for_handlers: bool
) -> Engine:
    timeouts = _postgresql_timeouts()
    # The options of the URL first, such as a schema. Our own options are last, so that they take precedence.
    url_options = url.query.get("options", ())
    settings = " ".join([url_options] if isinstance(url_options, str) else url_options)
    settings += f" -c synchronous_commit=on -c timezone=UTC -c client_encoding=UTF8 {timeouts.SERVER_KEEPALIVE_OPTIONS}"
    if writing or statement_timeout is not None:  # a command that only reads has no idle timeout
        idle = LONG_IDLE_SECONDS if for_handlers or not writing else IDLE_SECONDS
        settings += f" -c idle_in_transaction_session_timeout={idle}s"
    if writing:
        # A transaction that waits for a row lock of another process gives up in time for its client to get a 503.
        settings += f" -c lock_timeout={int(BUSY_SECONDS * 1000)}"
        if not for_handlers:
            # The writer finds all rows by keys. Where a table has grown since it was last analyzed (in the first
            # minute, every table has), PostgreSQL would scan it for each batch: that took two thirds of the database's
            # time.
            settings += " -c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off"
    else:
        settings += " -c default_transaction_read_only=on"
    targets = {}
    if not writing and url.query.get("target_session_attrs") == "read-write":
        # Sessions of a reader are read-only on every server, so libpq would refuse each of them.
        targets["target_session_attrs"] = "primary"
    try:
        keepalive = timeouts.keepalive_options(url.set(drivername=POSTGRESQL).render_as_string(hide_password=False))
        engine = create_engine(
            url.set(drivername="postgresql+psycopg"),
            isolation_level="READ COMMITTED" if writing else "REPEATABLE READ",
            pool_pre_ping=not writing,
            use_native_hstore=False,  # otherwise each engine searches the database's types for it
            hide_parameters=True,  # also in the errors of handlers, which are sent to the workflow engine
            connect_args=keepalive
            | targets
            | {"connect_timeout": int(BUSY_SECONDS), "options": settings, "application_name": "flowhooks"},
            **options,
        )
    except (ArgumentError, ValueError) as error:
        raise SettingsError(
            f"database: an option after the ? of the URL cannot be used: {one_line(str(error))}"
        ) from None
    timeouts.install(engine, statement_timeout=statement_timeout, ping_timeout=BUSY_SECONDS)
    if writing:
        timeouts.drop_read_only_sessions(engine)
    return engine


def _postgresql_timeouts() -> ModuleType:
    """Import the module with PostgreSQL's connection classes.

    Raises:
        LedgerUnusable: the driver is not installed.
    """
    if find_spec("psycopg") is None:
        raise LedgerUnusable("PostgreSQL needs a driver: pip install 'flowhooks[postgresql]'")
    from flowhooks.ledger.database import postgresql_timeouts  # noqa: PLC0415 (the driver is an extra that SQLite does not need)

    return postgresql_timeouts


def with_statement_timeout(connection: Connection, seconds: float | None) -> AbstractContextManager[None]:
    """Replace a connection's statement timeout within the block; None: no timeout."""
    return _replaced(connection, "statement_timeout", seconds)


def strict_text(connection: Connection) -> AbstractContextManager[None]:
    """Fail at damaged text within the block. SQLite otherwise reads it with escapes; PostgreSQL stores none."""
    return _replaced(connection, "text_factory", str)


@contextmanager
def _replaced(connection: Connection, name: str, value: Any) -> Iterator[None]:
    """Replace an attribute of the driver's connection within the block, if it has one."""
    driver_connection = connection.connection.dbapi_connection
    before = getattr(driver_connection, name, None)
    if before is None:
        yield
        return
    setattr(driver_connection, name, value)
    try:
        yield
    finally:
        setattr(driver_connection, name, before)


def keep_temporary_data_in_memory(connection: Connection) -> None:
    """Let SQLite keep in memory what it stores to undo a statement, instead of in a file.

    Otherwise it creates such a file for each statement that changes more than 64 KiB, which is the insert of eight
    events. It also keeps the rows of large sorts in memory, so this is for connections that sort few rows.

    Args:
        connection: a connection without an open transaction; one to PostgreSQL is not changed.
    """
    if connection.dialect.name != POSTGRESQL:
        driver: Any = connection.connection.dbapi_connection
        driver.execute("PRAGMA temp_store=MEMORY")


def _open_sqlite(url: str, options: dict[str, Any], *, writing: bool) -> Engine:
    file = None if writing else database_file(url)
    engine = create_engine(
        url if file is None else _existing_file(file),
        connect_args={"check_same_thread": False, "timeout": BUSY_SECONDS, "isolation_level": None},
        **options,
    )

    @event.listens_for(engine, "connect")
    def _connected(connection: sqlite3.Connection, _record: Any) -> None:
        connection.execute(SYNC_TO_DRIVE)
        if writing:
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA foreign_keys=ON")
            connection.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
            connection.execute(f"PRAGMA journal_size_limit={WAL_LIMIT_BYTES}")
            connection.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
        else:
            connection.execute("PRAGMA query_only=ON")
            # Damaged text must not keep the other rows of a page from being read.
            connection.text_factory = _decode

    # IMMEDIATE takes the write lock before the first read, so that no transaction fails half-way. It is set in the
    # dialect and not by a listener: an engine that has a listener looks for more of them at every statement, which
    # takes a third of its time (SQLAlchemy 2.1).
    begin = "BEGIN IMMEDIATE" if writing else "BEGIN"
    engine.dialect.do_begin = lambda connection: connection.execute(begin)  # type: ignore[assignment]  # result unused
    return engine


def _existing_file(file: Path) -> URL:
    # By default SQLite creates a missing file: a reader would put an empty one in the place of a file that is away.
    return URL.create("sqlite", database=file.absolute().as_uri(), query={"uri": "true", "mode": "rw"})


def _decode(text: bytes) -> str:
    return text.decode(errors="backslashreplace")


def is_shared(url: str) -> bool:
    """Return whether several processes, on any machines, may use this database at the same time."""
    return make_url(url).get_backend_name() == POSTGRESQL


def enable_wal(engine: Engine) -> None:
    """Switch a SQLite database to write-ahead logging, so that readers and the writer do not block each other.

    This is not done when the database is opened, because it changes the file, which may not be a ledger. The file keeps
    the mode. PostgreSQL always writes ahead.

    Raises:
        LedgerUnusable: the file system of the database's folder does not allow it.
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
        raise LedgerUnusable(f"its folder does not allow SQLite's write-ahead log (the journal mode is still {mode!r})")


def database_file(url: str) -> Path | None:
    """Return the file that a URL names; None if the database is not a file."""
    from pathlib import Path  # noqa: PLC0415 (a faster start where it is not needed)

    parsed = make_url(url)
    return Path(parsed.database) if parsed.database and parsed.get_backend_name() != POSTGRESQL else None


def file_url(file: Path) -> str:
    """Return the URL of which `database_file` returns this file."""
    return "sqlite:///" + str(file).replace("%", "%25").replace("?", "%3F")


def free_disk_bytes(url: str) -> int | None:
    """Return the free bytes on the disk of a database file; None if it is not a file, or they cannot be read."""
    file = database_file(url)
    try:
        return None if file is None else shutil.disk_usage(file.resolve().parent).free
    except OSError:
        return None


def log_bytes(url: str) -> int | None:
    """Return the size of a database file's write-ahead log; None if it is not a file, or it cannot be read."""
    file = database_file(url)
    try:
        # SQLite keeps the log beside the file that a link leads to.
        return None if file is None else file.resolve().with_name(f"{file.resolve().name}-wal").stat().st_size
    except OSError:
        return None


def dispose(engine: Engine) -> None:
    """Close an engine's connections. A connection that is in use is closed when it is returned."""
    event.listen(engine.pool, "checkin", _close)
    engine.dispose()


def _close(driver: Any, _record: Any) -> None:
    if driver is not None:
        driver.close()


def is_readable(url: str) -> bool:
    """Return whether a URL can be parsed. The error is not returned, because it may contain a password."""
    try:
        display_name(url)
    except (ArgumentError, ValueError):
        return False
    return True


def is_same_database(url: str, other: str) -> bool:
    """Return whether two URLs name the same database, whatever user they name."""
    return _database_key(url) == _database_key(other)


def _database_key(url: str) -> tuple[Any, ...]:
    if file := database_file(url):
        return (file.resolve(),)
    parsed = make_url(url)
    where = (parsed.host or parsed.query.get("host"), str(parsed.port or parsed.query.get("port") or 5432))
    return (*where, parsed.database or parsed.username)


def display_name(url: str) -> str:
    """Return a database's name for messages: its file, or its name and server without user and password."""
    if file := database_file(url):
        return str(file)
    parsed = make_url(url)
    host = parsed.host or parsed.query.get("host", "")
    return f"{parsed.database or parsed.username} on {host or 'this machine'}"


def library_version() -> str:
    """Return the version of the SQLite library in this Python."""
    return sqlite3.sqlite_version


def error_text(error: SQLAlchemyError) -> str:
    """Return the text of a database error, in one line and without the statement."""
    if isinstance(error, PoolTimeout):
        return f"no connection to it was free within {BUSY_SECONDS:g} seconds"
    text = str(getattr(error, "orig", None) or type(error).__name__)
    # The lines of libpq's messages are sentences without a full stop.
    *first, last = [one_line(line) for line in text.splitlines() if line.strip()] or [""]
    return " ".join([*(line if line[-1] in ".:;,?!" else f"{line}." for line in first), last])


def remedy(error: str) -> str:
    """Return the remedy for an error text as the start of a sentence; `""` if none is known."""
    if "disk is full" in error or "No space left" in error:
        return "free some space on the disk of the database; "
    if "database is locked" in error:
        return "end the other program that holds a lock on the database file (`lsof FILE` names it); "
    return ""


def is_damage(error: BaseException | None) -> bool:
    """Return whether an error reports that the database file is damaged."""
    code = getattr(getattr(error, "orig", None), "sqlite_errorcode", 0) & 0xFF  # the higher bits only detail it
    return code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def is_undecodable(error: BaseException | None) -> bool:
    """Tell whether SQLite has read damaged text: not the database fails, but this row."""
    return isinstance(error, DBAPIError) and "Could not decode to UTF-8" in str(error.orig)


def to_unavailable(error: SQLAlchemyError) -> Unavailable:
    """Return the error for the caller of a failed write."""
    return DamagedRow(error_text(error)) if is_undecodable(error) else Unavailable("ledger_down")


def check_file(url: str) -> str | None:
    """Return the damage that SQLite reports for a database file, in one line; None if there is none.

    It uses a connection of its own: one that is in use may have pages in its cache that the file has lost.
    """
    engine = open_engine(url, writing=False)
    try:
        return quick_check(engine)
    except SQLAlchemyError as error:
        return error_text(error)
    finally:
        dispose(engine)


def quick_check(engine: Engine) -> str | None:
    """Return the damage that the database reports for its own file, in one line; None if there is none.

    Always None on PostgreSQL.
    """
    if engine.dialect.name == POSTGRESQL:
        return None
    with engine.connect() as connection:
        answer = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
    return None if answer == "ok" else one_line(str(answer))
