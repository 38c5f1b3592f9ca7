"""`flowhooks sources test NAME --data FILE`: what a request becomes, without a server and without storing anything."""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import threading

import pytest

from flowhooks import settings
from flowhooks.app import App
from flowhooks.schema.cloud_events import BATCH
from flowhooks.web.callback.app import create_app
from flowhooks.web.server.server import Limits, Server
from support.waiting import WAIT_TIMEOUT

CONFIG = """
plugins_dirs = ["."]
plugins_allow = ["shop", "dd"]

[sources.yudao]
secrets = [{file = "not-read"}]

[sources.yudao.conclusion]
agreed = "approved"

[sources.yudao.ingress]
format = "form"
flow_instance_id = "/id"
process_definition_key = "/processDefinitionKey"
business_key = "/businessKey"
kind = {pointer = "/status", values = {"1" = "ignore", "2" = "complete", "3" = "complete"}}
conclusion = {pointer = "/status", values = {"2" = "agreed", "3" = "rejected"}}
answer = '{"code": 0}'

[sources.kogito]
token_file = "not-read"

[sources.kogito.ingress]
format = "cloudevent"
flow_instance_id = "/kogitoprocinstanceid"
process_definition_key = "/kogitoprocid"
kind = {pointer = "/data/state", values = {"2" = "complete"}, other = "ignore"}

[sources.signing]
secrets = [{file = "not-read"}]

[sources.signing.ingress]
format = "cloudevent"
flow_instance_id = "/kogitoprocinstanceid"

[sources.erp]
secrets = [{file = "not-read"}]

[sources.dd.ingress]
receiver = "dd"

[sources.gone.ingress]
receiver = "nothing"

[sources.typo]
secrets = [{file = "not-read"}]

[sources.typo.ingress]
format = "form"
flow_instance_id = "/id"
kind = {pointer = "/status", values = {"2" = "complet"}}
"""
PLUGINS = {
    "shop": """
from flowhooks import handler, hookimpl

@handler(process_key="leave", conclusion="approved")
def grant(event):
    raise AssertionError("no handler runs")

@hookimpl
def handlers():
    return [grant]
""",
    "dd": """
from flowhooks import ReceivedCallback, ReceiverResponse, hookimpl

@hookimpl
def receive_request(source, request):
    print("received", source)
    if request.query.get("signature") != ("right",):
        return None
    if request.method == "GET":
        return ReceiverResponse(body=b"challenge", media_type="text/plain", rule="challenge")
    if b"crash" in request.body:
        raise ValueError("cannot read\\x1b[31m " + request.headers["x-kind"])
    done = ReceiverResponse(body=b"success", media_type="text/plain")
    return ReceivedCallback(
        flow_instance_id="7", data={"processDefinitionKey": "leave", "conclusion": "approved"}, response=done
    )
""",
}
LEAVE = b"id=7&processDefinitionKey=leave&businessKey=B-1&status=2"


@pytest.fixture
def tried(run, tmp_path, monkeypatch):
    """Previews a body; returns the exit code and the JSON, or with `text` what is printed."""
    for caller in ("flowhooks.cli.sources.preview", "flowhooks.web.callback.receivers"):
        monkeypatch.setattr(f"{caller}.CALL_TIMEOUT", WAIT_TIMEOUT)  # a busy machine may need more than a second
    (tmp_path / "flowhooks.toml").write_text(CONFIG)

    def preview(source, body, *options, text=False, plugins=PLUGINS, **env):
        for name, plugin in plugins.items():
            (tmp_path / f"{name}.py").write_text(plugin)
        file = tmp_path / "body"
        file.write_bytes(body if isinstance(body, bytes) else json.dumps(body).encode())
        words = ["sources", "test", source, "--data", str(file), *options, *([] if text else ["--json"])]
        ran = run(*words, **{"FLOWHOOKS_PLUGINS_ALLOW": "", **env})
        assert not (tmp_path / "flowhooks.db").exists()
        return ran.exit_code, " ".join(ran.stdout.split()) if text else ran.stdout and json.loads(ran.stdout)

    return preview


