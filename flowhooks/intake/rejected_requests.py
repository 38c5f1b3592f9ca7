"""Store rejected requests in the background, in batches."""

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
"""Maximum rejected requests between two writes. Older ones are dropped, so that a client that sends invalid requests at
any rate costs at most one small transaction per second."""
FLUSH_INTERVAL: Final = 1.0
"""Seconds from a rejected request until it is stored, together with all others of that time."""
MAX_PATH_CHARS: Final = 500
MAX_REASON_CHARS: Final = 2_000
MAX_ADDRESS_CHARS: Final = 100


class RejectedRequestLog:
    """Stores the most recent rejected requests.

    Args:
        ledger: stores them.
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
        """Start the thread that stores rejected requests."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Store the pending requests, within `timeout` seconds, and stop."""
        self._stopping.set()
        self._has_pending.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def record(self, *, path: str, address: str, status: int, english: str, chinese: str) -> None:
        """Record a rejected request; it is stored later.

        Args:
            path: path of the request.
            address: address of the client.
            status: HTTP status of the response.
            english: the reason in English.
            chinese: the reason in Chinese.
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
        """Store the pending requests; if that fails, the newest ones stay pending."""
        rejected = [self._pending.popleft() for _ in range(len(self._pending))]
        if not rejected:
            return

        def write(transaction: WriteTransaction) -> None:
            rejected_requests.store(transaction, rejected)

        try:
            self._ledger.write(write, certain=True)
        except FlowhooksError:
            # The ledger logs its own write errors. If there is not enough space, keep the newest requests.
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
