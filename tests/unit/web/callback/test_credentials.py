"""Authentication of callers: tokens, addresses, and texts that look like either."""

from __future__ import annotations

import hashlib
from ipaddress import ip_network

import pytest

from flowhooks.errors import Forbidden, Unauthorized
from flowhooks.settings import EngineSettings, Settings, SigningKey, Source, SourceCredentials
from flowhooks.web.callback.credentials import Credentials, CredentialStore, new_token

ERP = "erp-token-_~+/.0123456789=="
OLD = "erp-token-that-is-being-replaced"
CRM = "crm-token"


def sha256(token: str) -> str:
    """The stored form of a token in the settings."""
    return hashlib.sha256(token.encode()).hexdigest()


def known(sources):
    """Sources whose tokens are all in the settings."""
    return Credentials(
        sources, {name: SourceCredentials(tokens=source.token_sha256) for name, source in sources.items()}
    )


@pytest.fixture
def credentials() -> Credentials:
    """Two engines: one with two tokens and any address, one bound to its networks."""
    networks = tuple(map(ip_network, ("10.0.0.0/8", "2001:db8::/32", "192.0.2.7/32")))
    return known(
        {
            "erp": Source(token_sha256=(sha256(OLD), sha256(ERP))),
            "crm": Source(token_sha256=(sha256(CRM),), allow=networks),
        }
    )


@pytest.mark.parametrize("authorization", [None, "", f"Bearer {ERP}", "Basic x", "Bearer a, Bearer b"])
def test_no_sources(authorization):
    """While no source is configured, no token is valid: only `open` lets callers in."""
    credentials = Credentials({}, {})
    assert credentials.open
    with pytest.raises(Unauthorized):
        credentials.by_token(authorization, "203.0.113.9")


@pytest.mark.parametrize(
    ("authorization", "address", "name"),
    [
        (f"Bearer {ERP}", "203.0.113.9", "erp"),
        (f"Bearer {ERP}", None, "erp"),
        (f"bearer {OLD}", "not an address", "erp"),
        (f"BEARER  {CRM}", "10.255.0.1", "crm"),
        (f"Bearer {CRM}", "2001:db8::1", "crm"),
        (f"Bearer {CRM}", "192.0.2.7", "crm"),
    ],
)
def test_a_known_token_is_accepted(credentials, authorization, address, name):
    """A known token from an allowed address names its source; the scheme's case does not matter."""
    assert credentials.by_token(authorization, address) == name


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        " ",
        "Bearer",
        "Bearer ",
        f"Bearer{ERP}",
        f"Bearer\t{ERP}",
        f" Bearer {ERP}",
        f"Bearer {ERP} ",
        f"Bearer {ERP}\n",
        f"Bearer {ERP}x",
        f"Bearer {ERP[:-1]}",
        f"Bearer {ERP.upper()}",
        f"Bearer {sha256(ERP)}",
        f"Bearer {ERP}, Bearer {ERP}",
        f"Bearer {ERP},{ERP}",
        f"Bearer {ERP} {ERP}",
        f"Basic {ERP}",
        f"Token {ERP}",
        ERP,
        f'Bearer "{ERP}"',
        "Bearer =",
        "Bearer é",
        "Bearer \ud800",
        "Bearer 令牌",
        "Bearer \x00",
        "Bearer " + "a" * 1024,
        "Bearer " + "a" * 1025,
        "Bearer " + "a" * 1_000_000,
    ],
)
def test_invalid_credentials_are_rejected(credentials, authorization):
    """A missing, malformed, doubled, oversize or unknown credential is refused, always with the same text."""
    with pytest.raises(Unauthorized) as caught:
        credentials.by_token(authorization, "10.0.0.1")

    assert (caught.value.key, caught.value.params) == ("unauthorized", {})
    assert caught.value.text("en")
    assert caught.value.text("zh") != caught.value.text("en")


@pytest.mark.parametrize(
    "address",
    [
        "11.0.0.1",
        "2001:db9::1",
        "::ffff:10.0.0.1",
        "::ffff:0:10.0.0.1",
        "::10.0.0.1",
        "192.0.2.8",
        None,
        "",
        "unix:",
        "10.0.0.1:80",
        "10.1",
        "0x0a.0.0.1",
        "010.0.0.1",
        "10.0.0.1, 10.0.0.2",
        "localhost",
        "\x00",
    ],
)
def test_a_known_token_from_a_forbidden_address(credentials, address):
    """A known token from an address that is not allowed, or is invalid, is forbidden."""
    with pytest.raises(Forbidden) as caught:
        credentials.by_token(f"Bearer {CRM}", address)

    assert (caught.value.key, caught.value.params) == ("forbidden", {})
    assert caught.value.text("en")
    assert caught.value.text("zh") != caught.value.text("en")


