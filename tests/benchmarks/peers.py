"""Alternatives to flowhooks: installed, started and stopped."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import venv
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import processor
import psycopg
from cluster import cluster
from servers import START_TIMEOUT, THREADS, Server, ServerError, running

from support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

HERE = Path(__file__).with_name("peer")
REQUIREMENTS = HERE / "requirements.txt"
ENVIRONMENT = Path(sys.prefix) / "peer"
"""Kept from one session to the next, and removed with the environment that contains it."""
INSTALL_HINT_REDIS = (
    "redis-server is not installed: apt-get install redis-server (Debian, Ubuntu) or brew install redis (macOS)"
)
INSTALL_HINT_WEBHOOK = (
    "webhook is not installed: apt-get install webhook (Debian, Ubuntu) or brew install webhook (macOS)"
)
DURABLE = ("--appendonly", "yes", "--appendfsync", "always", "--save", "")
"""Each write is on the disk before it is answered, as with flowhooks. Without this, Redis writes its database down some
time after it has changed: within a minute where it has changed ten thousand times, else within five minutes or an hour.
"""
WORKERS = 2
"""Processes that run tasks or jobs: one for each core, which is Celery's default."""
SHELL = "#!/bin/sh\nprintf . >> {file}\n"
PYTHON = f'#!{sys.executable} -I\nwith open("{{file}}", "a") as runs:\n    runs.write(".")\n'
"""Commands that only count their runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A running Redis, and the programs that use it.

    Attributes:
        folder: an existing folder of its own.
        port: the port of Redis.
        durable: whether Redis keeps everything that was answered; otherwise its settings are the defaults.
    """

    folder: Path
    port: int
    durable: bool = True

    @contextmanager
    def serve(self) -> Iterator[Server]:
        """Run FastAPI on uvicorn, one process."""
        with _uvicorn("calls", self.folder, self._environ) as server:
            yield server

    @contextmanager
    def workers(self, count: int) -> Iterator[None]:
        """Run a Celery worker with `count` processes."""
        command = [str(ENVIRONMENT / "bin/celery"), "--workdir", str(HERE), "--app", "calls:tasks", "worker"]
        words = ["--concurrency", str(count), "--loglevel", "warning", "--without-gossip", "--without-mingle"]
        with self._running([*command, *words], port=self.port):
            self._until("EXISTS _kombu.binding.celery", 1)
            yield

    @contextmanager
    def serve_flask(self) -> Iterator[Server]:
        """Run Flask on waitress, one process."""
        port = free_port()
        command = [str(ENVIRONMENT / "bin/waitress-serve"), f"--listen=127.0.0.1:{port}", f"--threads={THREADS}"]
        with self._running([*command, "jobs:app"], port=port) as server:
            yield server

    @contextmanager
    def rq_workers(self, count: int) -> Iterator[None]:
        """Run `count` workers of RQ, each of which forks for each job."""
        command = [str(ENVIRONMENT / "bin/rq"), "worker-pool", "--num-workers", str(count), "--quiet"]
        with self._running([*command, "--url", self._broker], port=self.port):
            self._until("SCARD rq:workers", count)
            yield

    @property
    def _broker(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def _environ(self) -> dict[str, str]:
        return _environ(BROKER=self._broker, DURABLE="yes" if self.durable else "no")

    @contextmanager
    def _running(self, command: list[str], *, port: int) -> Iterator[Server]:
        with running(command, folder=self.folder, port=port, ready=None, environ=self._environ) as server:
            yield server

    def open(self) -> int:
        """The number of unfinished tasks or jobs: queued, or taken and not acknowledged."""
        return self._sum("LLEN celery", "HLEN unacked", "LLEN rq:queue:default", "ZCARD rq:wip:default")

    def _sum(self, *commands: str) -> int:
        """The sum of the values that Redis returns."""
        words = ("redis-cli", "-p", str(self.port))
        asked = subprocess.run(words, input="\n".join(commands), capture_output=True, text=True, check=True)
        return sum(int(line) for line in asked.stdout.split())

    def _until(self, command: str, least: int) -> None:
        """Wait until workers are connected, because they have no port of their own."""
        end = time.monotonic() + START_TIMEOUT
        while self._sum(command) < least:
            if time.monotonic() > end:
                raise ServerError(f"no workers after {START_TIMEOUT:.0f} s")
            time.sleep(0.05)

    def drained(self, *, seconds: float) -> tuple[int, float, float]:
        """Wait until all tasks are done.

        Returns:
            Their number, the seconds since the first one was taken, and the seconds of processor time of each.
        """
        end = time.monotonic() + seconds
        whole = self.open()
        while (left := self.open()) == whole:
            _in_time(end, left)
            time.sleep(0.01)
        began, spent = time.monotonic(), processor.spent()
        rest = left
        while left := self.open():
            _in_time(end, left)
            time.sleep(0.05)
        return whole, time.monotonic() - began, (processor.spent() - spent) / max(1, rest)


def _in_time(end: float, left: int) -> None:
    if time.monotonic() > end:
        raise ServerError(f"Celery has left {left} tasks undone")


@contextmanager
def peer(folder: Path, show_progress: Callable[..., None], *, durable: bool = True) -> Iterator[Peer]:
    """Redis with an empty database while the context lasts, on the disk of `folder`.

    Args:
        folder: an existing folder of its own.
        show_progress: shows progress.
        durable: whether Redis keeps everything that it has answered; otherwise its settings are the defaults.

    Raises:
        ServerError: Redis or a program that uses it is not installed.
    """
    if missing := missing_redis():
        raise ServerError(missing)
    _install(show_progress)
    with ExitStack() as stack:
        port = free_port()
        command = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder)]
        command += DURABLE if durable else ()
        stack.enter_context(running(command, folder=folder, port=port, ready=None, environ={}))
        yield Peer(folder=folder, port=port, durable=durable)


