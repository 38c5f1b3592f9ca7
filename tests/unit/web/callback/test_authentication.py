"""The order in which a request is authenticated, and its source."""

from __future__ import annotations

import hashlib
from ipaddress import ip_network
from types import SimpleNamespace

import pytest
from falcon import testing

from flowhooks.clock import SECOND
from flowhooks.errors import Forbidden, RateLimited, Unauthorized
from flowhooks.settings import Settings, SigningKey, Source, SourceCredentials
from flowhooks.web.callback import signatures
from flowhooks.web.callback.authentication import Authenticator
from flowhooks.web.callback.credentials import Credentials
from flowhooks.web.callback.signature_budget import BUDGET_BYTES
from flowhooks.web.errors import LocalizedHTTPError

KEYS = {name: tuple(SigningKey(key=f"{name}-{number}".encode() * 5) for number in range(8)) for name in ("erp", "crm")}
LARGE = b" " * 1024**2


@pytest.fixture
def authenticate():
    """Authenticate a request: `authenticate(key, body, address)`; returns the request too, whatever comes of it."""
    known = Credentials(
        dict.fromkeys(KEYS, Source()), {name: SourceCredentials(keys=keys) for name, keys in KEYS.items()}
    )
    clock = SimpleNamespace(now=lambda: 1_782_000_000 * SECOND)
    authenticator = Authenticator(SimpleNamespace(get=lambda _settings: known), clock)

    def authenticate(key, body, address="192.0.2.1"):
        headers = signatures.sign([key], body, message="m-1", at=clock.now())
        request = testing.create_req(method="POST", headers=headers, body=body, remote_addr=address)
        try:
            return authenticator.authenticate(request, body, Settings()), request
        except (RateLimited, Unauthorized) as error:
            return error, request

    return authenticate


def test_too_many_invalid_signatures(authenticate):
    """Then no signature is computed; a source that has signed from this address goes on, also with another secret."""
    assert authenticate(KEYS["crm"][3].key, b"{}")[0].source == "crm"
    for _ in range(BUDGET_BYTES // (16 * len(LARGE))):
        assert isinstance(authenticate(b"unknown", LARGE)[0], Unauthorized)
    assert isinstance(authenticate(b"unknown", LARGE)[0], RateLimited)
    assert isinstance(authenticate(KEYS["erp"][0].key, b"{}")[0], RateLimited)  # its secrets are not tried
    found, request = authenticate(KEYS["crm"][7].key, LARGE)
    assert (found.source, request.context.source) == ("crm", "crm")
    assert authenticate(KEYS["erp"][0].key, b"{}", "192.0.2.2")[0].source == "erp"


def test_too_many_invalid_signatures_of_a_stranger(authenticate, monkeypatch):
    """Where no source has signed from, the request is answered 429, and no signature over its body is computed."""
    for _ in range(BUDGET_BYTES // (16 * len(LARGE))):
        assert isinstance(authenticate(b"unknown", LARGE)[0], Unauthorized)
    computed = []
    monkeypatch.setattr(signatures, "verify", lambda *arguments: computed.append(arguments))
    found, request = authenticate(b"unknown", LARGE * 2)
    assert isinstance(found, RateLimited)
    assert not computed
    assert not hasattr(request.context, "source")


def test_a_body_longer_than_any_source_may_send(authenticate, monkeypatch):
    """It is answered 413 before any signature is computed."""
    computed = []
    monkeypatch.setattr(signatures, "verify", lambda *arguments: computed.append(arguments))
    with pytest.raises(LocalizedHTTPError) as caught:
        authenticate(KEYS["crm"][0].key, LARGE + b" ")
    assert (caught.value.status_code, computed) == (413, [])


@pytest.mark.parametrize("signed", [False, True])
def test_a_forbidden_address_of_a_known_source(signed):
    """The token tells the source, so a rejection because of the address names it."""
    token = "crm-token-of-this-test"
    digest = hashlib.sha256(token.encode()).hexdigest()
    sources = {"crm": Source(allow=(ip_network("10.0.0.0/8"),))}
    known = Credentials(sources, {"crm": SourceCredentials(tokens=(digest,), keys=KEYS["crm"])})
    clock = SimpleNamespace(now=lambda: 1_782_000_000 * SECOND)
    authenticator = Authenticator(SimpleNamespace(get=lambda _settings: known), clock)
    headers = signatures.sign([KEYS["crm"][0].key], b"{}", message="m-1", at=clock.now()) if signed else {}
    headers |= {"Authorization": f"Bearer {token}"}
    request = testing.create_req(method="POST", headers=headers, body=b"{}", remote_addr="192.0.2.1")
    with pytest.raises(Forbidden):
        authenticator.authenticate(request, b"{}", Settings())
    assert request.context.source == "crm"
