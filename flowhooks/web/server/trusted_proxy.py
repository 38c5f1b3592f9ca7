"""Derive the client address from the X-Forwarded-For header of a trusted proxy.

Only the last address in `X-Forwarded-For` counts, because that is the one the proxy itself has seen. `Forwarded` does
not count, because a proxy that writes one of the two headers passes the other on as the client sent it. Both are
removed from every request, with all other headers in which a client could claim to be another.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

FORWARDED_FOR: Final = "HTTP_X_FORWARDED_FOR"
FORWARDED_HEADERS: Final = (
    FORWARDED_FOR,
    "HTTP_X_FORWARDED_HOST",
    "HTTP_X_FORWARDED_PROTO",
    "HTTP_X_FORWARDED_PORT",
    "HTTP_X_FORWARDED_BY",
    "HTTP_FORWARDED",
)
"""Headers in which a client could claim to be another."""
WAS_FORWARDED: Final = "flowhooks.forwarded"
"""Set in the environ of a request from which such a header was removed."""
PEER: Final = "flowhooks.peer"
"""The address that the connection of a request comes from, in its environ: of the proxy if there is one."""
_PROXY_HEADERS: Final = frozenset(
    {
        *FORWARDED_HEADERS,
        WAS_FORWARDED,
        "HTTP_VIA",
        "HTTP_X_REAL_IP",
        "HTTP_X_FORWARDED",
        "HTTP_X_FORWARDED_SERVER",
        "HTTP_X_FORWARDED_PREFIX",
        "HTTP_X_ORIGINAL_FORWARDED_FOR",
        "HTTP_X_CLIENT_IP",
        "HTTP_TRUE_CLIENT_IP",
        "HTTP_CF_CONNECTING_IP",
    }
)
UNKNOWN_ADDRESS: Final = ""
"""Address of a client for which the proxy sent no valid address. It is in no network."""
_PORT: Final = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[0-9.]{7,15})(?::[0-9]{1,5})?")


def set_client_address(environ: dict[str, Any], trusted_proxy: str) -> None:
    """Set the client address of a request, and remove the headers in which a client could claim to be another.

    Args:
        environ: the request, as the connection's server made it.
        trusted_proxy: the address of the proxy whose `X-Forwarded-For` counts; `""`: none.
    """
    environ[PEER] = peer = environ.get("REMOTE_ADDR")
    if (address := client_address(peer, environ.get(FORWARDED_FOR), trusted_proxy)) != peer:
        environ["REMOTE_ADDR"] = environ["REMOTE_HOST"] = address
    for name in FORWARDED_HEADERS:
        if environ.pop(name, None) is not None:
            environ[WAS_FORWARDED] = True


def is_forwarded(environ: Mapping[str, Any]) -> bool:
    """Return whether a request has a header that proxies write."""
    return not _PROXY_HEADERS.isdisjoint(environ)


def client_address(peer: str | None, forwarded_for: str | None, trusted_proxy: str) -> str | None:
    """Return the address of the client of a request.

    Args:
        peer: the address that the connection comes from; None if it is not known.
        forwarded_for: the request's header `X-Forwarded-For`; None if it has none.
        trusted_proxy: the address of the proxy whose header counts; `""`: none.
    """
    if forwarded_for is None or not trusted_proxy or peer != trusted_proxy:
        return peer
    return parse_client_address(forwarded_for)


def parse_client_address(forwarded_for: str) -> str:
    """Return the last address of an `X-Forwarded-For` header, without a port; `""` if it is not an address."""
    last = forwarded_for.rpartition(",")[2].strip(" \t")
    if match := _PORT.fullmatch(last):
        last = match.group(1).strip("[]")
    try:
        address = ipaddress.ip_address(last)
    except ValueError:
        return UNKNOWN_ADDRESS
    return str(getattr(address, "ipv4_mapped", None) or address)
