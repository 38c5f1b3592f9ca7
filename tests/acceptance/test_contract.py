"""The HTTP contract from outside: the responses to callbacks that are accepted, and their times."""

from __future__ import annotations

import http.client
import json
import re
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from flowhooks.ledger.queries import EventFilter
from support.waiting import WAIT_TIMEOUT, until

PLUGIN = '''
import os, time
from flowhooks import Reject, Retry, handler, hookimpl

def until(name):
    while not os.path.exists(os.environ["JOURNAL"] + name):
        time.sleep(0.01)

@handler(process_key="done")
def done(event):
    """Show what it was given."""
    return [event.flow_instance_id, event.kind, event.source, event.process_definition_version, event.data]

@handler(callback_class="com.example.Done")
def done_too(event):
    """Listen to a class."""

@handler(process_key="slow")
def slow(event):
    """Wait until the test says so."""
    until(f".{event.flow_instance_id}")

@handler(process_key="killed")
def killed(event):
    """Still run when the server is killed."""
    open(os.environ["JOURNAL"] + ".entered", "w").close()
    until(".never")

@handler(process_key="fails")
def fails(event):
    """Fail for good."""
    raise ValueError("the archive\\nis {full}")

@handler(process_key="fails", name="fails-too")
def fails_too(event):
    """Fail for good as well."""
    raise OSError("no disk")

@handler(process_key="rejects", retry=Retry())
def rejects(event):
    """Refuse the event."""
    raise Reject("amount is negative")

@handler(process_key="retried", retry=Retry(attempts=3, delays=[0.05]))
def retried(event, delivery):
    """Fail twice, then do its work."""
    if delivery.attempt < 3:
        raise OSError("not yet")
    return delivery.attempt

@handler(process_key="done", kind="cancelled")
def cancelled(event):
    """Listen to another kind of callback."""
    return [event.kind, event.data["reason"]]

@hookimpl
def handlers():
    return [done, done_too, slow, killed, fails, fails_too, rejects, retried, cancelled]
'''
CANCELLED = """{
  "title": "Cancelled",
  "allOf": [{"$ref": "../process-end-call-back-ro.schema.json"}],
  "properties": {"reason": {"type": "string", "minLength": 3}},
  "required": ["reason"]
}"""
DONE = {"processDefinitionKey": "done"}
SUCCESS = b'{"success": true}'
EVENT_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


@pytest.fixture(scope="module")
def site(make_site):
    """A folder with one plugin, an additional kind of callback, and one delivery whose server was killed."""
    site = make_site()
    site.plugin("demo", PLUGIN)
    kinds = site.folder / "schemas/call-back"
    kinds.mkdir(parents=True)
    (kinds / "cancelled.schema.json").write_text(CANCELLED)
    return site


@pytest.fixture(scope="module")
def server(site):
    """The server that the tests of this file call."""
    first = site.start(schemas_dir=site.folder / "schemas")
    first.post("killed", {"processDefinitionKey": "killed"}, Prefer="respond-async")
    until(site.journal.with_name("journal.entered").exists)
    first.kill()
    # A commit may take seconds on a busy machine.
    return site.start(answer_wait=60, ledger__write_timeout=20, schemas_dir=site.folder / "schemas")


@pytest.fixture(autouse=True)
def clean_log(server):
    """After each test the log has one JSON object per line and no traceback."""
    yield
    server.check_log()


def result(site, event_id):
    """The result of the only handler of an event."""
    with site.ledger() as ledger:
        (delivery_status,) = ledger.delivery_statuses(event_id)
        return json.loads(ledger.attempts(delivery_status.delivery_id)[-1].result)


def is_chinese(text):
    """Whether a sentence has Chinese characters."""
    return bool(re.search("[\u4e00-\u9fff]", text))


def test_the_success_response_matches_the_api_page(server):
    """A success is 200 with the documented body, byte for byte, and the event's id in a header."""
    answer = server.post("ok-1", DONE | {"businessKey": "1", "processDefinitionVersion": 1})
    assert (answer.status, answer.body) == (200, SUCCESS)
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    assert answer.headers["Content-Length"] == str(len(SUCCESS))
    assert EVENT_ID.fullmatch(answer.event_id)


