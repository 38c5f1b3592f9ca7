"""How long the embedded runner pauses between two polls."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from flowhooks.errors import LedgerUnusable
from flowhooks.execution.runners import embedded


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize(("seconds", "pause"), [(0.001, 0.2), (0.1, 0.9), (10.0, 5.0)])
def test_a_long_poll_is_followed_by_a_longer_pause(monkeypatch, seconds, pause, fails):
    """Polls take a tenth of the time, but a poll that hung does not delay the next one by minutes."""
    now, waits, stop = [100.0], [], threading.Event()

    def due_deliveries(*_given):
        now[0] += seconds
        if fails:
            raise LedgerUnusable("it did not answer")
        return []

    def wait(timeout):
        waits.append(timeout)
        stop.set()

    slots = SimpleNamespace(
        size=0,
        poll_now=SimpleNamespace(wait=wait, clear=lambda: None),
        max_rows=None,
        seconds_to_poll=lambda interval: interval,
        abandon_overdue=lambda _now: 0,
        put=lambda _deliveries: None,
        wake_for_claimed=lambda: None,
        open=lambda: None,
        close=lambda: None,
    )
    monkeypatch.setattr(embedded, "time", SimpleNamespace(monotonic=lambda: now[0]))
    ledger, clock = SimpleNamespace(due_deliveries=due_deliveries), SimpleNamespace(now=lambda: 0)
    runner = embedded.EmbeddedRunner(slots, ledger, clock)
    runner.run(lambda *_given: None, stop)
    assert waits == [pytest.approx(pause)]
    assert (runner.health() is not None) is fails
