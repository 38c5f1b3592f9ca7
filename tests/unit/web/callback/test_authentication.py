"""The order in which a request is authenticated, and its source."""

from __future__ import annotations

import hashlib
from ipaddress import ip_network
from types import SimpleNamespace

import pytest
from falcon import testing

from flowhooks.clock import SECOND
from flowhooks.errors import Forbidden, RateLimited, Unauthorized
from flowhooks.settings import IngressSettings, Settings, SignatureSettings, SigningKey, Source, SourceCredentials
from flowhooks.web.callback import signature_schemes, signatures
from flowhooks.web.callback.authentication import Authenticator, read_body
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


def test_too_many_invalid_signatures_from_a_new_address(authenticate, monkeypatch):
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
@pytest.mark.parametrize("authorization", [None, "", "Bearer unknown", "Basic x", "Bearer a, Bearer b"])
def test_no_source_needs_a_credential(authorization, signed):
    """While no source has a credential, each local caller is `default`, with any headers, and a proxy is rejected."""
    authenticator = Authenticator(SimpleNamespace(get=lambda _settings: Credentials({}, {})), SimpleNamespace())
    headers = {} if authorization is None else {"Authorization": authorization}
    headers |= signatures.sign([b"unknown"], b"{}", message="m-1", at=NOW) if signed else {}
    request = testing.create_req(method="POST", host="localhost", headers=headers, body=b"{}")
    assert authenticator.authenticate(request, b"{}", Settings()).source == request.context.source == "default"
    forwarded = testing.create_req(method="POST", host="localhost", headers={**headers, "Via": "1.1 proxy"})
    with pytest.raises(Forbidden):
        authenticator.authenticate(forwarded, b"", Settings())
    assert forwarded.context.source == "default"


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer unknown"}])
def test_a_source_without_readable_credentials_closes_the_listener(headers, signed):
    """If the credentials of the only source could not be read, no caller is let in."""
    known = Credentials({"crm": Source()}, {})
    authenticator = Authenticator(SimpleNamespace(get=lambda _settings: known), SimpleNamespace(now=lambda: NOW))
    headers = headers | (signatures.sign([b"unknown"], b"{}", message="m-1", at=NOW) if signed else {})
    request = testing.create_req(method="POST", host="localhost", headers=headers, body=b"{}")
    with pytest.raises(Unauthorized):
        authenticator.authenticate(request, b"{}", Settings())


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


NOW = 1_782_000_000 * SECOND
TOKEN = "token-of-the-sender-of-this-test"
TEXT_KEY = b"a text that the sender has"
MAPPED = IngressSettings(format="json", flow_instance_id=("/id",))
SCHEME = SignatureSettings(scheme="hmac-sha256", header="X-Signature", id_header="X-Id")
SENDERS = {
    "tokened": Source(ingress=MAPPED, allow=(ip_network("192.0.2.0/24"),), max_body_bytes=100),
    "standard": Source(ingress=MAPPED, rate=0.5, burst=2),
    "scheme": Source(ingress=MAPPED, signature=SCHEME),
    "plugin": Source(
        ingress=IngressSettings(receiver="p"),
        allow=(ip_network("192.0.2.0/24"),),
        max_body_bytes=100,
        rate=0.5,
        burst=2,
    ),
    "path": Source(),
}
"""Sources with a fixed URL, and one without."""


@pytest.fixture
def senders():
    """An authenticator of these sources, with a clock that stands still."""
    known = {
        "tokened": SourceCredentials(tokens=(hashlib.sha256(TOKEN.encode()).hexdigest(),)),
        "standard": SourceCredentials(keys=KEYS["erp"]),
        "scheme": SourceCredentials(
            tokens=(hashlib.sha256(b"token-of-the-scheme").hexdigest(),), keys=(SigningKey(key=TEXT_KEY),)
        ),
        "plugin": SourceCredentials(),
        "path": SourceCredentials(tokens=(hashlib.sha256(b"token-of-the-path").hexdigest(),)),
    }
    store = SimpleNamespace(get=lambda _settings: Credentials(SENDERS, known))
    return Authenticator(store, SimpleNamespace(now=lambda: NOW))


