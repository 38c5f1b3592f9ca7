"""Pause and resume: deliveries of a paused handler wait in every process, and run after the resume."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import pytest

from flowhooks import Retry, State
from flowhooks.execution.runners import job_sweeper
from flowhooks.ledger import audit
from flowhooks.operations.context import Actor
from flowhooks.operations.pause import pause, resume
from flowhooks.operations.registry import run_operation
from flowhooks.operations.retire import retire
from support.waiting import WAIT_TIMEOUT

pytestmark = pytest.mark.runners

LONG = 1800.0
"""A wait in seconds that no test outlasts: a test that waits for its end fails by timeout."""


def nothing(event):
    """Do nothing."""


class Gate:
    """A handler that blocks until its gate is opened, and then fails if it should."""

    def __init__(self, *, fails=False):
        self.entered = threading.Event()
        self.open = threading.Event()
        self.fails = fails

    def __call__(self, event):
        """Block, then fail or succeed."""
        self.entered.set()
        assert self.open.wait(WAIT_TIMEOUT)
        if self.fails:
            raise ValueError("not this time")


def test_deliveries_of_a_paused_handler_run_after_the_resume(harness, listens, eventually):
    """Deliveries are stored and answered at once, with the pause; others run; after the resume all run."""
    flow = harness.open(listens(nothing, name="h"), listens(nothing, name="other", process_key="order"))
    done = pause(flow.app.operation_context, ["p:h"])
    assert (done.handlers, done.skipped, done.waiting, done.dry_run) == (("p:h",), (), 0, False)
    answer = flow.take("1", wait=LONG)
    assert answer.status == "pending"
    assert flow.take("2", key="order").status == "done"
    delivery_status = flow.only(answer.event_id)
    assert (delivery_status.state, delivery_status.attempt) == (State.WAITING, 0)
    assert delivery_status.due_at is not None
    done = resume(flow.app.operation_context, ["p:h"])
    assert (done.handlers, done.waiting) == (("p:h",), 1)
    assert flow.settled(answer.event_id, State.SUCCEEDED).attempt == 1
    # On PostgreSQL, the process may have read the pause before the resume, and apply it for a moment after that.
    eventually(lambda: flow.take("3").status == "done")


def test_claims_check_the_pause_in_the_database(harness, listens, eventually):
    """A claim and a stored running mark check the pause in the database, because a process's own data is a hint."""
    flow = harness.open(listens(nothing, name="h"))
    flow.sql("UPDATE handlers SET paused_at = 1")
    if not harness.url:
        # The only writing process cannot have missed it, so this tests the check of a claim.
        flow.app.ledger.pauses._on_change = lambda: None
        flow.app.ledger.pauses.replace(["p:h"])
    event_id = flow.take(wait=0).event_id
    flow.app.ledger.pauses.replace([])
    due = flow.app.ledger.due_deliveries(flow.clock.now(), lambda _handler: 10)
    assert [delivery.delivery_id for delivery in due] == [flow.only(event_id).delivery_id]
    for _ in range(3):
        assert flow.app.ledger.claim(due[0]) is None
    assert flow.only(event_id).attempt == 0
    flow.sql("UPDATE handlers SET paused_at = NULL")
    flow.app.runner.wake()
    flow.settled(event_id, State.SUCCEEDED)


def test_a_pause_answers_waiting_callers(harness, listens, together):
    """A pause answers waiting callers, because their deliveries cannot settle."""
    gate = Gate()
    flow = harness.open(listens(gate, name="h"), runner={"threads": 2})
    flow.take("runs", wait=0)
    assert gate.entered.wait(WAIT_TIMEOUT)

    def paused():
        while not flow.app.waiters._waiters:
            time.sleep(0.001)
        return pause(flow.app.operation_context, ["p:h"])

    answer, done = together(lambda: flow.take("waits", wait=LONG), paused)
    assert answer.status == "pending"
    assert done.running == 1
    gate.open.set()


def test_a_running_attempt_finishes_and_its_retry_waits(harness, listens):
    """A failed attempt is recorded, its retry does not start, and no caller waits for it."""
    gate = Gate(fails=True)
    handler = listens(gate, name="h", retry=Retry(attempts=5, delays=[1], jitter=0))
    flow = harness.open(handler)
    event_id = flow.take(wait=0).event_id
    assert gate.entered.wait(WAIT_TIMEOUT)
    pause(flow.app.operation_context, ["p:h"])
    gate.open.set()
    flow.settled(event_id, State.WAITING, attempt=1)
    flow.advance(60)
    assert flow.take(wait=LONG).status == "pending"
    assert flow.only(event_id).attempt == 1
    gate.fails = False
    resume(flow.app.operation_context, ["p:h"])
    assert flow.settled(event_id, State.SUCCEEDED).attempt == 2


