"""The beans of the Spring Boot page in real starters, Flowable's HTTP task, and the exceptions of HTTP clients.

Needs Java and Maven, as `test_real_engines.py` does. The classes are taken out of the pages.
"""

from __future__ import annotations

import json
import re
import shutil
import uuid
from pathlib import Path

import pytest

from support.code_blocks import blocks
from support.maven import JAVA, Build, skip_without_maven
from support.ports import free_port
from support.waiting import until

pytestmark = [pytest.mark.java, pytest.mark.timeout(600)]  # the first build downloads

PROJECTS = Path(__file__).parents[1] / "data/engines"
PAGES = Path(__file__).parents[2] / "docs/how-to/engines"
ENGINES = ["flowable", "camunda-7", "operaton"]
CLASSES = {
    "flowable": ["FlowhooksConfiguration", "FlowableFlowhooks", "FlowhooksError"],
    "camunda-7": ["FlowhooksConfiguration", "CamundaFlowhooks"],
    "operaton": ["FlowhooksConfiguration", "CamundaFlowhooks"],
}
"""The classes of the page that each application has."""
OPERATON = [
    ("org.camunda.bpm", "org.operaton.bpm"),
    ("instance.camunda", "instance.operaton"),
    ("CamundaPropert", "OperatonPropert"),
    ("getCamunda", "getOperaton"),
    ("import org.operaton.bpm.engine.impl.bpmn.parser.AbstractBpmnParseListener;\n", ""),
    ("AbstractBpmnParseListener", "BpmnParseListener"),
]
PLUGIN = '''
import json, os
from flowhooks import Reject, Retry, handler, hookimpl

@handler(process_key=["contract_approval", "http_task"], retry=Retry())
def archive(event):
    """Write one line per run."""
    booking = {"instance": event.flow_instance_id, "business_key": event.business_key, "conclusion": event.conclusion}
    with open(os.environ["JOURNAL"], "a", encoding="utf-8") as journal:
        journal.write(json.dumps(booking) + "\\n")

@handler(process_key="refused")
def refuse(event):
    """Fail."""
    raise Reject("没有这份合同。")

@hookimpl
def handlers():
    return [archive, refuse]
'''


def page_classes():
    """The classes of the page by their name."""
    texts = [block.text for block in blocks(PAGES / "spring-boot.md", "java")]
    return {re.search(r"public (?:final )?class (\w+)", text)[1]: text for text in texts}


def diagram():
    """A process with the HTTP task of the page, repeated after a second, and one without its checks of the answer."""
    (task,) = (block.text for block in blocks(PAGES / "flowable-http-task.md", "xml"))
    task = task.replace("PT30S", "PT1S")
    checks = r' *<flowable:field name="failStatusCodes">.*\n| *<conditionExpression.*\n'
    unguarded, count = re.subn(checks, "", task)
    assert count == 2
    processes = ""
    for key, text in (("http_task", task), ("unguarded", unguarded)):
        nodes = (
            '<startEvent id="s"/><sequenceFlow id="f1" sourceRef="s" targetRef="decide"/><userTask id="decide"/>'
            f'<sequenceFlow id="f2" sourceRef="decide" targetRef="call_back"/>{text}'
            '<endEvent id="end"/>'
        )
        nodes = re.sub(r'\b(id|sourceRef|targetRef)="', rf'\1="{key}_', nodes)  # an id is unique in its file
        processes += f'<process id="{key}">{nodes}</process>'
    names = 'xmlns="http://www.omg.org/spec/BPMN/20100524/MODEL" xmlns:flowable="http://flowable.org/bpmn"'
    names += ' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
    return f'<definitions {names} targetNamespace="https://flowhooks.example/processes">{processes}</definitions>'


def prepare(folder):
    """Put the classes of the pages, the table and the diagrams into the projects."""
    shutil.copytree(PROJECTS / "spring-boot", folder, ignore=shutil.ignore_patterns("target"))
    java, shown = PROJECTS / "java/src/main", page_classes()
    for engine in ENGINES:
        original = "camunda-7" if engine == "operaton" else engine
        (model,) = (PROJECTS / original / "src/main/resources").glob("contract.bpmn*")
        main = folder / engine / "src/main"
        shutil.copy(model, main / "resources")
        for name in ("flowhooks-outbox.sql", "outbox.sql"):
            shutil.copy(java / "resources/outbox.sql", main / "resources" / name)
        package = main / "java/com/example/flowhooks"
        package.mkdir(parents=True)
        for name in ("FlowhooksClient", "CallBack", "Outbox"):
            shutil.copy(java / f"java/com/example/flowhooks/{name}.java", package)
        (callback,) = (PROJECTS / original / "src/main/java/com/example/flowhooks").glob("*CallBack.java")
        shutil.copy(callback, package)
        for name in CLASSES[engine]:
            (package / f"{name}.java").write_text(shown[name], "utf-8")
        harness = main / "java/com/example/harness"
        if engine == "operaton":
            shutil.copytree(folder / "camunda-7/src/main/java/com/example/harness", harness)
            for file in (*package.glob("Camunda*.java"), *harness.glob("Camunda*.java")):
                text = file.read_text("utf-8")
                for old, new in OPERATON:
                    text = text.replace(old, new)
                file.write_text(text, "utf-8")
        shutil.copy(java / "java/com/example/harness/Console.java", harness)
    (folder / "flowable/src/main/resources/http-task.bpmn20.xml").write_text(diagram(), "utf-8")