@pytest.mark.parametrize(
    "again",
    [
        b'{"processDefinitionVersion": 2, "processDefinitionKey": "done"}',
        b'\r\n\t{ "processDefinitionKey" : "d\\u006fne","processDefinitionVersion":2.0, "businessKey": null}',
        b'{"processDefinitionVersion": 20e-1, "processDefinitionKey": "done", "callBackProcessClass": null}',
    ],
)
def test_an_equivalent_callback_gets_the_same_response(server, site, again):
    """Order, white space, number formats and absent members do not change a callback's identity."""
    first = server.post("again", DONE | {"processDefinitionVersion": 2})
    second = server.post("again", again)
    assert (second.status, second.body, second.event_id) == (200, SUCCESS, first.event_id)
    with site.ledger() as ledger:
        (delivery_status,) = ledger.delivery_statuses(first.event_id)
        assert delivery_status.attempt == 1


def test_one_callback_from_many_clients_is_one_event(server, site):
    """All callers get the outcome of one event, and its handler runs once."""
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: server.post("at-once", DONE), range(32)))
    assert {answer.event_id for answer in answers} == {answers[0].event_id}
    # Half of the threads may wait; a caller without a place gets "pending".
    assert {answer.status for answer in answers} <= {200, 202}
    assert server.post("at-once", DONE).body == SUCCESS
    with site.ledger() as ledger:
        assert [delivery_status.attempt for delivery_status in ledger.delivery_statuses(answers[0].event_id)] == [1]
        assert ledger.event(answers[0].event_id).repeats == 32


def test_two_classes_of_one_instance_are_two_events(server):
    """The class is part of the identity, and an empty class counts as absent."""
    with_class = server.post("classes", {"callBackProcessClass": "com.example.Done"})
    without = server.post("classes", DONE | {"callBackProcessClass": ""})
    assert with_class.status == without.status == 200
    assert with_class.event_id != without.event_id


def test_null_members_are_absent_and_unknown_members_are_passed_on(server, site):
    """A handler gets the complete body without null members."""
    body = {
        "processDefinitionKey": "done",
        "businessKey": None,
        "callBackProcessClass": None,
        "processDefinitionId": None,
        "processDefinitionVersion": None,
        "variables": {"amount": 12.5, "note": None, "lines": [1, None, {"a": None, "b": "流程"}]},
        "": "\t",
    }
    answer = server.post("extra", body)
    assert (answer.status, answer.body) == (200, SUCCESS)
    kept = {"processDefinitionKey": "done", "variables": {"amount": 12.5, "lines": [1, None, {"b": "流程"}]}, "": "\t"}
    assert result(site, answer.event_id) == ["extra", "complete", "default", None, kept]


def test_the_process_key_is_read_from_the_definition_id(server, site):
    """The key is taken from `key:version:uuid`, the form of Flowable, Activiti and Camunda."""
    answer = server.post("by-id", {"processDefinitionId": "done:7:6e8c3b52-5d0b-11ee-9a3f-0242ac120002"})
    assert (answer.status, answer.body) == (200, SUCCESS)


def test_a_dead_delivery_is_500_with_its_handler_and_error(server):
    """One line names one of the dead deliveries and counts the others; a repeat gets the stored failure."""
    answer = server.post("dead", {"processDefinitionKey": "fails"})
    message = answer.check_error(500)
    assert "2 of its handlers failed; the first is demo:fails" in message
    assert "ValueError: the archive is {full}" in message or "OSError: no disk" in message
    again = server.post("dead", {"processDefinitionKey": "fails"}, Accept_Language="zh")
    assert again.event_id == answer.event_id
    assert is_chinese(again.check_error(500))


