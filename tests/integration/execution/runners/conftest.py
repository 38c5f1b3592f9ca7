"""Fixtures for tests of runners: handlers that wait for a signal, and many deliveries at once."""

from __future__ import annotations

import threading

import pytest

from flowhooks.clock import to_datetime
from flowhooks.ledger.new_event import NewEvent
from flowhooks.model.event import digest, from_body
from support.waiting import WAIT_TIMEOUT


class Gate:
    """A handler that blocks until it is released."""

    def __init__(self):
        self.runs = []
        self.entered = threading.Semaphore(0)
        self.opened = threading.Event()
        self.verdict = None

    def __call__(self, event):
        """Block until released; return the verdict, if it is used as a probe."""
        self.runs.append(event.flow_instance_id)
        self.entered.release()
        # Longer than tests wait, so that what a test waits for does not come only because this call has ended.
        assert self.opened.wait(2 * WAIT_TIMEOUT)
        return self.verdict

    def enter(self, times, within=WAIT_TIMEOUT):
        """Whether the handler was entered `times` more times within the timeout."""
        return all(self.entered.acquire(timeout=within) for _ in range(times))


@pytest.fixture
def new_gate():
    """A function that makes a blocking handler; all are released at the end."""
    gates = []

    def make():
        gates.append(Gate())
        return gates[-1]

    yield make
    for gate in gates:
        gate.opened.set()


@pytest.fixture
def gate(new_gate):
    """A blocking handler."""
    return new_gate()


@pytest.fixture
def open_hanging_probe(harness, listens, gate):
    """A function that opens an app with the settings given, in which `gate` is the probe of a lost delivery.

    It returns the app and the delivery's event, once the probe hangs.
    """

    def open_app(function, *, order_by=None, **settings):
        listener = listens(function, name="h", order_by=order_by, probe=lambda event, _delivery: gate(event))
        lost = harness.open(listener, start=False, **settings)
        event_id = lost.take(wait=0).event_id
        assert lost.app.ledger.claim(lost.app.ledger.due_deliveries(lost.clock.now(), lambda _handler: 1)[0])
        harness.crash(lost)
        flow = harness.open(listener, **settings)
        assert gate.enter(1)
        return flow, event_id

    return open_app


@pytest.fixture
def backlog():
    """A function that stores many events of a key in one transaction, in order."""

    def store(flow, count, *, key="leave", first=0):
        now = flow.clock.now()
        body = {"processDefinitionKey": key}
        items = []
        for number in range(first, first + count):
            event = from_body(
                body,
                id=flow.clock.new_id(),
                source="default",
                kind="complete",
                flow_instance_id=f"{key}-{number:05}",
                received_at=to_datetime(now),
            )
            route = flow.app.router.route(event)
            items.append(
                NewEvent(
                    event=event,
                    body=f'{{"processDefinitionKey": "{key}"}}',
                    digest=digest(body),
                    state="routed",
                    route=route.handlers,
                    deliveries=[(flow.clock.new_id(), handler) for handler in route.handlers],
                    now=now,
                )
            )
        flow.app.ledger.write(lambda transaction: flow.app.ledger._event_inserter(transaction, items), timeout=60)

    return store
