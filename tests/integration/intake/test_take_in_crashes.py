"""`kill -9` at each step of taking an instance in, and of a late callback: a repeat ends with one event and one run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flowhooks import Retry, State
from flowhooks.failpoints import ENV_VARIABLE
from support.silent_engine import with_silent_engine
from support.waiting import until

pytestmark = pytest.mark.either

TESTS = Path(__file__).parents[2]
PROGRAM = """
import sys
from pathlib import Path
from flowhooks import Retry, handler
from flowhooks.testing import ManualClock
from support.app_harness import LedgerHarness
from support.silent_engine import with_silent_engine

folder, url, what = sys.argv[1:]
harness = LedgerHarness(Path(folder), ManualClock(), url)
ran = handler(process_key="leave", name="ran", retry=Retry())(lambda event: None)
flow = harness.open(**with_silent_engine(ran), start=False)
flow.take_in(end_undecided=what == "late")
flow.take(source="oa", amount=1, wait=0)
"""
POINTS = {
    "accept.locked:1": ("taken in", 0),
    "take_in.written:1": ("taken in", 0),
    "take_in.committed:1": ("taken in", 1),
    "accept.locked:2": ("late", 1),
    "late_callback.body_replaced:1": ("late", 1),
    "late_callback.written:1": ("late", 1),
    "accept.committed:2": ("late", 1),
}
"""Each failpoint, what is done there, and the number of events that are durable."""


@pytest.mark.parametrize("point", POINTS)
def test_a_killed_process_stores_the_whole_step_or_nothing(harness, listens, point):
    """The instance is taken in again, and the engine repeats its callback, until both are answered."""
    what, durable = POINTS[point]
    killed = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(harness.folder), harness.url, what],
        env=os.environ | {ENV_VARIABLE: point, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    harness.clock.advance(3600)  # otherwise the ids of this process would be those of the killed one
    runs = []
    ran = listens(lambda event: runs.append(event.data.get("amount")), name="ran", retry=Retry())
    flow = harness.open(**with_silent_engine(ran), ledger={"heartbeat_timeout": 2.0})
    assert len(flow.events()) == durable
    taken_in = flow.take_in(end_undecided=what == "late")
    assert taken_in.new == (durable == 0)
    assert flow.take(source="oa", amount=1, wait=0).event_id == taken_in.event_id
    until(flow.is_idle)
    (delivery,) = flow.delivery_statuses(taken_in.event_id)
    assert delivery.state is State.SUCCEEDED
    assert runs == [1 if what == "late" else None]
    assert len(flow.app.ledger.late_callbacks(taken_in.event_id)) == 1
    assert flow.app.ledger.verify().problems == []
