"""Operations by name with JSON: invalid arguments are refused before any change."""

from __future__ import annotations

import json

import pytest

from flowhooks import State
from flowhooks.errors import NotFound, SettingsError
from flowhooks.operations.registry import OPERATIONS, filter_from_json, run_operation

REFUSED = [
    ("destroy", {}),
    ("", {}),
    ("plan_operation", {"action": "replay", "event_filter": {}, "force": True}),
    ("plan_operation", {}),
    ("plan_operation", {"action": "replay"}),
    ("plan_operation", {"event_filter": {}}),
    ("plan_operation", {"action": "destroy", "event_filter": {}}),
    ("plan_operation", {"action": None, "event_filter": {}}),
    ("plan_operation", {"action": "replay", "event_filter": {}, "rate": "fast"}),
    ("plan_operation", {"action": "replay", "event_filter": {}, "rate": True}),
    ("plan_operation", {"action": "replay", "event_filter": {}, "rate": 0}),
    ("plan_operation", {"action": "replay", "event_filter": {}, "note": None}),
    ("start_operation", {}),
    ("start_operation", {"operation_id": 1}),
    ("dismiss", {}),
    ("dismiss", {"event_filter": []}),
    ("dismiss", {"event_filter": None}),
    ("dismiss", {"event_filter": "all"}),
    ("dismiss", {"event_filter": {}, "dry_run": None}),
    ("dismiss", {"event_filter": {}, "dry_run": "yes"}),
    ("dismiss", {"event_filter": {}, "dry_run": 1}),
    ("dismiss", {"event_filter": {}, "after": 3}),
    ("dismiss", {"event_filter": {"sate": "dead"}}),
    ("dismiss", {"event_filter": {"state": "ded"}}),
    ("dismiss", {"event_filter": {"state": 1}}),
    ("dismiss", {"event_filter": {"state": ""}}),
    ("dismiss", {"event_filter": {"ids": "e1"}}),
    ("dismiss", {"event_filter": {"ids": [1]}}),
    ("dismiss", {"event_filter": {"ids": []}}),
    ("dismiss", {"event_filter": {"since": "2026-01-01"}}),
    ("dismiss", {"event_filter": {"since": 1.5}}),
    ("dismiss", {"event_filter": {"since": True}}),
    ("dismiss", {"event_filter": {"until": 2**64}}),
    ("dismiss", {"event_filter": {"narrows": True}}),
    ("resolve", {}),
    ("resolve", {"delivery_id": "d"}),
    ("resolve", {"verdict": "did"}),
    ("resolve", {"delivery_id": "d", "verdict": "maybe"}),
    ("resolve", {"delivery_id": "d", "verdict": []}),
    ("resolve", {"delivery_id": 1, "verdict": "did"}),
    ("resolve", {"delivery_id": "d", "verdict": "did", "note": None}),
    ("reroute_parked", {"dry_run": "no"}),
    ("reroute_parked", {"event_filter": {}}),
    ("reroute", {}),
    ("reroute", {"event_filter": {"state": "ded"}}),
    ("reroute", {"event_filter": {}, "note": "x"}),
    ("dismiss", {"note": "x"}),
    ("dismiss", {"event_filter": {}, "note": None}),
    ("dismiss", {"event_filter": {"ids": []}}),
    ("acknowledge", {}),
    ("acknowledge", {"alerts": "a1"}),
    ("acknowledge", {"alerts": [1]}),
    ("acknowledge", {"alerts": ["a1"], "note": 1}),
    ("dismiss", {"event_filter": {"origin": "elsewhere"}}),
    ("reconcile", {"since": "2026-01-01"}),
    ("reconcile", {"since": 2**61}),
    ("plan_operation", {"action": "replay", "event_filter": {}, "rate": 10**400}),
    ("reconcile", {"source": None}),
    ("confirm_reconciliation", {}),
    ("ask_engine", {"source": "oa"}),
    ("ask_engine", {"instance": 4711}),
    ("read_definitions", {"source": 1}),
]


@pytest.fixture
def flow(harness, listens):
    """A flow with one dead delivery."""

    def failing(event):
        raise ValueError("x")

    flow = harness.open(listens(failing, name="h"))
    flow.take(businessKey="B")
    return flow


def test_invalid_names_and_arguments_are_rejected(flow):
    """A wrong name and a wrong or missing argument are refused in one line without a change."""
    before = flow.sql("SELECT * FROM deliveries")
    for name, arguments in REFUSED:
        try:
            done = run_operation(flow.app.operation_context, name, arguments)
        except SettingsError as refusal:
            done = str(refusal)
        assert isinstance(done, str), (name, arguments)
        assert "\n" not in done
    assert flow.sql("SELECT * FROM deliveries") == before


def test_a_plan_in_json(flow):
    """The response has the planned operation as JSON."""
    arguments = {"action": "replay", "event_filter": {"business_key": "B", "state": None}}
    answer = json.loads(json.dumps(run_operation(flow.app.operation_context, "plan_operation", arguments)))
    assert {name: answer[name] for name in ("action", "event_filter", "state", "planned", "remaining")} == {
        "action": "replay",
        "event_filter": {"business_key": "B"},
        "state": "planned",
        "planned": 1,
        "remaining": 1,
    }


def test_resolving_in_json(flow):
    """A decision and a note are passed as text."""
    delivery_id = flow.only(flow.events()[0]).delivery_id
    answer = run_operation(
        flow.app.operation_context,
        "resolve",
        {"delivery_id": delivery_id, "verdict": "close", "note": "paid by hand ✓"},
    )
    assert json.loads(json.dumps(answer)) == {
        "delivery_id": delivery_id,
        "handler": "p:h",
        "before": "dead",
        "after": "closed",
        "dry_run": False,
    }
    assert flow.only(flow.events()[0]).comment == "paid by hand ✓"


def test_draining_in_json(flow):
    """Rerouting parked events needs no arguments."""
    assert run_operation(flow.app.operation_context, "reroute_parked", {})["delivered"] == 0


def test_the_error_of_an_operation_is_returned(flow):
    """An operation's own refusal is returned with its reason."""
    with pytest.raises(NotFound):
        run_operation(flow.app.operation_context, "resolve", {"delivery_id": "none", "verdict": "did"})


def test_an_internal_type_error_is_no_argument_error(flow, monkeypatch):
    """A TypeError within flowhooks is not reported as a missing argument."""

    def faulty(desk, *, dry_run=False, after=""):
        raise TypeError("ours")

    monkeypatch.setitem(OPERATIONS, "reroute_parked", (faulty, OPERATIONS["reroute_parked"][1]))
    with pytest.raises(TypeError, match="ours"):
        run_operation(flow.app.operation_context, "reroute_parked", {})


def test_a_filter_from_json():
    """Every part of a filter can be set; null and absent parts do not filter."""
    whole = {
        "ids": ["e1", "e2"],
        "flow_instance_id": "i",
        "business_key": "b",
        "callback_class": "c",
        "process_key": "k",
        "handler": "p:h",
        "state": State.DEAD.value,
        "since": 1,
        "until": 2,
    }
    read = filter_from_json("event_filter", whole)
    assert {name: getattr(read, name) for name in whole} == whole | {"ids": ("e1", "e2")}
    assert not filter_from_json("event_filter", dict.fromkeys(whole)).has_criteria
