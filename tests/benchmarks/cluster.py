"""PostgreSQL, and servers and workers that share a ledger on it."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import processor
import psycopg
from servers import PLUGIN, THREADS, UNFINISHED, Server, ServerError, run_server

from support.ports import free_port, free_ports

sys.path.append(str(Path(__file__).parents[1]))  # where `support` is

from flowhooks.execution.runners import procrastinate_schema
from flowhooks.ledger.upgrade import upgrade
from support import postgresql

if TYPE_CHECKING:
    from collections.abc import Iterator

RUNNERS = ("embedded", "procrastinate")
SERVER_OPTIONS = "-c max_connections=200 -c shared_buffers=256MB -c max_wal_size=4GB -c track_commit_timestamp=on"
"""Options that differ from PostgreSQL's defaults. The server is durable: `fsync` and `synchronous_commit` stay on."""
TEMPLATE = "flowhooks_bench"


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedLedger:
    """A folder and a database for the processes of one ledger.

    Attributes:
        folder: an existing folder for this ledger only.
        url: the URL of the database.
        runner: the setting `runner.kind`.
        handlers: the number of handlers of the plugin.
    """

    folder: Path
    url: str
    runner: str
    handlers: int = 1

    @contextmanager
    def serve(self, *, threads: int = THREADS, worker: bool = False) -> Iterator[Server]:
        """Run `flowhooks serve`; without a worker, it registers the plugin's handlers and does not run them."""
        listen, admin = free_ports(2)
        arguments = ("serve", *(() if worker else ("--no-worker",)), "--listen", f"127.0.0.1:{listen}")
        with self._run(arguments, port=listen, admin=admin, threads=threads) as server:
            yield server

    @contextmanager
    def worker(self, *, threads: int = THREADS) -> Iterator[Server]:
        """Run `flowhooks worker`."""
        admin = free_port()
        with self._run(("worker",), port=admin, admin=admin, threads=threads) as worker:
            yield worker

    @contextmanager
    def _run(self, arguments: tuple[str, ...], *, port: int, admin: int, threads: int) -> Iterator[Server]:
        plugins = self.folder / "plugins"
        plugins.mkdir(exist_ok=True)
        (plugins / "bench.py").write_text(PLUGIN.format(count=self.handlers))
        command = [str(Path(sys.executable).with_name("flowhooks")), *arguments, "--admin", f"127.0.0.1:{admin}"]
        environ = {
            "FLOWHOOKS_DATABASE": self.url,
            "FLOWHOOKS_RUNNER_KIND": self.runner,
            "FLOWHOOKS_PLUGINS_DIRS": str(plugins),
            "FLOWHOOKS_PLUGINS_ALLOW": "bench",
            "FLOWHOOKS_HTTP_THREADS": str(threads),
            "FLOWHOOKS_RUNNER_THREADS": str(threads),
        }
        with run_server(command, folder=self.folder, port=port, ready=(admin, "/readyz"), environ=environ) as process:
            yield process

    def query_value(self, sql: str) -> Any:
        """Return one value from the database."""
        return self.rows(sql)[0][0]

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Return rows from the database; an empty list for a statement without rows."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

    def count_unfinished(self) -> int:
        """The number of waiting or running deliveries."""
        return int(self.query_value(UNFINISHED))

    def settle(self, *, seconds: float) -> None:
        """Wait until no delivery is waiting or running.

        Raises:
            ServerError: this took more than `seconds`.
        """
        end = time.monotonic() + seconds
        while unfinished := self.count_unfinished():
            if time.monotonic() > end:
                raise ServerError(f"{unfinished} deliveries are unfinished after {seconds:.0f} s")
            time.sleep(0.2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A running PostgreSQL with an empty ledger to copy."""

    server: postgresql.Server
    folder: Path

    @contextmanager
    def database(self) -> Iterator[str]:
        """Yield the URL of a new database without tables, which is removed afterwards."""
        name = f"{TEMPLATE}_{time.time_ns()}"
        try:
            yield self.server.make(name)
        finally:
            self.server.drop(name)

    @contextmanager
    def ledger(self, runner: str, *, handlers: int = 1) -> Iterator[SharedLedger]:
        """Yield a new ledger, which is removed afterwards."""
        name = f"{TEMPLATE}_{time.time_ns()}"
        folder = self.folder / name
        folder.mkdir()
        url = self.server.make(name, TEMPLATE)
        try:
            yield SharedLedger(folder=folder, url=url, runner=runner, handlers=handlers)
        finally:
            self.server.drop(name)


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """Run PostgreSQL with `SERVER_OPTIONS` until the context ends; it is durable, as by default."""
    with postgresql.server(SERVER_OPTIONS) as server:
        server.drop(TEMPLATE)
        url = server.make(TEMPLATE)
        upgrade(url)
        procrastinate_schema.upgrade(url)
        try:
            with processor.watch(_postmaster_pid(url)):
                yield Cluster(server=server, folder=folder)
        finally:
            server.drop(TEMPLATE)


def _postmaster_pid(url: str) -> int:
    """The id of PostgreSQL's main process, which starts all others."""
    with psycopg.connect(url) as connection:
        return processor.parent(connection.info.backend_pid)
