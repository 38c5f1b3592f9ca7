"""The standard files of a process that goes on, which may have been closed before its start.

The next file that is opened gets the number of a closed one: a socket, or the pipe that signals are written to. Text
that is printed would go there.
"""

from __future__ import annotations

import os
import sys


def reopen_closed_files() -> None:
    """Open the null device in place of each standard file that is closed."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it gets the lowest number that is free, which is this one
            os.set_inheritable(number, True)
    # None, where Python found the file closed.
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115 (a number, and it stays open)
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115 (as above)
