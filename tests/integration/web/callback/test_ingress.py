"""Requests to the fixed URL of a source whose settings map them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json

import pytest
from standardwebhooks.webhooks import Webhook

from flowhooks import Reject, State
from flowhooks.clock import to_datetime
from flowhooks.ledger.queries import EventFilter
from flowhooks.operations.purge import purge

pytestmark = pytest.mark.either

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
OTHER_TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b8-01"
FORM = "application/x-www-form-urlencoded"
STRUCTURED, BATCH = "application/cloudevents+json", "application/cloudevents-batch+json"
STANDARD = f"whsec_{base64.b64encode(b's' * 32).decode()}"
OTHER_STANDARD = f"whsec_{base64.b64encode(b'o' * 32).decode()}"
KEY = "It's a Secret to Everybody"
SETTINGS = """
[sources.oa]
TOKEN
max_body_bytes = 1000
[sources.oa.ingress]
format = "json"
flow_instance_id = "/id"
process_definition_key = "/key"
business_key = "/no"
answer = '{"code": 0}'
kind = {pointer = "/status", values = {"2" = "complete", "4" = "cancel", "1" = "ignore"}}
conclusion = {pointer = "/status", values = {"2" = "approved"}}

[sources.form]
secrets = [{env = "FORM"}]
[sources.form.ingress]
format = "form"
flow_instance_id = ["/dag", "/run"]
process_definition_key = "/key"
answer = "success"

[sources.kogito]
secrets = [{env = "STANDARD"}]
[sources.kogito.ingress]
format = "cloudevent"
flow_instance_id = "/kogitoprocinstanceid"
process_definition_key = "/kogitoprocid"
business_key = "/data/businessKey"
kind = {pointer = "/type", values = {"end" = "complete"}, other = "ignore"}

[sources.knative]
token_sha256 = ["KNATIVE"]
secrets = [{env = "OTHER"}]
[sources.knative.ingress]
format = "cloudevent"
flow_instance_id = "/kogitoprocinstanceid"
process_definition_key = "/kogitoprocid"
business_key = "/data/businessKey"

[sources.github]
secrets = [{env = "GITHUB"}]
[sources.github.signature]
scheme = "hmac-sha256"
header = "X-Hub-Signature-256"
prefix = "sha256="
id_header = "X-GitHub-Delivery"
[sources.github.ingress]
format = "json"
flow_instance_id = "/id"
"""


@pytest.fixture
def client(harness, listens, sources, listen):
    """A listener with these sources, and a handler of the key `leave`."""
    given = sources(
        SETTINGS.replace(
            'secrets = [{env = "FORM"}]', f'token_sha256 = ["{hashlib.sha256(b"form-token").hexdigest()}"]'
        ).replace("KNATIVE", hashlib.sha256(b"knative-token").hexdigest())
    )
    environ = {"STANDARD": STANDARD, "OTHER": OTHER_STANDARD, "GITHUB": KEY}
    return listen(harness.open(listens(lambda _event: None), sources=given, environ=environ))


def form(client, body, content_type=FORM):
    """Send a form."""
    return client.post("form", body, content_type, Authorization="Bearer form-token")


def signed(client, body, *, message="m-1", name="kogito", content_type=STRUCTURED, key=STANDARD, **headers):
    """Send a request signed by Standard Webhooks."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    at = to_datetime(client.flow.clock.now())
    headers |= {
        "webhook_id": message,
        "webhook_timestamp": str(int(at.timestamp())),
        "webhook_signature": Webhook(key).sign(message, at, raw.decode()),
    }
    return client.send(f"/in/{name}", raw, Content_Type=content_type, **headers)


def event(instance, kind="end", **more):
    """A CloudEvent."""
    return {
        "specversion": "1.0",
        "id": f"e-{instance}",
        "source": "/k",
        "type": kind,
        "kogitoprocinstanceid": instance,
        "kogitoprocid": "leave",
    } | more


def test_a_json_request_is_mapped_and_stored(client):
    """The mapped data, the body as received and its media type are stored, and the answer is that of the settings."""
    raw = b'{"id": 7, "key": "leave", "no": "B-1", "status": 2, "x": null}'
    answer = client.post("oa", raw, "application/json; charset=utf-8", traceparent=TRACE)
    assert (answer.status, answer.body) == (200, b'{"code": 0}')
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert (answer.headers["cache-control"], answer.headers["x-content-type-options"]) == ("no-store", "nosniff")
    columns = (
        "source, kind, flow_instance_id, business_key, conclusion, origin, traceparent, media_type, raw_body, body, id"
    )
    ((*row, body, event_id),) = client.rows(columns)
    assert row == [
        "oa", "complete", "7", "B-1", "approved", "ingress", TRACE, "application/json; charset=utf-8", raw.decode(),
    ]  # fmt: skip
    assert body == (
        '{"id":7,"key":"leave","no":"B-1","status":2,"processDefinitionKey":"leave","businessKey":"B-1",'
        '"conclusion":"approved"}'
    )
    assert answer.headers["flowhooks-event"] == event_id
    assert client.post("oa", {"id": "8", "status": 4}).status == 200
    assert client.rows("kind, flow_instance_id")[1:] == [("cancel", "8")]


