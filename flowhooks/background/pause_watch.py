"""Tell the runner and the waiting callbacks that handlers were paused or resumed."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from flowhooks.errors import LedgerUnusable
from flowhooks.logger import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowhooks.ledger.ledger import Ledger
    from flowhooks.ledger.waiters import WaiterRegistry

log = get_logger(__name__)


class PauseWatch:
    """Acts on each change of the paused handlers, and logs the ones that are paused at the start.

    Args:
        ledger: has the pauses, and the statuses of deliveries.
        waiters: stop waiting for deliveries of paused handlers.
        wake: makes the runner look for deliveries at once.
    """

    def __init__(self, ledger: Ledger, waiters: WaiterRegistry, wake: Callable[[], None]) -> None:
        self._ledger = ledger
        self._waiters = waiters
        self._wake = wake
        ledger.pauses.subscribe(self._on_changed)
        if ledger.pauses.handlers:
            self._log()

    def _on_changed(self) -> None:
        self._log()
        self._wake()
        # In a thread of its own, because this runs in the ledger's writer thread, which must not read statuses.
        threading.Thread(target=self._refresh_waiters, name="pauses", daemon=True).start()

    def _log(self) -> None:
        count = len(self._ledger.pauses.handlers)
        log.info("pauses_changed", paused=count, next="`flowhooks handlers list` shows the paused handlers")

    def _refresh_waiters(self) -> None:
        with suppress(LedgerUnusable):  # the waiters then wait until their own timeout
            for event_id in self._waiters.pending_event_ids():
                self._waiters.notify_snapshot(event_id, self._ledger.delivery_statuses(event_id))
