"""The trend of a handler, a source or an error group in the administration API."""

from __future__ import annotations

from urllib.parse import quote, urlencode

import falcon.testing
import pytest
from jsonschema import Draft202012Validator

from flowhooks.clock import DAY, to_text
from flowhooks.web.admin.api.openapi import openapi
from flowhooks.web.admin.app import create_admin
from support import trend_rows
from support.trend_rows import MINUTE

pytestmark = pytest.mark.either

PATHS = {"handler": "/api/handlers/p:h/trend", "source": "/api/sources/default/trend"}


@pytest.fixture
def api(harness, listens, clock):
    """A client of a server on which a handler and a source are slower than on the days before."""
    clock.advance(days=300, hours=14)
    flow = harness.open(listens(lambda event: None, name="h"), start=False)
    now = clock.now()
    trend_rows.store(flow, trend_rows.slow_today("handler", "p:h", now))
    trend_rows.store(flow, trend_rows.slow_today("source", "default", now, good="200", bad="503"))
    return client_of(flow)


def client_of(flow):
    """A client of the administration API, with its app."""
    client = falcon.testing.TestClient(create_admin(flow.app, "t"), headers={"Authorization": "Bearer t"})
    client.flow = flow
    return client


@pytest.mark.parametrize("kind", PATHS)
def test_a_slower_handler_is_compared_with_yesterday(api, kind):
    """The response has the totals of now, yesterday and last week, their steps, and the factor; as published."""
    answer = api.simulate_get(PATHS[kind])
    assert answer.status_code == 200
    found = answer.json
    assert (found["kind"], found["slowdown"]["earlier"], found["slowdown"]["is_slower"]) == (kind, "yesterday", True)
    assert found["slowdown"]["factor"] == 9.23
    assert (found["current"]["totals"]["count"], found["yesterday"]["totals"]["count"]) == (1680, 1440)
    assert found["current"]["totals"]["success_share"] == round(1620 / 1680, 6)
    assert sum(point["count"] for point in found["current"]["points"]) == 1680
    assert found["last_week"]["totals"] == found["yesterday"]["totals"]
    document = openapi(api.flow.app.schemas)
    path = f"/api/{kind}s/{{{'id' if kind == 'handler' else 'name'}}}/trend"
    schema = document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    Draft202012Validator({"components": document["components"], **schema}).validate(found)


def test_a_trend_over_a_time_range(api):
    """A range is given by its start and end, absolute or relative to now."""
    now = api.flow.clock.now()
    query = urlencode({"from": to_text(now - DAY), "to": to_text(now - DAY + 60 * MINUTE)})
    found = api.simulate_get(f"{PATHS['handler']}?{query}").json
    assert (found["current"]["since"], found["current"]["step"]) == (to_text(now - DAY), 60)
    assert found["current"]["totals"]["count"] == 0
    found = api.simulate_get(f"{PATHS['handler']}?from=1h").json
    assert found["current"]["since"] == to_text(now - 60 * MINUTE)
    assert found["current"]["totals"]["count"] == 480
    assert api.simulate_get(f"{PATHS['handler']}?from=30d").json["last_week"] is None


@pytest.fixture
def failing(harness, listens, clock):
    """A client of a server with an error, of which there were more attempts an hour ago than a day and an hour ago."""

    def fail(event):
        raise OSError("the archive is full")

    clock.advance(days=300, hours=14)
    flow = harness.open(listens(fail))
    flow.take("i1")
    ((error,),) = flow.sql("SELECT fingerprint FROM error_groups")
    for days, per_minute in ((0, 3), (1, 1)):
        start = clock.now() - days * DAY - 60 * MINUTE
        rows = trend_rows.rows(
            "error_group", error, start, minutes=30, seconds=None, per_minute=per_minute, outcome="failed"
        )
        trend_rows.store(flow, rows)
    client = client_of(flow)
    client.error = error
    return client


def test_an_error_group_is_compared_with_yesterday(failing):
    """The response has the numbers of attempts, without durations, as published; the first characters are enough."""
    answer = failing.simulate_get(f"/api/errors/{failing.error[:8]}/trend?to=20m")
    assert answer.status_code == 200
    found = answer.json
    assert (found["kind"], found["subject"], found["slowdown"]) == ("error_group", failing.error, None)
    assert found["current"]["totals"]["outcomes"] == {"failed": 90}
    assert (found["current"]["totals"]["p50_ms"], found["current"]["totals"]["p95_ms"]) == (None, None)
    assert (found["yesterday"]["totals"]["count"], found["last_week"]["totals"]["count"]) == (30, 0)
    document = openapi(failing.flow.app.schemas)
    schema = document["paths"]["/api/errors/{id}/trend"]["get"]["responses"]["200"]["content"]["application/json"]
    Draft202012Validator({"components": document["components"], **schema["schema"]}).validate(found)
    path = f"/api/errors/{failing.error}/trend"
    assert failing.simulate_get(f"{path}?from=28m&to=20m").json["current"]["totals"]["count"] == 0
    assert failing.simulate_get(f"{path}?from=soon").status_code == 422
    for name in (failing.error[:7], "f" * 8, "f" * 64, "p:fail", "(others)", "\u202e"):
        answer = failing.simulate_get(f"/api/errors/{quote(name, safe='')}/trend")
        assert answer.status_code == 404, name
        assert "There is no error group with this id" in answer.json["message"], name


@pytest.mark.parametrize(
    ("query", "status", "text"),
    [
        ("from=soon", 422, "The parameter from is not a time"),
        ("to=9999-99-99", 422, "The parameter to is not a time"),
        ("from=2026-10-28&to=2026-10-28", 422, "The parameter from must be before to"),
        ("from=2099-01-01", 422, "in the past"),
        ("from=0001-01-01", 422, "at most 400 days"),
        ("from=999999999w", 422, "The parameter from is not a time"),
        ("since=1h", 400, "from, to"),
        ("from=1h&from=2h", 400, "from"),
    ],
)
def test_invalid_time_ranges_are_rejected(api, query, status, text):
    """An invalid time range is refused with the reason."""
    answer = api.simulate_get(f"{PATHS['handler']}?{query}")
    assert answer.status_code == status
    assert text in answer.json["message"]


@pytest.mark.parametrize("name", ["p:none", "none", "\u202e", "'; DROP TABLE trends; --", "(others)x"])
@pytest.mark.parametrize(("kind", "text"), [("handler", "no handler"), ("source", "no source")])
def test_an_unknown_handler_or_source_is_404(api, kind, text, name):
    """An unknown handler or source is 404, in the language of the client."""
    path = f"/api/{kind}s/{quote(name, safe='')}/trend"
    answer = api.simulate_get(path)
    assert (answer.status_code, text in answer.json["message"]) == (404, True)
    assert "没有该" in api.simulate_get(path, headers={"Accept-Language": "zh"}).json["message"]
