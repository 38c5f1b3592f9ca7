"""Start measured servers, wait until they are ready, and always stop them."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bare as bare_app
import processor

sys.path.append(str(Path(__file__).parents[1]))  # where `support` is

from flowhooks.ledger.file_guard import MAX_BYTES_CHECKED_AT_ONCE
from flowhooks.settings import RunnerSettings
from support.ports import free_port, free_ports

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

THREADS = 16
"""HTTP threads of both servers unless a row sets another number: the default. On PostgreSQL this is also the number of
runner threads, and equals the processes of the other servers' workers."""
RUNNER_THREADS = RunnerSettings().threads
"""Threads of flowhooks' runner on SQLite unless a row sets another number: the default."""
START_TIMEOUT = 60.0
"""Seconds in which a server must become ready."""
UNFINISHED = (
    "SELECT (SELECT count(*) FROM deliveries WHERE due_at IS NOT NULL AND order_position <= 0 AND state = 'waiting')"
    " + (SELECT count(*) FROM deliveries WHERE state IN ('running', 'dead', 'unknown') AND state = 'running')"
)
"""The number of waiting or running unordered deliveries. Each half uses a partial index, because reading a million
finished deliveries repeatedly would slow down the measured server."""
CHECK_TIMEOUT = 600.0
"""Seconds in which the check of a large database file must end."""
STOP_TIMEOUT = 60.0
"""Seconds after which a server that does not stop is killed."""

PLUGIN = '''"""{count} handlers that do nothing."""

from flowhooks import handler, hookimpl


def make(number):
    """A handler for the class that ends in `number`; for the plain one if that is 0."""

    @handler(callback_class=f"com.cnooc.test.CallbackHandler{{number or ''}}", name=f"handler-{{number}}")
    def nothing(event):
        """Do nothing."""

    return nothing


@hookimpl
def handlers():
    return [make(number) for number in range({count})]
'''


