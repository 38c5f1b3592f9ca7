"""Log the output of handler processes line by line, within limits."""

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
"""Maximum characters of one logged line."""
MAX_LINES_PER_SECOND: Final = 100
"""Maximum lines of one process that are logged per second; further lines are only counted."""
TAIL_LINES: Final = 60
"""Last lines that are kept, for the error of an attempt whose process crashes."""
CHUNK_BYTES: Final = 65536
# The process blocks on its full pipe meanwhile, and the server is not kept busy by its output.
READ_PAUSE_SECONDS: Final = 0.05
"""Seconds for which a process that has just printed `CHUNK_BYTES` is not read."""
MAX_FINAL_CHUNKS: Final = 16
"""Maximum chunks of remaining output that are read after a process has exited."""
_FRAMES: Final = (f'  File "{Path(flowhooks.__file__).parent}', '  File "<string>", line 1 in <module>')
"""Traceback lines of flowhooks' own frames, which are not logged: they are the same in every crash."""

log = structlog.get_logger(__name__)


class Output:
    """The output pipe of a process, read by one thread.

    Args:
        file: file descriptor of the read end; closed by `close`.
        redact: masks secrets in a line before it is truncated.
        **log_context: fields that are logged with each line.

    Attributes:
        file: file descriptor of the read end; closed by `close`.
        log_context: fields that are logged with each line; changed for each delivery.
        read_again_at: the pipe is not read before this time, in `time.monotonic`.
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
        """Read up to `CHUNK_BYTES`; return whether anything was read."""
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
        """Discard the kept lines before a new attempt."""
        self._tail.clear()

    @property
    def tail(self) -> str:
        """The last `TAIL_LINES` lines."""
        return "\n".join(list(self._tail))

    def close(self) -> None:
        """Log the remaining output and close the pipe."""
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
