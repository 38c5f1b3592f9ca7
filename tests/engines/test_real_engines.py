"""Real engines call back after their commit, once each, never after a rollback, and despite outages.

Needs Java, Maven and Maven's downloads; without them the tests are skipped with the reason.
"""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest

pytestmark = [pytest.mark.java, pytest.mark.timeout(600)]  # the first build downloads

PROJECTS = Path(__file__).parents[1] / "data/engines"
TOKEN = "the-token-of-the-engine"
PLUGIN = '''
import json, os
from flowhooks import Retry, handler, hookimpl

def write(who, event):
    """One line for each run, as a business system would have one booking."""
    deed = {
        "who": who,
        "instance": event.flow_instance_id,
        "source": event.source,
        "key": event.process_definition_key,
        "version": event.process_definition_version,
        "business_key": event.business_key,
        "class": event.callback_class,
        "data": dict(event.data),
    }
    with open(os.environ["JOURNAL"], "a", encoding="utf-8") as journal:
        journal.write(json.dumps(deed) + "\\n")

@handler(callback_class="com.example.ContractSigned", retry=Retry())
def archive(event):
    """Listen to the class that the process names."""
    write("archive", event)

@handler(process_key="leave_request", retry=Retry())
def grant(event):
    """Listen to a process that names no class."""
    write("grant", event)

@handler(process_key="order", retry=Retry())
def ship(event):
    """Listen to a process that calls others."""
    write("ship", event)

@hookimpl
def handlers():
    return [archive, grant, ship]
'''


ENGINES = ["flowable", "activiti", "camunda-7", "operaton", "cib-seven"]


@pytest.fixture(params=["java", *ENGINES])
def pair(request, pair_of):
    """A real engine beside a real server that knows its token."""
    return pair_of(request.param, PLUGIN)


@pytest.fixture(params=ENGINES)
def engine_pair(request, pair_of):
    """The same without the custom platform, which calls no instances."""
    return pair_of(request.param, PLUGIN)


def test_a_process_that_ends_runs_its_handler_once(pair):
    """The handler of the process's class runs once with the engine's data of the instance."""
    instance = pair.engine.do("start", "contract_approval", "C-2026-17")["id"]
    assert pair.site.stored(instance) == []
    pair.engine.do("complete", instance)
    stored = pair.site.settled(instance)
    (record,) = pair.site.records(instance)
    data = record.pop("data")
    assert record == {
        "who": "archive",
        "instance": instance,
        "source": pair.name,
        "key": "contract_approval",
        "version": 1,
        "business_key": "C-2026-17",
        "class": "com.example.ContractSigned",
    }
    assert data["processDefinitionId"].startswith("contract_approval:1:")
    assert [(delivery_status.state, delivery_status.attempt) for delivery_status in stored.delivery_statuses] == [
        ("succeeded", 1)
    ]
    pair.wait_until_sent()


def test_a_process_without_a_class(pair):
    """Without a class and a business key the engine sends null, and the handler of the process's key runs."""
    instance = pair.engine.do("start", "leave_request", None)["id"]
    pair.engine.do("complete", instance)
    stored = pair.site.settled(instance)
    (record,) = pair.site.records(instance)
    assert (record["who"], record["class"], record["business_key"]) == ("grant", None, None)
    assert '"businessKey":null,"callBackProcessClass":null,' in stored.body


def test_an_instance_started_with_a_class(pair):
    """A class that a form or a program set for one instance reaches its handlers, beside those of the key."""
    instance = pair.engine.do(
        "start", "leave_request", "L-2026-1", {"callBackProcessClass": "com.example.ContractSigned"}
    )["id"]
    pair.engine.do("complete", instance)
    stored = pair.site.settled(instance)
    assert stored.event.callback_class == "com.example.ContractSigned"
    assert sorted(record["who"] for record in pair.site.records(instance)) == ["archive", "grant"]


def test_the_body_has_the_members_that_the_page_shows(pair):
    """The engine's body has the members of its payload, in the same order, with values of the same types."""
    instance = pair.engine.do("start", "contract_approval", "C-2026-17")["id"]
    pair.engine.do("complete", instance)
    sent = json.loads(pair.site.settled(instance).body)
    shown = json.loads((PROJECTS / f"payloads/{pair.family}.json").read_text("utf-8"))
    assert list(sent) == list(shown)
    for member, value in shown.items():
        assert value is None or type(sent[member]) is type(value) or sent[member] is None, member