def test_a_form_that_is_delivered(tried):
    """The callback, its route and the sender's answer, with the media type of the format."""
    code, shown = tried("yudao", LEAVE)
    assert code == 0
    assert shown["request"] == {
        "method": "POST",
        "path": "/in/yudao",
        "content_type": "application/x-www-form-urlencoded",
        "content_type_assumed": True,
        "bytes": len(LEAVE),
    }
    (item,) = shown["items"]
    assert item["ignored_by"] is None
    assert item["callback"]["kind"] == "complete"
    assert item["callback"]["flow_instance_id"] == "7"
    assert item["callback"]["data"]["status"] == "2"
    assert item["route"]["event"]["conclusion"] == "approved"
    assert item["route"]["event"]["conclusion_sent"] == "agreed"
    assert (item["route"]["result"], list(item["route"]["handlers"])) == ("delivered", ["shop:grant"])
    assert shown["answer"] == {
        "status": 200,
        "media_type": "application/json; charset=utf-8",
        "body": '{"code": 0}',
    }
    code, text = tried("yudao", LEAVE, text=True)
    assert code == 0
    assert "POST /in/yudao with 56 bytes of application/x-www-form-urlencoded (assumed)" in text
    assert "a callback of kind complete for the flow instance 7:" in text
    assert "It is delivered to shop:grant." in text
    assert 'The sender is answered 200 OK, application/json; charset=utf-8: { "code": 0 }' in text
    assert "Nothing was stored. No credential was checked: `flowhooks sources test yudao`" in text


def test_ignored_requests_and_parked_events(tried):
    """An ignored request names its rule; an event that would be parked is exit code 1 though the answer is 200."""
    code, shown = tried("yudao", LEAVE.replace(b"status=2", b"status=1"))
    assert (code, shown["answer"]["status"]) == (0, 200)
    assert shown["items"] == [{"ignored_by": "/status = 1", "callback": None, "route": None}]
    code, text = tried("yudao", LEAVE.replace(b"status=2", b"status=1"), text=True)
    assert (code, "It is ignored by the rule /status = 1: nothing is stored" in text) == (0, True)
    code, shown = tried("yudao", LEAVE.replace(b"leave", b"travel"))
    assert (code, shown["answer"]["status"]) == (1, 200)
    assert (shown["items"][0]["route"]["result"], shown["items"][0]["route"]["parked_by"]) == ("parked", "handler")


@pytest.mark.parametrize(
    ("language", "options", "env"),
    [
        ("en", (), {"LANG": "C.UTF-8"}),
        ("zh", (), {"LANG": "zh_CN.UTF-8"}),
        ("zh", ("--header", "Accept-Language: zh-CN"), {"LANG": "en_GB.UTF-8"}),
        ("en", ("--header", "accept-language: en"), {"LC_ALL": "zh_CN.UTF-8"}),
    ],
)
def test_an_error_in_the_language_of_the_user(tried, language, options, env):
    """The body of the error is that of the server: its message names the pointer, never the value."""
    code, shown = tried(
        "yudao", LEAVE.replace(b"status=2", b"status=999"), *options, **{"LC_ALL": "", "LC_MESSAGES": "", **env}
    )
    body = json.loads(shown["answer"]["body"])
    assert (code, shown["answer"]["status"], body["status"], body["path"]) == (1, 422, 422, "/in/yudao")
    assert ("/status: has a value that the table of kinds does not contain" in body["message"]) == (language == "en")
    assert ("值不在 kind 对照表中" in body["message"]) == (language == "zh")
    assert "999" not in body["message"]
    assert shown["items"] == []


def test_errors_of_the_body(tried):
    """Each error has the status and message of the server; the callback that a schema rejects is still shown."""
    for body, options, status, said in (
        (b"", (), 400, "body is empty"),
        (b"id=%FF", (), 400, "UTF-8"),
        (LEAVE, ("--header", "Content-Type: text/xml"), 415, "text/xml"),
        (b"x" * 3_000_000, (), 413, "larger than 1048576 bytes"),
        (LEAVE.replace(b"id=7", b"id=+a"), (), 422, "/id: must not begin or end with white space"),
        (LEAVE.replace(b"B-1", b"B" * 2000), (), 422, "/businessKey"),
    ):
        code, shown = tried("yudao", body, *options)
        message = json.loads(shown["answer"]["body"])["message"]
        assert (code, shown["answer"]["status"]) == (1, status), message
        assert said in message
    assert shown["items"][0]["route"] is None
    assert len(shown["items"][0]["callback"]["data"]["businessKey"]) == 2000


def event(number, state=2, **more):
    """A CloudEvent."""
    return {
        "specversion": "1.0",
        "id": f"e{number}",
        "source": "/leave",
        "type": "ProcessInstanceEvent",
        "kogitoprocinstanceid": f"i{number}",
        "kogitoprocid": "leave",
        "data": {"state": state},
        "conclusion": "approved",
    } | more