def test_a_repeat_and_a_conflict(client, logged):
    """Both are answered 200 with the id of the first event; operators find the conflict, each with its event."""
    first = client.post("oa", {"id": "1", "status": 2})
    assert client.post("oa", {"status": 2, "id": "1"}).headers["flowhooks-event"] == first.headers["flowhooks-event"]
    other = client.post("oa", {"id": "1", "status": 2, "no": "B"})
    assert (other.status, other.body) == (200, b'{"code": 0}')
    assert other.headers["flowhooks-event"] == first.headers["flowhooks-event"]
    second = client.post("oa", {"id": "2", "status": 2})
    client.post("oa", {"id": "2", "status": 2, "no": "B"})
    assert len(client.rows()) == 2
    client.rejected()
    found = client.flow.sql("SELECT source, status, event_id, path FROM rejected_requests ORDER BY id")
    ids = [answer.headers["flowhooks-event"] for answer in (first, second)]
    assert [tuple(row) for row in found] == [("oa", 409, event_id, "/in/oa") for event_id in ids]
    assert [record["event_id"] for record in logged if record["event"] == "callback_conflict"] == ids
    assert client.flow.sql("SELECT count(*) FROM conflicts") == [(2,)]


def test_a_conflict_with_a_purged_event(client, logged):
    """The answer is 200, too. Nothing can be kept of the body, and the log says so."""
    first = client.post("oa", {"id": "1", "key": "leave", "status": 2}).headers["flowhooks-event"]
    client.flow.settled(first, State.SUCCEEDED)
    client.flow.clock.advance(86_400)
    purge(client.flow.app.operation_context, EventFilter(until=client.flow.clock.now()))
    other = client.post("oa", {"id": "1", "key": "leave", "status": 2, "no": "B"})
    assert (other.status, other.headers["flowhooks-event"]) == (200, first)
    (conflict,) = [entry for entry in logged if entry["event"] == "callback_conflict"]
    assert (conflict["event_id"], conflict["next"].partition(",")[0]) == (first, "that event has been purged")
    assert [tuple(row[:2]) for row in client.rejected()] == [("oa", 409)]


def test_an_ignored_request(client):
    """It is counted under its rule before the answer, and stores no event."""
    for _ in range(3):
        answer = client.post("oa", {"id": "1", "status": 1})
        assert (answer.status, answer.body) == (200, b'{"code": 0}')
        assert "flowhooks-event" not in answer.headers
    assert signed(client, event("1", "start")).status == 200
    assert client.rows() == []
    assert client.ignored() == {("oa", "/status = 1"): 3, ("kogito", "/type = other"): 1}


def test_a_form_request(client):
    """Fields are members; several pointers make one id, and the answer is text."""
    answer = form(client, b"dag=a%2Fb&run=2026&key=leave&to=x&to=y")
    assert (answer.status, answer.body) == (200, b"success")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    ((instance, body, raw),) = client.rows("flow_instance_id, body, raw_body")
    assert (instance, raw) == ("a%2Fb/2026", "dag=a%2Fb&run=2026&key=leave&to=x&to=y")
    assert json.loads(body)["to"] == ["x", "y"]


def test_a_form_that_the_schema_rejects(client):
    """The error does not call a form JSON."""
    answer = form(client, b"dag=1&run=2&businessKey=a&businessKey=b")
    assert answer.status == 422
    assert answer.message == (
        "The request can be read, but is not valid for this callback. /businessKey: must be of type string, integer"
    )


