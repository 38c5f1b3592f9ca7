"""Rows of `accepting`, measured while another process keeps each core busy."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import accepting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench import Bench
    from figures import Figure

ENDLESS = """
import os, sys
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {int(sys.argv[1])})
while True:
    pass
"""


@contextmanager
def busy_cores() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Run an endless loop on each core; the loops are killed afterwards."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    with ExitStack() as stack:
        yield [stack.enter_context(_busy(core)) for core in cores]


@contextmanager
def _busy(core: int) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", ENDLESS, str(core)]) as loop:
        try:
            yield loop
        finally:
            loop.kill()


def accept_processor(bench: Bench) -> tuple[list[Figure], list[str]]:
    """Processor time of storing a callback before the response ÷ bare."""
    return _beside_loops(bench, accepting.accept_processor)


def outcome_processor(bench: Bench) -> tuple[list[Figure], list[str]]:
    """Processor time of a callback that is answered with the handler's outcome ÷ bare."""
    return _beside_loops(bench, accepting.outcome_processor)


def _beside_loops(
    bench: Bench, measure: Callable[[Bench], tuple[list[Figure], list[str]]]
) -> tuple[list[Figure], list[str]]:
    # Loads measured without busy loops are in the cache of the session and must not be used here.
    cache = bench.cache.setdefault("beside busy cores", {})
    assert isinstance(cache, dict)
    with busy_cores():
        return measure(replace(bench, cache=cache))
