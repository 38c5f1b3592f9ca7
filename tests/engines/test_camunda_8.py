"""Job workers for Camunda 8 complete a job only after its callback is stored; Camunda's REST API is a stand-in."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import xml.etree.ElementTree as ET
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from support.code_blocks import blocks
from support.waiting import until

PROJECTS = Path(__file__).parents[1] / "data/engines"
PAGE = Path(__file__).parents[2] / "docs/how-to/engines/camunda-8.md"
PLUGIN = '''
from flowhooks import Reject, handler, hookimpl

@handler(process_key="contract_approval", conclusion="approved")
def archive(event):
    """Listen to the process by its id in the diagram."""

@handler(process_key="refused")
def refuse(event):
    """Fail."""
    raise Reject("There is no contract of that number.")

@hookimpl
def handlers():
    return [archive, refuse]
'''
HARNESS = "com.example.harness.Camunda8Harness"
WORKERS = ["python", pytest.param("java", marks=[pytest.mark.java, pytest.mark.timeout(600)])]


def job(number, key="contract_approval", **variables):
    """A job as Camunda gives it out."""
    return {
        "jobKey": str(number),
        "type": "flowhooks-callback",
        "processInstanceKey": str(number),
        "processDefinitionId": key,
        "processDefinitionVersion": 3,
        "processDefinitionKey": "2251799813685249",
        "elementId": "call_back",
        "elementInstanceKey": "2251799813685300",
        "customHeaders": {},
        "worker": "flowhooks",
        "retries": 3,
        "deadline": 0,
        "variables": variables,
        "tenantId": "<default>",
    }


class Gateway(ThreadingHTTPServer):
    """Gives out jobs, and keeps the reports of workers."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), GatewayHandler)
        self.jobs = queue.SimpleQueue()
        self.said = {}

    def run(self, number, key="contract_approval", **variables):
        """Give a job out, and wait until a worker has completed or failed it; what it said."""
        self.said.pop(str(number), None)
        self.jobs.put(job(number, key, **variables))
        return until(lambda: self.said.get(str(number)))


class RedirectHandler(BaseHTTPRequestHandler):
    """Redirects each POST to a page of the same server, and records all requests."""

    def do_POST(self):
        """Answer with a redirect."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(302)

    def do_GET(self):
        """Answer like a login page."""
        self._answer(200)

    def _answer(self, status):
        self.server.seen.append((self.command, self.path))
        self.send_response(status)
        self.send_header("Location", "/login")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        """Say nothing."""


class GatewayHandler(BaseHTTPRequestHandler):
    """The requests of a worker."""

    def do_POST(self):
        """Answer one request."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        *_, number, action = self.path.split("/")
        if action == "activation":
            jobs = []
            with suppress(queue.Empty):
                jobs.append(self.server.jobs.get(timeout=0.2))
            raw = json.dumps({"jobs": jobs}).encode()
            self.send_response(200)
        else:
            self.server.said[number] = (action, body)
            raw = b""
            self.send_response(204)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *args):
        """Say nothing."""


@pytest.fixture(scope="module")
def site(make_site, source):
    """A server that knows the worker by its token."""
    return make_site(PLUGIN, source("camunda-8", "the-token")).start()


@pytest.fixture(params=WORKERS, scope="module")
def gateway(request, site, relay, tmp_path_factory):
    """A worker that asks a stand-in for its jobs."""
    folder = tmp_path_factory.mktemp("worker")
    if request.param == "java":
        path = request.getfixturevalue("class_path")("camunda-8")  # first, as it may skip
        command = ["java", "-XX:TieredStopAtLevel=1", "-cp", path, HARNESS]
    else:
        (block,) = blocks(PAGE, "python")
        (folder / block.file).write_text(block.text, "utf-8")
        command = [sys.executable, block.file]
    server = Gateway()
    server.relay = relay(site.url)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    more = {"CAMUNDA_URL": f"http://127.0.0.1:{server.server_port}"}
    more |= {"FLOWHOOKS_URL": server.relay.url, "FLOWHOOKS_TOKEN": "the-token"}
    process = subprocess.Popen(command, cwd=folder, env=os.environ | more, stdin=subprocess.PIPE)
    yield server
    process.kill()
    process.wait()
    process.stdin.close()
    server.shutdown()
    thread.join()
    server.server_close()


numbers = iter(range(2251799813685301, 2251799813686000))


def test_a_job_is_completed_when_its_callback_is_stored(gateway, site):
    """The callback has the members that the page shows, with the process's id as key, and its handler runs."""
    number = next(numbers)
    assert gateway.run(number, businessKey="C-2026-17", conclusion="approved")[0] == "completion"
    stored = site.settled(str(number))
    shown = json.loads((PROJECTS / "payloads/camunda-8.json").read_text("utf-8"))
    assert list(json.loads(stored.body).items()) == list(shown.items())
    assert [delivery_status.handler for delivery_status in stored.delivery_statuses] == ["deeds:archive"]
    assert stored.event.source == "camunda-8"


