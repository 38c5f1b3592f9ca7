"""`/metrics` of a real server shows Prometheus what happened."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess

import pytest
from prometheus_client.parser import text_string_to_metric_families

import flowhooks

PLUGIN = """
from flowhooks import handler, hookimpl

@handler(process_key="good")
def good(event):
    return event.flow_instance_id

@handler(process_key="bad")
def bad(event):
    raise ValueError("no room")

@hookimpl
def handlers():
    return [good, bad]
"""


def scrape(server):
    """The response, and the value of each name and its labels."""
    answer = server.ask("GET", "/metrics", admin=True)
    assert answer.status == 200
    families = text_string_to_metric_families(answer.body.decode())
    return answer, {
        (sample.name, *sample.labels.values()): sample.value for family in families for sample in family.samples
    }


def test_every_answer_is_counted(site):
    """Each status is counted once: those of handlers, the schema and HTTP, and those of the HTTP server itself."""
    site.plugin("kit", PLUGIN)
    server = site.start(http__max_body_bytes=2000)
    wanted = {
        ("complete", "200"): server.post("i1", {"processDefinitionKey": "good"}),
        ("complete", "500"): server.post("i2", {"processDefinitionKey": "bad"}),
        ("complete", "202"): server.post("i3", {"processDefinitionKey": "nobody"}),
        ("complete", "409"): server.post("i1", {"processDefinitionKey": "good", "a": 1}),
        ("complete", "422"): server.post("i4", {"processDefinitionKey": 5}),
        ("complete", "400"): server.post("i5", b"{"),
        ("complete", "405"): server.ask("GET", "/flow/i1/call-back/complete"),
        ("(none)", "404"): server.ask("GET", "/nowhere"),
        ("(none)", "413"): server.post("i6", b" " * 3000),
    }
    for (_, status), answer in wanted.items():
        assert answer.status == int(status)
    answer, found = scrape(server)
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    counted = {
        (kind, status): value
        for (name, kind, *more, status), value in ((key, found[key]) for key in found if len(key) > 2)
        if name == "flowhooks_http_responses_total" and more in (["default"], ["(none)"]) and value
    }
    assert counted == dict.fromkeys(wanted, 1)
    assert found["flowhooks_http_requests_total", "complete", "default"] == 6
    assert found["flowhooks_http_requests_total", "complete", "(none)"] == 1  # 405: no credential is looked at
    assert found["flowhooks_http_request_duration_seconds_count", "complete", "default"] == 6
    assert found["flowhooks_attempts_total", "kit:good", "succeeded"] == 1
    assert found["flowhooks_attempts_total", "kit:bad", "failed"] == 1
    assert found["flowhooks_deliveries", "kit:bad", "dead"] == 1
    assert found["flowhooks_parked_events",] == 1
    assert found["flowhooks_unaccounted_events",] == 0
    assert found["process_resident_memory_bytes",] > 10 * 1024**2
    assert 0 < found["process_open_fds",] < found["process_max_fds",]
    build = f'flowhooks_build_info{{python="{platform.python_version()}",version="{flowhooks.__version__}"}} 1.0'
    assert build in answer.body.decode().splitlines()
    assert not [name for name, *_ in found if name.endswith("_created")]
    server.stop()


def test_promtool_accepts_the_names(site):
    """`promtool check metrics` finds no metric whose name, unit or help text breaks a convention."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus)")
    site.plugin("kit", PLUGIN)
    server = site.start()
    assert server.post("i1", {"processDefinitionKey": "good"}).status == 200
    assert server.post("i2", {"processDefinitionKey": "bad"}).status == 500
    answer, _ = scrape(server)
    checked = subprocess.run([promtool, "check", "metrics"], input=answer.body, capture_output=True, check=False)
    assert (checked.returncode, checked.stderr, checked.stdout) == (0, b"", b"")
    server.stop()


def test_no_value_of_a_callback_is_a_label(site):
    """No value in any member of a callback becomes a time series."""
    site.plugin("kit", PLUGIN)
    server = site.start()
    server.post("i1", {"processDefinitionKey": "good"})
    before = set(scrape(server)[1])
    for number in range(50):
        body = {"processDefinitionKey": "good", "callBackProcessClass": f'x"}} {number}\n', "businessKey": f"b{number}"}
        assert server.post(f"i-{number}", body).status == 200
        assert server.ask("GET", f"/flow/x/call-back/kind{number}").status == 404
        assert server.ask(f"M{number}", "/flow/x/call-back/complete").status in {400, 405, 501}
    after = set(scrape(server)[1])
    new = {
        key
        for key in after - before
        if not key[0].startswith(("flowhooks_http_responses", "flowhooks_http_request_duration"))
    }
    assert new <= {("flowhooks_http_requests_total", kind, "(none)") for kind in ("complete", "(none)")}
    assert len(after - before) < 60
    server.stop()


def test_the_callback_listener_serves_no_metrics(site):
    """Only the administration listener serves metrics; the callback listener does not know the path."""
    server = site.start()
    assert server.ask("GET", "/metrics").status == 404
    assert json.loads(server.ask("GET", "/metrics").body)["status"] == 404
    server.stop()
