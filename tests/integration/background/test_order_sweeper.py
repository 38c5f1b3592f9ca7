"""The sweep of order groups finds missed promotions at the start, and goes on after errors."""

from __future__ import annotations

import pytest

from flowhooks import Retry, State
from flowhooks.background import order_sweeper
from flowhooks.errors import LedgerUnusable, Unavailable
from flowhooks.ledger import ordering


@pytest.fixture
def missed(harness, listens):
    """An app that has not started, and a delivery of which the promotion was missed."""
    flow = harness.open(listens(lambda event: None, name="h", order_by="business_key", retry=Retry()), start=False)
    event_id = flow.take("i1", wait=0, businessKey="k").event_id
    flow.sql("UPDATE deliveries SET order_position = 7")
    return flow, event_id


def test_the_start_finds_missed_promotions(missed, eventually):
    """A missed promotion is found by the first sweep, in the background."""
    flow, event_id = missed
    flow.app.start()
    eventually(lambda: flow.only(event_id).state is State.SUCCEEDED)


def test_a_page_that_cannot_be_written_does_not_stop_other_pages(missed, monkeypatch):
    """After an error the sweep continues behind the page that failed, and comes back to it later."""
    flow, _ = missed
    flow.take("i2", wait=0, businessKey="other")
    flow.sql("UPDATE deliveries SET order_position = 7")
    monkeypatch.setattr(ordering, "PAGE_SIZE", 1)
    write, failures = flow.app.ledger.write, [Unavailable("ledger_slow")]
    monkeypatch.setattr(flow.app.ledger, "write", lambda function: _raise(failures) if failures else write(function))
    positions = "SELECT order_position FROM deliveries ORDER BY order_key"
    with pytest.raises(Unavailable):
        flow.app.order_sweeper.sweep()
    flow.app.order_sweeper.sweep()
    assert flow.sql(positions) == [(7,), (0,)]
    flow.app.order_sweeper.sweep()
    assert flow.sql(positions) == [(0,), (0,)]


def _raise(failures):
    raise failures.pop()


@pytest.mark.postgresql
def test_only_the_leader_sweeps_and_errors_do_not_end_the_sweeper(missed, monkeypatch, eventually, logged):
    """An error of the database is logged once, a defect each time; the next sweep finds the delivery."""
    flow, event_id = missed
    answers = [False, LedgerUnusable("down"), LedgerUnusable("down"), ValueError("defect"), True]
    monkeypatch.setattr(flow.app.ledger, "heartbeat_timeout", 0.01)
    read, sweeps = order_sweeper.read_order_groups, []

    def is_leader():
        answer = answers.pop(0) if answers else True
        if isinstance(answer, Exception):
            raise answer
        return answer

    def read_and_count(connection, after):
        sweeps.append(len(answers))
        return read(connection, after)

    monkeypatch.setattr(flow.app.ledger, "is_leader", is_leader)
    monkeypatch.setattr(order_sweeper, "read_order_groups", read_and_count)
    flow.app.order_sweeper.start()
    eventually(lambda: flow.sql("SELECT order_position FROM deliveries") == [(0,)])
    flow.app.order_sweeper.stop(10)
    assert sweeps[0] == 0
    failed = [entry for entry in logged if entry["event"] == "order_sweep_failed"]
    assert [(entry["log_level"], entry["reason"]) for entry in failed] == [("warning", "database"), ("error", "fault")]
    assert flow.only(event_id).state is State.WAITING
