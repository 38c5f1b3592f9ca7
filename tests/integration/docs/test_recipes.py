"""`docs/how-to/connect-a-sender-with-one-url.md`: its settings, requests and programs, against a real server."""

from __future__ import annotations

import asyncio
import http.client
import json
import shlex
import signal
import sqlite3
import sys
import tomllib
from contextlib import closing, nullcontext
from types import ModuleType, SimpleNamespace
from urllib.parse import parse_qsl, quote_plus, urlsplit

import pytest

from support.code_blocks import DOCS, blocks
from support.docs_stage import Stage, commands

PAGE = DOCS / "how-to/connect-a-sender-with-one-url.md"
TEMPLATE = DOCS / "examples/camunda-8-element-template.json"
SOURCES = ("yudao", "yudao-events", "kogito", "camunda", "airflow", "temporal")
APPROVALS = """\
from flowhooks import handler, hookimpl

@handler(process_key="contract_approval", conclusion="approved")
def sign(event):
    return "signed"

@hookimpl
def handlers():
    return [sign]
"""
EVENT = (
    "kind",
    "flow_instance_id",
    "process_definition_key",
    "business_key",
    "conclusion",
    "origin",
    "repeats",
    "media_type",
    "raw_body",
    "body",
    "route",
)


def token(source):
    """The token of a source, as long as the ones that `flowhooks sources new` makes."""
    return f"{source}-0123456789abcdefghijklmnopqrstuvwxyz".ljust(43, "0")


def shown(path):
    """The requests of the page to a path, in order, each as its headers and its body."""
    found = []
    for block in blocks(PAGE, "http"):
        head, _, body = block.text.rstrip("\n").partition("\n\n")
        first, *lines = head.split("\n")
        if first == f"POST {path} HTTP/1.1":
            headers = dict(line.split(": ", 1) for line in lines)
            headers["Authorization"] = headers["Authorization"].replace("TOKEN", token(path.split("/")[2]))
            found.append((headers, body))
    return found


class Senders:
    """A server with all settings of the page, and what its ledger holds."""

    def __init__(self, folder):
        settings = "\n".join(block.text for block in blocks(PAGE, "toml"))
        assert tuple(tomllib.loads(settings)["sources"]) == SOURCES
        self.tokens = folder / "tokens"
        self.tokens.mkdir()
        for source in SOURCES:
            (self.tokens / source).write_text(token(source))
            (self.tokens / source).chmod(0o600)
        settings = settings.replace("/etc/flowhooks/", f"{self.tokens}/")
        self.stage = Stage(folder / "stage", handlers={"approvals": APPROVALS}, settings=settings)

    @property
    def address(self):
        """Host and port of the server."""
        return urlsplit(self.stage.environment["STAGE_CALL_BACKS"]).netloc

    def post(self, path, headers, body):
        """The server's response: status, media type and body."""
        with closing(http.client.HTTPConnection(self.address, timeout=30)) as connection:
            connection.request("POST", path, body.encode(), headers)
            response = connection.getresponse()
            return response.status, response.headers["Content-Type"], response.read().decode()

    def rows(self, sql, *values):
        """Rows of the ledger."""
        with closing(sqlite3.connect(f"file:{self.stage.folder}/flowhooks.db?mode=ro", uri=True)) as ledger:
            return ledger.execute(sql, values).fetchall()

    def event(self, source, instance):
        """The only event of a process instance."""
        sql = f"SELECT {', '.join(EVENT)} FROM events WHERE source = ? AND flow_instance_id = ?"
        (row,) = self.rows(sql, source, instance)
        return SimpleNamespace(**dict(zip(EVENT, row, strict=True)))

    def ignored(self, source, rule):
        """How many requests of a source a rule has ignored, and the last body."""
        sql = "SELECT count, body FROM ignored_requests WHERE source = ? AND rule = ?"
        found = self.rows(sql, source, rule)
        return found[0] if found else (0, None)

    def conflicts(self, source):
        """How many conflicts the events of a source have."""
        sql = "SELECT count(*) FROM conflicts JOIN events ON events.id = conflicts.event_id WHERE source = ?"
        return self.rows(sql, source)[0][0]


@pytest.fixture(scope="module")
def senders(tmp_path_factory):
    """A running server with the settings of the page."""
    running = Senders(tmp_path_factory.mktemp("senders"))
    running.stage.start()
    yield running
    running.stage.stop(signal.SIGKILL)


