"""Check the files of a SQLite ledger, also while no callbacks arrive."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

import structlog

from flowhooks.errors import FlowhooksError

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowhooks.ledger.ledger import Ledger
    from flowhooks.ledger.lock import Lock

POLL_INTERVAL: Final = 1.0
"""Seconds between two checks of the database file and the lock file."""

log = structlog.get_logger(__name__)


class FileWatch:
    """Checks every second that the database file and the lock file are in their places.

    Args:
        ledger: the open ledger.
        lock: the ledger's lock.
        unpin: called in the thread that checks a large file: lets it use all CPU cores of the process.
    """

    def __init__(self, ledger: Ledger, lock: Lock, *, unpin: Callable[[], None]) -> None:
        self._ledger = ledger
        self._lock = lock
        self._unpin = unpin
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="file-watch", daemon=True)
        self._checker: threading.Thread | None = None

    def start(self) -> None:
        """Start. A large database file is checked for damage in a separate thread, which `stop` does not wait for."""
        self._start_check()
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Stop; a check in progress gets `timeout` seconds."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _loop(self) -> None:
        last_error = ""
        while not self._stopping.wait(POLL_INTERVAL):
            try:
                self._start_check()
                self._lock.restore()
                self._check_files()
                last_error = ""
            except FlowhooksError as error:
                if str(error) != last_error:
                    log.error("file_watch_failed", why=str(error), next="the next try is in a second")  # noqa: TRY400 (one line until it changes)
                last_error = str(error)
            except Exception:
                # A defect in flowhooks must not end the watch: a missing file would not be reported.
                log.exception("file_watch_fault")

    def _check_files(self) -> None:
        """Once the file is back, recover attempts of transactions that were never confirmed."""
        guard = self._ledger.guard
        if guard is None or guard.find_problem() or not guard.unconfirmed:
            return
        guard.unconfirmed = False
        try:
            self._ledger.write(self._ledger.recover_unstarted)
        except FlowhooksError:
            guard.unconfirmed = True
            raise

    def _start_check(self) -> None:
        """Check a large file at the start, and after another program has written to it."""
        guard = self._ledger.guard
        if guard is not None and guard.unchecked and (self._checker is None or not self._checker.is_alive()):
            self._checker = threading.Thread(target=self._check_damage, name="file-check", daemon=True)
            self._checker.start()

    def _check_damage(self) -> None:
        guard = self._ledger.guard
        if guard is not None:
            # The check needs no interpreter lock. On the core of the server's own threads it would slow callbacks down.
            self._unpin()
            began = time.monotonic()
            guard.check()
            log.info("database_checked", seconds=round(time.monotonic() - began, 1), problem=guard.find_problem())
