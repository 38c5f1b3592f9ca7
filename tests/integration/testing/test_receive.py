"""Requests to a receiver in the test kit: the same path as in a server, with the time of the test's clock."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from flowhooks import FlowhooksError, ReceivedCallback, ReceiverResponse, handler, hookimpl


@handler(process_key="leave")
def grant(event):
    return f"{event.source} {event.kind} {event.business_key}"


@pytest.fixture
def app(flowhooks_app, monkeypatch):
    """An app with a handler, an engine, and two sources whose receiver does as the request says."""
    # A busy machine may take longer than a second.
    monkeypatch.setattr("flowhooks.web.callback.receivers.CALL_TIMEOUT", 60.0)

    def receive_request(source, request):
        if request.headers.get("x-token") != "right":
            return None
        if request.method == "GET":
            echo = request.query["echo"]
            return ReceiverResponse(body=echo[0].encode(), media_type="text/plain", rule=f"echo {len(echo)}")
        if request.body == b"time":
            return ReceiverResponse(body=request.received_at.isoformat().encode(), rule="time")
        if request.body == b"fail":
            raise ValueError("not today")
        data = {"processDefinitionKey": "leave", "businessKey": source} | json.loads(request.body)
        return ReceivedCallback(flow_instance_id="i-1", data=data)

    reader = SimpleNamespace(receive_request=hookimpl(receive_request))
    return flowhooks_app(
        grant, names={"reader": reader}, sources=["engine"], receivers={"first": "reader", "second": "reader"}
    )


RIGHT = {"X-Token": "right"}


def test_a_callback_is_stored_and_handled(app):
    """The callback of a receiver runs the handlers under the name of its source, and a repetition is the same event."""
    answer = app.receive("first", b"{}", headers=RIGHT)
    assert (answer.status, answer.json, answer.body) == (200, {"success": True}, b'{"success": true}')
    assert app.wait_for(answer.event_id).result == "first complete first"
    assert app.receive("first", b"{}", headers=RIGHT).event_id == answer.event_id
    second = app.receive("second", b"{}", headers=RIGHT)
    assert app.wait_for(second.event_id).result == "second complete second"
    assert len(app.events()) == 2


def test_other_responses_store_nothing(app):
    """A handshake, a refused request and a failed plugin are answered as a server answers them."""
    answer = app.receive("first", method="GET", headers=RIGHT, query={"echo": "a&b=ü"})
    assert (answer.status, answer.body, answer.json, answer.event_id) == (200, "a&b=ü".encode(), None, "")
    assert answer.headers["content-type"] == "text/plain"
    assert app.receive("first", b"{}").status == 401
    assert app.receive("nobody", b"{}", headers=RIGHT).status == 401
    assert app.receive("first", b"fail", headers=RIGHT).status == 503
    assert app.receive("first", b'{"businessKey": true}', headers=RIGHT).status == 422
    assert app.events() == ()


def test_the_receiver_uses_the_test_clock(app):
    """The receiver sees the test's clock, so that a signature can expire."""
    assert app.receive("first", b"time", headers=RIGHT).body == b"2026-01-01T00:00:00+00:00"
    app.advance(minutes=6)
    assert app.receive("first", b"time", headers=RIGHT).body == b"2026-01-01T00:06:00+00:00"


def test_an_event_has_the_trace_of_its_request(app):
    """The header `traceparent` reaches the event, by a receiver and from an engine."""
    trace = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    answers = [app.receive("first", b"{}", headers=RIGHT | trace), app.post("17", headers=trace)]
    assert [app.event(answer.event_id).traceparent for answer in answers] == [trace["traceparent"]] * 2


def test_engines_post_only_as_sources_without_a_receiver(app):
    """`post` calls as an engine of `sources`, and never as a source with a receiver."""
    answer = app.post("17", processDefinitionKey="leave")
    assert app.event(answer.event_id).source == "engine"
    with pytest.raises(KeyError):
        app.post("18", source="first", processDefinitionKey="leave")


def test_a_crashed_app_receives_requests_only_after_restart(app):
    """After `crash`, a request needs `restart` first, and finds what was stored before."""
    answer = app.receive("first", b"{}", headers=RIGHT)
    app.wait_for(answer.event_id)
    app.crash()
    with pytest.raises(AssertionError, match="call restart"):
        app.receive("first", b"{}", headers=RIGHT)
    app.restart()
    assert app.receive("first", b"{}", headers=RIGHT).event_id == answer.event_id


def test_a_quarantined_receiver_is_an_error(flowhooks_app):
    """A receiver that cannot be loaded fails the test at once, as any other plugin."""
    with pytest.raises(FlowhooksError, match="does not take the argument request"):
        flowhooks_app(names={"reader": SimpleNamespace(receive_request=hookimpl(lambda source: None))})
