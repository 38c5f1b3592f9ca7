"""Install, start and stop alternatives to flowhooks."""

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
from servers import START_TIMEOUT, THREADS, Server, ServerError, run_server

from support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

HERE = Path(__file__).with_name("peer")
REQUIREMENTS = HERE / "requirements.txt"
ENVIRONMENT = Path(sys.prefix) / "peer"
"""The environment of the alternatives. Later sessions reuse it, and it is removed with the environment around it."""
INSTALL_HINT_REDIS = (
    "redis-server is not installed: apt-get install redis-server (Debian, Ubuntu) or brew install redis (macOS)"
)
INSTALL_HINT_WEBHOOK = (
    "webhook is not installed: apt-get install webhook (Debian, Ubuntu) or brew install webhook (macOS)"
)
REDIS_OPTIONS = ("--appendonly", "yes", "--appendfsync", "always", "--save", "")
"""Options with which each write is on the disk before it is answered, as with flowhooks. Without them, Redis saves its
database later: within a minute after ten thousand changes, otherwise within five minutes or an hour."""
WORKERS = 2
"""The number of processes that run tasks or jobs: one for each core, which is Celery's default."""
SHELL = "#!/bin/sh\nprintf . >> {file}\n"
PYTHON = f'#!{sys.executable} -I\nwith open("{{file}}", "a") as runs:\n    runs.write(".")\n'
"""Commands that append one byte to a file for each run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A running Redis, and the programs that use it.

    Attributes:
        folder: an existing folder for this Redis only.
        port: the port of Redis.
        durable: whether Redis stores all answered writes on the disk; otherwise it has its default settings.
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
        options = ["--concurrency", str(count), "--loglevel", "warning", "--without-gossip", "--without-mingle"]
        with self._run([*command, *options], port=self.port):
            self._wait_for_workers("EXISTS _kombu.binding.celery", 1)
            yield

    @contextmanager
    def serve_flask(self) -> Iterator[Server]:
        """Run Flask on waitress, one process."""
        port = free_port()
        command = [str(ENVIRONMENT / "bin/waitress-serve"), f"--listen=127.0.0.1:{port}", f"--threads={THREADS}"]
        with self._run([*command, "jobs:app"], port=port) as server:
            yield server

    @contextmanager
    def rq_workers(self, count: int) -> Iterator[None]:
        """Run `count` workers of RQ, each of which forks for each job."""
        command = [str(ENVIRONMENT / "bin/rq"), "worker-pool", "--num-workers", str(count), "--quiet"]
        with self._run([*command, "--url", self._broker], port=self.port):
            self._wait_for_workers("SCARD rq:workers", count)
            yield

    @property
    def _broker(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def _environ(self) -> dict[str, str]:
        return _environ(BROKER=self._broker, DURABLE="yes" if self.durable else "no")

    @contextmanager
    def _run(self, command: list[str], *, port: int) -> Iterator[Server]:
        with run_server(command, folder=self.folder, port=port, ready=None, environ=self._environ) as server:
            yield server

    def count_unfinished(self) -> int:
        """The number of unfinished tasks or jobs: queued, or taken and not acknowledged."""
        return self._sum_of_replies("LLEN celery", "HLEN unacked", "LLEN rq:queue:default", "ZCARD rq:wip:default")

    def _sum_of_replies(self, *commands: str) -> int:
        """Run commands of Redis; return the sum of their replies."""
        arguments = ("redis-cli", "-p", str(self.port))
        completed = subprocess.run(arguments, input="\n".join(commands), capture_output=True, text=True, check=True)
        return sum(int(line) for line in completed.stdout.split())

    def _wait_for_workers(self, command: str, min_workers: int) -> None:
        """Wait until enough workers are connected to Redis, because workers have no port of their own."""
        end = time.monotonic() + START_TIMEOUT
        while self._sum_of_replies(command) < min_workers:
            if time.monotonic() > end:
                raise ServerError(f"no workers after {START_TIMEOUT:.0f} s")
            time.sleep(0.05)

    def drain(self, *, seconds: float) -> tuple[int, float, float]:
        """Wait until all tasks are done.

        Returns:
            The number of tasks, the seconds from the first acknowledged task to the last one, and the seconds of
            processor time for each task.
        """
        end = time.monotonic() + seconds
        total = self.count_unfinished()
        while (unfinished := self.count_unfinished()) == total:
            _check_deadline(end, unfinished)
            time.sleep(0.01)
        started, spent = time.monotonic(), processor.spent()
        remaining = unfinished
        while unfinished := self.count_unfinished():
            _check_deadline(end, unfinished)
            time.sleep(0.05)
        return total, time.monotonic() - started, (processor.spent() - spent) / max(1, remaining)


def _check_deadline(end: float, unfinished: int) -> None:
    if time.monotonic() > end:
        raise ServerError(f"Celery has left {unfinished} tasks undone")


@contextmanager
def peer(folder: Path, show_progress: Callable[..., None], *, durable: bool = True) -> Iterator[Peer]:
    """Run Redis with an empty database until the context ends, with its files in `folder`.

    Args:
        folder: an existing folder for this Redis only.
        show_progress: shows a text as progress.
        durable: whether Redis stores all answered writes on the disk; otherwise it has its default settings.

    Raises:
        ServerError: Redis or a program that uses it is not installed.
    """
    if missing := missing_redis():
        raise ServerError(missing)
    _install(show_progress)
    with ExitStack() as stack:
        port = free_port()
        command = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder)]
        command += REDIS_OPTIONS if durable else ()
        stack.enter_context(run_server(command, folder=folder, port=port, ready=None, environ={}))
        yield Peer(folder=folder, port=port, durable=durable)


@dataclass(frozen=True, slots=True, kw_only=True)
class OnPostgresql:
    """A database on PostgreSQL, and the programs that use it.

    Attributes:
        folder: an existing folder for this database only.
        url: the URL of the database.
    """

    folder: Path
    url: str

    @contextmanager
    def procrastinate(self) -> Iterator[Server]:
        """Run FastAPI on uvicorn, which stores jobs, and the workers of Procrastinate."""
        command = [str(ENVIRONMENT / "bin/procrastinate"), "--app", "procrastinated.jobs"]
        completed = subprocess.run(
            [*command, "schema", "--apply"],
            env=os.environ | self._environ,
            capture_output=True,
            text=True,
            check=False,
        )
        if completed.returncode:
            raise ServerError(f"the tables of Procrastinate cannot be made:\n{completed.stderr[-1000:]}")
        with ExitStack() as stack:
            server = stack.enter_context(_uvicorn("procrastinated", self.folder, self._environ))
            port = int(server.url.rpartition(":")[2])
            for _ in range(WORKERS):
                worker_command = [*command, "worker", "--concurrency", str(THREADS)]
                stack.enter_context(
                    run_server(worker_command, folder=self.folder, port=port, ready=None, environ=self._environ)
                )
            yield server

    @contextmanager
    def dbos(self) -> Iterator[Server]:
        """Run FastAPI on uvicorn, which starts durable workflows and runs them itself."""
        with _uvicorn("workflows", self.folder, self._environ) as server:
            yield server

    @property
    def _environ(self) -> dict[str, str]:
        return _environ(DATABASE=self.url)

    def count_unfinished(self, table: str, finished_status: str) -> int:
        """The number of unfinished jobs or workflows."""
        with psycopg.connect(self.url) as connection:
            cursor = connection.execute(f"SELECT count(*) FROM {table} WHERE status <> '{finished_status}'".encode())
            return int(cursor.fetchall()[0][0])


@contextmanager
def _uvicorn(module: str, folder: Path, environ: Mapping[str, str]) -> Iterator[Server]:
    """Run an application of FastAPI on uvicorn, one process."""
    port = free_port()
    command = [str(ENVIRONMENT / "bin/uvicorn"), f"{module}:app", "--app-dir", str(HERE), "--port", str(port)]
    options = ["--no-access-log", "--log-level", "warning"]
    with run_server([*command, *options], folder=folder, port=port, ready=None, environ=environ) as server:
        yield server


def _environ(**variables: str) -> dict[str, str]:
    return {"PYTHONPATH": str(HERE), "PYTHONDONTWRITEBYTECODE": "1"} | variables


@contextmanager
def on_postgresql(folder: Path, show_progress: Callable[..., None]) -> Iterator[OnPostgresql]:
    """Yield an empty database on PostgreSQL, which is durable by default, until the context ends.

    Args:
        folder: an existing folder for this database only.
        show_progress: shows a text as progress.
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
    """The versions that installed programs outside Python print."""
    commands = [("redis-server", "--version"), ("webhook", "-version")]
    outputs = [
        subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        for command in commands
        if shutil.which(command[0])
    ]
    return "; ".join(outputs)


