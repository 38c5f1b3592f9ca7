"""Rejected requests: stored with the reason, bounded, and shown from all processes."""

from __future__ import annotations

import http.client
import json
import threading
from collections import Counter
from contextlib import contextmanager

import pytest

from flowhooks.clock import to_text
from flowhooks.errors import Unavailable
from flowhooks.intake import rejected_requests
from flowhooks.ledger.rejected_requests import MAX_STORED, MAX_STORED_PER_ADDRESS, MIN_KEPT_PER_GROUP, latest
from flowhooks.web.callback.app import create_app
from flowhooks.web.server.server import Limits, Server
from support.waiting import WAIT_TIMEOUT

pytestmark = pytest.mark.either


@contextmanager
def called_back(flow):
    """A function that sends an invalid callback to a flow's listener, and returns the status."""
    server = Server(create_app(flow.app), listen="127.0.0.1:0", threads=2, limits=Limits(), name="listen")
    thread = threading.Thread(target=server.serve)
    thread.start()

    def send(path, body="{}", method="POST", **headers):
        host, _, port = server.address.rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=WAIT_TIMEOUT)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body.encode(), named)
            return connection.getresponse().status
        finally:
            connection.close()

    try:
        yield send
    finally:
        server.close()
        thread.join(WAIT_TIMEOUT)


def kept(flow):
    """The rejected requests stored so far."""
    with flow.app.ledger.connection() as connection:
        return latest(connection, limit=2_000)


def test_rejections_are_shown_with_the_reason(harness, serve):
    """The page has each kind of rejection, newest first, in the reader's language; accepted callbacks are not on it."""
    flow = harness.open()
    with called_back(flow) as send:
        assert send("/flow/i1/call-back/complete") == 202
        assert send("/flow/i2/call-back/complete", "{") == 400
        assert send("/flow/i3/call-back/complete", json.dumps({"businessKey": True})) == 422
        assert send("/flow/i4/call-back/other") == 404
        assert send("/flow/i5/call-back/complete", method="GET") == 405
        conflict = json.dumps({"businessKey": "other"})
        assert send("/flow/i1/call-back/complete", conflict, User_Agent=b"Engine/1\x9b") == 409
        assert send("/favicon.ico") == 404
    flow.app.rejected_requests.stop(WAIT_TIMEOUT)  # a flush of its own could return too early
    found = kept(flow)
    assert [request.status for request in found] == [409, 405, 404, 422, 400]
    assert {request.address for request in found} == {"127.0.0.1"}
    assert [bool(request.event_id) for request in found] == [True, False, False, False, False]
    assert flow.events(flow_instance_id="i1") == [found[0].event_id]
    assert found[0].user_agent == "Engine/1\\u009b"
    console = serve(flow)
    assert "Responses of this process since its start: 202 1 400 1 405 1 409 1 422 1" in console.page("/").text
    text = console.page("/rejected-requests").text
    assert "/flow/i3/call-back/complete" in text
    assert "/businessKey: must be of type string" in text
    assert text.index("/flow/i5/") < text.index("/flow/i2/")
    assert "类型应为" in console.page("/rejected-requests", "zh-CN").text


def test_rejections_are_stored_automatically(harness, monkeypatch, eventually):
    """A rejection is stored shortly afterwards; pending ones are stored at the end."""
    monkeypatch.setattr("flowhooks.app.STOP_TIMEOUT", WAIT_TIMEOUT)  # a busy machine needs time to store them
    flow = harness.open()
    flow.app.rejected_requests.record(path="/flow/1", address="", status=400, english="a", chinese="b")
    eventually(lambda: kept(flow))
    flow.app.rejected_requests.record(path="/flow/2", address="", status=400, english="a", chinese="b")
    flow.close()
    assert flow.sql("SELECT path FROM rejected_requests ORDER BY id") == [("/flow/1",), ("/flow/2",)]


