"""Lets call-backs in: by address, credential, size and number.

What is asked of a request that is signed is asked in this order: may anybody call from there who signs; is the body
short enough to be looked at; is it signed by one of them; how much does that one send.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from flowhooks.errors import RateLimited
from flowhooks.web.callback import local_only, signatures
from flowhooks.web.callback.rate_limit import RateLimiter
from flowhooks.web.errors import LocalizedHTTPError

if TYPE_CHECKING:
    import falcon

    from flowhooks.clock import Clock
    from flowhooks.settings import Settings
    from flowhooks.web.callback.credentials import Credentials, CredentialStore


class AuthenticatedRequest(NamedTuple):
    """A request that was let in.

    Attributes:
        source: whose it is.
        max_body_bytes: bytes that its body may have.
        body: its body, if that had to be read for it.
        webhook_id: the id under which it was signed; None if it is not signed.
    """

    source: str
    max_body_bytes: int
    body: bytes | None = None
    webhook_id: str | None = None


class Authenticator:
    """Lets call-backs in.

    Args:
        credentials: say which source sends one.
        clock: the time.
    """

    def __init__(self, credentials: CredentialStore, clock: Clock) -> None:
        self._credentials = credentials
        self._clock = clock
        self._rate_limiter = RateLimiter(clock)

    def authenticate(self, request: falcon.Request, settings: Settings) -> AuthenticatedRequest:
        """Let a request in; it is not parsed, and nothing is looked up in the ledger.

        Args:
            request: the request.
            settings: as they are now.

        Raises:
            Unauthorized: it has no valid credential.
            Forbidden: it comes from where its source may not call from, or no source is configured and a proxy or a web
                page has sent it.
            RateLimited: its source has sent too many.
            LocalizedHTTPError: 413, its body is too large.
        """
        headers, max_body_bytes = request.env, settings.http.max_body_bytes
        credentials = self._credentials.get(settings)
        if not credentials.open and signatures.is_signed(headers):
            return self._authenticate_signed(request, credentials, max_body_bytes)
        name = credentials.by_token(headers.get("HTTP_AUTHORIZATION"), headers.get("REMOTE_ADDR"))
        if credentials.open:
            local_only.check(headers, settings)
            return AuthenticatedRequest(name, max_body_bytes)
        self._check_rate(name, credentials)
        return AuthenticatedRequest(name, _body_limit(name, credentials, max_body_bytes))

    def _authenticate_signed(
        self, request: falcon.Request, credentials: Credentials, max_body_bytes: int
    ) -> AuthenticatedRequest:
        headers = request.env
        authorization, address = headers.get("HTTP_AUTHORIZATION"), headers.get("REMOTE_ADDR")
        now = self._clock.now()
        signature = signatures.parse(headers, now)
        # Whoever sends both has to have both right.
        only = None if authorization is None else credentials.by_token(authorization, address)
        names = credentials.candidates(address, only)
        body = read_body(request, max(_body_limit(name, credentials, max_body_bytes) for name in names))
        name = credentials.verify_signature(signature, body, names, now)
        limit = _body_limit(name, credentials, max_body_bytes)
        if len(body) > limit:
            raise LocalizedHTTPError(413, "too_large", limit=limit)
        self._check_rate(name, credentials)
        return AuthenticatedRequest(name, limit, body, signature.id)

    def _check_rate(self, name: str, credentials: Credentials) -> None:
        source = credentials.sources[name]
        if source.rate and (wait := self._rate_limiter.acquire(name, source.rate, source.burst)):
            raise RateLimited("too_many", retry_after=wait)


def read_body(request: falcon.Request, limit: int) -> bytes:
    """The body of a request.

    Raises:
        LocalizedHTTPError: 413, it has more than `limit` bytes.
    """
    raw: bytes = request.bounded_stream.read(limit + 1)
    if len(raw) > limit:
        raise LocalizedHTTPError(413, "too_large", limit=limit)
    return raw


def _body_limit(name: str, credentials: Credentials, max_body_bytes: int) -> int:
    source_limit = credentials.sources[name].max_body_bytes
    return max_body_bytes if source_limit is None else min(source_limit, max_body_bytes)