@contextmanager
def webhook(folder: Path, command: str, *, waits: bool) -> Iterator[tuple[Server, Path]]:
    """Run webhook with a command whose runs are counted.

    Args:
        folder: an existing folder for this server only.
        command: `SHELL` or `PYTHON`.
        waits: whether webhook responds when the command has ended; otherwise at once, which is its default.

    Yields:
        The server, and a file that grows by one byte for each run of the command.

    Raises:
        ServerError: webhook is not installed.
    """
    if missing := missing_webhook():
        raise ServerError(missing)
    runs_file, script, hooks = folder / "runs", folder / "command", folder / "hooks.json"
    runs_file.touch()
    script.write_text(command.format(file=runs_file))
    script.chmod(0o755)
    arguments = [{"source": "url", "name": "flow"}, {"source": "entire-payload"}]
    hook = {"id": "complete", "execute-command": str(script), "http-methods": ["POST"]}
    options = {"include-command-output-in-response": waits, "pass-arguments-to-command": arguments}
    hooks.write_text(json.dumps([hook | options]))
    port = free_port()
    webhook_command = ["webhook", "-hooks", str(hooks), "-ip", "127.0.0.1", "-port", str(port)]
    with run_server(webhook_command, folder=folder, port=port, ready=None, environ={}) as server:
        yield server, runs_file


def _install(show_progress: Callable[..., None]) -> None:
    """Create the environment of the alternatives if it does not exist."""
    requirements, installed_requirements = REQUIREMENTS.read_text(), ENVIRONMENT / "requirements.txt"
    if installed_requirements.exists() and installed_requirements.read_text() == requirements:
        return
    show_progress("installing the alternatives into an environment of their own")
    venv.create(ENVIRONMENT, clear=True, with_pip=True, symlinks=True)
    command = [ENVIRONMENT / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    completed = subprocess.run(
        [*command, "--require-hashes", "--requirement", REQUIREMENTS],
        env=inherited,
        capture_output=True,
        text=True,
        check=False,
    )
    if completed.returncode:
        raise ServerError(f"{REQUIREMENTS} cannot be installed:\n{completed.stderr[-1000:]}")
    installed_requirements.write_text(requirements)
