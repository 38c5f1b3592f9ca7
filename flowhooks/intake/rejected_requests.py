"""Writes down which call-backs were refused, a moment later and many at once; it must not know HTTP, or refuse any."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Final

from flowhooks.errors import FlowhooksError
from flowhooks.ledger import rejected_requests
from flowhooks.ledger.rejected_requests import RejectedRequest
from flowhooks.messages import shown

if TYPE_CHECKING:
    from flowhooks.clock import Clock
    from flowhooks.ledger.group_commit import WriteTransaction
    from flowhooks.ledger.ledger import Ledger

MOST_PENDING: Final = 100
"""Refusals between two writes of which more than the last ones are not kept: whoever sends rubbish, however fast, costs
one small transaction a second."""
REST: Final = 1.0
"""Seconds from a refusal until it is written down, with all that have come meanwhile."""
LONGEST_PATH: Final = 500
LONGEST_REASON: Final = 2_000
LONGEST_ADDRESS: Final = 100


class Refusals:
    """The call-backs that were refused last.

    Args:
        ledger: where they are written down.
        clock: time and ids.
    """

    def __init__(self, *, ledger: Ledger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock
        self._pending: deque[RejectedRequest] = deque(maxlen=MOST_PENDING)
        self._some = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="refusals", daemon=True)

    def start(self) -> None:
        """Start writing down."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Write down what is pending, for `timeout` seconds at the most, and end it."""
        self._over.set()
        self._some.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def note(self, *, path: str, address: str, status: int, english: str, chinese: str) -> None:
        """A call-back was refused.

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
                refused_at=self._clock.now(),
                path=shown(path, LONGEST_PATH),
                address=shown(address, LONGEST_ADDRESS),
                status=status,
                reason_en=shown(english, LONGEST_REASON),
                reason_zh=shown(chinese, LONGEST_REASON),
            )
        )
        self._some.set()

    def flush(self) -> None:
        """Write down what is pending; what cannot be written just now stays pending."""
        several = [self._pending.popleft() for _ in range(len(self._pending))]
        if not several:
            return

        def write(transaction: WriteTransaction) -> None:
            rejected_requests.store(transaction, several)

        try:
            self._ledger.write(write, certain=True)
        except FlowhooksError:
            # The ledger's own trouble is logged by whoever writes to it; the newest ones are the ones to keep.
            room = MOST_PENDING - len(self._pending)
            self._pending.extendleft(reversed(several[max(0, len(several) - room) :]))
            self._some.set()

    def _loop(self) -> None:
        while not self._over.is_set():
            self._some.wait()
            self._over.wait(REST)
            self._some.clear()
            self.flush()
        self.flush()
