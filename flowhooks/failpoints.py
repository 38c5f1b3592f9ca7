"""Failpoints: named points at which a test kills its own process.

`FLOWHOOKS_FAILPOINT=accept.written:3` kills the process by SIGKILL when it reaches that point for the third time.
Nothing is flushed, closed, rolled back or sent, so the next process finds only durable data. Without the variable a
point costs one call of an empty function.
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
    "accept.begun": "a transaction that takes call-backs in has begun, and has written nothing of them",
    "accept.inserted": "its events are inserted, their deliveries are not",
    "accept.written": "all of it is written, and not yet durable",
    "accept.committed": "it is durable, and nobody has been told",
    "answer.made": "the answer to a call-back is made, and not sent",
    "claim.written": "attempts are marked as running, and that is not yet durable",
    "attempt.marked": "an attempt is durably marked as running, and its function has not been entered",
    "attempt.ended": "its function has ended, and nothing is written of that",
    "settle.written": "how attempts ended is written, and not yet durable",
    "settle.committed": "it is durable, and nobody has been told",
    "recover.written": "what dead processes left running is settled as lost, and that is not yet durable",
    "recover.committed": "it is durable, and nobody has been told",
    "reroute_parked.written": "parked events are given their deliveries, and that is not yet durable",
    "reroute_parked.committed": "it is durable, and nobody has been told",
    "reroute.written": "events are given the deliveries that they lack, and that is not yet durable",
    "reroute.committed": "it is durable, and nobody has been told",
    "dismiss.written": "parked events are dismissed, and that is not yet durable",
    "dismiss.committed": "it is durable, and nobody has been told",
    "replay.written": "deliveries are sent back to wait, and that is not yet durable",
    "replay.committed": "it is durable, and nobody has been told",
    "resolve.written": "what an operator says of a delivery is written, and not yet durable",
    "resolve.committed": "it is durable, and nobody has been told",
    "purge.written": "events are deleted with all that is theirs, and that is not yet durable",
    "purge.committed": "it is durable, and nobody has been told",
    "job.taken": "the runner procrastinate has taken a job, and not yet looked at its delivery",
    "job.done": "what a job is for has been done, and the job is still there",
    "sweep.written": "jobs that were missing are made, and not yet durable",
    "sweep.committed": "they are durable, and nobody has been told",
    "migrate.applied": "one migration of the tables is applied, and not yet durable",
    "migrate.committed": "all migrations are durable, and nothing else has been done",
    "migrate.jobs": "the tables of jobs are brought up to date, and that is not yet durable",
    "copy.written": "a batch of a copied ledger is written, and not yet durable",
    "copy.committed": "the batch is durable, and the next one has not begun",
}
"""The failpoints, with the state at each of them."""


def parse_env(text: str) -> tuple[str, int]:
    """Parse the variable's value, such as `accept.written:3`: a failpoint, and at which hit, from 1, to kill.

    Raises:
        SettingsError: the failpoint does not exist, or the number is missing or invalid.
    """
    name, _, times = text.partition(":")
    if name not in FAILPOINTS:
        raise SettingsError(f"{ENV_VARIABLE} names no point of flowhooks; there are: {', '.join(FAILPOINTS)}")
    if not re.fullmatch("[1-9][0-9]{0,8}", times):
        raise SettingsError(f"{ENV_VARIABLE} says no number of times from 1 on: write {ENV_VARIABLE}={name}:1")
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
            raise LookupError(f"no point of flowhooks is called {name}")
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
