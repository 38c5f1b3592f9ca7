"""`kill -9` at each step of a request with several callbacks: the whole request is durable or nothing of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flowhooks import Retry, State
from flowhooks.failpoints import ENV_VARIABLE
from flowhooks.ledger.ignored_requests import IgnoredRequestRecord
from support.app_harness import ingress_callback
from support.waiting import until

pytestmark = pytest.mark.either

TESTS = Path(__file__).parents[2]
INSTANCES = ("i1", "i2", "i3")
PROGRAM = f"""
import sys
from pathlib import Path
from flowhooks import Retry, handler
from flowhooks.ledger.ignored_requests import IgnoredRequestRecord
from flowhooks.testing import ManualClock
from support.app_harness import LedgerHarness, ingress_callback

folder, url = sys.argv[1:]
harness = LedgerHarness(Path(folder), ManualClock(), url)
flow = harness.open(handler(process_key="leave", name="ran", retry=Retry())(lambda event: None), start=False)
ignored = IgnoredRequestRecord("oa", "/status = 1", "{{}}", None, flow.clock.now())
flow.app.intake.accept_all([ingress_callback(name) for name in {INSTANCES}], [ignored])
"""
POINTS = {
    "accept.begun:1": False,
    "accept.inserted:1": False,
    "accept.written:1": False,
    "accept.committed:1": True,
}
"""Each failpoint, and whether the request is durable there."""


@pytest.mark.parametrize("point", POINTS)
def test_a_killed_process_stores_the_whole_request_or_nothing(harness, listens, point):
    """No event is stored without the others and the count; the sender's repeat ends with one run for each."""
    killed = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(harness.folder), harness.url],
        env=os.environ | {ENV_VARIABLE: point, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    is_durable = POINTS[point]
    harness.clock.advance(3600)  # otherwise the ids of this process would be those of the killed one
    runs = []
    ran = listens(lambda event: runs.append(event.flow_instance_id), name="ran", retry=Retry())
    flow = harness.open(ran, ledger={"heartbeat_timeout": 2.0})
    assert len(flow.events()) == len(INSTANCES) * is_durable
    assert flow.app.ledger.ignored_counts() == ({("oa", "/status = 1"): 1} if is_durable else {})
    ignored = IgnoredRequestRecord("oa", "/status = 1", "{}", None, flow.clock.now())
    answers = flow.app.intake.accept_all([ingress_callback(name) for name in INSTANCES], [ignored])
    until(flow.is_idle)
    for answer in answers:
        (delivery,) = flow.delivery_statuses(answer.event_id)
        assert delivery.state is State.SUCCEEDED
    assert sorted(runs) == sorted(INSTANCES)
    assert flow.app.ledger.ignored_counts() == {("oa", "/status = 1"): 1 + is_durable}
    assert flow.app.ledger.verify().problems == []
