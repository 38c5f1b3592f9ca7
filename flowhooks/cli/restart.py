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
from flowhooks.ledger.lock import Lock
from flowhooks.operations.record_change import ChangeKind
from flowhooks.settings import database_url

if TYPE_CHECKING:
    from flowhooks.ledger.lock import LockOwner
    from flowhooks.settings import Settings

POLL_INTERVAL: Final = 0.1
"""Seconds between two looks at the lock file."""
MARGIN: Final = 60.0
"""Seconds that a replacement may take beyond the start of the new process and the end of running handlers."""

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
    before = lock.owner()
    if before is None or not before.admin:
        raise FlowhooksError(f"no server is running on the ledger {file}")
    record_change(settings, ChangeKind.RESTART)
    _request(before, lock.path)
    deadline = time.monotonic() + START_TIMEOUT + settings.shutdown.timeout + settings.http.read_timeout + MARGIN
    while time.monotonic() < deadline:
        time.sleep(POLL_INTERVAL)
        owner = _owner(lock)
        if owner is None:
            continue
        if owner.pid != before.pid and owner.admin:
            return Replaced(before.pid, owner.pid, owner.waited)
        if owner.pid == before.pid and owner.refused_restarts != before.refused_restarts:
            raise FlowhooksError(f"the server was not replaced and continues: {owner.why_refused}")
    raise FlowhooksError("the new server does not serve yet; its log has the reason")


def _request(owner: LockOwner, lock_file: Path) -> None:
    """Send the signal, but only to a process that has the lock file open: ids of another container mean nothing here.

    Raises:
        FlowhooksError: there is no such process here, or it belongs to another user.
    """
    elsewhere = (
        f"process {owner.pid}, which has the ledger, is not visible here: run the command on the machine, in the "
        "container and as the user of the server"
    )
    try:
        if Path("/proc/self/fd").exists() and not _has_open(owner.pid, lock_file):
            raise FlowhooksError(elsewhere)
        os.kill(owner.pid, signal.SIGUSR2)
    except (ProcessLookupError, PermissionError, FileNotFoundError):
        raise FlowhooksError(elsewhere) from None


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
