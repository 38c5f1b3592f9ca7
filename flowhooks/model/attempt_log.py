"""The last log records of one attempt, which are stored with its result."""

from __future__ import annotations

from collections import deque
from threading import RLock
from typing import Final

from flowhooks.text import escape_control

MAX_RECORDS: Final = 50
"""Maximum number of records that are stored of an attempt."""
MAX_BYTES: Final = 16_384
"""Maximum size of their text in UTF-8."""
MAX_LINE_CHARS: Final = 2_000
"""Maximum characters of one record, so that a long one does not displace all others."""
_NOTE_BYTES: Final = 64
"""Space for the line that counts the records that are left out."""


class AttemptLog:
    """The last log records of one attempt, each as one line of printable text. Several threads may add records."""

    __slots__ = ("_lines", "_lock", "_total")

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=MAX_RECORDS)
        self._total = 0
        # Reentrant: the garbage collector may run a destructor that logs while the lock is taken.
        self._lock = RLock()

    def add(self, line: str) -> None:
        """Add a record. Its control characters are escaped, and a long one is cut."""
        line = escape_control(line, MAX_LINE_CHARS)
        with self._lock:
            self._lines.append(line)
            self._total += 1

    def text(self) -> str | None:
        """Return the stored text: the last records that fit, the oldest first; None if there are none.

        If earlier ones are left out, the first line says how many.
        """
        with self._lock:
            lines, total = list(self._lines), self._total
        if not lines:
            return None
        kept: list[str] = []
        left = MAX_BYTES - _NOTE_BYTES
        for line in reversed(lines):
            left -= len(line.encode()) + 1
            if left < 0:
                break
            kept.append(line)
        if total > len(kept):
            kept.append(f"({total - len(kept):,} earlier records left out)")
        return "\n".join(reversed(kept))
