"""Signature schemes: published examples are valid, any other text is not."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowhooks.clock import SECOND
from flowhooks.errors import Unauthorized
from flowhooks.settings import SignatureSettings, SigningKey
from flowhooks.web.callback import signature_schemes

NOW = 1_782_000_000 * SECOND
KEY = b"It's a Secret to Everybody"
BODY = b"Hello, World!"
GITHUB = SignatureSettings(scheme="hmac-sha256", header="X-Hub-Signature-256", prefix="sha256=")
GITHUB_VALUE = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
"""The example of GitHub's documentation, "Validating webhook deliveries"."""
SHOPIFY = SignatureSettings(scheme="hmac-sha256", header="X-Shopify-Hmac-Sha256", encoding="base64")
TIMED = SignatureSettings(
    scheme="hmac-sha256", header="X-Signature", timestamp_header="X-Timestamp", id_header="X-Request-Id"
)
TIMED_WITHOUT_ID = SignatureSettings(scheme="hmac-sha256", header="X-Signature", timestamp_header="X-Timestamp")
JEFE = (b"Jefe", b"what do ya want for nothing?")


def hmac_by_definition(key, message, name="sha256"):
    """HMAC as RFC 2104 defines it, without the module `hmac`."""
    key = (hashlib.new(name, key).digest() if len(key) > 64 else key).ljust(64, b"\0")
    inner = hashlib.new(name, bytes(byte ^ 0x36 for byte in key) + message).digest()
    return hashlib.new(name, bytes(byte ^ 0x5C for byte in key) + inner).digest()


def is_good(headers, scheme, body=BODY, *, keys=(KEY,), now=NOW, not_after=None):
    """Whether a request with these headers, as WSGI names them, is signed with one of the keys."""
    known = [SigningKey(key=key, not_after=not_after) for key in keys]
    return signature_schemes.verify(signature_schemes.parse(headers, scheme, now), body, known, scheme, now)


def cause(headers, scheme, now=NOW):
    """The reason for operators why the headers are refused."""
    with pytest.raises(Unauthorized) as caught:
        signature_schemes.parse(headers, scheme, now)
    return caught.value.cause


