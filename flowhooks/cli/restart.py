"""`flowhooks restart`: replace the running server without refusing a callback."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from flowhooks.cli import output
from flowhooks.cli.operations_client import record_change
from flowhooks.cli.options import json_option, settings_options
from flowhooks.cli.process.restart_delay import START_TIMEOUT
from flowhooks.errors import FlowhooksError, LedgerUnusable
from flowhooks.ledger import database
from flowhooks.ledger.lock import HAND_OVER_TIMEOUT, Lock
from flowhooks.operations.record_change import ChangeKind
from flowhooks.settings import database_url

if TYPE_CHECKING:
    from flowhooks.ledger.lock import LockOwner
    from flowhooks.settings import Settings

POLL_INTERVAL: Final = 0.1
"""Seconds between two looks at the lock file."""
MARGIN: Final = 60.0
"""Seconds that a replacement may take beyond the loading of the new process and the end of running handlers."""

SIGNALS: Final = "send SIGUSR2 to a single process, or SIGHUP to the supervisor of several processes"
"""How a server on PostgreSQL is replaced."""


@dataclass(frozen=True, slots=True)
class Replaced:
    """A server that was replaced.

    Attributes:
        predecessor: process id of the old server.
        pid: process id of the new server.
        waited: seconds for which new connections waited; None if the old server died meanwhile.
    """

    predecessor: int
    pid: int
    waited: float | None

    def to_json(self) -> dict[str, Any]:
        """Return the value as JSON."""
        return {"predecessor": self.predecessor, "pid": self.pid, "waited_seconds": self.waited}

    def to_text(self) -> str:
        """Return a sentence."""
        waited = "" if self.waited is None else f" New connections waited {self.waited:.2f} s, and none was refused."
        return f"Process {self.pid} has replaced process {self.predecessor}.{waited}"


@click.command("restart", short_help="Replace the running server without refusing callbacks.")
@json_option
@settings_options
def command(settings: Settings, *, as_json: bool) -> None:
    r"""Replace the running server by a new process, which loads plugins, schemas and all settings again.

    The old process accepts callbacks until the new process has loaded everything, and until its own running handlers
    have ended or shutdown.timeout has passed. It starts no handler in that time. Then the new process takes the ledger
    and the listening sockets over. Clients wait for about a second at most, and no callback is refused.

    If the new process cannot start, the old one continues as before, and the command shows the reason: a plugin that
    cannot be loaded, a wrong setting, or tables that have to be upgraded. The signal SIGUSR2 to the server does the
    same as this command. Run the command on the machine of the server, as its user.

    On PostgreSQL, send SIGHUP to the supervisor of several processes instead.

    \b
    Examples:
      flowhooks restart
      flowhooks restart --json

    Exit codes: 0 replaced; 1 not replaced, and the old server continues, or no server runs; 2 wrong usage.
    """
    replaced = replace_server(settings)
    if as_json:
        output.print_json(replaced.to_json())
    else:
        output.print_line(replaced.to_text())


def replace_server(settings: Settings) -> Replaced:
    """Replace the running server, and wait until the new one serves.

    Raises:
        FlowhooksError: no server is running, or it was not replaced.
    """
    file = database.database_file(database_url(settings))
    if file is None:
        raise FlowhooksError(f"on PostgreSQL this command cannot find the server: {SIGNALS}")
    lock = Lock(file)
    before = _running_server(lock, file)
    record_change(settings, ChangeKind.RESTART)
    requested = time.monotonic()
    while not _request(before, lock.path):
        asked = before.pid
        before = _running_server(lock, file, may_be_free=True)
        if before.pid == asked:
            raise FlowhooksError(
                f"process {before.pid}, which has the ledger, is not visible here: run the command on the machine, in "
                "the container and as the user of the server"
            )
    try:
        return _wait(lock, before, requested, settings.shutdown.timeout + settings.http.read_timeout)
    except KeyboardInterrupt:
        output.print_line(
            "The request was sent, and the replacement continues: look for `server_started` in the server's log.",
            err=True,
        )
        raise


def _running_server(lock: Lock, file: Path, *, may_be_free: bool = False) -> LockOwner:
    """Return the server that has the ledger; wait for one that is just taking it over.

    Args:
        lock: the lock of the ledger.
        file: the database file.
        may_be_free: whether to wait also while no process has the lock.

    Raises:
        FlowhooksError: no server is running.
    """
    until = time.monotonic() + HAND_OVER_TIMEOUT
    while True:
        try:
            owner = lock.owner()
        except LedgerUnusable:  # it has just changed
            if time.monotonic() > until:
                raise
        else:
            if owner is not None and owner.admin:
                return owner
            if time.monotonic() > until or (owner is None and not may_be_free):
                raise FlowhooksError(f"no server is running on the ledger {file}; start one with `flowhooks serve`")
        time.sleep(POLL_INTERVAL)


def _wait(lock: Lock, before: LockOwner, requested: float, handlers_timeout: float) -> Replaced:
    """Wait until a process serves that was started after the request: it has loaded what was changed before.

    Raises:
        FlowhooksError: the server was not replaced.
    """
    current, seen_at, owned_at = before, requested, requested
    while time.monotonic() < seen_at + START_TIMEOUT + handlers_timeout + MARGIN:
        time.sleep(POLL_INTERVAL)
        owner = _owner(lock)
        if owner is None:
            if time.monotonic() > owned_at + HAND_OVER_TIMEOUT and not _exists(current.pid):
                raise FlowhooksError(f"process {current.pid} has ended, and no other one has its ledger; see the log")
            continue
        owned_at = time.monotonic()
        if owner.refused_started > requested:
            raise FlowhooksError(f"the server was not replaced and continues: {owner.why_refused}")
        if owner.pid != before.pid and owner.admin and owner.started > requested:
            return Replaced(before.pid, owner.pid, owner.waited)
        if owner.pid != current.pid:  # the successor of an earlier request, which is replaced in turn
            current, seen_at = owner, time.monotonic()
    raise FlowhooksError("the new server does not serve yet, but may be starting: look for `server_started` in its log")


def _request(owner: LockOwner, lock_file: Path) -> bool:
    """Send the signal, but only to a process that has the lock file open: ids of another container mean nothing here.

    Returns:
        Whether there is such a process here, which belongs to this user.
    """
    try:
        if Path("/proc/self/fd").exists() and not _has_open(owner.pid, lock_file):
            return False
        os.kill(owner.pid, signal.SIGUSR2)
    except (ProcessLookupError, PermissionError, FileNotFoundError):
        return False
    return True


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _has_open(pid: int, file: Path) -> bool:
    target = file.stat()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found = descriptor.stat()
        except FileNotFoundError:  # closed meanwhile, or no file
            continue
        if (found.st_dev, found.st_ino) == (target.st_dev, target.st_ino):
            return True
    return False


def _owner(lock: Lock) -> LockOwner | None:
    try:
        return lock.owner()
    except LedgerUnusable:  # it has just changed
        return None
