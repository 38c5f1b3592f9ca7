"""Log rejected requests without letting a flood of them fill the log.

The first rejection with a status and source is logged at once. Further ones are counted, and one record a minute has
their number and describes the newest one.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LOG_INTERVAL: Final = 60.0
"""Minimum number of seconds between two records of the same status and source."""

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Group:
    logged_at: float
    count: int = 0
    newest: Mapping[str, Any] = field(default_factory=dict)


class RejectionSummary:
    """Counts rejected requests by status and source, and logs them. May be used from any thread.

    Args:
        monotonic: returns the time in seconds.
    """

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._groups: dict[tuple[int, str], _Group] = {}

    def add(self, status: int, source: str, details: Mapping[str, Any]) -> bool:
        """Log a rejected request, or count it for the next record.

        Args:
            status: the HTTP status.
            source: the source that sent it; `""` if not known.
            details: the other fields of the record.

        Returns:
            Whether it was counted, so that `log_due` must be called later.
        """
        with self._lock:
            now, group = self._monotonic(), self._groups.get((status, source))
            is_first = group is None or (not group.count and now - group.logged_at >= LOG_INTERVAL)
            if group is None or is_first:
                self._groups[status, source] = _Group(now)
            else:
                group.count += 1
                group.newest = details
        if is_first:
            _write(status, source, 1, details)
        return not is_first

    def seconds_until_due(self) -> float | None:
        """Return the number of seconds until `log_due` has something to log; None if nothing was counted."""
        with self._lock:
            times = [group.logged_at for group in self._groups.values() if group.count]
            return max(0.0, min(times) + LOG_INTERVAL - self._monotonic()) if times else None

    def log_due(self, *, everything: bool = False) -> None:
        """Log what was counted at least a minute after its last record; or everything, before the process ends."""
        due: list[tuple[int, str, _Group]] = []
        with self._lock:
            now = self._monotonic()
            for (status, source), group in list(self._groups.items()):
                if not everything and now - group.logged_at < LOG_INTERVAL:
                    continue
                del self._groups[status, source]
                if group.count:
                    due.append((status, source, group))
                    self._groups[status, source] = _Group(now)
        for status, source, group in due:
            _write(status, source, group.count, group.newest)


def _write(status: int, source: str, count: int, details: Mapping[str, Any]) -> None:
    _log.warning("requests_rejected", status=status, source=source, count=count, **details)
