"""All plugins of `plugins/` in one real server: no plugin disturbs another, and each does its work."""

from __future__ import annotations

import base64
import json
import sqlite3
import subprocess
import sys
import threading
import tomllib
from collections import defaultdict
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from standardwebhooks.webhooks import Webhook

from support.journal import whole_lines
from support.waiting import until

PLUGINS = Path(__file__).parents[2] / "plugins"
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{SPAN}-01"
SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()
CONFIG = """
[plugins.contracts]
database = "contracts.db"
outbox = "outbox.txt"

[plugins.timings]
file = "timings.jsonl"

[plugins.audit]
file = "audit.jsonl"
outcomes = true

[[plugins.webhooks.endpoints]]
name = "crm"
url = "http://127.0.0.1:PORT/hooks"
secret = {env = "CRM_SECRET"}
every = true

[plugins.opentelemetry]
export = true

[[plugins.notice.chats]]
name = "operators"
url = "http://127.0.0.1:PORT/chat"
"""


def names():
    """The plugins of `plugins/`, by the entry points of their packages."""
    found = {}
    for file in PLUGINS.glob("*/pyproject.toml"):
        found |= tomllib.loads(file.read_text())["project"]["entry-points"]["flowhooks"]
    return found


@pytest.fixture
def outside():
    """The outside world: a service that receives messages, a collector and a chat; the posts to each path."""
    posted = defaultdict(list)

    class Takes(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            posted[self.path].append(({k.lower(): v for k, v in self.headers.items()}, body))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Takes) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        posted["port"] = server.server_address[1]
        yield posted
        server.shutdown()
        thread.join()


def lines(file):
    """The records in a file of JSON lines."""
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_all_plugins_are_installed_and_listed():
    """Each package of `plugins/` is in the tests' and `make`'s environments and on the page of plugins."""
    installed = {entry_point.name: entry_point.value for entry_point in entry_points(group="flowhooks")}
    assert names().items() <= installed.items()
    folders = {file.parent.name for file in PLUGINS.glob("*/pyproject.toml")}
    assert len(folders) == len(names())
    page, makefile = (PLUGINS / "README.md").read_text(), (PLUGINS.parent / "Makefile").read_text()
    assert {folder for folder in folders if f"({folder}/README.md)" in page} == folders
    assert {folder for folder in folders if f"plugins/{folder} " in f"{makefile.replace(chr(10), ' ')} "} == folders


def test_all_plugins_work_together(site, outside, monkeypatch):
    """One contract is archived and one is rejected: each plugin has done its work for both."""
    monkeypatch.setenv("CRM_SECRET", SECRET)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{outside['port']}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    # At its end the process gets three seconds to send the measures, which may be too short on a busy machine.
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "2000")
    others = sorted({entry_point.name for entry_point in entry_points(group="flowhooks")} - names().keys())
    server = site.start(config=CONFIG.replace("PORT", str(outside["port"])), plugins_deny=",".join(others))
    serving = server.until_logged("server_started")
    assert (serving["plugins"], serving["quarantined"]) == (len(names()), 0)

    body = {"processDefinitionKey": "test_flow_key", "businessKey": "HT-1"}
    good = server.post("1", body, traceparent=TRACEPARENT, Prefer="wait=60", timeout=90)
    assert (good.status, good.json) == (200, {"success": True})
    refused = server.post("2", {"processDefinitionKey": "test_flow_key"}, Prefer="wait=60", timeout=90)
    assert "There is no businessKey" in refused.check_error(500)

    with site.ledger() as ledger:
        ids = {}
        for answer in (good, refused):
            delivery_statuses = {
                delivery_status.handler: delivery_status
                for delivery_status in ledger.delivery_statuses(answer.event_id)
            }
            ids[answer.event_id] = {
                name: delivery_status.delivery_id for name, delivery_status in delivery_statuses.items()
            }
            assert delivery_statuses.keys() == {"contracts:archive_contract", "webhooks:crm", "audit:record_complete"}
            assert {delivery_statuses[name].state.value for name in ("webhooks:crm", "audit:record_complete")} == {
                "succeeded"
            }
    contracts(site, good, ids)
    webhooks(outside, ids)
    notice(outside)
    opentelemetry(outside, ids)
    until(lambda: "flowhooks.delivery.attempts" in measures(outside))
    # At its end the server gives the notices that wait two seconds, and the audit trail syncs each record to the disk.
    files = {"timings.jsonl": 2 + 6, "audit.jsonl": 2 + 4}  # of events, and of attempts
    until(lambda: {name: len(whole_lines(site.folder / name)) for name in files} == files)
    server.stop()
    server.check_log()
    timings(site, ids)
    audit(site, ids)


