"""Indexed fields: stored with each event of any origin, for stored events by an operation, deleted by a purge."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flowhooks.errors import IdentityConflict, SettingsError
from flowhooks.ledger import audit, event_fields
from flowhooks.ledger.queries import EventFilter
from flowhooks.model.bulk_operation import BulkAction
from flowhooks.model.search_fields import parse_field_condition
from flowhooks.operations import index_fields
from flowhooks.operations.bulk import plan_operation
from flowhooks.operations.context import Actor
from flowhooks.operations.corrections import accept_correction
from flowhooks.operations.purge import purge
from flowhooks.operations.registry import run_operation
from flowhooks.settings import SearchSettings
from support.app_harness import ingress_callback
from support.run_bulk import run_bulk
from support.silent_engine import with_silent_engine

FIELDS = ("/amount", "/vendor")
SEARCH = {"fields": FIELDS}


def by(*conditions, **more):
    """A filter by conditions on fields."""
    return EventFilter(fields=tuple(map(parse_field_condition, conditions)), **more)


def context_of(flow, **settings):
    """The context of an operator, with other values of some settings of the search."""
    context = replace(flow.app.operation_context, by=Actor("ann", "cli"))
    return replace(context, settings=replace(context.settings, **settings)) if settings else context


def with_fields(flow, *fields):
    """The context of an operator of a server with these fields."""
    return context_of(flow, search=replace(flow.app.settings.search, fields=fields))


def stored(flow):
    """The indexed values: (instance, field, value, number)."""
    return flow.sql(
        "SELECT flow_instance_id, field, value, number FROM event_fields JOIN events ON events.id = event_id "
        "ORDER BY flow_instance_id, field"
    )


def index(context, **given):
    """Run the operation to its end; return the sums of events and changed events."""
    events = indexed = damaged = 0
    after = ""
    while True:
        result = run_operation(context, "index_fields", {"after": after, **given})
        events, indexed = events + result["events"], indexed + result["indexed"]
        damaged += result["damaged"]
        after = result["next"]
        if not after:
            return events, indexed, damaged


def test_events_of_every_origin_are_indexed(harness, listens):
    """A callback, a request to a fixed URL, a finished instance and a correction are indexed alike."""
    flow = harness.open(**with_silent_engine(listens(lambda event: 1, name="h")), search=SEARCH)
    original = flow.take("callback", amount=12.5, vendor="ACME", other=1).event_id
    flow.take("callback", amount=12.5, vendor="ACME", other=1)
    with pytest.raises(IdentityConflict):
        flow.take("callback", amount=13, vendor="ACME", other=1)
    flow.app.intake.accept_all([ingress_callback("ingress", amount=7), ingress_callback("second", vendor="B")])
    flow.take_in("pulled", vendor="C")
    assert stored(flow) == [
        ("callback", "/amount", "12.5", 12.5),
        ("callback", "/vendor", "ACME", None),
        ("ingress", "/amount", "7", 7.0),
        ("pulled", "/vendor", "C", None),
        ("second", "/vendor", "B", None),
    ]
    digest = flow.app.ledger.conflicts(original)[-1].digest
    corrected = accept_correction(context_of(flow), original, digest, note="the sum was wrong")
    assert flow.events(fields=by("/amount=13").fields) == [corrected.event_id]
    assert flow.events(fields=by("/vendor=ACME").fields) == [original, corrected.event_id]


def test_a_late_callback_replaces_the_values(harness, listens):
    """An event that takes over the body of its late callback is found by the values of that body."""
    flow = harness.open(**with_silent_engine(listens(lambda event: 1, name="h", process_key="other")), search=SEARCH)
    event_id = flow.take_in("late", key="leave", amount=1, vendor="A").event_id
    flow.take("late", key="leave", source="oa", amount=2)
    assert stored(flow) == [("late", "/amount", "2", 2.0)]
    assert flow.events(fields=by("/amount=2").fields) == [event_id]


def test_a_callback_without_declared_fields_does_not_use_the_table(harness, listens):
    """Without declared fields, a callback does not use the table of their values: it is accepted without that table."""
    harness.check_at_end = False
    flow = harness.open(listens(lambda event: 1, name="h"))
    flow.sql("ALTER TABLE event_fields RENAME TO away")
    assert flow.take("i1", amount=1, vendor="A").status == "done"
    flow.sql("ALTER TABLE away RENAME TO event_fields")
    assert stored(flow) == []


def test_callbacks_after_a_reload_are_indexed_by_new_fields(harness, listens):
    """A callback that is received after a reload of the settings is indexed by the new fields."""
    flow = harness.open(listens(lambda event: 1, name="h"), search={"fields": ("/amount",)})
    flow.app.reload(replace(flow.app.settings, search=SearchSettings(fields=("/vendor",))))
    flow.take("i1", amount=1, vendor="A")
    assert stored(flow) == [("i1", "/vendor", "A", None)]


@pytest.mark.either
def test_a_purge_deletes_the_values(harness, listens):
    """The values of a purged event are deleted with it."""
    flow = harness.open(listens(lambda event: 1, name="h"), search=SEARCH)
    event_id = flow.take("i1", amount=1).event_id
    flow.take("i2", amount=2)
    flow.advance(10)
    assert purge(context_of(flow), EventFilter(ids=(event_id,), until=flow.clock.now())).purged == 1
    assert stored(flow) == [("i2", "/amount", "2", 2.0)]


def test_stored_events_are_indexed(harness, listens, monkeypatch):
    """The operation indexes stored events page by page, removes other fields, and changes nothing when repeated."""
    monkeypatch.setattr(index_fields, "PAGE_SIZE", 2)
    flow = harness.open(listens(lambda event: 1, name="h"), search={"fields": ("/old", "/amount")})
    for number in range(5):
        flow.take(f"i{number}", amount=number, vendor=f"V{number}", old="x")
    flow.take("none", other=1)
    assert [row[1] for row in stored(flow)] == ["/amount", "/old"] * 5
    context = with_fields(flow, *FIELDS)
    assert index(context, dry_run=True) == (6, 5, 0)
    assert len(stored(flow)) == 10
    assert index(context) == (6, 5, 0)
    assert stored(flow) == [
        row
        for number in range(5)
        for row in ((f"i{number}", "/amount", str(number), number), (f"i{number}", "/vendor", f"V{number}", None))
    ]
    assert index(context) == (6, 0, 0)
    (entry,) = audit_entries(flow, "index_fields")
    assert entry.detail["fields"] == list(FIELDS)
    assert entry.detail["events"] == 5
    assert index(with_fields(flow)) == (6, 5, 0)
    assert stored(flow) == []


def test_a_concurrently_changed_event_is_not_indexed(harness, listens):
    """Values of a body that was replaced, or of an event that was purged, after they were read are not stored."""
    flow = harness.open(**with_silent_engine(listens(lambda event: 1, name="h", process_key="other")))
    flow.take_in("late", key="leave", amount=1)
    gone = flow.take("gone", key="other", amount=5).event_id
    with flow.app.ledger.connection() as connection:
        page = event_fields.find_changes(connection, FIELDS, after="", limit=9)
    assert len(page.changes) == 2
    flow.take("late", key="leave", source="oa", amount=2)
    flow.advance(10)
    assert purge(context_of(flow), EventFilter(ids=(gone,), until=flow.clock.now())).purged == 1
    changed = flow.app.ledger.write(lambda transaction: event_fields.apply_changes(transaction, page.changes))
    assert changed == 0
    assert stored(flow) == []


@pytest.mark.either
def test_a_damaged_body_is_counted(harness, listens):
    """An event whose body is no JSON is left as it is, and the others are indexed."""
    harness.check_at_end = False
    flow = harness.open(listens(lambda event: 1, name="h"))
    for name in ("good", "bad"):
        flow.take(name, amount=1)
    flow.sql("UPDATE events SET body = '{' WHERE flow_instance_id = 'bad'")
    assert index(with_fields(flow, *FIELDS)) == (2, 1, 1)
    assert stored(flow) == [("good", "/amount", "1", 1.0)]


@pytest.mark.either
def test_a_bulk_operation_filtered_by_an_indexed_field(harness, listens):
    """Only the deliveries of matching events are changed; a field that is not indexed is refused by name."""

    def fail(event):
        raise ValueError("no")

    flow = harness.open(listens(fail, name="h"), search=SEARCH)
    for amount in (1, 500, 1000):
        flow.take(f"i{amount}", amount=amount)
    context = context_of(flow)
    assert plan_operation(context, BulkAction.CLOSE, by("/amount>=500", state="dead")).planned == 2
    assert run_bulk(context, BulkAction.CLOSE, by("/amount>=1000")).released == 1
    arguments = {"action": "close", "event_filter": {"fields": ["/amount>=500"]}}
    assert run_operation(context, "plan_operation", arguments)["planned"] == 1
    for name in ("plan_operation", "reroute"):
        given = {"event_filter": {"fields": ["/total>=500"]}} | ({"action": "close"} if name != "reroute" else {})
        with pytest.raises(SettingsError, match=r"by /total: search\.fields names /amount, /vendor"):
            run_operation(context, name, given)
    for wrong in (["amount"], [], "/amount=1", [1]):
        with pytest.raises(SettingsError):
            run_operation(context, "reroute", {"event_filter": {"fields": wrong}})
    with pytest.raises(SettingsError, match="a purge cannot select events by fields"):
        run_operation(context, "purge", {"event_filter": {"fields": ["/amount=1"], "until": 1}})
    assert [entry.detail["event_filter"] for entry in audit_entries(flow, "operation")] == [
        {"fields": ["/amount>=1000"]}
    ]


def audit_entries(flow, action):
    """The entries of the audit log about an action."""
    with flow.app.ledger.connection() as connection:
        return audit.entries(connection, limit=9, action=action)
