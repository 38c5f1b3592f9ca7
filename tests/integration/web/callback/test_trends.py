"""Responses are counted over time by the source of the request."""

from __future__ import annotations

import pytest

from flowhooks.clock import DAY, SECOND
from flowhooks.ledger.trend_queries import read_trend

CONFIG = """
[sources.oa]
TOKEN

[sources.oa.ingress]
format = "json"
flow_instance_id = "/id"
kind = {pointer = "/status", values = {"1" = "ignore", "2" = "complete"}}
"""


@pytest.fixture
def flow(harness, sources):
    """An app with a source that may also call a fixed URL."""
    return harness.open(sources=sources(CONFIG))


def statuses(flow):
    """The number of responses of each source by status."""
    flow.app.trends.flush()
    now, found = flow.clock.now(), {}
    with flow.app.ledger.connection() as connection:
        for (subject,) in flow.sql("SELECT DISTINCT subject FROM trends WHERE kind = 'source'"):
            (point,) = read_trend(
                connection, "source", subject, since=now - DAY, until=now + DAY, step=2 * DAY // SECOND
            )
            found[subject] = point.by_outcome()
    return found


def test_responses_are_counted_by_source_and_status(flow, listen):
    """Callbacks, requests to fixed URLs and rejected requests are counted under the source that sent them."""
    client = listen(flow)
    bearer = {"Authorization": client.bearer}
    for instance, body in (("i1", {}), ("i2", {}), ("i3", b"no JSON")):
        client.send(f"/flow/{instance}/call-back/complete", body, Content_Type="application/json", **bearer)
    client.post("oa", {"id": "i4", "status": 2})
    client.post("oa", {"id": "i5", "status": 1})
    client.post("oa", {"status": 2})
    counted = statuses(flow)
    assert set(counted) == {"oa"}
    assert sum(counted["oa"].values()) == 6
    assert counted["oa"]["400"] == 1


def test_a_request_without_a_valid_credential_has_no_source(flow, listen):
    """A request whose sender is not known is counted nowhere, whatever source it names."""
    client = listen(flow)
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        for path in ("/flow/i1/call-back/complete", "/in/oa", "/in/unknown", "/openapi.json"):
            client.send(path, {}, Content_Type="application/json", **headers)
    client.send("/openapi.json", method="GET")
    assert statuses(flow) == {}
