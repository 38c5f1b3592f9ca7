"""Pin the threads of this process, which share one interpreter lock, to one CPU core.

Python runs one thread at a time. If its threads are spread over several cores, each switch moves the working data from
one core's cache to another's. Under the load of the first row of `make bench`, measured with `cpu_affinity` off and on
in turn, two cores stored two thirds of the callbacks that one core did.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

# Moving a fast handler's thread to another core costs more than it gains: a fifth of the deliveries per second in
# `make bench`.
FAST_THRESHOLD_SECONDS: Final = 0.005
"""A handler whose last attempt took less stays on the pinned core."""


def has_cpu_quota(membership: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> bool:
    """Tell whether a control group limits the processor time of this process, as for a container with `cpus`.

    Args:
        membership: file with the control groups of this process.
        root: folder where control groups are mounted. In a container it may be the group of the process itself.
    """
    with suppress(OSError, ValueError):
        for line in membership.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:  # version 2
                folder, limit_of = root, _quota
            elif "cpu" in controllers.split(","):
                folder, limit_of = root / controllers, _quota_v1
            else:
                continue
            group = folder / path.lstrip("/")
            if any(map(limit_of, (group, *(parent for parent in group.parents if parent.is_relative_to(folder))))):
                return True
    return False


def _quota(group: Path) -> bool:
    with suppress(OSError):
        return not (group / "cpu.max").read_text().startswith("max")
    return False


def _quota_v1(group: Path) -> bool:
    with suppress(OSError, ValueError):
        return int((group / "cpu.cfs_quota_us").read_text()) > 0
    return False


def pin(number: int = 0) -> frozenset[int]:
    """Pin the calling thread, and the threads that it starts later, to one core.

    Args:
        number: index of this process among several, from 0. Each process uses the next core; after the last core the
            first one is used again.

    Returns:
        The cores that the thread could use before, for `unpin`; empty if the system does not support pinning.

    Raises:
        OSError: the system does not allow pinning.
    """
    if not hasattr(os, "sched_setaffinity"):  # not on macOS
        return frozenset()
    before = frozenset(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {sorted(before, reverse=True)[number % len(before)]})
    return before


def unpin(cores: frozenset[int]) -> None:
    """Let the calling thread, and processes that it starts, use `cores` again; do nothing if `cores` is empty."""
    if cores:
        with suppress(OSError):  # an operator may have removed these cores; staying on one core is slower, not wrong
            os.sched_setaffinity(0, cores)


class HandlerAffinity:
    """Gives slow handlers all cores, and keeps fast handlers on the pinned core.

    A process or thread that a handler starts keeps the cores that the handler's thread had at that moment. So a handler
    without a measured attempt gets all cores.

    Args:
        cores: the cores that `pin` returned in the thread that creates this object; with fewer than two, no thread is
            ever moved.
    """

    def __init__(self, cores: frozenset[int] = frozenset()) -> None:
        self._all_cores = cores if len(cores) > 1 else frozenset()
        self._pinned_cores = frozenset(os.sched_getaffinity(0)) if self._all_cores else frozenset()
        self._fast_handlers: set[str] = set()

    def acquire(self, handler: str) -> bool:
        """Give the calling thread all cores unless `handler` was fast last time; return whether it did."""
        unpinned = bool(self._all_cores) and handler not in self._fast_handlers
        if unpinned:
            unpin(self._all_cores)
        return unpinned

    def release(self, handler: str, seconds: float, *, unpinned: bool) -> None:
        """Pin the calling thread again if `acquire` returned `unpinned`, and record how long the handler took."""
        if unpinned:
            unpin(self._pinned_cores)
        if not self._all_cores:
            return
        if seconds < FAST_THRESHOLD_SECONDS:
            self._fast_handlers.add(handler)
        else:
            self._fast_handlers.discard(handler)