def timed(body=BODY, *, time=str(NOW // SECOND), key=KEY, **more):
    """The headers of a request whose signature covers its time; computed independently."""
    digest = hmac_by_definition(key, f"{time}.".encode() + body).hex()
    return {"HTTP_X_SIGNATURE": digest, "HTTP_X_TIMESTAMP": time, "HTTP_X_REQUEST_ID": "r.1"} | more


@pytest.mark.parametrize(
    ("scheme", "key", "body", "digest"),
    [
        # RFC 4231, section 4.
        ("hmac-sha256", b"\x0b" * 20, b"Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
        ("hmac-sha256", *JEFE, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
        (
            "hmac-sha256",
            b"\xaa" * 131,
            b"Test Using Larger Than Block-Size Key - Hash Key First",
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
        ),
        # GM/T 0042-2015, appendix D.3.
        ("hmac-sm3", b"\x0b" * 32, b"Hi There", "c0ba18c68b90c88bc07de794bfc7d2c8d19ec31ed8773bc2b390c9604e0be11e"),
        ("hmac-sm3", *JEFE, "2e87f1d16862e6d964b50a5200bf2b10b764faa9680a296a2405f24bec39f882"),
        (
            "hmac-sm3",
            bytes(range(1, 38)),
            b"\xcd" * 50,
            "220bf579ded555393f0159f66c99877822a3ecf610d1552154b41d44b94db3ae",
        ),
    ],
)
def test_published_vectors(scheme, key, body, digest):
    """The published test vectors of both algorithms, in each encoding."""
    for encoding, text in (("hex", digest), ("base64", base64.b64encode(bytes.fromhex(digest)).decode())):
        settings = SignatureSettings(scheme=scheme, header="X-S", encoding=encoding)
        assert is_good({"HTTP_X_S": text}, settings, body, keys=(key,))
        assert not is_good({"HTTP_X_S": text}, settings, body + b" ", keys=(key,))
        assert not is_good({"HTTP_X_S": text}, settings, body, keys=(key[:-1],))


def test_github():
    """The example of GitHub's documentation."""
    assert is_good({"HTTP_X_HUB_SIGNATURE_256": GITHUB_VALUE}, GITHUB)
    assert is_good({"HTTP_X_HUB_SIGNATURE_256": f"sha256={GITHUB_VALUE[7:].upper()}"}, GITHUB)
    assert not is_good({"HTTP_X_HUB_SIGNATURE_256": GITHUB_VALUE}, GITHUB, BODY + b"\n")


def test_base64():
    """A signature in base64 without a prefix, as Shopify sends it."""
    text = base64.b64encode(hmac_by_definition(KEY, BODY)).decode()
    assert is_good({"HTTP_X_SHOPIFY_HMAC_SHA256": text}, SHOPIFY)
    assert not is_good({"HTTP_X_SHOPIFY_HMAC_SHA256": text}, SHOPIFY, b"")


@pytest.mark.parametrize("time", [NOW // SECOND, NOW // SECOND * 1000 + 1, NOW // SECOND - 300, NOW // SECOND + 300])
def test_time(time):
    """The signature covers the time as it was sent, in seconds or milliseconds, and the id is returned."""
    assert is_good(timed(time=str(time)), TIMED)
    assert not is_good(timed(time=str(time)), TIMED, BODY + b" ")
    another = NOW // SECOND + 7
    assert not is_good(timed(time=str(time)) | {"HTTP_X_TIMESTAMP": str(another)}, TIMED)
    assert signature_schemes.parse(timed(time=str(time)), TIMED, NOW).id == "r.1"


def test_sm3_with_a_time():
    """The other algorithm covers the time in the same way."""
    scheme = SignatureSettings(scheme="hmac-sm3", header="X-Signature", timestamp_header="X-Timestamp")
    digest = hmac_by_definition(KEY, b"%d." % (NOW // SECOND) + BODY, "sm3").hex()
    headers = {"HTTP_X_SIGNATURE": digest, "HTTP_X_TIMESTAMP": str(NOW // SECOND)}
    assert is_good(headers, scheme)
    assert not is_good(headers, TIMED_WITHOUT_ID, keys=(KEY,))


@pytest.mark.parametrize("time", [NOW // SECOND - 301, NOW // SECOND + 301, NOW // 1000 - 300_001, 10**10, 10**13])
def test_a_time_outside_five_minutes_is_rejected(time):
    """A time that differs by more than five minutes is refused."""
    assert cause(timed(time=str(time)), TIMED) == "scheme_time"


@pytest.mark.parametrize(
    "time", ["-1", "0", "01782000000", "1782000000.0", "1e9", "٣", "1782000000, 1782000000", "9" * 30]
)
def test_an_invalid_time_is_rejected(time):
    """A text that is no time is refused."""
    assert cause(timed(time=time), TIMED) == "scheme_malformed"


@pytest.mark.parametrize("name", ["HTTP_X_SIGNATURE", "HTTP_X_TIMESTAMP", "HTTP_X_REQUEST_ID"])
def test_a_missing_header(name):
    """Each header that the scheme names is required."""
    for headers in (timed() | {name: ""}, {key: value for key, value in timed().items() if key != name}):
        assert cause(headers, TIMED) == "scheme_incomplete"


@pytest.mark.parametrize("request_id", ["a, b", "a b", "é", "x" * 257, "a\x00"])
def test_a_malformed_id(request_id):
    """An id is visible ASCII without a comma, so a header that was sent twice is refused."""
    assert cause(timed(HTTP_X_REQUEST_ID=request_id), TIMED) == "scheme_malformed"


@pytest.mark.parametrize(
    "value",
    [
        GITHUB_VALUE[7:],
        f"SHA256={GITHUB_VALUE[7:]}",
        f" {GITHUB_VALUE}",
        f"{GITHUB_VALUE}0",
        GITHUB_VALUE[:-1],
        f"{GITHUB_VALUE}, {GITHUB_VALUE}",
        f"sha256=g{GITHUB_VALUE[8:]}",
        "sha256=" + "٣" * 64,
        "sha256=",
    ],
)
def test_a_malformed_signature(value):
    """A signature has exactly one prefix and 64 hexadecimal digits."""
    assert cause({"HTTP_X_HUB_SIGNATURE_256": value}, GITHUB) == "scheme_malformed"


def test_one_form_of_base64():
    """Another base64 text of the same bytes is refused, as is one without padding or of another alphabet."""
    text = base64.b64encode(hmac_by_definition(KEY, BODY)).decode()
    unused = text[:-2] + chr(ord(text[-2]) + 1) + "="
    assert base64.b64decode(unused) == base64.b64decode(text)
    for other in (unused, text[:-1], f"{text}\n", text.replace("=", "A"), "-" * 43 + "="):
        assert cause({"HTTP_X_SHOPIFY_HMAC_SHA256": other}, SHOPIFY) == "scheme_malformed"


@given(st.text(max_size=100))
def test_any_header(value):
    """Any text as a signature that nobody computed is refused."""
    for scheme, name in ((GITHUB, "HTTP_X_HUB_SIGNATURE_256"), (SHOPIFY, "HTTP_X_SHOPIFY_HMAC_SHA256")):
        assert cause({name: value}, scheme) in {"scheme_incomplete", "scheme_malformed"}


def test_several_keys():
    """While a key is being replaced, both are valid; an expired key is not."""
    headers = {"HTTP_X_HUB_SIGNATURE_256": GITHUB_VALUE}
    assert is_good(headers, GITHUB, keys=(b"another key, 16 or more", KEY))
    assert not is_good(headers, GITHUB, keys=())
    assert is_good(headers, GITHUB, not_after=NOW)
    assert not is_good(headers, GITHUB, not_after=NOW - 1)


def test_detection_of_signed_requests():
    """A request is signed by the scheme if it has the header with the signature, not by other headers."""
    assert signature_schemes.is_signed({"HTTP_X_SIGNATURE": ""}, TIMED)
    assert not signature_schemes.is_signed({"HTTP_X_TIMESTAMP": "1", "HTTP_WEBHOOK_SIGNATURE": "v1,x"}, TIMED)
