"""Failpoints: named points at which a test kills its own process.

`FLOWHOOKS_FAILPOINT=accept.written:3` kills the process by SIGKILL when it reaches that point for the third time.
Nothing is flushed, closed, rolled back or sent, so the next process finds only durable data. Without the variable a
failpoint costs one call of an empty function.
"""

from __future__ import annotations

import os
import re
import signal
import threading
from typing import TYPE_CHECKING, Final

from flowhooks.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ENV_VARIABLE: Final = "FLOWHOOKS_FAILPOINT"

FAILPOINTS: Final[Mapping[str, str]] = {
    "accept.begun": "a transaction that stores callbacks has started and has written nothing",
    "accept.locked": "the process instances of callbacks are locked, and nothing is written",
    "accept.inserted": "its events are inserted, their deliveries are not",
    "accept.written": "everything is written and not yet durable",
    "accept.committed": "the callbacks are durable, and no thread is notified",
    "late_callback.body_replaced": "an event has the body of its late callback and not yet the deliveries",
    "late_callback.written": "a late callback is stored with its event, and that is not yet durable",
    "take_in.written": "finished instances are stored as events, and that is not yet durable",
    "take_in.committed": "the event of a finished instance is durable, and the reconciliation does not know it",
    "answer.made": "the response to a callback is made and not sent",
    "claim.written": "attempts are marked as running, and that is not yet durable",
    "attempt.marked": "an attempt is durably marked as running, and its function has not been entered",
    "attempt.ended": "its function has ended, and no result is written",
    "settle.written": "outcomes of attempts are written and not yet durable",
    "settle.committed": "the outcomes are durable, and no thread is notified",
    "recover.written": "attempts of ended processes are recorded as lost, and that is not yet durable",
    "recover.committed": "the lost attempts are durable, and no thread is notified",
    "reroute_parked.written": "parked events have their deliveries, and that is not yet durable",
    "reroute_parked.committed": "the deliveries are durable, and no thread is notified",
    "reroute.written": "events have their missing deliveries, and that is not yet durable",
    "reroute.committed": "the deliveries are durable, and no thread is notified",
    "dismiss.written": "parked events are dismissed, and that is not yet durable",
    "dismiss.committed": "the dismissal is durable, and no thread is notified",
    "correction.written": "a correction is stored with its deliveries, and that is not yet durable",
    "correction.committed": "the correction is durable, and no thread is notified",
    "resolve.written": "an operator's verdict on a delivery is written and not yet durable",
    "resolve.committed": "the verdict is durable, and no thread is notified",
    "operation.plan_written": "a page of a bulk operation's plan is written and not yet durable",
    "operation.plan_committed": "the page is durable, and the next one is not planned",
    "operation.release_written": "deliveries of a bulk operation are released, and that is not yet durable",
    "operation.release_committed": "the deliveries are durably released, and no thread is notified",
    "operation.finish_written": "the results of a bulk operation are written and not yet durable",
    "operation.finish_committed": "the results are durable, and nothing is logged",
    "purge.written": "events are deleted with all their data, and that is not yet durable",
    "purge.committed": "the deletion is durable, and no thread is notified",
    "job.taken": "the runner procrastinate has taken a job and has marked no delivery",
    "job.done": "deliveries are marked and their job is deleted, and that is not yet durable",
    "sweep.written": "missing jobs are created and not yet durable",
    "sweep.committed": "the jobs are durable, and no thread is notified",
    "migrate.applied": "one migration of the tables is applied and not yet durable",
    "migrate.committed": "all migrations are durable, and nothing else is done",
    "migrate.jobs": "the tables of jobs are upgraded, and that is not yet durable",
    "reconcile.leased": "a process has the lease of a source, and its round has read nothing",
    "reconcile.page_written": "a page of an engine's history is written into the book and not yet durable",
    "reconcile.page_committed": "the page is durable, and the next one is not read",
    "reconcile.read": "the history is read to its end, and no instance is taken in",
    "reconcile.taken_in": "one instance has its event, durably, and the next one has none",
    "reconcile.declining": "an operator's decline is durable, and no instance is declined",
    "reconcile.declined": "a page of instances is declined, durably, and the next one is not",
    "reconcile.finished": "the position of a round is durable, and its lease is not released",
    "restart.loaded": "a successor has loaded everything, and its predecessor does not know it",
    "restart.draining": "a predecessor starts no more attempts, and still accepts callbacks",
    "restart.stopped": "a predecessor accepts no connections, and has not answered the last requests",
    "restart.released": "a predecessor has released the ledger, and its successor does not know it",
    "restart.locked": "a successor has the lock of the ledger and has not opened the ledger",
    "restart.recovered": "a successor has recovered lost attempts, and accepts no connections yet",
    "copy.written": "a batch of a copied ledger is written and not yet durable",
    "copy.committed": "the batch is durable, and the next one has not started",
}
"""The failpoints, with the state at each of them."""


def parse_env(text: str) -> tuple[str, int]:
    """Parse the variable's value, such as `accept.written:3`: a failpoint, and at which hit, from 1, to kill.

    Raises:
        SettingsError: the failpoint does not exist, or the number is missing or invalid.
    """
    name, _, times = text.partition(":")
    if name not in FAILPOINTS:
        raise SettingsError(f"{ENV_VARIABLE} names no failpoint; the failpoints are: {', '.join(FAILPOINTS)}")
    if not re.fullmatch("[1-9][0-9]{0,8}", times):
        raise SettingsError(f"{ENV_VARIABLE} has no number from 1 on: write {ENV_VARIABLE}={name}:1")
    return name, int(times)


def bind(environ: Mapping[str, str]) -> Callable[[str], None]:
    """Return the function that is called at every failpoint.

    Raises:
        SettingsError: the variable is set, but `parse_env` cannot parse it.
    """
    text = environ.get(ENV_VARIABLE)
    return _do_nothing if text is None else _Killer(*parse_env(text)).hit


def _do_nothing(_name: str, /) -> None:
    pass


class _Killer:
    def __init__(self, name: str, times: int) -> None:
        self._name = name
        self._times = times
        self._remaining = times
        self._lock = threading.Lock()

    def hit(self, name: str, /) -> None:
        """Kill this process if the configured hit is reached."""
        if name not in FAILPOINTS:
            raise LookupError(f"there is no failpoint {name}")
        if name != self._name:
            return
        with self._lock:
            self._remaining -= 1
            if self._remaining == 0:
                # Do not use the log: the calling thread may hold its lock.
                os.write(2, f"\nkilled at {name}:{self._times}, as {ENV_VARIABLE} says\n".encode())
                os.kill(os.getpid(), signal.SIGKILL)


hit: Final = bind(os.environ)
"""Call it with a failpoint's name where a test may kill the process."""
