"""Memory, processor time and open files, by the names that every Prometheus client uses."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from flowhooks.observability.shared_counts import read_pids

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric

PID_LABEL: Final = "pid"
"""Label that distinguishes processes that are scraped together. Their sum would fall when one is replaced, which a
counter must not."""


class ResourceCollector(Collector):
    """A collector of the metrics `process_*`; it yields none where the system has no `/proc`.

    Args:
        shared_dir: the directory in which the processes of one supervisor count together. Each of them, and the
            supervisor, is then reported with its pid as a label, whichever process is scraped. None: this process
            alone, without a label.
        proc: the directory of the system's processes.
    """

    def __init__(self, shared_dir: Path | None, *, proc: Path = Path("/proc")) -> None:
        self._shared_dir = shared_dir
        self._proc = proc

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        if self._shared_dir is None:
            yield from self._read("self")
            return
        merged: dict[str, Metric] = {}
        for pid in sorted(self._pids(self._shared_dir)):
            for family in self._read(str(pid)):
                labelled = [sample._replace(labels={PID_LABEL: str(pid)}) for sample in family.samples]
                family.samples = []
                merged.setdefault(family.name, family).samples += labelled
        yield from merged.values()

    def _read(self, pid: str) -> Iterator[Metric]:
        yield from ProcessCollector(pid=lambda: pid, proc=str(self._proc), registry=None).collect()

    def _pids(self, shared_dir: Path) -> set[int]:
        """Return this process, its supervisor, and the other living children of the supervisor that count with it."""
        own, supervisor = os.getpid(), os.getppid()
        return {own, supervisor, *(pid for pid in read_pids(shared_dir) if self._parent(pid) == supervisor)}

    def _parent(self, pid: int) -> int | None:
        """Return the pid of a process's parent; None if there is no such process."""
        with suppress(OSError, ValueError, IndexError):
            return int((self._proc / str(pid) / "stat").read_text("ascii", "replace").rpartition(")")[2].split()[1])
        return None
