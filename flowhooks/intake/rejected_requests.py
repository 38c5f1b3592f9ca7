"""Stores rejected requests in the background, in batches."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Final

from flowhooks.errors import FlowhooksError
from flowhooks.ledger import rejected_requests
from flowhooks.ledger.rejected_requests import RejectedRequest
from flowhooks.text import escape_control

if TYPE_CHECKING:
    from flowhooks.clock import Clock
    from flowhooks.ledger.ledger import Ledger
    from flowhooks.ledger.transaction import WriteTransaction

MAX_PENDING: Final = 100
"""Rejected requests between two writes of which more than the last ones are not kept: whoever sends rubbish, however
fast, costs one small transaction a second."""
FLUSH_INTERVAL: Final = 1.0
"""Seconds from a rejected request until it is stored, with all that have come meanwhile."""
MAX_PATH_CHARS: Final = 500
MAX_REASON_CHARS: Final = 2_000
MAX_ADDRESS_CHARS: Final = 100


class RejectedRequestLog:
    """The requests that were rejected last.

    Args:
        ledger: where they are written down.
        clock: time and ids.
    """

    def __init__(self, *, ledger: Ledger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock
        self._pending: deque[RejectedRequest] = deque(maxlen=MAX_PENDING)
        self._has_pending = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="rejected-requests", daemon=True)

    def start(self) -> None:
        """Start writing down."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Write down what is pending, for `timeout` seconds at the most, and end it."""
        self._stopping.set()
        self._has_pending.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def record(self, *, path: str, address: str, status: int, english: str, chinese: str) -> None:
        """A request was rejected.

        Args:
            path: what was asked for.
            address: who asked.
            status: the HTTP status that it was answered.
            english: why.
            chinese: the same.
        """
        self._pending.append(
            RejectedRequest(
                id=self._clock.new_id(),
                rejected_at=self._clock.now(),
                path=escape_control(path, MAX_PATH_CHARS),
                address=escape_control(address, MAX_ADDRESS_CHARS),
                status=status,
                reason_en=escape_control(english, MAX_REASON_CHARS),
                reason_zh=escape_control(chinese, MAX_REASON_CHARS),
            )
        )
        self._has_pending.set()

    def flush(self) -> None:
        """Write down what is pending; what cannot be written just now stays pending."""
        rejected = [self._pending.popleft() for _ in range(len(self._pending))]
        if not rejected:
            return

        def write(transaction: WriteTransaction) -> None:
            rejected_requests.store(transaction, rejected)

        try:
            self._ledger.write(write, certain=True)
        except FlowhooksError:
            # The ledger's own trouble is logged by whoever writes to it; the newest ones are the ones to keep.
            free_places = MAX_PENDING - len(self._pending)
            self._pending.extendleft(reversed(rejected[max(0, len(rejected) - free_places) :]))
            self._has_pending.set()

    def _loop(self) -> None:
        while not self._stopping.is_set():
            self._has_pending.wait()
            self._stopping.wait(FLUSH_INTERVAL)
            self._has_pending.clear()
            self.flush()
        self.flush()
