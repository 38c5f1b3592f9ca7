"""Reopen standard files that were closed before the start of the process.

The next opened file gets the number of a closed one, for example a socket or the pipe of the signals. Printed text
would be written to it.
"""

from __future__ import annotations

import os
import sys


def reopen_closed_files() -> None:
    """Open the null device in place of each closed standard file."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
            os.set_inheritable(number, True)
    # These are None if Python found the file closed.
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115 (a file descriptor that stays open)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115 (as above)
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115 (as above)
