"""`docs/how-to/write-a-receiver.md`: its plugin, with the vectors of DingTalk, and behind a real socket."""

from __future__ import annotations

import http.client
import json
import signal
import sqlite3
import time
import types
from contextlib import closing
from datetime import UTC, datetime
from urllib.parse import urlencode, urlsplit

import pytest

from flowhooks import ReceivedCallback, ReceivedRequest, ReceiverResponse
from support.code_blocks import DOCS, blocks
from support.docs_stage import Stage
from support.waiting import until

PAGE = DOCS / "how-to/write-a-receiver.md"
PLUGIN, _ = (block.text for block in blocks(PAGE, "python"))
SOURCE, SETTINGS = (block.text for block in blocks(PAGE, "toml"))
DOCUMENTED = [
    (
        {
            "token": "123456",
            "aes_key": "4g5j64qlyl3zvetqxz5jiocdr586fn2zvjpa8zls3ij",
            "owner": "suite4xxxxxxxxxxxxxxx",
        },
        {"signature": "5a65ceeef9aab2d149439f82dc191dd6c5cbe2c0", "timestamp": "1445827045067", "nonce": "nEXhMP4r"},
        (
            "1a3NBxmCFwkCJvfoQ7WhJHB+iX3qHPsc9JbaDznE1i03peOk1LaOQoRz3+nlyGNhwmwJ3vDMG+OzrHMeiZI7gTRWVdUBmfxjZ8Ej23JVYa9V"
            "rYeJ5as7XM/ZpulX8NEQis44w53h1qAgnC3PRzM7Zc/D6Ibr0rgUathB6zRHP8PYrfgnNOS9PhSBdHlegK+AGGanfwjXuQ9+0pZcy0w9lQ=="
        ),
        {"EventType": "check_create_suite_url", "Random": "LPIdSnlF", "TestSuiteKey": "suite4xxxxxxxxxxxxxxx"},
        "other events",
    ),
    (
        {
            "token": "mryue",
            "aes_key": "Yue0EfdN5900c1ce5cf6A152c63DDe1808a60c5ecd7",
            "owner": "ding6ccabc44d2c8d38b",
        },
        {
            "msg_signature": "03044561471240d4a14bb09372dfcfd4fd0e40cb",
            "timestamp": "1608001896814",
            "nonce": "WL4PK6yA",
        },
        (
            "0vJiX6vliEpwG3U45CtXqi+m8PXbQRARJ8p8BbDuD1EMTDf0jKpQ79QS93qEk7XHpP6u+oTTrd15NRPvNvmBKyDCYxxOK+HZeKju4yhELOFc"
            "hzNukR+t8SB/qk4ROMu3"
        ),
        {"EventType": "check_url"},
        "handshake",
    ),
]
"""Requests of DingTalk's documentation and of its own library: settings, query, encrypted text, event and rule."""
KEYS = DOCUMENTED[0][0] | {"owner": "dingexample"}
NOW = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)


@pytest.fixture
def dingtalk():
    """The page's plugin as a module, configured for the source `approvals`."""
    module = types.ModuleType("dingtalk")
    exec(PLUGIN, vars(module))
    module.configure({"sources": {"approvals": KEYS}})
    return module


def request(body, query=(), received_at=NOW):
    """A request with these parameters of the query."""
    values = {name: (value,) for name, value in dict(query).items()}
    return ReceivedRequest(method="POST", query=values, headers={}, body=body, received_at=received_at)


def signed(dingtalk, encrypted, received_at=NOW):
    """A request with this encrypted text and its right signature."""
    timestamp = str(int(received_at.timestamp() * 1000))
    signature = dingtalk.codecs["approvals"].sign(timestamp, "nonce", encrypted)
    query = {"msg_signature": signature, "timestamp": timestamp, "nonce": "nonce"}
    return request(json.dumps({"encrypt": encrypted}).encode(), query, received_at)


def sealed(dingtalk, event, received_at=NOW):
    """A request with this event, encrypted and signed as by DingTalk."""
    return signed(dingtalk, dingtalk.codecs["approvals"].encrypt(json.dumps(event).encode()), received_at)


def approval(**changes):
    """An event of an approval."""
    event = {
        "EventType": "bpms_instance_change",
        "processInstanceId": "ad253df6-e175caf",
        "finishTime": 1495592305000,
        "corpId": "dingcorp",
        "title": "自测-1016",
        "type": "finish",
        "result": "agree",
        "createTime": 1495592272000,
        "staffId": "manager75",
        "processCode": "PROC-1",
    }
    return {name: value for name, value in (event | changes).items() if value is not None}


