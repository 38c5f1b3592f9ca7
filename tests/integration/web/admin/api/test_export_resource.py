"""`GET /api/events/export` over a real socket: complete files, refused queries, slow clients."""

from __future__ import annotations

import csv
import http.client
import io
import json
import socket
from contextlib import closing
from urllib.parse import urlencode

import pytest

from flowhooks import Reject
from flowhooks.errors import LedgerUnusable, Unavailable
from flowhooks.ledger import audit
from flowhooks.operations import event_export
from flowhooks.web.admin.api.export_resource import MAX_EXPORTS
from support.waiting import WAIT_TIMEOUT, until

pytestmark = pytest.mark.either


def work(event):
    """Fail finally if the process was rejected."""
    if event.conclusion == "rejected":
        raise Reject("=cmd|'/c calc'!A1")


@pytest.fixture
def console(harness, serve, listens):
    """A served administration listener with three events."""
    flow = harness.open(listens(work, process_key="order"))
    for instance in ("1", "2", "3"):
        flow.take(instance, key="order", businessKey=f"B-{instance}", conclusion="rejected" if instance == "2" else "")
    return serve(flow)


def export(console, **query):
    """The response to an export."""
    return console.get(f"/api/events/export?{urlencode(query, doseq=True)}", root="")


def test_json_lines_export(console):
    """The file has the events as `GET /api/events` lists them, and is offered as a download."""
    answer = export(console)
    listed = json.loads(console.get("/api/events", root="").body)["events"]
    assert [json.loads(line) for line in answer.body.splitlines()] == listed
    assert answer.headers["Content-Type"] == "application/x-ndjson; charset=utf-8"
    assert answer.headers["Content-Disposition"].startswith('attachment; filename="flowhooks-events-')
    assert answer.headers["Content-Disposition"].endswith('.jsonl"')
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_csv_export_of_a_search(console):
    """The filter of the list applies, and an error of a handler is no formula."""
    answer = export(console, format="csv", state="dead")
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    (row,) = csv.DictReader(io.StringIO(answer.body.decode("utf-8-sig"), newline=""))
    assert (row["business_key"], row["error"]) == ("B-2", "'=cmd|'/c calc'!A1")


def test_exports_are_logged(console, logged):
    """The log says who took how many events, with which bodies."""
    export(console, bodies="true", limit=2)
    record = until(lambda: next((record for record in logged if record["event"] == "events_exported"), None))
    assert {name: record[name] for name in ("operator", "address", "bodies", "events", "complete")} == {
        "operator": "local",
        "address": "127.0.0.1",
        "bodies": "stored",
        "events": 2,
        "complete": True,
    }


def audited(console, result):
    """The only entry of the audit log about an export, once it has this result: operator, interface, detail."""

    def find():
        entries = console.flow.sql("SELECT actor, interface, detail FROM audit_log WHERE action = 'export'")
        assert len(entries) <= 1
        found = [(actor, interface, json.loads(detail)) for actor, interface, detail in entries]
        return next((entry for entry in found if entry[2]["result"] == result), None)

    return until(find)


def test_an_export_is_an_audit_entry(console):
    """The entry has the filter, the format, the bodies, the client and the number of events."""
    export(console, format="csv", state="dead", masked="true")
    assert audited(console, "complete") == (
        "local",
        "api",
        {
            "event_filter": {"state": "dead"},
            "format": "csv",
            "bodies": "masked",
            "role": "operate",
            "address": "127.0.0.1",
            "result": "complete",
            "events": 1,
        },
    )
    console.get("/api/events/export", root="", method="HEAD")
    assert export(console, state="ded").status == 422
    page = console.get("/audit?action=export").page.text
    assert "local through the API events exported" in page
    assert "Bodies masked" in page
    assert "Result complete" in page
    assert audited(console, "complete")[2]["events"] == 1


def test_a_download_of_the_console_is_an_audit_entry(console):
    """A download by a link of the console is recorded as one of the console."""
    console.get("/events/export?format=jsonl")
    _, interface, detail = audited(console, "complete")
    assert (interface, detail["events"], detail["bodies"], detail["event_filter"]) == ("console", 3, "none", {})


@pytest.mark.sqlite
def test_an_export_that_cannot_be_recorded_is_not_sent(console):
    """Without an audit entry there is no file, but an error."""
    with console.flow.locked(timeout=0.05):
        answer = export(console)
        assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
        assert "audit log" in json.loads(answer.body)["message"]
    assert console.flow.sql("SELECT count(*) FROM audit_log WHERE action = 'export'") == [(0,)]
    assert export(console).status == 200


@pytest.mark.sqlite
def test_a_result_that_cannot_be_recorded_is_logged(console, monkeypatch, logged):
    """If the ledger cannot be written at the end, the client has the file, and the entry has no result."""

    def fails(_transaction, _entry):
        raise Unavailable("ledger_down")

    monkeypatch.setattr(audit, "update_detail", fails)
    answer = export(console)
    assert (answer.status, len(answer.body.splitlines())) == (200, 3)
    until(lambda: "audit_failed" in {record["event"] for record in logged})
    assert "events" not in audited(console, "started")[2]


