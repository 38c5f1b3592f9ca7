"""The section [sources.NAME.signature]: how a sender with a fixed URL signs."""

from __future__ import annotations

import hashlib

import pytest

from flowhooks import settings
from flowhooks.settings import SignatureSettings

SOURCE = """[sources.oa]
secrets = [{env = "OA_SECRET"}]
[sources.oa.ingress]
format = "json"
flow_instance_id = "/id"
[sources.oa.signature]
"""


def test_every_setting_is_read(write_settings):
    """Each setting is read."""
    text = f"""{SOURCE}
        scheme = "hmac-sm3"
        header = "X-Signature"
        encoding = "base64"
        prefix = "sm3="
        timestamp_header = "X-Timestamp"
        id_header = "X-Id"
    """
    assert settings.load(write_settings(text), {}, {}).sources["oa"].signature == SignatureSettings(
        scheme="hmac-sm3",
        header="X-Signature",
        encoding="base64",
        prefix="sm3=",
        timestamp_header="X-Timestamp",
        id_header="X-Id",
    )


def test_the_defaults(write_settings):
    """A scheme and a header are enough: hexadecimal, over the body, without time and id."""
    text = f'{SOURCE}scheme = "hmac-sha256"\nheader = "X-Hub-Signature-256"'
    signature = settings.load(write_settings(text), {}, {}).sources["oa"].signature
    assert (signature.encoding, signature.prefix, signature.timestamp_header, signature.id_header) == (
        "hex",
        "",
        "",
        "",
    )


SCHEME = 'scheme = "hmac-sha256"\n'
HEADER = 'header = "X-Signature"\n'
MUST_BE_A_HEADER = 'must be the name of a header, such as "X-Signature", not'


@pytest.mark.parametrize(
    ("content", "number", "says"),
    [
        (HEADER, 6, ' has no scheme, which is "hmac-sha256" or "hmac-sm3"'),
        (SCHEME, 6, " has no header, the name of the header that has the signature"),
        (f'{HEADER}scheme = "hmac-md5"', 8, '.scheme must be "hmac-sha256" or "hmac-sm3", not \'hmac-md5\''),
        (f"{HEADER}scheme = 256", 8, '.scheme must be "hmac-sha256" or "hmac-sm3", not 256'),
        (f'{SCHEME}header = "X_Signature"', 8, f".header {MUST_BE_A_HEADER} 'X_Signature'"),
        (f'{SCHEME}header = "X Signature"', 8, f".header {MUST_BE_A_HEADER} 'X Signature'"),
        (f'{SCHEME}header = "X-Signature:"', 8, f".header {MUST_BE_A_HEADER} 'X-Signature:'"),
        (f'{SCHEME}header = "签名"', 8, f".header {MUST_BE_A_HEADER} '签名'"),
        (f'{SCHEME}header = ""', 8, f".header {MUST_BE_A_HEADER} ''"),
        (f"{SCHEME}header = 5", 8, f".header {MUST_BE_A_HEADER} 5"),
        (f'{SCHEME}header = "{"X" * 101}"', 8, f".header {MUST_BE_A_HEADER} '{'X' * 60}…'"),
        (f'{SCHEME}{HEADER}timestamp_header = ""', 9, f".timestamp_header {MUST_BE_A_HEADER} ''"),
        (f'{SCHEME}{HEADER}id_header = "a\\nb"', 9, f".id_header {MUST_BE_A_HEADER} 'a\\nb'"),
        (f'{SCHEME}{HEADER}encoding = "hexa"', 9, '.encoding must be "hex" or "base64", not \'hexa\'; did you mean'),
        (f'{SCHEME}{HEADER}prefix = "a\\u0000"', 9, ".prefix must be a printable text of 0 to 255 characters, not"),
        (f"{SCHEME}{HEADER}prefix = ['a']", 9, ".prefix must be a printable text of 0 to 255 characters, not a list"),
        (f"{SCHEME}{HEADER}secret = 's3cret'", 9, ".secret is not a setting"),
        (
            f'{SCHEME}{HEADER}id_header = "x-signature"',
            9,
            " has one header for header and id_header: give each its own header",
        ),
        (
            f'{SCHEME}{HEADER}timestamp_header = "X-Id"\nid_header = "X-ID"',
            10,
            " has one header for timestamp_header and id_header: give each its own header",
        ),
    ],
)
def test_rejected_settings(load_errors, content, number, says):
    """Each mistake is one line, which names the file and the line, and never repeats a secret."""
    (line,) = load_errors(SOURCE + content)
    assert line.startswith(f"flowhooks.toml:{number}: sources.oa.signature{says}")
    assert "s3cret" not in line


def test_all_mistakes_are_named_at_once(load_errors):
    """A wrong value does not hide a missing setting."""
    assert len(load_errors(f'{SOURCE}encoding = "x"\nprefix = 5')) == 4


def test_signature_must_be_a_section(load_errors):
    """A single value instead of the section is refused with its line."""
    (line,) = load_errors(
        SOURCE.replace("[sources.oa.signature]\n", "").replace("[sources.oa.i", "signature = 5\n[sources.oa.i")
    )
    assert line == "flowhooks.toml:3: sources.oa.signature must be a section, [sources.oa.signature], not 5"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            (
                f'[sources.oa]\ntoken_sha256 = ["{"a" * 64}"]\n[sources.oa.ingress]\nformat = "json"\n'
                f'flow_instance_id = "/id"\n[sources.oa.signature]\n{SCHEME}{HEADER}'
            ),
            "flowhooks.toml:6: sources.oa.signature has no key: add secrets to [sources.oa]",
        ),
        (
            f'[sources."o.a"]\nsecrets = [{{env = "A"}}]\n[sources."o.a".signature]\n{SCHEME}{HEADER}',
            (
                "flowhooks.toml:3: sources.'o.a'.signature is for requests to /in/o.a, but sources.'o.a' has no "
                "section ingress"
            ),
        ),
        (
            (
                f'[sources.oa]\nsecrets = [{{env = "A"}}]\n[sources.oa.ingress]\nreceiver = "dingtalk"\n'
                f"[sources.oa.signature]\n{SCHEME}{HEADER}"
            ),
            (
                "flowhooks.toml:5: sources.oa.signature is never used, because a receiver authenticates the requests: "
                "remove one of the two"
            ),
        ),
    ],
)
def test_a_signature_must_be_usable(load_errors, content, says):
    """A signature needs a key and requests: a section that would never be used is refused."""
    assert load_errors(content) == [says]


def test_sm3_must_be_available(load_errors, monkeypatch):
    """Where Python's OpenSSL has no SM3, the scheme is refused at start instead of at the first request."""
    monkeypatch.setattr(hashlib, "algorithms_available", {"sha256"})
    assert load_errors(f'{SOURCE}{HEADER}scheme = "hmac-sm3"') == [
        "flowhooks.toml:8: sources.oa.signature has the scheme hmac-sm3, but the OpenSSL of this Python has no SM3"
    ]


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("X-Hub-Signature-256", "HTTP_X_HUB_SIGNATURE_256"),
        ("x-id", "HTTP_X_ID"),
        ("Content-Type", "CONTENT_TYPE"),
        ("content-length", "CONTENT_LENGTH"),
    ],
)
def test_names_of_a_wsgi_environment(header, name):
    """A header is found under its name in a WSGI environment; two headers have no prefix there."""
    assert SignatureSettings.environ_name(header) == name
