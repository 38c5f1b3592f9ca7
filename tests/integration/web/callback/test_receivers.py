"""Requests that a receiver reads: what it sees, what its results mean, and what it cannot do."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from flowhooks import ReceivedCallback, ReceiverResponse, Reject
from flowhooks.web.callback import receivers
from support.app_harness import plugin
from support.waiting import WAIT_TIMEOUT, until

pytestmark = pytest.mark.either

SECRET = "secret-of-the-sender-0123456789"
SETTINGS = """
[sources.feishu]
allow = ["127.0.0.0/8"]
max_body_bytes = 1000
[sources.feishu.ingress]
receiver = "r"
answer = "ok"

[sources.far]
allow = ["192.0.2.0/24"]
[sources.far.ingress]
receiver = "r"

[sources.slow]
rate = 0.01
burst = 1
[sources.slow.ingress]
receiver = "r"

[sources.oa]
TOKEN
[sources.oa.ingress]
format = "json"
flow_instance_id = "/id"
"""


def good(source, request):
    """A receiver that checks a secret and reads JSON."""
    if request.headers.get("x-secret") != SECRET:
        return None
    body = json.loads(request.body)
    return ReceivedCallback(flow_instance_id=body["id"], data=body.get("data", {}), kind=body.get("kind", "complete"))


@pytest.fixture
def receive(harness, listens, sources, listen, monkeypatch):
    """A function that serves a plugin `r` with this receiver, and a handler of the key `leave`; returns the client."""
    monkeypatch.setattr(receivers, "CALL_TIMEOUT", 60.0)  # a busy machine may take longer than a second

    def serve(function, handler=lambda _event: None, threads=4, **hooks):
        def receive_request(source, request):
            return function(source, request)

        objects = {"r": plugin(receive_request=receive_request), "p": plugin(listens(handler)), **hooks}
        return listen(harness.open(plugins=objects, sources=sources(SETTINGS)), threads)

    return serve


def send(client, body, name="feishu", **headers):
    """Send a request with the secret."""
    return client.send(f"/in/{name}", body, Content_Type="application/json", X_Secret=SECRET, **headers)


def test_a_callback_is_stored_as_received_and_as_parsed(receive):
    """It is stored as it was received and as the receiver has read it; the answer is that of the settings."""
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    client = receive(good)
    body = {"id": "1", "data": {"processDefinitionKey": "leave", "businessKey": 4711, "no": None}}
    answer = send(client, body, traceparent=trace)
    assert (answer.status, answer.body) == (200, b"ok")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    columns = "source, flow_instance_id, process_definition_key, origin, traceparent, media_type, raw_body, body, id"
    ((*row, event_id),) = client.rows(columns)
    data = '{"processDefinitionKey":"leave","businessKey":"4711"}'
    assert row == ["feishu", "1", "leave", "ingress", trace, "application/json", json.dumps(body), data]
    assert answer.headers["flowhooks-event"] == event_id
    assert send(client, body).headers["flowhooks-event"] == event_id
    conflict = send(client, {"id": "1", "data": {"x": 1}})
    assert (conflict.status, conflict.body, conflict.headers["flowhooks-event"]) == (200, b"ok", event_id)
    assert [tuple(row[:2]) for row in client.rejected()] == [("feishu", 409)]
    assert len(client.rows()) == 1


def test_the_request_that_a_receiver_sees(receive):
    """The method, the query with all values, the headers in lower case, the body, and the server's time."""
    seen = []
    client = receive(lambda source, request: seen.append((source, request)))
    client.send("/in/feishu?a=1&a=%E4%B8%AD&b", b"\xff\x00", X_Two_Words="x", Content_Type="text/x", Authorization="y")
    client.send("/in/slow?echostr=1", method="GET")
    (source, post), (other, get) = seen
    assert (source, post.method, dict(post.query)) == ("feishu", "POST", {"a": ("1", "中"), "b": ("",)})
    assert post.body == b"\xff\x00"
    assert {"x-two-words": "x", "content-type": "text/x", "authorization": "y"}.items() <= post.headers.items()
    assert post.received_at.timestamp() * 1_000_000 == client.flow.clock.now()
    assert (other, get.method, get.query, get.body) == ("slow", "GET", {"echostr": ("1",)}, b"")


