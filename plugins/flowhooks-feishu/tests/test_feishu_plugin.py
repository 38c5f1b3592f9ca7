"""flowhooks-feishu with the published formats and vectors of Feishu, and with bytes that nobody should send."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
from datetime import UTC, datetime
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

import flowhooks_feishu
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from flowhooks_feishu import Feishu
from flowhooks_feishu.request import NotAuthentic, Secrets, authenticate, decrypt, sign

from flowhooks import FlowhooksError, ReceivedCallback, ReceivedRequest, ReceiverResponse, handler
from flowhooks.testing import AppHarness

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEY, TOKEN = "a key of the app", "41a9425ea7df4536a7623e38fa321bae"
NOW = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
APPROVAL = "7C468A54-8745-2245-9675-08B7C63E7A85"
INSTANCE = "81D31358-93AF-92D6-7425-01A5D67C4E71"
SETTINGS = {
    "signed": {"encrypt_key": KEY, "verification_token": TOKEN},
    "plain": {"verification_token": TOKEN},
}


@pytest.fixture(scope="module")
def app() -> Iterator[AppHarness]:
    """An app with the plugin, for tests that store nothing."""
    with AppHarness(names={"feishu": Feishu()}, settings={"feishu": {"sources": SETTINGS}}) as app:
        yield app


@pytest.fixture
def receive(app: AppHarness) -> Callable[..., Any]:
    """A function that sends a request to a source of the plugin, and returns the plugin's checked result."""

    def receive(source: str, body: bytes, headers: dict[str, str] | None = None, method: str = "POST") -> Any:
        return app.app.receivers.call("feishu", source, request(body, headers or {}, method))

    return receive


def request(body: bytes, headers: dict[str, str], method: str = "POST") -> ReceivedRequest:
    """A request at the time of the tests."""
    return ReceivedRequest(method=method, query={}, headers=headers, body=body, received_at=NOW)


def event(status: object = "APPROVED", **changes: object) -> dict[str, Any]:
    """An event in the format 1.0, as the documentation shows it."""
    details: dict[str, Any] = {
        "app_id": "cli_xxx",
        "tenant_key": "xxx",
        "type": "approval_instance",
        "approval_code": APPROVAL,
        "instance_code": INSTANCE,
        "status": status,
        "operate_time": "1666079207003",
        "instance_operate_time": "1666079207003",
        "uuid": "6525bffb",
    }
    return {
        "ts": "1502199207.7171419",
        "uuid": "bc447199585340d1f3728d26b1c0297a",
        "token": TOKEN,
        "type": "event_callback",
        "event": {name: value for name, value in (details | changes).items() if value is not None},
    }


def event_2(event_type: str = "approval_instance", **changes: object) -> dict[str, Any]:
    """The same event in the format 2.0."""
    details = event(**changes)["event"]
    header = {name: details.pop(name) for name in ("app_id", "tenant_key")}
    header |= {"event_id": "5e3702a8", "event_type": event_type, "create_time": "1666079207003", "token": TOKEN}
    return {"schema": "2.0", "header": header, "event": details}


def encrypt(plain: bytes, key: str = KEY, *, padding: bytes | None = None) -> str:
    """Encrypt as Feishu does; `padding` replaces the right padding."""
    if padding is None:
        length = 16 - len(plain) % 16
        padding = bytes([length]) * length
    vector = os.urandom(16)
    cipher = Cipher(algorithms.AES256(hashlib.sha256(key.encode()).digest()), modes.CBC(vector)).encryptor()
    return base64.b64encode(vector + cipher.update(plain + padding) + cipher.finalize()).decode()


def signed(body: bytes, *, key: str = KEY, seconds: float = 0.0) -> dict[str, str]:
    """The headers with which Feishu signs a body; `seconds`: the age of the signature."""
    timestamp = str(int(NOW.timestamp() - seconds))
    return {
        "x-lark-request-timestamp": timestamp,
        "x-lark-request-nonce": "14302138",
        "x-lark-signature": hashlib.sha256(f"{timestamp}14302138{key}".encode() + body).hexdigest(),
    }


def sealed(message: object, **given: Any) -> tuple[bytes, dict[str, str]]:
    """A message encrypted and signed: body and headers."""
    body = json.dumps({"encrypt": encrypt(json.dumps(message).encode())}).encode()
    return body, signed(body, **given)


