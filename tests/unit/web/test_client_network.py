"""The networks by which clients are counted."""

from __future__ import annotations

import pytest

from flowhooks.web.client_network import client_network, plain_ipv4


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2::", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::", "2001:db8:1:3::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("", ""),
        ("unix:", "unix:"),
        (":x", ":x"),
    ],
)
def test_networks(address, network):
    """IPv4 counts by address and IPv6 by /64; anything else counts as it is."""
    assert client_network(address) == network


@pytest.mark.parametrize(
    ("address", "plain"),
    [
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::FFFF:c000:201", "192.0.2.1"),
        *(
            (address, address)
            for address in ("192.0.2.1", "2001:db8::1", "::1", "::192.0.2.1", "fe80::1%eth0", "", ":x")
        ),
    ],
)
def test_plain_ipv4(address, plain):
    """Only an IPv4 address written as IPv6 is changed."""
    assert plain_ipv4(address) == plain
