"""Signatures: those of the library and of other libraries are valid, any other text is not."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime

import pytest
from standardwebhooks.webhooks import Webhook

from flowhooks.clock import SECOND
from flowhooks.errors import Unauthorized
from flowhooks.settings import SigningKey
from flowhooks.settings.signing_keys import decode_key
from flowhooks.web.callback import signatures

KEY, OTHER = b"\x00\xffsecret-of-the-erp-engine", b"secret-of-nobody-0123456"
BODY = '{"businessKey": "合同"}'.encode()
NOW = 1_782_000_000 * SECOND
GOOD = "v1," + "A" * 43 + "="


def headers(body=BODY, *, key=KEY, message="msg_4711", at=NOW, **more):
    """The WSGI form of a request signed by the library."""
    moment = datetime.fromtimestamp(at // SECOND, UTC)
    found = {
        signatures.ID_HEADER: message,
        signatures.TIMESTAMP_HEADER: str(at // SECOND),
        signatures.SIGNATURE_HEADER: Webhook(key).sign(message, moment, body.decode()),
    } | more
    return {name: value for name, value in found.items() if value is not None}


def is_good(found, body=BODY, *, keys=(KEY,), now=NOW, not_after=None):
    """Whether a request with these headers is signed with one of the keys."""
    several = [SigningKey(key=key, not_after=not_after) for key in keys]
    return signatures.verify(signatures.parse(found, now), body, several, now)


def test_a_signature_of_the_library_is_accepted():
    """A signature of the library is accepted, with any other signatures beside it."""
    assert is_good(headers())
    assert is_good(headers(), keys=(OTHER, KEY))
    assert is_good(headers(b"{}", message="x" * 256), b"{}")
    several = f"v1a,{'x' * 88} {GOOD} {headers()[signatures.SIGNATURE_HEADER]} v2,abc"
    assert is_good(headers() | {signatures.SIGNATURE_HEADER: several})


def test_the_published_example():
    """The example of the libraries of Standard Webhooks is accepted at its time, and no other body with it."""
    found = {
        signatures.ID_HEADER: "msg_p5jXN8AQM9LWM0D4loKWxJek",
        signatures.TIMESTAMP_HEADER: "1614265330",
        signatures.SIGNATURE_HEADER: "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    key, now = decode_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), 1_614_265_330 * SECOND
    assert is_good(found, b'{"test": 2432232314}', keys=(key,), now=now)
    assert not is_good(found, b'{"test": 2432232315}', keys=(key,), now=now)


@pytest.mark.parametrize(
    ("found", "body"),
    [
        (headers(), BODY + b" "),
        (headers(key=OTHER), BODY),
        (headers() | {signatures.ID_HEADER: "msg_4712"}, BODY),
        (headers() | {signatures.TIMESTAMP_HEADER: str(NOW // SECOND + 1)}, BODY),
        (headers(), b"\xff"),
        (headers(b""), b"\xef\xbb\xbf"),
    ],
)
def test_a_signature_of_another_body_key_id_or_time_is_rejected(found, body):
    """Another body, key, id or time needs another signature; text that is not UTF-8 has none."""
    assert not is_good(found, body)


@pytest.mark.parametrize("length", [0, 1, 63, 64, 65, 4096, 1_000_000])
def test_bodies_of_any_length(length):
    """The signature is the library's for each length of key and body."""
    body = ("合" * length).encode()
    for key in (b"k" * 24, b"k" * 64, b"k" * 65):
        assert is_good(headers(body, key=key), body, keys=(key,))


def test_a_secret_expires():
    """A secret is valid until its expiry time, and not a microsecond longer."""
    assert is_good(headers(), not_after=NOW)
    assert not is_good(headers(), not_after=NOW - 1)


@pytest.mark.parametrize("off", [-300, -299, 0, 300])
def test_a_signature_within_five_minutes_is_accepted(off):
    """A signature is valid for five minutes, both ways."""
    assert is_good(headers(at=NOW + off * SECOND))


