"""`flowhooks events show` and `list` of events that came by the fixed URL of a source."""

from __future__ import annotations

import pytest

from support import ingress

pytestmark = pytest.mark.sqlite


@pytest.fixture
def env(harness, listens):
    """The environment of a ledger with an event of a fixed URL, and one of a callback."""
    flow = harness.open(listens(lambda event: None))
    ingress.take(flow, "fixed", processDefinitionKey="leave")
    flow.take("called")
    return {"FLOWHOOKS_DATABASE": str(harness.file)}


def test_the_origin_and_the_trace(run, asked, env):
    """The event of a fixed URL says so and has its trace; the event of a callback has neither line."""
    shown = run("events", "show", "fixed", **env).stdout
    assert "  received       20" in shown
    assert "  fixed URL      /in/yudao\n" in shown
    assert f"  traceparent    {ingress.TRACEPARENT}\n" in shown
    (event,) = asked("events", "show", "fixed", **env)["events"]
    assert (event["origin"], event["traceparent"]) == ("ingress", ingress.TRACEPARENT)
    shown = run("events", "show", "called", **env).stdout
    assert "fixed URL" not in shown
    assert "traceparent" not in shown
    (event,) = asked("events", "show", "called", **env)["events"]
    assert (event["origin"], event["traceparent"]) == ("callback", None)


def test_the_filter_by_origin(asked, env):
    """`--origin ingress` lists the events of fixed URLs only."""
    listed = asked("events", "list", "--origin", "ingress", **env)["events"]
    assert [event["flow_instance_id"] for event in listed] == ["fixed"]