def test_a_rejected_event_is_500_and_is_not_retried(server, site):
    """`Reject` is final, with or without `retry=`."""
    for _ in range(2):
        answer = server.post("rejected", {"processDefinitionKey": "rejects"})
        assert answer.check_error(500).endswith("demo:rejects failed: amount is negative")
    with site.ledger() as ledger:
        assert [delivery_status.attempt for delivery_status in ledger.delivery_statuses(answer.event_id)] == [1]


def test_an_answer_waits_for_quick_retries(server, site):
    """The response is 200 once all deliveries have settled, also after failed attempts."""
    answer = server.post("retried", {"processDefinitionKey": "retried"})
    assert (answer.status, answer.body) == (200, SUCCESS)
    assert result(site, answer.event_id) == 3


def test_a_parked_event_is_202_and_reported_as_parked(server):
    """A parked event is stored, and the response says so in both languages; a repeat is the same event."""
    answer = server.post("parked", {"processDefinitionKey": "nobody"})
    chinese = server.post("parked", {"processDefinitionKey": "nobody"}, Accept_Language="zh")
    assert answer.status == chinese.status == 202
    assert list(answer.json) == ["success", "message"]
    assert answer.json["success"] is True
    assert "no handler is installed" in answer.json["message"]
    assert "目前没有对应的处理器" in chinese.json["message"]
    assert answer.event_id == chinese.event_id


def test_a_numeric_process_key_is_explained(server):
    """Camunda 8's own processDefinitionKey is a number: the answer names the member to send instead."""
    number = server.post("digits", {"processDefinitionKey": 2251799813685249})
    text = server.post("digits", {"processDefinitionKey": "2251799813685249"})
    assert (number.status, text.status) == (422, 202)
    assert "bpmnProcessId" in number.json["message"]
    assert "send its bpmnProcessId as processDefinitionKey instead" in text.json["message"]
    assert "no handler is installed" in text.json["message"]
    known = server.post("digits-2", {"processDefinitionKey": "nobody"})
    assert "bpmnProcessId" not in known.json["message"]


def test_an_unfinished_event_is_202_and_a_repeat_gets_the_outcome(server, site):
    """The response lists open deliveries; a repeat gets the outcome of the first attempt."""
    body = {"processDefinitionKey": "slow"}
    answer = server.post("slow-1", body, Prefer="wait=0")
    assert (answer.status, answer.json["success"]) == (202, True)
    site.until(lambda ledger: ledger.delivery_statuses(answer.event_id)[0].state == "running")
    running = server.post("slow-1", body, Prefer="wait=1", Accept_Language="zh")
    assert (running.status, running.event_id) == (202, answer.event_id)
    assert "执行中 1 个" in running.json["message"]
    site.journal.with_name("journal.slow-1").touch()
    joined = server.post("slow-1", body)
    assert (joined.status, joined.body, joined.event_id) == (200, SUCCESS, answer.event_id)
    with site.ledger() as ledger:
        assert [delivery_status.attempt for delivery_status in ledger.delivery_statuses(answer.event_id)] == [1]


def test_an_unknown_delivery_is_202_and_waits_for_its_operator(server, site):
    """A delivery whose server was killed is not run again without an operator."""
    answer = server.post("killed", {"processDefinitionKey": "killed"})
    assert (answer.status, answer.json["success"]) == (202, True)
    assert "0 waiting, 0 running, 1 unknown" in answer.json["message"]
    chinese = server.post("killed", {"processDefinitionKey": "killed"}, Accept_Language="zh-TW")
    assert "结果未知 1 个" in chinese.json["message"]
    with site.ledger() as ledger:
        (delivery_status,) = ledger.delivery_statuses(answer.event_id)
    done = server.operate(site.token(), "resolve", delivery_id=delivery_status.delivery_id, verdict="did")
    assert (done.status, done.json["after"]) == (200, "succeeded")
    assert server.post("killed", {"processDefinitionKey": "killed"}).body == SUCCESS