def sent(authenticator, name, headers, body=b"{}", address="192.0.2.1"):
    """The result of a request to the fixed URL of a source, or the error, and the source that is known then."""
    request = testing.create_req(method="POST", path=f"/in/{name}", headers=headers, body=body, remote_addr=address)
    try:
        result = authenticator.authenticate_source(request, body, name, Settings())
    except (Forbidden, RateLimited, Unauthorized) as error:
        return error, getattr(request.context, "source", "")
    return result, request.context.source


def by_standard(body=b"{}", key=KEYS["erp"][0].key):
    """The headers of a request signed by Standard Webhooks."""
    return signatures.sign([key], body, message="m-1", at=NOW)


def by_scheme(body=b"{}", key=TEXT_KEY):
    """The headers of a request signed by the scheme of the source `scheme`."""
    return {"X-Signature": signature_schemes.compute(key, b"", body, "sha256").hex(), "X-Id": "r-1"}


def test_the_credential_of_the_source_in_the_path(senders):
    """A token or a signature, of Standard Webhooks or of the scheme, authenticates the source that the path names."""
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    assert sent(senders, "tokened", bearer)[0] == ("tokened", 100, None, False)
    assert sent(senders, "standard", by_standard())[0].webhook_id == "m-1"
    assert sent(senders, "scheme", by_scheme())[0].webhook_id == "r-1"
    assert sent(senders, "scheme", by_scheme() | {"Authorization": "Bearer token-of-the-scheme"})[1] == "scheme"
    assert sent(senders, "scheme", {"Authorization": "Bearer token-of-the-scheme"})[0].webhook_id is None


@pytest.mark.parametrize("name", ["tokened", "scheme", "nobody", "path", "plugin"])
def test_a_wrong_signature_costs_an_hmac_without_a_secret(senders, monkeypatch, name):
    """The time of the 401 does not reveal a name: where there is no secret, a key that nobody has is tried."""
    tried = []
    monkeypatch.setattr(signatures, "verify", lambda _signature, _body, keys, _now: tried.append(len(keys)))
    sent(senders, name, by_standard(key=b"another key of 24 bytes or more"))
    assert tried == [1]


@pytest.mark.parametrize(
    ("name", "headers", "cause"),
    [
        ("tokened", {}, "nothing_sent"),
        ("tokened", {"Authorization": "Bearer token-of-the-path"}, "token_of_another"),
        ("tokened", {"Authorization": "Bearer nobodys"}, "token_unknown"),
        ("tokened", {"Authorization": "Basic x"}, "token_malformed"),
        ("tokened", by_standard() | {"Authorization": f"Bearer {TOKEN}"}, "signature_unknown"),
        ("standard", by_standard(key=b"another key of 24 bytes or more"), "signature_unknown"),
        ("standard", by_scheme(), "nothing_sent"),
        ("scheme", by_standard(key=TEXT_KEY), "nothing_sent"),
        ("scheme", by_scheme(b"{ }"), "scheme_unknown"),
        ("scheme", by_scheme() | {"X-Id": ""}, "scheme_incomplete"),
        ("scheme", by_scheme() | {"Authorization": f"Bearer {TOKEN}"}, "token_of_another"),
        ("scheme", by_scheme(b"{ }") | {"Authorization": "Bearer token-of-the-scheme"}, "scheme_unknown"),
        ("nobody", {"Authorization": f"Bearer {TOKEN}"}, "source_unknown"),
        ("nobody", by_standard(), "source_unknown"),
        ("path", {"Authorization": "Bearer token-of-the-path"}, "source_unknown"),
        ("plugin", {}, "source_unknown"),
    ],
)
def test_no_credential_of_the_source_in_the_path(senders, name, headers, cause):
    """Anything else is the same 401, and only operators see the reason; no source is known then."""
    error, source = sent(senders, name, headers)
    assert (type(error), error.cause, source) == (Unauthorized, cause, "")
    assert str(error) == str(Unauthorized("unauthorized"))


def test_the_credential_is_checked_before_the_address(senders):
    """A forbidden address is answered 403 only with a valid credential."""
    error, source = sent(senders, "tokened", {"Authorization": f"Bearer {TOKEN}"}, address="203.0.113.9")
    assert (type(error), source) == (Forbidden, "tokened")
    error, source = sent(senders, "tokened", {}, address="203.0.113.9")
    assert (type(error), source) == (Unauthorized, "")


