"""Close the deliveries of removed handlers together; other deliveries stay as they are."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flowhooks.errors import InvalidTransition, Unavailable
from flowhooks.ledger.queries import EventFilter
from flowhooks.ledger.search import search_events
from flowhooks.model.bulk_operation import BulkAction
from flowhooks.operations.bulk import plan_operation, release_all, start_operation
from support.run_bulk import run_bulk

SUSPENDED = EventFilter(state="suspended")
GONE = EventFilter(state="suspended", handler="p:gone")

pytestmark = pytest.mark.either


def nothing(event):
    """Do nothing."""


@pytest.fixture
def flow(harness, listens):
    """A ledger with three waiting deliveries each of a removed handler `gone`, of `moved`, and of a loaded `here`."""
    gone, moved, here = (listens(nothing, name=name) for name in ("gone", "moved", "here"))
    flow = harness.open(gone, moved, here, start=False)
    for number in range(3):
        flow.take(f"i{number}", wait=0)
    flow.close()
    return harness.open(here, start=False)


def by_handler(flow):
    """The states of the deliveries of each handler."""
    return {
        handler: [state for _, state in rows]
        for handler in ("gone", "moved", "here")
        if (rows := flow.sql("SELECT id, state FROM deliveries WHERE handler = ? ORDER BY id", f"p:{handler}"))
    }


def test_the_deliveries_of_one_handler_are_closed(flow, context_of, audit_entries):
    """Only the named handler's deliveries are closed; the note is stored with each of them, and in one audit entry."""
    done = run_bulk(context_of(flow), BulkAction.CLOSE, GONE, note="done by hand")
    assert (done.planned, done.released, done.changed) == (3, 3, 0)
    assert by_handler(flow) == {"gone": ["closed"] * 3, "moved": ["waiting"] * 3, "here": ["waiting"] * 3}
    assert flow.sql("SELECT DISTINCT handler FROM deliveries WHERE comment = 'done by hand'") == [("p:gone",)]
    (entry,) = audit_entries(flow)
    assert (entry.actor, entry.action, entry.target) == ("ann", "operation", done.id)
    assert (entry.detail["deliveries"], entry.detail["note"]) == (3, "done by hand")
    assert entry.detail["event_filter"] == {"handler": "p:gone", "state": "suspended"}


def test_the_listed_suspended_deliveries_are_closed(flow):
    """A search for the state `suspended` finds the events whose deliveries are closed, and none after that."""
    (first, *_) = flow.events()
    with flow.app.ledger.connection() as connection:
        listed = [event.id for event in search_events(connection, GONE, limit=10).events]
    assert sorted(listed) == sorted(flow.events(state="suspended", handler="p:gone")) == sorted(flow.events())
    assert flow.events(state="suspended", handler="p:here") == []
    assert run_bulk(flow.app.operation_context, BulkAction.CLOSE, replace(GONE, ids=(first,))).released == 1
    assert first not in flow.events(state="suspended", handler="p:gone")
    assert run_bulk(flow.app.operation_context, BulkAction.CLOSE, GONE).released == 2
    assert flow.events(state="suspended", handler="p:gone") == []


def test_only_suspended_deliveries_are_closed_without_a_handler(flow):
    """Deliveries of a loaded handler are not in the plan, and closed ones are not in a later plan."""
    assert run_bulk(flow.app.operation_context, BulkAction.CLOSE, SUSPENDED).released == 6
    assert by_handler(flow)["here"] == ["waiting"] * 3
    assert run_bulk(flow.app.operation_context, BulkAction.CLOSE, SUSPENDED).planned == 0


@pytest.mark.parametrize(
    ("action", "state"), [(BulkAction.CLOSE, "succeeded"), (BulkAction.REPLAY, "suspended")], ids=["close", "replay"]
)
def test_a_state_that_the_action_cannot_change_is_refused(flow, action, state):
    """A filter for such a state is a mistake, and plans nothing."""
    with pytest.raises(InvalidTransition, match=f"{action} acts on deliveries that are .* with the state {state}"):
        plan_operation(flow.app.operation_context, action, EventFilter(state=state))
    assert flow.sql("SELECT count(*) FROM operations") == [(0,)]


def test_a_plan_counts_and_changes_nothing(flow, context_of, audit_entries):
    """A plan has the number of the deliveries that would be closed; it is not audited."""
    assert plan_operation(context_of(flow), BulkAction.CLOSE, GONE).planned == 3
    assert by_handler(flow)["gone"] == ["waiting"] * 3
    assert audit_entries(flow) == []


def test_a_delivery_whose_handler_returned_is_not_closed(flow, harness):
    """A delivery that got a due time after the plan is not closed, because its handler is there again."""
    harness.check_at_end = False
    planned = plan_operation(flow.app.operation_context, BulkAction.CLOSE, GONE)
    flow.sql("UPDATE deliveries SET due_at = 1 WHERE handler = 'p:gone'")
    start_operation(flow.app.operation_context, planned.id)
    done = release_all(flow.app.operation_context, planned.id)
    assert (done.released, done.changed) == (0, 3)
    assert by_handler(flow)["gone"] == ["waiting"] * 3


def test_a_closed_delivery_stays_closed_when_the_handler_returns(flow, harness, listens, eventually):
    """The handler is installed again: its closed deliveries do not run, the others do."""
    run_bulk(flow.app.operation_context, BulkAction.CLOSE, GONE)
    flow.close()
    ran = []
    flow = harness.open(
        listens(lambda event: ran.append("gone"), name="gone"),
        listens(lambda event: ran.append("moved"), name="moved"),
        listens(nothing, name="here"),
    )
    eventually(lambda: by_handler(flow)["moved"] == ["succeeded"] * 3)
    eventually(flow.is_idle)
    assert ran == ["moved"] * 3
    assert by_handler(flow)["gone"] == ["closed"] * 3


def test_a_locked_database_closes_no_delivery(flow, monkeypatch):
    """While the database is locked nothing is closed, and the release can be repeated."""
    monkeypatch.setattr("flowhooks.ledger.database.engines.BUSY_SECONDS", 0.05)
    planned = plan_operation(flow.app.operation_context, BulkAction.CLOSE, SUSPENDED)
    start_operation(flow.app.operation_context, planned.id)
    with flow.locked(timeout=1), pytest.raises(Unavailable):
        release_all(flow.app.operation_context, planned.id)
    assert by_handler(flow)["gone"] == ["waiting"] * 3
    assert release_all(flow.app.operation_context, planned.id).released == 6
