"""Processor time of everything that runs for a measured subject, by the system's own account.

The processes are those that the benchmark has started and watches, such as a server, its workers, Redis or PostgreSQL,
with all their descendants. Other load of the machine has little influence on the figures.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_TICK = os.sysconf("SC_CLK_TCK")
_PARENT, _OWN, _OF_CHILDREN, _END = 1, 11, 13, 15
"""Indexes of fields in `/proc/PID/stat` after the name: the parent, and the user and system time of the process itself
and of its ended children."""
_SCHEDULER = 2
"""The kind of clock that counts each nanosecond for which the scheduler ran a process (`CPUCLOCK_SCHED` of Linux)."""
_watched: list[int] = []
QUIET_SHARE = 0.1
"""The maximum share of a processor that quiet processes use together."""


@contextmanager
def watch(pid: int) -> Iterator[None]:
    """Count the processor time of a process, and of all its descendants, while the context lasts."""
    _watched.append(pid)
    try:
        yield
    finally:
        _watched.remove(pid)


def spent() -> float:
    """Seconds of processor time of all watched processes so far.

    The time of an ended process is counted with its parent, so the figure only grows while the processes are watched.
    """
    stats = _stats()
    children: dict[int, list[int]] = {}
    for pid, fields in stats.items():
        children.setdefault(int(fields[_PARENT]), []).append(pid)
    descendants: set[int] = set()
    pending = list(_watched)
    while pending:
        pid = pending.pop()
        if pid in stats and pid not in descendants:
            descendants.add(pid)
            pending += children.get(pid, ())
    return sum(_own_time(pid, stats[pid]) + _ticks(stats[pid][_OF_CHILDREN:_END]) for pid in descendants)


def until_quiet() -> None:
    """Wait until all watched processes are quiet for a second, because a server checks its database after its start."""
    before = spent()
    while True:
        time.sleep(1)
        now = spent()
        if now - before < QUIET_SHARE:
            return
        before = now


def _own_time(pid: int, fields: list[str]) -> float:
    """Seconds of processor time of a process without its children."""
    try:
        return time.clock_gettime(~pid << 3 | _SCHEDULER)  # a short request is less than a tick of `/proc/PID/stat`
    except OSError:  # the process has ended meanwhile, or this is not Linux
        return _ticks(fields[_OWN:_OF_CHILDREN])


def _ticks(fields: list[str]) -> float:
    return sum(map(int, fields)) / _TICK


def parent(pid: int) -> int:
    """Return the id of the parent of a process; 0 if the process does not exist."""
    fields = _stats().get(pid)
    return int(fields[_PARENT]) if fields else 0


def _stats() -> dict[int, list[str]]:
    """The fields of each process after its name."""
    stats = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stats[int(entry.name)] = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # the process has ended meanwhile
    return stats