def test_a_transaction_that_is_rolled_back_sends_no_callback(pair):
    """The callback is rolled back with the engine's transaction; the instance can still end, once."""
    instance = pair.engine.do("start", "contract_approval", "C-2026-18")["id"]
    running = pair.engine.do("look")["running"]
    refused = pair.engine.ask("refuse", instance)
    assert refused["written"] == 1, refused  # the row had been written before the rollback
    assert pair.engine.do("look") == {"running": running, "outbox": []}
    assert pair.site.stored(instance) == []
    pair.engine.do("complete", instance)
    assert pair.site.settled(instance).repeats == 0
    assert len(pair.site.records(instance)) == 1
    pair.wait_until_sent()


def test_a_cancelled_instance_sends_no_callback(pair):
    """A cancelled instance sends no callback, while the next instance does."""
    cancelled = pair.engine.do("start", "contract_approval", "C-2026-19")["id"]
    pair.engine.do("cancel", cancelled)
    following = pair.engine.do("start", "contract_approval", "C-2026-20")["id"]
    pair.engine.do("complete", following)
    pair.site.settled(following)
    pair.wait_until_sent()
    assert pair.site.stored(cancelled) == []


def test_flowhooks_is_down_when_the_process_ends(pair, wait_until):
    """The engine continues and repeats until flowhooks is up: one event, whose handler runs once."""
    pair.site.stop()
    instance = pair.engine.do("start", "contract_approval", "C-2026-21")["id"]
    pair.engine.do("complete", instance)
    (row,) = wait_until(lambda: [row for row in pair.engine.outbox() if row["tries"] >= 1])
    assert (row["id"], row["problem"]) == (instance, None)
    pair.site.start()
    stored = pair.site.settled(instance)
    assert stored.body == row["body"]
    assert len(pair.site.records(instance)) == 1
    pair.wait_until_sent()
    assert len(pair.site.stored(instance)) == 1


def test_error_and_terminate_ends_send_no_callback(engine_pair):
    """By default an instance that ends at an error or a terminate end event has not completed."""
    stopped, fraud, following = (engine_pair.engine.do("start", "expense_approval", "E-1")["id"] for _ in range(3))
    engine_pair.engine.do("complete", stopped, {"decision": "stopped"})
    engine_pair.engine.ask("complete", fraud, {"decision": "fraud"})  # an error in some engines
    engine_pair.engine.do("complete", following, {"decision": "approved"})
    engine_pair.wait_until_sent()
    assert len(engine_pair.site.stored(following)) == 1
    assert engine_pair.site.stored(stopped) == engine_pair.site.stored(fraud) == []


# Instances that a call activity starts, and ids


def test_a_called_instance_sends_no_callback(engine_pair):
    """Only the calling instance calls back: one business case, one event."""
    caller = engine_pair.engine.do("start", "order", "O-2026-1", {"called": "leave_request"})["id"]
    instance = engine_pair.engine.do("called", caller)["id"]
    engine_pair.engine.do("complete", instance)
    engine_pair.wait_until_sent()
    assert json.loads(engine_pair.site.settled(caller).body)["callBackProcessClass"] == "com.example.OrderPlaced"
    assert engine_pair.site.stored(instance) == []


def test_instance_ids_are_uuids(engine_pair):
    """The engine's ids are UUIDs, which another database does not use again."""
    instance = engine_pair.engine.do("start", "leave_request", None)["id"]
    assert str(uuid.UUID(instance)) == instance


# Tests of the outbox itself, in the engine that starts fastest


@pytest.fixture(scope="module")
def platform_site(class_path, make_site, source):
    """A server for the custom platform."""
    class_path("java")  # first, because it may skip
    return make_site(PLUGIN, source("java", TOKEN)).start()


def test_the_engine_is_killed_before_it_could_send(platform_site, start_engine, tmp_path, wait_until):
    """The engine's next process sends a committed callback of a killed process."""
    file = str(tmp_path / "platform")
    platform_site.stop()
    engine = start_engine("java", file, url=platform_site.url, token=TOKEN)
    instance = engine.do("start", "contract_approval", "C-2026-22")["id"]
    engine.do("complete", instance)
    assert [row["id"] for row in engine.outbox()] == [instance]
    engine.kill()
    platform_site.start()
    assert platform_site.stored(instance) == []
    engine = start_engine("java", file, url=platform_site.url, token=TOKEN)
    platform_site.settled(instance)
    assert len(platform_site.records(instance)) == 1
    wait_until(lambda: engine.outbox() == [])


def test_a_rejected_callback_is_stored_with_the_message(platform_site, start_engine, wait_until):
    """A conflicting callback is kept with flowhooks' message, not repeated, and blocks no other callback."""
    engine = start_engine("java", url=platform_site.url, token=TOKEN)
    instance = engine.do("start", "contract_approval", "C-2026-23")["id"]
    engine.do("complete", instance)
    platform_site.settled(instance)
    engine.do("call", instance, "C-2026-99", "com.example.ContractSigned")
    (row,) = wait_until(lambda: [row for row in engine.outbox() if row["problem"]])
    assert row["problem"].startswith("409 ")
    assert "had other data" in row["problem"]
    following = engine.do("start", "contract_approval", "C-2026-24")["id"]
    engine.do("complete", following)
    platform_site.settled(following)
    (left,) = wait_until(lambda: len(rows := engine.outbox()) == 1 and rows)
    assert left == row
    assert platform_site.settled(instance).event.business_key == "C-2026-23"


