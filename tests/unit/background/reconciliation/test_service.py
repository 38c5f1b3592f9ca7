"""The thread of a source: it makes a round when one is due, or when an operator asks for it."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from flowhooks.background.reconciliation import service
from flowhooks.background.reconciliation.service import BUSY
from flowhooks.clock import SECOND
from support.waiting import WAIT_TIMEOUT


def test_a_round_that_an_operator_asks_for_is_made_after_another_process(clock, monkeypatch):
    """If another process is in a round, which may have begun before, the thread makes its own round afterwards."""
    monkeypatch.setattr(service, "MAX_BUSY_WAIT", 0.01)
    results, has_run = [BUSY, ""], threading.Event()

    def run():
        reason = results.pop(0)
        if not results:
            has_run.set()
        return SimpleNamespace(reason=reason)

    reconciler = SimpleNamespace(
        name="hr",
        engine=SimpleNamespace(reconcile_every=3600.0),
        position=lambda: SimpleNamespace(round_at=clock.now()),  # just made, by another process
        run=run,
        stop=lambda: None,
        close=lambda: None,
    )
    worker = service._ReconcilerThread(reconciler, clock)
    worker.start()
    worker.wake()
    try:
        assert has_run.wait(WAIT_TIMEOUT)
    finally:
        worker.begin_stop()
        worker.join(WAIT_TIMEOUT)
    assert not worker.is_alive()


@pytest.mark.parametrize(("is_refused", "waits"), [(False, False), (True, True)])
def test_a_source_whose_client_is_refused_lets_other_processes_go_first(clock, is_refused, waits):
    """A process whose client was created makes the next round, although this process would record an error."""
    reconciler = SimpleNamespace(
        name="hr",
        engine=SimpleNamespace(reconcile_every=300.0),
        position=lambda: SimpleNamespace(round_at=clock.now() - 300 * SECOND),
    )
    worker = service._ReconcilerThread(reconciler, clock, is_refused=is_refused)
    assert (worker._seconds_until_due() > 0) == waits