def answered(source):
    """The response that the settings of a source promise to everything that is stored or ignored."""
    for block in blocks(PAGE, "toml"):
        ingress = tomllib.loads(block.text)["sources"].get(source, {}).get("ingress", {})
        if "answer" in ingress:
            return 200, "application/json; charset=utf-8", ingress["answer"]
    return 200, "application/json; charset=utf-8", '{"success": true}'


def is_signed(event):
    """Whether the handler of approved contracts was selected for an event."""
    return "approvals:sign" in json.loads(event.route)


def test_yudaos_notification_is_an_approved_contract(senders):
    """The form of yudao becomes an approved event with its texts; the same form again is the same event."""
    ((headers, body),) = shown("/in/yudao")
    assert headers["tenant-id"] == "1"
    fields = dict(parse_qsl(body, strict_parsing=True))
    assert senders.post("/in/yudao", headers, body) == answered("yudao")
    assert json.loads(answered("yudao")[2])["code"] == 0
    event = senders.event("yudao", fields["processInstanceId"])
    assert (event.kind, event.process_definition_key) == ("complete", "contract_approval")
    assert (event.business_key, event.conclusion, event.origin) == ("合同 2026/17", "approved", "ingress")
    assert (event.media_type, event.raw_body) == (headers["Content-Type"], body)
    assert json.loads(event.body)["amount"] == "1200.50"
    assert is_signed(event)
    assert senders.post("/in/yudao", headers, body) == answered("yudao")
    assert senders.event("yudao", fields["processInstanceId"]).repeats == event.repeats + 1


def test_parameters_of_yudaos_form_match_the_page():
    """The table of parameters has each field of the form, but for the one that yudao adds."""
    ((headers, body),) = shown("/in/yudao")
    assert quote_plus("合同 2026/17") in body
    listed = [
        [cell.strip(" `") for cell in line.strip("|").split("|")]
        for line in PAGE.read_text("utf-8").splitlines()
        if line.startswith(("| body |", "| header |"))
    ]
    names = {where: [row[1] for row in listed if row[0] == where] for where in ("body", "header")}
    assert [name for name, _ in parse_qsl(body)] == [*names["body"], "processInstanceId"]
    assert set(names["header"]) <= set(headers)


@pytest.mark.parametrize(
    ("status", "kind", "conclusion"), [(2, "complete", "approved"), (3, "complete", "rejected"), (4, "cancel", None)]
)
def test_yudaos_status_decides_the_conclusion(senders, status, kind, conclusion):
    """Approved, rejected and cancelled instances are different; sent again later, each is the same event."""
    ((headers, body),) = shown("/in/yudao-events")
    sent = json.loads(body) | {"id": f"instance-{status}", "status": status}
    conflicts = senders.conflicts("yudao-events")
    for timestamp in (1795942800123, 1795942860456):
        sent["timestamp"] = timestamp
        response = senders.post("/in/yudao-events", headers, json.dumps(sent))
        assert response == answered("yudao-events")
    event = senders.event("yudao-events", f"instance-{status}")
    assert (event.kind, event.conclusion, event.repeats) == (kind, conclusion, 1)
    assert (event.process_definition_key, event.business_key) == ("contract_approval", "17")
    assert is_signed(event) == (conclusion == "approved")
    assert senders.conflicts("yudao-events") == conflicts


def test_yudaos_rejection_is_stored_as_shown(senders):
    """The request of the page is a rejected instance, and its reason is in the data."""
    ((headers, body),) = shown("/in/yudao-events")
    assert senders.post("/in/yudao-events", headers, body) == answered("yudao-events")
    event = senders.event("yudao-events", json.loads(body)["id"])
    assert (event.kind, event.conclusion, is_signed(event)) == ("complete", "rejected", False)
    assert json.loads(event.body)["reason"] == json.loads(body)["reason"]


def test_a_running_instance_of_yudao_is_ignored_and_counted(senders):
    """The status of a running instance stores nothing; operators see the rule, the count and the last body."""
    ((headers, body),) = shown("/in/yudao-events")
    running = json.dumps(json.loads(body) | {"id": "running", "status": 1})
    before, _ = senders.ignored("yudao-events", "/status = other")
    assert senders.post("/in/yudao-events", headers, running) == answered("yudao-events")
    assert senders.ignored("yudao-events", "/status = other") == (before + 1, running)
    assert senders.rows("SELECT id FROM events WHERE flow_instance_id = 'running'") == []