@pytest.mark.parametrize("off", [-301, 301, -1_000_000_000, 10**9])
def test_a_signature_beyond_five_minutes_is_rejected(off):
    """A signature one second later or earlier is refused."""
    with pytest.raises(Unauthorized) as caught:
        signatures.parse(headers(at=NOW + off * SECOND), NOW)
    assert caught.value.cause == "signature_time"


MALFORMED = [
    *({name: None} for name in (signatures.ID_HEADER, signatures.TIMESTAMP_HEADER, signatures.SIGNATURE_HEADER)),
    *({name: ""} for name in (signatures.ID_HEADER, signatures.TIMESTAMP_HEADER, signatures.SIGNATURE_HEADER)),
    *(
        {signatures.ID_HEADER: message_id}
        for message_id in ("a,a", "a, a", "a b", " a", "a.b", "é", "a\n", "a\x00", "x" * 257, "消息")
    ),
    *(
        {signatures.TIMESTAMP_HEADER: timestamp}
        for timestamp in (
            *(
                "1e9",
                " 1782000000",
                "1782000000 ",
                "+1782000000",
                "-1782000000",
                "1782000000.0",
                "0x6a",
                "1_782_000_000",
            ),
            *(
                "01782000000",
                "1782000000, 1782000000",
                "1782000000,1782000000",
                "nan",
                "inf",
                "9" * 400,
                "1782000000000",
            ),
            *(
                "\u0661" * 10,
                "\uff11" * 10,
                "1782000000\n",
            ),
        )
    ),
    *(
        {signatures.SIGNATURE_HEADER: signature}
        for signature in (
            *("v1", "v1,", "v1,=", f"v1,{'A' * 43}", f"v1,{'A' * 44}", f"v1,{'-' * 43}=", f"v1,{'é' * 43}=", GOOD[3:]),
            *(f"{GOOD}, {GOOD}", f"{GOOD},{GOOD}", f"{GOOD}  {GOOD}", f" {GOOD}", f"{GOOD} ", f"{GOOD}\n"),
            *(" ".join([GOOD] * 9), f"v1a,{'x' * 88}", f"{GOOD} nonsense", f"{GOOD} v1,xx", f"V1,{GOOD[3:]}"),
            *("v1," + "A" * 1_000_000, f"{GOOD} v1a,{'x' * 3000}", "sha256=" + "0" * 64, f"Bearer {GOOD}"),
        )
    ),
]


@pytest.mark.parametrize("wrong", MALFORMED)
def test_a_malformed_signature_is_rejected(wrong):
    """An invalid signature is refused before the body is read, always with the same text."""
    with pytest.raises(Unauthorized) as caught:
        signatures.parse(headers(**wrong), NOW)
    assert (caught.value.key, caught.value.params) == ("unauthorized", {})
    assert caught.value.cause in {"signature_incomplete", "signature_malformed"}


def test_another_base64_text_is_rejected():
    """Another Base64 text of the same bytes is refused."""
    good = headers()[signatures.SIGNATURE_HEADER]
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    twin = good[:-2] + letters[letters.index(good[-2]) + 1] + "="
    assert base64.b64decode(twin[3:]) == base64.b64decode(good[3:])
    assert not is_good(headers() | {signatures.SIGNATURE_HEADER: twin})


def test_a_request_with_a_signature_header_is_signed():
    """A request with one of the three headers counts as signed."""
    assert not signatures.is_signed({"HTTP_AUTHORIZATION": "Bearer x"})
    for name in (signatures.ID_HEADER, signatures.TIMESTAMP_HEADER, signatures.SIGNATURE_HEADER):
        assert signatures.is_signed({name: ""})


def test_the_library_verifies_sent_headers():
    """The library verifies the headers that commands send."""
    now = int(datetime.now(UTC).timestamp()) * SECOND
    sent = signatures.sign([OTHER, KEY], BODY, message="m-1", at=now)
    assert Webhook(KEY).verify(BODY, sent) == json.loads(BODY)