def says_success(dingtalk, body):
    """Whether the answer is the encrypted and signed success that DingTalk expects."""
    answer, codec = json.loads(body), dingtalk.codecs["approvals"]
    signature = codec.sign(answer["timeStamp"], answer["nonce"], answer["encrypt"])
    return (codec.decrypt(answer["encrypt"]), answer["msg_signature"]) == (b"success", signature)


@pytest.mark.parametrize("documented", DOCUMENTED, ids=["page", "library"])
def test_documented_requests(dingtalk, documented):
    """The requests that DingTalk documents are authentic at their time, and only then, and are answered."""
    keys, query, encrypted, event, rule = documented
    dingtalk.configure({"sources": {"approvals": keys}})
    body = json.dumps({"encrypt": encrypted}).encode()
    sent_at = datetime.fromtimestamp(int(query["timestamp"]) / 1000, UTC)
    assert json.loads(dingtalk.codecs["approvals"].decrypt(encrypted)) == event
    response = dingtalk.receive_request("approvals", request(body, query, sent_at))
    assert (response.status, response.rule) == (200, rule)
    assert says_success(dingtalk, response.body)
    assert dingtalk.receive_request("approvals", request(body, query)) is None
    assert dingtalk.receive_request("another", request(body, query, sent_at)) is None


@pytest.mark.parametrize(
    ("changes", "kind", "conclusion"),
    [
        ({}, "complete", "approved"),
        ({"result": "refuse"}, "complete", "rejected"),
        ({"result": "something new"}, "complete", None),
        ({"result": ["agree"]}, "complete", None),
        ({"type": "terminate", "result": None}, "cancel", None),
        ({"businessId": "202601310930000123456"}, "complete", "approved"),
    ],
)
def test_each_end_of_an_approval_is_a_callback(dingtalk, changes, kind, conclusion):
    """Each end of an approval has its kind and its conclusion, and all members of the event."""
    event = approval(**changes)
    callback = dingtalk.receive_request("approvals", sealed(dingtalk, event))
    assert isinstance(callback, ReceivedCallback)
    assert (callback.flow_instance_id, callback.kind) == ("ad253df6-e175caf", kind)
    assert says_success(dingtalk, callback.response.body)
    data = {name: value for name, value in callback.data.items() if value is not None}
    added = {"processDefinitionKey": "PROC-1", "conclusion": conclusion, "businessKey": event.get("businessId")}
    assert data == event | {name: value for name, value in added.items() if value is not None}


@pytest.mark.parametrize(
    ("event", "rule"),
    [
        (approval(type="start", result=None), "the approval has not ended"),
        (approval(type=["finish"]), "the approval has not ended"),
        (approval(type=None), "the approval has not ended"),
        ({"EventType": "bpms_task_change"}, "other events"),
        ({"EventType": {"a": 1}}, "other events"),
        ({}, "other events"),
    ],
)
def test_other_events(dingtalk, event, rule):
    """Everything else is answered with success, under the name of a rule."""
    response = dingtalk.receive_request("approvals", sealed(dingtalk, event))
    assert isinstance(response, ReceiverResponse)
    assert (response.status, response.rule) == (200, rule)
    assert says_success(dingtalk, response.body)


@pytest.mark.parametrize("instance", [None, 17, ["a"]])
def test_an_event_without_an_instance(dingtalk, instance):
    """An end without the id of its instance is answered with 400."""
    response = dingtalk.receive_request("approvals", sealed(dingtalk, approval(processInstanceId=instance)))
    assert response.status == 400


