"""The spelling of client addresses, and the network by which clients are counted.

A client with many addresses in one network does not count as many clients.
"""

from __future__ import annotations

import ipaddress
from typing import Final

IPV6_PREFIX_BITS: Final = 64
"""Length of the prefix that one IPv6 subscriber usually gets. Within it a client chooses its addresses freely."""


def plain_ipv4(address: str) -> str:
    """Return an IPv4 address that is written as IPv6 (`::ffff:192.0.2.1`) as IPv4, and any other text as it is."""
    try:
        mapped = ipaddress.IPv6Address(address).ipv4_mapped
    except ValueError:
        return address
    return address if mapped is None else str(mapped)


def client_network(address: str) -> str:
    """Return an IPv4 address as it is, and the /64 network of an IPv6 address.

    Args:
        address: a client's address. An IPv4 address may be written as IPv6 (`::ffff:192.0.2.1`).

    Returns:
        The address or network, in one spelling; `address` itself if it is not an IP address.
    """
    if ":" not in address:
        return address
    try:
        parsed = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((parsed, IPV6_PREFIX_BITS), strict=False))
