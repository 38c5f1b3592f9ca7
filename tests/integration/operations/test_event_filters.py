"""Every field of a filter restricts every operation that takes a filter, or the operation refuses it."""

from __future__ import annotations

from dataclasses import fields

import pytest

from flowhooks import Reject
from flowhooks.errors import FlowhooksError, SettingsError
from flowhooks.ledger.purge import EVALUATED
from flowhooks.ledger.queries import EventFilter
from flowhooks.model.bulk_operation import BulkAction
from flowhooks.model.search_fields import FieldCondition
from flowhooks.operations.bulk import plan_operation
from flowhooks.operations.dismiss import dismiss
from flowhooks.operations.purge import purge
from flowhooks.operations.reroute import reroute

pytestmark = pytest.mark.either

LATER = 2**57
OTHER = {
    "ids": ("other",),
    "flow_instance_id": "other",
    "business_key": "other",
    "callback_class": "other",
    "process_key": "other",
    "conclusion": "other",
    "dismissed_by": "callback",
    "origin": "correction",
    "trace_id": "0" * 32,
    "handler": "other:other",
    "state": "running",
    "error_group": "0123456789abcdef",
    "since": LATER,
    "until": 1,
    "delivery_ids": ("other",),
    "plugin": "other",
    "trigger": "probe",
    "attempted_since": LATER,
    "ran_by": "other",
    "query": "other",
    "fields": (FieldCondition("/x", "=", "other"),),
    "handler_plugins": ("other",),
}
"""For each field of a filter a value that no event of the ledger has."""


def work(event):
    """Succeed, or fail finally."""
    if event.flow_instance_id == "dead":
        raise Reject("no")


@pytest.fixture
def flow(harness, listens):
    """A ledger with a succeeded, a dead, a parked and a dismissed event."""
    flow = harness.open(
        listens(work, name="work", process_key="work"),
        routing={"ignore_process_keys": ("ignored",)},
        search={"fields": ("/x",)},
    )
    flow.take("done", key="work")
    flow.take("dead", key="work")
    flow.take("parked", key="nobody")
    flow.take("dismissed", key="ignored")
    flow.clock.advance(86_400)
    return flow


def purged(context, **criteria):
    """The number of events that a purge selects, besides those that it examines."""
    return purge(context, EventFilter(**{"until": LATER, **criteria}), dry_run=True).purged


def examined(operation):
    """The number of events that another operation selects."""
    return lambda context, **criteria: operation(context, EventFilter(**criteria), dry_run=True).events


def planned(context, **criteria):
    """The number of deliveries that a bulk operation selects."""
    return plan_operation(context, BulkAction.REPLAY, EventFilter(**criteria)).planned


SELECTED = {
    "purge": (purged, 2),
    "dismiss": (examined(dismiss), 1),
    "reroute": (examined(reroute), 4),
    "plan_operation": (planned, 1),
}


def test_every_filter_field_restricts_or_is_refused(flow):
    """A value that no event has selects nothing, or the operation is refused: it never acts on more events."""
    context = flow.app.operation_context
    assert {name: select(context) for name, (select, _) in SELECTED.items()} == {
        name: number for name, (_, number) in SELECTED.items()
    }
    assert set(OTHER) == {field.name for field in fields(EventFilter)}, "give the new field a value here"
    ignored = [
        (name, field)
        for name, (select, _) in SELECTED.items()
        for field, value in OTHER.items()
        if not selects_nothing(select, context, field, value)
    ]
    assert ignored == []


def selects_nothing(select, context, field, value):
    """Whether an operation selects nothing with this value, or is refused for it."""
    try:
        return select(context, **{field: value}) == 0
    except FlowhooksError as refusal:
        return any(text in str(refusal) for text in (field, field.replace("_", " "), str(value)))


@pytest.mark.parametrize("field", [field.name for field in fields(EventFilter) if field.name not in EVALUATED])
def test_a_purge_names_the_refused_field(flow, field):
    """A purge that cannot evaluate a field of its filter says so."""
    with pytest.raises(SettingsError, match=rf"a purge cannot select events by {field}$"):
        purge(flow.app.operation_context, EventFilter(**{"until": LATER, field: OTHER[field]}))


@pytest.mark.parametrize(
    ("criteria", "left"),
    [
        ({"conclusion": "approved"}, {"dead", "parked", "dismissed"}),
        ({"origin": "callback"}, {"dead", "parked"}),
        ({"dismissed_by": "setting"}, {"done", "dead", "parked"}),
    ],
    ids=["conclusion", "origin", "dismissed_by"],
)
def test_a_purge_selects_by_properties_of_the_event(flow, criteria, left):
    """A purge deletes only the events with the conclusion, the origin or the reason of its filter."""
    flow.sql("UPDATE events SET conclusion = 'approved' WHERE flow_instance_id = 'done'")
    purge(flow.app.operation_context, EventFilter(until=LATER, **criteria))
    assert {name for (name,) in flow.sql("SELECT flow_instance_id FROM events")} == left
