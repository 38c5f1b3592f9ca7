"""What processes print, line by line into the log, however much it is; it must not know what they do."""

from __future__ import annotations

import os
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog

import flowhooks

if TYPE_CHECKING:
    from collections.abc import Callable

LONGEST: Final = 2_000
"""Characters of one line that are logged."""
MOST_LINES: Final = 100
"""Lines of one process that are logged in one second; of further ones only their number."""
TAIL: Final = 60
"""Lines that are kept, for an attempt whose process ends with them."""
CHUNK: Final = 65536
REST: Final = 0.05
"""Seconds for which nobody listens to a process that has just printed `CHUNK` bytes: it waits, and the server works."""
MOST_AT_END: Final = 16
"""Chunks that are read of what a process has left behind when it ended."""
_FRAMES: Final = (f'  File "{Path(flowhooks.__file__).parent}', '  File "<string>", line 1 in <module>')
"""Where a crash is only said to have come by way of flowhooks: the same lines each time, and not to the point."""

log = structlog.get_logger(__name__)


class Output:
    """The pipe into which a process prints, read by one thread.

    Args:
        file: the end that is read; closed by `close`.
        conceal: masks secrets in a line, before it is cut.
        **about: what is logged with each line.

    Attributes:
        file: the end that is read; closed by `close`.
        about: what is logged with each line; changed when the process gets something else to do.
        again_at: before that it is not read, by `time.monotonic`.
    """

    def __init__(self, file: int, conceal: Callable[[str], str] = str, **about: Any) -> None:
        os.set_blocking(file, False)
        self._conceal = conceal
        self.file = file
        self.about = about
        self.again_at = 0.0
        self.open = True
        self._part = b""
        self._tail: deque[str] = deque(maxlen=TAIL)
        self._second = 0.0
        self._lines = 0
        self._left_out = 0

    def take(self) -> bool:
        """Read a chunk; returns whether there was one."""
        try:
            found = os.read(self.file, CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            found = b""
        if not found:
            self._lines_of(b"\n" if self._part else b"")
            self.open = False
            return False
        if len(found) == CHUNK:
            self.again_at = time.monotonic() + REST
        self._lines_of(found)
        return True

    def forget(self) -> None:
        """What was printed up to now has nothing to do with what comes."""
        self._tail.clear()

    @property
    def tail(self) -> str:
        """What was printed last."""
        return "\n".join(list(self._tail))

    def close(self) -> None:
        """Read what was left behind, and close it."""
        for _ in range(MOST_AT_END):
            if not self.take():
                break
        self._lines_of(b"\n" if self._part else b"")
        self._say_left_out()
        self.open = False
        os.close(self.file)

    def _lines_of(self, found: bytes) -> None:
        *lines, self._part = (self._part + found).split(b"\n")
        self._part = self._part[: 4 * LONGEST]
        for line in lines:
            text = self._conceal(line[: 4 * LONGEST].decode(errors="replace").rstrip())[:LONGEST]
            if text and not text.startswith(_FRAMES):
                self._tail.append(text)
                self._log(text)

    def _log(self, text: str) -> None:
        now = time.monotonic()
        if now - self._second > 1:
            self._say_left_out()
            self._second, self._lines = now, 0
        self._lines += 1
        if self._lines > MOST_LINES:
            self._left_out += 1
        else:
            log.info("printed", text=text, **self.about)

    def _say_left_out(self) -> None:
        if self._left_out:
            log.warning("printed_too_much", lines_left_out=self._left_out, **self.about)
            self._left_out = 0