def test_cloud_events(tried):
    """Structured, binary and batch; in an error of a batch the pointer starts with the index."""
    code, shown = tried("kogito", event(1))
    assert (code, shown["request"]["content_type"]) == (0, "application/cloudevents+json")
    assert shown["items"][0]["route"]["result"] == "delivered"
    binary = [f"ce-{name}: {value}" for name, value in event(2).items() if name != "data"]
    code, shown = tried("kogito", {"state": 2}, *(word for header in binary for word in ("--header", header)))
    assert (code, shown["request"]["content_type"]) == (0, "application/json")
    assert shown["items"][0]["callback"]["flow_instance_id"] == "i2"
    code, shown = tried("signing", {"state": 2}, *(word for header in binary for word in ("--header", header)))
    assert (code, shown["answer"]["status"]) == (1, 415)  # no signature covers the headers
    code, shown = tried("kogito", [event(1), event(2, state=1), event(3)])
    assert (code, shown["request"]["content_type"]) == (0, "application/cloudevents-batch+json")
    assert [item["ignored_by"] for item in shown["items"]] == [None, "/data/state = other", None]
    code, text = tried("kogito", [event(1), event(2, state=1)], text=True)
    assert (code, "Event 1 of the batch: It is ignored by the rule /data/state = other" in text) == (0, True)
    code, shown = tried("kogito", [event(1), event(2, kogitoprocinstanceid=" a")])
    assert (code, shown["answer"]["status"]) == (1, 422)
    assert "/1" in json.loads(shown["answer"]["body"])["message"]


def test_a_receiver(tried):
    """The plugin is called; a handshake, a wrong credential, a callback and an exception are shown as the server's."""
    code, shown = tried("dd", b"", "--get", "--query", "signature=right&x=1")
    assert (code, shown["answer"]) == (0, {"status": 200, "media_type": "text/plain", "body": "challenge"})
    assert (shown["items"][0]["ignored_by"], shown["request"]["method"]) == ("challenge", "GET")
    code, shown = tried("dd", b"{}", "--query", "signature=wrong")
    assert (code, shown["answer"]["status"], shown["items"]) == (1, 401, [])
    assert "The plugin that reads the requests of this source found no valid credential." in shown["problem"]
    code, shown = tried("dd", b"{}", "--query", "signature=right")
    assert (code, shown["answer"]["body"], shown["items"][0]["route"]["result"]) == (0, "success", "delivered")
    code, text = tried("dd", b"crash", "--query", "signature=right", "--header", "X-Kind: of a kind", text=True)
    assert code == 1
    assert "Only you see this: the plugin dd failed: ValueError: cannot read" in text
    assert "of a kind" in text
    assert "\x1b" not in text
    assert "The sender is answered 503" in text
    assert "of a kind" not in text.partition("The sender is answered")[2]


def test_a_receiver_that_is_slow(tried, monkeypatch):
    """A plugin that took longer than a server waits is answered as there, and the operator sees how long it took."""
    monkeypatch.setattr("flowhooks.cli.sources.preview.CALL_TIMEOUT", 0.0)
    code, shown = tried("dd", b"{}", "--query", "signature=right")
    assert (code, shown["answer"]["status"], shown["items"]) == (1, 503, [])
    assert "in time" in json.loads(shown["answer"]["body"])["message"]
    assert shown["problem"].startswith("the plugin dd took")


def test_a_receiver_that_is_not_loaded(tried, tmp_path):
    """The answer of a quarantined receiver is the server's, and the operator gets the reason."""
    tried("dd", b"{}")
    (tmp_path / "dd.py").write_text("raise ValueError('no key')")
    code, shown = tried("dd", b"{}", plugins={})
    assert (code, shown["answer"]["status"]) == (1, 503)
    assert "the plugin dd is quarantined: " in shown["problem"]
    assert "ValueError: no key" in shown["problem"]


def test_settings_that_prevent_a_server_start(tried, run):
    """A kind or a receiver that does not exist is named with its line, as at the start of a server."""
    tried("yudao", LEAVE)
    for name, said in (
        ("gone", "sources.gone.ingress.receiver names 'nothing'"),
        ("typo", "sources.typo.ingress.kind names 'complet'"),
    ):
        ran = run("sources", "test", name, "--data", "body")
        assert ran.exit_code == 2
        assert said in ran.output
        assert "flowhooks.toml:" in ran.output


