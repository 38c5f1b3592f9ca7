"""Authenticate callbacks by credential, and check their address, size and rate.

A signed request is checked in this order. May any source that signs call from this address? Were too many signatures
from there invalid? Is the body short enough for one of these sources? Which of them signed it? Is the body short enough
for that source? Has the source exceeded its rate?
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from flowhooks.errors import Forbidden, RateLimited, Unauthorized
from flowhooks.web.callback import local_only, signatures
from flowhooks.web.callback.rate_limit import RateLimiter
from flowhooks.web.callback.signature_budget import SignatureBudget
from flowhooks.web.errors import LocalizedHTTPError

if TYPE_CHECKING:
    import falcon

    from flowhooks.clock import Clock
    from flowhooks.settings import Settings
    from flowhooks.web.callback.credentials import Credentials, CredentialStore


class AuthenticatedRequest(NamedTuple):
    """A request that passed authentication.

    Attributes:
        source: the name of its source.
        max_body_bytes: the maximum size of its body in bytes.
        webhook_id: the id of the signed message; None if the request is not signed.
    """

    source: str
    max_body_bytes: int
    webhook_id: str | None = None


class Authenticator:
    """An authenticator of callbacks, which also limits their rate.

    Args:
        credentials: the credentials of the sources.
        clock: the clock.
    """

    def __init__(self, credentials: CredentialStore, clock: Clock) -> None:
        self._credentials = credentials
        self._clock = clock
        self._rate_limiter = RateLimiter(clock)
        self._signature_budget = SignatureBudget(clock)

    def authenticate(self, request: falcon.Request, body: bytes, settings: Settings) -> AuthenticatedRequest:
        """Authenticate a request. Its body is not parsed, and the ledger is not read.

        `request.context.source` is set as soon as the source is known, also if the request is then rejected.

        Args:
            request: the request.
            body: its body, as `read_body` returned it.
            settings: the current settings.

        Raises:
            Unauthorized: the request has no valid credential.
            Forbidden: its source may not call from this address, or no source is configured and a proxy or a web page
                sent the request.
            RateLimited: its source has exceeded its rate, or too many signatures from its address were invalid.
            LocalizedHTTPError: 413, the body of a signed request is too large.
        """
        headers, max_body_bytes = request.env, settings.http.max_body_bytes
        credentials = self._credentials.get(settings)
        if not credentials.open and signatures.is_signed(headers):
            return self._authenticate_signed(request, body, credentials, max_body_bytes)
        name = _source_of_token(request, credentials)
        request.context.source = name
        if credentials.open:
            local_only.check(headers, settings)
            return AuthenticatedRequest(name, max_body_bytes)
        self._check_rate(name, credentials)
        return AuthenticatedRequest(name, _body_limit(name, credentials, max_body_bytes))

    def _authenticate_signed(
        self, request: falcon.Request, body: bytes, credentials: Credentials, max_body_bytes: int
    ) -> AuthenticatedRequest:
        headers = request.env
        address = headers.get("REMOTE_ADDR")
        now = self._clock.now()
        signature = signatures.parse(headers, now)
        # If a request has both a token and a signature, both must be valid and of the same source.
        only = _source_of_token(request, credentials) if "HTTP_AUTHORIZATION" in headers else None
        candidates = credentials.candidates(address, only)
        names = self._signature_budget.select(address, candidates)
        check_size(body, max(_body_limit(name, credentials, max_body_bytes) for name in names))
        try:
            name = credentials.verify_signature(signature, body, names, now)
        except Unauthorized:
            n_keys = sum(len(credentials.known[name].keys) for name in names)
            self._signature_budget.record_failure(address, signatures=n_keys, body_bytes=len(body))
            if len(names) < len(candidates):  # a source whose secrets were not tried may have signed it
                raise self._signature_budget.rejection(address) from None
            raise
        self._signature_budget.record_success(address, name)
        request.context.source = name
        limit = _body_limit(name, credentials, max_body_bytes)
        check_size(body, limit)
        self._check_rate(name, credentials)
        return AuthenticatedRequest(name, limit, signature.id)

    def _check_rate(self, name: str, credentials: Credentials) -> None:
        source = credentials.sources[name]
        if source.rate and (wait := self._rate_limiter.acquire(name, source.rate, source.burst)):
            raise RateLimited("too_many", retry_after=wait)


def _source_of_token(request: falcon.Request, credentials: Credentials) -> str:
    try:
        return credentials.by_token(request.env.get("HTTP_AUTHORIZATION"), request.env.get("REMOTE_ADDR"))
    except Forbidden as error:
        request.context.source = error.source
        raise


def read_body(request: falcon.Request, limit: int) -> bytes:
    """Return the body of a request; only its first `limit` + 1 bytes, if it is longer."""
    raw: bytes = request.bounded_stream.read(limit + 1)
    return raw


def check_size(body: bytes, limit: int) -> None:
    """Check the size of a body.

    Raises:
        LocalizedHTTPError: 413, the body has more than `limit` bytes.
    """
    if len(body) > limit:
        raise LocalizedHTTPError(413, "too_large", limit=limit)


def _body_limit(name: str, credentials: Credentials, max_body_bytes: int) -> int:
    source_limit = credentials.sources[name].max_body_bytes
    return max_body_bytes if source_limit is None else min(source_limit, max_body_bytes)
