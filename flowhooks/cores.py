"""Keeping threads that pass the interpreter to one another on one processor core; it must not know what they do.

Python runs one thread at a time. Where its threads are spread over cores, each hand-over moves what the last one
worked on from one core's cache to the other's. Under the load of `make bench`'s first row, with `one_core` off and on
in turn, two cores stored two thirds of the call-backs that one did.
"""

from __future__ import annotations

import os
from contextlib import suppress


def gather() -> frozenset[int]:
    """Keep the calling thread, and those that it starts from now on, on one core.

    Returns:
        The cores that it could use before, for `spread`; empty where the system does not offer this.

    Raises:
        OSError: the system does not allow it.
    """
    if not hasattr(os, "sched_setaffinity"):  # not on macOS
        return frozenset()
    before = frozenset(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {max(before)})
    return before


def spread(cores: frozenset[int]) -> None:
    """Let the calling thread, and processes that it starts, use `cores` again; nothing if they are empty."""
    if cores:
        with suppress(OSError):  # an operator has taken them away meanwhile: on one core it is slower, not wrong
            os.sched_setaffinity(0, cores)