class ServerError(Exception):
    """A server did not start, stopped by itself, or did not stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A running server.

    Attributes:
        pid: the id of its process.
        url: the root of its callback listener.
        admin: the root of its administration listener; `""` if it has none.
        ready_after: seconds from the start of its process until it was ready.
        was_killed: set when a benchmark has killed it.
    """

    pid: int
    url: str
    admin: str
    ready_after: float
    was_killed: threading.Event = field(default_factory=threading.Event)

    def kill(self) -> None:
        """Kill the process with SIGKILL; `run_server` then accepts that it has ended."""
        self.was_killed.set()
        os.kill(self.pid, signal.SIGKILL)

    def memory(self) -> float:
        """Resident memory in MiB."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A folder with the database, plugin and log of one flowhooks server.

    Attributes:
        folder: an existing folder for this site only.
        handlers: the number of handlers of the plugin.
        source: the source code of the plugin, with `{count}` for the number of handlers.
        config: additional lines of the settings file.
    """

    folder: Path
    handlers: int = 1
    source: str = PLUGIN
    config: str = ""

    @property
    def database(self) -> Path:
        """The file of the ledger."""
        return self.folder / "flowhooks.db"

    @contextmanager
    def serve(
        self,
        *,
        plugin: bool = True,
        threads: int = THREADS,
        wrapper: Sequence[str] = (),
        settings: Mapping[str, str] | None = None,
        cores: Collection[int] = (),
    ) -> Iterator[Server]:
        """Run `flowhooks serve` here; without its plugin, deliveries to the registered handlers wait.

        The check of a large database file, which follows the start, has ended before the server is yielded.

        Args:
            plugin: whether the server has its plugin.
            threads: HTTP threads, and threads of the runner if they are more than its default.
            wrapper: a command that receives this command as its arguments, with `flowhooks` in place of its path.
            settings: additional settings, by the names of their environment variables.
            cores: the cores on which the server runs; default: all.
        """
        plugins = self.plugins() if plugin else self._empty_plugins_folder()
        config = self.folder / "flowhooks.toml"
        config.write_text(
            'plugins_allow = ["bench"]\n' + self.config
        )  # regardless of other plugins in this environment
        listen, admin = free_ports(2)
        command = [
            *([*wrapper, "flowhooks"] if wrapper else [str(Path(sys.executable).with_name("flowhooks"))]),
            "serve",
            *("--listen", f"127.0.0.1:{listen}", "--admin", f"127.0.0.1:{admin}"),
            *("--database", str(self.database), "--plugins-dir", str(plugins)),
            *("--config", str(config)),
        ]
        environ = {
            "FLOWHOOKS_HTTP_THREADS": str(threads),
            "FLOWHOOKS_RUNNER_THREADS": str(max(threads, RUNNER_THREADS)),
        }
        environ |= settings or {}
        ready = (admin, "/readyz")
        is_checked = self.database.exists() and self.database.stat().st_size > MAX_BYTES_CHECKED_AT_ONCE
        with run_server(command, folder=self.folder, port=listen, ready=ready, environ=environ, cores=cores) as server:
            if is_checked:
                _wait_for_check(_log_of(command, self.folder, listen))
            yield server

    def plugins(self) -> Path:
        """Write the plugin `bench`; return its folder."""
        folder = self.folder / "plugins"
        folder.mkdir(exist_ok=True)
        (folder / "bench.py").write_text(self.source.format(count=self.handlers))
        return folder

    def _empty_plugins_folder(self) -> Path:
        folder = self.folder / "no-plugins"
        folder.mkdir(exist_ok=True)
        return folder

    def count_unfinished(self) -> int:
        """The number of waiting or running deliveries, read by this process."""
        return self.query_value(UNFINISHED)

    def query_value(self, sql: str) -> int:
        """Return one number from the ledger, read by this process."""
        return self.rows(sql)[0][0]

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Return rows from the ledger, read by this process."""
        with contextlib.closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=30)) as connection:
            return connection.execute(sql).fetchall()

    def settle(self, *, seconds: float) -> None:
        """Wait until no delivery is waiting or running.

        Raises:
            ServerError: this took more than `seconds`.
        """
        end = time.monotonic() + seconds
        while unfinished := self.count_unfinished():
            if time.monotonic() > end:
                raise ServerError(f"{unfinished} deliveries are unfinished after {seconds:.0f} s")
            time.sleep(0.5)


@contextmanager
def bare(
    folder: Path,
    *,
    threads: int = THREADS,
    wrapper: Sequence[str] = (),
    cores: Collection[int] = (),
    stores: bool = False,
) -> Iterator[Server]:
    """Run the bare app with its log in `folder`; `wrapper` receives `bare` and its options as its arguments.

    With `stores`, the app stores each body in SQLite before the response.
    """
    port = free_port()
    program = [*wrapper, "bare"] if wrapper else [sys.executable, str(Path(bare_app.__file__))]
    command = [*program, "--port", str(port), "--threads", str(threads)]
    command += ["--store", str(folder / "bare.db")] if stores else []
    with run_server(command, folder=folder, port=port, ready=None, environ={}, cores=cores) as server:
        yield server


@contextmanager
def run_server(
    command: Sequence[str],
    *,
    folder: Path,
    port: int,
    ready: tuple[int, str] | None,
    environ: Mapping[str, str],
    cores: Collection[int] = (),
) -> Iterator[Server]:
    """Run a command until the context ends, with its log in `folder`.

    The command is ready when the path of `ready`, a port and a path, is answered 200; without `ready`, when `port`
    accepts connections. The processor time of the command and of its descendants is counted. With `cores`, it runs
    only on these.

    Raises:
        ServerError: the command did not become ready, stopped by itself or did not stop; the message has the last
            lines of its log.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FLOWHOOKS_")}
    log = _log_of(command, folder, port)
    with log.open("wb") as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=inherited | environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C interrupts only the benchmark, which then stops the server
        )
    try:
        if cores:
            os.sched_setaffinity(process.pid, cores)
        while not (_is_ready(*ready) if ready else _is_listening(port)):
            if process.poll() is not None or time.perf_counter() - started > START_TIMEOUT:
                raise ServerError(f"{command[0]} did not become ready:\n{_last_lines(log)}")
            time.sleep(0.002)
        ready_after = time.perf_counter() - started
        admin = f"http://127.0.0.1:{ready[0]}" if ready else ""
        server = Server(pid=process.pid, url=f"http://127.0.0.1:{port}", admin=admin, ready_after=ready_after)
        with processor.watch(process.pid):
            yield server
        if process.poll() is not None and not server.was_killed.is_set():
            raise ServerError(f"{command[0]} stopped by itself with {process.returncode}:\n{_last_lines(log)}")
    finally:
        _stop(process)


def _log_of(command: Sequence[str], folder: Path, port: int) -> Path:
    return folder / f"{Path(command[0]).name}-{port}.log"


def _wait_for_check(log: Path) -> None:
    end = time.monotonic() + CHECK_TIMEOUT
    while b"database_checked" not in log.read_bytes():
        if time.monotonic() > end:
            raise ServerError(f"the check of the database file did not end:\n{_last_lines(log)}")
        time.sleep(0.1)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise ServerError(
                f"process {process.pid} did not stop within {STOP_TIMEOUT:.0f} s and was killed"
            ) from None


def _last_lines(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:])


def _is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _is_ready(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.client.OK
    except OSError:
        return False
    finally:
        connection.close()
