"""A ledger without a runner, and batches that are committed together."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager

import pytest

from flowhooks.clock import to_datetime
from flowhooks.ledger.attempts import AttemptResult
from flowhooks.ledger.database import engines
from flowhooks.ledger.new_event import NewEvent
from flowhooks.model.delivery import OutcomeKind, State
from flowhooks.model.event import digest, from_body
from flowhooks.model.ready_delivery import ReadyDelivery
from flowhooks.model.search_fields import indexed_values
from support.waiting import WAIT_TIMEOUT


class LedgerSteps:
    """A ledger without a runner, on which a test executes each step itself."""

    def __init__(self, flow):
        self.flow = flow
        self.ledger = flow.app.ledger
        self.clock = flow.clock
        self.sql = flow.sql

    def new(self, instance="i1", *handlers, absent=(), source="default", kind="complete", ignore=(), fields=(), **body):
        """An event for these handlers, as intake passes it."""
        event = from_body(
            body,
            id=self.clock.new_id(),
            source=source,
            kind=kind,
            flow_instance_id=instance,
            received_at=to_datetime(self.clock.now()),
        )
        return NewEvent(
            event=event,
            body=json.dumps(body),
            digest=digest(body, ignore),
            state="routed" if handlers else "parked",
            parked_by=None if handlers else "handler",
            route=dict.fromkeys(handlers, "key k"),
            deliveries=[(self.clock.new_id(), handler) for handler in handlers],
            missing_handlers=frozenset(absent),
            now=self.clock.now(),
            indexed_values=indexed_values(event.data, fields),
        )

    def store(self, new):
        """Store an event, and wait until it is durable."""
        return self.ledger.wait_for(self.ledger.accept(new))

    def accept(self, *given, **body):
        """Store such an event; return its id with its waiting deliveries."""
        accepted = self.store(self.new(*given, **body))
        return accepted.event_id, [
            self.queued(status.delivery_id) for status in self.ledger.delivery_statuses(accepted.event_id)
        ]

    def queued(self, delivery_id):
        """A delivery as a runner would read it now."""
        _, delivery_status = self.ledger.delivery(delivery_id)
        return ReadyDelivery(delivery_id, delivery_status.handler, delivery_status.attempt)

    def delivery_status(self, delivery_id):
        """The stored state of a delivery."""
        return self.ledger.delivery(delivery_id)[1]

    def attempt_result(
        self, queued, attempt, outcome=OutcomeKind.SUCCEEDED, target=State.SUCCEEDED, due_at=None, **more
    ):
        """The outcome of an attempt."""
        fields = {"error": "", "traceback": "", "result": None, "log": None} | more
        return AttemptResult(
            queued.delivery_id,
            queued.handler,
            attempt,
            outcome,
            fields["error"],
            fields["traceback"],
            fields["result"],
            target,
            due_at,
            self.clock.now(),
            log=fields["log"],
        )

    def settle(self, *given, **more):
        """Record the outcome of an attempt."""
        return self.ledger.wait_for(self.ledger.record_result(self.attempt_result(*given, **more)))

    def bring(self, queued, state):
        """Move a waiting delivery to a state by transitions of the table."""
        if state is State.WAITING:
            return
        if state is State.CLOSED:
            self.sql("UPDATE deliveries SET state = 'closed', due_at = NULL WHERE id = ?", queued.delivery_id)
            return
        claimed = self.ledger.claim(queued)
        ends = {
            State.SUCCEEDED: OutcomeKind.SUCCEEDED,
            State.DEAD: OutcomeKind.FAILED,
            State.UNKNOWN: OutcomeKind.LOST,
        }
        if state in ends:
            assert self.settle(queued, claimed.attempt, ends[state], state)

    @contextmanager
    def writer_blocked(self):
        """Keep the writer busy, so that work submitted in this context is committed together afterwards."""
        free, begun = threading.Event(), threading.Event()

        def wait(_transaction):
            begun.set()
            free.wait(WAIT_TIMEOUT)

        waiting = threading.Thread(target=self.ledger.write, args=(wait, WAIT_TIMEOUT))
        waiting.start()
        assert begun.wait(WAIT_TIMEOUT)
        try:
            yield
        finally:
            free.set()
            waiting.join()

    def run_in_one_batch(self, *calls):
        """Make these calls in threads so that all their work is in one batch; return their results or errors."""
        results, submitted = [None] * len(calls), set()
        writer, submit = self.ledger._writer, self.ledger._writer.submit

        def run_call(number, call):
            try:
                results[number] = call()
            except Exception as error:  # noqa: BLE001 (returned to the test)
                results[number] = error

        def submit_and_record(work, item):
            future = submit(work, item)
            submitted.add(threading.current_thread())
            return future

        with self.writer_blocked(), pytest.MonkeyPatch.context() as patch:
            patch.setattr(writer, "submit", submit_and_record)
            threads = []
            for number, call in enumerate(calls):
                threads.append(threading.Thread(target=run_call, args=(number, call)))
                threads[-1].start()
                # In turn, so that a batch has a known order. A service of a started app may write meanwhile, too.
                self.eventually(lambda thread=threads[-1]: thread in submitted)
        for thread in threads:
            thread.join(WAIT_TIMEOUT)
        return results


@pytest.fixture
def long_timeouts(monkeypatch):
    """On a busy machine, a transaction waits longer than usual for the locks of one that is delayed."""
    monkeypatch.setattr(engines, "BUSY_SECONDS", WAIT_TIMEOUT)


@pytest.fixture
def ledger_steps(harness, eventually):
    """A ledger without a runner."""
    ledger_steps = LedgerSteps(harness.open(start=False))
    ledger_steps.eventually = eventually
    return ledger_steps


@pytest.fixture(scope="session")
def ledger_steps_of():
    """A function that returns `LedgerSteps` for another process's ledger."""
    return LedgerSteps
