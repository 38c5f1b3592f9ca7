"""Keeping the C library from setting memory aside for each thread anew.

glibc gives each thread one of many arenas, eight for each processor core, and what is free in one no thread of another
can use. So each grows by itself to the most that any of its threads ever needed at once: under `make soak` resident
memory crept on for hundreds of thousands of call-backs, though what was in use stayed the same.
"""

from __future__ import annotations

import ctypes
import os
from typing import Final

MAX_ARENAS: Final = 2
"""Arenas. With 2 instead of 15, resident memory after 40,000 call-backs of `make soak` was 98 MiB instead of 109, and
the processor time of a call-back the same within what it varies by: Python's threads take turns anyway, and SQLite's
have a lock of their own around this."""
_M_ARENA_MAX: Final = -8
"""As glibc's malloc.h has it."""


def limit_arenas() -> bool:
    """Have all threads that start from now on take memory from `MAX_ARENAS` arenas; whether they do.

    They do not where the C library is not glibc, or where whoever started the process has said how many there are to be
    (`MALLOC_ARENA_MAX`, or `glibc.malloc.arena_max` in `GLIBC_TUNABLES`).
    """
    if "MALLOC_ARENA_MAX" in os.environ or "glibc.malloc.arena_max" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    if not os.confstr_names.keys() >= {"CS_GNU_LIBC_VERSION"} or not os.confstr("CS_GNU_LIBC_VERSION"):
        return False
    return bool(ctypes.CDLL(None).mallopt(_M_ARENA_MAX, MAX_ARENAS))
