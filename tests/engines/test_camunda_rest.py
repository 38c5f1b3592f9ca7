"""flowhooks-camunda and the REST APIs of Camunda 7 and Operaton, each started from its Spring Boot starter.

Needs Java and Maven, as `test_real_engines.py` does. The class for Operaton is made of that for Camunda 7.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import pytest
from flowhooks_camunda.client import CamundaClient

from flowhooks import EndState, EngineConfig, EngineError
from flowhooks.testing import EngineClientContract, EngineDriver
from support.maven import JAVA, Build, skip_without_maven
from support.ports import free_port
from support.waiting import until

pytestmark = [pytest.mark.java, pytest.mark.timeout(600)]  # the first build downloads

PROJECTS = Path(__file__).parents[1] / "data/engines/camunda-rest"
ENGINES = ["camunda-7", "operaton"]
CREDENTIAL = ("rest", "rest-password")
"""As in `application.properties`."""
PROCESS = (
    '<process id="{key}" isExecutable="true" camunda:historyTimeToLive="P1D">'
    '<startEvent id="{key}_s"/><sequenceFlow id="{key}_f" sourceRef="{key}_s" targetRef="{key}_e"/>'
    '<endEvent id="{key}_e"/></process>'
)
NAMES = (
    'xmlns="http://www.omg.org/spec/BPMN/20100524/MODEL" xmlns:camunda="http://camunda.org/schema/1.0/bpmn" '
    'targetNamespace="https://flowhooks.example/processes"'
)
ENDS = {
    EndState.COMPLETED: ("approved", "end_approved"),
    EndState.ERROR: ("error", "end_error"),
    EndState.TERMINATED: ("terminated", "end_terminated"),
}
"""The value of the variable `end` for each end event of the process `expense`."""


class CamundaDriver(EngineDriver):
    """Starts and ends instances through the REST API, and sets the engine's clock by lines of text."""

    def __init__(self, process, url, *, has_json):
        self.process = process
        self.url = url
        self.has_json = has_json
        self.http = httpx2.Client(auth=CREDENTIAL, base_url=url, timeout=60)
        for tenant in (None, None, "north", "south"):  # without a tenant in two versions
            self.deploy(PROJECTS.joinpath("processes.bpmn").read_text("utf-8"), tenant)
        self.deployed = 0

    def send(self, method, path, **more):
        """Send a request that must succeed, and return the JSON of its answer."""
        answer = self.http.request(method, path, **more)
        assert answer.is_success, (path, answer.status_code, answer.text)
        return answer.json() if answer.content else None

    def deploy(self, text, tenant=None):
        """Deploy a BPMN file."""
        data = {"deployment-name": "processes"} | ({"tenant-id": tenant} if tenant else {})
        self.send("POST", "/deployment/create", data=data, files={"processes.bpmn": ("processes.bpmn", text.encode())})

    def client(self, config):
        """A client of the plugin."""
        return CamundaClient(config)

    def config(self):
        """The address and the credential."""
        return EngineConfig(source="oa", url=self.url, username=CREDENTIAL[0], password=CREDENTIAL[1])

    def start(self, *, key="expense", business_key=None, variables=None, tenant_id=None):
        """Start an instance."""
        given = {name: self.typed(value) for name, value in (variables or {}).items()}
        place = f"/tenant-id/{tenant_id}" if tenant_id else ""
        body = {"businessKey": business_key, "variables": given}
        return self.send("POST", f"/process-definition/key/{key}{place}/start", json=body)["id"]

    def typed(self, value):
        """A variable as the REST API takes it."""
        if isinstance(value, dict | list):
            if not self.has_json:
                raise NotImplementedError("this engine was built without a JSON data format")
            return {"value": json.dumps(value), "type": "Json"}
        kinds = {bool: "Boolean", int: "Integer", float: "Double", str: "String", type(None): "Null"}
        return {"value": value, "type": kinds[type(value)]}

    def end(self, instance_id, end_state):
        """End an instance of `expense`."""
        if end_state is EndState.CANCELLED:
            self.send("DELETE", f"/process-instance/{instance_id}")
            return None
        value, event = ENDS[end_state]
        self.complete(instance_id, value)
        return event

    def complete(self, instance_id, value):
        """Complete the task of an instance, with a value for the variable `end`."""
        (task,) = self.send("GET", "/task", params={"processInstanceId": instance_id})
        body = {"variables": {"end": {"value": value, "type": "String"}}}
        self.send("POST", f"/task/{task['id']}/complete", json=body)

    def definition(self):
        """The key and the latest version without a tenant."""
        return "expense", 2

    def end_together(self, instance_ids):
        """Complete instances while the engine's clock stands still."""
        self.process.do("clock", str(time.time_ns() // 1_000_000))
        try:
            for instance_id in instance_ids:
                self.end(instance_id, EndState.COMPLETED)
        finally:
            self.process.do("clock", "")

    def start_parent(self, variables):
        """Start an instance that calls another one, without passing variables."""
        parent = self.start(key="parent", variables=variables)
        (child,) = self.send("GET", "/process-instance", params={"superProcessInstance": parent})
        return parent, child["id"]

    def start_copying_parent(self, variables):
        """Start an instance that calls another one with copies of all its variables."""
        parent = self.start(key="copying_parent", variables=variables)
        (child,) = self.send("GET", "/process-instance", params={"superProcessInstance": parent})
        return parent, child["id"]

    def delete_history(self, instance_id):
        """Delete the history of an instance."""
        self.send("DELETE", f"/history/process-instance/{instance_id}")

    def deploy_many(self, count):
        """Deploy definitions."""
        self.deployed += 1
        keys = [f"many_{self.deployed}_{number}" for number in range(count)]
        self.deploy(f"<definitions {NAMES}>{''.join(PROCESS.format(key=key) for key in keys)}</definitions>")
        return keys


@pytest.fixture(scope="module")
def rest_path(tmp_path_factory):
    """The class path of one engine: `rest_path("operaton")`; skips where the starters cannot be had."""
    skip_without_maven()
    folder = tmp_path_factory.mktemp("camunda-rest") / "engines"
    shutil.copytree(PROJECTS, folder, ignore=shutil.ignore_patterns("target"))
    shutil.copytree(folder / "camunda-7/src", folder / "operaton/src")
    for file in (folder / "operaton/src").rglob("*.*"):
        text = file.read_text("utf-8").replace("org.camunda.bpm", "org.operaton.bpm")
        file.write_text(re.sub("^camunda[.]", "operaton.", text, flags=re.MULTILINE), "utf-8")
    return Build(folder).class_path


@pytest.fixture(scope="module", params=ENGINES)
def engine(request, rest_path, start_process):
    """An engine with its REST API, started once."""
    path, port = rest_path(request.param), free_port()
    command = [*JAVA, "-cp", path, "com.example.harness.RestApplication"]
    process = start_process(command, url="", extra_environ={"SERVER_PORT": str(port)})
    driver = CamundaDriver(process, f"http://127.0.0.1:{port}/engine-rest", has_json=request.param == "camunda-7")
    with closing(driver.http):
        yield driver


class TestCamundaClient(EngineClientContract):
    """The client of the plugin passes the suite with each engine."""


def read(engine, instance_id, **changes):
    """An instance that has ended, as the client reads it alone."""
    with closing(CamundaClient(EngineConfig(**(settings(engine) | changes)))) as client:
        return until(lambda: instance if hasattr(instance := client.instance(instance_id), "ended_at") else None)


def settings(engine):
    """The arguments of `EngineConfig` for an engine."""
    return {"source": "oa", "url": engine.url, "username": CREDENTIAL[0], "password": CREDENTIAL[1]}


@pytest.mark.parametrize(
    ("key", "end_state", "event"),
    [
        ("event_sub_process", EndState.COMPLETED, "e_sub_end"),
        ("sub_process", EndState.COMPLETED, "s_end"),
        ("both", EndState.UNDECIDED, None),
        ("terminate_others", EndState.TERMINATED, "t_terminated"),
        ("no_end_event", EndState.UNDECIDED, None),
        ("later", EndState.COMPLETED, "l_end"),
        ("escalated", EndState.COMPLETED, "x_end"),
        ("nested", EndState.COMPLETED, "d_end"),
        ("task_in_sub_process", EndState.UNDECIDED, None),
    ],
)
def test_the_end_event_of_the_process_decides_the_end_state(engine, key, end_state, event):
    """Ends of sub-processes and caught errors do not count; an end that the history does not tell is undecided."""
    instance = read(engine, engine.start(key=key), conclusion_from="end_event")
    assert (instance.end_state, instance.conclusion) == (end_state, event)


def test_a_rejected_instance_completes_with_its_own_end_event(engine):
    """The end event tells an approved instance from a rejected one."""
    ids = {"approved": engine.start(), "rejected": engine.start()}
    for value, instance_id in ids.items():
        engine.complete(instance_id, value)
    for value, instance_id in ids.items():
        instance = read(engine, instance_id, conclusion_from="end_event")
        assert (instance.end_state, instance.conclusion) == (EndState.COMPLETED, f"end_{value}")


def test_an_uncaught_error_of_a_task_is_undecided(engine):
    """The history does not tell an uncaught error from a task that nothing follows."""
    instance_id = engine.start(key="uncaught")
    body = {"workerId": "w", "maxTasks": 1, "topics": [{"topicName": "uncaught", "lockDuration": 60_000}]}
    (task,) = engine.send("POST", "/external-task/fetchAndLock", json=body)
    engine.send("POST", f"/external-task/{task['id']}/bpmnError", json={"workerId": "w", "errorCode": "refused"})
    assert read(engine, instance_id).end_state is EndState.UNDECIDED


@pytest.mark.parametrize(
    ("value", "called", "caller"),
    [
        ("error", EndState.ERROR, "parent_end_caught"),
        ("terminated", EndState.TERMINATED, "parent_end"),
        ("approved", EndState.COMPLETED, "parent_end"),
    ],
)
def test_a_called_instance_has_its_own_end(engine, value, called, caller):
    """An error end that the parent catches is an error of the called instance only."""
    parent, child = engine.start_parent({})
    engine.complete(child, value)
    assert read(engine, child).end_state is called
    instance = read(engine, parent, conclusion_from="end_event")
    assert (instance.end_state, instance.conclusion) == (EndState.COMPLETED, caller)


def test_a_called_instance_that_caught_its_error_is_undecided(engine):
    """Its caller ended it later, so the error was not its end."""
    caller = engine.start(key="stops_called")
    (child,) = engine.send("GET", "/process-instance", params={"superProcessInstance": caller})
    engine.send("POST", "/message", json={"messageName": "stop", "processInstanceId": caller})
    assert read(engine, child["id"]).end_state is EndState.UNDECIDED
    instance = read(engine, caller, conclusion_from="end_event")
    assert (instance.end_state, instance.conclusion) == (EndState.COMPLETED, "m_end")


def test_an_error_of_a_sub_process_that_the_caller_catches_is_undecided(engine):
    """The history does not tell it from an error that the called instance caught before its caller ended it."""
    caller = read(engine, engine.start(key="catches_error"), conclusion_from="end_event")
    (row,) = engine.send("GET", "/history/process-instance", params={"superProcessInstanceId": caller.id})
    assert read(engine, row["id"]).end_state is EndState.UNDECIDED
    assert (caller.end_state, caller.conclusion) == (EndState.COMPLETED, "h_end")


def test_a_called_instance_has_the_class_of_its_own_process(engine):
    """Copies of the caller's variables are neither the class nor the conclusion of the called instance."""
    variables = {"callBackProcessClass": "com.example.Caller", "conclusion": "approved"}
    caller = read(engine, engine.start(key="copies_variables", variables=variables))
    (row,) = engine.send("GET", "/history/process-instance", params={"superProcessInstanceId": caller.id})
    called = read(engine, row["id"])
    assert (caller.callback_class, caller.conclusion) == ("com.example.Caller", "approved")
    assert (called.callback_class, called.conclusion, called.parent_id) == ("com.example.Classified", None, caller.id)


def test_the_class_is_an_extension_property_of_the_process(engine):
    """An instance without the variable has the class of its process."""
    assert read(engine, engine.start(key="classified")).callback_class == "com.example.Classified"


def test_a_cancelled_parent_cancels_the_called_instance(engine):
    """Both are cancelled."""
    parent, child = engine.start_parent({})
    engine.send("DELETE", f"/process-instance/{parent}")
    assert {read(engine, parent).end_state, read(engine, child).end_state} == {EndState.CANCELLED}


def test_pages_read_ends_with_few_requests(engine, monkeypatch):
    """A page of forty instances needs three requests: instances, ends, variables."""
    first = engine.start()
    ids = [first, *(engine.start() for _ in range(39))]
    for instance_id in ids:
        engine.end(instance_id, EndState.COMPLETED)
    since = read(engine, first).ended_at
    config = EngineConfig(**settings(engine), page_size=40)
    with closing(CamundaClient(config)) as client:
        sent = []
        original = client._api.post
        monkeypatch.setattr(
            client._api, "post", lambda path, *more, **query: (sent.append(path), original(path, *more, **query))[1]
        )
        page = client.finished(since, since + timedelta(hours=1))
    assert {instance.id for instance in page.instances} == set(ids)
    assert sent == ["history/process-instance", "history/activity-instance", "history/variable-instance"]


def test_a_wrong_password_is_rejected(engine):
    """The engine answers 401."""
    config = EngineConfig(**(settings(engine) | {"username": "nobody"}))  # a wrong password locks the user
    with closing(CamundaClient(config)) as client, pytest.raises(EngineError) as caught:
        client.check()
    assert caught.value.reason == "refused"
    assert "401" in caught.value.why


def test_pages_have_the_time_of_the_engine(engine):
    """Pages have the time of the engine's header Date."""
    now = datetime.now(UTC)
    with closing(CamundaClient(EngineConfig(**settings(engine)))) as client:
        page = client.finished(now - timedelta(seconds=1), now)
    assert abs(page.engine_time - now) < timedelta(minutes=5)
