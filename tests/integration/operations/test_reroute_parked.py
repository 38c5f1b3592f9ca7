"""Reroute parked events: they are delivered when a handler matches, oldest first and once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flowhooks import State
from flowhooks.errors import Unavailable
from flowhooks.ledger import row_stream
from flowhooks.ledger.queries import EventFilter
from flowhooks.operations import reroute as module
from flowhooks.operations.dismiss import dismiss
from flowhooks.operations.parked import count_deliverable, list_parked_groups
from flowhooks.operations.reroute import reroute, reroute_parked
from flowhooks.settings import RoutingSettings
from support.sent_statements import record_statements

pytestmark = pytest.mark.runners


def parked(harness, *handlers, count=3, **given):
    """Park callbacks that match no handler yet, and stop; return the events' ids."""
    flow = harness.open(*handlers, **given)
    for number in range(count):
        flow.clock.advance(1)
        assert flow.take(f"i{number}").status == "parked"
    ids = flow.events()
    flow.close()
    return ids


def test_a_start_delivers_parked_events_oldest_first(harness, listens):
    """After a handler is installed, the next start creates the deliveries of its parked events, oldest first."""
    ids = parked(harness, count=5)
    runs = []
    flow = harness.open(listens(lambda event: runs.append(event.flow_instance_id), name="h"))
    # A later delivery may run first: the runner starts at the same time, and then a thread is free for it.
    delivery_ids = [flow.settled(event_id, State.SUCCEEDED).delivery_id for event_id in ids]
    assert delivery_ids == sorted(delivery_ids)
    assert sorted(runs) == [f"i{number}" for number in range(5)]
    assert flow.app.ledger.parked() == []
    assert flow.app.ledger.event(ids[0]).route == {"p:h": "key leave"}


def test_events_that_match_no_handler_stay_parked(harness, listens):
    """Events that match no handler stay parked."""
    flow = harness.open()
    wanted, other = flow.take("i1").event_id, flow.take("i2", key="else").event_id
    flow.close()
    flow = harness.open(listens(lambda event: 1, name="h"))
    flow.settled(wanted, State.SUCCEEDED)
    assert flow.app.ledger.event(other).state == "parked"


def test_a_dry_run_counts_and_changes_nothing(harness, listens):
    """A dry run returns the count and changes nothing."""
    ids = parked(harness)
    flow = harness.open(listens(lambda event: 1, name="a"), listens(lambda event: 1, name="b"), start=False)
    done = reroute_parked(flow.app.operation_context, dry_run=True)
    assert (done.events, done.delivered, done.dismissed, done.deliveries, done.dry_run) == (3, 3, 0, 6, True)
    assert [flow.app.ledger.event(event_id).state for event_id in ids] == ["parked"] * 3
    assert flow.sql("SELECT count(*) FROM deliveries") == [(0,)]
    assert count_deliverable(flow.app.operation_context) == 3


def test_handlers_of_every_event_do_not_run_twice(harness, listens, eventually):
    """An `every` handler that got a parked event does not get it again with the reroute."""
    runs = []
    every = listens(lambda event: runs.append("every"), name="every", every=True)
    ids = parked(harness, every, count=1)
    assert runs == ["every"]
    flow = harness.open(every, listens(lambda event: runs.append("h"), name="h"))
    eventually(lambda: flow.app.ledger.event(ids[0]).state == "routed")
    assert flow.take("i0").status == "done"
    assert sorted(runs) == ["every", "h"]
    assert flow.app.ledger.event(ids[0]).route == {"p:every": "every", "p:h": "key leave"}


