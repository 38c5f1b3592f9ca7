"""FastAPI, Celery and Redis doing the same: installed, started and stopped; it must not know what is measured."""

from __future__ import annotations

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

from servers import Server, ServerError, free_ports, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).with_name("peer")
REQUIREMENTS = HERE / "requirements.txt"
ENVIRONMENT = Path(sys.prefix) / "peer"
"""Kept from one session to the next, and removed with the environment that it lies in."""
INSTALL = "redis-server is not installed: apt-get install redis-server (Debian, Ubuntu) or brew install redis (macOS)"
REDIS = ("--appendonly", "yes", "--appendfsync", "always", "--save", "")
"""Each write is on the disk before it is answered, as with flowhooks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Redis that runs, and what talks to it.

    Attributes:
        folder: an existing folder of its own.
        socket: where Redis listens.
        redis: its port, where its monitor looks.
    """

    folder: Path
    port: int

    @contextmanager
    def serve(self) -> Iterator[Server]:
        """Run FastAPI on uvicorn, one process."""
        (port,) = free_ports(1)
        command = [str(ENVIRONMENT / "bin/uvicorn"), "calls:app", "--app-dir", str(HERE), "--port", str(port)]
        quiet = ["--no-access-log", "--log-level", "warning"]
        with self._running([*command, *quiet], port=port) as server:
            yield server

    @contextmanager
    def workers(self, count: int) -> Iterator[None]:
        """Run a Celery worker that has so many processes."""
        command = [str(ENVIRONMENT / "bin/celery"), "--workdir", str(HERE), "--app", "calls:tasks", "worker"]
        words = ["--concurrency", str(count), "--loglevel", "warning", "--without-gossip", "--without-mingle"]
        with self._running([*command, *words], port=self.port):
            yield

    @contextmanager
    def _running(self, command: list[str], *, port: int) -> Iterator[Server]:
        environ = {"BROKER": f"redis://127.0.0.1:{self.port}/0", "PYTHONDONTWRITEBYTECODE": "1"}
        with running(command, folder=self.folder, port=port, ready=None, environ=environ) as server:
            yield server

    def open(self) -> int:
        """How many tasks are not done: queued, or taken and not acknowledged."""
        words = ("redis-cli", "-p", str(self.port))
        asked = subprocess.run(words, input="LLEN celery\nHLEN unacked\n", capture_output=True, text=True, check=True)
        return sum(int(line) for line in asked.stdout.split())

    def drained(self, *, seconds: float) -> tuple[int, float]:
        """Wait until all is done; how many tasks that were, and the seconds from the first that was taken."""
        end = time.monotonic() + seconds
        whole = self.open()
        while (left := self.open()) == whole:
            _in_time(end, left)
            time.sleep(0.01)
        began = time.monotonic()
        while left := self.open():
            _in_time(end, left)
            time.sleep(0.05)
        return whole, time.monotonic() - began


def _in_time(end: float, left: int) -> None:
    if time.monotonic() > end:
        raise ServerError(f"Celery has left {left} tasks undone")


@contextmanager
def peer(folder: Path, tell: Callable[..., None]) -> Iterator[Peer]:
    """Redis with an empty database for as long as the context lasts, on the disk that `folder` is on.

    Raises:
        ServerError: Redis is not installed, or what is to use it cannot be.
    """
    if shutil.which("redis-server") is None or shutil.which("redis-cli") is None:
        raise ServerError(INSTALL)
    _install(tell)
    with ExitStack() as stack:
        (port,) = free_ports(1)
        command = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), *REDIS]
        stack.enter_context(running(command, folder=folder, port=port, ready=None, environ={}))
        yield Peer(folder=folder, port=port)


def _install(tell: Callable[..., None]) -> None:
    """Make the environment that the peer runs in, unless it is there."""
    wanted, mark = REQUIREMENTS.read_text(), ENVIRONMENT / "requirements.txt"
    if mark.exists() and mark.read_text() == wanted:
        return
    tell("installing FastAPI and Celery into an environment of their own")
    venv.create(ENVIRONMENT, clear=True, with_pip=True, symlinks=True)
    command = [ENVIRONMENT / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    ran = subprocess.run(
        [*command, "--requirement", REQUIREMENTS], env=kept, capture_output=True, text=True, check=False
    )
    if ran.returncode:
        raise ServerError(f"{REQUIREMENTS} cannot be installed:\n{ran.stderr[-1000:]}")
    mark.write_text(wanted)