def test_signatures(dingtalk):
    """Each part of the query is needed, and the time may differ by five minutes."""
    valid = sealed(dingtalk, approval())
    query = {name: value for name, (value,) in valid.query.items()}
    for name, valid_value in query.items():
        for value in ("", valid_value + "0", "\u00e9\ud800", "1" * 5000):
            assert dingtalk.receive_request("approvals", request(valid.body, query | {name: value})) is None
        rest = {other: value for other, value in query.items() if other != name}
        assert dingtalk.receive_request("approvals", request(valid.body, rest)) is None
    assert dingtalk.receive_request("approvals", request(valid.body, {"signature": query["msg_signature"]})) is None
    for minutes, is_accepted in ((4, True), (-4, True), (6, False), (-6, False)):
        received_at = datetime.fromtimestamp(NOW.timestamp() + 60 * minutes, UTC)
        response = dingtalk.receive_request("approvals", request(valid.body, query, received_at))
        assert (response is not None) is is_accepted


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"encrypt"',
        b'{"encrypt": null}',
        b'{"encrypt": {"a": 1}}',
        b'{"encrypt": ""}',
        b'{"encrypt": "!!!"}',
        b'{"encrypt": "AAAA"}',
        b'{"encrypt": "\xff"}',
        '{"encrypt": "密文"}'.encode(),
        b'{"encrypt": "\\ud800"}',
        b'{"a": 1}',
        b'{"encrypt": ' + b"[" * 100_000,
    ],
)
def test_hostile_bodies(dingtalk, body):
    """Bytes that are no request of DingTalk are refused without an exception, even if they are signed."""
    assert dingtalk.receive_request("approvals", request(body)) is None
    try:
        encrypted = json.loads(body)["encrypt"]
        assert dingtalk.receive_request("approvals", signed(dingtalk, encrypted)) is None
    except (ValueError, TypeError, KeyError, RecursionError):
        pass  # there is nothing to sign


@pytest.mark.parametrize("message", [b"", b"{", b"[1]", b"\xff", b'{"a":' * 50_000, b"1"])
def test_an_encrypted_message_that_is_no_object(dingtalk, message):
    """An encrypted and signed message that is no object is refused."""
    encrypted = dingtalk.codecs["approvals"].encrypt(message)
    assert dingtalk.receive_request("approvals", signed(dingtalk, encrypted)) is None


def test_a_message_for_another_owner(dingtalk):
    """A message that DingTalk sent to another app with the same key is refused."""
    codec = dingtalk.Codec(**KEYS | {"owner": "dinganother"})
    assert dingtalk.receive_request("approvals", signed(dingtalk, codec.encrypt(b"{}"))) is None


def test_a_key_of_another_length_is_refused(dingtalk):
    """A key that was not copied as a whole keeps the plugin from starting."""
    with pytest.raises(ValueError, match="aes_key must have 43 characters"):
        dingtalk.configure({"sources": {"approvals": KEYS | {"aes_key": KEYS["aes_key"][:-4]}}})


PAY = """\
from flowhooks import handler, hookimpl

@handler(process_key="PROC-1", conclusion="approved")
def pay(event):
    return event.flow_instance_id

@hookimpl
def handlers():
    return [pay]
"""


def test_a_server_with_the_settings_of_the_page(dingtalk, tmp_path):
    """Over a socket the receiver refuses, answers and stores, and a handler gets the approval."""
    settings = SETTINGS.partition("\n\n")[2]  # the stage has a folder of plugins already
    assert SOURCE.strip() in settings
    stage = Stage(tmp_path / "stage", handlers={"dingtalk": PLUGIN, "payments": PAY})
    with (stage.folder / "flowhooks.toml").open("a") as file:
        file.write(settings)
    stage.environment |= {"DINGTALK_TOKEN": KEYS["token"], "DINGTALK_AES_KEY": KEYS["aes_key"]}

    def post_once(event, **changes):
        sent = sealed(dingtalk, event, datetime.fromtimestamp(time.time(), UTC))
        query = urlencode({name: value for name, (value,) in sent.query.items()} | changes)
        address = urlsplit(stage.environment["STAGE_CALL_BACKS"])
        with closing(http.client.HTTPConnection(address.netloc, timeout=60)) as connection:
            connection.request("POST", f"/in/approvals?{query}", sent.body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.headers.get("Flowhooks-Event"), answer.read()

    def post(event, **changes):
        while (answered := post_once(event, **changes))[0] == 503:  # a busy machine did not run the receiver in time
            pass
        return answered

    def results():
        with closing(sqlite3.connect(f"file:{stage.folder}/flowhooks.db?mode=ro", uri=True)) as ledger:
            return ledger.execute("SELECT state FROM deliveries").fetchall()

    try:
        stage.start()
        status, event_id, _ = post(approval(), msg_signature="0")
        assert (status, event_id) == (401, None)
        status, event_id, body = post(approval(type="start"))
        assert (status, event_id, says_success(dingtalk, body)) == (200, None, True)
        status, event_id, body = post(approval())
        assert (status, says_success(dingtalk, body)) == (200, True)
        assert event_id
        assert post(approval())[:2] == (200, event_id)
        until(lambda: results() == [("succeeded",)], why=results)
    finally:
        stage.stop(signal.SIGKILL)
