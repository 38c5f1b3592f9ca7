"""Callbacks of engines: the trace of a request, and the wait that the settings of a source define."""

from __future__ import annotations

import threading

import pytest

from flowhooks import State
from flowhooks.ledger.queries import EventFilter
from flowhooks.operations.purge import purge
from support.silent_engine import with_silent_engine
from support.waiting import until

pytestmark = pytest.mark.either

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
SETTINGS = """
[sources.oa]
TOKEN
answer_wait = {seconds}
[sources.oa.ingress]
format = "json"
flow_instance_id = "/id"
process_definition_key = "/key"
"""


def call(client, instance, body=(), **headers):
    """Send a callback as the source, whose default wait decides."""
    body = {"processDefinitionKey": "leave"} | dict(body)
    return client.send(f"/flow/{instance}/call-back/complete", body, Authorization=client.bearer, **headers)


@pytest.mark.parametrize("trace", [(TRACE, TRACE), (f"{TRACE}-more", None), ("", None), (None, None)])
def test_traceparent(harness, listens, sources, listen, trace):
    """The trace of a callback is stored and given to its handlers; an invalid one is left out."""
    seen, (sent, stored) = [], trace
    flow = harness.open(
        listens(lambda event: seen.append(event.traceparent)), sources=sources(SETTINGS.format(seconds=60))
    )
    client = listen(flow)
    assert call(client, "1", traceparent=sent).status == 200
    assert (seen, client.rows("traceparent")) == ([stored], [(stored,)])


def test_a_source_that_does_not_wait(harness, listens, sources, listen):
    """With `answer_wait = 0` a callback is answered at once, unless it asks for the outcome."""
    released = threading.Event()
    flow = harness.open(
        listens(lambda _event: released.wait()), sources=sources(SETTINGS.format(seconds=0)), answer_wait=60.0
    )
    client = listen(flow)
    assert call(client, "1").status == 202
    assert client.post("oa", {"id": "2", "key": "leave"}).status == 200
    assert not released.is_set()
    released.set()
    assert call(client, "1", Prefer="wait=60").status == 200


def test_a_source_that_waits(harness, listens, sources, listen):
    """With `answer_wait` of the source, both a callback and a request to its fixed URL wait for the handlers."""
    done = []
    flow = harness.open(
        listens(lambda event: done.append(event.flow_instance_id)),
        sources=sources(SETTINGS.format(seconds=60)),
        answer_wait=0.0,
    )
    client = listen(flow)
    assert call(client, "1").status == 200
    assert done == ["1"]
    assert client.post("oa", {"id": "2", "key": "leave"}).status == 200
    assert done == ["1", "2"]
    answer = client.post("oa", {"id": "3", "key": "leave"}, Prefer="respond-async")
    assert answer.headers["preference-applied"] == "respond-async"
    until(lambda: done == ["1", "2", "3"])


def test_a_source_without_a_credential_waits_as_its_present_name_says(harness, listens, listen):
    """A callback without a credential is of `default`; if that is a former name of a source, its wait applies."""
    options = with_silent_engine(
        listens(lambda _event: 1), token_sha256=(), former_names=("default",), answer_wait=60.0
    )
    client = listen(harness.open(**options, answer_wait=0.0))
    assert client.send("/flow/1/call-back/complete", {"processDefinitionKey": "leave"}).status == 200
    assert client.rows("source") == [("oa",)]


def test_a_request_with_prefer_wait_waits_for_the_outcome(harness, listens, sources, listen):
    """By default a request to a fixed URL does not wait; with `Prefer: wait` it does."""
    done = []
    flow = harness.open(
        listens(lambda event: done.append(event.flow_instance_id)),
        sources=sources(SETTINGS.replace("answer_wait = {seconds}", "")),
    )
    client = listen(flow)
    answer = client.post("oa", {"id": "1", "key": "leave"}, Prefer="wait=60")
    assert (answer.status, answer.headers["preference-applied"], done) == (200, "wait=60", ["1"])


