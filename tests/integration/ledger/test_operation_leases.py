"""The lease of a bulk operation: of the processes that share a ledger, one releases the operation's deliveries."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flowhooks.clock import SECOND
from flowhooks.ledger.bulk_release import Release, give_up_leases
from flowhooks.ledger.queries import EventFilter
from flowhooks.model.bulk_operation import BulkAction
from flowhooks.operations import bulk
from flowhooks.operations.context import Actor

HOUR = 3600 * SECOND


class Operation:
    """A running operation that closes one delivery at a time, and two live processes that may release them."""

    def __init__(self, ledger_steps):
        self.ledger_steps = ledger_steps
        for number in range(6):
            ledger_steps.accept(f"i{number}", "p:h")
        context = replace(ledger_steps.flow.app.operation_context, by=Actor("ann", "cli"))
        plan = bulk.plan_operation(context, BulkAction.CLOSE, EventFilter(), rate=1)
        self.id = bulk.start_operation(context, plan.id).id
        for process in ("first", "second"):
            ledger_steps.sql("INSERT INTO processes (id, host, pid, started_at) VALUES (?, 'here', 1, 1)", process)

    def release(self, process):
        """Ask for the next delivery a second later; return the number of released ones and of all closed ones."""
        ledger, clock = self.ledger_steps.ledger, self.ledger_steps.clock
        clock.advance(1)
        request = Release(self.id, process, clock.now())
        released = ledger.write(lambda transaction: ledger.release(transaction, request))
        ((closed,),) = self.ledger_steps.sql("SELECT count(*) FROM deliveries WHERE state = 'closed'")
        return released and released.released, closed

    def move_end_of_lease(self, microseconds):
        """Move it, because it is a time of the database's clock, which no test moves."""
        self.ledger_steps.sql("UPDATE operations SET process_until = process_until + ?", microseconds)


@pytest.fixture
def operation(ledger_steps):
    """An operation of which no delivery is released."""
    return Operation(ledger_steps)


def test_a_process_without_the_lease_releases_no_deliveries(operation):
    """A live process without the lease releases nothing, until the lease has expired; then the former one does not."""
    assert operation.release("first") == (1, 1)
    operation.move_end_of_lease(HOUR)
    assert operation.release("second") == (None, 1)
    assert operation.release("first") == (1, 2)
    operation.move_end_of_lease(-HOUR)
    assert operation.release("second") == (1, 3)
    operation.move_end_of_lease(HOUR)
    assert operation.release("first") == (None, 3)


@pytest.mark.parametrize("gives_up", [True, False])
def test_another_process_acquires_the_lease_of_an_ended_process(operation, gives_up):
    """The lease of a process that gave it up, or that is marked as stopped, is free at once."""
    ledger_steps = operation.ledger_steps
    assert operation.release("first") == (1, 1)
    operation.move_end_of_lease(HOUR)
    assert operation.release("second") == (None, 1)
    if gives_up:
        ledger_steps.ledger.write(lambda transaction: give_up_leases(transaction, "first"))
    else:
        ledger_steps.sql("UPDATE processes SET stopped_at = 1 WHERE id = 'first'")
    assert operation.release("second") == (1, 2)