@pytest.mark.parametrize(
    ("body", "content_type", "status", "says"),
    [
        (b"", "application/json", 400, "The body is empty"),
        (b"{", "application/json", 400, "not JSON"),
        (b"[]", "application/json", 400, "not an object"),
        (b'{"id": "\xff"}', "application/json", 400, "not UTF-8"),
        (b'{"id": "\\u0000", "status": 2}', "application/json", 400, "NUL"),
        (b"id=1&status=2", FORM, 415, f"Content-Type is {FORM}, but this source must send application/json"),
        (
            b"{}",
            "application/json; charset=gbk",
            415,
            "charset=gbk, but this source must send application/json, in UTF-8",
        ),
        (b"{}", "application/json", 422, "/status: "),
        (b'{"status": 3}', "application/json", 422, "/status: has a value that the table of kinds does not contain"),
        (b'{"status": 2}', "application/json", 422, "/id: is missing or empty"),
        (b'{"status": 2, "id": true}', "application/json", 422, "/id: must be a text or a whole number"),
        (b'{"status": 2, "id": "a\\nb"}', "application/json", 422, "/id: must not contain the character U+000A"),
        (b'{"status": 2, "id": "%s"}' % (b"x" * 256), "application/json", 422, "/id: "),
        (b'{"status": 2, "id": "1", "processDefinitionVersion": "x"}', "application/json", 422, "/processDefinitionV"),
        (b'{"x": "%s"}' % (b"x" * 1000), "application/json", 413, "1000 bytes"),
        (b"x" * 1001, "text/plain", 415, "text/plain"),
    ],
)
def test_rejected_requests(client, body, content_type, status, says):
    """Each error has its status, in the order of the checks; nothing is stored, and operators see the reason."""
    answer = client.post("oa", body, content_type)
    assert answer.status == status
    assert says in answer.message
    assert client.rows() == []
    assert client.ignored() == {}
    ((source, recorded, reason),) = client.rejected()
    assert (source, recorded, reason) == ("oa", status, answer.message)


def test_an_invalid_id_of_several_pointers_names_each_pointer(client):
    """The message names all of them."""
    answer = form(client, b"dag=%0A&run=1")
    assert answer.status == 422
    assert "/dag + /run: " in answer.message


def test_a_compressed_body_is_rejected(client):
    """A compressed body is refused."""
    assert client.post("oa", b"{}", Content_Encoding="gzip").status == 415


@pytest.mark.parametrize("method", ["PUT", "DELETE", "HEAD"])
def test_other_methods_are_rejected(client, method):
    """Other methods are refused in the same way for each name."""
    answers = [client.send(f"/in/{name}", method=method) for name in ("oa", "nobody")]
    assert {answer.status for answer in answers} == {405}
    assert answers[0].headers["allow"] == answers[1].headers["allow"]


def without_time(answer):
    """A response without its time and the path, which alone may differ."""
    body = json.loads(answer.body)
    del body["timestamp"], body["path"]
    lengths = {"content-length", "date"}
    return answer.status, {name: value for name, value in answer.headers.items() if name not in lengths}, body


def test_unknown_sources_and_bad_credentials_have_the_same_401(client):
    """An unknown name, a source without ingress, a GET, and each bad credential have the same response."""
    bad = {"Authorization": "Bearer nobodys"}
    requests = [
        client.send("/in/nobody", b"{}", Content_Type="application/json"),
        client.send("/in/nobody", b"{}", Authorization="Bearer form-token"),
        client.send("/in/oa", b"{}"),
        client.send("/in/oa", b"{}", **bad),
        client.send("/in/oa", b"{}", Authorization="Bearer form-token"),
        client.send("/in/oa", b"{}", Authorization="Basic x"),
        client.send("/in/kogito", b"{}", webhook_id="1", webhook_timestamp="1", webhook_signature="x"),
        client.send("/in/github", b"{}", X_Hub_Signature_256="sha256=" + "0" * 64, X_GitHub_Delivery="1"),
        client.send("/in/github", b"{}", X_Hub_Signature_256="é"),
        client.send("/in/oa", method="GET"),
        client.send("/in/oa", method="GET", Authorization=f"Bearer {'x' * 30}"),
        client.send("/in/nobody", method="GET"),
        client.send("/in/%6Fa", b"{}"),
    ]
    first = without_time(requests[0])
    assert first[0] == 401
    assert first[1]["www-authenticate"] == "Bearer"
    assert [without_time(answer) for answer in requests] == [first] * len(requests)
    assert {source for source, _, _ in client.rejected()} == {""}