def test_the_entry_point_names_the_plugin() -> None:
    """The installed package announces its object as the plugin `feishu`."""
    found = entry_points(group="flowhooks", name="feishu")
    assert [entry_point.load() for entry_point in found] == [flowhooks_feishu.plugin]


def test_the_documented_text_is_decrypted() -> None:
    """The example of Feishu's page about the Encrypt Key is decrypted."""
    assert decrypt("P37w+VZImNgPEO1RBhJ6RtKl7n6zymIbEG1pReEzghk=", "test key") == b"hello world"


def test_the_signature_is_the_documented_digest() -> None:
    """The signature is the SHA-256 of timestamp, nonce, key and body, without separators."""
    expected = hashlib.sha256(b'17000000001430key{"encrypt":"x"}').hexdigest()
    assert sign(timestamp="1700000000", nonce="1430", encrypt_key="key", body=b'{"encrypt":"x"}') == expected


@pytest.mark.parametrize(("source", "has_key"), [("plain", False), ("signed", True)])
def test_the_url_is_verified(receive: Callable[..., Any], source: str, has_key: bool) -> None:
    """The challenge is answered, as plain text or encrypted; nothing is stored, and the handshake is counted."""
    message = {"challenge": "ajls384kdjx98XX \ud83d", "token": TOKEN, "type": "url_verification"}
    body = json.dumps(message).encode()
    if has_key:
        body = json.dumps({"encrypt": encrypt(body)}).encode()
    response = receive(source, body)
    assert (response.status, response.rule) == (200, "challenge")
    assert json.loads(response.body) == {"challenge": "ajls384kdjx98XX \ud83d"}
    assert response.media_type.startswith("application/json")
    assert receive(source, body, signed(body)) == response


@pytest.mark.parametrize(
    ("status", "kind", "conclusion"),
    [
        ("APPROVED", "complete", "approved"),
        ("REJECTED", "complete", "rejected"),
        ("CANCELED", "cancel", None),
        ("DELETED", "cancel", None),
        ("REVERTED", "reverted", None),
    ],
)
@pytest.mark.parametrize("make", [event, event_2])
def test_the_end_of_an_approval_is_a_callback(
    receive: Callable[..., Any], make: Callable[..., Any], status: str, kind: str, conclusion: str | None
) -> None:
    """Each end has its kind and conclusion, in both formats of events, and the event's own members are kept."""
    time = 1666079207003 if status == "REVERTED" else "1666079207003"  # a number only there
    callback = receive("signed", *sealed(make(status=status, operate_time=time)))
    assert isinstance(callback, ReceivedCallback)
    assert (callback.flow_instance_id, callback.kind) == (INSTANCE, kind)
    assert callback.response is not None
    assert (callback.response.status, json.loads(callback.response.body)) == (200, {"code": 0})
    data = dict(callback.data)
    assert data.pop("conclusion", None) == conclusion
    assert data.pop("type", "approval_instance") == "approval_instance"
    assert data == {
        "businessKey": "6525bffb",
        "processDefinitionKey": APPROVAL,
        "app_id": "cli_xxx",
        "tenant_key": "xxx",
        "approval_code": APPROVAL,
        "instance_code": INSTANCE,
        "status": status,
        "operate_time": time,
        "instance_operate_time": "1666079207003",
        "uuid": "6525bffb",
    }


def test_without_an_encrypt_key_the_token_is_enough(receive: Callable[..., Any]) -> None:
    """A source without encrypt_key takes plain events with the right token."""
    callback = receive("plain", json.dumps(event(uuid=None)).encode())
    assert (callback.flow_instance_id, callback.kind) == (INSTANCE, "complete")
    assert "businessKey" not in callback.data


def test_a_repeated_event_has_the_same_data(receive: Callable[..., Any]) -> None:
    """Members that differ between two deliveries of an event are not in the data, so the second is no conflict."""
    first, second = event(), event() | {"ts": "1502199212.1", "uuid": "another"}
    assert receive("signed", *sealed(first)).data == receive("signed", *sealed(second)).data