def test_other_data_for_the_same_instance_gets_the_answer_of_success(senders):
    """A conflict is kept for operators, and the sender gets the same response."""
    ((headers, body),) = shown("/in/yudao-events")
    sent = json.loads(body) | {"id": "changed"}
    before = senders.conflicts("yudao-events")
    for reason in ("first", "second"):
        response = senders.post("/in/yudao-events", headers, json.dumps(sent | {"reason": reason}))
        assert response == answered("yudao-events")
    assert json.loads(senders.event("yudao-events", "changed").body)["reason"] == "first"
    assert senders.conflicts("yudao-events") == before + 1


def test_kogitos_events_arrive_in_every_mode(senders):
    """The end of an instance is stored in the structured, the binary and the batch mode; nodes are ignored."""
    structured, binary, batch = shown("/in/kogito")
    before, _ = senders.ignored("kogito", "/data/state = other")
    for headers, body in (structured, binary, batch):
        assert senders.post("/in/kogito", headers, body) == answered("kogito")
    instances = [
        (json.loads(structured[1])["kogitoprocinstanceid"], "C-2026-17", "complete"),
        (binary[0]["ce-kogitoprocinstanceid"], "C-2026-18", "complete"),
        (json.loads(batch[1])[0]["kogitoprocinstanceid"], "C-2026-19", "cancel"),
    ]
    for instance, business_key, kind in instances:
        event = senders.event("kogito", instance)
        assert (event.kind, event.business_key, event.conclusion) == (kind, business_key, None)
        assert (event.process_definition_key, event.origin) == ("contract_approval", "ingress")
    count, body = senders.ignored("kogito", "/data/state = other")
    assert count == before + 1
    assert json.loads(body)["data"]["nodeName"] == "Approve"


def test_kogitos_start_is_ignored_and_a_repeated_end_is_no_conflict(senders):
    """The start of an instance stores nothing; its end, published twice with other ids and times, is one event."""
    headers, body = shown("/in/kogito")[0]
    event = json.loads(body) | {"kogitoprocinstanceid": "started-and-ended"}
    started = event | {"data": event["data"] | {"eventType": 1, "state": 1}}
    before, _ = senders.ignored("kogito", "/data/state = other")
    assert senders.post("/in/kogito", headers, json.dumps(started)) == answered("kogito")
    assert senders.ignored("kogito", "/data/state = other")[0] == before + 1
    conflicts = senders.conflicts("kogito")
    for number in (1, 2):
        again = event | {"id": f"id-{number}", "time": f"2026-11-27T09:0{number}:00Z"}
        assert senders.post("/in/kogito", headers, json.dumps(again)) == answered("kogito")
    assert senders.event("kogito", "started-and-ended").repeats == 1
    assert senders.conflicts("kogito") == conflicts


def test_a_batch_with_an_invalid_event_stores_nothing(senders):
    """An event without its process instance refuses the whole batch, and the answer names the event."""
    headers, body = shown("/in/kogito")[2]
    ended, _ = json.loads(body)
    invalid = {name: value for name, value in ended.items() if name != "kogitoprocinstanceid"}
    batch = [ended | {"kogitoprocinstanceid": "of-a-refused-batch"}, invalid]
    status, _, said = senders.post("/in/kogito", headers, json.dumps(batch))
    assert (status, "/1/kogitoprocinstanceid" in said) == (422, True)
    assert senders.rows("SELECT id FROM events WHERE flow_instance_id = 'of-a-refused-batch'") == []


def test_camundas_template_makes_the_request_of_the_page(senders):
    """The template's inputs are the members of the shown request, which becomes an approved event."""
    template = json.loads(TEMPLATE.read_text("utf-8"))
    bound = {
        each["binding"].get("name", each["binding"].get("key", each["binding"].get("property"))): each.get("value")
        for each in template["properties"]
    }
    ((headers, body),) = shown("/in/camunda")
    members = json.loads(body)
    assert {f"body.{name}" for name in members} == {name for name in bound if name.startswith("body.")}
    assert (bound["method"], urlsplit(bound["url"]).path) == ("POST", "/in/camunda")
    assert (bound["type"], bound["authentication.type"]) == ("io.camunda:http-json:1", "bearer")
    assert "secrets.FLOWHOOKS_TOKEN" in bound["authentication.token"]
    assert (bound["retries"], bound["retryBackoff"]) == ("1000", "PT30S")
    assert senders.post("/in/camunda", headers, body) == answered("camunda")
    event = senders.event("camunda", members["processInstanceKey"])
    assert (event.kind, event.process_definition_key) == ("complete", "contract_approval")
    assert (event.business_key, event.conclusion, is_signed(event)) == ("C-2026-17", "approved", True)