def test_stored_rejections_are_limited(harness, monkeypatch):
    """The last of many rejections are kept up to a limit, and of each status and source the last few in any case."""
    flow = harness.open(start=False)
    for number in range(300):
        flow.app.rejected_requests.record(path=f"/flow/{number}", address="", status=400, english="a", chinese="b")
    flow.app.rejected_requests.flush()
    assert [request.path for request in kept(flow)] == [f"/flow/{number}" for number in range(299, 199, -1)]
    for source in range(11):
        for number in range(150):
            flow.app.rejected_requests.record(
                path=f"/{source}/{number}" + "/flow/x\x00\u202e" * 999,
                address="\x1b",
                status=400,
                english="a\n",
                chinese="b",
                source=f"s{source}",
            )
        flow.app.rejected_requests.flush()
    found = kept(flow)
    displaced = {"": MIN_KEPT_PER_GROUP, "s0": MIN_KEPT_PER_GROUP}
    assert Counter(request.source for request in found) == displaced | {f"s{source}": 100 for source in range(1, 11)}
    assert [request.source for request in found[:MAX_STORED]].count("s1") == 100
    assert all(
        len(request.path) <= rejected_requests.MAX_PATH_CHARS and request.path.isprintable() for request in found
    )


def test_pending_rejections_are_limited(harness):
    """Before they are stored they are bounded too: the largest group loses its oldest ones."""
    flow = harness.open(start=False)
    for status, count in {400: 100, 404: 100, 405: 100, 409: 100, 413: 100, 422: 20}.items():
        for number in range(count):
            flow.app.rejected_requests.record(
                path=f"/flow/{number}", address="", status=status, english="a", chinese="b"
            )
    flow.app.rejected_requests.flush()
    found = kept(flow)
    assert len(found) == rejected_requests.MAX_PENDING
    assert sum(request.status == 422 for request in found) == 20


def test_a_throttled_source_displaces_nothing(harness, serve):
    """Thousands of 429 of one source are one row with their number; every other rejection is still there."""
    flow = harness.open(start=False)  # its thread could store older ones after those of the test
    others = [(400, ""), (401, ""), (404, ""), (409, "erp"), (415, "erp"), (422, "crm"), (429, "crm")]

    def record(number, status, source, **changed):
        given = {"path": f"/flow/{number}", "address": "192.0.2.1", "english": "no", "chinese": "否"} | changed
        flow.app.rejected_requests.record(status=status, source=source, **given)

    for number, (status, source) in enumerate(others):
        record(number, status, source)
    flow.app.rejected_requests.flush()
    started = flow.clock.now()
    for batch in range(4):
        flow.clock.advance(1)
        for number in range(1_000):
            record(f"{batch}-{number}", 429, "erp")
        flow.app.rejected_requests.flush()
    flood, *rest = kept(flow)
    assert (flood.status, flood.source, flood.count, flood.path) == (429, "erp", 4_000, "/flow/3-999")
    assert started < flood.first_rejected_at < flood.rejected_at == flow.clock.now()
    assert {(request.status, request.source, request.count) for request in rest} == {(*other, 1) for other in others}
    console = serve(flow)
    page = console.page("/rejected-requests")
    assert "4,000 times since" in page.text
    assert "erp" in page.text
    assert "共 4,000 次" in console.page("/rejected-requests", "zh-CN").text


@pytest.mark.parametrize("batches", [1, 3])
def test_an_engine_with_a_wrong_path_displaces_nothing(harness, batches):
    """Before authentication no source is known; then each address has a part of the rows of a status."""
    flow = harness.open(start=False)

    def record(path, address):
        flow.app.rejected_requests.record(path=path, address=address, status=404, english="a", chinese="b")

    record("/flow/other/call-back/finish", "192.0.2.2")
    for batch in range(batches):
        for number in range(100):
            record(f"/flow/{batch}-{number}/call-back/done", "192.0.2.1")
        flow.app.rejected_requests.flush()
    found = kept(flow)
    assert Counter(request.address for request in found) == {"192.0.2.1": MAX_STORED_PER_ADDRESS, "192.0.2.2": 1}
    assert found[0].path == f"/flow/{batches - 1}-99/call-back/done"


def test_equal_requests_share_a_row(harness):
    """Status, source, address, path and reason decide; the path does not count where only the sender matters."""
    flow = harness.open(start=False)
    first = {"path": "/flow/1", "address": "a", "status": 400, "english": "no", "chinese": "否", "source": "erp"}
    for changed in ({}, {"path": "/flow/2"}, {"address": "b"}, {"status": 422}, {"english": "yes"}, {"source": ""}, {}):
        flow.app.rejected_requests.record(**first | changed)
    for status, source in ((401, ""), (403, ""), (429, "erp"), (401, "erp")):
        for number in range(3):
            changed = {"status": status, "source": source, "path": f"/flow/{number}"}
            flow.app.rejected_requests.record(**first | changed)
    flow.app.rejected_requests.flush()
    flow.app.rejected_requests.record(**first)
    flow.app.rejected_requests.flush()
    assert sorted(request.count for request in kept(flow)) == [1] * 8 + [3] * 4
    newest = kept(flow)[0]
    assert (newest.path, newest.status, newest.count) == ("/flow/1", 400, 3)