def test_other_data_for_one_identity_is_409_and_stored(server, site):
    """The first body stays; the second is kept beside it, byte for byte."""
    first = server.post("conflict", DONE | {"businessKey": "a"})
    other = b'{"processDefinitionKey":"done",  "businessKey":"b"}'
    answer = server.post("conflict", other)
    assert "other data" in answer.check_error(409)
    assert is_chinese(server.post("conflict", other, Accept_Language="zh").check_error(409))
    assert answer.event_id == first.event_id
    with site.ledger() as ledger:
        assert [conflict.body for conflict in ledger.conflicts(first.event_id)] == [other.decode()]
        assert ledger.event(first.event_id).event.business_key == "a"
    assert server.post("conflict", DONE | {"businessKey": "a"}).body == SUCCESS


@pytest.mark.parametrize(
    ("prefer", "applied"),
    [
        ("respond-async", "respond-async"),
        ("wait=0", "wait=0"),
        ("wait=0, wait=30", "wait=0"),
        ("respond-async, wait=0", "respond-async, wait=0"),
        ('handling=lenient, WAIT="0"', "wait=0"),
    ],
)
def test_a_caller_can_prefer_not_to_wait(server, prefer, applied):
    """The server reports the applied preference according to RFC 7240."""
    # By default the server waits longer than this client.
    answer = server.post("never", {"processDefinitionKey": "slow"}, Prefer=prefer)
    assert answer.status == 202
    assert answer.headers["Preference-Applied"] == applied


@pytest.mark.parametrize("prefer", [None, "wait=soon", "wait=-1", "wait=", "respond-async=yes"])
def test_an_invalid_preference_is_ignored(server, prefer):
    """With an invalid preference the response waits as the settings define."""
    answer = server.post("unread", DONE, **({"Prefer": prefer} if prefer else {}))
    assert (answer.status, answer.headers["Preference-Applied"]) == (200, None)


def test_the_callback_listener_publishes_its_contract(server):
    """The callback listener serves an OpenAPI 3.1 document with every kind, but without the administration API."""
    answer = server.ask("GET", "/openapi.json")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json; charset=utf-8")
    document = answer.json
    assert document["openapi"].startswith("3.1.")
    paths = {"/flow/{flowInstanceId}/call-back/complete", "/flow/{flowInstanceId}/call-back/cancelled"}
    assert paths <= set(document["paths"])
    assert not any("api/operations" in path for path in document["paths"])
    responses = document["paths"]["/flow/{flowInstanceId}/call-back/complete"]["post"]["responses"]
    assert {"200", "202", "400", "401", "403", "409", "413", "415", "422", "500", "503"} <= set(responses)


@pytest.mark.parametrize(("path", "admin"), [("/openapi.json", False), ("/healthz", True), ("/readyz", True)])
def test_head_returns_the_headers_of_get(server, path, admin):
    """HEAD returns the status and headers of GET without the body, as HTTP defines and monitors expect."""
    got, head = (server.ask(method, path, admin=admin) for method in ("GET", "HEAD"))
    assert (head.status, head.body) == (got.status, b"") == (200, b"")
    assert {name: head.headers[name] for name in ("Content-Type", "Content-Length")} == {
        name: got.headers[name] for name in ("Content-Type", "Content-Length")
    }


def test_a_schema_file_adds_a_callback_kind(server, site):
    """An additional kind has its own rules and the five shared ones, and its events reach only its own handlers."""
    answer = server.post("kinds", DONE | {"reason": "withdrawn"}, kind="cancelled")
    assert (answer.status, answer.body) == (200, SUCCESS)
    assert result(site, answer.event_id) == ["cancelled", "withdrawn"]
    assert server.post("kinds", DONE).event_id != answer.event_id
    assert '"reason"' in server.post("kinds-2", DONE, kind="cancelled").check_error(422)
    short = server.post("kinds-2", DONE | {"reason": "no"}, kind="cancelled")
    assert "/reason: must not be shorter than 3" in short.check_error(422)
    wrong = server.post("kinds-2", {"reason": "none", "businessKey": True}, kind="cancelled")
    assert "/businessKey" in wrong.check_error(422)