@pytest.mark.parametrize(
    ("message", "rule"),
    [
        (event("PENDING"), "status PENDING"),
        (event("OVERTIME_CLOSE"), "status OVERTIME_CLOSE"),
        (event("OVERTIME_RECOVER"), "status OVERTIME_RECOVER"),
        (event("SOMETHING_NEW"), "unknown status"),
        (event(["APPROVED"]), "unknown status"),
        (event(None), "unknown status"),
        (event(type="approval_task"), "event approval_task"),
        (event_2("approval.approval.updated_v4"), "event approval.approval.updated_v4"),
        (event(type="Anything else \u202e"), "other events"),
        (event(type=7), "other events"),
        (event(type=None), "other events"),
    ],
)
def test_events_other_than_approval_ends_are_counted(
    receive: Callable[..., Any], message: dict[str, Any], rule: str
) -> None:
    """An event that is no end of an approval is answered with 200 under the name of a rule, and not stored."""
    response = receive("signed", *sealed(message))
    assert (response.status, response.rule, json.loads(response.body)) == (200, rule, {"code": 0})


@pytest.mark.parametrize(
    "message",
    [
        event(instance_code=None),
        event(instance_code=""),
        event(instance_code=17),
        event(approval_code=None),
        event(approval_code={"code": APPROVAL}),
        event() | {"event": [1]},
        {"token": TOKEN, "type": "event_callback"},
        {"token": TOKEN, "type": "url_verification"},
        {"token": TOKEN, "type": "url_verification", "challenge": {"a": 1}},
        {"token": TOKEN},
        {"header": {"token": TOKEN}},
    ],
)
def test_malformed_authentic_requests_get_400(receive: Callable[..., Any], message: dict[str, Any]) -> None:
    """An authentic request with members that are missing or of a wrong type is answered with 400."""
    response = receive("signed", *sealed(message))
    assert isinstance(response, ReceiverResponse)
    assert response.status == 400


@pytest.mark.parametrize(
    "token", [None, "", "wrong", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), 7, [TOKEN], "\ud800", "é"]
)
@pytest.mark.parametrize("kind", ["event", "event 2.0", "handshake"])
def test_a_wrong_token(receive: Callable[..., Any], token: object, kind: str) -> None:
    """Without the right Verification Token nothing is answered, in the format 2.0 wherever else the token is."""
    if kind == "event 2.0":
        message = event_2() | {"token": TOKEN}
        message["header"] |= {"token": token}
    elif kind == "event":
        message = event() | {"token": token}
    else:
        message = {"challenge": "x", "token": token, "type": "url_verification"}
    assert receive("plain", json.dumps(message).encode()) is None
    assert receive("signed", *sealed(message)) is None


def test_a_missing_or_wrong_signature(receive: Callable[..., Any]) -> None:
    """Each header of the signature is needed, and the signature is that of these bytes with this key."""
    body, headers = sealed(event())
    assert receive("signed", body, headers) is not None
    for name in headers:
        assert receive("signed", body, {key: value for key, value in headers.items() if key != name}) is None
        assert receive("signed", body, headers | {name: headers[name] + "0"}) is None
        assert receive("signed", body, headers | {name: "\u00e9\udc80"}) is None
    assert receive("signed", body, headers | {"x-lark-signature": ""}) is None
    assert receive("signed", body + b" ", headers) is None
    assert receive("signed", body, signed(body, key="another key")) is None
    other = json.dumps({"encrypt": encrypt(json.dumps(event()).encode(), "another key")}).encode()
    assert receive("signed", other, signed(other)) is None


def test_plain_requests_are_rejected_if_a_key_is_set(receive: Callable[..., Any]) -> None:
    """A sender that knows the token only cannot send plain requests to a source with encrypt_key."""
    for message in (event(), {"challenge": "x", "token": TOKEN, "type": "url_verification"}):
        body = json.dumps(message).encode()
        assert receive("signed", body) is None
        assert receive("signed", body, signed(body)) is None


def test_encrypted_requests_need_a_key(receive: Callable[..., Any]) -> None:
    """A source without encrypt_key refuses encrypted requests."""
    assert receive("plain", *sealed(event())) is None


@pytest.mark.parametrize(
    ("seconds", "is_accepted"), [(0, True), (299, True), (301, False), (-299, True), (-301, False), (1e9, False)]
)
def test_old_signatures(receive: Callable[..., Any], seconds: float, is_accepted: bool) -> None:
    """A signature is valid for five minutes, before and after the server's time."""
    assert (receive("signed", *sealed(event(), seconds=seconds)) is not None) is is_accepted


@pytest.mark.parametrize("timestamp", ["", "now", "-1", "1e9", "\u0661\u0667", "9" * 5000, "\u00b2"])
def test_timestamps_that_are_no_numbers(receive: Callable[..., Any], timestamp: str) -> None:
    """A timestamp that is no number is refused, even if it is signed."""
    body, headers = sealed(event())
    digest = sign(timestamp=timestamp, nonce="n", encrypt_key=KEY, body=body)
    headers |= {"x-lark-request-timestamp": timestamp, "x-lark-request-nonce": "n", "x-lark-signature": digest}
    assert receive("signed", body, headers) is None