def contracts(site, good, ids):
    """The contract with a business key is archived."""
    with closing(sqlite3.connect(site.folder / "contracts.db")) as archive:
        found = archive.execute("SELECT business_key, delivery_id FROM contracts").fetchall()
    assert found == [("HT-1", ids[good.event_id]["contracts:archive_contract"])]


def webhooks(outside, ids):
    """Both events were forwarded once with valid signatures, and with the engine's trace if it sent one."""
    messages = [(headers["webhook-id"], Webhook(SECRET).verify(body, headers)) for headers, body in outside["/hooks"]]
    assert sorted((webhook_id, message["data"]["eventId"]) for webhook_id, message in messages) == sorted(
        (deliveries["webhooks:crm"], event_id) for event_id, deliveries in ids.items()
    )
    first, second = (deliveries["webhooks:crm"] for deliveries in ids.values())
    traces = {headers["webhook-id"]: headers.get("traceparent") for headers, _ in outside["/hooks"]}
    assert traces == {first: TRACEPARENT, second: None}


def notice(outside):
    """A recipient is notified of the dead delivery."""
    ((_, body),) = until(lambda: outside["/chat"])
    assert "contracts:archive_contract" in json.loads(body)["text"]


def opentelemetry(outside, ids):
    """Each attempt is a span, including attempts of other plugins' handlers, with a link to the engine's span."""

    def spans():
        return {
            (
                span.name,
                value["messaging.message.id"],
                value["flowhooks.outcome"],
                tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
            )
            for _, body in list(outside["/v1/traces"])
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
            for value in [{attribute.key: attribute.value.string_value for attribute in span.attributes}]
        }

    first, second = ids.values()
    wanted = {
        (
            f"process {name}",
            delivery_id,
            "rejected" if delivery_id == second["contracts:archive_contract"] else "succeeded",
            links,
        )
        for deliveries, links in ((first, ((TRACE, SPAN),)), (second, ()))
        for name, delivery_id in deliveries.items()
    }
    until(lambda: spans() == wanted)


def measures(outside):
    """The names of the instruments."""
    return {
        metric.name
        for _, body in list(outside["/v1/metrics"])
        for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def timings(site, ids):
    """Each attempt was measured."""
    settled = [record for record in lines(site.folder / "timings.jsonl") if record["what"] == "settled"]
    assert sorted(record["delivery"] for record in settled) == sorted(
        delivery_id for deliveries in ids.values() for delivery_id in deliveries.values()
    )
    assert all(record["seconds"] > 0 for record in settled)


def audit(site, ids):
    """Each event is recorded once with the outcomes of other plugins' attempts, and the trail is complete."""
    found = lines(site.folder / "audit.jsonl")
    assert sorted(record["event"] for record in found if record["what"] == "event") == sorted(ids)
    assert sorted((record["handler"], record["outcome"]) for record in found if record["what"] == "outcome") == [
        ("contracts:archive_contract", "rejected"),
        ("contracts:archive_contract", "succeeded"),
        ("webhooks:crm", "succeeded"),
        ("webhooks:crm", "succeeded"),
    ]
    command = [sys.executable, "-m", "flowhooks_audit", "verify", site.folder / "audit.jsonl"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
