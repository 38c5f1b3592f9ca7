"""`/metrics` of a real server shows Prometheus what happened."""

from __future__ import annotations

import json

from prometheus_client.parser import text_string_to_metric_families

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
    counted = {key[1:]: value for key, value in found.items() if key[0] == "flowhooks_http_responses_total"}
    assert counted == dict.fromkeys(wanted, 1)
    assert found["flowhooks_http_requests_total", "complete"] == 7
    assert found["flowhooks_http_request_duration_seconds_count", "complete"] == 7
    assert found["flowhooks_attempts_total", "kit:good", "succeeded"] == 1
    assert found["flowhooks_attempts_total", "kit:bad", "failed"] == 1
    assert found["flowhooks_deliveries", "kit:bad", "dead"] == 1
    assert found["flowhooks_parked_events",] == 1
    assert found["flowhooks_unaccounted_events",] == 0
    server.stop()


def test_no_value_of_a_call_back_is_a_label(site):
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
    assert new <= {("flowhooks_http_requests_total", "(none)"), ("flowhooks_http_requests_created", "(none)")}
    assert len(after - before) < 40
    server.stop()


def test_who_has_the_address_of_call_backs_only_sees_nothing(site):
    """Only the administration listener serves metrics; the callback listener does not know the path."""
    server = site.start()
    assert server.ask("GET", "/metrics").status == 404
    assert json.loads(server.ask("GET", "/metrics").body)["status"] == 404
    server.stop()
