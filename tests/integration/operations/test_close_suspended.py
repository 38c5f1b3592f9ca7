"""Close the deliveries of removed handlers together; other deliveries stay as they are."""

from __future__ import annotations

import pytest

from flowhooks.errors import InvalidTransition, Unavailable
from flowhooks.ledger.queries import EventFilter
from flowhooks.ledger.search import search_events
from flowhooks.operations import close_suspended as module
from flowhooks.operations.close_suspended import close_suspended
from flowhooks.operations.replay import replay

ALL = EventFilter()

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


def test_the_deliveries_of_one_handler_are_closed(flow, by, deeds):
    """Only the named handler's deliveries are closed; the note is stored with each of them, and in one audit entry."""
    done = close_suspended(by(flow), EventFilter(handler="p:gone"), note="done by hand")
    assert (done.events, done.closed, done.skipped, done.changed_meanwhile, done.next) == (3, 3, 0, 0, "")
    assert by_handler(flow) == {"gone": ["closed"] * 3, "moved": ["waiting"] * 3, "here": ["waiting"] * 3}
    assert flow.sql("SELECT DISTINCT handler FROM deliveries WHERE comment = 'done by hand'") == [("p:gone",)]
    (entry,) = deeds(flow)
    assert (entry.actor, entry.action, entry.target) == ("ann", "close_suspended", "")
    assert entry.detail == {"event_filter": {"handler": "p:gone"}, "deliveries": 3, "note": "done by hand"}


def test_what_is_listed_is_what_is_closed(flow):
    """A search for the state `suspended` finds the events whose deliveries are closed, and none after that."""
    (first, *_) = flow.events()
    wanted = EventFilter(state="suspended", handler="p:gone")
    with flow.app.ledger.connection() as connection:
        listed = [one.id for one in search_events(connection, wanted, limit=10).events]
    assert sorted(listed) == sorted(flow.events(state="suspended", handler="p:gone")) == sorted(flow.events())
    assert flow.events(state="suspended", handler="p:here") == []
    done = close_suspended(flow.app.operation_context, EventFilter(ids=(first,), handler="p:gone"))
    assert (done.events, done.closed) == (1, 1)
    assert first not in flow.events(state="suspended", handler="p:gone")
    assert close_suspended(flow.app.operation_context, wanted).closed == 2
    assert flow.events(state="suspended", handler="p:gone") == []


def test_without_a_handler_only_suspended_deliveries_are_closed(flow):
    """Deliveries of a loaded handler are skipped; without a suspended delivery no event is examined."""
    done = close_suspended(flow.app.operation_context, ALL)
    assert (done.events, done.closed, done.skipped) == (3, 6, 3)
    assert by_handler(flow)["here"] == ["waiting"] * 3
    assert close_suspended(flow.app.operation_context, ALL).events == 0


def test_other_states_are_refused(flow):
    """A filter for another state is a mistake, and changes nothing."""
    with pytest.raises(InvalidTransition, match="only suspended deliveries can be closed together, not waiting ones"):
        close_suspended(flow.app.operation_context, EventFilter(state="waiting"))
    assert by_handler(flow)["gone"] == ["waiting"] * 3


def test_a_replay_of_suspended_deliveries_runs_nothing(flow, harness):
    """A filter for suspended deliveries selects no dead delivery of the same event."""
    harness.check_books = False
    flow.sql("UPDATE deliveries SET state = 'dead', due_at = NULL WHERE handler = 'p:here'")
    done = replay(flow.app.operation_context, EventFilter(state="suspended"), dry_run=True)
    assert (done.events, done.deliveries, done.skipped) == (3, 0, 6)


def test_a_dry_run_counts_and_changes_nothing(flow, by, deeds):
    """A dry run returns the count of deliveries that would be closed."""
    done = close_suspended(by(flow), EventFilter(handler="p:gone"), dry_run=True)
    assert (done.closed, done.dry_run) == (3, True)
    assert by_handler(flow)["gone"] == ["waiting"] * 3
    assert deeds(flow) == []


def test_a_page_at_a_time_with_one_audit_entry(flow, by, deeds, monkeypatch):
    """Each call handles a limited number of events; all of them share one audit entry."""
    monkeypatch.setattr(module, "PAGE_SIZE", 2)
    first = close_suspended(by(flow), EventFilter(handler="p:gone"))
    rest = close_suspended(by(flow), EventFilter(handler="p:gone"), after=first.next)
    assert [(one.closed, bool(one.next)) for one in (first, rest)] == [(2, True), (1, False)]
    (entry,) = deeds(flow)
    assert entry.detail["deliveries"] == 3


def test_a_delivery_whose_handler_came_back_is_left(flow, harness, monkeypatch):
    """A delivery that got a due time after it was read is not closed, because its handler is there again."""
    harness.check_books = False
    page = flow.app.ledger.page

    def read_then_installed(*args, **kwargs):
        read = page(*args, **kwargs)
        flow.sql("UPDATE deliveries SET due_at = 1 WHERE handler = 'p:gone'")
        return read

    monkeypatch.setattr(flow.app.ledger, "page", read_then_installed)
    done = close_suspended(flow.app.operation_context, EventFilter(handler="p:gone"))
    assert (done.closed, done.changed_meanwhile) == (0, 3)
    assert by_handler(flow)["gone"] == ["waiting"] * 3


def test_a_closed_delivery_stays_closed_when_the_handler_returns(flow, harness, listens, eventually):
    """The handler is installed again: its closed deliveries do not run, the others do."""
    close_suspended(flow.app.operation_context, EventFilter(handler="p:gone"))
    flow.close()
    ran = []
    flow = harness.open(
        listens(lambda event: ran.append("gone"), name="gone"),
        listens(lambda event: ran.append("moved"), name="moved"),
        listens(nothing, name="here"),
    )
    eventually(lambda: by_handler(flow)["moved"] == ["succeeded"] * 3)
    eventually(flow.at_rest)
    assert ran == ["moved"] * 3
    assert by_handler(flow)["gone"] == ["closed"] * 3


def test_nothing_is_closed_if_it_cannot_be_written(flow, by, deeds, monkeypatch):
    """While the database is locked nothing is closed, and the call can be repeated."""
    monkeypatch.setattr("flowhooks.ledger.database.engines.BUSY_SECONDS", 0.05)
    with flow.locked(timeout=1), pytest.raises(Unavailable):
        close_suspended(by(flow), ALL)
    assert deeds(flow) == []
    assert close_suspended(by(flow), ALL).closed == 6
