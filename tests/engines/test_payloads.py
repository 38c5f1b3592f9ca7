"""Each engine's sample body, posted to a real server: its route and the response."""

from __future__ import annotations

import itertools
import json
import re
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

PROJECTS = Path(__file__).parents[1] / "data/engines"
PAGES = Path(__file__).parents[2] / "docs/how-to/engines"
PAYLOADS = {path.stem: path for path in sorted((PROJECTS / "payloads").glob("*.json"))}
CODE = {
    "java": ["FlowhooksClient", "CallBack", "Outbox", "HouseFlows", "SpringFlows"],
    "flowable": ["FlowableCallBack", "FlowableSetUp"],
    "activiti": ["ActivitiCallBack", "ActivitiSetUp"],
    "camunda-7": ["CamundaCallBack", "CamundaSetUp"],
    "camunda-8": ["FlowhooksWorker"],
}
PLUGIN = '''
from flowhooks import Reject, handler, hookimpl

@handler(callback_class="com.example.ContractSigned")
def by_class(event):
    """Listen to the class that the process names."""

@handler(process_key="contract_approval")
def by_key(event):
    """Listen to a process."""

@handler(process_key="contract_approval", versions=">=2")
def by_version(event):
    """Listen to a process from its second version on."""

@handler(process_key="leave_request")
def leave(event):
    """Listen to another process."""

@handler(process_key="refused")
def refuse(event):
    """Listen to what cannot be done."""
    raise Reject("There is no contract of that number.")

@hookimpl
def handlers():
    return [by_class, by_key, by_version, leave, refuse]
'''
ROUTES = {
    "flowable": {"by_class", "by_key", "by_version"},
    "activiti": {"leave"},
    "camunda-7": {"by_class", "by_key", "by_version"},
    "java": {"by_class", "by_key"},
    "python": {"by_key"},
    "node": {"by_key"},
    "flowable-http-task": {"by_key", "by_version"},
    "camunda-8": {"by_key", "by_version"},
}
"""The handlers that match each engine's unchanged payload."""
fresh = (f"instance-{number}" for number in itertools.count(1))


@pytest.fixture(scope="module")
def site(make_site):
    """A server without sources."""
    return make_site(PLUGIN).start()


def payload(name, **changed):
    """A payload with some members changed."""
    return json.loads(PAYLOADS[name].read_text("utf-8")) | changed


def routed(event):
    """The names of the handlers of an event's deliveries."""
    return {delivery_status.handler.removeprefix("deeds:") for delivery_status in event.delivery_statuses}


# Samples on the pages


def test_every_engine_has_its_page_its_payload_and_its_code():
    """Each engine has a payload, a page and a folder of code."""
    several = {"operaton-and-cib-seven", "spring-boot"}  # pages about more than one engine
    pages = {path.stem for path in PAGES.glob("*.md")} - several
    asked = {"camunda-rest", "flowable-rest"}  # engines that send no callbacks
    folders = {path.parent.name for path in PROJECTS.glob("*/pom.xml")} - several - asked
    assert set(PAYLOADS) == pages == set(ROUTES)
    assert folders == set(CODE)
    assert folders <= pages


def fenced(page, language):
    """The code blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("name", PAYLOADS)
def test_a_page_shows_the_payload(name):
    """The JSON of the page equals the file that is posted here."""
    assert fenced(PAGES / f"{name}.md", "json") == [PAYLOADS[name].read_text("utf-8")]


@pytest.mark.parametrize("name", CODE)
def test_a_page_shows_the_code_that_is_run(name):
    """The page shows all Java files that are compiled and run in the engine."""
    folder = PROJECTS / name / "src/main/java/com/example/flowhooks"
    assert {path.stem for path in folder.iterdir()} == set(CODE[name])
    assert fenced(PAGES / f"{name}.md", "java") == [(folder / f"{file}.java").read_text("utf-8") for file in CODE[name]]


def test_the_page_shows_the_table():
    """The SQL of the page creates the outbox table in the tests."""
    assert fenced(PAGES / "java.md", "sql") == [(PROJECTS / "java/src/main/resources/outbox.sql").read_text("utf-8")]


@pytest.mark.parametrize("name", ["flowable", "activiti", "camunda-7"])
def test_the_page_shows_the_process(name):
    """The page shows the process that is run, line by line."""
    (model,) = (PROJECTS / name / "src/main/resources").glob("contract.bpmn*")
    lines = [line.strip() for line in model.read_text("utf-8").splitlines()]
    blocks = fenced(PAGES / f"{name}.md", "xml")
    assert blocks
    for block in blocks:
        wanted = [line.strip() for line in block.splitlines()]
        start = lines.index(wanted[0])
        assert lines[start : start + len(wanted)] == wanted


# Routing


@pytest.mark.parametrize("name", PAYLOADS)
def test_a_payload_reaches_its_handlers(site, name):
    """The payload reaches the handlers of its class and its key and gets 200; null members count as absent."""
    instance = next(fresh)
    answer = site.post(instance, PAYLOADS[name].read_text("utf-8"))
    assert (answer.status, answer.json) == (200, {"success": True})
    stored = site.settled(instance)
    sent = {member: value for member, value in payload(name).items() if value is not None}
    assert routed(stored) == ROUTES[name]
    assert stored.event.data == sent
    assert stored.event.business_key == sent.get("businessKey")
    assert stored.event.callback_class == sent.get("callBackProcessClass")
    assert stored.event.conclusion == sent["conclusion"]
    assert stored.event.process_definition_key == sent["processDefinitionKey"]
    assert stored.event.process_definition_version == sent["processDefinitionVersion"]


@pytest.mark.parametrize("name", [name for name, path in PAYLOADS.items() if "processDefinitionId" in path.read_text()])
def test_the_key_is_derived_from_the_definition_id(site, name):
    """Without its key a payload reaches the same handlers, because the definition's id begins with the key."""
    instance = next(fresh)
    assert site.post(instance, payload(name, processDefinitionKey=None)).status == 200
    stored = site.settled(instance)
    assert routed(stored) == ROUTES[name]
    assert stored.event.process_definition_key == payload(name)["processDefinitionKey"]