@pytest.mark.either
def test_a_resume_does_not_start_retries_that_are_due_later(harness, listens):
    """To resume a handler starts what is due; the result tells how many deliveries have a retry at a later time."""

    def fails(event):
        raise OSError("down")

    flow = harness.open(listens(fails, name="h", retry=Retry(attempts=5, delays=[60], jitter=0)))
    failed = flow.take("1", wait=0).event_id
    flow.settled(failed, State.WAITING, attempt=1)
    pause(flow.app.operation_context, ["p:h"])
    flow.take("2", wait=0)
    done = resume(flow.app.operation_context, ["p:h"], dry_run=True)
    assert (done.waiting, done.due_later) == (2, 1)
    done = resume(flow.app.operation_context, ["p:h"])
    assert (done.waiting, done.due_later, flow.only(failed).attempt) == (2, 1, 1)


def test_a_pause_survives_a_restart(harness, listens):
    """Neither a new start nor a crash resumes a handler; earlier and later deliveries wait."""
    flow = harness.open(listens(nothing, name="h"))
    pause(flow.app.operation_context, ["p:h"])
    first = flow.take("1", wait=0).event_id
    harness.crash(flow)
    flow = harness.open(listens(nothing, name="h"))
    (known,) = flow.app.ledger.registered_handlers()
    assert known.paused_at == flow.clock.now()
    second = flow.take("2", wait=LONG).event_id
    assert [flow.only(event_id).attempt for event_id in (first, second)] == [0, 0]
    resume(flow.app.operation_context, ["p:h"])
    for event_id in (first, second):
        flow.settled(event_id, State.SUCCEEDED)


def test_an_attempt_killed_during_a_pause_is_recovered_and_waits(harness, listens):
    """An attempt killed during a pause is lost, and the next attempt waits for the resume."""
    flow = harness.open(listens(nothing, name="h", retry=Retry(delays=[1], jitter=0)), start=False)
    event_id = flow.take(wait=0).event_id
    (queued,) = flow.app.ledger.due_deliveries(flow.clock.now(), lambda _handler: 1)
    assert flow.app.ledger.claim(queued)
    pause(flow.app.operation_context, ["p:h"])
    harness.crash(flow)
    flow = harness.open(listens(nothing, name="h", retry=Retry(delays=[1], jitter=0)))
    assert flow.settled(event_id, State.WAITING, attempt=1).outcome == "lost"
    flow.advance(60)
    assert flow.take(wait=LONG).status == "pending"
    resume(flow.app.operation_context, ["p:h"])
    assert flow.settled(event_id, State.SUCCEEDED).attempt == 2


def test_a_handler_without_its_plugin_can_be_paused(harness, listens):
    """A handler whose plugin is missing can be paused, and is still paused when it is loaded."""
    harness.open(listens(nothing, name="h"), start=False).close()
    flow = harness.open()
    assert pause(flow.app.operation_context, ["p:h"]).handlers == ("p:h",)
    event_id = flow.take(wait=0).event_id
    flow.close()
    flow = harness.open(listens(nothing, name="h"))
    assert flow.take(wait=LONG).status == "pending"
    resume(flow.app.operation_context, ["p:h"])
    flow.settled(event_id, State.SUCCEEDED)


def test_probes_of_a_paused_handler_do_not_run(harness, listens):
    """Probes of a paused handler do not run, because they access the same system."""
    asked = []

    def probe(event, delivery):
        asked.append(delivery.id)
        return True

    flow = harness.open(listens(nothing, name="h", probe=probe), start=False)
    event_id = flow.take(wait=0).event_id
    (queued,) = flow.app.ledger.due_deliveries(flow.clock.now(), lambda _handler: 1)
    assert flow.app.ledger.claim(queued)
    pause(flow.app.operation_context, ["p:h"])
    harness.crash(flow)
    flow = harness.open(listens(nothing, name="h", probe=probe), listens(nothing, name="other", process_key="order"))
    (due,) = flow.app.ledger.due_deliveries(flow.clock.now(), lambda _handler: 1)
    assert due.probe
    flow.app.dispatcher.execute(due)
    assert flow.take("2", key="order").status == "done"
    assert (asked, flow.only(event_id).state) == ([], State.UNKNOWN)
    resume(flow.app.operation_context, ["p:h"])
    flow.settled(event_id, State.SUCCEEDED)
    assert asked


