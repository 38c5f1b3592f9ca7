"""Replay: dead deliveries run again on a fresh schedule, other deliveries stay, and no event is routed again."""

from __future__ import annotations

import pytest

from flowhooks import Reject, Retry, State
from flowhooks.clock import SECOND
from flowhooks.errors import Unavailable
from flowhooks.ledger.queries import EventFilter
from flowhooks.operations import replay as module
from flowhooks.operations.replay import replay

ALL = EventFilter()

pytestmark = pytest.mark.runners


class Works:
    """A handler that fails until it is fixed."""

    def __init__(self, error=None):
        self.error = error or ValueError("broken")
        self.runs = []

    def __call__(self, event, delivery):
        """Fail until fixed."""
        self.runs.append((event.flow_instance_id, delivery.attempt))
        if self.error:
            raise self.error


@pytest.fixture
def works():
    """A handler that fails until it is fixed."""
    return Works()


def test_what_is_dead_runs_again(harness, listens, works):
    """A dead delivery waits again, and succeeds once its handler is fixed; its history is kept."""
    flow = harness.open(listens(works, name="h"))
    event_id = flow.take().event_id
    works.error = None
    done = replay(flow.app.operation_context, ALL)
    assert (done.events, done.deliveries, done.skipped, done.changed_meanwhile, done.next) == (1, 1, 0, 0, "")
    standing = flow.settled(event_id, State.SUCCEEDED)
    assert standing.attempt == 2
    assert [one.error for one in flow.app.ledger.attempts(standing.delivery_id)] == ["ValueError: broken", ""]
    assert works.runs == [("i1", 1), ("i1", 2)]


def test_the_retry_schedule_starts_anew(harness, listens, works):
    """After a replay the handler gets all declared attempts again, with the delays from the first."""
    flow = harness.open(listens(works, name="h", retry=Retry(attempts=2, delays=(7,))))
    event_id = flow.take(wait=0).event_id
    flow.settled(event_id, State.WAITING, attempt=1)
    flow.advance(7)
    flow.settled(event_id, State.DEAD, attempt=2)
    replay(flow.app.operation_context, ALL)
    assert flow.settled(event_id, State.WAITING, attempt=3).due_at == flow.clock.now() + 7 * SECOND
    flow.advance(7)
    flow.settled(event_id, State.DEAD, attempt=4)


def test_what_was_rejected_may_be_replayed(harness, listens):
    """A rejected event can be replayed, because an operator may have changed its circumstances."""
    works = Works(Reject("no such contract"))
    flow = harness.open(listens(works, name="h"))
    event_id = flow.take().event_id
    works.error = None
    assert replay(flow.app.operation_context, ALL).deliveries == 1
    flow.settled(event_id, State.SUCCEEDED)


def test_what_succeeded_runs_again_only_when_asked(harness, listens, works):
    """A succeeded delivery is skipped without `again`, and runs a second time with it."""
    works.error = None
    flow = harness.open(listens(works, name="h"))
    event_id = flow.take().event_id
    done = replay(flow.app.operation_context, ALL)
    assert (done.deliveries, done.skipped) == (0, 1)
    done = replay(flow.app.operation_context, ALL, again=True)
    assert (done.deliveries, done.skipped) == (1, 0)
    flow.settled(event_id, State.SUCCEEDED, attempt=2)
    assert works.runs == [("i1", 1), ("i1", 2)]


def test_waiting_running_unknown_and_closed_are_passed_over(harness, listens, works):
    """Only dead deliveries are replayed, and succeeded ones on request."""
    harness.check_books = False
    flow = harness.open(listens(works, name="h"), start=False)
    for number, state in enumerate(("waiting", "running", "unknown", "closed")):
        flow.take(f"i{number}", wait=0)
        flow.sql("UPDATE deliveries SET state = ? WHERE id = (SELECT max(id) FROM deliveries)", state)
    before = flow.sql("SELECT * FROM deliveries")
    done = replay(flow.app.operation_context, ALL, again=True)
    assert (done.events, done.deliveries, done.skipped) == (4, 0, 4)
    assert flow.sql("SELECT * FROM deliveries") == before


def test_a_dry_run_changes_nothing(harness, listens, works):
    """A dry run returns the count and changes no row."""
    flow = harness.open(listens(works, name="h"))
    flow.take()
    before = flow.sql("SELECT * FROM deliveries"), flow.sql("SELECT * FROM attempts")
    done = replay(flow.app.operation_context, ALL, dry_run=True)
    assert (done.deliveries, done.dry_run) == (1, True)
    assert (flow.sql("SELECT * FROM deliveries"), flow.sql("SELECT * FROM attempts")) == before
    assert len(works.runs) == 1


def test_a_handler_in_the_filter_means_its_deliveries_only(harness, listens, works):
    """Of an event with two dead deliveries only the named handler's runs again."""
    other = Works()
    flow = harness.open(listens(works, name="h"), listens(other, name="other"))
    answer = flow.take()
    works.error = other.error = None
    done = replay(flow.app.operation_context, EventFilter(handler="p:h"))
    assert (done.events, done.deliveries, done.skipped) == (1, 1, 0)
    (repaired,) = [one for one in answer.delivery_statuses if one.handler == "p:h"]
    flow.settled(answer.event_id, State.SUCCEEDED)
    assert flow.app.ledger.delivery(repaired.delivery_id)[1].attempt == 2
    assert len(other.runs) == 1