def test_camundas_error_expression_lists_the_rejection_statuses():
    """The statuses that become an incident at once are those of the page; a success needs the header of flowhooks."""
    template = json.loads(TEMPLATE.read_text("utf-8"))
    (expression,) = [
        each["value"] for each in template["properties"] if each["binding"].get("key") == "errorExpression"
    ]
    assert 'get entries(response.headers).key satisfies lower case(name) = "flowhooks-event") then {}' in expression
    listed = json.loads(expression[expression.index("[") : expression.index("]") + 1])
    assert listed == ["400", "401", "403", "413", "415", "422"]
    assert f"{', '.join(listed[:-1])} or {listed[-1]}" in PAGE.read_text("utf-8").replace("\n  ", " ")


REQUESTS = [(source, *request) for source in SOURCES for request in shown(f"/in/{source}")]
"""Each request of the page to a fixed URL: its source, headers and body."""


@pytest.mark.parametrize(("source", "headers", "body"), REQUESTS, ids=lambda value: value if value in SOURCES else "")
def test_a_request_without_the_token_stores_nothing(senders, source, headers, body):
    """Without the credential of its source, each request of the page is refused."""
    before = senders.rows("SELECT count(*), sum(repeats) FROM events")
    for credential in ({}, {"Authorization": f"Bearer {token('another')}"}):
        given = {name: value for name, value in headers.items() if name != "Authorization"} | credential
        assert senders.post(f"/in/{source}", given, body)[0] == 401
    assert senders.rows("SELECT count(*), sum(repeats) FROM events") == before


@pytest.mark.parametrize(("source", "headers", "body"), REQUESTS, ids=lambda value: value if value in SOURCES else "")
def test_the_preview_matches_the_stored_event(senders, source, headers, body):
    """`flowhooks sources test --data` shows the kind, the instance and the answer that the server has."""
    assert senders.post(f"/in/{source}", headers, body) == answered(source)
    (senders.stage.folder / "request.txt").write_text(body)
    given = [("--header", f"{name}: {value}") for name, value in headers.items() if name != "Authorization"]
    words = [*("flowhooks", "sources", "test", source, "--data", "request.txt", "--json"), *sum(given, ())]
    preview = json.loads(senders.stage.run(shlex.join(words)).stdout)
    assert tuple(preview["answer"].values()) == answered(source)
    callbacks = [item["callback"] for item in preview["items"] if not item["ignored_by"]]
    assert callbacks
    for callback in callbacks:
        event = senders.event(source, callback["flow_instance_id"])
        assert (event.kind, json.loads(event.body)) == (callback["kind"], callback["data"])


def module(monkeypatch, name, **members):
    """A stand-in for a module of a sender's library."""
    stand_in = ModuleType(name)
    vars(stand_in).update(members)
    monkeypatch.setitem(sys.modules, name, stand_in)
    return stand_in


def program(name):
    """The program of the page with this name."""
    (block,) = [block for block in blocks(PAGE, "python") if block.file == name]
    return compile(block.text, block.where, "exec")


@pytest.fixture
def answer(monkeypatch):
    """A function that lets another program answer each request from now on: `answer(200, body, **headers)`."""

    def begin(status, body, **headers):
        response = SimpleNamespace(status=status, headers=headers, read=lambda: body)
        monkeypatch.setattr(http.client.HTTPConnection, "request", lambda *_: None)
        monkeypatch.setattr(http.client.HTTPConnection, "getresponse", lambda _: response)

    return begin


@pytest.fixture
def airflow(senders, monkeypatch):
    """Airflow's task of the page, which runs as a function: `call_back(dag, run, **arguments)`."""
    monkeypatch.setenv("FLOWHOOKS_URL", senders.stage.environment["STAGE_CALL_BACKS"])
    monkeypatch.setenv("FLOWHOOKS_TOKEN", token("airflow"))
    options, run = {}, SimpleNamespace()

    def task(**given):
        options.update(given)
        return lambda function: function

    module(monkeypatch, "airflow")
    module(monkeypatch, "airflow.sdk", task=task, get_current_context=lambda: {"dag_run": run})
    names = {"__name__": "flowhooks_task"}
    exec(program("flowhooks_task.py"), names)
    assert options["retries"] >= 100

    def call_back(dag, run_id, **arguments):
        run.dag_id, run.run_id = dag, run_id
        names["call_back"](**arguments)

    return call_back


