"""The end of a process whose plugins have left threads running."""

from __future__ import annotations

import os
import threading
import time
from typing import Final

from flowhooks.logger import get_logger

log = get_logger(__name__)

EXIT_TIMEOUT: Final = 3.0
"""Seconds for the interpreter's exit, including the exit functions of plugins. After that the process is ended."""


def force_exit_later(code: int) -> None:
    """End this process with an exit code after `EXIT_TIMEOUT`, unless it ends by itself before."""
    threading.Thread(target=_force_exit, args=(code,), name="exit", daemon=True).start()


def _force_exit(code: int) -> None:
    # The interpreter would wait for threads that plugins have left running.
    time.sleep(EXIT_TIMEOUT)
    log.warning("abandoned_threads", threads=sorted(thread.name for thread in threading.enumerate()))
    os._exit(code)
