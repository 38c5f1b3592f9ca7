"""`flowhooks events list TEXT` and `--field`: what they find, and how they refuse what cannot be searched."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.sqlite

FIELDS = "/amount,/vendor"


@pytest.fixture
def flow(harness, listens):
    """A ledger with purchase orders whose amounts and vendors are indexed."""
    flow = harness.open(listens(lambda event: None, name="h"), search={"fields": tuple(FIELDS.split(","))})
    for number in range(3):
        flow.take(f"i{number}", businessKey=f"PO-2026-{number}", amount=1000 * number, vendor="ACME")
    return flow


@pytest.fixture
def env(harness, flow):
    """The environment of its ledger."""
    return {"FLOWHOOKS_DATABASE": str(harness.file), "FLOWHOOKS_SEARCH_FIELDS": FIELDS}


@pytest.fixture
def listed(run_json, env):
    """A function that returns the instances which a list shows."""

    def listed(*arguments):
        found = run_json("events", "list", *arguments, **env)["events"]
        return [event["flow_instance_id"] for event in found]

    return listed


def test_one_text_finds_ids_and_keys(listed, flow):
    """TEXT is an instance id, an event id, a delivery id, or a business key or its beginning."""
    (event_id,) = flow.events(flow_instance_id="i1")
    assert listed("i1") == ["i1"]
    assert listed(event_id) == ["i1"]
    assert listed(flow.only(event_id).delivery_id) == ["i1"]
    assert listed("PO-2026-1") == ["i1"]
    assert listed("PO-2026") == listed("--query", "PO-2026") == ["i2", "i1", "i0"]
    assert listed("PO-2026", "--field", "/amount>=1000", "--until", "1s") == ["i2", "i1"]
    assert listed("nothing") == []


def test_fields_find_values(listed):
    """`--field` may be repeated, and all conditions apply."""
    assert listed("--field", "/vendor=ACME") == ["i2", "i1", "i0"]
    assert listed("--field", "/amount>=500", "--field", "/amount<=1500") == ["i1"]
    assert listed("--field", "/vendor=acme") == []


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--field", "amount=1"), 2, "/vendor=ACME, /amount>=1000 or /amount<=1000"),
        (("--field", "/amount>=much"), 2, "needs a number"),
        (("--field", "/total=1"), 2, "by /total: search.fields names /amount, /vendor"),
        (("--query", ""), 2, "query must not be empty"),
        (("",), 2, "not empty"),
        (("i1", "--query", "i2"), 2, "Give one text"),
    ],
)
def test_conditions_that_cannot_be_searched_are_refused(run, env, arguments, code, said):
    """The error says how a condition is written, or which fields are indexed."""
    result = run("events", "list", *arguments, **env)
    assert result.exit_code == code, result.output
    assert said in " ".join(result.output.split())


def test_a_bulk_operation_takes_the_same_options(run, run_json, env):
    """A command on many events selects by a field and a text, and refuses a field that is not indexed."""
    planned = run_json("events", "replay", "--again", "--query", "PO-2026-2", "--dry-run", **env)
    assert planned["planned"] == 1
    assert planned["event_filter"] == {"query": "PO-2026-2"}
    planned = run_json("events", "replay", "--again", "--field", "/amount>=1000", "--dry-run", **env)
    assert (planned["planned"], planned["event_filter"]) == (2, {"fields": ["/amount>=1000"]})
    result = run("events", "replay", "--field", "/total=1", "--dry-run", **env)
    assert result.exit_code == 2
    assert "search.fields names /amount, /vendor" in result.output