def test_a_request_that_stores_nothing_applies_no_preference(harness, listens, sources, listen):
    """The response to a conflict, or to a callback that cannot be stored, does not say that it has waited."""
    flow = harness.open(listens(lambda _event: None), sources=sources(SETTINGS.format(seconds=0)))
    client = listen(flow)
    assert call(client, "1", Prefer="wait=60").headers["preference-applied"] == "wait=60"
    answers = [call(client, "1", {"days": 1}, Prefer="wait=60")]
    answers.append(client.post("oa", {"id": "1", "key": "leave", "days": 1}, Prefer="wait=60"))
    with flow.locked(timeout=0.1):
        answers.append(call(client, "2", Prefer="wait=60"))
        answers.append(client.post("oa", {"id": "2", "key": "leave"}, Prefer="wait=60"))
    assert [answer.status for answer in answers] == [409, 200, 503, 503]
    assert [answer.headers.get("preference-applied") for answer in answers] == [None] * 4


def test_an_event_with_a_null_conclusion_is_parked(harness, listens, sources, listen):
    """An explicit null is no conclusion: the event is parked, and the response names the member."""
    flow = harness.open(
        listens(lambda _event: pytest.fail("it was run"), conclusion="approved"),
        sources=sources(SETTINGS.format(seconds=60)),
    )
    client = listen(flow)
    answer = call(client, "1", {"conclusion": None})
    assert (answer.status, "conclusion" in answer.message) == (202, True)
    assert client.rows("state, parked_by, conclusion") == [("parked", "condition", None)]
    assert call(client, "1").status == 202
    assert call(client, "1", {"conclusion": "approved"}).status == 409


def test_a_reused_id_is_a_repeat_or_a_conflict(harness, listens, sources, listen):
    """The same id with the same body is answered 200 and runs nothing; another startTime is a conflict."""
    done = []
    flow = harness.open(
        listens(lambda event: done.append(event.flow_instance_id)), sources=sources(SETTINGS.format(seconds=60))
    )
    client = listen(flow)
    started = {"startTime": "2026-01-01T08:00:00+08:00"}
    assert call(client, "1", started).status == 200
    assert call(client, "1", started).status == 200
    assert call(client, "1", {"startTime": "2026-01-02T08:00:00+08:00"}).status == 409
    # An engine that knows no start time sends the same body for two instances.
    assert call(client, "2", {"startTime": None}).status == 200
    assert call(client, "2", {"startTime": None}).status == 200
    assert done == ["1", "2"]


def test_each_success_names_its_event(harness, listens, sources, listen):
    """A 2xx has the id of an event, also if it is dismissed, parked, repeated or purged: a client can rely on it."""
    flow = harness.open(
        listens(lambda _event: None, conclusion="approved"), sources=sources(SETTINGS.format(seconds=60))
    )
    client = listen(flow)
    bodies = [{"conclusion": "approved"}, {"conclusion": "rejected"}, {"processDefinitionKey": "nobody"}]
    answers = [call(client, str(number), body) for number, body in enumerate(bodies)]
    assert [answer.status for answer in answers] == [200, 200, 202]
    ids = [event_id for (event_id,) in client.rows("id")]
    assert [state for (state,) in client.rows("state")] == ["routed", "dismissed", "parked"]

    def repeat():
        answers = [call(client, str(number), body) for number, body in enumerate(bodies)]
        return [(answer.status, answer.headers["flowhooks-event"]) for answer in answers]

    assert [answer.headers["flowhooks-event"] for answer in answers] == ids
    assert repeat() == list(zip([200, 200, 202], ids, strict=True))
    flow.settled(ids[0], State.SUCCEEDED)
    flow.clock.advance(86_400)
    for state in (None, "parked"):  # a parked event is purged only if it is asked for
        purge(flow.app.operation_context, EventFilter(until=flow.clock.now(), state=state))
    assert client.rows("id") == []
    assert repeat() == [(200, event_id) for event_id in ids]
