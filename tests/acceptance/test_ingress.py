"""Real servers with fixed URLs: which settings they start with, and what a killed server has stored."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time

import pytest

PLUGIN = '''
import os, sys, time
from flowhooks import ReceivedCallback, ReceiverResponse, handler, hookimpl

@handler(process_key="good")
def good(event):
    """Do nothing."""

@hookimpl
def handlers():
    return [good]

@hookimpl
def receive_request(source, request):
    """Read one JSON object with a secret."""
    import json
    if request.method == "GET":
        return ReceiverResponse(body=request.query["echo"][0].encode(), media_type="text/plain", rule="echo")
    body = json.loads(request.body)
    if body.pop("secret", "") != "secret-of-the-sender":
        return None
    return ReceivedCallback(flow_instance_id=body["id"], data={"processDefinitionKey": "good"})
'''
TOKEN = "token-of-the-sender-which-is-long"
MAPPED = f"""
[sources.oa]
token_sha256 = ["{hashlib.sha256(TOKEN.encode()).hexdigest()}"]

[sources.oa.ingress]
format = "json"
flow_instance_id = "/id"
process_definition_key = "/key"
kind = {{pointer = "/status", values = {{"1" = "ignore", "2" = "complete"}}}}
"""
RECEIVED = """
[sources.feishu.ingress]
receiver = "p"
"""
BODY = {"id": "i-1", "key": "good", "status": 2}


def post(server, body, name="oa", method="POST", query=""):
    """Send a request to the fixed URL of a source; again if the busy machine did not run the receiver in time."""
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"}
    while True:
        answer = server.ask(method, f"/in/{name}{query}", json.dumps(body), headers)
        if answer.status != 503 or "in time" not in answer.json["message"]:
            return answer


def events(site):
    """The process instances of all events."""
    with site.ledger() as ledger, ledger.connection() as connection:
        return [row[0] for row in connection.exec_driver_sql("SELECT flow_instance_id FROM events ORDER BY id")]


def ignored(site):
    """The counts of ignored requests."""
    with site.ledger() as ledger, ledger.connection() as connection:
        return [row[0] for row in connection.exec_driver_sql("SELECT count FROM ignored_requests")]


def check(site, **settings):
    """Run `flowhooks check` with the settings of the servers."""
    return site.run("check", "--plugins-dir", site.plugins, **settings)


@pytest.fixture
def site(make_site):
    """A folder with a plugin that is a receiver."""
    site = make_site()
    site.plugin("p", PLUGIN)
    return site


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (MAPPED.replace('"2" = "complete"', '"2" = "completed"'), "5: sources.oa.ingress.kind names"),
        (RECEIVED.replace('"p"', '"pp"'), "2: sources.feishu.ingress.receiver names"),
    ],
)
def test_an_unknown_kind_or_receiver_prevents_the_start(site, config, says):
    """A kind without a schema file and a receiver that no plugin offers are found at the start, with their line."""
    server = site.start(config=config, ready=False)
    assert server.wait() == 2
    output = "\n".join(server.lines)
    assert f"flowhooks.toml:{says}" in output
    assert "did you mean" in output
    checked = check(site)
    assert checked.returncode != 0
    assert says.partition(" ")[2] in checked.stdout + checked.stderr


def test_an_unknown_kind_or_receiver_prevents_the_reload(site):
    """A reload to a kind or a receiver that does not exist is refused, and all settings before it stay in force."""
    server = site.start(config=MAPPED + RECEIVED)
    assert post(server, BODY).status == 200
    for config in (MAPPED.replace("complete", "completed") + RECEIVED, MAPPED + RECEIVED.replace('"p"', '"pp"')):
        (site.folder / "flowhooks.toml").write_text('[log]\nformat = "text"\n' + config)
        assert "did you mean" in server.reload("settings_reload_failed")["why"]  # the log is still JSON
        assert post(server, BODY | {"id": "i-2"}).status == 200
        assert post(server, {}, "feishu", "GET", "?echo=1").body == b"1"
    changed = MAPPED.replace('"1" = "ignore"', '"1" = "cancel"')
    (site.folder / "flowhooks.toml").write_text(changed)
    server.reload()
    assert post(server, BODY | {"id": "i-3", "status": 1}).status == 200
    assert post(server, {}, "feishu", "GET", "?echo=1").status == 401
    assert events(site) == ["i-1", "i-2", "i-3"]
    server.stop()


@pytest.mark.parametrize("how", ["denied", "quarantined"])
def test_a_receiver_that_is_not_loaded(site, how):
    """The server starts, its requests get 503, and `flowhooks check` names the source."""
    settings = {}
    if how == "denied":
        settings["plugins_deny"] = "p"
    else:
        site.plugin("p", "raise ValueError('broken')")
    server = site.start(config=MAPPED + RECEIVED, **settings)
    answer = post(server, {"secret": "secret-of-the-sender", "id": "i-1"}, "feishu")
    assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
    assert "plugin" in answer.check_error(503, path="/in/feishu")
    assert post(server, {}, "feishu", "GET", "?echo=1").status == 503
    assert post(server, BODY).status == 200
    checked = check(site, **settings)
    assert f"the receiver of feishu, the plugin p, is {how}" in checked.stdout
    assert events(site) == ["i-1"]
    server.stop()


def test_the_safe_mode(site):
    """The safe mode starts without the receiver, so that operators can repair it."""
    server = site.start(config=RECEIVED, safe_mode="true")
    assert post(server, {}, "feishu").status == 503
    server.stop()


@pytest.mark.parametrize("point", ["accept.written", "accept.committed", "answer.made"])
def test_a_kill_before_the_answer(site, point):
    """The repeat of a request whose answer was lost is answered 200, and there is one event."""
    body = {"secret": "secret-of-the-sender", "id": "i-2"}
    for number, (name, sent) in enumerate((("oa", BODY), ("feishu", body)), start=1):
        server = site.start(config=MAPPED + RECEIVED, failpoint=f"{point}:1")
        with pytest.raises(OSError, match=r".*"):
            post(server, sent, name)
        assert server.wait() == -9
        server = site.start(config=MAPPED + RECEIVED)
        assert len(events(site)) == number - (point == "accept.written")
        assert [post(server, sent, name).status for _ in range(2)] == [200, 200]
        assert len(events(site)) == number
        server.stop()
    site.balance()


def test_a_kill_after_an_ignored_request(site):
    """An ignored request is counted before its answer: a killed server has counted it."""
    server = site.start(config=MAPPED + RECEIVED, failpoint="answer.made:1")
    with pytest.raises(OSError, match=r".*"):
        post(server, BODY | {"status": 1})
    assert server.wait() == -9
    assert (ignored(site), events(site)) == ([1], [])
    server = site.start(config=MAPPED + RECEIVED, failpoint="answer.made:1")
    with pytest.raises(OSError, match=r".*"):
        post(server, {}, "feishu", "GET", "?echo=1")
    assert server.wait() == -9
    assert (ignored(site), events(site)) == ([1, 1], [])


SIGNED = """
[sources.bank]
secrets = [{secrets}]
[sources.bank.signature]
scheme = "hmac-sm3"
header = "X-Sign"
encoding = "base64"
prefix = "SM3 "
timestamp_header = "X-Time"
id_header = "X-Nonce"
[sources.bank.ingress]
format = "json"
flow_instance_id = "/id"
"""


def signed(server, key, body, *, nonce, off=0.0):
    """Send a request with an HMAC-SM3 over its time in milliseconds and its body; return the status."""
    raw, at = json.dumps(body).encode(), str(int((time.time() + off) * 1000))
    digest = hmac.new(key.encode(), f"{at}.".encode() + raw, "sm3").digest()
    headers = {"X-Sign": f"SM3 {base64.b64encode(digest).decode()}", "X-Time": at, "X-Nonce": nonce}
    return server.ask("POST", "/in/bank", raw, headers | {"Content-Type": "application/json"}).status


def test_a_key_is_replaced(site):
    """While two keys are configured both are valid; after a reload without the old one, only the new one is."""
    old, new = "the old key of the bank", "the new key of the bank"
    files = []
    for name, key in (("old", old), ("new", new)):
        file = site.folder / name
        file.touch(0o600)
        file.write_text(f"{key}\n")
        files.append(f'{{file = "{file}"}}')
    server = site.start(config=SIGNED.format(secrets=files[0]))
    assert [signed(server, key, {"id": "1"}, nonce="n-1") for key in (old, new)] == [200, 401]
    assert [signed(server, old, {"id": "1"}, nonce="n-1", off=off) for off in (-200, -900, 900)] == [200, 401, 401]
    (site.folder / "flowhooks.toml").write_text(SIGNED.format(secrets=", ".join(files)))
    server.reload()
    assert [signed(server, key, {"id": "2"}, nonce="n-2") for key in (old, new)] == [200, 200]
    assert signed(server, new, {"id": "3"}, nonce="n-2") == 401
    (site.folder / "flowhooks.toml").write_text(SIGNED.format(secrets=files[1]))
    server.reload()
    assert [signed(server, key, {"id": "4"}, nonce="n-4") for key in (old, new)] == [401, 200]
    assert events(site) == ["1", "2", "4"]
    server.stop()
    output = "\n".join(server.lines)
    assert old not in output
    assert new not in output