def test_without_a_class_the_key_decides(site):
    """The payload of a process without a class reaches only the handlers of its key."""
    instance = next(fresh)
    assert site.post(instance, payload("flowable", callBackProcessClass=None)).status == 200
    assert routed(site.settled(instance)) == {"by_key", "by_version"}


def test_a_class_with_an_unknown_key_reaches_its_handlers(site):
    """The payload of a process with an unknown key reaches the handlers of its class."""
    instance = next(fresh)
    body = payload("flowable", processDefinitionKey="renamed", processDefinitionVersion=None)
    assert site.post(instance, body).status == 200
    assert routed(site.settled(instance)) == {"by_class"}


def test_an_id_that_is_too_long_for_its_key(site):
    """Engines shorten an id of more than 64 characters to its last part without the key: the event is parked."""
    instance = next(fresh)
    body = payload("activiti", processDefinitionId="6e8c3b52-5d0b-11ee-9a3f-0242ac120002", processDefinitionKey=None)
    assert site.post(instance, body).status == 202
    (stored,) = site.stored(instance)
    assert (stored.state, stored.event.process_definition_key) == ("parked", None)


# Responses


@pytest.mark.parametrize("name", PAYLOADS)
def test_repeated_callback(site, name):
    """The same body again is 200 and runs nothing; another body for the same instance is 409 and changes nothing."""
    instance = next(fresh)
    first = site.post(instance, payload(name))
    again = site.post(instance, PAYLOADS[name].read_text("utf-8"))
    other = site.post(instance, payload(name, businessKey="C-2026-18"))
    assert [answer.status for answer in (first, again, other)] == [200, 200, 409]
    assert first.event_id == again.event_id == other.event_id
    stored = site.settled(instance)
    assert stored.repeats == 1
    assert {delivery_status.attempt for delivery_status in stored.delivery_statuses} == {1}
    assert stored.event.business_key == payload(name)["businessKey"]


@pytest.mark.parametrize("name", PAYLOADS)
def test_callback_that_requests_no_wait(site, name):
    """An outbox that requests no wait gets 202 once the callback is stored, or 200 if nothing is open."""
    instance = next(fresh)
    answer = site.post(instance, payload(name), Prefer="respond-async")
    assert answer.status in {200, 202}
    assert answer.headers["Preference-Applied"] == "respond-async"
    assert routed(site.settled(instance)) == ROUTES[name]


def test_process_without_a_matching_handler(site):
    """A process that matches no handler is stored: 202 with an event."""
    answer = site.post(next(fresh), payload("flowable", callBackProcessClass=None, processDefinitionKey="unheard_of"))
    assert (answer.status, answer.json["success"]) == (202, True)
    assert answer.event_id


def test_callback_whose_handler_fails(site):
    """A 500 names the event, which is stored, so there is no reason to repeat the callback."""
    answer = site.post(next(fresh), payload("activiti", processDefinitionKey="refused"))
    assert answer.status == 500
    assert answer.event_id
    assert "There is no contract of that number." in answer.json["errorInfo"]["message"]


@pytest.mark.parametrize(
    "changed", [{"businessKey": 1.5}, {"processDefinitionVersion": "3"}, {"callBackProcessClass": ["a"]}]
)
def test_a_payload_with_wrong_types_is_rejected(site, changed):
    """A fraction as business key or a quoted version is 422 and not stored."""
    instance = next(fresh)
    answer = site.post(instance, payload("flowable", **changed))
    assert answer.status == 422
    assert f"/{next(iter(changed))}" in answer.json["message"]
    assert site.stored(instance) == []


def test_an_engine_without_its_token_is_rejected(make_site, source):
    """With sources, a callback without its token is 401; with it the event has that source."""
    site = make_site(PLUGIN, source("erp", "the-token-of-erp")).start()
    body = payload("flowable")
    assert site.post("1", body).status == 401
    assert site.post("1", body, Authorization="Bearer another-token").status == 401
    assert site.stored("1") == []
    assert site.post("1", body, Authorization="Bearer the-token-of-erp").status == 200
    assert site.settled("1").event.source == "erp"


def test_the_database_cannot_be_written(make_site):
    """A 503 has a Retry-After; the repeated body is accepted as one event."""
    site = make_site(PLUGIN).start(ledger_write_timeout=0.3)
    with closing(sqlite3.connect(site.database, isolation_level=None)) as outside:
        outside.execute("BEGIN IMMEDIATE")
        answer = site.post("1", payload("flowable"))
        outside.execute("ROLLBACK")
    assert answer.status == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.event_id is None
    # Not earlier: a writer that still waits for the lock reports that at once.
    time.sleep(int(answer.headers["Retry-After"]))
    assert site.post("1", payload("flowable")).status == 200
    assert {delivery_status.attempt for delivery_status in site.settled("1").delivery_statuses} == {1}