def test_signed_requests_and_their_id(client):
    """A signed request is accepted, repeated, and refused if its id is used for another body or its body changes."""

    def send(body, message="d-1", **headers):
        headers.setdefault("X_Hub_Signature_256", "sha256=" + hmac.new(KEY.encode(), body, "sha256").hexdigest())
        return client.send("/in/github", body, X_GitHub_Delivery=message, Content_Type="application/json", **headers)

    assert [send(b'{"id": "1"}').status, send(b'{"id": "1"}').status] == [200, 200]
    assert send(b'{"id": "2"}').status == 401
    assert send(b'{"id": "1"} ').status == 401
    assert send(b'{"id": "2"}', "d-2", X_Hub_Signature_256="sha256=" + "0" * 64).status == 401
    assert send(b'{"id": "2"}', "").status == 401
    assert client.rows() == [("1",)]
    assert signed(client, b"{}", key=STANDARD).status != 401
    # The token of the scheme's key is none of Standard Webhooks on the path of a callback.
    assert client.send("/flow/3/call-back/complete", b"{}", webhook_id="1", webhook_timestamp="1").status == 401


def test_cloudevents_structured_and_binary_mode(client):
    """The structured and the binary mode; the attribute `traceparent` goes before the header."""
    own = event("1", data={"businessKey": "B"}, traceparent=TRACE)
    assert signed(client, own, traceparent=OTHER_TRACE).status == 200
    ce = {f"ce_{name}": value for name, value in event("2", traceparent="none").items()}
    answer = client.post(
        "knative", b'{"businessKey": "C"}', traceparent=OTHER_TRACE, Authorization="Bearer knative-token", **ce
    )
    assert answer.status == 200
    found = client.rows("flow_instance_id, business_key, traceparent, media_type, raw_body")
    assert found[0] == ("1", "B", TRACE, STRUCTURED, json.dumps(own))
    assert found[1] == ("2", "C", OTHER_TRACE, "application/json", '{"businessKey": "C"}')


def test_a_signed_body_is_rejected_in_binary_mode(client):
    """A signed body cannot be sent again in the binary mode, with the attributes of another event in the headers."""
    captured = event("1", data={"businessKey": "B"})
    assert signed(client, captured).status == 200
    forged = {f"ce_{name}": value for name, value in event("2").items()}
    for media_type in ("application/json", "application/json; x=application/cloudevents+json", None):
        for name, key in (("kogito", STANDARD), ("knative", OTHER_STANDARD)):
            answer = signed(client, captured, name=name, key=key, content_type=media_type, **forged)
            assert (answer.status, "signature does not cover" in answer.message) == (415, True)
    both = signed(
        client, captured, name="knative", key=OTHER_STANDARD, content_type="application/json",
        Authorization="Bearer knative-token", **forged
    )  # fmt: skip
    assert both.status == 200
    assert client.rows("source, flow_instance_id") == [("kogito", "1"), ("knative", "2")]


def test_a_batch_is_stored_in_a_single_transaction(client):
    """A batch is stored in one transaction with its ignored events; its items are the bodies as received."""
    items = [event("1"), event("2", "start"), event("3", data={"businessKey": "合同"}), event("4", "task")]
    answer = signed(client, items, content_type=BATCH)
    assert (answer.status, answer.body) == (200, b'{"success": true}')
    assert "flowhooks-event" not in answer.headers
    found = client.rows("flow_instance_id, media_type, raw_body")
    assert sorted(row[0] for row in found) == ["1", "3"]
    assert {row[1] for row in found} == {STRUCTURED}
    assert sorted(json.loads(row[2])["id"] for row in found) == ["e-1", "e-3"]
    assert client.ignored() == {("kogito", "/type = other"): 2}
    assert 'requests_total{kind="complete",source="kogito"} 1.0' in client.flow.app.metrics.text().decode()
    # The same batch is a repeat; another batch with its id is a copy.
    assert signed(client, items, content_type=BATCH).status == 200
    assert signed(client, [event("5")], content_type=BATCH).status == 401
    conflict = signed(client, [event("1", data={"x": 1}), event("6")], message="m-2", content_type=BATCH)
    assert conflict.status == 200
    assert sorted(row[0] for row in client.rows()) == ["1", "3", "6"]
    assert [(row[0], row[1]) for row in client.rejected() if row[1] == 409] == [("kogito", 409)]


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (event("2", data={"businessKey": True}), "/1/data/businessKey: "),
        (event("2", processDefinitionVersion="x"), "/1/processDefinitionVersion: "),
        (event("a\nb"), "/1/kogitoprocinstanceid: "),
        (event(""), "/1/kogitoprocinstanceid: "),
    ],
)
def test_a_batch_with_an_invalid_event_stores_nothing(client, bad, says):
    """Nothing of it is stored or counted, and the message names the index."""
    answer = signed(client, [event("1"), bad, event("3", "start")], content_type=BATCH)
    assert answer.status == 422
    assert says in answer.message
    assert client.rows() == []
    assert client.ignored() == {}


