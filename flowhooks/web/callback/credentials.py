"""Who calls: a bearer token or a signature, and an address, make a source's name."""

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
"""The source's name while none is configured."""

_MAX_TOKEN_CHARS: Final = 1024
_BEARER: Final = re.compile(r"[Bb][Ee][Aa][Rr][Ee][Rr] +([A-Za-z0-9._~+/-]+=*)")
"""RFC 6750, section 2.1. No comma can match, so a doubled header, which arrives joined by one, is refused."""

_log = structlog.get_logger(__name__)


class Credentials:
    """The sources that may call back.

    Args:
        sources: by name; none: whoever calls is `"default"`.
        known: what each is known by, by its name.

    Attributes:
        known: as given.
        open: whether anybody may call.
        sources: as given.
    """

    __slots__ = ("_signing_keys", "_tokens", "known", "open", "sources")

    def __init__(self, sources: Mapping[str, Source], known: Mapping[str, SourceCredentials]) -> None:
        self.open = not sources  # a source that nothing is known of closes the door too
        self.sources, self.known = sources, known
        self._tokens: tuple[tuple[bytes, str, tuple[Network, ...]], ...] = tuple(
            (bytes.fromhex(token), name, sources[name].allow)
            for name, source_credentials in known.items()
            for token in source_credentials.tokens
        )
        self._signing_keys: tuple[tuple[str, tuple[SigningKey, ...]], ...] = tuple(
            (name, source_credentials.keys) for name, source_credentials in known.items() if source_credentials.keys
        )

    def by_token(self, authorization: str | None, address: str | None) -> str:
        """The name of the source whose bearer token a request carries.

        Args:
            authorization: the request's Authorization header, or None.
            address: the client's IP address, or None where it is not known.

        Raises:
            Unauthorized: the header is missing or malformed, or no source has this token.
            Forbidden: the source may not call from this address.
        """
        if self.open:
            return DEFAULT_SOURCE
        token = parse_bearer(authorization)
        if token is None:
            raise Unauthorized("unauthorized", cause="token_malformed" if authorization else "nothing_sent")
        digest = hashlib.sha256(token.encode("ascii")).digest()
        match: tuple[str, tuple[Network, ...]] | None = None
        for (
            token_digest,
            name,
            allow,
        ) in self._tokens:  # to the end, always: the time taken does not tell whose token it was
            if hmac.compare_digest(digest, token_digest):
                match = name, allow
        if match is None:
            raise Unauthorized("unauthorized", cause="token_unknown")
        name, allow = match
        if allow and not _is_in_networks(address, allow):
            raise Forbidden("forbidden")
        return name

    def candidates(self, address: str | None, only: str | None = None) -> tuple[str, ...]:
        """The names of the sources that sign, and may call from an address; before anything is computed.

        Args:
            address: the client's IP address, or None where it is not known.
            only: the one that it must be, as another credential has said.

        Raises:
            Unauthorized: there is none that signs.
            Forbidden: there are some, and none of them may call from there.
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
        """The name of the source that has signed a request.

        Args:
            signature: what the request says of it.
            body: its body, as it came.
            names: who it may be.
            now: the time, in microseconds since 1970.

        Raises:
            Unauthorized: it is none of them.
        """
        for name, keys in self._signing_keys:
            if name in names and signatures.verify(signature, body, keys, now):
                return name
        raise Unauthorized("unauthorized", cause="signature_unknown")


def parse_bearer(authorization: str | None) -> str | None:
    """The token of an Authorization header; None if there is no header, or not one with a single bearer token."""
    match = _BEARER.fullmatch(authorization or "")
    return match.group(1) if match and len(match.group(1)) <= _MAX_TOKEN_CHARS else None


class CredentialStore:
    """The credentials of the sources, which are read again whenever the settings are.

    Args:
        settings: as they are at the start.
        environ: the environment that secrets are taken from.

    Raises:
        SettingsError: a token or a secret cannot be had.
    """

    __slots__ = ("_environ", "_lock", "_versions")

    def __init__(self, settings: Settings, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._lock = threading.Lock()
        credentials = Credentials(settings.sources, load_source_credentials(settings, environ))
        self._versions: tuple[tuple[Settings, Credentials], ...] = ((settings, credentials),)

    def get(self, settings: Settings) -> Credentials:
        """The credentials by some settings, those of now or those of a moment ago; from any thread."""
        for version, credentials in self._versions:
            if version is settings:
                return credentials
        return self.reload(settings)

    def reload(self, settings: Settings) -> Credentials:
        """Read again what is known of the sources; what cannot be read is as it was, and nothing where it was not."""
        with self._lock:
            for version, credentials in self._versions:
                if version is settings:
                    return credentials
            try:
                credentials = Credentials(settings.sources, load_source_credentials(settings, self._environ))
            except SettingsError as error:
                _log.error("sources_read_failed", why=str(error), next="what was known of them before is taken")
                credentials = _unchanged(settings.sources, self._versions[0][1])
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
    """A token for an engine or an operator, of 32 random bytes, and its SHA-256 in hexadecimal for the settings."""
    token = secrets.token_urlsafe(32)
    return token, hashlib.sha256(token.encode("ascii")).hexdigest()


def _is_in_networks(address: str | None, allow: tuple[Network, ...]) -> bool:
    try:
        client = ipaddress.ip_address(address or "")
    except ValueError:
        return False
    # A socket that takes both IPv4 and IPv6 shows an IPv4 client as ::ffff:192.0.2.1.
    unwrapped = getattr(client, "ipv4_mapped", None) or client
    return any(unwrapped in network for network in allow)