@pytest.mark.sqlite
def test_a_damaged_event_does_not_block_other_parked_events(harness, listens, logged, monkeypatch):
    """An event whose version cannot be read stays parked, and is listed; a defect is logged and ends no thread."""
    flow = harness.open(start=False)
    damaged, sound = (flow.take(f"i{number}", processDefinitionVersion=3, wait=0).event_id for number in range(2))
    flow.close()
    harness.check_at_end = False
    flow = harness.open(listens(lambda event: 1, name="h", versions=">=1"), start=False)
    flow.sql(
        "UPDATE events SET process_definition_version = 'x', process_definition_key = x'ff', received_at = 'x'"
        " WHERE id = ?",
        damaged,
    )
    flow.app.start()
    flow.settled(sound, State.SUCCEEDED)
    ((group, oldest),) = [
        (status.facts, status.oldest_received_at)
        for status in list_parked_groups(flow.app.ledger, flow.app.operation_context.router, max_events=9, n_handlers=1)
    ]
    assert (group.process_version, group.process_key, oldest) == (None, "\\xff", 0)

    def fail(*_given, **_named):
        raise RuntimeError("x")

    monkeypatch.setattr(module, "reroute_parked", fail)
    flow.app._parked_rerouter.run()
    assert "parked_reroute_fault" in {entry["event"] for entry in logged}


def test_keys_that_need_no_handler_are_dismissed(harness):
    """When new settings ignore a key, its parked events are dismissed."""
    ids = parked(harness)
    flow = harness.open(routing={"ignore_process_keys": ("leave",)}, start=False)
    done = reroute_parked(flow.app.operation_context)
    assert (done.delivered, done.dismissed, done.deliveries) == (0, 3, 0)
    assert [flow.app.ledger.event(event_id).state for event_id in ids] == ["dismissed"] * 3
    assert flow.take("i0").status == "done"


def callback_in_progress(flow, monkeypatch):
    """Store a callback with the present routes at the end of the next reroute; return the list of its answer."""
    rerouter, before, answers = flow.app._parked_rerouter, flow.app.intake.config, []
    reroute_all = rerouter.run

    def run():
        reroute_all()
        if not answers:
            answers.append(flow.take("late", wait=0, config=before))

    monkeypatch.setattr(rerouter, "run", run)
    monkeypatch.setattr(rerouter, "_repeat_delay", 0.0)
    return answers


def test_a_callback_in_progress_at_a_reload_is_routed_by_the_new_settings(harness, eventually, monkeypatch):
    """An event that is stored with the old routes after the reroute is routed again later."""
    flow = harness.open(start=False)
    answers = callback_in_progress(flow, monkeypatch)
    flow.app.reload(replace(flow.app.settings, routing=RoutingSettings(ignore_process_keys=("leave",))))
    (answer,) = eventually(lambda: answers)
    assert answer.status == "parked"
    eventually(lambda: flow.app.ledger.event(answer.event_id).state == "dismissed")


@pytest.mark.postgresql
def test_a_callback_in_progress_when_a_handler_is_added_is_delivered(harness, listens, eventually, monkeypatch):
    """An event that is stored with the old routes is routed again, without another change or heartbeat."""
    flow = harness.open(start=False)
    answers = callback_in_progress(flow, monkeypatch)
    harness.open(listens(lambda event: 1, name="h"))
    flow.app.cluster.poll()
    (answer,) = eventually(lambda: answers)
    assert answer.status == "parked"
    flow.settled(answer.event_id, State.SUCCEEDED)


def test_each_call_handles_one_page(harness, listens, monkeypatch):
    """Each call handles a limited number of parked events, matching or not, and returns where to continue."""
    monkeypatch.setattr(module, "PAGE_SIZE", 2)
    flow = harness.open(start=False)
    for number in range(7):
        flow.take(f"i{number}", key="leave" if number in {0, 3, 6} else "else", wait=0)
    flow.close()
    flow = harness.open(listens(lambda event: 1, name="h"), start=False)
    pages, after = [], ""
    while True:
        done = reroute_parked(flow.app.operation_context, after=after)
        pages.append((done.events, done.delivered))
        if not (after := done.next):
            break
    assert pages == [(2, 1), (2, 1), (2, 0), (1, 1)]
    assert sum(group.events for group in flow.app.ledger.parked()) == 4


