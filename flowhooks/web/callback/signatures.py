"""Signatures as Standard Webhooks has them: read strictly, made and compared.

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

    from flowhooks.settings import SigningKey

ID_HEADER: Final = "HTTP_WEBHOOK_ID"
TIMESTAMP_HEADER: Final = "HTTP_WEBHOOK_TIMESTAMP"
SIGNATURE_HEADER: Final = "HTTP_WEBHOOK_SIGNATURE"
"""The headers of a signed request, as WSGI names them."""
MAX_TIMESTAMP_SKEW: Final = 300 * SECOND
"""By how much the time of a signature may differ from ours, both ways."""
MAX_SIGNATURES: Final = 8
"""Signatures that one request may carry: an engine signs with two secrets while one is being replaced."""
MAX_HEADER_CHARS: Final = 2_048
"""Characters of the header with them."""

_ID: Final = re.compile(r"[!-+\-/-~]{1,256}")
"""Visible ASCII. No comma, which a doubled header is joined by. No full stop, which is what separates the id from the
time where they are signed: with one in it the same signature would be that of another id, another time and another
body."""
_TIMESTAMP: Final = re.compile(r"[1-9][0-9]{0,10}")
_V1_SIGNATURE: Final = re.compile(r"v1,([A-Za-z0-9+/]{43}=)")
_OTHER_SIGNATURE: Final = re.compile(r"(?!v1,)[A-Za-z0-9_]{1,16},[A-Za-z0-9+/=_-]{1,512}")
"""A signature of a version that is not known here, as `v1a`: passed over, for another beside it may be good."""


class Signature(NamedTuple):
    """What a request says of its signature.

    Attributes:
        id: the message's id.
        timestamp: its time, in microseconds since 1970.
        v1_signatures: those of its signatures that can be compared here.
    """

    id: str
    timestamp: int
    v1_signatures: tuple[str, ...]


def is_signed(headers: Mapping[str, Any]) -> bool:
    """Whether a request means to be signed: one of the headers is there."""
    return SIGNATURE_HEADER in headers or ID_HEADER in headers or TIMESTAMP_HEADER in headers


def parse(headers: Mapping[str, Any], now: int) -> Signature:
    """What a request says of its signature.

    Args:
        headers: the request's, as WSGI has them.
        now: the time, in microseconds since 1970.

    Raises:
        Unauthorized: it cannot be a valid one.
    """
    webhook_id, time, signatures = headers.get(ID_HEADER), headers.get(TIMESTAMP_HEADER), headers.get(SIGNATURE_HEADER)
    if not webhook_id or not time or not signatures:
        raise Unauthorized("unauthorized", cause="signature_incomplete")
    if not _ID.fullmatch(webhook_id) or not _TIMESTAMP.fullmatch(time) or len(signatures) > MAX_HEADER_CHARS:
        raise Unauthorized("unauthorized", cause="signature_malformed")
    items = signatures.split(" ")
    v1_signatures = tuple(item for item in items if _V1_SIGNATURE.fullmatch(item))
    n_others = sum(1 for item in items if _OTHER_SIGNATURE.fullmatch(item))
    if len(items) > MAX_SIGNATURES or len(v1_signatures) + n_others < len(items) or not v1_signatures:
        raise Unauthorized("unauthorized", cause="signature_malformed")
    timestamp = int(time) * SECOND
    if abs(now - timestamp) > MAX_TIMESTAMP_SKEW:
        raise Unauthorized("unauthorized", cause="signature_time")
    return Signature(webhook_id, timestamp, v1_signatures)


def verify(signature: Signature, body: bytes, keys: Iterable[SigningKey], now: int) -> bool:
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
    for key in keys:
        if key.not_after is not None and now > key.not_after:
            continue
        expected = Webhook(key.key).sign(signature.id, to_datetime(signature.timestamp), text)
        # As text: of a signature there is one way to write it in base64, and others are not taken.
        if any([hmac.compare_digest(expected, candidate) for candidate in signature.v1_signatures]):  # noqa: C419 (each, always)
            return True
    return False


def sign(keys: Iterable[bytes], body: bytes, *, message: str, at: int) -> dict[str, str]:
    """The headers that sign a request.

    Args:
        keys: each signs, so that a receiver may know one or the other.
        body: the body, in UTF-8.
        message: the message's id; the same whenever it is sent again.
        at: the time, in microseconds since 1970.
    """
    time, text = to_datetime(at), body.decode()
    return {
        "webhook-id": message,
        "webhook-timestamp": str(at // SECOND),
        "webhook-signature": " ".join(Webhook(key).sign(message, time, text) for key in keys),
    }
