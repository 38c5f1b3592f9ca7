"""Dismissed events that now match handlers: their number, and the command that delivers them."""

from __future__ import annotations

import shlex
from dataclasses import replace

import pytest

from flowhooks.clock import SECOND
from flowhooks.ledger.queries import EventFilter
from flowhooks.operations import deliverable_events
from flowhooks.operations.context import Actor
from flowhooks.operations.deliverable_events import DismissedEvents, dismissed_by_handler, reroute_command
from flowhooks.operations.dismiss import dismiss
from flowhooks.operations.reroute import reroute

DAY = 86_400


@pytest.fixture
def counted(harness, listens):
    """A function that opens an app with handlers of these names and selectors, and counts."""

    def count(**selectors):
        flow = harness.open(*(listens(lambda event: 1, name=name, **given) for name, given in selectors.items()))
        with flow.app.ledger.connection() as connection:
            return flow, dismissed_by_handler(connection, flow.app.router)

    return count


def test_dismissed_events_that_match_a_new_handler_are_counted(harness, listens, counted):
    """Events dismissed for their conclusion or kind are counted; those dismissed by an operator or setting are not."""
    flow = harness.open(
        listens(lambda event: 1, name="a", conclusion="approved"), routing={"ignore_process_keys": ("ignored",)}
    )
    start = flow.clock.now()
    for number in range(3):
        flow.clock.advance(DAY)
        flow.take(f"r{number}", conclusion="rejected", amount=number)
    flow.take("c", kind="cancel")
    by_operator = flow.take("o", conclusion="rejected", key="other").event_id
    flow.take("n", conclusion="rejected", key="ignored")
    dismiss(replace(flow.app.operation_context, by=Actor("ann", "cli")), EventFilter(flow_instance_id="o"))
    flow.close()
    rejected = {"conclusion": "rejected", "process_key": ["leave", "other", "ignored"]}
    flow, found = counted(
        a={"conclusion": "approved"},
        b=rejected,
        cancel={"kind": "cancel"},
        large={"conclusion": "rejected", "when": {"/amount": {"minimum": 1}}},
        all={"every": True},
    )
    assert found == {
        "p:b": DismissedEvents(3, start + DAY * SECOND),
        "p:cancel": DismissedEvents(1, start + 3 * DAY * SECOND),
        "p:large": DismissedEvents(2, start + 2 * DAY * SECOND),
    }
    command = reroute_command("p:b", found["p:b"])
    assert command == "flowhooks events reroute --handler=p:b --state=dismissed --since=2026-01-02"
    assert reroute(flow.app.operation_context, EventFilter(state="dismissed"), handler="p:b").delivered == 3
    assert reroute(flow.app.operation_context, EventFilter(ids=(by_operator,)), handler="p:b").delivered == 1
    with flow.app.ledger.connection() as connection:
        assert "p:b" not in dismissed_by_handler(connection, flow.app.router)


def test_the_count_reads_a_limited_number_of_events(harness, listens, counted, monkeypatch):
    """Only the newest events are read, without their bodies, and only a limited number of bodies."""
    assert not {"body", "raw_body"} & set(deliverable_events._NEWEST.selected_columns.keys())
    flow = harness.open(listens(lambda event: 1, name="a", conclusion="approved"))
    for number in range(6):
        flow.take(f"r{number}", conclusion="rejected", amount=number)
    flow.close()
    monkeypatch.setattr(deliverable_events, "MAX_BODIES", 2)
    monkeypatch.setattr(deliverable_events, "_BODY_BATCH_SIZE", 1)
    large = {"conclusion": "rejected", "when": {"/amount": {"minimum": 0}}}
    flow, found = counted(large=large)
    assert found["p:large"].events == 2
    flow.close()
    monkeypatch.setattr(deliverable_events, "_NEWEST", deliverable_events._NEWEST.limit(4))
    flow, found = counted(b={"conclusion": "rejected"})
    assert found["p:b"].events == 4


@pytest.mark.sqlite
@pytest.mark.parametrize("change", ["received_at = 'x'", "route = '{'", "route = '1'", "body = 'x'", "body = x'ff00'"])
def test_damaged_events_are_not_counted(harness, listens, counted, change):
    """An event that cannot be read does not keep the others from being counted."""
    harness.check_at_end = False
    flow = harness.open(listens(lambda event: 1, name="a", conclusion="approved"))
    for instance in ("damaged", "sound"):
        flow.take(instance, conclusion="rejected", amount=1)
    flow.sql(f"UPDATE events SET {change} WHERE flow_instance_id = 'damaged'")
    flow.close()
    flow, found = counted(large={"conclusion": "rejected", "when": {"/amount": {"minimum": 0}}})
    assert found["p:large"].events == 1


def test_a_start_logs_the_command_for_undelivered_events(harness, listens, logged, eventually):
    """A start logs the command once for each new or changed handler; the next start does not."""
    approved, rejected = (listens(lambda event: 1, name=name, conclusion=name) for name in ("approved", "rejected"))
    flow = harness.open(approved)
    flow.take("r", conclusion="rejected")
    flow.close()
    logged.clear()
    harness.open(approved, rejected).close()
    (entry,) = [entry for entry in logged if entry["event"] == "dismissed_events_matched"]
    assert (entry["handler"], entry["events"]) == ("p:rejected", 1)
    command = "flowhooks events reroute --handler=p:rejected --state=dismissed --since=2026-01-01"
    assert entry["next"] == f"`{command}` delivers them"
    assert shlex.split(command)[0] == "flowhooks"
    logged.clear()
    harness.open(approved, rejected).close()
    assert [entry for entry in logged if entry["event"] == "dismissed_events_matched"] == []
