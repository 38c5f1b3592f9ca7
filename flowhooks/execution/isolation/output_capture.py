"""What processes print, line by line into the log, however much it is."""

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

MAX_LINE_CHARS: Final = 2_000
"""Characters of one line that are logged."""
MAX_LINES_PER_SECOND: Final = 100
"""Lines of one process that are logged in one second; of further ones only their number."""
TAIL_LINES: Final = 60
"""Lines that are kept, for an attempt whose process ends with them."""
CHUNK_BYTES: Final = 65536
READ_PAUSE_SECONDS: Final = 0.05
"""Seconds for which a process that has just printed `CHUNK_BYTES` is not read: it waits, and the server works."""
MAX_FINAL_CHUNKS: Final = 16
"""Chunks that are read of what a process has left behind when it ended."""
_FRAMES: Final = (f'  File "{Path(flowhooks.__file__).parent}', '  File "<string>", line 1 in <module>')
"""Where a crash is only said to have come by way of flowhooks: the same lines each time, and not to the point."""

log = structlog.get_logger(__name__)


class Output:
    """The pipe into which a process prints, read by one thread.

    Args:
        file: the end that is read; closed by `close`.
        redact: masks secrets in a line, before it is cut.
        **log_context: what is logged with each line.

    Attributes:
        file: the end that is read; closed by `close`.
        log_context: what is logged with each line; changed when the process gets something else to do.
        read_again_at: before that it is not read, by `time.monotonic`.
    """

    def __init__(self, file: int, redact: Callable[[str], str] = str, **log_context: Any) -> None:
        os.set_blocking(file, False)
        self._redact = redact
        self.file = file
        self.log_context = log_context
        self.read_again_at = 0.0
        self.open = True
        self._part = b""
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._second = 0.0
        self._lines = 0
        self._left_out = 0

    def read_chunk(self) -> bool:
        """Read a chunk; returns whether there was one."""
        try:
            data = os.read(self.file, CHUNK_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._split_lines(b"\n" if self._part else b"")
            self.open = False
            return False
        if len(data) == CHUNK_BYTES:
            self.read_again_at = time.monotonic() + READ_PAUSE_SECONDS
        self._split_lines(data)
        return True

    def clear_tail(self) -> None:
        """What was printed up to now has nothing to do with what comes."""
        self._tail.clear()

    @property
    def tail(self) -> str:
        """What was printed last."""
        return "\n".join(list(self._tail))

    def close(self) -> None:
        """Read what was left behind, and close it."""
        for _ in range(MAX_FINAL_CHUNKS):
            if not self.read_chunk():
                break
        self._split_lines(b"\n" if self._part else b"")
        self._log_left_out()
        self.open = False
        os.close(self.file)

    def _split_lines(self, data: bytes) -> None:
        *lines, self._part = (self._part + data).split(b"\n")
        self._part = self._part[: 4 * MAX_LINE_CHARS]
        for line in lines:
            text = self._redact(line[: 4 * MAX_LINE_CHARS].decode(errors="replace").rstrip())[:MAX_LINE_CHARS]
            if text and not text.startswith(_FRAMES):
                self._tail.append(text)
                self._log(text)

    def _log(self, text: str) -> None:
        now = time.monotonic()
        if now - self._second > 1:
            self._log_left_out()
            self._second, self._lines = now, 0
        self._lines += 1
        if self._lines > MAX_LINES_PER_SECOND:
            self._left_out += 1
        else:
            log.info("handler_output", text=text, **self.log_context)

    def _log_left_out(self) -> None:
        if self._left_out:
            log.warning("handler_output_truncated", lines_left_out=self._left_out, **self.log_context)
            self._left_out = 0
