"""For any request and any result of a receiver, each 200 is a stored event or a counted rule, and nothing else (I1)."""

from __future__ import annotations

import hashlib
import json
import threading
from types import SimpleNamespace
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowhooks import ReceivedCallback, ReceiverResponse
from flowhooks.web.callback import receivers
from support.app_harness import plugin

pytestmark = pytest.mark.either

FORM = "application/x-www-form-urlencoded"
STRUCTURED, BATCH = "application/cloudevents+json", "application/cloudevents-batch+json"
ID = 'flow_instance_id = "/id"'
IDS = 'flow_instance_id = ["/data/id", "/id"]'
KIND = 'kind = {pointer = "/status", values = {"1" = "ignore", "2" = "complete", "4" = "cancel"}'
MAPPINGS = {
    "json": f'format = "json"\n{ID}\n{KIND}}}',
    "json2": f'format = "json"\n{IDS}\nbusiness_key = "/data/id"\n{KIND}, other = "ignore"}}',
    "form": f'format = "form"\n{ID}\nprocess_definition_version = "/status"\n{KIND}, other = "error"}}',
    "event": f'format = "cloudevent"\n{ID}\nconclusion = "/data/status"\n{KIND}, other = "ignore"}}',
}
ERRORS = {400, 401, 403, 408, 413, 415, 422, 429, 503}
FEW = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
MANY = settings(FEW, max_examples=1000)

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
statuses = st.sampled_from(["1", "2", "3", "4", 1, 2, 2.0, True, None, "", [], {}]) | scalars
ids = st.sampled_from(["i-1", "i-2", "i/3", 7, "", " x", "a\nb", "中", "\ud800", "x" * 300]) | scalars
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
data = values | st.fixed_dictionaries({}, optional={"id": ids, "status": statuses})
bodies = st.fixed_dictionaries(
    {}, optional={"id": ids, "status": statuses, "data": data, "businessKey": values, "processDefinitionKey": values}
)
events = st.builds(
    lambda body, attributes: attributes | body,
    bodies,
    st.fixed_dictionaries(
        {"specversion": st.sampled_from(["1.0", "1.0", "0.3"]), "source": st.just("/k"), "type": st.just("t")},
        optional={"id": st.just("e"), "traceparent": values},
    ),
)


def as_json(value):
    """The bytes of a value: any numbers, and halves of surrogate pairs as escapes."""
    return json.dumps(value).encode()


def token(name):
    """The token of a source."""
    return f"token-of-the-source-{name}"


def as_form(fields):
    """The bytes of a form."""
    return urlencode(fields).encode()


likely_ids = st.sampled_from(["i-1", "i-2", "i/3", 7, "中"])
likely = st.fixed_dictionaries(
    {"id": likely_ids, "status": st.sampled_from(["1", "2", "4", 2])},
    optional={"data": st.fixed_dictionaries({"id": likely_ids}), "businessKey": st.text(max_size=3)},
)
"""Bodies that the mappings often accept."""
likely_events = st.builds(
    lambda body: {"specversion": "1.0", "source": "/k", "type": "t"} | body | {"id": f"e-{body['id']}"}, likely
)
forms = st.dictionaries(
    st.sampled_from(["id", "status", "x"]), st.sampled_from(["1", "2", "i-1", "中", "\x00", ""]), max_size=3
)
raw_bodies = (
    st.binary(max_size=200)
    | (bodies | events).map(as_json)
    | st.lists(events, max_size=4).map(as_json)
    | forms.map(as_form)
)
media_types = st.sampled_from(
    [None, "application/json", FORM, STRUCTURED, BATCH, "text/plain", "application/json; charset=x"]
)
requests = (
    st.tuples(st.sampled_from(sorted(MAPPINGS)), raw_bodies, media_types)
    | st.tuples(st.sampled_from(["json", "json2"]), likely.map(as_json), st.just("application/json"))
    | st.tuples(st.just("form"), forms.map(as_form), st.just(FORM))
    | st.tuples(st.just("event"), likely_events.map(as_json), st.just(STRUCTURED))
)
"""A source, a body and a media type."""
results = (
    st.none()
    | values
    | st.builds(
        ReceiverResponse,
        status=st.sampled_from([200, 204, 299, 401, 422, 500, 302, 0, True, "200"]),
        body=st.binary(max_size=20) | st.just("text"),
        media_type=st.text(max_size=20) | st.just("text/plain"),
        rule=st.text(max_size=200) | st.none(),
    )
    | st.builds(
        ReceivedCallback,
        flow_instance_id=ids,
        data=bodies | st.just({"a": object()}) | values,
        kind=st.sampled_from(["complete", "cancel", "other", "", None]),
        response=st.none() | st.builds(ReceiverResponse, status=st.sampled_from([200, 201, 503])),
    )
)
"""Results of a receiver, most of them wrong."""


