"""The credentials of sources: a bearer token or a signature, together with an address, identifies a source."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import secrets
import threading
from typing import TYPE_CHECKING, Final

import structlog

from flowhooks.errors import Forbidden, SettingsError, Unauthorized
from flowhooks.settings import load_source_credentials
from flowhooks.web.callback import signatures

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flowhooks.settings import Network, Settings, SigningKey, Source, SourceCredentials
    from flowhooks.web.callback.signatures import Signature

DEFAULT_SOURCE: Final = "default"
"""Name of the source of all callbacks while no source is configured."""

_MAX_TOKEN_CHARS: Final = 1024
_BEARER: Final = re.compile(r"[Bb][Ee][Aa][Rr][Ee][Rr] +([A-Za-z0-9._~+/-]+=*)")
"""RFC 6750, section 2.1. It matches no comma, so a doubled header, which arrives joined by a comma, is rejected."""

_log = structlog.get_logger(__name__)


class Credentials:
    """The sources that may call, with their credentials.

    Args:
        sources: the sources with a credential, by name. If there are none, every caller is the source `"default"`.
        known: the credentials of each source, by its name.

    Attributes:
        known: as given.
        open: whether callers need no credential, because no source has one.
        sources: as given.
    """

    __slots__ = ("_signing_keys", "_tokens", "known", "open", "sources")

    def __init__(self, sources: Mapping[str, Source], known: Mapping[str, SourceCredentials]) -> None:
        self.open = not sources  # a source whose credentials cannot be read closes the listener, too
        self.sources, self.known = sources, known
        self._tokens: tuple[tuple[bytes, str], ...] = tuple(
            (bytes.fromhex(token), name)
            for name, source_credentials in known.items()
            for token in source_credentials.tokens
        )
        self._signing_keys: tuple[tuple[str, tuple[SigningKey, ...]], ...] = tuple(
            (name, source_credentials.keys)
            for name, source_credentials in known.items()
            # The keys of a signature scheme are for requests to the fixed URL of their source only.
            if source_credentials.keys and sources[name].signature is None
        )

    def by_token(self, authorization: str | None, address: str | None) -> str:
        """Return the name of the source to which the bearer token of a request belongs.

        Args:
            authorization: the request's Authorization header, or None.
            address: the client's IP address, or None if it is not known.

        Raises:
            Unauthorized: the header is missing or malformed, or no source has this token.
            Forbidden: the source may not call from this address.
        """
        name = self._source_of(authorization)
        self.check_address(name, address)
        return name

    def check_token(self, authorization: str | None, name: str) -> None:
        """Check that a request has a bearer token of a source.

        Args:
            authorization: the request's Authorization header, or None.
            name: the name of the source; it may be unknown.

        Raises:
            Unauthorized: the header is missing or malformed, or its token is none of this source.
        """
        if self._source_of(authorization) != name:
            raise Unauthorized("unauthorized", cause="token_of_another")

    def check_address(self, name: str, address: str | None) -> None:
        """Check that a source may call from an address.

        Args:
            name: the source.
            address: the client's IP address, or None if it is not known.

        Raises:
            Forbidden: the source may not call from this address.
        """
        if (allow := self.sources[name].allow) and not _is_in_networks(address, allow):
            raise Forbidden("forbidden", source=name)

    def _source_of(self, authorization: str | None) -> str:
        token = parse_bearer(authorization)
        if token is None:
            raise Unauthorized("unauthorized", cause="token_malformed" if authorization else "nothing_sent")
        digest = hashlib.sha256(token.encode("ascii")).digest()
        found: str | None = None
        for token_digest, name in self._tokens:  # always all tokens: the time must not reveal which one matched
            if hmac.compare_digest(digest, token_digest):
                found = name
        if found is None:
            raise Unauthorized("unauthorized", cause="token_unknown")
        return found

    def candidates(self, address: str | None, only: str | None = None) -> tuple[str, ...]:
        """Return the names of the sources that sign and may call from an address, before any signature is computed.

        Args:
            address: the client's IP address, or None if it is not known.
            only: the only source allowed, because the request also has its token; None: any source.

        Raises:
            Unauthorized: no source signs.
            Forbidden: some sources sign, but none of them may call from this address.
        """
        names = [name for name, _ in self._signing_keys if only in {None, name}]
        if not names:
            raise Unauthorized("unauthorized", cause="signature_unknown")
        allowed = tuple(
            name for name in names if not (allow := self.sources[name].allow) or _is_in_networks(address, allow)
        )
        if not allowed:
            raise Forbidden("forbidden_address")
        return allowed

    def verify_signature(self, signature: Signature, body: bytes, names: Sequence[str], now: int) -> str:
        """Return the name of the source that signed a request.

        Args:
            signature: the parsed signature headers.
            body: the body as received.
            names: the candidates, in the order in which they are tried.
            now: the time in microseconds since 1970.

        Raises:
            Unauthorized: none of the candidates signed it.
        """
        for name in names:
            if signatures.verify(signature, body, self.known[name].keys, now):
                return name
        raise Unauthorized("unauthorized", cause="signature_unknown")


def parse_bearer(authorization: str | None) -> str | None:
    """Return the token of an Authorization header; None if it is missing or does not hold exactly one bearer token."""
    match = _BEARER.fullmatch(authorization or "")
    return match.group(1) if match and len(match.group(1)) <= _MAX_TOKEN_CHARS else None


class CredentialStore:
    """The credentials of the sources, which are read again after each reload of the settings.

    Args:
        settings: the initial settings.
        environ: the environment variables that hold secrets.

    Raises:
        SettingsError: a token or a secret cannot be read.
    """

    __slots__ = ("_environ", "_lock", "_versions")

    def __init__(self, settings: Settings, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._lock = threading.Lock()
        credentials = Credentials(settings.calling_sources, load_source_credentials(settings, environ))
        self._versions: tuple[tuple[Settings, Credentials], ...] = ((settings, credentials),)

    def get(self, settings: Settings) -> Credentials:
        """Return the credentials for the current settings, or those just before them. May be called from any thread."""
        for version, credentials in self._versions:
            if version is settings:
                return credentials
        return self.reload(settings)

    def reload(self, settings: Settings) -> Credentials:
        """Read the credentials of new settings. If that fails, keep those of unchanged sources and drop the others."""
        with self._lock:
            for version, credentials in self._versions:
                if version is settings:
                    return credentials
            try:
                credentials = Credentials(settings.calling_sources, load_source_credentials(settings, self._environ))
            except SettingsError as error:
                _log.error(
                    "sources_read_failed",
                    why=str(error),
                    next="the credentials of unchanged sources stay valid; fix the error, then reload the settings",
                )
                credentials = _unchanged(settings.calling_sources, self._versions[0][1])
            self._versions = (settings, credentials), self._versions[0]
            return credentials


def _unchanged(sources: Mapping[str, Source], before: Credentials) -> Credentials:
    # Credentials of changed sources are dropped, so that nobody is authenticated as such a source.
    return Credentials(
        sources,
        {
            name: source_credentials
            for name, source_credentials in before.known.items()
            if before.sources[name] == sources.get(name)
        },
    )


def new_token() -> tuple[str, str]:
    """Return a token of 32 random bytes for an engine or an operator, and its SHA-256 in hex for the settings."""
    token = secrets.token_urlsafe(32)
    return token, hashlib.sha256(token.encode("ascii")).hexdigest()


def _is_in_networks(address: str | None, allow: tuple[Network, ...]) -> bool:
    try:
        client = ipaddress.ip_address(address or "")
    except ValueError:
        return False
    return any(client in network for network in allow)