def test_airflows_task_sends_the_request_of_the_page(senders, airflow):
    """The task's data are those of the shown request: both together are one event."""
    ((headers, body),) = shown("/in/airflow")
    data = json.loads(body)
    assert senders.post("/in/airflow", headers, body) == answered("airflow")
    instance = f"{data['dag_id']}/{data['run_id']}"
    before = senders.event("airflow", instance)
    airflow(data["dag_id"], data["run_id"], conclusion="approved", business_key="C-2026-17")
    event = senders.event("airflow", instance)
    assert (event.kind, event.process_definition_key) == ("complete", "contract_approval")
    assert (event.business_key, event.conclusion, is_signed(event)) == ("C-2026-17", "approved", True)
    assert (event.repeats, event.body) == (before.repeats + 1, before.body)


def test_the_same_run_id_of_two_dags_is_two_events(senders, airflow):
    """Airflow's run ids are unique within a DAG; a slash in an id does not join two of them."""
    conflicts = senders.conflicts("airflow")
    for dag in ("leave_request", "contract_approval"):
        airflow(dag, "manual__2026-11-27T08:00:00+00:00/a", conclusion="rejected")
    found = [
        senders.event("airflow", f"{dag}/manual__2026-11-27T08:00:00+00:00%2Fa")
        for dag in ("leave_request", "contract_approval")
    ]
    assert [event.process_definition_key for event in found] == ["leave_request", "contract_approval"]
    assert [event.conclusion for event in found] == ["rejected", "rejected"]
    assert senders.conflicts("airflow") == conflicts


def test_airflows_task_fails_if_the_callback_is_rejected(airflow, monkeypatch):
    """Airflow repeats the task: it raises with the text of flowhooks."""
    monkeypatch.setenv("FLOWHOOKS_TOKEN", "wrong")
    with pytest.raises(RuntimeError, match=r"flowhooks answered 401: .*errorInfo"):
        airflow("contract_approval", "refused")


def test_airflows_task_sends_a_token_that_ends_in_a_newline(senders, airflow, monkeypatch):
    """As read from a file: Python refuses a newline in a header, and its error shows the token in Airflow's log."""
    monkeypatch.setenv("FLOWHOOKS_TOKEN", f"{token('airflow')}\n")
    airflow("contract_approval", "newline")
    assert senders.event("airflow", "contract_approval/newline").kind == "complete"


class ApplicationError(Exception):
    """As in Temporal's library."""

    def __init__(self, message, *, non_retryable=False):
        super().__init__(message)
        self.non_retryable = non_retryable


class Passing:
    """As `imports_passed_through` of Temporal's library."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


@pytest.fixture
def temporal(senders, monkeypatch):
    """Temporal's workflow of the page, which runs as a function: `(run id, conclusion, workflow id)`."""
    monkeypatch.setenv("FLOWHOOKS_URL", senders.stage.environment["STAGE_CALL_BACKS"])
    monkeypatch.setenv("FLOWHOOKS_TOKEN", token("temporal"))
    info = SimpleNamespace(workflow_type="ContractApproval")
    unlimited = []

    async def execute_activity(function, *arguments, start_to_close_timeout, retry_policy):
        assert start_to_close_timeout.total_seconds() > 20  # the timeout of its connection
        unlimited.append("maximum_attempts" not in retry_policy)
        return function(*arguments)

    def same(decorated):
        return decorated

    activity = SimpleNamespace(defn=same, info=lambda: info)
    workflow = SimpleNamespace(
        defn=same, run=same, execute_activity=execute_activity, unsafe=SimpleNamespace(imports_passed_through=Passing)
    )
    module(monkeypatch, "temporalio", activity=activity, workflow=workflow)
    module(monkeypatch, "temporalio.common", RetryPolicy=dict)
    module(monkeypatch, "temporalio.exceptions", ApplicationError=ApplicationError)
    exec(program("flowhooks_activity.py"), vars(module(monkeypatch, "flowhooks_activity")))
    (block,) = [block for block in blocks(PAGE, "python") if "@workflow.defn" in block.text]
    names = {"__name__": "workflows"}
    exec(compile(block.text, block.where, "exec"), names)

    def run(run_id, conclusion, workflow_id):
        info.workflow_run_id, info.workflow_id = run_id, workflow_id
        assert asyncio.run(names["ContractApproval"]().run(conclusion)) == conclusion
        assert unlimited == [True] * len(unlimited)

    return run


