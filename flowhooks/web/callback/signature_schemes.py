"""Signatures of senders that do not sign by Standard Webhooks: an HMAC in a header, as the settings describe it.

A scheme is a row of a table: hash function, header, encoding, prefix, and which headers have the time and the id. So
the signatures of GitHub, Gitea, Shopify, Jira and others need no code of their own.
"""

from __future__ import annotations

import base64
import hmac
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from flowhooks.clock import SECOND
from flowhooks.errors import Unauthorized
from flowhooks.web.callback.signatures import MAX_TIMESTAMP_SKEW

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from flowhooks.settings import SignatureSettings, SigningKey

_HEX: Final = re.compile(r"[0-9A-Fa-f]{64}")
_BASE64: Final = re.compile(r"[A-Za-z0-9+/]{43}=")
"""The forms of 32 bytes: both SHA-256 and SM3 have digests of 256 bits."""
_SECONDS: Final = re.compile(r"[1-9][0-9]{0,10}")
_MILLISECONDS: Final = re.compile(r"[1-9][0-9]{11,13}")
_ID: Final = re.compile(r"[!-+\--~]{1,256}")
"""Visible ASCII without comma, because a doubled header is joined by a comma."""


class SchemeSignature(NamedTuple):
    """The parsed signature headers of a request.

    Attributes:
        digest: the HMAC that the request states.
        signed_prefix: the bytes that are signed before the body: the time as it was sent and a full stop, or nothing.
        id: the id of the request; None if the scheme has no header for it.
    """

    digest: bytes
    signed_prefix: bytes
    id: str | None


def is_signed(headers: Mapping[str, Any], scheme: SignatureSettings) -> bool:
    """Return whether a request has the header with the signature.

    Args:
        headers: the request's headers, as WSGI names them.
        scheme: the signature scheme of the source.
    """
    return scheme.environ_name(scheme.header) in headers


def parse(headers: Mapping[str, Any], scheme: SignatureSettings, now: int) -> SchemeSignature:
    """Return the parsed signature headers of a request.

    Args:
        headers: the request's headers, as WSGI names them.
        scheme: the signature scheme of the source.
        now: the time in microseconds since 1970.

    Raises:
        Unauthorized: a header is missing or malformed, or the time differs from `now` by more than 5 minutes.
    """
    signature = _read(headers, scheme, scheme.header)
    time = _read(headers, scheme, scheme.timestamp_header) if scheme.timestamp_header else None
    request_id = _read(headers, scheme, scheme.id_header) if scheme.id_header else None
    digest = _decode(signature, scheme)
    if digest is None or (request_id is not None and not _ID.fullmatch(request_id)):
        raise Unauthorized("unauthorized", cause="scheme_malformed")
    if time is None:
        return SchemeSignature(digest, b"", request_id)
    if _SECONDS.fullmatch(time):
        timestamp = int(time) * SECOND
    elif _MILLISECONDS.fullmatch(time):
        timestamp = int(time) * (SECOND // 1000)
    else:
        raise Unauthorized("unauthorized", cause="scheme_malformed")
    if abs(now - timestamp) > MAX_TIMESTAMP_SKEW:
        raise Unauthorized("unauthorized", cause="scheme_time")
    return SchemeSignature(digest, f"{time}.".encode("ascii"), request_id)


def verify(
    signature: SchemeSignature, body: bytes, keys: Iterable[SigningKey], scheme: SignatureSettings, now: int
) -> bool:
    """Return whether the signature was made with one of the keys that have not expired.

    Args:
        signature: the parsed signature headers.
        body: the body as received.
        keys: the keys of the source.
        scheme: its signature scheme.
        now: the time in microseconds since 1970.
    """
    # A list, so that the number of computed signatures does not depend on which key is the right one.
    matches = [
        hmac.compare_digest(signature.digest, compute(key.key, signature.signed_prefix, body, scheme.hash_name))
        for key in keys
        if key.not_after is None or now <= key.not_after
    ]
    return any(matches)


def compute(key: bytes, signed_prefix: bytes, body: bytes, hash_name: str) -> bytes:
    """Return the HMAC of a request.

    Args:
        key: the key.
        signed_prefix: the bytes before the body.
        body: the body; it is not copied.
        hash_name: the hash function, as `hashlib` names it.
    """
    mac = hmac.new(key, signed_prefix, hash_name)
    mac.update(body)
    return mac.digest()


def _read(headers: Mapping[str, Any], scheme: SignatureSettings, header: str) -> str:
    value = headers.get(scheme.environ_name(header))
    if not value:
        raise Unauthorized("unauthorized", cause="scheme_incomplete")
    return str(value)


def _decode(text: str, scheme: SignatureSettings) -> bytes | None:
    """Return the digest in the header's value; None if it is malformed."""
    if not text.startswith(scheme.prefix):
        return None
    encoded = text.removeprefix(scheme.prefix)
    if scheme.encoding == "hex":
        return bytes.fromhex(encoded) if _HEX.fullmatch(encoded) else None
    if not _BASE64.fullmatch(encoded):
        return None
    digest = base64.b64decode(encoded)
    # One digest has one base64 form; others have bits that are not used.
    return digest if base64.b64encode(digest).decode() == encoded else None