def test_rejections_stay_in_memory_while_the_ledger_is_unwritable(harness, monkeypatch):
    """While the ledger cannot be written the last rejections stay in memory, and are stored later."""
    flow = harness.open(start=False)

    def fails(*given, **more):
        flow.app.rejected_requests.record(path="/flow/2", address="", status=503, english="a", chinese="b")
        raise Unavailable("ledger_down")

    flow.app.rejected_requests.record(path="/flow/1", address="", status=503, english="a", chinese="b")
    with monkeypatch.context() as patched:
        patched.setattr(flow.app.ledger, "write", fails)
        flow.app.rejected_requests.flush()
    assert kept(flow) == []
    flow.app.rejected_requests.flush()
    assert [request.path for request in kept(flow)] == ["/flow/2", "/flow/1"]


def test_rejections_are_filtered(harness, serve, listens):
    """Status, source, flow instance, part of the path and time select; the filter stays in the links of the pages."""
    flow = harness.open(listens(lambda event: None, name="done"))
    event = flow.take("i4", key="k").event_id

    def record(number, status, source, **more):
        flow.clock.advance(60)
        given = {"path": f"/flow/i{number}/call-back/complete", "address": "192.0.2.1", "english": "a", "chinese": "b"}
        flow.app.rejected_requests.record(**given | {"status": status, "source": source} | more)

    record(1, 401, "", user_agent="Engine/1")
    record(2, 422, "oa", path="/flow/a%2Fb/call-back/complete")
    record(4, 409, "oa", event_id=event)
    for number in range(10, 110):
        record(number, 400, "erp")
    record(110, 400, "erp")
    flow.app.rejected_requests.stop(WAIT_TIMEOUT)
    console = serve(flow)

    def shown(query):
        page = console.page(f"/rejected-requests{query}").text
        return [word for word in ("i1/", "a%2Fb", "i4/", "i10/", "i11/", "i110/") if f"/flow/{word}" in page]

    assert shown("?status=401") == ["i1/"]
    assert shown("?source=oa") == ["a%2Fb", "i4/"]
    reason = "no valid credential, or rejected before it was checked"
    assert f"source is not known ({reason}): 1" in console.page("/sources").text
    assert f"not known ({reason})" in console.page("/rejected-requests").text
    (unattributed,) = [link for link in console.page("/sources").links() if "/rejected-requests?" in link]
    assert shown(unattributed.removeprefix("/console/rejected-requests")) == ["i1/"]
    assert shown("?flow=a/b") == ["a%2Fb"]
    assert shown("?path=i1/call") == ["i1/"]
    assert shown("?source=oa&status=409") == ["i4/"]
    since = to_text(next(request.rejected_at for request in kept(flow) if request.status == 409))
    assert shown(f"?until={since}&zone=UTC") == ["i1/", "a%2Fb"]
    assert shown("?status=x") == shown("?since=nonsense") == shown("?source=nobody") == []
    assert shown(f"?status={2**64}") == shown(f"?status={'4' * 5_000}") == []
    assert "No rejected requests match the filter" in console.page("/rejected-requests?status=599").text
    wrong = console.page("/rejected-requests?since=nonsense")
    assert [attrs["name"] for _, attrs in wrong.tags if "aria-invalid" in attrs] == ["since"]
    assert f"/console/events/{event}" in console.page("/rejected-requests?status=409").links()
    assert "Engine/1" in console.page("/rejected-requests?status=401").text
    first = console.page("/rejected-requests?path=/flow/&since=2020-01-01T00:00&zone=UTC")
    (older,) = [link for link in first.links() if "before=" in link and "lang=" not in link]
    assert "path=%2Fflow%2F&since=2020-01-01" in older
    assert "/flow/i1/" in console.page(older.removeprefix("/console")).text


@pytest.mark.postgresql
def test_rejections_of_all_processes_are_on_one_page(harness, serve):
    """Each process shows the rejections of all processes."""
    one, two = harness.open(), harness.open()
    for number, flow in enumerate((one, two)):
        flow.app.rejected_requests.record(path=f"/flow/{number}", address="", status=400, english="a", chinese="b")
        flow.app.rejected_requests.stop(WAIT_TIMEOUT)
    text = serve(two).page("/rejected-requests").text
    assert "/flow/0" in text
    assert "/flow/1" in text
