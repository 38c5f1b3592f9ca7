"""A real server with flowhooks-feishu: from the test of the URL to an approval that is paid once, after a crash."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

KEY, TOKEN = "encrypt-key-4711", "verification-token-4711"
CONFIG = """
[sources.feishu.ingress]
receiver = "feishu"

[plugins.feishu.sources.feishu]
encrypt_key = {env = "FEISHU_ENCRYPT_KEY"}
verification_token = {env = "FEISHU_VERIFICATION_TOKEN"}
"""
PAYMENTS = """
import os
from pathlib import Path
from flowhooks import Retry, handler, hookimpl

@handler(process_key="A-1", conclusion="approved", retry=Retry())
def pay(event):
    note(f"paid {event.business_key}")

@handler(process_key="A-1", kind="reverted", retry=Retry())
def take_back(event):
    note(f"taken back {event.business_key}")

def note(line):
    with Path(os.environ["JOURNAL"]).open("a") as journal:
        journal.write(line + "\\n")

@hookimpl
def handlers():
    return [pay, take_back]
"""


def encrypt(message):
    """The body with which Feishu sends a message."""
    plain, vector = json.dumps(message).encode(), os.urandom(16)
    length = 16 - len(plain) % 16
    cipher = Cipher(algorithms.AES256(hashlib.sha256(KEY.encode()).digest()), modes.CBC(vector)).encryptor()
    sealed = vector + cipher.update(plain + bytes([length]) * length) + cipher.finalize()
    return json.dumps({"encrypt": base64.b64encode(sealed).decode()}).encode()


def sign(body, key=KEY):
    """The headers with which Feishu signs a body."""
    timestamp, nonce = str(int(time.time())), "14302138"
    digest = hashlib.sha256((timestamp + nonce + key).encode() + body).hexdigest()
    return {
        "Content-Type": "application/json; charset=utf-8",
        "X-Lark-Request-Timestamp": timestamp,
        "X-Lark-Request-Nonce": nonce,
        "X-Lark-Signature": digest,
    }


def event(status):
    """An event about the approval I-1."""
    details = {"type": "approval_instance", "approval_code": "A-1", "instance_code": "I-1", "uuid": "ORDER-1"}
    return {
        "ts": str(time.time()),
        "uuid": os.urandom(8).hex(),
        "token": TOKEN,
        "type": "event_callback",
        "event": details | {"status": status, "operate_time": "1666079207003"},
    }


@pytest.fixture
def start(site):
    """A function that starts the server."""
    site.plugin("payments", PAYMENTS)
    secrets = {"FEISHU_ENCRYPT_KEY": KEY, "FEISHU_VERIFICATION_TOKEN": TOKEN}

    def begin():
        with pytest.MonkeyPatch.context() as patched:
            for name, value in secrets.items():
                patched.setenv(name, value)
            return site.start(config=CONFIG, plugins_allow="feishu,payments", plugins_deny="")

    return begin


def post(server, message, key=KEY):
    """Send a message as Feishu does; again if the busy machine did not run the receiver in time."""
    while True:
        body = encrypt(message)
        answer = server.ask("POST", "/in/feishu", body, sign(body, key))
        if answer.status != 503 or "in time" not in answer.json["message"]:
            return answer


def succeeded(event_id):
    """A condition: all deliveries of an event have succeeded."""
    return lambda ledger: {status.state.value for status in ledger.delivery_statuses(event_id)} == {"succeeded"}


def test_an_approval_is_paid_once(site, start):
    """The URL is verified, strangers are refused, and the approval is paid once, although it is sent three times."""
    server = start()
    handshake = post(server, {"challenge": "ajls384kdjx98XX", "token": TOKEN, "type": "url_verification"})
    assert (handshake.status, handshake.json) == (200, {"challenge": "ajls384kdjx98XX"})
    stranger, unknown = post(server, event("APPROVED"), key="another"), server.ask("POST", "/in/nobody", b"{}")
    assert (stranger.status, stranger.json["message"]) == (unknown.status, unknown.json["message"])
    assert stranger.status == 401
    pending = post(server, event("PENDING"))
    assert (pending.status, pending.json, pending.event_id) == (200, {"code": 0}, None)

    approved = post(server, event("APPROVED"))
    assert (approved.status, approved.json) == (200, {"code": 0})
    assert approved.event_id
    assert post(server, event("APPROVED")).event_id == approved.event_id
    site.until(succeeded(approved.event_id))
    server.kill()
    server = start()
    assert post(server, event("APPROVED")).event_id == approved.event_id
    reverted = post(server, event("REVERTED"))
    assert reverted.event_id not in {None, approved.event_id}
    site.until(succeeded(reverted.event_id))
    assert site.journal.read_text().splitlines() == ["paid ORDER-1", "taken back ORDER-1"]
    server.stop()
    assert not any(secret in line for line in server.lines for secret in (KEY, TOKEN))
    site.balance()