def test_a_business_key_that_is_a_number(server, site):
    """A whole number is stored as its decimal text: the same number as text is the same event."""
    answer = server.post("number", DONE | {"businessKey": 1024})
    assert (answer.status, answer.body) == (200, SUCCESS)
    again = server.post("number", DONE | {"businessKey": "1024"})
    assert (again.status, again.event_id) == (200, answer.event_id)
    server.post("number", DONE | {"businessKey": 1025}).check_error(409)
    with site.ledger() as ledger:
        (stored,) = ledger.find(EventFilter(business_key="1024"), limit=10)
    assert (stored.event.id, stored.event.business_key, stored.repeats) == (answer.event_id, "1024", 1)
    assert result(site, answer.event_id)[-1] == DONE | {"businessKey": "1024"}
    site.balance()


def test_a_slow_handler_does_not_block_new_callbacks(server, site):
    """At most half the threads wait; further callers and unrelated callbacks are answered at once."""
    names = [f"full-{number}" for number in range(14)]

    def stored(ledger):
        return all(ledger.find(EventFilter(flow_instance_id=name), limit=1) for name in names)

    with ThreadPoolExecutor(len(names)) as callers:
        for name in names:
            callers.submit(server.post, name, {"processDefinitionKey": "slow"}, Prefer="wait=60", timeout=90)
        site.until(stored)
        for number in range(50):
            # The slow requests wait longer than this client.
            assert server.post(f"quick-{number}", DONE).status in {200, 202}
        for name in names:
            site.journal.with_name(f"journal.{name}").touch()


def test_a_connection_serves_many_callbacks(server):
    """An HTTP/1.1 connection serves good and bad requests in turn, and pipelined requests in order."""
    good = json.dumps(DONE).encode()
    with closing(http.client.HTTPConnection(*server.address, timeout=WAIT_TIMEOUT)) as connection:
        for instance, body, status in (("x", b"{", 400), ("keep", good, 200), ("x", b"[]", 400), ("x", b"{}", 202)) * 3:
            connection.request("POST", f"/flow/{instance}/call-back/complete", body)
            assert read_status(connection) == status
    head = b"POST /flow/keep/call-back/complete HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n" % len(good)
    last = head + b"Connection: close\r\n\r\n" + good
    assert server.send((head + b"\r\n" + good) * 4 + last).count(SUCCESS) == 5


def read_status(connection):
    """The status of the next response, whose body is read and dropped."""
    answer = connection.getresponse()
    answer.read()
    return answer.status


def test_a_locked_database_is_503_and_a_repeat_is_safe(site, make_site):
    """If storage is not confirmed, the response is 503; the repeat is safe whether or not the callback was stored."""
    other = make_site()
    other.plugin("demo", PLUGIN)
    server = other.start(ledger__write_timeout=0.4, schemas_dir=site.folder / "schemas")
    with closing(sqlite3.connect(other.database, isolation_level=None, timeout=WAIT_TIMEOUT)) as outside:
        outside.execute("BEGIN IMMEDIATE")
        for language in ("en", "zh"):
            answer = server.post("locked", DONE, Accept_Language=language)
            assert is_chinese(answer.check_error(503)) == (language == "zh")
            assert int(answer.headers["Retry-After"]) > 0
        outside.execute("ROLLBACK")

    def taken():
        answer = server.post("locked", DONE)
        return answer if answer.status != 503 else None

    answer = until(taken)
    assert (answer.status, answer.body) == (200, SUCCESS)
    with other.ledger() as ledger:
        assert [delivery_status.attempt for delivery_status in ledger.delivery_statuses(answer.event_id)] == [1]
    server.stop()
    server.check_log()
    assert other.balance().accepted == 1


def test_ledger_counts_balance_after_all_requests(server, site):
    """Refused callbacks stored nothing, and no accepted callback is missing."""
    assert server.post("last", DONE).status == 200  # perhaps no test above ran in this process
    assert site.balance().accepted