def test_the_rate_of_the_source(senders):
    """The rate of a source counts requests to its fixed URL; invalid ones do not use it up."""
    for _ in range(3):
        assert isinstance(sent(senders, "standard", {})[0], Unauthorized)
    assert [type(sent(senders, "standard", by_standard())[0]) for _ in range(3)][-1] is RateLimited


@pytest.mark.parametrize(
    "headers", [{}, by_scheme(key=b"another"), by_standard(key=b"another key of 24 bytes or more")]
)
def test_the_budget_does_not_reveal_source_names(headers):
    """Requests without a valid credential use up the budget of their address at the same rate for each name."""
    counts = set()
    for name in ("tokened", "standard", "scheme", "nobody"):
        known = Credentials(SENDERS, {"scheme": SourceCredentials(keys=(SigningKey(key=TEXT_KEY),))})
        authenticator = Authenticator(
            SimpleNamespace(get=lambda _settings, known=known: known), SimpleNamespace(now=lambda: NOW)
        )
        count = 0
        while isinstance(sent(authenticator, name, headers, LARGE)[0], Unauthorized):
            count += 1
        assert isinstance(sent(authenticator, name, headers, LARGE)[0], RateLimited)
        counts.add(count)
    assert len(counts) == 1


def test_a_known_sender_is_accepted_after_the_budget_is_used_up(senders):
    """A source that has signed from an address goes on while the budget of the address is used up."""
    assert sent(senders, "scheme", by_scheme())[1] == "scheme"
    while isinstance(sent(senders, "nobody", {}, LARGE)[0], Unauthorized):
        pass
    assert sent(senders, "scheme", by_scheme())[1] == "scheme"
    assert isinstance(sent(senders, "standard", by_standard())[0], RateLimited)


def test_a_scheme_is_only_for_the_fixed_url(senders):
    """On the path of a callback, the source's key signs nothing by Standard Webhooks, and its token is valid."""
    request = testing.create_req(method="POST", headers=by_standard(key=TEXT_KEY), body=b"{}", remote_addr="192.0.2.1")
    with pytest.raises(Unauthorized):
        senders.authenticate(request, b"{}", Settings())
    bearer = {"Authorization": "Bearer token-of-the-scheme"}
    request = testing.create_req(method="POST", headers=bearer, body=b"{}", remote_addr="192.0.2.1")
    assert senders.authenticate(request, b"{}", Settings()).source == "scheme"


def test_checks_before_a_receiver_is_called(senders):
    """The address, the size and the rate of a request are checked before a receiver sees it."""

    def admit(name, body=b"{}", address="192.0.2.1"):
        request = testing.create_req(method="POST", body=body, remote_addr=address)
        return senders.admit_to_receiver(request, body, name, Settings())

    assert [admit(name) for name in ("nobody", "path", "tokened")] == [False] * 3
    with pytest.raises(Unauthorized) as caught:
        admit("plugin", address="203.0.113.9")
    assert caught.value.cause == "receiver_address"
    with pytest.raises(LocalizedHTTPError) as too_large:
        admit("plugin", b" " * 101)
    assert too_large.value.status_code == 413
    assert [admit("plugin"), admit("plugin")] == [True, True]
    with pytest.raises(RateLimited):
        admit("plugin")


@pytest.mark.parametrize("terminated", [False, True])
@pytest.mark.parametrize(("body", "n_read"), [(b"", 0), (b"1234", 4), (b"12345", 5), (b"123456789", 5)])
def test_a_body_is_read_up_to_its_limit(terminated, body, n_read):
    """One byte more than the limit is read at most, and as much as the server has received of the body."""
    request = testing.create_req(method="POST", body=body)
    request.env["wsgi.input_terminated"] = terminated
    assert read_body(request, 4) == body[:n_read]


def test_a_body_ends_with_its_length_if_its_server_does_not_end_it():
    """On such a server, the bytes after the body may be of the next request, and a read of them may block."""
    request = testing.create_req(method="POST", body=b"{}POST /", headers={"Content-Length": "2"})
    assert read_body(request, 1000) == b"{}"
