"""Signatures of Standard Webhooks: strict parsing, verification and signing.

The specification is at https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md. The
library `standardwebhooks` signs requests. Its `verify` is not used, because it reads the machine's own clock, accepts
times such as `1e9`, and copies the body several times for each key. So requests are verified here.
"""

from __future__ import annotations

import base64
import hashlib
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
"""Microseconds by which the time of a signature may differ from this machine's time, in both directions."""
MAX_SIGNATURES: Final = 8
"""Maximum number of signatures in one request. An engine signs with two secrets while one is being replaced."""
MAX_HEADER_CHARS: Final = 2_048
"""Maximum length of the header with the signatures."""

_ID: Final = re.compile(r"[!-+\-/-~]{1,256}")
"""Visible ASCII without comma and full stop.

A doubled header is joined by a comma. The full stop separates the id from the time in the signed text: with one in the
id, the same signature would also be valid for another id, time and body."""
_TIMESTAMP: Final = re.compile(r"[1-9][0-9]{0,10}")
_V1_SIGNATURE: Final = re.compile(r"v1,([A-Za-z0-9+/]{43}=)")
_OTHER_SIGNATURE: Final = re.compile(r"(?!v1,)[A-Za-z0-9_]{1,16},[A-Za-z0-9+/=_-]{1,512}")
"""A signature of an unknown version, such as `v1a`. It is ignored, because another one beside it may be valid."""


class Signature(NamedTuple):
    """The parsed signature headers of a request.

    Attributes:
        id: the message's id.
        timestamp: its time, in microseconds since 1970.
        v1_signatures: the signatures of version 1, which can be verified here.
    """

    id: str
    timestamp: int
    v1_signatures: tuple[str, ...]


def is_signed(headers: Mapping[str, Any]) -> bool:
    """Return whether a request has any of the signature headers."""
    return SIGNATURE_HEADER in headers or ID_HEADER in headers or TIMESTAMP_HEADER in headers


def parse(headers: Mapping[str, Any], now: int) -> Signature:
    """Return the parsed signature headers of a request.

    Args:
        headers: the request's headers, as WSGI names them.
        now: the time in microseconds since 1970.

    Raises:
        Unauthorized: a header is missing or malformed, or the time differs too much from `now`.
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
    """Return whether one of the signatures was made with one of the keys that have not expired.

    Args:
        signature: the parsed signature headers.
        body: the body as received.
        keys: the keys of one source.
        now: the time in microseconds since 1970.
    """
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    for key in keys:
        if key.not_after is not None and now > key.not_after:
            continue
        expected = _compute(key.key, signature, body)
        # Compare the base64 text, because a signature has one valid base64 form, and other forms are rejected.
        if any([hmac.compare_digest(expected, candidate) for candidate in signature.v1_signatures]):  # noqa: C419 (always compare all)
            return True
    return False


def _compute(key: bytes, signature: Signature, body: bytes) -> str:
    # As `Webhook.sign` of the library, which copies the body three times for each key.
    mac = hmac.new(key, f"{signature.id}.{signature.timestamp // SECOND}.".encode(), hashlib.sha256)
    mac.update(body)
    return f"v1,{base64.b64encode(mac.digest()).decode()}"


def sign(keys: Iterable[bytes], body: bytes, *, message: str, at: int) -> dict[str, str]:
    """Return the headers that sign a request.

    Args:
        keys: the keys. The request is signed with each of them, so that a receiver needs only one.
        body: the body, in UTF-8.
        message: the message's id, which stays the same when the message is sent again.
        at: the time in microseconds since 1970.
    """
    time, text = to_datetime(at), body.decode()
    return {
        "webhook-id": message,
        "webhook-timestamp": str(at // SECOND),
        "webhook-signature": " ".join(Webhook(key).sign(message, time, text) for key in keys),
    }