@pytest.mark.parametrize(("count", "status"), [(0, 422), (1, 200), (100, 200), (101, 422)])
def test_the_size_limits_of_a_batch(client, count, status):
    """A batch has 1 to 100 events."""
    assert signed(client, [event(str(number)) for number in range(count)], content_type=BATCH).status == status
    assert len(client.rows()) == (count if status == 200 else 0)


def test_failed_parked_and_dead_events_are_answered_200(harness, listens, sources, listen):
    """An event whose handler fails, which no handler takes, or which is dead, is answered 200 with the answer."""

    def fail(_event):
        raise Reject("not today")

    given = sources(SETTINGS.partition("[sources.form]")[0])
    client = listen(harness.open(listens(fail), sources=given))
    for prefer in ("wait=60", None):
        for key in ("leave", "nobody", ""):
            body = {"id": f"1{key}", "status": 2} | ({"key": key} if key else {})
            answer = client.post("oa", body, Prefer=prefer)
            assert (answer.status, answer.body) == (200, b'{"code": 0}')
    assert client.flow.sql("SELECT state FROM deliveries") == [("dead",)]
    assert len(client.rows()) == 3


def test_an_event_rejected_by_the_settings_is_422(harness, sources, listen):
    """With `routing.no_handler = "reject"`, nothing is stored, and the answer is 422."""
    client = listen(
        harness.open(sources=sources(SETTINGS.partition("[sources.form]")[0]), routing={"no_handler": "reject"})
    )
    assert client.post("oa", {"id": "1", "key": "nobody", "status": 2}).status == 422
    assert client.rows() == []
    assert client.post("oa", {"id": "1", "status": 1}).status == 200


def test_a_server_in_shutdown_is_503(client):
    """A server that is stopping answers 503, and stores nothing."""
    client.flow.app.begin_shutdown()
    for status in (1, 2):
        answer = client.post("oa", {"id": "1", "status": status})
        assert (answer.status, answer.headers["retry-after"]) == (503, "5")
    assert client.ignored() == {}


def test_a_forbidden_address_is_403_with_the_credential(harness, sources, listen):
    """It is answered 403 with the credential, and 401 without it."""
    text = SETTINGS.partition("[sources.form]")[0].replace("max_body_bytes = 1000", 'allow = ["192.0.2.0/24"]')
    client = listen(harness.open(sources=sources(text)))
    assert client.post("oa", {"id": "1", "status": 2}).status == 403
    assert client.post("oa", {"id": "1", "status": 2}, Authorization="Bearer nobodys").status == 401
    assert client.rows() == []
    assert [row[:2] for row in client.rejected()] == [("oa", 403), ("", 401)]


def test_the_rate_limit_of_a_source(harness, sources, listen):
    """Further requests are answered 429 with the time after which to send them again."""
    text = SETTINGS.partition("[sources.form]")[0].replace("max_body_bytes = 1000", "rate = 0.5\nburst = 2")
    client = listen(harness.open(sources=sources(text)))
    answers = [client.post("oa", {"id": str(number), "status": number}) for number in (1, 2, 2)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert answers[-1].headers["retry-after"] == "2"
    assert client.rows() == [("2",)]


@pytest.fixture
def short_busy_timeout(monkeypatch):
    """SQLite's busy timeout: a write fails while the database is locked, so it is not done after the lock."""
    monkeypatch.setattr("flowhooks.ledger.database.engines.BUSY_SECONDS", 0.05)


@pytest.mark.sqlite  # with PostgreSQL this time is also the timeout of a ping
@pytest.mark.usefixtures("short_busy_timeout")
def test_an_unwritable_ledger_is_503(client):
    """The answer is 503, and neither an event nor a count is stored."""
    with client.flow.locked():
        assert client.post("oa", {"id": "1", "status": 2}).status == 503
        assert signed(client, [event("1"), event("2", "start")], content_type=BATCH).status == 503
    assert (client.rows(), client.ignored()) == ([], {})


def test_metrics(client):
    """Requests are counted by their source and the kind that the mapping finds."""
    client.post("oa", {"id": "1", "status": 4})
    client.post("oa", {"id": "1", "status": 1})
    client.send("/in/oa", b"{}")
    lines = client.flow.app.metrics.text().decode().splitlines()
    responses = [line for line in lines if line.startswith("flowhooks_http_responses_total{")]
    counted = {line for line in responses if not line.endswith(" 0.0")}
    assert counted == {
        'flowhooks_http_responses_total{kind="cancel",source="oa",status="200"} 1.0',
        'flowhooks_http_responses_total{kind="(none)",source="oa",status="200"} 1.0',
        'flowhooks_http_responses_total{kind="(none)",source="(none)",status="401"} 1.0',
    }
