"""Threads share memory arenas."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif("CS_GNU_LIBC_VERSION" not in os.confstr_names, reason="this C library has no arenas")

COUNT = """
import ctypes, sys, threading
from flowhooks.cli.process.serving import tune_process
from flowhooks.settings import Settings

tune_process(Settings(cpu_affinity=False))
libc = ctypes.CDLL(None)
all_there = threading.Barrier(12)

def take():
    libc.malloc(1000)
    all_there.wait()

threads = [threading.Thread(target=take) for _ in range(12)]
for each in threads:
    each.start()
for each in threads:
    each.join()
libc.malloc_info(0, ctypes.c_void_p.in_dll(libc, "stdout"))
libc.fflush(None)
"""


def arenas(**environ):
    """The number of arenas of a process after twelve of its threads allocated memory at once."""
    kept = {name: value for name, value in os.environ.items() if name not in {"MALLOC_ARENA_MAX", "GLIBC_TUNABLES"}}
    ran = subprocess.run(
        [sys.executable, "-c", COUNT], env=kept | environ, capture_output=True, text=True, check=True, timeout=60
    )
    return ran.stdout.count("<heap nr=")


def test_threads_share_at_most_two_memory_arenas():
    """With any number of threads and cores there are at most two arenas."""
    assert 1 <= arenas() <= 2


@pytest.mark.parametrize(
    "environ", [{"MALLOC_ARENA_MAX": "5"}, {"GLIBC_TUNABLES": "glibc.malloc.arena_max=5"}], ids=["old", "tunable"]
)
def test_an_environment_variable_overrides_the_number_of_arenas(environ):
    """An environment variable overrides the number that flowhooks chooses."""
    assert arenas(**environ) == 5
