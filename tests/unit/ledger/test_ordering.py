"""The checks of groups with a blocked delivery, without a database."""

from __future__ import annotations

import threading

import pytest

from flowhooks.ledger.ordering import RECHECKS, OrderScheduler
from flowhooks.ledger.transaction import OrderGroup, WriteTransaction


@pytest.mark.parametrize("started", range(RECHECKS))
def test_a_failed_thread_start_does_not_prevent_later_checks(monkeypatch, started):
    """A group that is blocked later is checked as usual, whichever check of the earlier one could not be started."""
    checks = []
    scheduler = OrderScheduler(runner=None, clock=None, due=None, shared=True, write=checks.append, limits={})

    def block():
        transaction = WriteTransaction(None)
        transaction.blocked_groups.add(OrderGroup("p:h", "k"))
        scheduler.promote_next(transaction)
        transaction.run_callbacks(durable=True)

    def start(timer):
        if len(checks) >= limit:
            raise RuntimeError("can't start new thread")
        timer.function()

    monkeypatch.setattr(threading.Timer, "start", start)
    limit = started
    block()
    assert len(checks) == started
    limit = started + 2 * RECHECKS
    block()
    assert len(checks) == started + RECHECKS
