"""What the console shows of senders with a fixed URL: their events, and the requests that were ignored."""

# ruff: noqa: RUF001 (Chinese has punctuation marks of its own)
from __future__ import annotations

import pytest

from support import ingress

pytestmark = pytest.mark.sqlite


@pytest.fixture
def flow(harness, listens):
    """A flow with an event of the fixed URL of a source, and one of a callback."""
    flow = harness.open(listens(lambda event: None))
    ingress.take(flow, "fixed", processDefinitionKey="leave")
    flow.take("called")
    return flow


def path_of(console, instance):
    """The path of the event of an instance."""
    return f"/events/{console.flow.events(flow_instance_id=instance)[0]}"


def test_the_origin_and_the_trace_of_an_event(flow, serve):
    """The page has the fixed URL and the trace in both languages, and neither for a callback."""
    console = serve(flow)
    page = console.page(path_of(console, "fixed")).text
    assert "Origin request to the fixed URL /in/yudao" in page
    assert f"Trace (traceparent) {ingress.TRACEPARENT}" in page
    chinese = console.page(path_of(console, "fixed"), "zh").text
    assert "由来 发往固定地址的请求 /in/yudao" in chinese
    assert f"链路（traceparent） {ingress.TRACEPARENT}" in chinese
    page = console.page(path_of(console, "called")).text
    assert "traceparent" not in page
    assert "Origin" not in page


def test_events_by_their_origin(flow, serve):
    """The filter offers the origin, and finds the events of fixed URLs only."""
    console = serve(flow)
    page = console.page("/events?origin=ingress")
    assert "request to the fixed URL" in page.text
    assert path_of(console, "fixed") in " ".join(page.links())
    assert path_of(console, "called") not in " ".join(page.links())
    assert "发往固定地址的请求" in console.page("/events", "zh").text
