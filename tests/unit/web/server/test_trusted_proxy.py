"""The client's address behind a trusted proxy, and without one."""

from __future__ import annotations

import pytest

from flowhooks.web.server.trusted_proxy import FORWARDED_HEADERS, PEER, parse_client_address, set_client_address


def seen(trusted, peer, **claims):
    """The request as the application sees it."""
    environ = {"REMOTE_ADDR": peer, **{f"HTTP_{name}": value for name, value in claims.items()}}
    set_client_address(environ, trusted)
    assert not environ.keys() & set(FORWARDED_HEADERS)
    assert environ[PEER] == peer
    return environ["REMOTE_ADDR"]


@pytest.mark.parametrize("trusted", ["", "10.0.0.1", "10.0.0.20", "::1", "*"])
def test_headers_of_other_clients_are_ignored(trusted):
    """Headers of a client about itself are ignored, unless the client is the proxy."""
    assert seen(trusted, "10.0.0.2", X_FORWARDED_FOR="192.0.2.1", FORWARDED="for=192.0.2.1") == "10.0.0.2"


def test_headers_of_the_proxy_are_trusted():
    """The last address is the proxy's own; earlier ones can come from the client."""
    assert seen("10.0.0.1", "10.0.0.1", X_FORWARDED_FOR="192.0.2.1") == "192.0.2.1"
    assert seen("10.0.0.1", "10.0.0.1", X_FORWARDED_FOR="127.0.0.1, 192.0.2.1") == "192.0.2.1"
    assert seen("10.0.0.1", "10.0.0.1", X_FORWARDED_FOR="x", FORWARDED="for=192.0.2.9") == ""
    assert seen("::1", "::1", X_FORWARDED_FOR="2001:db8::1") == "2001:db8::1"


def test_a_proxy_without_the_header_is_the_client():
    """Without the header the proxy is the client; `Forwarded` is ignored, because clients can send it."""
    assert seen("10.0.0.1", "10.0.0.1") == "10.0.0.1"
    assert seen("10.0.0.1", "10.0.0.1", FORWARDED="for=192.0.2.9", X_FORWARDED_HOST="x") == "10.0.0.1"


@pytest.mark.parametrize(
    ("said", "address"),
    [
        ("192.0.2.1:443", "192.0.2.1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("[2001:DB8::1]", "2001:db8::1"),
        ("a,\t192.0.2.1 ", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        *((said, "") for said in ("", ",", "192.0.2.1,", "unknown", "_hidden", "localhost", "192.0.2", "192.0.2.1:")),
        *((said, "") for said in ("192.0.2.256", "010.0.0.1", "2001:db8::1:443:x", "[192.0.2.1", "1" * 5000, "\ud800")),
        *((said, "") for said in ("192.0.2.1 10.0.0.1", "for=192.0.2.1", '"192.0.2.1"', "192.0.2.1\n", "\uff11.2.3.4")),
    ],
)
def test_addresses(said, address):
    """An address with an optional port is accepted; any other text is no client, and in no network."""
    assert parse_client_address(said) == address
