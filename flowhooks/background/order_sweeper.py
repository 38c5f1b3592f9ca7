"""Promote deliveries whose promotion was missed: they are first of their order group, and still blocked.

`ledger.ordering` explains how a promotion is missed. The search reads page by page, with pauses, and writes only what
it finds. So it blocks neither the writer nor the start, however many order groups there are.
"""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Final

from flowhooks.errors import FlowhooksError
from flowhooks.ledger.ordering import read_order_groups
from flowhooks.ledger.transaction import OrderGroup
from flowhooks.logger import get_logger

if TYPE_CHECKING:
    from flowhooks.ledger.ledger import Ledger
    from flowhooks.ledger.transaction import WriteTransaction

MAX_DUTY_CYCLE: Final = 0.1
"""Maximum share of the time that the search takes."""
_START: Final = OrderGroup("", "")

log = get_logger(__name__)


class OrderSweeper:
    """Searches all order groups for missed promotions.

    Of the processes that share a ledger, the leader searches. It starts again `heartbeat_timeout` seconds after it has
    read the last group.

    Args:
        ledger: has the deliveries.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._after: OrderGroup | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="order-sweeper", daemon=True)

    def start(self) -> None:
        """Start, at once with the first search."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Stop; the page in progress gets `timeout` seconds."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def sweep(self) -> None:
        """Promote all deliveries whose promotion was missed; each page has transactions of its own.

        Raises:
            FlowhooksError: the database cannot be read or written. The next call continues after the last page that was
                read, so a page that fails does not keep the following ones from being read.
        """
        while not self._stopping.is_set():
            began = time.monotonic()
            with self._ledger.connection() as connection:
                missed, self._after = read_order_groups(connection, self._after or _START)
            if missed:
                # As if a delivery left these groups in this transaction.
                self._ledger.write(partial(_free, groups=missed))
            if self._after is None:
                return
            self._stopping.wait((time.monotonic() - began) * (1 / MAX_DUTY_CYCLE - 1))

    def _loop(self) -> None:
        last_error = ""
        while True:
            try:
                if self._ledger.is_leader():
                    self.sweep()
                last_error = ""
            except FlowhooksError as error:
                if str(error) != last_error and not self._stopping.is_set():
                    log.warning("order_sweep_failed", reason="database", why=str(error))
                last_error = str(error)
            except Exception:
                # A defect in flowhooks must not end the thread: blocked deliveries would stay blocked.
                log.exception("order_sweep_failed", reason="fault")
            if self._stopping.wait(self._ledger.heartbeat_timeout):
                return


def _free(transaction: WriteTransaction, groups: list[OrderGroup]) -> None:
    transaction.freed_groups.update(groups)