def test_a_state_in_the_filter_means_such_deliveries_only(harness, listens, works):
    """Succeeded deliveries of events with a dead one do not run again, even with `again`."""
    good = Works()
    good.error = None
    flow = harness.open(listens(works, name="h"), listens(good, name="good"))
    event_id = flow.take().event_id
    works.error = None
    assert replay(flow.app.operation_context, EventFilter(state="dead"), again=True).deliveries == 1
    flow.settled(event_id, State.SUCCEEDED, attempt=2)
    assert len(good.runs) == 1


def test_an_event_that_is_not_meant_is_left_alone(harness, listens, works):
    """Events outside the filter do not change."""
    flow = harness.open(listens(works, name="h"))
    first, second = flow.take("i1").event_id, flow.take("i2").event_id
    works.error = None
    assert replay(flow.app.operation_context, EventFilter(flow_instance_id="i1")).events == 1
    flow.settled(first, State.SUCCEEDED)
    assert flow.only(second).state is State.DEAD


def test_more_than_a_page_is_gone_through_page_by_page(harness, listens, works, monkeypatch):
    """Each call handles a limited number of events and returns where to continue, until each was replayed once."""
    monkeypatch.setattr(module, "PAGE_SIZE", 10)
    flow = harness.open(listens(works, name="h"))
    for number in range(25):
        flow.take(f"i{number}", wait=0)
    for event_id in flow.events():
        flow.settled(event_id, State.DEAD)
    works.error = None
    pages, after = [], ""
    while True:
        done = replay(flow.app.operation_context, EventFilter(state="dead"), after=after)
        pages.append((done.events, done.deliveries))
        if not (after := done.next):
            break
    assert pages == [(10, 10), (10, 10), (5, 5)]
    for event_id in flow.events():
        flow.settled(event_id, State.SUCCEEDED, attempt=2)


def test_a_page_that_is_just_full_is_followed_by_an_empty_one(harness, listens, works, monkeypatch):
    """After a full last page, the next call finds no event and reports the end."""
    monkeypatch.setattr(module, "PAGE_SIZE", 2)
    flow = harness.open(listens(works, name="h"))
    flow.take("i1")
    flow.take("i2")
    first = replay(flow.app.operation_context, ALL, dry_run=True)
    assert first.next == flow.events()[-1]
    last = replay(flow.app.operation_context, ALL, after=first.next, dry_run=True)
    assert (last.events, last.next) == (0, "")


def test_what_has_moved_on_meanwhile_is_left_alone_and_counted(harness, listens, works, monkeypatch):
    """A delivery that changed since it was read is not replayed, and is counted."""
    flow = harness.open(listens(works, name="h"))
    flow.take("i1")
    flow.take("i2")
    real = flow.app.ledger.page

    def page(*given, **more):
        read = real(*given, **more)
        monkeypatch.undo()
        assert replay(flow.app.operation_context, EventFilter(flow_instance_id="i1")).deliveries == 1
        return read

    monkeypatch.setattr(flow.app.ledger, "page", page)
    done = replay(flow.app.operation_context, ALL)
    assert (done.events, done.deliveries, done.changed_meanwhile) == (2, 1, 1)


def test_two_replays_at_once_run_each_delivery_once(harness, listens, works, together):
    """With any number of concurrent replays, each dead delivery gets one more attempt."""
    flow = harness.open(listens(works, name="h"))
    for number in range(10):
        flow.take(f"i{number}", wait=0)
    for event_id in flow.events():
        flow.settled(event_id, State.DEAD)
    works.error = None
    results = together(*[lambda: replay(flow.app.operation_context, EventFilter(state="dead"))] * 4)
    assert sum(one.deliveries for one in results) == 10
    for event_id in flow.events():
        flow.settled(event_id, State.SUCCEEDED, attempt=2)
    assert len(works.runs) == 20


def test_nothing_is_routed_anew(harness, listens, works):
    """A replay gives old events no delivery for a newly installed handler."""
    harness.open(listens(works, name="h")).take()
    harness.opened[-1].close()
    new = Works()
    new.error = works.error = None
    flow = harness.open(listens(works, name="h"), listens(new, name="new"))
    replay(flow.app.operation_context, ALL)
    flow.settled(flow.events()[0], State.SUCCEEDED)
    assert new.runs == []


def test_a_replay_that_cannot_be_written_changes_nothing(harness, listens, works, monkeypatch):
    """While the database is locked the replay is refused, and can be repeated."""
    monkeypatch.setattr("flowhooks.ledger.database.engines.BUSY_SECONDS", 0.05)
    flow = harness.open(listens(works, name="h"))
    event_id = flow.take().event_id
    with flow.locked(), pytest.raises(Unavailable):
        replay(flow.app.operation_context, ALL)
    assert flow.only(event_id).state is State.DEAD
    works.error = None
    assert replay(flow.app.operation_context, ALL).deliveries == 1
    flow.settled(event_id, State.SUCCEEDED)


def test_a_replay_that_was_refused_does_not_come_through_later(harness, listens, works, monkeypatch):
    """A replay that was refused by timeout is not executed when the database works again."""
    monkeypatch.setattr("flowhooks.ledger.database.engines.BUSY_SECONDS", 0.5)
    flow = harness.open(listens(works, name="h"))
    event_id = flow.take().event_id
    with flow.locked(timeout=0.1), pytest.raises(Unavailable):
        replay(flow.app.operation_context, ALL)
    flow.app.ledger.write(lambda transaction: None, timeout=20)
    assert flow.only(event_id).state is State.DEAD
    assert len(works.runs) == 1
