"""When a process may expire others, by the times of its own heartbeats."""

from __future__ import annotations

import pytest

from flowhooks.clock import SECOND
from flowhooks.ledger import processes
from flowhooks.ledger.processes import Heartbeat, HeartbeatState


@pytest.mark.parametrize(
    ("stored_at", "is_step"), [(5, False), (20, False), (22, True), (-2, False), (-4, True)], ids=str
)
def test_a_slow_reply_is_no_step_of_the_database_clock(monkeypatch, stored_at, is_step):
    """The database reads its clock before its reply arrives, so the wait for the two replies explains a difference."""
    heartbeats = HeartbeatState(heartbeat_timeout=30.0)
    heartbeats.on_started(Heartbeat(0.0, 8.0, 0))
    heartbeats.on_sent(Heartbeat(10.0, 16.0, stored_at * SECOND))
    for sent_at in (20.0, 30.0):
        stored_at += 10
        heartbeats.on_sent(Heartbeat(sent_at, sent_at, stored_at * SECOND))
    monkeypatch.setattr(processes, "seconds_since_boot", lambda: 35.0)
    assert heartbeats.covers_window() is not is_step