@pytest.fixture
def client(harness, sources, listen, monkeypatch):
    """A listener with each mapping, and with a receiver that does as `client.state.behave` says."""
    monkeypatch.setattr(receivers, "CALL_TIMEOUT", 0.3)
    text = '[sources.plugin.ingress]\nreceiver = "r"\n'
    for name, mapping in MAPPINGS.items():
        digest = hashlib.sha256(token(name).encode()).hexdigest()
        text += f'[sources.{name}]\ntoken_sha256 = ["{digest}"]\n[sources.{name}.ingress]\n{mapping}\n'
    state = SimpleNamespace(behave=None)
    receiver = plugin(receive_request=lambda source, request: state.behave())
    client = listen(harness.open(plugins={"r": receiver}, sources=sources(text)))
    client.state = state
    return client


def stored(client):
    """The stored events, the number of conflicts, and the number of ignored requests."""
    ((ignored,),) = client.flow.sql("SELECT coalesce(sum(count), 0) FROM ignored_requests")
    ((conflicts,),) = client.flow.sql("SELECT count(*) FROM conflicts")
    return {row[0] for row in client.flow.sql("SELECT id FROM events")}, conflicts, int(ignored)


def check(client, answer, before, *, batch=False):
    """Check an answer against what was stored before it and what is stored after it."""
    (events, conflicts, ignored), (more_events, more_conflicts, more_ignored) = before, stored(client)
    if answer.status in ERRORS:
        assert (more_events, more_conflicts, more_ignored) == before
        return
    assert answer.status in range(200, 300)
    assert events <= more_events
    event_id = answer.headers.get("flowhooks-event")
    if event_id:
        assert event_id in more_events
        assert more_ignored == ignored
        assert (len(more_events) - len(events)) + (more_conflicts - conflicts) <= 1
    elif not batch:
        assert (more_events, more_conflicts, more_ignored) == (events, conflicts, ignored + 1)


def run_mapping(client, name, body, media_type):
    """Send any body to a source with a mapping, and check what is stored."""
    before = stored(client)
    answer = client.send(f"/in/{name}", body, Content_Type=media_type, Authorization=f"Bearer {token(name)}")
    is_batch = name == "event" and media_type == BATCH
    check(client, answer, before, batch=is_batch)
    if is_batch and answer.status == 200:
        check_batch(client, json.loads(body), before)


def as_text(value):
    """The text of a string or of a whole number, which may be written as a fraction."""
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def check_batch(client, items, before):
    """Each event of a batch that was accepted is stored under its id, or ignored by its status."""
    kept = [item for item in items if as_text(item.get("status")) in {"2", "4"}]
    instances = {row[0] for row in client.flow.sql("SELECT flow_instance_id FROM events WHERE source = 'event'")}
    assert {as_text(item["id"]) for item in kept} <= instances
    assert stored(client)[2] - before[2] == len(items) - len(kept)


@FEW
@given(request=requests)
def test_any_request(client, request):
    """Any bytes to any mapping: never 409 or 500, and what is answered 200 is stored or counted."""
    run_mapping(client, *request)


@pytest.mark.long
@pytest.mark.timeout(1200)
@MANY
@given(request=requests)
def test_any_request_with_many_examples(client, request):
    """The same with many more requests."""
    run_mapping(client, *request)


@FEW
@given(items=st.lists(likely_events, min_size=1, max_size=5) | st.lists(likely_events | events | bodies, max_size=5))
def test_any_batch(client, items):
    """Batches, whose events are valid more often: all or none is stored."""
    run_mapping(client, "event", as_json(items), BATCH)


@FEW
@given(
    result=results | st.sampled_from([ValueError, SystemExit, KeyboardInterrupt, "hang"]),
    method=st.sampled_from(["GET", "POST"]),
)
def test_any_receiver(client, result, method):
    """A receiver that returns anything, raises or hangs: a 2xx is a stored event or a counted rule."""
    released = threading.Event()

    def behave():
        if result == "hang":
            released.wait()
        if isinstance(result, type):
            raise result("of the receiver")
        return result

    client.state.behave = behave
    before = stored(client)
    answer = client.send("/in/plugin", b"{}", method=method)
    released.set()
    check(client, answer, before)
    if result == "hang" or isinstance(result, type):
        assert answer.status == 503
    if result is None:
        assert answer.status in {401, 503}
