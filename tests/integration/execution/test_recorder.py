"""Results that could not be recorded when their attempts ended, and the end of the process."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future

import pytest

from flowhooks import State
from flowhooks.errors import Unavailable
from support.waiting import WAIT_TIMEOUT, until

pytestmark = pytest.mark.sqlite


def named(logged, event):
    """The log records of one event."""
    return [entry for entry in logged if entry["event"] == event]


def test_unrecorded_results_are_recorded_before_the_ledger_is_closed(harness, listens, monkeypatch, logged):
    """The database works again when the server stops: no result is lost, although each takes the database a while."""
    monkeypatch.setattr("flowhooks.execution.recorder.RETRY_DELAYS", (WAIT_TIMEOUT,))
    flow = harness.open(listens(lambda event: None, name="h"))
    record, failed = flow.app.ledger.record_result, []

    def fail(result):
        failed.append(result.delivery_id)
        future = Future()
        future.set_exception(Unavailable("ledger_down"))
        return future

    def record_slowly(result):
        time.sleep(0.05)  # longer than the other steps of the end take
        return record(result)

    monkeypatch.setattr(flow.app.ledger, "record_result", fail)
    events = [flow.take(f"i{number}", wait=0).event_id for number in range(4)]
    until(lambda: len(set(failed)) == len(events) < len(failed))
    monkeypatch.setattr(flow.app.ledger, "record_result", record_slowly)
    assert flow.close()
    again = harness.open(start=False)
    assert [again.only(event_id).state for event_id in events] == [State.SUCCEEDED] * len(events)
    assert named(logged, "outcome_lost") == []


def test_a_result_not_stored_while_the_ledger_closes_is_logged_as_lost(harness, listens, monkeypatch, logged):
    """The last writes of the ledger may fail; then the log names the attempt, before `close` returns."""
    monkeypatch.setattr("flowhooks.app.STOP_TIMEOUT", 0.01)
    flow = harness.open(listens(lambda event: None, name="h"))
    close, future = flow.app.ledger.close, Future()

    def fail_last_write():
        until(lambda: not [thread for thread in threading.enumerate() if thread.name == "recording"])
        future.set_exception(Unavailable("ledger_down"))
        close()

    results = []
    monkeypatch.setattr(flow.app.ledger, "record_result", lambda result: results.append(result) or future)
    monkeypatch.setattr(flow.app.ledger, "close", fail_last_write)
    flow.take(wait=0)
    until(lambda: results)
    assert flow.close()
    (lost,) = named(logged, "outcome_lost")
    assert (lost["delivery"], lost["attempt"]) == (results[0].delivery_id, 1)