def test_a_handshake(receive):
    """A response below 300 is sent as it is, stores nothing, and is counted and logged under its rule."""
    response = ReceiverResponse(
        body='{"challenge": "中"}'.encode(), media_type="application/x-challenge", rule="challenge"
    )
    client = receive(lambda _source, _request: response)
    for method in ("GET", "POST", "POST"):
        answer = client.send("/in/feishu", b"{}", method=method)
        assert (answer.status, answer.body) == (200, response.body)
        assert answer.headers["content-type"] == "application/x-challenge"
        assert answer.headers["cache-control"] == "no-store"
    assert (client.rows(), client.ignored(), client.rejected()) == ([], {("feishu", "challenge"): 3}, [])


@pytest.mark.parametrize("status", [400, 401, 403, 413, 415, 422, 429, 503])
def test_an_error_response_of_the_receiver(receive, status):
    """An error response is sent as it is, recorded for operators, and not counted as ignored."""
    client = receive(lambda _source, _request: ReceiverResponse(status=status, body=b"no", rule="bad nonce"))
    answer = client.send("/in/feishu", b"{}")
    assert (answer.status, answer.body) == (status, b"no")
    ((source, recorded, reason),) = client.rejected()
    assert (source, recorded) == ("", status)
    assert "bad nonce" in reason
    assert (client.rows(), client.ignored()) == ([], {})


def test_a_custom_response_for_a_callback(receive):
    """The response of the callback is sent once the callback is stored."""
    response = ReceiverResponse(status=201, body=b"encrypted", media_type="text/x")
    client = receive(lambda _source, _request: ReceivedCallback(flow_instance_id="1", response=response))
    answer = send(client, {})
    assert (answer.status, answer.body, answer.headers["content-type"]) == (201, b"encrypted", "text/x")
    assert (client.rows(), client.ignored()) == ([("1",)], {})


def without_time(answer):
    """A response without its time and the path, which alone may differ."""
    body = json.loads(answer.body)
    del body["timestamp"], body["path"]
    return answer.status, {k: v for k, v in answer.headers.items() if k not in {"content-length", "date"}}, body


def test_unauthenticated_requests_have_the_same_401(receive):
    """None, a forbidden address and an unknown name have the same response, for GET and POST."""
    called = []
    client = receive(lambda source, _request: called.append(source))
    answers = [
        client.send(f"/in/{name}", b"{}", method=method)
        for method in ("GET", "POST")
        for name in ("feishu", "far", "nobody", "oa")
    ]
    assert answers[0].status == 401
    assert [without_time(answer) for answer in answers] == [without_time(answers[0])] * 8
    assert called == ["feishu", "feishu"]
    reasons = " ".join(reason for _, _, reason in client.rejected())
    for part in ("found no valid credential", "may not call from this address", "names no source", "is a GET"):
        assert part in reasons


def test_size_and_rate_are_checked_before_the_receiver(receive):
    """The size and the rate are checked before the receiver sees a request; no other plugin sees one."""
    seen, others = [], []
    other = plugin(receive_request=lambda source, request: others.append(request))
    client = receive(lambda source, request: seen.append(source), other=other)
    assert client.send("/in/feishu", b"x" * 1001).status == 413
    assert [client.send("/in/slow", b"{}").status for _ in range(2)] == [401, 429]
    assert client.send("/in/oa", b"{}").status == 401
    assert client.post("oa", {"id": "1"}).status == 200
    assert (seen, others) == (["slow"], [])


@pytest.mark.parametrize(
    ("result", "status"),
    [
        (ReceivedCallback(flow_instance_id="a\nb"), 422),
        (ReceivedCallback(flow_instance_id=""), 422),
        (ReceivedCallback(flow_instance_id="1", kind="other"), 422),
        (ReceivedCallback(flow_instance_id="1", data={"businessKey": True}), 422),
        (ReceivedCallback(flow_instance_id="1", data={"a": "\x00"}), 400),
        (ReceivedCallback(flow_instance_id="1", data={"a": object()}), 503),
        (ReceivedCallback(flow_instance_id=1), 503),
        (ReceivedCallback(flow_instance_id="1", response=ReceiverResponse(status=500)), 503),
        (ReceivedCallback(flow_instance_id="1", response=ReceiverResponse(media_type="a\r\nb: c")), 503),
        (ReceiverResponse(status=500), 503),
        (ReceiverResponse(status=302), 503),
        (ReceiverResponse(status=True), 503),
        (ReceiverResponse(body="text"), 503),
        ("text", 503),
        (False, 503),
    ],
)
def test_invalid_results_of_a_receiver_are_rejected(receive, result, status):
    """Nothing is stored or counted."""
    client = receive(lambda _source, _request: result)
    answer = send(client, {})
    assert answer.status == status
    assert (client.rows(), client.ignored()) == ([], {})
    assert [row[1] for row in client.rejected()] == [status]
    assert answer.headers.get("retry-after") == ("5" if status == 503 else None)