def test_a_job_activated_again_is_the_same_event(gateway, site):
    """As after a worker that was killed between the response and the completion."""
    number = next(numbers)
    for _ in range(2):
        assert gateway.run(number, conclusion="approved")[0] == "completion"
    assert site.settled(str(number)).repeats == 1


def test_flowhooks_is_down(gateway, site):
    """The job fails with all of its retries, and is completed later."""
    number = next(numbers)
    site.stop()
    action, body = gateway.run(number, conclusion="approved")
    assert (action, body["retries"]) == ("failure", 3)
    assert body["retryBackOff"] >= 30_000
    site.start()
    assert gateway.run(number, conclusion="approved")[0] == "completion"
    assert site.settled(str(number)).repeats == 0


def test_a_login_page_is_not_the_answer_of_flowhooks(gateway, site):
    """A proxy answers 200 with a page of its own: the job fails with all of its retries, and is completed later."""
    number = next(numbers)
    gateway.relay.shows_login = True
    action, body = gateway.run(number, conclusion="approved")
    gateway.relay.shows_login = False
    assert (action, body["retries"]) == ("failure", 3)
    assert body["errorMessage"] == "HTTP 200 without Flowhooks-Event: not answered by flowhooks"
    assert site.stored(str(number)) == []
    assert gateway.run(number, conclusion="approved")[0] == "completion"
    assert site.settled(str(number)).repeats == 0


def test_a_rejected_callback_is_an_incident(gateway, site):
    """No retries are left, and the message is that of flowhooks."""
    number = next(numbers)
    action, body = gateway.run(number, businessKey=["C", 17], conclusion="approved")
    assert (action, body["retries"]) == ("failure", 0)
    assert body["errorMessage"].startswith("422 ")
    assert "/businessKey" in body["errorMessage"]
    assert site.stored(str(number)) == []


def test_a_job_is_completed_although_the_handler_fails(gateway, site):
    """The callback is stored, so the job is completed."""
    number = next(numbers)
    assert gateway.run(number, key="refused")[0] == "completion"
    assert site.settled(str(number)).delivery_statuses[0].state == "dead"


def test_the_python_worker_follows_no_redirect(monkeypatch):
    """A redirect is an incident: the page that it leads to must not get the token, and has not stored the callback."""
    (block,) = blocks(PAGE, "python")
    worker = {"__name__": "camunda_worker"}
    exec(block.text, worker)
    said = []
    worker["act"] = lambda job, action, body: said.append((action, body))
    monkeypatch.setenv("FLOWHOOKS_TOKEN", "the-token")
    with ThreadingHTTPServer(("127.0.0.1", 0), RedirectHandler) as proxy:
        proxy.seen = []
        thread = threading.Thread(target=proxy.serve_forever)
        thread.start()
        worker["FLOWHOOKS"] = f"http://127.0.0.1:{proxy.server_port}"
        worker["handle"](job(17))
        proxy.shutdown()
        thread.join()
    assert proxy.seen == [("POST", "/flow/17/call-back/complete")]
    ((action, body),) = said
    assert (action, body["retries"]) == ("failure", 0)
    assert body["errorMessage"].startswith("302 ")


def test_the_python_worker_strips_its_token(site, monkeypatch):
    """A token that was read from a file may end in a newline: the callback is stored."""
    (block,) = blocks(PAGE, "python")
    worker = {"__name__": "camunda_worker"}
    exec(block.text, worker)
    actions = []
    worker["act"] = lambda job, action, body: actions.append(action)
    worker["FLOWHOOKS"] = site.url
    monkeypatch.setenv("FLOWHOOKS_TOKEN", "the-token\n")
    number = next(numbers)
    worker["handle"](job(number, conclusion="approved"))
    assert actions == ["completion"]
    assert site.settled(str(number)).event.source == "camunda-8"


def test_the_diagrams_are_well_formed():
    """The page's parts of diagrams can be pasted."""
    names = (
        ' xmlns:bpmn="http://www.omg.org/spec/BPMN/20100524/MODEL" xmlns:zeebe="http://camunda.org/schema/zeebe/1.0"'
    )
    for block in blocks(PAGE, "xml"):
        text = block.text + ("</bpmn:process>" if "<bpmn:process" in block.text else "")
        (element,) = ET.fromstring(f"<x{names}>{text}</x>")
        assert any(node.get("type") == "flowhooks-callback" for node in element.iter())
