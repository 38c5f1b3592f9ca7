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

    def __init__(self, hands):
        self.hands = hands
        for number in range(6):
            hands.accept(f"i{number}", "p:h")
        context = replace(hands.flow.app.operation_context, by=Actor("ann", "cli"))
        plan = bulk.plan_operation(context, BulkAction.CLOSE, EventFilter(), rate=1)
        self.id = bulk.start_operation(context, plan.id).id
        for process in ("first", "second"):
            hands.sql("INSERT INTO processes (id, host, pid, started_at) VALUES (?, 'here', 1, 1)", process)

    def release(self, process):
        """Ask for the next delivery a second later; return the number of released ones and of all closed ones."""
        ledger, clock = self.hands.ledger, self.hands.clock
        clock.advance(1)
        request = Release(self.id, process, clock.now())
        released = ledger.write(lambda transaction: ledger.release(transaction, request))
        ((closed,),) = self.hands.sql("SELECT count(*) FROM deliveries WHERE state = 'closed'")
        return released and released.released, closed

    def move_end_of_lease(self, microseconds):
        """Move it, because it is a time of the database's clock, which no test moves."""
        self.hands.sql("UPDATE operations SET process_until = process_until + ?", microseconds)


@pytest.fixture
def operation(hands):
    """An operation of which no delivery is released."""
    return Operation(hands)


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
    hands = operation.hands
    assert operation.release("first") == (1, 1)
    operation.move_end_of_lease(HOUR)
    assert operation.release("second") == (None, 1)
    if gives_up:
        hands.ledger.write(lambda transaction: give_up_leases(transaction, "first"))
    else:
        hands.sql("UPDATE processes SET stopped_at = 1 WHERE id = 'first'")
    assert operation.release("second") == (1, 2)
