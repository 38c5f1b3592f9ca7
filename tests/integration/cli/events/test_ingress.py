"""`flowhooks events show` and `list` of events that came by the fixed URL of a source."""

from __future__ import annotations

import pytest

from flowhooks.errors import IdentityConflict
from support import ingress

pytestmark = pytest.mark.sqlite

RAW = "id=fixed&note=\x1b[31mred\nsecond line"
MEDIA_TYPE = "application/x-www-form-urlencoded; charset=utf-8"


@pytest.fixture
def env(harness, listens):
    """The environment of a ledger with an event of a fixed URL, and one of a callback."""
    flow = harness.open(listens(lambda event: None))
    ingress.take(flow, "fixed", processDefinitionKey="leave", raw=RAW, media_type=MEDIA_TYPE)
    flow.take("called")
    return {"FLOWHOOKS_DATABASE": str(harness.file)}


def test_the_origin_and_the_trace(run, run_json, env):
    """The event of a fixed URL says so and has its trace; the event of a callback has neither line."""
    shown = run("events", "show", "fixed", **env).stdout
    assert "  received       20" in shown
    assert "  fixed URL      /in/yudao\n" in shown
    assert f"  traceparent    {ingress.TRACEPARENT}\n" in shown
    (event,) = run_json("events", "show", "fixed", **env)["events"]
    assert (event["origin"], event["traceparent"]) == ("ingress", ingress.TRACEPARENT)
    shown = run("events", "show", "called", **env).stdout
    assert "fixed URL" not in shown
    assert "traceparent" not in shown
    (event,) = run_json("events", "show", "called", **env)["events"]
    assert (event["origin"], event["traceparent"]) == ("callback", None)


def test_the_filter_by_origin(run_json, env):
    """`--origin ingress` lists the events of fixed URLs only."""
    listed = run_json("events", "list", "--origin", "ingress", **env)["events"]
    assert [event["flow_instance_id"] for event in listed] == ["fixed"]


def test_the_request_as_received(run, run_json, env):
    """The raw body is printed with its media type and escaped; an event of a callback has none."""
    shown = run("events", "show", "fixed", **env).stdout
    assert f"  request as received, Content-Type {MEDIA_TYPE}\n" in shown
    assert "    id=fixed&note=\\u001b[31mred\n    second line\n" in shown
    (event,) = run_json("events", "show", "fixed", **env)["events"]
    assert (event["raw_body"], event["media_type"]) == (RAW, MEDIA_TYPE)
    assert event["body"] == '{"processDefinitionKey":"leave"}'
    (event,) = run_json("events", "show", "called", **env)["events"]
    assert (event["raw_body"], event["media_type"]) == (None, None)
    assert "as received" not in run("events", "show", "called", **env).stdout


def test_a_conflict_at_a_fixed_url(run, harness, listens):
    """The other body is said to be kept and not rejected, because its sender got a success."""
    flow = harness.open(listens(lambda event: None))
    ingress.take(flow, "fixed", businessKey="1", raw="a")
    with pytest.raises(IdentityConflict):
        ingress.take(flow, "fixed", businessKey="2", raw="b")
    shown = run("events", "show", "fixed", FLOWHOOKS_DATABASE=str(harness.file)).stdout
    assert "  another body, answered as a success and kept, was received at " in shown
    assert "409" not in shown.partition("operations")[0]


def test_the_filter_by_trace(run, run_json, env):
    """`--trace-id` lists the events of a trace; what is no trace id is wrong usage and selects nothing."""
    listed = run_json("events", "list", "--trace-id", ingress.TRACEPARENT[3:35], **env)["events"]
    assert [event["flow_instance_id"] for event in listed] == ["fixed"]
    assert run_json("events", "list", "--trace-id", "0" * 32, **env)["events"] == []
    for wrong in ("", ingress.TRACEPARENT, "A" * 32, "0" * 31):
        ran = run("events", "list", "--trace-id", wrong, **env)
        assert (ran.exit_code, "32 hexadecimal digits" in ran.output) == (2, True)