def test_large_events_end_a_page_earlier(harness, listens, monkeypatch):
    """Fewer events are in memory at a time if their bodies are large, and none is left out."""
    monkeypatch.setattr(row_stream, "MAX_BATCH_CHARS", 10_000)
    flow = harness.open(start=False)
    for number in range(5):
        flow.take(f"i{number}", text="x" * 6_000, wait=0)
    dry_run = dismiss(flow.app.operation_context, EventFilter(), dry_run=True)
    assert (dry_run.events, dry_run.next) == (2, flow.events()[1])
    flow.close()
    flow = harness.open(listens(lambda event: 1, name="h"), start=False)
    dry_run = reroute(flow.app.operation_context, EventFilter(), dry_run=True)
    assert (dry_run.events, dry_run.next) == (2, flow.events()[1])
    delivered, after = [], ""
    while True:
        done = reroute_parked(flow.app.operation_context, after=after)
        delivered.append(done.delivered)
        if not (after := done.next):
            break
    assert delivered == [2, 2, 1]


def test_events_that_stay_parked_are_skipped_in_large_groups(harness, listens, monkeypatch):
    """Groups of a few thousand events are read at a time; those that stay as they are cost no more than that."""
    monkeypatch.setattr(module, "WINDOW_SIZE", 2)
    monkeypatch.setattr(module, "MAX_WINDOWS", 2)
    flow = harness.open(start=False)
    ids = [flow.take(f"i{number}", key="leave" if number == 5 else "else", wait=0).event_id for number in range(8)]
    flow.close()
    flow = harness.open(listens(lambda event: 1, name="h"), start=False)
    with record_statements(flow.app.ledger._engine) as taken:
        first = reroute_parked(flow.app.operation_context)
        second = reroute_parked(flow.app.operation_context, after=first.next)
        third = reroute_parked(flow.app.operation_context, after=ids[5])
    assert (first.events, first.next) == (0, ids[3])
    assert (second.events, second.delivered, second.next) == (4, 1, "")
    assert (third.events, third.next) == (0, "")
    assert all("LIMIT" in statement for statement, _ in taken if "FROM events" in statement)


def test_a_start_delivers_every_page(harness, listens, monkeypatch):
    """A start delivers all pages."""
    ids = parked(harness, count=7)
    monkeypatch.setattr(module, "PAGE_SIZE", 2)
    flow = harness.open(listens(lambda event: 1, name="h"))
    for event_id in ids:
        flow.settled(event_id, State.SUCCEEDED)


@pytest.mark.sqlite
def test_a_drained_delivery_waits_for_its_missing_handler(harness, listens):
    """An event that matches a known but missing handler gets a delivery without a due time."""
    ids = parked(harness, count=1)
    harness.open(listens(lambda event: 1, name="h"), start=False).close()
    flow = harness.open(start=False)
    assert reroute_parked(flow.app.operation_context).deliveries == 1
    assert flow.only(ids[0]).due_at is None


def test_concurrent_drains_deliver_once(harness, listens, together):
    """With any number of concurrent reroutes, each event gets its deliveries once."""
    ids = parked(harness)
    flow = harness.open(listens(lambda event: 1, name="h"), start=False)
    together(*[lambda: reroute_parked(flow.app.operation_context)] * 4)
    assert [len(flow.delivery_statuses(event_id)) for event_id in ids] == [1, 1, 1]


def test_a_drain_without_parked_events(harness, listens):
    """Without parked events nothing changes."""
    flow = harness.open(listens(lambda event: 1, name="h"), start=False)
    done = reroute_parked(flow.app.operation_context)
    assert (done.events, done.delivered, done.next) == (0, 0, "")


def test_a_failed_drain_changes_nothing(harness, listens, monkeypatch):
    """While the database is locked the reroute is refused, and can be repeated."""
    monkeypatch.setattr("flowhooks.ledger.database.engines.BUSY_SECONDS", 0.05)
    ids = parked(harness)
    flow = harness.open(listens(lambda event: 1, name="h"), start=False)
    with flow.locked(), pytest.raises(Unavailable):
        reroute_parked(flow.app.operation_context)
    assert [flow.app.ledger.event(event_id).state for event_id in ids] == ["parked"] * 3
    assert reroute_parked(flow.app.operation_context).delivered == 3