def test_wrong_usage(tried, run):
    """Options that do not fit together, a source without a fixed URL, and malformed headers are refused."""
    tried("yudao", LEAVE)
    for words, said in (
        (("erp", "--data", "body"), "erp has no section [sources.erp.ingress]"),
        (("nobody", "--data", "body"), "there is no source nobody"),
        (("yudao", "--data", "nothing"), "cannot be read"),
        (("yudao", "--data", "body", "--get"), "yudao has no receiver"),
        (("yudao", "--data", "body", "--header", "no colon"), "write 'NAME: VALUE'"),
        (("yudao", "--data", "body", "--header", "A: b\nC: d"), "write 'NAME: VALUE'"),
        (("yudao", "--data", "body", "--header", "ce_id: 1"), "a server ignores ce_id"),
        (("yudao", "--data", "body", "--to", "http://127.0.0.1:9"), "--data calls no server"),
        (("yudao", "--json"), "need --data"),
        (("yudao", "--header", "A: b"), "need --data"),
    ):
        ran = run("sources", "test", *words)
        assert ran.exit_code == 2, ran.output
        assert said in " ".join(ran.output.split())


def test_a_whole_request_instead_of_its_body(run, tried, tmp_path):
    """It is refused, with what to remove."""
    tried("yudao", LEAVE)
    (tmp_path / "whole").write_bytes(b"POST /in/yudao HTTP/1.1\r\nHost: a\r\n\r\n" + LEAVE)
    ran = run("sources", "test", "yudao", "--data", str(tmp_path / "whole"))
    assert (ran.exit_code, "remove the lines up to the first empty one" in " ".join(ran.output.split())) == (2, True)


def test_the_standard_input(tried, run):
    """With - the body is read from there."""
    tried("yudao", LEAVE)
    ran = run("sources", "test", "yudao", "--data", "-", "--json", given=LEAVE.decode(), FLOWHOOKS_PLUGINS_ALLOW="")
    assert json.loads(ran.stdout)["items"][0]["callback"]["flow_instance_id"] == "7"


def test_the_preview_equals_the_response_of_a_server(tried, tmp_path):
    """The status, the media type and the body of the preview are those of a server, for a success and each error."""
    config = CONFIG.partition("[sources.gone")[0]
    for name in ("yudao", "kogito", "signing", "erp"):
        digest = hashlib.sha256(f"a token of {name}".replace(" ", "-").encode()).hexdigest()
        config = re.sub(
            r'(?:secrets = \[\{file|token_file) = "not-read"(?:\}\])?', f'token_sha256 = ["{digest}"]', config, count=1
        )
    tried("yudao", LEAVE)
    (tmp_path / "server.toml").write_text(config)
    loaded = settings.load(tmp_path / "server.toml", {}, {"database": f"sqlite:///{tmp_path}/server.db"})
    app = App(loaded, environ={})
    app.start()
    server = Server(create_app(app), listen="127.0.0.1:0", threads=2, limits=Limits(), name="listen")
    thread = threading.Thread(target=server.serve)
    thread.start()
    form = "application/x-www-form-urlencoded"
    try:
        for name, body, content_type in (
            ("yudao", LEAVE, form),
            ("yudao", LEAVE.replace(b"status=2", b"status=1"), form),
            ("yudao", LEAVE.replace(b"status=2", b"status=9"), form),
            ("yudao", LEAVE.replace(b"id=7", b"id="), form),
            ("yudao", LEAVE.replace(b"B-1", b"B" * 2000), form),
            ("yudao", b"", form),
            ("yudao", LEAVE, "text/xml"),
            ("kogito", json.dumps([event(1), event(2, kogitoprocinstanceid="")]).encode(), BATCH),
            ("dd", b"{}", "application/json"),
        ):
            connection = http.client.HTTPConnection(server.address, timeout=WAIT_TIMEOUT)
            headers = {
                "Content-Type": content_type,
                "Accept-Language": "zh",
                "Authorization": f"Bearer a-token-of-{name}",
            }
            connection.request("POST", f"/in/{name}", body, headers)
            response = connection.getresponse()
            sent = response.read().decode()
            connection.close()
            _, shown = tried(name, body, "--header", f"Content-Type: {content_type}", "--header", "Accept-Language: zh")
            answer = shown["answer"]
            assert (answer["status"], answer["media_type"]) == (response.status, response.headers["Content-Type"]), body
            assert without_time(answer["body"]) == without_time(sent)
    finally:
        server.close()
        thread.join()
        app.close()


def without_time(body):
    """The members of a body without the time at which it was made."""
    return {name: value for name, value in json.loads(body).items() if name != "timestamp"}