@pytest.fixture(scope="module")
def application_path(tmp_path_factory):
    """The class path of one application: `application_path("flowable")`; skips where the starters cannot be had."""
    skip_without_maven()
    folder = tmp_path_factory.mktemp("spring-boot") / "applications"
    prepare(folder)
    return Build(folder).class_path


class Started:
    """An application beside the flowhooks that it calls back."""

    def __init__(self, name, site, app):
        self.name, self.site, self.app = name, site, app

    def end(self, key, business_key=None, **variables):
        """An instance whose one task is completed; its id."""
        instance = self.app.do("start", key, business_key)["id"]
        self.app.do("complete", instance, variables)
        return instance


@pytest.fixture(scope="module")
def started(application_path, make_site, source, start_process):
    """An application beside its server, started once: `started("flowable")`."""
    found = {}

    def find(name):
        if name not in found:
            path = application_path(name)  # first, as it may skip
            site = make_site(PLUGIN, source(name, f"token-of-{name}")).start()
            main = "Flowable" if name == "flowable" else "Camunda"
            command = [*JAVA, "-cp", path, f"com.example.harness.{main}Application"]
            found[name] = Started(name, site, start_process(command, url=site.url, token=f"token-of-{name}"))
        return found[name]

    return find


@pytest.fixture(params=ENGINES)
def each(request, started):
    """Each engine's application."""
    return started(request.param)


# The beans


def test_an_instance_that_ends_runs_its_handler_once(each):
    """The outbox has been started, its table has been created, and ids are UUIDs."""
    instance = each.end("contract_approval", "C-2026-17", conclusion="approved")
    assert str(uuid.UUID(instance)) == instance
    assert each.site.settled(instance).event.source == each.name
    booking = {"instance": instance, "business_key": "C-2026-17", "conclusion": "approved"}
    assert each.site.records(instance) == [booking]
    until(lambda: each.app.outbox() == [])


def test_a_transaction_of_spring_that_is_rolled_back_sends_nothing(each):
    """The callback was written in Spring's transaction, and is gone with it."""
    instance = each.app.do("start", "contract_approval", "C-2026-18")["id"]
    refused = each.app.ask("refuse", instance)
    assert refused["written"] == 1, refused
    assert each.app.outbox() == []
    each.app.do("complete", instance, {})
    assert each.site.settled(instance).repeats == 0
    until(lambda: each.app.outbox() == [])


def test_flowhooks_is_down_when_an_instance_ends(each):
    """The row waits until flowhooks is up."""
    each.site.stop()
    instance = each.end("contract_approval", "C-2026-19")
    (row,) = until(lambda: [row for row in each.app.outbox() if row["tries"] >= 1])
    assert (row["id"], row["problem"]) == (instance, None)
    each.site.start()
    each.site.settled(instance)
    until(lambda: each.app.outbox() == [])
    assert len(each.site.records(instance)) == 1


def test_listeners_of_other_configurers_are_still_called(started):
    """The application's own event listener is called, too, though its configurer replaces listeners."""
    flowable = started("flowable")
    instance = flowable.end("contract_approval", "C-2026-20")
    flowable.site.settled(instance)
    assert instance in flowable.app.do("start", "seen", None)["id"].split(",")


# Flowable's HTTP task


@pytest.fixture(scope="module")
def http_task(application_path, make_site, source, start_process):
    """A Flowable with the diagram of the page, and without a class of flowhooks."""
    path = application_path("flowable")
    site = make_site(PLUGIN, source("flowable", "the-token")).start()
    command = [*JAVA, "-cp", path, "com.example.harness.HttpTaskApplication"]
    return Started("flowable", site, start_process(command, url=site.url, token="the-token"))


@pytest.mark.parametrize("business_key", ["C-2026-17", 'a "quoted" \\ 合同', None])
def test_the_http_task_sends_the_callback_once(http_task, business_key):
    """With the members that the page shows, whatever the business key is; the instance ends."""
    running = http_task.app.do("look")["running"]
    instance = http_task.end("http_task", business_key, conclusion="approved")
    stored = http_task.site.settled(instance)
    sent = json.loads(stored.body)
    shown = json.loads((PROJECTS / "payloads/flowable-http-task.json").read_text("utf-8"))
    assert list(sent) == list(shown)
    assert (sent["businessKey"], sent["conclusion"]) == (business_key, "approved")
    assert (sent["processDefinitionKey"], sent["processDefinitionVersion"]) == ("http_task", 1)
    until(lambda: http_task.app.do("look")["running"] == running)
    assert len(http_task.site.records(instance)) == 1


