"""Calls of receivers: bounded in time and number, and whatever they do is one of three answers."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import pytest

from flowhooks.errors import MalformedRequest, Unavailable
from flowhooks.model.receiver import ReceivedCallback, ReceivedRequest, ReceiverResponse
from flowhooks.plugins.receivers import Receivers
from flowhooks.web.callback import receivers
from flowhooks.web.callback.receivers import MAX_CALLS, ReceiverCalls
from support.waiting import until

REQUEST = ReceivedRequest(method="POST", query={}, headers={}, body=b"", received_at=datetime(2026, 1, 1, tzinfo=UTC))
SECRET = "secret-of-the-plugin"


@pytest.fixture(autouse=True)
def long_call_timeout(monkeypatch):
    """A busy machine may take longer than a second to run the thread of a call."""
    monkeypatch.setattr(receivers, "CALL_TIMEOUT", 60.0)


def calls_of(function):
    """Calls of one receiver, the plugin `p`."""

    def receive_request(*, source, request):
        return function(source, request)

    return ReceiverCalls(Receivers({"p": receive_request}), redact=lambda text: text.replace(SECRET, "…"))


def failure(calls, plugin="p"):
    """The message key with which a call fails."""
    with pytest.raises(Unavailable) as caught:
        calls.call(plugin, "feishu", REQUEST)
    return caught.value.key


@pytest.mark.parametrize(
    "result", [None, ReceiverResponse(body=b"challenge"), ReceivedCallback(flow_instance_id="p-1", data={"a": 1})]
)
def test_the_result(result):
    """A result is returned, whose arguments are the source and the request."""
    seen = []
    assert (
        calls_of(lambda source, request: (seen.append((source, request)), result)[1]).call("p", "feishu", REQUEST)
        == result
    )
    assert seen == [("feishu", REQUEST)]


def raises(error):
    """A receiver that raises."""

    def receive(_source, _request):
        raise error

    return receive


@pytest.mark.parametrize("error", [ValueError(SECRET), SystemExit(1), KeyboardInterrupt(), GeneratorExit()])
def test_an_exception(logged, error):
    """Any exception is a failure, which is logged with the plugin's name and without its secrets, once a minute."""
    calls = calls_of(raises(error))
    assert [failure(calls), failure(calls)] == ["receiver_failed"] * 2
    (record,) = [entry for entry in logged if entry["event"] == "receiver_failed"]
    assert (record["plugin"], record["source"]) == ("p", "feishu")
    assert type(error).__name__ in record["traceback"]
    assert SECRET not in record["traceback"]


@pytest.mark.parametrize("result", [True, "text", {}, ReceiverResponse(status=302), ReceiverResponse(body="text")])
def test_a_wrong_result(logged, result):
    """A result of another type or with another status is a failure of the plugin."""
    assert failure(calls_of(lambda _source, _request: result)) == "receiver_failed"
    assert [record["plugin"] for record in logged if record["event"] == "receiver_failed"] == ["p"]


def test_data_that_cannot_be_stored(logged):
    """Data with a character that no database stores is a malformed request, because the sender wrote it."""
    calls = calls_of(lambda _source, _request: ReceivedCallback(flow_instance_id="p-1", data={"a": "\x00"}))
    with pytest.raises(MalformedRequest):
        calls.call("p", "feishu", REQUEST)
    assert not logged


def test_a_plugin_that_is_not_loaded():
    """A plugin that is not loaded is not available."""
    assert failure(calls_of(lambda _source, _request: None), "q") == "receiver_unavailable"


def test_a_call_that_hangs(monkeypatch, logged):
    """It is answered without its result, keeps its place, and delays no other source."""
    monkeypatch.setattr(receivers, "CALL_TIMEOUT", 0.01)
    released, entered = threading.Event(), []

    def receive(source, _request):
        entered.append(source)
        if source == "feishu":
            released.wait()

    calls = calls_of(receive)
    assert [failure(calls) for _ in range(MAX_CALLS)] == ["receiver_slow"] * MAX_CALLS
    assert failure(calls) == "receiver_unavailable"
    until(lambda: len(entered) == MAX_CALLS)
    reasons = [record["why"] for record in logged if record["event"] == "receiver_failed"]
    assert reasons == ["it did not return within 0.01 s", "8 of its calls for this source are still running"]
    monkeypatch.setattr(receivers, "CALL_TIMEOUT", 60.0)
    assert calls.call("p", "wecom", REQUEST) is None
    released.set()
    until(lambda: not [thread for thread in threading.enumerate() if thread.name == "receiver-feishu"])
    assert calls.call("p", "feishu", REQUEST) is None


def test_a_thread_that_cannot_be_started(monkeypatch):
    """If no thread can be started, the receiver is not available, and no place is lost."""

    def start(_thread):
        raise RuntimeError("can't start new thread")

    calls = calls_of(lambda _source, _request: None)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        assert [failure(calls) for _ in range(MAX_CALLS + 1)] == ["receiver_unavailable"] * (MAX_CALLS + 1)
    assert calls.call("p", "feishu", REQUEST) is None
