"""Lets call-backs in: by address, credential, size and number; it must not know what they say, or what becomes of them.

What is asked of a request that is signed is asked in this order: may anybody call from there who signs; is the body
short enough to be looked at; is it signed by one of them; how much does that one send.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from flowhooks.errors import RateLimited
from flowhooks.web.callback import local_only, signatures
from flowhooks.web.callback.rate_limit import Rates
from flowhooks.web.errors import HTTPRefusal

if TYPE_CHECKING:
    import falcon

    from flowhooks.clock import Clock
    from flowhooks.settings import Settings
    from flowhooks.web.callback.credentials import Credentials, Latest


class Admitted(NamedTuple):
    """A request that was let in.

    Attributes:
        source: whose it is.
        limit: bytes that its body may have.
        body: its body, if that had to be read for it.
        message: the id under which it was signed; None if it is not signed.
    """

    source: str
    limit: int
    body: bytes | None = None
    message: str | None = None


class Gate:
    """Lets call-backs in.

    Args:
        credentials: say which source sends one.
        clock: the time.
    """

    def __init__(self, credentials: Latest, clock: Clock) -> None:
        self._credentials = credentials
        self._clock = clock
        self._rates = Rates(clock)

    def let_in(self, request: falcon.Request, settings: Settings) -> Admitted:
        """Let a request in; it is not parsed, and nothing is looked up in the ledger.

        Args:
            request: the request.
            settings: as they are now.

        Raises:
            Unauthorized: it has no valid credential.
            Forbidden: it comes from where its source may not call from, or no source is configured and a proxy or a web
                page has sent it.
            TooMany: its source has sent too many.
            HTTPRefusal: 413, its body is too large.
        """
        headers, most = request.env, settings.http.max_body_bytes
        credentials = self._credentials.of(settings)
        if not credentials.open and signatures.is_signed(headers):
            return self._let_signed_in(request, credentials, most)
        name = credentials.source(headers.get("HTTP_AUTHORIZATION"), headers.get("REMOTE_ADDR"))
        if credentials.open:
            local_only.check(headers, settings)
            return Admitted(name, most)
        self._count(name, credentials)
        return Admitted(name, _limit(name, credentials, most))

    def _let_signed_in(self, request: falcon.Request, credentials: Credentials, most: int) -> Admitted:
        headers = request.env
        authorization, address = headers.get("HTTP_AUTHORIZATION"), headers.get("REMOTE_ADDR")
        now = self._clock.now()
        signature = signatures.read(headers, now)
        # Whoever sends both has to have both right.
        only = None if authorization is None else credentials.source(authorization, address)
        names = credentials.signing(address, only)
        body = read_body(request, max(_limit(name, credentials, most) for name in names))
        name = credentials.signer(signature, body, names, now)
        limit = _limit(name, credentials, most)
        if len(body) > limit:
            raise HTTPRefusal(413, "too_large", limit=limit)
        self._count(name, credentials)
        return Admitted(name, limit, body, signature.id)

    def _count(self, name: str, credentials: Credentials) -> None:
        source = credentials.sources[name]
        if source.rate and (wait := self._rates.take(name, source.rate, source.burst)):
            raise RateLimited("too_many", retry_after=wait)


def read_body(request: falcon.Request, limit: int) -> bytes:
    """The body of a request.

    Raises:
        HTTPRefusal: 413, it has more than `limit` bytes.
    """
    raw: bytes = request.bounded_stream.read(limit + 1)
    if len(raw) > limit:
        raise HTTPRefusal(413, "too_large", limit=limit)
    return raw


def _limit(name: str, credentials: Credentials, most: int) -> int:
    own = credentials.sources[name].max_body_bytes
    return most if own is None else min(own, most)
