"""The signature of a test request by the scheme of a source is the one that the server verifies."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flowhooks.cli import credential_options
from flowhooks.clock import SECOND, Clock
from flowhooks.settings import SignatureSettings, SigningKey
from flowhooks.web.callback import signature_schemes

PLAIN = SignatureSettings(scheme="hmac-sha256", header="X-Hub-Signature-256", prefix="sha256=")
FULL = replace(PLAIN, encoding="base64", timestamp_header="X-Time", id_header="X-Id")


@pytest.mark.parametrize("scheme", [PLAIN, FULL, replace(FULL, scheme="hmac-sm3")], ids=["plain", "full", "sm3"])
def test_a_signature_by_a_scheme(scheme):
    """It has the time and the id if the scheme has headers for them, and holds for its key and body only."""
    headers = credential_options.scheme_headers(scheme, b"key", b"body")
    now = Clock().now()
    environ = {scheme.environ_name(name): value for name, value in headers.items()}
    parsed = signature_schemes.parse(environ, scheme, now)
    for key, body, is_valid in ((b"key", b"body", True), (b"other", b"body", False), (b"key", b"other", False)):
        keys = [SigningKey(key=key, not_after=None)]
        assert signature_schemes.verify(parsed, body, keys, scheme, now) == is_valid
    assert (parsed.id is None) == (scheme is PLAIN)
    if scheme.timestamp_header:
        assert abs(int(headers["X-Time"]) * SECOND - now) < 60 * SECOND
