"""`flowhooks events correct`, and the conflicting bodies that `events show` prints."""

from __future__ import annotations

import json

import pytest

from support.waiting import until


@pytest.fixture
def conflict(server, run_json):
    """An event with a conflicting body: its id, and the digest of the body."""
    event_id = server.post("corrected", processDefinitionKey="leave", processDefinitionVersion=2)
    server.post("corrected", processDefinitionKey="leave", processDefinitionVersion=5)
    (event,) = run_json("events", "show", event_id, server=server)["events"]
    (body,) = event["conflicts"]
    return event_id, body["digest"]


def test_a_conflicting_body_is_shown_accepted_and_linked(server, run, run_json, conflict):
    """The text has the differences and the command; the JSON names the event of the accepted body."""
    event_id, digest = conflict
    shown = run("events", "show", event_id, server=server).stdout
    assert '- "processDefinitionVersion": 2' in " ".join(shown.split())
    assert '+ "processDefinitionVersion": 5' in " ".join(shown.split())
    assert f"flowhooks events correct {event_id} --conflict {digest[:16]} --note why" in shown
    words = ("events", "correct", event_id, "--conflict", digest[:16])
    assert run(*words, "--yes", server=server).exit_code == 2
    planned = run(*words, "--dry-run", server=server)
    assert "would become an event of its own (routed), for shop:grant." in planned.stdout
    assert "has run with the first body already" in planned.stdout
    answer = run_json(*words, "--note", "the sum was wrong", "--yes", server=server)
    assert (answer["corrects"], answer["handlers"], answer["server"]) == (event_id, ["shop:grant"], True)
    again = run(*words, "--note", "the sum was wrong", "--yes", server=server)
    assert again.exit_code == 1
    assert answer["event_id"] in again.stderr
    correction = until(lambda: _succeeded(run_json, server, answer["event_id"]))
    assert (correction["origin"], correction["corrects"]) == ("correction", event_id)
    assert json.loads(correction["body"])["processDefinitionVersion"] == 5
    (event,) = run_json("events", "show", event_id, server=server)["events"]
    assert event["conflicts"][0]["corrected_by"] == answer["event_id"]
    shown = run("events", "show", event_id, server=server).stdout
    assert f"It was accepted as a correction: event {answer['event_id']}" in shown
    assert "accepted the body" in shown
    assert "the sum was wrong" in shown
    assert f"corrects event {event_id}" in run("events", "show", answer["event_id"], server=server).stdout


def _succeeded(run_json, server, event_id):
    (event,) = run_json("events", "show", event_id, server=server)["events"]
    return event if [delivery["state"] for delivery in event["deliveries"]] == ["succeeded"] else None