def test_temporals_activity_sends_the_request_of_the_page(senders, temporal):
    """The activity's data are those of the shown request: both together are one event, with a free text as its key."""
    path = "/flow/0199f6a2-6f57-7d1c-8d7e-2b9a4b6c1d55/call-back/complete"
    (block,) = [block for block in blocks(PAGE, "http") if block.text.startswith(f"POST {path} ")]
    head, _, body = block.text.rstrip("\n").partition("\n\n")
    headers = dict(line.split(": ", 1) for line in head.split("\n")[1:])
    headers["Authorization"] = f"Bearer {token('temporal')}"
    assert senders.post(path, headers, body)[0] in {200, 202}
    run_id = path.split("/")[2]
    before = senders.event("temporal", run_id)
    temporal(run_id, "approved", "order/2026/17")
    event = senders.event("temporal", run_id)
    assert (event.kind, event.process_definition_key) == ("complete", "ContractApproval")
    assert (event.business_key, event.conclusion, event.origin) == ("order/2026/17", "approved", "callback")
    assert (event.repeats, json.loads(event.body)) == (before.repeats + 1, json.loads(before.body))


def test_temporals_activity_sends_a_token_that_ends_in_a_newline(senders, temporal, monkeypatch):
    """As read from a file: Python refuses a newline in a header, and Temporal would repeat the activity without end."""
    monkeypatch.setenv("FLOWHOOKS_TOKEN", f"{token('temporal')}\n")
    temporal("newline", "approved", "order/2026/21")
    assert senders.event("temporal", "newline").conclusion == "approved"


def test_temporals_activity_is_not_repeated_if_the_callback_is_rejected(temporal, monkeypatch):
    """The workflow fails at once, with the text of flowhooks."""
    monkeypatch.setenv("FLOWHOOKS_TOKEN", "wrong")
    with pytest.raises(ApplicationError, match=r"flowhooks answered 401: .*errorInfo") as raised:
        temporal("refused", "rejected", "order/2026/18")
    assert raised.value.non_retryable


def test_temporals_activity_is_repeated_if_flowhooks_is_down(temporal, monkeypatch):
    """An error of the connection leaves the activity as it is, and Temporal repeats each error but a refusal."""
    monkeypatch.setitem(vars(sys.modules["flowhooks_activity"]), "FLOWHOOKS", urlsplit("http://127.0.0.1:1"))
    with pytest.raises(OSError, match="refused"):
        temporal("down", "approved", "order/2026/19")


@pytest.mark.parametrize("is_stored", [True, False])
def test_temporals_activity_is_not_repeated_if_a_handler_has_failed(temporal, answer, is_stored):
    """500 with the id of an event says that the callback is stored; another 500 is repeated."""
    answer(500, b"failed", **({"Flowhooks-Event": "0199f6a2-6f57-7d1c-8d7e-2b9a4b6c1d55"} if is_stored else {}))
    with nullcontext() if is_stored else pytest.raises(ApplicationError, match="answered 500: failed") as raised:
        temporal("failed", "approved", "order/2026/20")
    assert is_stored or not raised.value.non_retryable


NOT_FLOWHOOKS = "HTTP 200 without Flowhooks-Event: not answered by flowhooks"


def test_temporals_activity_is_repeated_if_a_login_page_answers(temporal, answer):
    """A proxy answers 200 with a page of its own: the callback is not stored."""
    answer(200, b"<form>Log in, please</form>")
    with pytest.raises(ApplicationError, match=NOT_FLOWHOOKS) as raised:
        temporal("login", "approved", "order/2026/22")
    assert not raised.value.non_retryable


def test_airflows_task_fails_if_a_login_page_answers(airflow, answer):
    """Airflow repeats the task."""
    answer(200, b"<form>Log in, please</form>")
    with pytest.raises(RuntimeError, match=NOT_FLOWHOOKS):
        airflow("contract_approval", "login")


def test_the_commands_of_the_page_run(senders):
    """Each command of the page succeeds beside the server with the settings of the page."""
    ((headers, body),) = shown("/in/yudao")
    senders.post("/in/yudao", headers, body)
    ((headers, body),) = shown("/in/airflow")
    senders.post("/in/airflow", headers, body)
    ((_, body),) = shown("/in/yudao")
    (senders.stage.folder / "request.txt").write_text(body)
    for block in blocks(PAGE, "sh"):
        for command in commands(block):
            done = senders.stage.run(command.text)
            assert done.returncode == 0, f"{command.text}\n{done.stdout}{done.stderr}"
    assert "[sources.yudao]" in (senders.stage.folder / "sources.toml").read_text()
