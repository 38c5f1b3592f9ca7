"""`flowhooks sources test` of a source with a signature scheme: the signature, and the result of a server."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from flowhooks import settings
from flowhooks.app import App
from flowhooks.cli import credential_options
from flowhooks.clock import SECOND, Clock
from flowhooks.ledger.queries import EventFilter
from flowhooks.settings import SignatureSettings, SigningKey
from flowhooks.web.callback import signature_schemes
from flowhooks.web.callback.app import create_app
from flowhooks.web.server.server import Limits, Server

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


TEXT = "a text that both sides know"
SECTIONS = """
[sources.oa]
secrets = [{{file = '{good}'}}, {{file = '{bad}'}}]

[sources.oa.ingress]
format = "form"
flow_instance_id = "/id"
kind = {{pointer = "/status", values = {{"2" = "complete"}}, other = "ignore"}}

[sources.oa.signature]
scheme = "hmac-sha256"
header = "X-Hub-Signature-256"
prefix = "sha256="
"""


def test_a_server_accepts_or_rejects_a_signature_by_a_scheme(run, tmp_path):
    """Each secret is tried at the fixed URL; nothing is stored, and no request is counted as ignored."""
    good, bad = tmp_path / "good", tmp_path / "bad"
    for file, secret in ((good, TEXT), (bad, f"not {TEXT}")):
        file.touch(0o600)
        file.write_text(secret)
    config = tmp_path / "flowhooks.toml"
    config.write_text(SECTIONS.format(good=good, bad=good))
    loaded = settings.load(config, {}, {"database": "sqlite:///t.db", "plugins_dirs": []})
    app = App(loaded, environ={})
    app.start()
    server = Server(create_app(app), listen="127.0.0.1:0", threads=2, limits=Limits(), name="listen")
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        config.write_text(SECTIONS.format(good=good, bad=bad))
        ran = run("sources", "test", "oa", "--to", f"http://{server.address}")
        assert f"accepted as source oa (signed with the secret in the file {good} by hmac-sha256)" in ran.stdout
        assert f"rejected: 401, the credential is not known (signed with the secret in the file {bad}" in ran.stdout
        assert ran.exit_code == 1
        assert app.ledger.ignored_rules() == []
        assert app.ledger.find(EventFilter(), limit=1) == []
    finally:
        server.close()
        thread.join()
        app.close()