def test_bodies_are_exported_on_request(console):
    """Bodies are exported on request, and masked ones if both are requested."""
    # A mask has the shape of the value: the mask of a short one could be the value of another by chance.
    business_key = "Müller-2026-0815-4711"
    console.flow.take("4", key="order", businessKey=business_key)
    newest = json.loads(export(console, bodies="true", limit=1).body.splitlines()[0])
    assert newest["body"]["businessKey"] == business_key
    for query in ({"masked": "true"}, {"masked": "true", "bodies": "true"}):
        masked = export(console, **query).body
        assert b"2026-0815-4711" not in masked
        assert b"processDefinitionKey" in masked


def test_the_last_line_of_a_cut_file_has_the_next_cursor(console):
    """`next` of the last line is the `after` of the request that continues."""
    *events, mark = [json.loads(line) for line in export(console, limit=2).body.splitlines()]
    assert mark == {"next": events[-1]["id"]}
    (oldest,) = [json.loads(line) for line in export(console, after=mark["next"]).body.splitlines()]
    assert oldest["flow_instance_id"] == "1"


@pytest.mark.parametrize(
    ("query", "status", "named"),
    [
        ({"format": "xlsx"}, 422, "csv, jsonl"),
        ({"masked": "yes"}, 422, "masked"),
        ({"limit": "100001"}, 422, "100000"),
        ({"stat": "dead"}, 400, "stat"),
        ({"state": "ded"}, 422, "state"),
        ({"last": "5"}, 400, "last"),
        ({"error_group": "0123456789ab"}, 404, ""),
    ],
)
@pytest.mark.sqlite
def test_wrong_queries_are_rejected(console, query, status, named):
    """A wrong parameter is refused by name with the contract's error, not with a file."""
    answer = export(console, **query)
    assert answer.status == status
    assert named in json.loads(answer.body)["message"]
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"


@pytest.mark.sqlite
def test_head_has_the_headers_of_the_file(console):
    """HEAD reads no events."""
    answer = console.get("/api/events/export?format=csv", method="HEAD", root="")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"


@pytest.mark.sqlite
def test_a_ledger_that_cannot_be_read_is_503(console, monkeypatch, logged):
    """An error before the first page has its status."""

    def fails():
        raise LedgerUnusable("the database cannot be read: SELECT secret")

    monkeypatch.setattr(console.flow.app.ledger, "connection", fails)
    answer = export(console)
    assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
    assert b"SELECT" not in answer.body
    assert "api_request_failed" in {record["event"] for record in logged}


@pytest.mark.sqlite
def test_a_truncated_file_has_no_last_chunk(console, monkeypatch, logged):
    """If the ledger fails between two pages, the connection ends without the last chunk."""
    monkeypatch.setattr(event_export, "PAGE_SIZE", 1)
    read = event_export.search_events
    pages = iter((True, False))

    def fails_later(*args, **options):
        if not next(pages):
            raise LedgerUnusable("the disk is gone")
        return read(*args, **options)

    monkeypatch.setattr(event_export, "search_events", fails_later)
    with pytest.raises(http.client.IncompleteRead):
        export(console)
    assert audited(console, "interrupted")[2]["events"] == 1
    assert "application_failed" in {record["event"] for record in logged}


@pytest.mark.sqlite
def test_unread_exports_do_not_block_other_requests(console, monkeypatch):
    """At most a few exports run at once; further ones are refused, other pages are served, and an end frees a place."""

    def long(_export):
        for _ in range(2_000):
            yield b"x" * 65_536

    monkeypatch.setattr(event_export.EventExport, "__iter__", long)
    host, _, port = console.address.rpartition(":")
    clients = []
    for _ in range(MAX_EXPORTS):
        client = socket.create_connection((host, int(port)), timeout=WAIT_TIMEOUT)
        client.sendall(f"GET /api/events/export HTTP/1.1\r\nHost: {console.address}\r\n\r\n".encode())
        assert client.recv(1)
        clients.append(client)
    results = "SELECT detail FROM audit_log WHERE action = 'export'"
    assert [json.loads(detail)["result"] for (detail,) in console.flow.sql(results)] == ["started"] * MAX_EXPORTS
    refused = export(console)
    assert (refused.status, refused.headers["Retry-After"]) == (503, "5")
    assert str(MAX_EXPORTS) in json.loads(refused.body)["message"]
    assert console.get("/").status == 200
    clients.pop().close()
    with closing(until(lambda: _started(console))):
        for client in clients:
            client.close()
    until(lambda: {json.loads(detail)["result"] for (detail,) in console.flow.sql(results)} == {"interrupted"})


def _started(console):
    host, _, port = console.address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=WAIT_TIMEOUT)
    connection.request("GET", "/api/events/export")
    if connection.getresponse().status == 200:
        return connection
    connection.close()
    return None
