"""Detect jumps of the clock, and correct due times that are too far in the future."""

from __future__ import annotations

import socket
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from flowhooks.clock import SECOND
from flowhooks.errors import FlowhooksError
from flowhooks.ledger import maintenance

if TYPE_CHECKING:
    from flowhooks.background.clock_trust import ClockTrust
    from flowhooks.clock import Clock
    from flowhooks.ledger.ledger import Ledger
    from flowhooks.ledger.transaction import WriteTransaction

POLL_INTERVAL: Final = 10.0
"""Seconds between two checks of the clock."""
SWEEP_INTERVAL: Final = 3600.0
"""Seconds between two searches for due times later than any schedule allows, if the clock has not jumped."""

log = structlog.get_logger(__name__)


class ClockWatch:
    """Detects jumps of the clock and corrects due times.

    Args:
        ledger: stores the due times.
        trust: compares the clock with the monotonic clock.
        clock: the clock.
    """

    def __init__(self, ledger: Ledger, trust: ClockTrust, clock: Clock) -> None:
        self._ledger = ledger
        self._trust = trust
        self._clock = clock
        self._unrecorded: list[tuple[int, int]] = []  # the time and the microseconds of each jump
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="clock-watch", daemon=True)

    def start(self) -> None:
        """Start. Due times are corrected at once, then every hour and after each jump of the clock."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Stop; a correction in progress gets `timeout` seconds."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _loop(self) -> None:
        corrected_at, last_error = float("-inf"), ""
        while True:
            try:
                jumped = self._check_clock()
                if jumped or time.monotonic() - corrected_at >= SWEEP_INTERVAL:
                    self._correct_due_times()
                    corrected_at = time.monotonic()
                last_error = ""
            except FlowhooksError as error:
                if str(error) != last_error:
                    log.error("due_times_correction_failed", why=str(error), next="the next try is in ten seconds")  # noqa: TRY400 (one line until it changes)
                last_error, corrected_at = str(error), float("-inf")
            except Exception:
                # A defect in flowhooks must not end the watch.
                log.exception("clock_watch_fault")
            if self._stopping.wait(POLL_INTERVAL):
                return

    def _check_clock(self) -> bool:
        jump = self._trust.check_jump()
        if jump:
            log.warning(
                "clock_jumped",
                seconds=round(jump / SECOND),
                next="find out why this machine's clock was set; after a jump of more than a day, nothing is purged "
                "for an hour",
            )
            self._unrecorded.append((self._clock.now(), jump))
        is_to_correct = bool(self._unrecorded)
        while self._unrecorded:  # after an error, such as one of a machine that resumes, they are written later
            self._ledger.write(partial(_record_jump, *self._unrecorded[0]))
            del self._unrecorded[0]
        return is_to_correct

    def _correct_due_times(self) -> None:
        # The leader corrects them for all processes that share the ledger.
        corrected = 0
        while self._ledger.is_leader() and not self._stopping.is_set():
            done = self._ledger.write(self._ledger.correct_due_times)
            corrected += done
            if not done:
                break
        if corrected:
            log.warning(
                "due_times_corrected",
                deliveries=corrected,
                why="their due times were later than any schedule allows, as after a clock was ahead; they are due now",
            )


def _record_jump(at: int, jump: int, transaction: WriteTransaction) -> None:
    maintenance.record(transaction, "clock_jump", at, jump, socket.gethostname())