@dataclass(frozen=True, slots=True, kw_only=True)
class OnPostgresql:
    """A database on PostgreSQL, and the programs that use it.

    Attributes:
        folder: an existing folder of its own.
        url: the database.
    """

    folder: Path
    url: str

    @contextmanager
    def procrastinate(self) -> Iterator[Server]:
        """Run FastAPI on uvicorn, which stores jobs, and the workers of Procrastinate."""
        command = [str(ENVIRONMENT / "bin/procrastinate"), "--app", "procrastinated.jobs"]
        made = subprocess.run(
            [*command, "schema", "--apply"],
            env=os.environ | self._environ,
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode:
            raise ServerError(f"the tables of Procrastinate cannot be made:\n{made.stderr[-1000:]}")
        with ExitStack() as stack:
            server = stack.enter_context(_uvicorn("procrastinated", self.folder, self._environ))
            port = int(server.url.rpartition(":")[2])
            for _ in range(WORKERS):
                words = [*command, "worker", "--concurrency", str(THREADS)]
                stack.enter_context(running(words, folder=self.folder, port=port, ready=None, environ=self._environ))
            yield server

    @contextmanager
    def dbos(self) -> Iterator[Server]:
        """Run FastAPI on uvicorn, which starts durable workflows and runs them itself."""
        with _uvicorn("workflows", self.folder, self._environ) as server:
            yield server

    @property
    def _environ(self) -> dict[str, str]:
        return _environ(DATABASE=self.url)

    def open(self, table: str, done: str) -> int:
        """The number of unfinished jobs or workflows."""
        with psycopg.connect(self.url) as connection:
            counted = connection.execute(f"SELECT count(*) FROM {table} WHERE status <> '{done}'".encode())
            return int(counted.fetchall()[0][0])


@contextmanager
def _uvicorn(module: str, folder: Path, environ: Mapping[str, str]) -> Iterator[Server]:
    """Run a design on FastAPI, one process."""
    port = free_port()
    command = [str(ENVIRONMENT / "bin/uvicorn"), f"{module}:app", "--app-dir", str(HERE), "--port", str(port)]
    quiet = ["--no-access-log", "--log-level", "warning"]
    with running([*command, *quiet], folder=folder, port=port, ready=None, environ=environ) as server:
        yield server


def _environ(**own: str) -> dict[str, str]:
    return {"PYTHONPATH": str(HERE), "PYTHONDONTWRITEBYTECODE": "1"} | own


@contextmanager
def on_postgresql(folder: Path, show_progress: Callable[..., None]) -> Iterator[OnPostgresql]:
    """An empty database on PostgreSQL, which is durable as it is installed, while the context lasts.

    Args:
        folder: an existing folder of its own.
        show_progress: shows progress.
    """
    _install(show_progress)
    with cluster(folder) as postgresql, postgresql.database() as url:
        yield OnPostgresql(folder=folder, url=url)


def missing_redis() -> str:
    """How to install Redis; `""` if it is installed."""
    return INSTALL_HINT_REDIS if shutil.which("redis-server") is None or shutil.which("redis-cli") is None else ""


def missing_webhook() -> str:
    """How to install webhook; `""` if it is installed."""
    return INSTALL_HINT_WEBHOOK if shutil.which("webhook") is None else ""


def versions() -> str:
    """The versions of programs that are no Python packages, as they print them."""
    asked = [("redis-server", "--version"), ("webhook", "-version")]
    ran = [
        subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        for command in asked
        if shutil.which(command[0])
    ]
    return "; ".join(ran)


@contextmanager
def webhook(folder: Path, command: str, *, waits: bool) -> Iterator[tuple[Server, Path]]:
    """Run webhook with a command whose runs are counted.

    Args:
        folder: an existing folder of its own.
        command: one of the commands above.
        waits: whether it responds when the command has ended; otherwise at once, which is its default.

    Yields:
        The server, and a file that grows by one byte for each run of the command.

    Raises:
        ServerError: it is not installed.
    """
    if missing := missing_webhook():
        raise ServerError(missing)
    counted, script, hooks = folder / "runs", folder / "command", folder / "hooks.json"
    counted.touch()
    script.write_text(command.format(file=counted))
    script.chmod(0o755)
    arguments = [{"source": "url", "name": "flow"}, {"source": "entire-payload"}]
    hook = {"id": "complete", "execute-command": str(script), "http-methods": ["POST"]}
    waiting = {"include-command-output-in-response": waits, "pass-arguments-to-command": arguments}
    hooks.write_text(json.dumps([hook | waiting]))
    port = free_port()
    words = ["webhook", "-hooks", str(hooks), "-ip", "127.0.0.1", "-port", str(port)]
    with running(words, folder=folder, port=port, ready=None, environ={}) as server:
        yield server, counted


def _install(show_progress: Callable[..., None]) -> None:
    """Create the environment of the alternatives if it does not exist."""
    wanted, mark = REQUIREMENTS.read_text(), ENVIRONMENT / "requirements.txt"
    if mark.exists() and mark.read_text() == wanted:
        return
    show_progress("installing the alternatives into an environment of their own")
    venv.create(ENVIRONMENT, clear=True, with_pip=True, symlinks=True)
    command = [ENVIRONMENT / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    ran = subprocess.run(
        [*command, "--require-hashes", "--requirement", REQUIREMENTS],
        env=kept,
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode:
        raise ServerError(f"{REQUIREMENTS} cannot be installed:\n{ran.stderr[-1000:]}")
    mark.write_text(wanted)
