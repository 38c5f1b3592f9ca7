"""A long history: the number of requests and the memory are bounded."""

from __future__ import annotations

import gc
import math
from pathlib import Path

import pytest

from flowhooks.clock import DAY, SECOND, to_datetime
from support.app_harness import plugin
from support.asked_engine import ReconciledApp, grant, settings_of
from support.large_engine import LargeEngine

pytestmark = pytest.mark.either
PAGE = 1000
MAX_MIB = 64
"""Maximum memory of a round: a few pages with their rows, whatever the length of the history."""


def memory(field):
    """A figure of this process in MiB, such as its memory now (`VmRSS`) or at most so far (`VmHWM`)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) / 1024


@pytest.mark.parametrize("count", [5_000, pytest.param(1_000_000, marks=[pytest.mark.long, pytest.mark.timeout(7200)])])
def test_a_long_history_is_read_in_pages(harness, clock, count):
    """Each page is asked for once, and the next round asks only for the overlap."""
    engine = LargeEngine(count, to_datetime(clock.now()))
    source = settings_of({"page_size": PAGE, "max_new": 1000})
    clock.advance(1)
    flow = harness.open(
        plugins={"p": plugin(grant, engine_clients=lambda: {"fake": engine.client})},
        sources={"oa": source},
        start=False,
    )
    asked = ReconciledApp(harness, clock, engine, flow)
    asked.round()
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the maximum counts from now on
    memory_before, before = memory("VmRSS"), engine.requests
    result = asked.round(since=clock.now() - 2 * DAY)
    memory_used = memory("VmHWM") - memory_before
    assert (result.read, result.in_grace) == (count, count)
    assert engine.requests - before == math.ceil(count / PAGE)
    assert memory_used < MAX_MIB

    clock.advance(300)
    before = engine.requests
    result = asked.round()
    assert result.to_confirm == count
    in_overlap = 60_000  # of ten minutes
    assert engine.requests - before <= math.ceil(min(count, in_overlap) / PAGE) + 1

    clock.advance(DAY // SECOND)
    asked.round()
    before = engine.requests
    asked.round()
    assert engine.requests - before == 1
    ((rows,),) = flow.sql("SELECT count(*) FROM engine_instances")
    assert rows == count