def test_the_http_task_loses_nothing_while_flowhooks_is_down(http_task):
    """The user's task is completed, the instance goes on, and its callback arrives when flowhooks is up."""
    running = http_task.app.do("look")["running"]
    http_task.site.stop()
    instances = [http_task.end("http_task", f"C-2026-{number}") for number in range(3)]
    until(lambda: http_task.app.do("start", "failed jobs", None)["id"] == "3")
    assert http_task.app.do("look")["running"] == running + 3
    http_task.site.start()
    for instance in instances:
        http_task.site.settled(instance)
    until(lambda: http_task.app.do("look")["running"] == running)
    assert [len(http_task.site.records(instance)) for instance in instances] == [1, 1, 1]


def test_an_instance_does_not_end_when_its_callback_is_rejected(application_path, http_task, start_process):
    """With a wrong token it stays; without the checks it ends, and its callback is lost, as the page warns."""
    command = [*JAVA, "-cp", application_path("flowable"), "com.example.harness.HttpTaskApplication"]
    other = Started("flowable", http_task.site, start_process(command, url=http_task.site.url, token="a-wrong-token"))
    guarded = other.end("http_task", "C-2026-30")
    until(lambda: other.app.do("start", "failed jobs", None)["id"] == "1")
    unguarded = other.end("unguarded", "C-2026-31")
    until(lambda: other.app.do("look")["running"] == 1)
    assert other.site.stored(guarded) == other.site.stored(unguarded) == []


def test_a_login_page_is_not_the_answer_of_flowhooks(application_path, http_task, start_process, relay):
    """A proxy answers 200 with a page of its own: the job fails and is repeated; without checks it would be lost."""
    between = relay(http_task.site.url)
    between.shows_login = True
    command = [*JAVA, "-cp", application_path("flowable"), "com.example.harness.HttpTaskApplication"]
    other = Started("flowable", http_task.site, start_process(command, url=between.url, token="the-token"))
    unguarded = other.end("unguarded", "C-2026-32")
    until(lambda: other.app.do("look")["running"] == 0)
    guarded = other.end("http_task", "C-2026-33", conclusion="approved")
    until(lambda: other.app.do("start", "failed jobs", None)["id"] == "1")
    assert other.site.stored(guarded) == other.site.stored(unguarded) == []
    between.shows_login = False
    assert other.site.settled(guarded).repeats == 0
    until(lambda: other.app.do("look")["running"] == 0)
    assert other.site.stored(unguarded) == []


# HTTP clients


CLIENTS = {
    "RestTemplate": ("HttpClientErrorException", "HttpServerErrorException", True),
    "RestClient": ("HttpClientErrorException", "HttpServerErrorException", True),
    "WebClient": ("WebClientResponseException", "WebClientResponseException", False),
    "Feign": ("FeignException", "FeignException", True),
}
"""The exceptions of each client for 4xx and for 5xx, and whether `getMessage()` has the text of flowhooks."""


@pytest.mark.parametrize("client", CLIENTS)
def test_client_exceptions_have_status_message_and_event(started, client):
    """The status, the message and the event of an error are in the exception; 202 is none."""
    flowable = started("flowable")
    client_error, server_error, has_message = CLIENTS[client]
    instance = f"client-{client}"

    def call(number, body, name=client):
        given = {"client": name, "url": flowable.site.url, "body": body}
        return json.loads(flowable.app.do("start", "client", f"{instance}-{number}", given)["id"])

    status = 0 if client == "Feign" else 202  # a method of Feign that returns a body hides the status
    assert call(1, "nobody") == {"status": status}
    conflict = call(1, "another")
    invalid = call(2, "a list")
    failed = call(3, "refused")
    assert [said["status"] for said in (conflict, invalid, failed)] == [409, 422, 500]
    for said, thrown in ((conflict, client_error), (invalid, client_error), (failed, server_error)):
        assert said["threw"].startswith(thrown), said
    assert "had other data" in conflict["message"]
    assert "/businessKey" in invalid["message"]
    assert "没有这份合同。" in failed["message"]
    assert invalid["event"] is None
    assert failed["event"] == flowable.site.stored(f"{instance}-3")[0].event.id
    assert ("/businessKey" in invalid["getMessage"]) is has_message


def test_feign_with_its_own_response_type_does_not_throw(started):
    """It throws nothing, and has the status."""
    flowable = started("flowable")

    def status(number, body):
        given = {"client": "Feign, response", "url": flowable.site.url, "body": body}
        return json.loads(flowable.app.do("start", "client", f"response-{number}", given)["id"])

    assert [status(1, "nobody"), status(2, "a list")] == [{"status": 202}, {"status": 422}]


@pytest.mark.parametrize(
    ("client", "thrown"),
    [
        ("RestTemplate", "ResourceAccessException"),
        ("RestClient", "ResourceAccessException"),
        ("WebClient", "WebClientRequestException"),
        ("Feign", "RetryableException"),
    ],
)
def test_a_refused_connection_throws_another_exception(started, client, thrown):
    """A refused connection is another exception."""
    given = {"client": client, "url": f"http://127.0.0.1:{free_port()}", "body": "nobody"}
    said = json.loads(started("flowable").app.do("start", "client", "nobody", given)["id"])
    assert said["threw"] == thrown
