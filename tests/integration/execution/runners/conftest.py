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

    def __call__(self, event):
        """Block until released."""
        self.runs.append(event.flow_instance_id)
        self.entered.release()
        assert self.opened.wait(WAIT_TIMEOUT)

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