def test_a_get_stores_nothing(receive):
    """A callback that a receiver makes of a GET is an error of the plugin."""
    client = receive(lambda _source, _request: ReceivedCallback(flow_instance_id="1"))
    assert client.send("/in/feishu", method="GET").status == 503
    assert client.rows() == []


@pytest.mark.parametrize("body", [b"\xff", b"a\x00b"])
def test_a_body_with_invalid_text_or_nul_is_rejected(receive, body):
    """A body that is no text, or has NUL, is refused once the receiver has authenticated it."""
    client = receive(lambda _source, _request: ReceivedCallback(flow_instance_id="1"))
    assert send(client, body).status == 400
    assert client.rows() == []


def test_a_receiver_that_raises_is_503(receive, logged):
    """It is answered 503, and neither the response nor the log has a secret."""

    def fail(_source, request):
        raise RuntimeError(request.headers["x-secret"])

    client = receive(fail)
    answer = send(client, {})
    assert (answer.status, SECRET in answer.body.decode()) == (503, False)
    (record,) = [record for record in logged if record["event"] == "receiver_failed"]
    assert (record["plugin"], record["source"]) == ("r", "feishu")


def test_a_receiver_that_hangs_is_503(receive, monkeypatch):
    """It is answered 503; calls of other sources, callbacks and the mapping go on, and a late result is dropped."""
    monkeypatch.setattr(receivers, "CALL_TIMEOUT", 0.05)
    released, entered = threading.Event(), []

    def hang(source, request):
        entered.append(source)
        if source == "feishu":
            released.wait()
            return ReceivedCallback(flow_instance_id="late")
        return None

    client = receive(hang)
    messages = [send(client, {}).message for _ in range(receivers.MAX_CALLS + 1)]
    assert ["in time" in message for message in messages] == [True] * receivers.MAX_CALLS + [False]
    assert "not available" in messages[-1]
    assert client.post("oa", {"id": "1"}).status == 200
    monkeypatch.setattr(receivers, "CALL_TIMEOUT", 60.0)
    assert client.send("/in/slow", b"{}").status == 401
    released.set()
    until(lambda: not [thread for thread in threading.enumerate() if thread.name == "receiver-feishu"])
    assert client.rows() == [("1",)]
    assert send(client, {}).status == 200
    assert client.rows() == [("1",), ("late",)]


@pytest.mark.sqlite
def test_a_slow_receiver_occupies_no_thread(receive):
    """While a receiver runs, the only thread of the listener answers other requests."""
    entered, released = threading.Event(), threading.Event()

    def wait(_source, _request):
        entered.set()
        released.wait()

    client = receive(wait, threads=1)
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(client.send, "/in/feishu", b"{}")
        assert entered.wait(WAIT_TIMEOUT)
        assert client.post("oa", {"id": "1"}).status == 200
        released.set()
        assert slow.result(WAIT_TIMEOUT).status == 401  # after the timeout of the call it would be 503


def test_a_query_with_too_many_parameters_is_rejected(receive):
    """A query with more than a thousand parameters is refused before the receiver sees it."""
    client = receive(good)
    assert client.send("/in/feishu?" + "a&" * 1001, b"{}").status == 400


def test_an_event_with_a_failed_handler_is_answered_200(receive):
    """An event whose handler has failed is answered 200."""

    def fail(_event):
        raise Reject("not today")

    client = receive(good, fail)
    body = {"id": "1", "data": {"processDefinitionKey": "leave"}}
    assert send(client, body, Prefer="wait=60").status == 200
    assert client.flow.sql("SELECT state FROM deliveries") == [("dead",)]


def test_a_server_in_shutdown_is_503(receive):
    """A server that is stopping answers 503."""
    client = receive(good)
    client.flow.app.begin_shutdown()
    assert send(client, {"id": "1"}).status == 503