def test_longest_token():
    """A token of 1,024 characters is accepted."""
    token = "a" * 1024

    assert known({"erp": Source(token_sha256=(sha256(token),))}).by_token(f"Bearer {token}", None) == "erp"


def test_source_without_token():
    """With a source without a token, no caller is accepted as `default`."""
    with pytest.raises(Unauthorized):
        known({"erp": Source(token_sha256=())}).by_token(None, "127.0.0.1")


def test_only_the_operator_sees_the_exact_fault(credentials):
    """The caller gets one text for a missing, malformed or unknown token; the operator sees which it is."""
    said, noted = set(), set()
    for authorization in (None, "Bearer", "Bearer not-a-known-token"):
        with pytest.raises(Unauthorized) as caught:
            credentials.by_token(authorization, None)
        for language in ("en", "zh"):
            said.add(caught.value.text(language))
            noted.add(caught.value.operator_text(language))
    assert len(said) == 2
    assert len(noted) == 6


def test_the_signing_source_is_checked_before_the_signature():
    """Without a signing source a signature is unknown; from an address of none it is forbidden."""
    key = SourceCredentials(keys=(SigningKey(key=b"k" * 32),))
    inside = Source(allow=(ip_network("10.0.0.0/8"),))
    several = Credentials(
        {"erp": inside, "crm": Source()}, {"erp": key, "crm": SourceCredentials(tokens=(sha256(CRM),))}
    )
    assert several.candidates("10.0.0.1") == ("erp",)
    for address in ("11.0.0.1", "", None):
        with pytest.raises(Forbidden):
            several.candidates(address)
    for wrong in (several, "crm"), (known({"erp": inside}), None):
        with pytest.raises(Unauthorized):
            wrong[0].candidates("10.0.0.1", wrong[1])


def test_repr_and_rejection_contain_no_token(credentials):
    """Neither the repr nor a refusal has a token."""
    with pytest.raises(Unauthorized) as caught:
        credentials.by_token("Bearer not-a-known-token", None)

    assert "not-a-known-token" not in f"{caught.value!r} {caught.value}"
    assert sha256(ERP) not in repr(credentials)


def test_new_token():
    """A new token is unique and is accepted by its hash."""
    token, digest = new_token()
    other, _ = new_token()

    assert token != other
    assert len(token) >= 43
    assert known({"erp": Source(token_sha256=(digest,))}).by_token(f"Bearer {token}", None) == "erp"


def test_a_token_in_a_file(tmp_path):
    """The file is read with the settings; if it becomes unreadable, the known token stays."""
    file = tmp_path / "token"
    file.touch(0o600)
    file.write_text("a-token-of-twenty-characters\n")

    def settings(**more):
        return Settings(sources={"erp": Source(token_file=str(file)), **more})

    first = settings()
    latest = CredentialStore(first, {})
    assert latest.get(first).by_token("Bearer a-token-of-twenty-characters", None) == "erp"
    file.write_text("another-token-of-the-same-kind\n")
    assert latest.get(first).by_token("Bearer a-token-of-twenty-characters", None) == "erp"
    second = settings()
    latest.reload(second)
    assert latest.get(second).by_token("Bearer another-token-of-the-same-kind", None) == "erp"
    assert latest.get(first).by_token("Bearer a-token-of-twenty-characters", None) == "erp"
    file.unlink()
    third = settings(crm=Source(token_sha256=(sha256(CRM),)))
    assert latest.get(third).by_token("Bearer another-token-of-the-same-kind", None) == "erp"
    with pytest.raises(Unauthorized):
        latest.get(third).by_token(f"Bearer {CRM}", None)


def test_a_pull_only_source_does_not_affect_callers():
    """A source without a credential neither requires one of callers nor is one that a caller can be."""
    pull_only = {"oa": Source(engine=EngineSettings(client="fake", url="http://oa"))}
    erp = {"erp": Source(token_sha256=(sha256(ERP),))}

    alone = Settings(sources=pull_only)
    assert CredentialStore(alone, {}).get(alone).open
    store = CredentialStore(both := Settings(sources=pull_only | erp), {})
    assert not store.get(both).open
    assert store.get(both).by_token(f"Bearer {ERP}", "127.0.0.1") == "erp"
    with pytest.raises(Unauthorized):
        store.get(both).by_token(None, "127.0.0.1")
    assert store.reload(alone).open
