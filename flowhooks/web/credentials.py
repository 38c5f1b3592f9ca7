"""Who calls: a bearer token and an address make a source's name; it must not know what the call is about."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import secrets
from typing import TYPE_CHECKING, Final

from flowhooks.errors import Forbidden, Unauthorized

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowhooks.settings import Network, Source

ANYONE: Final = "default"
"""The source's name while none is configured."""

_LONGEST: Final = 1024
_BEARER: Final = re.compile(r"[Bb][Ee][Aa][Rr][Ee][Rr] +([A-Za-z0-9._~+/-]+=*)")
"""RFC 6750, section 2.1. No comma can match, so a doubled header, which arrives joined by one, is refused."""


class Credentials:
    """The sources that may call back.

    Args:
        sources: by name; none: whoever calls is `"default"`.
    """

    __slots__ = ("_known", "_open")

    def __init__(self, sources: Mapping[str, Source]) -> None:
        self._open = not sources  # a source without a token closes the door too
        self._known: tuple[tuple[bytes, str, tuple[Network, ...]], ...] = tuple(
            (bytes.fromhex(token), name, source.allow)
            for name, source in sources.items()
            for token in source.token_sha256
        )

    def source(self, authorization: str | None, address: str | None) -> str:
        """The name of the source that a request comes from.

        Args:
            authorization: the request's Authorization header, or None.
            address: the client's IP address, or None where it is not known.

        Raises:
            Unauthorized: the header is missing or malformed, or no source has this token.
            Forbidden: the source may not call from this address.
        """
        if self._open:
            return ANYONE
        token = bearer(authorization)
        if token is None:
            raise Unauthorized("unauthorized")
        digest = hashlib.sha256(token.encode("ascii")).digest()
        found: tuple[str, tuple[Network, ...]] | None = None
        for known, name, allow in self._known:  # to the end, always: the time taken does not tell whose token it was
            if hmac.compare_digest(digest, known):
                found = name, allow
        if found is None:
            raise Unauthorized("unauthorized")
        name, allow = found
        if allow and not _within(address, allow):
            raise Forbidden("forbidden")
        return name


def bearer(authorization: str | None) -> str | None:
    """The token of an Authorization header; None if there is no header, or not one with a single bearer token."""
    match = _BEARER.fullmatch(authorization or "")
    return match.group(1) if match and len(match.group(1)) <= _LONGEST else None


class Latest:
    """The credentials of sources that may change, made anew only when they have."""

    __slots__ = ("_made",)

    def __init__(self) -> None:
        self._made: tuple[Mapping[str, Source], Credentials] | None = None

    def of(self, sources: Mapping[str, Source]) -> Credentials:
        """The credentials of these sources; from any thread."""
        made = self._made
        if made is None or made[0] is not sources:
            made = self._made = sources, Credentials(sources)
        return made[1]


def new_token() -> tuple[str, str]:
    """A token for an engine or an operator, of 32 random bytes, and its SHA-256 in hexadecimal for the settings."""
    token = secrets.token_urlsafe(32)
    return token, hashlib.sha256(token.encode("ascii")).hexdigest()


def _within(address: str | None, allow: tuple[Network, ...]) -> bool:
    try:
        client = ipaddress.ip_address(address or "")
    except ValueError:
        return False
    # A socket that takes both IPv4 and IPv6 shows an IPv4 client as ::ffff:192.0.2.1.
    unwrapped = getattr(client, "ipv4_mapped", None) or client
    return any(unwrapped in network for network in allow)