BODIES = {
    "empty": b"",
    "no JSON": b"{",
    "not UTF-8": b'{"encrypt": "\xff"}',
    "UTF-16 that is cut off": '{"a": 1}'.encode("utf-16")[:-1],
    "an array": b"[]",
    "a string": b'"encrypt"',
    "null": b"null",
    "deep": b'{"encrypt": ' + b"[" * 100_000,
    "a long number": b'{"token": ' + b"1" * 10_000 + b"}",
    "encrypt of a wrong type": b'{"encrypt": {"a": 1}}',
    "encrypt of a number": b'{"encrypt": 1}',
    "no Base64": b'{"encrypt": "!!!!"}',
    "Base64 that is cut off": b'{"encrypt": "P37w+VZImNgPEO1RBhJ6RtKl7n6zymIbEG1pReEzghk"}',
    "not ASCII": '{"encrypt": "密文"}'.encode(),
    "nothing encrypted": b'{"encrypt": ""}',
    "only a vector": json.dumps({"encrypt": base64.b64encode(bytes(16)).decode()}).encode(),
    "half a block": json.dumps({"encrypt": base64.b64encode(bytes(40)).decode()}).encode(),
    "zeros": json.dumps({"encrypt": base64.b64encode(bytes(48)).decode()}).encode(),
    "a megabyte": json.dumps({"encrypt": base64.b64encode(bytes(1 << 20)).decode()}).encode(),
    "padding of 0": json.dumps({"encrypt": encrypt(b"{}", padding=bytes(14))}).encode(),
    "padding of 17": json.dumps({"encrypt": encrypt(b"{}", padding=b"\x11" * 14)}).encode(),
    "uneven padding": json.dumps({"encrypt": encrypt(b"{}", padding=b"\x0e" * 12 + b"\x0d\x0e")}).encode(),
    "encrypted nonsense": json.dumps({"encrypt": encrypt(b"\xff\xfe\xfd")}).encode(),
    "an encrypted array": json.dumps({"encrypt": encrypt(b"[1]")}).encode(),
    "deep inside": json.dumps({"encrypt": encrypt(b'{"a":' * 100_000)}).encode(),
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("source", sorted(SETTINGS))
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_hostile_bodies(receive: Callable[..., Any], source: str, body: bytes, method: str) -> None:
    """Bytes that are no request of Feishu are refused like a wrong token, signed or not."""
    assert receive(source, body, method=method) is None
    assert receive(source, body, signed(body), method=method) is None


def test_random_bytes(receive: Callable[..., Any]) -> None:
    """Random bytes are refused, alone and encrypted, and no changed byte of a request raises an exception."""
    chance = random.Random(21)
    valid, headers = sealed(event())
    for _ in range(300):
        noise = chance.randbytes(chance.randrange(80))
        for body in (noise, json.dumps({"encrypt": encrypt(noise)}).encode()):
            assert receive("plain", body) is None
            assert receive("signed", body, signed(body)) is None
        changed = bytearray(valid)
        changed[chance.randrange(len(valid))] ^= chance.randrange(1, 256)
        assert receive("signed", bytes(changed), headers) is None
        receive("signed", bytes(changed), signed(bytes(changed)))  # may be valid: another time of sending, for example


@pytest.mark.parametrize(
    ("source", "body", "headers", "reason"),
    [
        ("plain", b"{", {}, "it is not JSON"),
        ("plain", b"[]", {}, "it is no JSON object"),
        ("plain", *sealed(event()), "it is encrypted, but the source has no encrypt_key"),
        ("plain", b"{}", {}, "its Verification Token is not that of the source"),
        ("signed", b"{}", {}, "it is not encrypted, but the source has an encrypt_key"),
        ("signed", sealed(event())[0], {}, "it has no X-Lark-Signature"),
        ("signed", *sealed(event(), key="another key"), "its X-Lark-Signature is wrong"),
        ("signed", *sealed(event(), seconds=400), "it was signed more than five minutes ago"),
        ("signed", *sealed(event() | {"token": "x"}), "its Verification Token is not that of the source"),
    ],
    ids=range(9),  # the bodies are random, and each process of a run must give its tests the same names
)
def test_rejection_reason_names_the_setting_or_clock(
    source: str, body: bytes, headers: dict[str, str], reason: str
) -> None:
    """An operator learns which setting or clock to correct."""
    with pytest.raises(NotAuthentic, match=reason):
        authenticate(request(body, headers), Secrets(**SETTINGS[source]))


def test_invalid_base64_is_an_error(receive: Callable[..., Any]) -> None:
    """Characters that are not Base64 are an error, even if they could be skipped."""
    encrypted = encrypt(json.dumps(event()).encode())
    for text, is_accepted in ((encrypted, True), (encrypted[:40] + "\n" + encrypted[40:], False)):
        body = json.dumps({"encrypt": text}).encode()
        assert (receive("signed", body, signed(body)) is not None) is is_accepted


def test_rejection_reason_omits_an_undecryptable_text() -> None:
    """The reason does not repeat what the sender wrote."""
    with pytest.raises(NotAuthentic) as raised:
        decrypt("c2VjcmV0", "test key")
    assert "c2VjcmV0" not in str(raised.value)


def test_a_source_without_a_section(caplog: pytest.LogCaptureFixture) -> None:
    """A source that the plugin's settings do not have is refused, and the log names what is missing, once a minute."""
    plugin = Feishu()
    for body in (json.dumps(event()).encode(), b""):
        assert plugin.receive_request("other", request(body, {})) is None
    assert [record.getMessage() for record in caplog.records] == [
        "a request to /in/other was rejected: the settings have no [plugins.feishu.sources.other]"
    ]


def test_rejection_reasons_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Each reason is logged once a minute for each source, without secrets."""
    seconds = [0.0]
    plugin = Feishu(clock=lambda: seconds[0])
    plugin.configure({"sources": SETTINGS})
    caplog.clear()
    for seconds[0] in (0.0, 59.0, 60.0, 61.0):
        assert plugin.receive_request("signed", request(b"{}", {})) is None
        assert plugin.receive_request("plain", request(b"{}", {})) is None
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 4
    assert "it is not encrypted, but the source has an encrypt_key" in messages[0]
    assert "its Verification Token is not that of the source" in messages[1]
    assert not any(secret in caplog.text for secret in (KEY, TOKEN))


def test_the_start_logs_sources_without_an_encrypt_key(caplog: pytest.LogCaptureFixture) -> None:
    """At start the log says which sources have no signed requests."""
    Feishu().configure({"sources": SETTINGS})
    assert [record.args for record in caplog.records] == [("plain", "plain")]


@pytest.mark.parametrize(
    "section",
    [
        {"sources": {"a": {}}},
        {"sources": {"a": {"encrypt_key": KEY}}},
        {"sources": {"a": {"verification_token": ""}}},
        {"sources": {"a": {"verification_token": 7}}},
        {"sources": {"a": {"verification_token": TOKEN, "encryptkey": KEY}}},
        {"sources": {}},
        {"encrypt_key": KEY},
    ],
)
def test_invalid_secret_settings_are_rejected(
    flowhooks_app: Callable[..., AppHarness], section: dict[str, Any]
) -> None:
    """A misspelt or missing secret keeps the plugin from starting."""
    with pytest.raises(FlowhooksError):
        flowhooks_app(names={"feishu": Feishu()}, settings={"feishu": section})


def test_the_plugin_loads_without_settings(flowhooks_app: Callable[..., AppHarness]) -> None:
    """An installed plugin that nobody has configured is no error."""
    assert flowhooks_app(names={"feishu": Feishu()}).app.receivers.names == {"feishu"}


def test_secrets_are_not_shown() -> None:
    """The secrets of a source are in no representation."""
    plugin = Feishu()
    plugin.configure({"sources": SETTINGS})
    shown = repr(vars(plugin))
    assert KEY not in shown
    assert TOKEN not in shown


def test_the_kind_reverted_exists(flowhooks_app: Callable[..., AppHarness]) -> None:
    """The plugin adds the kind `reverted`, and a handler of it gets the callback."""

    @handler(process_key=APPROVAL, kind="reverted")
    def undo(event: Any) -> str:
        return f"{event.kind} {event.data['status']}"

    app = flowhooks_app(undo, names={"feishu": Feishu()})
    answer = app.post(INSTANCE, kind="reverted", processDefinitionKey=APPROVAL, status="REVERTED")
    assert app.delivery(answer.event_id).result == "reverted REVERTED"