def test_two_users_end_one_flow_at_once(platform_site, start_engine, wait_until):
    """The second user gets an error, and only the conclusion of the first one is sent."""
    engine = start_engine("java", url=platform_site.url, token=TOKEN)
    instance = engine.do("start", "contract_approval", "C-2026-27")["id"]
    refused = engine.ask("act", "complete-twice", instance, "second")
    assert f"There is no running flow {instance}" in refused.get("error", "")
    assert json.loads(platform_site.settled(instance).body)["conclusion"] == "first"
    wait_until(lambda: engine.outbox() == [])


def test_a_token_that_ends_in_a_newline(platform_site, start_engine, wait_until):
    """The line end of a file is no part of the token: the callback is sent, and the log never has the token."""
    engine = start_engine("java", url=platform_site.url, token=f"{TOKEN}\n")
    instance = engine.do("start", "contract_approval", "C-2026-28")["id"]
    engine.do("complete", instance)
    try:
        wait_until(lambda: engine.outbox() == [])
    finally:
        engine.close()
        assert TOKEN not in engine.log
    assert platform_site.settled(instance).event.source == "java"


def test_an_id_with_special_characters_arrives_unchanged(platform_site, start_engine, wait_until):
    """A platform's own id arrives as it is, with blanks, slashes, plus signs and other languages."""
    engine = start_engine("java", url=platform_site.url, token=TOKEN)
    instance = "合同/2026 17+@~%*é😀"
    engine.do("call", instance, "C-2026-26", "com.example.ContractSigned")
    wait_until(lambda: engine.outbox() == [])
    assert platform_site.settled(instance).event.flow_instance_id == instance


def test_a_callback_with_a_wrong_token_stays_with_the_response(platform_site, start_engine, wait_until):
    """With a wrong token the engine stops repeating: the callback stays with the response."""
    engine = start_engine("java", url=platform_site.url, token="another-token")
    instance = engine.do("start", "contract_approval", "C-2026-25")["id"]
    engine.do("complete", instance)
    (row,) = wait_until(lambda: [row for row in engine.outbox() if row["problem"]])
    assert row["problem"].startswith("401 ")
    assert platform_site.stored(instance) == []


def test_a_login_page_is_not_the_answer_of_flowhooks(platform_site, start_engine, relay, wait_until):
    """A proxy answers 200 with a page of its own: the callback stays, the log says why, and it is sent again."""
    between = relay(platform_site.url)
    between.shows_login = True
    engine = start_engine("java", url=between.url, token=TOKEN)
    instance = engine.do("start", "contract_approval", "C-2026-29")["id"]
    engine.do("complete", instance)
    (row,) = wait_until(lambda: [row for row in engine.outbox() if row["tries"] >= 1])
    assert (row["id"], row["problem"], platform_site.stored(instance)) == (instance, None, [])
    assert f"{instance} is sent again: HTTP 200 without Flowhooks-Event: not answered by flowhooks" in engine.log
    between.shows_login = False
    assert platform_site.settled(instance).body == row["body"]
    wait_until(lambda: engine.outbox() == [])
    assert platform_site.settled(instance).repeats == 0


ANSWERS = {
    "200-stored": ("DONE", 0),
    "202-stored": ("DONE", 0),
    "500-stored": ("DONE", 0),
    "200": ("AGAIN", 0),
    "202": ("AGAIN", 0),
    "204": ("AGAIN", 0),
    "500": ("AGAIN", 0),
    "502": ("AGAIN", 0),
    "503-7": ("AGAIN", 7),
    "503-later": ("AGAIN", 0),
    "408": ("AGAIN", 0),
    "429-30": ("AGAIN", 30),
    "cut": ("AGAIN", 0),
    "302": ("WRONG", 0),
    "401": ("WRONG", 0),
    "404": ("WRONG", 0),
    "409-stored": ("WRONG", 0),
    "422": ("WRONG", 0),
}


def test_the_client_handles_each_status_as_the_page_states(start_engine, status_server):
    """The client treats each status as the page's table says, also from proxies."""
    engine = start_engine("java", url=status_server)
    said = {answer: engine.do("send", answer) for answer in ANSWERS}
    assert {answer: (result["next"], result["waitSeconds"]) for answer, result in said.items()} == ANSWERS
