"""Authenticate callbacks by credential, and check their address, size and rate.

A signed request is checked in this order. May any source that signs call from this address? Were too many signatures
from there invalid? Is the body short enough for one of these sources? Which of them signed it? Is the body short enough
for that source? Has the source exceeded its rate?

A request to the fixed URL of a source names its source, so its credential is checked first, and the address after it:
without a valid credential, the response must not reveal which sources exist.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from flowhooks.errors import Forbidden, RateLimited, Unauthorized
from flowhooks.settings import SigningKey
from flowhooks.settings.signing_keys import MAX_SECRETS
from flowhooks.web.callback import local_only, signature_schemes, signatures
from flowhooks.web.callback.credentials import DEFAULT_SOURCE
from flowhooks.web.callback.rate_limit import RateLimiter
from flowhooks.web.callback.signature_budget import SignatureBudget
from flowhooks.web.errors import LocalizedHTTPError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import falcon

    from flowhooks.clock import Clock
    from flowhooks.settings import Settings, SignatureSettings, Source
    from flowhooks.web.callback.credentials import Credentials, CredentialStore

_DECOY_KEYS: Final = (SigningKey(key=secrets.token_bytes(32)),)
"""A key that no sender has, so that a signed request costs an HMAC even if its name is unknown or has only a token."""


class AuthenticatedRequest(NamedTuple):
    """A request that passed authentication.

    Attributes:
        source: the name of its source.
        max_body_bytes: the maximum size of its body in bytes.
        webhook_id: the id of the signed message; None if the request is not signed, or its scheme has no id.
        body_only: whether a signature of the body is the only credential, so that nobody vouches for the headers.
    """

    source: str
    max_body_bytes: int
    webhook_id: str | None = None
    body_only: bool = False


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
        if credentials.open:
            request.context.source = DEFAULT_SOURCE
            local_only.check(headers, settings)
            return AuthenticatedRequest(DEFAULT_SOURCE, max_body_bytes)
        if signatures.is_signed(headers):
            return self._authenticate_signed(request, body, credentials, max_body_bytes)
        request.context.source = name = _source_of_token(request, credentials)
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

    def authenticate_source(
        self, request: falcon.Request, body: bytes, name: str, settings: Settings
    ) -> AuthenticatedRequest:
        """Authenticate a request to the fixed URL of a source, as `authenticate` does, but as this source only.

        A request with a token and a signature needs both to be valid.

        Args:
            request: the request.
            body: its body, as `read_body` returned it.
            name: the name in the path; it may be unknown.
            settings: the current settings.

        Raises:
            Unauthorized: the request has no valid credential of this source, or there is no such source with a mapping.
            Forbidden: the source may not call from this address.
            RateLimited: the source has exceeded its rate, or too many requests from its address had no valid
                credential.
        """
        credentials = self._credentials.get(settings)
        address = request.env.get("REMOTE_ADDR")
        source = credentials.sources.get(name)
        is_known = source is not None and source.ingress is not None and not source.ingress.receiver
        try:
            webhook_id = self._verify_source(request.env, body, name, source if is_known else None, credentials)
        except Unauthorized:
            if is_known:
                raise
        if not is_known:  # also with the valid token of a source that has no mapping
            raise Unauthorized("unauthorized", cause="source_unknown")
        request.context.source = name
        credentials.check_address(name, address)
        self._check_rate(name, credentials)
        limit = _body_limit(name, credentials, settings.http.max_body_bytes)
        return AuthenticatedRequest(name, limit, webhook_id, body_only="HTTP_AUTHORIZATION" not in request.env)

    def admit_to_receiver(self, request: falcon.Request, body: bytes, name: str, settings: Settings) -> bool:
        """Check the address, the size and the rate of a request before the receiver of its source sees it.

        Args:
            request: the request.
            body: its body, as `read_body` returned it.
            name: the name of a source.
            settings: the current settings.

        Returns:
            Whether there is such a source with a receiver.

        Raises:
            Unauthorized: the source may not call from this address.
            RateLimited: the source has exceeded its rate.
            LocalizedHTTPError: 413, the body is too large.
        """
        credentials = self._credentials.get(settings)
        source = credentials.sources.get(name)
        if source is None or source.ingress is None or not source.ingress.receiver:
            return False
        try:
            credentials.check_address(name, request.env.get("REMOTE_ADDR"))
        except Forbidden:
            # Not 403: nothing is authenticated yet, and an address must not learn which names exist.
            raise Unauthorized("unauthorized", cause="receiver_address") from None
        check_size(body, _body_limit(name, credentials, settings.http.max_body_bytes))
        self._check_rate(name, credentials)
        return True

    def _verify_source(
        self, headers: Mapping[str, Any], body: bytes, name: str, source: Source | None, credentials: Credentials
    ) -> str | None:
        """Return the id of a signed request to a source, or None for one with a token; `source` is None if unknown."""
        scheme = None if source is None else source.signature
        has_token = "HTTP_AUTHORIZATION" in headers
        if has_token:
            credentials.check_token(headers["HTTP_AUTHORIZATION"], name)
        is_signed = signatures.is_signed(headers) if scheme is None else signature_schemes.is_signed(headers, scheme)
        if has_token and not is_signed:
            return None
        address = headers.get("REMOTE_ADDR")
        self._signature_budget.select(address, (name,))
        if not is_signed:
            with suppress(Unauthorized):  # a scheme ignores the headers of Standard Webhooks; an unknown name does not
                _verify(headers, body, None, _DECOY_KEYS, self._clock.now())
            self._charge(headers, body)
            raise Unauthorized("unauthorized", cause="nothing_sent")
        known = credentials.known.get(name) if source is not None else None
        keys = _DECOY_KEYS if known is None else known.keys or _DECOY_KEYS
        try:
            webhook_id = _verify(headers, body, scheme, keys, self._clock.now())
        except Unauthorized:
            self._charge(headers, body)
            raise
        self._signature_budget.record_success(address, name)
        return webhook_id

    def _charge(self, headers: Mapping[str, Any], body: bytes) -> None:
        """Charge a request without a valid credential to the budget of its address, the same for each name."""
        self._signature_budget.record_failure(headers.get("REMOTE_ADDR"), signatures=MAX_SECRETS, body_bytes=len(body))

    def _check_rate(self, name: str, credentials: Credentials) -> None:
        source = credentials.sources[name]
        if source.rate and (wait := self._rate_limiter.acquire(name, source.rate, source.burst)):
            raise RateLimited("too_many", retry_after=wait)


def _verify(
    headers: Mapping[str, Any], body: bytes, scheme: SignatureSettings | None, keys: Sequence[SigningKey], now: int
) -> str | None:
    """Return the id of a signed request; None if its scheme has none."""
    if scheme is None:
        signature = signatures.parse(headers, now)
        if not signatures.verify(signature, body, keys, now):
            raise Unauthorized("unauthorized", cause="signature_unknown")
        return signature.id
    scheme_signature = signature_schemes.parse(headers, scheme, now)
    if not signature_schemes.verify(scheme_signature, body, keys, scheme, now):
        raise Unauthorized("unauthorized", cause="scheme_unknown")
    return scheme_signature.id


def _source_of_token(request: falcon.Request, credentials: Credentials) -> str:
    try:
        return credentials.by_token(request.env.get("HTTP_AUTHORIZATION"), request.env.get("REMOTE_ADDR"))
    except Forbidden as error:
        request.context.source = error.source
        raise


def read_body(request: falcon.Request, limit: int) -> bytes:
    """Return the body of a request; only its first `limit` + 1 bytes, if it is longer."""
    # Our server has received the whole body, and ends the input after it, so it needs no wrapper that counts the bytes.
    stream = request.stream if request.env.get("wsgi.input_terminated") else request.bounded_stream
    raw: bytes = stream.read(limit + 1)
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
