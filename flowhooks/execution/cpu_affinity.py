"""Keeping threads that pass the interpreter to one another on one processor core.

Python runs one thread at a time. Where its threads are spread over cores, each hand-over moves what the last one
worked on from one core's cache to the other's. Under the load of `make bench`'s first row, with `cpu_affinity` off and
on in turn, two cores stored two thirds of the call-backs that one did.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final

FAST_THRESHOLD_SECONDS: Final = 0.005
"""A handler that took less the last time gains nothing from a core of its own: moving its thread there and handing it
the interpreter across would cost more (a fifth of the deliveries that `make bench` runs in a second)."""


def pin(number: int = 0) -> frozenset[int]:
    """Keep the calling thread, and those that it starts from now on, on one core.

    Args:
        number: which of several processes this is, from 0: each takes the next core, and when all are taken the
            first again.

    Returns:
        The cores that it could use before, for `unpin`; empty where the system does not offer this.

    Raises:
        OSError: the system does not allow it.
    """
    if not hasattr(os, "sched_setaffinity"):  # not on macOS
        return frozenset()
    before = frozenset(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {sorted(before, reverse=True)[number % len(before)]})
    return before


def unpin(cores: frozenset[int]) -> None:
    """Let the calling thread, and processes that it starts, use `cores` again; nothing if they are empty."""
    if cores:
        with suppress(OSError):  # an operator has taken them away meanwhile: on one core it is slower, not wrong
            os.sched_setaffinity(0, cores)


class HandlerAffinity:
    """All cores for handlers that may need them, and the one core for those that were done in no time.

    What a handler starts, a process or a thread, keeps the cores that its thread had then. So a handler that is
    not known yet is given all of them.

    Args:
        cores: what `pin` returned in the thread that makes this; with fewer than two there is nothing to choose,
            and nothing is ever moved.
    """

    def __init__(self, cores: frozenset[int] = frozenset()) -> None:
        self._all_cores = cores if len(cores) > 1 else frozenset()
        self._pinned_cores = frozenset(os.sched_getaffinity(0)) if self._all_cores else frozenset()
        self._fast_handlers: set[str] = set()

    def acquire(self, handler: str) -> bool:
        """Give the calling thread all cores unless `handler` was quick the last time; whether it has them now."""
        unpinned = bool(self._all_cores) and handler not in self._fast_handlers
        if unpinned:
            unpin(self._all_cores)
        return unpinned

    def release(self, handler: str, seconds: float, *, unpinned: bool) -> None:
        """Take back what `acquire` gave (it answered `unpinned`), and note how long the handler took."""
        if unpinned:
            unpin(self._pinned_cores)
        if not self._all_cores:
            return
        if seconds < FAST_THRESHOLD_SECONDS:
            self._fast_handlers.add(handler)
        else:
            self._fast_handlers.discard(handler)
