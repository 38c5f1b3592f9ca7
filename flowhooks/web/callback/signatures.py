"""Signatures as Standard Webhooks has them: read strictly, made and compared; it must not know sources or requests.

The specification is at https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md. The
library computes signatures. Its `verify` goes by the machine's own clock and takes times such as `1e9`, so what is
around a signature is checked here.
"""

from __future__ import annotations

import hmac
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from standardwebhooks.webhooks import Webhook

from flowhooks.clock import SECOND, to_datetime
from flowhooks.errors import Unauthorized

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from flowhooks.settings import Key

ID: Final = "HTTP_WEBHOOK_ID"
TIME: Final = "HTTP_WEBHOOK_TIMESTAMP"
SIGNATURE: Final = "HTTP_WEBHOOK_SIGNATURE"
"""The headers of a signed request, as WSGI names them."""
TOLERANCE: Final = 300 * SECOND
"""By how much the time of a signature may differ from ours, both ways."""
MOST_SIGNATURES: Final = 8
"""Signatures that one request may carry: an engine signs with two secrets while one is being replaced."""
LONGEST: Final = 2_048
"""Characters of the header with them."""

_ID: Final = re.compile(r"[!-+\-/-~]{1,256}")
"""Visible ASCII. No comma, which a doubled header is joined by. No full stop, which is what separates the id from the
time where they are signed: with one in it the same signature would be that of another id, another time and another
body."""
_TIME: Final = re.compile(r"[1-9][0-9]{0,10}")
_ONE: Final = re.compile(r"v1,([A-Za-z0-9+/]{43}=)")
_OTHER: Final = re.compile(r"(?!v1,)[A-Za-z0-9_]{1,16},[A-Za-z0-9+/=_-]{1,512}")
"""A signature of a version that is not known here, as `v1a`: passed over, for another beside it may be good."""


class Signature(NamedTuple):
    """What a request says of its signature.

    Attributes:
        id: the message's id.
        at: its time, in microseconds since 1970.
        ours: those of its signatures that can be compared here.
    """

    id: str
    at: int
    ours: tuple[str, ...]


def is_signed(headers: Mapping[str, Any]) -> bool:
    """Whether a request means to be signed: one of the headers is there."""
    return SIGNATURE in headers or ID in headers or TIME in headers


def read(headers: Mapping[str, Any], now: int) -> Signature:
    """What a request says of its signature.

    Args:
        headers: the request's, as WSGI has them.
        now: the time, in microseconds since 1970.

    Raises:
        Unauthorized: it cannot be a valid one.
    """
    message, time, signatures = headers.get(ID), headers.get(TIME), headers.get(SIGNATURE)
    if not message or not time or not signatures:
        raise Unauthorized("unauthorized", cause="signature_incomplete")
    if not _ID.fullmatch(message) or not _TIME.fullmatch(time) or len(signatures) > LONGEST:
        raise Unauthorized("unauthorized", cause="signature_malformed")
    given = signatures.split(" ")
    ours = tuple(one for one in given if _ONE.fullmatch(one))
    others = sum(1 for one in given if _OTHER.fullmatch(one))
    if len(given) > MOST_SIGNATURES or len(ours) + others < len(given) or not ours:
        raise Unauthorized("unauthorized", cause="signature_malformed")
    at = int(time) * SECOND
    if abs(now - at) > TOLERANCE:
        raise Unauthorized("unauthorized", cause="signature_time")
    return Signature(message, at, ours)


def matches(signature: Signature, body: bytes, keys: Iterable[Key], now: int) -> bool:
    """Whether one of the keys, of those that hold, has made one of the signatures.

    Args:
        signature: what the request says.
        body: its body, as it came.
        keys: of one source.
        now: the time, in microseconds since 1970.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return False
    for one in keys:
        if one.not_after is not None and now > one.not_after:
            continue
        expected = Webhook(one.key).sign(signature.id, to_datetime(signature.at), text)
        # As text: of a signature there is one way to write it in base64, and others are not taken.
        if any([hmac.compare_digest(expected, given) for given in signature.ours]):  # noqa: C419 (each, always)
            return True
    return False


def headers(keys: Iterable[bytes], body: bytes, *, message: str, at: int) -> dict[str, str]:
    """The headers that sign a request.

    Args:
        keys: each signs, so that a receiver may know one or the other.
        body: the body, in UTF-8.
        message: the message's id; the same whenever it is sent again.
        at: the time, in microseconds since 1970.
    """
    moment, text = to_datetime(at), body.decode()
    return {
        "webhook-id": message,
        "webhook-timestamp": str(at // SECOND),
        "webhook-signature": " ".join(Webhook(key).sign(message, moment, text) for key in keys),
    }