def test_order_and_concurrency_limits_apply_after_the_resume(harness, listens, eventually):
    """Deliveries that have waited run in their order, with the usual concurrency."""
    done, running, most, lock = [], [0], [0], threading.Lock()

    def handle(event):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.002)
        with lock:
            running[0] -= 1
            done.append((event.business_key, event.data["number"]))

    flow = harness.open(listens(handle, name="h", order_by="business_key", concurrency=2), runner={"threads": 8})
    pause(flow.app.operation_context, ["p:h"])
    for number in range(10):
        for key in "abc":
            flow.take(f"{key}{number}", wait=0, businessKey=key, number=number)
    assert done == []
    resume(flow.app.operation_context, ["p:h"])
    eventually(lambda: len(done) == 30)
    for key in "abc":
        assert [number for business_key, number in done if business_key == key] == list(range(10))
    assert most[0] <= 2
    eventually(flow.is_idle)


def test_a_backlog_keeps_its_due_times(harness, listens, eventually):
    """Hundreds of waiting deliveries keep their due times during the pause and the resume."""
    seen = []
    flow = harness.open(listens(lambda event: seen.append(event.id), name="h"))
    pause(flow.app.operation_context, ["p:h"])
    for number in range(300):
        flow.take(str(number), wait=0)
    before = flow.sql("SELECT id, due_at, changed_at FROM deliveries ORDER BY id")
    flow.clock.advance(60)
    resume(flow.app.operation_context, ["p:h"])
    pause(flow.app.operation_context, ["p:h"])
    after = flow.sql("SELECT id, due_at, changed_at FROM deliveries WHERE state = 'waiting' ORDER BY id")
    assert set(after) <= set(before)
    resume(flow.app.operation_context, ["p:h"])
    eventually(lambda: len(seen) == 300)
    eventually(flow.is_idle)
    assert len(set(seen)) == 300


def test_patterns_match_handlers_and_skipped_ones_are_reported(harness, listens, make_plugin):
    """A pattern matches known handlers; unknown, retired and paused ones are reported and unchanged."""
    flow = harness.open(
        plugins={
            "contracts": make_plugin(listens(nothing, name="a"), listens(nothing, name="b")),
            "leave": make_plugin(listens(nothing, name="c")),
        },
        start=False,
    )
    desk = flow.app.operation_context
    retire(desk, ["leave:c"])
    dry = pause(desk, ["contracts:*", "leave:c", "nobody:*"], dry_run=True)
    assert (dry.handlers, dry.skipped) == (("contracts:a", "contracts:b"), ("leave:c", "nobody:*"))
    assert pause(desk, ["contracts:a"]).handlers == ("contracts:a",)
    done = pause(desk, ["contracts:*", "leave:c"])
    assert (done.handlers, done.skipped) == (("contracts:b",), ("leave:c",))
    assert pause(desk, ["contracts:b"]).skipped == ("contracts:b",)
    assert resume(desk, ["*"]).handlers == ("contracts:a", "contracts:b")
    assert resume(desk, ["*"]).skipped == ("*",)


def test_the_operation_is_called_by_name_and_audited(harness, listens):
    """The operation is called as by the API and commands; its audit entry has the handler and the note."""
    flow = harness.open(listens(nothing, name="h"), start=False)
    desk = replace(flow.app.operation_context, by=Actor("mia", "cli"))
    assert run_operation(desk, "pause", {"handlers": ["p:h"], "note": "the archive moves"}) == {
        "handlers": ("p:h",),
        "skipped": (),
        "waiting": 0,
        "due_later": 0,
        "running": 0,
        "dry_run": False,
    }
    run_operation(desk, "pause", {"handlers": ["p:h"]})
    run_operation(desk, "resume", {"handlers": ["p:h"], "dry_run": False})
    with flow.app.ledger.connection() as connection:
        entries = audit.entries(connection, limit=10)
    assert [(entry.action, entry.target, dict(entry.detail)) for entry in entries] == [
        ("resume", "p:h", {"handlers": ["p:h"]}),
        ("pause", "p:h", {"handlers": ["p:h"], "note": "the archive moves"}),
    ]


def test_jobs_of_a_large_backlog_are_created_without_a_sweep(harness, listens, eventually, monkeypatch):
    """Jobs for a large backlog are created without a wait for the next regular sweep."""
    monkeypatch.setattr(job_sweeper, "SWEEP_INTERVAL", 600.0)
    done = []
    flow = harness.open(listens(lambda event: done.append(event.id), name="h"))
    pause(flow.app.operation_context, ["p:h"])
    for number in range(100):
        flow.take(str(number), wait=0)
    flow.clock.advance(60)
    resume(flow.app.operation_context, ["p:h"])
    eventually(lambda: len(done) == 100)
    eventually(flow.is_idle)
